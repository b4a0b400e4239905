//! The messages that there are, and what each says (spec/protocol.md 1.4).
//!
//! Not here: their bytes (`payload`).

use super::message_type::MessageType;
use super::outcome::Outcome;
use super::socket::{Family, Open, Packet, Socket};
use super::state_change::StateChange;
use super::status::Status;
use crate::channel::{ChannelId, ChannelList};
use crate::time::Ticks;

/// Name of the LINFO with which our endpoint tells of the first crash of a monitor, where crashes are reported: the
/// auxiliary bytes are the index of the monitor, u16, little-endian, as in the LINFO of its `initialize`
/// (spec/monitors.md 6); the information is why, in words (behaviour.md "Our endpoint").
pub const MONITOR_CRASHED: &[u8] = b"monitor-crashed";

/// The one command of NCTL: shut down the write side of a TCP socket (spec/protocol.md 1.3).
pub const NCTL_FIN: u8 = 1;

/// One message (spec/protocol.md 1.4). Bulk fields borrow from the decoded payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// A program for the endpoint.
    Cdata {
        /// What the program is for, `monitor` or `filter`; at most 255 bytes.
        hint: &'a [u8],
        /// The encoded program (6.2).
        data: &'a [u8],
    },
    /// The set-up is complete.
    Start,
    /// End of the experiment; endpoint 1.1.0 does not know it.
    End,
    /// The controller leaves the endpoint for now.
    Yield {
        /// When the endpoint should come back.
        resume: Ticks,
    },
    /// Continue; endpoint 1.1.0 does not know it.
    Cont,
    /// Read memory. `address + len` is at most 0xFFFFFFFF.
    Mread {
        /// First address.
        address: u32,
        /// Bytes to read, at least 1.
        len: u16,
    },
    /// Write memory. `address` plus the length of `data` is at most 0xFFFFFFFF.
    Mwrite {
        /// First address.
        address: u32,
        /// Bytes to write.
        data: &'a [u8],
    },
    /// Open a socket.
    Nopen {
        /// The controller's number for it.
        sktid: u8,
        /// Size of its receive buffer, in bytes (`rbufsz`).
        receive_buffer_len: u32,
        /// Protocol and addresses.
        open: Open,
    },
    /// Close a socket.
    Nclose {
        /// Which.
        sktid: u8,
    },
    /// Send a packet.
    Nsend {
        /// Through which socket.
        sktid: u8,
        /// When; 0 is at once.
        time: Ticks,
        /// Number by which NTAG reports it.
        tag: u16,
        /// What.
        packet: Packet<'a>,
    },
    /// Capture packets.
    Ncap {
        /// With which socket.
        socket: Socket,
        /// Until when.
        end: Ticks,
        /// Which: an encoded program (6.2), at least one byte.
        filter: &'a [u8],
    },
    /// A command to a TCP socket.
    Nctl {
        /// Which socket.
        sktid: u8,
        /// Its family.
        family: Family,
        /// When.
        time: Ticks,
        /// What, e.g. [`NCTL_FIN`].
        command: u8,
    },
    /// A certificate for a broker.
    Xcert {
        /// DER, at least one byte, not checked here.
        certificate: &'a [u8],
    },
    /// Publish an experiment.
    Xpub {
        /// Where.
        channels: ChannelList,
        /// Raw Ed25519 key of the endpoint operator; zeros without one.
        operator_key: [u8; 32],
        /// What it wants of endpoints; `Dialect::Descriptor`.
        xdescr: &'a str,
    },
    /// Subscribe to channels.
    Xsub {
        /// Which.
        channels: ChannelList,
        /// Raw Ed25519 key of the endpoint operator; zeros without one.
        operator_key: [u8; 32],
        /// What the endpoint is; `Dialect::Attributes`.
        dattr: &'a str,
    },
    /// Answer to a request.
    Result(Outcome),
    /// Answer to MREAD.
    Mdata {
        /// First address.
        address: u32,
        /// What is there.
        data: &'a [u8],
    },
    /// A packet was sent, or not.
    Ntag {
        /// By which socket.
        sktid: u8,
        /// Its tag in NSEND.
        tag: u16,
        /// When.
        time: Ticks,
        /// How it went.
        status: Status,
    },
    /// A socket changed its state.
    Nstat {
        /// Which.
        sktid: u8,
        /// When.
        time: Ticks,
        /// How.
        change: StateChange,
    },
    /// A packet was received.
    Ndata {
        /// By which socket.
        sktid: u8,
        /// When.
        time: Ticks,
        /// What.
        packet: Packet<'a>,
    },
    /// Received packets were dropped.
    Ndrop {
        /// By which socket.
        socket: Socket,
        /// The first of them.
        first: Ticks,
        /// The last of them.
        last: Ticks,
        /// How many.
        units: u32,
        /// How many bytes.
        bytes: u32,
    },
    /// A monitor blocked something.
    Nblock {
        /// At which socket.
        socket: Socket,
        /// The monitor's own code.
        monitor_errid: u16,
        /// When.
        time: Ticks,
    },
    /// Log text of the endpoint. All parts may be empty.
    Linfo {
        /// Who logs.
        name: &'a [u8],
        /// Bytes of its choice.
        auxiliary: &'a [u8],
        /// The text.
        info: &'a [u8],
    },
    /// The endpoint serves another experiment now.
    Suspd,
    /// The endpoint is back.
    Resumd,
    /// An experiment was published.
    Xnotify {
        /// On which channel.
        channel: ChannelId,
        /// What it wants; `Dialect::Descriptor`.
        xdescr: &'a str,
    },
    /// Register a snikey at a proxy.
    Xreg {
        /// 1..=63 of `[0-9a-z]`. Not a `SniKey`: the wire allows what TLS does not.
        snikey: &'a str,
    },
    /// A message whose type is unknown, or whose payload is malformed.
    Raw {
        /// As received.
        message_type: MessageType,
        /// As received, bit-exact.
        payload: &'a [u8],
        /// The type is known and the payload breaks its rules.
        malformed: bool,
    },
}

