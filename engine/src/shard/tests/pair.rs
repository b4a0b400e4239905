//! One session on a shard, between its endpoint and its mlet, with a clock that only jumps.
//!
//! The shard, the session and TLS are the real ones; a test plays the peers, the control thread and the kernel. Each turn
//! is checked as in a drawn world (`invariants.rs`).

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::operations::BULK_GROUP;
use super::harness::{Harness, SharedEndpoint, SharedMlet};
use super::invariants::{Streams, check_counts, check_flow};
use super::peers::{Endpoint, Mlet};
use crate::mailbox::{FromShard, SessionPlace, ToShard};
use crate::metrics::{BothWays, Direction, ShardNumber, Spread};
use crate::permits::Refusal;
use crate::proto::account::{Account, Relayed};
use crate::proto::experiments::Experiments;
use crate::proto::mlet_facts::MletFacts;
use crate::proto::session::Session;
use crate::proto::session_end::{Force, Outcome};
use crate::proto::tests::credentials::{Login, TRUSTING, endpoint_tls, plain_experiments};
use crate::proto::tests::success;
use crate::random::Random;
use crate::records::{Ended, SessionFacts, SessionId};
use crate::sys::mlet_ends::MletEnds;
use packetlab::time::Ticks;

/// More turns than any scenario needs; beyond it one runs in circles.
const TURNS_MAX: usize = 4_000_000;

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// How many bytes an operation moves.
pub(super) enum Chunks {
    /// As many as there are and fit.
    Whole,
    /// At most so many.
    UpTo(usize),
    /// Random numbers of bytes; operations complete in random order, and some are refused for a while.
    Random(Random),
}

/// A session with its two peers.
pub(super) struct Pair {
    pub(super) endpoint: Endpoint,
    /// Since START was answered.
    pub(super) mlet: Option<Mlet>,
    pub(super) facts: Option<MletFacts>,
    /// The control thread takes no mail.
    pub(super) is_deaf: bool,
    /// Permits are granted at once.
    pub(super) has_permits: bool,
    /// What the control thread was told, what the session did to its sockets and what the endpoint noticed, a line each.
    pub(super) transcript: Vec<String>,
    /// Set when the session is over and its sockets are closed.
    pub(super) over: Option<Outcome>,
    /// The same as it was told.
    pub(super) ended: Option<Ended>,
    relayed: Option<Relayed>,
    latency: Option<BothWays<Option<Spread>>>,
    account: Option<Arc<SessionFacts>>,
    place: Option<SessionPlace>,
    harness: Harness,
    start: Instant,
    /// Where the peers are while the shard takes a turn.
    shared_endpoint: SharedEndpoint,
    shared_mlet: Option<SharedMlet>,
    mlet_socket: Option<OwnedFd>,
    streams: Streams,
    linfos_logged: u64,
    /// How the endpoint has gone, each time that this was told.
    pub(super) gone: Vec<String>,
    /// How often it was told that nothing was relayed for too long.
    pub(super) idle: usize,
    /// The run was ended by force, or the mlet given up.
    is_forced: bool,
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

    /// A pair whose START needs no permit, so that the shard asks the supervisor for its mlet.
    pub(super) fn uncounted() -> Self {
        let endpoint = Endpoint::new(Some(endpoint_tls(Login::Operator, Some(TRUSTING))));
        Self::begin((plain_experiments(), false), endpoint, Harness::connect)
    }

    /// A pair whose mlet runs.
    pub(super) fn served() -> Self {
        Self::served_within(plain_experiments())
    }

    /// The same, with these limits.
    pub(super) fn served_within(experiments: Arc<Experiments>) -> Self {
        let mut pair = Self::with(experiments, Login::Operator, Some(TRUSTING));
        pair.run();
        assert!(pair.mlet.is_some(), "{}", pair.told());
        pair.transcript.clear();
        pair
    }

    /// From now on its mlet is offered pipes.
    pub(super) fn offer_pipes(&mut self) {
        self.harness.offer_pipes();
    }

    /// A pair whose mlet runs, is offered pipes, and uses them if it knows what they are.
    pub(super) fn offered_pipes(knows_pipes: bool) -> Self {
        let mut pair = Self::new();
        pair.offer_pipes();
        pair.run();
        pair.mlet().knows_pipes = knows_pipes;
        pair.transcript.clear();
        pair
    }

    /// A pair whose mlet has chosen its pipes.
    pub(super) fn over_pipes() -> Self {
        let mut pair = Self::offered_pipes(true);
        pair.mlet().write(&success());
        pair.run();
        pair.transcript.clear();
        pair
    }

