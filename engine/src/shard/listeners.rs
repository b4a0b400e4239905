//! Accepting: a shard's own listening sockets, and when not to accept.
//!
//! At a limit nothing is refused: the shard stops accepting and the kernel's queue waits.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::{Shard, Token};
use crate::mailbox::FromShard;

/// Accepts under way on one listening socket, so that a storm is taken in several steps per turn.
const ACCEPTS_PER_LISTENER: usize = 8;

/// The listening sockets of one shard.
pub(super) struct Listeners {
    sockets: Vec<Listener>,
    paused_until: Option<Instant>,
}

struct Listener {
    /// `None` once closed.
    socket: Option<TcpListener>,
    under_way: usize,
}

impl Listeners {
    pub(super) fn new(sockets: Vec<TcpListener>) -> Self {
        let sockets =
            sockets.into_iter().map(|socket| Listener { socket: Some(socket), under_way: 0 });
        Self { sockets: sockets.collect(), paused_until: None }
    }

    /// No socket is left, nor an accept on one.
    pub(super) fn are_closed(&self) -> bool {
        self.sockets.iter().all(|listener| listener.socket.is_none())
    }

    /// When accepting goes on after a pause.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }
}

impl Shard {
    /// Accepts as many connections as the limits allow.
    pub(super) fn arm_accepts(&mut self) {
        if self.draining {
            return;
        }
        if self.listeners.paused_until.is_some_and(|until| self.now < until) {
            return;
        }
        self.listeners.paused_until = None;
        // Accepts under way are not counted: a socket without one would starve its own queue. So a limit
        // may be exceeded by as many as are under way at once.
        if self.in_set_up >= self.serving.limits.handshakes_max || !self.counts.has_room() {
            return;
        }
        for (index, listener) in self.listeners.sockets.iter_mut().enumerate() {
            let Some(socket) = &listener.socket else { continue };
            while listener.under_way < ACCEPTS_PER_LISTENER {
                listener.under_way += 1;
                self.ring.accept(socket.as_fd(), Token::Accept(index));
            }
        }
    }

    pub(super) fn take_accepted(&mut self, listener: usize, accepted: io::Result<OwnedFd>) {
        self.listeners.sockets[listener].under_way -= 1;
        match accepted {
            // One that was accepted while the run was ending: its close tells the endpoint.
            Ok(_) if self.draining => {}
            Ok(endpoint) => self.open(endpoint),
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                self.listeners.paused_until = Some(self.now + self.serving.limits.accept_pause);
                self.mailer.push(FromShard::AcceptPaused(error));
            }
        }
        if self.draining {
            self.close_listeners();
        }
    }

    /// Cancels the accepts, and closes each socket as soon as none is under way on it.
    pub(super) fn close_listeners(&mut self) {
        for listener in &mut self.listeners.sockets {
            match &listener.socket {
                Some(_) if listener.under_way == 0 => listener.socket = None,
                Some(socket) => self.ring.cancel(socket.as_fd(), Token::CancelAccept),
                None => {}
            }
        }
    }
}

/// Errors of one connection, not of accepting.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            nix::libc::ECONNABORTED
                | nix::libc::ECANCELED
                | nix::libc::EINTR
                | nix::libc::EAGAIN
                | nix::libc::EPROTO
                | nix::libc::EPERM
        )
    )
}
