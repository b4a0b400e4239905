//! A session after START: messages pass between an endpoint and its mlet, opaque and cut through.
//!
//! ```text
//!            mlet EOF                        delivered
//!  Open ------------------> DrainingToEndpoint ------> Step::CloseEndpoint; Step::Over if the endpoint has ended too
//!   |   endpoint's end                       delivered                mlet EOF
//!   +---------------------> DrainingToMlet ------> DiscardingMlet -----------> Step::Over
//! ```
//!
//! Not here: the sizes of receives and blocks (`outbox.rs`).
//!
//! Each direction runs on its own and asks for input only while nothing of it waits to be sent, so
//! one block per direction bounds a session's memory whatever either side does. Towards the endpoint
//! every piece of a message is sealed into records of its own (spec/protocol.md 1.6).
//!
//! Not here: sockets, deadlines (the session sets them by [`Phase`]) and the close after the last byte.

use std::time::Instant;

use super::account::{Flow, Relayed};
use super::linfo::{Linfo, LinfoBudget, LinfoFilter};
use super::outbox::{BlockPool, Outbox, block_len};
use super::tee::{Sender, Tee};
use crate::guards::{Guard, holds};
use packetlab::cut::Cutter;
use packetlab::message::HEADER_LEN;
use packetlab::record::{CONTENT_LEN_MAX, SEALED_OVERHEAD_MAX};
use packetlab::tls::{Next, ServerStream, TlsError};

/// Where the relay stands; see the diagram above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Both directions run.
    Open,
    /// The mlet ended: what it wrote is being delivered.
    DrainingToEndpoint,
    /// The endpoint ended: what it sent is being delivered.
    DrainingToMlet,
    /// The mlet has been told the end; what it still writes is discarded until it closes.
    DiscardingMlet,
}

/// What a step of the relay led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    Continue,
    /// Everything has reached the mlet: end its input.
    EndMletInput,
    /// The endpoint has everything and its close_notify: close its connection.
    CloseEndpoint,
    /// Nothing is left to do.
    Over,
}

/// What becomes of one peer's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// The other peer gets them.
    Relayed,
    /// The other peer takes no more, so they are dropped.
    Dropped,
    /// None come any more.
    Over,
}

impl Input {
    /// The other peer takes no more.
    fn drop_rest(&mut self) {
        if *self == Self::Relayed {
            *self = Self::Dropped;
        }
    }
}

/// Both directions of one session.
#[derive(Debug)]
pub struct Relay {
    phase: Phase,
    from_endpoint: Input,
    from_mlet: Input,
    cutter: Cutter,
    linfo: LinfoFilter,
    /// What the mlet wrote, as far as it was taken for the endpoint.
    taken_bytes: u64,
    /// Who is shown what is relayed.
    tee: Option<Box<Tee>>,
}

/// The bytes of one session that wait to be sent.
#[derive(Debug, Default)]
pub struct Buffers {
    /// Sealed bytes for the endpoint.
    pub to_endpoint: Outbox,
    /// Plain bytes for the mlet.
    pub to_mlet: Outbox,
    /// Plain bytes from the mlet that wait until `to_endpoint` has room for their records.
    pub stash: Outbox,
}

impl Buffers {
    /// Forgets everything.
    pub fn discard(&mut self, pool: &mut BlockPool) {
        self.to_endpoint.discard(pool);
        self.to_mlet.discard(pool);
        self.stash.discard(pool);
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            phase: Phase::Open,
            from_endpoint: Input::Relayed,
            from_mlet: Input::Relayed,
            cutter: Cutter::default(),
            linfo: LinfoFilter::default(),
            taken_bytes: 0,
            tee: None,
        }
    }
}

impl Relay {
    /// One that shows there what it relays.
    #[must_use]
    pub fn shown(tee: Option<Box<Tee>>) -> Self {
        Self { tee, ..Self::default() }
    }

    /// Where the relay stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The endpoint has sent a part of a message and not the rest of it.
    pub fn is_inside_message(&self) -> bool {
        self.linfo.is_inside_message()
    }

    /// The endpoint's bytes are wanted.
    pub fn wants_endpoint_input(&self, buffers: &Buffers) -> bool {
        let has_room = buffers.to_mlet.is_empty() || !holds(Guard::StopsEndpoint);
        self.from_endpoint != Input::Over && has_room && !self.linfo.is_paused()
    }

    /// The mlet's bytes are wanted.
    pub fn wants_mlet_input(&self, buffers: &Buffers) -> bool {
        match self.from_mlet {
            Input::Relayed => buffers.stash.is_empty() && buffers.to_endpoint.is_empty(),
            Input::Dropped => true,
            Input::Over => false,
        }
    }

