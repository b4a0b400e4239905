//! What the task of a socket is told, and what it tells.
//!
//! Not here: what it does, capturing included (`tcp`, `datagram`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packetlab::message::Socket;
use tokio::sync::Notify;

use super::kernel_socket::Capture;
use super::schedule::Order;
use super::table::{SocketNumber, SocketTable};

/// What the tasks of the sockets and their session have in common.
#[derive(Debug)]
pub(super) struct SharedTable {
    pub(super) table: Mutex<SocketTable>,
    /// Something is to be told.
    pub(super) news: Notify,
    /// There is room again in a receive buffer, for all that wait.
    pub(super) room: Notify,
}

impl SharedTable {
    pub(super) fn table(&self) -> MutexGuard<'_, SocketTable> {
        locked(&self.table)
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a socket's task is told.
#[derive(Debug)]
pub(super) enum TaskMessage {
    /// NSEND or NCTL. The table bounds how many wait.
    Order(Order),
    /// NCAP: a capture is there to be taken.
    Capture,
}

/// The latest capture that was asked for, until the socket's task takes it. Only one is kept: each holds a
/// descriptor, and a mlet can ask for them faster than a task that is stopped in sending takes them.
pub(super) type NextCapture = Arc<Mutex<Option<Capture>>>;

/// What a task knows of its socket and tells about it.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    pub(super) shared: Arc<SharedTable>,
    pub(super) number: SocketNumber,
    pub(super) socket: Socket,
    pub(super) next_capture: NextCapture,
}

impl Reporter {
    /// The capture that an [`TaskMessage::Capture`] announced.
    pub(super) fn take_capture(&self) -> Option<Capture> {
        locked(&self.next_capture).take()
    }

    /// Makes an entry and wakes the session.
    pub(super) fn report(&self, entry: impl FnOnce(&mut SocketTable, SocketNumber)) {
        entry(&mut self.shared.table(), self.number);
        self.shared.news.notify_one();
    }
}
