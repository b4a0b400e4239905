//! `pktfleet try`: a mlet run once through the whole chain, with nothing configured: throw-away credentials, a broker, the
//! built `pktxpmgr`, and endpoints on this host, whose network is used for real.
//!
//! Not here: the parts themselves (`home`, `hosts`, `endpoint`, `pktxpmgr`). Unlike the demo, whose endpoints stay on
//! loopback, it says nothing of its own where all goes well: what is seen is the mlet's.
//!
//! Invariant: the exit code is the mlet's, of several the first that is not 0, and never 0 where a mlet has not ended or
//! something is lost. Whatever happens, nothing is left running and no file is left behind.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::{Args, ValueHint};
use command_line::units::time_limit;
use engine::sys::{limits, parent};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::binaries::{self, BinaryError};
use crate::console;
use crate::demo::{endpoint_count, published_address};
use crate::local_hosts::{Hosts, HostsError, Way};
use crate::pktxpmgr;
use crate::records::Records;
use hosts::endpoint::{Endpoint, Session};
use hosts::home::{Home, HomeError};
use hosts::interrupts::{Interrupt, Interrupts};

/// Stands for any address: the system chooses by where a packet goes.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Exit code where a mlet has not ended (EX_SOFTWARE), as pktxpmgr's own.
const NOT_RUN: u8 = 70;

const EXAMPLES: &str = "\
Examples:
  pktfleet try ./mlet-dns www.example.org 192.0.2.53
  pktfleet try --endpoints 3 --trace ./mlet-ping 192.0.2.1
  pktfleet try --mlet-timeout 1m ./mlet-echo";

/// What `pktfleet try` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, override_usage = "pktfleet try [OPTIONS] MLET [ARG]...")]
pub(crate) struct Options {
    /// Number of endpoints, each with its own key; for each the mlet runs once
    #[arg(long, value_name = "N", default_value = "1", value_parser = endpoint_count)]
    endpoints: usize,
    /// Show the log of pktxpmgr, with each message between endpoint and mlet
    #[arg(long)]
    trace: bool,
    /// Write each message between endpoint and mlet to this folder, a file for each session
    #[arg(long, value_name = "DIR")]
    capture: Option<PathBuf>,
    /// Write each message for Wireshark to this file (docs/packetlab.lua)
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// End the mlet when it has run for so long, also when its session is over [default: no limit; Ctrl-C ends it]
    #[arg(long, value_name = "TIME", value_parser = time_limit)]
    mlet_timeout: Option<Duration>,
    /// The pktxpmgr to run [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pktxpmgr: Option<PathBuf>,
    /// A path, never searched in PATH; what follows is for the mlet
    #[arg(value_name = "MLET", required = true, trailing_var_arg = true)]
    #[arg(value_hint = ValueHint::FilePath)]
    mlet_and_arguments: Vec<OsString>,
}

/// Why no mlet has run to its end.
#[derive(Debug)]
enum TryError {
    Binary(BinaryError),
    Home(HomeError),
    Hosts(HostsError),
    Io(io::Error),
    Interrupted(Interrupt),
    /// An endpoint did not come to START.
    NotStarted(String),
    /// pktxpmgr has said why.
    Pktxpmgr(ExitStatus),
}

impl fmt::Display for TryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(error) => error.fmt(f),
            Self::Home(error) => error.fmt(f),
            Self::Hosts(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
            Self::NotStarted(why) => write!(f, "an endpoint was not served: {why}"),
            Self::Pktxpmgr(status) => write!(f, "no mlet has run; pktxpmgr ended with {status}"),
        }
    }
}

impl std::error::Error for TryError {}

impl From<BinaryError> for TryError {
    fn from(error: BinaryError) -> Self {
        Self::Binary(error)
    }
}

impl From<HomeError> for TryError {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}

impl From<HostsError> for TryError {
    fn from(error: HostsError) -> Self {
        Self::Hosts(error)
    }
}

impl From<io::Error> for TryError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Interrupt> for TryError {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl TryError {
    /// As pktxpmgr's own codes: its own one if it has ended by itself.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Binary(_) => 3,
            Self::Home(error) | Self::Hosts(HostsError::Home(error)) => error.exit_code(),
            Self::Interrupted(interrupt) => interrupt.exit_code(),
            Self::Pktxpmgr(status) => {
                Some(code_of(*status)).filter(|code| *code != 0).unwrap_or(NOT_RUN)
            }
            Self::Hosts(HostsError::Host(_)) | Self::Io(_) | Self::NotStarted(_) => NOT_RUN,
        }
    }
}

/// Runs the mlet; its exit code.
pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options) {
        Ok(code) => code.into(),
        Err(error) => {
            console::note(format_args!("try: {error}"));
            error.exit_code().into()
        }
    }
}

