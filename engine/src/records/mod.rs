//! One record of each session: who came, how far it got and when, what was relayed, how it ended, and what became of its
//! mlet.
//!
//! ```text
//! record.rs    what a record holds          outcome.rs  the closed list of outcomes, and which end is which
//! recorder.rs  records that are under way   line.rs     a record as a line of JSON
//! journal.rs   the file that lines go to, and its thread
//! ```
//!
//! A session's shard tells what it knows of it at START, and all of it when its sockets are closed; the supervisor tells
//! of its mlet. A record is complete when both have ended, whichever is first. The lines of the log are views of it
//! (`control/sessions.rs`).
//!
//! Not here: how sessions end (`proto/outcome.rs`). Left out until something produces them: the outcomes `mlet_timeout`,
//! `idle_timeout`, `deadline`, `already_measured`, `skipped`, `duplicate` and `campaign_refused`, and of a line the
//! members `run`, `relay_us`, `out` and `truncated`. Who is closed before a session begins, because too many of its
//! address are in set-up, has no record; neither has a connection that waits at a proxy and is let go as the run ends.
//!
//! Invariant: every session has exactly one record.

mod journal;
mod json;
mod outcome;
mod record;
mod recorder;

pub(crate) use self::journal::{Entry, Journal};
pub(crate) use self::record::{
    Ended, Mlet, SessionFacts, SessionId, SessionRecord, ShardTotals, Via,
};
pub(crate) use self::recorder::Recorder;

#[cfg(test)]
mod tests;
