//! The engine behind `pktxpmgr`: the io_uring relay and mlet supervision.
//!
//! ```text
//! engine.rs  -> control, shard          one control thread, one shard per core
//! control, shard -> records -> proto    one record of each session
//! control, shard -> proto -> packetlab  conversations as state machines, bytes and their meaning
//! control, shard -> metrics             what shards count and measure, and what is read of it
//! control -> view -> metrics, records   a run as others see it while it goes on
//! shard -> driver                       what a shard asks of the kernel: io_uring or epoll
//! control, driver -> sys                small corners of Linux; unsafe code here and in driver/uring.rs
//! ```
//!
//! `packetlab` and `proto` are pure: no socket, no clock, no thread, no file.

#[cfg(feature = "bench")]
pub mod bench;
pub mod config;
mod control;
mod driver;
mod engine;
mod guards;
mod log_limit;
mod mailbox;
mod metrics;
mod mlet_request;
pub mod permits;
pub mod proto;
#[cfg(any(test, feature = "bench"))]
mod random;
mod records;
mod run_error;
mod shard;
mod sync;
pub mod sys;
mod view;

pub use crate::control::{MLET_TARGET, TRACE_TARGET};
pub use crate::driver::RingError;
pub use crate::engine::{
    Answer, Change, ExperimentState, Operator, Order, Orders, Reader, Report, SessionState,
    Steering, Whom, run, steering, view,
};
pub use crate::metrics::{BothWays, Distribution, RelayTimes, log_format};
pub use crate::proto::linfo::LINFO_TARGET;
pub use crate::records::{Longest, MletEnds, OutcomeKind, Phase, Summary};
pub use crate::run_error::RunError;
pub use crate::view::{
    BrokerStage, BrokerState, CoreState, EndedSession, Files, Goal, Losses, Places, ProxyState,
    Reloads, Reporting, RunStage, RunView, SessionsByPhase, Snapshot,
};

#[cfg(test)]
#[path = "../testdata/golden.rs"]
#[expect(dead_code, reason = "the crate packetlab uses the rest")]
mod golden;

#[cfg(test)]
#[path = "../tests/common/fault_matrix.rs"]
mod fault_matrix;
