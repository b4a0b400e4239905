//! What runs in the supervisor process, from fork to exit. Nothing here returns to the caller of `start`.
//!
//! ```text
//!  serving --manager gone or talks nonsense--> ending (grace, TERM, grace, KILL) --no child left--> exit
//!     '------------END ALL---> ending, manager there --manager gone-----------^
//! ```
//! Not here: the side of the manager (`mod.rs`). Meanwhile single mlets are ended as END ONE asks (`ends.rs`).
//! Invariant: the process never exits while a child is left that it
//! may signal.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::asked::Asked;
use super::ends::{Ends, Step};
use super::message::{MletStatus, SupervisorEvent};
use super::output::{self, MletOutput};
use super::spawn::{MletCommand, Program, STARTING_A_MLET, Spawner};
use super::to_recorder::ToRecorder;
use crate::guards::{Guard, holds};
use crate::sys::children::{
    ADOPTING, ChildList, Ending, Graces, KILL_PATIENCE, Reaped, become_subreaper, now,
    prove_reaping, reap, signal_child,
};
use crate::sys::lack::Lack;
use crate::sys::mlet_ends::MletEnds;
use crate::sys::mlet_owner::MletOwner;
use crate::sys::packet::LEN_MAX;
use crate::sys::packet_queue::{Flushed, PacketQueue};
use crate::sys::sources::{Source, Sources, WAITING};
use crate::sys::{fd_passing, forked};

/// Requests are left in the socket while so many events wait for the manager to read them.
const EVENTS_MAX: usize = 1024;
/// Events are told at most this often, since each time wakes the manager: those that come meanwhile go together.
const TELL_INTERVAL: Duration = Duration::from_millis(5);
/// So many may wait for that; the socket holds more.
const UNTOLD_MAX: usize = 64;
/// Pause before sending again when memory was short.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Is the supervisor until it exits. What is to be recorded goes to `recorder`.
pub(super) fn run(
    command: &MletCommand,
    program: Program,
    (pair, direct): (OwnedFd, OwnedFd),
    recorder: Option<OwnedFd>,
) -> ! {
    let set_up = |pair: &OwnedFd| {
        let signals = become_supervisor([Some(pair), Some(&direct), recorder.as_ref()])?;
        let for_its_end = |fd| Source::of(fd, EpollFlags::empty());
        let sources = Sources::new([
            Source::of(Some(&signals), EpollFlags::EPOLLIN),
            for_its_end(Some(pair)),
            for_its_end(Some(&direct)),
            for_its_end(recorder.as_ref()),
        ]);
        let sources = sources.map_err(Lack::when(WAITING))?;
        prove_reaping().map_err(Lack::when("learn of the ends of mlets (wait4)"))?;
        let results = command.results.clone().unwrap_or_default();
        let spawner =
            Spawner::new(program, results).map_err(Lack::when("prepare the start of mlets"))?;
        spawner.prove().map_err(Lack::when(STARTING_A_MLET))?;
        Ok((spawner, (signals, sources, ChildList::of_one_thread()), direct, recorder))
    };
    forked::run(pair, set_up, |(spawner, opened, direct, recorder), pair| {
        let recorder = recorder.map(ToRecorder::new);
        Process::new(spawner, command.graces, (pair, direct), opened, recorder).run()
    })
}

/// Sheds what was inherited, but for these.
fn become_supervisor(kept: [Option<&OwnedFd>; 3]) -> Result<SignalFd, Lack> {
    let kept: Vec<_> = kept.into_iter().flatten().map(AsFd::as_fd).collect();
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    forked::shed("the supervisor", c"pktx-supervisor", &mask, &kept)?;
    become_subreaper().map_err(Lack::when(ADOPTING))?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(Lack::when("read signals (signalfd4)"))
}

/// A mlet that runs.
struct RunningMlet {
    owner: MletOwner,
    started: Instant,
    /// The recorder reads what it writes.
    is_recorded: bool,
    /// Where its files are, below the results folder, if they are its own and could be had.
    folder: Option<String>,
}

struct Process {
    spawner: Spawner,
    graces: Graces,
    /// `None` once the manager is gone.
    pair: Option<OwnedFd>,
    /// Requests of shards; `None` once the manager is gone.
    direct: Option<OwnedFd>,
    signals: SignalFd,
    /// These three and the recorder, in the order signals, pair, direct, recorder.
    sources: Sources<4>,
    /// `None` without one, or once it is gone.
    recorder: Option<ToRecorder>,
    /// Kept open: when it is needed nothing may be left to open it with.
    children: ChildList,
    mlets: HashMap<Pid, RunningMlet>,
    /// Events that wait to be told, and since when.
    untold: Vec<(SupervisorEvent, Instant)>,
    /// Those on their way.
    events: PacketQueue,
    /// Since when events may be told.
    may_tell: Option<Instant>,
    /// One of them is waited for.
    is_urgent: bool,
    /// Mlets that are ended one by one.
    ends: Ends,
    ending: Option<Ending>,
}

