//! How many monitors the process has.
//!
//! Each takes five mappings of memory, of which the kernel allows a process 65,530 unless it is told otherwise. Without
//! any left no thread can be started, and sessions without monitors would fail as well.
//!
//! Not here: what one of them may take. Invariant: there are at most [`MONITORS_MAX`], and sessions with many leave half of
//! the places to others.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Monitors of all sessions of the process.
pub(crate) const MONITORS_MAX: usize = 10_000;
/// Of a session, however many others have. Operators demand one or two.
const FEW: usize = 8;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// One of them, as long as this is held.
pub(crate) struct Counted(());

impl Counted {
    /// One more of a session that has so many already; `None` if there may not be one more.
    pub(crate) fn one_more(of_session: usize) -> Option<Self> {
        let next = |all: usize| may_be_one_more(all, of_session).then_some(all + 1);
        COUNT.fetch_update(Relaxed, Relaxed, next).ok().map(|_| Self(()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Relaxed);
    }
}

fn may_be_one_more(all: usize, of_session: usize) -> bool {
    all < if of_session < FEW { MONITORS_MAX } else { MONITORS_MAX / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_with_many_monitors_leave_half_of_the_places_to_others() {
        let (half, most) = (MONITORS_MAX / 2, MONITORS_MAX);
        for (all, of_session, may_be) in [
            (0, 99, true),
            (half - 1, 99, true),
            (half, 8, false),
            (half, 7, true),
            (most - 1, 0, true),
            (most, 0, false),
        ] {
            assert_eq!(may_be_one_more(all, of_session), may_be, "{all} {of_session}");
        }
    }
}
