//! One endpoint's session from accept to close, without its sockets.
//!
//! ```text
//!  Silent --first byte--> Hello --ClientHello--> Handshake --TLS done--> Greeting --RESULT of START--> Relay
//!    |                      |                        |                      |                            |
//!    +------ failure -------+------------------------+----------------------+---> Closing <--delivered---+
//!                                                                                    |                   |
//!                                             endpoint's end, or linger limit -------+--> Over <---------+
//! ```
//!
//! On a connection that waits at a proxy for its endpoint, a session is Silent for as long as it takes.
//!
//! The owner of the sockets calls `handle_*` with what happened, then reads what is wanted:
//! [`Session::take_requests`], [`Session::transmit_to_endpoint`], [`Session::transmit_to_mlet`],
//! [`Session::wants_endpoint_input`], [`Session::wants_mlet_input`] and [`Session::deadline`]. After
//! [`Request::Over`] nothing is wanted any more.
//!
//! Invariant: at most one transmission and one receive are under way per socket, and a receive only
//! while nothing of its direction waits to be sent, or linked behind the transmission of all of it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::{Account, Relayed};
use super::experiments::Experiments;
use super::greeting::{Greeting, Progress};
use super::keys::KeyPlace;
use super::linfo::Linfo;
use super::outbox::{BlockPool, RECEIVE_LEN, Transmission};
use super::outcome::{End, Outcome};
use super::relay::{Buffers, Phase, Relay, Step};
use super::rhythm::Rhythm;
use crate::config::ExperimentId;
use crate::guards::{Guard, holds};
use packetlab::key::KeyId;
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::{ClientHello, HandshakeError, Hello, ServerStream, TlsError};

/// What one call needs from outside: the time and the shard's blocks.
pub struct Context<'a> {
    /// The monotonic clock, for deadlines.
    pub now: Instant,
    /// The wall clock, for certificates.
    pub wall: Ticks,
    /// Blocks for bytes that wait to be sent.
    pub pool: &'a mut BlockPool,
}

/// What a session asks of the owner of its sockets.
#[derive(Debug)]
pub enum Request {
    /// The ClientHello is whole: this is no connection of the backlog any more, its endpoint has come.
    LeaveBacklog,
    /// A permit to send START; answered with [`Session::handle_permit`], or never.
    Permit,
    /// A mlet: make a socket pair and start one. The session goes on at once.
    Mlet(MletFacts),
    /// Shut down the write side towards the mlet.
    EndMletInput,
    /// Shut down the write side towards the endpoint.
    EndEndpointInput,
    /// Log this LINFO of the endpoint.
    Linfo(Linfo),
    /// Probe the sockets, because nothing moves; answered with [`Session::handle_probe`].
    Probe,
    /// Close both sockets.
    Over(Outcome),
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

/// What a mlet is told about its session (behaviour.md "What a mlet finds").
#[derive(Debug, Clone)]
pub struct MletFacts {
    /// Address of the TCP peer.
    pub peer: IpAddr,
    /// Key id of the endpoint's first certificate, if it presented one.
    pub endpoint_key: Option<KeyId>,
    /// The experiment's snikey.
    pub snikey: SniKey,
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

/// A timer must not be due again in the turn it was set in, however short the drain timeout.
const PROBE_PERIOD_MIN: Duration = Duration::from_millis(1);

/// How many set-up timeouts a session waits for a permit: as long as one may be held in vain, and again as long, so that
/// who asks just after it was given gets it in time.
const PERMIT_PATIENCE: u32 = 2;

/// How often a session in which nothing moves looks at its sockets before it has waited long enough.
const PROBES: u32 = 4;

/// One session.
pub struct Session {
    peer: IpAddr,
    experiments: Arc<Experiments>,
    state: State,
    buffers: Buffers,
    requests: Vec<Request>,
    deadline: Option<Instant>,
    /// Boxed, because an idle session has none.
    outcome: Option<Box<Outcome>>,
    served: bool,
    /// When a mlet that goes on writing without its endpoint is left, however much it writes.
    discard_until: Option<Instant>,
    /// Looks in a row that saw nothing move.
    vain_probes: u32,
    /// What the kernel held for both peers at the last of them.
    untaken: Option<(usize, usize)>,
    /// It counts among the connections that wait at the proxy.
    in_backlog: bool,
    /// Its place among the sessions of its key.
    place: Option<KeyPlace>,
    rhythm: Rhythm,
    /// What came last must be acknowledged at once.
    acknowledges: bool,
    /// `None` until there is something to tell, and when it has been taken.
    account: Option<Box<Account>>,
    relayed: Relayed,
}

enum State {
    /// No byte of the endpoint has come.
    Silent,
    Hello(Box<Hello>),
    Handshake(ServerStream, ExperimentId),
    Greeting(ServerStream, Greeting, ExperimentId),
    Relay(ServerStream, Relay),
    Closing(Closing),
    Over,
}

/// The last bytes leave, such as an alert; then input is discarded until the endpoint closes, because
/// a close with unread input would reset the connection and lose them. While the kernel still holds
/// some of what a mlet wrote, the endpoint has the drain limit to take more of it.
struct Closing {
    /// Sealed bytes may still be in here.
    tls: Option<ServerStream>,
    /// Our write side is shut down.
    ended: bool,
    input_ended: bool,
    /// What the kernel still held for the endpoint at the last look, and since when.
    untaken: (usize, Instant),
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
            outcome: None,
            served: false,
            discard_until: None,
            vain_probes: 0,
            untaken: None,
            in_backlog: false,
            place: None,
            rhythm: Rhythm::default(),
            acknowledges: false,
            account: None,
            relayed: Relayed::default(),
        }
    }

