//! Readiness: each operation is tried, and tried again when epoll tells that its socket is ready.
//!
//! For machines on which io_uring is barred. Sockets may block or not: what would block says so because each call asks for
//! it; listening sockets, for which no call can ask, are made non-blocking when they are prepared.
//!
//! Not here: what an operation is for. Invariant: an operation that waits is one whose socket was not ready when it was
//! last tried, and the socket is registered, edge-triggered, so that its next readiness is told.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll as Kernel, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::SockRef;

use super::operations::{Completion, Driver, Event, GroupSize, Outgoing, Received, Stream};
use super::own_buffers::OwnBuffers;
use crate::sys::pipes;
use crate::sys::socket::{self, HangUps};

/// Sockets whose readiness one wait tells of; the rest are told of by the next.
const EVENTS: usize = 256;

/// The epoll of one thread.
pub(crate) struct Epoll<T> {
    kernel: Kernel,
    /// By number of the descriptor.
    sources: Vec<Source<T>>,
    buffers: OwnBuffers,
    completed: VecDeque<Completion<T>>,
    events: Vec<EpollEvent>,
    hang_ups: HangUps,
    /// Why readiness of a descriptor cannot be told, where no completion can say so.
    broken: Option<io::Error>,
    waits: u64,
}

/// A descriptor, with the operations that wait for it.
struct Source<T> {
    /// At most one, but for accepts.
    inputs: VecDeque<WaitingInput<T>>,
    output: Option<WaitingOutput<T>>,
    is_registered: bool,
    /// The kernel tells when it takes output again.
    tells_output: bool,
    /// A try may succeed.
    is_readable: bool,
    /// A watch has told what there is to read, so it will not be told again.
    was_watched: bool,
    /// The peer has ended its output, so that a short receive is no sign that nothing more is there.
    has_ended: bool,
}

/// Whether the descriptor is a pipe's, which has other calls.
type IsPipe = bool;

enum WaitingInput<T> {
    Accept(T),
    Receive(IsPipe, u16, T),
    Watch(T),
}

struct WaitingOutput<T> {
    is_pipe: IsPipe,
    outgoing: Outgoing,
    sent: usize,
    token: T,
    /// What is to be received, and from where, when everything is sent.
    then: Option<(RawFd, WaitingInput<T>)>,
}

