//! One core's share of the run: its listening sockets and sessions on one driver, in one thread.
//!
//! A turn takes every completion there is, moves the sessions they belong to, starts what those want,
//! and enters the kernel once. Relayed sessions come before handshakes, of which a turn takes only a
//! few, so that a flood of new endpoints does not hold up the running ones.
//!
//! Invariant: a socket is closed only when no operation on it is under way.

mod accepting;
mod admission;
mod apply;
mod candidates;
mod connection;
mod ending;
mod grant;
mod large_buffers;
mod latency;
mod linfo_log;
mod listeners;
mod mail;
mod mlet_streams;
mod numbers;
mod operations;
mod pace;
mod permit_to_mlet;
mod receive_size;
mod set_up_queue;
mod stages;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod turn;
mod under_way;

pub(crate) use self::accepting::accepts_at_once;
pub(crate) use self::large_buffers::BULK_MEMORY_LEN;
pub(crate) use self::operations::{GROUPS, Token};
pub(crate) use self::state::{Parts, Shard};
