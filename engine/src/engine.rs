//! A whole run: one control thread, one shard per core, from the first bind to the last mlet's end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::SystemTime;

use tracing::{info, warn};

use crate::config::{Approach, Config, Keep, Layout, MletIo};
pub use crate::control::{
    Answer, Change, ExperimentState, Order, Orders, Reader, Report, SessionState, Steering, Whom,
    steering,
};
use crate::control::{CAPTURE_FILES_MAX, Control, ControlParts, SessionRoom, Trace, block_on};
use crate::driver::{Backend, Driver, Epoll, Uring};
use crate::mailbox::{Counts, FromShard, Mailer, Permission, ToShard, mailbox};
use crate::metrics::{IntervalLog, RunLatency};
use crate::permits::{self, Permits};
use crate::proto::backlog::SET_UPS_MAX;
use crate::proto::experiments::Experiments;
use crate::proto::keys::Keys;
use crate::proto::outbox::SESSION_MEMORY_LEN;
use crate::proto::tee::Tees;
use crate::records::{Journal, OpenError};
use crate::run_error::{RunError, WAITING, lack};
use crate::shard::{BULK_MEMORY_LEN, GROUPS, Parts as ShardParts, Shard, Token, accepts_at_once};
use crate::sys::children::{self, ADOPTING};
use crate::sys::lack::Lack;
use crate::sys::mlet_processes::MletProcesses;
use crate::sys::pipes::{self, PIPE_LEN};
use crate::sys::service_manager::ServiceManager;
use crate::sys::signals::RunSignals;
use crate::sys::socket::{self, BoundSocket};
use crate::sys::{cpu, limits, secrecy, watch};
use crate::view::RunView;
use packetlab::time::Ticks;
use packetlab::tls;

/// Descriptors of one shard beside its listening sockets, which are open when they are counted: ring, bell, and an epoll that
/// looks whether peers have gone.
const FDS_PER_SHARD: usize = 3;

/// Memory that a run takes with a hundred sessions or so, beside that of its shards; more where there are more.
const MEMORY_OF_RUN: usize = 8 << 20;

/// Memory of one shard: 2 MiB of stack, 2.3 MiB of receive buffers, 1.1 MiB of histograms, of which little is touched, and
/// as much as its first sessions take.
const MEMORY_OF_SHARD: usize = 6 << 20;

/// Descriptors that come and go: the broker's connection, a name that is looked up, the singleton's control socket,
/// the starts of some mlets at once.
const PASSING_FDS: usize = 16;

/// Descriptors of each broker behind the first one: a connection and its duplicate, and while a reload publishes anew, both
/// once more.
const FDS_PER_BROKER: usize = 4;

/// Descriptors of the control thread's runtime: ring, epoll, its bell, the pair for signals, duplicates of some of them.
const FDS_OF_RUNTIME: usize = 10;

/// Descriptors of one session: the endpoint's socket and our end of the mlet's.
const FDS_PER_SESSION: usize = 2;

/// Our ends of the pipes beside a mlet's socket.
const FDS_OF_PIPES: usize = 2;

/// Pipes and files of a mlet in the recorder, which has the same limit.
const FDS_OF_RECORDED: usize = 4;

/// The mlet's end of a session, open until the supervisor has it.
const MLETS_END: usize = 1;

/// Descriptors of one connection on its way to the backlog: the socket, and once more for the runtime.
const FDS_PER_SET_UP: usize = 2;

/// For [`lack`]: what the two sides of a mailbox do.
const TALKING: &str = "let threads talk to each other (eventfd2)";

/// For [`lack`]: what every session takes.
const SERVING: &str = "serve even one endpoint (accept4, socketpair)";

/// What shows how a run goes, made before it; `log_lines_lost` tells of the log how many lines nobody read in time.
///
/// # Errors
/// There is not the memory that a run needs.
pub fn view(config: &Config, log_lines_lost: Arc<AtomicU64>) -> Result<RunView, RunError> {
    // Where memory is short later, an allocation that fails ends the process without a word of ours.
    let memory_len = MEMORY_OF_RUN + config.cores.len() * MEMORY_OF_SHARD;
    limits::prove_free_memory(memory_len).map_err(lack("get the memory of a run (mmap)"))?;
    Ok(RunView::new(config, log_lines_lost, now()))
}

