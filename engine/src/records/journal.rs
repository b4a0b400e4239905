//! The thread that writes records, so that neither a shard nor the start of a mlet ever waits for a disk or for who reads
//! a pipe.
//!
//! Not here: what a line looks like (`json.rs`, `joblog.rs`), how files take it (`line_file.rs`), and what else a results
//! folder holds (`results_folder.rs`). Invariant: what cannot be written is lost, counted and told, and nothing else is;
//! what was written lies on the disk a second later.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::iter;
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

/// How long the end of a run waits for room for its last records, and then for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a record waits for others that are written with it: each wakes the thread otherwise.
const GATHERING: Duration = Duration::from_millis(5);

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
    /// What could not be written; told once the thread is through.
    unwritten: Receiver<Unwritten>,
    /// How many found no room.
    lost: u64,
    /// How long, in all, those that find no room wait for it: not at all while sessions go on.
    patience: Duration,
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
        Ok(Some(Self { entries, unwritten, lost: 0, patience: Duration::ZERO, shown }))
    }

    /// Queues a record.
    pub(crate) fn push(&mut self, mut entry: Entry) {
        loop {
            match (self.entries.try_send(entry), self.patience) {
                (Ok(()), _) => return,
                (Err(TrySendError::Full(refused)), patience) if !patience.is_zero() => {
                    entry = refused;
                    thread::sleep(GATHERING);
                    self.patience = patience.saturating_sub(GATHERING);
                }
                (Err(_), _) => break,
            }
        }
        if self.lost == 0 {
            warn!("records are lost: {} takes them too slowly", self.shown);
        }
        self.lost += 1;
    }

    /// From now on no session goes on that could be held up: the records of many that end at once may wait for room, but
    /// not for long in all.
    pub(crate) fn be_patient(&mut self) {
        self.patience = PATIENCE;
    }

    /// Waits until everything has been written, but not for long. What has not been, in words; `None` if everything has.
    pub(crate) fn finish(self) -> Option<String> {
        let Self { entries, unwritten, lost, shown, .. } = self;
        drop(entries);
        match unwritten.recv_timeout(PATIENCE) {
            Ok(Unwritten { records, copies }) => in_words(records + lost, copies, &shown),
            Err(_) => Some(format!("the last records are not in {shown}: it takes nothing")),
        }
    }
}

/// What the thread could not write.
#[derive(Debug, Clone, Copy)]
struct Unwritten {
    records: u64,
    /// In folders of sessions.
    copies: u64,
}

fn in_words(records: u64, copies: u64, shown: &str) -> Option<String> {
    let records = match records {
        0 => None,
        1 => Some(format!("1 record is not whole in {shown}")),
        _ => Some(format!("{records} records are not whole in {shown}")),
    };
    let copies = (copies > 0)
        .then(|| format!("folders of sessions that lack session.json, or could not go: {copies}"));
    let both: Vec<String> = records.into_iter().chain(copies).collect();
    (!both.is_empty()).then(|| both.join("; "))
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
                thread::sleep(GATHERING);
                books.write(iter::once(entry).chain(received.try_iter().take(QUEUE_LEN)));
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
        self.push_event(&line);
        if let Some((file, _)) = &mut self.joblog
            && file.is_empty().unwrap_or(false)
        {
            file.push(joblog::HEADER.as_bytes());
        }
        self.flush();
    }

    fn write(&mut self, entries: impl Iterator<Item = Entry>) {
        entries.for_each(|entry| self.push(&entry));
        self.flush();
    }

    fn push(&mut self, entry: &Entry) {
        match entry {
            Entry::Session(record, written) => self.push_session(record, *written),
            Entry::Folded(outcome, count, written) => {
                let line = self.lines.of_folded(*outcome, *count, *written);
                self.push_event(&line);
            }
            Entry::Shard(totals, written) => {
                let line = self.lines.of_shard(totals, *written);
                self.push_event(&line);
            }
            Entry::RunEnd(counts, written) => {
                let line = self.lines.of_run_end(counts, *written);
                self.push_event(&line);
            }
        }
    }

    fn push_session(&mut self, record: &SessionRecord, written: Ticks) {
        let output = self.results.as_ref().and_then(|results| results.output_of(record));
        let line = self.lines.of_session(record, output.as_ref(), written);
        self.push_event(&line);
        if self.results.as_ref().is_some_and(ResultsFolder::has_copies) {
            // Before its copy, or who is killed in between leaves a copy of a record that there is not, and the endpoint
            // is measured again.
            self.flush();
        }
        if let Some(results) = &mut self.results {
            results.complete(record, &line);
        }
        if let Some((file, command)) = &mut self.joblog
            && let Some(line) = joblog::line(record, command)
        {
            file.push(line.as_bytes());
        }
    }

    fn push_event(&mut self, line: &[u8]) {
        self.events.iter_mut().for_each(|file| file.push(line));
    }

    fn flush(&mut self) {
        self.events.iter_mut().for_each(LineFile::flush);
        if let Some((file, _)) = &mut self.joblog {
            file.flush();
        }
    }

    fn sync(&mut self) {
        self.events.iter_mut().for_each(LineFile::sync);
        if let Some((file, _)) = &mut self.joblog {
            file.sync();
        }
    }

    fn unwritten(&self) -> Unwritten {
        let events = self.events.iter().map(LineFile::unwritten).sum::<u64>();
        let joblog = self.joblog.as_ref().map_or(0, |(file, _)| file.unwritten());
        let copies = self.results.as_ref().map_or(0, ResultsFolder::unwritten);
        Unwritten { records: events + joblog, copies }
    }
}

#[cfg(test)]
mod tests;