    /// How many descriptors lead to the mlet.
    pub(super) fn mlet_descriptors(&self) -> usize {
        let (_, connection) = self.harness.shard.connections.iter().next().unwrap();
        connection.mlet.as_ref().map_or(0, |mlet| mlet.numbers().len())
    }

    /// A connection that was registered at a proxy, on which this endpoint is to come.
    pub(super) fn in_backlog(experiments: Arc<Experiments>, endpoint: Endpoint) -> Self {
        Self::begin((experiments, true), endpoint, Harness::adopt)
    }

    fn between(experiments: Arc<Experiments>, endpoint: Endpoint) -> Self {
        Self::begin((experiments, true), endpoint, Harness::connect)
    }

    /// The shard has its connection, and no byte has been received.
    fn begin(
        (experiments, needs_permits): (Arc<Experiments>, bool),
        endpoint: Endpoint,
        come: fn(&mut Harness, &SharedEndpoint, SocketAddr),
    ) -> Self {
        let harness = Harness::new(Random(1), experiments, needs_permits, 1_000);
        harness.kernel.borrow_mut().is_calm = true;
        let start = harness.now();
        let mut pair = Self {
            endpoint,
            mlet: None,
            facts: None,
            is_deaf: false,
            has_permits: true,
            transcript: Vec::new(),
            over: None,
            ended: None,
            relayed: None,
            latency: None,
            account: None,
            place: None,
            harness,
            start,
            shared_endpoint: Rc::new(RefCell::new(Endpoint::new(None))),
            shared_mlet: None,
            mlet_socket: None,
            streams: Streams::default(),
            linfos_logged: 0,
            gone: Vec::new(),
            idle: 0,
            is_forced: false,
        };
        come(&mut pair.harness, &pair.shared_endpoint, PEER);
        let sent = std::mem::take(&mut pair.endpoint.sent);
        pair.run();
        pair.endpoint.sent = sent;
        pair
    }

    /// The mlet, which must run.
    pub(super) fn mlet(&mut self) -> &mut Mlet {
        self.mlet.as_mut().unwrap()
    }

    /// The session, which must not be over.
    pub(super) fn session(&self) -> &Session {
        &self.harness.shard.connections.iter().next().unwrap().1.session
    }

    /// Blocks that hold bytes of the session.
    pub(super) fn blocks_lent(&self) -> usize {
        self.harness.shard.pool.lent()
    }

    /// The most large blocks that it has held at the end of a turn.
    pub(super) fn large_blocks_most(&self) -> usize {
        self.harness.large_blocks_most
    }

    /// So many large blocks there may be from now on.
    pub(super) fn set_large_blocks_max(&mut self, max: usize) {
        self.harness.shard.large_blocks_max = max;
    }

    /// Large buffers that are kept from the driver.
    pub(super) fn kept_buffers(&self) -> usize {
        self.harness.shard.kept_buffers.len()
    }

    /// What the mlet writes next is taken in a large part.
    pub(super) fn takes_much_of_mlet(&self) -> bool {
        let (_, connection) = self.harness.shard.connections.iter().next().unwrap();
        connection.group(Direction::ToEndpoint) == BULK_GROUP
    }

    /// Turns that the shard has taken.
    pub(super) fn turns(&self) -> usize {
        self.harness.turns
    }

    /// Entries of the shard's timers.
    pub(super) fn timers(&self) -> usize {
        self.harness.shard.timers.len()
    }

    /// What the session has told of its set-up.
    pub(super) fn account(&self) -> &Account {
        &self.account.as_ref().unwrap().account
    }

    /// What was relayed of the session that is over.
    pub(super) fn relayed(&self) -> Relayed {
        self.relayed.unwrap()
    }

    /// How long the relay took in the session that is over.
    pub(super) fn latency(&self) -> BothWays<Option<Spread>> {
        self.latency.unwrap_or_default()
    }

    /// How long it took on the shard, as the log of the run tells it.
    pub(super) fn latency_of_shard(&self) -> Option<String> {
        self.harness.latency.summary().map(|summary| summary.to_string())
    }

    /// The transcript as text.
    pub(super) fn told(&self) -> String {
        self.transcript.join("\n")
    }

    /// Time since the connection was accepted.
    pub(super) fn elapsed(&self) -> Duration {
        self.harness.now() - self.start
    }

    /// From now on operations move so much.
    pub(super) fn set_chunks(&mut self, chunks: Chunks) {
        let mut kernel = self.harness.kernel.borrow_mut();
        match chunks {
            Chunks::Whole => kernel.part_len_max = usize::MAX,
            Chunks::UpTo(len) => kernel.part_len_max = len,
            Chunks::Random(random) => (kernel.is_calm, kernel.random) = (false, random),
        }
    }

