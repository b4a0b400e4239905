//! Why `pktfleet load` has no result, and its exit code.

use std::fmt;
use std::io;

use crate::binaries::BinaryError;
use crate::pktxpmgr::PktxpmgrError;
use hosts::home::HomeError;
use hosts::interrupts::Interrupt;
use hosts::tls_reason;

/// Open files of this process beside one for each endpoint.
const FDS_BASE: u64 = 64;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum LoadError {
    Binary(BinaryError),
    Home(HomeError),
    Pktxpmgr(PktxpmgrError),
    FewFds {
        endpoints: u64,
        limit: u64,
    },
    /// Options that do not go together.
    Unfit(&'static str),
    /// A core that this process may not use, or that is not there.
    NoCore {
        option: &'static str,
        core: String,
        allowed: Vec<usize>,
    },
    /// Not one of these was measured.
    NoSample(&'static str),
    /// The attack that was to be measured has done nothing.
    NoAttack,
    /// What a process uses cannot be told.
    Usage {
        pid: u32,
        cause: io::Error,
    },
    /// The result cannot be written.
    Output(io::Error),
    /// An endpoint could not be set up or its session ended early.
    Endpoint(String),
    /// A session ended although its mlet was to stay.
    EndedEarly,
    Io(io::Error),
    Interrupted(Interrupt),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(error) => error.fmt(f),
            Self::Home(error) => error.fmt(f),
            Self::Pktxpmgr(error) => error.fmt(f),
            Self::FewFds { endpoints, limit } => write!(
                f,
                "{endpoints} sessions need {} open files in pktxpmgr (2 each and {FDS_BASE} more; 1 each \
                 here and in the mlet of a singleton), but a process may have only {limit}, which is \
                 enough for {}; raise the hard limit (`ulimit -Hn`) or use fewer --endpoints (or a \
                 smaller --attack-count)",
                fds_needed(*endpoints),
                limit.saturating_sub(FDS_BASE) / 2
            ),
            Self::Unfit(why) => f.write_str(why),
            Self::NoCore { option, core, allowed } => {
                let allowed: Vec<_> = allowed.iter().map(usize::to_string).collect();
                let allowed = allowed.join(", ");
                write!(
                    f,
                    "{option} {core}: there is no such core here; those to be used are {allowed}"
                )
            }
            Self::NoSample(what) => write!(
                f,
                "there is no result, because not one {what} was measured; give it more --seconds, or more \
                 --endpoints"
            ),
            Self::NoAttack => f.write_str(
                "there is no result, because the attack has done nothing; give it more --seconds",
            ),
            Self::Usage { pid, cause } => write!(
                f,
                "what process {pid} uses cannot be read from /proc/{pid} ({cause}); if it runs and may not \
                 be looked into, start this as root (CAP_SYS_PTRACE)"
            ),
            Self::Output(cause) => write!(f, "the result cannot be written: {cause}"),
            Self::Endpoint(error) => f.write_str(error),
            Self::EndedEarly => f.write_str(
                "a session ended before its time: the mlet has ended, or what stands before it; one that is given \
                 with --mlet must do what mlet-load does (see mlet-load --help) until its session ends",
            ),
            Self::Io(error) => f.write_str(&tls_reason::reason(error)),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<BinaryError> for LoadError {
    fn from(error: BinaryError) -> Self {
        Self::Binary(error)
    }
}

impl From<HomeError> for LoadError {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}

impl From<PktxpmgrError> for LoadError {
    fn from(error: PktxpmgrError) -> Self {
        Self::Pktxpmgr(error)
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Interrupt> for LoadError {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl LoadError {
    /// As the demo's: 2 for what was typed wrong, 3 for something missing, 6 for a limit, 128 and its number
    /// for a signal.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Unfit(_) | Self::NoCore { .. } => 2,
            Self::Binary(_) => 3,
            Self::FewFds { .. } => 6,
            Self::Interrupted(interrupt) => interrupt.exit_code(),
            _ => 1,
        }
    }
}

/// Open files of the relay, which needs the most, at two a session.
pub(super) const fn fds_needed(endpoints: u64) -> u64 {
    endpoints.saturating_mul(2).saturating_add(FDS_BASE)
}
