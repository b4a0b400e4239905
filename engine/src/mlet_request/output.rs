//! Where the output of mlets goes.
//!
//! Not here: who makes the files (`sys/supervisor`), who reads pipes (`sys/recorder`), and what becomes of the files
//! (`records`).

use crate::config::{Keep, Layout, Recording};
use crate::records::{self, Output, SessionFacts};
use crate::sys::recorder::{Capture, KeptIn};
use crate::sys::supervisor::MletOutput;

/// The folder of the one mlet of singleton mode, below the results folder.
const OF_ALL_SESSIONS: &str = "mlet";

/// What mlets are given for output in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OutputPlan {
    /// That of pktxpmgr.
    Inherited,
    /// Nothing.
    Discarded,
    /// Files in the results folder.
    InFolders,
    /// Pipes that the recorder reads.
    Recorded {
        /// How it keeps what comes; `None` where nothing is kept.
        layout: Option<Layout>,
    },
}

impl OutputPlan {
    /// As the run is to be recorded.
    pub(crate) fn of(recording: &Recording, has_recorder: bool) -> Self {
        let results = recording.results.as_ref();
        let kept = results.filter(|results| results.keep != Keep::None);
        match (has_recorder, results, kept) {
            (true, _, kept) => Self::Recorded { layout: kept.map(|kept| kept.layout) },
            (false, None, _) => Self::Inherited,
            (false, Some(_), None) => Self::Discarded,
            (false, Some(_), Some(_)) => Self::InFolders,
        }
    }

    /// What is known of a mlet's output when it is asked for. Of one that a recorder was to read which is gone, the supervisor
    /// may not know that yet, and nothing more is told.
    pub(crate) fn at_first(self, has_recorder: bool) -> Output {
        match self {
            Self::Recorded { .. } if has_recorder => Output::Open,
            Self::Recorded { .. } => Output::Lost,
            Self::Inherited | Self::Discarded | Self::InFolders => Output::Uncounted,
        }
    }

    /// For a session's own mlet.
    pub(crate) fn of_session(self, facts: &SessionFacts) -> MletOutput {
        self.with_folder(|| records::tag_of(facts), || records::folder_of(facts))
    }

    /// For the mlet that serves all sessions.
    pub(crate) fn of_all_sessions(self) -> MletOutput {
        self.with_folder(String::new, || OF_ALL_SESSIONS.to_owned())
    }

    fn with_folder(
        self,
        tag: impl FnOnce() -> String,
        folder: impl FnOnce() -> String,
    ) -> MletOutput {
        match self {
            Self::Inherited => MletOutput::Inherited,
            Self::Discarded => MletOutput::Discarded,
            Self::InFolders => MletOutput::Folder(folder()),
            Self::Recorded { layout } => {
                let kept = match layout {
                    None => KeptIn::Nothing,
                    Some(Layout::Folders) => KeptIn::Folder(folder()),
                    Some(Layout::Stream) => KeptIn::Stream,
                };
                MletOutput::Recorded(Capture { tag: tag(), kept })
            }
        }
    }
}
