//! A place where messages are shown, and what each says of how a session begins.
//!
//! Not here: the places themselves.

use std::io;

use crate::config::RunId;
use crate::mlet_request::environment;
use crate::proto::mlet_facts::MletFacts;
use crate::proto::tee::Shown;
use crate::records::SessionId;

/// Target of the tracing events with which messages are logged.
pub const TRACE_TARGET: &str = "engine::trace";

/// Where messages are shown.
pub(super) trait Place: Send {
    /// Shows it there.
    ///
    /// # Errors
    /// It takes no more.
    fn take(&mut self, shown: &Shown) -> io::Result<()>;
}

/// What a session's mlet finds in its environment, without what is of this machine alone, each with this before, between
/// and behind name and value; nothing of the one mlet of `-s`, which finds nothing.
pub(super) fn found_by_mlet(
    run: Option<RunId>,
    session: u64,
    facts: &MletFacts,
    [before, between, behind]: [&str; 3],
) -> Option<Vec<String>> {
    let (run, id): (_, SessionId) = (run?, session);
    let found = environment(&id, facts).map(|(name, value)| (name, value.to_string()));
    let found = found.into_iter().chain([("PKTLAB_RUN", run.to_string())]);
    Some(found.map(|(name, value)| format!("{before}{name}{between}{value}{behind}")).collect())
}
