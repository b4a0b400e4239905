//! What the control thread tells a shard.
//!
//! Not here: what a shard tells it, which each room that has something to tell says itself, and how sessions end
//! when the run does (`ending.rs`).

use std::os::fd::AsFd;
use std::sync::Arc;

use super::connection::Permit;
use super::operations::Token;
use super::state::Shard;
use crate::driver::Driver;
use crate::guards::{Guard, holds};
use crate::mailbox::{BacklogConnection, FromShard, SessionPlace, ToShard};
use crate::permits::Refusal;
use crate::proto::experiments::Experiments;
use crate::proto::session::{Session, SetUpStage};
use crate::records::bytes_of;

impl<D: Driver<Token>> Shard<D> {
    pub(super) fn take_mail(&mut self) {
        self.inbox.silence();
        while let Some(message) = self.inbox.next() {
            match message {
                ToShard::Adopt(connection) => self.adopt(connection),
                ToShard::Reload(experiments) => self.reload(experiments),
                ToShard::TellRelayed => self.tell_relayed(),
                ToShard::Drain => self.drain(),
                ToShard::EndSession(id, force) => self.end_session(id, force),
                ToShard::EndSessions(force) => self.end_sessions(force),
                ToShard::RunOver(force) => {
                    self.move_all(|session, cx| session.handle_run_over(force, cx));
                }
                ToShard::MletLate(place) if self.holds(place.slot, place.id) => {
                    let connection = &mut *self.connections[place.slot];
                    if let Some(mlet) = &mut connection.mlet {
                        mlet.cut_off(&mut self.driver, &connection.under_way);
                    }
                    self.move_session(place.slot, Session::handle_mlet_late);
                }
                ToShard::MletLate(_) => {}
                ToShard::Permit(place) => self.answer_permit(place, None),
                ToShard::Refused(place, why) => self.answer_permit(place, Some(why)),
                ToShard::Fence => self.fence(),
                ToShard::FenceOver => self.end_fenced(),
                ToShard::LeaveProxies => self.leave_proxies(),
            }
        }
        self.driver.watch(self.inbox.as_fd(), Token::Mail);
    }

    /// Tells a session whether it gets the permit that it asked for. One that waits no more has said so.
    fn answer_permit(
        &mut self,
        SessionPlace { slot, id, .. }: SessionPlace,
        why_not: Option<Refusal>,
    ) {
        if self.holds(slot, id) && self.connections[slot].permit == Permit::Awaited {
            let mut granting = self.granting(slot);
            match why_not {
                None => granting.give_permit(),
                Some(why) => granting.refuse_permit(why),
            }
            self.apply(slot);
        }
    }

    /// Serves these from now on. A session whose endpoint has sent something keeps what it began with; connections that wait
    /// at the proxy under a snikey that is gone are let go.
    fn reload(&mut self, experiments: Arc<Experiments>) {
        self.experiments = experiments;
        let is_untouched = |session: &Session| {
            let stage = session.set_up_stage();
            matches!(stage, SetUpStage::Waiting | SetUpStage::Silent)
                || !holds(Guard::KeepsExperiments)
        };
        let untouched = self.connections.iter().filter(|(_, one)| is_untouched(&one.session));
        let slots: Vec<usize> = untouched.map(|(slot, _)| slot).collect();
        for slot in slots {
            let experiments = Arc::clone(&self.experiments);
            let registration = self.connections[slot].in_backlog.as_ref();
            let is_gone = registration.is_some_and(|one| !experiments.serves(&one.snikey));
            self.move_session(slot, |session, cx| match is_gone {
                true => session.handle_stop(cx),
                false => session.handle_reload(experiments),
            });
        }
    }

    /// Lets go of connections that wait at a proxy.
    fn leave_proxies(&mut self) {
        let waits = |session: &Session| session.set_up_stage() == SetUpStage::Waiting;
        let waiting = self.connections.iter().filter(|(_, one)| waits(&one.session));
        let slots: Vec<usize> = waiting.map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.move_session(slot, Session::handle_stop));
    }

    /// Tells what sessions count anyway. Whoever asked waits for all shards, so the answer may wait a little too.
    fn tell_relayed(&mut self) {
        let past_start = self.connections.iter().filter(|(_, connection)| !connection.in_set_up);
        let relayed = past_start.map(|(_, one)| (one.id, bytes_of(&one.session.relayed())));
        let told = FromShard::Relayed { shard: self.number, sessions: relayed.collect() };
        self.mailer.push_unhurried(told);
    }

    /// Takes over a connection that waits at the proxy for its endpoint.
    fn adopt(&mut self, connection: BacklogConnection) {
        let BacklogConnection { socket, peer, registration, received } = connection;
        self.driver.prepare(socket.as_fd());
        if self.draining {
            self.driver.close(socket);
            return self.counts.close_session();
        }
        let session = Session::in_backlog(peer.ip(), Arc::clone(&self.experiments), self.now);
        let is_gone = !self.experiments.serves(&registration.snikey);
        let slot = self.insert(socket, peer, session, Some(registration));
        if received.is_empty() {
            // It may have been on its way at a reload.
            if is_gone {
                return self.move_session(slot, Session::handle_stop);
            }
            self.apply(slot);
        } else {
            self.move_session(slot, |session, cx| session.handle_endpoint_bytes(&received, cx));
        }
    }
}
