//! When a run, what is left of one, and mlets have lasted as long as they may: `--deadline`, `--drain-limit` and
//! `--mlet-timeout`.
//!
//! Not here: what is done about it (`overdue.rs`), limits of a session (`proto/session`), and the time, which is an
//! argument.

use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::guards::{Guard, holds};
use crate::proto::session_end::Force;
use crate::records::{Recorder, SessionId, Started};

/// How far the time of a run has come.
#[derive(Debug)]
pub(super) struct TimeLimits {
    began: Instant,
    /// Since when no new endpoints are taken.
    drains_since: Option<Instant>,
    deadline: Option<Duration>,
    drain_limit: Option<Duration>,
    mlet_timeout: Option<Duration>,
    /// The youngest mlet that has run too long. All older ones have as well, and are being ended.
    timed_out: Option<Started>,
}

impl TimeLimits {
    /// Of a run that begins now.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            began: now,
            drains_since: None,
            deadline: limits.deadline,
            drain_limit: limits.drain_limit,
            mlet_timeout: limits.mlet_timeout,
            timed_out: None,
        }
    }

    /// These hold from now on, for what has begun before as well.
    pub(super) fn set(&mut self, limits: &Limits) {
        self.deadline = limits.deadline;
        self.drain_limit = limits.drain_limit;
        self.mlet_timeout = limits.mlet_timeout;
    }

    /// No new endpoints are taken any more.
    pub(super) fn begin_to_drain(&mut self, now: Instant) {
        self.drains_since = Some(now);
    }

    /// When the run is ended by force, however far it is.
    fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| holds(Guard::EndsRunInTime)).map(|deadline| self.began + deadline)
    }

    /// When it is once no new endpoints are taken.
    fn drained_until(&self) -> Option<Instant> {
        let drain_limit = self.drain_limit.filter(|_| holds(Guard::EndsDrainInTime));
        Some(self.drains_since? + drain_limit?)
    }

    /// By what the run is to be ended now, if its time is over.
    pub(super) fn is_over_by(&self, now: Instant) -> Option<Force> {
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        match (is_over(self.deadline()), is_over(self.drained_until())) {
            (true, _) => Some(Force::Deadline),
            (false, true) => Some(Force::DrainLimit),
            (false, false) => None,
        }
    }

    /// The oldest mlet that has run too long, each once.
    pub(super) fn next_timed_out(
        &mut self,
        recorder: &Recorder,
        now: Instant,
    ) -> Option<SessionId> {
        let (due, started) = self.next_timeout(recorder)?;
        if due > now {
            return None;
        }
        self.timed_out = Some(started);
        Some(started.1)
    }

    /// When the first of these limits is reached.
    pub(super) fn due(&self, recorder: &Recorder) -> Option<Instant> {
        let of_mlet = self.next_timeout(recorder).map(|(due, _)| due);
        [self.deadline(), self.drained_until(), of_mlet].into_iter().flatten().min()
    }

    fn next_timeout(&self, recorder: &Recorder) -> Option<(Instant, Started)> {
        let timeout = self.mlet_timeout.filter(|_| holds(Guard::EndsLongMlets))?;
        let next = recorder.oldest_after(self.timed_out)?;
        Some((next.0 + timeout, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_deadline_counts_from_the_start_and_the_drain_limit_from_when_the_run_drains() {
        let (start, nobody) = (start(), Recorder::default());
        let (deadline, drain_limit) = (Some(100 * SECOND), Some(10 * SECOND));
        let limits = Limits { deadline, drain_limit, ..Limits::default() };
        let mut time = TimeLimits::new(&limits, start);
        assert_eq!(time.due(&nobody), Some(start + 100 * SECOND));
        assert_eq!(time.is_over_by(start + 99 * SECOND), None, "nothing has drained");
        time.begin_to_drain(start + 50 * SECOND);
        assert_eq!(time.due(&nobody), Some(start + 60 * SECOND));
        assert_eq!(time.is_over_by(start + 59 * SECOND), None);
        assert_eq!(time.is_over_by(start + 60 * SECOND), Some(Force::DrainLimit));
        assert_eq!(time.is_over_by(start + 100 * SECOND), Some(Force::Deadline), "of both");
    }

    #[test]
    fn a_limit_that_is_set_holds_from_the_same_beginning_and_one_that_is_taken_away_no_more() {
        let (start, nobody) = (start(), Recorder::default());
        let mut time = TimeLimits::new(&Limits::default(), start);
        time.begin_to_drain(start + 50 * SECOND);
        let (deadline, drain_limit) = (Some(100 * SECOND), Some(10 * SECOND));
        time.set(&Limits { deadline, drain_limit, ..Limits::default() });
        assert_eq!(time.due(&nobody), Some(start + 60 * SECOND));
        time.set(&Limits { deadline, ..Limits::default() });
        assert_eq!(time.due(&nobody), Some(start + 100 * SECOND));
        time.set(&Limits::default());
        assert_eq!(time.due(&nobody), None);
    }

    #[test]
    fn without_limits_nothing_is_ever_due() {
        let mut time = TimeLimits::new(&Limits::default(), start());
        time.begin_to_drain(start());
        assert_eq!(time.due(&Recorder::default()), None);
        assert_eq!(time.is_over_by(start() + 1_000_000 * SECOND), None);
    }
}
