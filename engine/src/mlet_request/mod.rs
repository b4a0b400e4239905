//! With what a session's mlet is asked for, by the control thread or by the session's shard itself.
//!
//! Not here: the way to the supervisor (`sys/supervisor`), and when a mlet is due (`shard/permit_to_mlet.rs`).

mod direct;
mod environment;
mod output;

pub(crate) use self::direct::DirectRequests;
pub(crate) use self::environment::environment;
pub(crate) use self::output::OutputPlan;
