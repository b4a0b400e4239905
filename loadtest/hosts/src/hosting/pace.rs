//! So much a second, and so much at once after a rest: requests, bytes of matching, log lines.
//!
//! Pure: time is an argument. Not here: what is counted, and what becomes of what goes beyond.

use std::time::Duration;

use tokio::time::Instant;

/// Nobody owes more than comes back in so long beyond what may be used at once: a party is not held up for
/// longer by what it, or others that count as the same, had done before.
const DEBT_MAX: Duration = Duration::from_secs(60);

/// What one party has used.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    per_second: f64,
    /// What may be used at once, as the time in which it comes back.
    at_once: Duration,
    /// When all that was used will have come back.
    paid_off: Option<Instant>,
}

impl Pace {
    /// Nothing is used yet; `per_second` and `at_once` are amounts above 0.
    pub(crate) fn new(per_second: usize, at_once: usize) -> Self {
        let per_second = per_second as f64;
        let at_once = Duration::from_secs_f64(at_once as f64 / per_second);
        Self { per_second, at_once, paid_off: None }
    }

    /// Uses an amount if that is allowed at `now`.
    pub(crate) fn try_use(&mut self, amount: usize, now: Instant) -> bool {
        let owed = self.owed(now) + self.time_for(amount);
        if owed > self.at_once {
            return false;
        }
        self.paid_off = Some(now + owed);
        true
    }

    /// Uses an amount, for which its user has to wait so long, at most a minute.
    pub(crate) fn use_later(&mut self, amount: usize, now: Instant) -> Duration {
        let owed = self.owed(now) + self.time_for(amount);
        let owed = owed.min(self.at_once + DEBT_MAX);
        self.paid_off = Some(now + owed);
        owed.saturating_sub(self.at_once)
    }

    /// Everything that was used has come back, so that nothing need be remembered.
    pub(crate) fn is_rested(&self, now: Instant) -> bool {
        self.owed(now).is_zero()
    }

    /// In how long all that was used will have come back.
    pub(crate) fn owed(&self, now: Instant) -> Duration {
        self.paid_off.map_or(Duration::ZERO, |paid_off| paid_off.saturating_duration_since(now))
    }

    fn time_for(&self, amount: usize) -> Duration {
        Duration::from_secs_f64(amount as f64 / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn after_a_rest_so_much_is_allowed_at_once_and_then_so_much_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(2, 4);
        let mut used = |at| (0..9).take_while(|_| pace.try_use(1, start + at)).count();
        assert_eq!(
            [used(Duration::ZERO), used(SECOND), used(2 * SECOND), used(99 * SECOND)],
            [4, 2, 2, 4]
        );
    }

    #[test]
    fn whoever_uses_more_waits_as_long_as_it_takes_to_come_back() {
        let start = Instant::now();
        let mut pace = Pace::new(2, 4);
        let mut wait = |amount| pace.use_later(amount, start);
        assert_eq!([wait(4), wait(1), wait(1)], [Duration::ZERO, SECOND / 2, SECOND]);
        assert!(!pace.is_rested(start + 2 * SECOND));
        assert!(pace.is_rested(start + 3 * SECOND));
    }

    #[test]
    fn nobody_waits_longer_than_a_minute_whatever_was_used_before() {
        let start = Instant::now();
        let mut pace = Pace::new(2, 4);
        assert_eq!(pace.use_later(1_000_000, start), DEBT_MAX);
        assert_eq!(pace.use_later(1, start), DEBT_MAX);
        assert_eq!(pace.use_later(2, start + 2 * SECOND), DEBT_MAX - SECOND);
        assert!(pace.is_rested(start + DEBT_MAX + 4 * SECOND));
    }
}
