//! The supervisor: a process with one thread, no keys and no ring that starts and reaps the mlets.
//!
//! ```text
//!  manager  --- SPAWN + session socket, END ONE, END ALL --->  supervisor --posix_spawn--> mlet
//!           <-------- SPAWNED, SPAWN FAILED, EXITED ---------              <---SIGCHLD-----
//! ```
//!
//! It exists because forking a process with threads, rings and keys is slow and unsafe (spec/reliability.md 4). It is
//! forked first of all, so mlets get the limits, affinity and signal state pktxpmgr was started with, and nothing that
//! pktxpmgr opened since. When its end of the pair tells that the manager is gone, for whatever reason, it ends every
//! mlet and their orphans, then itself; after a normal end there are none and it ends at once.
//!
//! Here is the manager's side. Invariant: for each spawn asked for come exactly one `Spawned` or `SpawnFailed`, and
//! after `Spawned` exactly one `Exited`, unless the supervisor is lost.

mod ends;
mod message;
mod output;
mod packet_queue;
mod process;
mod spawn;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use self::message::SupervisorRequest;
pub use self::message::{MletOwner, MletStatus, SupervisorEvent};
pub use self::output::MletOutput;
pub use self::packet_queue::Flushed;
use self::packet_queue::PacketQueue;
use self::spawn::Program;
pub use self::spawn::{MletCommand, STARTING_A_MLET};
use crate::sys::children::{Graces, KILL_PATIENCE};
use crate::sys::fd_passing;
use crate::sys::lack::Lack;

