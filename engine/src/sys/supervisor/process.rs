//! What runs in the supervisor process, from fork to exit. Nothing here returns to the caller of `start`.
//!
//! ```text
//!  serving --manager gone or talks nonsense--> ending (grace, TERM, grace, KILL) --no child left--> exit
//!     '------------END ALL---> ending, manager there --manager gone-----------^
//! ```
//! Not here: the side of the manager (`mod.rs`). Meanwhile single mlets are ended as END ONE asks (`ends.rs`).
//! Invariant: an unreadable request never starts a mlet, and the process never exits while a child is left that it
//! may signal.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, close, setpgid};

use super::ends::{Ends, Step};
use super::message::{self, MletOwner, MletStatus, SupervisorEvent, SupervisorRequest};
use super::output::MletOutput;
use super::packet_queue::{Flushed, PacketQueue};
use super::spawn::{MletCommand, Program, STARTING_A_MLET, Spawner};
use crate::sys::children::{
    ADOPTING, Ending, Graces, Reaped, become_subreaper, kill_rest_of_group, now, reap, signal_child,
};
use crate::sys::fd_passing;
use crate::sys::lack::Lack;
use crate::sys::signals::{ignore_broken_pipe, set_disposition};
use crate::sys::stdin;

/// Requests are left in the socket while so many events wait for the manager to read them.
const EVENTS_MAX: usize = 1024;
/// Pause before sending again when memory was short.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Exit code when the supervisor could not set itself up or panicked (EX_SOFTWARE); nobody reads it.
const EXIT_INTERNAL: i32 = 70;

/// What a terminal or an operator sends to all of pktxpmgr's group. The manager decides what it means for mlets.
const IGNORED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Is the supervisor until it exits.
pub(super) fn run(command: &MletCommand, program: Program, pair: OwnedFd) -> ! {
    // A panic must not unwind into the caller, which is the manager's main function.
    let code = catch_unwind(AssertUnwindSafe(|| {
        let set_up = set_up(command, program, &pair);
        let told = message::encode_set_up(set_up.as_ref().err());
        // There is room for a first message; a manager that gets none does not go on.
        let is_told = fd_passing::send(pair.as_fd(), &told, None).is_ok();
        match set_up {
            Ok((spawner, signals)) if is_told => {
                Process::new(spawner, command.graces, pair, signals).run()
            }
            _ => EXIT_INTERNAL,
        }
    }));
    exit(code.unwrap_or(EXIT_INTERNAL))
}

fn set_up(
    command: &MletCommand,
    program: Program,
    pair: &OwnedFd,
) -> Result<(Spawner, SignalFd), Lack> {
    let signals = become_supervisor(pair)?;
    let results = command.results.clone().unwrap_or_default();
    let spawner =
        Spawner::new(program, results).map_err(Lack::when("prepare the start of mlets"))?;
    spawner.prove().map_err(Lack::when(STARTING_A_MLET))?;
    Ok((spawner, signals))
}

/// Sheds what was inherited: descriptors, terminal signals, process group.
fn become_supervisor(pair: &OwnedFd) -> Result<SignalFd, Lack> {
    let mask = set_signals()
        .map_err(Lack::when("set the supervisor's signals (rt_sigaction, rt_sigprocmask)"))?;
    close_all_but(pair.as_fd()).map_err(Lack::when(
        "close what the supervisor has inherited (close_range, or /proc/self/fd)",
    ))?;
    stdin::discard().map_err(Lack::when("put /dev/null on descriptor 0 (openat, dup2)"))?;
    // Out of the manager's group, so that killing that whole group leaves somebody to end the mlets.
    let group = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    group.map_err(Lack::when("give the supervisor a process group (setpgid)"))?;
    become_subreaper().map_err(Lack::when(ADOPTING))?;
    // A name is for those who look at the list of processes, and nothing depends on it.
    let _ = prctl::set_name(c"pktx-supervisor");
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(Lack::when("read signals (signalfd4)"))
}

/// Ignores what is for the manager, and blocks what is to be read.
fn set_signals() -> io::Result<SigSet> {
    for signal in IGNORED {
        set_disposition(signal, SigHandler::SigIgn)?;
    }
    ignore_broken_pipe()?;
    // If SIGCHLD came ignored, the kernel would throw the exit statuses away.
    set_disposition(Signal::SIGCHLD, SigHandler::SigDfl)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_set_mask()?;
    Ok(mask)
}

