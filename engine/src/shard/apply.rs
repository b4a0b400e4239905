//! What sessions ask for, done: operations started, and sockets closed at the end.
//!
//! Not here: what completions and messages bring to a session (`turn.rs`, `mail.rs`), and its requests (`grant.rs`).
//! Invariant: a session that is over starts nothing more.

use std::os::fd::AsFd;

use super::operations::Token;
use super::state::Shard;
use crate::driver::{Driver, Outgoing, Stream};
use crate::guards::{Guard, holds};
use crate::mailbox::FromShard;
use crate::metrics::Direction;
use crate::proto::outbox::Transmission;
use crate::proto::session::{Context, Session};
use crate::records::Ended;

impl<D: Driver<Token>> Shard<D> {
    /// Lets the session take a step, then does what it wants.
    pub(super) fn move_session(
        &mut self,
        slot: usize,
        step: impl FnOnce(&mut Session, &mut Context<'_>),
    ) {
        let mut cx = Context {
            now: self.now,
            wall: self.wall,
            pool: &mut self.pool,
            relayed: &mut self.relayed,
        };
        step(&mut self.connections[slot].session, &mut cx);
        self.apply(slot);
    }

    /// Does what the session in `slot` wants, and closes it when it is over; the slot may be empty afterwards.
    pub(super) fn apply(&mut self, slot: usize) {
        loop {
            let requests = self.connections[slot].session.take_requests();
            if requests.is_empty() {
                break;
            }
            let mut granting = self.granting(slot);
            requests.into_iter().for_each(|request| granting.grant(request));
        }
        self.granting(slot).free_vain_permit();
        let connection = &mut *self.connections[slot];
        if connection.in_set_up {
            self.follow_set_up(slot);
        }
        let connection = &mut *self.connections[slot];
        if connection.over.is_some() {
            self.close_when_quiet(slot);
            return;
        }
        let connection = &mut *self.connections[slot];
        if let Some(mlet) = &mut connection.mlet {
            mlet.settle(&mut self.driver, &mut connection.under_way, slot);
        }
        self.start_operations(slot);
        let connection = &mut *self.connections[slot];
        if let Some(deadline) = connection.session.deadline()
            && connection.timer.is_none_or(|timer| deadline < timer)
        {
            connection.timer = Some(deadline);
            self.timers.add(deadline, slot, connection.id);
        }
    }

    fn start_operations(&mut self, slot: usize) {
        let connection = &mut *self.connections[slot];
        let from_endpoint = connection.group(Direction::FromEndpoint);
        let from_mlet = connection.group(Direction::ToEndpoint);
        let (session, under_way) = (&mut connection.session, &mut connection.under_way);
        let endpoint = Stream::Socket(connection.endpoint.as_fd());
        let mut mlet = connection.mlet.as_mut();
        if !under_way.endpoint_send
            && let Some(transmission) = session.transmit_to_endpoint()
        {
            under_way.endpoint_send = true;
            // A linked send ends only when all has left, and one of many bytes is to tell that they go on leaving.
            let may_link = !transmission.is_bulk();
            let send = (endpoint, outgoing(transmission), Token::EndpointSend(slot));
            match &mut mlet {
                Some(mlet)
                    if may_link && !under_way.mlet_receive && session.wants_mlet_input_next() =>
                {
                    under_way.mlet_receive = true;
                    under_way.mlet_receive_linked = true;
                    let source = mlet.next_source(&self.driver);
                    let receive = (source, from_mlet, Token::MletReceive(slot));
                    self.driver.send_then_receive(send, receive);
                }
                _ => self.driver.send(send.0, send.1, send.2),
            }
        }
        if let Some(mlet) = &mut mlet
            && !under_way.mlet_send
            && let Some(transmission) = session.transmit_to_mlet()
        {
            under_way.mlet_send = true;
            let may_link = !transmission.is_bulk();
            let send = (mlet.next_sink(), outgoing(transmission), Token::MletSend(slot));
            if may_link && !under_way.endpoint_receive && session.wants_endpoint_input_next() {
                under_way.endpoint_receive = true;
                let receive = (endpoint, from_endpoint, Token::EndpointReceive(slot));
                self.driver.send_then_receive(send, receive);
            } else {
                self.driver.send(send.0, send.1, send.2);
            }
        }
        if !under_way.endpoint_receive && session.wants_endpoint_input() {
            under_way.endpoint_receive = true;
            self.driver.receive(endpoint, from_endpoint, Token::EndpointReceive(slot));
        }
        let Some(mlet) = mlet else { return };
        if session.wants_mlet_input() {
            if !under_way.mlet_receive {
                under_way.mlet_receive = true;
                let source = mlet.next_source(&self.driver);
                self.driver.receive(source, from_mlet, Token::MletReceive(slot));
            } else if holds(Guard::ReadsBesideSends)
                && std::mem::take(&mut under_way.mlet_receive_linked)
            {
                // The endpoint has closed and may never take what is being sent, and what the mlet still writes is only
                // to be dropped. Cancelled together, both begin again apart.
                under_way.cancels += 1;
                self.driver.cancel(endpoint.as_fd(), Token::Cancel(slot));
            }
        }
    }

    /// Closes the sockets of a session that is over, once nothing is under way on them.
    fn close_when_quiet(&mut self, slot: usize) {
        let connection = &mut *self.connections[slot];
        if connection.under_way.is_nothing() || !holds(Guard::ClosesWhenQuiet) {
            self.forget(slot);
        } else if !std::mem::replace(&mut connection.cancelled, holds(Guard::CancelsOnce)) {
            if connection.under_way.on_endpoint() {
                connection.under_way.cancels += 1;
                self.driver.cancel(connection.endpoint.as_fd(), Token::Cancel(slot));
            }
            if connection.under_way.on_mlet()
                && let Some(mlet) = &connection.mlet
            {
                mlet.cancel(&mut self.driver, &mut connection.under_way, slot);
            }
        }
    }

    fn forget(&mut self, slot: usize) {
        if self.connections[slot].in_set_up {
            self.leave_set_up(slot);
        }
        let mut connection = *self.connections.remove(slot);
        self.making_room -= usize::from(connection.makes_room);
        self.counts.close_session();
        if let Some(outcome) = connection.over.take() {
            let (facts, relayed) = (connection.facts(self.core), connection.session.relayed());
            let (latency, closed) = (connection.latency.take(), self.now);
            let ended = Box::new(Ended { facts, relayed, latency, outcome: *outcome, closed });
            match connection.in_backlog {
                Some(registration) => {
                    self.mailer.push(FromShard::BacklogLost { registration, ended });
                }
                None => self.mailer.push_unhurried(FromShard::Ended(ended)),
            }
        }
        self.driver.close(connection.endpoint);
        if let Some(mlet) = connection.mlet {
            mlet.close(&mut self.driver);
        }
    }
}

fn outgoing(Transmission { block, start, end }: Transmission) -> Outgoing {
    Outgoing { block, start, end }
}
