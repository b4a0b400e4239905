//! A kernel in memory, for tests: what an operation leads to, how much it moves and when it completes is drawn.
//!
//! Descriptors are real ones that lead nowhere, so that the code under test owns and closes them as it always does; what
//! lies behind one is a [`Remote`]. Time passes only here: a little at each wait, and as far as the timeout when nothing
//! can complete. What no driver may be asked for, such as closing a socket with an operation under way, is noted in
//! [`Kernel::faults`].
//!
//! Not here: what the remotes do. Invariant: equal draws lead to equal histories.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use packetlab::time::Ticks;

use super::buffers::Buffers;
use super::{Completion, Driver, Event, GroupSize, Outgoing, Received};
use crate::random::Random;

/// The other side of a stream.
pub(crate) trait Remote {
    /// What it has sent and we have not received.
    fn sent(&mut self) -> &mut VecDeque<u8>;

    /// How its output ends behind that: `Ok` is an end, an error a connection that broke.
    fn end(&self) -> Option<Result<(), ErrorKind>>;

    /// How many bytes it takes now; an error if it takes none ever again.
    fn room(&self) -> Result<usize, ErrorKind>;

    /// It gets these bytes.
    fn arrive(&mut self, bytes: &[u8]);

    /// Nothing follows what it got.
    fn arrive_end(&mut self);

    /// Bytes that it has got and not looked at.
    fn untaken_len(&self) -> usize;

    /// Our socket was closed; `resets`: with bytes unread, so that TCP throws away what was not looked at.
    fn lose(&mut self, resets: bool);
}

pub(crate) type SharedRemote = Rc<RefCell<dyn Remote>>;

/// What surrounds the driver, and is shared with whoever plays the remotes.
pub(crate) struct Kernel {
    /// From which everything is drawn.
    pub(crate) random: Random,
    /// Operations complete wholly and in order, and nothing is refused.
    pub(crate) is_calm: bool,
    /// The monotonic clock.
    pub(crate) now: Instant,
    /// The wall clock.
    pub(crate) wall: Ticks,
    /// Nothing could complete at the last wait, and it had no timeout.
    pub(crate) is_idle: bool,
    /// What was asked for and must not be.
    pub(crate) faults: Vec<String>,
    /// How often something that may be refused for a while was.
    pub(crate) refusals: usize,
    /// Makes the remote of a session pair, whose other end has this number.
    pair_with: Box<dyn FnMut(RawFd) -> SharedRemote>,
    /// By number of the descriptor.
    sockets: Vec<Option<Socket>>,
}

enum Socket {
    Listener { waiting: VecDeque<OwnedFd> },
    Stream { remote: SharedRemote, peer: SocketAddr, input_is_shut: bool, output_is_shut: bool },
}

/// The driver.
pub(crate) struct Simulated<T> {
    kernel: Rc<RefCell<Kernel>>,
    operations: Vec<Operation<T>>,
    completed: VecDeque<Completion<T>>,
    /// Completions that a turn may take: those that were there when it began.
    due: usize,
    /// Completions that were there when the last wait ended.
    completed_last: usize,
    buffers: Buffers,
    waits: u64,
}

struct Operation<T> {
    socket: RawFd,
    token: T,
    kind: Kind<T>,
    is_cancelled: bool,
}

