//! Places of sessions, of all shards together: how many are taken, and how many there are.
//!
//! Not here: who takes one (`mailbox.rs`). Invariant: no place is taken beyond the limit that is in effect; where that was
//! lowered more may be taken, until they are given back.

use crate::sync::atomic::{AtomicU64, Ordering};

use crate::guards::{Guard, holds};

/// Places of sessions.
#[derive(Debug, Default)]
pub(crate) struct SessionPlaces {
    /// How many are taken, in the lower half, and how many there are, in the upper: one number, because a limit that was
    /// read before says nothing of a place that is taken after it was lowered.
    both: AtomicU64,
}

/// More are as good as no limit: no process has so many descriptors.
fn upper(max: usize) -> u64 {
    u64::from(u32::try_from(max).unwrap_or(u32::MAX)) << 32
}

fn lower(both: u64) -> u64 {
    both & u64::from(u32::MAX)
}

impl SessionPlaces {
    /// So many, and none is taken.
    pub(crate) fn new(max: usize) -> Self {
        Self { both: AtomicU64::new(upper(max)) }
    }

    /// There are so many from now on. Where more are taken they stay so, and none can be had until fewer are.
    pub(crate) fn set_max(&self, max: usize) {
        let change = |both| Some(upper(max) | lower(both));
        let _ = self.both.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// Takes one, if there is any.
    pub(crate) fn take(&self) -> bool {
        let has_room = |both: u64| lower(both) < both >> 32 || !holds(Guard::BoundsSessions);
        let room = |both| has_room(both).then_some(both + 1);
        self.both.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// Gives one back that was taken.
    pub(crate) fn give_back(&self) {
        self.both.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are taken, and how many there are.
    pub(crate) fn read(&self) -> (usize, usize) {
        let both = self.both.load(Ordering::Relaxed);
        (lower(both) as usize, (both >> 32) as usize)
    }
}
