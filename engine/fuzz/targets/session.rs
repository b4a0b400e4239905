//! A session, and all that may happen to one: the endpoint speaks, is silent, lies or leaves, the mlet as well, sends end short
//! or fail, time passes, and whoever owns the session wants it to end. The first byte says whether the connection is one of the
//! backlog, and whether peers take anything in the end; then come operations, see `World::play`.
//!
//! Whatever happens, there is one end and nothing after it, blocks are at most three and all come back, the place of its key
//! does too, a mlet is asked for only behind a permit, and what either side hears is how the other began. When both
//! are gone the session ends by its own deadlines.

#![no_main]

mod endpoint;
mod script;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::credentials::{NOW, endpoint_chain, experiments};
use endpoint::{Endpoint, for_mlet};
use engine::proto::account::RelayedByAll;
use engine::proto::experiments::Experiments;
use engine::proto::keys::Keys;
use engine::proto::outbox::{BULK_RECEIVE_LEN, BlockPool, Transmission};
use engine::proto::session::{Context, PeerStatus, Probe, Request, Session};
use engine::proto::session_end::{End, Force, Outcome};
use libfuzzer_sys::fuzz_target;
use packetlab::frame::Framer;
use packetlab::message::{HEADER_LEN, Message, MessageType, Outcome as Answer};
use packetlab::tls;
use script::Script;

/// One each way, and the mlet's bytes that wait for records.
const BLOCKS_MAX: usize = 3;

/// More steps than a session has left when its peers are gone.
const LAST_STEPS_MAX: usize = 10_000;

