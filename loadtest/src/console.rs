//! What `pktfleet` says on standard output and error outside of its log. A write that fails there must neither
//! stop the program half-way nor be taken for success.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Tells something beside the result. Nobody reading is no failure.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints what was made of the command line, help and version among it, and gives the exit code: 0 for
/// those, 2 for a usage error, 1 if they could not be written.
pub(crate) fn tell_usage(said: &clap::Error) -> ExitCode {
    match said.print() {
        // `pktfleet --help | head` has got what it wanted.
        Err(cause) if !said.use_stderr() && cause.kind() != io::ErrorKind::BrokenPipe => {
            note(format_args!("pktfleet: cannot write to standard output: {cause}"));
            ExitCode::FAILURE
        }
        _ => u8::try_from(said.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}
