//! A kernel in memory, for tests: what an operation leads to, how much it moves and when it completes is drawn.
//!
//! Descriptors are real ones that lead nowhere, so that the code under test owns and closes them as it always does; what
//! lies behind one is a [`Remote`]. Time passes only here: a little at each wait, and as far as the timeout when nothing
//! can complete. What no driver may be asked for, such as closing a socket with an operation under way, is noted in
//! [`Kernel::faults`].
//!
//! Not here: what the remotes do. Invariant: equal draws lead to equal histories.

mod completing;
mod kernel;
mod operation;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use packetlab::time::Ticks;

pub(crate) use self::kernel::{Kernel, Remote, SharedRemote, nowhere};
use self::kernel::{NOBODY, Socket};
use self::operation::{Kind, Operation};
use super::own_buffers::OwnBuffers;
use super::{Completion, Driver, Event, GroupSize, Outgoing, Received, Stream};
use crate::sys::mlet_ends::MletEnds;

/// The driver.
pub(crate) struct Simulated<T> {
    kernel: Rc<RefCell<Kernel>>,
    operations: Vec<Operation<T>>,
    completed: VecDeque<Completion<T>>,
    /// Completions that a turn may take: those that were there when it began.
    due: usize,
    /// Completions that were there when the last wait ended.
    completed_last: usize,
    buffers: OwnBuffers,
    waits: u64,
}

impl<T: Copy> Simulated<T> {
    /// A driver with the given buffer groups, numbered from 0.
    pub(crate) fn new(kernel: Rc<RefCell<Kernel>>, groups: &[GroupSize]) -> Self {
        Self {
            kernel,
            operations: Vec::new(),
            completed: VecDeque::new(),
            due: 0,
            completed_last: 0,
            buffers: OwnBuffers::new(groups),
            waits: 0,
        }
    }

    /// Tokens of the operations that have not been taken as completed, those linked behind a send included.
    pub(crate) fn under_way(&self) -> Vec<T> {
        let linked = |operation: &Operation<T>| match operation.kind {
            Kind::Send { then: Some((_, _, token)), .. } => Some(token),
            _ => None,
        };
        let started = self.operations.iter().map(|operation| operation.token);
        let completed = self.completed.iter().map(|completion| completion.token);
        started.chain(self.operations.iter().filter_map(linked)).chain(completed).collect()
    }

    /// How many completions the last wait brought.
    pub(crate) fn completed_last(&self) -> usize {
        self.completed_last
    }

    /// OwnBuffers of all groups that are lent.
    pub(crate) fn lent_buffers(&self) -> usize {
        self.buffers.lent()
    }

    /// Connections that have been accepted, in completions that have not been taken.
    pub(crate) fn untaken_connections(&self) -> usize {
        let holds_one =
            |completion: &&Completion<T>| matches!(completion.event, Event::Accepted(Ok(_)));
        self.completed.iter().filter(holds_one).count()
    }

    /// OwnBuffers in completions that have not been taken.
    pub(crate) fn untaken_buffers(&self) -> usize {
        let holds_one = |completion: &&Completion<T>| matches!(&completion.event, Event::Received(Ok(received)) if received.buffer.is_some());
        self.completed.iter().filter(holds_one).count()
    }
}

