//! Which endpoints are measured (`--only`, `--skip`, `--once-per-endpoint`, `--resume`).
//!
//! Asked after TLS, when the key is proven, and before START, so that a refusal uses up no `-n`. Not here: where the keys
//! come from. Invariant: where an endpoint is measured once, its key has at most one session at a time that may become
//! `ok`, and none after one that was.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use super::session_end::Outcome;
use crate::config::{EndpointChoice, KeyPrefixes};
use crate::guards::{Guard, holds};
use packetlab::key::KeyId;

/// The choice, and who has been measured so far.
#[derive(Debug)]
pub struct Choice {
    only: Option<KeyPrefixes>,
    skip: KeyPrefixes,
    /// `None` where that does not matter.
    held: Option<Mutex<Held>>,
}

/// Keys that were measured or are being measured.
#[derive(Debug, Default)]
struct Held {
    by_key: HashMap<KeyId, u64>,
    /// Of the latest hold.
    number: u64,
}

/// A session's hold on the key of its endpoint. Others of the same key are told from it by its number, so that it can be
/// given back by whoever knows first that its session failed, and again by who learns it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    key: KeyId,
    number: u64,
}

impl Choice {
    /// As chosen, before the first session.
    #[must_use]
    pub fn new(choice: &EndpointChoice) -> Self {
        let measured = || choice.measured.iter().map(|key| (*key, 0)).collect();
        let held = choice.once.then(|| Mutex::new(Held { by_key: measured(), number: 0 }));
        Self { only: choice.only.clone(), skip: choice.skip.clone(), held }
    }

    /// Lets an endpoint go on, whose key is held then if each is measured once. Who showed none is known to nobody.
    ///
    /// # Errors
    /// Why it is not measured.
    pub fn take(&self, key: Option<KeyId>) -> Result<Option<Hold>, Outcome> {
        let is_wanted = match (&self.only, key) {
            (None, _) => true,
            (Some(only), Some(key)) => only.contain(key),
            (Some(_), None) => false,
        };
        if !is_wanted || key.is_some_and(|key| self.skip.contain(key)) {
            return Err(Outcome::NotChosen);
        }
        let (Some(held), Some(key)) = (&self.held, key) else { return Ok(None) };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let number = held.number + 1;
        match held.by_key.entry(key) {
            Entry::Occupied(_) if holds(Guard::MeasuresOnce) => {
                return Err(Outcome::AlreadyMeasured);
            }
            place => place.insert_entry(number),
        };
        held.number = number;
        Ok(Some(Hold { key, number }))
    }

    /// The session that has it is not `ok`, and will not be: its endpoint may come again. Nothing if it has been given back
    /// before, whoever holds the key now.
    pub fn give_back(&self, hold: &Hold) {
        let Some(held) = &self.held else { return };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.by_key.get(&hold.key) == Some(&hold.number) {
            held.by_key.remove(&hold.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: KeyId = KeyId([0xab; 32]);
    const OTHER: KeyId = KeyId([0xcd; 32]);

    fn prefixes(all: &[&str]) -> KeyPrefixes {
        let mut prefixes = KeyPrefixes::default();
        all.iter().for_each(|prefix| assert!(prefixes.insert(prefix)));
        prefixes
    }

    #[test]
    fn only_what_is_wanted_and_not_skipped_is_measured() {
        let only = Some(prefixes(&["ABab", &"cd".repeat(32)]));
        let skip = prefixes(&["cdc"]);
        let choice = Choice::new(&EndpointChoice { only, skip, ..EndpointChoice::default() });
        for _ in 0..2 {
            assert_eq!(choice.take(Some(ONE)).unwrap(), None, "as often as it comes");
        }
        for refused in [Some(OTHER), Some(KeyId([1; 32])), None] {
            assert!(matches!(choice.take(refused), Err(Outcome::NotChosen)), "{refused:?}");
        }
        assert!(Choice::new(&EndpointChoice::default()).take(None).is_ok());
    }

    #[test]
    fn what_is_no_beginning_of_a_key_is_refused() {
        for bad in ["", "xy", "ab ", &"a".repeat(65)] {
            assert!(!KeyPrefixes::default().insert(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_endpoint_is_measured_once_unless_it_failed() {
        let measured = vec![OTHER];
        let choice =
            Choice::new(&EndpointChoice { once: true, measured, ..EndpointChoice::default() });
        let first = choice.take(Some(ONE)).unwrap().unwrap();
        let is_taken = |key| matches!(choice.take(Some(key)), Err(Outcome::AlreadyMeasured));
        assert!(is_taken(ONE) && is_taken(OTHER));
        choice.give_back(&first);
        let second = choice.take(Some(ONE)).unwrap().unwrap();
        choice.give_back(&first);
        assert!(is_taken(ONE), "the first has no part in it any more");
        choice.give_back(&second);
        assert!(choice.take(Some(ONE)).is_ok());
        assert!(
            choice.take(None).is_ok() && choice.take(None).is_ok(),
            "nobody knows who these are"
        );
    }
}
