//! What runs in the recorder process, from fork to exit. Nothing here returns to the caller of `start`.
//!
//! ```text
//!  reading --many messages wait to be taken--> held up --taken--> reading
//!     '-----supervisor gone, every pipe closed, everything taken--> exit
//! ```
//! While it is held up no pipe is read, so that mlets wait, and requests are taken all the same. While only tagged lines wait
//! to be taken, the pipes that could bring more of them are put aside; the others are read, so that mlets which print
//! nothing are not held up. One read of one pipe follows that of another: a busy mlet does not starve the others.
//!
//! Invariant: memory is bounded by the number of mlets, whatever they write: a read for all of them, and for each the
//! beginning of a line where lines are shown, all of which together have a bound of their own.

mod aside;

use std::collections::{HashMap, VecDeque};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::SigSet;
use nix::unistd::{dup2_stderr, dup2_stdout, read};

use super::capture::{Captured, Sink, Which};
use super::keeping::{self, StreamFile, What};
use super::message::{Capture, KeptIn, RecordedOutput, RecorderEvent, RecorderRequest};
use super::plan::RecorderPlan;
use super::tagged_stdout::TaggedStdout;
use crate::sys::children::now;
use crate::sys::lack::Lack;
use crate::sys::mlet_owner::MletOwner;
use crate::sys::packet::LEN_MAX;
use crate::sys::packet_queue::PacketQueue;
use crate::sys::sources::{Source, Sources, WAITING};
use crate::sys::{fd_passing, forked, limits, signals};

/// Bytes of one read: what a pipe holds.
const READ_LEN: usize = 64 << 10;
/// Pipes that are read before there is a look at anything else.
const READS_AT_ONCE: usize = 128;
/// Requests that are taken before there is a look at anything else.
const REQUESTS_AT_ONCE: usize = 64;
/// While so many messages wait for the manager nothing is read.
const EVENTS_MAX: usize = 256;
/// How long something that outlives a mlet's process is listened to.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How much longer it stays than that, when nobody is left who would wait for it.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
/// A line of standard output that is longer is cut.
const LINE_LEN_MAX: usize = 1 << 20;
/// Bytes that lines which have not ended may take together. Beyond it a line is cut where it has its equal share, but not
/// below [`LINE_LEN_MIN`].
const HELD_MAX: usize = 64 << 20;
/// A line of standard output that is no longer is never cut.
const LINE_LEN_MIN: usize = 4 << 10;
/// A line of standard error that is longer is cut, so that it fits into a message.
const LOG_LINE_LEN_MAX: usize = 4000;
/// When a mlet that could not be closed is tried again.
const CLOSE_RETRY: Duration = Duration::from_millis(200);
/// Pause before sending again when memory was short.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Is the recorder until it exits.
pub(super) fn run(plan: &RecorderPlan, pair: OwnedFd, requests: OwnedFd) -> ! {
    let set_up = |pair: &OwnedFd| {
        let stdout = become_recorder(plan.is_tagged, &[pair.as_fd(), requests.as_fd()])?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(Lack::when("watch the pipes of mlets (epoll_create1)"))?;
        let sources = Sources::new([
            Source::of(Some(&requests), EpollFlags::EPOLLIN),
            Source::of(Some(pair), EpollFlags::empty()),
            Source::Closed,
            Source::of(Some(&epoll.0), EpollFlags::EPOLLIN),
        ]);
        let sources = sources.map_err(Lack::when(WAITING))?;
        Ok((stdout, (epoll, sources), requests))
    };
    forked::run(pair, set_up, |(stdout, (epoll, sources), requests), pair| {
        let process = Process {
            plan: plan.clone(),
            stdout,
            supervisor: Some(requests),
            manager: Some(pair),
            events: PacketQueue::default(),
            sources,
            epoll,
            captured: HashMap::new(),
            closing: VecDeque::new(),
            aside: Vec::new(),
            awaiting_stdout: Vec::new(),
            stream_file: None,
            buffer: vec![0; READ_LEN],
            held: 0,
            leave_at: None,
        };
        process.run()
    })
}

