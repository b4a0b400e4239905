//! Why a run could not begin, or ended before its time, in words for whoever can change that.
//!
//! Not here: what ends one session (`proto/session_end.rs`).

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
    /// None of these proxies, by name, registered a connection within the bootstrap time, and what went wrong last.
    Proxies(Vec<(String, String)>),
    /// The experiments cannot be published at any of these brokers, by name, and why.
    Publication(Vec<(String, String)>),
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
    /// This folder of `--capture`, or file of `--pcap`, cannot be written.
    Messages(PathBuf, io::Error),
    /// The second signal ended the run.
    Forced(StopSignal),
    /// Whoever permits START has ended the run by force, for this reason.
    Stopped(String),
    /// The run was ended at its deadline.
    Deadline,
    /// The run was ended because what ran did not end in time once there were no new endpoints.
    DrainLimit,
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
                "cannot listen on {address}: {error}; {}",
                match error.kind() {
                    io::ErrorKind::PermissionDenied =>
                        "a port below 1024 takes CAP_NET_BIND_SERVICE; choose another with -a",
                    _ => "choose another address with -a, or end the program that uses this one",
                }
            ),
            Self::Proxies(proxies) => {
                match &proxies[..] {
                    [(name, reason)] => write!(
                        f,
                        "no connection could be registered at the proxy {name} in time: {reason}"
                    )?,
                    _ => write!(
                        f,
                        "no connection could be registered at any proxy in time: {}",
                        each_with_reason(proxies)
                    )?,
                }
                f.write_str("; check -a, or give it longer with BootstrapBacklogTimeout")
            }
            Self::Publication(brokers) => match &brokers[..] {
                [(broker, reason)] => write!(f, "cannot publish at the broker {broker}: {reason}"),
                _ => write!(f, "cannot publish at any broker: {}", each_with_reason(brokers)),
            },
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
                "cannot write records to {shown}: {error}; name a file that can be written (--events, --joblog, --out), or make room"
            ),
            Self::Halted(why) => write!(f, "the run ended before its time: {why}"),
            Self::LatencyLog(path, error) => write!(
                f,
                "cannot write relay latency to {}: {error}; name a file that can be written with --latency",
                Escaped(path.as_os_str().as_bytes())
            ),
            Self::Messages(path, error) => write!(
                f,
                "cannot write messages of sessions to {}: {error}; name an empty folder with --capture, a new file with --pcap",
                Escaped(path.as_os_str().as_bytes())
            ),
            Self::Forced(signal) => write!(f, "ended by force, as by a second {signal}"),
            Self::Stopped(why) => write!(f, "ended by force: {why}"),
            Self::Deadline => f.write_str("ended by force at its --deadline"),
            Self::DrainLimit => f.write_str("ended by force at its --drain-limit"),
            Self::Lack(lack) => lack.fmt(f),
            Self::Internal(error) => write!(f, "internal error: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

impl RunError {
    /// Whether the run ends with this one, though `other` has come before: what broke down is told rather than what ended
    /// the run by force, and that rather than what it ended with.
    pub(crate) fn outranks(&self, other: &Self) -> bool {
        self.rank() < other.rank()
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Internal(_) | Self::SupervisorLost | Self::SingletonSpoke => 0,
            Self::Forced(_) | Self::Stopped(_) => 1,
            Self::Deadline | Self::DrainLimit => 2,
            Self::Listen(..)
            | Self::Proxies(_)
            | Self::Publication(_)
            | Self::Ring(_)
            | Self::Tls(_)
            | Self::SingletonNotStarted(_)
            | Self::Records(..)
            | Self::LatencyLog(..)
            | Self::Messages(..)
            | Self::Lack(_) => 3,
            Self::SingletonFailed(_) | Self::Halted(_) => 4,
        }
    }
}

/// Several peers that failed, each with its reason.
fn each_with_reason(peers: &[(String, String)]) -> String {
    let each = peers.iter().map(|(name, reason)| format!("{name}: {reason}"));
    each.collect::<Vec<_>>().join("; ")
}

/// For `map_err`: the machine refuses this, which every run does; see [`Lack::new`].
pub(crate) fn lack(doing: &str) -> impl FnOnce(io::Error) -> RunError {
    move |error| RunError::Lack(Lack::new(doing, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_goes_before_what_forced_the_end_and_that_before_what_failed() {
        let in_order = [
            vec![RunError::SupervisorLost, RunError::SingletonSpoke, RunError::Internal("".into())],
            vec![
                RunError::Forced(StopSignal::Interrupt),
                RunError::Forced(StopSignal::Terminate),
                RunError::Stopped("".into()),
            ],
            vec![RunError::Deadline, RunError::DrainLimit],
            vec![RunError::Publication(vec![("b".into(), "".into())])],
            vec![RunError::SingletonFailed(MletStatus::Code(1))],
        ];
        for (rank, errors) in in_order.iter().enumerate() {
            for (other_rank, others) in in_order.iter().enumerate() {
                for (error, other) in errors.iter().flat_map(|e| others.iter().map(move |o| (e, o)))
                {
                    assert_eq!(error.outranks(other), rank < other_rank, "{error} and {other}");
                }
            }
        }
    }
}
