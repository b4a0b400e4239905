//! The closed list of outcomes by their names, and which sessions count as failed.
//!
//! Not here: which end is which outcome (`engine/src/records/outcome.rs`). A record may name one that is not in the
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

/// Ends that are nobody's failure, how far the session ever came.
const NO_FAILURE: [&str; 5] = ["ok", "surplus", "skipped", "already_measured", "drained"];

/// Whether a session counts as failed: its endpoint had shown a certificate that was verified, which is when the
/// handshake was over, and it did not end as it should. Strangers never count.
pub(crate) fn has_failed(outcome: &str, is_handshake_over: bool) -> bool {
    is_handshake_over && !NO_FAILURE.contains(&outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_never_counts_as_failed_and_an_endpoint_does_unless_it_was_not_wanted() {
        for outcome in OUTCOMES {
            assert!(!has_failed(outcome, false), "{outcome}");
            let is_failure = !NO_FAILURE.contains(&outcome);
            assert_eq!(has_failed(outcome, true), is_failure, "{outcome}");
        }
        assert!(NO_FAILURE.iter().all(|outcome| OUTCOMES.contains(outcome)));
        assert!(has_failed("an_outcome_of_a_later_version", true));
    }
}
