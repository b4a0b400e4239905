//! Why a run could not begin, or ended before its time, in words for whoever can change that.
//!
//! Not here: what ends one session (`proto/outcome.rs`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use packetlab::escape::Escaped;
use packetlab::tls;

use crate::driver::RingError;
use crate::sys::lack::Lack;
use crate::sys::signals::StopSignal;
use crate::sys::supervisor::MletStatus;

/// For [`lack`]: what every thread does when there is nothing to do.
pub(crate) const WAITING: &str =
    "wait for events (epoll_create1, epoll_wait, eventfd2, io_uring_setup)";

/// How a run ended that did not end well.
#[derive(Debug)]
pub enum RunError {
    /// This address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The proxy registered no connection within the bootstrap time.
    Proxy {
        /// The proxy's name.
        name: String,
        /// What went wrong last.
        reason: String,
    },
    /// The experiments cannot be published.
    Publication {
        /// The broker's name.
        broker: String,
        /// What went wrong.
        reason: String,
    },
    /// The kernel gives no io_uring.
    Ring(RingError),
    /// A controller identity cannot be used.
    Tls(tls::SetupError),
    /// The singleton mlet could not be started: which, and why.
    SingletonNotStarted(String),
    /// The singleton mlet wrote on its control socket.
    SingletonSpoke,
    /// The singleton mlet ended like this.
    SingletonFailed(MletStatus),
    /// The supervisor died.
    SupervisorLost,
    /// A file of records, of this name, cannot be written.
    Records(String, io::Error),
    /// So many sessions failed that the run ended before its time, as told here.
    Halted(String),
    /// This file of `--latency` cannot be written.
    LatencyLog(PathBuf, io::Error),
    /// The second signal ended the run.
    Forced(StopSignal),
    /// The machine lacks something every run needs.
    Lack(Lack),
    /// A part of pktxpmgr itself broke down.
    Internal(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => write!(
                f,
                "cannot listen on {address}: {error}; choose another address with -a, or end the \
                 program that uses this one"
            ),
            Self::Proxy { name, reason } => write!(
                f,
                "no connection could be registered at the proxy {name} in time: {reason}; check -a, \
                 or give it longer with BootstrapBacklogTimeout"
            ),
            Self::Publication { broker, reason } => {
                write!(f, "cannot publish at the broker {broker}: {reason}")
            }
            Self::Ring(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::SingletonNotStarted(reason) => {
                write!(f, "the singleton mlet could not be started: {reason}")
            }
            Self::SingletonSpoke => f.write_str(
                "the singleton mlet wrote on its control socket (fd 0), on which it may only receive; a mlet \
                 that is not made for -s does that: run it without -s, or as `-s mlet-single MLET`, or let it \
                 use sessions()",
            ),
            Self::SingletonFailed(status) => {
                write!(f, "the singleton mlet failed: {status}; if it said anything, it stands above")
            }
            Self::SupervisorLost => {
                f.write_str("the supervisor process was lost, and with it every mlet")
            }
            Self::Records(shown, error) => write!(
                f,
                "cannot write records to {shown}: {error}; name a file that can be written, or make room"
            ),
            Self::Halted(why) => write!(f, "the run ended before its time: {why}"),
            Self::LatencyLog(path, error) => write!(
                f,
                "cannot write relay latency to {}: {error}; name a file that can be written with --latency",
                Escaped(path.as_os_str().as_bytes())
            ),
            Self::Forced(signal) => write!(f, "ended by a second signal, {signal}"),
            Self::Lack(lack) => lack.fmt(f),
            Self::Internal(error) => write!(f, "internal error: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// For `map_err`: the machine refuses this, which every run does; see [`Lack::new`].
pub(crate) fn lack(doing: &str) -> impl FnOnce(io::Error) -> RunError {
    move |error| RunError::Lack(Lack::new(doing, error))
}