impl<T: Copy> Driver<T> for Simulated<T> {
    fn prepare(&mut self, _socket: BorrowedFd<'_>) {}

    fn accept(&mut self, listener: BorrowedFd<'_>, token: T) {
        self.start(listener, token, Kind::Accept);
    }

    fn receive(&mut self, from: Stream<'_>, group: u16, token: T) {
        self.check_kind(from);
        self.start(from.as_fd(), token, Kind::Receive(group));
    }

    fn send(&mut self, to: Stream<'_>, outgoing: Outgoing, token: T) {
        self.check_kind(to);
        self.start(to.as_fd(), token, Kind::Send { outgoing, sent: 0, then: None });
    }

    fn send_then_receive(
        &mut self,
        (to, outgoing, token): (Stream<'_>, Outgoing, T),
        (from, group, receive_token): (Stream<'_>, u16, T),
    ) {
        self.check_kind(to);
        self.check_kind(from);
        let then = Some((from.number(), group, receive_token));
        self.start(to.as_fd(), token, Kind::Send { outgoing, sent: 0, then });
    }

    fn watch(&mut self, watched: BorrowedFd<'_>, token: T) {
        let duplicate = watched.try_clone_to_owned().expect("a descriptor is free");
        self.start(watched, token, Kind::Watch(duplicate));
    }

    fn cancel(&mut self, target: BorrowedFd<'_>, token: T) {
        let number = target.as_raw_fd();
        for operation in &mut self.operations {
            operation.is_cancelled |=
                operation.socket == number && !matches!(operation.kind, Kind::Cancel);
        }
        self.start(target, token, Kind::Cancel);
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.waits += 1;
        let is_able = |operation: &Operation<T>| operation.is_cancelled || self.is_ready(operation);
        let able = self.operations.iter().filter(|operation| is_able(operation)).count();
        let is_idle = able == 0 && self.completed.is_empty();
        let mut kernel = self.kernel.borrow_mut();
        kernel.is_looked_at = false;
        if is_idle {
            kernel.idle(timeout);
            (self.due, self.completed_last) = (0, 0);
            return Ok(());
        }
        kernel.go_on(timeout);
        let mut operations = std::mem::take(&mut self.operations);
        let mut chances = 1;
        if !kernel.is_calm {
            chances = [1, 2, 8][kernel.random.below(3)];
            for index in (1..operations.len()).rev() {
                operations.swap(index, kernel.random.below(index + 1));
            }
        }
        drop(kernel);
        let mut left_to_wait = able;
        for operation in operations {
            if !operation.is_cancelled && !self.is_ready(&operation) {
                self.operations.push(operation);
                continue;
            }
            left_to_wait = left_to_wait.saturating_sub(1);
            let must_go_on = left_to_wait == 0 && self.completed.is_empty();
            if must_go_on || self.kernel.borrow_mut().random.below(chances) == 0 {
                self.go_on(operation);
            } else {
                self.operations.push(operation);
            }
        }
        self.due = self.completed.len();
        self.completed_last = self.due;
        Ok(())
    }

    fn completions(&mut self) -> usize {
        self.completed.len()
    }

    fn next_completion(&mut self) -> Option<Completion<T>> {
        let next = self.completed.pop_front()?;
        match self.due.checked_sub(1) {
            Some(due) => self.due = due,
            None => {
                let fault = "a turn takes what it has started itself and may never end";
                self.kernel.borrow_mut().faults.push(fault.into());
            }
        }
        Some(next)
    }

    fn bytes(&self, received: &Received) -> &[u8] {
        self.buffers.bytes(received)
    }

    fn give_back(&mut self, received: Received) {
        self.buffers.give_back(&received);
    }

    fn close(&mut self, socket: OwnedFd) {
        let number = socket.as_raw_fd();
        let is_on = |operation: &Operation<T>| {
            let linked = match operation.kind {
                Kind::Send { then: Some((source, ..)), .. } => source == number,
                _ => false,
            };
            operation.socket == number || linked
        };
        let mut kernel = self.kernel.borrow_mut();
        if self.operations.iter().any(is_on) {
            kernel.faults.push(format!("socket {number} was closed with an operation under way"));
        }
        match kernel.sockets.get_mut(number as usize).and_then(Option::take) {
            Some(Socket::Stream { remote, .. }) => {
                let mut remote = remote.borrow_mut();
                let resets = !remote.sent().is_empty();
                remote.lose(resets);
            }
            Some(Socket::Listener { waiting }) => {
                for socket in waiting {
                    let number = socket.as_raw_fd() as usize;
                    if let Some(Socket::Stream { remote, .. }) = kernel.sockets[number].take() {
                        remote.borrow_mut().lose(true);
                    }
                }
            }
            None => kernel.faults.push(format!("socket {number} was closed twice")),
        }
    }

    fn enters(&self) -> u64 {
        self.waits
    }

    fn clocks(&self) -> (Instant, Ticks) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.clock_reads += 1;
        if std::mem::replace(&mut kernel.is_looked_at, true) {
            let work = kernel.work;
            kernel.pass(work);
        }
        (kernel.now, kernel.wall)
    }

    fn session_pair(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.lacks_descriptors || kernel.refuses(8) {
            return Err(Errno::EMFILE.into());
        }
        let mlets = nowhere();
        let remote = (kernel.pair_with)(mlets.as_raw_fd());
        let ours = kernel.connection(remote, NOBODY);
        Ok((ours, mlets))
    }

    fn session_pipes(&mut self) -> io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.lacks_descriptors || kernel.draws(8) {
            return Err(Errno::EPERM.into());
        }
        let mlets = [nowhere(), nowhere()];
        let numbers = mlets.each_ref().map(AsRawFd::as_raw_fd);
        let pipes_with = kernel.pipes_with.as_mut().ok_or(Errno::EPERM)?;
        let remotes = pipes_with(numbers);
        Ok((remotes.map(|remote| kernel.pipe(remote)), mlets))
    }

    fn pass(&mut self, _to: BorrowedFd<'_>, packet: &[u8], ends: MletEnds) -> Result<(), MletEnds> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.refuses(3) {
            return Err(ends);
        }
        kernel.passed.push_back((packet.to_vec(), ends));
        Ok(())
    }

    fn peer(&self, socket: BorrowedFd<'_>) -> Option<SocketAddr> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.refuses(50) {
            return None;
        }
        match kernel.stream(socket.as_raw_fd())? {
            Socket::Stream { peer, .. } => Some(*peer),
            Socket::Listener { .. } => None,
        }
    }

    fn shut_down(&mut self, socket: BorrowedFd<'_>, how: Shutdown) {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.is_pipe(socket.as_raw_fd()) {
            kernel.faults.push("a pipe cannot be shut down".into());
        }
        if let Some(Socket::Stream { remote, input_is_shut, output_is_shut, .. }) =
            kernel.socket_mut(socket.as_raw_fd())
        {
            *input_is_shut |= how != Shutdown::Write;
            if how != Shutdown::Read && !std::mem::replace(output_is_shut, true) {
                remote.borrow_mut().arrive_end();
            }
        }
    }

    fn acknowledge_at_once(&mut self, _socket: BorrowedFd<'_>) {}

    fn has_hung_up(&self, socket: BorrowedFd<'_>) -> bool {
        match self.kernel.borrow().stream(socket.as_raw_fd()) {
            Some(Socket::Stream { remote, input_is_shut, .. }) => {
                *input_is_shut || remote.borrow().end().is_some()
            }
            _ => false,
        }
    }

    fn untaken_len(&self, socket: BorrowedFd<'_>) -> usize {
        let remote = self.kernel.borrow().remote(socket.as_raw_fd());
        remote.map_or(0, |remote| remote.borrow().untaken_len())
    }

    fn waiting_len(&self, pipe: BorrowedFd<'_>) -> usize {
        let remote = self.kernel.borrow().remote(pipe.as_raw_fd());
        remote.map_or(0, |remote| {
            let mut remote = remote.borrow_mut();
            remote.untaken_len() + remote.sent().len()
        })
    }
}
