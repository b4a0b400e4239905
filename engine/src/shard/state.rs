//! What a shard has.
//!
//! Not here: what it does with it, which is in the files beside this one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::candidates::Candidates;
use super::connection::{AwaitedPair, Connection};
use super::listeners::Listeners;
use super::operations::{LARGE_BLOCKS_MAX, Token};
use super::pace::Pace;
use super::stages::Stages;
use super::timers::Timers;
use crate::driver::{Driver, Received};
use crate::guards::{Guard, holds};
use crate::mailbox::{Counts, FromShard, Inbox, Mailer, ToShard};
use crate::metrics::{ShardCounts, ShardNumbers, Stopwatch};
use crate::mlet_request::DirectRequests;
use crate::proto::account::RelayedByAll;
use crate::proto::experiments::Experiments;
use crate::proto::outbox::BlockPool;
use crate::proto::tee::Tees;
use crate::records::SessionId;
use packetlab::time::Ticks;

/// What a shard is made of.
pub(crate) struct Parts {
    /// Its number, from 0.
    pub(crate) number: usize,
    /// How many shards there are.
    pub(crate) count: usize,
    /// Sessions are numbered from the one behind this.
    pub(crate) sessions_before: u64,
    /// The CPU number of its core.
    pub(crate) core: usize,
    /// The experiments.
    pub(crate) experiments: Arc<Experiments>,
    /// Open sessions of all shards, and whether attempts are counted.
    pub(crate) counts: Arc<Counts>,
    /// Where its messages come from.
    pub(crate) inbox: Inbox<ToShard>,
    /// Where its messages go.
    pub(crate) mailer: Mailer<FromShard>,
    /// How it asks for mlets itself; `None` if the control thread is to do that.
    pub(crate) direct: Option<DirectRequests>,
    /// What times its receives; `None` if none is timed.
    pub(crate) stopwatch: Option<Stopwatch>,
    /// Where what it counts is read.
    pub(crate) published: Arc<ShardCounts>,
    /// How long it looks for completions before it sleeps.
    pub(crate) spin: Duration,
    /// Mlets are offered pipes.
    pub(crate) offers_pipes: bool,
    /// Where sessions are shown; `None` if none is.
    pub(crate) tees: Option<Tees>,
}

/// One core's share of the run.
pub(crate) struct Shard<D> {
    pub(super) number: usize,
    pub(super) count: usize,
    /// As its part of this name.
    pub(super) sessions_before: u64,
    pub(super) core: usize,
    pub(super) sessions_begun: u64,
    pub(crate) driver: D,
    pub(super) listeners: Listeners,
    pub(super) connections: Slab<Box<Connection>>,
    /// Set-ups that take work and memory: something has come, and START was not answered.
    pub(super) set_ups: usize,
    /// Connections in set-up that may be ended if others wait for what they hold.
    pub(super) candidates: Candidates,
    /// When the next of them may, while others wait.
    pub(super) room_due: Option<Instant>,
    /// Connections that were ended to make room and are not closed yet.
    pub(super) making_room: usize,
    /// How many connections in set-up come from each address; kept only when that is limited.
    pub(super) sources: HashMap<IpAddr, usize>,
    /// How many steps of handshakes a turn takes.
    pub(super) pace: Pace,
    /// Set-up receives left for a later turn.
    pub(super) set_up_backlog: VecDeque<(usize, io::Result<Received>)>,
    /// Sessions that found no receive buffer, by group; who finds no large one takes a small one.
    pub(super) awaiting_buffer: [VecDeque<(usize, SessionId)>; 2],
    /// Large receive buffers for which there are no blocks.
    pub(super) kept_buffers: Vec<Received>,
    /// Large blocks that its sessions may have.
    pub(super) large_blocks_max: usize,
    /// Sessions past START for whose mlet there was no socket pair yet, longest first.
    pub(super) awaiting_pair: VecDeque<AwaitedPair>,
    pub(super) timers: Timers,
    pub(super) pool: BlockPool,
    /// What its sessions have relayed.
    pub(super) relayed: RelayedByAll,
    /// How many connections in set-up are at each stage.
    pub(super) stages: Stages,
    /// What was told last, and what else it counts.
    pub(super) numbers: ShardNumbers,
    /// Something but what was relayed has changed since then.
    pub(super) has_news: bool,
    pub(super) published: Arc<ShardCounts>,
    pub(super) experiments: Arc<Experiments>,
    pub(super) counts: Arc<Counts>,
    pub(super) inbox: Inbox<ToShard>,
    pub(super) mailer: Mailer<FromShard>,
    pub(super) direct: Option<DirectRequests>,
    pub(super) stopwatch: Option<Stopwatch>,
    pub(super) spin: Duration,
    pub(super) offers_pipes: bool,
    pub(super) tees: Option<Tees>,
    pub(super) draining: bool,
    /// Sessions that were ended for lack of a permit, by their slots, until their time is over.
    pub(super) fenced: Vec<(usize, SessionId)>,
    pub(super) now: Instant,
    pub(super) wall: Ticks,
}

impl<D: Driver<Token>> Shard<D> {
    /// A shard on the calling thread's driver, with [`GROUPS`].
    pub(crate) fn new(parts: Parts, driver: D) -> Self {
        let (now, wall) = driver.clocks();
        Self {
            number: parts.number,
            count: parts.count,
            sessions_before: parts.sessions_before,
            core: parts.core,
            sessions_begun: 0,
            driver,
            listeners: Listeners::new(Vec::new()),
            connections: Slab::new(),
            set_ups: 0,
            candidates: Candidates::new(&parts.experiments.limits),
            room_due: None,
            making_room: 0,
            sources: HashMap::new(),
            pace: Pace::default(),
            set_up_backlog: VecDeque::new(),
            awaiting_buffer: Default::default(),
            kept_buffers: Vec::new(),
            large_blocks_max: LARGE_BLOCKS_MAX,
            awaiting_pair: VecDeque::new(),
            timers: Timers::default(),
            pool: BlockPool::default(),
            relayed: RelayedByAll::default(),
            stages: Stages::default(),
            numbers: ShardNumbers::default(),
            has_news: false,
            published: parts.published,
            experiments: parts.experiments,
            counts: parts.counts,
            inbox: parts.inbox,
            mailer: parts.mailer,
            direct: parts.direct,
            stopwatch: parts.stopwatch,
            spin: parts.spin,
            offers_pipes: parts.offers_pipes,
            tees: parts.tees,
            draining: false,
            fenced: Vec::new(),
            now,
            wall,
        }
    }
}

impl<D> Shard<D> {
    /// The session in `slot` is this one.
    pub(super) fn holds(&self, slot: usize, id: SessionId) -> bool {
        let connection = self.connections.get(slot);
        connection.is_some_and(|connection| connection.id == id) || !holds(Guard::KnowsSessions)
    }
}
