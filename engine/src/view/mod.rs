//! What is known of a run while it goes on, for whoever shows it: a page, a line, a scraper, a signal's answer.
//!
//! ```text
//! shards ---publish once a turn---> ShardCounts --+
//! shards ---relay latency---------> RunLatency ---+--> RunView::snapshot --> Snapshot --> every view
//! control thread -----------------> RunState -----+
//! ```
//!
//! run_view.rs has the places where counts are, snapshot.rs what is told of them at one time, ended_sessions.rs single
//! sessions, last_outcomes.rs what became of each key's latest. A view reads a snapshot and
//! keeps no count of its own, so that all of them agree with the records.
//!
//! Not here: how anything is shown. Invariant: who reads holds up nobody: what shards write is read without a lock, and the
//! control thread waits no longer than it takes to copy its sums.

mod ended_sessions;
mod last_outcomes;
mod run_view;
mod snapshot;

pub use self::ended_sessions::EndedSession;
pub(crate) use self::last_outcomes::LastOutcomes;
pub(crate) use self::run_view::RunState;
pub use self::run_view::RunView;
pub use self::snapshot::{
    BrokerStage, BrokerState, CoreState, Files, Goal, Losses, Places, ProxyState, Reloads,
    Reporting, RunStage, SessionsByPhase, Snapshot,
};