/// How whoever operates a run speaks to it.
pub struct Operator {
    /// Signals, which are blocked.
    pub signals: RunSignals,
    /// Reads the configuration again, as SIGHUP asks for.
    pub reader: Reader,
    /// What else is asked for, if anybody can ask.
    pub orders: Option<Orders>,
    /// Who permits START, where that is not a matter of this run alone.
    pub permits: Option<Box<dyn Permits>>,
}

/// Serves endpoints until the run ends. The processes were started before any thread, and signals are blocked since before
/// anything was made that a run leaves. Where the init system has handed over listening sockets, all shards accept on them,
/// and none is bound. How it goes is seen in `view`, which is of the same `config`.
///
/// # Errors
/// Why the run could not begin; why one ended before its time is in its report.
pub fn run(
    config: &Config,
    processes: MletProcesses,
    operator: Operator,
    init_system: ServiceManager,
    view: &RunView,
) -> Result<Report, RunError> {
    if let Err(error) = secrecy::hold(&*config.controller_key) {
        warn!("the controller key may get into swap: {error}; raise `ulimit -l`");
    }
    children::become_subreaper().map_err(lack(ADOPTING))?;
    // Asked first because tokio and tokio-uring would panic where these are refused.
    limits::prove_free_files(FDS_OF_RUNTIME).map_err(lack(WAITING))?;
    watch::prove().map_err(lack(WAITING))?;
    let backend = Backend::choose(config.io, config.cores.len(), &GROUPS);
    let backend = backend.map_err(RunError::Ring)?;
    tls::warm_up().map_err(RunError::Tls)?;
    // The one mlet of all sessions finds nothing of the run.
    let run = config.singleton.is_none().then_some(config.recording.run);
    let shown = config.messages.as_ref().map(|messages| Trace::start(messages, run));
    let (tees, trace) = shown.transpose()?.unzip();
    let serving = serve(config, backend, (processes, operator), init_system, (view, tees));
    let report = block_on(backend, serving).map_err(lack(WAITING))?;
    let messages_lost = trace.is_some_and(Trace::end);
    report.map(|report| Report { records_lost: report.records_lost || messages_lost, ..report })
}

async fn serve(
    config: &Config,
    backend: Backend,
    (processes, operator): (MletProcesses, Operator),
    ServiceManager { notifier, watchdog, listening }: ServiceManager,
    (view, tees): (&RunView, Option<Tees>),
) -> Result<Report, RunError> {
    let open_files = limits::raise_open_files().map_err(lack("raise `ulimit -n` (prlimit64)"))?;
    let bound = match &config.approach {
        Approach::Passive { .. } if !listening.is_empty() => {
            share(listening, config.cores.len())
                .map_err(lack("share the listening sockets of the init system (fcntl)"))?
        }
        Approach::Passive { listen } => bind(listen, config.cores.len())?,
        Approach::Proxies(_) => Vec::new(),
    };
    let attempts = config.attempts.and_then(|attempts| NonZeroU32::try_from(attempts).ok());
    let keys_are_shared = config.limits.sessions_per_key_max == Some(0);
    let counted = attempts.map(|attempts| permits::of_attempts(attempts, keys_are_shared));
    let permission = Permission::of(operator.permits.is_some(), counted.is_some());
    let mut permits = operator.permits.or(counted);
    let results = permits.as_ref().and_then(|permits| permits.results());
    let reports = results.is_some();
    let journal = Journal::open(&config.recording, now(), &view.records_lost(), results);
    let journal = journal.map_err(|OpenError { shown, error }| RunError::Records(shown, error))?;
    let latency_log = open_latency_log(config, view.latency())?;
    let (mailer, inbox) = mailbox().map_err(lack(TALKING))?;
    let own_fds = own_fds(config, &bound).map_err(lack("count open files in /proc/self/fd"))?;
    let fds = fds_per_session(config, processes.recorder.is_some());
    let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
    let room = SessionRoom { open_files, own_fds, fds };
    let sessions_max = sessions_max(config, room);
    if let Some(permits) = &mut permits {
        permits.places(sessions_max);
    }
    let keys = Keys::new(config.limits.sessions_of_a_key(sessions_max));
    let experiments = Arc::new(Experiments::new(config, keys, now()).map_err(RunError::Tls)?);
    let counts = Arc::new(Counts::new(permission, sessions_max));
    view.change(|state| state.places = Arc::clone(counts.places()));
    let mut control = Control::new(ControlParts {
        processes,
        signals: operator.signals,
        inbox,
        experiments: Arc::clone(&experiments),
        counts: Arc::clone(&counts),
        room,
        permits,
        are_counted: attempts.is_some(),
        reports,
        journal,
        recording: config.recording.clone(),
        judging: config.judging.clone(),
        view: view.clone(),
        latency_log,
        cores: config.cores.clone(),
        notifier,
        watchdog,
        reader: operator.reader,
        orders: operator.orders,
        backend,
    })
    .map_err(lack("watch a descriptor (epoll_ctl)"))?;
    let shards =
        start_shards((config, backend), &experiments, (&control, &counts), (&mailer, view, tees))?;
    let (mailers, openers) = shards.into_iter().unzip();
    control.await_shards(mailers).await?;
    // Now that every thread there will be has been started: who lets endpoints in can serve them.
    match config.singleton {
        Some(form) => control.start_singleton(form).await?,
        None => control.prove_mlets().await?,
    }
    prove_serving(backend)?;
    let port = listen(bound, openers)?;
    control.greet(config, port).map_err(RunError::Tls)?;
    control.run().await
}

