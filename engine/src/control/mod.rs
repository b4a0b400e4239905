//! The control thread: what concerns the whole run and no single session's bytes.
//!
//! It starts mlets through the supervisor, hands on permits for START, keeps the backlogs at
//! proxies and the publications, follows signals, reloads the configuration, and ends the run. Its loop waits on tokio-uring's
//! runtime and never blocks a shard; conversations with brokers and proxies are tasks of their own, which
//! send the loop their news.
//!
//! ```text
//!  Running --signal, -n reached, failure, end of greeting, singleton closed--> Draining --shards and mlets ended--> Over
//!                                                        | second signal, --deadline, --drain-limit
//!                                                        +--> Forced: sessions closed, grace, TERM,
//!                                                             grace, KILL (one more signal: at once) --> Over
//! ```

mod approach;
mod backlog;
mod brokers;
mod clock;
mod ending;
mod init_system;
mod judging;
mod left_out;
mod mail;
mod missed;
mod mlets;
mod new_config;
mod orders;
mod overdue;
mod peer;
mod permit_news;
mod permitting;
mod proxies;
mod publication;
mod recorder;
mod recorder_link;
mod reload;
mod runtime;
mod session_list;
mod session_log;
mod session_room;
mod sessions;
mod set_up;
mod singleton;
mod status;
mod steering;
mod tasks;
mod time_limits;
mod trace;
mod watchdog;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::time::sleep_until;

use self::brokers::Brokers;
use self::clock::now;
use self::missed::Missed;
pub use self::new_config::Reader;
use self::new_config::Reloads;
use self::permitting::Permitting;
use self::proxies::Proxies;
use self::publication::PublishedFrom;
pub use self::recorder_link::MLET_TARGET;
use self::recorder_link::RecorderLink;
pub(crate) use self::runtime::block_on;
use self::session_list::SessionList;
pub(crate) use self::session_room::SessionRoom;
pub use self::sessions::Report;
use self::sessions::Sessions;
use self::singleton::{ControlSocket, Mlets};
pub use self::steering::{
    Answer, Change, ExperimentState, Order, Orders, SessionState, Steering, Whom, steering,
};
use self::tasks::Tasks;
use self::time_limits::TimeLimits;
pub use self::trace::TRACE_TARGET;
pub(crate) use self::trace::{CAPTURE_FILES_MAX, Trace};
use self::watchdog::Watchdog;
use crate::config::{self, Judging};
use crate::driver::Backend;
use crate::log_limit::LogLimit;
use crate::mailbox::{Counts, FromShard, Inbox, Mailer, ToShard};
use crate::metrics::IntervalLog;
use crate::mlet_request::OutputPlan;
use crate::permits::Permits;
use crate::proto::experiments::Experiments;
use crate::proto::session_end::Force;
use crate::records::{Journal, ShardTotals};
use crate::run_error::{RunError, WAITING, lack};
use crate::sys::mlet_processes::MletProcesses;
use crate::sys::service_manager::Notifier;
use crate::sys::signals::RunSignals;
use crate::sys::supervisor::{Flushed, Supervisor};
use crate::sys::watch::Watched;
use crate::view::RunView;

/// How soon a send is tried again that waits for something no descriptor announces.
const SEND_RETRY: Duration = Duration::from_millis(10);

