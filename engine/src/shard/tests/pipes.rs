//! The pipes that mlets are offered in tests: one end is the session's, the other the mlet's.
//!
//! Not here: what mlets do with them (`peers.rs`).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::rc::Rc;

use super::peers::SOCKET_LEN;
use crate::driver::simulated::{Remote, SharedRemote};

/// Pipes tell of room only when there is so much.
const PAGE_LEN: usize = 4096;

/// Both pipes of a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipes {
    pub(super) to_mlet: Rc<RefCell<ToMlet>>,
    pub(super) from_mlet: Rc<RefCell<FromMlet>>,
}

impl Pipes {
    /// What lies behind the session's ends.
    pub(super) fn remotes(&self) -> [SharedRemote; 2] {
        let to_mlet: SharedRemote = Rc::<RefCell<ToMlet>>::clone(&self.to_mlet);
        [to_mlet, Rc::<RefCell<FromMlet>>::clone(&self.from_mlet)]
    }

    /// The mlet has no end of them any more.
    pub(super) fn close(&self) {
        self.to_mlet.borrow_mut().has_no_reader = true;
        self.from_mlet.borrow_mut().has_no_writer = true;
    }
}

/// The pipe that the session writes to.
#[derive(Debug, Default)]
pub(super) struct ToMlet {
    pub(super) bytes: VecDeque<u8>,
    pub(super) has_no_reader: bool,
    pub(super) has_no_writer: bool,
    /// Always empty: nothing comes from there.
    nothing: VecDeque<u8>,
}

/// The pipe that the session reads.
#[derive(Debug, Default)]
pub(super) struct FromMlet {
    pub(super) bytes: VecDeque<u8>,
    pub(super) has_no_writer: bool,
    /// The session has closed its end with bytes unread.
    pub(super) was_cut_off: bool,
}

impl Remote for ToMlet {
    fn sent(&mut self) -> &mut VecDeque<u8> {
        &mut self.nothing
    }

    fn end(&self) -> Option<Result<(), ErrorKind>> {
        None
    }

    fn room(&self) -> Result<usize, ErrorKind> {
        match SOCKET_LEN.saturating_sub(self.bytes.len()) {
            _ if self.has_no_reader => Err(ErrorKind::BrokenPipe),
            room if room < PAGE_LEN => Ok(0),
            room => Ok(room),
        }
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    fn arrive_end(&mut self) {
        panic!("a pipe is not shut down");
    }

    fn untaken_len(&self) -> usize {
        self.bytes.len()
    }

    fn lose(&mut self, _resets: bool) {
        self.has_no_writer = true;
    }
}

impl Remote for FromMlet {
    fn sent(&mut self) -> &mut VecDeque<u8> {
        &mut self.bytes
    }

    fn end(&self) -> Option<Result<(), ErrorKind>> {
        self.has_no_writer.then_some(Ok(()))
    }

    fn room(&self) -> Result<usize, ErrorKind> {
        panic!("the session only reads this pipe");
    }

    fn arrive(&mut self, _bytes: &[u8]) {
        panic!("the session only reads this pipe");
    }

    fn arrive_end(&mut self) {
        panic!("a pipe is not shut down");
    }

    fn untaken_len(&self) -> usize {
        0
    }

    fn lose(&mut self, resets: bool) {
        self.was_cut_off = resets;
    }
}
