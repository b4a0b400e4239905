//! Those in set-up that may be ended when others wait for what they hold, in the order in which they go.
//!
//! Not here: who belongs among them, and when others wait (`admission.rs`). Invariant: whatever peers do, the next one to
//! go is found without a look at those that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::Limits;
use packetlab::key::KeyId;

/// Places in set-up that one key or source may hold though others wait, where a quarter of them is less: endpoints of a
/// testbed may share either.
const SHARE_MIN: usize = 16;

/// Places in set-up of one shard that connections of one source may hold beyond a second though others wait.
fn source_share(limits: &Limits) -> usize {
    (limits.handshakes_max / 4).max(SHARE_MIN)
}

/// Places in set-up of one shard that one key may hold though others wait. Where the sessions of a key are not limited,
/// endpoints share it, so its places are not limited either.
fn key_share(limits: &Limits) -> usize {
    match limits.sessions_per_key_max {
        Some(0) => usize::MAX,
        _ => source_share(limits),
    }
}

/// What a connection holds that may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holding {
    /// A descriptor alone.
    Descriptor,
    /// A place in set-up too, and its peer does not go on. `patience`: how much longer it may than the time that is
    /// told, unless its source holds more than its share.
    Place { source: IpAddr, patience: Duration },
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
    /// The same places, without the patience.
    by_source: Holders<IpAddr>,
    by_key: Holders<KeyId>,
}

impl Candidates {
    /// Nobody yet.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            descriptors: Queue::new(),
            places: Queue::new(),
            by_source: Holders::new(source_share(limits)),
            by_key: Holders::new(key_share(limits)),
        }
    }

    /// The connection in `slot` is one of them from now on.
    pub(super) fn insert(&mut self, slot: usize, candidate: Candidate) {
        self.change(candidate, |queue, from| queue.insert((from, slot)));
    }

    /// It is not any more; `candidate` is what it was.
    pub(super) fn remove(&mut self, slot: usize, candidate: Candidate) {
        self.change(candidate, |queue, from| queue.remove(&(from, slot)));
    }

    fn change(&mut self, candidate: Candidate, change: impl Fn(&mut Queue, Instant) -> bool) {
        let Candidate { holding, from } = candidate;
        match holding {
            Holding::Descriptor => {
                change(&mut self.descriptors, from);
            }
            Holding::Place { source, patience } => {
                change(&mut self.places, from + patience);
                self.by_source.change(source, |queue| change(queue, from));
            }
            Holding::PlaceOfKey(key) => self.by_key.change(key, |queue| change(queue, from)),
        }
    }

    /// Which one goes next, and from when on it may, when others wait for a descriptor.
    pub(super) fn next_for_descriptor(&self) -> Option<(Instant, usize)> {
        [self.descriptors.first(), self.places.first()].into_iter().flatten().min().copied()
    }

    /// The same when others wait for a place in set-up. While none that does not go on may be ended at `now`, it is the
    /// oldest of the key that holds most, if that is more than its share.
    pub(super) fn next_for_place(&self, now: Instant) -> Option<(Instant, usize)> {
        let patient = self.places.first().copied();
        let stalled = [patient, self.by_source.first_of_greediest()].into_iter().flatten().min();
        let may_go = stalled.filter(|(from, _)| *from <= now);
        may_go.or_else(|| [stalled, self.by_key.first_of_greediest()].into_iter().flatten().min())
    }
}

/// Places by who holds them.
#[derive(Debug)]
struct Holders<H> {
    queues: BTreeMap<H, Queue>,
    /// How many places each holds.
    counts: BTreeSet<(usize, H)>,
    /// Places that each may hold while others wait.
    share: usize,
}

impl<H: Ord + Copy> Holders<H> {
    fn new(share: usize) -> Self {
        Self { queues: BTreeMap::new(), counts: BTreeSet::new(), share }
    }