enum Kind<T> {
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

impl Kernel {
    /// A kernel that draws from `random`.
    pub(crate) fn new(
        random: Random,
        now: Instant,
        wall: Ticks,
        pair_with: Box<dyn FnMut(RawFd) -> SharedRemote>,
    ) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            random,
            is_calm: false,
            now,
            wall,
            is_idle: false,
            faults: Vec::new(),
            refusals: 0,
            pair_with,
            sockets: Vec::new(),
        }))
    }

    /// A listening socket.
    pub(crate) fn listener(&mut self) -> TcpListener {
        let socket = nowhere();
        let listener = Socket::Listener { waiting: VecDeque::new() };
        self.enter(&socket, listener);
        socket.into()
    }

    /// A connection that is made, to `remote` at `peer`.
    pub(crate) fn connection(&mut self, remote: SharedRemote, peer: SocketAddr) -> OwnedFd {
        let socket = nowhere();
        let stream = Socket::Stream { remote, peer, input_is_shut: false, output_is_shut: false };
        self.enter(&socket, stream);
        socket
    }

    /// Lets a connection wait at a listening socket; false if that is closed.
    pub(crate) fn connect(
        &mut self,
        listener: RawFd,
        remote: SharedRemote,
        peer: SocketAddr,
    ) -> bool {
        if !matches!(self.socket(listener), Some(Socket::Listener { .. })) {
            return false;
        }
        let socket = self.connection(remote, peer);
        if let Some(Socket::Listener { waiting }) = self.socket_mut(listener) {
            waiting.push_back(socket);
        }
        true
    }

    /// Streams of ours that are open, those included that wait to be accepted.
    pub(crate) fn streams(&self) -> usize {
        let is_stream = |socket: &&Socket| matches!(socket, Socket::Stream { .. });
        self.sockets.iter().flatten().filter(is_stream).count()
    }

    /// Those that wait to be accepted.
    pub(crate) fn waiting_streams(&self) -> usize {
        let waiting = self.sockets.iter().flatten().map(|socket| match socket {
            Socket::Listener { waiting } => waiting.len(),
            Socket::Stream { .. } => 0,
        });
        waiting.sum()
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, period: Duration) {
        self.now += period;
        self.wall = Ticks(self.wall.0 + period.as_nanos() as u64);
    }

    /// One of `chances` comes up.
    fn draws(&mut self, chances: usize) -> bool {
        !self.is_calm && self.random.below(chances) == 0
    }

    /// Whether what may be refused for a while is.
    fn refuses(&mut self, chances: usize) -> bool {
        let refuses = self.draws(chances);
        self.refusals += usize::from(refuses);
        refuses
    }

    /// How many of so many bytes an operation moves.
    fn part_of(&mut self, len: usize) -> usize {
        if len > 0 && self.draws(2) { self.random.size(len) } else { len }
    }

    fn enter(&mut self, descriptor: &OwnedFd, socket: Socket) {
        let number = descriptor.as_raw_fd();
        let index = number as usize;
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, || None);
        }
        if self.sockets[index].replace(socket).is_some() {
            self.faults.push(format!("socket {number} was closed behind the driver's back"));
        }
    }

    fn socket(&self, number: RawFd) -> Option<&Socket> {
        self.sockets.get(number as usize)?.as_ref()
    }

    fn socket_mut(&mut self, number: RawFd) -> Option<&mut Socket> {
        self.sockets.get_mut(number as usize)?.as_mut()
    }

    fn stream(&self, number: RawFd) -> Option<&Socket> {
        self.socket(number).filter(|socket| matches!(socket, Socket::Stream { .. }))
    }

    fn remote(&self, number: RawFd) -> Option<SharedRemote> {
        match self.stream(number)? {
            Socket::Stream { remote, .. } => Some(Rc::clone(remote)),
            Socket::Listener { .. } => None,
        }
    }
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
            buffers: Buffers::new(groups),
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

    /// Buffers of all groups that are lent.
    pub(crate) fn lent_buffers(&self) -> usize {
        self.buffers.lent()
    }

    /// Buffers in completions that have not been taken.
    pub(crate) fn untaken_buffers(&self) -> usize {
        let holds_one = |completion: &&Completion<T>| matches!(&completion.event, Event::Received(Ok(received)) if received.buffer.is_some());
        self.completed.iter().filter(holds_one).count()
    }

    fn start(&mut self, socket: BorrowedFd<'_>, token: T, kind: Kind<T>) {
        let socket = socket.as_raw_fd();
        self.check_start(socket, &kind);
        let operation = Operation { socket, token, kind, is_cancelled: false };
        // A driver may complete what it can at once.
        if self.is_ready(&operation) && self.kernel.borrow_mut().draws(6) {
            self.go_on(operation);
        } else {
            self.operations.push(operation);
        }
    }

    /// A stream has one operation of a kind under way, and some cancellations at most.
    fn check_start(&self, socket: RawFd, kind: &Kind<T>) {
        const CANCELS_MAX: usize = 3;
        let mut kernel = self.kernel.borrow_mut();
        let under_way = |is_of_kind: fn(&Kind<T>) -> bool| {
            let is_it = |one: &&Operation<T>| one.socket == socket && is_of_kind(&one.kind);
            self.operations.iter().filter(is_it).count()
        };
        let (count, max) = match kind {
            Kind::Receive(_) => (under_way(|kind| matches!(kind, Kind::Receive(_))), 0),
            Kind::Send { .. } => (under_way(|kind| matches!(kind, Kind::Send { .. })), 0),
            Kind::Cancel if kernel.stream(socket).is_some() => {
                (under_way(|kind| matches!(kind, Kind::Cancel)), CANCELS_MAX)
            }
            _ => return,
        };
        if count > max {
            kernel.faults.push(format!("{count} operations of a kind at once on socket {socket}"));
        }
    }

    /// Whether the operation would not wait.
    fn is_ready(&self, operation: &Operation<T>) -> bool {
        let kernel = self.kernel.borrow();
        match (&operation.kind, kernel.socket(operation.socket)) {
            (Kind::Cancel, _) => true,
            (Kind::Watch(watched), _) => is_readable(watched.as_fd()),
            (Kind::Accept, Some(Socket::Listener { waiting })) => !waiting.is_empty(),
            (Kind::Receive(_), Some(Socket::Stream { remote, input_is_shut, .. })) => {
                let mut remote = remote.borrow_mut();
                *input_is_shut || remote.end().is_some() || !remote.sent().is_empty()
            }
            (Kind::Send { .. }, Some(Socket::Stream { remote, output_is_shut, .. })) => {
                *output_is_shut || remote.borrow().room() != Ok(0)
            }
            _ => false,
        }
    }

    /// Completes an operation that would not wait, or moves it on.
    fn go_on(&mut self, operation: Operation<T>) {
        let is_ready = self.is_ready(&operation);
        let Operation { socket, token, kind, is_cancelled } = operation;
        // A cancellation may find that the operation has completed already.
        let is_cancelled = is_cancelled && !(is_ready && self.kernel.borrow_mut().draws(2));
        match kind {
            Kind::Cancel => self.complete(token, Event::CancelDone),
            Kind::Watch(_) => self.complete(token, Event::Readable),
            Kind::Accept => {
                let accepted = if is_cancelled { cancelled() } else { self.accept_now(socket) };
                self.complete(token, Event::Accepted(accepted));
            }
            Kind::Receive(group) => {
                let received =
                    if is_cancelled { cancelled() } else { self.receive_now(socket, group) };
                self.complete(token, Event::Received(received));
            }
            Kind::Send { outgoing, mut sent, then } => {
                let moved = if is_cancelled {
                    cancelled()
                } else {
                    self.send_now(socket, &outgoing.block[outgoing.start + sent..outgoing.end])
                };
                sent += moved.as_ref().unwrap_or(&0);
                let is_whole = outgoing.start + sent == outgoing.end;
                if moved.is_ok() && then.is_some() && !is_whole {
                    let kind = Kind::Send { outgoing, sent, then };
                    self.operations.push(Operation { socket, token, kind, is_cancelled: false });
                    return;
                }
                let result = if sent > 0 { Ok(sent) } else { moved };
                self.complete(token, Event::Sent(outgoing.block, result));
                match then {
                    Some((source, group, token)) if is_whole => {
                        let kind = Kind::Receive(group);
                        let socket = source;
                        self.operations.push(Operation {
                            socket,
                            token,
                            kind,
                            is_cancelled: false,
                        });
                    }
                    Some((_, _, token)) => self.complete(token, Event::Received(cancelled())),
                    None => {}
                }
            }
        }
    }

    fn accept_now(&mut self, listener: RawFd) -> io::Result<OwnedFd> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.refuses(20) {
            let errors = [Errno::EMFILE, Errno::ECONNABORTED, Errno::ENOBUFS, Errno::EINTR];
            let index = kernel.random.below(errors.len());
            return Err(errors[index].into());
        }
        match kernel.socket_mut(listener) {
            Some(Socket::Listener { waiting }) => {
                waiting.pop_front().ok_or_else(|| Errno::EAGAIN.into())
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn receive_now(&mut self, socket: RawFd, group: u16) -> io::Result<Received> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.refuses(40) {
            return Err(Errno::ENOBUFS.into());
        }
        if kernel.refuses(60) {
            return Err(Errno::EINTR.into());
        }
        let Some(remote) = kernel.remote(socket) else { return Err(Errno::EBADF.into()) };
        let mut remote = remote.borrow_mut();
        let end = remote.end();
        let sent = remote.sent();
        if sent.is_empty()
            && let Some(Err(kind)) = end
        {
            return Err(kind.into());
        }
        self.buffers.receive(group, |memory| {
            let len = kernel.part_of(sent.len().min(memory.len()));
            let (front, back) = sent.as_slices();
            let front_len = len.min(front.len());
            memory[..front_len].copy_from_slice(&front[..front_len]);
            memory[front_len..len].copy_from_slice(&back[..len - front_len]);
            sent.drain(..len);
            Ok(len)
        })
    }

    fn send_now(&mut self, socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
        let mut kernel = self.kernel.borrow_mut();
        let is_shut = match kernel.stream(socket) {
            Some(Socket::Stream { output_is_shut, .. }) => *output_is_shut,
            _ => return Err(Errno::EBADF.into()),
        };
        let Some(remote) = kernel.remote(socket).filter(|_| !is_shut) else {
            return Err(Errno::EPIPE.into());
        };
        if kernel.refuses(60) {
            return Err(Errno::EINTR.into());
        }
        let mut remote = remote.borrow_mut();
        let len = kernel.part_of(remote.room()?.min(bytes.len()));
        remote.arrive(&bytes[..len]);
        Ok(len)
    }

    fn complete(&mut self, token: T, event: Event) {
        self.completed.push_back(Completion { token, event });
    }
}

