//! The file of records (`--events`), and the thread that writes it: a line each, a write a line, so that neither a shard
//! nor the start of a mlet ever waits for a disk or for who reads a pipe.
//!
//! Not here: what a line looks like (`json.rs`). Invariant: what cannot be written is lost, counted and told, and nothing
//! else is; a line that got half into the file ends there, and the next begins a line of its own.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::{error, warn};

use super::json;
use super::record::{SessionRecord, ShardTotals};
use packetlab::escape::Escaped;
use packetlab::time::Ticks;

/// Records that may wait to be written: some megabytes, and more than sessions end in a second.
const QUEUE_LEN: usize = 8192;

/// How long the end of a run waits for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is written, and at what time it came about.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A session is over in every respect.
    Session(Box<SessionRecord>, Ticks),
    /// A shard has ended.
    Shard(ShardTotals, Ticks),
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
    shown_path: String,
}

impl Journal {
    /// Appends to the file `path`, which is made if it is not there, by a thread that ends with the journal. It takes the
    /// signal mask of the calling one.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be had.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let shown_path = Escaped(path.as_os_str().as_bytes()).to_string();
        let (entries, received) = sync_channel(QUEUE_LEN);
        let (tell, unwritten) = sync_channel(1);
        let mut writer = Writer::new(file, shown_path.clone());
        thread::Builder::new().name("events".into()).spawn(move || {
            received.into_iter().for_each(|entry: Entry| writer.write(&entry));
            // It fails when nobody waits any more.
            let _ = tell.try_send(writer.unwritten);
        })?;
        Ok(Self { entries, unwritten, lost: 0, shown_path })
    }

    /// Queues a record.
    pub(crate) fn push(&mut self, entry: Entry) {
        match self.entries.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                if self.lost == 0 {
                    warn!("records are lost: {} takes them too slowly", self.shown_path);
                }
                self.lost += 1;
            }
        }
    }

    /// Waits until everything has been written, but not for long, and tells what was not.
    pub(crate) fn finish(self) {
        let Self { entries, unwritten, lost, shown_path } = self;
        drop(entries);
        match unwritten.recv_timeout(PATIENCE) {
            Ok(unwritten) if unwritten + lost == 0 => {}
            Ok(unwritten) => warn!("{} records are not in {shown_path}", unwritten + lost),
            Err(_) => warn!("the last records are not in {shown_path}: it takes nothing"),
        }
    }
}

/// The thread's part.
struct Writer<F> {
    file: F,
    shown_path: String,
    unwritten: u64,
    /// The file ends within a line.
    is_torn: bool,
}

impl<F: Write> Writer<F> {
    fn new(file: F, shown_path: String) -> Self {
        Self { file, shown_path, unwritten: 0, is_torn: false }
    }

    fn write(&mut self, entry: &Entry) {
        let line = match entry {
            Entry::Session(record, written) => json::of_session(record, *written),
            Entry::Shard(totals, written) => json::of_shard(totals, *written),
        };
        let Err(error) = self.write_line(&line) else { return };
        if self.unwritten == 0 {
            error!(
                "a record cannot be written to {}: {error}; it is lost, and so is each that cannot",
                self.shown_path
            );
        }
        self.unwritten += 1;
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_all(b"\n")?;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut line: &[u8]) -> io::Result<()> {
        while !line.is_empty() {
            match self.file.write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    line = &line[len..];
                    self.is_torn = !line.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
