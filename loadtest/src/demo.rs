//! `pktfleet demo`: one whole experiment on loopback, with nothing installed: throw-away credentials, a
//! small HTTP server, a broker and perhaps a proxy, N endpoints, the built `pktxpmgr` and one mlet
//! process for each endpoint.
//!
//! Not here: the parts themselves (`home`, `web`, `hosts`, `endpoint`, `pktxpmgr`).
//!
//! Invariant: a page counts only when the mlet that printed it served that endpoint (by key and
//! address), the text is the one made for that endpoint's address, exactly one connection to the
//! server came from there, and pktxpmgr's one record of that key says that the session ended well. Whatever happens, nothing is left running and no file is left behind.

mod summary;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Stderr};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use command_line::status_line::{Progress, Way as Showing};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use packetlab::message::MessageType;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout_at};

use crate::binaries::{self, BinaryError};
use crate::console;
use crate::local_hosts::{Hosts, HostsError, Way};
use crate::page::{Expected, Pages};
use crate::pktxpmgr::{Ended, Pktxpmgr, PktxpmgrError};
use crate::records::Records;
use crate::web::Web;
use hosts::endpoint::subscribe::Subscriber;
use hosts::endpoint::{Endpoint, Session};
use hosts::home::{Home, HomeError};
use hosts::interrupts::{Interrupt, Interrupts};
use summary::{Row, Summary};

/// Most endpoints: their addresses are 127.1.0.1 and the 65,534 after it.
const ENDPOINTS_MAX: usize = 0xFFFF;
/// Cores for pktxpmgr if the machine has that many.
const CORES_DEFAULT: usize = 2;
/// An address for endpoints that are still to be told one.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Fds this process holds beside those for its endpoints.
const FDS_BASE: u64 = 128;
/// Fds for one endpoint: its session, its connection and the server's end of it; both ends of its
/// subscription; both sides of its session at the proxy.
const FDS_PER_ENDPOINT: u64 = 3 + 2 + 2;

const EXAMPLES: &str = "\
Examples:
  pktfleet demo
  pktfleet demo --endpoints 200 --cores 2
  pktfleet demo --proxy --keep";

/// What `pktfleet demo` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// Number of endpoints, each with its own key and its own 127.x address
    #[arg(long, value_name = "N", default_value = "10", value_parser = endpoint_count)]
    endpoints: usize,
    /// Cores for pktxpmgr: a count, or a list such as 0,2-3 [default: 2, or 1 if there is only 1]
    #[arg(long, value_name = "N")]
    cores: Option<String>,
    /// The pktxpmgr to run [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pktxpmgr: Option<PathBuf>,
    /// The mlet to run, started as `MLET HOST:PORT` [default: mlet-http-get beside this program]
    #[arg(long, value_name = "PATH")]
    mlet: Option<PathBuf>,
    /// Tell the endpoints the controller's address, without a broker
    #[arg(long, conflicts_with = "proxy")]
    direct: bool,
    /// Let the endpoints come through a proxy
    #[arg(long)]
    proxy: bool,
    /// End the run after this many seconds; pages that have not come by then have failed
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Do not show how far the run is while it lasts
    #[arg(short, long)]
    quiet: bool,
    /// Keep the throw-away credentials and the config file, and say where they are
    #[arg(long)]
    keep: bool,
    /// End endpoint K in mid-run, so that exactly page K fails
    #[arg(long, value_name = "K", hide = true)]
    fail_endpoint: Option<usize>,
}

/// Why there was no run, or no result of one.
#[derive(Debug)]
enum DemoError {
    Binary(BinaryError),
    Home(HomeError),
    Hosts(HostsError),
    Pktxpmgr(PktxpmgrError),
    FewFds { needed: u64, limit: u64 },
    Io(io::Error),
    Interrupted(Interrupt),
    NoSuchEndpoint(usize),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(error) => error.fmt(f),
            Self::Home(error) => error.fmt(f),
            Self::Hosts(error) => error.fmt(f),
            Self::Pktxpmgr(error) => error.fmt(f),
            Self::FewFds { needed, limit } => write!(
                f,
                "{needed} open files are needed but only {limit} are allowed; \
                 raise the hard limit (`ulimit -Hn`) or use fewer --endpoints"
            ),
            Self::Io(error) => write!(f, "{error}"),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
            Self::NoSuchEndpoint(number) => write!(f, "there is no endpoint {number} to fail"),
        }
    }
}

