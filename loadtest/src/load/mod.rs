//! `pktfleet load`: many endpoints against a running `pktxpmgr`, and what that costs it.
//!
//! ```text
//! modes      what the endpoints do: short, storm, idle, echo, up, down
//! attack     the same (short, echo) while somebody attacks
//! relays     what they are put in front of instead of pktxpmgr, to compare with
//! placement  on which cores
//! process    what the relay uses, read from /proc
//! bare       the same round trip without a relay, to compare with
//! report     the table and the JSON
//! ```
//!
//! Every mode is a closed loop: a session sends again when the answer has come. Figures of one run may
//! be compared with one another, not with those of another machine or day.

mod attack;
mod bare;
mod exit_mlet;
mod modes;
mod placement;
mod process;
mod relays;
mod report;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use engine::sys::{cpu, limits};
use packetlab::message::PAYLOAD_LEN_MAX;

use crate::binaries::{self, BinaryError};
use crate::console;
use crate::pktxpmgr::{Pktxpmgr, PktxpmgrError};
use crate::records::Records;
use hosts::home::{Home, HomeError, Surroundings};
use hosts::interrupts::{Interrupt, Interrupts};
use hosts::tls_reason;
use placement::Placement;
use relays::{Foreign, Relay};
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
    #[arg(value_parser = clap::value_parser!(u32).range(..=PAYLOAD_LEN_MAX as i64))]
    size: u32,
    /// How long to measure (short, idle, echo, up, down)
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// Cores for pktxpmgr: a count, or a list such as 0,2-3
    #[arg(long, value_name = "N", default_value = "1")]
    cores: String,
    /// The core this program runs on [default: any]
    #[arg(long, value_name = "CORE")]
    own_core: Option<usize>,
    /// The core that mlet-load runs on [default: any]
    #[arg(long, value_name = "CORE")]
    mlet_core: Option<usize>,
    /// What stands between endpoints and mlets
    #[arg(long, value_enum, default_value = "pktxpmgr")]
    relay: Relay,
    /// One mlet for all sessions (storm, idle, echo with pktxpmgr)
    #[arg(long)]
    singleton: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// The pktxpmgr to run [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pktxpmgr: Option<PathBuf>,
    /// The mlet to run [default: mlet-load beside this program; for short one without libc]
    #[arg(long, value_name = "PATH")]
    mlet: Option<PathBuf>,
    #[command(flatten)]
    attack: attack::AttackOptions,
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
        endpoints: u64,
        limit: u64,
    },
    /// Options that do not go together.
    Unfit(&'static str),
    /// A core that this process may not use, or that is not there.
    NoCore {
        option: &'static str,
        core: String,
        allowed: Vec<usize>,
    },
    /// Not one of these was measured.
    NoSample(&'static str),
    /// The attack that was to be measured has done nothing.
    NoAttack,
    /// What a process uses cannot be told.
    Usage {
        pid: u32,
        cause: io::Error,
    },
    /// The result cannot be written.
    Output(io::Error),
    /// An endpoint could not be set up or its session ended early.
    Endpoint(String),
    /// A session ended although its mlet was to stay.
    EndedEarly,
    Io(io::Error),
    Interrupted(Interrupt),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(error) => error.fmt(f),
            Self::Home(error) => error.fmt(f),
            Self::Pktxpmgr(error) => error.fmt(f),
            Self::FewFds { endpoints, limit } => write!(
                f,
                "{endpoints} sessions need {} open files in pktxpmgr (2 each and {FDS_BASE} more; 1 each \
                 here and in the mlet of a singleton), but a process may have only {limit}, which is \
                 enough for {}; raise the hard limit (`ulimit -Hn`) or use fewer --endpoints (or a \
                 smaller --attack-count)",
                fds_needed(*endpoints),
                limit.saturating_sub(FDS_BASE) / 2
            ),
            Self::Unfit(why) => f.write_str(why),
            Self::NoCore { option, core, allowed } => {
                let allowed: Vec<_> = allowed.iter().map(usize::to_string).collect();
                let allowed = allowed.join(", ");
                write!(
                    f,
                    "{option} {core}: there is no such core here; those to be used are {allowed}"
                )
            }
            Self::NoSample(what) => write!(
                f,
                "there is no result, because not one {what} was measured; give it more --seconds, or more \
                 --endpoints"
            ),
            Self::NoAttack => f.write_str(
                "there is no result, because the attack has done nothing; give it more --seconds",
            ),
            Self::Usage { pid, cause } => write!(
                f,
                "what process {pid} uses cannot be read from /proc/{pid} ({cause}); if it runs and may not \
                 be looked into, start this as root (CAP_SYS_PTRACE)"
            ),
            Self::Output(cause) => write!(f, "the result cannot be written: {cause}"),
            Self::Endpoint(error) => f.write_str(error),
            Self::EndedEarly => f.write_str(
                "a session ended before its time: the mlet has ended, or what stands before it; one that is given \
                 with --mlet must do what mlet-load does (see mlet-load --help) until its session ends",
            ),
            Self::Io(error) => f.write_str(&tls_reason::reason(error)),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
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

impl From<Interrupt> for LoadError {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl LoadError {
    /// As the demo's: 2 for what was typed wrong, 3 for something missing, 6 for a limit, 128 and its number
    /// for a signal.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Unfit(_) | Self::NoCore { .. } => 2,
            Self::Binary(_) => 3,
            Self::FewFds { .. } => 6,
            Self::Interrupted(interrupt) => interrupt.exit_code(),
            _ => 1,
        }
    }
}

/// Runs one measurement: 0 when it came about and was told.
pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options).and_then(|report| tell(options, &report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::note(format_args!("load: {error}"));
            error.exit_code().into()
        }
    }
}

