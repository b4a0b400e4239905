//! Accepting: a shard's own listening sockets, and when not to accept.
//!
//! At a limit nobody who comes is refused. Without a place in set-up who was accepted waits here, and sources take turns
//! (`set_up_queue.rs`). Without a descriptor, the shard accepts no more, and the kernel's queue waits. Those who hold a place
//! and do not go on make room (`admission.rs`), and a source with too many connections in set-up is turned away.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Permit};
use super::operations::Token;
use super::receive_size::Intake;
use super::state::Shard;
use super::under_way::UnderWay;
use crate::driver::Driver;
use crate::guards::{Guard, holds};
use crate::mailbox::{FromShard, Registration};
use crate::proto::session::{Session, SetUpStage};
use crate::records::Via;

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
                let pause = self.experiments.limits.accept_pause;
                let pause = if holds(Guard::PausesAccepting) { pause } else { Duration::ZERO };
                let paused = self.listeners.paused_until.replace(self.now + pause);
                // The others under way fail like the first, and have nothing to add.
                if paused.is_none_or(|until| until <= self.now) {
                    self.mailer.push(FromShard::AcceptPaused(error));
                }
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

    /// Begins the session of an accepted connection; it is counted as open already.
    pub(super) fn open(&mut self, endpoint: OwnedFd, peer: SocketAddr) {
        if !self.admits(peer.ip()) {
            self.mailer.push(FromShard::SourceRefused(peer.ip()));
            self.driver.close(endpoint);
            return self.counts.close_session();
        }
        let session = Session::new(peer.ip(), Arc::clone(&self.experiments), self.now);
        let slot = self.insert(endpoint, peer, session, None);
        self.apply(slot);
    }

    pub(super) fn insert(
        &mut self,
        endpoint: OwnedFd,
        peer: SocketAddr,
        mut session: Session,
        in_backlog: Option<Registration>,
    ) -> usize {
        let of_run = self.sessions_begun * self.count as u64 + self.number as u64 + 1;
        let id = self.sessions_before + of_run;
        self.sessions_begun += 1;
        session.show(self.tees.as_ref().and_then(|tees| tees.of_session(id)));
        self.stages.enter(SetUpStage::Waiting);
        self.has_news = true;
        self.connections.insert(Box::new(Connection {
            id,
            peer,
            via: if in_backlog.is_some() { Via::Proxy } else { Via::Direct },
            accepted: self.now,
            accepted_wall: self.wall,
            in_backlog,
            session,
            endpoint,
            mlet: None,
            under_way: UnderWay::default(),
            permit: Permit::None,
            mlet_input_ended: false,
            timer: None,
            in_set_up: true,
            stage: SetUpStage::Waiting,
            occupies_set_up: false,
            may_go: None,
            candidate: None,
            has_come: false,
            hello_unread: false,
            makes_room: false,
            over: None,
            cancelled: false,
            from_endpoint: Intake::default(),
            from_mlet: Intake::default(),
            facts: None,
            latency: None,
        }))
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
