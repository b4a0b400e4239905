//! `pktxpmgr`, the PacketLab experiment manager: runs one mlet against many measurement endpoints.

mod args;
mod c_number;
mod campaign;
mod campaign_access;
mod check;
mod commands;
mod conf;
mod ctl;
mod dry_run;
mod engine_config;
#[cfg(test)]
#[path = "../../engine/tests/common/examples.rs"]
mod examples;
mod exit;
mod findings;
mod init_system;
mod joblog;
mod logging;
mod messages;
mod mlet_arguments;
mod mlet_file;
mod monitoring;
mod page;
mod private_socket;
mod report;
mod report_page;
mod results;
mod results_folder;
mod shell;
mod status_line;

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use command_line::log::LogWriter;
use command_line::status_beside_log::StatusLine;
use command_line::status_line::Way;
use engine::config::{Config, Destination, Joblog, Layout, Recording, RunId};
use engine::sys::children::Graces;
use engine::sys::lack::Lack;
use engine::sys::mlet_processes::MletProcesses;
use engine::sys::service_manager::{self, ServiceManager};
use engine::sys::signals::{self, RunSignals};
use engine::sys::supervisor::MletCommand;
use engine::sys::{secrecy, stdin};
use engine::{Operator, Reader, Report, RunError, RunView, Steering};

use ::campaign::Access;
use args::Args;
use campaign::Membership;
use ctl::CtlSocket;
use engine_config::{Kept, Loaded, Purpose};
use exit::{Exit, Failure};
use findings::Findings;
use logging::SetLevel;
use monitoring::{Answering, Monitoring};
use private_socket::SocketFile;
use results::words;
use results_folder::ResultsFolder;

/// How long the end waits for whoever reads the log.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    if let Some(ended) = commands::run(&std::env::args_os().collect::<Vec<_>>()) {
        return ended;
    }
    let args = Arc::new(Args::read());
    let mut log = None;
    // A panic of ours is told by the exit code as well; the message has been printed by then.
    let ran = catch_unwind(AssertUnwindSafe(|| run(&args, &mut log)));
    let exit = ran.unwrap_or(Ok(Exit::Internal)).unwrap_or_else(|failure| {
        report::failure(&failure, args.log_format, log.as_deref());
        failure.exit
    });
    if let Some(log) = log {
        log.finish(LOG_PATIENCE);
    }
    exit.into()
}

fn run(args: &Arc<Args>, log: &mut Option<Arc<LogWriter>>) -> Result<Exit, Failure> {
    if args.check || args.dry_run {
        return check::run(args);
    }
    // First, while their numbers are free for nothing else.
    let init_system = init_system::read()?;
    check::mlet(args.mlet())?;
    // Before the supervisor descends from this process, and before there is anything to hide.
    secrecy::hide_memory().map_err(Lack::when("hide memory from mlets (prctl)"))?;
    let run = RunId(RandomState::new().hash_one(()));
    let out = args.results().map(results_folder::absolute).transpose()?;
    // Before keys are read and threads run: mlets descend from this process as it is now.
    let layout = results_folder::layout(args);
    let processes = start_processes(args, run, out.clone(), layout)?;
    let logging = logging::start((args.verbose, args.quiet), args.log_format);
    let lack = Lack::when("start the thread that writes the log (clone3)");
    let (logging, set_level) = logging.map_err(lack)?;
    *log = Some(Arc::clone(&logging));
    let mut findings = Findings::default();
    let listening = service_manager::addresses(&init_system.listening);
    let listening =
        listening.map_err(Lack::when("name the init system's sockets (getsockname)"))?;
    let (now, mut kept) = (SystemTime::now(), Kept::default());
    let purpose = (Purpose::Run, &*listening);
    let loaded = engine_config::load(args, now, purpose, &mut kept, &mut findings)?;
    let Some(Loaded { mut config, .. }) = loaded else { return Err(findings.into_failure()) };
    let access =
        args.campaign.address().map(|address| args.campaign.access.access(address.clone()));
    let access = access.transpose()?;
    // Only now, as `--passphrase-file /dev/stdin` makes sense.
    stdin::discard().map_err(Lack::when("put /dev/null on descriptor 0 (openat, dup2)"))?;
    // From here on a signal ends the run in order, and nothing half-made is left.
    let signals =
        RunSignals::block().map_err(Lack::when("read signals (rt_sigprocmask, signalfd4)"))?;
    let mut results = out.map(|out| ResultsFolder::begin(&out, args, run, layout)).transpose()?;
    config.recording = recording(args, run, results.as_ref());
    config.judging = args.judging();
    let reader = reader(args, listening, kept);
    let operator = Operator { signals, reader, orders: None, permits: None };
    match run_campaign(
        args,
        &mut config,
        (processes, operator, init_system),
        (results.as_mut(), access),
        (logging, set_level),
    ) {
        Ok(Some(mut report)) => {
            if let Some(results) = results {
                report.records_lost |= !results.finish(&report);
            }
            report::ended(args, &report, config.judging.oks_before);
            judged(args, report)
        }
        ended => {
            results.into_iter().for_each(ResultsFolder::abandon);
            ended.map(|_| Exit::Success)
        }
    }
}

