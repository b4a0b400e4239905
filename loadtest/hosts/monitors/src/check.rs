//! What monitors are asked: a message about to take effect, as the arguments of their functions
//! (spec/monitors.md 7, 9).
//!
//! Not here: calls. Invariant: a message that is not monitored is no check.

use std::net::{IpAddr, SocketAddr};

use monitor_module::Kind;
use packetlab::message::{Message, MessageType, Open, Packet, Socket};

/// One argument of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument {
    Int(u32),
    Long(u64),
    /// Where the monitor finds a copy of an address or a port.
    Copy(Octets),
    /// There is nothing to find.
    Null,
    /// Where its persistent memory is, and how long that is.
    Persistent,
}

/// An address or a port in network order; nothing if there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Octets {
    bytes: [u8; 16],
    len: u8,
}

impl Octets {
    fn of(bytes: &[u8]) -> Self {
        let mut octets = Self::default();
        for (to, from) in octets.bytes.iter_mut().zip(bytes) {
            *to = *from;
            octets.len += 1;
        }
        octets
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }

    fn len(&self) -> Argument {
        Argument::Int(self.len.into())
    }
}

/// A message that monitors are asked about, with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub(crate) kind: Kind,
    pub(crate) arguments: Vec<Argument>,
    bytes: Vec<u8>,
    payload_at: usize,
    /// Where the current packet begins, to the end.
    packet_at: usize,
}

impl Check {
    /// What to ask about the message whose payload these bytes are from there on.
    ///
    /// # Errors
    /// Monitors are not asked about it, or it breaks the rules of its type; its bytes are given back.
    pub fn new(
        message_type: MessageType,
        bytes: Vec<u8>,
        payload_at: usize,
    ) -> Result<Self, Vec<u8>> {
        let payload = bytes.get(payload_at..).unwrap_or_default();
        match asked(&Message::decode(message_type, payload)) {
            Some((kind, arguments, packet_len)) => {
                let packet_at = bytes.len() - packet_len;
                Ok(Self { kind, arguments, bytes, payload_at, packet_at })
            }
            None => Err(bytes),
        }
    }

    /// The payload of the message.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload_at..).unwrap_or_default()
    }

    /// All bytes that it was made of, when nothing more is to be asked.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Its bytes and where in them the packet begins, for as long as a monitor looks at it.
    pub(crate) fn lend_packet(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.bytes), self.packet_at)
    }

    /// Takes the bytes back.
    pub(crate) fn return_packet(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }
}

/// The kind of a message, its arguments, and how long the packet at its end is.
fn asked(message: &Message<'_>) -> Option<(Kind, Vec<Argument>, usize)> {
    use Argument::{Int, Long, Persistent};
    Some(match *message {
        Message::Nopen { sktid, receive_buffer_len, open } => {
            (Kind::Nopen, nopen(open.socket(sktid), receive_buffer_len, &open), 0)
        }
        Message::Nclose { sktid } => (Kind::Nclose, vec![Int(sktid.into()), Persistent], 0),
        Message::Nsend { sktid, time, tag, packet } => {
            let mut arguments = named(packet.socket(sktid));
            arguments.extend([Long(time.0), Int(tag.into())]);
            let len = about(&mut arguments, &packet);
            (Kind::Nsend, arguments, len)
        }
        Message::Ndata { sktid, time, packet } => {
            let mut arguments = named(packet.socket(sktid));
            arguments.push(Long(time.0));
            let len = about(&mut arguments, &packet);
            (Kind::Ndata, arguments, len)
        }
        Message::Ncap { socket, end, filter } => {
            let mut arguments = named(socket);
            arguments.extend([Long(end.0), Persistent]);
            (Kind::Ncap, arguments, filter.len())
        }
        _ => return None,
    })
}

fn named(socket: Socket) -> Vec<Argument> {
    // As long as the longest list.
    let mut arguments = Vec::with_capacity(13);
    arguments.extend(
        [socket.sktid, socket.family as u8, socket.protocol as u8]
            .map(|byte| Argument::Int(byte.into())),
    );
    arguments
}

fn nopen(socket: Socket, receive_buffer_len: u32, open: &Open) -> Vec<Argument> {
    let (local, remote) = match *open {
        Open::Raw { local } => ((Some(local), None), None),
        Open::Udp { local } | Open::TcpListen { local } => (split(local), None),
        Open::TcpConnect { local, remote } => (split(local), Some(remote)),
    };
    let remote = remote.map_or((None, None), split);
    let parts = [address(local.0), port(local.1), address(remote.0), port(remote.1)];
    let mut arguments = named(socket);
    arguments.push(Argument::Int(receive_buffer_len));
    arguments.extend(parts.map(|part| part.len()));
    arguments.extend(parts.map(Argument::Copy));
    arguments.push(Argument::Persistent);
    arguments
}

/// What NSEND and NDATA say of their packet; how long its data is.
fn about(arguments: &mut Vec<Argument>, packet: &Packet<'_>) -> usize {
    let (remote, data) = match *packet {
        Packet::Raw { data, .. } | Packet::Tcp { data, .. } => (None, data),
        Packet::Udp { remote, data } => (Some(remote), data),
    };
    for part in remote.map_or([None; 2], |remote| {
        let (host, number) = split(remote);
        [Some(address(host)), Some(port(number))]
    }) {
        match part {
            Some(part) => arguments.extend([part.len(), Argument::Copy(part)]),
            None => arguments.extend([Argument::Int(0), Argument::Null]),
        }
    }
    // A message has at most 16 MiB.
    arguments.push(Argument::Int(u32::try_from(data.len()).unwrap_or(u32::MAX)));
    arguments.push(Argument::Persistent);
    data.len()
}

fn split(address: SocketAddr) -> (Option<IpAddr>, Option<u16>) {
    (Some(address.ip()), Some(address.port()))
}

fn address(address: Option<IpAddr>) -> Octets {
    match address {
        Some(IpAddr::V4(address)) => Octets::of(&address.octets()),
        Some(IpAddr::V6(address)) => Octets::of(&address.octets()),
        None => Octets::default(),
    }
}

fn port(port: Option<u16>) -> Octets {
    port.map_or_else(Octets::default, |port| Octets::of(&port.to_be_bytes()))
}
