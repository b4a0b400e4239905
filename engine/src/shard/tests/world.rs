//! Endpoints, mlets and the control thread around one shard, all drawn from a seed.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{GROUPS, Parts, Shard, Token};
use super::faults::{FAULTS, Fault, strike_endpoint};
use super::peers::{Endpoint, Mlet};
use crate::config::ExperimentId;
use crate::driver::simulated::{Kernel, SharedRemote, Simulated};
use crate::mailbox::{
    BacklogConnection, Counts, FromShard, Inbox, Mailer, SessionPlace, ToShard, mailbox,
};
use crate::proto::experiments::Experiments;
use crate::proto::outcome::{End, Outcome};
use crate::proto::tests::credentials::{Login, NOW, TRUSTING, endpoint_tls};
use crate::proto::tests::{Random, filled};
use crate::records::SessionId;
use packetlab::message::MessageType;

/// Longer than all limits of a session together.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);

/// One endpoint and its session.
pub(super) struct Player {
    pub(super) endpoint: Rc<RefCell<Endpoint>>,
    peer: SocketAddr,
    /// The turn in which it connects, or is adopted with its connection to the proxy.
    comes_at: usize,
    is_adopted: bool,
    has_come: bool,
    pub(super) fault: Fault,
    strikes_at: usize,
    has_struck: bool,
    from_endpoint: Vec<u8>,
    pub(super) from_mlet: Vec<u8>,
    mlet_exits: bool,
    mlet_reads: bool,
    mlet_exits_at_eof: bool,
    endpoint_reads: bool,
    pub(super) has_begun: bool,
    pub(super) mlet: Option<Rc<RefCell<Mlet>>>,
    /// The mlet's end of its socket pair.
    socket: Option<OwnedFd>,
    /// How its session ended, once for each record of it.
    pub(super) outcomes: Vec<Outcome>,
    /// The endpoint's connection was broken by itself.
    pub(super) has_broken_off: bool,
}

/// How far the world has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Everybody does what was drawn.
    Play,
    /// Whoever has not done it yet does it, and mlets exit.
    Finish,
    /// The run ends.
    Drain,
    /// Mlets are about to be ended by force.
    Force,
}

type Mlets = Rc<RefCell<HashMap<RawFd, Rc<RefCell<Mlet>>>>>;

/// The shard and all that is around it.
pub(super) struct World {
    pub(super) shard: Shard<Simulated<Token>>,
    pub(super) kernel: Rc<RefCell<Kernel>>,
    pub(super) players: Vec<Player>,
    pub(super) act: Act,
    act_began: Instant,
    pub(super) turns: usize,
    /// Since which turn sessions have been over that are not closed.
    pub(super) over_since: HashMap<SessionId, usize>,
    /// Records of connections that waited at the proxy and were lost.
    pub(super) backlog_lost: usize,
    pub(super) permits_given: usize,
    drains_at: Option<usize>,
    /// The shard has been told that the run ends; the control thread adopts nothing any more.
    is_ending: bool,
    listener: RawFd,
    mlets: Mlets,
    to_shard: Mailer<ToShard>,
    from_shard: Inbox<FromShard>,
    counts: Arc<Counts>,
    random: Random,
}

impl Player {
    fn draw(random: &mut Random, number: usize, is_storm: bool) -> Self {
        let len_max = if is_storm { 2_000 } else { 30_000 };
        let spread = if is_storm { 3 } else { 40 };
        let snikey = if random.below(20) == 0 { "nobody-has-this" } else { TRUSTING };
        let login = if random.below(20) == 0 { Login::Stranger } else { Login::Operator };
        let mut endpoint = Endpoint::new(Some(endpoint_tls(login, Some(snikey))));
        endpoint.is_silent = random.below(16) == 0;
        Self {
            endpoint: Rc::new(RefCell::new(endpoint)),
            peer: (Ipv4Addr::from_bits(0x0a00_0000 + number as u32), 1).into(),
            comes_at: random.below(spread),
            is_adopted: random.below(5) == 0,
            has_come: false,
            fault: FAULTS[random.below(FAULTS.len())],
            strikes_at: random.size(400),
            has_struck: false,
            from_endpoint: stream(random, len_max),
            from_mlet: stream(random, len_max),
            mlet_exits: random.below(3) == 0,
            mlet_reads: random.below(4) != 0,
            mlet_exits_at_eof: random.below(3) != 0,
            endpoint_reads: random.below(6) != 0,
            has_begun: false,
            mlet: None,
            socket: None,
            outcomes: Vec::new(),
            has_broken_off: false,
        }
    }

