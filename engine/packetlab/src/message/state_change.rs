//! What NSTAT says of an endpoint's socket: its codes (spec/protocol.md 1.3, 1.4).

use std::net::SocketAddr;

use super::payload_reader::PayloadReader;
use super::socket::{Family, Protocol, Socket, read_socket_address, write_socket_address};

/// What an NSTAT reports (spec/protocol.md 1.3, 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateChange {
    /// A TCP connection stands; this form carries the peer's address instead of a code.
    TcpEstablished {
        /// The peer.
        remote: SocketAddr,
    },
    /// Any other event. Code `ESTABLISHED` for TCP has no encoding: it needs the address.
    Code {
        /// Family of the socket.
        family: Family,
        /// Protocol of the socket.
        protocol: Protocol,
        /// One of the codes of [`StateChange`], or one unknown to us.
        code: u8,
    },
}

impl StateChange {
    /// Established.
    pub const ESTABLISHED: u8 = 0;
    /// The connection was reset.
    pub const RESET: u8 = 1;
    /// The connection timed out.
    pub const TIMEOUT: u8 = 2;
    /// The peer closed its side.
    pub const PEER_CLOSED: u8 = 3;
    /// Something else happened.
    pub const UNKNOWN: u8 = 0xFF;

    /// The socket that changed its state.
    #[must_use]
    pub fn socket(&self, sktid: u8) -> Socket {
        let (family, protocol) = match self {
            Self::TcpEstablished { remote } => (Family::of(remote.ip()), Protocol::Tcp),
            Self::Code { family, protocol, .. } => (*family, *protocol),
        };
        Socket { sktid, family, protocol }
    }

    pub(super) fn read(reader: &mut PayloadReader<'_>, socket: Socket) -> Option<Self> {
        let Socket { family, protocol, .. } = socket;
        match (protocol, reader.rest()) {
            (Protocol::Tcp, [Self::ESTABLISHED]) => None,
            (_, [code]) => Some(Self::Code { family, protocol, code: *code }),
            (Protocol::Tcp, address) => {
                let mut address = PayloadReader::new(address);
                let remote = read_socket_address(&mut address, family)?;
                address.is_empty().then_some(Self::TcpEstablished { remote })
            }
            _ => None,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Self::TcpEstablished { remote } => write_socket_address(*remote, out),
            Self::Code { protocol: Protocol::Tcp, code: Self::ESTABLISHED, .. } => {
                return Err("an established TCP connection must name its peer");
            }
            Self::Code { code, .. } => out.push(*code),
        }
        Ok(())
    }
}