/// What the control thread works with.
pub(crate) struct ControlParts {
    pub(crate) processes: MletProcesses,
    pub(crate) signals: RunSignals,
    pub(crate) inbox: Inbox<FromShard>,
    pub(crate) experiments: Arc<Experiments>,
    pub(crate) counts: Arc<Counts>,
    /// For how many sessions open files have room.
    pub(crate) room: SessionRoom,
    /// Who permits START; `None` where it needs no permit.
    pub(crate) permits: Option<Box<dyn Permits>>,
    /// Each session uses up one of `-n`.
    pub(crate) are_counted: bool,
    /// Records are handed over as results as well.
    pub(crate) reports: bool,
    /// Where records go.
    pub(crate) journal: Option<Journal>,
    /// What is recorded of the run.
    pub(crate) recording: config::Recording,
    /// What counts as a good run.
    pub(crate) judging: Judging,
    /// Where the run is seen.
    pub(crate) view: RunView,
    /// Where relay latency goes.
    pub(crate) latency_log: Option<IntervalLog>,
    /// CPU numbers, of each shard one.
    pub(crate) cores: Vec<usize>,
    /// Where the init system hears of the run.
    pub(crate) notifier: Option<Notifier>,
    /// How long it may hear nothing of one that is well.
    pub(crate) watchdog: Option<Duration>,
    /// Reads the configuration again.
    pub(crate) reader: Reader,
    /// What is asked of the run, if anybody can ask.
    pub(crate) orders: Option<Orders>,
    /// What conversations with others wait with.
    pub(crate) backend: Backend,
}

/// The control thread's state.
pub(crate) struct Control {
    supervisor: Watched<Supervisor>,
    /// Behind the supervisor, without which it ends by itself.
    recorder: RecorderLink,
    /// The supervisor is gone; nothing more comes from it.
    supervisor_lost: bool,
    signals: Watched<RunSignals>,
    inbox: Watched<Inbox<FromShard>>,
    shards: Vec<Mailer<ToShard>>,
    /// Shards that are ready and have not ended.
    shards_running: usize,
    shard_totals: Vec<ShardTotals>,
    experiments: Arc<Experiments>,
    counts: Arc<Counts>,
    room: SessionRoom,
    permitting: Permitting,
    mlets: Mlets,
    output: OutputPlan,
    sessions: Sessions,
    view: RunView,
    latency_log: Option<IntervalLog>,
    accept_pauses: LogLimit,
    refusals: LogLimit,
    without_pipes: LogLimit,
    phase: RunPhase,
    /// What the run ends with, if not well.
    failure: Option<RunError>,
    judging: Judging,
    /// The run ends before its time, as [`Judging::halt`] has it.
    is_halted: bool,
    retry_at: Option<Instant>,
    time_limits: TimeLimits,
    proxies: Option<Proxies>,
    brokers: Brokers,
    published_from: PublishedFrom,
    reloads: Reloads,
    orders: Option<Orders>,
    session_list: SessionList,
    missed: Missed,
    tasks: Tasks,
    cores: Vec<usize>,
    watchdog: Watchdog,
    notifier: Option<Notifier>,
    /// The init system wants to hear again and again that the run is well.
    is_watched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunPhase {
    Running,
    Draining {
        /// A signal has come; the next one ends the run by force.
        signalled: bool,
    },
    Forced {
        by: Force,
        until: Instant,
    },
    /// No mlet is started any more; what is left on the shards is ended.
    Over,
}

impl Control {
    /// Takes over; must be called within the runtime.
    ///
    /// # Errors
    /// A descriptor cannot be watched.
    pub(crate) fn new(parts: ControlParts) -> io::Result<Self> {
        let choice = Arc::clone(&parts.experiments.choice);
        let told = (parts.journal, parts.view.clone());
        let sessions = Sessions::new((parts.are_counted, parts.reports), told, choice);
        let MletProcesses { supervisor, recorder } = parts.processes;
        let recorder = RecorderLink::new(recorder)?;
        Ok(Self {
            output: OutputPlan::of(&parts.recording, recorder.is_there()),
            supervisor: Watched::new(supervisor)?,
            recorder,
            supervisor_lost: false,
            signals: Watched::new(parts.signals)?,
            inbox: Watched::new(parts.inbox)?,
            shards: Vec::new(),
            shards_running: 0,
            shard_totals: Vec::new(),
            permitting: Permitting::new(parts.permits),
            counts: parts.counts,
            room: parts.room,
            mlets: Mlets::OfEachSession { awaited: VecDeque::new() },
            sessions,
            view: parts.view,
            latency_log: parts.latency_log,
            time_limits: TimeLimits::new(&parts.experiments.limits, now()),
            accept_pauses: LogLimit::new("pauses in accepting"),
            refusals: LogLimit::new("refused connections"),
            without_pipes: LogLimit::new("mlets without pipes"),
            phase: RunPhase::Running,
            failure: None,
            judging: parts.judging,
            is_halted: false,
            retry_at: None,
            experiments: parts.experiments,
            proxies: None,
            brokers: Brokers::default(),
            published_from: (parts.backend, 0),
            reloads: Reloads::new(parts.reader),
            orders: parts.orders,
            session_list: SessionList::default(),
            missed: Missed::default(),
            tasks: Tasks::new(),
            cores: parts.cores,
            is_watched: parts.watchdog.is_some(),
            watchdog: Watchdog::new(parts.watchdog),
            notifier: parts.notifier,
        })
    }

