//! How long to wait before another try at a broker or proxy that failed us.
//!
//! Exponential with full jitter: the wait is drawn from the whole range between [`WAIT_MIN`] and a
//! bound that doubles with each failure, so that many controllers which lost the same broker do not
//! come back at the same moment. Never less than [`WAIT_MIN`], which is at most two tries a second.
//!
//! Not here: a clock and a random generator; both are arguments.

use std::time::{Duration, Instant};

use crate::guards::{Guard, holds};

/// The shortest wait.
pub const WAIT_MIN: Duration = Duration::from_millis(500);

/// The longest wait for a peer that answers, but refuses us: it will hardly change its mind soon.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// A failure this long after the last one is the first again: in between all was well.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What has gone wrong so far.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
    failed_at: Option<Instant>,
}

impl Backoff {
    /// Counts a failure; the wait before the next try is at most `wait_max`. `random` is any number,
    /// each as likely as the other.
    pub fn fail(&mut self, now: Instant, wait_max: Duration, random: u32) -> Duration {
        let forgotten = |at| now.saturating_duration_since(at) > FORGOTTEN_AFTER;
        if self.failed_at.is_none_or(forgotten) {
            self.failures = 0;
        }
        self.failed_at = Some(now);
        self.failures += 1;
        let doubled = 2_u32.checked_pow(self.failures).map(|factor| WAIT_MIN * factor);
        let bound = doubled.map_or(wait_max, |doubled| doubled.min(wait_max)).max(WAIT_MIN);
        if !holds(Guard::BacksOff) {
            return Duration::ZERO;
        }
        WAIT_MIN + (bound - WAIT_MIN).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn waits_fill_the_range_from_half_a_second_to_a_bound_that_doubles_up_to_the_maximum() {
        let (mut shortest, mut longest) = (Backoff::default(), Backoff::default());
        let start = start();
        let waits: Vec<_> = (0..40)
            .map(|_| (shortest.fail(start, WAIT_MAX, 0), longest.fail(start, WAIT_MAX, u32::MAX)))
            .collect();
        assert!(waits.iter().all(|(shortest, _)| *shortest == WAIT_MIN));
        let seconds: Vec<_> = waits.iter().map(|(_, longest)| longest.as_secs()).collect();
        assert_eq!(seconds[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(seconds[39], 30, "many failures do not overflow");
    }

    #[test]
    fn a_lower_maximum_bounds_the_wait_and_the_middle_draw_is_the_middle() {
        let mut backoff = Backoff::default();
        let wait_max = Duration::from_secs(2);
        for _ in 0..5 {
            backoff.fail(start(), wait_max, 7);
        }
        assert_eq!(backoff.fail(start(), wait_max, u32::MAX), wait_max);
        let middle = backoff.fail(start(), wait_max, u32::MAX / 2);
        assert!(middle.abs_diff(Duration::from_millis(1250)) < Duration::from_millis(1));
        assert_eq!(backoff.fail(start(), Duration::ZERO, u32::MAX), WAIT_MIN);
    }

    #[test]
    fn a_failure_long_after_the_last_one_is_the_first_again() {
        let mut backoff = Backoff::default();
        let start = start();
        for _ in 0..10 {
            backoff.fail(start, WAIT_MAX, 0);
        }
        let soon = start + FORGOTTEN_AFTER;
        assert_eq!(backoff.fail(soon, WAIT_MAX, u32::MAX), WAIT_MAX);
        let later = soon + FORGOTTEN_AFTER + Duration::from_nanos(1);
        assert_eq!(backoff.fail(later, WAIT_MAX, u32::MAX), Duration::from_secs(1));
    }
}
