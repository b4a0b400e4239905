//! Which connections in set-up hold a place, and which of them make room for others.
//!
//! A connection takes a place among the set-ups of its shard with its first byte, so that silent ones cost a descriptor
//! and nothing else. Where places or descriptors are used up and somebody waits for one, the oldest connections of which
//! nothing has come for a while are closed. Everybody else keeps what they have.

use std::time::{Duration, Instant};

use super::{SET_UP_GROUP, Shard};
use crate::proto::session::Session;

/// How long a connection may take to send its ClientHello though others wait for its place. It is sent with the first
/// packet after connecting, so a second is several round trips.
const HELLO_GRACE: Duration = Duration::from_secs(1);

impl Shard {
    /// One more set-up may begin. Those whose bytes have come and wait to be looked at count as begun.
    pub(super) fn has_room_for_set_up(&self) -> bool {
        let come =
            self.set_up_backlog.len() + self.awaiting_buffer[usize::from(SET_UP_GROUP)].len();
        self.set_ups + come < self.serving.limits.handshakes_max
    }

    /// Notes that the connection in `slot` was just accepted.
    pub(super) fn note_unheard(&mut self, slot: usize) {
        self.oldest_unheard();
        self.unheard.push_back((self.now, slot, self.connections[slot].id));
    }

    /// Brings the count of set-ups up to date with the session in `slot`, which was in set-up when it was last looked at.
    pub(super) fn count_set_up(&mut self, slot: usize) {
        let connection = &mut *self.connections[slot];
        if connection.session.is_served() {
            return self.leave_set_up(slot);
        }
        let occupies = connection.session.occupies_set_up();
        match (std::mem::replace(&mut connection.occupies_set_up, occupies), occupies) {
            (false, true) => self.set_ups += 1,
            (true, false) => self.set_ups -= 1,
            _ => {}
        }
    }

    /// Ends as many of the oldest connections of which nothing has come as others wait.
    pub(super) fn make_room(&mut self) {
        while self.making_room < self.listeners.waiting() {
            let Some((accepted, slot)) = self.oldest_unheard() else { return };
            if self.now < accepted + HELLO_GRACE {
                return;
            }
            self.unheard.pop_front();
            self.making_room += 1;
            self.connections[slot].makes_room = true;
            self.move_session(slot, Session::handle_make_room);
        }
    }

    /// When somebody who waits may get the place of a connection of which nothing has come.
    pub(super) fn room_due(&self) -> Option<Instant> {
        let (accepted, ..) = self.unheard.front()?;
        (self.making_room < self.listeners.waiting()).then_some(*accepted + HELLO_GRACE)
    }

    /// The oldest connection that may make room: when it was accepted, and its slot. Those before it in the list have got
    /// further, or are over.
    fn oldest_unheard(&mut self) -> Option<(Instant, usize)> {
        loop {
            let (accepted, slot, id) = *self.unheard.front()?;
            let connection = self.connections.get(slot).filter(|connection| connection.id == id);
            if connection.is_some_and(|one| one.over.is_none() && one.session.may_make_room()) {
                return Some((accepted, slot));
            }
            self.unheard.pop_front();
        }
    }
}
