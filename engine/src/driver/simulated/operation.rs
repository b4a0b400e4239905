//! What was asked of the simulated kernel and has not completed.

use std::os::fd::{OwnedFd, RawFd};

use crate::driver::Outgoing;

/// An operation under way.
pub(super) struct Operation<T> {
    pub(super) socket: RawFd,
    pub(super) token: T,
    pub(super) kind: Kind<T>,
    pub(super) is_cancelled: bool,
}

/// What an operation does.
pub(super) enum Kind<T> {
    Accept,
    Receive(u16),
    Send {
        outgoing: Outgoing,
        sent: usize,
        then: Option<(RawFd, u16, T)>,
    },
    /// A duplicate, to look at.
    Watch(OwnedFd),
    Cancel,
}
