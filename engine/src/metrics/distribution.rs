//! How times lie: counted between bounds that are fixed, so that many can be added up.
//!
//! Not here: single times. Invariant: each time counts once.

use std::iter;
use std::time::Duration;

/// Upper bounds of steps of set-up and of mlets' runs, in milliseconds.
const PHASE_BOUNDS_MS: [u64; 17] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 600_000,
    3_600_000,
];

/// Times, by how many lie between bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    counts: [u64; PHASE_BOUNDS_MS.len()],
    /// Times that are longer than the last bound.
    longer: u64,
    sum: Duration,
}

impl Distribution {
    /// One more.
    pub(crate) fn add(&mut self, took: Duration) {
        let at = PHASE_BOUNDS_MS.iter().position(|bound| took <= Duration::from_millis(*bound));
        match at.and_then(|at| self.counts.get_mut(at)) {
            Some(count) => *count += 1,
            None => self.longer += 1,
        }
        self.sum = self.sum.saturating_add(took);
    }

    /// Those of another as well.
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.longer += other.longer;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.longer
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The bounds, shortest first, and how many are no longer than each.
    pub fn up_to(&self) -> impl Iterator<Item = (Duration, u64)> {
        let counts = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        iter::zip(PHASE_BOUNDS_MS.map(Duration::from_millis), counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_for_its_bound_and_for_all_that_are_longer() {
        let mut times = Distribution::default();
        let hours = Duration::from_secs(7_200);
        for took in [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(51), hours] {
            times.add(took);
        }
        let mut twice = times.clone();
        twice.add_all(&times);
        for (times, factor) in [(times, 1), (twice, 2)] {
            assert_eq!(times.count(), 4 * factor);
            assert_eq!(times.sum(), (hours + Duration::from_millis(101)) * factor as u32);
            let up_to = |ms| {
                let mut bounds = times.up_to();
                bounds.find(|(bound, _)| *bound == Duration::from_millis(ms)).unwrap().1
            };
            let counted = [1, 20, 50, 100, 3_600_000].map(up_to);
            assert_eq!(counted, [1, 1, 2, 3, 3].map(|count: u64| count * factor));
        }
    }
}
