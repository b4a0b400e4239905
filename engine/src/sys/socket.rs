//! Sockets as pktxpmgr makes them: the pair between a session and its mlet, the listening sockets, and the options
//! of every TCP connection. All are close-on-exec, and block until a driver has them otherwise.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::SockFlag;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::lack::Lack;

/// Connects that may arrive at once without one being dropped and sent again a second later.
const STORM: usize = 5_000;
/// More listening sockets than this a shard never needs, however short the kernel keeps its queues.
const LISTENERS_PER_SHARD_MAX: usize = 64;
/// Linux's own default for `net.core.somaxconn`, for when it cannot be read.
const SOMAXCONN_DEFAULT: usize = 4096;

/// Silence on a connection before the peer is probed, pause between probes, and probes that may stay unanswered:
/// a dead endpoint is noticed in two minutes though a session may be silent for ever (spec/reliability.md 5).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;
/// How long sent bytes may stay unacknowledged before the connection counts as dead.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// How many bytes of an endpoint may wait in the kernel for a mlet; it counts twice as many, for its bookkeeping. So a
/// large block leaves at once while the mlet still works at the one before it.
const MLET_SEND_BUFFER_LEN: usize = 212_992;

/// The socket between a session and its mlet: ours first, then the one that becomes the mlet's descriptor 0.
///
/// # Errors
/// As the kernel says; EMFILE at the open-file limit.
pub fn session_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, mlets) = UnixStream::pair()?;
    // Where the host allows less the kernel takes that.
    SockRef::from(&ours).set_send_buffer_size(MLET_SEND_BUFFER_LEN)?;
    Ok((ours.into(), mlets.into()))
}

/// Accepts a connection that waits at a listening socket that does not block.
///
/// # Errors
/// `WouldBlock` when none waits; otherwise as the kernel says.
pub fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    let accepted = nix::sys::socket::accept4(listener, SockFlag::SOCK_CLOEXEC)?;
    #[allow(unsafe_code)]
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(accepted) })
}

/// Makes sure that the kernel tells whose a connection is and, where it is asked itself, lets connections be accepted.
///
/// # Errors
/// As the kernel says.
pub fn prove_connections(are_accepted: bool) -> io::Result<()> {
    // It neither listens nor is connected, which is what the kernel has to say.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let peer = socket.peer_addr().map(drop);
    let accepted = if are_accepted { accept(socket.as_raw_fd()).map(drop) } else { Ok(()) };
    [peer, accepted].into_iter().find(is_lacking).unwrap_or(Ok(()))
}

fn is_lacking(asked: &io::Result<()>) -> bool {
    asked.as_ref().is_err_and(Lack::is_why)
}

/// Looks whether peers have gone, by epoll: poll(2) would look at none where no more files may be open.
#[derive(Debug)]
pub struct HangUps(Epoll);

impl HangUps {
    /// For as many looks as there will be.
    ///
    /// # Errors
    /// As the kernel says; EMFILE at the open-file limit.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Whether the peer has closed its side or is gone, also when what it wrote has not been received yet.
    pub fn has_come(&self, socket: impl AsFd) -> bool {
        // An end of both sides and an error are told unasked.
        let closed = EpollEvent::new(EpollFlags::EPOLLRDHUP, 0);
        // Where memory is short nothing is told; the caller asks again later.
        if self.0.add(&socket, closed).is_err() {
            return false;
        }
        let told = self.0.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO);
        // It was added just now.
        let _ = self.0.delete(&socket);
        told.is_ok_and(|ready| ready > 0)
    }
}

/// How many bytes of what was sent the peer has not taken yet: not acknowledged over TCP, not read over a
/// socket pair, where their bookkeeping is counted too.
pub fn untaken_len(socket: &impl AsFd) -> usize {
    queue_len(socket, libc::TIOCOUTQ)
}

/// How many bytes have come, over a socket or a pipe, and were not taken yet.
pub fn waiting_len(source: &impl AsFd) -> usize {
    queue_len(source, libc::FIONREAD)
}

fn queue_len(descriptor: &impl AsFd, queue: libc::Ioctl) -> usize {
    let mut len: libc::c_int = 0;
    #[allow(unsafe_code)]
    // SAFETY: TIOCOUTQ and FIONREAD, which are SIOCOUTQ and SIOCINQ on sockets, write one int, and `len` is one.
    let result = unsafe { libc::ioctl(descriptor.as_fd().as_raw_fd(), queue, &raw mut len) };
    if result == 0 { usize::try_from(len).unwrap_or(0) } else { 0 }
}

