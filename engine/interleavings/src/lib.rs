//! What threads of the engine share, run in every order that matters: the engine's own files, compiled with loom's
//! atomics, mutexes and threads ([`sync`]), and a model of each way they are used.
//!
//! ```text
//! mail.rs     queues between control thread and shards, and their bells
//! counted.rs  what all threads count: sessions, those of a key, the numbers of a shard
//! shown.rs    messages that are shown beside a session
//! ```
//!
//! A model is a function; `tests/interleavings.rs` says what must hold, in sentences, and which defect a model would notice.
//!
//! Not here: what is modelled. Invariant: nothing of the engine is written a second time; what stands in for std and for
//! the kernel is in `sync.rs` and `bell.rs`, and for what the engine's files name beside that, below.

#![expect(dead_code, reason = "the engine uses the rest of its files")]

extern crate self as packetlab;

pub mod counted;
pub mod mail;
mod sync;

use messages::{cut, message, snikey};

/// Of the crate `packetlab`, whose keys would bring all of TLS along.
mod key {
    /// A key.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct KeyId(pub [u8; 32]);
}

#[path = "../../src/mailbox"]
mod mailbox {
    pub(crate) mod queue;
}

#[path = "../../src/metrics"]
mod metrics {
    pub(crate) mod session_places;
    pub(crate) mod shard_counts;
}

#[path = "../../src/proto"]
mod proto {
    pub mod keys;
    pub mod mlet_facts;
    pub mod tee;

    // It takes what sessions alone may name.
    #[path = "../../interleavings/src/shown.rs"]
    pub mod shown;
}

pub use proto::shown;

/// Of the kernel.
#[path = ""]
mod sys {
    pub(crate) mod bell;
}

/// As the engine names them.
mod guards {
    pub(crate) use ::guards::{Guard, holds};
}

/// Of the configuration.
mod config {
    /// Whose messages are shown.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Traced {
        All,
        Session(u64),
    }
}

/// Runs what `threads` do in every order in which at most twice a thread is stopped in the middle of what it does; with
/// `LOOM_MAX_PREEMPTIONS=3` three times. Without a bound the larger models would not end in useful time.
fn in_every_order(threads: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 100_000;
    builder.check(threads);
}