/// How long a supervisor may take to set itself up.
const SET_UP_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks whether the supervisor has ended, which takes it less than a millisecond.
const END_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Forks the supervisor and waits until it can start mlets. Call it before keys are read, limits raised, signals blocked or threads started.
///
/// # Errors
/// [`StartError`]; no process is left then.
pub fn start(command: &MletCommand) -> Result<Supervisor, StartError> {
    let program = Program::new(command).map_err(|_| StartError::NulInCommand)?;
    let threads = fs::read_dir("/proc/self/task").map_err(StartError::Proc)?.count();
    if threads != 1 {
        return Err(StartError::ManyThreads(threads));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(Lack::when("talk to the supervisor of mlets (socketpair)"))?;
    #[allow(unsafe_code)]
    // SAFETY: this process has one thread, as just counted, so the child is a whole process and may do anything.
    match unsafe { fork() }.map_err(Lack::when("start the supervisor of mlets (clone)"))? {
        ForkResult::Parent { child } => {
            // Only the child holds its end now, so that its death shows.
            drop(theirs);
            let supervisor = Supervisor {
                pair: ours,
                pid: child,
                outbox: PacketQueue::default(),
                mlet: command.path.clone(),
                patience: command.graces.total() + KILL_PATIENCE,
            };
            match supervisor.await_set_up() {
                Ok(()) => Ok(supervisor),
                Err(error) => {
                    let _ = kill(child, Signal::SIGKILL);
                    drop(supervisor);
                    Err(error)
                }
            }
        }
        // Our end is closed in the child with everything else; the child never returns to drop it.
        ForkResult::Child => process::run(command, program, theirs),
    }
}

/// Why there is no supervisor.
#[derive(Debug)]
pub enum StartError {
    /// The mlet's path or an argument holds a NUL.
    NulInCommand,
    /// `/proc` cannot be read.
    Proc(io::Error),
    /// So many threads run already; fork would copy only one of them.
    ManyThreads(usize),
    /// The machine lacks something that it needs.
    Lack(Lack),
    /// It ended or was silent while it set itself up, for this reason.
    Lost(io::Error),
}

impl From<Lack> for StartError {
    fn from(lack: Lack) -> Self {
        Self::Lack(lack)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = "cannot start the supervisor of mlets";
        match self {
            Self::NulInCommand => {
                write!(f, "{start}: the mlet's path or an argument holds a NUL byte; remove it")
            }
            Self::Proc(error) => {
                write!(f, "{start}: /proc/self/task is not readable ({error}); mount /proc")
            }
            Self::ManyThreads(threads) => write!(
                f,
                "{start}: {threads} threads run already; it must be started before any other thread"
            ),
            Self::Lost(error) => write!(
                f,
                "{start}: its process has ended or cannot be talked to ({error}); allow poll, sendmsg and recvmsg \
                 in the seccomp profile if there is one, or see the system's log"
            ),
            Self::Lack(lack) => lack.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Proc(error) | Self::Lost(error) => Some(error),
            Self::Lack(lack) => lack.source(),
            Self::NulInCommand | Self::ManyThreads(_) => None,
        }
    }
}

/// The manager's end. Nothing here blocks but its drop; wait for the descriptor to become readable, and
/// writable when a flush says so. Any error of [`flush`](Self::flush) or [`receive`](Self::receive) means that the
/// supervisor is lost: [`end_all_children`](crate::sys::children::end_all_children) then ends the mlets.
///
/// Dropping it ends the supervisor, and with it every mlet that is left, and waits for that: not at all if no mlet or
/// orphan of one is left, otherwise up to the graces of its [`MletCommand`] and a second more. What even KILL does not
/// end by then, such as a mlet that waits for a dead file server, is left behind.
#[derive(Debug)]
pub struct Supervisor {
    pair: OwnedFd,
    pid: Pid,
    outbox: PacketQueue,
    mlet: PathBuf,
    /// How long its end is waited for.
    patience: Duration,
}

impl Supervisor {
    /// The mlet that it starts, as a path.
    pub fn mlet(&self) -> &Path {
        &self.mlet
    }

    /// The supervisor's process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Queues a request for one mlet: `session` becomes its descriptor 0, `environment` its whole environment. The
    /// events name its `owner`, who has no other mlet that runs; what it writes goes to `output`. [`flush`](Self::flush)
    /// sends it.
    ///
    /// # Errors
    /// `InvalidInput` when the environment cannot be had by a process (a name with `=`, a NUL) or is longer than
    /// 4 kB, or the name of a folder longer than 255 bytes; `session` is closed then, and no event comes.
    pub fn spawn(
        &mut self,
        owner: MletOwner,
        environment: Vec<(String, String)>,
        output: MletOutput,
        session: OwnedFd,
    ) -> io::Result<()> {
        let request = SupervisorRequest::Spawn { owner, environment, output };
        let message = request.encode().ok_or(io::ErrorKind::InvalidInput)?;
        self.outbox.push(message, Some(session));
        Ok(())
    }

    /// Queues the request to end every mlet, with these graces from now on; a further request can only shorten them.
    /// Their `Exited` events come as ever; mlets asked for from now on fail with ECANCELED.
    pub fn end_all(&mut self, graces: Graces) {
        // This request always fits.
        self.outbox.push(SupervisorRequest::EndAll(graces).encode().unwrap_or_default(), None);
    }

    /// Queues the request to end the mlet of this owner, which runs as process `pid`: TERM after the first of these graces
    /// from now, KILL after the second, to its process group. If it ends by itself before TERM, nothing is done, and what
    /// it leaves behind goes on. Its `Exited` event comes as ever.
    pub fn end_one(&mut self, owner: MletOwner, pid: i32, graces: Graces) {
        let request = SupervisorRequest::EndOne { owner, pid, graces };
        // This request always fits.
        self.outbox.push(request.encode().unwrap_or_default(), None);
    }

    /// Queues the question whether a mlet could be started now; [`SupervisorEvent::Proved`] answers.
    pub fn prove(&mut self) {
        // This request always fits.
        self.outbox.push(SupervisorRequest::Prove.encode().unwrap_or_default(), None);
    }

    /// Kills the supervisor, because it does not answer: it is lost then, and its mlets are this process's if it is a
    /// subreaper.
    pub fn kill(&self) {
        // It fails only when it has ended already.
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Waits for the supervisor's first message.
    fn await_set_up(&self) -> Result<(), StartError> {
        // More than zero, as any time that is not negative.
        let patience = PollTimeout::try_from(SET_UP_PATIENCE).unwrap_or(PollTimeout::MAX);
        while poll(&mut [PollFd::new(self.pair.as_fd(), PollFlags::POLLIN)], patience)
            == Err(Errno::EINTR)
        {}
        let mut buffer = [0; message::LEN_MAX];
        let received = fd_passing::receive(self.pair.as_fd(), &mut buffer);
        let received = received.map_err(|error| {
            let late = fd_passing::is_later(&error);
            StartError::Lost(if late { io::ErrorKind::TimedOut.into() } else { error })
        })?;
        match message::decode_set_up(buffer.get(..received.len).unwrap_or_default()) {
            Some(told) => Ok(told?),
            None => Err(StartError::Lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Sends what is queued, as much as goes without waiting.
    ///
    /// # Errors
    /// The supervisor is lost.
    pub fn flush(&mut self) -> io::Result<Flushed> {
        self.outbox.flush(self.pair.as_fd())
    }

    /// True if something is queued that the last flush could not send.
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next event, `None` when none has arrived; call it until then.
    ///
    /// # Errors
    /// `UnexpectedEof` when the supervisor has ended, `InvalidData` when it talks nonsense: it is lost either way.
    pub fn receive(&mut self) -> io::Result<Option<SupervisorEvent>> {
        let mut buffer = [0; message::LEN_MAX];
        let received = match fd_passing::receive(self.pair.as_fd(), &mut buffer) {
            Ok(received) if received.len == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => received,
            Err(error) if fd_passing::is_later(&error) => return Ok(None),
            // It ended with requests of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..received.len).unwrap_or_default();
        let event = SupervisorEvent::decode(bytes).filter(|_| !received.cut);
        event.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = shutdown(self.pair.as_raw_fd(), Shutdown::Both);
        let deadline = now() + self.patience;
        // An error says that there is no such child any more.
        while let Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) =
            waitpid(self.pid, Some(WaitPidFlag::WNOHANG))
            && now() < deadline
        {
            thread::sleep(END_POLL_INTERVAL);
        }
    }
}

impl AsFd for Supervisor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pair.as_fd()
    }
}

impl AsRawFd for Supervisor {
    fn as_raw_fd(&self) -> RawFd {
        self.pair.as_raw_fd()
    }
}

#[expect(clippy::disallowed_methods, reason = "the patience of a drop")]
fn now() -> Instant {
    Instant::now()
}