fn tell(options: &Options, report: &Report) -> Result<(), LoadError> {
    let text = if options.json { report.json() } else { report.table() };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(LoadError::Output)
}

/// Open files of the relay, which needs the most, at two a session.
const fn fds_needed(endpoints: u64) -> u64 {
    endpoints.saturating_mul(2).saturating_add(FDS_BASE)
}

fn try_run(options: &Options) -> Result<Report, LoadError> {
    if !options.relay.can(options.mode) {
        return Err(LoadError::Unfit("this relay cannot be measured in this mode; see --help"));
    }
    if options.singleton
        && (options.relay != Relay::Pktxpmgr
            || !matches!(options.mode, Mode::Storm | Mode::Idle | Mode::Echo))
    {
        return Err(LoadError::Unfit("--singleton goes with storm, idle and echo of pktxpmgr"));
    }
    let attacker = options.attack.core();
    for (option, core) in [
        ("--own-core", options.own_core),
        ("--mlet-core", options.mlet_core),
        ("--attack-core", attacker),
    ] {
        placement::check(option, core.as_slice())?;
    }
    let cores = placement::cores(&options.cores)?;
    let endpoints = options.endpoints.saturating_add(options.attack.connections()) as u64;
    let limit = limits::raise_open_files()?;
    if fds_needed(endpoints) > limit {
        return Err(LoadError::FewFds { endpoints, limit });
    }
    if let Some(kind) = options.attack.kind() {
        return attack::run(options, kind, cores);
    }
    let placement = Placement::new(&cores, options.own_core, options.mlet_core);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before there is anything to clean up: from here on a signal only asks.
        let mut interrupts = Interrupts::listen()?;
        let home = Home::create(options.endpoints, false, Surroundings::default())?;
        let mlet = mlet(options, &home)?;
        let started = interrupts.unless(start(options, placement, &home, mlet)).await;
        let (relay, controller) = started??;
        if let Some(core) = options.own_core {
            // After the start, for mlets run where pktxpmgr was started.
            cpu::pin_this_thread(core)?;
        }
        let endpoints = home.endpoints(controller)?;
        let duration = Duration::from_secs(options.seconds);
        let what = (options.mode, options.relay, placement);
        let size = options.size as usize;
        let measure = modes::measure(what, endpoints, size, duration, relay.pid());
        let measured = interrupts.unless(measure).await;
        relay.stop().await?;
        let mut report = measured??;
        if counts_enters(options) {
            report.take_shards(&Records::read(&home.events_path())?.shards);
        }
        Ok(report)
    })
}

