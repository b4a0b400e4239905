//! `pktfleet demo`: one whole experiment on loopback, with nothing installed: throw-away credentials, a
//! small HTTP server, N endpoints, the built `pktxpmgr` and one mlet process for each endpoint.
//!
//! Not here: the parts themselves (`home`, `web`, `endpoint`, `pktxpmgr`).
//!
//! Invariant: a page counts only when the mlet that printed it served that endpoint (by key and
//! address), the text is the one made for that endpoint's address, and exactly one connection to the
//! server came from there. Whatever happens, nothing is left running and no file is left behind.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use engine::wire::message::MessageType;
use hdrhistogram::Histogram;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::binaries::{self, BinaryError};
use crate::endpoint::{Endpoint, Session};
use crate::home::{Home, HomeError};
use crate::page::{Expected, Pages};
use crate::pktxpmgr::{Ended, Pktxpmgr, PktxpmgrError};
use crate::web::Web;

/// Most endpoints: their addresses are 127.1.0.1 and the 65,534 after it.
const ENDPOINTS_MAX: usize = 0xFFFF;
/// Fds this process holds beside three for each endpoint (its session, its connection, the server's).
const FDS_BASE: u64 = 64;
/// More endpoints than this are shown shortened.
const ROWS_MAX: usize = 20;
/// How many good endpoints and how many failed ones a shortened table shows.
const ROWS_SHORTENED: usize = 10;

/// What `pktfleet demo` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of endpoints, each with its own key and its own 127.x address
    #[arg(long, value_name = "N", default_value = "10", value_parser = endpoint_count)]
    endpoints: usize,
    /// Cores for pktxpmgr: a count, or a list such as 0,2-3
    #[arg(long, value_name = "N", default_value = "2")]
    cores: String,
    /// The pktxpmgr to run [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pktxpmgr: Option<PathBuf>,
    /// The mlet to run, started as `MLET HOST:PORT` [default: mlet-http-get beside this program]
    #[arg(long, value_name = "PATH")]
    mlet: Option<PathBuf>,
    /// End the run after this many seconds; pages that have not come by then have failed
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    timeout: NonZeroU64,
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
    Pktxpmgr(PktxpmgrError),
    FewFds { needed: u64, limit: u64 },
    Io(io::Error),
    Interrupted(Interrupt),
}

/// A signal that asked us to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    Int,
    Term,
}

impl fmt::Display for DemoError {
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
            Self::Io(error) => write!(f, "{error}"),
            Self::Interrupted(_) => write!(f, "interrupted; all was ended and removed"),
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

impl From<PktxpmgrError> for DemoError {
    fn from(error: PktxpmgrError) -> Self {
        Self::Pktxpmgr(error)
    }
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl DemoError {
    /// As pktxpmgr's own codes: 3 for something missing, 6 for a limit, 128 + n for a signal.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Binary(_) => 3,
            Self::FewFds { .. } => 6,
            Self::Interrupted(Interrupt::Int) => 130,
            Self::Interrupted(Interrupt::Term) => 143,
            Self::Home(_) | Self::Pktxpmgr(_) | Self::Io(_) => 70,
        }
    }
}

/// Runs the demo: 0 only if all pages were right, 1 if some were not.
pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options) {
        Ok(report) if report.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            error.exit_code().into()
        }
    }
}

fn try_run(options: &Options) -> Result<Report, DemoError> {
    let pktxpmgr = binaries::find("pktxpmgr", options.pktxpmgr.as_deref(), "--pktxpmgr")?;
    let mlet = binaries::find("mlet-http-get", options.mlet.as_deref(), "--mlet")?;
    raise_fd_limit(options.endpoints)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before there is anything to clean up: from here on a signal only asks.
        let mut interrupts = Interrupts::listen()?;
        let home = Home::create(options.endpoints, options.keep)?;
        let run = Run { options, pktxpmgr, mlet, home };
        let report = run.campaign(&mut interrupts).await?;
        report.print(&mut io::stdout().lock())?;
        eprintln!("{report}");
        Ok(report)
    })
}

