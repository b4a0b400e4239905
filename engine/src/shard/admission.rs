//! Which connections in set-up hold a place, and which of them make room for others.
//!
//! A connection takes a place among the set-ups of its shard with its first byte, so that silent ones cost a descriptor
//! and nothing else. Where places or descriptors are used up and somebody waits for one, the connections that have been
//! waited for longest are closed. Those whose bytes have come and wait to be looked at keep what they have. So does
//! everybody past the handshake, but for the key that holds most places, if it holds more than its share.
//!
//! Not here: the order in which they go (`candidates.rs`). Invariant: a connection is a candidate at most once, and only
//! while it is in set-up.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::candidates::{Candidate, Holding};
use super::connection::Connection;
use super::operations::{SET_UP_GROUP, Token};
use super::set_up_queue::source;
use super::state::Shard;
use crate::driver::Driver;
use crate::guards::{Guard, holds};
use crate::proto::session::{Session, SetUpStage};

/// How long a connection may take to send its ClientHello, to answer ours, and to close once its set-up has failed, though
/// others wait for its place. Each is sent as soon as what we sent has come, so a second is several round trips.
const HELLO_GRACE: Duration = Duration::from_secs(1);

/// How much longer it may take to answer our part of the handshake, unless its source holds more than its share of the
/// places: a packet of it may be lost on a long way.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);

/// The same for a place that its key holds beyond its share, from the end of the handshake.
const KEY_GRACE: Duration = Duration::from_secs(1);

impl<D: Driver<Token>> Shard<D> {
    /// One more set-up may begin. Those whose bytes have come and wait to be looked at count as begun.
    pub(super) fn has_room_for_set_up(&self) -> bool {
        let come =
            self.set_up_backlog.len() + self.awaiting_buffer[usize::from(SET_UP_GROUP)].len();
        let has_place = self.set_ups + come < self.experiments.limits.handshakes_max;
        has_place || !holds(Guard::BoundsSetUps)
    }

    /// Whether one more session in set-up may come from `source`; if so, it is counted.
    pub(super) fn admits(&mut self, source: IpAddr) -> bool {
        let max = self.experiments.limits.per_source_max;
        if max == 0 {
            return true;
        }
        let count = self.sources.entry(source).or_default();
        let admitted = *count < max || !holds(Guard::BoundsAddress);
        *count += usize::from(admitted);
        admitted
    }

    /// Brings the count of set-ups, and what the connection in `slot` is a candidate for, up to date with its session.
    /// It was in set-up when it was last looked at.
    pub(super) fn follow_set_up(&mut self, slot: usize) {
        let connection = &mut *self.connections[slot];
        if connection.session.is_served() {
            return self.leave_set_up(slot);
        }
        let stage = connection.session.set_up_stage();
        let before = std::mem::replace(&mut connection.stage, stage);
        if stage != before {
            self.stages.change(before, stage);
            self.has_news = true;
            connection.may_go = may_go(before, stage, connection.accepted, self.now);
            self.count_occupied(slot);
        }
        self.note_candidate(slot);
    }

    pub(super) fn leave_set_up(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.in_set_up = false;
        self.stages.leave(connection.stage);
        self.has_news = true;
        self.set_ups -= usize::from(std::mem::take(&mut connection.occupies_set_up));
        let peer = connection.peer.ip();
        self.note_candidate(slot);
        if let Entry::Occupied(mut count) = self.sources.entry(peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
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

    /// Puts the connection in `slot` among the candidates where it belongs now, if it does.
    pub(super) fn note_candidate(&mut self, slot: usize) {
        let connection = &mut *self.connections[slot];
        let now = candidate(connection);
        let before = std::mem::replace(&mut connection.candidate, now);
        if now == before {
            return;
        }
        if let Some(before) = before {
            self.candidates.remove(slot, before);
        }
        if let Some(now) = now {
            self.candidates.insert(slot, now);
        }
    }

    /// Ends as many connections as others wait, if so many may go, those first that have been waited for longest.
    /// `needs_set_up`: places in set-up are used up, so that only one that holds such a place is of use.
    pub(super) fn make_room(&mut self, needs_set_up: bool) {
        let waiting = match needs_set_up {
            true => self.listeners.waiting_for_place(),
            false => self.listeners.waiting_for_descriptor(),
        };
        if !holds(Guard::MakesRoom) {
            return;
        }
        for _ in self.making_room..waiting {
            let next = match needs_set_up {
                true => self.candidates.next_for_place(self.now),
                false => self.candidates.next_for_descriptor(),
            };
            let Some((from, slot)) = next else { return };
            if self.now < from {
                self.room_due = Some(self.room_due.map_or(from, |due| due.min(from)));
                return;
            }
            self.making_room += 1;
            self.connections[slot].makes_room = true;
            self.move_session(slot, Session::handle_make_room);
        }
    }
}

/// From when on a connection that has come from one stage to another may go, if others wait; `None` is never.
fn may_go(
    before: SetUpStage,
    stage: SetUpStage,
    accepted: Instant,
    now: Instant,
) -> Option<Instant> {
    match stage {
        SetUpStage::Waiting => None,
        // Its endpoint has come just now, however long the connection has waited for it at the proxy.
        SetUpStage::Hello if before == SetUpStage::Waiting => Some(now + HELLO_GRACE),
        SetUpStage::Silent | SetUpStage::Hello => Some(accepted + HELLO_GRACE),
        SetUpStage::Handshake | SetUpStage::Failed => Some(now + HELLO_GRACE),
        SetUpStage::Greeting => Some(now + KEY_GRACE),
    }
}

fn candidate(connection: &Connection) -> Option<Candidate> {
    let from = connection.may_go.filter(|_| connection.in_set_up && connection.over.is_none())?;
    let holding = match connection.stage {
        // It holds its place by its key, whatever it sends, as long as it does not answer START.
        SetUpStage::Greeting if !holds(Guard::SharesPlaces) => return None,
        SetUpStage::Greeting => Holding::PlaceOfKey(connection.session.endpoint_key()?),
        _ if connection.has_come => return None,
        stage if connection.occupies_set_up => {
            let is_answered = stage == SetUpStage::Handshake;
            let patience = if is_answered { HANDSHAKE_PATIENCE } else { Duration::ZERO };
            Holding::Place { source: source(connection.peer.ip()), patience }
        }
        _ => Holding::Descriptor,
    };
    Some(Candidate { holding, from })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn what_a_connection_has_waited_at_a_proxy_is_not_held_against_its_endpoint() {
        let accepted = Instant::now();
        let now = accepted + Duration::from_secs(3600);
        let from = |before, stage| may_go(before, stage, accepted, now);
        assert_eq!(from(SetUpStage::Waiting, SetUpStage::Hello), Some(now + HELLO_GRACE));
        assert_eq!(from(SetUpStage::Silent, SetUpStage::Hello), Some(accepted + HELLO_GRACE));
        assert_eq!(from(SetUpStage::Silent, SetUpStage::Waiting), None);
        assert_eq!(from(SetUpStage::Hello, SetUpStage::Handshake), Some(now + HELLO_GRACE));
    }
}