impl std::error::Error for DemoError {}

impl From<BinaryError> for DemoError {
    fn from(error: BinaryError) -> Self {
        Self::Binary(error)
    }
}

impl From<HomeError> for DemoError {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}

impl From<HostsError> for DemoError {
    fn from(error: HostsError) -> Self {
        Self::Hosts(error)
    }
}

impl From<PktxpmgrError> for DemoError {
    fn from(error: PktxpmgrError) -> Self {
        Self::Pktxpmgr(error)
    }
}

impl From<Interrupt> for DemoError {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl DemoError {
    /// As pktxpmgr's own codes: 2 for wrong usage, 3 for something missing, 6 for a limit, 128 and
    /// its number for a signal.
    fn exit_code(&self) -> u8 {
        match self {
            Self::NoSuchEndpoint(_) => 2,
            Self::Binary(_) => 3,
            Self::FewFds { .. } => 6,
            Self::Home(error) | Self::Hosts(HostsError::Home(error)) => error.exit_code(),
            Self::Interrupted(interrupt) => interrupt.exit_code(),
            Self::Hosts(HostsError::Host(_)) | Self::Pktxpmgr(_) | Self::Io(_) => 70,
        }
    }
}

/// Runs the demo: 0 only if all pages were right, 1 if some were not.
pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options) {
        Ok(summary) if summary.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            console::note(format_args!("demo: {error}"));
            error.exit_code().into()
        }
    }
}

fn try_run(options: &Options) -> Result<Summary, DemoError> {
    if let Some(number) = options.fail_endpoint
        && !(1..=options.endpoints).contains(&number)
    {
        return Err(DemoError::NoSuchEndpoint(number));
    }
    let pktxpmgr = binaries::find("pktxpmgr", options.pktxpmgr.as_deref(), "--pktxpmgr")?;
    let mlet = binaries::find("mlet-http-get", options.mlet.as_deref(), "--mlet")?;
    raise_fd_limit(options.endpoints)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before there is anything to clean up: from here on a signal only asks.
        let mut interrupts = Interrupts::listen()?;
        let hosts = Hosts::start(options.way()).await?;
        let home = Home::create(options.endpoints, options.keep, hosts.surroundings())?;
        let run = Run { options, pktxpmgr, mlet, hosts, home };
        if options.keep {
            let path = run.config_path();
            console::note(format_args!("demo: the config file is {}", path.display()));
        }
        let summary = run.campaign(&mut interrupts).await?;
        // The summary is the last word, also when the home cannot be removed.
        drop(run);
        summary.print(&mut io::stdout().lock())?;
        console::note(&summary);
        Ok(summary)
    })
}

impl Options {
    fn way(&self) -> Way {
        match (self.direct, self.proxy) {
            (true, _) => Way::Direct,
            (false, true) => Way::Proxy,
            (false, false) => Way::Broker,
        }
    }
}

/// One run and what it needs; the home is removed with it.
struct Run<'a> {
    options: &'a Options,
    pktxpmgr: PathBuf,
    mlet: PathBuf,
    hosts: Hosts,
    home: Home,
}

