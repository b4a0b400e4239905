//! The supervisor: a process with one thread, no keys and no ring that starts and reaps the mlets.
//!
//! ```text
//!  manager  --- SPAWN + session socket, END ONE, END ALL --->  supervisor --posix_spawn--> mlet
//!           <-------- SPAWNED, SPAWN FAILED, EXITED ---------              <---SIGCHLD-----
//!  shards   --- SPAWN + session socket ---------------------->
//! ```
//!
//! It exists because forking a process with threads, rings and keys is slow and unsafe (spec/reliability.md 4). It is
//! forked first of all, so mlets get the limits, affinity and signal state pktxpmgr was started with, and nothing that
//! pktxpmgr opened since. When its end of the pair tells that the manager is gone, for whatever reason, it ends every
//! mlet and their orphans, then itself; after a normal end there are none and it ends at once.
//!
//! Here is the manager's side. Invariant: for each spawn asked for come exactly one `Spawned` or `SpawnFailed`, and
//! after `Spawned` exactly one `Exited`, unless the supervisor is lost.

mod asked;
mod ends;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod message;
mod output;
mod process;
mod spawn;
mod spawn_sender;
mod to_recorder;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{ForkResult, Pid};

pub use self::message::{MletStatus, SupervisorEvent};
use self::message::{SupervisorRequest, encode_spawn};
pub use self::output::MletOutput;
use self::spawn::Program;
pub use self::spawn::{MletCommand, STARTING_A_MLET};
pub use self::spawn_sender::SpawnSender;
use crate::sys::children::{Graces, KILL_PATIENCE};
use crate::sys::forked;
pub use crate::sys::forked::{StartError, StartFault};
use crate::sys::mlet_ends::MletEnds;
pub use crate::sys::mlet_owner::MletOwner;
pub use crate::sys::packet_queue::Flushed;
use crate::sys::packet_queue::PacketQueue;

/// What it is called in messages.
const SUPERVISOR: &str = "the supervisor of mlets";

/// Forks the supervisor and waits until it can start mlets. What is to be recorded it gives to the recorder, whose end of
/// their pair is `recorder`. Call it before keys are read, limits raised, signals blocked or threads started.
///
/// # Errors
/// [`StartError`]; no process is left then.
pub fn start(command: &MletCommand, recorder: Option<OwnedFd>) -> Result<Supervisor, StartError> {
    let program =
        Program::new(command).map_err(|_| StartError::of(SUPERVISOR)(StartFault::NulInCommand))?;
    let (ours, theirs) = forked::packet_pair(SUPERVISOR)?;
    let (direct, their_direct) = forked::packet_pair(SUPERVISOR)?;
    match forked::fork_alone(SUPERVISOR)? {
        ForkResult::Parent { child } => {
            // Only the child holds its ends now, so that its death shows.
            drop((theirs, their_direct, recorder));
            let supervisor = Supervisor {
                pair: ours,
                direct: Arc::new(direct),
                pid: child,
                outbox: PacketQueue::default(),
                mlet: command.path.clone(),
                patience: command.graces.total() + KILL_PATIENCE,
            };
            match forked::await_set_up(SUPERVISOR, supervisor.as_fd()) {
                Ok(()) => Ok(supervisor),
                Err(error) => {
                    let _ = kill(child, Signal::SIGKILL);
                    drop(supervisor);
                    Err(error)
                }
            }
        }
        // Our ends are closed in the child with everything else; the child never returns to drop them.
        ForkResult::Child => process::run(command, program, (theirs, their_direct), recorder),
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
    /// Of [`SpawnSender`]s. They have a socket of their own, or room in the one above would wake who waits for events.
    direct: Arc<OwnedFd>,
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

    /// Queues a request for one mlet: the socket of its session becomes its descriptor 0, the pipes beside it, which it reads
    /// and which it writes, those that `PKTLAB_PIPES` names; `environment` is the rest of its environment. The
    /// events name its `owner`, who has no other mlet that runs; what it writes goes to `output`. [`flush`](Self::flush)
    /// sends it.
    ///
    /// # Errors
    /// `InvalidInput` when the environment cannot be had by a process (a name with `=`, a NUL) or is longer than
    /// 4 kB, or the name of a folder longer than 255 bytes; the session is closed then, and no event comes.
    pub fn spawn(
        &mut self,
        owner: MletOwner,
        environment: &[(&str, &dyn fmt::Display)],
        output: &MletOutput,
        ends: MletEnds,
    ) -> io::Result<()> {
        let mut request = Vec::new();
        encode_spawn(owner, environment.iter().copied(), output, &mut request)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.outbox.push(request, ends.into_descriptors());
        Ok(())
    }

    /// What another thread sends requests for mlets with.
    pub fn spawn_sender(&self) -> SpawnSender {
        SpawnSender::new(Arc::clone(&self.direct))
    }

    /// Queues the request to end every mlet, with these graces from now on; a further request can only shorten them.
    /// Their `Exited` events come as ever; mlets asked for from now on fail with ECANCELED.
    pub fn end_all(&mut self, graces: Graces) {
        // This request always fits, as those below.
        self.outbox
            .push(SupervisorRequest::EndAll(graces).encode().unwrap_or_default(), Vec::new());
    }

    /// Queues the request to end the mlet of this owner, which runs as process `pid`: TERM after the first of these graces
    /// from now, KILL after the second, to its process group. If it ends by itself before TERM, nothing is done, and what
    /// it leaves behind goes on. Its `Exited` event comes as ever.
    pub fn end_one(&mut self, owner: MletOwner, pid: i32, graces: Graces) {
        let request = SupervisorRequest::EndOne { owner, pid, graces };
        self.outbox.push(request.encode().unwrap_or_default(), Vec::new());
    }

    /// Queues the question whether a mlet could be started now; [`SupervisorEvent::Proved`] answers.
    pub fn prove(&mut self) {
        self.outbox.push(SupervisorRequest::Prove.encode().unwrap_or_default(), Vec::new());
    }

    /// Kills the supervisor, because it does not answer: it is lost then, and its mlets are this process's if it is a
    /// subreaper.
    pub fn kill(&self) {
        // It fails only when it has ended already.
        let _ = kill(self.pid, Signal::SIGKILL);
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
        forked::next_packet(self.pair.as_fd(), SupervisorEvent::decode)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = shutdown(self.pair.as_raw_fd(), Shutdown::Both);
        forked::await_end(self.pid, self.patience);
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
