//! Which connections in set-up hold a place, and which of them make room for others.
//!
//! A connection takes a place among the set-ups of its shard with its first byte, so that silent ones cost a descriptor
//! and nothing else. Where places or descriptors are used up and somebody waits for one, the connections that have been
//! waited for longest are closed. Those whose bytes have come and wait to be looked at keep what they have, and so
//! does everybody past the handshake.
//!
//! Invariant: a connection stands in `may_go` at most once, and only while it is in set-up.

use std::time::{Duration, Instant};

use super::{SET_UP_GROUP, Shard};
use crate::proto::session::{Session, SetUpStage};

/// How long a connection may take to send its ClientHello, and to close once its set-up has failed, though others wait
/// for its place. The ClientHello is sent with the first packet after connecting, so a second is several round trips.
const HELLO_GRACE: Duration = Duration::from_secs(1);

/// The same for the rest of the handshake, in which we took part.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(3);

/// Connections that a turn looks at to find some that may go.
const LOOKS_PER_TURN: usize = 256;

impl Shard {
    /// One more set-up may begin. Those whose bytes have come and wait to be looked at count as begun.
    pub(super) fn has_room_for_set_up(&self) -> bool {
        let come =
            self.set_up_backlog.len() + self.awaiting_buffer[usize::from(SET_UP_GROUP)].len();
        self.set_ups + come < self.serving.limits.handshakes_max
    }

    /// Brings the count of set-ups, and the time at which the connection in `slot` may go, up to date with its session.
    /// It was in set-up when it was last looked at.
    pub(super) fn follow_set_up(&mut self, slot: usize) {
        let connection = &mut *self.connections[slot];
        if connection.session.is_served() {
            return self.leave_set_up(slot);
        }
        let stage = connection.session.set_up_stage();
        if stage == connection.stage {
            return;
        }
        connection.stage = stage;
        let may_go = match stage {
            SetUpStage::Silent | SetUpStage::Hello => Some(connection.accepted + HELLO_GRACE),
            SetUpStage::Handshake => Some(connection.accepted + HANDSHAKE_GRACE),
            SetUpStage::Failed => Some(self.now + HELLO_GRACE),
            SetUpStage::Waiting | SetUpStage::Greeting => None,
        };
        self.count_occupied(slot);
        self.note_may_go(slot, may_go);
    }

    fn count_occupied(&mut self, slot: usize) {
        let connection = &mut *self.connections[slot];
        let occupies = connection.stage.occupies_set_up();
        match (std::mem::replace(&mut connection.occupies_set_up, occupies), occupies) {
            (false, true) => self.set_ups += 1,
            (true, false) => self.set_ups -= 1,
            _ => {}
        }
    }

    /// From when on the connection in `slot` may go, if others wait; `None` is never.
    pub(super) fn note_may_go(&mut self, slot: usize, may_go: Option<Instant>) {
        let connection = &mut *self.connections[slot];
        if let Some(before) = std::mem::replace(&mut connection.may_go, may_go) {
            self.may_go.remove(&(before, slot));
        }
        self.may_go.extend(may_go.map(|from| (from, slot)));
    }

    /// Ends as many connections as others wait, if so many may go, those first that have been waited for longest.
    /// `needs_set_up`: places in set-up are used up, so that only one that holds such a place is of use.
    pub(super) fn make_room(&mut self, needs_set_up: bool) {
        self.room_due = None;
        let mut wanted = self.listeners.waiting().saturating_sub(self.making_room);
        let mut going = Vec::new();
        for &(from, slot) in self.may_go.iter().take(LOOKS_PER_TURN) {
            if wanted == 0 {
                break;
            }
            if self.now < from {
                self.room_due = Some(from);
                break;
            }
            let connection = &self.connections[slot];
            let is_awaited = connection.under_way.endpoint_receive && !connection.has_come;
            if is_awaited && (connection.occupies_set_up || !needs_set_up) {
                going.push(slot);
                wanted -= 1;
            }
        }
        for slot in going {
            self.making_room += 1;
            self.connections[slot].makes_room = true;
            self.move_session(slot, Session::handle_make_room);
        }
    }
}
