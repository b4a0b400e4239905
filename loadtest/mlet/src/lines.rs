//! What a mlet says, a line at a time.
//!
//! Invariant: a line is one write, so that those of many mlets with one standard output never mix.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use crate::mlet_error::MletError;

/// Prints `line` in one write, so that lines of up to 4096 bytes (`PIPE_BUF`, the end of line included)
/// never mix with those of other mlets.
///
/// # Errors
/// Nobody reads standard output any more, or it cannot be written.
pub fn print_line(line: &str) -> Result<(), MletError> {
    Ok(print(line)?)
}

/// The same; the error says that it was standard output.
pub(crate) fn print(line: &str) -> io::Result<()> {
    let print = || {
        // Past the buffering of `io::stdout`, which may split it.
        let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        stdout.write_all(format!("{line}\n").as_bytes())
    };
    print().map_err(|cause| io::Error::new(cause.kind(), format!("standard output: {cause}")))
}

/// Says on standard error what is wrong. Where that cannot be written, nobody can be told, and the mlet goes on.
pub fn complain(problem: &str) {
    // In one write, for the same reason.
    let _ = io::stderr().write_all(format!("{problem}\n").as_bytes());
}
