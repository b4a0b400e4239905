//! Keeps a repeated log line from flooding the log: a few a second, then a count.

use std::time::{Duration, Instant};

/// Lines of one kind that are written in one second.
const LINES_PER_SECOND: u32 = 5;

/// What to do with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write it; so many like it were left out since the last one.
    Write {
        /// Lines left out.
        left_out: u64,
    },
    /// Leave it out.
    LeaveOut,
}

/// The state of one kind of line.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    second_began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl LogLimit {
    /// A line of this kind is due at `now`.
    pub(super) fn check(&mut self, now: Instant) -> Verdict {
        let second_is_over = self
            .second_began
            .is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1));
        if second_is_over {
            self.second_began = Some(now);
            self.written = 0;
        }
        if self.written == LINES_PER_SECOND {
            self.left_out += 1;
            return Verdict::LeaveOut;
        }
        self.written += 1;
        Verdict::Write { left_out: std::mem::take(&mut self.left_out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_lines_a_second_pass_and_the_next_tells_how_many_did_not() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
        let start = Instant::now();
        let mut limit = LogLimit::default();
        for _ in 0..5 {
            assert_eq!(limit.check(start), Verdict::Write { left_out: 0 });
        }
        for _ in 0..7 {
            assert_eq!(limit.check(start + Duration::from_millis(999)), Verdict::LeaveOut);
        }
        let next = start + Duration::from_secs(1);
        assert_eq!(limit.check(next), Verdict::Write { left_out: 7 });
        assert_eq!(limit.check(next), Verdict::Write { left_out: 0 });
    }
}
