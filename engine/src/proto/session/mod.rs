//! One endpoint's session from accept to close, without its sockets.
//!
//! ```text
//!  Silent --first byte--> Hello --ClientHello--> Handshake --TLS done--> Greeting --RESULT of START--> Relay
//!    |                      |                        |                      |                            |
//!    +------ failure -------+------------------------+----------------------+---> Closing <--delivered---+
//!                                                                                    |                   |
//!                                      endpoint's end, linger or drain limit --------+--> Over <---------+
//! ```
//!
//! On a connection that waits at a proxy for its endpoint, a session is Waiting instead of Silent, for as long as it takes.
//!
//! The owner of the sockets calls `handle_*` with what happened, then reads what is wanted:
//! [`Session::take_requests`], [`Session::transmit_to_endpoint`], [`Session::transmit_to_mlet`],
//! [`Session::wants_endpoint_input`], [`Session::wants_mlet_input`] and [`Session::deadline`]. After
//! [`Request::Over`] nothing is wanted any more.
//!
//! Not here: the steps from ClientHello to START (`set_up.rs`), how long a relay may stand still (`stall.rs`) or be
//! silent (`idle.rs`), what ends a session (`end.rs`), the close (`endpoint_close.rs`), and what is wanted when (`wants.rs`).
//!
//! Invariant: at most one transmission and one receive are under way per socket, and a receive only
//! while nothing of its direction waits to be sent, or linked behind the transmission of all of it.

mod end;
mod endpoint_close;
mod idle;
mod request;
mod set_up;
mod stall;
mod wants;

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

pub use self::request::{Context, PeerStatus, Probe, Request, SetUpStage};

use self::endpoint_close::Closing;
use self::stall::Stall;
use super::account::{Account, Relayed};
use super::endpoint_choice::Hold;
use super::experiments::Experiments;
use super::greeting::Greeting;
use super::keys::KeyPlace;
use super::outbox::{BULK_RECEIVE_LEN, BlockPool, block_len};
use super::relay::{Buffers, Phase, Relay};
use super::rhythm::Rhythm;
use super::session_end::{End, Outcome};
use super::tee::Tee;
use crate::config::ExperimentId;
use packetlab::key::KeyId;
use packetlab::tls::{Hello, ServerStream, TlsError};

/// One session.
pub struct Session {
    peer: IpAddr,
    experiments: Arc<Experiments>,
    state: State,
    buffers: Buffers,
    requests: Vec<Request>,
    /// Of the state it is in; beside it, a LINFO that takes too long to arrive has one of its own.
    deadline: Option<Instant>,
    /// Its place among the sessions of its key.
    place: Option<KeyPlace>,
    /// Its hold on its key, as long as it may become `ok`.
    hold: Option<Box<Hold>>,
    rhythm: Rhythm,
    /// What came last must be acknowledged at once.
    acknowledges: bool,
    /// `None` until there is something to tell, and when it has been taken.
    account: Option<Box<Account>>,
    relayed: Relayed,
    /// Who is shown what is relayed, until it is.
    tee: Option<Box<Tee>>,
}

enum State {
    /// It waits at a proxy for its endpoint.
    Waiting,
    /// No byte of the endpoint has come.
    Silent,
    /// A part of a ClientHello has come.
    Hello(Box<Hello>),
    /// The ClientHello was answered.
    Tls(Tls),
    /// The connection to the endpoint is being closed.
    Closing(Closing),
    /// The sockets are to be closed.
    Over,
}

/// A connection from the answer to its ClientHello on.
struct Tls {
    stream: ServerStream,
    stage: Stage,
}

enum Stage {
    Handshake(ExperimentId),
    Greeting(Greeting, ExperimentId),
    Relay(Relaying),
}

/// START has succeeded.
struct Relaying {
    relay: Relay,
    stall: Stall,
    /// When a byte of a message last came from a peer, or left for one.
    last_relayed: Instant,
    /// What has begun to end the session.
    cause: Option<Box<Outcome>>,
}

impl State {
    /// The relay with its stream, where messages are relayed.
    fn relaying(&mut self) -> Option<(&mut ServerStream, &mut Relaying)> {
        match self {
            Self::Tls(Tls { stream, stage: Stage::Relay(relaying) }) => Some((stream, relaying)),
            _ => None,
        }
    }

    /// The same, to look at.
    fn relaying_ref(&self) -> Option<&Relaying> {
        match self {
            Self::Tls(Tls { stage: Stage::Relay(relaying), .. }) => Some(relaying),
            _ => None,
        }
    }

