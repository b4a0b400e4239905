//! Operations under way on the simulated driver: when one is ready, what it leads to, and how much it moves.
//!
//! Not here: in which order those that are ready complete (`mod.rs`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Simulated;
use super::kernel::Socket;
use super::operation::{Kind, Operation};
use crate::driver::{Completion, Event, Received, Stream};

impl<T: Copy> Simulated<T> {
    pub(super) fn start(&mut self, socket: BorrowedFd<'_>, token: T, kind: Kind<T>) {
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

    /// What goes over a pipe takes other calls than what goes over a socket.
    pub(super) fn check_kind(&self, stream: Stream<'_>) {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.is_pipe(stream.number()) != matches!(stream, Stream::Pipe(_)) {
            kernel.faults.push(format!("{} is of the other kind", stream.number()));
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
    pub(super) fn is_ready(&self, operation: &Operation<T>) -> bool {
        let kernel = self.kernel.borrow();
        match (&operation.kind, kernel.socket(operation.socket)) {
            (Kind::Cancel, _) => true,
            (Kind::Watch(_), Some(Socket::Stream { remote, .. })) => {
                let mut remote = remote.borrow_mut();
                remote.end().is_some() || !remote.sent().is_empty()
            }
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
    pub(super) fn go_on(&mut self, operation: Operation<T>) {
        let is_ready = self.is_ready(&operation);
        let Operation { socket, token, kind, is_cancelled } = operation;
        // A cancellation may find that the operation has completed already. A send that goes on is cancelled all the same.
        let was_cancelled = is_cancelled;
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
                let goes_on = then.is_some() && !self.kernel.borrow().is_pipe(socket);
                if moved.is_ok() && goes_on && !is_whole {
                    let kind = Kind::Send { outgoing, sent, then };
                    let is_cancelled = was_cancelled;
                    self.operations.push(Operation { socket, token, kind, is_cancelled });
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
            kernel.note_end_told(socket);
            return Err(kind.into());
        }
        let received = self.buffers.receive(group, |memory| {
            let len = kernel.part_of(sent.len().min(memory.len()));
            let (front, back) = sent.as_slices();
            let front_len = len.min(front.len());
            memory[..front_len].copy_from_slice(&front[..front_len]);
            memory[front_len..len].copy_from_slice(&back[..len - front_len]);
            sent.drain(..len);
            Ok(len)
        });
        if received.as_ref().is_ok_and(Received::is_empty) {
            kernel.note_end_told(socket);
        }
        received
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

fn cancelled<R>() -> io::Result<R> {
    Err(Errno::ECANCELED.into())
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
