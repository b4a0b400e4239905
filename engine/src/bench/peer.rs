//! The far end of a socket of a simulated shard: bytes that were sent, and bytes that have come.
//!
//! Not here: what they mean. It takes all that it is sent at once, and holds any number of bytes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::rc::Rc;

use crate::driver::simulated::{Remote, SharedRemote};

/// An endpoint's connection or a mlet's socket, for whoever plays the one or the other.
#[derive(Debug, Clone, Default)]
pub struct Peer(Rc<RefCell<FarEnd>>);

#[derive(Debug, Default)]
struct FarEnd {
    sent: VecDeque<u8>,
    has_ended: bool,
    received: Vec<u8>,
    is_at_end: bool,
}

impl Peer {
    /// Sends bytes to the shard.
    pub fn send(&self, bytes: &[u8]) {
        self.0.borrow_mut().sent.extend(bytes);
    }

    /// Sends nothing more.
    pub fn end(&self) {
        self.0.borrow_mut().has_ended = true;
    }

    /// How many bytes of the shard have come and were not taken.
    #[must_use]
    pub fn received_len(&self) -> usize {
        self.0.borrow().received.len()
    }

    /// Appends the bytes that have come to `into`.
    pub fn take(&self, into: &mut Vec<u8>) {
        into.append(&mut self.0.borrow_mut().received);
    }

    /// The shard sends nothing more.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.0.borrow().is_at_end
    }

    /// The same, for the kernel.
    pub(super) fn remote(&self) -> SharedRemote {
        Rc::<RefCell<FarEnd>>::clone(&self.0)
    }
}

impl Remote for FarEnd {
    fn sent(&mut self) -> &mut VecDeque<u8> {
        &mut self.sent
    }

    fn end(&self) -> Option<Result<(), ErrorKind>> {
        self.has_ended.then_some(Ok(()))
    }

    fn room(&self) -> Result<usize, ErrorKind> {
        Ok(usize::MAX)
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    fn arrive_end(&mut self) {
        self.is_at_end = true;
    }

    fn untaken_len(&self) -> usize {
        self.received.len()
    }

    fn lose(&mut self, _resets: bool) {
        self.is_at_end = true;
    }
}
