//! What clap says of a command line: help and version on standard output, errors on standard error.

use std::io::{self, Write};
use std::process::exit;

/// So wide is a page of help at most, whatever the terminal has: texts are written for it.
pub const HELP_COLUMNS: usize = 80;

/// Exit code of help that could not be written.
const NOT_WRITTEN: i32 = 1;

/// Prints it and ends the process of this `program`: code 0 for help and version, 2 for a usage error, 1 if help
/// or version could not be written (a reader that is gone has had enough of it).
pub fn told(program: &str, said: &clap::Error) -> ! {
    let code = match said.print() {
        Err(cause) if !said.use_stderr() && cause.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "{program}: cannot write to standard output: {cause}");
            NOT_WRITTEN
        }
        _ => said.exit_code(),
    };
    exit(code)
}