    fn relay(&self) -> Option<&Relay> {
        self.relaying_ref().map(|relaying| &relaying.relay)
    }
}

impl Session {
    /// A session with the peer that was just accepted.
    pub fn new(peer: IpAddr, experiments: Arc<Experiments>, now: Instant) -> Self {
        let deadline = Some(now + experiments.limits.handshake_timeout);
        Self {
            peer,
            experiments,
            state: State::Silent,
            buffers: Buffers::default(),
            requests: Vec::new(),
            deadline,
            place: None,
            hold: None,
            rhythm: Rhythm::default(),
            acknowledges: false,
            account: None,
            relayed: Relayed::default(),
            tee: None,
        }
    }

    /// A session on a connection registered at the proxy `peer`; its endpoint is still to come.
    pub fn in_backlog(peer: IpAddr, experiments: Arc<Experiments>, now: Instant) -> Self {
        let begun = Self::new(peer, experiments, now);
        Self { deadline: None, state: State::Waiting, ..begun }
    }

    /// What it will relay is shown there.
    pub fn show(&mut self, tee: Option<Box<Tee>>) {
        self.tee = tee;
    }

    /// START has succeeded: the session is relayed, or was. Before, it counts as a set-up, also while
    /// an alert is delivered, and may be cancelled. False for one that is over.
    pub fn is_served(&self) -> bool {
        match &self.state {
            State::Closing(closing) => closing.delivery.is_some(),
            state => state.relay().is_some(),
        }
    }

    /// What comes next from the endpoint costs a key exchange or the check of signatures.
    pub fn is_handshaking(&self) -> bool {
        use SetUpStage::{Handshake, Hello, Silent, Waiting};
        matches!(self.set_up_stage(), Waiting | Silent | Hello | Handshake)
    }

    /// How far its set-up has come.
    pub fn set_up_stage(&self) -> SetUpStage {
        match &self.state {
            State::Waiting => SetUpStage::Waiting,
            State::Silent => SetUpStage::Silent,
            State::Hello(_) => SetUpStage::Hello,
            State::Tls(Tls { stage: Stage::Handshake(_), .. }) => SetUpStage::Handshake,
            State::Tls(_) => SetUpStage::Greeting,
            State::Closing(_) | State::Over => SetUpStage::Failed,
        }
    }

    /// Whether the bytes that came last must be acknowledged at once, without waiting for an answer that would
    /// carry the acknowledgement. Told once.
    pub fn take_acknowledgement(&mut self) -> bool {
        std::mem::take(&mut self.acknowledges)
    }

    /// Key id of the endpoint's first certificate, once it was verified; `None` also without one, and when the account
    /// has been taken.
    pub fn endpoint_key(&self) -> Option<KeyId> {
        self.account.as_ref()?.endpoint_key
    }

    /// What it can tell of its set-up. To be taken when that is over.
    pub fn take_account(&mut self) -> Account {
        self.account.take().map(|account| *account).unwrap_or_default()
    }

    /// What was relayed.
    pub fn relayed(&self) -> Relayed {
        self.relayed
    }

    /// The endpoint sent `input`, at most [`BULK_RECEIVE_LEN`] bytes.
    pub fn handle_endpoint_bytes(&mut self, mut input: &[u8], cx: &mut Context<'_>) {
        debug_assert!(input.len() <= BULK_RECEIVE_LEN, "more might not fit into a block");
        let received_len = input.len();
        if matches!(self.state, State::Waiting | State::Silent) {
            self.state = State::Hello(Box::default());
            let deadline = cx.now + self.experiments.limits.handshake_timeout;
            self.deadline.get_or_insert(deadline);
        }
        while !input.is_empty() {
            let received = match &mut self.state {
                State::Hello(hello) => {
                    match hello.receive(&mut input) {
                        Ok(None) => {}
                        Ok(Some(client_hello)) => self.accept(client_hello, cx),
                        Err(error) => self.fail_hello(error, cx),
                    }
                    continue;
                }
                // An alert must not follow close_notify.
                State::Tls(tls) if tls.stream.is_closed() => break,
                State::Tls(Tls { stage: Stage::Relay(_), .. }) => {
                    self.relay_received(&mut input, received_len, cx)
                }
                State::Tls(_) => self.take_set_up_bytes(&mut input, received_len, cx),
                State::Waiting | State::Silent | State::Closing(_) | State::Over => break,
            };
            if let Err(error) = received {
                self.fail_tls(error, cx);
                // TLS consumes nothing any more, so the rest would never end.
                break;
            }
        }
        if let Some(relay) = self.state.relay() {
            let inside_message = relay.is_inside_message();
            self.acknowledges = self.rhythm.note_received(received_len, inside_message, cx.now);
        }
        self.advance(cx);
    }

