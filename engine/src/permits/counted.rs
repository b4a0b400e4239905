//! The permits of `-n`: those who hold one and those who wait.
//!
//! A permit goes to the holder that has fewest, and of equals to the one whose last turn is longest ago; its sessions
//! get theirs in the order in which they asked. Nobody has more than half of the attempts that are left, rounded up,
//! unless endpoints share keys.
//!
//! Not here: START itself (`proto/greeting.rs`), how long it is waited for (`proto/session/`), and when a session gives a
//! permit back (`shard/permit_to_mlet.rs`). Invariant: permits that are out and attempts that are made together never exceed
//! the count.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::task::{Context, Poll};

use super::source::{Holder, PermitNews, Permits};
use crate::guards::{Guard, holds};

/// The permits of a run.
#[derive(Debug)]
pub(super) struct Counted {
    /// Attempts that are not made yet.
    left: u32,
    /// That all are made has been told.
    told_enough: bool,
    /// One holder may have all of them.
    keys_are_shared: bool,
    /// For how many of them a permit is out.
    out: u32,
    sessions: HashMap<u64, (Holder, Wish)>,
    holders: BTreeMap<Holder, Claims>,
    /// Holders with a session that waits: those first that hold fewest, then those whose turn is longest ago.
    queue: BTreeSet<(u32, u64, Holder)>,
    turns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Waits,
    Holds,
}

/// What the sessions of one holder have.
#[derive(Debug)]
struct Claims {
    held: u32,
    waiting: VecDeque<u64>,
    /// When its last permit was given or taken back, or when it came: who comes while another has one goes before it.
    turn: u64,
}

impl Permits for Counted {
    fn want(&mut self, session: u64, holder: Holder) {
        self.sessions.insert(session, (holder, Wish::Waits));
        self.change(holder, |claims| claims.waiting.push_back(session));
    }

    fn free(&mut self, session: u64) {
        match self.sessions.remove(&session) {
            Some((holder, Wish::Holds)) if holds(Guard::GivesBackPermits) => self.take_back(holder),
            Some((_, Wish::Holds)) | None => {}
            Some((holder, Wish::Waits)) => {
                self.change(holder, |claims| claims.waiting.retain(|one| *one != session));
            }
        }
    }

    fn begin(&mut self, session: u64) {
        if let Some((holder, Wish::Holds)) = self.sessions.remove(&session) {
            self.left -= 1;
            self.take_back(holder);
        }
    }

    /// It has news only of what was done here, so that nobody has to be woken.
    fn poll_news(&mut self, _: &mut Context<'_>) -> Poll<PermitNews> {
        if let Some(session) = self.give() {
            return Poll::Ready(PermitNews::Given { session, epoch: None });
        }
        match self.left == 0 && !std::mem::replace(&mut self.told_enough, self.left == 0) {
            true => Poll::Ready(PermitNews::Enough("all attempts of -n are made".into())),
            false => Poll::Pending,
        }
    }
}

impl Counted {
    /// For so many attempts. `keys_are_shared` where the sessions of a key are not limited.
    pub(super) fn new(attempts: NonZeroU32, keys_are_shared: bool) -> Self {
        Self {
            left: attempts.get(),
            told_enough: false,
            keys_are_shared,
            out: 0,
            sessions: HashMap::new(),
            holders: BTreeMap::new(),
            queue: BTreeSet::new(),
            turns: 0,
        }
    }

    /// Gives a permit to the session whose turn it is, if there is one to give.
    fn give(&mut self) -> Option<u64> {
        let (held, _, holder) = *self.queue.first()?;
        let is_shared = self.keys_are_shared || !holds(Guard::SharesPermits);
        let share = if is_shared { self.left } else { self.left.div_ceil(2) };
        let is_out = self.out == self.left && holds(Guard::BoundsPermits);
        if is_out || held >= share {
            return None;
        }
        self.turns += 1;
        let turn = self.turns;
        let session = self.change(holder, |claims| {
            let session = claims.waiting.pop_front()?;
            (claims.held, claims.turn) = (held + 1, turn);
            Some(session)
        })?;
        self.out += 1;
        self.sessions.insert(session, (holder, Wish::Holds));
        Some(session)
    }

    fn take_back(&mut self, holder: Holder) {
        self.out -= 1;
        self.turns += 1;
        let turn = self.turns;
        self.change(holder, |claims| (claims.held, claims.turn) = (claims.held - 1, turn));
    }

