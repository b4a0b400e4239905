//! What shards count and measure while they work, and what is read of it.
//!
//! ```text
//! both_ways.rs     the two directions
//! bounds.rs        the times that are told apart
//! choice.rs        which receives are timed
//! session.rs       the times of one session, in little memory
//! latency.rs       the times of a shard and of the run, in histograms
//! interval_log.rs  the file of `--latency`, and its thread
//! log_format.rs    what such a file looks like
//! shard_counts.rs  what a shard counts, published once a turn
//! session_places.rs  how many sessions there are of all shards, and may be
//! distribution.rs  how times of steps lie
//! ```
//!
//! A time of the relay counts from the completion that brought bytes to the completion of the send with which the last of them left.
//! Both are stamped with the clock that a shard reads once a turn anyway, so that a time costs no further look at it.
//!
//! Not here: when bytes come and leave (`shard/latency.rs`). Invariant: a shard waits for nobody who reads.

mod both_ways;
mod bounds;
mod choice;
mod distribution;
mod interval_log;
mod latency;
pub mod log_format;
mod session;
mod session_places;
mod shard_counts;

pub use self::both_ways::BothWays;
pub(crate) use self::both_ways::Direction;
pub use self::distribution::Distribution;
pub(crate) use self::interval_log::IntervalLog;
pub use self::latency::RelayTimes;
pub(crate) use self::latency::{RunLatency, Stopwatch};
pub(crate) use self::session::{SessionLatency, Spread};
pub(crate) use self::session_places::SessionPlaces;
pub(crate) use self::shard_counts::{ShardCounts, ShardNumber, ShardNumbers};

#[cfg(test)]
mod tests;
