//! `pktxpmgr`, the PacketLab experiment manager: runs one mlet against many measurement endpoints.

mod args;
mod conf;
mod cores;
mod exit;
mod load;
mod logging;
mod report;
mod units;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use engine::wire::escape::Escaped;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, dup2_stdin, faccessat};

use args::Args;
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let args = Args::read();
    match run(&args) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            report::failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(args: &Args) -> Result<Exit, Failure> {
    check_mlet(args.mlet())?;
    logging::start(args.verbose, args.quiet);
    let config = load::load(args, SystemTime::now())?;
    leave_stdin()?;
    report::loaded(args, &config);
    Ok(Exit::Success)
}

/// Nothing reads stdin from here on, and whoever is at its other end may go (pktxpmgr.md 1.4). Fd 0
/// stays taken, so that no socket ever gets that number. After loading, as `--passphrase-file
/// /dev/stdin` makes sense.
fn leave_stdin() -> Result<(), Failure> {
    File::open("/dev/null")
        .and_then(|null| Ok(dup2_stdin(null)?))
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot leave stdin: {error}")))
}

/// Better now than at the first endpoint: a mlet that is missing or not executable.
fn check_mlet(path: &Path) -> Result<(), Failure> {
    let shown = Escaped(path.as_os_str().as_bytes());
    let refuse = |problem: &str| {
        let hint = "; it is a path, not searched in PATH";
        Err(Failure::new(Exit::Config, format!("cannot run the mlet {shown}: {problem}{hint}")))
    };
    match path.metadata() {
        Err(error) => return refuse(&error.to_string()),
        Ok(found) if !found.is_file() => return refuse("it is not a regular file"),
        Ok(_) => {}
    }
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        Err(_) => refuse("it is not executable"),
        Ok(()) => Ok(()),
    }
}
