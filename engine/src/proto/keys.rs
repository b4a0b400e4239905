//! How many sessions each endpoint key has at once, of all shards together.
//!
//! One endpoint that opens session after session must not leave the others without. Its key is counted once it has been
//! proven, so nobody can use up another's share. Invariant: a key is counted as often as [`KeyPlace`]s of it exist.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use packetlab::key::KeyId;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sessions of each key.
#[derive(Debug)]
pub struct Keys {
    /// Sessions that one key may have at once; `None` is no limit, and then nothing is counted.
    max: Option<AtomicUsize>,
    counts: Mutex<HashMap<KeyId, usize>>,
}

/// One session's place among those of its key; given back when dropped.
#[derive(Debug)]
pub struct KeyPlace {
    /// Boxed, because every idle session holds one.
    held: Option<Box<(Arc<Keys>, KeyId)>>,
}

impl Keys {
    /// Allows each key `max` sessions at once, or any number for `None`.
    #[must_use]
    pub fn new(max: Option<usize>) -> Arc<Self> {
        Arc::new(Self { max: max.map(AtomicUsize::new), counts: Mutex::default() })
    }

    /// Allows each key so many from now on; nothing changes where there is no limit. Who has more keeps them.
    pub(crate) fn set_max(&self, max: usize) {
        if let Some(now) = &self.max {
            now.store(max, Ordering::Relaxed);
        }
    }

    /// One more session of `key`, if it may have one.
    pub fn open(self: &Arc<Self>, key: KeyId) -> Option<KeyPlace> {
        let Some(max) = &self.max else { return Some(KeyPlace { held: None }) };
        let mut counts = self.lock();
        // Read where nobody else gives back or takes: it may just have been lowered.
        let max = max.load(Ordering::Relaxed);
        let count = counts.entry(key).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(KeyPlace { held: Some(Box::new((Arc::clone(self), key))) })
    }

    /// A thread that panicked while it held the lock has left whole counts behind.
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeyPlace {
    fn drop(&mut self) {
        let Some((keys, key)) = self.held.as_deref() else { return };
        if let Entry::Occupied(mut count) = keys.lock().entry(*key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_at_most_so_many_places_at_once_and_others_are_not_concerned() {
        let keys = Keys::new(Some(2));
        let (one, other) = (KeyId([1; 32]), KeyId([2; 32]));
        let places = [keys.open(one).unwrap(), keys.open(one).unwrap()];
        assert!(keys.open(one).is_none());
        assert!(keys.open(other).is_some());
        drop(places);
        assert!(keys.open(one).is_some());
        keys.set_max(1);
        let place = keys.open(one);
        assert!(place.is_some() && keys.open(one).is_none());
        drop(place);
        assert!(keys.lock().is_empty(), "a key without sessions leaves nothing behind");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let keys = Keys::new(None);
        let key = KeyId([1; 32]);
        let places: Vec<_> = (0..100).map(|_| keys.open(key).unwrap()).collect();
        assert!(keys.lock().is_empty());
        drop(places);
    }
}