/// Makes sure that a session can be served.
fn prove_serving(backend: Backend) -> Result<(), RunError> {
    limits::prove_free_files(FDS_PER_SESSION + MLETS_END).map_err(lack(SERVING))?;
    socket::prove_connections(backend == Backend::Epoll)
        .map_err(lack("take connections (accept4, getpeername)"))
}

/// The file of `--latency`, if times are to be written there.
fn open_latency_log(
    config: &Config,
    latency: Option<&Arc<RunLatency>>,
) -> Result<Option<IntervalLog>, RunError> {
    let Some((path, latency)) = config.latency_log.as_deref().zip(latency) else { return Ok(None) };
    IntervalLog::open(path, Arc::clone(latency))
        .map(Some)
        .map_err(|error| RunError::LatencyLog(path.to_owned(), error))
}

#[expect(clippy::disallowed_methods, reason = "the start of the run")]
fn now() -> Ticks {
    Ticks::from_system_time(SystemTime::now())
}

/// Descriptors that pktxpmgr needs for itself, from those that are open now.
fn own_fds(config: &Config, bound: &[Vec<BoundSocket>]) -> io::Result<usize> {
    let shards = config.cores.len();
    let listeners = bound.iter().map(Vec::len).sum::<usize>() / shards;
    let greeting = match &config.approach {
        Approach::Passive { .. } => shards * accepts_at_once(listeners),
        Approach::Proxies(proxies) => SET_UPS_MAX.max(proxies.len()) * FDS_PER_SET_UP,
    };
    let brokers = config.publications.len().saturating_sub(1) * FDS_PER_BROKER;
    let captures = config.messages.as_ref().is_some_and(|messages| messages.capture.is_some());
    let captured = if captures { CAPTURE_FILES_MAX } else { 0 };
    let others = PASSING_FDS + brokers + captured + config.other_files;
    Ok(limits::files_open()? + shards * FDS_PER_SHARD + greeting + others)
}

/// Descriptors of a session where it takes most: here its two sockets and what pipes there are, in the recorder two pipes and the files behind them.
fn fds_per_session(config: &Config, has_recorder: bool) -> usize {
    let has_files = config
        .recording
        .results
        .as_ref()
        .is_some_and(|results| results.layout == Layout::Folders && results.keep != Keep::None);
    let pipes = if config.mlet_io == MletIo::Pipe { FDS_OF_PIPES } else { 0 };
    let recorded = if has_recorder && has_files { FDS_OF_RECORDED } else { 0 };
    recorded.max(FDS_PER_SESSION + pipes)
}

