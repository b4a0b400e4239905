//! A bell by which one thread wakes another that waits for descriptors: an eventfd, readable while it rings.
//!
//! Not here: what it rings for (`mailbox/queue.rs`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A bell, silent at first.
#[derive(Debug)]
pub(crate) struct Bell(EventFd);

impl Bell {
    /// One that does not ring.
    ///
    /// # Errors
    /// No eventfd can be made.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_value_and_flags(0, flags)?))
    }

    /// Rings until it is silenced.
    pub(crate) fn ring(&self) {
        // It fails only when the bell has rung 2^64 times unheard.
        let _ = self.0.write(1);
    }

    /// Rings no more; whether it did.
    pub(crate) fn silence(&self) -> bool {
        self.0.read().is_ok()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
