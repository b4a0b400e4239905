//! How many costly steps of handshakes a turn takes: few, and one while sessions relay, because they wait for it.
//!
//! Not here: which steps are costly (`proto/session/`). Between two messages of a session turns pass in which it relays
//! nothing, and the next message must not find several steps before it; so a session relays until some time after its
//! last bytes.

use std::time::{Duration, Instant};

use crate::guards::{Guard, holds};

/// Each takes some 100 us.
const STEPS_PER_TURN: usize = 4;
const STEPS_BESIDE_RELAYS: usize = 1;

/// How long after the last relayed bytes sessions count as relaying: several round trips of those that a hundred
/// microseconds matter to.
const RELAYING: Duration = Duration::from_millis(10);

/// What is known of the latest turns.
#[derive(Debug, Default)]
pub(super) struct Pace {
    relayed: Option<Instant>,
}

impl Pace {
    /// Bytes of a session past START have come.
    pub(super) fn note_relayed(&mut self, now: Instant) {
        self.relayed = Some(now);
    }

    /// Costly steps that a turn at `now` takes.
    pub(super) fn steps(&self, now: Instant) -> usize {
        match self.relayed {
            Some(relayed)
                if now.saturating_duration_since(relayed) < RELAYING
                    && holds(Guard::PacesHandshakes) =>
            {
                STEPS_BESIDE_RELAYS
            }
            _ => STEPS_PER_TURN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn a_turn_between_two_messages_of_a_session_takes_one_step() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let after_ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(pace.steps(start), STEPS_PER_TURN, "nobody relays");
        pace.note_relayed(start);
        assert_eq!([0, 1, 9].map(|ms| pace.steps(after_ms(ms))), [STEPS_BESIDE_RELAYS; 3]);
        assert_eq!(pace.steps(after_ms(10)), STEPS_PER_TURN, "nobody does any more");
        pace.note_relayed(after_ms(12));
        assert_eq!(pace.steps(after_ms(20)), STEPS_BESIDE_RELAYS);
    }
}