    /// From now on no socket pair for a mlet can be made, or one can again.
    pub(super) fn set_lacks_descriptors(&mut self, lacks: bool) {
        self.harness.kernel.borrow_mut().lacks_descriptors = lacks;
    }

    /// Operations that the kernel has refused so far.
    pub(super) fn refusals(&self) -> usize {
        self.harness.kernel.borrow().refusals
    }

    /// The control thread takes no mail, and the queue is full.
    pub(super) fn fill_mail(&mut self) {
        self.is_deaf = true;
        let mut mailer = self.harness.shard.mailer.clone();
        while mailer.flush() {
            mailer.push(FromShard::PermitFreed(0));
        }
    }

    /// It is this time of day.
    pub(super) fn set_wall_clock(&mut self, wall: Ticks) {
        self.harness.kernel.borrow_mut().wall = wall;
    }

    /// Takes turns until nothing moves any more.
    pub(super) fn run(&mut self) {
        self.run_to(|_| false);
    }

    /// Takes a turn in which no time passes; false when nothing can move.
    pub(super) fn step(&mut self) -> bool {
        let now = self.harness.now();
        self.turn(Some(now))
    }

    /// Lets time pass; deadlines are kept as they come up.
    pub(super) fn pass(&mut self, period: Duration) {
        let until = self.harness.now() + period;
        self.run();
        while self.harness.now() < until {
            self.jump(Some(until));
        }
    }

    /// Runs to the session's end, jumping from deadline to deadline, and gives its outcome.
    pub(super) fn finish(&mut self) -> &Outcome {
        self.run();
        while self.over.is_none() {
            self.jump(None);
        }
        self.harness.check_nothing_is_left();
        self.over.as_ref().unwrap()
    }

