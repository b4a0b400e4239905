//! What clap says of a command line: help and version on standard output, errors on standard error; and how a page of
//! help is laid out.

use std::io::{self, Write};
use std::process::exit;

use clap::Command;

use crate::pages;

/// So wide is a page of help at most, whatever the terminal has: texts are written for it.
const HELP_COLUMNS: usize = 80;

/// Exit code of help that could not be written.
const NOT_WRITTEN: i32 = 1;

/// A page of help behind its first line: examples, then how it is called and what it takes.
const PAGE: &str = "{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// The command line with every page of its help laid out alike. What stands before the options (`before_help`) are examples.
#[must_use]
pub fn laid_out(command: Command) -> Command {
    let program = command.get_name().to_owned();
    let command = command.mut_subcommands(|below| pages::with_examples(&program, below));
    with_layout(&program, command)
}

/// `path` is what is typed to come to this command.
fn with_layout(path: &str, command: Command) -> Command {
    let version = command.get_version().map_or("", |_| " {version}");
    command
        .help_template(format!("{path}{version}: {{about}}\n\n{PAGE}"))
        .max_term_width(HELP_COLUMNS)
        .mut_subcommands(|below| with_layout(&format!("{path} {}", below.get_name()), below))
}

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
