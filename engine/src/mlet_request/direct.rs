//! Requests of a shard that go straight to the supervisor.
//!
//! Not here: how a packet is sent (`driver`). Only where a mlet needs nothing of the control thread but to be known of:
//! without `-n` and `-s`.

use std::os::fd::BorrowedFd;
#[cfg(any(test, feature = "bench"))]
use std::{os::fd::OwnedFd, sync::Arc};

use super::environment::environment;
use super::output::OutputPlan;
use crate::proto::mlet_facts::MletFacts;
use crate::records::SessionFacts;
use crate::sys::supervisor::{MletOwner, SpawnSender};

/// A shard's way to the supervisor.
#[derive(Debug)]
pub(crate) struct DirectRequests {
    sender: SpawnSender,
    output: OutputPlan,
}

impl DirectRequests {
    /// Mlets whose output goes where `output` says.
    pub(crate) fn new(sender: SpawnSender, output: OutputPlan) -> Self {
        Self { sender, output }
    }

    /// Requests to whoever has the other end of this socket.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn through(socket: OwnedFd) -> Self {
        Self::new(SpawnSender::new(Arc::new(socket)), OutputPlan::Inherited)
    }

    /// The packet that asks for the mlet of a session, and the socket for it; `None` if the control thread is to ask.
    pub(crate) fn packet(
        &mut self,
        facts: &MletFacts,
        session: &SessionFacts,
    ) -> Option<(BorrowedFd<'_>, &[u8])> {
        let output = self.output.of_session(session);
        let owner = MletOwner::Session(session.id);
        self.sender.packet(owner, &environment(&session.id, facts), &output)
    }
}
