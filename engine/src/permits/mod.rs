//! Who may send START, and where results go: one shape for a run that counts attempts itself (`-n`) and for one that shares a
//! campaign with others.
//!
//! ```text
//! session --want--> waits --PermitNews::Given--> START --answered: begin--> runs --its record is written--> SessionResult
//!                     |                      |                         |                                    |
//!                     |                      |                         +--ended by force: nothing           |
//!                     +--PermitNews::Refused       +--free: refused, unanswered, left             PermitNews::Settled --+
//! ```
//!
//! Not here: what a session does with a permit (`proto/greeting.rs`, `shard/permit_to_mlet.rs`), what the control thread does
//! with news (`control/permit_news.rs`), and how managers agree with each other, which whoever hands in a [`Permits`] knows.
//! Invariant: where nobody hands out permits, no session asks.

mod counted;
mod source;

use std::num::NonZeroU32;

pub use self::source::{
    CampaignSums, Holder, PermitNews, Permits, Refusal, ResultVerdict, Results, SessionResult,
};

/// The permits of a run that makes so many attempts, and knows of no other. `keys_are_shared` where the sessions of a key
/// are not limited.
pub(crate) fn of_attempts(attempts: NonZeroU32, keys_are_shared: bool) -> Box<dyn Permits> {
    Box::new(counted::Counted::new(attempts, keys_are_shared))
}
