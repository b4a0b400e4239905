//! How `pktcred` ends: exit codes, and errors with theirs.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use cli::prompt::PromptError;
use cli::secret::SecretError;
use nix::sys::signal::Signal;
use packetlab::escape::Escaped;
use packetlab_home::HomeError;

/// How the process ends (documented for scripts; numbers never change meaning, and mean the same
/// as those of `pktxpmgr` where both have them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Success = 0,
    /// What was asked is answered, and the answer is no.
    Refuted = 1,
    /// The command line cannot be used. The same number as clap's.
    Usage = 2,
    /// A file, key or certificate cannot be used or made.
    Unusable = 3,
    /// Ended by SIGINT at the prompt.
    Interrupted = 130,
    /// Ended by another signal at the prompt.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why nothing was done: what is printed and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    /// Already escaped.
    message: String,
}

impl Failure {
    /// The command line asks for something impossible.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    /// Something that was needed cannot be used or made.
    pub(crate) fn unusable(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Unusable, message: message.to_string() }
    }

    /// The same about this file.
    pub(crate) fn of_file(path: &Path, problem: impl fmt::Display) -> Self {
        Self::unusable(format!("{}: {problem}", shown(path)))
    }

    /// A secret of this file cannot be had.
    pub(crate) fn of_secret(path: &Path, error: &SecretError) -> Self {
        let mut failure = match error {
            SecretError::Passphrase { .. } => Self::unusable(error),
            _ => Self::of_file(path, error),
        };
        match error {
            SecretError::Prompt(PromptError::Interrupted(Signal::SIGINT)) => {
                failure.exit = Exit::Interrupted;
            }
            SecretError::Prompt(PromptError::Interrupted(_)) => failure.exit = Exit::Terminated,
            SecretError::Prompt(PromptError::NoTerminal(_)) => {
                failure.message.push_str("; give --passphrase-file");
            }
            _ => {}
        }
        failure
    }

    /// Says why and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let _ = writeln!(io::stderr(), "pktcred: {}", self.message);
        self.exit.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        Self::unusable(error)
    }
}

/// A path as people may see it.
pub(crate) fn shown(path: &Path) -> String {
    Escaped(path.as_os_str().as_encoded_bytes()).to_string()
}

/// Prints to standard output. Nobody reading any more is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::unusable(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Tells something beside the result. Nobody reading is no failure.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
