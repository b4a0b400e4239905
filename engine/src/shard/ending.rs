//! The end of a run on one shard: no more are accepted, sessions may finish, then all of them end.
//!
//! Not here: when it is time (`control/ending.rs`), and how long a session may take (`proto/session/end.rs`).

use super::connection::{Connection, Permit};
use super::operations::Token;
use super::state::Shard;
use crate::driver::Driver;
use crate::guards::{Guard, holds};
use crate::proto::session::{Context, Session};
use crate::proto::session_end::Force;
use crate::records::SessionId;

impl<D: Driver<Token>> Shard<D> {
    pub(super) fn drain(&mut self) {
        self.draining = true;
        if holds(Guard::ClosesListeners) {
            self.close_listeners();
        }
        self.move_all(Session::handle_stop);
    }

    pub(super) fn move_all(&mut self, step: impl Fn(&mut Session, &mut Context<'_>)) {
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.move_session(slot, &step);
        }
    }

    /// Ends every session, so that its mlet reads the end. What the mlet wrote before is still delivered, as far as the
    /// run lasts.
    pub(super) fn end_sessions(&mut self, force: Force) {
        // Their mlets would not be started any more.
        self.awaiting_pair.clear();
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.end_session_in(slot, force));
    }

    /// The same of sessions that have sent START, which they were permitted, and of no others.
    pub(super) fn fence(&mut self) {
        if !holds(Guard::Fences) {
            return;
        }
        // Their mlets would have nothing to do.
        self.awaiting_pair.clear();
        let has_permit = |one: &Connection| {
            matches!(one.permit, Permit::Held | Permit::Starting) || one.session.is_served()
        };
        let permitted = self.connections.iter().filter(|(_, one)| has_permit(one));
        let permitted: Vec<_> = permitted.map(|(slot, one)| (slot, one.id)).collect();
        permitted.iter().for_each(|(slot, _)| self.end_session_in(*slot, Force::Fenced));
        self.fenced.extend(permitted);
    }

    /// What is still on its way for those is not waited for.
    pub(super) fn end_fenced(&mut self) {
        for (slot, id) in std::mem::take(&mut self.fenced) {
            if self.holds(slot, id) {
                self.move_session(slot, |session, cx| session.handle_run_over(Force::Fenced, cx));
            }
        }
    }

    /// The same of one session, wherever it is.
    pub(super) fn end_session(&mut self, id: SessionId, force: Force) {
        let slot = self.connections.iter().find(|(_, connection)| connection.id == id);
        if let Some(slot) = slot.map(|(slot, _)| slot) {
            self.awaiting_pair.retain(|awaited| awaited.id != id);
            self.end_session_in(slot, force);
            if force == Force::Fenced {
                self.fenced.push((slot, id));
            }
        }
    }

    fn end_session_in(&mut self, slot: usize, force: Force) {
        let connection = &mut *self.connections[slot];
        let has_mlet = connection.mlet.is_some();
        if let Some(mlet) = &mut connection.mlet {
            mlet.cut_off(&mut self.driver, &connection.under_way);
        }
        self.move_session(slot, |session, cx| {
            session.handle_force(force, cx);
            if !has_mlet {
                session.handle_mlet_end(cx);
            }
        });
    }
}
