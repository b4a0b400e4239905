//! The engine behind `pktxpmgr`: PacketLab's wire format, its trust rules, the io_uring relay and
//! mlet supervision.
//!
//! ```text
//! engine.rs  -> control, shard     one control thread, one shard per core
//! control, shard -> proto -> wire  conversations as state machines, bytes and their meaning
//! control, shard -> sys            small corners of Linux, the only unsafe code
//! home -> wire                     credentials and config files of a new home; no part of a run
//! ```
//!
//! `wire` and `proto` are pure: no socket, no clock, no thread, no file.

pub mod config;
mod control;
mod engine;
pub mod home;
mod log_limit;
mod mailbox;
pub mod proto;
mod shard;
pub mod sys;
pub mod wire;

pub use crate::engine::{Report, RunError, run};

/// Target of the tracing events with which endpoints' LINFOs are logged: of all that is logged, what a peer says at its
/// own will.
pub const LINFO_TARGET: &str = "engine::linfo";
