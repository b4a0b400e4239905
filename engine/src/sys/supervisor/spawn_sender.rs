//! Requests for mlets from threads that have no [`Supervisor`](super::Supervisor): a packet straight to its process.
//!
//! Not here: the answers, which come to whoever has it, and what is done when the socket is full.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::message::encode_spawn;
use super::output::MletOutput;
use crate::sys::mlet_owner::MletOwner;

/// One thread's way to the supervisor.
#[derive(Debug)]
pub struct SpawnSender {
    socket: Arc<OwnedFd>,
    packet: Vec<u8>,
}

impl SpawnSender {
    /// Through a socket to the supervisor that nobody waits on.
    #[must_use]
    pub fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, packet: Vec::new() }
    }

    /// The packet of a request such as that of [`spawn`](super::Supervisor::spawn), to be sent with the mlet's ends,
    /// and the socket for it. `None` where that would fail.
    pub fn packet(
        &mut self,
        owner: MletOwner,
        environment: &[(&str, &dyn fmt::Display)],
        output: &MletOutput,
    ) -> Option<(BorrowedFd<'_>, &[u8])> {
        self.packet.clear();
        encode_spawn(owner, environment.iter().copied(), output, &mut self.packet)?;
        Some((self.socket.as_fd(), &self.packet))
    }
}
