//! Accepting: a shard's own listening sockets, and when not to accept.
//!
//! At a limit nobody who comes is refused: what was accepted meanwhile waits here, first come first served, the
//! shard accepts no more, and the kernel's queue waits. Those who hold a place and do not go on make room
//! (`admission.rs`), and a source with too many connections in set-up is turned away.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{Shard, Token};
use crate::mailbox::FromShard;

/// Accepts under way on one shard, so that a storm is taken in several steps per turn.
const ACCEPTS: usize = 8;

/// How many connections a shard with so many listening sockets may have accepted and not begun to serve.
pub(crate) fn accepts_at_once(listeners: usize) -> usize {
    accepts_per_listener(listeners) * listeners
}

fn accepts_per_listener(listeners: usize) -> usize {
    ACCEPTS.div_ceil(listeners.max(1))
}

/// How soon a shard looks again for room among the sessions of all; when one ends on another shard,
/// nothing tells this one.
const ROOM_RETRY: Duration = Duration::from_millis(10);

/// The listening sockets of one shard.
pub(super) struct Listeners {
    sockets: Vec<Listener>,
    /// Accepted, but a limit is reached; no more than were under way when it was.
    waiting: VecDeque<OwnedFd>,
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
        Self { sockets: sockets.collect(), waiting: VecDeque::new(), paused_until: None }
    }

    /// No socket is left, nor an accept on one.
    pub(super) fn are_closed(&self) -> bool {
        self.sockets.iter().all(|listener| listener.socket.is_none())
    }

    /// When accepting goes on after a pause.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Connections that were accepted and find no place.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl Shard {
    /// Opens sessions for those who wait, as many as the limits allow, and accepts more when nobody
    /// waits any longer.
    pub(super) fn admit(&mut self) {
        self.room_due = None;
        while let Some(endpoint) = self.listeners.waiting.pop_front() {
            let has_room = self.has_room_for_set_up();
            if has_room && self.counts.open_session() {
                self.open(endpoint);
                continue;
            }
            self.listeners.waiting.push_front(endpoint);
            self.make_room(!has_room);
            if has_room {
                self.listeners.paused_until = Some(self.now + ROOM_RETRY);
            }
            break;
        }
        if self.listeners.paused_until.is_some_and(|until| until <= self.now) {
            self.listeners.paused_until = None;
        }
        let listeners = &mut self.listeners;
        if self.draining || listeners.paused_until.is_some() || !listeners.waiting.is_empty() {
            return;
        }
        let accepts = accepts_per_listener(listeners.sockets.len());
        for (index, listener) in listeners.sockets.iter_mut().enumerate() {
            let Some(socket) = &listener.socket else { continue };
            while listener.under_way < accepts {
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
            Ok(endpoint) => self.listeners.waiting.push_back(endpoint),
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
        self.listeners.waiting.clear();
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
