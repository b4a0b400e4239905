//! Messages waiting for room in a socket between pktxpmgr's processes, in order.
//!
//! Not here: what they say. Invariant: a descriptor is open here until it is sent, and no longer.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::libc;

use crate::sys::fd_passing;

/// What came of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left to send.
    All,
    /// The socket is full; go on when it is writable.
    WhenWritable,
    /// This user has too many descriptors in flight (ETOOMANYREFS), or memory is short: the socket being writable
    /// tells nothing, go on after a pause of some milliseconds.
    AfterPause,
}

/// The queue. It has no limit of its own; each side bounds what it puts in.
#[derive(Debug, Default)]
pub(super) struct PacketQueue(VecDeque<(Vec<u8>, Vec<OwnedFd>)>);

impl PacketQueue {
    pub(super) fn push(&mut self, message: Vec<u8>, fds: Vec<OwnedFd>) {
        self.0.push_back((message, fds));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends what goes without waiting; descriptors are closed here once they are sent.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<Flushed> {
        while let Some((message, fds)) = self.0.front() {
            match fd_passing::send(socket, message, fds) {
                Ok(_) => drop(self.0.pop_front()),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::WhenWritable);
                }
                Err(error) if fd_passing::is_later(&error) => return Ok(Flushed::AfterPause),
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::All)
    }
}
