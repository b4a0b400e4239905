//! Why a session does not begin because of its monitor programs.
//!
//! Not here: what the controller is told (`monitors`).

use std::fmt;
use std::time::Duration;

use packetlab::key::Hex;
use packetlab::program::ProgramDigest;

/// Why a session does not begin because of its monitor programs.
#[derive(Debug)]
pub enum MonitorError {
    /// The chain demands some, which this endpoint does not run.
    NotRun {
        /// How many.
        count: usize,
    },
    /// The chain demands one in eBPF.
    InEbpf {
        /// Which.
        digest: ProgramDigest,
    },
    /// One that the chain demands cannot be run.
    Unusable {
        /// Which.
        digest: ProgramDigest,
        /// Why.
        cause: String,
    },
    /// One of the endpoint's own operator cannot be run.
    OwnUnusable {
        /// Which.
        digest: ProgramDigest,
        /// Why.
        cause: String,
    },
    /// When the time for the set-up was over, one was being compiled or started here.
    SupplySlow {
        /// Which.
        digest: ProgramDigest,
        /// How long the whole set-up had.
        limit: Duration,
    },
    /// They did not begin in time.
    Slow {
        /// How many.
        count: usize,
        /// The one under way when it was over.
        index: u16,
        /// Which program that is.
        digest: ProgramDigest,
        /// How long they had.
        limit: Duration,
    },
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun { count } => write!(
                f,
                "the controller's chain demands that {count} monitor programs be run, which this \
                 endpoint does not do (--no-monitors)"
            ),
            Self::InEbpf { digest } => write!(
                f,
                "the controller's chain demands a monitor program in eBPF ({}), which no endpoint runs; \
                 monitors are written in WebAssembly",
                Hex(digest)
            ),
            Self::Unusable { digest, cause } => write!(
                f,
                "the controller's chain demands the monitor program {}, which cannot be run: {cause}",
                Hex(digest)
            ),
            Self::OwnUnusable { digest, cause } => write!(
                f,
                "the monitor program {} of this endpoint's operator (--monitor) cannot be run: {cause}",
                Hex(digest)
            ),
            Self::SupplySlow { digest, limit } => write!(
                f,
                "the set-up took longer than {} s while the monitor program {} was compiled or started here",
                limit.as_secs(),
                Hex(digest)
            ),
            Self::Slow { count, index, digest, limit } => write!(
                f,
                "{count} monitor programs did not begin in {} s; the one under way was {index} ({})",
                limit.as_secs(),
                Hex(digest)
            ),
        }
    }
}

impl std::error::Error for MonitorError {}