fn try_run(options: &Options) -> Result<u8, TryError> {
    let pktxpmgr = binaries::find("pktxpmgr", options.pktxpmgr.as_deref(), "--pktxpmgr")?;
    limits::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before there is anything to clean up: from here on a signal only asks.
        let mut interrupts = Interrupts::listen()?;
        let hosts = Hosts::start(Way::Broker).await?;
        let home = Home::create(options.endpoints, false, hosts.surroundings())?;
        let (leave, leaving) = watch::channel(false);
        let mut endpoints = come(&home, &hosts, &leaving)?;
        let mut command = Command::new(&pktxpmgr);
        command
            .args(arguments(options, &home)?)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            // A Ctrl-C is for us alone, who pass it on.
            .process_group(0);
        // Its supervisor, which stays, ends the mlets.
        parent::end_with_parent(command.as_std_mut());
        let mut child = command.spawn()?;
        let watched = match interrupts.unless(wait_for(&mut child, &mut endpoints)).await {
            Ok(watched) => watched,
            Err(interrupt) => {
                leave.send_replace(true);
                end_in_order(&mut child, &mut interrupts).await?;
                return Err(interrupt.into());
            }
        };
        // With the endpoints gone every session ends, so that pktxpmgr has nothing to wait for.
        endpoints.shutdown().await;
        let status = pktxpmgr::end(&mut child).await?;
        watched?;
        judge(&Records::read(&home.events_path())?, status)
    })
}

/// Ends an interrupted run whose endpoints leave: their mlets read so and finish, then pktxpmgr writes what it has captured
/// and ends. Each further interrupt is harder: the end by force, that at once, and pktxpmgr's own.
async fn end_in_order(child: &mut Child, interrupts: &mut Interrupts) -> io::Result<ExitStatus> {
    console::note(
        "try: interrupted; the endpoint leaves and the mlet may finish; once more ends it by force",
    );
    for harder in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGINT, Signal::SIGKILL] {
        pktxpmgr::signal(child, harder);
        if let Ok(status) = interrupts.unless(child.wait()).await {
            return status;
        }
    }
    child.wait().await
}

/// The endpoints, about to be told by the broker of what will be published there, until they are told to leave.
fn come(
    home: &Home,
    hosts: &Hosts,
    leaving: &watch::Receiver<bool>,
) -> Result<JoinSet<Session>, TryError> {
    let nowhere = SocketAddr::new(ANYWHERE, 0);
    let broker = hosts.subscribe_address().unwrap_or(nowhere);
    let mut running = JoinSet::new();
    for (endpoint, subscriber) in
        home.endpoints(nowhere)?.into_iter().zip(home.subscribers(broker)?)
    {
        let endpoint = Endpoint { address: ANYWHERE, ..endpoint };
        let mut leaving = leaving.clone();
        running.spawn(async move {
            // Who tells them is there for longer than they are.
            let told = async { drop(leaving.wait_for(|is_told| *is_told).await) };
            endpoint.run_subscribed_until(&subscriber, told).await
        });
    }
    Ok(running)
}

/// The command line of pktxpmgr, whose own words are left out unless messages are to be seen.
fn arguments(options: &Options, home: &Home) -> io::Result<Vec<OsString>> {
    let log = if options.trace { "--trace" } else { "-qq" };
    let (count, address) = (options.endpoints.to_string(), published_address()?);
    let words = ["-a", &address, "-n", &count, "--cores", "1", "--no-status", log, "-c"];
    let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
    arguments.push(home.config_path().into());
    if let Some(limit) = options.mlet_timeout {
        arguments.extend(["--mlet-timeout".into(), format!("{}ns", limit.as_nanos()).into()]);
    }
    for (option, path) in [("--capture", &options.capture), ("--pcap", &options.pcap)] {
        if let Some(path) = path {
            arguments.extend([option.into(), path.into()]);
        }
    }
    arguments.extend(["--events".into(), home.events_path().into(), "--".into()]);
    arguments.extend(options.mlet_and_arguments.iter().cloned());
    Ok(arguments)
}

/// Waits for the end of pktxpmgr, which comes by itself when every endpoint has been served.
async fn wait_for(child: &mut Child, endpoints: &mut JoinSet<Session>) -> Result<(), TryError> {
    loop {
        let session = tokio::select! {
            ended = child.wait() => return Ok(ended.map(drop)?),
            Some(session) = endpoints.join_next() => session,
        };
        match session {
            Ok(Session { started: true, .. }) => {}
            Ok(Session { end: Err(error), .. }) => {
                return Err(TryError::NotStarted(error.to_string()));
            }
            Ok(Session { end: Ok(end), .. }) => return Err(TryError::NotStarted(end.to_string())),
            Err(error) => return Err(TryError::Io(io::Error::other(error))),
        }
    }
}

/// The exit code; tells of each session that has not ended well.
fn judge(records: &Records, status: ExitStatus) -> Result<u8, TryError> {
    for failure in records.failures() {
        console::note(format_args!("try: {failure}"));
    }
    match records.mlet_exit_code(NOT_RUN) {
        // What was to be captured may be lost all the same, which pktxpmgr has told.
        Some(0) => Ok(code_of(status)),
        code => code.ok_or(TryError::Pktxpmgr(status)),
    }
}

/// Of pktxpmgr; 70 if a signal has ended it.
fn code_of(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(NOT_RUN)
}