    /// Takes turns until `done`, which they must reach.
    pub(super) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        assert!(self.run_to(done), "it stopped before:\n{}", self.told());
    }

    /// Takes turns until `done` or nothing moves any more, and tells whether it was the first.
    fn run_to(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        let (mut turns, mut vain) = (0, 0);
        // What a turn without a completion has told is answered in the next.
        while vain < 2 && !done(self) {
            vain = if self.step() { 0 } else { vain + 1 };
            turns += 1;
            assert!(turns < TURNS_MAX, "the session runs in circles:\n{}", self.told());
        }
        vain < 2
    }

    /// The permit that was withheld is granted.
    pub(super) fn grant_permit(&mut self) {
        self.tell(ToShard::Permit(self.place.unwrap()));
    }

    /// The permit that was withheld is refused.
    pub(super) fn refuse_permit(&mut self, why: Refusal) {
        self.tell(ToShard::Refused(self.place.unwrap(), why));
    }

    /// The same of a session of this number in its slot.
    pub(super) fn refuse_permit_of(&mut self, id: SessionId, why: Refusal) {
        let place = SessionPlace { id, ..self.place.unwrap() };
        self.tell(ToShard::Refused(place, why));
    }

    /// Permits that were given hold no more.
    pub(super) fn fence(&mut self) {
        self.is_forced = true;
        self.tell(ToShard::Fence);
    }

    /// The time of those that had them is over.
    pub(super) fn end_fenced(&mut self) {
        self.tell(ToShard::FenceOver);
    }

    /// Others are to get the endpoints that come to proxies.
    pub(super) fn leave_proxies(&mut self) {
        self.tell(ToShard::LeaveProxies);
    }

    /// The run ends.
    pub(super) fn drain(&mut self) {
        self.tell(ToShard::Drain);
    }

    /// The run is ended by force; mlets are about to be.
    pub(super) fn end_sessions(&mut self) {
        self.is_forced = true;
        self.tell(ToShard::EndSessions(Force::Stop));
    }

    /// The run is over, by force.
    pub(super) fn end_run(&mut self) {
        self.is_forced = true;
        self.tell(ToShard::RunOver(Force::Stop));
    }

    /// The mlet was not started in time.
    pub(super) fn give_up_mlet(&mut self) {
        self.is_forced = true;
        self.tell(ToShard::MletLate(self.place.unwrap()));
    }

    fn tell(&mut self, message: ToShard) {
        self.harness.to_shard.push(message);
    }

    /// Lets time pass to the next deadline, which must come before `horizon`, if there is none.
    fn jump(&mut self, horizon: Option<Instant>) {
        let before = self.harness.now();
        let has_deadline = self.turn(horizon);
        assert!(horizon.is_some() || has_deadline, "it never ends:\n{}", self.told());
        assert!(self.harness.now() > before, "a deadline passes once:\n{}", self.told());
        self.run();
    }

    /// The peers take what has come, and the shard takes a turn; false if nothing can move before `horizon`.
    fn turn(&mut self, horizon: Option<Instant>) -> bool {
        self.endpoint.take();
        if let Some(mlet) = &mut self.mlet {
            mlet.take();
        }
        self.take_notes();
        self.harness.kernel.borrow_mut().horizon = horizon;
        self.swap_peers();
        self.harness.turn();
        self.swap_peers();
        self.take_notes();
        self.control();
        self.check();
        !self.harness.kernel.borrow().is_idle
    }

    /// Hands the peers to the kernel, or takes them back.
    fn swap_peers(&mut self) {
        std::mem::swap(&mut self.endpoint, &mut self.shared_endpoint.borrow_mut());
        if let (Some(mlet), Some(shared)) = (&mut self.mlet, &self.shared_mlet) {
            std::mem::swap(mlet, &mut shared.borrow_mut());
        }
    }

    fn take_notes(&mut self) {
        if let Some(mlet) = &mut self.mlet {
            self.transcript.append(&mut mlet.notes);
        }
        self.transcript.append(&mut self.endpoint.notes);
        for line in self.harness.linfo_log.take() {
            self.linfos_logged += u64::from(line.text.starts_with("endpoint logs"));
            self.transcript.push(line.text);
        }
    }

    /// What the control thread does with what it is told.
    fn control(&mut self) {
        if self.is_deaf {
            return;
        }
        while let Some(message) = self.harness.from_shard.next() {
            match message {
                FromShard::BacklogTaken { .. } => self.transcript.push("left the backlog".into()),
                FromShard::PermitWanted(place, _) => {
                    self.transcript.push("permit wanted".into());
                    self.place = Some(place);
                    if self.has_permits {
                        self.grant_permit();
                    }
                }
                FromShard::PermitFreed(_) => self.transcript.push("permit freed".into()),
                FromShard::Served { session, .. } => self.account = Some(session),
                FromShard::StartMlet { ends, facts, .. } => {
                    self.transcript.push("mlet started".into());
                    self.facts = Some(facts);
                    self.start_mlet(ends);
                }
                FromShard::EndpointGone { reason, .. } => self.gone.push(reason),
                FromShard::IdleTimeout(_) => self.idle += 1,
                FromShard::Ended(ended) => self.end("over", *ended),
                FromShard::BacklogLost { ended, .. } => self.end("lost to the backlog", *ended),
                other => panic!("{other:?}"),
            }
        }
        for (_, ends) in self.harness.take_passed() {
            self.transcript.push("mlet asked for at the supervisor".into());
            self.start_mlet(ends);
        }
    }

    fn start_mlet(&mut self, ends: MletEnds) {
        let shared = self.harness.take_mlet(&ends);
        self.mlet = Some(shared.replace(Mlet::new()));
        (self.shared_mlet, self.mlet_socket) = (Some(shared), Some(ends.socket));
    }

    fn end(&mut self, how: &str, ended: Ended) {
        self.transcript.push(format!("{how}: {}", ended.outcome));
        self.ended = Some(ended.clone());
        if let Some(mlet) = &self.mlet {
            check_counts(&ended.relayed, &self.endpoint, mlet, self.linfos_logged);
        }
        let published = self.harness.shard.published.read();
        let Relayed { to_endpoint, from_endpoint, .. } = ended.relayed;
        for (number, relayed) in [
            (ShardNumber::BytesToEndpoint, to_endpoint.bytes),
            (ShardNumber::BytesFromEndpoint, from_endpoint.bytes),
            (ShardNumber::MessagesToEndpoint, to_endpoint.messages),
            (ShardNumber::MessagesFromEndpoint, from_endpoint.messages),
        ] {
            assert_eq!(published[number], relayed, "{number:?} is told before the end is");
        }
        self.account = Some(ended.facts);
        self.relayed = Some(ended.relayed);
        self.latency = ended.latency.and_then(|latency| latency.spread());
        let before = self.over.replace(ended.outcome);
        assert!(before.is_none(), "a session ends once:\n{}", self.told());
    }

    fn check(&mut self) {
        let Some(mlet) = &self.mlet else { return };
        self.streams.check(&self.endpoint, mlet);
        for (_, connection) in &self.harness.shard.connections {
            if !self.is_forced {
                check_flow(connection, &self.endpoint, mlet);
            }
        }
    }
}
