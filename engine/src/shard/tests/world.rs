//! Endpoints, mlets and the control thread around one shard, all drawn from a seed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::drawn_endpoint::Player;
use super::harness::Harness;
use super::outcomes::Circumstances;
use crate::mailbox::{FromShard, SessionPlace, ToShard};
use crate::permits::Refusal;
use crate::proto::experiments::Experiments;
use crate::proto::session_end::Force;
use crate::random::Random;
use crate::records::SessionId;
use crate::sys::mlet_ends::MletEnds;

/// Longer than all limits of a session together.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);

/// In how many turns in a row nothing moves before those around the shard go on. Some sessions look at their sockets each
/// few milliseconds for as long as somebody takes nothing.
const STANDSTILL_TURNS_MAX: usize = 300;

/// So many turns sessions have that lost their permits.
const TURNS_OF_A_FENCE: usize = 10;

/// So few large blocks that with one of them lent there are not enough for all large buffers.
const LEAST_LARGE_BLOCKS: usize = 16;

/// How long the control thread may be busy with something else.
const BUSY: Duration = Duration::from_millis(1);

/// How far the world has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Everybody does what was drawn.
    Play,
    /// Whoever has not come yet comes, and faults that have not struck yet do.
    Strike,
    /// Mlets exit.
    Finish,
    /// The run ends.
    Drain,
    /// Mlets are about to be ended by force.
    Force,
}

/// The shard and all that is around it.
pub(super) struct World {
    pub(super) harness: Harness,
    pub(super) players: Vec<Player>,
    pub(super) act: Act,
    act_began: Instant,
    /// Turns in a row in which nothing has completed.
    vain_turns: usize,
    /// Records of connections that waited at the proxy and were lost.
    backlog_lost: usize,
    pub(super) permits_given: usize,
    /// Sessions that have asked for a permit, and neither have used it nor given it back.
    permits_wanted: HashSet<SessionId>,
    /// Those that were refused one, before which they may have left.
    permits_refused: HashSet<SessionId>,
    /// Sessions past START whose mlet has not been asked for.
    served: HashMap<SessionId, (SessionPlace, IpAddr)>,
    /// How often the supervisor was asked for a mlet, and how often the control thread without need.
    pub(super) asked: (usize, usize),
    /// Sessions in which nothing was relayed for too long.
    idle: HashSet<SessionId>,
    needs_permits: bool,
    /// LINFOs that were logged, by session.
    linfos_logged: HashMap<SessionId, u64>,
    drains_at: Option<usize>,
    /// In which turn permits that were given hold no more.
    fences_at: Option<usize>,
    /// The shard has been told that the run ends; the control thread adopts nothing any more.
    is_ending: bool,
    circumstances: Circumstances,
    random: Random,
}

impl World {
    /// The world of a seed. Storms of 200 sessions come once in a hundred.
    pub(super) fn new(seed: u64, experiment_sets: &[Arc<Experiments>]) -> Self {
        let mut random = Random(seed);
        let is_storm = random.below(100) == 0;
        let count = if is_storm { 200 } else { random.size(4) };
        let needs_permits = random.below(2) == 0;
        let sessions_max = if random.below(4) == 0 { 2 } else { 1_000 };
        let experiments = Arc::clone(&experiment_sets[random.below(experiment_sets.len())]);
        let limits = experiments.limits.clone();
        let of_kernel = Random(random.next());
        let mut harness = Harness::new(of_kernel, experiments, needs_permits, sessions_max);
        if random.below(2) == 0 {
            harness.shard.large_blocks_max = LEAST_LARGE_BLOCKS;
        }
        harness.kernel.borrow_mut().is_calm = random.below(10) == 0;
        if random.below(3) == 0 {
            harness.offer_pipes();
        }
        let now = harness.now();
        let draw = |number| Player::draw(&mut random, number, is_storm, now);
        let players = (0..count).map(draw).collect();
        let drains_at = (random.below(5) == 0).then(|| random.size(600));
        let fences_at = (random.below(10) == 0).then(|| random.size(600));
        Self {
            harness,
            players,
            act: Act::Play,
            act_began: now,
            vain_turns: 0,
            backlog_lost: 0,
            permits_given: 0,
            permits_wanted: HashSet::new(),
            permits_refused: HashSet::new(),
            served: HashMap::new(),
            asked: (0, 0),
            idle: HashSet::new(),
            needs_permits,
            linfos_logged: HashMap::new(),
            drains_at,
            fences_at,
            is_ending: false,
            circumstances: Circumstances {
                is_crowded: sessions_max == 2 || limits.handshakes_max == 2,
                drained_early: false,
                is_forced: false,
                has_patience: !limits.linger_timeout.is_zero(),
                idle_timeout: limits.idle_timeout,
            },
            random,
        }
    }

