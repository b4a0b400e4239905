//! How many strangers have a record of their own: connections that ended before a certificate was verified, of which
//! anybody can make as many as they like.
//!
//! Not here: what is written of them (`json.rs`). Invariant: each stranger is admitted or counted, never both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::outcome::OutcomeKind;

/// Records of strangers in a second.
const ADMITTED_MAX: u32 = 100;

/// How long that is.
const SECOND: Duration = Duration::from_secs(1);

/// Strangers of the present second.
#[derive(Debug, Default)]
pub(crate) struct Folding {
    begun: Option<Instant>,
    admitted: u32,
    folded: BTreeMap<OutcomeKind, u64>,
}

impl Folding {
    /// Whether this one has a record of its own; it is counted if not.
    pub(crate) fn admits(&mut self, outcome: OutcomeKind, now: Instant) -> bool {
        self.begin(now);
        let is_admitted = self.admitted < ADMITTED_MAX;
        if is_admitted {
            self.admitted += 1;
        } else {
            self.fold(outcome, now);
        }
        is_admitted
    }

    /// Counts one that has no record of its own in any case.
    pub(crate) fn fold(&mut self, outcome: OutcomeKind, now: Instant) {
        self.begin(now);
        *self.folded.entry(outcome).or_default() += 1;
    }

    fn begin(&mut self, now: Instant) {
        if self.begun.is_none_or(|begun| now >= begun + SECOND) {
            (self.begun, self.admitted) = (Some(now), 0);
        }
    }

    /// When [`Self::take`] has something to give.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.begun.filter(|_| !self.folded.is_empty()).map(|begun| begun + SECOND)
    }

    /// How many ended how, of those counted since the last time.
    pub(crate) fn take(&mut self) -> BTreeMap<OutcomeKind, u64> {
        std::mem::take(&mut self.folded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_than_a_hundred_strangers_a_second_the_rest_is_counted_by_outcome() {
        let (mut folding, start) = (Folding::default(), crate::records::tests::start());
        let kinds = [OutcomeKind::TlsFailed, OutcomeKind::HandshakeTimeout];
        let admitted = (0..250).filter(|number| folding.admits(kinds[number % 2], start)).count();
        assert_eq!(admitted, 100);
        assert_eq!(folding.due(), Some(start + SECOND));
        assert_eq!(folding.take(), BTreeMap::from([(kinds[0], 75), (kinds[1], 75)]));
        assert_eq!((folding.due(), folding.take().len()), (None, 0));
        assert!(!folding.admits(kinds[0], start + SECOND / 2), "the same second");
        assert!(folding.admits(kinds[0], start + SECOND));
        assert_eq!(folding.take(), BTreeMap::from([(kinds[0], 1)]), "kept until it is taken");
    }
}
