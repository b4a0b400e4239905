//! One core's share of the run: its listening sockets and sessions on one driver, in one thread.
//!
//! A turn takes every completion there is, moves the sessions they belong to, starts what those want,
//! and enters the kernel once. Relayed sessions come before handshakes, of which a turn takes only a
//! few, so that a flood of new endpoints does not hold up the running ones.
//!
//! Invariant: a socket is closed only when no operation on it is under way.

mod admission;
mod apply;
mod candidates;
mod connection;
mod grant;
mod listeners;
mod mail;
mod pace;
mod start;
#[cfg(test)]
mod tests;
mod timers;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use self::candidates::Candidates;
use self::connection::{Connection, Permit, UnderWay};
use self::listeners::Listeners;
pub(crate) use self::listeners::accepts_at_once;
use self::pace::Pace;
use self::start::AwaitedPair;
use self::timers::Timers;
use crate::config::ExperimentId;
use crate::driver::{Completion, Driver, Event, GroupSize, Received};
use crate::guards::{Guard, holds};
use crate::mailbox::{Counts, FromShard, Inbox, Mailer, ToShard};
use crate::proto::experiments::Experiments;
use crate::proto::outbox::{BlockPool, RECEIVE_LEN};
use crate::proto::outcome::End;
use crate::proto::session::{Context, Session, SetUpStage};
use crate::records::{SessionId, ShardTotals, Via};
use packetlab::time::Ticks;

/// Receive buffers of relayed sessions: 1 MiB.
const RELAY_GROUP: u16 = 0;
/// Receive buffers of sessions in set-up, apart so that many handshakes at once do not take those of relays.
const SET_UP_GROUP: u16 = 1;
pub(crate) const GROUPS: [GroupSize; 2] =
    [GroupSize { count: 32, len: RECEIVE_LEN as u32 }, GroupSize { count: 64, len: 4096 }];

/// How soon a turn follows while something waits for the control thread: messages for room in its queue, mlets
/// for the descriptors it passes on.
const RETRY: Duration = Duration::from_millis(1);

/// What an operation was started for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token {
    Accept(usize),
    CancelAccept(usize),
    EndpointReceive(usize),
    EndpointSend(usize),
    MletReceive(usize),
    MletSend(usize),
    Cancel(usize),
    Mail,
}

/// What a shard is made of.
pub(crate) struct Parts {
    /// Its number, from 0.
    pub(crate) number: usize,
    /// How many shards there are.
    pub(crate) count: usize,
    /// The CPU number of its core.
    pub(crate) core: usize,
    /// The experiments.
    pub(crate) experiments: Arc<Experiments>,
    /// Attempts and open sessions of all shards.
    pub(crate) counts: Arc<Counts>,
    /// Where its messages come from.
    pub(crate) inbox: Inbox<ToShard>,
    /// Where its messages go.
    pub(crate) mailer: Mailer<FromShard>,
}

/// One core's share of the run.
pub(crate) struct Shard<D> {
    number: usize,
    count: usize,
    core: usize,
    sessions_begun: u64,
    driver: D,
    listeners: Listeners,
    connections: Slab<Box<Connection>>,
    /// Set-ups that take work and memory: something has come, and START was not answered.
    set_ups: usize,
    /// Connections in set-up that may be ended if others wait for what they hold.
    candidates: Candidates,
    /// When the next of them may, while others wait.
    room_due: Option<Instant>,
    /// Connections that were ended to make room and are not closed yet.
    making_room: usize,
    /// How many connections in set-up come from each address; kept only when that is limited.
    sources: HashMap<IpAddr, usize>,
    /// How many steps of handshakes a turn takes.
    pace: Pace,
    /// Set-up receives left for a later turn.
    set_up_backlog: VecDeque<(usize, io::Result<Received>)>,
    /// Sessions that found no receive buffer, by group.
    awaiting_buffer: [VecDeque<(usize, SessionId)>; 2],
    /// Sessions past START for whose mlet there was no socket pair yet, longest first.
    awaiting_pair: VecDeque<AwaitedPair>,
    timers: Timers,
    pool: BlockPool,
    experiments: Arc<Experiments>,
    counts: Arc<Counts>,
    inbox: Inbox<ToShard>,
    mailer: Mailer<FromShard>,
    draining: bool,
    now: Instant,
    wall: Ticks,
}

