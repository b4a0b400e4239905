//! The times that are told apart.
//!
//! Not here: how finely, which is up to each who keeps them.

use std::time::Duration;

/// The shortest time that is told apart, 1 us: a turn of a shard takes longer.
pub(super) const SHORTEST_NS: u64 = 1_000;

/// The longest, 1 h: what takes longer counts as that.
pub(super) const LONGEST_NS: u64 = 3_600_000_000_000;

/// A time within these bounds, in nanoseconds.
pub(super) fn bounded_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NS).clamp(SHORTEST_NS, LONGEST_NS)
}