impl<T: Copy> Epoll<T> {
    /// One with the given buffer groups, numbered from 0.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn new(groups: &[GroupSize]) -> io::Result<Self> {
        Ok(Self {
            kernel: Kernel::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            sources: Vec::new(),
            buffers: OwnBuffers::new(groups),
            completed: VecDeque::new(),
            events: vec![EpollEvent::empty(); EVENTS],
            hang_ups: HangUps::new()?,
            broken: None,
            waits: 0,
        })
    }

    /// Forgets what is known of an earlier descriptor of this number.
    fn begin(&mut self, descriptor: RawFd) {
        let index = descriptor as usize;
        if index >= self.sources.len() {
            self.sources.resize_with(index + 1, Source::default);
        }
        debug_assert!(self.sources[index].is_idle(), "closed with an operation under way");
        self.sources[index] = Source::default();
    }

    fn source(&mut self, descriptor: RawFd) -> &mut Source<T> {
        let index = descriptor as usize;
        if index >= self.sources.len() {
            self.begin(descriptor);
        }
        &mut self.sources[index]
    }

    fn complete(&mut self, token: T, event: Event) {
        self.completed.push_back(Completion { token, event });
    }

    /// Lets the kernel tell of the readiness of `descriptor`.
    fn register(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let number = descriptor.as_raw_fd();
        if self.source(number).is_registered {
            return Ok(());
        }
        self.kernel.add(descriptor, interest(number, EpollFlags::empty()))?;
        self.source(number).is_registered = true;
        Ok(())
    }

    fn start_input(&mut self, descriptor: BorrowedFd<'_>, input: WaitingInput<T>) {
        match self.register(descriptor) {
            Ok(()) => {
                let number = descriptor.as_raw_fd();
                self.source(number).inputs.push_back(input);
                self.try_inputs(number);
            }
            Err(error) => self.fail_input(input, error),
        }
    }

    fn fail_input(&mut self, input: WaitingInput<T>, error: io::Error) {
        match input {
            WaitingInput::Accept(token) => self.complete(token, Event::Accepted(Err(error))),
            WaitingInput::Receive(_, _, token) => self.complete(token, Event::Received(Err(error))),
            WaitingInput::Watch(token) if is_cancelled(&error) => {
                self.complete(token, Event::Readable);
            }
            WaitingInput::Watch(_) => self.broken = Some(error),
        }
    }

    fn start_send(
        &mut self,
        to: Stream<'_>,
        outgoing: Outgoing,
        token: T,
        then: Option<(RawFd, WaitingInput<T>)>,
    ) {
        let is_pipe = is_pipe(to);
        self.start_output(to.as_fd(), WaitingOutput { is_pipe, outgoing, sent: 0, token, then });
    }

    fn start_output(&mut self, descriptor: BorrowedFd<'_>, output: WaitingOutput<T>) {
        let number = descriptor.as_raw_fd();
        debug_assert!(self.source(number).output.is_none(), "one send at a time");
        self.source(number).output = Some(output);
        self.try_output(number);
        let source = self.source(number);
        if source.output.is_none() || std::mem::replace(&mut source.tells_output, true) {
            return;
        }
        let wanted = interest(number, EpollFlags::EPOLLOUT);
        let told = match source.is_registered {
            true => self.kernel.modify(descriptor, &mut wanted.clone()),
            false => self.kernel.add(descriptor, wanted),
        };
        match told {
            Ok(()) => self.source(number).is_registered = true,
            Err(error) => {
                self.source(number).tells_output = false;
                self.end_output(number, Err(error.into()));
            }
        }
    }

    /// Goes on with what waits for input, as far as there is any.
    fn try_inputs(&mut self, number: RawFd) {
        loop {
            let source = self.source(number);
            if !source.is_readable {
                return;
            }
            let Some(input) = source.inputs.pop_front() else { return };
            match input {
                WaitingInput::Watch(token) => {
                    (source.is_readable, source.was_watched) = (false, true);
                    self.complete(token, Event::Readable);
                }
                WaitingInput::Accept(token) => match socket::accept(number) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return self.put_back(number, input);
                    }
                    accepted => {
                        if let Ok(socket) = &accepted {
                            self.begin(socket.as_raw_fd());
                        }
                        self.complete(token, Event::Accepted(accepted));
                    }
                },
                WaitingInput::Receive(is_pipe, group, token) => {
                    match self.try_receive(number, is_pipe, group) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return self.put_back(number, input);
                        }
                        received => self.complete(token, Event::Received(received)),
                    }
                }
            }
        }
    }

    /// The socket was not ready after all.
    fn put_back(&mut self, number: RawFd, input: WaitingInput<T>) {
        let source = self.source(number);
        source.is_readable = false;
        source.inputs.push_front(input);
    }

    fn try_receive(&mut self, number: RawFd, is_pipe: bool, group: u16) -> io::Result<Received> {
        let mut is_full = false;
        let received = self.buffers.receive(group, |memory| {
            let len = match is_pipe {
                true => pipes::read(number, memory)?,
                false => recv(number, memory, MsgFlags::MSG_DONTWAIT)?,
            };
            is_full = len == memory.len();
            Ok::<_, io::Error>(len)
        })?;
        let source = self.source(number);
        // A short receive has taken all there was; what comes later is told.
        source.is_readable = is_full || source.has_ended;
        Ok(received)
    }

    /// Goes on with what waits to be sent, as far as the socket takes it.
    fn try_output(&mut self, number: RawFd) {
        while let Some(output) = &mut self.source(number).output {
            let Outgoing { block, start, end } = &output.outgoing;
            let rest = &block[start + output.sent..*end];
            let sent = match output.is_pipe {
                true => pipes::write(number, rest),
                false => send(number, rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL),
            };
            match sent {
                Err(Errno::EAGAIN) => return,
                Err(error) => return self.end_output(number, Err(error.into())),
                Ok(len) => {
                    output.sent += len;
                    if len == rest.len() || output.then.is_none() {
                        return self.end_output(number, Ok(()));
                    }
                }
            }
        }
    }

    /// The send under way on `number` has ended; what was to follow begins, or is cancelled. A part that has left is told
    /// before what went wrong with the rest, or it would be sent again.
    fn end_output(&mut self, number: RawFd, ended: io::Result<()>) {
        let Some(output) = self.source(number).output.take() else { return };
        let is_done = ended.is_ok();
        let sent = match ended {
            Err(error) if output.sent == 0 => Err(error),
            _ => Ok(output.sent),
        };
        self.complete(output.token, Event::Sent(output.outgoing.block, sent));
        let Some((source, receive)) = output.then else { return };
        if is_done {
            self.source(source).inputs.push_back(receive);
            self.try_inputs(source);
        } else {
            self.fail_input(receive, Errno::ECANCELED.into());
        }
    }

    fn take(&mut self, event: EpollEvent) {
        let number = event.data() as RawFd;
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let ended = gone | EpollFlags::EPOLLRDHUP;
        let source = self.source(number);
        source.has_ended |= event.events().intersects(ended);
        source.is_readable |= event.events().intersects(ended | EpollFlags::EPOLLIN);
        self.try_inputs(number);
        if event.events().intersects(gone | EpollFlags::EPOLLOUT) {
            self.try_output(number);
        }
    }
}

