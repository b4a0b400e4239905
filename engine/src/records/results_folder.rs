//! What a results folder (`--out`) holds of each session: a folder with its mlet's output and a copy of its record.
//!
//! ```text
//! DIR/sessions/NNNNNN-KEY8/{stdout,stderr,session.json}
//! ```
//! or, with `--stream`, only where its output is in the file of all sessions of the run:
//! ```text
//! DIR/streams/NNNN.stream
//! ```
//! Not here: `events.jsonl` in it (`journal.rs`), `run.json` (the program's), and who makes the files of the output (the
//! supervisor, or the recorder). Invariant: `session.json` is written when the output is complete and the record is in
//! `events.jsonl`, and nothing is written afterwards.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tracing::error;

use super::outcome::OutcomeKind;
use super::record::{Mlet, Output, SessionFacts, SessionRecord};
use crate::config::{Keep, Layout, Results};
use crate::sys::record_files;
use crate::sys::recorder::{RecordedOutput, RecordedStream};
use packetlab::escape::Escaped;

/// The folder of the folders of sessions.
const SESSIONS: &str = "sessions";

/// The folder of the files of all sessions.
const STREAMS: &str = "streams";

/// Digits of a key in the name of a session's folder.
const KEY_DIGITS: usize = 8;

/// Characters of a snikey in a tag.
const SNIKEY_CHARACTERS: usize = 12;

/// Where the output of a session's mlet goes, below the results folder.
pub(crate) fn folder_of(facts: &SessionFacts) -> String {
    let key = match facts.account.endpoint_key {
        Some(key) => key.to_string().chars().take(KEY_DIGITS).collect(),
        None => "nokey".to_owned(),
    };
    format!("{SESSIONS}/{:06}-{key}", facts.id)
}

/// What stands before each line of a session's mlet where lines are shown.
pub(crate) fn tag_of(facts: &SessionFacts) -> String {
    let account = &facts.account;
    let key = account.endpoint_key.map_or_else(|| "-".to_owned(), |key| key.short());
    let snikey = account.snikey.as_ref().map_or("-", |snikey| snikey.as_str());
    let snikey: String = snikey.chars().take(SNIKEY_CHARACTERS).collect();
    format!("{}\t{key}\t{snikey}\t", facts.id)
}

/// What is kept of a session's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SessionOutput {
    #[serde(flatten)]
    place: Place,
    /// Bytes of standard output that are kept.
    stdout: u64,
    /// Bytes of standard error that are kept.
    stderr: u64,
    /// Bytes of standard output in all.
    stdout_written: u64,
    /// Bytes of standard error in all.
    stderr_written: u64,
    /// There was more than is kept, or may have been.
    truncated: bool,
}

/// Where it is, below the results folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Place {
    /// In files of a folder.
    Folder { dir: String },
    /// In the file of all sessions; the last frames of each stream begin there, 0 if it has none.
    Stream { stream: String, stdout_at: u64, stderr_at: u64 },
}

/// The folder.
pub(super) struct ResultsFolder {
    path: PathBuf,
    keep: Keep,
    layout: Layout,
    /// What follows a record in it is to be done.
    is_followed: bool,
    unwritten: u64,
}

impl ResultsFolder {
    /// `is_followed`: by whoever is told of complete records, copies of them are written and folders that do not stay taken
    /// away. Otherwise it only tells what is kept.
    pub(super) fn new(results: &Results, is_followed: bool) -> Self {
        Self {
            path: results.path.clone(),
            keep: results.keep,
            layout: results.layout,
            is_followed,
            unwritten: 0,
        }
    }

    /// A record's copy stands beside the output.
    pub(super) fn has_copies(&self) -> bool {
        self.is_followed && self.layout == Layout::Folders
    }

    /// Copies of records that could not be written, and folders that could not be taken away.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// What is kept of a session that is over; `None` if nothing is.
    pub(super) fn output_of(&self, record: &SessionRecord) -> Option<SessionOutput> {
        if !self.is_kept(record) {
            return None;
        }
        let len = |name| {
            let path = self.path.join(folder_of(&record.facts)).join(name);
            fs::metadata(path).map_or(0, |file| file.len())
        };
        let recorded = match record.output {
            Output::Recorded(output) => output,
            Output::Open | Output::Lost => return None,
            Output::Uncounted | Output::Doubtful => {
                let whole = |len| RecordedStream { written: len, kept: len, place: 0 };
                let (stdout, stderr) = (whole(len("stdout")), whole(len("stderr")));
                RecordedOutput { stdout, stderr, ..RecordedOutput::default() }
            }
        };
        let RecordedOutput { stream, stdout, stderr, .. } = recorded;
        let place = match self.layout {
            Layout::Folders => Place::Folder { dir: folder_of(&record.facts) },
            // The file could not be begun.
            Layout::Stream if stream == 0 => return None,
            Layout::Stream => {
                let stream = format!("{STREAMS}/{stream:04}.stream");
                Place::Stream { stream, stdout_at: stdout.place, stderr_at: stderr.place }
            }
        };
        Some(SessionOutput {
            place,
            stdout: stdout.kept,
            stderr: stderr.kept,
            stdout_written: stdout.written,
            stderr_written: stderr.written,
            truncated: stdout.kept < stdout.written
                || stderr.kept < stderr.written
                || record.output == Output::Doubtful,
        })
    }

    /// What was to be kept of it is not, or not whole: there is no result to be handed over.
    pub(super) fn has_lost(&self, record: &SessionRecord) -> bool {
        self.is_kept(record) && record.output.is_lost()
    }

    /// It had a mlet of its own whose output stays.
    fn is_kept(&self, record: &SessionRecord) -> bool {
        let has_own_mlet = match record.mlet {
            Mlet::Ended(..) | Mlet::Lost => true,
            // The folder may be there, and nothing in it.
            Mlet::NotStarted(_) => false,
            Mlet::None | Mlet::Asked | Mlet::Running(_) | Mlet::Shared | Mlet::NotTaken => false,
        };
        let is_wanted = match self.keep {
            Keep::All => true,
            Keep::Failed => record.own_outcome() != OutcomeKind::Ok,
            Keep::None => false,
        };
        has_own_mlet && is_wanted
    }

    /// Puts the record into its folder, or takes away a folder that is not kept. Lost output is told where it is lost.
    pub(super) fn complete(&mut self, record: &SessionRecord, line: &[u8]) {
        if !self.has_copies() {
            return;
        }
        let dir = self.path.join(folder_of(&record.facts));
        let done = match self.is_kept(record) {
            true if record.output == Output::Lost => return,
            true => record_files::write_new(&dir.join("session.json"), line),
            false => self.remove(&dir),
        };
        if let Err(error) = done {
            if self.unwritten == 0 {
                let shown = Escaped(self.path.as_os_str().as_bytes());
                error!("{shown} is not complete: session {}: {error}", record.facts.id);
            }
            self.unwritten += 1;
        }
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
