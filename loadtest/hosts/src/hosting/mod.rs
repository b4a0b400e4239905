//! What programs that a group hosts have in common: log, exit codes, open files, and the end by signal.
//!
//! ```text
//! listen         addresses as typed, listening sockets
//! service        accepting, and a tidy end          places  how many at once, and who makes room
//! memory_budget  how much                           pace    how often              source  of whom
//! whole_hello    no place for half a ClientHello    whole_records  no half records for long
//! log_lines      what connections log               error   why a program cannot do its work
//! server_options what broker and proxy are told alike
//! ```
//!
//! Not here: what is served (`broker`, `proxy`, `endpoint`).

mod error;
mod listen;
mod log_lines;
mod memory_budget;
mod pace;
mod places;
mod server_options;
mod service;
mod source;
mod whole_hello;
mod whole_records;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args};
use command_line::log::{Lines, LogWriter, level, plain};
use engine::sys::limits;

use crate::interrupts::Interrupts;
pub use error::HostError;
pub use listen::Listening;
pub(crate) use log_lines::{Brief, ConnectionLog};
pub use memory_budget::MemoryFull;
pub(crate) use memory_budget::{Budget, Charge, Memory};
pub(crate) use pace::Pace;
pub(crate) use places::{MADE_ROOM, Place, Places};
pub(crate) use server_options::defaults;
pub use server_options::{ServerLimits, ServerOptions};
pub(crate) use service::{Ending, HELD_FOR, Service};
pub(crate) use source::{Source, share};
pub(crate) use whole_hello::whole_hello;
pub(crate) use whole_records::WholeRecords;

/// Bytes of log lines that may wait to be written.
const LOG_QUEUE_LEN_MAX: usize = 1 << 20;
/// How long the end waits for a log that is read slowly.
const LOG_PATIENCE: Duration = Duration::from_secs(5);
/// Open files of a process beside those of its connections: its own, and those that four listening sockets hold of
/// connections that are sent away.
const FDS_BASE: u64 = 64 + 4 * service::HELD_MAX as u64;

/// How much is logged.
#[derive(Debug, Args)]
pub struct LogOptions {
    /// Log more: -v debug, -vv everything
    #[arg(short = 'v', long, action = ArgAction::Count)]
    verbose: u8,
    /// Log less: -q warnings, -qq errors
    #[arg(short = 'q', long, action = ArgAction::Count)]
    quiet: u8,
}

impl LogOptions {
    /// Less than usual is asked for.
    pub fn is_quiet(&self) -> bool {
        self.quiet > self.verbose
    }

    /// More than usual is asked for.
    pub fn is_verbose(&self) -> bool {
        self.verbose > self.quiet
    }
}

/// Runs a program until a signal: `start` makes what serves, `end` ends it tidily; the exit code is
/// 0 then.
pub(crate) fn run<S>(
    log: &LogOptions,
    start: impl AsyncFnOnce() -> Result<S, HostError>,
    end: impl AsyncFnOnce(S),
) -> ExitCode {
    run_with(log, async |interrupts, _| {
        let service = tokio::select! {
            started = start() => started?,
            _ = interrupts.next() => return Ok(()),
        };
        interrupts.next().await;
        tracing::info!("ending, as asked by a signal");
        end(service).await;
        Ok(())
    })
}

/// Runs a program that may end by itself, and that gets the log, to show beside it how far it is; a signal ends it as well,
/// with exit code 0. `finish` is what remains to be done in either case, and its failure the program's.
pub fn run_alone(
    log: &LogOptions,
    work: impl AsyncFnOnce(&Arc<LogWriter>) -> Result<(), HostError>,
    finish: impl FnOnce() -> Result<(), HostError>,
) -> ExitCode {
    run_with(log, async |interrupts, writer| {
        let done = tokio::select! {
            done = work(writer) => done,
            _ = interrupts.next() => {
                tracing::info!("ending, as asked by a signal");
                Ok(())
            }
        };
        match (done, finish()) {
            (Err(error), Err(second)) => {
                tracing::error!("{second}");
                Err(error)
            }
            (done, finished) => done.and(finished),
        }
    })
}

fn run_with(
    log: &LogOptions,
    main: impl AsyncFnOnce(&mut Interrupts, &Arc<LogWriter>) -> Result<(), HostError>,
) -> ExitCode {
    let writer = match LogWriter::start(io::stderr(), plain) {
        Ok(writer) => Arc::new(writer),
        Err(error) => {
            let _ = writeln!(io::stderr(), "no thread for the log: {error}");
            return HostError::Resource(error).exit_code().into();
        }
    };
    start_log(log, Arc::clone(&writer));
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(HostError::from)
        .and_then(|runtime| {
            let ended = runtime.block_on(async {
                let mut interrupts = Interrupts::listen()?;
                main(&mut interrupts, &writer).await
            });
            // A name that is still being resolved would hold up the exit.
            runtime.shutdown_background();
            ended
        });
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            error.exit_code().into()
        }
    };
    writer.finish(LOG_PATIENCE);
    code
}

/// Raises the soft limit on open files, and says so if even the hard one is too low for `connections`.
pub(crate) fn allow_connections(connections: usize) -> io::Result<()> {
    let needed = connections as u64 + FDS_BASE;
    let limit = limits::raise_open_files()?;
    if needed > limit {
        tracing::warn!(
            "{connections} connections need {needed} open files and {limit} are allowed; beyond \
             that new ones have to wait: raise the hard limit (`ulimit -Hn {needed}`) or lower \
             the limits of this program"
        );
    }
    Ok(())
}

fn start_log(options: &LogOptions, log: Arc<LogWriter>) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level(options.verbose, options.quiet))
        .with_target(false)
        .with_writer(Lines { log, room: |_| LOG_QUEUE_LEN_MAX })
        .log_internal_errors(false)
        .finish();
    // It fails only if there is a log already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// A duration in words.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
