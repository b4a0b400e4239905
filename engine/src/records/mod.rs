//! One record of each session: who came, how far it got and when, what was relayed, how it ended, and what became of its
//! mlet.
//!
//! ```text
//! record.rs    what a record holds          outcome.rs    the closed list of outcomes, and which end is which
//! recorder.rs  records that are under way   json.rs       a record as a line of JSON
//! journal.rs   the thread that writes them  joblog.rs     the same as a line of GNU parallel's --joblog
//! folding.rs   strangers without a record   line_file.rs  a file of lines, and those it did not take
//! summary.rs   sums over all of them        results_folder.rs  output and records of single sessions
//! ```
//!
//! A session's shard tells what it knows of it at START, and all of it when its sockets are closed; the supervisor tells
//! of its mlet, and the recorder, where there is one, of its output. A record is complete when all of them have ended,
//! whichever is first. The lines of the log are views of it
//! (`control/sessions.rs`).
//!
//! Not here: how sessions end (`proto/session_end.rs`). A connection that waits at a proxy and is let go as the run ends had
//! no endpoint and has no record.
//!
//! Invariant: every session has exactly one record, or is one of those that a record tells the number of
//! (`folding.rs`).

mod folding;
mod joblog;
mod journal;
mod json;
mod line_file;
mod outcome;
mod record;
mod recorder;
mod results_folder;
mod summary;

pub(crate) use self::folding::Folding;
pub(crate) use self::journal::{Entry, Journal, OpenError};
pub use self::outcome::OutcomeKind;
pub(crate) use self::record::{
    Claim, Command, Ended, Mlet, Output, RelayedBy, SessionFacts, SessionId, SessionRecord,
    ShardTotals, Via, bytes_of,
};
pub(crate) use self::recorder::{Recorder, Started};
pub(crate) use self::results_folder::{folder_of, tag_of};
pub use self::summary::{Longest, MletEnds, Phase, Summary};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use self::tests::{record_of_endpoint, start};