fuzz_target!(
    // What TLS does once, before any input's time is taken.
    init: tls::warm_up().unwrap(),
    |input: &[u8]| {
        let mut script = Script(input);
        let Some(choice) = script.next() else { return };
        let mut world = World::new(choice & 1 != 0);
        while let Some(operation) = script.next() {
            world.play(operation, &mut script);
        }
        world.finish(choice & 2 == 0);
    }
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permit {
    NotAsked,
    Asked,
    Granted,
    Refused,
}

/// A transmission that is under way, and whether a receive begins when all of it has left.
struct Send {
    transmission: Transmission,
    is_linked: bool,
}

/// One side of the session, as its owner sees it.
#[derive(Default)]
struct Side {
    /// On the way to the session.
    coming: VecDeque<u8>,
    /// It says nothing more, which the session may not know yet.
    end: Option<End>,
    is_end_told: bool,
    is_receiving: bool,
    sending: Option<Send>,
    /// What the kernel holds for it, so that looks at its socket differ.
    untaken_len: usize,
}

struct World {
    session: Session,
    experiments: Arc<Experiments>,
    pool: BlockPool,
    relayed: RelayedByAll,
    now: Instant,
    endpoint: Endpoint,
    /// Bytes that are no TLS were sent in its name.
    has_lied: bool,
    to_endpoint: Side,
    to_mlet: Side,
    mlet_said: Vec<u8>,
    mlet_heard: Vec<u8>,
    permit: Permit,
    has_mlet: bool,
    is_over: bool,
}

impl World {
    fn new(is_in_backlog: bool) -> Self {
        let mut experiments = experiments();
        Arc::get_mut(&mut experiments).unwrap().keys = Keys::new(Some(1));
        let (peer, now) = (IpAddr::V4(Ipv4Addr::LOCALHOST), Instant::now());
        let begin = if is_in_backlog { Session::in_backlog } else { Session::new };
        let mut world = Self {
            session: begin(peer, Arc::clone(&experiments), now),
            experiments,
            pool: BlockPool::default(),
            relayed: RelayedByAll::default(),
            now,
            endpoint: Endpoint::new(),
            has_lied: false,
            to_endpoint: Side::default(),
            to_mlet: Side::default(),
            mlet_said: Vec::new(),
            mlet_heard: Vec::new(),
            permit: Permit::NotAsked,
            has_mlet: false,
            is_over: false,
        };
        world.pump();
        world.step(|_, _| ());
        world
    }

    fn play(&mut self, operation: u8, script: &mut Script<'_>) {
        match operation % 20 {
            0 => self.exchange(),
            1 => self.receive_from_endpoint(script.long_number()),
            2 => self.receive_from_mlet(script.long_number()),
            3 => self.endpoint.say(script.bytes()),
            4 => self.endpoint.say(&encoded(&Message::Result(Answer::SUCCESS))),
            5 => self.endpoint.say(&script.message()),
            6 => self.endpoint.close(),
            7 => {
                let bytes = script.bytes();
                self.has_lied |= !bytes.is_empty();
                self.to_endpoint.coming.extend(bytes);
            }
            8 => {
                let bytes = script.message();
                self.mlet_says(&bytes);
            }
            9 => {
                let bytes = script.bytes();
                self.mlet_says(bytes);
            }
            10 => self.to_endpoint.end = self.to_endpoint.end.or(Some(End::Closed)),
            11 => {
                self.to_endpoint.coming.clear();
                self.to_endpoint.end = Some(End::Broken(ErrorKind::ConnectionReset));
            }
            12 => self.to_mlet.end = Some(End::Closed),
            13 => self.end_send_to_endpoint(sent(script.long_number())),
            14 => self.end_send_to_mlet(sent(script.long_number())),
            15 => self.pass(Duration::from_millis(script.long_number() as u64)),
            16 => self.pass_to_deadline(),
            17 => self.answer_permit(script.number()),
            18 => self.order(script.number()),
            _ => {
                let untaken_len = script.long_number();
                self.to_endpoint.untaken_len = untaken_len;
                self.to_mlet.untaken_len = untaken_len;
            }
        }
        self.pump();
        self.step(|_, _| ());
    }

    /// What the endpoint's TLS has to send is on its way.
    fn pump(&mut self) {
        let sealed = self.endpoint.sealed();
        if self.to_endpoint.end.is_none() {
            self.to_endpoint.coming.extend(sealed);
        }
    }

    fn mlet_says(&mut self, bytes: &[u8]) {
        if self.has_mlet && self.to_mlet.end.is_none() {
            self.to_mlet.coming.extend(bytes);
            self.mlet_said.extend_from_slice(bytes);
        }
    }

    /// All that can move does, and whatever is asked is granted.
    fn exchange(&mut self) {
        for _ in 0..8 {
            self.receive_from_endpoint(usize::MAX);
            self.end_send_to_endpoint(Ok(usize::MAX));
            self.answer_permit(1);
            if self.endpoint.heard == encoded(&Message::Start) && self.endpoint.said.is_empty() {
                self.endpoint.say(&encoded(&Message::Result(Answer::SUCCESS)));
            }
            self.receive_from_mlet(usize::MAX);
            self.end_send_to_mlet(Ok(usize::MAX));
            self.pump();
        }
    }

    fn receive_from_endpoint(&mut self, len: usize) {
        if !self.to_endpoint.is_receiving {
            return;
        }
        let bytes = taken(&mut self.to_endpoint.coming, len);
        if !bytes.is_empty() {
            self.to_endpoint.is_receiving = false;
            self.step(|session, cx| session.handle_endpoint_bytes(&bytes, cx));
        } else if self.to_endpoint.coming.is_empty()
            && let Some(end) = self.to_endpoint.end.filter(|_| !self.to_endpoint.is_end_told)
        {
            (self.to_endpoint.is_receiving, self.to_endpoint.is_end_told) = (false, true);
            self.step(|session, cx| session.handle_endpoint_end(end, cx));
        }
    }

    fn receive_from_mlet(&mut self, len: usize) {
        if !self.to_mlet.is_receiving {
            return;
        }
        let bytes = taken(&mut self.to_mlet.coming, len);
        if !bytes.is_empty() {
            self.to_mlet.is_receiving = false;
            self.step(|session, cx| session.handle_mlet_bytes(&bytes, cx));
        } else if self.to_mlet.coming.is_empty()
            && self.to_mlet.end.is_some()
            && !self.to_mlet.is_end_told
        {
            (self.to_mlet.is_receiving, self.to_mlet.is_end_told) = (false, true);
            self.step(Session::handle_mlet_end);
        }
    }

    fn end_send_to_endpoint(&mut self, sent: Result<usize, ErrorKind>) {
        let Some(Send { transmission, is_linked }) = self.to_endpoint.sending.take() else {
            return;
        };
        let Transmission { block, start, end } = transmission;
        let sent = sent.map(|len| len.min(end - start));
        if let Ok(len) = sent {
            self.endpoint.receive(&block[start..start + len]);
            self.to_mlet.is_receiving |= is_linked && start + len == end;
        }
        self.step(|session, cx| session.handle_sent_to_endpoint(block, sent, cx));
    }

    fn end_send_to_mlet(&mut self, sent: Result<usize, ErrorKind>) {
        let Some(Send { transmission, is_linked }) = self.to_mlet.sending.take() else { return };
        let Transmission { block, start, end } = transmission;
        let sent = sent.map(|len| len.min(end - start));
        if let Ok(len) = sent {
            self.mlet_heard.extend_from_slice(&block[start..start + len]);
            self.to_endpoint.is_receiving |= is_linked && start + len == end;
        }
        self.step(|session, cx| session.handle_sent_to_mlet(block, sent, cx));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.session.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.step(Session::handle_timeout);
            let deadline = self.session.deadline();
            assert!(deadline.is_none_or(|deadline| deadline > self.now), "due again at once");
        }
    }

    fn pass_to_deadline(&mut self) {
        if let Some(deadline) = self.session.deadline() {
            self.pass(deadline.saturating_duration_since(self.now));
        }
    }

    fn answer_permit(&mut self, answer: usize) {
        if self.permit != Permit::Asked {
            return;
        }
        if answer % 4 == 0 {
            self.permit = Permit::Refused;
            self.step(|session, cx| {
                session.handle_refusal(engine::permits::Refusal::Done, cx);
            });
        } else {
            self.permit = Permit::Granted;
            self.step(Session::handle_permit);
        }
    }

    /// Whoever owns the session wants its place, or the end of the run.
    fn order(&mut self, order: usize) {
        let force = [Force::Stop, Force::Deadline, Force::DrainLimit, Force::Kill, Force::Fenced];
        let force = force[order / 8 % force.len()];
        match order % 8 {
            0 => self.step(Session::handle_stop),
            1 => self.step(Session::handle_make_room),
            2 => self.step(|session, cx| session.handle_run_over(force, cx)),
            3 | 4 => {
                self.step(|session, cx| session.handle_force(force, cx));
                // Its mlet is ended, too.
                self.to_mlet.end = Some(End::Closed);
            }
            5 => {
                let experiments = Arc::clone(&self.experiments);
                self.step(|session, _| session.handle_reload(experiments));
            }
            6 if self.has_mlet => {
                self.step(Session::handle_mlet_late);
                self.to_mlet.end = Some(End::Closed);
            }
            _ => self.step(Session::handle_timeout),
        }
    }

    /// Lets the session take a step, does what it asks for, and looks at it.
    fn step(&mut self, step: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let was_over = self.is_over;
        self.call(step);
        loop {
            let requests = self.session.take_requests();
            assert!(!was_over || requests.is_empty(), "{requests:?} after the end");
            if requests.is_empty() {
                break;
            }
            requests.into_iter().for_each(|request| self.grant(request));
        }
        if !self.is_over {
            self.start_operations();
        }
        self.check();
    }

    fn call(&mut self, step: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let Self { now, pool, relayed, .. } = self;
        step(&mut self.session, &mut Context { now: *now, wall: NOW, pool, relayed });
    }

    fn grant(&mut self, request: Request) {
        assert!(!self.is_over, "{request:?} after the end");
        match request {
            Request::Permit => {
                assert_eq!(self.permit, Permit::NotAsked, "a permit is asked for once");
                self.permit = Permit::Asked;
            }
            Request::Mlet(_) => {
                assert_eq!(self.permit, Permit::Granted, "no mlet without a permit");
                assert!(!self.has_mlet, "a session has one mlet");
                self.has_mlet = true;
            }
            Request::EndMlet => {
                assert!(self.has_mlet);
                self.to_mlet.end = Some(End::Closed);
            }
            Request::Probe => {
                let status = |side: &Side, is_there: bool| PeerStatus {
                    has_hung_up: !is_there || side.end.is_some(),
                    untaken_len: side.untaken_len,
                };
                let endpoint = status(&self.to_endpoint, true);
                let mlet = status(&self.to_mlet, self.has_mlet);
                self.call(|session, cx| session.handle_probe(Probe { endpoint, mlet }, cx));
            }
            Request::Over(outcome) => self.end(&outcome),
            Request::EndMletInput | Request::EndpointGone(_) => assert!(self.has_mlet),
            Request::LeaveBacklog | Request::EndEndpointInput | Request::Linfo(_) => {}
        }
    }

    fn end(&mut self, outcome: &Outcome) {
        self.is_over = true;
        let key = endpoint_chain()[0].subject_key_id;
        assert!(self.experiments.keys.open(key).is_some(), "its key has its place again");
        let needs_mlet = matches!(
            outcome,
            Outcome::MletEnded
                | Outcome::EndpointEnded(_)
                | Outcome::EndpointBrokeTls(_)
                | Outcome::UndeliveredToEndpoint
                | Outcome::UndeliveredToMlet
                | Outcome::MletLate
        );
        assert!(self.has_mlet || !needs_mlet, "{outcome:?} without a mlet");
    }

    fn start_operations(&mut self) {
        if self.to_endpoint.sending.is_none()
            && let Some(transmission) = self.session.transmit_to_endpoint()
        {
            let may_link = self.has_mlet && !self.to_mlet.is_receiving;
            let is_linked = may_link && self.session.wants_mlet_input_next();
            self.to_endpoint.sending = Some(Send { transmission, is_linked });
        }
        if self.to_mlet.sending.is_none()
            && let Some(transmission) = self.session.transmit_to_mlet()
        {
            let may_link = !self.to_endpoint.is_receiving;
            let is_linked = may_link && self.session.wants_endpoint_input_next();
            self.to_mlet.sending = Some(Send { transmission, is_linked });
        }
        let is_linked = |side: &Side| side.sending.as_ref().is_some_and(|send| send.is_linked);
        self.to_endpoint.is_receiving |=
            self.session.wants_endpoint_input() && !is_linked(&self.to_mlet);
        // A receive that waits for a send begins without it if it is wanted before.
        self.to_mlet.is_receiving |= self.has_mlet && self.session.wants_mlet_input();
    }

    fn check(&mut self) {
        assert!(self.pool.lent() <= BLOCKS_MAX, "{} blocks", self.pool.lent());
        assert!(self.has_mlet || self.to_mlet.sending.is_none(), "bytes for nobody");
        assert!(self.has_lied || !self.endpoint.has_failed, "TLS was broken");
        if self.endpoint.heard.first() == Some(&MessageType::START.0) {
            assert_eq!(self.permit, Permit::Granted, "no START without a permit");
        }
        if self.is_over {
            let (session, sides) = (&mut self.session, [&self.to_endpoint, &self.to_mlet]);
            assert!(!session.wants_endpoint_input() && !session.wants_mlet_input(), "input");
            assert!(session.transmit_to_endpoint().is_none(), "output after the end");
            assert!(session.transmit_to_mlet().is_none(), "output after the end");
            assert_eq!(session.deadline(), None, "a deadline after the end");
            let in_flight = sides.iter().filter(|side| side.sending.is_some()).count();
            assert_eq!(self.pool.lent(), in_flight, "blocks are kept after the end");
        }
    }

    /// Both peers are gone, and what they leave is taken, or is not.
    fn finish(&mut self, takes_all: bool) {
        self.to_endpoint.end = self.to_endpoint.end.or(Some(End::Closed));
        self.to_mlet.end = Some(End::Closed);
        for _ in 0..LAST_STEPS_MAX {
            if self.is_over {
                break;
            }
            self.receive_from_endpoint(usize::MAX);
            self.receive_from_mlet(usize::MAX);
            if takes_all {
                self.end_send_to_endpoint(Ok(usize::MAX));
                self.end_send_to_mlet(Ok(usize::MAX));
            }
            self.pass_to_deadline();
        }
        assert!(self.is_over, "its peers are gone, and the session goes on");
        self.end_send_to_endpoint(Err(ErrorKind::ConnectionReset));
        self.end_send_to_mlet(Err(ErrorKind::BrokenPipe));
        assert_eq!(self.pool.lent(), 0, "blocks are missing");
        if !self.endpoint.heard.is_empty() {
            let start = encoded(&Message::Start);
            let relayed = self.endpoint.heard.strip_prefix(&start[..]);
            assert!(self.mlet_said.starts_with(relayed.expect("START comes first")), "to endpoint");
        }
        if self.has_mlet {
            // The answer to START comes before it.
            let mut framer = Framer::default();
            framer.push(&self.endpoint.said);
            let (message_type, answer) = framer.next().unwrap().expect("START was answered");
            let answered = Message::decode(message_type, answer);
            assert!(matches!(answered, Message::Result(answer) if answer.is_success()));
            let (whole, _) = for_mlet(&self.endpoint.said[HEADER_LEN + answer.len()..]);
            assert!(whole.starts_with(&self.mlet_heard), "to mlet");
        }
    }
}

fn sent(number: usize) -> Result<usize, ErrorKind> {
    match number {
        0 => Err(ErrorKind::ConnectionReset),
        0xFFFF => Ok(usize::MAX),
        len => Ok(len - 1),
    }
}

/// Up to so many bytes, and no more than a receive delivers.
fn taken(coming: &mut VecDeque<u8>, len: usize) -> Vec<u8> {
    let len = len.min(coming.len()).min(BULK_RECEIVE_LEN);
    coming.drain(..len).collect()
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    bench::encoded(message)
}