    fn change<T>(&mut self, holder: Holder, change: impl FnOnce(&mut Claims) -> T) -> T {
        let claims = self.holders.entry(holder).or_insert_with(|| {
            self.turns += 1;
            Claims { held: 0, waiting: VecDeque::new(), turn: self.turns }
        });
        self.queue.remove(&(claims.held, claims.turn, holder));
        let changed = change(claims);
        if !claims.waiting.is_empty() {
            self.queue.insert((claims.held, claims.turn, holder));
        } else if claims.held == 0 {
            self.holders.remove(&holder);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use packetlab::key::KeyId;

    fn permits(attempts: u32) -> Counted {
        Counted::new(NonZeroU32::new(attempts).unwrap(), false)
    }

    /// Sessions of the key `key` begin to wait.
    fn wait(permits: &mut Counted, key: u8, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            permits.want(id, Holder::Key(KeyId([key; 32])));
        }
    }

    fn given(permits: &mut Counted) -> Vec<u64> {
        std::iter::from_fn(|| permits.give()).collect()
    }

    #[test]
    fn who_comes_while_another_key_has_the_permit_is_next() {
        let mut permits = permits(1);
        wait(&mut permits, 1, [1, 2]);
        assert_eq!(given(&mut permits), [1]);
        wait(&mut permits, 2, [3]);
        permits.free(1);
        assert_eq!(given(&mut permits), [3]);
    }

    #[test]
    fn permits_and_made_attempts_together_never_exceed_the_count() {
        let mut permits = permits(2);
        (1..=4).for_each(|key| wait(&mut permits, key, [u64::from(key)]));
        assert_eq!(given(&mut permits), [1, 2]);
        permits.free(1);
        assert_eq!(given(&mut permits), [3], "what was given back");
        permits.begin(2);
        assert!(given(&mut permits).is_empty(), "one made, one out");
        permits.begin(3);
        assert_eq!((given(&mut permits), permits.left), (vec![], 0));
    }

    #[test]
    fn that_all_attempts_are_made_is_told_once_and_behind_every_permit() {
        let mut permits = permits(1);
        let news = |permits: &mut Counted| match permits
            .poll_news(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(news) => Some(news),
            Poll::Pending => None,
        };
        wait(&mut permits, 1, 1..=2);
        assert_eq!(news(&mut permits), Some(PermitNews::Given { session: 1, epoch: None }));
        assert_eq!(news(&mut permits), None);
        permits.begin(1);
        assert!(matches!(news(&mut permits), Some(PermitNews::Enough(_))));
        assert_eq!(news(&mut permits), None);
    }

    #[test]
    fn one_key_leaves_a_permit_to_another_that_comes_later() {
        let mut permits = permits(3);
        wait(&mut permits, 1, 1..=9);
        assert_eq!(given(&mut permits), [1, 2], "half of three, rounded up");
        wait(&mut permits, 2, [10]);
        assert_eq!(given(&mut permits), [10]);
        permits.begin(10);
        wait(&mut permits, 3, [11]);
        assert!(given(&mut permits).is_empty(), "both that are left are out");
        permits.free(1);
        assert_eq!(
            given(&mut permits),
            [11],
            "whose key holds fewer than the one that waits longer"
        );
    }

    #[test]
    fn a_key_that_is_shared_has_as_many_permits_as_there_are() {
        let mut permits = Counted { keys_are_shared: true, ..permits(3) };
        wait(&mut permits, 1, 1..=9);
        assert_eq!(given(&mut permits), [1, 2, 3]);
    }

    #[test]
    fn keys_that_hold_as_many_take_turns() {
        let mut permits = permits(1);
        wait(&mut permits, 1, 1..=3);
        wait(&mut permits, 2, 4..=5);
        wait(&mut permits, 3, [6]);
        let mut order = Vec::new();
        while let Some(session) = permits.give() {
            order.push(session);
            permits.free(session);
        }
        assert_eq!(order, [1, 4, 6, 2, 5, 3]);
    }

    #[test]
    fn who_leaves_while_it_waits_leaves_nothing_behind() {
        let mut permits = permits(1);
        wait(&mut permits, 1, 1..=3);
        assert_eq!(given(&mut permits), [1]);
        (1..=3).for_each(|id| permits.free(id));
        permits.free(3);
        assert_eq!(permits.out, 0);
        assert!(permits.sessions.is_empty() && permits.holders.is_empty());
        assert!(permits.queue.is_empty());
    }
}
