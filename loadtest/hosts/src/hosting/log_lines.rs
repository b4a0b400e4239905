//! What connections log: so many lines of each, and so many of all together, and then how many were left
//! out; texts of peers are cut. A peer costs no more log than that, whatever it does.
//!
//! Not here: how lines are written (`command_line::log`). Lines below the level of information are for whoever
//! asks for them with -v, and are not counted.

use std::fmt::{self, Arguments};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tracing::Level;

use super::pace::Pace;

/// Lines of one connection: those of a manager with some entries at once, then one a second.
const CONNECTION_LINES: (usize, usize) = (1, 20);
/// Lines of all connections together, a second and at once.
const ALL_LINES: (usize, usize) = (100, 500);
/// Bytes of a peer's text that a line shows.
const TEXT_LEN_MAX: usize = 200;

/// The log of all connections of a service.
#[derive(Debug)]
pub(crate) struct LogLines(Mutex<Limited>);

/// The log of one connection; what was left out of it is told at its end.
#[derive(Debug)]
pub(crate) struct ConnectionLog {
    all: Arc<LogLines>,
    peer: SocketAddr,
    limited: Limited,
}

#[derive(Debug)]
struct Limited {
    pace: Pace,
    left_out: u64,
    /// One of them was a warning, so that their number is told as one.
    warnings_left_out: bool,
}

impl Limited {
    fn new((per_second, at_once): (usize, usize)) -> Self {
        Self { pace: Pace::new(per_second, at_once), left_out: 0, warnings_left_out: false }
    }

    /// Whether one more line may be written, and how many were left out before it.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.pace.try_use(1, now) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }

    fn left_out_level(&self) -> Level {
        if self.warnings_left_out { Level::WARN } else { Level::INFO }
    }
}

impl LogLines {
    /// Nothing was logged yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Limited::new(ALL_LINES))))
    }

    /// For one connection.
    pub(crate) fn of(self: &Arc<Self>, peer: SocketAddr) -> ConnectionLog {
        ConnectionLog { all: Arc::clone(self), peer, limited: Limited::new(CONNECTION_LINES) }
    }

    /// Tells how many lines were left out since it was told last, if it can be told now.
    pub(crate) fn tell(&self) {
        let mut limited = self.limited();
        if limited.left_out > 0 && limited.pace.try_use(1, Instant::now()) {
            let left_out = std::mem::take(&mut limited.left_out);
            drop(limited);
            tell(Some(left_out));
        }
    }

    /// Whether it was written; if not, it is counted.
    fn write(&self, level: Level, text: Arguments<'_>) -> bool {
        let next = self.limited().next(Instant::now());
        if next.is_some() {
            tell(next);
            write(level, text);
        }
        next.is_some()
    }

    fn limited(&self) -> MutexGuard<'_, Limited> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(left_out: Option<u64>) {
    if let Some(left_out @ 1..) = left_out {
        tracing::warn!("{left_out} log lines of connections are left out: too many in a second");
    }
}

fn write(level: Level, text: Arguments<'_>) {
    if level == Level::WARN {
        tracing::warn!("{text}");
    } else {
        tracing::info!("{text}");
    }
}

impl ConnectionLog {
    /// Whose log it is.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Something to know.
    pub(crate) fn info(&mut self, text: Arguments<'_>) {
        if tracing::enabled!(Level::INFO) {
            self.write(Level::INFO, text);
        }
    }

    /// Something to look into.
    pub(crate) fn warn(&mut self, text: Arguments<'_>) {
        if tracing::enabled!(Level::WARN) {
            self.write(Level::WARN, text);
        }
    }

    fn write(&mut self, level: Level, text: Arguments<'_>) {
        let left_out = match self.limited.next(Instant::now()) {
            None => {
                self.limited.warnings_left_out |= level == Level::WARN;
                return;
            }
            Some(0) => {
                self.all.write(level, text);
                return;
            }
            Some(left_out) => left_out,
        };
        // The number of warnings is told as a warning.
        let level = level.min(self.limited.left_out_level());
        let text = format_args!("{text} ({left_out} lines of it left out before)");
        if self.all.write(level, text) {
            self.limited.warnings_left_out = false;
        } else {
            // They are still to be told; the line itself is counted with all others.
            self.limited.left_out = left_out;
        }
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        let Limited { left_out, .. } = self.limited;
        if left_out > 0 {
            let text = format_args!("{}: {left_out} log lines left out", self.peer);
            if !self.all.write(self.limited.left_out_level(), text) {
                // It was counted as one line, and stands for so many.
                self.all.limited().left_out += left_out - 1;
            }
        }
    }
}

/// A peer's text as a log line shows it: its beginning, and how long it is.
pub(crate) struct Brief<'t>(pub(crate) &'t str);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        match text.char_indices().nth(TEXT_LEN_MAX) {
            None => f.write_str(text),
            Some((end, _)) => {
                let front = text.get(..end).unwrap_or_default();
                write!(f, "{front}... ({} bytes)", text.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_the_count_comes_with_the_next() {
        let start = Instant::now();
        let mut limited = Limited::new((1, 20));
        let mut lines = |seconds| {
            let now = start + std::time::Duration::from_secs(seconds);
            (0..100).map(|_| limited.next(now)).collect::<Vec<_>>()
        };
        let first = lines(0);
        assert_eq!(first[..20], [Some(0); 20]);
        assert_eq!(first[20..], [None; 80]);
        assert_eq!(lines(1)[..2], [Some(80), None]);
    }

    /// What a log of this level shows of so many warnings of one connection, and the number of those that
    /// are not told yet; all connections may write so many lines.
    fn shown(level: Level, warnings: usize, all: usize) -> (String, u64) {
        let (reader, writer) = std::io::pipe().unwrap();
        let writer = move || writer.try_clone().unwrap();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(level).with_writer(writer).finish();
        let lines = Arc::new(LogLines(Mutex::new(Limited::new((1, all)))));
        tracing::subscriber::with_default(subscriber, || {
            let mut log = lines.of(([192, 0, 2, 1], 5).into());
            (0..warnings).for_each(|number| log.warn(format_args!("warning {number}")));
        });
        let left_out = lines.limited().left_out;
        (std::io::read_to_string(reader).unwrap(), left_out)
    }

    #[test]
    fn who_asks_for_warnings_only_hears_how_many_were_left_out() {
        let (log, _) = shown(Level::WARN, 25, 100);
        assert!(log.contains("warning 19") && !log.contains("warning 20"), "{log}");
        assert!(log.contains("192.0.2.1:5: 5 log lines left out"), "{log}");
        assert_eq!(shown(Level::ERROR, 25, 100), (String::new(), 0));
    }

    #[test]
    fn what_the_limit_of_all_refuses_stays_counted() {
        // All lines of the connection but five are left out by its own limit, and their number by that of all.
        let (_, left_out) = shown(Level::INFO, 25, 20);
        assert_eq!(left_out, 5);
        let (_, left_out) = shown(Level::INFO, 25, 7);
        assert_eq!(left_out, 18);
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(Brief("a=b;").to_string(), "a=b;");
        let long = format!("{}é", "x".repeat(4000));
        assert_eq!(Brief(&long).to_string(), format!("{}... (4002 bytes)", "x".repeat(200)));
    }
}