/// Closes every descriptor from 3 upwards except `kept`.
fn close_all_but(kept: BorrowedFd<'_>) -> io::Result<()> {
    let number = kept.as_raw_fd().unsigned_abs();
    let closed =
        close_range(3, number.saturating_sub(1)).and_then(|()| close_range(number + 1, u32::MAX));
    // Old sandboxes bar this call, or do not know it.
    closed.or_else(|_| close_one_by_one(kept))
}

#[allow(unsafe_code)]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the descriptors belong to values of the caller of fork, which this process never touches or drops.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn close_one_by_one(kept: BorrowedFd<'_>) -> io::Result<()> {
    let listed = fs::read_dir("/proc/self/fd")?;
    let numbers =
        listed.map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())));
    let numbers: Vec<Option<RawFd>> = numbers.collect::<io::Result<_>>()?;
    for number in numbers.into_iter().flatten() {
        if number > 2 && number != kept.as_raw_fd() {
            // The one that listed them is closed already.
            let _ = close(number);
        }
    }
    Ok(())
}

/// Without destructors and buffered output of the manager, whose copies this process holds.
#[allow(unsafe_code)]
fn exit(code: i32) -> ! {
    // SAFETY: _exit may be called at any time.
    unsafe { libc::_exit(code) }
}

/// A mlet that runs.
struct RunningMlet {
    owner: MletOwner,
    started: Instant,
}

struct Process {
    spawner: Spawner,
    graces: Graces,
    /// `None` once the manager is gone.
    pair: Option<OwnedFd>,
    signals: SignalFd,
    mlets: HashMap<Pid, RunningMlet>,
    events: PacketQueue,
    /// Mlets that are ended one by one.
    ends: Ends,
    ending: Option<Ending>,
}

impl Process {
    fn new(spawner: Spawner, graces: Graces, pair: OwnedFd, signals: SignalFd) -> Self {
        Self {
            spawner,
            graces,
            pair: Some(pair),
            signals,
            mlets: HashMap::new(),
            events: PacketQueue::default(),
            ends: Ends::default(),
            ending: None,
        }
    }

    /// Serves until nothing is left to do and returns the exit code.
    fn run(mut self) -> i32 {
        loop {
            let now = now();
            let mut timeouts = [self.end_due(now), None, None];
            if self.ending.is_some() {
                let left = self.reap(now) == Reaped::SomeLeft;
                timeouts[1] = self.end_children(left, now);
                if timeouts[1].is_none() && self.pair.is_none() {
                    return 0;
                }
            }
            if self.flush() == Flushed::AfterPause {
                timeouts[2] = Some(RETRY_PAUSE);
            }
            self.wait(timeouts.into_iter().flatten().min());
        }
    }

    /// Signals the mlets that are ended one by one, as far as it is time for that. Returns when there will be more to do.
    fn end_due(&mut self, now: Instant) -> Option<Duration> {
        while let Some(due) = self.ends.pop_due(now) {
            let runs_as = self.mlets.get(&due.pid).map(|mlet| mlet.owner);
            match due.step {
                Step::Term(grace) if runs_as == Some(due.owner) => {
                    signal_child(due.pid, Signal::SIGTERM);
                    self.ends.add_kill(due, grace, now);
                }
                // It has ended by itself.
                Step::Term(_) => {}
                Step::Kill if runs_as == Some(due.owner) => {
                    signal_child(due.pid, Signal::SIGKILL);
                }
                // Others of its group may not have heeded TERM.
                Step::Kill if runs_as.is_none() => kill_rest_of_group(due.pid),
                Step::Kill => {}
            }
        }
        self.ends.next_in(now)
    }

    /// Signals the children that are left. Returns when to do so again, `None` if there is no point.
    fn end_children(&mut self, left: bool, now: Instant) -> Option<Duration> {
        let ending = self.ending.as_mut()?;
        // Without /proc the mlets cannot be found as children, nor could this process have been started.
        let goes_on = left && ending.pass(now).unwrap_or(false);
        goes_on.then(|| ending.next_pass_in(now))
    }

