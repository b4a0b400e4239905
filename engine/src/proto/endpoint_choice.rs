//! Which endpoints are measured (`--only`, `--skip`, `--once-per-endpoint`, `--resume`).
//!
//! Asked after TLS, when the key is proven, and before START, so that a refusal uses up no `-n`. Not here: where the keys
//! come from. Invariant: where an endpoint is measured once, its key has at most one session at a time, and none after one
//! that was `ok`.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::outcome::Outcome;
use crate::config::{EndpointChoice, KeyPrefixes};
use packetlab::key::KeyId;

/// The choice, and who has been measured so far.
#[derive(Debug)]
pub struct Choice {
    only: Option<KeyPrefixes>,
    skip: KeyPrefixes,
    /// Keys that were measured or are being measured; `None` where that does not matter.
    taken: Option<Mutex<HashSet<KeyId>>>,
}

impl Choice {
    /// As chosen, before the first session.
    #[must_use]
    pub fn new(choice: &EndpointChoice) -> Self {
        let taken = choice.once.then(|| Mutex::new(choice.measured.iter().copied().collect()));
        Self { only: choice.only.clone(), skip: choice.skip.clone(), taken }
    }

    /// Lets an endpoint go on, whose key is taken then. Who showed none is known to nobody.
    ///
    /// # Errors
    /// Why it is not measured.
    pub fn take(&self, key: Option<KeyId>) -> Result<(), Outcome> {
        let is_wanted = match (&self.only, key) {
            (None, _) => true,
            (Some(only), Some(key)) => only.contain(key),
            (Some(_), None) => false,
        };
        if !is_wanted || key.is_some_and(|key| self.skip.contain(key)) {
            return Err(Outcome::NotChosen);
        }
        let (Some(taken), Some(key)) = (&self.taken, key) else { return Ok(()) };
        let is_new = taken.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        if is_new { Ok(()) } else { Err(Outcome::AlreadyMeasured) }
    }

    /// A session that had taken the key was not `ok`: the endpoint may come again.
    pub fn give_back(&self, key: KeyId) {
        if let Some(taken) = &self.taken {
            taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
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
        assert!(choice.take(Some(ONE)).is_ok());
        assert!(choice.take(Some(ONE)).is_ok(), "as often as it comes");
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
        assert!(choice.take(Some(ONE)).is_ok());
        for taken in [ONE, OTHER] {
            assert!(matches!(choice.take(Some(taken)), Err(Outcome::AlreadyMeasured)));
        }
        choice.give_back(ONE);
        assert!(choice.take(Some(ONE)).is_ok());
        assert!(
            choice.take(None).is_ok() && choice.take(None).is_ok(),
            "nobody knows who these are"
        );
    }
}