    /// Runs until the run is over.
    ///
    /// # Errors
    /// The machine does not let it wait.
    pub(crate) async fn run(mut self) -> Result<Report, RunError> {
        while !self.is_over() {
            self.take_signals();
            self.take_orders();
            self.take_all_mail();
            self.take_events();
            self.take_permits();
            self.take_recorded();
            self.hear_singleton();
            self.take_news();
            self.tend_halt();
            self.tend_mlets();
            self.tend_backlogs();
            self.tend_missed();
            self.tend_greeting();
            self.tend_due();
            self.flush();
            self.show();
            if !self.is_over() {
                self.wait().await.map_err(lack(WAITING))?;
            }
        }
        self.end().await
    }

    /// Does what is due, whether new sessions may come or not.
    fn tend_due(&mut self) {
        self.tend_time_limits();
        self.tend_fenced();
        self.tend_log();
        self.tend_watchdog();
        self.tend_session_list();
        self.sessions.tend(now());
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) -> io::Result<()> {
        let timer = [
            self.retry_at,
            self.force_until(),
            self.greeting_due(),
            self.log_due(),
            self.sessions.due(),
            self.mlets_due(),
            self.time_limits_due(),
            self.permitting.due(),
            self.watchdog.due(),
            self.session_list.due(),
        ];
        let timer = timer.into_iter().flatten().min();
        let interest = |wants_write: bool| match wants_write && self.retry_at.is_none() {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let of_supervisor = interest(self.supervisor.inner.wants_write());
        let control_socket = self.mlets.control_socket();
        let of_socket = interest(control_socket.is_some_and(|socket| socket.inner.wants_write()));
        // Only readiness is waited for, so a wait that loses the race loses nothing.
        tokio::select! {
            ready = self.inbox.ready(Interest::READABLE) => ready?,
            ready = self.signals.ready(Interest::READABLE) => ready?,
            ready = self.supervisor.ready(of_supervisor), if !self.supervisor_lost => ready?,
            ready = ready_of(control_socket, of_socket) => ready?,
            ready = self.recorder.ready() => ready?,
            () = self.tasks.hear() => {}
            () = self.permitting.hear() => {}
            () = heard(&mut self.orders) => {}
            () = at(timer) => self.retry_at = None,
        }
        Ok(())
    }

    fn flush(&mut self) {
        let mut waits = !self.flush_shards();
        // No descriptor tells when fewer descriptors are in flight.
        waits |= self.flush_singleton() == Flushed::AfterPause;
        waits |= self.flush_supervisor() == Flushed::AfterPause;
        if waits {
            self.retry_at = Some(now() + SEND_RETRY);
        }
    }
}

async fn heard(orders: &mut Option<Orders>) {
    match orders {
        Some(orders) => orders.hear().await,
        None => std::future::pending().await,
    }
}

async fn ready_of(socket: Option<&Watched<ControlSocket>>, interest: Interest) -> io::Result<()> {
    match socket {
        Some(socket) => socket.ready(interest).await,
        None => std::future::pending().await,
    }
}

async fn at(timer: Option<Instant>) {
    match timer {
        Some(timer) => sleep_until(timer.into()).await,
        None => std::future::pending().await,
    }
}
