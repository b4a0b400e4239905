//! How much of its time a shard gives to handshakes: few costly steps in a turn, and beside sessions that relay, one; and
//! where relayed bytes keep coming, no more than a share of the time.
//!
//! Not here: which steps are costly (`proto/session/`). Between two messages of a session turns pass in which it relays
//! nothing, and the next message must not find several steps before it; so a session relays until some time after its
//! last bytes. What relaying leaves of the time may go to handshakes, all of it.

use std::time::{Duration, Instant};

use crate::guards::{Guard, holds};

/// Each takes some 100 us.
const STEPS_PER_TURN: usize = 4;
const STEPS_BESIDE_RELAYS: usize = 1;

/// How long after the last relayed bytes sessions count as relaying: several round trips of those that a hundred
/// microseconds matter to.
const RELAYING: Duration = Duration::from_millis(10);

/// How much of the time of turns that relay is theirs, for each part that handshakes had: three, so that a core has a quarter
/// of it for handshakes. It is no less, so that sessions that relay cannot keep others from theirs.
const RELAYS_TO_HANDSHAKES: u32 = 3;

/// What is known of the latest turns.
#[derive(Debug, Default)]
pub(super) struct Pace {
    relayed: Option<Instant>,
    /// Until then, handshakes have had their share.
    shared_until: Option<Instant>,
    /// What handshakes have taken.
    taken: Duration,
}

impl Pace {
    /// Bytes of a session past START have come, or have left.
    pub(super) fn note_relayed(&mut self, now: Instant) {
        self.relayed = Some(now);
    }

    /// Costly steps have been taken in this time.
    pub(super) fn note_steps(&mut self, began: Instant, ended: Instant) {
        let took = ended.saturating_duration_since(began);
        self.taken += took;
        self.shared_until = Some(ended + took * RELAYS_TO_HANDSHAKES);
    }

    /// What costly steps have taken so far.
    pub(super) fn taken(&self) -> Duration {
        self.taken
    }

    /// Costly steps that a turn takes which began at `now`.
    pub(super) fn steps(&self, now: Instant) -> usize {
        let Some(since) = self.relayed.map(|relayed| now.saturating_duration_since(relayed)) else {
            return STEPS_PER_TURN;
        };
        let had_share = self.shared_until.is_some_and(|until| now < until);
        if since.is_zero() && had_share && holds(Guard::SharesTime) {
            0
        } else if since < RELAYING && holds(Guard::PacesHandshakes) {
            STEPS_BESIDE_RELAYS
        } else {
            STEPS_PER_TURN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_turn_between_two_messages_of_a_session_takes_one_step() {
        let mut pace = Pace::default();
        let start = start();
        let after_ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(pace.steps(start), STEPS_PER_TURN, "nobody relays");
        pace.note_relayed(start);
        assert_eq!([0, 1, 9].map(|ms| pace.steps(after_ms(ms))), [STEPS_BESIDE_RELAYS; 3]);
        assert_eq!(pace.steps(after_ms(10)), STEPS_PER_TURN, "nobody does any more");
        pace.note_relayed(after_ms(12));
        assert_eq!(pace.steps(after_ms(20)), STEPS_BESIDE_RELAYS);
    }

    #[test]
    fn turns_that_relay_take_no_step_until_they_have_had_three_times_as_long_as_the_last_ones() {
        let mut pace = Pace::default();
        let start = start();
        let after_us = |us| start + Duration::from_micros(us);
        pace.note_steps(start, after_us(100));
        for (us, steps) in [(150, 0), (399, 0), (400, STEPS_BESIDE_RELAYS)] {
            pace.note_relayed(after_us(us));
            assert_eq!(pace.steps(after_us(us)), steps, "after {us} us");
        }
        pace.note_relayed(after_us(150));
        assert_eq!(pace.steps(after_us(151)), STEPS_BESIDE_RELAYS, "nothing has come");
        pace.note_steps(after_us(500), after_us(530));
        assert_eq!(pace.taken(), Duration::from_micros(130));
    }
}