/// What a reload reads: the same as the start, with the same `listening` sockets and what is `kept` of that.
fn reader(args: &Arc<Args>, listening: Vec<SocketAddr>, kept: Kept) -> Reader {
    let (args, kept) = (Arc::clone(args), Mutex::new(kept));
    Arc::new(move || {
        // Whoever panicked has left behind what can be used, or else is missing.
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, mut findings) = (SystemTime::now(), Findings::default());
        let purpose = (Purpose::Reload, &*listening);
        match engine_config::load(&args, now, purpose, &mut kept, &mut findings) {
            Ok(Some(loaded)) => Ok((loaded.config, findings.into_warnings())),
            Ok(None) => Err(findings.into_failure().message),
            Err(failure) => Err(failure.message),
        }
    })
}

/// What became of the campaign; `None` if nothing is left to do of it.
fn run_campaign(
    args: &Args,
    config: &mut Config,
    (processes, mut operator, init_system): (MletProcesses, Operator, ServiceManager),
    (results, access): (Option<&mut ResultsFolder>, Option<Access>),
    (log, set_level): (Arc<LogWriter>, SetLevel),
) -> Result<Option<Report>, Failure> {
    joblog::check(args)?;
    messages::check(args).next().map_or(Ok(()), Err)?;
    let earlier = results.as_deref().map(ResultsFolder::earlier);
    config.choice = results_folder::choose(args, earlier)?;
    if let Some(done) = earlier.and_then(|earlier| earlier.count_in(config)) {
        report::conclude(args, &done);
        return Ok(None);
    }
    report::loaded(args, config);
    let view = engine::view(config, log.lost_in_all())?;
    let (steering, orders) = engine::steering();
    operator.orders = (args.metrics.is_some() || args.ctl.is_some()).then_some(orders);
    let _answering = answer_monitors(args, &view, &steering)?;
    let _reachable = match &args.ctl {
        Some(path) => Some(be_steered(args, path, steering, (&view, set_level))?),
        None => None,
    };
    let _status = show_status(args, log, view.clone())?;
    // Last, since others wait for who has joined.
    let joined = access.map(|access| campaign::join(args, access, config, results)).transpose()?;
    let (membership, permits) = joined.unzip();
    operator.permits = permits;
    let ran = engine::run(config, processes, operator, init_system, &view);
    membership.into_iter().for_each(Membership::leave);
    Ok(Some(ran?))
}

/// Begins to answer whoever asks for metrics or the page; as long as this is kept.
fn answer_monitors(
    args: &Args,
    view: &RunView,
    steering: &Steering,
) -> Result<Option<Answering>, Failure> {
    let Some(address) = &args.metrics else { return Ok(None) };
    let mlet = args.mlet().file_name().unwrap_or_default().to_string_lossy();
    let run = (view.clone(), steering.clone());
    let answering = Monitoring::listen(address)?.answer_for(&words::shown(&mlet), run);
    let lack = Lack::when("start the thread that tells metrics (clone3)");
    Ok(Some(answering.map_err(lack)?))
}