impl Run<'_> {
    async fn campaign(&self, interrupts: &mut Interrupts) -> Result<Summary, DemoError> {
        let deadline = Instant::now() + Duration::from_secs(self.options.timeout);
        let web = Web::start(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).await?;
        let (mut pktxpmgr, visitors) = interrupts.unless(self.start(web.address())).await??;
        let mut fleet = Fleet::start(visitors);
        let mut progress = Progress::new(Showing::on_stderr(self.options.quiet), io::stderr());
        let finish = fleet.finish(&mut pktxpmgr, &mut progress);
        let ended = interrupts.unless(timeout_at(deadline, finish)).await;
        progress.clear();
        let ended = ended.map(|in_time| in_time.ok().flatten());
        // With the endpoints gone every session ends, so that pktxpmgr has nothing to wait for.
        let sessions = fleet.leave().await;
        match ended {
            Ok(Some(ended)) => Ok(self.summary(&web, sessions, ended?)?),
            Ok(None) => Ok(self.summary(&web, sessions, pktxpmgr.stop().await?)?),
            Err(interrupt) => {
                if let Err(error) = pktxpmgr.stop().await {
                    console::note(format_args!("demo: {error}"));
                }
                Err(interrupt.into())
            }
        }
    }

    /// Starts pktxpmgr; the endpoints, ready to come.
    async fn start(&self, web: SocketAddr) -> Result<(Pktxpmgr, Vec<Visitor>), DemoError> {
        let (endpoints, subscribers);
        let pktxpmgr = match self.hosts.subscribe_address() {
            None => {
                let arguments = self.arguments(&["-a", "127.0.0.1:0"], web);
                let (pktxpmgr, address) = Pktxpmgr::listening(&self.pktxpmgr, arguments).await?;
                console::note(format_args!("demo: pktxpmgr listens on {address}"));
                (endpoints, subscribers) = (self.endpoints(address)?, Vec::new());
                pktxpmgr
            }
            Some(broker) => {
                let addresses = self.published_addresses()?;
                let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
                let arguments = self.arguments(&addresses, web);
                let pktxpmgr = Pktxpmgr::published(&self.pktxpmgr, arguments).await?;
                console::note(format_args!(
                    "demo: pktxpmgr has published; endpoints subscribe at {broker}"
                ));
                // Whom to connect to they learn from the broker.
                (endpoints, subscribers) =
                    (self.endpoints(NOWHERE)?, self.home.subscribers(broker)?);
                pktxpmgr
            }
        };
        let subscribers = subscribers.into_iter().map(Some).chain(std::iter::repeat(None));
        let visitors = endpoints.into_iter().zip(subscribers);
        let visitors = visitors.map(|(endpoint, subscriber)| Visitor { endpoint, subscriber });
        Ok((pktxpmgr, visitors.collect()))
    }

    fn config_path(&self) -> PathBuf {
        match self.hosts.proxy_addresses() {
            Some(_) => self.home.proxy_config_path(),
            None => self.home.config_path(),
        }
    }

    /// Options that say where pktxpmgr listens or registers, and what is published.
    fn published_addresses(&self) -> io::Result<Vec<String>> {
        if let Some((controllers, endpoints)) = self.hosts.proxy_addresses() {
            let (controllers, endpoints) = (controllers.to_string(), endpoints.to_string());
            return Ok(vec!["-a".into(), controllers, "-p".into(), endpoints]);
        }
        Ok(vec!["-a".into(), published_address()?])
    }

    /// The command line of pktxpmgr: one attempt for each endpoint, and the mlet with its target.
    fn arguments(&self, addresses: &[&str], web: SocketAddr) -> Vec<OsString> {
        let count = self.options.endpoints.to_string();
        let web = web.to_string();
        let cores = self.options.cores.clone().unwrap_or_else(default_cores);
        let texts = ["-n", &count, "--cores", &cores, "-c"];
        let mut arguments: Vec<OsString> =
            addresses.iter().chain(&texts).map(OsString::from).collect();
        arguments.push(self.config_path().into());
        arguments.extend(["--events".into(), self.home.events_path().into()]);
        arguments.push("--".into());
        arguments.push(self.mlet.clone().into());
        arguments.push(web.into());
        arguments
    }

    fn endpoints(&self, controller: SocketAddr) -> Result<Vec<Endpoint>, HomeError> {
        let mut endpoints = self.home.endpoints(controller)?;
        // They leave at their first NSEND: after their connection to the server, before the page.
        let fails = self.options.fail_endpoint.and_then(|number| number.checked_sub(1));
        if let Some(endpoint) = fails.and_then(|index| endpoints.get_mut(index)) {
            endpoint.leave_at = Some(MessageType::NSEND);
        }
        Ok(endpoints)
    }

    fn summary(
        &self,
        web: &Web,
        sessions: Vec<Option<Session>>,
        ended: Ended,
    ) -> io::Result<Summary> {
        let records = Records::read(&self.home.events_path())?;
        let mut pages = Pages::parse(&ended.output);
        let identities = self.home.identities().iter();
        let proxy = self.hosts.proxy_addresses().map(|(controllers, _)| controllers.ip());
        let rows = identities.zip(&sessions).map(|(identity, session)| {
            let address = identity.address;
            let expected = Expected {
                key: identity.key_id().to_string(),
                // All that pktxpmgr can tell its mlets behind a proxy.
                address: proxy.unwrap_or(address),
                page: web.page(address),
            };
            let judged = pages.take(&expected).and_then(|()| match web.connections(address) {
                1 => records.judge(&expected.key).map(|()| expected.page),
                count => Err(format!("{count} connections to the server instead of one")),
            });
            let result = judged.map_err(|reason| match session {
                Some(Session { end: Err(error), .. }) => format!("{reason}: {error}"),
                Some(Session { end: Ok(end), .. }) => format!("{reason}: {end}"),
                None => format!("{reason}: not ended in time"),
            });
            Row { address, key: identity.key_id(), result }
        });
        let rows = rows.collect();
        let setups = sessions.iter().flatten().filter_map(|session| session.setup).collect();
        Ok(Summary {
            rows,
            setups,
            strays: pages.into_strays(),
            status: ended.status,
            log_tail: ended.log_tail,
        })
    }
}

