//! Keeps what others cause from flooding the log: a repeated warning is written so many times a second. How often it
//! was left out is told by the next one; if none comes for a second, or the run ends, by a line of its own.
//!
//! Not here: which lines repeat, and what an endpoint may log (`proto/linfo.rs`).

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::guards::{Guard, holds};

/// Warnings of one kind that are written in one second.
const LINES_PER_SECOND: u32 = 5;

const SECOND: Duration = Duration::from_secs(1);

/// The second that something is counted in. It begins with the first look after the one before is over.
#[derive(Debug, Default)]
pub(crate) struct Second(Option<Instant>);

impl Second {
    /// Whether another one has begun since the last look.
    pub(crate) fn has_turned(&mut self, now: Instant) -> bool {
        let is_over = self.0.is_none_or(|began| now.saturating_duration_since(began) >= SECOND);
        if is_over {
            self.0 = Some(now);
        }
        is_over
    }
}

/// The state of one kind of warning.
#[derive(Debug)]
pub(crate) struct LogLimit {
    what: Cow<'static, str>,
    second: Second,
    written: u32,
    left_out: u64,
    left_out_last: Option<Instant>,
}

/// What a warning that is written has to say of those that were not; empty without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} more like it not shown)"),
        }
    }
}

impl LogLimit {
    /// For warnings of `what`, a plural.
    pub(crate) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        let (what, second) = (what.into(), Second::default());
        Self { what, second, written: 0, left_out: 0, left_out_last: None }
    }

    /// A warning is due at `now`. If it may be written: what it ends with.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<LeftOut> {
        if self.second.has_turned(now) {
            self.written = 0;
        }
        if self.written >= LINES_PER_SECOND && holds(Guard::BoundsWarnings) {
            self.left_out += 1;
            self.left_out_last = Some(now);
            return None;
        }
        self.written += 1;
        Some(self.take_left_out())
    }

    /// When [`Self::tell_when_quiet`] has something to tell, if no other warning comes before.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.left_out_last.map(|last| last + SECOND)
    }

    /// Tells how many were left out if a second has brought no more.
    pub(crate) fn tell_when_quiet(&mut self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.tell();
        }
    }

    /// Tells how many were left out, if any were.
    pub(crate) fn tell(&mut self) {
        let LeftOut(count) = self.take_left_out();
        if count > 0 {
            warn!("{}: {count} more like it not shown", self.what);
        }
    }

    fn take_left_out(&mut self) -> LeftOut {
        self.left_out_last = None;
        LeftOut(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_time() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
        Instant::now()
    }

    #[test]
    fn five_warnings_a_second_pass_and_the_next_tells_how_many_did_not() {
        let start = some_time();
        let mut limit = LogLimit::new("tests");
        for _ in 0..5 {
            assert_eq!(limit.admit(start), Some(LeftOut(0)));
        }
        for _ in 0..7 {
            assert_eq!(limit.admit(start + Duration::from_millis(999)), None);
        }
        let next = start + SECOND;
        let told = limit.admit(next).unwrap();
        assert_eq!(told.to_string(), " (7 more like it not shown)");
        assert_eq!(limit.admit(next).unwrap().to_string(), "");
        assert_eq!(limit.due(), None, "all is told");
    }

    #[test]
    fn what_was_left_out_is_due_a_second_after_the_last_of_them() {
        let start = some_time();
        let mut limit = LogLimit::new("tests");
        for after_ms in [0, 0, 0, 0, 0, 100, 900] {
            limit.admit(start + Duration::from_millis(after_ms));
        }
        let due = limit.due().unwrap();
        assert_eq!(due, start + Duration::from_millis(1900));
        limit.tell_when_quiet(due - Duration::from_millis(1));
        assert_eq!(limit.due(), Some(due), "it is not quiet yet");
        limit.tell_when_quiet(due);
        assert_eq!(limit.due(), None);
    }
}
