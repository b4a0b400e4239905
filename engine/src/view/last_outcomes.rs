//! How the latest session of each endpoint key has ended, so that it is seen which of those that run have failed before.
//!
//! ```text
//! lately --full--> before; what was there is forgotten
//! ```
//! Not here: what the records of earlier runs hold. Invariant: at least the [`LATELY_MAX`] keys that ended last are known, and
//! never more than twice as many. A key takes 34 bytes of a table that is 7/16 to 7/8 full: 0.6 MB with 10,000
//! keys, 2.2 MB for each of the two tables when full. With 1,000,000 keys it is 4.5 MB, which no longer grows; without the
//! bound it would be 71 MB.

use std::collections::HashMap;

use crate::records::OutcomeKind;
use packetlab::key::KeyId;

/// So many keys are known for certain: what a table of 65,536 places holds before it grows.
const LATELY_MAX: usize = 65_536 / 8 * 7;

/// The latest outcome of each key.
#[derive(Debug, Default)]
pub(crate) struct LastOutcomes {
    lately: HashMap<KeyId, OutcomeKind>,
    before: HashMap<KeyId, OutcomeKind>,
}

impl LastOutcomes {
    /// How the session of this key that ended last did so; `None` if there was none, or it is long ago.
    pub(crate) fn of(&self, key: Option<KeyId>) -> Option<OutcomeKind> {
        let key = key?;
        self.lately.get(&key).or_else(|| self.before.get(&key)).copied()
    }

    /// A session of this key has ended.
    pub(super) fn add(&mut self, key: KeyId, outcome: OutcomeKind) {
        // A full table would make room for one more even where it only replaces.
        if let Some(known) = self.lately.get_mut(&key) {
            *known = outcome;
            return;
        }
        if self.lately.len() >= LATELY_MAX {
            self.before = std::mem::take(&mut self.lately);
        }
        self.lately.insert(key, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> KeyId {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        KeyId(key)
    }

    #[test]
    fn of_many_keys_those_that_ended_last_are_known_in_two_tables_that_do_not_grow() {
        let mut outcomes = LastOutcomes::default();
        let last = 4 * LATELY_MAX;
        for number in 0..=last {
            outcomes.add(key(number), OutcomeKind::Ok);
            outcomes.add(key(number), OutcomeKind::MletFailed);
        }
        let known = |number| outcomes.of(Some(key(number)));
        assert!(
            (last - LATELY_MAX..=last).all(|number| known(number) == Some(OutcomeKind::MletFailed))
        );
        assert_eq!(known(last - 2 * LATELY_MAX), None);
        assert_eq!(outcomes.of(None), None);
        for table in [&outcomes.lately, &outcomes.before] {
            assert!(table.len() <= LATELY_MAX && table.capacity() <= LATELY_MAX);
        }
    }

    #[test]
    fn what_a_key_did_last_counts_even_where_it_was_known_before() {
        let mut outcomes = LastOutcomes::default();
        outcomes.add(key(0), OutcomeKind::MletFailed);
        (1..=LATELY_MAX).for_each(|number| outcomes.add(key(number), OutcomeKind::Ok));
        assert_eq!(outcomes.of(Some(key(0))), Some(OutcomeKind::MletFailed), "in the table before");
        outcomes.add(key(0), OutcomeKind::IdleTimeout);
        assert_eq!(outcomes.of(Some(key(0))), Some(OutcomeKind::IdleTimeout));
    }
}
