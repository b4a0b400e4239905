//! What leads to a session's mlet: a socket, and the pipes that it is offered beside it (`--mlet-io pipe`).
//!
//! ```text
//!  Offered --first byte comes over its pipe-------------------------------------> Used
//!     '----first byte, or the end, comes over the socket; or its pipe is closed--> Declined
//! ```
//!
//! A mlet chooses by where it writes first, and writes nowhere else. Until then it gets everything over the socket; when
//! it has chosen the pipes, the end of the socket tells it that all else comes over its pipe. So the bytes of the socket
//! and then those of the pipe are one stream, and a mlet that knows no pipes notices nothing.
//!
//! Once pipes are used the socket is shut down, both ways. It stays open, because what is received from it then is an end,
//! and what is sent to it fails, which is what is wanted of pipes that are to be read or written no more.
//!
//! Not here: when something is received or sent (`apply.rs`). Invariant: a pipe is closed when nothing is under way on it.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
#[cfg(test)]
use std::os::fd::{AsRawFd, RawFd};

use super::operations::Token;
use super::under_way::UnderWay;
use crate::driver::{Driver, Stream};
use crate::proto::session::PeerStatus;

/// How many bytes are taken from the pipe of a mlet that is cut off, at most: more than it can have written before.
const REST_LEN_MAX: usize = 1 << 20;

/// Our ends.
pub(super) struct MletStreams {
    socket: OwnedFd,
    /// None are offered, or they were declined and are closed.
    pipes: Option<Pipes>,
    /// The mlet has got all it will get.
    is_input_over: bool,
    /// It is cut off: of its pipe so many bytes are taken at most, and only those that are there.
    rest_len: Option<usize>,
}

struct Pipes {
    /// Until the mlet's input is over.
    to_mlet: Option<OwnedFd>,
    from_mlet: OwnedFd,
    choice: Choice,
    /// What was started last, to receive from the mlet and to send to it, is on a pipe.
    has_receive: bool,
    has_send: bool,
    /// All that was sent over the socket is there: its end follows.
    socket_is_over: bool,
    /// What is under way on the pipe from the mlet is to be cancelled.
    from_mlet_is_late: bool,
    /// The same for the pipe to it.
    to_mlet_is_late: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Offered,
    Used,
    Declined,
}

impl MletStreams {
    /// The socket, and pipes to be offered, to the mlet and from it.
    pub(super) fn new(socket: OwnedFd, pipes: Option<[OwnedFd; 2]>) -> Self {
        let offered = |[to_mlet, from_mlet]: [OwnedFd; 2]| Pipes {
            to_mlet: Some(to_mlet),
            from_mlet,
            choice: Choice::Offered,
            has_receive: false,
            has_send: false,
            socket_is_over: false,
            from_mlet_is_late: false,
            to_mlet_is_late: false,
        };
        Self { socket, pipes: pipes.map(offered), is_input_over: false, rest_len: None }
    }

