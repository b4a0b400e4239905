//! From the permit for START to the mlet.
//!
//! Not here: START itself (`proto/greeting.rs`) and the mlet's process (the control thread's).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tracing::info;

use super::connection::{AwaitedPair, Permit};
use super::grant::Granting;
use super::mlet_streams::MletStreams;
use super::operations::Token;
use super::state::Shard;
use crate::driver::Driver;
use crate::mailbox::{FromShard, Permission, SessionPlace};
use crate::permits::{Holder, Refusal};
use crate::proto::mlet_facts::MletFacts;
use crate::proto::session::{Session, SetUpStage};
use crate::sys::mlet_ends::MletEnds;

impl<D: Driver<Token>> Granting<'_, D> {
    pub(super) fn ask_permit(&mut self) {
        let permission = self.counts.permission();
        if permission == Permission::Unneeded {
            return self.give_permit();
        }
        self.connection.permit = Permit::Awaited;
        let key = self.connection.session.endpoint_key();
        let holder = key.map_or_else(|| Holder::Address(self.connection.peer.ip()), Holder::Key);
        let wanted = FromShard::PermitWanted(self.place(), holder);
        match permission {
            Permission::OfOthers => self.mailer.push_unhurried(wanted),
            Permission::OfRun | Permission::Unneeded => self.mailer.push(wanted),
        }
    }

    pub(super) fn give_permit(&mut self) {
        self.connection.permit = Permit::Held;
        self.step(Session::handle_permit);
    }

    pub(super) fn refuse_permit(&mut self, why: Refusal) {
        self.connection.permit = Permit::None;
        self.step(|session, cx| session.handle_refusal(why, cx));
    }

    /// Gives back a permit that no mlet will come of: the endpoint has left or failed before START, START has failed, or
    /// the endpoint has left before descriptors for its mlet were free. Whoever waits for it shall not wait until this
    /// endpoint has closed.
    pub(super) fn free_vain_permit(&mut self) {
        let connection = &mut *self.connection;
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
        if self.counts.permission() != Permission::Unneeded {
            self.mailer.push(FromShard::PermitFreed(connection.id));
        }
    }

    /// START was answered with success.
    pub(super) fn start_mlet(&mut self, facts: MletFacts) {
        self.connection.permit = Permit::Starting;
        let awaited = AwaitedPair { slot: self.slot, id: self.connection.id, facts };
        if let Err(awaited) = self.make_pair(awaited) {
            self.awaiting_pair.push_back(awaited);
        }
    }

    /// Makes a socket pair for the mlet of the session; what it is made for comes back if it is to be tried again. From
    /// here on the attempt counts, whatever becomes of the mlet.
    fn make_pair(&mut self, awaited: AwaitedPair) -> Result<(), AwaitedPair> {
        let (ours, socket) = match self.driver.session_pair() {
            Ok(pair) => pair,
            Err(error) if is_shortage(&error) => return Err(awaited),
            Err(error) => {
                self.mailer.push(FromShard::NoSocketPair { id: awaited.id, error });
                self.step(Session::handle_mlet_end);
                return Ok(());
            }
        };
        let AwaitedPair { id, facts, .. } = awaited;
        // Logged here, so that it stands before what the endpoint logs.
        let key = facts.endpoint_key.map_or_else(|| "none".into(), |key| key.short());
        let (peer, snikey) = (facts.peer, facts.snikey.short());
        info!(session = id, "{peer} is ready, key {key}, snikey {snikey}");
        let (ours, pipes) = self.offer_pipes(ours);
        self.connection.mlet = Some(ours);
        self.connection.permit = Permit::None;
        self.ask_for_mlet(MletEnds { socket, pipes }, facts);
        Ok(())
    }

    /// What leads to a mlet with this socket, and the mlet's ends of its pipes, if there are any. One for which none can be
    /// made has its socket, as every mlet has.
    fn offer_pipes(&mut self, socket: OwnedFd) -> (MletStreams, Option<[OwnedFd; 2]>) {
        let made = self.offers_pipes.then(|| self.driver.session_pipes()).transpose();
        let (ours, mlets) = match made {
            Ok(pipes) => pipes.unzip(),
            Err(error) => {
                let id = self.connection.id;
                self.mailer.push_unhurried(FromShard::NoPipes { id, error });
                (None, None)
            }
        };
        let mut streams = MletStreams::new(socket, ours);
        if let Some(pipe) = streams.offered() {
            self.connection.under_way.mlet_watch = true;
            self.driver.watch(pipe, Token::MletWatch(self.slot));
        }
        if self.connection.mlet_input_ended {
            streams.end_input(self.driver, &self.connection.under_way);
        }
        (streams, mlets)
    }

    /// Asks for the mlet that gets `ends`: straight at the supervisor where that goes, else at the control thread. That
    /// hears of the session first, so that it knows whose mlet the supervisor tells it of.
    fn ask_for_mlet(&mut self, ends: MletEnds, facts: MletFacts) {
        let (place, session) = (self.place(), self.connection.facts(self.core));
        let served = FromShard::Served { place, session: Arc::clone(&session) };
        self.mailer.push_unhurried(served);
        let passed = match &mut self.direct {
            Some(direct) if self.mailer.send() => match direct.packet(&facts, &session) {
                Some((to, packet)) => self.driver.pass(to, packet, ends),
                None => Err(ends),
            },
            _ => Err(ends),
        };
        if let Err(ends) = passed {
            self.mailer.push(FromShard::StartMlet { id: place.id, ends, facts });
        }
    }

    fn place(&self) -> SessionPlace {
        SessionPlace { shard: self.shard, slot: self.slot, id: self.connection.id }
    }
}

impl<D: Driver<Token>> Shard<D> {
    /// Makes the socket pairs that are waited for, as far as there are descriptors. Until the supervisor has it, or
    /// the mlet of singleton mode has taken it, the mlet's end takes one of ours, so that many starts at once may reach
    /// the limit. A session waits as long as its endpoint does: some milliseconds, or for a slow singleton mlet.
    pub(super) fn start_waiting_mlets(&mut self) {
        while let Some(awaited) = self.awaiting_pair.pop_front() {
            let slot = awaited.slot;
            // One that is over has given its permit back, and only what is under way keeps it here.
            if !self.holds(slot, awaited.id) || self.connections[slot].over.is_some() {
                continue;
            }
            if let Err(awaited) = self.granting(slot).make_pair(awaited) {
                return self.awaiting_pair.push_front(awaited);
            }
            self.apply(slot);
        }
    }
}

/// No descriptor or memory is free; one may be soon.
fn is_shortage(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}
