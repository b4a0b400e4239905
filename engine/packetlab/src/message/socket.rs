//! What messages say about an endpoint's sockets: families, protocols, addresses, packets (spec/protocol.md 1.3, 1.4).
//!
//! Not here: what NSTAT says of them (`state_change`).
//!
//! Addresses carry their family, so that a layout and its addresses cannot disagree. Scope and flow of
//! an IPv6 socket address do not exist on the wire.

use std::net::{IpAddr, SocketAddr};

use super::payload_reader::PayloadReader;

/// Address family, by its number on the wire (spec/protocol.md 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// Addresses of 4 bytes.
    Ipv4 = 4,
    /// Addresses of 16 bytes.
    Ipv6 = 6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    pub(super) fn read(reader: &mut PayloadReader<'_>) -> Option<Self> {
        match reader.u8()? {
            4 => Some(Self::Ipv4),
            6 => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// Transport protocol, by its number on the wire (spec/protocol.md 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// Whole IP packets.
    Raw = 0x00,
    /// TCP.
    Tcp = 0x06,
    /// UDP.
    Udp = 0x11,
}

impl Protocol {
    pub(super) fn read(reader: &mut PayloadReader<'_>) -> Option<Self> {
        match reader.u8()? {
            0x00 => Some(Self::Raw),
            0x06 => Some(Self::Tcp),
            0x11 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// A socket of an endpoint, as most messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Socket {
    /// Chosen by the controller at NOPEN.
    pub sktid: u8,
    /// Its address family.
    pub family: Family,
    /// Its protocol.
    pub protocol: Protocol,
}

impl Socket {
    pub(super) fn read(reader: &mut PayloadReader<'_>) -> Option<Self> {
        Some(Self {
            sktid: reader.u8()?,
            family: Family::read(reader)?,
            protocol: Protocol::read(reader)?,
        })
    }

    pub(super) fn encoded(self) -> [u8; 3] {
        [self.sktid, self.family as u8, self.protocol as u8]
    }
}

/// What NOPEN opens (spec/protocol.md 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Open {
    /// Whole IP packets from and to a local address.
    Raw {
        /// Local address.
        local: IpAddr,
    },
    /// A UDP socket.
    Udp {
        /// Local address and port.
        local: SocketAddr,
    },
    /// A listening TCP socket.
    TcpListen {
        /// Local address and port.
        local: SocketAddr,
    },
    /// A TCP connection to a peer.
    TcpConnect {
        /// Local address and port.
        local: SocketAddr,
        /// The peer; of the same family as `local`.
        remote: SocketAddr,
    },
}

impl Open {
    /// The socket that it opens.
    #[must_use]
    pub fn socket(&self, sktid: u8) -> Socket {
        let (local, protocol) = match self {
            Self::Raw { local } => (*local, Protocol::Raw),
            Self::Udp { local } => (local.ip(), Protocol::Udp),
            Self::TcpListen { local } | Self::TcpConnect { local, .. } => {
                (local.ip(), Protocol::Tcp)
            }
        };
        Socket { sktid, family: Family::of(local), protocol }
    }

    /// The addresses after the fixed part; whether TCP listens or connects shows in the length alone.
    pub(super) fn read(reader: &mut PayloadReader<'_>, socket: Socket) -> Option<Self> {
        let family = socket.family;
        match socket.protocol {
            Protocol::Raw => Some(Self::Raw { local: read_ip_address(reader, family)? }),
            Protocol::Udp => Some(Self::Udp { local: read_socket_address(reader, family)? }),
            Protocol::Tcp => {
                let local = read_socket_address(reader, family)?;
                if reader.is_empty() {
                    return Some(Self::TcpListen { local });
                }
                Some(Self::TcpConnect { local, remote: read_socket_address(reader, family)? })
            }
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Self::Raw { local } => write_ip_address(*local, out),
            Self::Udp { local } | Self::TcpListen { local } => write_socket_address(*local, out),
            Self::TcpConnect { local, remote } => {
                if local.is_ipv4() != remote.is_ipv4() {
                    return Err("local and remote address must be of one family");
                }
                write_socket_address(*local, out);
                write_socket_address(*remote, out);
            }
        }
        Ok(())
    }
}

/// Data of NSEND and NDATA with what their layout depends on (spec/protocol.md 1.4). Data may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packet<'a> {
    /// A whole IP packet.
    Raw {
        /// Family of the socket.
        family: Family,
        /// The packet.
        data: &'a [u8],
    },
    /// A piece of a TCP stream.
    Tcp {
        /// Family of the socket.
        family: Family,
        /// The piece.
        data: &'a [u8],
    },
    /// A UDP datagram.
    Udp {
        /// Where it goes to (NSEND) or came from (NDATA).
        remote: SocketAddr,
        /// Its payload.
        data: &'a [u8],
    },
}

impl<'a> Packet<'a> {
    /// The socket that sends or has received it.
    #[must_use]
    pub fn socket(&self, sktid: u8) -> Socket {
        let (family, protocol) = match self {
            Self::Raw { family, .. } => (*family, Protocol::Raw),
            Self::Tcp { family, .. } => (*family, Protocol::Tcp),
            Self::Udp { remote, .. } => (Family::of(remote.ip()), Protocol::Udp),
        };
        Socket { sktid, family, protocol }
    }

    pub(super) fn read(reader: &mut PayloadReader<'a>, socket: Socket) -> Option<Self> {
        let family = socket.family;
        Some(match socket.protocol {
            Protocol::Raw => Self::Raw { family, data: reader.rest() },
            Protocol::Tcp => Self::Tcp { family, data: reader.rest() },
            Protocol::Udp => {
                Self::Udp { remote: read_socket_address(reader, family)?, data: reader.rest() }
            }
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw { data, .. } | Self::Tcp { data, .. } => out.extend_from_slice(data),
            Self::Udp { remote, data } => {
                write_socket_address(*remote, out);
                out.extend_from_slice(data);
            }
        }
    }
}

fn read_ip_address(reader: &mut PayloadReader<'_>, family: Family) -> Option<IpAddr> {
    match family {
        Family::Ipv4 => reader.array::<4>().map(IpAddr::from),
        Family::Ipv6 => reader.array::<16>().map(IpAddr::from),
    }
}

pub(super) fn read_socket_address(
    reader: &mut PayloadReader<'_>,
    family: Family,
) -> Option<SocketAddr> {
    Some(SocketAddr::new(read_ip_address(reader, family)?, reader.u16()?))
}

fn write_ip_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}

pub(super) fn write_socket_address(address: SocketAddr, out: &mut Vec<u8>) {
    write_ip_address(address.ip(), out);
    out.extend_from_slice(&address.port().to_be_bytes());
}
