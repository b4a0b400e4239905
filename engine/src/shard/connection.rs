//! A session with its two sockets and the operations under way on them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::candidates::Candidate;
use super::mlet_streams::MletStreams;
use super::receive_size::Intake;
use super::under_way::UnderWay;
use crate::mailbox::Registration;
use crate::metrics::SessionLatency;
use crate::proto::mlet_facts::MletFacts;
use crate::proto::session::{Session, SetUpStage};
use crate::proto::session_end::Outcome;
use crate::records::{SessionFacts, SessionId, Via};
use packetlab::time::Ticks;

/// A session's sockets and what is under way on them.
pub(super) struct Connection {
    pub(super) id: SessionId,
    pub(super) peer: SocketAddr,
    pub(super) via: Via,
    /// When it was accepted; for one of the backlog, when it was adopted and then when its endpoint came.
    pub(super) accepted: Instant,
    /// The same by the wall clock.
    pub(super) accepted_wall: Ticks,
    /// It waits at a proxy for its endpoint, or for the rest of a ClientHello; where it is registered.
    pub(super) in_backlog: Option<Registration>,
    pub(super) session: Session,
    pub(super) endpoint: OwnedFd,
    /// What leads to the mlet, once START was answered.
    pub(super) mlet: Option<MletStreams>,
    /// The mlet has got all it will get, or is to be told so as soon as it has a socket.
    pub(super) mlet_input_ended: bool,
    pub(super) under_way: UnderWay,
    pub(super) permit: Permit,
    /// When the timer entry that counts is due.
    pub(super) timer: Option<Instant>,
    /// Before START was answered; its source counts, and it receives into the buffers of set-up.
    pub(super) in_set_up: bool,
    /// How far its set-up had come when it was last looked at.
    pub(super) stage: SetUpStage,
    /// Counts among the set-ups that take work and memory.
    pub(super) occupies_set_up: bool,
    /// From when on it may be ended if others wait for what it holds; `None` is never.
    pub(super) may_go: Option<Instant>,
    /// What it is among those that may be ended.
    pub(super) candidate: Option<Candidate>,
    /// Bytes of its set-up have come and wait to be looked at, or for a buffer.
    pub(super) has_come: bool,
    /// What came of its handshake was left unread, because its sender had gone or its time was over.
    pub(super) hello_unread: bool,
    /// It was ended because others wait for its place.
    pub(super) makes_room: bool,
    /// The session is over; only operations under way keep the sockets open.
    pub(super) over: Option<Box<Outcome>>,
    /// What was under way then has been cancelled.
    pub(super) cancelled: bool,
    /// How large its receives from the endpoint are, and from the mlet.
    pub(super) from_endpoint: Intake,
    pub(super) from_mlet: Intake,
    /// What its record begins with, once that was wanted.
    pub(super) facts: Option<Arc<SessionFacts>>,
    /// Made when something of it is timed for the first time.
    pub(super) latency: Option<Box<SessionLatency>>,
}

impl Connection {
    /// What is known of its set-up, which is over; it is on the shard of this core.
    pub(super) fn facts(&mut self, core: usize) -> Arc<SessionFacts> {
        let facts = self.facts.get_or_insert_with(|| {
            Arc::new(SessionFacts {
                id: self.id,
                core,
                peer: self.peer,
                via: self.via,
                accepted: self.accepted,
                accepted_wall: self.accepted_wall,
                account: self.session.take_account(),
            })
        });
        Arc::clone(facts)
    }
}

/// A session's claim to be one of the `-n` attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    /// Not asked for yet, used, or given back.
    None,
    /// Asked for at the control thread.
    Awaited,
    /// Held for a START that is under way.
    Held,
    /// Held for a mlet: START has succeeded, and descriptors for the mlet are waited for.
    Starting,
}

/// A session past START for whose mlet there was no socket pair yet.
pub(super) struct AwaitedPair {
    pub(super) slot: usize,
    pub(super) id: SessionId,
    pub(super) facts: MletFacts,
}
