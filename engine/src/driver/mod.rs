//! What a shard asks of the kernel: operations go in with a token, completions come out with it.
//!
//! ```text
//! operations.rs  the trait: every operation, and what it leads to
//! uring.rs       an io_uring: operations are started at once and complete by themselves
//! epoll.rs       readiness: operations are tried, and tried again when their socket is ready
//! ```
//!
//! A driver owns whatever an operation under way may touch. A block to send moves in and comes back with the completion;
//! receives draw from buffer groups that live as long as the driver.
//!
//! Not here: what a completion means. Invariant: a socket stays open until every operation on it has completed, or a
//! later descriptor of the same number would be meant; so sockets are closed through their driver.

mod epoll;
mod operations;
mod own_buffers;
mod ring_error;
#[cfg(any(test, feature = "bench"))]
#[cfg_attr(not(test), expect(dead_code, reason = "tests look at more of it than benchmarks"))]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;
mod uring;

use tracing::warn;

pub(crate) use self::epoll::Epoll;
pub(crate) use self::operations::{
    Completion, Driver, Event, GroupSize, Outgoing, Received, Stream,
};
pub use self::ring_error::RingError;
pub(crate) use self::uring::Uring;
use crate::config::Io;

/// Which driver a run uses; one for all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// [`Uring`].
    Uring,
    /// [`Epoll`].
    Epoll,
}

impl Backend {
    /// Chooses for `threads` shards with these buffer groups and the control thread: that they can all have a ring is
    /// tried, once.
    ///
    /// # Errors
    /// io_uring is asked for and cannot be used, or lacks what epoll would lack as well.
    pub(crate) fn choose(io: Io, threads: usize, groups: &[GroupSize]) -> Result<Self, RingError> {
        if io == Io::Epoll {
            return Ok(Self::Epoll);
        }
        let rings = || {
            let control = Uring::<()>::new(&[])?;
            let shards = (0..threads).map(|_| Uring::<()>::new(groups));
            shards.collect::<Result<Vec<_>, _>>().map(|shards| drop((shards, control)))
        };
        match rings() {
            Ok(()) => Ok(Self::Uring),
            Err(error) if io == Io::Auto && !error.is_want_of_files() => {
                warn!("{error}; until then epoll is used, which costs more of the processor");
                Ok(Self::Epoll)
            }
            Err(error) => Err(error),
        }
    }
}
