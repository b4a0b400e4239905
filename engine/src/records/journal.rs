//! The threads that write records, so that neither a shard nor the start of a mlet ever waits for a disk or for who reads
//! a pipe.
//!
//! Not here: what a line looks like (`json.rs`, `joblog.rs`), how files take it (`line_file.rs`), and what else a results
//! folder holds (`results_folder.rs`). Invariant: what cannot be written is lost, counted and told, and nothing else is;
//! what was written lies on the disk a second later. Of each result it is told whether its record was written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::joblog;
use super::json::Lines;
use super::line_file::LineFile;
use super::outcome::OutcomeKind;
use super::record::{Command, SessionRecord, ShardTotals};
use super::results_folder::ResultsFolder;
use crate::config::Recording;
use crate::guards::{Guard, holds};
use crate::permits::{Results, SessionResult};
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
    /// A session is over in every respect, and holds its endpoint: its result, which others accept or refuse before its record
    /// is complete. Without its output, where that was to be kept, it is none.
    Result(Box<SessionRecord>, Ticks),
    /// So many sessions ended so, and have no records of their own.
    Folded(OutcomeKind, u64, Ticks),
    /// Whoever operates the run has asked for a change.
    Command(Command, Ticks),
    /// A shard has ended.
    Shard(ShardTotals, Ticks),
    /// The run has ended, with so many sessions of each outcome.
    RunEnd(BTreeMap<OutcomeKind, u64>, Ticks),
}

/// Takes records, and never blocks while sessions go on.
pub(crate) struct Journal {
    /// One for each file, so that one that takes nothing keeps nothing from the others.
    writers: Vec<Writer>,
    /// Where results go.
    results: Option<Results>,
}

/// A thread, and what is on the way to it.
#[derive(Debug)]
struct Writer {
    entries: SyncSender<Arc<Entry>>,
    /// What could not be written; told once the thread is through.
    unwritten: Receiver<Unwritten>,
    /// How many found no room.
    lost: u64,
    /// Where those of all files are counted that are lost, while the run goes on.
    lost_of_all: Arc<AtomicU64>,
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
    /// `None` if nothing is to be recorded. Records that are lost are added to `lost_of_all` as they are. Results
    /// go to `results` as well, once they are in the first file, which alone has them, or cannot be.
    ///
    /// # Errors
    /// A file cannot be opened, or no thread can be had.
    pub(crate) fn open(
        recording: &Recording,
        now: Ticks,
        lost_of_all: &Arc<AtomicU64>,
        results: Option<Results>,
    ) -> Result<Option<Self>, OpenError> {
        let mut books = Books::open_all(recording)?;
        if let Some(first) = books.first_mut() {
            first.results = results.clone();
        }
        let writers = books.into_iter().map(|books| Writer::start(books, now, lost_of_all));
        let writers = writers.collect::<Result<Vec<_>, _>>()?;
        Ok((!writers.is_empty()).then_some(Self { writers, results }))
    }

    /// Queues a record. A result that finds no room is told to be none.
    pub(crate) fn push(&mut self, entry: Entry) {
        let entry = Arc::new(entry);
        for (index, writer) in self.writers.iter_mut().enumerate() {
            let is_queued = writer.push(Arc::clone(&entry));
            if let (0, false, Entry::Result(record, _), Some(results)) =
                (index, is_queued, &*entry, &self.results)
            {
                results(record.facts.id, None);
            }
        }
    }

    /// From now on no session goes on that could be held up: the records of many that end at once may wait for room, but
    /// not for long in all.
    pub(crate) fn be_patient(&mut self) {
        self.writers.iter_mut().for_each(|writer| writer.patience = PATIENCE);
    }

    /// Waits until everything has been written, but not for long. What has not been, in words; `None` if everything has.
    pub(crate) fn finish(self) -> Option<String> {
        let until = now() + PATIENCE;
        let ending: Vec<_> = self.writers.into_iter().map(Writer::end).collect();
        let unwritten = ending
            .into_iter()
            .filter_map(|ending| ending.unwritten(until.saturating_duration_since(now())));
        let unwritten: Vec<_> = unwritten.collect();
        (!unwritten.is_empty()).then(|| unwritten.join("; "))
    }
}

impl Writer {
    fn start(
        mut books: Books,
        now: Ticks,
        lost_of_all: &Arc<AtomicU64>,
    ) -> Result<Self, OpenError> {
        let shown = books.shown();
        let (entries, received) = sync_channel(QUEUE_LEN);
        let (tell, unwritten) = sync_channel(1);
        let lost_in_thread = Arc::clone(lost_of_all);
        let started = thread::Builder::new().name("records".into()).spawn(move || {
            books.begin(now);
            write_all(&received, &mut books, &lost_in_thread);
            // It fails when nobody waits any more.
            let _ = tell.try_send(books.unwritten());
        });
        started.map_err(|error| OpenError { shown: shown.clone(), error })?;
        let lost_of_all = Arc::clone(lost_of_all);
        Ok(Self { entries, unwritten, lost: 0, lost_of_all, patience: Duration::ZERO, shown })
    }