/// One run and what it needs; the home is removed with it.
struct Run<'a> {
    options: &'a Options,
    pktxpmgr: PathBuf,
    mlet: PathBuf,
    home: Home,
}

impl Run<'_> {
    async fn campaign(&self, interrupts: &mut Interrupts) -> Result<Report, DemoError> {
        let deadline = Instant::now() + Duration::from_secs(self.options.timeout.get());
        let web = Web::start(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).await?;
        let mut pktxpmgr = tokio::select! {
            started = Pktxpmgr::start(&self.pktxpmgr, self.arguments(web.address())) => started?,
            interrupt = interrupts.next() => return Err(DemoError::Interrupted(interrupt)),
        };
        eprintln!("demo: pktxpmgr listens on {}", pktxpmgr.address());

        let mut fleet = Fleet::start(self.endpoints(pktxpmgr.address())?);
        let ended = tokio::select! {
            ended = timeout_at(deadline, fleet.finish(&mut pktxpmgr)) => Ok(ended.ok().flatten()),
            interrupt = interrupts.next() => Err(interrupt),
        };
        // With the endpoints gone every session ends, so that pktxpmgr has nothing to wait for.
        let sessions = fleet.leave().await;
        match ended {
            Ok(Some(ended)) => Ok(self.report(&web, sessions, ended?)),
            Ok(None) => Ok(self.report(&web, sessions, pktxpmgr.stop().await?)),
            Err(interrupt) => {
                pktxpmgr.stop().await?;
                Err(DemoError::Interrupted(interrupt))
            }
        }
    }

    /// The command line of pktxpmgr: one attempt for each endpoint, and the mlet with its target.
    fn arguments(&self, web: SocketAddr) -> Vec<OsString> {
        let count = self.options.endpoints.to_string();
        let web = web.to_string();
        let texts = ["-a", "127.0.0.1:0", "-n", &count, "--cores", &self.options.cores, "-c"];
        let mut arguments: Vec<OsString> = texts.iter().map(OsString::from).collect();
        arguments.push(self.home.config_path().into());
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

    fn report(&self, web: &Web, sessions: Vec<Option<Session>>, ended: Ended) -> Report {
        let mut pages = Pages::parse(&ended.output);
        let identities = self.home.identities().iter();
        let rows = identities.zip(&sessions).map(|(identity, session)| {
            let address = identity.address;
            let expected =
                Expected { key: identity.key_id().to_string(), address, page: web.page(address) };
            let judged = pages.take(&expected).and_then(|()| match web.connections(address) {
                1 => Ok(expected.page),
                count => Err(format!("{count} connections to the server instead of one")),
            });
            let result = judged.map_err(|reason| match session {
                Some(Session { end: Err(error), .. }) => format!("{reason}: {error}"),
                Some(Session { end: Ok(end), .. }) => format!("{reason}: {end}"),
                None => format!("{reason}: not ended in time"),
            });
            Row { address, key: expected.key, result }
        });
        let rows = rows.collect();
        let setups = sessions.iter().flatten().filter_map(|session| session.setup).collect();
        let log_tail = if ended.status.success() { Vec::new() } else { ended.log_tail };
        Report { rows, setups, strays: pages.into_strays(), status: ended.status, log_tail }
    }
}

/// All endpoints, each its own task.
#[derive(Debug)]
struct Fleet {
    running: JoinSet<(usize, Session)>,
    sessions: Vec<Option<Session>>,
}

