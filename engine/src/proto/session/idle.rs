//! How long a relayed session may be silent (`--idle-timeout`): from START, and from each byte of a message that comes from
//! a peer or leaves for one.
//!
//! A byte moves the time at which the session would end, and no timer: whoever waits for it asks again when the earlier
//! time has come. Not here: bytes that wait and are not taken, once one side is gone (`stall.rs`). Invariant: a session
//! that something else has begun to end is not idle.

use std::time::Instant;

use super::request::Request;
use super::stall::Stall;
use super::{Relaying, Session};
use crate::config::Limits;
use crate::guards::{Guard, holds};
use crate::proto::relay::{Phase, Relay};
use crate::proto::session_end::Outcome;
use crate::proto::tee::Tee;

impl Relaying {
    /// START has just succeeded; what is relayed is shown there.
    pub(super) fn begin(now: Instant, tee: Option<Box<Tee>>) -> Self {
        let (relay, stall) = (Relay::shown(tee), Stall::default());
        Self { relay, stall, last_relayed: now, cause: None }
    }

    /// When the session ends, if no byte moves before.
    pub(super) fn idle_due(&self, limits: &Limits) -> Option<Instant> {
        let may_be_idle = self.cause.is_none() && self.relay.phase() == Phase::Open;
        let may_be_idle = may_be_idle && holds(Guard::EndsIdle);
        limits.idle_timeout.filter(|_| may_be_idle).map(|timeout| self.last_relayed + timeout)
    }
}

impl Session {
    /// Bytes have left for a peer.
    pub(super) fn note_sent(&mut self, now: Instant) {
        if let Some((_, relaying)) = self.state.relaying() {
            relaying.last_relayed = now;
        }
        self.note_progress();
    }

    /// Ends the session if it has been silent for too long: its mlet, and what that wrote before is delivered.
    pub(super) fn end_if_idle(&mut self, now: Instant) {
        let relaying = self.state.relaying_ref();
        let due = relaying.and_then(|relaying| relaying.idle_due(&self.experiments.limits));
        if due.is_some_and(|due| due <= now) {
            self.begin_end(Outcome::IdleTimeout);
            self.requests.push(Request::EndMlet);
        }
    }
}
