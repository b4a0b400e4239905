//! What all connections of one key may do together, how many there are and how often they ask; and what those from
//! one source may, because keys cost nothing where any is believed.
//!
//! A key or source is remembered for a few seconds after its last connection, so that whoever reconnects does not
//! begin anew. Not here: what a key has on the board (`board`).
//!
//! Invariant: nobody holds these locks for longer than a look-up takes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use packetlab::key::KeyId;
use tokio::time::Instant;

use super::limits::BrokerLimits;
use crate::hosting::{Pace, Source};

/// How many seconds' worth of requests and matching may be used at once.
const AT_ONCE_SECONDS: usize = 4;
/// So many keys are remembered before those that nobody needs any more are looked for.
const FORGOTTEN_BEYOND: usize = 1024;

/// All keys, and where their connections come from.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    keys: KeyTable<KeyId>,
    sources: KeyTable<Source>,
}

/// Parties of one kind.
#[derive(Debug)]
struct KeyTable<P> {
    parties: HashMap<P, Use>,
    /// How many there may be before the next search for those that may be forgotten.
    forget_at: usize,
}

/// What a party does.
#[derive(Debug)]
struct Use {
    connections: usize,
    /// None without a limit.
    messages: Option<Pace>,
    /// The same.
    matching: Option<Pace>,
}

/// One connection of a key.
#[derive(Debug)]
pub(crate) struct KeyUse {
    keys: Arc<Keys>,
    key: KeyId,
    source: Source,
    /// How many keys' worth the source may do.
    per_source_keys: usize,
}

impl Use {
    /// As much as so many keys may; 0: no limit.
    fn new(limits: &BrokerLimits, keys: usize) -> Self {
        let pace = |per_second: usize| {
            let per_second = per_second.saturating_mul(keys);
            let at_once = per_second.saturating_mul(AT_ONCE_SECONDS);
            (per_second > 0).then(|| Pace::new(per_second, at_once))
        };
        let messages = pace(limits.messages_per_second);
        Self { connections: 0, messages, matching: pace(limits.matching_per_second) }
    }

    fn may_be_forgotten(&self, now: Instant) -> bool {
        let paces = [&self.messages, &self.matching];
        self.connections == 0 && paces.into_iter().flatten().all(|pace| pace.is_rested(now))
    }
}

impl<P> Default for KeyTable<P> {
    fn default() -> Self {
        Self { parties: HashMap::new(), forget_at: 0 }
    }
}

impl<P: Hash + Eq> KeyTable<P> {
    fn of(&mut self, party: P, now: Instant, new: impl FnOnce() -> Use) -> &mut Use {
        if self.parties.len() >= self.forget_at.max(FORGOTTEN_BEYOND) {
            self.parties.retain(|_, used| !used.may_be_forgotten(now));
            // At twice as many the next time, so that a search is paid for by those who have come.
            self.forget_at = 2 * self.parties.len();
        }
        self.parties.entry(party).or_insert_with(new)
    }

    fn leave(&mut self, party: &P) {
        if let Some(used) = self.parties.get_mut(party) {
            used.connections -= 1;
        }
    }
}

