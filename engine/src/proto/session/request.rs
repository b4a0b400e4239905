//! What passes between a session and the owner of its sockets.

use std::time::Instant;

use crate::proto::account::RelayedByAll;
use crate::proto::linfo::Linfo;
use crate::proto::mlet_facts::MletFacts;
use crate::proto::outbox::BlockPool;
use crate::proto::session_end::Outcome;
use packetlab::time::Ticks;

/// What one call needs from outside: the time and the shard's blocks.
pub struct Context<'a> {
    /// The monotonic clock, for deadlines.
    pub now: Instant,
    /// The wall clock, for certificates.
    pub wall: Ticks,
    /// Blocks for bytes that wait to be sent.
    pub pool: &'a mut BlockPool,
    /// What all sessions of the shard have relayed so far.
    pub relayed: &'a mut RelayedByAll,
}

/// What a session asks of the owner of its sockets.
#[derive(Debug)]
pub enum Request {
    /// The ClientHello is whole: if this was a connection of the backlog, its endpoint has come.
    LeaveBacklog,
    /// A permit to send START; answered with [`super::Session::handle_permit`], or never.
    Permit,
    /// A mlet: make a socket pair and start one. The session goes on at once.
    Mlet(MletFacts),
    /// Shut down the write side towards the mlet.
    EndMletInput,
    /// Shut down the write side towards the endpoint.
    EndEndpointInput,
    /// End the session's mlet: it is to read the end, and what it wrote before is still received, up to its end.
    EndMlet,
    /// Tell that the endpoint has gone, for this reason, while the mlet was there.
    EndpointGone(String),
    /// Log this LINFO of the endpoint.
    Linfo(Linfo),
    /// Probe the sockets, because nothing moves; answered with [`super::Session::handle_probe`].
    Probe,
    /// Close both sockets. The last request of a session.
    Over(Outcome),
}

/// What a look at the sockets shows that operations on them do not.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// The endpoint's.
    pub endpoint: PeerStatus,
    /// The mlet's.
    pub mlet: PeerStatus,
}

/// How things stand with one peer.
#[derive(Debug, Clone, Copy)]
pub struct PeerStatus {
    /// It has closed its side or is gone, whether or not all it wrote has been received.
    pub has_hung_up: bool,
    /// Bytes that the kernel still holds for it. They move while no send does: sockets hold megabytes,
    /// and tell of room only when they have a lot.
    pub untaken_len: usize,
}

/// How far the set-up of a session has come, as far as it matters to others who wait for its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetUpStage {
    /// It waits at a proxy for its endpoint, for as long as that takes.
    Waiting,
    /// Nothing has come.
    Silent,
    /// A part of a ClientHello has come.
    Hello,
    /// The ClientHello was answered.
    Handshake,
    /// The handshake is over.
    Greeting,
    /// It has failed, and the endpoint's end is awaited.
    Failed,
}

impl SetUpStage {
    /// It takes work and memory.
    #[must_use]
    pub fn occupies_set_up(self) -> bool {
        matches!(self, Self::Hello | Self::Handshake | Self::Greeting)
    }
}
