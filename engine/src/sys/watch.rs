//! A descriptor's owner together with its readiness on the control thread's runtime.
//!
//! The runtime watches a duplicate, which lives exactly as long as the owner: closing one closes both.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for nothing, once: the runtime panics where waiting is barred.
///
/// # Errors
/// As the kernel says.
pub fn prove() -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO)?;
    Ok(())
}

/// An owner of a descriptor, watched. Field order: the duplicate goes first.
#[derive(Debug)]
pub struct Watched<T> {
    readiness: AsyncFd<OwnedFd>,
    /// The owner.
    pub inner: T,
}

impl<T: AsFd> Watched<T> {
    /// Watches `inner`'s descriptor; to be called within the runtime.
    ///
    /// # Errors
    /// No descriptor is free, or this one cannot be watched.
    #[allow(unsafe_code)]
    pub fn new(inner: T) -> io::Result<Self> {
        let duplicate = inner.as_fd().try_clone_to_owned()?;
        // SAFETY: an OwnedFd always gives the same descriptor and keeps it open until it is dropped.
        let readiness = unsafe { AsyncFd::register(duplicate) }.map_err(io::Error::from)?;
        Ok(Self { readiness, inner })
    }

    /// Waits until the descriptor may be ready, and forgets that it was: the next wait wants new readiness.
    ///
    /// # Errors
    /// The runtime is ending.
    pub async fn ready(&self, interest: Interest) -> io::Result<()> {
        self.readiness.ready(interest).await?.clear_ready();
        Ok(())
    }

    /// Ends the watch.
    pub fn into_inner(self) -> T {
        drop(self.readiness);
        self.inner
    }
}
