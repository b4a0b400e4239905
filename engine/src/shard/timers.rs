//! When each session's deadline is due.
//!
//! A session has at most one entry that counts, the one that is due when its connection says. A deadline that moves
//! later costs nothing until its old entry comes up; one that moves earlier adds an entry, and the old one counts no more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::records::SessionId;

/// The entries, earliest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize, SessionId)>>,
}

impl Timers {
    /// Wakes the session in `slot` at `due`.
    pub(super) fn add(&mut self, due: Instant, slot: usize, id: SessionId) {
        self.heap.push(Reverse((due, slot, id)));
    }

    /// Entries, those that no longer count included.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// When the next entry is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, _, _))| *due)
    }

    /// An entry that is due, and since when, with its slot and session.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, usize, SessionId)> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
