//! The file of `--latency`: HdrHistogram's interval log, one line for each second and direction in which a time was taken,
//! and the thread that writes it.
//!
//! Stamps are absolute, as the base time of 0 says, and never before the start time above them, since readers pass over
//! what is: the wall clock is read once, and the one that is never set tells how much later it is. So logs of several runs
//! may follow one another in a file.
//!
//! Where the file takes nothing, as a pipe that nobody reads, the next interval is as much longer. Not here: the times
//! (`latency.rs`). Invariant: what cannot be written is lost, counted and told, and nothing else is; whatever is in the
//! file are whole lines.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{error, warn};

use super::both_ways::BothWays;
use super::latency::{Histograms, RunLatency};
use super::log_format;
use crate::sys::record_files;
use packetlab::escape::Escaped;

/// How long an interval is.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the end of a run waits for the last one to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// What stands above intervals, beside their start time.
const COMMENTS: [&str; 2] = [
    "Relay latency of pktxpmgr in nanoseconds; the column of maxima in milliseconds",
    "to_ep: from mlets to endpoints; from_ep: from endpoints to mlets",
];

/// The log, while the run goes on.
#[derive(Debug)]
pub(crate) struct IntervalLog {
    /// Dropped to end the thread.
    stop: SyncSender<()>,
    /// How many intervals could not be written; told once the thread is through.
    unwritten: Receiver<u64>,
    shown_path: String,
}

impl IntervalLog {
    /// Appends the times of a run to the file `path`, which is made for its owner alone if it is not there, by a thread that
    /// ends with the log. It takes the signal mask of the calling one.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be had.
    pub(crate) fn open(path: &Path, latency: Arc<RunLatency>) -> io::Result<Self> {
        let file = record_files::open_to_append(path)?;
        let shown_path = Escaped(path.as_os_str().as_bytes()).to_string();
        let (stop, stopped) = sync_channel(0);
        let (tell, unwritten) = sync_channel(1);
        let clock = Clock::start();
        let mut writer = Writer::new(file, shown_path.clone(), clock.start);
        thread::Builder::new().name("latency".into()).spawn(move || {
            writer.write_all_intervals(&latency, &clock, &stopped);
            // It fails when nobody waits any more.
            let _ = tell.try_send(writer.unwritten);
        })?;
        Ok(Self { stop, unwritten, shown_path })
    }

    /// Waits until the last interval has been written, but not for long, and tells and returns how many are not in the
    /// file. No time may be taken any more.
    pub(crate) fn finish(self) -> u64 {
        let Self { stop, unwritten, shown_path } = self;
        drop(stop);
        match unwritten.recv_timeout(PATIENCE) {
            Ok(0) => 0,
            Ok(intervals) => {
                warn!("{intervals} intervals of relay latency are not in {shown_path}");
                intervals
            }
            Err(_) => {
                warn!("the last relay latency is not in {shown_path}: it takes nothing");
                1
            }
        }
    }
}

/// Tells the time of day, from a look at it at the start, in milliseconds since 1970.
struct Clock {
    start: Duration,
    started: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, which no shard waits for")]
    fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: whole_milliseconds(since_1970), started: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.start + whole_milliseconds(self.started.elapsed())
    }
}

/// What the log can show: rounded there, an interval might seem to begin before the start.
fn whole_milliseconds(time: Duration) -> Duration {
    Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000)
}

/// What lines are appended to.
trait Appendable: Write {
    /// Takes back so many bytes from the end, where they are in a file.
    ///
    /// # Errors
    /// They have left for good.
    fn take_back(&mut self, len: usize) -> io::Result<()>;
}

impl Appendable for File {
    fn take_back(&mut self, len: usize) -> io::Result<()> {
        let whole = self.metadata()?.len();
        self.set_len(whole.saturating_sub(len as u64))
    }
}

/// The thread's part.
struct Writer<F> {
    file: F,
    shown_path: String,
    /// What stands above all intervals; empty once it has been written.
    head: Vec<u8>,
    unwritten: u64,
}

impl<F: Appendable> Writer<F> {
    /// Intervals begin at `start`, since 1970, or later.
    fn new(file: F, shown_path: String, start: Duration) -> Self {
        Self { file, shown_path, head: log_format::head(&COMMENTS, start), unwritten: 0 }
    }

    /// Writes intervals until told to stop, and then the last one.
    fn write_all_intervals(&mut self, latency: &RunLatency, clock: &Clock, stop: &Receiver<()>) {
        let mut begun = clock.start;
        loop {
            let wait = (begun + INTERVAL).saturating_sub(clock.now());
            let is_last = stop.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
            let ended = clock.now();
            self.write_interval(&latency.take(), begun, ended);
            if is_last {
                return;
            }
            begun = ended;
        }
    }

    /// Writes an interval that began and ended at these times since 1970.
    fn write_interval(&mut self, times: &Histograms, begun: Duration, ended: Duration) {
        let lines = lines(times, begun, ended.saturating_sub(begun));
        let text = [&self.head[..], &lines].concat();
        match self.append(&text) {
            Ok(()) => self.head.clear(),
            // It is tried again with the next.
            Err(_) if lines.is_empty() => {}
            Err(error) => {
                if self.unwritten == 0 {
                    error!(
                        "relay latency cannot be written to {}: {error}; the interval is lost, and so is each that \
                         cannot",
                        self.shown_path
                    );
                }
                self.unwritten += 1;
            }
        }
    }

    /// Appends all of it, or nothing where it is a file.
    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let error = match self.file.write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(len) => {
                    rest = &rest[len..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let written = text.len() - rest.len();
            if written > 0 {
                // A pipe has no reader any more who would be confused by half a line.
                let _ = self.file.take_back(written);
            }
            return Err(error);
        }
        Ok(())
    }
}

/// The lines of an interval, one for each direction in which a time was taken.
fn lines(times: &Histograms, begun: Duration, length: Duration) -> Vec<u8> {
    let BothWays { to_endpoint, from_endpoint } = times;
    let of_both = [("to_ep", to_endpoint), ("from_ep", from_endpoint)].into_iter();
    let taken = of_both.filter(|(_, times)| !times.is_empty());
    taken.flat_map(|(tag, times)| log_format::line(times, tag, begun, length)).collect()
}

#[cfg(test)]
mod tests;
