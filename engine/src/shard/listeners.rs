//! A shard's own listening sockets, and who was accepted on them and waits.
//!
//! Not here: accepting (`accepting.rs`).

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::set_up_queue::Waiting;

/// The listening sockets of one shard.
pub(super) struct Listeners {
    pub(super) sockets: Vec<Listener>,
    /// Accepted, but there are as many sessions as there may be; no more than were under way when that was so.
    pub(super) accepted: VecDeque<OwnedFd>,
    /// These count as open sessions.
    pub(super) waiting: Waiting,
    pub(super) paused_until: Option<Instant>,
}

pub(super) struct Listener {
    /// `None` once closed.
    pub(super) socket: Option<TcpListener>,
    pub(super) under_way: usize,
    /// The accepts have been cancelled, once.
    pub(super) is_cancelled: bool,
    /// A cancellation under way.
    pub(super) cancels: bool,
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