impl Keys {
    /// One more connection of this key from this source; `None` if the key has too many.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: KeyId,
        source: Source,
        limits: &BrokerLimits,
        now: Instant,
    ) -> Option<KeyUse> {
        let mut tables = self.tables();
        let BrokerLimits { connections_per_key_max: max, per_source_keys, .. } = *limits;
        let of_key = tables.keys.of(key, now, || Use::new(limits, 1));
        if max > 0 && of_key.connections >= max {
            return None;
        }
        of_key.connections += 1;
        tables.sources.of(source, now, || Use::new(limits, per_source_keys)).connections += 1;
        Some(KeyUse { keys: Arc::clone(self), key, source, per_source_keys })
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyUse {
    /// Another message of it: how long it has to wait.
    pub(crate) fn message(&self, now: Instant) -> Duration {
        self.use_later(1, now, |used| used.messages.as_mut())
    }

    /// So many characters are looked at, or as much is done that takes as long: how long that has to wait.
    pub(crate) fn matching(&self, looks: usize, now: Instant) -> Duration {
        self.use_later(looks, now, |used| used.matching.as_mut())
    }

    /// Where the source has used up what is its, each of its connections gets an equal part: it waits for the others
    /// no longer than its own use takes to come back at that pace.
    fn use_later(
        &self,
        amount: usize,
        now: Instant,
        pace: impl Fn(&mut Use) -> Option<&mut Pace>,
    ) -> Duration {
        let mut tables = self.keys.tables();
        let Some(of_key) = tables.keys.parties.get_mut(&self.key).and_then(&pace) else {
            return Duration::ZERO;
        };
        let (wait, owed) = (of_key.use_later(amount, now), of_key.owed(now));
        let Some(source) = tables.sources.parties.get_mut(&self.source) else { return wait };
        let connections = source.connections as f64;
        let Some(of_source) = pace(source) else { return wait };
        let own_part = owed.mul_f64(connections / self.per_source_keys.max(1) as f64);
        wait.max(of_source.use_later(amount, now).min(own_part))
    }
}

impl Drop for KeyUse {
    fn drop(&mut self) {
        let mut tables = self.keys.tables();
        tables.keys.leave(&self.key);
        tables.sources.leave(&self.source);
    }
}

#[cfg(test)]
mod tests {
    use packetlab::key::PublicKey;

    use super::*;

    fn key(number: usize) -> KeyId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        PublicKey(bytes).key_id()
    }

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    /// Each key alone would be within its own limit.
    #[test]
    fn many_keys_of_one_source_together_do_no_more_than_a_few() {
        let limits =
            BrokerLimits { messages_per_second: 10, per_source_keys: 2, ..BrokerLimits::default() };
        let (keys, start) = (Arc::<Keys>::default(), Instant::now());
        let enter = |number| keys.enter(key(number), source(1), &limits, start).unwrap();
        let attackers: Vec<_> = (0..8).map(enter).collect();
        let mut turns = vec![start; attackers.len()];
        let (mut count, mut clock) = (0, Duration::ZERO);
        while clock < Duration::from_secs(60) {
            let now = start + clock;
            for (attacker, turn) in attackers.iter().zip(&mut turns) {
                while *turn <= now {
                    count += 1;
                    *turn = now + attacker.message(now).max(Duration::from_millis(1));
                }
            }
            clock += Duration::from_millis(1);
        }
        // 20 a second and 80 at once, and no more of each than it has under way.
        assert!((1000..1700).contains(&count), "{count}");
        let now = start + clock;
        let honest = keys.enter(key(99), source(1), &limits, now).unwrap();
        let waits = honest.message(now);
        assert!(waits < Duration::from_secs(1), "one of the same address waits {waits:?}");
        let other = keys.enter(key(98), source(2), &limits, now).unwrap();
        assert_eq!(other.message(now), Duration::ZERO);
    }

    #[test]
    fn connections_of_a_key_share_what_it_may_do_and_reconnecting_gives_nothing_more() {
        let limits = BrokerLimits {
            messages_per_second: 1,
            connections_per_key_max: 2,
            ..BrokerLimits::default()
        };
        let (keys, now) = (Arc::<Keys>::default(), Instant::now());
        let mut both = [(); 2].map(|()| keys.enter(key(1), source(1), &limits, now).unwrap());
        assert!(keys.enter(key(1), source(1), &limits, now).is_none(), "a third connection");
        for index in 0..4 {
            assert_eq!(both[index % 2].message(now), Duration::ZERO);
        }
        both[0] = keys.enter(key(2), source(2), &limits, now).unwrap();
        assert_eq!(both[0].message(now), Duration::ZERO, "another key");
        let again = keys.enter(key(1), source(1), &limits, now).unwrap();
        assert_eq!(again.message(now), Duration::from_secs(1));
    }

    #[test]
    fn without_limits_a_key_may_do_what_it_likes() {
        let limits = BrokerLimits {
            messages_per_second: 0,
            connections_per_key_max: 0,
            ..BrokerLimits::default()
        };
        let (keys, now) = (Arc::<Keys>::default(), Instant::now());
        let all: Vec<_> =
            (0..10_000).map(|_| keys.enter(key(1), source(1), &limits, now).unwrap()).collect();
        assert!(all.iter().all(|one| one.message(now).is_zero()));
        drop(all);
        assert!(keys.tables().keys.parties[&key(1)].may_be_forgotten(now));
    }

    #[test]
    fn a_key_is_forgotten_when_it_is_gone_and_has_rested() {
        let limits =
            BrokerLimits { messages_per_second: 1, per_source_keys: 0, ..BrokerLimits::default() };
        let (keys, now) = (Arc::<Keys>::default(), Instant::now());
        let stays = keys.enter(key(0), source(1), &limits, now).unwrap();
        let known = || keys.tables().keys.parties.len();
        for number in 1..FORGOTTEN_BEYOND {
            keys.enter(key(number), source(1), &limits, now).unwrap().message(now);
        }
        let _busy = keys.enter(key(FORGOTTEN_BEYOND), source(1), &limits, now);
        assert_eq!(known(), FORGOTTEN_BEYOND + 1, "none of them has rested");
        let later = now + Duration::from_secs(1);
        for number in 0..2 * FORGOTTEN_BEYOND {
            keys.enter(key(9999 + number), source(1), &limits, later);
        }
        assert!(known() < 2 * FORGOTTEN_BEYOND, "{} keys", known());
        assert_eq!(stays.message(later), Duration::ZERO);
    }
}