/// How many sessions the limit of open files allows, of which some are set aside and each session takes so many.
fn sessions_max(config: &Config, room: SessionRoom) -> usize {
    let SessionRoom { open_files, own_fds, fds } = room;
    if room.is_lacking() {
        warn!(
            "`ulimit -n {open_files}` leaves no room for a session beside the {own_fds} open files \
             set aside for pktxpmgr itself; one at a time is tried. Raise it"
        );
    }
    let max = room.for_sessions(config.limits.sessions_max).unwrap_or_else(|no_room| {
        warn!("{no_room}");
        room.sessions()
    });
    info!(
        "room for {max} sessions at once ({fds} of {open_files} open files each, \
         {own_fds} set aside)"
    );
    info!(
        "bytes on their way take at most {} KiB a session and, in bulk, {} MiB a core",
        SESSION_MEMORY_LEN >> 10,
        BULK_MEMORY_LEN.div_ceil(1 << 20)
    );
    if config.mlet_io == MletIo::Pipe
        && let Some(piped) = pipes::sessions_with_pipes_max().filter(|piped| *piped < max)
    {
        warn!(
            "pipes for {piped} mlets at once, of {} KiB each; others have their sockets alone. Raise \
             fs.pipe-user-pages-soft",
            PIPE_LEN >> 10
        );
    }
    let backlog = match &config.approach {
        Approach::Passive { .. } => 0,
        Approach::Proxies(proxies) => {
            let targets = proxies.iter().map(|proxy| proxy.backlog_target);
            let of_each = targets.map(|target| target.saturating_mul(config.experiments.len()));
            of_each.fold(0, usize::saturating_add)
        }
    };
    if backlog > max {
        warn!(
            "TargetBacklogConn asks for {backlog} connections, but there is room for {max}; raise \
             `ulimit -n` or --sessions-max"
        );
    }
    max
}

/// For each address the sockets of all shards, all bound before any listens. Where any free port is asked for, all
/// addresses get the same, because one is published.
fn bind(addresses: &[SocketAddr], shards: usize) -> Result<Vec<Vec<BoundSocket>>, RunError> {
    /// A port that is free for the first address is hardly ever taken for another one, too.
    const TRIES: usize = 10;
    let any_port = addresses.iter().all(|address| address.port() == 0);
    let tries = if any_port { TRIES } else { 1 };
    let mut bound = bind_once(addresses, shards);
    for _ in 1..tries {
        match bound {
            Err(RunError::Listen(_, error)) if error.kind() == io::ErrorKind::AddrInUse => {
                bound = bind_once(addresses, shards);
            }
            _ => break,
        }
    }
    bound
}

fn bind_once(addresses: &[SocketAddr], shards: usize) -> Result<Vec<Vec<BoundSocket>>, RunError> {
    // An IPv6 wildcard would take the port of an IPv4 one as well.
    let v6_only = addresses.iter().any(SocketAddr::is_ipv4);
    let per_shard = socket::listeners_per_shard(shards, socket::somaxconn());
    let mut chosen_port = 0;
    let mut bound = Vec::new();
    for address in addresses {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(chosen_port);
        }
        let refused = |error| match Lack::is_why(&error) {
            true => lack("bind a socket (socket, setsockopt, bind)")(error),
            false => RunError::Listen(address, error),
        };
        let sockets = socket::bind_all(address, v6_only, per_shard * shards).map_err(refused)?;
        if let Some(socket) = sockets.first() {
            chosen_port = socket.local_address().map_err(refused)?.port();
        }
        bound.push(sockets);
    }
    Ok(bound)
}

/// For each socket a descriptor for each shard.
fn share(listening: Vec<BoundSocket>, shards: usize) -> io::Result<Vec<Vec<BoundSocket>>> {
    let of_all = |socket: BoundSocket| (0..shards).map(|_| socket.try_clone()).collect();
    listening.into_iter().map(of_all).collect()
}

/// Where a shard gets its listening sockets, and with them the word to begin.
type Opener = SyncSender<Vec<TcpListener>>;

