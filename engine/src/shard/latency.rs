//! Relay latency: from the completion that brought bytes to the completion of the send with which the last of them left.
//!
//! A receive is timed if nothing of its direction waits, so that what leaves next is what it brought. Bytes that bring
//! nothing to send are not timed: set-up, LINFOs, a part of a TLS record, a part of a message's header. So what is measured
//! is the relay, and the peer that takes the bytes, but not the one that sends them.
//!
//! Not here: what becomes of the times (`metrics`). Invariant: times are differences of the clock that a turn reads anyway.

use std::io;
use std::time::Instant;

use super::connection::Connection;
use super::turn::is_interrupted;
use crate::metrics::{Direction, Stopwatch};

impl Connection {
    /// Whether what was just received is to be timed. To be asked before the session gets it.
    pub(super) fn is_due(&self, direction: Direction, stopwatch: &mut Option<Stopwatch>) -> bool {
        self.unsent_len(direction) == 0 && stopwatch.as_mut().is_some_and(Stopwatch::is_due)
    }

    /// The session has got what is to be timed.
    pub(super) fn begin_timing(&mut self, direction: Direction, now: Instant) {
        if self.unsent_len(direction) > 0 {
            self.latency.get_or_insert_default().begin(direction, now);
        }
    }

    /// A send has completed so. To be told before the session hears of it.
    pub(super) fn note_sent(
        &mut self,
        direction: Direction,
        sent: &io::Result<usize>,
        (stopwatch, now): (&Option<Stopwatch>, Instant),
    ) {
        let unsent_len = self.unsent_len(direction);
        let Some(latency) = &mut self.latency else { return };
        match sent {
            Ok(len) if *len == unsent_len => {
                if let (Some(took), Some(stopwatch)) = (latency.end(direction, now), stopwatch) {
                    stopwatch.record(direction, took);
                }
            }
            Ok(_) => {}
            Err(error) if is_interrupted(error) => {}
            Err(_) => latency.give_up(direction),
        }
    }

    pub(super) fn unsent_len(&self, direction: Direction) -> usize {
        match direction {
            Direction::ToEndpoint => self.session.unsent_to_endpoint_len(),
            Direction::FromEndpoint => self.session.unsent_to_mlet_len(),
        }
    }
}