/// Sets what every TCP connection of ours has: no delay of small messages, keepalive, and a limit on
/// unacknowledged bytes. A connection accepted by a socket of [`bind_all`] has it from the start.
///
/// # Errors
/// As the kernel says.
pub fn set_connection_options(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Acknowledges what has come on a TCP connection, where the kernel would wait for data to send along. It holds for
/// what has come so far; the kernel goes back to waiting by itself (tcp(7), TCP_QUICKACK).
pub fn acknowledge_at_once(socket: &impl AsFd) {
    // Where it fails the acknowledgement is late, and nothing else.
    let _ = SockRef::from(socket).set_tcp_quickack(true);
}

/// Begins to connect, without waiting. The socket can be written to when that has ended; see
/// [`finish_connecting`].
///
/// # Errors
/// As the kernel says; it may know already that there is no way to the address.
pub fn start_connecting(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    set_connection_options(&socket)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Whether the connection is made.
///
/// # Errors
/// Why it cannot be made.
pub fn finish_connecting(socket: &Socket) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// A TCP socket that has its address but takes no connection yet, so that all shards can have theirs before the
/// first endpoint gets in.
#[derive(Debug)]
pub struct BoundSocket(Socket);

/// A socket with an address, whether it listens already or not.
impl From<Socket> for BoundSocket {
    fn from(socket: Socket) -> Self {
        Self(socket)
    }
}

impl BoundSocket {
    /// The address, with the port the kernel chose where 0 was asked for.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = self.0.local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// One more descriptor of the same socket, whose connections are then shared by who accept on either.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Takes connections from now on, as many waiting as the kernel allows.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn listen(self) -> io::Result<TcpListener> {
        // The kernel lowers this to net.core.somaxconn.
        self.0.listen(i32::MAX)?;
        Ok(self.0.into())
    }
}

/// Binds `count` sockets to one address, among which the kernel will spread the connections; with port 0 the
/// kernel chooses one for all.
///
/// # Errors
/// `AddrInUse` when another program, even another pktxpmgr of this user, listens there: the sockets share the port
/// with one another only, or two managers would get half the endpoints each. Otherwise as the kernel says.
///
/// `v6_only`: an IPv6 wildcard leaves IPv4 to other sockets; otherwise the system's default holds.
pub fn bind_all(address: SocketAddr, v6_only: bool, count: usize) -> io::Result<Vec<BoundSocket>> {
    // Refused beside any listener, unlike a bind with SO_REUSEPORT.
    drop(bind(address, v6_only, false)?);
    let mut sockets = Vec::new();
    let mut address = address;
    for _ in 0..count {
        let socket = BoundSocket(bind(address, v6_only, true)?);
        address = socket.local_address()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr, v6_only: bool, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A port whose old connections are in TIME_WAIT is free for us: a restart works at once.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if v6_only && address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_connection_options(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// How many listening sockets each of `shards` needs so that 5,000 connects at once overflow none, when the
/// kernel queues up to `somaxconn` on each.
///
/// The kernel picks a socket by hash, so the fullest one gets more than its share; five standard deviations more are
/// as good as never exceeded.
pub fn listeners_per_shard(shards: usize, somaxconn: usize) -> usize {
    let holds_the_storm = |&per_shard: &usize| {
        let share = STORM as f64 / (per_shard * shards.max(1)) as f64;
        share + 5.0 * share.sqrt() <= somaxconn as f64
    };
    (1..LISTENERS_PER_SHARD_MAX).find(holds_the_storm).unwrap_or(LISTENERS_PER_SHARD_MAX)
}

/// Connections the kernel lets wait at one listening socket (`net.core.somaxconn`).
pub fn somaxconn() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    text.trim().parse().unwrap_or(SOMAXCONN_DEFAULT)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

    use super::*;

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn both_ends_of_a_session_pair_block_and_close_on_exec() {
        let (ours, mlets) = session_pair().unwrap();
        for fd in [&ours, &mlets] {
            let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
            assert!(!flags.contains(OFlag::O_NONBLOCK));
        }
    }

    #[test]
    fn a_hang_up_is_seen_before_what_was_written_is_received() {
        let socket = bind_all(any_port(), false, 1).unwrap().remove(0);
        let address = socket.local_address().unwrap();
        let listener = socket.listen().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (ours, mlets) = session_pair().unwrap();
        let pairs = [(listener.accept().unwrap().0.into(), OwnedFd::from(client)), (ours, mlets)];
        let hang_ups = HangUps::new().unwrap();
        let has_hung_up = |socket: &OwnedFd| hang_ups.has_come(socket);
        for (ours, peers) in pairs {
            assert!(!has_hung_up(&ours));
            (&std::fs::File::from(peers.try_clone().unwrap())).write_all(b"unread").unwrap();
            assert!(!has_hung_up(&ours));
            SockRef::from(&peers).shutdown(std::net::Shutdown::Write).unwrap();
            assert!(has_hung_up(&ours), "half-closed");
            drop(peers);
            assert!(has_hung_up(&ours), "gone");
        }
    }

    #[test]
    fn what_the_peer_has_not_taken_is_known() {
        let (ours, mlets) = session_pair().unwrap();
        let (mut sender, mut reader) = (std::fs::File::from(ours), std::fs::File::from(mlets));
        sender.write_all(&[7; 10_000]).unwrap();
        let ours = OwnedFd::from(sender);
        let before = untaken_len(&ours);
        assert!(before >= 10_000, "{before}");
        reader.read_exact(&mut [0; 10_000]).unwrap();
        assert!(untaken_len(&ours) < before);

        let socket = bind_all(any_port(), false, 1).unwrap().remove(0);
        let address = socket.local_address().unwrap();
        let _listener = socket.listen().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        // More than the receiver's window, for a connection that nobody reads.
        client.set_nonblocking(true).unwrap();
        while client.write(&[7; 100_000]).is_ok() {}
        assert!(untaken_len(&OwnedFd::from(client)) > 0);
    }

    #[test]
    fn an_accepted_connection_has_the_options_from_the_start() {
        let socket = bind_all(any_port(), false, 1).unwrap().remove(0);
        let address = socket.local_address().unwrap();
        let listener = socket.listen().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[test]
    fn sockets_of_one_call_share_a_port_chosen_by_the_kernel_and_all_get_connections() {
        let sockets = bind_all(any_port(), false, 3).unwrap();
        let addresses: Vec<_> = sockets.iter().map(|s| s.local_address().unwrap()).collect();
        assert_ne!(addresses[0].port(), 0);
        assert_eq!(addresses, [addresses[0]; 3]);

        let listeners: Vec<_> = sockets.into_iter().map(|s| s.listen().unwrap()).collect();
        let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(addresses[0]).unwrap()).collect();
        let mut accepted = Vec::new();
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
            let before = accepted.len();
            accepted.extend(listener.incoming().map_while(Result::ok));
            assert!(accepted.len() > before, "a hash that leaves one of three without any of 100");
        }
        assert_eq!(accepted.len(), clients.len());
    }

    #[test]
    fn a_second_manager_on_the_same_port_is_refused() {
        let sockets = bind_all(any_port(), false, 2).unwrap();
        let address = sockets[0].local_address().unwrap();
        let _listeners: Vec<_> = sockets.into_iter().map(|s| s.listen().unwrap()).collect();
        assert_eq!(bind_all(address, false, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    /// Item 96.
    #[test]
    fn the_same_port_is_free_again_right_after_the_end() {
        let socket = bind_all(any_port(), false, 1).unwrap().remove(0);
        let address = socket.local_address().unwrap();
        let listener = socket.listen().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.write_all(b"x").unwrap();
        // Closing first puts our side into TIME_WAIT.
        drop((accepted, listener));
        client.read_exact(&mut [0]).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        assert_eq!(bind_all(address, false, 2).unwrap().len(), 2);
    }

    #[test]
    fn a_connection_of_ours_has_the_options() {
        let listener = TcpListener::bind(any_port()).unwrap();
        let socket = start_connecting(listener.local_addr().unwrap()).unwrap();
        let _accepted = listener.accept().unwrap();
        assert!(finish_connecting(&socket).unwrap());
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        let flags = FdFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn a_socket_that_is_only_bound_refuses_connections() {
        let socket = bind_all(any_port(), false, 1).unwrap().remove(0);
        let refused = TcpStream::connect(socket.local_address().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_storm_fits_into_the_queues_of_all_listeners_with_room_for_an_uneven_hash() {
        assert_eq!(listeners_per_shard(1, 4096), 2);
        assert_eq!(listeners_per_shard(2, 4096), 1);
        assert_eq!(listeners_per_shard(64, 4096), 1);
        assert_eq!(listeners_per_shard(2, 1024), 3);
        assert_eq!(listeners_per_shard(2, 128), 31);
        assert_eq!(listeners_per_shard(1, 1), LISTENERS_PER_SHARD_MAX);
        assert!(somaxconn() > 0);
    }
}