impl Message<'_> {
    /// Type of the message.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::Cdata { .. } => MessageType::CDATA,
            Self::Start => MessageType::START,
            Self::End => MessageType::END,
            Self::Yield { .. } => MessageType::YIELD,
            Self::Cont => MessageType::CONT,
            Self::Mread { .. } => MessageType::MREAD,
            Self::Mwrite { .. } => MessageType::MWRITE,
            Self::Nopen { .. } => MessageType::NOPEN,
            Self::Nclose { .. } => MessageType::NCLOSE,
            Self::Nsend { .. } => MessageType::NSEND,
            Self::Ncap { .. } => MessageType::NCAP,
            Self::Nctl { .. } => MessageType::NCTL,
            Self::Xcert { .. } => MessageType::XCERT,
            Self::Xpub { .. } => MessageType::XPUB,
            Self::Xsub { .. } => MessageType::XSUB,
            Self::Result(_) => MessageType::RESULT,
            Self::Mdata { .. } => MessageType::MDATA,
            Self::Ntag { .. } => MessageType::NTAG,
            Self::Nstat { .. } => MessageType::NSTAT,
            Self::Ndata { .. } => MessageType::NDATA,
            Self::Ndrop { .. } => MessageType::NDROP,
            Self::Nblock { .. } => MessageType::NBLOCK,
            Self::Linfo { .. } => MessageType::LINFO,
            Self::Suspd => MessageType::SUSPD,
            Self::Resumd => MessageType::RESUMD,
            Self::Xnotify { .. } => MessageType::XNOTIFY,
            Self::Xreg { .. } => MessageType::XREG,
            Self::Raw { message_type, .. } => *message_type,
        }
    }
}