/// Where pktxpmgr may listen: the address is published as it is typed, so the port must be a real one. Nobody else gets it
/// in the meantime: the kernel hands such ports out in turn.
pub(crate) fn published_address() -> io::Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}

/// An endpoint that is about to come.
#[derive(Debug)]
struct Visitor {
    endpoint: Endpoint,
    /// How it learns where to; `None` if it knows.
    subscriber: Option<Subscriber>,
}

impl Visitor {
    async fn come(self) -> Session {
        match &self.subscriber {
            Some(subscriber) => self.endpoint.run_subscribed(subscriber).await,
            None => self.endpoint.run().await,
        }
    }
}

/// All endpoints, each its own task.
#[derive(Debug)]
struct Fleet {
    running: JoinSet<(usize, Session)>,
    sessions: Vec<Option<Session>>,
}

impl Fleet {
    fn start(visitors: Vec<Visitor>) -> Self {
        let sessions = visitors.iter().map(|_| None).collect();
        let mut running = JoinSet::new();
        for (index, visitor) in visitors.into_iter().enumerate() {
            running.spawn(async move { (index, visitor.come().await) });
        }
        Self { running, sessions }
    }

    /// Waits for all endpoints and then for pktxpmgr; `None` if it will not end by itself, because it
    /// counts started sessions and some never started.
    async fn finish(
        &mut self,
        pktxpmgr: &mut Pktxpmgr,
        progress: &mut Progress<Stderr>,
    ) -> Option<Result<Ended, PktxpmgrError>> {
        let mut looks = interval(progress.pause());
        loop {
            let joined = tokio::select! {
                joined = self.running.join_next() => joined,
                _ = looks.tick() => {
                    let ended = self.sessions.len() - self.running.len();
                    let (total, seconds) = (self.sessions.len(), progress.lasted().as_secs());
                    progress.show(format_args!(
                        "demo: {ended} of {total} endpoints are done, after {seconds} s"
                    ));
                    continue;
                }
            };
            match joined {
                Some(Ok((index, session))) => {
                    if let Some(slot) = self.sessions.get_mut(index) {
                        *slot = Some(session);
                    }
                }
                Some(Err(_)) => {}
                None => break,
            }
        }
        if self.sessions.iter().flatten().filter(|session| session.started).count()
            < self.sessions.len()
        {
            return None;
        }
        Some(pktxpmgr.finish().await)
    }

    /// Ends the endpoints that still run, at once; the sessions that had ended before, by endpoint.
    async fn leave(mut self) -> Vec<Option<Session>> {
        self.running.shutdown().await;
        self.sessions
    }
}

/// Raises the soft limit to what the run needs.
fn raise_fd_limit(endpoints: usize) -> Result<(), DemoError> {
    let needed = FDS_BASE + FDS_PER_ENDPOINT * endpoints as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from)?;
    if needed > hard {
        return Err(DemoError::FewFds { needed, limit: hard });
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(io::Error::from)?;
    }
    Ok(())
}

fn default_cores() -> String {
    std::thread::available_parallelism()
        .map_or(1, |cores| cores.get().min(CORES_DEFAULT))
        .to_string()
}

/// A number of endpoints, as typed.
pub(crate) fn endpoint_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=ENDPOINTS_MAX) => Ok(count),
        _ => Err(format!("a number from 1 to {ENDPOINTS_MAX} is wanted")),
    }
}