impl Fleet {
    fn start(endpoints: Vec<Endpoint>) -> Self {
        let sessions = endpoints.iter().map(|_| None).collect();
        let mut running = JoinSet::new();
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            running.spawn(async move { (index, endpoint.run().await) });
        }
        Self { running, sessions }
    }

    /// Waits for all endpoints and then for pktxpmgr; `None` if it will not end by itself, because it
    /// counts started sessions and some never started.
    async fn finish(&mut self, pktxpmgr: &mut Pktxpmgr) -> Option<Result<Ended, PktxpmgrError>> {
        while let Some(joined) = self.running.join_next().await {
            if let Ok((index, session)) = joined
                && let Some(slot) = self.sessions.get_mut(index)
            {
                *slot = Some(session);
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

/// One endpoint in the table.
#[derive(Debug)]
struct Row {
    address: IpAddr,
    key: String,
    /// The page, or why there is no right one.
    result: Result<String, String>,
}

/// What came of the run.
#[derive(Debug)]
struct Report {
    rows: Vec<Row>,
    setups: Vec<Duration>,
    strays: Vec<String>,
    status: ExitStatus,
    /// End of pktxpmgr's log, if it failed.
    log_tail: Vec<String>,
}

impl Report {
    fn failed(&self) -> usize {
        self.rows.iter().filter(|row| row.result.is_err()).count()
    }

    /// All pages right and pktxpmgr content too.
    fn is_good(&self) -> bool {
        self.failed() == 0 && self.status.success()
    }

    /// The table and whatever else somebody should see.
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:>8}  {:<15}  {:<12}  page", "endpoint", "address", "key")?;
        let shortened = self.rows.len() > ROWS_MAX;
        let (mut good, mut failed, mut hidden) = (0, 0, 0);
        for (index, row) in self.rows.iter().enumerate() {
            let shown = if row.result.is_ok() { &mut good } else { &mut failed };
            *shown += 1;
            if shortened && *shown > ROWS_SHORTENED {
                hidden += 1;
                continue;
            }
            let text = match &row.result {
                Ok(page) => page.trim_end().to_owned(),
                Err(reason) => format!("FAILED: {reason}"),
            };
            let key = row.key.get(..12).unwrap_or(&row.key);
            writeln!(out, "{:>8}  {:<15}  {key}  {text}", index + 1, row.address)?;
        }
        if hidden > 0 {
            writeln!(out, "     ...  {hidden} more of {} endpoints", self.rows.len())?;
        }
        for stray in self.strays.iter().take(ROWS_SHORTENED) {
            writeln!(out, "unexpected output: {stray}")?;
        }
        if !self.status.success() {
            writeln!(out, "pktxpmgr ended with {}; the end of its log:", self.status)?;
        }
        self.log_tail.iter().try_for_each(|line| writeln!(out, "  {line}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, failed) = (self.rows.len(), self.failed());
        write!(f, "demo: {count} endpoints, {} ok, {failed} failed, set-up ", count - failed)?;
        let mut histogram =
            Histogram::<u64>::new_with_max(3_600_000_000, 3).map_err(|_| fmt::Error)?;
        for setup in &self.setups {
            histogram.saturating_record(u64::try_from(setup.as_micros()).unwrap_or(u64::MAX));
        }
        let quantile_ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        write!(f, "p50 {:.1} ms p99 {:.1} ms", quantile_ms(0.5), quantile_ms(0.99))
    }
}

/// INT and TERM, turned into something to wait for.
#[derive(Debug)]
struct Interrupts {
    int: Signal,
    term: Signal,
}

impl Interrupts {
    fn listen() -> io::Result<Self> {
        Ok(Self { int: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Interrupt {
        tokio::select! {
            _ = self.int.recv() => Interrupt::Int,
            _ = self.term.recv() => Interrupt::Term,
        }
    }
}

/// Raises the soft limit to what the run needs.
fn raise_fd_limit(endpoints: usize) -> Result<(), DemoError> {
    let needed = FDS_BASE + 3 * endpoints as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from)?;
    if needed > hard {
        return Err(DemoError::FewFds { needed, limit: hard });
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(io::Error::from)?;
    }
    Ok(())
}

fn endpoint_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=ENDPOINTS_MAX) => Ok(count),
        _ => Err(format!("a number from 1 to {ENDPOINTS_MAX} is wanted")),
    }
}
