//! Endpoints that may have been missed, so that nobody knows of them: while nothing was registered at a proxy, or while all places
//! were taken. Whoever permits START is told when that is over, since only then would they be served.
//!
//! Not here: what is counted of a run (`permit_news.rs` asks), and calling them again, which is up to whoever permits START.
//! Invariant: whoever only connects does not bring it about, since of the places that are taken half must be of sessions whose
//! START was answered, and of the connections that were used up half must be of endpoints whose set-up did not fail, one of
//! which was measured. So it ends: each time it is told again because of places or of connections, endpoints have been measured.

/// What is known of endpoints that may have been missed.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// All places are taken by sessions.
    is_full: bool,
    /// The backlog at a proxy was used up, and is full again.
    was_used_up: bool,
    /// Who had come when all backlogs were full, or when it was judged that one had been used up.
    before: Come,
}

/// Who has come to a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Come {
    /// Connections that were taken from backlogs.
    pub(super) taken: u64,
    /// Sessions whose set-up has failed.
    pub(super) failed: u64,
    /// Sessions whose START was answered.
    pub(super) served: u64,
}

impl Missed {
    /// So many sessions are open, of which so many run. Whether places are free again after nobody could come.
    pub(super) fn take_places(&mut self, open: usize, running: usize, max: usize) -> bool {
        let is_full = are_taken((open, running), max);
        std::mem::replace(&mut self.is_full, is_full) && !is_full
    }

    /// A backlog was used up, and is full again. As [`Self::tend_used_up`].
    pub(super) fn used_up(&mut self, come: Come, in_set_up: u64) -> bool {
        self.was_used_up = true;
        self.tend_used_up(come, in_set_up, false)
    }

    /// Whether endpoints have used up a backlog: strangers who connect are none, which shows when their set-up fails. Of
    /// those who have come so many are in set-up.
    pub(super) fn tend_used_up(&mut self, come: Come, in_set_up: u64, are_full: bool) -> bool {
        let is_told = self.was_used_up && come.is_of_endpoints(self.before, in_set_up);
        // When all have shown who they are, it was strangers.
        if is_told || if self.was_used_up { in_set_up == 0 } else { are_full } {
            (self.was_used_up, self.before) = (false, come);
        }
        is_told
    }
}

impl Come {
    /// Of those who have come since `before`, and of whom so many are in set-up, half are endpoints, and some are measured.
    fn is_of_endpoints(self, before: Self, in_set_up: u64) -> bool {
        let taken = self.taken.saturating_sub(before.taken);
        let failed = self.failed.saturating_sub(before.failed);
        let known = taken.saturating_sub(failed + in_set_up);
        self.served > before.served && known * 2 >= taken
    }
}

/// Nobody can come where so many sessions are open, of which so many run: registered connections, through which somebody
/// can, are not among them.
fn are_taken((open, running): (usize, usize), max: usize) -> bool {
    open >= max && running.saturating_mul(2) >= max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_by_sessions_that_run_and_not_by_whoever_connects() {
        assert!(are_taken((4, 4), 4));
        assert!(are_taken((4, 2), 4), "with some that are about to begin");
        assert!(!are_taken((3, 3), 4), "one is free");
        assert!(!are_taken((4, 1), 4), "strangers have most of them");
        assert!(are_taken((5, 5), 4), "there were more before");
    }

    fn come((taken, failed, served): (u64, u64, u64)) -> Come {
        Come { taken, failed, served }
    }

    #[test]
    fn a_backlog_that_endpoints_have_used_up_is_told_of_once_when_half_of_them_are_known() {
        let mut missed = Missed::default();
        assert!(!missed.used_up(come((8, 0, 2)), 6), "six may be strangers");
        assert!(!missed.tend_used_up(come((8, 1, 2)), 5, true));
        assert!(!missed.tend_used_up(come((8, 1, 3)), 4, true));
        assert!(missed.tend_used_up(come((8, 1, 4)), 3, true));
        assert!(!missed.tend_used_up(come((8, 1, 7)), 0, true), "it has been told");
    }

    #[test]
    fn strangers_and_those_that_were_measured_before_bring_nothing_about() {
        let mut missed = Missed::default();
        assert!(!missed.used_up(come((8, 5, 1)), 2));
        assert!(!missed.tend_used_up(come((8, 7, 1)), 0, true), "seven were strangers");
        assert!(!missed.used_up(come((16, 7, 1)), 0), "nobody was measured");
        assert!(!missed.tend_used_up(come((24, 7, 9)), 0, true), "nothing was used up since");
        assert!(!missed.used_up(come((32, 7, 9)), 0), "those before do not count");
        assert!(missed.used_up(come((40, 7, 10)), 0), "one was");
    }
}