    /// What is to be watched, because the mlet chooses its pipes by writing there.
    pub(super) fn offered(&self) -> Option<BorrowedFd<'_>> {
        self.pipes.as_ref().map(|pipes| pipes.from_mlet.as_fd())
    }

    /// What the next receive is from.
    pub(super) fn next_source(&mut self, driver: &impl Driver<Token>) -> Stream<'_> {
        let has_pipe = self.has_pipe_to_read(driver);
        match &mut self.pipes {
            Some(pipes) => {
                pipes.has_receive = has_pipe;
                match has_pipe {
                    true => Stream::Pipe(pipes.from_mlet.as_fd()),
                    false => Stream::Socket(self.socket.as_fd()),
                }
            }
            None => Stream::Socket(self.socket.as_fd()),
        }
    }

    /// Where the next bytes are sent to.
    pub(super) fn next_sink(&mut self) -> Stream<'_> {
        if let Some(pipes) = &mut self.pipes {
            pipes.has_send = pipes.choice == Choice::Used && !self.is_input_over;
            if pipes.has_send
                && let Some(to_mlet) = &pipes.to_mlet
            {
                return Stream::Pipe(to_mlet.as_fd());
            }
        }
        Stream::Socket(self.socket.as_fd())
    }

    /// A receive has ended: with bytes, with the end as 0 of them, or for now without either. False if only the socket has
    /// ended, and the pipe goes on.
    pub(super) fn take_received(
        &mut self,
        len: Option<usize>,
        driver: &mut impl Driver<Token>,
    ) -> bool {
        let Some(pipes) = &mut self.pipes else { return true };
        pipes.from_mlet_is_late &= pipes.choice == Choice::Declined;
        let Some(len) = len else { return true };
        if pipes.has_receive {
            self.rest_len = self.rest_len.map(|rest_len| rest_len.saturating_sub(len));
            return true;
        }
        // One that has written to its pipe may have closed its socket since.
        pipes.choose(len == 0, &self.socket, driver);
        len > 0 || !self.has_pipe_to_read(driver)
    }

    /// The pipe that is offered can be read, or nobody can write to it any more, or it is not watched any more.
    pub(super) fn take_watched(&mut self, driver: &mut impl Driver<Token>) {
        if let Some(pipes) = &mut self.pipes {
            pipes.choose(true, &self.socket, driver);
        }
    }

    /// The mlet gets nothing more.
    pub(super) fn end_input(&mut self, driver: &mut impl Driver<Token>, under_way: &UnderWay) {
        driver.shut_down(self.socket.as_fd(), Shutdown::Write);
        self.note_input_over(under_way);
    }

    /// The mlet is to end: it reads the end, and what it wrote before is all that is taken from it.
    pub(super) fn cut_off(&mut self, driver: &mut impl Driver<Token>, under_way: &UnderWay) {
        // A close would tell a mlet of a reset, not of the end, if bytes of it are unread.
        driver.shut_down(self.socket.as_fd(), Shutdown::Both);
        self.note_input_over(under_way);
        self.rest_len.get_or_insert(REST_LEN_MAX);
        if let Some(pipes) = &mut self.pipes {
            pipes.from_mlet_is_late |= under_way.mlet_receive && pipes.has_receive;
        }
    }

    fn note_input_over(&mut self, under_way: &UnderWay) {
        self.is_input_over = true;
        if let Some(pipes) = &mut self.pipes {
            pipes.to_mlet_is_late |= under_way.mlet_send && pipes.has_send;
        }
    }

    /// Does what has become due: ends what is not to go on, and closes the pipes that are over.
    pub(super) fn settle(
        &mut self,
        driver: &mut impl Driver<Token>,
        under_way: &mut UnderWay,
        slot: usize,
    ) {
        let Some(pipes) = &mut self.pipes else { return };
        let sends = |over_pipe| under_way.mlet_send && pipes.has_send == over_pipe;
        let (sends_over_socket, sends_over_pipe) = (sends(false), sends(true));
        if pipes.choice == Choice::Used && !pipes.socket_is_over && !sends_over_socket {
            driver.shut_down(self.socket.as_fd(), Shutdown::Write);
            pipes.socket_is_over = true;
        }
        // A receive that is linked begins when what is sent to the endpoint has left.
        if pipes.from_mlet_is_late && !under_way.mlet_receive_linked {
            pipes.from_mlet_is_late = false;
            under_way.cancels += 1;
            driver.cancel(pipes.from_mlet.as_fd(), Token::Cancel(slot));
        }
        if std::mem::take(&mut pipes.to_mlet_is_late)
            && let Some(to_mlet) = &pipes.to_mlet
        {
            under_way.cancels += 1;
            driver.cancel(to_mlet.as_fd(), Token::Cancel(slot));
        }
        let is_quiet = under_way.cancels == 0;
        if self.is_input_over && is_quiet && !sends_over_pipe {
            pipes.to_mlet.take().into_iter().for_each(|to_mlet| driver.close(to_mlet));
        }
        if pipes.choice == Choice::Declined
            && is_quiet
            && !under_way.mlet_watch
            && let Some(pipes) = self.pipes.take()
        {
            pipes.close(driver);
        }
    }

    /// Cancels what is under way of a session that is over.
    pub(super) fn cancel(
        &self,
        driver: &mut impl Driver<Token>,
        under_way: &mut UnderWay,
        slot: usize,
    ) {
        let mut cancel = |descriptor: &OwnedFd| {
            under_way.cancels += 1;
            driver.cancel(descriptor.as_fd(), Token::Cancel(slot));
        };
        let (receives, sends) = (under_way.mlet_receive, under_way.mlet_send);
        let Some(pipes) = &self.pipes else { return cancel(&self.socket) };
        if receives && !pipes.has_receive || sends && !pipes.has_send {
            cancel(&self.socket);
        }
        if under_way.mlet_watch || receives && pipes.has_receive {
            cancel(&pipes.from_mlet);
        }
        pipes.to_mlet.iter().filter(|_| sends && pipes.has_send).for_each(cancel);
    }

    /// Closes everything.
    pub(super) fn close(self, driver: &mut impl Driver<Token>) {
        driver.close(self.socket);
        self.pipes.into_iter().for_each(|pipes| pipes.close(driver));
    }

    /// How things stand with the mlet.
    pub(super) fn status(&self, driver: &impl Driver<Token>) -> PeerStatus {
        let untaken_len = driver.untaken_len(self.socket.as_fd());
        let Some(pipes) = self.pipes.as_ref().filter(|pipes| pipes.choice == Choice::Used) else {
            return PeerStatus {
                has_hung_up: driver.has_hung_up(self.socket.as_fd()),
                untaken_len,
            };
        };
        let in_pipe = pipes.to_mlet.as_ref().map_or(0, |pipe| driver.waiting_len(pipe.as_fd()));
        PeerStatus {
            has_hung_up: self.rest_len.is_some() || driver.has_hung_up(pipes.from_mlet.as_fd()),
            untaken_len: untaken_len + in_pipe,
        }
    }

    /// The mlet has got all it will get.
    #[cfg(test)]
    pub(super) fn gets_no_more(&self) -> bool {
        self.is_input_over
    }

    /// The numbers of its descriptors.
    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<RawFd> {
        let pipes = self.pipes.iter();
        let ends = |pipes: &Pipes| {
            [Some(pipes.from_mlet.as_raw_fd()), pipes.to_mlet.as_ref().map(AsRawFd::as_raw_fd)]
        };
        std::iter::once(self.socket.as_raw_fd()).chain(pipes.flat_map(ends).flatten()).collect()
    }

    /// What the mlet writes comes over its pipe, and more of it is to be taken.
    fn has_pipe_to_read(&self, driver: &impl Driver<Token>) -> bool {
        let Some(pipes) = self.pipes.as_ref().filter(|pipes| pipes.choice == Choice::Used) else {
            return false;
        };
        self.rest_len.is_none_or(|len| len > 0 && driver.waiting_len(pipes.from_mlet.as_fd()) > 0)
    }
}

impl Pipes {
    /// The mlet has chosen, if it had not before: the pipes if it may have, and has written there.
    fn choose(&mut self, may: bool, socket: &OwnedFd, driver: &mut impl Driver<Token>) {
        if self.choice != Choice::Offered {
            return;
        }
        if may && driver.waiting_len(self.from_mlet.as_fd()) > 0 {
            self.choice = Choice::Used;
            // A receive that is under way on it ends.
            driver.shut_down(socket.as_fd(), Shutdown::Read);
        } else {
            self.choice = Choice::Declined;
            self.from_mlet_is_late = true;
            self.to_mlet.take().into_iter().for_each(|to_mlet| driver.close(to_mlet));
        }
    }

    fn close(self, driver: &mut impl Driver<Token>) {
        driver.close(self.from_mlet);
        self.to_mlet.into_iter().for_each(|to_mlet| driver.close(to_mlet));
    }
}
