//! A socket at its local address, or the status that says why there is none (spec/protocol.md 1.11).
//!
//! Not here: which address the mlet means, and what happens on the socket.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use packetlab::message::Status;
use packetlab::time::Ticks;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpSocket;

use super::super::filter::Filter;
use crate::watched::watched;

/// Packets that arrive while a task waits for its turn wait in the kernel, up to so many bytes.
const KERNEL_BUFFER_LEN: usize = 1 << 20;

/// Where raw packets come in while they are captured.
#[derive(Debug)]
pub(super) struct Capture {
    /// Sees the packets of all interfaces, those that leave too.
    pub(super) socket: AsyncFd<Socket>,
    /// Which are wanted.
    pub(super) filter: Filter,
    /// Until when.
    pub(super) end: Ticks,
}

impl Capture {
    /// Captures from now on.
    pub(super) fn open(filter: Filter, end: Ticks) -> Result<Self, Status> {
        // Of every protocol: a packet socket of one protocol does not see what leaves.
        let every = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = open(Domain::PACKET, Type::DGRAM, Some(every))?;
        Ok(Self { socket: receiver(socket)?, filter, end })
    }
}

/// A TCP socket, for connecting or for listening, and where it is.
pub(super) fn tcp(local: SocketAddr, listens: bool) -> Result<(TcpSocket, SocketAddr), Status> {
    let socket = open(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
    if listens {
        // An earlier connection of this port that still fades away is no obstacle.
        socket.set_reuse_address(true).map_err(|error| tcp_status(&error))?;
    }
    let local = bind(&socket, local).map_err(|error| tcp_status(&error))?;
    Ok((TcpSocket::from_std_stream(socket.into()), local))
}

/// A UDP socket, and where it is.
pub(super) fn udp(local: SocketAddr) -> Result<(AsyncFd<Socket>, SocketAddr), Status> {
    let socket = open(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    let local = bind(&socket, local).map_err(|error| status(&error, Status::EUDPNOPORT))?;
    Ok((receiver(socket)?, local))
}

/// A socket that sends whole IP packets; it receives none.
pub(super) fn raw(local: SocketAddr) -> Result<AsyncFd<Socket>, Status> {
    let raw = Protocol::from(libc::IPPROTO_RAW);
    let socket = open(Domain::for_address(local), Type::RAW, Some(raw))?;
    bind(&socket, local).map_err(|error| status(&error, Status::EUNKFAULT))?;
    watched(socket).map_err(|error| status(&error, Status::EUNKFAULT))
}

/// The status of a TCP socket that cannot be had.
pub(super) fn tcp_status(error: &io::Error) -> Status {
    status(error, Status::ETCPNOPORT)
}

fn open(domain: Domain, kind: Type, protocol: Option<Protocol>) -> Result<Socket, Status> {
    let socket = Socket::new(domain, kind, protocol).and_then(|socket| {
        socket.set_nonblocking(true)?;
        if domain == Domain::IPV6 && kind != Type::RAW {
            // Or else it could reach IPv4 too, past the limits for IPv4.
            socket.set_only_v6(true)?;
        }
        Ok(socket)
    });
    socket.map_err(|error| status(&error, Status::EUNKFAULT))
}

fn bind(socket: &Socket, local: SocketAddr) -> io::Result<SocketAddr> {
    socket.bind(&local.into())?;
    Ok(socket.local_addr()?.as_socket().unwrap_or(local))
}

/// A socket whose packets come with the time at which the kernel got them.
fn receiver(socket: Socket) -> Result<AsyncFd<Socket>, Status> {
    let ready = setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
        .map_err(io::Error::from)
        .and_then(|()| socket.set_recv_buffer_size(KERNEL_BUFFER_LEN))
        .and_then(|()| watched(socket));
    ready.map_err(|error| status(&error, Status::EUNKFAULT))
}

/// The status for an error; `no_port` if the port is taken.
fn status(error: &io::Error, no_port: Status) -> Status {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => no_port,
        Some(Errno::EADDRNOTAVAIL) => Status::ESKTNOADDR,
        Some(Errno::EPERM | Errno::EACCES) => Status::ESYSNOPERM,
        Some(Errno::EAFNOSUPPORT) => Status::ESKTNOPRFAM,
        Some(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) => Status::ESKTNOPROTO,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => Status::ENORES,
        _ => Status::EUNKFAULT,
    }
}
