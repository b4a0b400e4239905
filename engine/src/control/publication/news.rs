//! What the task of a publication tells the loop of the control thread.
//!
//! Not here: what follows from it (`brokers.rs`).

use std::time::Duration;

use packetlab::time::Ticks;

/// Which publication news are of: a number that no other one of the run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct PublicationId(pub(in super::super) u64);

/// What becomes of a publication.
#[derive(Debug)]
pub(in super::super) enum PublicationNews {
    /// Everything is published.
    Published {
        /// Until then; `None` is without end.
        end: Option<Ticks>,
        /// A reload has changed meanwhile what is to be published, which follows.
        is_outdated: bool,
    },
    /// It is not, or no more.
    Failed(FailedTry),
    /// What was published before the plan that fails is lost as well.
    LostBefore,
    /// Nothing is to be published any more.
    Over,
}

/// A try that failed, or a publication that was lost.
#[derive(Debug)]
pub(in super::super) struct FailedTry {
    pub(in super::super) reason: String,
    /// How long until the next one.
    pub(in super::super) wait: Duration,
    /// What was published before stays so.
    pub(in super::super) stays: bool,
}
