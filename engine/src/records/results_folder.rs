//! What a results folder (`--out`) holds of each session: a folder with its mlet's output and a copy of its record.
//!
//! ```text
//! DIR/sessions/NNNNNN-KEY8/{stdout,stderr,session.json}
//! ```
//! Not here: `events.jsonl` in it (`journal.rs`), `run.json` (the program's), and who makes the files of the output (the
//! supervisor). Invariant: `session.json` is written when the output is complete and the record is in `events.jsonl`, and nothing is
//! written afterwards.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tracing::error;

use super::outcome::OutcomeKind;
use super::record::{Mlet, SessionFacts, SessionRecord};
use crate::config::{Keep, Results};
use packetlab::escape::Escaped;

/// The folder of the folders of sessions.
const SESSIONS: &str = "sessions";

/// Digits of a key in the name of a session's folder.
const KEY_DIGITS: usize = 8;

/// Where the output of a session's mlet goes, below the results folder.
pub(crate) fn folder_of(facts: &SessionFacts) -> String {
    let key = match facts.account.endpoint_key {
        Some(key) => key.to_string().chars().take(KEY_DIGITS).collect(),
        None => "nokey".to_owned(),
    };
    format!("{SESSIONS}/{:06}-{key}", facts.id)
}

/// What is kept of a session's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SessionOutput {
    /// Its folder, below the results folder.
    dir: String,
    /// Bytes of standard output.
    stdout: u64,
    /// Bytes of standard error.
    stderr: u64,
    /// There was more.
    truncated: bool,
}

/// The folder.
pub(super) struct ResultsFolder {
    path: PathBuf,
    keep: Keep,
    unwritten: u64,
}

impl ResultsFolder {
    pub(super) fn new(results: &Results) -> Self {
        Self { path: results.path.clone(), keep: results.keep, unwritten: 0 }
    }

    /// What could not be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// What is kept of a session that is over; `None` if it has no folder.
    pub(super) fn output_of(&self, record: &SessionRecord) -> Option<SessionOutput> {
        let dir = self.folder_of(record).filter(|_| !record.output_lost)?;
        let len = |name| fs::metadata(self.path.join(&dir).join(name)).map_or(0, |file| file.len());
        let (stdout, stderr) = (len("stdout"), len("stderr"));
        Some(SessionOutput { dir, stdout, stderr, truncated: false })
    }

    /// Its name, unless the session has none or loses it now.
    fn folder_of(&self, record: &SessionRecord) -> Option<String> {
        let has_own_mlet = match record.mlet {
            Mlet::Ended(..) | Mlet::Lost => true,
            // The folder may be there, and nothing in it.
            Mlet::NotStarted(_) => false,
            Mlet::None | Mlet::Asked | Mlet::Running(_) | Mlet::Shared | Mlet::NotTaken => false,
        };
        let is_kept = match self.keep {
            Keep::All => true,
            Keep::Failed => record.outcome() != OutcomeKind::Ok,
            Keep::None => false,
        };
        (has_own_mlet && is_kept).then(|| folder_of(&record.facts))
    }

    /// Puts the record into its folder, or takes away a folder that is not kept.
    pub(super) fn complete(&mut self, record: &SessionRecord, line: &[u8]) {
        self.unwritten += u64::from(record.output_lost);
        let done = match self.folder_of(record) {
            Some(_) if record.output_lost => return,
            Some(dir) => write_file(&self.path.join(dir).join("session.json"), line),
            None => self.remove(&self.path.join(folder_of(&record.facts))),
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

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}
