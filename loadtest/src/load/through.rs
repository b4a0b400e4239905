//! `through`: round trips through a proxy (EnableProxyMode), beside the direct way in the same run.
//!
//! The proxy is a process of its own, on the relay's cores, and so is the manager behind it; the manager of the direct
//! way runs beside them and has nothing to do meanwhile. Not here: the round trips (`short_and_echo`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::conditions::{Conditions, Outcome};
use super::error::LoadError;
use super::host_process;
use super::process;
use super::sessions::{message, open_all};
use super::short_and_echo::{ROUND_TRIPS, add_beside, round_trips};
use crate::pktxpmgr::Pktxpmgr;
use hosts::endpoint::Endpoint;
use hosts::home::{Agent, Home};

/// Any free port of loopback.
const FREE: &str = "127.0.0.1:0";

/// A proxy, and a manager behind it.
#[derive(Debug)]
pub(super) struct Proxied {
    proxy: Pktxpmgr,
    manager: Pktxpmgr,
    /// Where endpoints come.
    pub(super) address: SocketAddr,
}

impl Proxied {
    /// Starts both; the manager by `program`, with the arguments that `arguments` makes of the proxy's address.
    ///
    /// # Errors
    /// One of them does not get ready.
    pub(super) async fn start(
        (home, agent): (&Home, &Agent),
        cores: &[usize],
        program: &Path,
        arguments: impl FnOnce(SocketAddr) -> Vec<OsString>,
    ) -> Result<Self, LoadError> {
        let files = host_process::agent_files(home, agent)?;
        let words = ["proxy", "--controllers", FREE, "--endpoints", FREE];
        let (proxy, [controllers, address]) = host_process::start(&words, &files, cores).await?;
        let filled = |line: &str| line.contains("backlog filled").then_some(());
        let (manager, ()) = Pktxpmgr::start(program, arguments(controllers), filled).await?;
        Ok(Self { proxy, manager, address })
    }

    /// Ends both, the manager first.
    pub(super) async fn stop(self) -> Result<(), LoadError> {
        self.manager.stop().await?;
        self.proxy.stop().await?;
        Ok(())
    }

    fn proxy_cpu(&self) -> Result<Duration, LoadError> {
        process::cpu_of(self.proxy.pid())
    }
}

/// Direct round trips, and then those through the proxy.
pub(super) async fn measure(
    direct: Vec<Endpoint>,
    (proxied, through): (&Proxied, Vec<Endpoint>),
    conditions: Conditions,
) -> Result<Outcome, LoadError> {
    let mut outcome = Outcome::begin(direct.len());
    let message = message(conditions.size);
    let mut streams = open_all(direct, conditions.relay).await?;
    let direct = round_trips(&mut streams, &message, conditions).await?;
    let mut streams = open_all(through, conditions.relay).await?;
    let conditions = Conditions { pid: proxied.manager.pid(), ..conditions };
    let before = proxied.proxy_cpu()?;
    let through = round_trips(&mut streams, &message, conditions).await?;
    let proxy_cpu = proxied.proxy_cpu()? - before;
    let report = &mut outcome.report;
    for (front, repeated) in [("direct ", &direct), ("through ", &through)] {
        repeated.add_to(report, front, ROUND_TRIPS, conditions.pace)?;
        repeated.add_cpu(report, front, ROUND_TRIPS);
    }
    // All of them, for the proxy's time is that of the warm-up too.
    let per_trip = proxy_cpu.as_secs_f64() * 1e6 / through.samples.done as f64;
    report.add("proxy cpu per round trip", per_trip, "us");
    add_beside(report, "through to direct, ", &through.samples, &direct.samples)?;
    outcome.tagged.push(("direct", direct.samples));
    outcome.tagged.push(("through", through.samples));
    Ok(outcome)
}
