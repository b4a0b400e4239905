//! The exit codes of `pktxpmgr`, all in one place, and the error that carries one.

use std::fmt;
use std::process::ExitCode;

use engine::RunError;
use engine::sys::lack::Lack;
use engine::sys::signals::StopSignal;

/// How the process ends (documented for scripts; numbers never change meaning).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The campaign ended as asked: count reached, time over, or drained after one signal.
    Success = 0,
    /// The run is not good enough: a rule of `--fail-on`, `--halt` or `--require` says so, or the one mlet of singleton
    /// mode failed.
    Failed = 1,
    /// The command line cannot be used. The same number as clap's.
    Usage = 2,
    /// Config file, key, certificate, program directory or mlet cannot be used.
    Config = 3,
    /// Cannot listen, or cannot reach the proxy at start; also an unusable `-a`.
    Listen = 4,
    /// The broker refused the publication or cannot be reached.
    Publication = 5,
    /// The system lacks something every run needs: io_uring, open files, processes.
    Resource = 6,
    /// A part of pktxpmgr or its mlet broke a promise.
    Internal = 70,
    /// Records or output of mlets are lost (EX_IOERR).
    Records = 74,
    /// Ended by force because its time was over. The same number as timeout(1)'s.
    TimeOver = 124,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM, or by the campaign that the manager was in.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the process cannot go on: what is printed and what it exits with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) exit: Exit,
    /// What happened, to whom, what to do. May have several lines. Already escaped.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with this code and text.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match &error {
            RunError::Tls(_)
            | RunError::Records(..)
            | RunError::LatencyLog(..)
            | RunError::Messages(..) => Exit::Config,
            RunError::Listen(..) | RunError::SingletonNotStarted(_) | RunError::Proxies(_) => {
                Exit::Listen
            }
            RunError::Publication(_) => Exit::Publication,
            RunError::Ring(_) | RunError::Lack(_) => Exit::Resource,
            RunError::SingletonFailed(_) | RunError::Halted(_) => Exit::Failed,
            RunError::SingletonSpoke | RunError::SupervisorLost | RunError::Internal(_) => {
                Exit::Internal
            }
            RunError::Deadline | RunError::DrainLimit => Exit::TimeOver,
            RunError::Forced(StopSignal::Interrupt) => Exit::Interrupted,
            RunError::Forced(StopSignal::Terminate) | RunError::Stopped(_) => Exit::Terminated,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<Lack> for Failure {
    fn from(lack: Lack) -> Self {
        Self::new(Exit::Resource, lack.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
