//! Places of sessions, of all shards together: how many are taken, and how many there are.
//!
//! Not here: who takes one (`mailbox.rs`). Invariant: no place is taken beyond the limit that is in effect; where that was
//! lowered more may be taken, until they are given back.

use crate::sync::atomic::{AtomicUsize, Ordering};

use crate::guards::{Guard, holds};

/// Places of sessions.
#[derive(Debug, Default)]
pub(crate) struct SessionPlaces {
    taken: AtomicUsize,
    max: AtomicUsize,
}

impl SessionPlaces {
    /// So many, and none is taken.
    pub(crate) fn new(max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// There are so many from now on. Where more are taken they stay so, and none can be had until fewer are.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Takes one, if there is any.
    pub(crate) fn take(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let has_room = |taken: usize| taken < max || !holds(Guard::BoundsSessions);
        let room = |taken: usize| has_room(taken).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// Gives one back that was taken.
    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are taken, and how many there are.
    pub(crate) fn read(&self) -> (usize, usize) {
        (self.taken.load(Ordering::Relaxed), self.max.load(Ordering::Relaxed))
    }
}
