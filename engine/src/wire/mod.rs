//! Bytes and their meaning: everything of PacketLab that crosses a process boundary.
//!
//! Pure: no socket, no clock, no file. Nothing here imports `proto`, `shard`, `control` or `sys`.

#![forbid(unsafe_code)]

pub mod address;
pub mod certificate;
pub mod channel;
pub mod cut;
pub mod escape;
pub mod foreign;
pub mod frame;
pub mod issue;
pub mod key;
pub mod message;
pub mod name_value;
pub mod pem;
pub mod program;
pub mod request;
pub mod snikey;
pub mod strict_der;
pub mod time;

#[cfg(test)]
pub(crate) mod golden;
