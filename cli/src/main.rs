//! `pktxpmgr`, the PacketLab experiment manager: runs one mlet against many measurement endpoints.

mod args;
mod c_number;
mod conf;
mod engine_config;
mod exit;
mod logging;
mod report;

use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use command_line::log::LogWriter;
use engine::sys::children::Graces;
use engine::sys::lack::Lack;
use engine::sys::supervisor::{self, MletCommand, Supervisor};
use engine::sys::{secrecy, signals, stdin};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use packetlab::escape::Escaped;

use args::Args;
use exit::{Exit, Failure};

/// How long the end waits for whoever reads the log.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args = Args::read();
    let mut log = None;
    // A panic of ours is told by the exit code as well; the message has been printed by then.
    let ran = catch_unwind(AssertUnwindSafe(|| run(&args, &mut log)));
    let exit = ran.unwrap_or(Ok(Exit::Internal)).unwrap_or_else(|failure| {
        report::failure(&failure, log.as_deref());
        failure.exit
    });
    if let Some(log) = log {
        log.finish(LOG_PATIENCE);
    }
    exit.into()
}

fn run(args: &Args, log: &mut Option<Arc<LogWriter>>) -> Result<Exit, Failure> {
    check_mlet(args.mlet())?;
    // Before the supervisor descends from this process, and before there is anything to hide.
    secrecy::hide_memory().map_err(Lack::when("hide memory from mlets (prctl)"))?;
    // Before keys are read and threads run: mlets descend from this process as it is now.
    let supervisor = start_supervisor(args)?;
    let logging = logging::start(args.verbose, args.quiet);
    *log = Some(logging.map_err(Lack::when("start the thread that writes the log (clone3)"))?);
    let config = engine_config::load(args, SystemTime::now())?;
    // Only now, as `--passphrase-file /dev/stdin` makes sense.
    stdin::discard().map_err(Lack::when("put /dev/null on descriptor 0 (openat, dup2)"))?;
    report::loaded(args, &config);
    engine::run(&config, supervisor)?;
    Ok(Exit::Success)
}

fn start_supervisor(args: &Args) -> Result<Supervisor, Failure> {
    signals::ignore_broken_pipe().map_err(Lack::when("ignore SIGPIPE (rt_sigaction)"))?;
    let limits = args.limits();
    let command = MletCommand {
        path: args.mlet().to_owned(),
        arguments: args.mlet_arguments().to_vec(),
        graces: Graces { eof: limits.eof_grace, term: limits.term_grace },
    };
    supervisor::start(&command).map_err(|error| Failure::new(Exit::Resource, error.to_string()))
}

/// Better now than at the first endpoint: a mlet that is missing or not executable.
fn check_mlet(path: &Path) -> Result<(), Failure> {
    let shown = Escaped(path.as_os_str().as_bytes());
    let refuse = |problem: &str| {
        let hint = "; the mlet is a path, not searched in PATH";
        Err(Failure::new(Exit::Config, format!("cannot run the mlet {shown}: {problem}{hint}")))
    };
    match path.metadata() {
        Err(error) => return refuse(&error.to_string()),
        Ok(found) if !found.is_file() => return refuse("it is not a regular file"),
        Ok(_) => {}
    }
    // It asks for the real user, who is the effective one here; faccessat2, which asks for the latter, is barred in old
    // sandboxes. Where even this is barred, the first start of a mlet tells.
    match access(path, AccessFlags::X_OK) {
        Err(Errno::EACCES) => refuse("it is not executable; chmod +x it"),
        _ => Ok(()),
    }
}
