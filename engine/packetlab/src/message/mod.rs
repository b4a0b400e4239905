//! PacketLab messages: typed payloads and their bytes, both ways (spec/protocol.md 1).
//!
//! Not here: boundaries in a byte stream (`frame`, `cut`), programs and certificates inside payloads,
//! and who may send what when (`proto`).
//!
//! Invariant: whatever [`Message::encode`] writes, [`Message::decode`] turns into the same message; a
//! payload that cannot be understood survives bit-exact as [`Message::Raw`].

mod message_type;
mod outcome;
mod payload;
mod reader;
mod socket;
mod status;
#[cfg(test)]
mod tests;

use std::fmt;

pub use message_type::{HEADER_LEN, Header, MessageType, PAYLOAD_LEN_MAX};
pub use outcome::Outcome;
pub use socket::{Family, Open, Packet, Protocol, Socket, StateChange};
pub use status::Status;

use super::channel::{ChannelId, ChannelList};
use super::time::Ticks;

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

impl<'a> Message<'a> {
    /// Understands one message. Never fails: what is not understood is [`Message::Raw`] (spec/protocol.md 1.1).
    #[must_use]
    pub fn decode(message_type: MessageType, payload: &'a [u8]) -> Self {
        if message_type.name().is_none() {
            return Self::Raw { message_type, payload, malformed: false };
        }
        payload::decode(message_type, payload).unwrap_or(Self::Raw {
            message_type,
            payload,
            malformed: true,
        })
    }

    /// Appends the whole message, header included, to `out`.
    ///
    /// # Errors
    /// The payload is too long, or breaks a rule without which the message would decode differently;
    /// `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let message_type = self.message_type();
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        let written = payload::encode(self, out)
            .map_err(|rule| EncodeError::RuleBroken { message_type, rule })
            .and_then(|()| {
                let payload_len = out.len() - start - HEADER_LEN;
                Header { message_type, payload_len }
                    .encode()
                    .ok_or(EncodeError::TooLong { message_type, payload_len })
            });
        match written {
            Ok(header) => {
                out[start..start + HEADER_LEN].copy_from_slice(&header);
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

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

/// Why a message has no encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// The header cannot announce such a payload.
    TooLong {
        /// Type of the message.
        message_type: MessageType,
        /// Length of its payload, in bytes.
        payload_len: usize,
    },
    /// The receiver would take the message for malformed, or for another one.
    RuleBroken {
        /// Type of the message.
        message_type: MessageType,
        /// The rule, as a sentence.
        rule: &'static str,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { message_type, payload_len } => write!(
                f,
                "cannot encode {message_type}: its payload of {payload_len} bytes is longer than \
                 {PAYLOAD_LEN_MAX} bytes; send less at once"
            ),
            Self::RuleBroken { message_type, rule } => {
                write!(f, "cannot encode {message_type}: {rule}")
            }
        }
    }
}

impl std::error::Error for EncodeError {}