/// Begins to listen to `pktxpmgr ctl`; as long as this is kept.
fn be_steered(
    args: &Args,
    path: &Path,
    steering: Steering,
    (view, set_level): (&RunView, SetLevel),
) -> Result<SocketFile, Failure> {
    let socket = CtlSocket::bind(path)?;
    let answering = ctl::Answering::new(args, steering, view.clone(), set_level);
    let lack = Lack::when("start the thread that answers pktxpmgr ctl (clone3)");
    Ok(socket.answer(answering).map_err(lack)?)
}

/// Begins to show how far the run is; as long as this is kept.
fn show_status(args: &Args, log: Arc<LogWriter>, view: RunView) -> Result<StatusLine, Failure> {
    let way = Way::on_stderr(args.no_status || args.quiet > 0);
    let mut before = view.snapshot();
    let text = move |columns| {
        let now = view.snapshot();
        let line = status_line::line(&now, &before, SystemTime::now(), columns);
        before = now;
        line
    };
    let lack = Lack::when("start the thread that tells how far the run is (clone3)");
    Ok(StatusLine::start(way, log, text).map_err(lack)?)
}

/// With what a run ends, and why, as far as it does not end well.
fn judged(args: &Args, report: Report) -> Result<Exit, Failure> {
    let failure = report.failure.map(|error| match error {
        RunError::Halted(why) => {
            let rule = format!("(--halt {})", args.given("--halt"));
            RunError::Halted(why.replace("(--halt)", &rule))
        }
        error => error,
    });
    let verdict = report.verdict.map(|why| Failure::new(Exit::Failed, why));
    let lost = "records, or output of mlets, are lost: the log tells where";
    match failure.map(Failure::from).or(verdict) {
        Some(Failure { exit, message }) if report.records_lost => {
            // That weighs more than that sessions failed.
            let exit = if exit == Exit::Failed { Exit::Records } else { exit };
            Err(Failure::new(exit, format!("{message}; {lost}")))
        }
        Some(failure) => Err(failure),
        None if report.records_lost => Err(Failure::new(Exit::Records, lost)),
        None => Ok(Exit::Success),
    }
}

/// What is recorded of the run, and where.
fn recording(args: &Args, run: RunId, results: Option<&ResultsFolder>) -> Recording {
    let mut recording = match results {
        Some(results) => results.recording(args, run),
        None => Recording { run, ..Recording::default() },
    };
    recording.campaign = args.campaign.address().map(|address| address.campaign().to_owned());
    let destination = |path: &Path| match path == Path::new("-") {
        true => Destination::Stdout,
        false => Destination::File(path.to_owned()),
    };
    recording.events.extend(args.events.as_deref().map(destination));
    recording.joblog = args.joblog.as_deref().map(|path| Joblog {
        destination: destination(path),
        command: report::command_of_mlet(args),
    });
    recording
}

fn start_processes(
    args: &Args,
    run: RunId,
    out: Option<PathBuf>,
    layout: Layout,
) -> Result<MletProcesses, Failure> {
    signals::ignore_broken_pipe().map_err(Lack::when("ignore SIGPIPE (rt_sigaction)"))?;
    signals::ignore_file_size_limit().map_err(Lack::when("ignore SIGXFSZ (rt_sigaction)"))?;
    signals::ignore_status_question().map_err(Lack::when("ignore SIGUSR1 (rt_sigaction)"))?;
    let limits = args.limits();
    let plan = args.recorder_plan(out.clone().map(|out| (out, layout)));
    let command = MletCommand {
        path: args.mlet().to_owned(),
        arguments: args.mlet_arguments().to_vec(),
        graces: Graces { eof: limits.eof_grace, term: limits.term_grace },
        // The one of -s finds nothing in its environment, as with the original.
        environment: match args.single {
            true => Vec::new(),
            false => vec![
                ("PKTLAB_RUN".into(), run.to_string().into()),
                ("PKTLAB_RESULTS".into(), out.clone().unwrap_or_default().into()),
            ],
        },
        results: out,
    };
    MletProcesses::start(&command, plan.as_ref())
        .map_err(|error| Failure::new(Exit::Resource, error.to_string()))
}
