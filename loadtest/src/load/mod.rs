//! `pktfleet load`: many endpoints against a running `pktxpmgr`, and what that costs it.
//!
//! ```text
//! options    what it can be told       error    why there is no result
//! mode       what the endpoints do, by name
//! modes      what each does: repeated (short, echo), held (storm, idle), bulk (up, down)
//! turns      when each session begins anew: closed and open loop
//! sessions   one session: opened, a message sent and answered
//! conditions what holds for a measurement, and what comes of it
//! attack     short and echo while somebody attacks
//! relays     what they are put in front of instead of pktxpmgr, to compare with
//! placement  on which cores
//! process    what the relay uses, read from /proc
//! bare       the same round trip without a relay, to compare with
//! about      of what a result is one: parameters, programs, machine
//! report     the figures, as a table and as JSON
//! histogram  of times                       hlog    the same in a file, second by second
//! ```
//!
//! Figures of one run may be compared with one another, not with those of another machine or day.

mod about;
mod attack;
mod bare;
mod bulk;
mod conditions;
mod error;
mod exit_mlet;
mod held;
mod histogram;
mod hlog;
mod mode;
mod modes;
mod options;
mod placement;
mod process;
mod relays;
mod repeated;
mod report;
mod sessions;
mod turns;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use engine::sys::{cpu, limits};

use crate::binaries;
use crate::console;
use crate::pktxpmgr::Pktxpmgr;
use crate::records::Records;
use about::About;
use conditions::Conditions;
use error::{LoadError, fds_needed};
use hlog::Hlog;
use hosts::home::{Home, Surroundings};
use hosts::interrupts::Interrupts;
use mode::Mode;
pub(crate) use options::Options;
use placement::{Placement, core_name};
use relays::{Foreign, Relay};
use report::Report;
use serde::Serialize;

/// What is told.
#[derive(Debug, Serialize)]
struct Told<'a> {
    about: About<'a>,
    figures: Report,
}

/// Runs one measurement: 0 when it came about and was told.
pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options).and_then(|told| tell(options, &told)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::note(format_args!("load: {error}"));
            error.exit_code().into()
        }
    }
}

fn tell(options: &Options, told: &Told<'_>) -> Result<(), LoadError> {
    let text = if options.json {
        serde_json::to_string(told).map_err(|error| LoadError::Output(error.into()))?
    } else {
        told.about.table() + &told.figures.table()
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(LoadError::Output)
}

fn try_run(options: &Options) -> Result<Told<'_>, LoadError> {
    let cores = check(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let about = runtime.block_on(About::begin(options, &cores))?;
    let figures = match options.attack.kind() {
        Some(kind) => attack::run(options, kind, cores)?,
        None => runtime.block_on(measure(options, &cores))?,
    };
    Ok(Told { about, figures })
}

/// The cores of the relay, if the options go together and there is what they need.
fn check(options: &Options) -> Result<Vec<usize>, LoadError> {
    options.check()?;
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
    options.attack.kind().map_or(Ok(()), |kind| attack::check(options, kind))?;
    Ok(cores)
}

async fn measure(options: &Options, cores: &[usize]) -> Result<Report, LoadError> {
    let placement = Placement::new(cores, options.own_core, options.mlet_core);
    // Before anything is measured in vain.
    let hlog = options.hlog.as_deref().map(Hlog::open).transpose()?;
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
    let conditions = Conditions {
        relay: options.relay,
        placement,
        size: options.size as usize,
        pace: options.pace(),
        pid: relay.pid(),
    };
    let measure = modes::measure(options.mode, endpoints, conditions);
    let measured = interrupts.unless(measure).await;
    relay.stop().await?;
    let mut outcome = measured??;
    hlog.map_or(Ok(()), |mut hlog| hlog.write(&outcome.tagged))?;
    if counts_enters(options) {
        outcome.report.take_shards(&Records::read(&home.events_path())?.shards);
    }
    Ok(outcome.report)
}

/// Whether the ring is asked how often it was entered; that costs a record of each session. It tells of the whole run.
fn counts_enters(options: &Options) -> bool {
    options.relay == Relay::Pktxpmgr && options.mode == Mode::Echo && options.warm_up == 0
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