impl<D: Driver<Token>> Shard<D> {
    /// A shard on the calling thread's driver, with [`GROUPS`].
    pub(crate) fn new(parts: Parts, driver: D) -> Self {
        let (now, wall) = driver.clocks();
        Self {
            number: parts.number,
            count: parts.count,
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
            awaiting_pair: VecDeque::new(),
            timers: Timers::default(),
            pool: BlockPool::default(),
            experiments: parts.experiments,
            counts: parts.counts,
            inbox: parts.inbox,
            mailer: parts.mailer,
            draining: false,
            now,
            wall,
        }
    }

    /// Serves those who come to its own `listeners`, until it has been drained.
    ///
    /// # Errors
    /// The driver broke down; the sessions of this shard are lost.
    pub(crate) fn run(mut self, listeners: Vec<TcpListener>) -> io::Result<ShardTotals> {
        self.begin(listeners);
        while !self.is_done() {
            self.turn()?;
        }
        debug_assert_eq!(self.pool.lent(), 0, "the sessions are gone, so their blocks are back");
        // The ends of the last sessions, of which the queue may not have room for all at once.
        while !self.mailer.flush() {
            std::thread::yield_now();
        }
        Ok(ShardTotals {
            number: self.number,
            core: self.core,
            enters: self.driver.enters(),
            sessions: self.sessions_begun,
        })
    }

    fn begin(&mut self, listeners: Vec<TcpListener>) {
        for listener in &listeners {
            self.driver.prepare(listener.as_fd());
        }
        self.listeners = Listeners::new(listeners);
        self.driver.watch(self.inbox.as_fd(), Token::Mail);
    }

    fn turn(&mut self) -> io::Result<()> {
        self.admit();
        self.start_waiting_mlets();
        let mail_is_out = self.mailer.flush();
        self.driver.wait(self.patience(mail_is_out))?;
        (self.now, self.wall) = self.driver.clocks();
        self.take_completions();
        self.take_set_up_steps();
        self.take_due_timers();
        self.wake_for_buffers();
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.draining && self.connections.is_empty() && self.listeners.are_closed()
    }

