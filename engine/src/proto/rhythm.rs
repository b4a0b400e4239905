//! Whether an endpoint waits for our kernel's acknowledgements before it sends on.
//!
//! An endpoint that writes a message in pieces with Nagle's algorithm on, as the original does, sends the first piece and
//! keeps the others until it is acknowledged; and a kernel that expects to answer soon acknowledges after 40 ms
//! (RFC 1122 4.2.3.2 and 4.2.3.4). There are two signs of it: a small receive that begins a message and does not end it,
//! and one that follows another after just that time. From then on each small receive is acknowledged at once, which costs
//! a system call, until many have shown no sign again: the endpoint answers with whole messages by now, or sends a stream
//! that waits for nobody. A part of a long message, small by chance, is no sign, so an endpoint that sends each message
//! at once never pays, unless it sends them unasked at that very pace.
//!
//! Not here: the acknowledgement itself (`sys/socket.rs`).

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// A receive of so many bytes or more is no small piece: it fills a segment, so Nagle's algorithm held nothing
/// back, and our kernel acknowledges every second full segment at once.
const SEGMENT_LEN: usize = 1_400;

/// How late a delayed acknowledgement lets the next piece arrive: Linux waits 40 ms and rounds up to its clock's ticks.
const DELAYED: RangeInclusive<Duration> = Duration::from_millis(38)..=Duration::from_millis(60);

/// Small receives without a sign after which an endpoint is taken for one that waits no more. Acknowledging so many in
/// vain takes some milliseconds in all. One that did wait, and was not seen to because of our acknowledgements, waits once
/// more in so many.
const FORGOTTEN_AFTER: u32 = 10_000;

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub struct Rhythm {
    /// Small receives that are still to be acknowledged at once; 0 for an endpoint that does not wait.
    acknowledgements: u32,
    /// When the latest receive came, if it was small and nothing has been sent to the endpoint since.
    unanswered_since: Option<Instant>,
    /// The latest receive belongs to a message that may go on: it was large, or ended inside one.
    goes_on: bool,
}

impl Rhythm {
    /// So many bytes came from the endpoint, the last of them inside a message or at its end. True when they must be
    /// acknowledged at once.
    pub fn note_received(&mut self, len: usize, inside_message: bool, now: Instant) -> bool {
        let is_large = len >= SEGMENT_LEN;
        // A large one may end inside a TLS record, and what follows belongs to the same message.
        let went_on = std::mem::replace(&mut self.goes_on, inside_message || is_large);
        if is_large {
            self.unanswered_since = None;
            return false;
        }
        let came_late = self
            .unanswered_since
            .replace(now)
            .is_some_and(|before| DELAYED.contains(&now.saturating_duration_since(before)));
        self.acknowledgements = match came_late || inside_message && !went_on {
            true => FORGOTTEN_AFTER,
            false => self.acknowledgements.saturating_sub(1),
        };
        self.acknowledgements > 0
    }

    /// Something was sent to the endpoint, with an acknowledgement of all that came.
    pub fn note_sent(&mut self) {
        self.unanswered_since = None;
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
    fn an_endpoint_that_sends_whole_messages_is_never_acknowledged_early() {
        let (mut rhythm, start) = (Rhythm::default(), start());
        for step in 0..100 {
            let now = start + Duration::from_millis(step * 10);
            assert!(!rhythm.note_received(64, false, now));
            rhythm.note_sent();
        }
    }

    #[test]
    fn a_small_piece_of_a_message_is_acknowledged_at_once_and_every_small_one_after_it() {
        let (mut rhythm, now) = (Rhythm::default(), start());
        assert!(rhythm.note_received(8, true, now));
        assert!(rhythm.note_received(60, false, now));
        rhythm.note_sent();
        assert!(rhythm.note_received(4, false, now));
    }

    #[test]
    fn a_large_piece_tells_nothing() {
        let (mut rhythm, now) = (Rhythm::default(), start());
        assert!(!rhythm.note_received(SEGMENT_LEN, true, now));
        assert!(!rhythm.note_received(64, false, now), "whole, and nothing small came before");
    }

    /// 64 KiB in records of 16 KiB, received in what the kernel happens to hold.
    #[test]
    fn parts_of_a_long_message_that_are_small_by_chance_tell_nothing() {
        // Each part: its length, and whether it ends inside the message as far as whole records show it.
        let received = [
            vec![(16_000, false), (406, true), (32_768, true), (900, true), (15_550, false)],
            vec![(32_768, true), (32_000, true), (300, true), (556, true), (24, false)],
            vec![(1_400, false), (1_200, false)],
        ];
        for parts in received {
            let (mut rhythm, now) = (Rhythm::default(), start());
            for _ in 0..3 {
                for (len, inside_message) in &parts {
                    assert!(
                        !rhythm.note_received(*len, *inside_message, now),
                        "{len} of {parts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_small_piece_that_begins_a_message_tells_as_much_after_a_long_message() {
        let (mut rhythm, now) = (Rhythm::default(), start());
        assert!(!rhythm.note_received(20_000, true, now));
        assert!(!rhythm.note_received(500, false, now));
        assert!(rhythm.note_received(26, true, now));
    }

    #[test]
    fn an_endpoint_that_shows_no_sign_any_more_is_acknowledged_early_no_more_until_it_does() {
        let (mut rhythm, now) = (Rhythm::default(), start());
        for _ in 0..2 {
            assert!(rhythm.note_received(26, true, now));
            let early = (0..2 * FORGOTTEN_AFTER).filter(|_| {
                rhythm.note_sent();
                rhythm.note_received(60, false, now)
            });
            assert_eq!(early.count(), FORGOTTEN_AFTER as usize - 1);
        }
    }

    #[test]
    fn one_that_sends_every_message_in_pieces_is_acknowledged_early_for_ever() {
        let (mut rhythm, now) = (Rhythm::default(), start());
        for _ in 0..2 * FORGOTTEN_AFTER {
            assert!(rhythm.note_received(26, true, now));
            assert!(rhythm.note_received(60, false, now));
            rhythm.note_sent();
        }
    }

    #[test]
    fn a_message_that_comes_as_late_as_a_delayed_acknowledgement_tells_that_the_endpoint_waits() {
        let start = start();
        let second_after = |ms| {
            let mut rhythm = Rhythm::default();
            assert!(!rhythm.note_received(30, false, start));
            rhythm.note_received(40, false, start + Duration::from_millis(ms))
        };
        assert!(!second_after(5));
        assert!(second_after(40));
        assert!(second_after(44));
        assert!(!second_after(200));
    }

    #[test]
    fn an_answer_in_between_acknowledges_too() {
        let (mut rhythm, start) = (Rhythm::default(), start());
        assert!(!rhythm.note_received(30, false, start));
        rhythm.note_sent();
        assert!(!rhythm.note_received(30, false, start + Duration::from_millis(44)));
    }
}
