//! Accepting: a shard's own listening sockets, and when not to accept.
//!
//! At a limit nobody who comes is refused. Without a place in set-up who was accepted waits here, and sources take turns
//! (`waiting.rs`). Without a descriptor, the shard accepts no more, and the kernel's queue waits. Those who hold a place
//! and do not go on make room (`admission.rs`), and a source with too many connections in set-up is turned away.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::waiting::Waiting;
use super::{Driver, Shard, Token};
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
    /// Accepted, but there are as many sessions as there may be; no more than were under way when that was so.
    accepted: VecDeque<OwnedFd>,
    /// These count as open sessions.
    waiting: Waiting,
    paused_until: Option<Instant>,
}

struct Listener {
    /// `None` once closed.
    socket: Option<TcpListener>,
    under_way: usize,
    /// The accepts have been cancelled, once.
    is_cancelled: bool,
    /// A cancellation under way.
    cancels: bool,
}

impl Listeners {
    pub(super) fn new(sockets: Vec<TcpListener>) -> Self {
        let sockets = sockets.into_iter().map(|socket| Listener {
            socket: Some(socket),
            under_way: 0,
            is_cancelled: false,
            cancels: false,
        });
        Self {
            sockets: sockets.collect(),
            accepted: VecDeque::new(),
            waiting: Waiting::default(),
            paused_until: None,
        }
    }

    /// No socket is left, nor an accept on one.
    pub(super) fn are_closed(&self) -> bool {
        self.sockets.iter().all(|listener| listener.socket.is_none())
    }

    /// When accepting goes on after a pause.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Connections that were accepted and find no descriptor for a session.
    pub(super) fn waiting_for_descriptor(&self) -> usize {
        self.accepted.len()
    }

    /// Connections that find no place in set-up, or have not had their turn yet.
    pub(super) fn waiting_for_place(&self) -> usize {
        self.waiting.len()
    }
}

impl<D: Driver<Token>> Shard<D> {
    /// Opens sessions for those who wait, as many as the limits allow, and accepts more while there are descriptors.
    pub(super) fn admit(&mut self) {
        self.room_due = None;
        while let Some(endpoint) = self.listeners.accepted.pop_front() {
            if !self.counts.open_session() {
                self.listeners.accepted.push_front(endpoint);
                self.make_room(false);
                self.listeners.paused_until = Some(self.now + ROOM_RETRY);
                break;
            }
            match self.driver.peer(endpoint.as_fd()) {
                Some(peer) => self.listeners.waiting.push(endpoint, peer),
                // It has disconnected already.
                None => {
                    self.driver.close(endpoint);
                    self.counts.close_session();
                }
            }
        }
        // A few each turn: what they have sent takes their places only when it has been received.
        for _ in 0..ACCEPTS {
            if !self.has_room_for_set_up() {
                break;
            }
            let Some((endpoint, peer)) = self.listeners.waiting.pop() else { break };
            self.open(endpoint, peer);
        }
        if !self.has_room_for_set_up() {
            self.make_room(true);
        }
        if self.listeners.paused_until.is_some_and(|until| until <= self.now) {
            self.listeners.paused_until = None;
        }
        let listeners = &mut self.listeners;
        let is_full = !listeners.accepted.is_empty() || listeners.waiting.is_full();
        if self.draining || listeners.paused_until.is_some() || is_full {
            return;
        }
        let accepts = accepts_per_listener(listeners.sockets.len());
        for (index, listener) in listeners.sockets.iter_mut().enumerate() {
            let Some(socket) = &listener.socket else { continue };
            while listener.under_way < accepts {
                listener.under_way += 1;
                self.driver.accept(socket.as_fd(), Token::Accept(index));
            }
        }
    }

    pub(super) fn take_accepted(&mut self, listener: usize, accepted: io::Result<OwnedFd>) {
        self.listeners.sockets[listener].under_way -= 1;
        match accepted {
            // One that was accepted while the run was ending: its close tells the endpoint.
            Ok(endpoint) if self.draining => self.driver.close(endpoint),
            Ok(endpoint) => self.listeners.accepted.push_back(endpoint),
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                self.listeners.paused_until = Some(self.now + self.experiments.limits.accept_pause);
                self.mailer.push(FromShard::AcceptPaused(error));
            }
        }
        if self.draining {
            self.close_listeners();
        }
    }

    pub(super) fn take_accepts_cancelled(&mut self, listener: usize) {
        self.listeners.sockets[listener].cancels = false;
        self.close_listeners();
    }

    /// Cancels the accepts, and closes each socket as soon as nothing is under way on it.
    pub(super) fn close_listeners(&mut self) {
        for endpoint in std::mem::take(&mut self.listeners.accepted) {
            self.driver.close(endpoint);
        }
        while let Some((endpoint, _)) = self.listeners.waiting.pop() {
            self.driver.close(endpoint);
            self.counts.close_session();
        }
        for (index, listener) in self.listeners.sockets.iter_mut().enumerate() {
            if listener.under_way == 0 && !listener.cancels {
                if let Some(socket) = listener.socket.take() {
                    self.driver.close(socket.into());
                }
            } else if let Some(socket) = &listener.socket
                && !std::mem::replace(&mut listener.is_cancelled, true)
            {
                listener.cancels = true;
                self.driver.cancel(socket.as_fd(), Token::CancelAccept(index));
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
