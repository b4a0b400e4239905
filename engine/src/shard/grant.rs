//! What a session asks for, granted.
//!
//! Not here: permits and mlets (`permit_to_mlet.rs`), and what follows when all is granted (`apply.rs`). Invariant: a grant has the
//! session and not the shard, so it can neither apply what the session wants next nor empty its slot.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Instant;

use super::connection::{AwaitedPair, Connection};
use super::linfo_log::log_linfo;
use super::operations::Token;
use super::state::Shard;
use crate::driver::Driver;
use crate::mailbox::{Counts, FromShard, Mailer};
use crate::mlet_request::DirectRequests;
use crate::proto::account::RelayedByAll;
use crate::proto::outbox::BlockPool;
use crate::proto::session::{Context, PeerStatus, Probe, Request, Session};
use packetlab::time::Ticks;

/// A session, and what its requests are granted with.
pub(super) struct Granting<'a, D> {
    pub(super) slot: usize,
    pub(super) connection: &'a mut Connection,
    pub(super) driver: &'a mut D,
    pub(super) mailer: &'a mut Mailer<FromShard>,
    pub(super) direct: Option<&'a mut DirectRequests>,
    pub(super) counts: &'a Counts,
    pub(super) awaiting_pair: &'a mut VecDeque<AwaitedPair>,
    pub(super) pool: &'a mut BlockPool,
    pub(super) relayed: &'a mut RelayedByAll,
    pub(super) now: Instant,
    pub(super) wall: Ticks,
    /// The shard's number.
    pub(super) shard: usize,
    /// The CPU number of its core.
    pub(super) core: usize,
    pub(super) offers_pipes: bool,
}

impl<D> Shard<D> {
    /// The session in `slot`, to grant something to.
    pub(super) fn granting(&mut self, slot: usize) -> Granting<'_, D> {
        Granting {
            slot,
            connection: &mut self.connections[slot],
            driver: &mut self.driver,
            mailer: &mut self.mailer,
            direct: self.direct.as_mut(),
            counts: &self.counts,
            awaiting_pair: &mut self.awaiting_pair,
            pool: &mut self.pool,
            relayed: &mut self.relayed,
            now: self.now,
            wall: self.wall,
            shard: self.number,
            core: self.core,
            offers_pipes: self.offers_pipes,
        }
    }
}

impl<D: Driver<Token>> Granting<'_, D> {
    /// Lets the session take a step.
    pub(super) fn step(&mut self, step: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let mut cx =
            Context { now: self.now, wall: self.wall, pool: self.pool, relayed: self.relayed };
        step(&mut self.connection.session, &mut cx);
    }

    pub(super) fn grant(&mut self, request: Request) {
        match request {
            Request::LeaveBacklog => self.leave_backlog(),
            Request::Permit => self.ask_permit(),
            Request::Mlet(facts) => self.start_mlet(facts),
            Request::EndMletInput => {
                self.connection.mlet_input_ended = true;
                if let Some(mlet) = &mut self.connection.mlet {
                    mlet.end_input(self.driver, &self.connection.under_way);
                }
            }
            Request::EndEndpointInput => {
                self.driver.shut_down(self.connection.endpoint.as_fd(), Shutdown::Write);
            }
            Request::EndMlet => self.end_mlet(),
            Request::EndpointGone(reason) => {
                let id = self.connection.id;
                self.mailer.push_unhurried(FromShard::EndpointGone { id, reason });
            }
            Request::Linfo(linfo) => log_linfo(self.connection.id, &linfo),
            Request::Probe => {
                let probe = self.probe();
                self.step(|session, cx| session.handle_probe(probe, cx));
            }
            Request::Over(outcome) => self.connection.over = Some(Box::new(outcome)),
        }
    }

    /// The endpoint of a backlog connection is here; what follows is counted from now.
    fn leave_backlog(&mut self) {
        if let Some(registration) = self.connection.in_backlog.take() {
            (self.connection.accepted, self.connection.accepted_wall) = (self.now, self.wall);
            self.mailer.push(FromShard::BacklogTaken(registration));
        }
    }

    fn end_mlet(&mut self) {
        let id = self.connection.id;
        if let Some(mlet) = &mut self.connection.mlet {
            mlet.cut_off(self.driver, &self.connection.under_way);
            self.mailer.push(FromShard::IdleTimeout(id));
        } else {
            // It has none yet, and needs none any more.
            self.awaiting_pair.retain(|awaited| awaited.id != id);
            self.step(Session::handle_mlet_end);
        }
    }

    fn probe(&mut self) -> Probe {
        let endpoint = self.connection.endpoint.as_fd();
        let endpoint = PeerStatus {
            has_hung_up: self.driver.has_hung_up(endpoint),
            untaken_len: self.driver.untaken_len(endpoint),
        };
        let gone = PeerStatus { has_hung_up: true, untaken_len: 0 };
        let mlet = self.connection.mlet.as_ref().map_or(gone, |mlet| mlet.status(self.driver));
        Probe { endpoint, mlet }
    }
}
