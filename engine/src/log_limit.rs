//! Keeps a repeated log line from flooding the log: so many a second, then a count.
//!
//! Not here: which lines repeat, and the text that tells the count.

use std::time::{Duration, Instant};

/// Lines of one kind of trouble that are written in one second.
pub(crate) const LINES_PER_SECOND: u32 = 5;

/// What to do with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
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
pub(crate) struct LogLimit {
    second_began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl LogLimit {
    /// A line of this kind is due at `now`; at most `per_second` are written.
    pub(crate) fn check(&mut self, now: Instant, per_second: u32) -> Verdict {
        let second_is_over = self
            .second_began
            .is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1));
        if second_is_over {
            self.second_began = Some(now);
            self.written = 0;
        }
        if self.written >= per_second {
            return self.leave_out();
        }
        self.written += 1;
        Verdict::Write { left_out: std::mem::take(&mut self.left_out) }
    }

    /// A line of this kind cannot be written, for another reason than their number.
    pub(crate) fn leave_out(&mut self) -> Verdict {
        self.left_out += 1;
        Verdict::LeaveOut
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
            assert_eq!(limit.check(start, 5), Verdict::Write { left_out: 0 });
        }
        for _ in 0..7 {
            assert_eq!(limit.check(start + Duration::from_millis(999), 5), Verdict::LeaveOut);
        }
        let next = start + Duration::from_secs(1);
        assert_eq!(limit.check(next, 5), Verdict::Write { left_out: 7 });
        assert_eq!(limit.check(next, 5), Verdict::Write { left_out: 0 });
    }
}