    /// Everybody around the shard does something, then the shard takes a turn.
    pub(super) fn turn(&mut self) {
        let turn = self.harness.turns + 1;
        for index in 0..self.players.len() {
            if !self.players[index].has_come && self.players[index].comes_at <= turn {
                self.let_in(index);
            }
            self.players[index].play(turn);
            match self.act {
                Act::Play => {}
                Act::Strike => self.players[index].strike(),
                Act::Finish | Act::Drain | Act::Force => self.players[index].finish(),
            }
        }
        let now = self.harness.now();
        let mut horizon = self.players.iter_mut().filter_map(|player| player.go_on(now)).min();
        self.wake_for_those_given_up();
        if self.random.below(2) == 0 || self.act != Act::Play {
            self.control();
        } else {
            horizon = Some(now + BUSY);
        }
        self.harness.kernel.borrow_mut().horizon = horizon;
        if self.drains_at == Some(turn) {
            self.circumstances.drained_early |= !self.is_ending;
            self.drain();
            if self.random.below(3) == 0 {
                self.force();
            }
        }
        if self.fences_at == Some(turn) {
            self.circumstances.is_forced = true;
            self.harness.to_shard.push(ToShard::Fence);
            self.harness.to_shard.push(ToShard::LeaveProxies);
        }
        if self.fences_at.is_some_and(|fences_at| fences_at + TURNS_OF_A_FENCE == turn) {
            self.harness.to_shard.push(ToShard::FenceOver);
        }
        self.harness.turn();
        self.check();
        let now = self.harness.now();
        let kernel = self.harness.kernel.borrow();
        let is_idle = kernel.is_idle && kernel.horizon.is_none();
        drop(kernel);
        self.vain_turns = if self.is_quiet() { self.vain_turns + 1 } else { 0 };
        let stands_still = self.vain_turns > STANDSTILL_TURNS_MAX && !self.is_ending;
        if is_idle || stands_still || now > self.act_began + PATIENCE {
            self.go_on(is_idle);
        }
    }

    /// Some endpoints read at the very moment at which their sessions are given up.
    fn wake_for_those_given_up(&mut self) {
        for (_, connection) in &self.harness.shard.connections {
            if connection.over.is_some() && self.random.below(2) == 0 {
                let player = &self.players[Player::number(connection.peer)];
                player.endpoint.borrow_mut().reads = true;
            }
        }
    }

    fn drain(&mut self) {
        self.is_ending = true;
        self.harness.to_shard.push(ToShard::Drain);
    }

    /// The run is ended by force.
    fn force(&mut self) {
        (self.act, self.act_began) = (Act::Force, self.harness.now());
        self.circumstances.is_forced = true;
        self.harness.to_shard.push(ToShard::EndSessions(Force::Stop));
        if self.random.below(2) == 0 {
            self.harness.to_shard.push(ToShard::RunOver(Force::Deadline));
        }
    }

    fn let_in(&mut self, index: usize) {
        let player = &mut self.players[index];
        player.has_come = true;
        if !player.is_adopted {
            self.harness.connect(&player.endpoint, player.peer);
        } else if !self.is_ending {
            self.harness.adopt(&player.endpoint, player.peer);
        }
    }

    /// What the control thread does with what it is told.
    fn control(&mut self) {
        for line in self.harness.linfo_log.take() {
            let is_linfo = line.text.starts_with("endpoint logs");
            *self.linfos_logged.entry(line.session).or_default() += u64::from(is_linfo);
        }
        while let Some(message) = self.harness.from_shard.next() {
            match message {
                FromShard::PermitWanted(place, _) => self.give_permit(place),
                FromShard::PermitFreed(id) => {
                    let had_left = self.permits_refused.remove(&id);
                    let gave_back = self.permits_wanted.remove(&id) || had_left;
                    assert!(gave_back, "a permit is given back twice");
                }
                FromShard::Served { place, session } => {
                    let has_permit = self.permits_wanted.remove(&place.id);
                    assert_eq!(has_permit, self.needs_permits, "a mlet without a permit");
                    self.served.insert(place.id, (place, session.peer.ip()));
                }
                FromShard::StartMlet { id, ends, .. } => {
                    self.asked.1 += usize::from(!self.needs_permits);
                    self.start_mlet(id, ends);
                }
                FromShard::IdleTimeout(id) => {
                    assert!(self.idle.insert(id), "a session is idle twice");
                }
                FromShard::Ended(ended) => {
                    let player = &mut self.players[Player::number(ended.facts.peer)];
                    player.ended.push(*ended);
                }
                FromShard::BacklogLost { .. } => self.backlog_lost += 1,
                _ => {}
            }
        }
        for (id, ends) in self.harness.take_passed() {
            self.asked.0 += 1;
            self.start_mlet(id, ends);
        }
    }

