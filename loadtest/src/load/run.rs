//! One run: a home, a relay, endpoints before it, and what is measured until it is ended.
//!
//! Not here: what the endpoints do (`modes`), and several runs (`series`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use engine::sys::cpu;

use super::conditions::{Conditions, Outcome};
use super::error::LoadError;
use super::exit_mlet;
use super::mode::Mode;
use super::modes;
use super::options::Options;
use super::placement::{self, Placement, core_name};
use super::relays::{Foreign, Relay};
use crate::binaries;
use crate::pktxpmgr::Pktxpmgr;
use crate::records::Records;
use hosts::home::{Home, Surroundings};
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
    let home = Home::create(options.endpoints, false, Surroundings::default())?;
    let mlet = mlet(options, &home)?;
    let started = interrupts.unless(start((options, subject), placement, &home, mlet)).await;
    let (relay, controller) = started??;
    let allowed = cpu::allowed_cores()?;
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
    if counts_enters(options) {
        outcome.report.take_shards(&Records::read(&home.events_path())?.shards);
    }
    placement::pin_this_thread(&allowed)?;
    Ok(outcome)
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
            let given = subject.pktxpmgr.as_deref().or(options.pktxpmgr.as_deref());
            let program = binaries::find("pktxpmgr", given, "--pktxpmgr")?;
            (program, pktxpmgr_arguments((options, subject), home, mlet))
        }
    };
    arguments.extend(mlet_arguments);
    let (relay, address) = Pktxpmgr::listening(&program, arguments).await?;
    Ok((Started::Ours(relay), address))
}

fn pktxpmgr_arguments(
    (options, subject): (&Options, &Subject),
    home: &Home,
    mlet: PathBuf,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-c".into(), home.config_path().into()];
    arguments.extend(["-a", "127.0.0.1:0", "--cores", &options.cores].map(OsString::from));
    if counts_enters(options) {
        arguments.extend(["--events".into(), home.events_path().into()]);
    }
    if options.singleton {
        arguments.push("-s".into());
    }
    arguments.extend(subject.arguments.iter().cloned());
    arguments.extend(["--".into(), mlet.into()]);
    arguments
}