/// Sheds what was inherited, and takes standard output where lines go there.
fn become_recorder(is_tagged: bool, kept: &[BorrowedFd<'_>]) -> Result<Option<TaggedStdout>, Lack> {
    forked::shed("the recorder", c"pktx-recorder", &SigSet::empty(), kept)?;
    signals::ignore_file_size_limit().map_err(Lack::when("ignore SIGXFSZ (rt_sigaction)"))?;
    limits::raise_open_files().map_err(Lack::when("raise `ulimit -n` (prlimit64)"))?;
    let stdout = match is_tagged {
        true => Some(TaggedStdout::open().map_err(Lack::when("use standard output (dup)"))?),
        false => None,
    };
    // Whoever reads them waits for those that write to them.
    let null = OpenOptions::new().write(true).open("/dev/null");
    let null = null.map_err(Lack::when("open /dev/null (openat)"))?;
    dup2_stderr(&null)
        .and_then(|()| dup2_stdout(&null))
        .map_err(Lack::when("let go of output (dup2)"))?;
    Ok(stdout)
}

/// What epoll tells a pipe by.
fn token(number: u64, which: Which) -> u64 {
    number << 1 | u64::from(which == Which::Stderr)
}

struct Process {
    plan: RecorderPlan,
    /// `None` where no lines are shown.
    stdout: Option<TaggedStdout>,
    /// `None` once it is gone.
    supervisor: Option<OwnedFd>,
    /// `None` once it is gone.
    manager: Option<OwnedFd>,
    /// For the manager.
    events: PacketQueue,
    /// Supervisor, manager, standard output, and all pipes together.
    sources: Sources<4>,
    /// Of the pipes.
    epoll: Epoll,
    /// By the number of their owner.
    captured: HashMap<u64, Captured>,
    /// Mlets whose processes have ended, and until when they are read, earliest first.
    closing: VecDeque<(Instant, u64)>,
    /// Pipes that are not read until standard output has taken what waits.
    aside: Vec<(u64, Which)>,
    /// Mlets whose lines are among what standard output has not taken, mostly one.
    awaiting_stdout: Vec<u64>,
    /// `None` as long as nothing is kept there.
    stream_file: Option<StreamFile>,
    buffer: Vec<u8>,
    /// Bytes of lines that have not ended.
    held: usize,
    /// Nobody is left who would wait for what is not done by then.
    leave_at: Option<Instant>,
}

impl Process {
    /// Serves until nothing is left to do and returns the exit code.
    fn run(mut self) -> i32 {
        loop {
            self.flush();
            let now = now();
            if self.is_over(now) {
                return 0;
            }
            if !self.is_stdout_pending() {
                self.take_back();
            }
            if !self.is_held_up() {
                self.close_due(now);
            }
            self.wait(now);
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let is_through = self.captured.is_empty()
            && (self.manager.is_none() || self.events.is_empty())
            && !self.is_stdout_pending();
        self.supervisor.is_none() && is_through || self.leave_at.is_some_and(|at| now >= at)
    }

    fn is_stdout_pending(&self) -> bool {
        self.stdout.as_ref().is_some_and(TaggedStdout::is_pending)
    }

    /// Something has to be taken before more is read.
    fn is_held_up(&self) -> bool {
        self.events.len() >= EVENTS_MAX
    }

    /// Sends what waits, as much as is taken.
    fn flush(&mut self) {
        if let Some(stdout) = &mut self.stdout
            && let Err(error) = stdout.flush()
        {
            self.lose_stdout(&error);
        }
        if let Some(manager) = &self.manager
            && self.events.flush(manager.as_fd()).is_err()
        {
            self.lose_manager();
        }
    }

    /// Waits for whoever talks to it, for a pipe unless it is held up, or for the time, and handles what came.
    fn wait(&mut self, now: Instant) {
        let is_held_up = self.is_held_up();
        let due = self.closing.front().map(|(at, _)| *at).filter(|_| !is_held_up);
        let waits_for_manager = !self.events.is_empty();
        // Memory may be short, which no descriptor announces.
        let retry = waits_for_manager.then(|| now + RETRY_PAUSE);
        let due = [due, self.leave_at, retry].into_iter().flatten().min();
        let timeout = due.map(|due| due.saturating_duration_since(now));
        let to_manager = if waits_for_manager { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let from_pipes = if is_held_up { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
        let wanted = [
            Source::of(self.supervisor.as_ref(), EpollFlags::EPOLLIN),
            Source::of(self.manager.as_ref(), to_manager),
            self.stdout.as_ref().map_or(Source::Closed, TaggedStdout::source),
            Source::of(Some(&self.epoll.0), from_pipes),
        ];
        let [supervisor, manager, _, pipes] = self.sources.wait(wanted, timeout);
        if manager.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.lose_manager();
        }
        if !supervisor.is_empty() {
            self.take_requests();
        }
        if !pipes.is_empty() {
            self.read_pipes();
        }
    }

    fn lose_manager(&mut self) {
        self.manager = None;
        self.events = PacketQueue::default();
        self.settle_end();
    }

    fn lose_supervisor(&mut self) {
        self.supervisor = None;
        self.settle_end();
    }

    /// With the supervisor and the manager every mlet is gone.
    fn settle_end(&mut self) {
        if self.supervisor.is_some() || self.manager.is_some() {
            return;
        }
        let numbers: Vec<u64> = self.captured.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.end(number));
        self.leave_at.get_or_insert_with(|| now() + CLOSE_PATIENCE + LEAVE_PATIENCE);
    }

    fn take_requests(&mut self) {
        for _ in 0..REQUESTS_AT_ONCE {
            let Some(supervisor) = &self.supervisor else { return };
            let mut buffer = [0; LEN_MAX];
            let received = match fd_passing::receive(supervisor.as_fd(), &mut buffer) {
                Ok(received) if received.len > 0 => received,
                Err(error) if fd_passing::is_later(&error) => return,
                _ => return self.lose_supervisor(),
            };
            let bytes = buffer.get(..received.len).unwrap_or_default();
            match (RecorderRequest::decode(bytes), <[OwnedFd; 2]>::try_from(received.fds)) {
                (Some(RecorderRequest::Begin { owner, capture }), Ok(pipes)) => {
                    self.begin(owner, capture, pipes);
                }
                // There are too few descriptors for its pipes.
                (Some(RecorderRequest::Begin { owner, .. }), Err(_)) => {
                    let output = RecordedOutput { errno: libc::EMFILE, ..Default::default() };
                    self.tell(&RecorderEvent::Closed { owner, output });
                }
                (Some(RecorderRequest::Ended { owner }), _) => self.end(owner.number()),
                // A supervisor that sends anything else is not the one we belong to.
                (None, _) => return self.lose_supervisor(),
            }
        }
    }

    fn begin(&mut self, owner: MletOwner, capture: Capture, pipes: [OwnedFd; 2]) {
        let number = owner.number();
        let (sinks, opened) = match self.open(number, &capture.kept) {
            Ok(sinks) => (sinks, Ok(())),
            Err(error) => ([Sink::Nothing, Sink::Nothing], Err(error)),
        };
        let watched = [Which::Stdout, Which::Stderr].into_iter().zip(&pipes);
        let watched = watched.map(|(which, pipe)| self.watch(number, which, pipe));
        let watched = watched.collect::<io::Result<()>>();
        let mut captured = Captured::new(owner, capture.tag, pipes, sinks);
        opened.unwrap_or_else(|error| captured.lose(&error));
        let is_watched = watched.is_ok();
        watched.unwrap_or_else(|error| captured.lose(&error));
        self.captured.insert(number, captured);
        if !is_watched {
            self.close(number, Which::Stdout);
            self.close(number, Which::Stderr);
        }
    }

    fn watch(&self, number: u64, which: Which, pipe: &OwnedFd) -> io::Result<()> {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(self.epoll.add(pipe, EpollEvent::new(EpollFlags::EPOLLIN, token(number, which)))?)
    }

    /// Makes the places where a mlet's output is kept.
    fn open(&mut self, number: u64, kept: &KeptIn) -> io::Result<[Sink; 2]> {
        let Some(results) = &self.plan.results else { return Ok([Sink::Nothing, Sink::Nothing]) };
        match kept {
            KeptIn::Nothing => Ok([Sink::Nothing, Sink::Nothing]),
            KeptIn::Folder(folder) => {
                Ok(keeping::open_files(&results.join(folder))?.map(Sink::File))
            }
            KeptIn::Stream => {
                let file = match &mut self.stream_file {
                    Some(file) => file,
                    None => self.stream_file.insert(StreamFile::begin(results)?),
                };
                // So that no later run takes its number, whatever becomes of this one.
                file.append((number, What::Begin), 0, b"")?;
                Ok([Sink::Stream, Sink::Stream])
            }
        }
    }

    /// A mlet's process has ended.
    fn end(&mut self, number: u64) {
        if let Some(captured) = self.captured.get_mut(&number)
            && !std::mem::replace(&mut captured.has_ended, true)
        {
            self.closing.push_back((now() + CLOSE_PATIENCE, number));
        }
    }

    /// Closes what has been open for long enough behind the end of its mlet, after a last look at what is in it.
    fn close_due(&mut self, now: Instant) {
        while let Some((_, number)) = self.closing.front().filter(|(at, _)| *at <= now).copied() {
            self.closing.pop_front();
            for which in [Which::Stdout, Which::Stderr] {
                self.limit(number, which);
                while !self.is_held_up()
                    && !self.must_wait(number, which)
                    && self.read(number, which)
                {}
            }
            if self.captured.contains_key(&number) {
                // Behind those that need not wait.
                self.closing.push_back((now + CLOSE_RETRY, number));
            }
            if self.is_held_up() {
                return;
            }
        }
    }

    /// Lets no more be read from a pipe than it may hold now.
    fn limit(&mut self, number: u64, which: Which) {
        let Some(captured) = self.captured.get_mut(&number) else { return };
        let pipe = captured.pipe(which);
        let Some(read_end) = &pipe.read_end else { return };
        let capacity = fcntl(read_end, FcntlArg::F_GETPIPE_SZ).ok();
        let capacity = capacity.and_then(|len| usize::try_from(len).ok()).unwrap_or(READ_LEN);
        pipe.left.get_or_insert(capacity);
    }

    fn read_pipes(&mut self) {
        let mut ready = [EpollEvent::empty(); READS_AT_ONCE];
        let count = self.epoll.wait(&mut ready, EpollTimeout::ZERO).unwrap_or(0);
        for event in ready.iter().take(count) {
            if self.is_held_up() {
                return;
            }
            let token = event.data();
            let (number, which) =
                (token >> 1, if token & 1 == 0 { Which::Stdout } else { Which::Stderr });
            if self.must_wait(number, which) {
                self.put_aside(number, which);
            } else {
                self.read(number, which);
            }
        }
    }

    /// Reads a pipe once. Whether it is still open.
    fn read(&mut self, number: u64, which: Which) -> bool {
        let Some(captured) = self.captured.get_mut(&number) else { return false };
        let pipe = captured.pipe(which);
        let Some(read_end) = &pipe.read_end else { return false };
        let wanted = pipe.left.unwrap_or(READ_LEN).min(READ_LEN);
        let mut buffer = std::mem::take(&mut self.buffer);
        let came = read(read_end, buffer.get_mut(..wanted).unwrap_or_default());
        let is_limited = pipe.left.is_some();
        let is_open = match came {
            Ok(0) => false,
            Ok(len) => {
                pipe.left = pipe.left.map(|left| left.saturating_sub(len));
                let is_open = pipe.left != Some(0);
                self.take(number, which, buffer.get(..len).unwrap_or_default());
                is_open
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => !is_limited,
            Err(errno) => {
                captured.lose(&errno.into());
                false
            }
        };
        self.buffer = buffer;
        if !is_open {
            self.close(number, which);
        }
        is_open
    }

    fn take(&mut self, number: u64, which: Which, bytes: &[u8]) {
        let Some(captured) = self.captured.get_mut(&number) else { return };
        captured.keep(which, bytes, self.plan.output_max, self.stream_file.as_mut());
        if self.plan.is_tagged {
            self.show(number, which, Some(bytes));
        }
    }

    /// Shows the lines that end with these bytes; without any, what is left of a last one.
    fn show(&mut self, number: u64, which: Which, bytes: Option<&[u8]>) {
        let line_len_under_pressure = (HELD_MAX / self.captured.len().max(1)).max(LINE_LEN_MIN);
        let Some(captured) = self.captured.get_mut(&number) else { return };
        let (owner, tag) = (captured.owner, captured.tag.clone());
        let lines = &mut captured.pipe(which).lines;
        let before = lines.held();
        let (mut lost, mut is_shown) = (None, false);
        let len_max = match which {
            Which::Stderr => LOG_LINE_LEN_MAX,
            Which::Stdout if self.held > HELD_MAX => line_len_under_pressure,
            Which::Stdout => LINE_LEN_MAX,
        };
        let (stdout, events, has_manager) =
            (&mut self.stdout, &mut self.events, self.manager.is_some());
        let show = |line: &[u8]| match (which, &mut *stdout) {
            (Which::Stdout, Some(stdout)) => {
                is_shown = true;
                if let Err(error) = stdout.write_line(&tag, line) {
                    lost = Some(error);
                }
            }
            (Which::Stdout, None) => {}
            (Which::Stderr, _) if has_manager => {
                let event = RecorderEvent::Line { owner, line: line.to_vec() };
                events.push(event.encode(), Vec::new());
            }
            (Which::Stderr, _) => {}
        };
        match bytes {
            Some(bytes) => lines.push(bytes, len_max, show),
            None => lines.finish(show),
        }
        self.held = self.held + lines.held() - before;
        if is_shown && self.is_stdout_pending() && !self.awaiting_stdout.contains(&number) {
            self.awaiting_stdout.push(number);
        }
        if let Some(error) = lost {
            self.lose_stdout(&error);
        }
    }

    fn lose_stdout(&mut self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.tell(&RecorderEvent::StdoutLost { errno });
    }

    /// Reads a pipe no longer.
    fn close(&mut self, number: u64, which: Which) {
        if self.plan.is_tagged {
            self.show(number, which, None);
        }
        let Some(captured) = self.captured.get_mut(&number) else { return };
        if let Some(read_end) = captured.pipe(which).read_end.take() {
            // The supervisor may still have it for a moment, which is what its watch lasts for.
            let _ = self.epoll.delete(&read_end);
        }
        if captured.is_closed() {
            let stream = self.stream_file.as_ref().map_or(0, StreamFile::number);
            let (owner, output) = (captured.owner, captured.told(stream));
            self.captured.remove(&number);
            self.tell(&RecorderEvent::Closed { owner, output });
        }
    }

    fn tell(&mut self, event: &RecorderEvent) {
        if self.manager.is_some() {
            self.events.push(event.encode(), Vec::new());
        }
    }
}