    /// Looks at what has come, begins when its mlet is there, and lets its fault happen in its turn.
    fn play(&mut self, turn: usize) {
        self.endpoint.borrow_mut().take();
        if let Some(mlet) = &self.mlet {
            let mut mlet = mlet.borrow_mut();
            mlet.take();
            if !self.has_begun {
                self.has_begun = true;
                (mlet.reads, mlet.exits_at_eof) = (self.mlet_reads, self.mlet_exits_at_eof);
                if mlet.has_ended {
                    self.from_mlet.clear();
                }
                mlet.write(&self.from_mlet);
                if self.mlet_exits {
                    mlet.exit();
                }
                let mut endpoint = self.endpoint.borrow_mut();
                if endpoint.end.is_none() && !endpoint.close_notify {
                    endpoint.write(&self.from_endpoint);
                }
                endpoint.reads = self.endpoint_reads;
            }
        }
        if turn >= self.strikes_at && self.has_come {
            self.strike();
        }
    }

    fn strike(&mut self) {
        if std::mem::replace(&mut self.has_struck, true) {
            return;
        }
        let mut endpoint = self.endpoint.borrow_mut();
        let has_tls = endpoint.tls.as_ref().is_some_and(|tls| !tls.is_handshaking());
        let speaks =
            matches!(self.fault, Fault::HugeLength | Fault::WrongType | Fault::ErrorResult);
        if endpoint.end.is_some() || speaks && (!has_tls || endpoint.close_notify) {
            return;
        }
        strike_endpoint(&mut endpoint, self.fault);
        self.has_broken_off |= matches!(endpoint.end, Some(End::Broken(_)));
        if let (Fault::MletDies, Some(mlet)) = (self.fault, &self.mlet) {
            mlet.borrow_mut().exit();
        }
    }

    fn finish(&mut self) {
        self.strike();
        if let Some(mlet) = &self.mlet {
            mlet.borrow_mut().exit();
        }
    }
}

/// Up to 20 messages of any type; some streams end inside the last.
fn stream(random: &mut Random, len_max: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..random.below(21) {
        let len = random.size(len_max) - 1;
        stream.extend(filled(MessageType(random.next() as u8), len));
    }
    if random.below(8) == 0 {
        stream.truncate(random.below(stream.len() + 1));
    }
    stream
}

impl World {
    /// The world of a seed. Storms of 200 sessions come once in a hundred.
    pub(super) fn new(seed: u64, experiment_sets: &[Arc<Experiments>]) -> Self {
        let mut random = Random(seed);
        let is_storm = random.below(100) == 0;
        let count = if is_storm { 200 } else { random.size(4) };
        let players: Vec<_> =
            (0..count).map(|number| Player::draw(&mut random, number, is_storm)).collect();
        let mlets = Mlets::default();
        let pair_with = {
            let mlets = Rc::clone(&mlets);
            Box::new(move |number| -> SharedRemote {
                let mlet = Rc::new(RefCell::new(Mlet::new()));
                mlets.borrow_mut().insert(number, Rc::clone(&mlet));
                mlet
            })
        };
        #[expect(clippy::disallowed_methods, reason = "an Instant comes from nowhere else")]
        let now = Instant::now();
        let kernel = Kernel::new(Random(random.next()), now, NOW, pair_with);
        kernel.borrow_mut().is_calm = random.below(10) == 0;
        let (to_shard, inbox) = mailbox().unwrap();
        let (mailer, from_shard) = mailbox().unwrap();
        let attempts = (random.below(2) == 0).then(|| 1_000_u64.try_into().unwrap());
        let sessions_max = if random.below(4) == 0 { 2 } else { 1_000 };
        let counts = Arc::new(Counts::new(attempts, sessions_max));
        let parts = Parts {
            number: 0,
            count: 1,
            core: 0,
            experiments: Arc::clone(&experiment_sets[random.below(experiment_sets.len())]),
            counts: Arc::clone(&counts),
            inbox,
            mailer,
        };
        let mut shard = Shard::new(parts, Simulated::new(Rc::clone(&kernel), &GROUPS));
        let listener = kernel.borrow_mut().listener();
        let number = listener.as_raw_fd();
        shard.begin(vec![listener]);
        let drains_at = (random.below(5) == 0).then(|| random.size(600));
        Self {
            shard,
            kernel,
            players,
            act: Act::Play,
            act_began: now,
            turns: 0,
            over_since: HashMap::new(),
            backlog_lost: 0,
            permits_given: 0,
            drains_at,
            is_ending: false,
            listener: number,
            mlets,
            to_shard,
            from_shard,
            counts,
            random,
        }
    }

    /// Everybody around the shard does something, then the shard takes a turn.
    pub(super) fn turn(&mut self) {
        self.turns += 1;
        for index in 0..self.players.len() {
            if !self.players[index].has_come && self.players[index].comes_at <= self.turns {
                self.let_in(index);
            }
            self.players[index].play(self.turns);
            if self.act != Act::Play {
                self.players[index].finish();
            }
        }
        self.wake_for_those_given_up();
        // The control thread may be busy.
        if self.random.below(2) == 0 || self.act != Act::Play {
            self.control();
        }
        if self.drains_at == Some(self.turns) {
            self.drain();
        }
        self.to_shard.flush();
        self.shard.turn().unwrap();
        let now = self.kernel.borrow().now;
        if self.kernel.borrow().is_idle || now > self.act_began + PATIENCE {
            self.go_on();
        }
    }

