//! `pktfleet load`: many endpoints against a running `pktxpmgr`, and what that costs it.
//!
//! ```text
//! modes    what the endpoints do: short, storm, idle, echo, up, down
//! process  what the manager uses, read from /proc
//! bare     the same round trip without a relay, to compare with
//! report   the table and the JSON
//! ```
//!
//! Every mode is a closed loop: a session sends again when the answer has come. Figures of one run may
//! be compared with one another, not with those of another machine or day.

mod bare;
mod exit_mlet;
mod modes;
mod process;
mod report;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use engine::sys::{cpu, limits};

use crate::binaries::{self, BinaryError};
use crate::home::{Home, HomeError};
use crate::pktxpmgr::{Pktxpmgr, PktxpmgrError};
use report::Report;

/// Open files of this process beside one for each endpoint.
const FDS_BASE: u64 = 64;

/// What `pktfleet load` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the endpoints do
    #[arg(value_enum)]
    mode: Mode,
    /// Endpoints at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    endpoints: usize,
    /// Payload bytes of a message (echo, up, down)
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    size: usize,
    /// How long to measure (short, idle, echo, up, down)
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// Cores for pktxpmgr: a count, or a list such as 0,2-3
    #[arg(long, value_name = "N", default_value = "1")]
    cores: String,
    /// The core this program runs on [default: any]
    #[arg(long, value_name = "CORE")]
    own_core: Option<usize>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// The pktxpmgr to run [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pktxpmgr: Option<PathBuf>,
    /// The mlet to run [default: mlet-load beside this program; for short one without libc]
    #[arg(long, value_name = "PATH")]
    mlet: Option<PathBuf>,
}

/// What the endpoints do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Connect, set up, and end with the mlet, which exits at once; again and again
    Short,
    /// Connect all in one instant; each then makes one request
    Storm,
    /// Set up sessions and let them be
    Idle,
    /// Send a message to the mlet, which sends it back; again and again
    Echo,
    /// Send messages to the mlet as fast as it takes them
    Up,
    /// Take messages from the mlet as fast as it sends them
    Down,
}

impl Mode {
    /// What the mlet is told to do.
    fn mlet_role(self) -> &'static str {
        match self {
            Self::Short => "exit",
            Self::Storm | Self::Idle | Self::Echo => "echo",
            Self::Up => "sink",
            Self::Down => "source",
        }
    }
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum LoadError {
    Binary(BinaryError),
    Home(HomeError),
    Pktxpmgr(PktxpmgrError),
    FewFds {
        needed: u64,
        limit: u64,
    },
    /// An endpoint could not be set up or its session ended early.
    Endpoint(String),
    Io(io::Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(error) => error.fmt(f),
            Self::Home(error) => error.fmt(f),
            Self::Pktxpmgr(error) => error.fmt(f),
            Self::FewFds { needed, limit } => write!(
                f,
                "{needed} open files are needed but only {limit} are allowed; \
                 raise the hard limit (`ulimit -Hn`) or use fewer --endpoints"
            ),
            Self::Endpoint(error) => f.write_str(error),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<BinaryError> for LoadError {
    fn from(error: BinaryError) -> Self {
        Self::Binary(error)
    }
}

impl From<HomeError> for LoadError {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}

impl From<PktxpmgrError> for LoadError {
    fn from(error: PktxpmgrError) -> Self {
        Self::Pktxpmgr(error)
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Runs one measurement: 0 when it came about.
pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options) {
        Ok(report) => {
            let text = if options.json { report.json() } else { report.table() };
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(options: &Options) -> Result<Report, LoadError> {
    let program = binaries::find("pktxpmgr", options.pktxpmgr.as_deref(), "--pktxpmgr")?;
    let mlet = binaries::find("mlet-load", options.mlet.as_deref(), "--mlet")?;
    let (needed, limit) = (options.endpoints as u64 * 2 + FDS_BASE, limits::raise_open_files()?);
    if needed > limit {
        return Err(LoadError::FewFds { needed, limit });
    }
    let home = Home::create(options.endpoints, false)?;
    let mlet = match (options.mode, &options.mlet) {
        (Mode::Short, None) => {
            let tiny = home.config_path().with_file_name("mlet-exit");
            if exit_mlet::write(&tiny)? { tiny } else { mlet }
        }
        _ => mlet,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let arguments = arguments(options, &home, mlet);
        let pktxpmgr = Pktxpmgr::start(&program, arguments).await?;
        if let Some(core) = options.own_core {
            // After the start, for mlets run where pktxpmgr was started.
            cpu::pin_this_thread(core)?;
        }
        let endpoints = home.endpoints(pktxpmgr.address())?;
        let duration = Duration::from_secs(options.seconds);
        let measured =
            modes::measure(options.mode, endpoints, options.size, duration, pktxpmgr.pid()).await;
        let ended = pktxpmgr.stop().await?;
        let mut report = measured?;
        report.take_log(&ended.log_tail);
        Ok(report)
    })
}

fn arguments(options: &Options, home: &Home, mlet: PathBuf) -> Vec<OsString> {
    vec![
        "-v".into(),
        "-c".into(),
        home.config_path().into(),
        "-a".into(),
        "127.0.0.1:0".into(),
        "--cores".into(),
        options.cores.clone().into(),
        "--".into(),
        mlet.into(),
        options.mode.mlet_role().into(),
        options.size.to_string().into(),
    ]
}
