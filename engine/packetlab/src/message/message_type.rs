//! Message types and the four bytes before every payload (spec/protocol.md 1.1, 1.2).
//!
//! Not here: boundaries in a byte stream (`frame`, `cut`). Any byte is a type; unknown ones only lack a name.

use std::fmt;

/// Bytes of a message header: one of type, three of payload length (spec/protocol.md 1.1).
pub const HEADER_LEN: usize = 4;

/// Longest payload that the header can announce, in bytes (spec/protocol.md 1.1).
pub const PAYLOAD_LEN_MAX: usize = 0xFF_FFFF;

/// Type byte of a message (spec/protocol.md 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageType(pub u8);

macro_rules! message_types {
    ($($id:literal $name:ident $meaning:literal)*) => {
        impl MessageType {
            $(
                #[doc = concat!("`", stringify!($id), "`, ", $meaning, ".")]
                pub const $name: Self = Self($id);
            )*

            /// PacketLab's name, e.g. `CDATA`; `None` for a type that spec/protocol.md 1.2 does not list.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

message_types! {
    0x20 CDATA "controller to endpoint: a program, only before START"
    0x21 START "controller to endpoint: ends the set-up"
    0x22 END "controller to endpoint: defined, not implemented by endpoint 1.1.0"
    0x23 YIELD "controller to endpoint: come back later"
    0x24 CONT "controller to endpoint: defined, not implemented by endpoint 1.1.0"
    0x28 MREAD "controller to endpoint: read memory"
    0x29 MWRITE "controller to endpoint: write memory"
    0x2A NOPEN "controller to endpoint: open a socket"
    0x2B NCLOSE "controller to endpoint: close a socket"
    0x2C NSEND "controller to endpoint: send a packet at a time"
    0x2D NCAP "controller to endpoint: set a capture filter"
    0x2E NCTL "controller to endpoint: command to a socket"
    0x30 XCERT "to a broker: one certificate"
    0x31 XPUB "controller to broker: publish an experiment"
    0x38 XSUB "endpoint to broker: subscribe to channels"
    0x40 RESULT "answer to a request"
    0x41 MDATA "endpoint to controller: answer to MREAD"
    0x60 NTAG "endpoint to controller: a tagged packet was sent"
    0x61 NSTAT "endpoint to controller: a socket changed its state"
    0x62 NDATA "endpoint to controller: a packet was received"
    0x63 NDROP "endpoint to controller: received packets were dropped"
    0x64 NBLOCK "endpoint to controller: a monitor blocked something"
    0x65 LINFO "endpoint to controller: log text, never passed to the mlet"
    0x68 SUSPD "endpoint to controller: preempted, closes right after"
    0x69 RESUMD "endpoint to controller: defined, never sent by endpoint 1.1.0"
    0x70 XNOTIFY "broker to endpoint: an experiment was published"
    0x80 XREG "controller to proxy: register a snikey"
}

/// `RESULT (0x40)`, or `type 0x99` without a name.
impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#04x})", self.0),
            None => write!(f, "type {:#04x}", self.0),
        }
    }
}

/// The four bytes before every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Type of the message.
    pub message_type: MessageType,
    /// Length of the payload alone, in bytes, `0..=PAYLOAD_LEN_MAX`.
    pub payload_len: usize,
}

impl Header {
    /// Every four bytes are a header.
    #[must_use]
    pub fn decode([message_type, high, middle, low]: [u8; HEADER_LEN]) -> Self {
        let payload_len = u32::from_be_bytes([0, high, middle, low]) as usize;
        Self { message_type: MessageType(message_type), payload_len }
    }

    /// `None` if the payload is longer than [`PAYLOAD_LEN_MAX`].
    #[must_use]
    pub fn encode(self) -> Option<[u8; HEADER_LEN]> {
        let [0, high, middle, low] = u32::try_from(self.payload_len).ok()?.to_be_bytes() else {
            return None;
        };
        Some([self.message_type.0, high, middle, low])
    }
}