    /// Some endpoints read at the very moment at which their sessions are given up.
    fn wake_for_those_given_up(&mut self) {
        for (_, connection) in &self.shard.connections {
            if connection.over.is_some() && self.random.below(2) == 0 {
                let is_it = |player: &&Player| player.peer == connection.peer;
                if let Some(player) = self.players.iter().find(is_it) {
                    player.endpoint.borrow_mut().reads = true;
                }
            }
        }
    }

    fn drain(&mut self) {
        self.is_ending = true;
        self.to_shard.push(ToShard::Drain);
    }

    fn let_in(&mut self, index: usize) {
        let player = &mut self.players[index];
        player.has_come = true;
        let remote: SharedRemote = Rc::<RefCell<Endpoint>>::clone(&player.endpoint);
        if !player.is_adopted {
            self.kernel.borrow_mut().connect(self.listener, remote, player.peer);
        } else if !self.is_ending && self.counts.open_session() {
            let socket = self.kernel.borrow_mut().connection(remote, player.peer);
            let received = Vec::new();
            let (peer, experiment) = (player.peer, ExperimentId::nth(0));
            let connection = BacklogConnection { socket, peer, experiment, received };
            self.to_shard.push(ToShard::Adopt(connection));
        }
    }

    /// What the control thread does with what it is told.
    fn control(&mut self) {
        while let Some(message) = self.from_shard.next() {
            match message {
                FromShard::PermitWanted(place, _) if self.random.below(10) != 0 => {
                    self.permits_given += 1;
                    self.to_shard.push(ToShard::Permit(place));
                }
                FromShard::StartMlet { place, socket, facts, .. } => {
                    self.start_mlet(place, socket, facts.peer);
                }
                FromShard::Ended(ended) => {
                    let player =
                        self.players.iter_mut().find(|player| player.peer == ended.facts.peer);
                    player.unwrap().outcomes.push(ended.outcome);
                }
                FromShard::BacklogLost { .. } => self.backlog_lost += 1,
                _ => {}
            }
        }
    }

    fn start_mlet(&mut self, place: SessionPlace, socket: OwnedFd, peer: IpAddr) {
        let mlet = self.mlets.borrow_mut().remove(&socket.as_raw_fd()).unwrap();
        let player = self.players.iter_mut().find(|player| player.peer.ip() == peer).unwrap();
        match self.random.below(20) {
            // It could not be started.
            0 => mlet.borrow_mut().exit(),
            // It was not started in time; a place that is gone names nobody.
            1 => {
                self.to_shard.push(ToShard::MletLate(place));
                self.to_shard.push(ToShard::Permit(SessionPlace { slot: place.slot + 1, ..place }));
                player.socket = Some(socket);
            }
            _ => player.socket = Some(socket),
        }
        player.mlet = Some(mlet);
    }

    /// Nothing moves any more, or only timers do.
    fn go_on(&mut self) {
        self.act_began = self.kernel.borrow().now;
        self.act = match self.act {
            Act::Play => {
                for index in 0..self.players.len() {
                    if !self.players[index].has_come {
                        self.let_in(index);
                    }
                }
                Act::Finish
            }
            Act::Finish => {
                self.drain();
                if self.random.below(4) == 0 {
                    self.to_shard.push(ToShard::EndSessions);
                    if self.random.below(2) == 0 {
                        self.to_shard.push(ToShard::RunOver);
                    }
                    Act::Force
                } else {
                    Act::Drain
                }
            }
            Act::Drain | Act::Force => panic!("never ends: {}", self.standing()),
        };
    }

    /// Nobody has anything to say to the shard, and nothing completed in its last turn.
    pub(super) fn is_quiet(&self) -> bool {
        self.shard.driver.completed_last() == 0
    }

    /// What the shard waits for, for whoever looks for the reason.
    pub(super) fn standing(&self) -> String {
        let shard = &self.shard;
        format!(
            "{:?}, {} sessions, {} await a pair, {:?} a buffer, {} a place, {} a descriptor, {} in set-up, due in {:?}",
            self.act,
            shard.connections.len(),
            shard.awaiting_pair.len(),
            shard.awaiting_buffer.each_ref().map(VecDeque::len),
            shard.listeners.waiting_for_place(),
            shard.listeners.waiting_for_descriptor(),
            shard.set_ups,
            shard.timers.next_due().map(|due| due.saturating_duration_since(shard.now)),
        )
    }

    /// The shard has ended.
    pub(super) fn is_over(&self) -> bool {
        self.shard.is_done()
    }

    /// Takes what the shard has told last.
    pub(super) fn take_last_words(&mut self) {
        while !self.shard.mailer.flush() {
            self.control();
        }
        self.control();
    }
}
