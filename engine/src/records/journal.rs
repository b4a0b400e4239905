//! The thread that writes records, so that neither a shard nor the start of a mlet ever waits for a disk or for who reads
//! a pipe.
//!
//! Not here: what a line looks like (`json.rs`, `joblog.rs`), how files take it (`line_file.rs`), and what else a results
//! folder holds (`results_folder.rs`). Invariant: what cannot be written is lost, counted and told, and nothing else is;
//! what was written lies on the disk a second later.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::joblog;
use super::json::Lines;
use super::line_file::LineFile;
use super::outcome::OutcomeKind;
use super::record::{SessionRecord, ShardTotals};
use super::results_folder::ResultsFolder;
use crate::config::Recording;
use packetlab::time::Ticks;

/// Records that may wait to be written: some megabytes, and more than sessions end in a second.
const QUEUE_LEN: usize = 8192;

/// How long the end of a run waits for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much later than its writing a record lies on the disk.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// What is written, and at what time it came about.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A session is over in every respect.
    Session(Box<SessionRecord>, Ticks),
    /// So many sessions ended so, and have no records of their own.
    Folded(OutcomeKind, u64, Ticks),
    /// A shard has ended.
    Shard(ShardTotals, Ticks),
    /// The run has ended, with so many sessions of each outcome.
    RunEnd(BTreeMap<OutcomeKind, u64>, Ticks),
}

/// Takes records and never blocks.
#[derive(Debug)]
pub(crate) struct Journal {
    entries: SyncSender<Entry>,
    /// How many could not be written; told once the thread is through.
    unwritten: Receiver<u64>,
    /// How many found no room.
    lost: u64,
    /// Where they go, for messages.
    shown: String,
}

/// A file of records that cannot be opened.
#[derive(Debug)]
pub(crate) struct OpenError {
    /// Its name.
    pub(crate) shown: String,
    /// Why.
    pub(crate) error: io::Error,
}

impl Journal {
    /// Begins the files of a run, with a thread that ends with the journal and takes the signal mask of the calling one.
    /// `None` if nothing is to be recorded.
    ///
    /// # Errors
    /// A file cannot be opened, or no thread can be had.
    pub(crate) fn open(recording: &Recording, now: Ticks) -> Result<Option<Self>, OpenError> {
        let mut books = Books::open(recording)?;
        let Some(shown) = books.shown() else { return Ok(None) };
        let (entries, received) = sync_channel(QUEUE_LEN);
        let (tell, unwritten) = sync_channel(1);
        let started = thread::Builder::new().name("records".into()).spawn(move || {
            books.begin(now);
            write_all(&received, &mut books);
            // It fails when nobody waits any more.
            let _ = tell.try_send(books.unwritten());
        });
        started.map_err(|error| OpenError { shown: shown.clone(), error })?;
        Ok(Some(Self { entries, unwritten, lost: 0, shown }))
    }

    /// Queues a record.
    pub(crate) fn push(&mut self, entry: Entry) {
        match self.entries.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                if self.lost == 0 {
                    warn!("records are lost: {} takes them too slowly", self.shown);
                }
                self.lost += 1;
            }
        }
    }

    /// Waits until everything has been written, but not for long.
    pub(crate) fn finish(self) -> Unwritten {
        let Self { entries, unwritten, lost, shown } = self;
        drop(entries);
        match unwritten.recv_timeout(PATIENCE) {
            Ok(unwritten) => Unwritten { lines: Some(unwritten + lost), shown },
            Err(_) => Unwritten { lines: None, shown },
        }
    }
}

/// What a run could not record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unwritten {
    /// How much; `None`: the last of it, and how much that is, is not known.
    lines: Option<u64>,
    /// Where it should be.
    shown: String,
}

impl Unwritten {
    /// Everything is written.
    pub(crate) fn is_nothing(&self) -> bool {
        self.lines == Some(0)
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, shown } = self;
        match lines {
            Some(1) => write!(f, "1 record is not whole in {shown}"),
            Some(lines) => write!(f, "{lines} records are not whole in {shown}"),
            None => write!(f, "the last records are not in {shown}: it takes nothing"),
        }
    }
}

