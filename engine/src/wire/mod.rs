//! Bytes and their meaning: everything of PacketLab that crosses a process boundary.
//!
//! Pure: no socket, no clock, no file. Nothing here imports `proto`, `shard`, `control` or `sys`.

#![forbid(unsafe_code)]

pub mod key;
pub mod program;
