//! The closed list of outcomes by their names.
//!
//! Not here: which end is which outcome, and which sessions count as failed (`engine/src/records/outcome.rs`). A record may name one that is not in the
//! list, of a later version; it is read all the same.

/// Every outcome a record may have.
pub(crate) const OUTCOMES: [&str; 28] = [
    "ok",
    "mlet_failed",
    "mlet_signal",
    "mlet_timeout",
    "idle_timeout",
    "spawn_failed",
    "endpoint_closed",
    "endpoint_reset",
    "undelivered",
    "tls_failed",
    "certificate_refused",
    "no_experiment",
    "programs_failed",
    "start_refused",
    "handshake_timeout",
    "setup_timeout",
    "refused_limit",
    "own_chain",
    "backlog_lost",
    "already_measured",
    "skipped",
    "surplus",
    "duplicate",
    "campaign_refused",
    "killed",
    "deadline",
    "drained",
    "internal",
];