/// The thread's body.
fn write_all(received: &Receiver<Entry>, books: &mut Books) {
    let mut sync_at: Option<Instant> = None;
    loop {
        let entry = match sync_at {
            None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => received.recv_timeout(at.saturating_duration_since(now())),
        };
        match entry {
            Ok(entry) => {
                books.write(&entry);
                sync_at.get_or_insert_with(|| now() + SYNC_INTERVAL);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return books.sync(),
        }
        if sync_at.is_some_and(|at| now() >= at) {
            books.sync();
            sync_at = None;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread that writes records has no other clock")]
fn now() -> Instant {
    Instant::now()
}

/// All that a run writes of its sessions.
struct Books {
    lines: Lines,
    events: Vec<LineFile<File>>,
    joblog: Option<(LineFile<File>, String)>,
    results: Option<ResultsFolder>,
}

impl Books {
    fn open(recording: &Recording) -> Result<Self, OpenError> {
        let open = |destination| {
            let opened = LineFile::open(destination);
            opened.map_err(|error| OpenError { shown: destination.to_string(), error })
        };
        let joblog = recording.joblog.as_ref().map(|joblog| {
            let file = open(&joblog.destination)?;
            Ok((file, joblog.command.clone()))
        });
        Ok(Self {
            lines: Lines::of_run(recording.run),
            events: recording.events.iter().map(open).collect::<Result<_, _>>()?,
            joblog: joblog.transpose()?,
            results: recording.results.as_ref().map(ResultsFolder::new),
        })
    }

    /// The names of the files; `None` without one.
    fn shown(&self) -> Option<String> {
        let joblog = self.joblog.as_ref().map(|(file, _)| file.shown());
        let shown = self.events.iter().map(LineFile::shown).chain(joblog).collect::<Vec<_>>();
        (!shown.is_empty()).then(|| shown.join(" and "))
    }

    fn begin(&mut self, now: Ticks) {
        let line = self.lines.of_run_start(now);
        self.write_event(&line);
        if let Some((file, _)) = &mut self.joblog
            && file.is_empty().unwrap_or(false)
        {
            file.write(joblog::HEADER.as_bytes());
        }
    }

    fn write(&mut self, entry: &Entry) {
        match entry {
            Entry::Session(record, written) => self.write_session(record, *written),
            Entry::Folded(outcome, count, written) => {
                let line = self.lines.of_folded(*outcome, *count, *written);
                self.write_event(&line);
            }
            Entry::Shard(totals, written) => {
                let line = self.lines.of_shard(totals, *written);
                self.write_event(&line);
            }
            Entry::RunEnd(counts, written) => {
                let line = self.lines.of_run_end(counts, *written);
                self.write_event(&line);
            }
        }
    }

    fn write_session(&mut self, record: &SessionRecord, written: Ticks) {
        let output = self.results.as_ref().and_then(|results| results.output_of(record));
        let line = self.lines.of_session(record, output.as_ref(), written);
        // Before its copy, or who is killed in between leaves a copy of a record that there is not, and the endpoint is
        // measured again.
        self.write_event(&line);
        if let Some(results) = &mut self.results {
            results.complete(record, &line);
        }
        if let Some((file, command)) = &mut self.joblog
            && let Some(line) = joblog::line(record, command)
        {
            file.write(line.as_bytes());
        }
    }

    fn write_event(&mut self, line: &[u8]) {
        self.events.iter_mut().for_each(|file| file.write(line));
    }

    fn sync(&mut self) {
        self.events.iter_mut().for_each(LineFile::sync);
        if let Some((file, _)) = &mut self.joblog {
            file.sync();
        }
    }

    fn unwritten(&self) -> u64 {
        let events = self.events.iter().map(LineFile::unwritten).sum::<u64>();
        let joblog = self.joblog.as_ref().map_or(0, |(file, _)| file.unwritten());
        events + joblog + self.results.as_ref().map_or(0, ResultsFolder::unwritten)
    }
}

#[cfg(test)]
mod tests;