    fn give_permit(&mut self, place: SessionPlace) {
        assert!(self.permits_wanted.insert(place.id), "a permit is asked for twice");
        let drawn = self.random.below(10);
        if drawn > 1 {
            self.permits_given += 1;
            return self.harness.to_shard.push(ToShard::Permit(place));
        }
        if drawn == 1 {
            self.permits_wanted.remove(&place.id);
            self.permits_refused.insert(place.id);
            self.harness.to_shard.push(ToShard::Refused(place, Refusal::Done));
        }
        if let Some(connection) = self.harness.shard.connections.get(place.slot)
            && connection.id == place.id
        {
            let player = &mut self.players[Player::number(connection.peer)];
            (player.has_no_permit, player.is_refused) = (drawn == 0, drawn == 1);
        }
    }

    fn start_mlet(&mut self, id: SessionId, ends: MletEnds) {
        let served = self.served.remove(&id);
        let (place, peer) =
            served.expect("a session is told of before its mlet is asked for, once");
        let mlet = self.harness.take_mlet(&ends);
        mlet.borrow_mut().knows_pipes = self.random.below(3) != 0;
        let player = &mut self.players[Player::number((peer, 1).into())];
        match self.random.below(20) {
            // It could not be started.
            0 => mlet.borrow_mut().exit(),
            // It was not started in time; a place that is gone names nobody.
            1 => {
                player.is_given_up = true;
                let nobody = SessionPlace { slot: place.slot + 1, ..place };
                self.harness.to_shard.push(ToShard::MletLate(place));
                self.harness.to_shard.push(ToShard::Permit(nobody));
                player.socket = Some(ends.socket);
            }
            _ => player.socket = Some(ends.socket),
        }
        player.mlet = Some(mlet);
    }

    /// Nothing moves any more, or only timers do.
    fn go_on(&mut self, is_idle: bool) {
        (self.act_began, self.vain_turns) = (self.harness.now(), 0);
        match self.act {
            Act::Play => {
                for index in 0..self.players.len() {
                    if !self.players[index].has_come {
                        self.let_in(index);
                    }
                }
                self.act = Act::Strike;
            }
            Act::Strike => self.act = Act::Finish,
            Act::Finish => {
                self.circumstances.drained_early |= !is_idle;
                self.drain();
                if self.random.below(4) == 0 {
                    self.force();
                } else {
                    self.act = Act::Drain;
                }
            }
            Act::Drain | Act::Force => panic!("never ends: {}", self.standing()),
        }
    }

    /// Nothing completed in the shard's last turn, and no step of a set-up waits for the next, of which each takes a few.
    pub(super) fn is_quiet(&self) -> bool {
        let shard = &self.harness.shard;
        shard.driver.completed_last() == 0 && shard.set_up_backlog.is_empty()
    }

    /// What the shard waits for, for whoever looks for the reason.
    pub(super) fn standing(&self) -> String {
        let shard = &self.harness.shard;
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
        self.harness.shard.is_done()
    }

    fn check(&mut self) {
        let now = self.harness.now();
        for (_, connection) in &self.harness.shard.connections {
            let player = &mut self.players[Player::number(connection.peer)];
            player.check(connection, now, self.circumstances);
        }
    }

    /// Nothing is left, and each session has one record, which tells what became of it.
    pub(super) fn check_end(&mut self) {
        while !self.harness.shard.mailer.flush() {
            self.control();
        }
        self.control();
        self.harness.check();
        self.harness.check_nothing_is_left();
        let records: usize = self.players.iter().map(|player| player.ended.len()).sum();
        let sessions = self.harness.shard.sessions_begun as usize;
        assert_eq!(records + self.backlog_lost, sessions, "a record for each session");
        assert!(self.permits_wanted.is_empty(), "a permit is neither used nor given back");
        assert!(self.served.is_empty(), "a mlet is not asked for");
        for player in &mut self.players {
            player.check_end(self.circumstances, &self.linfos_logged, &self.idle);
        }
    }
}
