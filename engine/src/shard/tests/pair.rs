//! A session between its two peers, moved one completed operation at a time, as a shard does.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peers::{Endpoint, Mlet};
use crate::proto::experiments::Experiments;
use crate::proto::outbox::{BlockPool, RECEIVE_LEN, Transmission};
use crate::proto::outcome::Outcome;
use crate::proto::session::{Context, MletFacts, Probe, Request, Session};
use crate::proto::tests::credentials::{Login, NOW, TRUSTING, endpoint_tls, plain_experiments};
use crate::random::Random;
use packetlab::time::Ticks;

/// More operations than any scenario needs; beyond it one runs in circles.
const STEPS_MAX: usize = 4_000_000;

/// The most blocks a session ever holds: one each way, and the mlet's bytes that wait for records.
const BLOCKS_MAX: usize = 3;

/// How many bytes an operation moves.
pub(super) enum Chunks {
    /// As many as there are and fit.
    Whole,
    /// At most so many.
    UpTo(usize),
    /// Random numbers of bytes, and operations complete in random order.
    Random(Random),
}

impl Chunks {
    /// How many of `available` bytes an operation moves.
    fn of(&mut self, available: usize) -> usize {
        match self {
            Self::Whole => available,
            Self::UpTo(len) => available.min(*len),
            Self::Random(_) if available == 0 => 0,
            Self::Random(random) => random.size(available),
        }
    }
}

/// An operation that can complete.
#[derive(Debug, Clone, Copy)]
enum Operation {
    EndpointReceive,
    EndpointSend,
    MletReceive,
    MletSend,
}

/// A transmission under way.
struct Send {
    transmission: Transmission,
    /// Bytes that have left.
    sent: usize,
    /// A receive of the other socket follows once all has left; until then the send goes on.
    then_receive: bool,
}

impl Send {
    fn new(transmission: Transmission, then_receive: bool) -> Self {
        Self { transmission, sent: 0, then_receive }
    }

    fn waiting(&self) -> &[u8] {
        let Transmission { block, start, end } = &self.transmission;
        &block[start + self.sent..*end]
    }
}

/// A session with its two peers.
pub(super) struct Pair {
    pub(super) session: Session,
    pub(super) endpoint: Endpoint,
    /// Since START was answered.
    pub(super) mlet: Option<Mlet>,
    pub(super) facts: Option<MletFacts>,
    pub(super) pool: BlockPool,
    pub(super) wall: Ticks,
    pub(super) chunks: Chunks,
    /// Permits are granted at once.
    pub(super) has_permits: bool,
    /// What was asked of the owner of the sockets and what the endpoint noticed, a line each.
    pub(super) transcript: Vec<String>,
    /// Set when the session is over.
    pub(super) over: Option<Outcome>,
    start: Instant,
    now: Instant,
    endpoint_receive: bool,
    mlet_receive: bool,
    endpoint_send: Option<Send>,
    mlet_send: Option<Send>,
    /// A permit was granted, so START has been sent.
    pub(super) start_is_sent: bool,
    /// The session was told an end, so it discards input from now on.
    ended: bool,
    endpoint_end_told: bool,
    mlet_end_told: bool,
    /// Input was wanted while output waited, which only a failed set-up may.
    set_up_failed: bool,
    last: usize,
}

impl Pair {
    /// The trusted operator's endpoint asking for the experiment that trusts it.
    pub(super) fn new() -> Self {
        Self::with(plain_experiments(), Login::Operator, Some(TRUSTING))
    }

    pub(super) fn with(experiments: Arc<Experiments>, login: Login, snikey: Option<&str>) -> Self {
        Self::between(experiments, Endpoint::new(Some(endpoint_tls(login, snikey))))
    }

    /// A peer that speaks raw bytes.
    pub(super) fn raw() -> Self {
        Self::between(plain_experiments(), Endpoint::new(None))
    }

    /// A pair whose mlet runs.
    pub(super) fn served() -> Self {
        let mut pair = Self::new();
        pair.run();
        assert!(pair.mlet.is_some(), "{}", pair.told());
        pair.transcript.clear();
        pair
    }

