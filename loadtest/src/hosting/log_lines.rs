//! What connections log: so many lines of each, and so many of all together, and then how many were left
//! out; texts of peers are cut. A peer costs no more log than that, whatever it does.
//!
//! Not here: how lines are written (`log_writer`). Lines below the level of information are for whoever
//! asks for them with -v, and are not counted.

use std::fmt::{self, Arguments};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

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
}

impl Limited {
    fn new((per_second, at_once): (usize, usize)) -> Self {
        Self { pace: Pace::new(per_second, at_once), left_out: 0 }
    }

    /// Whether one more line may be written, and how many were left out before it.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.pace.try_use(1, now) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
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
        let mut limited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if limited.left_out > 0 {
            let left_out = limited.next(Instant::now());
            drop(limited);
            tell(left_out);
        }
    }

    fn write(&self, level: Level, text: Arguments<'_>) {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now());
        if next.is_some() {
            tell(next);
            write(level, text);
        }
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
        self.write(Level::WARN, text);
    }

    fn write(&mut self, level: Level, text: Arguments<'_>) {
        match self.limited.next(Instant::now()) {
            None => {}
            Some(0) => self.all.write(level, text),
            Some(left_out) => {
                self.all
                    .write(level, format_args!("{text} ({left_out} lines of it left out before)"));
            }
        }
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        let Limited { left_out, .. } = self.limited;
        if left_out > 0 {
            self.all
                .write(Level::INFO, format_args!("{}: {left_out} log lines left out", self.peer));
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

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(Brief("a=b;").to_string(), "a=b;");
        let long = format!("{}é", "x".repeat(4000));
        assert_eq!(Brief(&long).to_string(), format!("{}... (4002 bytes)", "x".repeat(200)));
    }
}
