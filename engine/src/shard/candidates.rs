//! Those in set-up that may be ended when others wait for what they hold, in the order in which they go.
//!
//! Not here: who belongs among them, and when others wait (`admission.rs`). Invariant: whatever peers do, the next one to
//! go is found without a look at those that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::wire::key::KeyId;

/// What a connection holds that may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holding {
    /// A descriptor alone.
    Descriptor,
    /// A place in set-up too, and its peer does not go on.
    Place,
    /// A place in set-up past the handshake, proven by this key.
    PlaceOfKey(KeyId),
}

/// One of them: what it holds, and from when on it may be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) holding: Holding,
    pub(super) from: Instant,
}

/// Slots of connections, the one first that may be ended first.
type Queue = BTreeSet<(Instant, usize)>;

/// All of them, by slot.
#[derive(Debug)]
pub(super) struct Candidates {
    descriptors: Queue,
    places: Queue,
    by_key: BTreeMap<KeyId, Queue>,
    /// How many places each key holds.
    key_counts: BTreeSet<(usize, KeyId)>,
    /// Places that a key may hold while others wait.
    key_share: usize,
}

impl Candidates {
    /// Nobody yet; a key that holds at most `key_share` places makes no room.
    pub(super) fn new(key_share: usize) -> Self {
        Self {
            descriptors: Queue::new(),
            places: Queue::new(),
            by_key: BTreeMap::new(),
            key_counts: BTreeSet::new(),
            key_share,
        }
    }

    /// The connection in `slot` is one of them from now on.
    pub(super) fn insert(&mut self, slot: usize, candidate: Candidate) {
        self.change(candidate.holding, |queue| queue.insert((candidate.from, slot)));
    }

    /// It is not any more; `candidate` is what it was.
    pub(super) fn remove(&mut self, slot: usize, candidate: Candidate) {
        self.change(candidate.holding, |queue| queue.remove(&(candidate.from, slot)));
    }

    fn change(&mut self, holding: Holding, change: impl FnOnce(&mut Queue) -> bool) {
        let key = match holding {
            Holding::Descriptor => {
                change(&mut self.descriptors);
                return;
            }
            Holding::Place => {
                change(&mut self.places);
                return;
            }
            Holding::PlaceOfKey(key) => key,
        };
        let queue = self.by_key.entry(key).or_default();
        self.key_counts.remove(&(queue.len(), key));
        change(queue);
        if queue.is_empty() {
            self.by_key.remove(&key);
        } else {
            self.key_counts.insert((queue.len(), key));
        }
    }

    /// Which one goes next, and from when on it may, when others wait for a descriptor.
    pub(super) fn next_for_descriptor(&self) -> Option<(Instant, usize)> {
        [self.descriptors.first(), self.places.first()].into_iter().flatten().min().copied()
    }

    /// The same when others wait for a place in set-up. While none that does not go on may be ended at `now`, it is the
    /// oldest of the key that holds most, if that is more than its share.
    pub(super) fn next_for_place(&self, now: Instant) -> Option<(Instant, usize)> {
        let stalled = self.places.first().copied();
        let may_go = stalled.filter(|(from, _)| *from <= now);
        may_go.or_else(|| [stalled, self.first_of_greediest()].into_iter().flatten().min())
    }

    fn first_of_greediest(&self) -> Option<(Instant, usize)> {
        let (count, key) = self.key_counts.last()?;
        let queue = self.by_key.get(key).filter(|_| *count > self.key_share)?;
        queue.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KEY: Holding = Holding::PlaceOfKey(KeyId([1; 32]));
    const OTHER_KEY: Holding = Holding::PlaceOfKey(KeyId([2; 32]));

    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Candidates with a share of two, in slots counted from 0: what each holds, and the second from which on it may go.
    fn candidates(start: Instant, each: &[(Holding, u64)]) -> Candidates {
        let mut candidates = Candidates::new(2);
        for (slot, (holding, second)) in each.iter().enumerate() {
            candidates.insert(slot, candidate(start, *holding, *second));
        }
        candidates
    }

    fn candidate(start: Instant, holding: Holding, second: u64) -> Candidate {
        Candidate { holding, from: start + Duration::from_secs(second) }
    }

    #[test]
    fn the_oldest_that_holds_what_is_waited_for_goes_first() {
        let start = start();
        let each = [(Holding::Place, 3), (Holding::Descriptor, 1), (Holding::Place, 2)];
        let mut candidates = candidates(start, &each);
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(candidates.next_for_descriptor(), Some((at(1), 1)));
        assert_eq!(candidates.next_for_place(start), Some((at(2), 2)));
        candidates.remove(2, candidate(start, Holding::Place, 2));
        assert_eq!(candidates.next_for_place(start), Some((at(3), 0)));
        candidates.remove(1, candidate(start, Holding::Descriptor, 1));
        assert_eq!(candidates.next_for_descriptor(), Some((at(3), 0)), "it holds both");
    }

    #[test]
    fn the_greediest_key_makes_room_from_its_oldest_on_until_it_holds_its_share() {
        let start = start();
        let each = [(OTHER_KEY, 0), (OTHER_KEY, 0), (KEY, 2), (KEY, 1), (KEY, 4), (KEY, 3)];
        let mut candidates = candidates(start, &each);
        for (slot, second) in [(3, 1), (2, 2)] {
            let from = start + Duration::from_secs(second);
            assert_eq!(candidates.next_for_place(from), Some((from, slot)));
            candidates.remove(slot, candidate(start, KEY, second));
        }
        assert_eq!(candidates.next_for_place(start), None, "each has two, which it may");
        assert_eq!(candidates.next_for_descriptor(), None);
        candidates.insert(9, candidate(start, OTHER_KEY, 5));
        assert_eq!(candidates.next_for_place(start), Some((start, 0)));
    }

    #[test]
    fn a_key_makes_room_only_while_nobody_may_go_who_does_not_go_on() {
        let start = start();
        let each = [(KEY, 1), (KEY, 1), (KEY, 1), (Holding::Place, 2)];
        let candidates = candidates(start, &each);
        let next_at = |second| {
            let next = candidates.next_for_place(start + Duration::from_secs(second));
            next.map(|(_, slot)| slot)
        };
        assert_eq!(next_at(0), Some(0), "nobody may go yet, and it may first");
        assert_eq!(next_at(1), Some(0));
        assert_eq!(next_at(2), Some(3), "though it may go later");
    }

    #[test]
    fn a_key_that_holds_nothing_leaves_nothing_behind() {
        let start = start();
        let mut candidates = candidates(start, &[(KEY, 1)]);
        candidates.remove(0, candidate(start, KEY, 1));
        assert!(candidates.by_key.is_empty() && candidates.key_counts.is_empty());
    }
}