    fn change(&mut self, holder: H, change: impl FnOnce(&mut Queue) -> bool) {
        let queue = self.queues.entry(holder).or_default();
        self.counts.remove(&(queue.len(), holder));
        change(queue);
        if queue.is_empty() {
            self.queues.remove(&holder);
        } else {
            self.counts.insert((queue.len(), holder));
        }
    }

    fn first_of_greediest(&self) -> Option<(Instant, usize)> {
        let (count, holder) = self.counts.last()?;
        let queue = self.queues.get(holder).filter(|_| *count > self.share)?;
        queue.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_key_may_hold_a_quarter_of_the_places_but_sixteen_and_any_where_keys_are_shared() {
        let share = |handshakes_max, sessions_per_key_max| {
            key_share(&Limits { handshakes_max, sessions_per_key_max, ..Limits::default() })
        };
        assert_eq!(share(1024, None), 256);
        assert_eq!(
            share(1024, Some(5000)),
            256,
            "places are few, however many sessions it may have"
        );
        assert_eq!(share(20, None), 16);
        assert_eq!(share(1024, Some(0)), usize::MAX);
    }

    const KEY: Holding = Holding::PlaceOfKey(KeyId([1; 32]));
    const PLACE: Holding = place(1);
    const OTHER_KEY: Holding = Holding::PlaceOfKey(KeyId([2; 32]));

    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Of a connection from this source, which may go two seconds later if that holds no more than its share.
    const fn place(source: u8) -> Holding {
        let source = IpAddr::V4(Ipv4Addr::new(10, 0, 0, source));
        Holding::Place { source, patience: Duration::from_secs(2) }
    }

    /// Candidates with a share of two, in slots counted from 0: what each holds, and the second from which on it may go.
    fn candidates(start: Instant, each: &[(Holding, u64)]) -> Candidates {
        let mut candidates = Candidates::new(&Limits::default());
        (candidates.by_source.share, candidates.by_key.share) = (2, 2);
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
        let each = [(PLACE, 3), (Holding::Descriptor, 1), (PLACE, 2)];
        let mut candidates = candidates(start, &each);
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(candidates.next_for_descriptor(), Some((at(1), 1)));
        assert_eq!(candidates.next_for_place(start), Some((at(4), 2)));
        candidates.remove(2, candidate(start, PLACE, 2));
        assert_eq!(candidates.next_for_place(start), Some((at(5), 0)));
        candidates.remove(1, candidate(start, Holding::Descriptor, 1));
        assert_eq!(candidates.next_for_descriptor(), Some((at(5), 0)), "it holds both");
    }

    #[test]
    fn a_source_that_holds_more_than_its_share_has_no_patience() {
        let start = start();
        let each = [(place(1), 1), (place(2), 2), (place(2), 4), (place(2), 3)];
        let mut candidates = candidates(start, &each);
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(candidates.next_for_place(start), Some((at(2), 1)));
        candidates.remove(1, candidate(start, place(2), 2));
        assert_eq!(candidates.next_for_place(start), Some((at(3), 0)), "both have what they may");
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
        let each = [(KEY, 1), (KEY, 1), (KEY, 1), (PLACE, 2)];
        let candidates = candidates(start, &each);
        let next_at = |second| {
            let next = candidates.next_for_place(start + Duration::from_secs(second));
            next.map(|(_, slot)| slot)
        };
        assert_eq!(next_at(0), Some(0), "nobody may go yet, and it may first");
        assert_eq!(next_at(1), Some(0));
        assert_eq!(next_at(4), Some(3), "though it may go later");
    }

    #[test]
    fn a_key_that_holds_nothing_leaves_nothing_behind() {
        let start = start();
        let mut candidates = candidates(start, &[(KEY, 1)]);
        candidates.remove(0, candidate(start, KEY, 1));
        assert!(candidates.by_key.queues.is_empty() && candidates.by_key.counts.is_empty());
    }
}
