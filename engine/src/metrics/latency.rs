//! The times of shards and of the run, in histograms with three significant digits.
//!
//! ```text
//! shard --Stopwatch--> ShardLatency: two places, of which it takes the one that is free
//!                          ^ emptied, one place after the other
//!                      RunLatency <-- once a second by the thread of `--latency`, by whoever shows the run, at its end
//! ```
//!
//! A reader holds a place for as long as it takes to exchange what is in it, and never two. So a shard, which looks
//! whether a place is free and never waits for one, finds one.
//!
//! Not here: where intervals are written (`interval_log.rs`). Invariant: every time is in one interval, and in the total
//! of the run once it has been taken.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::both_ways::{BothWays, Direction};
use super::bounds::{LONGEST_NS, bounded_ns};
use super::choice::OneIn;

/// Times in nanoseconds.
pub(super) type Histograms = BothWays<Histogram<u64>>;

/// No times.
pub(super) fn histograms() -> Histograms {
    let empty = || Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds of a histogram");
    Histograms { to_endpoint: empty(), from_endpoint: empty() }
}

fn add(times: &mut Histograms, more: &Histograms) {
    // It fails only where bounds differ, and all are the same.
    let _ = times.to_endpoint.add(&more.to_endpoint);
    let _ = times.from_endpoint.add(&more.from_endpoint);
}

/// Times that one shard writes and others read.
#[derive(Debug)]
struct ShardLatency {
    places: [Mutex<Histograms>; 2],
}

impl ShardLatency {
    fn new() -> Self {
        Self { places: std::array::from_fn(|_| Mutex::new(histograms())) }
    }

    fn record(&self, direction: Direction, ns: u64) {
        // One place is free at any time, but a reader may have moved on to it just then, and the next one have come to the
        // first. Whoever looks twice without that finds one.
        for place in self.places.iter().cycle() {
            let mut times = match place.try_lock() {
                Ok(times) => times,
                Err(TryLockError::Poisoned(times)) => times.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            return times[direction].saturating_record(ns);
        }
    }

    /// Moves all times to `into`.
    fn empty(&self, into: &mut Histograms) {
        for place in &self.places {
            let is_empty = |times: &Histogram<u64>| times.is_empty();
            let BothWays { to_endpoint, from_endpoint } = lock(place).map(is_empty);
            if !(to_endpoint && from_endpoint) {
                // Made before the place is held.
                let mut times = histograms();
                std::mem::swap(&mut *lock(place), &mut times);
                add(into, &times);
            }
        }
    }
}

/// Whoever held it and panicked has left nothing half done: a time was recorded or not.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The times of a run.
#[derive(Debug)]
pub(crate) struct RunLatency {
    one_in: NonZeroU32,
    shards: Vec<Arc<ShardLatency>>,
    gathered: Mutex<Gathered>,
}

/// Times that were taken from the shards.
#[derive(Debug)]
struct Gathered {
    total: Histograms,
    /// Of these, those of the present interval.
    interval: Histograms,
}

impl RunLatency {
    /// For so many shards, which time one in so many receives.
    pub(crate) fn new(shards: usize, one_in: NonZeroU32) -> Self {
        let shards = (0..shards).map(|_| Arc::new(ShardLatency::new())).collect();
        let gathered = Gathered { total: histograms(), interval: histograms() };
        Self { one_in, shards, gathered: Mutex::new(gathered) }
    }

    /// The stopwatch of the shard of this number; `None` if there is none.
    pub(crate) fn stopwatch(&self, shard: usize) -> Option<Stopwatch> {
        let latency = Arc::clone(self.shards.get(shard)?);
        Some(Stopwatch { choice: OneIn::new(self.one_in, shard as u32), latency })
    }

    /// The times since they were last taken, which ends an interval.
    pub(super) fn take(&self) -> Histograms {
        std::mem::replace(&mut self.gather().interval, histograms())
    }

    fn gather(&self) -> MutexGuard<'_, Gathered> {
        let mut gathered = lock(&self.gathered);
        let mut taken = histograms();
        self.shards.iter().for_each(|shard| shard.empty(&mut taken));
        add(&mut gathered.total, &taken);
        add(&mut gathered.interval, &taken);
        gathered
    }

    /// All times of the run so far.
    pub(crate) fn so_far(&self) -> BothWays<Option<RelayTimes>> {
        self.gather().total.map(RelayTimes::of)
    }

    /// Holds a place of the first shard, as a reader does.
    #[cfg(test)]
    pub(super) fn hold(&self, place: usize) -> MutexGuard<'_, Histograms> {
        lock(&self.shards[0].places[place])
    }

    /// What is to be told of all times of the run; `None` if there are none.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let times = self.so_far();
        (times != BothWays::default()).then_some(Summary(times))
    }
}

/// Upper bounds between which times of the relay are counted, in microseconds.
const BOUNDS_US: [u64; 15] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000,
    10_000_000,
];

/// The times of one direction, to three digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayTimes {
    /// How many there are; at least one.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
    /// As many are longer as are shorter.
    pub p50: Duration,
    /// One in a hundred is longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
    /// Bounds, shortest first, and how many times are no longer than each.
    pub up_to: Vec<(Duration, u64)>,
}

impl RelayTimes {
    fn of(times: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| Duration::from_nanos(times.value_at_quantile(quantile));
        let mut up_to = BOUNDS_US.map(|bound| (Duration::from_micros(bound), 0));
        let mut sum_ns = 0_u128;
        for step in times.iter_recorded() {
            let ns = times.lowest_equivalent(step.value_iterated_to());
            let count = step.count_at_value();
            sum_ns += u128::from(ns) * u128::from(count);
            let longer = up_to.iter_mut().filter(|(bound, _)| u128::from(ns) <= bound.as_nanos());
            longer.for_each(|(_, sum)| *sum += count);
        }
        (!times.is_empty()).then(|| Self {
            count: times.len(),
            sum: Duration::from_nanos(u64::try_from(sum_ns).unwrap_or(u64::MAX)),
            p50: at(0.5),
            p99: at(0.99),
            max: Duration::from_nanos(times.max()),
            up_to: up_to.to_vec(),
        })
    }
}

/// The median, the 99th percentile and the maximum of each direction. As text, in this order and in microseconds, for the
/// log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary(BothWays<Option<RelayTimes>>);

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(BothWays { to_endpoint, from_endpoint }) = self;
        let mut separator = "";
        for (name, times) in [("to", to_endpoint), ("from", from_endpoint)] {
            let Some(times) = times else { continue };
            let [p50, p99, max] =
                [times.p50, times.p99, times.max].map(|time| time.as_nanos() as f64 / 1e3);
            write!(f, "{separator}{name} endpoints {p50:.0}/{p99:.0}/{max:.0} us")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// One shard's: it chooses what is timed, and takes the times.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    choice: OneIn,
    latency: Arc<ShardLatency>,
}

impl Stopwatch {
    /// Whether a receive is to be timed.
    pub(crate) fn is_due(&mut self) -> bool {
        self.choice.draw()
    }

    /// Takes a time.
    pub(crate) fn record(&self, direction: Direction, took: Duration) {
        self.latency.record(direction, bounded_ns(took));
    }
}
