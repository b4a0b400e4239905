//! When what is asked of the campaign is heard: at once while little is asked, and together while much is. Each time that it is
//! heard wakes a thread, and then costs a call and a commit, which is more than most of what is asked.
//!
//! Not here: the asks. Invariant: who asks is heard within [`WINDOW`].

use std::time::Duration;

/// So long asks may be gathered. Far less than a handshake over a wide network and START take together.
const WINDOW: Duration = Duration::from_millis(20);

/// So many asks of one window are heard one by one, if they come so. One session at a time is not held up by this: it asks
/// twice.
const FEW: usize = 8;

/// What was heard in the window under way.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    ends: Duration,
    asks: usize,
}

impl Gathering {
    /// From when on asks are heard; times are since the client began.
    pub(crate) fn until(&self) -> Duration {
        match self.asks < FEW {
            true => Duration::ZERO,
            false => self.ends,
        }
    }

    /// So many asks were heard. The first behind the end of a window begin another.
    pub(crate) fn heard(&mut self, now: Duration, asks: usize) {
        if now >= self.ends {
            *self = Self { ends: now + WINDOW, asks: 0 };
        }
        self.asks += asks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn few_asks_are_heard_one_by_one_and_the_next_together_when_the_window_is_over() {
        let mut gathering = Gathering::default();
        assert_eq!(gathering.until(), Duration::ZERO);
        for number in 1..8 {
            gathering.heard(100 * MS + MS * number, 1);
            assert_eq!(gathering.until(), Duration::ZERO, "{number} of them");
        }
        gathering.heard(110 * MS, 1);
        assert_eq!(gathering.until(), 121 * MS, "20 ms after the first");
        gathering.heard(121 * MS, 8);
        assert_eq!(gathering.until(), 141 * MS, "as many came again meanwhile");
        gathering.heard(141 * MS, 3);
        assert_eq!(gathering.until(), Duration::ZERO, "there are fewer now");
    }

    #[test]
    fn asks_that_come_slowly_are_never_gathered() {
        let mut gathering = Gathering::default();
        for number in 0..1000 {
            gathering.heard(MS * 3 * number, 1);
            assert!(gathering.until() <= MS * 3 * (number + 1), "{number}");
        }
    }
}