    /// Whether there was room for it.
    fn push(&mut self, mut entry: Arc<Entry>) -> bool {
        loop {
            match (self.entries.try_send(entry), self.patience) {
                (Ok(()), _) => return true,
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
        self.lost_of_all.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// No more comes.
    fn end(self) -> Ending {
        let Self { unwritten, lost, shown, .. } = self;
        Ending { unwritten, lost, shown }
    }
}

/// A writer to which no more comes.
struct Ending {
    unwritten: Receiver<Unwritten>,
    lost: u64,
    shown: String,
}

impl Ending {
    fn unwritten(self, patience: Duration) -> Option<String> {
        let Self { unwritten, lost, shown } = self;
        match unwritten.recv_timeout(patience) {
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
fn write_all(received: &Receiver<Arc<Entry>>, books: &mut Books, lost_of_all: &AtomicU64) {
    let mut sync_at: Option<Instant> = None;
    let mut told = 0;
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
        let unwritten = books.unwritten().records;
        lost_of_all
            .fetch_add(unwritten - std::mem::replace(&mut told, unwritten), Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread that writes records has no other clock")]
fn now() -> Instant {
    Instant::now()
}

/// A file of records, with what is written when a record is in it.
struct Books {
    file: LineFile<File>,
    form: Form,
    /// Where results go, when their records are in it.
    results: Option<Results>,
}

/// What its lines are.
enum Form {
    /// Records, and the results folder whose output they tell of.
    Events(Lines, Option<ResultsFolder>),
    /// A line for each mlet of this command.
    Joblog(String),
}

impl Books {
    fn open_all(recording: &Recording) -> Result<Vec<Self>, OpenError> {
        let open = |destination, form| match LineFile::open(destination) {
            Ok(file) => Ok(Self { file, form, results: None }),
            Err(error) => Err(OpenError { shown: destination.to_string(), error }),
        };
        let events = recording.events.iter().enumerate().map(|(index, destination)| {
            // The folder's own file comes first: what else is in the folder follows that.
            let results = recording.results.as_ref();
            let results = results.map(|results| ResultsFolder::new(results, index == 0));
            let lines = Lines::of_run(recording.run, recording.campaign.clone());
            open(destination, Form::Events(lines, results))
        });
        let events = events.collect::<Vec<_>>();
        let joblog = recording.joblog.iter();
        let joblog = joblog.map(|log| open(&log.destination, Form::Joblog(log.command.clone())));
        events.into_iter().chain(joblog).collect()
    }

    fn shown(&self) -> String {
        self.file.shown().to_owned()
    }

    fn begin(&mut self, now: Ticks) {
        match &self.form {
            Form::Events(lines, _) => self.file.push(&lines.of_run_start(now)),
            Form::Joblog(_) if self.file.is_empty().unwrap_or(false) => {
                self.file.push(joblog::HEADER.as_bytes());
            }
            Form::Joblog(_) => {}
        }
        self.file.flush();
    }

    fn write(&mut self, entries: impl Iterator<Item = Arc<Entry>>) {
        entries.for_each(|entry| self.push(&entry));
        self.file.flush();
    }

    fn push(&mut self, entry: &Entry) {
        match (&mut self.form, entry) {
            (Form::Events(lines, results), Entry::Session(record, written)) => {
                let output = results.as_ref().and_then(|results| results.output_of(record));
                let line = lines.of_session(record, output.as_ref(), *written);
                self.file.push(&line);
                let Some(results) = results else { return };
                if results.has_copies() && holds(Guard::WritesBeforeCopy) {
                    // Before its copy, or who is killed in between leaves a copy of a record that there is not, and the
                    // endpoint is measured again.
                    self.file.flush();
                }
                results.complete(record, &line);
            }
            (Form::Events(lines, results), Entry::Result(record, written)) => {
                let Some(hand_over) = &self.results else { return };
                if results.as_ref().is_some_and(|results| results.has_lost(record)) {
                    return hand_over(record.facts.id, None);
                }
                let output = results.as_ref().and_then(|results| results.output_of(record));
                let line = lines.of_result(record, output.as_ref(), *written);
                // By itself, so that what becomes of it is known.
                self.file.flush();
                self.file.push(&line);
                let is_written = self.file.flush() || !holds(Guard::WritesBeforeResult);
                hand_over(record.facts.id, is_written.then(|| result_of(record, &line)));
            }
            (Form::Events(lines, _), Entry::Folded(outcome, count, written)) => {
                self.file.push(&lines.of_folded(*outcome, *count, *written));
            }
            (Form::Events(lines, _), Entry::Command(command, written)) => {
                self.file.push(&lines.of_command(command, *written));
            }
            (Form::Events(lines, _), Entry::Shard(totals, written)) => {
                self.file.push(&lines.of_shard(totals, *written));
            }
            (Form::Events(lines, _), Entry::RunEnd(counts, written)) => {
                self.file.push(&lines.of_run_end(counts, *written));
            }
            (Form::Joblog(command), Entry::Session(record, _)) => {
                if let Some(line) = joblog::line(record, command) {
                    self.file.push(line.as_bytes());
                }
            }
            (Form::Joblog(_), _) => {}
        }
    }

    fn sync(&mut self) {
        self.file.sync();
    }

    fn unwritten(&self) -> Unwritten {
        let copies = match &self.form {
            Form::Events(_, Some(results)) => results.unwritten(),
            Form::Events(_, None) | Form::Joblog(_) => 0,
        };
        Unwritten { records: self.file.unwritten(), copies }
    }
}

fn result_of(record: &SessionRecord, line: &[u8]) -> SessionResult {
    SessionResult {
        outcome: record.outcome().to_string(),
        record: String::from_utf8_lossy(line.trim_ascii_end()).into_owned(),
    }
}

#[cfg(test)]
mod tests;
