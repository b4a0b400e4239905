//! Where the output of mlets goes.
//!
//! Not here: who makes the files (`sys/supervisor`), and what becomes of them (`records`).

use crate::config::{Keep, Results};
use crate::records::{self, SessionFacts};
use crate::sys::supervisor::MletOutput;

/// The folder of the one mlet of singleton mode, below the results folder.
const OF_ALL_SESSIONS: &str = "mlet";

/// What mlets are given for output in a run.
#[derive(Debug, Clone, Copy)]
pub(super) enum OutputPlan {
    /// That of pktxpmgr.
    Inherited,
    /// Nothing.
    Discarded,
    /// Files in the results folder.
    InFolders,
}

impl OutputPlan {
    /// As the results folder is to be filled, if there is one.
    pub(super) fn of(results: Option<&Results>) -> Self {
        match results.map(|results| results.keep) {
            None => Self::Inherited,
            Some(Keep::None) => Self::Discarded,
            Some(Keep::All | Keep::Failed) => Self::InFolders,
        }
    }

    /// For a session's own mlet.
    pub(super) fn of_session(self, facts: &SessionFacts) -> MletOutput {
        self.with_folder(|| records::folder_of(facts))
    }

    /// For the mlet that serves all sessions.
    pub(super) fn of_all_sessions(self) -> MletOutput {
        self.with_folder(|| OF_ALL_SESSIONS.to_owned())
    }

    fn with_folder(self, folder: impl FnOnce() -> String) -> MletOutput {
        match self {
            Self::Inherited => MletOutput::Inherited,
            Self::Discarded => MletOutput::Discarded,
            Self::InFolders => MletOutput::Folder(folder()),
        }
    }
}
