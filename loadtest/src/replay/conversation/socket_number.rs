//! Where messages name a socket, and the same message with another number.
//!
//! Not here: which socket that is.

use std::borrow::Cow;

use packetlab::message::{HEADER_LEN, MessageType};

/// Where the endpoint's sockets are in its memory, how long each is, and how many there are (spec/protocol.md 1.12).
const SOCKETS: u32 = 0x2000_0000;
const SOCKET_LEN: u32 = 0x400;
const SOCKETS_MAX: u32 = 256;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum About {
    /// The socket of this number, or its memory.
    Socket(u8),
    /// What is at this address.
    Memory(u32),
    Endpoint,
}

/// What it is about, as far as its bytes say.
pub(super) fn about(message: &[u8]) -> About {
    let payload = message.get(HEADER_LEN..).unwrap_or_default();
    match (place(message), payload) {
        (Place::Number, [number, ..]) => About::Socket(*number),
        (Place::Address, [a, b, c, d, ..]) => {
            let address = u32::from_be_bytes([*a, *b, *c, *d]);
            let number = address.checked_sub(SOCKETS).map(|offset| offset / SOCKET_LEN);
            let number = number.filter(|number| *number < SOCKETS_MAX);
            match number.and_then(|number| u8::try_from(number).ok()) {
                Some(number) => About::Socket(number),
                None => About::Memory(address),
            }
        }
        _ => About::Endpoint,
    }
}

/// A message about a socket, as if that had this number.
pub(super) fn renumbered(message: &[u8], number: u8) -> Cow<'_, [u8]> {
    let About::Socket(before) = about(message) else { return Cow::Borrowed(message) };
    if before == number {
        return Cow::Borrowed(message);
    }
    let mut other = message.to_vec();
    match (place(message), other.get_mut(HEADER_LEN..)) {
        (Place::Number, Some([place, ..])) => *place = number,
        (Place::Address, Some([a, b, c, d, ..])) => {
            let address = u32::from_be_bytes([*a, *b, *c, *d]);
            let within = address % SOCKET_LEN;
            let address = SOCKETS + SOCKET_LEN * u32::from(number) + within;
            [*a, *b, *c, *d] = address.to_be_bytes();
        }
        _ => {}
    }
    Cow::Owned(other)
}

/// What a payload begins with.
enum Place {
    Number,
    Address,
    Other,
}

fn place(message: &[u8]) -> Place {
    match message.first().copied().map(MessageType) {
        Some(
            MessageType::NOPEN
            | MessageType::NCLOSE
            | MessageType::NSEND
            | MessageType::NCAP
            | MessageType::NCTL
            | MessageType::NTAG
            | MessageType::NSTAT
            | MessageType::NDATA
            | MessageType::NDROP
            | MessageType::NBLOCK,
        ) => Place::Number,
        Some(MessageType::MREAD | MessageType::MWRITE | MessageType::MDATA) => Place::Address,
        _ => Place::Other,
    }
}
