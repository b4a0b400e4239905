//! The engine behind `pktxpmgr`: the io_uring relay and mlet supervision.
//!
//! ```text
//! engine.rs  -> control, shard          one control thread, one shard per core
//! control, shard -> records -> proto    one record of each session
//! control, shard -> proto -> packetlab  conversations as state machines, bytes and their meaning
//! control, shard -> sys                 small corners of Linux, the only unsafe code
//! ```
//!
//! `packetlab` and `proto` are pure: no socket, no clock, no thread, no file.

pub mod config;
mod control;
mod engine;
mod log_limit;
mod mailbox;
pub mod proto;
mod records;
mod shard;
pub mod sys;

pub use crate::engine::{Report, RunError, run};

/// Target of the tracing events with which endpoints' LINFOs are logged: of all that is logged, what a peer says at its
/// own will.
pub const LINFO_TARGET: &str = "engine::linfo";

#[cfg(test)]
#[path = "../testdata/golden.rs"]
#[expect(dead_code, reason = "the crate packetlab uses the rest")]
mod golden;