    /// More of the endpoint's bytes are wanted as soon as those held for the mlet have left.
    pub fn wants_endpoint_input_next(&self) -> bool {
        self.phase == Phase::Open && self.from_endpoint != Input::Over && !self.linfo.is_paused()
    }

    /// More of the mlet's bytes are wanted as soon as those held for the endpoint have left.
    pub fn wants_mlet_input_next(&self, tls: &ServerStream, buffers: &Buffers) -> bool {
        self.phase == Phase::Open && buffers.stash.is_empty() && !tls.has_output()
    }

    /// Opens what is left, `input`, of a receive of `received_len` bytes, straight into the block in which it leaves. Returns
    /// whether the endpoint has closed its side of TLS.
    ///
    /// # Errors
    /// The endpoint broke TLS; what came before is taken.
    pub fn take_endpoint_bytes(
        &mut self,
        (tls, input, received_len): (&mut ServerStream, &mut &[u8], usize),
        buffers: &mut Buffers,
        pool: &mut BlockPool,
        now: Instant,
        budget: &LinfoBudget,
        mut log: impl FnMut(Linfo),
    ) -> Result<bool, TlsError> {
        let mut next = Ok(Next::Input);
        let (linfo, tee) = (&mut self.linfo, &mut self.tee);
        let open = |room: &mut [u8]| {
            let opened = tls.open(input, room);
            next = opened.next;
            if let Some(tee) = tee {
                tee.take(Sender::Endpoint, &room[..opened.len], now);
            }
            linfo.filter(&mut room[..opened.len], now, budget, &mut log)
        };
        let mut dropped = Outbox::default();
        let has_room = buffers.to_mlet.is_empty() || holds(Guard::StopsEndpoint);
        let is_kept = self.from_endpoint == Input::Relayed && has_room;
        let into = if is_kept { &mut buffers.to_mlet } else { &mut dropped };
        into.append(pool, block_len(received_len), open);
        dropped.discard(pool);
        match next? {
            Next::Input => Ok(false),
            Next::Closed => Ok(true),
            // A block has room for a receive and for what was kept of the record before it.
            Next::Room => Err(TlsError::General("what was received has no room".into())),
        }
    }

    /// What has passed so far.
    pub fn relayed(&self) -> Relayed {
        Relayed {
            to_endpoint: Flow { bytes: self.taken_bytes, messages: self.cutter.messages() },
            from_endpoint: self.linfo.received(),
            linfos_lost: self.linfo.lost(),
            crashed_monitor: self.linfo.crashed_monitor(),
        }
    }

    /// The endpoint's LINFOs.
    pub fn linfo(&self) -> &LinfoFilter {
        &self.linfo
    }

    /// Has the endpoint read again, if so many of its LINFOs were skipped that it had to wait, and gives one that takes too
    /// long to arrive as far as it has come.
    pub fn handle_linfo_due(&mut self, now: Instant, budget: &LinfoBudget) -> Option<Linfo> {
        self.linfo.resume(now);
        self.linfo.cut(now, budget)
    }

    /// The endpoint sends nothing more: it closed, or its connection broke.
    pub fn handle_endpoint_end(
        &mut self,
        buffers: &mut Buffers,
        pool: &mut BlockPool,
        now: Instant,
    ) {
        let before = std::mem::replace(&mut self.from_endpoint, Input::Over);
        if let Some(tee) = self.tee.as_mut().filter(|_| before != Input::Over) {
            tee.end(Sender::Endpoint, now);
        }
        self.handle_endpoint_write_closed(buffers, pool);
    }

    /// The endpoint's connection takes no more bytes; what it sent before is still delivered.
    pub fn handle_endpoint_write_closed(&mut self, buffers: &mut Buffers, pool: &mut BlockPool) {
        if self.phase == Phase::Open {
            self.phase = Phase::DrainingToMlet;
            self.from_mlet.drop_rest();
            buffers.stash.discard(pool);
        }
    }

    /// The mlet wrote `bytes`.
    pub fn handle_mlet_bytes(
        &mut self,
        (bytes, now): (&[u8], Instant),
        tls: &mut ServerStream,
        buffers: &mut Buffers,
        pool: &mut BlockPool,
    ) {
        if self.from_mlet != Input::Relayed {
            return;
        }
        if let Some(tee) = &mut self.tee {
            tee.take(Sender::Mlet, bytes, now);
        }
        debug_assert!(buffers.stash.is_empty(), "no input is taken while some waits");
        // An answer of TLS to the endpoint may be on its way.
        let is_ready = buffers.to_endpoint.is_empty() && !tls.has_output();
        let into = (&mut buffers.to_endpoint, block_len(bytes.len()));
        let rest = if is_ready { self.seal(bytes, tls, into, pool) } else { bytes };
        if !rest.is_empty() {
            buffers.stash.append(pool, block_len(rest.len()), |room| {
                room[..rest.len()].copy_from_slice(rest);
                rest.len()
            });
        }
    }

