//! Whether an endpoint waits for our kernel's acknowledgements before it sends on.
//!
//! An endpoint that writes a message in pieces with Nagle's algorithm on, as the original does, sends the first piece and
//! keeps the others until it is acknowledged; and a kernel that expects to answer soon acknowledges after 40 ms
//! (RFC 1122 4.2.3.2 and 4.2.3.4). Such an endpoint is known by a small piece that ends inside a message, or by one that
//! follows another after just that time. From then on each small piece of it is acknowledged at once,
//! which costs a system call; endpoints that send whole messages at once never pay it.
//!
//! Not here: the acknowledgement itself (`sys/socket.rs`).

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// A receive of so many bytes or more is no small piece: it fills a segment, so Nagle's algorithm held nothing
/// back, and our kernel acknowledges every second full segment at once.
const SEGMENT_LEN: usize = 1_400;

/// How late a delayed acknowledgement lets the next piece arrive: Linux waits 40 ms and rounds up to its clock's ticks.
const DELAYED: RangeInclusive<Duration> = Duration::from_millis(38)..=Duration::from_millis(60);

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub struct Rhythm {
    awaits_acknowledgements: bool,
    /// When the latest piece came, if it was small and nothing has been sent to the endpoint since.
    unanswered_since: Option<Instant>,
}

impl Rhythm {
    /// So many bytes came from the endpoint, the last of them inside a message or at its end. True when they must be
    /// acknowledged at once.
    pub fn note_received(&mut self, len: usize, inside_message: bool, now: Instant) -> bool {
        if len >= SEGMENT_LEN {
            self.unanswered_since = None;
            return false;
        }
        let came_late = self
            .unanswered_since
            .replace(now)
            .is_some_and(|before| DELAYED.contains(&now.saturating_duration_since(before)));
        self.awaits_acknowledgements |= inside_message || came_late;
        self.awaits_acknowledgements
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

    #[test]
    fn a_message_that_comes_as_late_as_a_delayed_acknowledgement_gives_the_endpoint_away() {
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