    /// Waits for the manager, a mlet's end or the time, and handles the first two.
    fn wait(&mut self, timeout: Option<Duration>) {
        let mut wanted = PollFlags::empty();
        if self.events.len() < EVENTS_MAX {
            wanted |= PollFlags::POLLIN;
        }
        if !self.events.is_empty() {
            wanted |= PollFlags::POLLOUT;
        }
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up, so that waiting for less than a millisecond does not become spinning.
            let timeout = timeout + Duration::from_micros(999);
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(pair) = &self.pair {
            fds.push(PollFd::new(pair.as_fd(), wanted));
        }
        if poll(&mut fds, timeout).is_err() {
            return;
        }
        let ready = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
        let signalled = fds.first().is_some_and(|fd| !ready(fd).is_empty());
        let pair = fds.get(1).map_or(PollFlags::empty(), ready);
        if signalled {
            // One SIGCHLD may stand for many.
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap(now());
        }
        if pair.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            // Requests still in the socket are for sessions that have ended with the manager.
            self.lose_manager();
        } else if pair.contains(PollFlags::POLLIN) {
            self.handle_request();
        }
    }

    fn lose_manager(&mut self) {
        self.pair = None;
        self.events = PacketQueue::default();
        let mut graces = self.graces;
        if self.mlets.is_empty() {
            // What mlets have left behind has no session whose end it could read.
            graces.eof = Duration::ZERO;
        }
        self.end_all(graces);
    }

    fn end_all(&mut self, graces: Graces) {
        let now = now();
        self.ending.get_or_insert_with(|| Ending::new(now, graces)).hurry(now, graces);
    }

    fn handle_request(&mut self) {
        let Some(pair) = &self.pair else { return };
        let mut buffer = [0; message::LEN_MAX];
        let mut received = match fd_passing::receive(pair.as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(error) if fd_passing::is_later(&error) => return,
            Err(_) => return self.lose_manager(),
        };
        let bytes = buffer.get(..received.len).unwrap_or_default();
        // A manager that sends anything else is not the one we were forked from: as good as gone.
        let request = SupervisorRequest::decode(bytes).filter(|_| !received.cut);
        match (request, received.fds.pop(), received.fds.is_empty()) {
            (Some(SupervisorRequest::Spawn { owner, environment, output }), Some(fd), true) => {
                self.spawn(owner, &environment, &output, fd);
            }
            (Some(SupervisorRequest::Spawn { owner, .. }), None, _) if received.fds_lost => {
                self.tell(SupervisorEvent::SpawnFailed { owner, errno: libc::EMFILE });
            }
            (Some(SupervisorRequest::EndAll(graces)), None, _) => self.end_all(graces),
            (Some(SupervisorRequest::EndOne { owner, pid, graces }), None, _) => {
                self.ends.add((owner, Pid::from_raw(pid)), graces, now());
            }
            (Some(SupervisorRequest::Prove), None, _) => {
                let errno = self.spawner.prove().err().map_or(0, |errno| errno as i32);
                self.tell(SupervisorEvent::Proved { errno });
            }
            _ => self.lose_manager(),
        }
    }

    fn spawn(
        &mut self,
        owner: MletOwner,
        environment: &[(String, String)],
        output: &MletOutput,
        session: OwnedFd,
    ) {
        let started = now();
        let spawned = match self.ending {
            Some(_) => Err(Errno::ECANCELED),
            None => self.spawner.spawn(environment, output, session),
        };
        let event = match spawned {
            Ok((pid, kept)) => {
                self.mlets.insert(pid, RunningMlet { owner, started });
                let output_errno = kept.err().map_or(0, |errno| errno as i32);
                SupervisorEvent::Spawned { owner, pid: pid.as_raw(), output_errno }
            }
            Err(errno) => SupervisorEvent::SpawnFailed { owner, errno: errno as i32 },
        };
        self.tell(event);
    }

    /// Tells of every mlet that has ended; adopted orphans end unnoticed.
    fn reap(&mut self, now: Instant) -> Reaped {
        let Self { mlets, events, pair, .. } = self;
        reap(|pid, status| {
            if let Some(mlet) = mlets.remove(&pid)
                && pair.is_some()
            {
                let status = mlet_status(status);
                let run_time = now.saturating_duration_since(mlet.started);
                let event = SupervisorEvent::Exited {
                    owner: mlet.owner,
                    pid: pid.as_raw(),
                    status,
                    run_time,
                };
                events.push(event.encode(), None);
            }
        })
    }

    fn tell(&mut self, event: SupervisorEvent) {
        self.events.push(event.encode(), None);
    }

    fn flush(&mut self) -> Flushed {
        let Some(pair) = &self.pair else { return Flushed::All };
        self.events.flush(pair.as_fd()).unwrap_or_else(|_| {
            self.lose_manager();
            // Nothing is left to send, but the ending begins at once.
            Flushed::AfterPause
        })
    }
}

fn mlet_status(wait_status: i32) -> MletStatus {
    let status = ExitStatus::from_raw(wait_status);
    match status.signal() {
        Some(signal) => MletStatus::Signal(signal),
        None => MletStatus::Code(status.code().unwrap_or_default()),
    }
}
