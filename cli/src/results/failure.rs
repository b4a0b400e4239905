//! Why a command that reads a results folder ends early, and with which exit code.
//!
//! Invariant: the numbers mean what they mean for a run (operating.md "Exit codes").

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use packetlab::escape::Escaped;

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line asks for what is not there. Already escaped.
    Usage(String),
    /// The folder, or a file of it, cannot be used. Already escaped.
    Unusable(String),
    /// A run that was asked for something has refused it. Already escaped.
    Refused(String),
    /// A database cannot be reached, does not let us in, or cannot do it now. Already escaped.
    Unreachable(String),
    /// The result cannot be written to standard output.
    Output(io::Error),
    /// The result cannot be written to its file. Already escaped.
    NotWritten(String),
}

impl Failure {
    /// About this file or folder: what happened, and what to do.
    pub(crate) fn of_path(path: &Path, problem: impl fmt::Display) -> Self {
        Self::Unusable(format!("{}: {problem}", shown_path(path)))
    }

    /// Says why, and gives the exit code. A reader of standard output that has had enough is no failure.
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return 0.into(),
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unusable(_) => 3,
            Self::Unreachable(_) => 4,
            Self::Output(_) | Self::NotWritten(_) => 74,
        };
        warn(self);
        code.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(message)
            | Self::Usage(message)
            | Self::Unusable(message)
            | Self::Unreachable(message)
            | Self::NotWritten(message) => f.write_str(message),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Of standard output alone: whoever reads a file says which.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Tells what does not end the command. Nobody reading is no failure.
pub(crate) fn warn(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "pktxpmgr: {text}");
}

/// A path as people may see it.
pub(crate) fn shown_path(path: &Path) -> String {
    Escaped(path.as_os_str().as_encoded_bytes()).to_string()
}
