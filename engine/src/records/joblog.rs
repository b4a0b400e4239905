//! A record as a line of GNU parallel's `--joblog`, with the endpoint's key in a column behind.
//!
//! Not here: where it is written (`journal.rs`). A line stands for a mlet: sessions without one have none.

use super::record::{Mlet, SessionRecord};
use crate::sys::supervisor::MletStatus;

/// The first line.
pub(super) const HEADER: &str =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tKey\n";

/// What a shell would exit with where the program could not be run.
const NOT_RUN: i32 = 127;

/// The line of a session's mlet, with its newline; `command` has neither tabs nor newlines. `None` if it has no mlet of
/// its own. Times are seconds, and `Send` and `Receive` the bytes relayed to the endpoint and from it.
pub(super) fn line(record: &SessionRecord, command: &str) -> Option<String> {
    let (exit, signal, run_time) = match &record.mlet {
        Mlet::Ended(MletStatus::Code(code), run_time) => (*code, 0, run_time.as_secs_f64()),
        Mlet::Ended(MletStatus::Signal(signal), run_time) => (0, *signal, run_time.as_secs_f64()),
        Mlet::NotStarted(_) => (NOT_RUN, 0, 0.0),
        Mlet::None
        | Mlet::Asked
        | Mlet::Running(_)
        | Mlet::Shared
        | Mlet::NotTaken
        | Mlet::Lost => {
            return None;
        }
    };
    let facts = &record.facts;
    let relayed = record.end.as_ref().map(|end| end.relayed).unwrap_or_default();
    let begun = record.mlet_spawned.map(|at| at.saturating_duration_since(facts.accepted));
    let start_ms = facts.accepted_wall.saturating_add(begun.unwrap_or_default()).0 / 1_000_000;
    let start = format!("{}.{:03}", start_ms / 1000, start_ms % 1000);
    let key = facts.account.endpoint_key.map_or_else(String::new, |key| key.to_string());
    Some(format!(
        "{}\t{}\t{start}\t{run_time:10.3}\t{}\t{}\t{exit}\t{signal}\t{command}\t{key}\n",
        facts.id,
        facts.peer.ip(),
        relayed.to_endpoint.bytes,
        relayed.from_endpoint.bytes,
    ))
}