impl Process {
    fn new(
        spawner: Spawner,
        graces: Graces,
        (pair, direct): (OwnedFd, OwnedFd),
        (signals, sources, children): (SignalFd, Sources<4>, ChildList),
        recorder: Option<ToRecorder>,
    ) -> Self {
        Self {
            spawner,
            graces,
            pair: Some(pair),
            direct: Some(direct),
            signals,
            sources,
            recorder,
            children,
            mlets: HashMap::new(),
            untold: Vec::new(),
            events: PacketQueue::default(),
            may_tell: None,
            is_urgent: false,
            ends: Ends::default(),
            ending: None,
        }
    }

    /// Serves until nothing is left to do and returns the exit code.
    fn run(mut self) -> i32 {
        loop {
            let now = now();
            let mut timeouts = [self.end_due(now), None, None, None];
            if self.ending.is_some() {
                let left = self.reap(now) == Reaped::SomeLeft;
                timeouts[1] = self.end_children(left, now);
                if timeouts[1].is_none() && self.pair.is_none() {
                    // What the last mlets have written is to be kept, too.
                    self.recorder.into_iter().for_each(|recorder| recorder.finish(KILL_PATIENCE));
                    return 0;
                }
            }
            timeouts[3] = self.tell_in(now);
            let told = if timeouts[3].is_none() { self.flush(now) } else { Flushed::All };
            if [told, self.flush_to_recorder()].contains(&Flushed::AfterPause) {
                timeouts[2] = Some(RETRY_PAUSE);
            }
            self.wait(timeouts.into_iter().flatten().min(), told);
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
                Step::Kill if runs_as.is_none() && holds(Guard::KillsWholeGroups) => {
                    self.children.kill_rest_of_group(due.pid);
                }
                Step::Kill => {}
            }
        }
        self.ends.next_in(now)
    }

    /// Signals the children that are left. Returns when to do so again, `None` if there is no point.
    fn end_children(&mut self, left: bool, now: Instant) -> Option<Duration> {
        let ending = self.ending.as_mut()?;
        let left = left && (self.pair.is_some() || holds(Guard::EndsMletsOfGone));
        // Without /proc the mlets cannot be found as children, nor could this process have been started.
        let goes_on = left && ending.pass(now, &self.children).unwrap_or(false);
        goes_on.then(|| ending.next_pass_in(now))
    }

    /// How long the events that there are wait for others; `None` if there is none, or one is to be told at once.
    fn tell_in(&self, now: Instant) -> Option<Duration> {
        let waits = (1..UNTOLD_MAX).contains(&self.untold.len());
        let left = self.may_tell?.saturating_duration_since(now);
        (waits && !self.is_urgent && self.ending.is_none() && !left.is_zero()).then_some(left)
    }

    /// Waits for the manager, a mlet's end or the time, and handles the first two.
    fn wait(&mut self, timeout: Option<Duration>, told: Flushed) {
        let (mut requests, mut room) = (EpollFlags::empty(), EpollFlags::empty());
        if self.untold.len() + self.events.len() < EVENTS_MAX {
            requests |= EpollFlags::EPOLLIN;
        }
        if told == Flushed::WhenWritable {
            room |= EpollFlags::EPOLLOUT;
        }
        let Self { sources, signals, pair, direct, recorder, .. } = self;
        let of_recorder = recorder.as_ref().map_or(EpollFlags::empty(), ToRecorder::wanted);
        let wanted = [
            Source::of(Some(signals), EpollFlags::EPOLLIN),
            Source::of(pair.as_ref(), requests | room),
            Source::of(direct.as_ref(), requests),
            Source::of(recorder.as_ref(), of_recorder),
        ];
        let [signals, pair, direct, recorder] = sources.wait(wanted, timeout);
        let is_gone =
            |came: EpollFlags| came.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        if is_gone(recorder) {
            self.recorder = None;
        }
        if !signals.is_empty() {
            // One SIGCHLD may stand for many.
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap(now());
        }
        if is_gone(pair) || is_gone(direct) {
            // Requests still in the sockets are for sessions that have ended with the manager.
            return self.lose_manager();
        }
        if pair.contains(EpollFlags::EPOLLIN) {
            self.handle_request(|process| process.pair.as_ref());
        }
        if direct.contains(EpollFlags::EPOLLIN) {
            self.handle_request(|process| process.direct.as_ref());
        }
    }

    fn lose_manager(&mut self) {
        (self.pair, self.direct) = (None, None);
        self.untold.clear();
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

    fn handle_request(&mut self, socket: fn(&Self) -> Option<&OwnedFd>) {
        let Some(socket) = socket(self) else { return };
        let mut buffer = [0; LEN_MAX];
        let received = match fd_passing::receive(socket.as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(error) if fd_passing::is_later(&error) => return,
            Err(_) => return self.lose_manager(),
        };
        match Asked::of(received, &buffer) {
            Some(Asked::Spawn { owner, environment, output, ends }) => {
                self.spawn(owner, &environment, &output, ends);
            }
            Some(Asked::SpawnWithoutEnds(owner)) => {
                self.tell(SupervisorEvent::SpawnFailed { owner, errno: libc::EMFILE });
            }
            Some(Asked::EndAll(graces)) => self.end_all(graces),
            Some(Asked::EndOne { owner, pid, graces }) => {
                self.ends.add((owner, Pid::from_raw(pid)), graces, now());
            }
            Some(Asked::Prove) => {
                let errno = self.spawner.prove().err().map_or(0, |errno| errno as i32);
                self.is_urgent = true;
                self.tell(SupervisorEvent::Proved { errno });
            }
            // It is not the one we were forked from: as good as gone.
            None => self.lose_manager(),
        }
    }

    fn spawn(
        &mut self,
        owner: MletOwner,
        environment: &[(String, String)],
        output: &MletOutput,
        ends: MletEnds,
    ) {
        let started = now();
        let spawned = match self.ending {
            Some(_) => Err(Errno::ECANCELED),
            None => self.spawner.spawn(environment, (output, self.recorder.is_some()), ends),
        };
        let event = match spawned {
            Ok((pid, kept)) => {
                let (read_ends, output_errno) = match kept {
                    Ok(read_ends) => (read_ends, 0),
                    Err(errno) => (None, errno as i32),
                };
                let is_recorded = read_ends.is_some();
                let folder = match output {
                    MletOutput::Folder(folder) if output_errno == 0 => Some(folder.clone()),
                    _ => None,
                };
                self.mlets.insert(pid, RunningMlet { owner, started, is_recorded, folder });
                if let (Some(recorder), Some(read_ends), MletOutput::Recorded(capture)) =
                    (&mut self.recorder, read_ends, output)
                {
                    recorder.begin(owner, capture, read_ends);
                }
                let (pid, age) = (pid.as_raw(), Duration::ZERO);
                SupervisorEvent::Spawned { owner, pid, output_errno, age }
            }
            Err(errno) => SupervisorEvent::SpawnFailed { owner, errno: errno as i32 },
        };
        self.is_urgent |= owner == MletOwner::AllSessions;
        self.tell(event);
    }

    /// Tells of every mlet that has ended; adopted orphans end unnoticed.
    fn reap(&mut self, now: Instant) -> Reaped {
        let Self { spawner, mlets, untold, pair, recorder, .. } = self;
        reap(|pid, status| {
            let Some(RunningMlet { owner, started, is_recorded, folder }) = mlets.remove(&pid)
            else {
                return;
            };
            if let Some(recorder) = recorder.as_mut().filter(|_| is_recorded) {
                recorder.end(owner);
            }
            if pair.is_some() {
                let status = mlet_status(status);
                let run_time = now.saturating_duration_since(started);
                let pid = pid.as_raw();
                let is_full =
                    folder.is_some_and(|folder| output::is_full(&spawner.results.join(folder)));
                let is_doubtful = is_full && holds(Guard::DoubtsFullDisks);
                let output_errno = if is_doubtful { libc::ENOSPC } else { 0 };
                let event = SupervisorEvent::Exited { owner, pid, status, run_time, output_errno };
                untold.push((event, now));
            }
        })
    }

    fn tell(&mut self, event: SupervisorEvent) {
        self.untold.push((event, now()));
    }

    fn flush(&mut self, now: Instant) -> Flushed {
        let Some(pair) = &self.pair else { return Flushed::All };
        if !self.untold.is_empty() {
            (self.may_tell, self.is_urgent) = (Some(now + TELL_INTERVAL), false);
        }
        for (mut event, since) in self.untold.drain(..) {
            if let SupervisorEvent::Spawned { age, .. } = &mut event {
                *age = now.saturating_duration_since(since);
            }
            self.events.push(event.encode(), Vec::new());
        }
        self.events.flush(pair.as_fd()).unwrap_or_else(|_| {
            self.lose_manager();
            // Nothing is left to send, but the ending begins at once.
            Flushed::AfterPause
        })
    }

    fn flush_to_recorder(&mut self) -> Flushed {
        let Some(recorder) = &mut self.recorder else { return Flushed::All };
        recorder.flush().unwrap_or_else(|_| {
            self.recorder = None;
            Flushed::All
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