/// Starts the shards' threads, which make their drivers and wait for their openers.
fn start_shards(
    (config, backend): (&Config, Backend),
    experiments: &Arc<Experiments>,
    (control, counts): (&Control, &Arc<Counts>),
    (mailer, view, tees): (&Mailer<FromShard>, &RunView, Option<Tees>),
) -> Result<Vec<(Mailer<ToShard>, Opener)>, RunError> {
    let asks_itself = config.attempts.is_none() && config.singleton.is_none();
    let start = |(number, core): (usize, &usize)| {
        let (to_shard, inbox) = mailbox().map_err(lack(TALKING))?;
        let (opener, opened) = sync_channel(1);
        let parts = ShardParts {
            number,
            count: config.cores.len(),
            sessions_before: config.recording.sessions_before,
            core: *core,
            experiments: Arc::clone(experiments),
            counts: Arc::clone(counts),
            inbox,
            mailer: mailer.clone(),
            direct: asks_itself.then(|| control.direct_requests()),
            stopwatch: view.latency().and_then(|latency| latency.stopwatch(number)),
            published: view.of_shard(number),
            spin: config.spin,
            offers_pipes: config.mlet_io == MletIo::Pipe && config.singleton.is_none(),
            tees: tees.clone(),
        };
        thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || run_shard(backend, parts, &opened))
            .map_err(lack("start a thread for each core (clone3)"))?;
        Ok((to_shard, opener))
    };
    config.cores.iter().enumerate().map(start).collect()
}

/// Lets endpoints in: spreads the listening sockets over the shards. Returns the port, 0 if there is none.
fn listen(bound: Vec<Vec<BoundSocket>>, openers: Vec<Opener>) -> Result<u16, RunError> {
    let listening = lack("listen for endpoints (listen)");
    let mut listeners: Vec<Vec<_>> = openers.iter().map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    let spread = bound.into_iter().try_for_each(|sockets| {
        addresses.extend(sockets.first().map(BoundSocket::local_address).transpose()?);
        for (index, socket) in sockets.into_iter().enumerate() {
            listeners[index % openers.len()].push(socket.listen()?);
        }
        Ok(())
    });
    spread.map_err(listening)?;
    for address in &addresses {
        info!("listening on {address}");
    }
    for (opener, listeners) in openers.into_iter().zip(listeners) {
        // A shard that has died since it was ready tells of that itself.
        let _ = opener.send(listeners);
    }
    Ok(addresses.first().map_or(0, SocketAddr::port))
}

/// The body of a shard's thread. Whatever happens, the control thread hears of its end.
fn run_shard(backend: Backend, parts: ShardParts, opened: &Receiver<Vec<TcpListener>>) {
    let mut mailer = parts.mailer.clone();
    parts.published.begin(cpu::this_thread());
    if let Err(error) = cpu::pin_this_thread(parts.core) {
        let ShardParts { number, core, .. } = parts;
        warn!("shard {number} cannot be pinned to core {core}: {error}");
    }
    let stopped = match backend {
        Backend::Uring => match Uring::new(&GROUPS) {
            Ok(driver) => serve_shard(Shard::new(parts, driver), &mut mailer, opened),
            Err(error) => Some(FromShard::NotReady(RunError::Ring(error))),
        },
        Backend::Epoll => match Epoll::new(&GROUPS) {
            Ok(driver) => serve_shard(Shard::new(parts, driver), &mut mailer, opened),
            Err(error) => Some(FromShard::NotReady(lack(WAITING)(error))),
        },
    };
    let Some(stopped) = stopped else { return };
    mailer.push(stopped);
    while !mailer.flush() {
        thread::yield_now();
    }
}

/// Runs a shard when its listening sockets come, and returns how it ended; nothing if the run has ended before it began.
fn serve_shard<D: Driver<Token>>(
    shard: Shard<D>,
    mailer: &mut Mailer<FromShard>,
    opened: &Receiver<Vec<TcpListener>>,
) -> Option<FromShard> {
    mailer.push(FromShard::Ready);
    mailer.flush();
    let listeners = opened.recv().ok()?;
    let ran = catch_unwind(AssertUnwindSafe(|| shard.run(listeners)));
    Some(FromShard::Stopped(match ran {
        Ok(Ok(totals)) => Ok(totals),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it panicked".into()),
    }))
}