    /// A session on a connection registered at the proxy `peer`; its endpoint is still to come.
    pub fn in_backlog(peer: IpAddr, experiments: Arc<Experiments>, now: Instant) -> Self {
        let begun = Self::new(peer, experiments, now);
        Self { deadline: None, in_backlog: true, ..begun }
    }

    /// START has succeeded: the session is relayed, or was. Before, it counts as a set-up, also while
    /// an alert is delivered, and may be cancelled.
    pub fn is_served(&self) -> bool {
        self.served
    }

    /// What comes next from the endpoint costs a key exchange or the check of signatures.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Silent | State::Hello(_) | State::Handshake(..))
    }

    /// How far its set-up has come.
    pub fn set_up_stage(&self) -> SetUpStage {
        match self.state {
            State::Silent if self.in_backlog => SetUpStage::Waiting,
            State::Silent => SetUpStage::Silent,
            State::Hello(_) => SetUpStage::Hello,
            State::Handshake(..) => SetUpStage::Handshake,
            State::Greeting(..) | State::Relay(..) => SetUpStage::Greeting,
            State::Closing(_) | State::Over => SetUpStage::Failed,
        }
    }

    /// Others wait for what this session holds: it ends at once, unless START has succeeded.
    pub fn handle_make_room(&mut self, cx: &mut Context<'_>) {
        if !self.served {
            let made_room = match (&self.state, self.endpoint_key()) {
                (State::Greeting(..), Some(key)) => Outcome::MadeRoomOfKey(key),
                _ => Outcome::MadeRoom,
            };
            self.end_at_once(made_room, cx);
        }
    }

    /// Whatever is on its way is not waited for. What ended the session before remains its outcome.
    fn end_at_once(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Over) {
            self.outcome.get_or_insert_with(|| Box::new(outcome));
            self.state = State::Over;
            self.advance(cx);
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

    fn account_mut(&mut self) -> &mut Account {
        self.account.get_or_insert_default()
    }

    /// The endpoint sent `input`, at most [`RECEIVE_LEN`] bytes.
    pub fn handle_endpoint_bytes(&mut self, mut input: &[u8], cx: &mut Context<'_>) {
        debug_assert!(input.len() <= RECEIVE_LEN, "more might not fit into a block");
        let received_len = input.len();
        if matches!(self.state, State::Silent) {
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
                State::Relay(_, relay) if relay.has_closed_tls() => break,
                State::Handshake(tls, _) | State::Greeting(tls, ..) | State::Relay(tls, _) => {
                    tls.receive(&mut input, cx.wall)
                }
                State::Silent | State::Closing(_) | State::Over => break,
            };
            self.take_received(cx);
            if let Err(error) = received {
                self.fail_tls(error, cx);
                // TLS consumes nothing any more, so the rest would never end.
                break;
            }
        }
        if let State::Relay(_, relay) = &self.state {
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
        if let State::Relay(tls, relay) = &mut self.state {
            relay.handle_mlet_bytes(bytes, tls, &mut self.buffers, cx.pool);
            // While the endpoint's last bytes wait for the mlet, what the mlet writes brings them no further.
            if relay.phase() != Phase::DrainingToMlet {
                self.note_progress();
            }
        }
        self.advance(cx);
    }

    /// The mlet's side of its socket ended, or its socket broke, which is the same.
    pub fn handle_mlet_end(&mut self, cx: &mut Context<'_>) {
        if let State::Relay(_, relay) = &mut self.state {
            relay.handle_mlet_end();
            self.begin_drain(Outcome::MletEnded);
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
            Ok(_) => self.note_progress(),
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
        if sent.is_ok() {
            self.note_progress();
        } else {
            self.buffers.to_mlet.discard(cx.pool);
            if let State::Relay(_, relay) = &mut self.state {
                relay.handle_mlet_write_closed();
            }
        }
        self.advance(cx);
    }

    /// The permit that was asked for is granted. Returns false when the session needs it no more.
    pub fn handle_permit(&mut self, cx: &mut Context<'_>) -> bool {
        let State::Greeting(tls, greeting, _) = &mut self.state else { return false };
        greeting.start(tls);
        self.account_mut().start_sent = Some(cx.now);
        self.deadline = Some(cx.now + self.experiments.limits.setup_timeout);
        self.advance(cx);
        true
    }

    /// START has been sent and may still be answered: the permit for it is in use.
    pub fn awaits_start(&self) -> bool {
        matches!(&self.state, State::Greeting(_, greeting, _) if greeting.has_sent_start())
    }

    /// The run is ending: a session that has not sent START ends, others go on.
    pub fn handle_stop(&mut self, cx: &mut Context<'_>) {
        if !self.served && !self.awaits_start() {
            self.end_at_once(Outcome::Cancelled, cx);
        }
    }

    /// The run is over, by force: so is the session, at once.
    pub fn handle_run_over(&mut self, cx: &mut Context<'_>) {
        let outcome = if self.served { Outcome::Forced } else { Outcome::Cancelled };
        self.end_at_once(outcome, cx);
    }

    /// The run is ended by force: a served session loses its mlet, whose end [`Self::handle_mlet_end`] tells behind what
    /// it wrote before; any other ends.
    pub fn handle_force(&mut self, cx: &mut Context<'_>) {
        match self.state {
            State::Relay(..) => self.begin_drain(Outcome::Forced),
            State::Closing(_) | State::Over => {}
            State::Silent | State::Hello(_) | State::Handshake(..) | State::Greeting(..) => {
                self.finish(Outcome::Cancelled);
            }
        }
        self.advance(cx);
    }

    /// No mlet was started for a served session in time: it loses it, and [`Self::handle_mlet_end`] follows.
    pub fn handle_mlet_late(&mut self, cx: &mut Context<'_>) {
        if matches!(self.state, State::Relay(..)) {
            self.begin_drain(Outcome::MletLate);
        }
        self.advance(cx);
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let (linfo, budget) = (self.linfo_due(), &self.experiments.linfo_budget);
        if let State::Relay(_, relay) = &mut self.state
            && linfo.is_some_and(|due| due <= cx.now)
        {
            self.requests.extend(relay.cut_linfo(cx.now, budget).map(Request::Linfo));
            if self.deadline.is_none_or(|deadline| deadline > cx.now) {
                return;
            }
        }
        self.deadline = None;
        match &self.state {
            State::Silent | State::Hello(_) | State::Handshake(..) => {
                self.finish(Outcome::HandshakeTimeout);
            }
            State::Greeting(_, greeting, _) if greeting.awaits_permit() => {
                self.finish(Outcome::NoPermit);
            }
            State::Greeting(..) => self.finish(Outcome::SetUpTimeout),
            State::Relay(_, relay) => match relay.phase() {
                Phase::DiscardingMlet => self.state = State::Over,
                _ => self.requests.push(Request::Probe),
            },
            // Of what a mlet wrote last the kernel holds megabytes, and an alert is a few bytes.
            State::Closing(_) if self.served => self.requests.push(Request::Probe),
            State::Closing(_) => self.state = State::Over,
            State::Over => {}
        }
        self.advance(cx);
    }

    /// The look that was asked for. A peer that takes nothing is waited for as long as the other one is
    /// there; the last bytes of one that is gone are kept for a limited time.
    pub fn handle_probe(&mut self, probe: Probe, cx: &mut Context<'_>) {
        if let State::Closing(closing) = &mut self.state {
            let untaken_len = probe.endpoint.untaken_len;
            if untaken_len != closing.untaken.0 {
                closing.untaken = (untaken_len, cx.now);
            }
            let limits = &self.experiments.limits;
            let patience =
                if untaken_len == 0 { limits.linger_timeout } else { limits.drain_timeout };
            if cx.now < closing.untaken.1 + patience {
                let least =
                    if holds(Guard::ProbesLater) { PROBE_PERIOD_MIN } else { Duration::ZERO };
                self.deadline = Some(cx.now + limits.linger_timeout.max(least));
            } else {
                self.state = State::Over;
            }
            return self.advance(cx);
        }
        let State::Relay(_, relay) = &self.state else { return };
        let untaken = (probe.endpoint.untaken_len, probe.mlet.untaken_len);
        let moves = self.untaken.replace(untaken).is_some_and(|before| before != untaken);
        self.vain_probes = if moves { 0 } else { (self.vain_probes + 1).min(PROBES) };
        if self.vain_probes == PROBES {
            let waits_for_endpoint = match relay.phase() {
                Phase::Open => probe.mlet.has_hung_up && !self.buffers.to_endpoint.is_empty(),
                phase => phase == Phase::DrainingToEndpoint,
            };
            let waits_for_mlet = match relay.phase() {
                Phase::Open => probe.endpoint.has_hung_up && !self.buffers.to_mlet.is_empty(),
                phase => phase == Phase::DrainingToMlet,
            };
            if waits_for_endpoint {
                self.finish(Outcome::UndeliveredToEndpoint);
            } else if waits_for_mlet {
                self.finish(Outcome::UndeliveredToMlet);
            }
        }
        self.advance(cx);
    }

    /// What is asked of the owner of the sockets since the last call.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// Bytes to send to the endpoint now; they are in flight until [`Self::handle_sent_to_endpoint`].
    pub fn transmit_to_endpoint(&mut self) -> Option<Transmission> {
        let transmission = match self.state {
            State::Over => None,
            _ => self.buffers.to_endpoint.transmit(),
        };
        if transmission.is_some() {
            self.rhythm.note_sent();
        }
        transmission
    }

    /// Bytes to send to the mlet now; they are in flight until [`Self::handle_sent_to_mlet`].
    pub fn transmit_to_mlet(&mut self) -> Option<Transmission> {
        if matches!(self.state, State::Over) { None } else { self.buffers.to_mlet.transmit() }
    }

    /// A receive from the endpoint is wanted.
    pub fn wants_endpoint_input(&self) -> bool {
        match &self.state {
            State::Silent | State::Hello(_) | State::Handshake(..) | State::Greeting(..) => {
                self.buffers.to_endpoint.is_empty()
            }
            State::Relay(_, relay) => relay.wants_endpoint_input(&self.buffers),
            State::Closing(closing) => !closing.input_ended,
            State::Over => false,
        }
    }

    /// A receive from the mlet is wanted.
    pub fn wants_mlet_input(&self) -> bool {
        match &self.state {
            State::Relay(_, relay) => relay.wants_mlet_input(&self.buffers),
            _ => false,
        }
    }

    /// A receive from the endpoint will be wanted when the transmission to the mlet has wholly left, so
    /// the two may be started together.
    pub fn wants_endpoint_input_next(&self) -> bool {
        matches!(&self.state, State::Relay(_, relay) if relay.wants_endpoint_input_next())
    }

    /// As [`Self::wants_endpoint_input_next`], for the mlet's input and the transmission to the endpoint.
    pub fn wants_mlet_input_next(&self) -> bool {
        matches!(&self.state, State::Relay(tls, relay) if relay.wants_mlet_input_next(tls, &self.buffers))
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        [self.deadline, self.linfo_due()].into_iter().flatten().min()
    }

    fn linfo_due(&self) -> Option<Instant> {
        match &self.state {
            State::Relay(_, relay) => relay.linfo().due(),
            _ => None,
        }
    }

    fn accept(&mut self, client_hello: ClientHello, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.in_backlog) {
            self.requests.push(Request::LeaveBacklog);
        }
        let name = client_hello.server_name();
        let Some(id) = self.experiments.choose(name.as_deref()) else {
            // As the original: the connection closes without an alert (spec/protocol.md 3.4).
            self.finish(Outcome::NoExperiment(name));
            return;
        };
        let experiment = self.experiments.experiment(id);
        let (snikey, tls) = (experiment.snikey.clone(), Arc::clone(&experiment.tls));
        self.account_mut().snikey = Some(snikey);
        match client_hello.accept(tls) {
            Ok(tls) => self.state = State::Handshake(tls, id),
            Err(error) => self.fail_hello(error, cx),
        }
    }

    fn fail_hello(&mut self, failed: HandshakeError, cx: &mut Context<'_>) {
        let alert = &failed.alert;
        self.buffers.to_endpoint.append(cx.pool, |room| {
            let len = alert.len().min(room.len());
            room[..len].copy_from_slice(&alert[..len]);
            len
        });
        self.close(None, Outcome::Tls(failed.error), cx.now);
    }

    /// Looks at what TLS has made of the bytes just received.
    fn take_received(&mut self, cx: &mut Context<'_>) {
        if matches!(&self.state, State::Handshake(tls, _) if !tls.is_handshaking()) {
            self.begin_greeting(cx);
        }
        if matches!(self.state, State::Greeting(..)) {
            self.advance_greeting(cx);
        }
        let State::Relay(tls, relay) = &mut self.state else { return };
        let requests = &mut self.requests;
        let log = |linfo| requests.push(Request::Linfo(linfo));
        let budget = &self.experiments.linfo_budget;
        let closed = relay.take_plaintext(tls, &mut self.buffers, cx.pool, cx.now, budget, log);
        self.relayed = relay.relayed();
        if closed {
            self.end_endpoint_input(End::Closed, cx);
        }
    }

    fn begin_greeting(&mut self, cx: &Context<'_>) {
        let State::Handshake(mut tls, id) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        let account = self.account_mut();
        account.tls_done = Some(cx.now);
        if let Some(peer) = tls.take_peer() {
            (account.endpoint_key, account.operator_key) = (Some(peer.key_id), peer.anchor);
        }
        let experiment = self.experiments.experiment(id);
        if let Err(error) = experiment.check_own_chain(cx.wall) {
            let snikey = experiment.snikey.clone();
            self.close(Some(tls), Outcome::OwnChain(snikey, error), cx.now);
            return;
        }
        if let Some(key) = self.endpoint_key() {
            self.place = self.experiments.keys.open(key);
            if self.place.is_none() {
                self.close(Some(tls), Outcome::TooManyOfKey(key), cx.now);
                return;
            }
        }
        let experiment = self.experiments.experiment(id);
        let greeting = Greeting::new(Arc::clone(&experiment.programs));
        self.state = State::Greeting(tls, greeting, id);
        self.deadline = Some(cx.now + self.experiments.limits.setup_timeout);
    }

    fn advance_greeting(&mut self, cx: &mut Context<'_>) {
        let State::Greeting(mut tls, mut greeting, id) =
            std::mem::replace(&mut self.state, State::Over)
        else {
            return;
        };
        match greeting.advance(&mut tls) {
            Ok(Progress::Waiting) => self.state = State::Greeting(tls, greeting, id),
            Ok(Progress::WantsPermit) => {
                self.requests.push(Request::Permit);
                self.deadline =
                    Some(cx.now + PERMIT_PATIENCE * self.experiments.limits.setup_timeout);
                self.state = State::Greeting(tls, greeting, id);
            }
            Ok(Progress::Started) => {
                self.requests.push(Request::Mlet(MletFacts {
                    peer: self.peer,
                    endpoint_key: self.endpoint_key(),
                    snikey: self.experiments.experiment(id).snikey.clone(),
                }));
                self.state = State::Relay(tls, Relay::default());
                self.served = true;
                self.account_mut().start_answered = Some(cx.now);
                self.note_progress();
            }
            Ok(Progress::Left) => {
                self.close(Some(tls), Outcome::LeftInSetUp(End::Closed), cx.now);
            }
            Err(error) => self.close(Some(tls), Outcome::Greeting(error), cx.now),
        }
    }

    /// TLS broke down: the peer gets the alert that says so.
    fn fail_tls(&mut self, error: TlsError, cx: &mut Context<'_>) {
        if matches!(self.state, State::Relay(..)) {
            // The mlet still gets what arrived before the damage.
            self.begin_drain(Outcome::EndpointBrokeTls(error));
            self.end_endpoint_input(End::Broken(ErrorKind::InvalidData), cx);
        } else if let State::Handshake(tls, _) | State::Greeting(tls, ..) =
            std::mem::replace(&mut self.state, State::Over)
        {
            self.close(Some(tls), Outcome::Tls(error), cx.now);
        }
    }

    /// The connection to the endpoint takes no more bytes. What the endpoint sent before may still
    /// wait in the socket, and the mlet gets it.
    fn lose_endpoint(&mut self, kind: ErrorKind, cx: &mut Context<'_>) {
        self.buffers.to_endpoint.discard(cx.pool);
        match &mut self.state {
            State::Relay(_, relay) if relay.phase() != Phase::DrainingToEndpoint => {
                relay.handle_endpoint_write_closed(&mut self.buffers, cx.pool);
                self.begin_drain(Outcome::EndpointEnded(End::Broken(kind)));
            }
            _ => self.end_endpoint_input(End::Broken(kind), cx),
        }
    }

    /// One side of a relayed session ended; the first to do so decides the outcome.
    fn begin_drain(&mut self, outcome: Outcome) {
        if self.outcome.is_none() {
            self.outcome = Some(Box::new(outcome));
            self.note_progress();
        }
    }

    /// Something moved in a relayed session: waits begin anew.
    fn note_progress(&mut self) {
        if matches!(self.state, State::Relay(..)) {
            self.deadline = None;
            (self.vain_probes, self.untaken) = (0, None);
        }
    }

    /// How long nothing may move where the relay stands now, until the next look or for good.
    fn patience(&self, phase: Phase) -> Option<Duration> {
        let idle = self.buffers.to_endpoint.is_empty() && self.buffers.to_mlet.is_empty();
        match phase {
            Phase::Open if idle => None,
            Phase::DiscardingMlet => Some(self.experiments.limits.linger_timeout),
            _ => Some((self.experiments.limits.drain_timeout / PROBES).max(PROBE_PERIOD_MIN)),
        }
    }

    fn end_endpoint_input(&mut self, end: End, cx: &mut Context<'_>) {
        let broken = matches!(end, End::Broken(_));
        match &mut self.state {
            State::Silent if self.in_backlog => self.finish(Outcome::BacklogLost(end)),
            State::Silent | State::Hello(_) | State::Handshake(..) | State::Greeting(..) => {
                self.finish(Outcome::LeftInSetUp(end));
            }
            State::Relay(_, relay) if broken && relay.phase() == Phase::DrainingToEndpoint => {
                self.finish(Outcome::UndeliveredToEndpoint);
            }
            State::Relay(_, relay) => {
                relay.handle_endpoint_end(&mut self.buffers, cx.pool);
                self.begin_drain(Outcome::EndpointEnded(end));
            }
            State::Closing(_) if broken => self.state = State::Over,
            State::Closing(closing) => closing.input_ended = true,
            State::Over => {}
        }
    }

    /// Moves on as far as output has left.
    fn advance(&mut self, cx: &mut Context<'_>) {
        if matches!(self.state, State::Greeting(..)) {
            self.advance_greeting(cx);
        }
        if let State::Relay(tls, relay) = &mut self.state {
            let step = relay.advance(tls, &mut self.buffers, cx.pool);
            self.relayed = relay.relayed();
            self.take_step(step, cx.now);
        }
        self.fill_to_endpoint(cx.pool);
        if let State::Relay(_, relay) = &self.state {
            let patience = self.patience(relay.phase());
            let deadline = patience.map(|patience| self.deadline.unwrap_or(cx.now + patience));
            self.deadline = deadline;
            if relay.phase() == Phase::DiscardingMlet {
                let latest = cx.now + self.experiments.limits.drain_timeout;
                self.deadline = deadline.min(Some(*self.discard_until.get_or_insert(latest)));
            }
        }
        if let State::Closing(closing) = &mut self.state
            && self.buffers.to_endpoint.is_empty()
        {
            closing.tls = None;
            if !closing.ended {
                closing.ended = true;
                self.requests.push(Request::EndEndpointInput);
            }
            if closing.input_ended {
                self.state = State::Over;
            }
        }
        if matches!(self.state, State::Over)
            && let Some(outcome) = self.outcome.take()
        {
            self.deadline = None;
            self.place = None;
            self.buffers.discard(cx.pool);
            self.requests.push(Request::Over(*outcome));
        }
    }

    fn take_step(&mut self, step: Step, now: Instant) {
        match step {
            Step::Continue => {}
            Step::EndMletInput => {
                self.requests.push(Request::EndMletInput);
                self.note_progress();
            }
            Step::CloseEndpoint => {
                self.requests.push(Request::EndMletInput);
                let outcome = self.outcome.take().map_or(Outcome::MletEnded, |outcome| *outcome);
                self.close(None, outcome, now);
            }
            Step::Over => self.state = State::Over,
        }
    }

    /// Moves sealed bytes to where they can be sent from.
    fn fill_to_endpoint(&mut self, pool: &mut BlockPool) {
        let tls = match &mut self.state {
            State::Handshake(tls, _) | State::Greeting(tls, ..) | State::Relay(tls, _) => tls,
            State::Closing(Closing { tls: Some(tls), .. }) => tls,
            State::Silent | State::Hello(_) | State::Closing(_) | State::Over => return,
        };
        if self.buffers.to_endpoint.is_empty() && tls.has_output() {
            self.buffers.to_endpoint.append(pool, |room| tls.write_output(room));
        }
    }

    /// Ends the connection once the last bytes, such as an alert or close_notify, have left.
    fn close(&mut self, mut tls: Option<ServerStream>, outcome: Outcome, now: Instant) {
        if let Some(tls) = &mut tls {
            tls.close();
        }
        self.outcome = Some(Box::new(outcome));
        self.state =
            State::Closing(Closing { tls, ended: false, input_ended: false, untaken: (0, now) });
        self.deadline = Some(now + self.experiments.limits.linger_timeout);
    }

    fn finish(&mut self, outcome: Outcome) {
        self.outcome = Some(Box::new(outcome));
        self.state = State::Over;
    }
}