    /// The endpoint's side of the connection ended.
    pub fn handle_endpoint_end(&mut self, end: End, cx: &mut Context<'_>) {
        self.end_endpoint_input(end, cx);
        self.advance(cx);
    }

    /// The mlet wrote `bytes`.
    pub fn handle_mlet_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if let Some((tls, Relaying { relay, last_relayed, .. })) = self.state.relaying() {
            *last_relayed = cx.now;
            relay.handle_mlet_bytes((bytes, cx.now), tls, &mut self.buffers, cx.pool);
            // While the endpoint's last bytes wait for the mlet, what the mlet writes brings them no further.
            if relay.phase() != Phase::DrainingToMlet {
                self.note_progress();
            }
        }
        self.advance(cx);
    }

    /// The mlet's side of its socket ended, or its socket broke, which is the same.
    pub fn handle_mlet_end(&mut self, cx: &mut Context<'_>) {
        if let Some((_, Relaying { relay, .. })) = self.state.relaying() {
            relay.handle_mlet_end(cx.now);
            self.begin_end(Outcome::MletEnded);
        }
        self.advance(cx);
    }

    /// The transmission to the endpoint ended: so many bytes left, or its connection broke.
    pub fn handle_sent_to_endpoint(
        &mut self,
        block: Box<[u8]>,
        sent: Result<usize, ErrorKind>,
        cx: &mut Context<'_>,
    ) {
        self.buffers.to_endpoint.sent(block, sent.unwrap_or(0), cx.pool);
        match sent {
            // It was interrupted.
            Ok(0) => {}
            Ok(_) => self.note_sent(cx.now),
            Err(kind) => self.lose_endpoint(kind, cx),
        }
        self.advance(cx);
    }

    /// The transmission to the mlet ended: so many bytes left, or it takes no more.
    pub fn handle_sent_to_mlet(
        &mut self,
        block: Box<[u8]>,
        sent: Result<usize, ErrorKind>,
        cx: &mut Context<'_>,
    ) {
        self.buffers.to_mlet.sent(block, sent.unwrap_or(0), cx.pool);
        match sent {
            Ok(0) => {}
            Ok(_) => self.note_sent(cx.now),
            Err(_) => {
                self.buffers.to_mlet.discard(cx.pool);
                if let Some((_, Relaying { relay, .. })) = self.state.relaying() {
                    relay.handle_mlet_write_closed();
                }
            }
        }
        self.advance(cx);
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.handle_linfo_due(cx.now);
        self.end_if_idle(cx.now);
        if self.deadline.is_some_and(|deadline| deadline > cx.now) {
            return;
        }
        if self.deadline.take().is_some() {
            self.run_out_of_time(cx.pool);
        }
        self.advance(cx);
    }

    fn run_out_of_time(&mut self, pool: &mut BlockPool) {
        let outcome = match &self.state {
            State::Waiting | State::Silent | State::Hello(_) => Outcome::HandshakeTimeout,
            State::Tls(Tls { stage, .. }) => match stage {
                Stage::Handshake(_) => Outcome::HandshakeTimeout,
                Stage::Greeting(greeting, _) if greeting.awaits_permit() => Outcome::NoPermit,
                Stage::Greeting(..) => Outcome::SetUpTimeout,
                Stage::Relay(relaying) => match relaying.relay.phase() {
                    Phase::DiscardingMlet => return self.finish_begun(pool),
                    _ => return self.requests.push(Request::Probe),
                },
            },
            State::Closing(closing) if closing.delivery.is_some() => {
                return self.requests.push(Request::Probe);
            }
            State::Closing(_) => return self.finish_begun(pool),
            State::Over => return,
        };
        self.finish(outcome, pool);
    }

    /// The look that was asked for.
    pub fn handle_probe(&mut self, probe: Probe, cx: &mut Context<'_>) {
        let limits = &self.experiments.limits;
        match &mut self.state {
            State::Closing(closing) => {
                self.deadline = closing.take_probe(probe.endpoint.untaken_len, limits, cx.now);
                if self.deadline.is_none() {
                    self.finish_begun(cx.pool);
                }
            }
            State::Tls(Tls {
                stage: Stage::Relay(Relaying { relay, stall, cause, .. }), ..
            }) => {
                if let Some(outcome) = stall.take_probe(probe, relay.phase(), &self.buffers) {
                    let is_idle = matches!(cause.as_deref(), Some(Outcome::IdleTimeout));
                    self.finish(if is_idle { Outcome::IdleTimeout } else { outcome }, cx.pool);
                }
            }
            _ => return,
        }
        self.advance(cx);
    }

    /// What is asked of the owner of the sockets since the last call.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// What is due of the endpoint's LINFOs ([`Relay::handle_linfo_due`]).
    fn handle_linfo_due(&mut self, now: Instant) {
        if let Some((_, Relaying { relay, .. })) = self.state.relaying()
            && relay.linfo().due().is_some_and(|due| due <= now)
        {
            let linfo = relay.handle_linfo_due(now, &self.experiments.linfo_budget);
            self.requests.extend(linfo.map(Request::Linfo));
        }
    }

    /// Takes a step's worth of `input`, of the `received_len` bytes just received, in a session that is set up.
    fn take_set_up_bytes(
        &mut self,
        input: &mut &[u8],
        received_len: usize,
        cx: &mut Context<'_>,
    ) -> Result<(), TlsError> {
        let State::Tls(Tls { stream, .. }) = &mut self.state else { return Ok(()) };
        let received = stream.receive(input, cx.wall);
        if let Some(key) = stream.unproven_key() {
            self.account.get_or_insert_default().shown_key = Some(Box::new(key));
        }
        self.advance_set_up(cx);
        // What came behind the answer to START is the mlet's, whatever came behind that.
        let relayed = self.relay_received(&mut &[][..], received_len, cx);
        received.and(relayed)
    }

    /// Relays `input`, of the `received_len` bytes just received, if messages are relayed.
    fn relay_received(
        &mut self,
        input: &mut &[u8],
        received_len: usize,
        cx: &mut Context<'_>,
    ) -> Result<(), TlsError> {
        let Some((tls, Relaying { relay, last_relayed, .. })) = self.state.relaying() else {
            return Ok(());
        };
        let requests = &mut self.requests;
        let log = |linfo| requests.push(Request::Linfo(linfo));
        let budget = &self.experiments.linfo_budget;
        let received = (tls, input, received_len);
        let closed =
            relay.take_endpoint_bytes(received, &mut self.buffers, cx.pool, cx.now, budget, log);
        let before = std::mem::replace(&mut self.relayed, relay.relayed());
        let (now, sums) = (self.relayed, &mut *cx.relayed);
        sums.from_endpoint.add_since(before.from_endpoint, now.from_endpoint);
        sums.to_endpoint.add_since(before.to_endpoint, now.to_endpoint);
        if self.relayed.from_endpoint != before.from_endpoint {
            *last_relayed = cx.now;
        }
        if closed? {
            self.end_endpoint_input(End::Closed, cx);
        }
        Ok(())
    }

    /// Something moved in a relayed session: waits begin anew.
    fn note_progress(&mut self) {
        if let Some((_, Relaying { stall, .. })) = self.state.relaying() {
            stall.note_progress();
            self.deadline = None;
        }
    }

    /// Moves on as far as output has left.
    fn advance(&mut self, cx: &mut Context<'_>) {
        self.advance_set_up(cx);
        if let Some((tls, Relaying { relay, .. })) = self.state.relaying() {
            let step = relay.advance(tls, &mut self.buffers, cx.pool);
            let relayed = relay.relayed();
            // What has come from the endpoint was added when it came.
            cx.relayed.to_endpoint.add_since(self.relayed.to_endpoint, relayed.to_endpoint);
            self.relayed = relayed;
            self.take_step(step, cx);
        }
        self.fill_to_endpoint(cx.pool);
        if let Some((_, Relaying { relay, stall, .. })) = self.state.relaying() {
            let stands = (relay.phase(), &self.buffers);
            self.deadline =
                stall.deadline(self.deadline, stands, (&self.experiments.limits, cx.now));
        }
        if let State::Closing(closing) = &mut self.state
            && self.buffers.to_endpoint.is_empty()
            && closing.handle_all_sent(&mut self.requests)
        {
            self.finish_begun(cx.pool);
        }
    }

    /// Moves sealed bytes to where they can be sent from.
    fn fill_to_endpoint(&mut self, pool: &mut BlockPool) {
        let tls = match &mut self.state {
            State::Tls(Tls { stream, .. }) => Some(stream),
            State::Closing(closing) => closing.tls_mut(),
            State::Waiting | State::Silent | State::Hello(_) | State::Over => None,
        };
        if let Some(tls) = tls
            && self.buffers.to_endpoint.is_empty()
            && tls.has_output()
        {
            self.buffers.to_endpoint.append(pool, block_len(0), |room| tls.write_output(room));
        }
    }
}
