//! The loop of a shard: a turn takes what has completed, and waits for more.
//!
//! Not here: what sessions want in return (`apply.rs`). Invariant: a turn ends, however much completes meanwhile.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::Duration;

use super::listeners::Listeners;
use super::operations::{GROUPS, Token};
use super::state::Shard;
use super::under_way::UnderWay;
use crate::driver::{Completion, Driver, Event, Received};
use crate::guards::{Guard, holds};
use crate::metrics::{Direction, ShardNumber};
use crate::proto::session::{Context, Session, SetUpStage};
use crate::proto::session_end::End;
use crate::records::ShardTotals;

/// How soon a turn follows while something waits for the control thread: messages for room in its queue, mlets
/// for the descriptors it passes on.
const RETRY: Duration = Duration::from_millis(1);

/// Completions of one turn from which on a ring may have been full, and some may be lost: the smallest ring there is holds so many.
const FULL_FROM: usize = 2048;

/// How a record begins in which a ClientHello may come: handshake, and the first byte of its legacy version (RFC 8446 5.1).
const HELLO_START: [u8; 2] = [22, 3];

impl<D: Driver<Token>> Shard<D> {
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
        self.publish();
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

    pub(crate) fn begin(&mut self, listeners: Vec<TcpListener>) {
        for listener in &listeners {
            self.driver.prepare(listener.as_fd());
        }
        self.listeners = Listeners::new(listeners);
        self.driver.watch(self.inbox.as_fd(), Token::Mail);
    }

    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.admit();
        self.start_waiting_mlets();
        // Before the ends of sessions are told, so that what they have relayed is never missing.
        self.publish();
        let mail_is_out = self.mailer.flush_unhurried(self.now);
        self.wait(self.patience(mail_is_out))?;
        (self.now, self.wall) = self.driver.clocks();
        self.take_completions();
        self.take_set_up_steps();
        self.take_due_timers();
        self.wake_for_buffers();
        Ok(())
    }

    /// Waits until something has completed, or for as long as it has `patience`. Whoever is woken has waited for that, so
    /// with `--spin` it does not sleep at first.
    fn wait(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let spin = patience.map_or(self.spin, |patience| patience.min(self.spin));
        if spin.is_zero() {
            return self.driver.wait(patience);
        }
        let (began, _) = self.driver.clocks();
        let mut spent = Duration::ZERO;
        while spent < spin {
            self.driver.wait(Some(Duration::ZERO))?;
            if self.driver.completions() > 0 {
                return Ok(());
            }
            spent = self.driver.clocks().0 - began;
        }
        self.driver.wait(patience.map(|patience| patience - spent.min(patience)))
    }

    pub(super) fn is_done(&self) -> bool {
        self.draining && self.connections.is_empty() && self.listeners.are_closed()
    }

    /// How long the turn may wait for a completion.
    fn patience(&self, mail_is_out: bool) -> Option<Duration> {
        let ring_due = self.mailer.ring_due();
        let due = [self.timers.next_due(), self.listeners.paused_until(), self.room_due, ring_due];
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
        if due >= FULL_FROM {
            self.numbers[ShardNumber::RingOverflows] = self.driver.lost_completions();
            self.has_news = true;
        }
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
                    if !self.connections[slot].in_set_up {
                        self.pace.note_relayed(self.now);
                    }
                    let under_way = self.end_send(slot, Direction::ToEndpoint, &sent);
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
                    self.pace.note_relayed(self.now);
                    self.end_send(slot, Direction::FromEndpoint, &sent).mlet_send = false;
                    self.move_session(slot, |session, cx| {
                        session.handle_sent_to_mlet(block, as_sent(sent), cx);
                    });
                }
                (Token::MletWatch(slot), Event::Readable) => {
                    let connection = &mut *self.connections[slot];
                    connection.under_way.mlet_watch = false;
                    if let Some(mlet) = &mut connection.mlet {
                        mlet.take_watched(&mut self.driver);
                    }
                    self.apply(slot);
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
    fn end_send(
        &mut self,
        slot: usize,
        direction: Direction,
        sent: &io::Result<usize>,
    ) -> &mut UnderWay {
        let connection = &mut *self.connections[slot];
        connection.note_sent(direction, sent, (&self.stopwatch, self.now));
        connection.cancelled = false;
        &mut connection.under_way
    }

    fn take_set_up_steps(&mut self) {
        if self.set_up_backlog.is_empty() {
            return;
        }
        let max = self.pace.steps(self.now);
        let (mut steps, mut began) = (0, None);
        while !self.set_up_backlog.is_empty() && steps < max {
            let Some((slot, received)) = self.set_up_backlog.pop_front() else { break };
            // Bytes alone cost a step, and next to nothing for a session that is over or past its handshake.
            let connection = &self.connections[slot];
            let may_cost = connection.over.is_none() && connection.session.is_handshaking();
            let bytes = received.as_ref().map_or(&[][..], |received| self.driver.bytes(received));
            let is_costly = may_cost && !bytes.is_empty();
            if is_costly && self.is_vain(slot, bytes) {
                self.pass_over(slot, received);
                continue;
            }
            if is_costly {
                steps += 1;
                began = began.or_else(|| Some(self.driver.clocks().0));
            }
            self.take_endpoint_bytes(slot, received);
        }
        if let Some(began) = began {
            self.pace.note_steps(began, self.driver.clocks().0);
            self.numbers[ShardNumber::HandshakeNanoseconds] =
                u64::try_from(self.pace.taken().as_nanos()).unwrap_or(u64::MAX);
            self.has_news = true;
        }
    }

    /// What has come is of no use, because the time of the handshake is over, as is told at the end of this turn, or because
    /// whoever is to have its ClientHello answered has closed or reset its connection. One that waited at a proxy is
    /// answered all the same, for it has been used; and what is no ClientHello is looked at, so that the record says so.
    fn is_vain(&self, slot: usize, bytes: &[u8]) -> bool {
        let connection = &self.connections[slot];
        let is_late = connection.session.deadline().is_some_and(|deadline| deadline <= self.now);
        let is_hello = (bytes.starts_with(&HELLO_START) || connection.hello_unread)
            && matches!(connection.stage, SetUpStage::Silent | SetUpStage::Hello);
        let may_be_gone = is_hello && connection.in_backlog.is_none();
        let is_vain =
            is_late || may_be_gone && self.driver.has_hung_up(connection.endpoint.as_fd());
        is_vain && holds(Guard::DropsVainHandshakes)
    }

    /// Leaves what was received unread: the next receive brings the end, or more of the same.
    fn pass_over(&mut self, slot: usize, received: io::Result<Received>) {
        let connection = &mut *self.connections[slot];
        connection.under_way.endpoint_receive = false;
        (connection.has_come, connection.hello_unread) = (false, true);
        received.into_iter().for_each(|received| self.give_back(received));
        self.apply(slot);
    }

    fn take_endpoint_bytes(&mut self, slot: usize, received: io::Result<Received>) {
        let connection = &mut *self.connections[slot];
        connection.under_way.endpoint_receive = false;
        connection.has_come = false;
        let received = (Direction::FromEndpoint, received);
        self.take_received(slot, received, Session::handle_endpoint_bytes, |session, end, cx| {
            session.handle_endpoint_end(end, cx);
        });
    }

    fn take_mlet_bytes(&mut self, slot: usize, received: io::Result<Received>) {
        let connection = &mut *self.connections[slot];
        connection.under_way.mlet_receive = false;
        let len = match &received {
            Ok(received) => Some(received.len()),
            Err(error) if is_no_buffers(error) || is_interrupted(error) => None,
            Err(_) => Some(0),
        };
        if let Some(mlet) = &mut connection.mlet
            && !mlet.take_received(len, &mut self.driver)
        {
            received.into_iter().for_each(|received| self.give_back(received));
            return self.apply(slot);
        }
        let received = (Direction::ToEndpoint, received);
        self.take_received(slot, received, Session::handle_mlet_bytes, |session, _, cx| {
            session.handle_mlet_end(cx);
        });
    }

    fn take_received(
        &mut self,
        slot: usize,
        (direction, received): (Direction, io::Result<Received>),
        on_bytes: fn(&mut Session, &[u8], &mut Context<'_>),
        on_end: fn(&mut Session, End, &mut Context<'_>),
    ) {
        let connection = &mut self.connections[slot];
        let mut cx = Context {
            now: self.now,
            wall: self.wall,
            pool: &mut self.pool,
            relayed: &mut self.relayed,
        };
        match received {
            Ok(received) => {
                if received.is_empty() {
                    on_end(&mut connection.session, End::Closed, &mut cx);
                } else {
                    connection.note_received(direction, received.len(), self.now);
                    let is_timed = connection.is_due(direction, &mut self.stopwatch);
                    on_bytes(&mut connection.session, self.driver.bytes(&received), &mut cx);
                    if is_timed {
                        connection.begin_timing(direction, self.now);
                    }
                }
                if connection.session.take_acknowledgement() {
                    self.driver.acknowledge_at_once(connection.endpoint.as_fd());
                }
                self.give_back(received);
                self.apply(slot);
            }
            Err(error) if is_no_buffers(&error) => {
                self.numbers[ShardNumber::NoBuffers] += 1;
                self.has_news = true;
                if connection.receive_less(direction) {
                    return self.apply(slot);
                }
                connection.has_come = connection.in_set_up;
                let group = connection.group(direction);
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
        self.give_back_kept();
        for (group, size) in GROUPS.iter().enumerate().take(self.awaiting_buffer.len()) {
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
        while let Some((due, slot, id)) = self.timers.pop_due(self.now) {
            debug_assert!(
                left > 0,
                "timers that are due again at once would keep the turn for ever"
            );
            left = left.saturating_sub(1);
            if !self.holds(slot, id) {
                continue;
            }
            let connection = &mut self.connections[slot];
            if connection.timer != Some(due) {
                continue;
            }
            connection.timer = None;
            if connection.session.deadline().is_some_and(|deadline| deadline <= self.now) {
                self.move_session(slot, Session::handle_timeout);
            } else {
                self.apply(slot);
            }
        }
    }
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
pub(super) fn is_interrupted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EINTR | nix::libc::ECANCELED))
}
