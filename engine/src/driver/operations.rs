//! The trait of drivers: the operations of a shard, and what each leads to.
//!
//! Not here: how a driver goes about it (`uring.rs`, `epoll.rs`), and which one a run uses (`mod.rs`).

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

use packetlab::time::Ticks;
use socket2::SockRef;

use crate::sys::mlet_ends::MletEnds;
use crate::sys::socket;

/// The kernel, or what stands for it, for the thread that made it. `T` tells operations apart.
pub(crate) trait Driver<T> {
    /// Gives a socket that was made elsewhere what the driver assumes of it: that it blocks, or that it does not. Where
    /// the kernel refuses, the first operation tells.
    fn prepare(&mut self, socket: BorrowedFd<'_>);

    /// Accepts one connection; its descriptor is close-on-exec and prepared.
    fn accept(&mut self, listener: BorrowedFd<'_>, token: T);

    /// Receives once, into a buffer of `group`.
    fn receive(&mut self, from: Stream<'_>, group: u16, token: T);

    /// Sends; fewer bytes than given may leave.
    fn send(&mut self, to: Stream<'_>, outgoing: Outgoing, token: T);

    /// Sends everything, then receives once from another stream, without a turn in between. When the
    /// send fails or is cancelled, so is the receive. A pipe may take a part; the receive is cancelled then, too.
    fn send_then_receive(&mut self, send: (Stream<'_>, Outgoing, T), receive: (Stream<'_>, u16, T));

    /// Tells once when `watched` can be read, or the watch was cancelled.
    fn watch(&mut self, watched: BorrowedFd<'_>, token: T);

    /// Cancels every operation on `target`; each still completes by itself.
    fn cancel(&mut self, target: BorrowedFd<'_>, token: T);

    /// Goes on with the operations, and waits until one has completed, at most for `timeout`. It may return before, with
    /// nothing completed.
    ///
    /// # Errors
    /// The kernel refuses to go on.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// How many completions are there to be taken.
    fn completions(&mut self) -> usize;

    /// The next completion, if one is there.
    fn next_completion(&mut self) -> Option<Completion<T>>;

    /// The bytes of a receive.
    fn bytes(&self, received: &Received) -> &[u8];

    /// Gives a buffer back to its group.
    fn give_back(&mut self, received: Received);

    /// Closes a socket on which no operation is under way.
    fn close(&mut self, socket: OwnedFd);

    /// How often the kernel was entered to go on with operations.
    fn enters(&self) -> u64;

    /// What time it is.
    #[expect(clippy::disallowed_methods, reason = "a shard reads the clock once a turn")]
    fn clocks(&self) -> (Instant, Ticks) {
        (Instant::now(), Ticks::from_system_time(SystemTime::now()))
    }

    /// The socket between a session and its mlet: ours first, prepared, then the mlet's, which blocks.
    ///
    /// # Errors
    /// As the kernel says; EMFILE at the open-file limit.
    fn session_pair(&mut self) -> io::Result<(OwnedFd, OwnedFd)>;

    /// The pipes between a session and its mlet: our ends first, prepared, then the mlet's, which block. The first of
    /// either leads to the mlet, the second from it.
    ///
    /// # Errors
    /// As the kernel says; EMFILE at the open-file limit, EPERM at the limit of what a user's pipes hold.
    fn session_pipes(&mut self) -> io::Result<([OwnedFd; 2], [OwnedFd; 2])>;

    /// Sends a packet to another process of ours, and a mlet's ends, of which it becomes the owner. They come back whole if
    /// that does not go without waiting.
    ///
    /// # Errors
    /// All of the ends.
    fn pass(&mut self, to: BorrowedFd<'_>, packet: &[u8], ends: MletEnds) -> Result<(), MletEnds> {
        ends.send(to, packet)
    }

    /// The address of the other side; none if it has disconnected already.
    fn peer(&self, socket: BorrowedFd<'_>) -> Option<SocketAddr> {
        SockRef::from(&socket).peer_addr().ok()?.as_socket()
    }

    /// Ends input, output or both of a socket. The peer may be gone already, which is as good.
    fn shut_down(&mut self, socket: BorrowedFd<'_>, how: Shutdown) {
        let _ = SockRef::from(&socket).shutdown(how);
    }

    /// Completions that were lost because there was no room for them.
    fn lost_completions(&mut self) -> u64 {
        0
    }

    /// Acknowledges what has come on a TCP connection, where the kernel would wait for data to send along.
    fn acknowledge_at_once(&mut self, socket: BorrowedFd<'_>) {
        socket::acknowledge_at_once(&socket);
    }

    /// Whether the peer has closed its side or is gone, also when what it wrote has not been received yet.
    fn has_hung_up(&self, socket: BorrowedFd<'_>) -> bool;

    /// How many bytes of what was sent the peer has not taken yet.
    fn untaken_len(&self, socket: BorrowedFd<'_>) -> usize {
        socket::untaken_len(&socket)
    }

    /// How many bytes are in a pipe, of which this is either end.
    fn waiting_len(&self, pipe: BorrowedFd<'_>) -> usize {
        socket::waiting_len(&pipe)
    }
}

/// What bytes go over: the kernel has calls of its own for each.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream<'fd> {
    /// A socket.
    Socket(BorrowedFd<'fd>),
    /// One end of a pipe.
    Pipe(BorrowedFd<'fd>),
}

impl Stream<'_> {
    pub(super) fn number(self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Stream<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(descriptor) | Self::Pipe(descriptor) => *descriptor,
        }
    }
}

/// A block to send, or the part of it between `start` and `end`.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The memory.
    pub(crate) block: Box<[u8]>,
    /// First byte to send.
    pub(crate) start: usize,
    /// One past the last byte to send.
    pub(crate) end: usize,
}

/// How many buffers of which size a group holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupSize {
    /// OwnBuffers; a power of two, at most 256.
    pub(crate) count: u16,
    /// Bytes of each.
    pub(crate) len: u32,
}

/// Bytes that a receive delivered, in a buffer of the driver; to be given back.
#[derive(Debug)]
pub(crate) struct Received {
    pub(super) group: u16,
    pub(super) buffer: Option<u16>,
    pub(super) len: usize,
}

impl Received {
    /// The stream has ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes it delivered.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The group of its buffer.
    pub(crate) fn group(&self) -> u16 {
        self.group
    }
}

/// What an operation led to.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection, or why there is none.
    Accepted(io::Result<OwnedFd>),
    /// Bytes, or why there are none. ENOBUFS: the group is empty; try again when a buffer is back.
    Received(io::Result<Received>),
    /// The block, and how many bytes were sent.
    Sent(Box<[u8]>, io::Result<usize>),
    /// The watched descriptor can be read.
    Readable,
    /// A cancellation has been looked at; the cancelled operations complete by themselves.
    CancelDone,
}

/// A completed operation.
#[derive(Debug)]
pub(crate) struct Completion<T> {
    /// The token the operation was started with.
    pub(crate) token: T,
    /// What it led to.
    pub(crate) event: Event,
}
