//! From the permit for START to the mlet.
//!
//! Not here: START itself (`proto/greeting.rs`) and the mlet's process (the control thread's).

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;

use tracing::info;

use super::connection::Permit;
use super::{Driver, Shard, Token};
use crate::mailbox::{FromShard, Holder, SessionPlace};
use crate::proto::session::{Context, MletFacts, SetUpStage};
use crate::records::SessionId;

/// A session past START for whose mlet there was no socket pair yet.
pub(super) struct AwaitedPair {
    slot: usize,
    id: SessionId,
    facts: MletFacts,
}

impl<D: Driver<Token>> Shard<D> {
    pub(super) fn ask_permit(&mut self, slot: usize) {
        if self.counts.attempts_max().is_none() {
            self.give_permit(slot);
            return;
        }
        let connection = &mut self.connections[slot];
        connection.permit = Permit::Awaited;
        let place = SessionPlace { shard: self.number, slot, id: connection.id };
        let key = connection.session.endpoint_key();
        let holder = key.map_or_else(|| Holder::Address(connection.peer.ip()), Holder::Key);
        self.mailer.push(FromShard::PermitWanted(place, holder));
    }

    /// The session must be settled afterwards.
    pub(super) fn give_permit(&mut self, slot: usize) {
        self.connections[slot].permit = Permit::Held;
        let mut cx = Context { now: self.now, wall: self.wall, pool: &mut self.pool };
        self.connections[slot].session.handle_permit(&mut cx);
    }

    /// Gives back a permit that no mlet will come of: the endpoint has left or failed before START, START has failed, or
    /// the endpoint has left before descriptors for its mlet were free. Whoever waits for it shall not wait until this
    /// endpoint has closed.
    pub(super) fn free_vain_permit(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let is_in_vain = match connection.permit {
            Permit::None => false,
            Permit::Awaited => connection.session.set_up_stage() != SetUpStage::Greeting,
            Permit::Held => !connection.session.awaits_start(),
            Permit::Starting => connection.over.is_some(),
        };
        if !is_in_vain {
            return;
        }
        connection.permit = Permit::None;
        if self.counts.attempts_max().is_some() {
            self.mailer.push(FromShard::PermitFreed(connection.id));
        }
    }

    /// START was answered with success.
    pub(super) fn start_mlet(&mut self, slot: usize, facts: MletFacts) {
        let connection = &mut self.connections[slot];
        connection.permit = Permit::Starting;
        let awaited = AwaitedPair { slot, id: connection.id, facts };
        match self.make_pair(awaited) {
            Ok(()) => {}
            Err((awaited, error)) if is_shortage(&error) => self.awaiting_pair.push_back(awaited),
            Err((awaited, error)) => self.fail_mlet(&awaited, error),
        }
    }

    /// Makes the socket pairs that are waited for, as far as there are descriptors. Until the supervisor has it, or
    /// the mlet of singleton mode has taken it, the mlet's end takes one of ours, so that many starts at once may reach
    /// the limit. A session waits as long as its endpoint does: some milliseconds, or for a slow singleton mlet.
    pub(super) fn start_waiting_mlets(&mut self) {
        while let Some(awaited) = self.awaiting_pair.pop_front() {
            let slot = awaited.slot;
            if !self.holds(slot, awaited.id) {
                continue;
            }
            match self.make_pair(awaited) {
                Ok(()) => {}
                Err((awaited, error)) if is_shortage(&error) => {
                    return self.awaiting_pair.push_front(awaited);
                }
                Err((awaited, error)) => self.fail_mlet(&awaited, error),
            }
            self.apply(slot);
        }
    }

    /// From here on the attempt counts, whatever becomes of the mlet.
    fn make_pair(&mut self, awaited: AwaitedPair) -> Result<(), (AwaitedPair, io::Error)> {
        let (ours, socket) = match self.driver.session_pair() {
            Ok(pair) => pair,
            Err(error) => return Err((awaited, error)),
        };
        let AwaitedPair { slot, id, facts } = awaited;
        // Logged here, so that it stands before what the endpoint logs.
        let key = facts.endpoint_key.map_or_else(|| "none".into(), |key| key.to_string());
        info!(session = id, "endpoint {} is ready, key {key}, snikey {}", facts.peer, facts.snikey);
        let connection = &mut self.connections[slot];
        if connection.mlet_input_ended {
            self.driver.shut_down(ours.as_fd(), Shutdown::Write);
        }
        connection.mlet = Some(ours);
        connection.permit = Permit::None;
        let place = SessionPlace { shard: self.number, slot, id };
        let session = connection.facts(self.core);
        self.mailer.push(FromShard::StartMlet { place, socket, facts, session });
        Ok(())
    }

    fn fail_mlet(&mut self, awaited: &AwaitedPair, error: io::Error) {
        self.mailer.push(FromShard::NoSocketPair { id: awaited.id, error });
        let mut cx = Context { now: self.now, wall: self.wall, pool: &mut self.pool };
        self.connections[awaited.slot].session.handle_mlet_end(&mut cx);
    }
}

/// No descriptor or memory is free; one may be soon.
fn is_shortage(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}