impl<T: Copy> Driver<T> for Epoll<T> {
    fn prepare(&mut self, socket: BorrowedFd<'_>) {
        self.begin(socket.as_raw_fd());
        let _ = SockRef::from(&socket).set_nonblocking(true);
    }

    fn accept(&mut self, listener: BorrowedFd<'_>, token: T) {
        self.start_input(listener, WaitingInput::Accept(token));
    }

    fn receive(&mut self, from: Stream<'_>, group: u16, token: T) {
        let source = self.source(from.number());
        source.is_readable |= std::mem::take(&mut source.was_watched);
        self.start_input(from.as_fd(), WaitingInput::Receive(is_pipe(from), group, token));
    }

    fn send(&mut self, to: Stream<'_>, outgoing: Outgoing, token: T) {
        self.start_send(to, outgoing, token, None);
    }

    fn send_then_receive(
        &mut self,
        (to, outgoing, token): (Stream<'_>, Outgoing, T),
        (from, group, receive_token): (Stream<'_>, u16, T),
    ) {
        let receive = WaitingInput::Receive(is_pipe(from), group, receive_token);
        let then = match self.register(from.as_fd()) {
            Ok(()) => Some((from.number(), receive)),
            Err(error) => {
                self.fail_input(receive, error);
                None
            }
        };
        self.start_send(to, outgoing, token, then);
    }

    fn watch(&mut self, watched: BorrowedFd<'_>, token: T) {
        self.start_input(watched, WaitingInput::Watch(token));
    }

    fn cancel(&mut self, target: BorrowedFd<'_>, token: T) {
        let number = target.as_raw_fd();
        let cancelled = || io::Error::from(Errno::ECANCELED);
        while let Some(input) = self.source(number).inputs.pop_front() {
            self.fail_input(input, cancelled());
        }
        self.end_output(number, Err(cancelled()));
        self.complete(token, Event::CancelDone);
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let timeout = match timeout {
            _ if !self.completed.is_empty() => EpollTimeout::ZERO,
            None => EpollTimeout::NONE,
            // Rounded up, or the last part of a wait would be a series of waits for nothing.
            Some(timeout) => {
                let ms = timeout.as_micros().div_ceil(1000);
                i32::try_from(ms)
                    .ok()
                    .and_then(|ms| ms.try_into().ok())
                    .unwrap_or(EpollTimeout::MAX)
            }
        };
        self.waits += 1;
        let mut events = std::mem::take(&mut self.events);
        let waited = self.kernel.wait(&mut events, timeout);
        for event in events.iter().take(waited.unwrap_or(0)) {
            self.take(*event);
        }
        self.events = events;
        match waited {
            Err(error) if error != Errno::EINTR => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn completions(&mut self) -> usize {
        self.completed.len()
    }

    fn next_completion(&mut self) -> Option<Completion<T>> {
        self.completed.pop_front()
    }

    fn bytes(&self, received: &Received) -> &[u8] {
        self.buffers.bytes(received)
    }

    fn give_back(&mut self, received: Received) {
        self.buffers.give_back(&received);
    }

    fn close(&mut self, socket: OwnedFd) {
        self.begin(socket.as_raw_fd());
    }

    fn has_hung_up(&self, socket: BorrowedFd<'_>) -> bool {
        self.hang_ups.has_come(socket)
    }

    fn enters(&self) -> u64 {
        self.waits
    }

    fn session_pair(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (ours, mlets) = socket::session_pair()?;
        self.begin(ours.as_raw_fd());
        Ok((ours, mlets))
    }

    fn session_pipes(&mut self) -> io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
        let (ours, mlets) = pipes::session_pipes()?;
        // No call can ask a pipe not to wait; our ends have this flag to themselves.
        ours.iter().for_each(|ours| self.prepare(ours.as_fd()));
        Ok((ours, mlets))
    }
}

impl<T> Default for Source<T> {
    fn default() -> Self {
        Self {
            inputs: VecDeque::new(),
            output: None,
            is_registered: false,
            tells_output: false,
            is_readable: false,
            was_watched: false,
            has_ended: false,
        }
    }
}

impl<T> Source<T> {
    fn is_idle(&self) -> bool {
        self.inputs.is_empty() && self.output.is_none()
    }
}

fn is_pipe(stream: Stream<'_>) -> bool {
    matches!(stream, Stream::Pipe(_))
}

fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ECANCELED as i32)
}

/// Input is always told, output where `more` says so.
fn interest(number: RawFd, more: EpollFlags) -> EpollEvent {
    let always = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    EpollEvent::new(always | more, number as u64)
}
