//! What all connections of one key may do together: how many there are, and how often they ask.
//!
//! A key is remembered for a few seconds after its last connection, so that whoever reconnects does not
//! begin anew. Not here: what a key has on the board (`board`).
//!
//! Invariant: nobody holds these locks for longer than a look-up takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::wire::key::KeyId;
use tokio::time::Instant;

use super::limits::Limits;
use crate::hosting::Pace;

/// How many seconds' worth of requests and matching may be used at once.
const AT_ONCE_SECONDS: usize = 4;
/// So many keys are remembered before those that nobody needs any more are looked for.
const FORGOTTEN_BEYOND: usize = 1024;

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_key: HashMap<KeyId, Use>,
    /// How many there may be before the next search for those that may be forgotten.
    forget_at: usize,
}

#[derive(Debug)]
struct Use {
    connections: usize,
    /// None without a limit.
    messages: Option<Pace>,
    matching: Pace,
}

/// One connection of a key.
#[derive(Debug)]
pub(crate) struct KeyUse {
    keys: Arc<Keys>,
    key: KeyId,
}

impl Use {
    fn new(limits: &Limits) -> Self {
        let pace = |per_second: usize| Pace::new(per_second, per_second * AT_ONCE_SECONDS);
        Self {
            connections: 0,
            messages: (limits.messages_per_second > 0).then(|| pace(limits.messages_per_second)),
            matching: pace(limits.matching_per_second),
        }
    }

    fn may_be_forgotten(&self, now: Instant) -> bool {
        let messages_are_rested = self.messages.as_ref().is_none_or(|pace| pace.is_rested(now));
        self.connections == 0 && messages_are_rested && self.matching.is_rested(now)
    }
}

impl Keys {
    /// One more connection of this key; `None` if it has too many.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: KeyId,
        limits: &Limits,
        now: Instant,
    ) -> Option<KeyUse> {
        let mut table = self.table();
        if table.by_key.len() >= table.forget_at.max(FORGOTTEN_BEYOND) {
            table.by_key.retain(|_, used| !used.may_be_forgotten(now));
            // At twice as many the next time, so that a search is paid for by those who have come.
            table.forget_at = 2 * table.by_key.len();
        }
        let used = table.by_key.entry(key).or_insert_with(|| Use::new(limits));
        let max = limits.connections_per_key_max;
        if max > 0 && used.connections >= max {
            return None;
        }
        used.connections += 1;
        Some(KeyUse { keys: Arc::clone(self), key })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyUse {
    /// Another message of it: how long it has to wait.
    pub(crate) fn message(&self, now: Instant) -> Duration {
        let of_messages = |pace: &mut Pace| pace.use_later(1, now);
        self.change(|used| used.messages.as_mut().map_or(Duration::ZERO, of_messages))
    }

    /// So many characters are looked at, or as much is done that takes as long: how long that has to wait.
    pub(crate) fn matching(&self, looks: usize, now: Instant) -> Duration {
        self.change(|used| used.matching.use_later(looks, now))
    }

    fn change(&self, change: impl FnOnce(&mut Use) -> Duration) -> Duration {
        self.keys.table().by_key.get_mut(&self.key).map_or(Duration::ZERO, change)
    }
}

impl Drop for KeyUse {
    fn drop(&mut self) {
        if let Some(used) = self.keys.table().by_key.get_mut(&self.key) {
            used.connections -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::wire::key::PublicKey;

    use super::*;

    fn key(number: usize) -> KeyId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        PublicKey(bytes).key_id()
    }

    #[test]
    fn connections_of_a_key_share_what_it_may_do_and_reconnecting_gives_nothing_more() {
        let limits =
            Limits { messages_per_second: 1, connections_per_key_max: 2, ..Limits::default() };
        let (keys, now) = (Arc::<Keys>::default(), Instant::now());
        let mut both = [(); 2].map(|()| keys.enter(key(1), &limits, now).unwrap());
        assert!(keys.enter(key(1), &limits, now).is_none(), "a third connection");
        for index in 0..4 {
            assert_eq!(both[index % 2].message(now), Duration::ZERO);
        }
        both[0] = keys.enter(key(2), &limits, now).unwrap();
        assert_eq!(both[0].message(now), Duration::ZERO, "another key");
        let again = keys.enter(key(1), &limits, now).unwrap();
        assert_eq!(again.message(now), Duration::from_secs(1));
    }

    #[test]
    fn without_limits_a_key_may_do_what_it_likes() {
        let limits =
            Limits { messages_per_second: 0, connections_per_key_max: 0, ..Limits::default() };
        let (keys, now) = (Arc::<Keys>::default(), Instant::now());
        let all: Vec<_> = (0..10_000).map(|_| keys.enter(key(1), &limits, now).unwrap()).collect();
        assert!(all.iter().all(|one| one.message(now).is_zero()));
        drop(all);
        assert!(keys.table().by_key[&key(1)].may_be_forgotten(now));
    }

    #[test]
    fn a_key_is_forgotten_when_it_is_gone_and_has_rested() {
        let limits = Limits { messages_per_second: 1, ..Limits::default() };
        let (keys, now) = (Arc::<Keys>::default(), Instant::now());
        let stays = keys.enter(key(0), &limits, now).unwrap();
        let known = || keys.table().by_key.len();
        for number in 1..FORGOTTEN_BEYOND {
            keys.enter(key(number), &limits, now).unwrap().message(now);
        }
        let _busy = keys.enter(key(FORGOTTEN_BEYOND), &limits, now);
        assert_eq!(known(), FORGOTTEN_BEYOND + 1, "none of them has rested");
        let later = now + Duration::from_secs(1);
        for number in 0..2 * FORGOTTEN_BEYOND {
            keys.enter(key(9999 + number), &limits, later);
        }
        assert!(known() < 2 * FORGOTTEN_BEYOND, "{} keys", known());
        assert_eq!(stays.message(later), Duration::ZERO);
    }
}
