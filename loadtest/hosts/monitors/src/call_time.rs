//! How long a call has run, which is what its limit is about (spec/monitors.md 11).
//!
//! What counts is the time of processors that it has had: who is behind all others may stand still for long, which is not
//! its own doing. On a machine with nothing else to do both are the same.
//!
//! Not here: what happens when it is over. Invariant: whatever clocks say of it, it is over [`PATIENCE`] after it began, or
//! after its limit if that is longer.

use std::time::{Duration, Instant};

use crate::terms::Crash;
use crate::work;

/// Between two looks at the clock.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// How long a controller waits for a call that a busy machine lets run for less than its limit.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time of one call.
#[derive(Debug)]
pub(crate) struct CallTime {
    limit: Duration,
    begun: Instant,
    ran: Duration,
}

impl CallTime {
    /// A call begins that may run so long.
    pub(crate) fn begin(limit: Duration) -> Self {
        // What this thread did before is not of this call.
        let _ = work::processor_time();
        Self { limit, begun: Instant::now(), ran: Duration::ZERO }
    }

    /// Whether its time is over; to be asked at each tick.
    pub(crate) fn is_over(&mut self) -> bool {
        let since = self.begun.elapsed();
        // On the thread that asks it comes no further than to the first tick.
        self.ran += work::processor_time().unwrap_or_else(|| since.min(TICK));
        self.ran >= self.limit || since >= self.limit.max(PATIENCE)
    }

    /// How it ended, when its time was over.
    pub(crate) fn crash(&self) -> Crash {
        if self.ran < self.limit {
            Crash::Starved(self.limit.max(PATIENCE))
        } else {
            Crash::Late(self.limit)
        }
    }

    /// It has waited so long for what it asked for, which counts.
    pub(crate) fn add(&mut self, time: Duration) {
        self.ran += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hardly_runs_is_over_when_its_controller_has_waited_long_enough() {
        let limit = Duration::from_millis(100);
        let ago = |time: Duration| CallTime { limit, begun: Instant::now() - time, ran: limit / 2 };
        assert!(!ago(PATIENCE / 2).is_over());
        assert!(ago(PATIENCE).is_over());
        assert_eq!(ago(PATIENCE).crash(), Crash::Starved(PATIENCE));
        let ran = CallTime { ran: limit, ..ago(limit) };
        assert_eq!(ran.crash(), Crash::Late(limit));
        // What may run for longer may wait for longer.
        let patient = CallTime { limit: 2 * PATIENCE, ..ago(PATIENCE) };
        assert!(!{ patient }.is_over());
    }
}