impl<T: Copy> Driver<T> for Simulated<T> {
    fn prepare(&mut self, _socket: BorrowedFd<'_>) {}

    fn accept(&mut self, listener: BorrowedFd<'_>, token: T) {
        self.start(listener, token, Kind::Accept);
    }

    fn receive(&mut self, socket: BorrowedFd<'_>, group: u16, token: T) {
        self.start(socket, token, Kind::Receive(group));
    }

    fn send(&mut self, socket: BorrowedFd<'_>, outgoing: Outgoing, token: T) {
        self.start(socket, token, Kind::Send { outgoing, sent: 0, then: None });
    }

    fn send_then_receive(
        &mut self,
        (socket, outgoing, token): (BorrowedFd<'_>, Outgoing, T),
        (source, group, receive_token): (BorrowedFd<'_>, u16, T),
    ) {
        let then = Some((source.as_raw_fd(), group, receive_token));
        self.start(socket, token, Kind::Send { outgoing, sent: 0, then });
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
        kernel.is_idle = is_idle && timeout.is_none();
        if is_idle {
            kernel.pass(timeout.unwrap_or_default());
            (self.due, self.completed_last) = (0, 0);
            return Ok(());
        }
        let period = Duration::from_micros(kernel.random.below(300) as u64);
        kernel.pass(timeout.map_or(period, |timeout| timeout.min(period)));
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
        let kernel = self.kernel.borrow();
        (kernel.now, kernel.wall)
    }

    fn session_pair(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.refuses(8) {
            return Err(Errno::EMFILE.into());
        }
        let mlets = nowhere();
        let remote = (kernel.pair_with)(mlets.as_raw_fd());
        let ours = kernel.connection(remote, SocketAddr::from(([127, 0, 0, 1], 1)));
        Ok((ours, mlets))
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
        let remote = self.kernel.borrow().remote(socket.as_raw_fd());
        remote.is_some_and(|remote| remote.borrow().end().is_some())
    }

    fn untaken_len(&self, socket: BorrowedFd<'_>) -> usize {
        let remote = self.kernel.borrow().remote(socket.as_raw_fd());
        remote.map_or(0, |remote| remote.borrow().untaken_len())
    }
}

/// A descriptor that leads nowhere.
fn nowhere() -> OwnedFd {
    File::open("/dev/null").expect("a descriptor is free").into()
}

fn cancelled<R>() -> io::Result<R> {
    Err(Errno::ECANCELED.into())
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