/// Whether the ring is asked how often it was entered; that costs a record of each session.
fn counts_enters(options: &Options) -> bool {
    options.relay == Relay::Pktxpmgr && options.mode == Mode::Echo
}

fn mlet(options: &Options, home: &Home) -> Result<PathBuf, LoadError> {
    let mlet = binaries::find("mlet-load", options.mlet.as_deref(), "--mlet")?;
    if options.mode == Mode::Short && options.mlet.is_none() {
        let tiny = home.config_path().with_file_name("mlet-exit");
        if exit_mlet::write(&tiny)? {
            return Ok(tiny);
        }
    }
    Ok(mlet)
}

/// A relay that has been started.
enum Started {
    /// `pktxpmgr` or `tokio-relay`, which tell where they listen.
    Ours(Pktxpmgr),
    Foreign(Foreign),
}

impl Started {
    fn pid(&self) -> u32 {
        match self {
            Self::Ours(relay) => relay.pid(),
            Self::Foreign(relay) => relay.pid(),
        }
    }

    /// Ends it.
    async fn stop(self) -> Result<(), LoadError> {
        match self {
            Self::Ours(relay) => relay.stop().await.map(drop)?,
            Self::Foreign(relay) => relay.stop().await?,
        }
        Ok(())
    }
}

async fn start(
    options: &Options,
    placement: Placement,
    home: &Home,
    mlet: PathBuf,
) -> Result<(Started, SocketAddr), LoadError> {
    let config = home.config_path();
    let directory = config.parent().unwrap_or_else(|| Path::new("/"));
    let role = if options.singleton { "echo-all" } else { options.mode.mlet_role() };
    let core = core_name(options.mlet_core);
    let mlet_arguments = vec![role.into(), options.size.to_string().into(), core.into()];
    let (program, mut arguments): (_, Vec<OsString>) = match options.relay {
        Relay::Socat => {
            let (relay, address) = Foreign::socat(directory, &mlet, placement).await?;
            return Ok((Started::Foreign(relay), address));
        }
        Relay::Haproxy => {
            let (relay, address) =
                Foreign::haproxy(directory, &mlet, mlet_arguments, placement).await?;
            return Ok((Started::Foreign(relay), address));
        }
        Relay::Tokio => {
            let core = core_name(placement.relay);
            let program = binaries::find("tokio-relay", None, "--relay")?;
            (program, vec![directory.into(), core.into(), mlet.into()])
        }
        Relay::Pktxpmgr => {
            let program = binaries::find("pktxpmgr", options.pktxpmgr.as_deref(), "--pktxpmgr")?;
            (program, pktxpmgr_arguments(options, home, mlet))
        }
    };
    arguments.extend(mlet_arguments);
    let (relay, address) = Pktxpmgr::listening(&program, arguments).await?;
    Ok((Started::Ours(relay), address))
}

/// A core as `mlet-load` and `tokio-relay` take it.
fn core_name(core: Option<usize>) -> String {
    core.map_or_else(|| "any".to_owned(), |core| core.to_string())
}

fn pktxpmgr_arguments(options: &Options, home: &Home, mlet: PathBuf) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-c".into(), home.config_path().into()];
    arguments.extend(["-a", "127.0.0.1:0", "--cores", &options.cores].map(OsString::from));
    if counts_enters(options) {
        arguments.extend(["--events".into(), home.events_path().into()]);
    }
    if options.singleton {
        arguments.push("-s".into());
    }
    arguments.extend(["--".into(), mlet.into()]);
    arguments
}
