//! One run: a home, a relay, endpoints before it, and what is measured until it is ended.
//!
//! Not here: what the endpoints do (`modes`), and several runs (`repeat_compare_ramp`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use engine::sys::cpu;

use super::bulk::Direction;
use super::conditions::{Conditions, Outcome};
use super::error::LoadError;
use super::exit_mlet;
use super::mix::BULK_SIZE;
use super::mode::Mode;
use super::modes;
use super::options::{MletIo, Options};
use super::placement::{self, Placement, core_name};
use super::relays::{Foreign, Relay};
use super::through::Proxied;
use crate::binaries;
use crate::pktxpmgr::Pktxpmgr;
use crate::records::Records;
use hosts::endpoint::{Endpoint, MonitorRule};
use hosts::home::{Agent, Home, HomeError, Surroundings};
use hosts::interrupts::Interrupts;

/// Which pktxpmgr is measured, if not that of the options, and with which options beside those that all runs have.
#[derive(Debug, Default)]
pub(super) struct Subject {
    pub(super) pktxpmgr: Option<PathBuf>,
    pub(super) arguments: Vec<OsString>,
}

/// Measures it once, and leaves the thread where it was.
///
/// # Errors
/// Something failed, or nothing was measured.
pub(super) async fn measure(
    options: &Options,
    cores: &[usize],
    subject: &Subject,
    interrupts: &mut Interrupts,
) -> Result<Outcome, LoadError> {
    let placement = Placement::new(cores, options.own_core, options.mlet_core);
    let agent = Agent::new()?;
    let proxy_root = (options.mode == Mode::Through).then(|| agent.key.public_key());
    let count = options.endpoints.saturating_add(options.mode.more_endpoints());
    let home = Home::create(count, false, Surroundings { broker: None, proxy_root })?;
    let mlet = mlet(options, &home)?;
    let started =
        interrupts.unless(start((options, subject), placement, &home, mlet.clone())).await;
    let (relay, controller) = started??;
    let started =
        interrupts.unless(proxied((options, subject), cores, (&home, &agent), mlet)).await;
    let proxied = started??;
    let allowed = cpu::allowed_cores()?;
    if let Some(core) = options.own_core {
        // After the start, for mlets run where pktxpmgr was started.
        cpu::pin_this_thread(core)?;
    }
    let endpoints = measuring(&home, controller)?;
    let conditions = Conditions {
        relay: options.relay,
        placement,
        size: options.size as usize,
        pace: options.pace(),
        pid: relay.pid(),
    };
    let behind = match &proxied {
        Some(proxied) => Some((proxied, measuring(&home, proxied.address)?)),
        None => None,
    };
    let what = (options.mode, options.bulk.unwrap_or(Direction::Down));
    let measured = interrupts.unless(modes::measure(what, endpoints, behind, conditions)).await;
    if let Some(proxied) = proxied {
        proxied.stop().await?;
    }
    relay.stop().await?;
    let mut outcome = measured??;
    if counts_enters(options) {
        outcome.report.take_shards(&Records::read(&home.events_path())?.shards);
    }
    placement::pin_this_thread(&allowed)?;
    Ok(outcome)
}

/// The endpoints of a home. What is measured is the manager, and not the monitor program that lets everything pass.
///
/// # Errors
/// TLS refuses an identity.
pub(super) fn measuring(home: &Home, controller: SocketAddr) -> Result<Vec<Endpoint>, HomeError> {
    let endpoints = home.endpoints(controller)?.into_iter();
    Ok(endpoints.map(|endpoint| Endpoint { monitors: MonitorRule::Ignore, ..endpoint }).collect())
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
    (options, subject): (&Options, &Subject),
    placement: Placement,
    home: &Home,
    mlet: PathBuf,
) -> Result<(Started, SocketAddr), LoadError> {
    let config = home.config_path();
    let directory = config.parent().unwrap_or_else(|| Path::new("/"));
    let mlet_arguments = mlet_arguments(options);
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
            let at = (home.config_path(), "127.0.0.1:0".to_owned());
            let mut arguments = pktxpmgr_arguments((options, subject), at, mlet);
            if counts_enters(options) {
                arguments.splice(0..0, ["--events".into(), home.events_path().into()]);
            }
            (pktxpmgr((options, subject))?, arguments)
        }
    };
    arguments.extend(mlet_arguments);
    let (relay, address) = Pktxpmgr::listening(&program, arguments).await?;
    Ok((Started::Ours(relay), address))
}

/// What is behind a proxy, if the mode needs it.
async fn proxied(
    (options, subject): (&Options, &Subject),
    cores: &[usize],
    (home, agent): (&Home, &Agent),
    mlet: PathBuf,
) -> Result<Option<Proxied>, LoadError> {
    if options.mode != Mode::Through {
        return Ok(None);
    }
    let arguments = |proxy: SocketAddr| {
        let at = (home.proxy_config_path(), proxy.to_string());
        let mut arguments = pktxpmgr_arguments((options, subject), at, mlet);
        arguments.extend(mlet_arguments(options));
        arguments
    };
    let program = pktxpmgr((options, subject))?;
    Proxied::start((home, agent), cores, &program, arguments).await.map(Some)
}

fn pktxpmgr((options, subject): (&Options, &Subject)) -> Result<PathBuf, LoadError> {
    let given = subject.pktxpmgr.as_deref().or(options.pktxpmgr.as_deref());
    Ok(binaries::find("pktxpmgr", given, "--pktxpmgr")?)
}

/// Up to the mlet, whose own come behind them.
fn pktxpmgr_arguments(
    (options, subject): (&Options, &Subject),
    (config, address): (PathBuf, String),
    mlet: PathBuf,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-c".into(), config.into()];
    arguments.extend(["-a", &address, "--cores", &options.cores].map(OsString::from));
    if options.singleton {
        arguments.push("-s".into());
    }
    // What it is compared with has its own options.
    if subject.pktxpmgr.is_none() && options.mlet_io == MletIo::Pipe {
        arguments.extend(["--mlet-io", "pipe"].map(OsString::from));
    }
    arguments.extend(subject.arguments.iter().cloned());
    arguments.extend(["--".into(), mlet.into()]);
    arguments
}

fn mlet_arguments(options: &Options) -> Vec<OsString> {
    let role = match (options.singleton, options.each) {
        (true, _) => "echo-all",
        (false, true) => "source-each",
        (false, false) => options.mode.mlet_role(),
    };
    // What is in bulk beside others has a size of its own.
    let size = if options.mode == Mode::Mix { BULK_SIZE } else { options.size as usize };
    vec![role.into(), size.to_string().into(), core_name(options.mlet_core).into()]
}
