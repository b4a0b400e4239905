//! What the supervisor tells the recorder: the reading ends of a mlet's pipes, and that it has ended.
//!
//! Not here: what becomes of them (`sys/recorder`). Invariant: nothing here waits but [`ToRecorder::finish`]; a recorder
//! that is gone is an error, upon which the reading ends that it has not taken are closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::sys::epoll::EpollFlags;

use crate::sys::children::now;
use crate::sys::mlet_owner::MletOwner;
use crate::sys::packet_queue::{Flushed, PacketQueue};
use crate::sys::recorder::{Capture, RecorderRequest};

/// Pause before sending again what the recorder has no room for, at the end.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The supervisor's end of its pair with the recorder.
pub(super) struct ToRecorder {
    socket: OwnedFd,
    /// Each message holds two descriptors, so that a recorder which takes none leaves no room for more pipes.
    queue: PacketQueue,
}

impl ToRecorder {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, queue: PacketQueue::default() }
    }

    /// A mlet runs that writes to these pipes, of standard output and standard error.
    pub(super) fn begin(&mut self, owner: MletOwner, capture: &Capture, read_ends: [OwnedFd; 2]) {
        let request = RecorderRequest::Begin { owner, capture: capture.clone() };
        // It came as part of a longer message.
        self.queue.push(request.encode().unwrap_or_default(), read_ends.into());
    }

    /// It has ended.
    pub(super) fn end(&mut self, owner: MletOwner) {
        let request = RecorderRequest::Ended { owner };
        // This request always fits.
        self.queue.push(request.encode().unwrap_or_default(), Vec::new());
    }

    /// What is to be waited for.
    pub(super) fn wanted(&self) -> EpollFlags {
        if self.queue.is_empty() { EpollFlags::empty() } else { EpollFlags::EPOLLOUT }
    }

    /// Sends what is queued, as much as goes without waiting.
    pub(super) fn flush(&mut self) -> io::Result<Flushed> {
        self.queue.flush(self.socket.as_fd())
    }

    /// Sends what is queued, and waits for that, but not for long.
    pub(super) fn finish(mut self, patience: Duration) {
        let until = now() + patience;
        while let Ok(Flushed::WhenWritable | Flushed::AfterPause) = self.flush() {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return;
            }
            thread::sleep(RETRY_PAUSE.min(left));
        }
    }
}

impl AsFd for ToRecorder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
