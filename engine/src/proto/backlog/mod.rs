//! The backlog of connections registered at a proxy (spec/protocol.md 5.2, 5.3): how one of them is set up,
//! and how many there are to be.
//!
//! Not here: sockets, and the endpoint's session on a connection once it is set up (`session`).

mod pool;
mod set_up;

pub use pool::{Failure, Gap, Pool, SET_UPS_MAX};
pub use set_up::{SetUp, SetUpError, SetUpStep};
