//! What the simulated driver stands on: descriptors that lead nowhere, what lies behind each, the clock, and the draws.
//!
//! Not here: operations (`operations.rs`), and what the remotes do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use packetlab::time::Ticks;

use crate::random::Random;
use crate::sys::mlet_ends::MletEnds;

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

/// Makes what lies behind a session's two pipes.
pub(crate) type MakePipes = Box<dyn FnMut([RawFd; 2]) -> [SharedRemote; 2]>;

/// What surrounds the driver, and is shared with whoever plays the remotes.
pub(crate) struct Kernel {
    /// From which everything is drawn.
    pub(crate) random: Random,
    /// Operations complete in order and move all they can, and nothing is refused.
    pub(crate) is_calm: bool,
    /// No socket pair can be made.
    pub(crate) lacks_descriptors: bool,
    /// No operation moves more bytes than this.
    pub(crate) part_len_max: usize,
    /// The monotonic clock.
    pub(crate) now: Instant,
    /// The wall clock.
    pub(crate) wall: Ticks,
    /// How often the clocks have been read.
    pub(crate) clock_reads: usize,
    /// How much time passes between two looks at the clocks without a wait.
    pub(crate) work: Duration,
    /// They have been looked at since the last wait.
    pub(super) is_looked_at: bool,
    /// A wait in which nothing can complete ends here, if it is set.
    pub(crate) horizon: Option<Instant>,
    /// Nothing could complete at the last wait, and it had no timeout, or one beyond the horizon.
    pub(crate) is_idle: bool,
    /// What was asked for and must not be.
    pub(crate) faults: Vec<String>,
    /// How often something that may be refused for a while was.
    pub(crate) refusals: usize,
    /// Packets to other processes, each with the ends of a mlet, that nobody has taken.
    pub(crate) passed: VecDeque<(Vec<u8>, MletEnds)>,
    /// Makes the remote of a session pair, whose other end has this number.
    pub(super) pair_with: Box<dyn FnMut(RawFd) -> SharedRemote>,
    /// Makes the remotes of a session's pipes, of which the mlet's ends have these numbers; without it there are none.
    pub(crate) pipes_with: Option<MakePipes>,
    /// By number of the descriptor.
    pub(super) sockets: Vec<Option<Socket>>,
}

/// The address of a peer that has none.
pub(super) const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

pub(super) enum Socket {
    Listener {
        waiting: VecDeque<OwnedFd>,
    },
    Stream {
        remote: SharedRemote,
        peer: SocketAddr,
        is_pipe: bool,
        input_is_shut: bool,
        output_is_shut: bool,
        /// A receive has told the end.
        end_is_told: bool,
    },
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
            lacks_descriptors: false,
            part_len_max: usize::MAX,
            now,
            wall,
            clock_reads: 0,
            work: Duration::ZERO,
            is_looked_at: false,
            horizon: None,
            is_idle: false,
            faults: Vec::new(),
            refusals: 0,
            passed: VecDeque::new(),
            pair_with,
            pipes_with: None,
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
        self.stream_to(remote, peer, false)
    }

    /// Our end of a pipe.
    pub(super) fn pipe(&mut self, remote: SharedRemote) -> OwnedFd {
        self.stream_to(remote, NOBODY, true)
    }

    fn stream_to(&mut self, remote: SharedRemote, peer: SocketAddr, is_pipe: bool) -> OwnedFd {
        let socket = nowhere();
        let stream = Socket::Stream {
            remote,
            peer,
            is_pipe,
            input_is_shut: false,
            output_is_shut: false,
            end_is_told: false,
        };
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

    /// Whether this is one of them.
    pub(crate) fn is_stream(&self, number: RawFd) -> bool {
        self.stream(number).is_some()
    }

    /// Those that wait to be accepted.
    pub(crate) fn waiting_streams(&self) -> usize {
        let waiting = self.sockets.iter().flatten().map(|socket| match socket {
            Socket::Listener { waiting } => waiting.len(),
            Socket::Stream { .. } => 0,
        });
        waiting.sum()
    }

    pub(super) fn pass(&mut self, period: Duration) {
        self.now += period;
        self.wall = Ticks(self.wall.0 + period.as_nanos() as u64);
    }

    /// One of `chances` comes up.
    pub(super) fn draws(&mut self, chances: usize) -> bool {
        !self.is_calm && self.random.below(chances) == 0
    }

    /// Whether what may be refused for a while is.
    pub(super) fn refuses(&mut self, chances: usize) -> bool {
        let refuses = self.draws(chances);
        self.refusals += usize::from(refuses);
        refuses
    }

    /// Time passes in a wait in which nothing can complete.
    pub(super) fn idle(&mut self, timeout: Option<Duration>) {
        let left = self.left_to_horizon();
        self.is_idle = timeout.is_none_or(|timeout| left.is_some_and(|left| left < timeout));
        self.pass([timeout, left].into_iter().flatten().min().unwrap_or_default());
    }

    /// Time passes in a wait in which something completes.
    pub(super) fn go_on(&mut self, timeout: Option<Duration>) {
        self.is_idle = false;
        let period = Duration::from_micros(self.random.below(300) as u64);
        let limits = [Some(period), timeout, self.left_to_horizon()];
        self.pass(limits.into_iter().flatten().min().unwrap_or_default());
    }

    fn left_to_horizon(&self) -> Option<Duration> {
        Some(self.horizon?.saturating_duration_since(self.now))
    }

    /// Whether this is the end of a pipe.
    pub(super) fn is_pipe(&self, number: RawFd) -> bool {
        matches!(self.socket(number), Some(Socket::Stream { is_pipe: true, .. }))
    }

    /// A receive tells the end of input.
    pub(super) fn note_end_told(&mut self, socket: RawFd) {
        // Of a socket whose input we have ended ourselves the end may be read twice.
        if let Some(Socket::Stream { end_is_told, input_is_shut: false, .. }) =
            self.socket_mut(socket)
            && std::mem::replace(end_is_told, true)
        {
            self.faults.push(format!("socket {socket} was read again behind its end"));
        }
    }

    /// How many of so many bytes an operation moves.
    pub(super) fn part_of(&mut self, len: usize) -> usize {
        let len = len.min(self.part_len_max);
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

    pub(super) fn socket(&self, number: RawFd) -> Option<&Socket> {
        self.sockets.get(number as usize)?.as_ref()
    }

    pub(super) fn socket_mut(&mut self, number: RawFd) -> Option<&mut Socket> {
        self.sockets.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn stream(&self, number: RawFd) -> Option<&Socket> {
        self.socket(number).filter(|socket| matches!(socket, Socket::Stream { .. }))
    }

    pub(super) fn remote(&self, number: RawFd) -> Option<SharedRemote> {
        match self.stream(number)? {
            Socket::Stream { remote, .. } => Some(Rc::clone(remote)),
            Socket::Listener { .. } => None,
        }
    }
}

/// A descriptor that leads nowhere.
pub(crate) fn nowhere() -> OwnedFd {
    File::open("/dev/null").expect("a descriptor is free").into()
}