    /// The mlet writes nothing more. A half-close looks the same, so this ends the session.
    pub fn handle_mlet_end(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.from_mlet, Input::Over);
        if let Some(tee) = self.tee.as_mut().filter(|_| before != Input::Over) {
            tee.end(Sender::Mlet, now);
        }
        if self.phase == Phase::Open {
            self.phase = Phase::DrainingToEndpoint;
            self.from_endpoint.drop_rest();
        }
    }

    /// The mlet's socket takes no more bytes; what it wrote is still delivered.
    pub fn handle_mlet_write_closed(&mut self) {
        self.from_endpoint.drop_rest();
    }

    /// Moves what can be moved after input arrived or output left.
    pub fn advance(
        &mut self,
        tls: &mut ServerStream,
        buffers: &mut Buffers,
        pool: &mut BlockPool,
    ) -> Step {
        // What is sealed goes first.
        if buffers.to_endpoint.is_empty() && !tls.has_output() && !buffers.stash.is_empty() {
            let waiting = buffers.stash.bytes();
            // Bytes that wait have a block already, which may be a large one; they get no second of that kind.
            let into = (&mut buffers.to_endpoint, block_len(0));
            let sealed = waiting.len() - self.seal(waiting, tls, into, pool).len();
            buffers.stash.consume(sealed, pool);
        }
        match self.phase {
            Phase::Open => Step::Continue,
            Phase::DrainingToEndpoint => self.drain_to_endpoint(tls, buffers),
            Phase::DrainingToMlet if self.from_endpoint != Input::Over => Step::Continue,
            Phase::DrainingToMlet => {
                tls.close();
                if !buffers.to_mlet.is_empty() && holds(Guard::DeliversToMlet) {
                    return Step::Continue;
                }
                self.phase = Phase::DiscardingMlet;
                if self.from_mlet == Input::Over {
                    Self::await_last_bytes(tls, buffers)
                } else {
                    Step::EndMletInput
                }
            }
            Phase::DiscardingMlet if self.from_mlet == Input::Over => {
                Self::await_last_bytes(tls, buffers)
            }
            Phase::DiscardingMlet => Step::Continue,
        }
    }

    fn drain_to_endpoint(&mut self, tls: &mut ServerStream, buffers: &Buffers) -> Step {
        if !buffers.stash.is_empty() {
            return Step::Continue;
        }
        if !tls.is_closed() {
            // The stream may have ended inside a header: its bytes are the last piece.
            if !self.cutter.kept_back().is_empty() {
                tls.write_piece(self.cutter.kept_back());
            }
            tls.close();
        }
        if tls.has_output() || !buffers.to_endpoint.is_empty() {
            return Step::Continue;
        }
        if self.from_endpoint == Input::Over { Step::Over } else { Step::CloseEndpoint }
    }

    /// Nobody writes any more, but our close_notify, or an alert, may still be on its way.
    fn await_last_bytes(tls: &ServerStream, buffers: &Buffers) -> Step {
        if tls.has_output() || !buffers.to_endpoint.is_empty() {
            Step::Continue
        } else {
            Step::Over
        }
    }

    /// Seals pieces of `bytes` into an empty outbox while their records fit into a block of `block_len` bytes; returns
    /// what is left.
    fn seal<'a>(
        &mut self,
        bytes: &'a [u8],
        tls: &mut ServerStream,
        (to_endpoint, block_len): (&mut Outbox, usize),
        pool: &mut BlockPool,
    ) -> &'a [u8] {
        let mut rest = bytes;
        to_endpoint.append(pool, block_len, |room| {
            let mut sealed_len = 0;
            loop {
                let (mut part, behind) = rest.split_at(rest.len().min(CONTENT_LEN_MAX));
                // The next piece is no longer than this, or a header that was kept back.
                let piece_len_max = part.len().max(HEADER_LEN);
                if room.len() - sealed_len < piece_len_max + SEALED_OVERHEAD_MAX {
                    break;
                }
                let piece = match holds(Guard::CutsRecords) {
                    true => self.cutter.next_piece(&mut part),
                    false => Some(std::mem::take(&mut part)).filter(|part| !part.is_empty()),
                };
                rest = &rest[rest.len() - behind.len() - part.len()..];
                let Some(piece) = piece else { break };
                sealed_len += tls.seal(piece, &mut room[sealed_len..]);
            }
            sealed_len
        });
        self.taken_bytes += (bytes.len() - rest.len()) as u64;
        rest
    }
}