    /// How long the turn may wait for a completion.
    fn patience(&self, mail_is_out: bool) -> Option<Duration> {
        let due = [self.timers.next_due(), self.listeners.paused_until(), self.room_due];
        let due = due.into_iter().flatten().min();
        let until_due = due.map(|due| due.saturating_duration_since(self.now));
        // All buffers are back, so that whoever still waits for one can be helped at once.
        let has_work = !self.set_up_backlog.is_empty()
            || self.listeners.waiting_for_place() > 0 && self.has_room_for_set_up()
            || self.awaiting_buffer.iter().any(|waiting| !waiting.is_empty());
        match (has_work, !mail_is_out || !self.awaiting_pair.is_empty()) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => Some(until_due.map_or(RETRY, |until| until.min(RETRY))),
            (false, false) => until_due,
        }
    }

    fn take_completions(&mut self) {
        // No more than there are now: what these start may complete at once, and a turn must end.
        let due = self.driver.completions();
        let due = if holds(Guard::TurnEnds) { due } else { usize::MAX };
        for _ in 0..due {
            let Some(Completion { token, event }) = self.driver.next_completion() else { return };
            match (token, event) {
                (Token::Accept(listener), Event::Accepted(accepted)) => {
                    self.take_accepted(listener, accepted);
                }
                (Token::EndpointReceive(slot), Event::Received(received)) => {
                    let connection = &mut *self.connections[slot];
                    if connection.in_set_up && connection.over.is_none() {
                        connection.has_come = true;
                        self.note_candidate(slot);
                        self.set_up_backlog.push_back((slot, received));
                    } else {
                        if connection.over.is_none() {
                            self.pace.note_relayed(self.now);
                        }
                        self.take_endpoint_bytes(slot, received);
                    }
                }
                (Token::EndpointSend(slot), Event::Sent(block, sent)) => {
                    let under_way = self.end_send(slot);
                    (under_way.endpoint_send, under_way.mlet_receive_linked) = (false, false);
                    self.move_session(slot, |session, cx| {
                        session.handle_sent_to_endpoint(block, as_sent(sent), cx);
                    });
                }
                (Token::MletReceive(slot), Event::Received(received)) => {
                    self.pace.note_relayed(self.now);
                    self.take_mlet_bytes(slot, received);
                }
                (Token::MletSend(slot), Event::Sent(block, sent)) => {
                    self.end_send(slot).mlet_send = false;
                    self.move_session(slot, |session, cx| {
                        session.handle_sent_to_mlet(block, as_sent(sent), cx);
                    });
                }
                (Token::Cancel(slot), _) => {
                    self.connections[slot].under_way.cancels -= 1;
                    self.apply(slot);
                }
                (Token::Mail, _) => self.take_mail(),
                (Token::CancelAccept(listener), _) => self.take_accepts_cancelled(listener),
                (token, event) => unreachable!("{token:?} completed with {event:?}"),
            }
        }
    }

    /// What is under way in `slot`, where a send has completed. The receive linked to it may have begun
    /// after a cancellation that did not see it, which must be repeated then.
    fn end_send(&mut self, slot: usize) -> &mut UnderWay {
        let connection = &mut *self.connections[slot];
        connection.cancelled = false;
        &mut connection.under_way
    }

    fn take_set_up_steps(&mut self) {
        let mut steps = 0;
        while steps < self.pace.steps(self.now) {
            let Some((slot, received)) = self.set_up_backlog.pop_front() else { return };
            // A session that is over, or past its handshake, costs next to nothing.
            let connection = &self.connections[slot];
            steps += usize::from(connection.over.is_none() && connection.session.is_handshaking());
            self.take_endpoint_bytes(slot, received);
        }
    }

    fn take_endpoint_bytes(&mut self, slot: usize, received: io::Result<Received>) {
        let connection = &mut *self.connections[slot];
        connection.under_way.endpoint_receive = false;
        connection.has_come = false;
        self.take_received(slot, received, Session::handle_endpoint_bytes, |session, end, cx| {
            session.handle_endpoint_end(end, cx);
        });
    }

    fn take_mlet_bytes(&mut self, slot: usize, received: io::Result<Received>) {
        self.connections[slot].under_way.mlet_receive = false;
        self.take_received(slot, received, Session::handle_mlet_bytes, |session, _, cx| {
            session.handle_mlet_end(cx);
        });
    }

    fn take_received(
        &mut self,
        slot: usize,
        received: io::Result<Received>,
        on_bytes: fn(&mut Session, &[u8], &mut Context<'_>),
        on_end: fn(&mut Session, End, &mut Context<'_>),
    ) {
        let connection = &mut self.connections[slot];
        let mut cx = Context { now: self.now, wall: self.wall, pool: &mut self.pool };
        match received {
            Ok(received) => {
                if received.is_empty() {
                    on_end(&mut connection.session, End::Closed, &mut cx);
                } else {
                    on_bytes(&mut connection.session, self.driver.bytes(&received), &mut cx);
                }
                if connection.session.take_acknowledgement() {
                    self.driver.acknowledge_at_once(connection.endpoint.as_fd());
                }
                self.driver.give_back(received);
                self.apply(slot);
            }
            Err(error) if is_no_buffers(&error) => {
                connection.has_come = connection.in_set_up;
                let group = group_of(connection);
                self.awaiting_buffer[usize::from(group)].push_back((slot, connection.id));
            }
            Err(error) if is_interrupted(&error) => self.apply(slot),
            Err(error) => {
                on_end(&mut connection.session, End::Broken(error.kind()), &mut cx);
                self.apply(slot);
            }
        }
    }

    /// Buffers are back at the end of a turn: as many of the sessions that wait for one, longest first,
    /// may receive again.
    fn wake_for_buffers(&mut self) {
        for (group, size) in GROUPS.iter().enumerate() {
            for _ in 0..size.count {
                let Some((slot, id)) = self.awaiting_buffer[group].pop_front() else { break };
                if self.holds(slot, id) && holds(Guard::WakesForBuffers) {
                    self.connections[slot].has_come = false;
                    self.apply(slot);
                }
            }
        }
    }

    fn take_due_timers(&mut self) {
        // A session sets at most a few that are due already.
        let mut left = 8 * self.connections.len() + self.timers.len();
        while let Some((slot, id)) = self.timers.pop_due(self.now) {
            debug_assert!(
                left > 0,
                "timers that are due again at once would keep the turn for ever"
            );
            left = left.saturating_sub(1);
            if !self.holds(slot, id) {
                continue;
            }
            let connection = &mut self.connections[slot];
            connection.timer = None;
            if connection.session.deadline().is_some_and(|deadline| deadline <= self.now) {
                self.move_session(slot, Session::handle_timeout);
            } else {
                self.apply(slot);
            }
        }
    }

    fn holds(&self, slot: usize, id: SessionId) -> bool {
        let connection = self.connections.get(slot);
        connection.is_some_and(|connection| connection.id == id) || !holds(Guard::KnowsSessions)
    }

    /// Begins the session of an accepted connection; it is counted as open already.
    fn open(&mut self, endpoint: OwnedFd, peer: SocketAddr) {
        if !self.admits(peer.ip()) {
            self.mailer.push(FromShard::SourceRefused(peer.ip()));
            self.driver.close(endpoint);
            return self.counts.close_session();
        }
        let session = Session::new(peer.ip(), Arc::clone(&self.experiments), self.now);
        let slot = self.insert(endpoint, peer, session, None);
        self.apply(slot);
    }

    fn insert(
        &mut self,
        endpoint: OwnedFd,
        peer: SocketAddr,
        session: Session,
        in_backlog: Option<ExperimentId>,
    ) -> usize {
        let id = self.sessions_begun * self.count as u64 + self.number as u64 + 1;
        self.sessions_begun += 1;
        self.connections.insert(Box::new(Connection {
            id,
            peer,
            via: if in_backlog.is_some() { Via::Proxy } else { Via::Direct },
            accepted: self.now,
            accepted_wall: self.wall,
            in_backlog,
            session,
            endpoint,
            mlet: None,
            under_way: UnderWay::default(),
            permit: Permit::None,
            mlet_input_ended: false,
            timer: None,
            in_set_up: true,
            stage: SetUpStage::Waiting,
            occupies_set_up: false,
            may_go: None,
            candidate: None,
            has_come: false,
            makes_room: false,
            over: None,
            cancelled: false,
            facts: None,
        }))
    }
}

fn group_of(connection: &Connection) -> u16 {
    if connection.in_set_up { SET_UP_GROUP } else { RELAY_GROUP }
}

fn is_no_buffers(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOBUFS)
}

/// How many bytes have left. A send that was interrupted has sent none and is no end.
fn as_sent(sent: io::Result<usize>) -> Result<usize, io::ErrorKind> {
    match sent {
        Err(error) if is_interrupted(&error) => Ok(0),
        sent => sent.map_err(|error| error.kind()),
    }
}

/// Interrupted, or cancelled as a link of two was: it may be started again.
fn is_interrupted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EINTR | nix::libc::ECANCELED))
}
