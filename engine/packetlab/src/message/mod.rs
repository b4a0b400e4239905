//! PacketLab messages: typed payloads and their bytes, both ways (spec/protocol.md 1).
//!
//! Not here: boundaries in a byte stream (`frame`, `cut`), programs and certificates inside payloads,
//! and who may send what when (`proto`).
//!
//! Invariant: whatever [`Message::encode`] writes, [`Message::decode`] turns into the same message; a
//! payload that cannot be understood survives bit-exact as [`Message::Raw`].

mod codec;
mod message_type;
mod messages;
mod outcome;
mod payload;
mod payload_reader;
mod socket;
mod state_change;
mod status;
#[cfg(test)]
mod tests;
mod words;

pub use codec::EncodeError;
pub use message_type::{HEADER_LEN, Header, MessageType, PAYLOAD_LEN_MAX};
pub use messages::{MONITOR_CRASHED, Message, NCTL_FIN};
pub use outcome::Outcome;
pub use socket::{Family, Open, Packet, Protocol, Socket};
pub use state_change::StateChange;
pub use status::Status;
