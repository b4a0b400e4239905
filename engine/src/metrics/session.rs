//! The times of one session in little memory: a session that was never timed has none of this, and one that was holds
//! eight bytes for each step of a logarithmic scale on which a time of it lies.
//!
//! ```text
//! a time of 9,215 ns:  10_0011_1111_1111b   leading bit 13, then 0001: step 13 * 16 + 1, which is 8,704 to 9,215 ns
//! ```
//!
//! A scale has 16 steps for each doubling. A quantile is told as the middle of its step, so it is wrong by 1/32 (3.2%) at
//! most; the longest time is exact. All steps from 1 us to 1 h are 528, so a direction never holds more than about 4 KiB,
//! and a few hundred bytes where its times lie within a factor of ten.
//!
//! Not here: when bytes come and leave (`shard/latency.rs`).

use std::time::{Duration, Instant};

use super::both_ways::{BothWays, Direction};
use super::bounds::bounded_ns;

/// Each doubling has so many steps: 2 to this power.
const STEP_BITS: u32 = 4;

/// What is known of the times of one session.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionLatency {
    /// When bytes came that are timed and have not left yet.
    begun: BothWays<Option<Instant>>,
    times: BothWays<Times>,
}

impl SessionLatency {
    /// Bytes have come and are to be timed.
    pub(crate) fn begin(&mut self, direction: Direction, now: Instant) {
        self.begun[direction] = Some(now);
    }

    /// All that came has left. How long that took, if it was timed.
    pub(crate) fn end(&mut self, direction: Direction, now: Instant) -> Option<Duration> {
        let took = now.saturating_duration_since(self.begun[direction].take()?);
        self.times[direction].record(bounded_ns(took));
        Some(took)
    }

    /// What came will never leave.
    pub(crate) fn give_up(&mut self, direction: Direction) {
        self.begun[direction] = None;
    }

    /// Something is timed that has not left.
    #[cfg(test)]
    pub(crate) fn is_timing(&self, direction: Direction) -> bool {
        self.begun[direction].is_some()
    }

    /// How many steps are held.
    #[cfg(test)]
    pub(super) fn steps(&self, direction: Direction) -> usize {
        self.times[direction].steps.len()
    }

    /// How the times lie; `None` if nothing that was timed has left.
    pub(crate) fn spread(&self) -> Option<BothWays<Option<Spread>>> {
        let spread = self.times.map(Times::spread);
        (spread != BothWays::default()).then_some(spread)
    }
}

/// How some times lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spread {
    /// How many there are; at least one.
    pub(crate) count: u64,
    /// As many are longer as are shorter.
    pub(crate) p50: Duration,
    /// One in a hundred is longer.
    pub(crate) p99: Duration,
    /// The longest.
    pub(crate) max: Duration,
}

/// Times of one direction.
#[derive(Debug, Clone, Default)]
struct Times {
    /// Steps on which a time lies, in order, and how many do.
    steps: Vec<(u16, u32)>,
    longest_ns: u64,
}

impl Times {
    fn record(&mut self, ns: u64) {
        self.longest_ns = self.longest_ns.max(ns);
        let step = step_of(ns);
        match self.steps.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(at) => self.steps[at].1 = self.steps[at].1.saturating_add(1),
            Err(at) => self.steps.insert(at, (step, 1)),
        }
    }

    fn spread(&self) -> Option<Spread> {
        let count = self.steps.iter().map(|(_, count)| u64::from(*count)).sum();
        let max = Duration::from_nanos(self.longest_ns);
        // Half a step more than the longest is no time of this session.
        let quantile = |percent| self.quantile(count, percent).map(|time| time.min(max));
        Some(Spread { count, p50: quantile(50)?, p99: quantile(99)?, max })
    }

    /// The middle of the step on which the time lies that `percent` of all do not exceed.
    fn quantile(&self, count: u64, percent: u64) -> Option<Duration> {
        let rank = (count * percent).div_ceil(100);
        let mut passed = 0;
        let reaches = |(_, count): &&(u16, u32)| {
            passed += u64::from(*count);
            passed >= rank
        };
        self.steps.iter().find(reaches).map(|(step, _)| middle_of(*step))
    }
}

/// The step of a time, which is not shorter than 2^[`STEP_BITS`] ns.
fn step_of(ns: u64) -> u16 {
    let doubling = ns.ilog2();
    let within = ns >> (doubling - STEP_BITS) & ((1 << STEP_BITS) - 1);
    (doubling << STEP_BITS) as u16 | within as u16
}

fn middle_of(step: u16) -> Duration {
    let (doubling, within) = (step >> STEP_BITS, u64::from(step) & ((1 << STEP_BITS) - 1));
    let width = 1_u64 << (u32::from(doubling) - STEP_BITS);
    Duration::from_nanos((1 << doubling) + within * width + width / 2)
}