    fn between(experiments: Arc<Experiments>, endpoint: Endpoint) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an Instant comes from nowhere else")]
        let start = Instant::now();
        let mut pair = Self {
            session: Session::new(IpAddr::V4(Ipv4Addr::LOCALHOST), experiments, start),
            endpoint,
            mlet: None,
            facts: None,
            pool: BlockPool::default(),
            wall: NOW,
            chunks: Chunks::Whole,
            has_permits: true,
            transcript: Vec::new(),
            over: None,
            start,
            now: start,
            endpoint_receive: false,
            mlet_receive: false,
            endpoint_send: None,
            mlet_send: None,
            start_is_sent: false,
            ended: false,
            endpoint_end_told: false,
            mlet_end_told: false,
            set_up_failed: false,
            last: 0,
        };
        pair.apply();
        pair
    }

    /// The mlet, which must run.
    pub(super) fn mlet(&mut self) -> &mut Mlet {
        self.mlet.as_mut().unwrap()
    }

    /// The transcript as text.
    pub(super) fn told(&self) -> String {
        self.transcript.join("\n")
    }

    /// Time since the connection was accepted.
    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Completes operations until none can.
    pub(super) fn run(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < STEPS_MAX, "the session runs in circles:\n{}", self.told());
        }
    }

    /// Completes one operation, if any can.
    pub(super) fn step(&mut self) -> bool {
        self.endpoint.take();
        if let Some(mlet) = &mut self.mlet {
            mlet.take();
        }
        self.transcript.append(&mut self.endpoint.notes);
        if self.over.is_some() {
            return false;
        }
        let able = self.able();
        if able.is_empty() {
            return false;
        }
        self.last = match &mut self.chunks {
            Chunks::Random(random) => random.below(able.len()),
            _ => (self.last + 1) % able.len(),
        };
        self.complete(able[self.last]);
        self.apply();
        true
    }

    /// Lets time pass; the deadline is kept if it comes up.
    pub(super) fn pass(&mut self, period: Duration) {
        let until = self.now + period;
        while let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            self.with_session(Session::handle_timeout);
            self.run();
            assert_ne!(self.session.deadline(), Some(deadline), "a deadline passes once");
        }
        self.now = until;
    }

    /// Runs to the session's end, jumping from deadline to deadline, and gives its outcome.
    pub(super) fn finish(&mut self) -> &Outcome {
        self.run();
        while self.over.is_none() {
            let deadline = self.session.deadline();
            let deadline = deadline.unwrap_or_else(|| panic!("it never ends:\n{}", self.told()));
            self.pass(deadline.saturating_duration_since(self.now));
        }
        self.assert_nothing_is_left();
        self.over.as_ref().unwrap()
    }

    /// Completes operations until `done`, which they must reach.
    pub(super) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            assert!(self.step(), "it stopped before:\n{}", self.told());
        }
    }

    /// The permit that was withheld is granted.
    pub(super) fn grant_permit(&mut self) -> bool {
        let mut needed = false;
        self.with_session(|session, cx| needed = session.handle_permit(cx));
        needed
    }

    /// Calls the session from outside.
    pub(super) fn with_session(&mut self, call: impl FnOnce(&mut Session, &mut Context<'_>)) {
        call(
            &mut self.session,
            &mut Context { now: self.now, wall: self.wall, pool: &mut self.pool },
        );
        self.apply();
    }

    fn able(&self) -> Vec<Operation> {
        let mut able = Vec::new();
        let endpoint = &self.endpoint;
        if self.endpoint_receive && !(endpoint.sent.is_empty() && endpoint.end.is_none()) {
            able.push(Operation::EndpointReceive);
        }
        if self.endpoint_send.is_some() && (endpoint.is_broken() || endpoint.room() > 0) {
            able.push(Operation::EndpointSend);
        }
        let Some(mlet) = &self.mlet else { return able };
        if self.mlet_receive && (mlet.has_ended || !mlet.sent.is_empty()) {
            able.push(Operation::MletReceive);
        }
        if self.mlet_send.is_some() && mlet.room() != Ok(0) {
            able.push(Operation::MletSend);
        }
        able
    }

    fn complete(&mut self, operation: Operation) {
        let mut cx = Context { now: self.now, wall: self.wall, pool: &mut self.pool };
        match operation {
            Operation::EndpointReceive => {
                self.endpoint_receive = false;
                let len = self.chunks.of(self.endpoint.sent.len().min(RECEIVE_LEN));
                let bytes: Vec<u8> = self.endpoint.sent.drain(..len).collect();
                match self.endpoint.end {
                    Some(end) if bytes.is_empty() => {
                        (self.ended, self.endpoint_end_told) = (true, true);
                        self.session.handle_endpoint_end(end, &mut cx);
                    }
                    _ => self.session.handle_endpoint_bytes(&bytes, &mut cx),
                }
            }
            Operation::EndpointSend => {
                let mut send = self.endpoint_send.take().unwrap();
                let room =
                    if self.endpoint.is_broken() { Err(ErrorKind::BrokenPipe) } else { Ok(()) };
                let room = room.map(|()| self.endpoint.room());
                self.ended |= room.is_err();
                let moved = self.chunks.of(room.unwrap_or(0).min(send.waiting().len()));
                self.endpoint.arrive(&send.waiting()[..moved]);
                send.sent += moved;
                let has_left = send.waiting().is_empty();
                if room.is_ok() && send.then_receive && !has_left {
                    self.endpoint_send = Some(send);
                    return;
                }
                self.mlet_receive |= send.then_receive && has_left;
                let sent = if send.sent > 0 { Ok(send.sent) } else { room };
                self.session.handle_sent_to_endpoint(send.transmission.block, sent, &mut cx);
            }
            Operation::MletReceive => {
                self.mlet_receive = false;
                let mlet = self.mlet.as_mut().unwrap();
                let len = self.chunks.of(mlet.sent.len().min(RECEIVE_LEN));
                let bytes: Vec<u8> = mlet.sent.drain(..len).collect();
                if bytes.is_empty() {
                    (self.ended, self.mlet_end_told) = (true, true);
                    self.session.handle_mlet_end(&mut cx);
                } else {
                    self.session.handle_mlet_bytes(&bytes, &mut cx);
                }
            }
            Operation::MletSend => {
                let mut send = self.mlet_send.take().unwrap();
                let mlet = self.mlet.as_mut().unwrap();
                let room = mlet.room();
                let moved = self.chunks.of(room.unwrap_or(0).min(send.waiting().len()));
                mlet.arrive(&send.waiting()[..moved]);
                send.sent += moved;
                let has_left = send.waiting().is_empty();
                if room.is_ok() && send.then_receive && !has_left {
                    self.mlet_send = Some(send);
                    return;
                }
                self.endpoint_receive |= send.then_receive && has_left;
                let sent = if send.sent > 0 { Ok(send.sent) } else { room };
                self.session.handle_sent_to_mlet(send.transmission.block, sent, &mut cx);
            }
        }
    }

    /// Does what the session asks for, and starts what it wants.
    fn apply(&mut self) {
        loop {
            let requests = self.session.take_requests();
            if requests.is_empty() {
                break;
            }
            requests.into_iter().for_each(|request| self.grant(request));
        }
        if self.endpoint_send.is_none()
            && let Some(transmission) = self.session.transmit_to_endpoint()
        {
            let then_receive = !self.mlet_receive && self.session.wants_mlet_input_next();
            self.endpoint_send = Some(Send::new(transmission, then_receive));
        }
        if self.mlet.is_some()
            && self.mlet_send.is_none()
            && let Some(transmission) = self.session.transmit_to_mlet()
        {
            let then_receive = !self.endpoint_receive && self.session.wants_endpoint_input_next();
            self.mlet_send = Some(Send::new(transmission, then_receive));
        }
        self.assert_invariants();
        // A receive that follows a send is under way already.
        let follows = |send: &Option<Send>| send.as_ref().is_some_and(|send| send.then_receive);
        if !follows(&self.mlet_send) {
            self.endpoint_receive |= self.session.wants_endpoint_input();
        }
        if !follows(&self.endpoint_send) {
            self.mlet_receive |= self.session.wants_mlet_input();
        }
    }

    fn grant(&mut self, request: Request) {
        assert!(self.over.is_none(), "{request:?} after the session was over");
        match request {
            // It was in none.
            Request::LeaveBacklog => {}
            Request::Permit => {
                self.transcript.push("permit wanted".into());
                if self.has_permits {
                    let mut cx = Context { now: self.now, wall: self.wall, pool: &mut self.pool };
                    // What came behind may have failed the session already.
                    self.start_is_sent |= self.session.handle_permit(&mut cx);
                }
            }
            Request::Mlet(facts) => {
                assert!(!self.set_up_failed, "input was read while output waited");
                self.transcript.push("mlet started".into());
                self.facts = Some(facts);
                self.mlet = Some(Mlet::new());
            }
            Request::EndMletInput => {
                self.transcript.push("mlet's input ended".into());
                self.mlet().arrive_eof();
            }
            Request::EndEndpointInput => {
                self.transcript.push("endpoint's input ended".into());
                self.endpoint.arrive_eof();
            }
            Request::Linfo(linfo) => self.transcript.push(format!("{linfo:?}")),
            Request::Probe => {
                let (endpoint, mlet) = (self.endpoint.status(), self.mlet().status());
                let mut cx = Context { now: self.now, wall: self.wall, pool: &mut self.pool };
                self.session.handle_probe(Probe { endpoint, mlet }, &mut cx);
            }
            Request::Over(outcome) => {
                self.transcript.push(format!("over: {outcome}"));
                self.over = Some(outcome);
            }
        }
    }

    fn assert_invariants(&mut self) {
        let session = &mut self.session;
        let told = || self.transcript.join("\n");
        assert!(session.transmit_to_endpoint().is_none(), "two sends to the endpoint:\n{}", told());
        if self.mlet.is_some() {
            assert!(session.transmit_to_mlet().is_none(), "two sends to the mlet:\n{}", told());
        }
        assert!(self.pool.lent() <= BLOCKS_MAX, "{} blocks:\n{}", self.pool.lent(), told());
        let wants = (session.wants_endpoint_input(), session.wants_mlet_input());
        if self.over.is_some() {
            assert_eq!((wants, session.deadline()), ((false, false), None), "over:\n{}", told());
            return;
        }
        assert!(!(self.endpoint_end_told && wants.0), "input after its end:\n{}", told());
        assert!(!(self.mlet_end_told && wants.1), "input after its end:\n{}", told());
        if session.is_served() && !self.ended && !self.endpoint.has_parted {
            // All output is under way, for it was taken above.
            assert!(!(wants.0 && self.mlet_send.is_some()), "endpoint's input:\n{}", told());
            assert!(!(wants.1 && self.endpoint_send.is_some()), "mlet's input:\n{}", told());
        } else {
            self.set_up_failed |= !session.is_served() && wants.0 && self.endpoint_send.is_some();
        }
    }

    /// Ends what is under way, as the owner of the sockets does, and looks for forgotten blocks.
    fn assert_nothing_is_left(&mut self) {
        let cancelled = Err(ErrorKind::Other);
        if let Some(send) = self.endpoint_send.take() {
            let block = send.transmission.block;
            self.with_session(|session, cx| session.handle_sent_to_endpoint(block, cancelled, cx));
        }
        if let Some(send) = self.mlet_send.take() {
            let some = Ok(send.sent.max(1));
            let block = send.transmission.block;
            self.with_session(|session, cx| session.handle_sent_to_mlet(block, some, cx));
        }
        self.with_session(Session::handle_stop);
        assert_eq!(self.pool.lent(), 0, "blocks are missing:\n{}", self.told());
        assert!(self.endpoint_send.is_none() && self.mlet_send.is_none());
    }
}
