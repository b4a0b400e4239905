//! The recorder: a process with one thread and no keys that reads what mlets write to pipes, and keeps it in files or shows
//! it line by line.
//!
//! ```text
//!  supervisor --BEGIN + reading ends of two pipes, ENDED--> recorder --CLOSED, LINE, STDOUT LOST--> manager
//!                           mlet --pipes------------------>    |
//!                                                              +--> files, standard output
//! ```
//! There is one only where output is tagged, limited or kept in one file for all mlets; otherwise it goes to files of the
//! mlet's own or to our own standard output, and nobody copies it. It is a process of its own because the pipes would take
//! twice as many descriptors in the manager as sessions do.
//!
//! It reads on until a mlet has closed its pipes, or two seconds longer than its process lives: what a mlet leaves behind
//! holds up no session. A disk or a reader that is slow holds up the mlets, as it would if they wrote there themselves. When
//! both the supervisor and the manager are gone it ends as soon as it is through.
//!
//! If it is lost, so is what it had not written, and mlets that write find their pipes broken (EPIPE; SIGPIPE is ignored in
//! mlets): nobody else holds the pipes, since what held them would have to read them as well. Sessions go on.
//!
//! Here is the manager's side. Invariant: for each mlet that is recorded comes exactly one `Closed`, unless the recorder is
//! lost.

mod capture;
mod keeping;
mod line_cutter;
mod message;
mod plan;
mod process;
mod tagged_stdout;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{ForkResult, Pid};

pub(super) use self::keeping::open_files;
pub(super) use self::message::RecorderRequest;
#[cfg(test)]
pub(super) use self::message::tests;
pub use self::message::{Capture, KeptIn, RecordedOutput, RecordedStream, RecorderEvent};
pub use self::plan::RecorderPlan;
use crate::sys::forked::{self, StartError};

/// What it is called in messages.
const RECORDER: &str = "the recorder of mlets' output";

/// How long its end is waited for: longer than it waits itself for what mlets have left behind.
const END_PATIENCE: Duration = Duration::from_secs(4);

/// Forks the recorder and waits until it is ready. Beside it is the supervisor's end of their pair. Call it before keys are
/// read, limits raised, signals blocked or threads started.
///
/// # Errors
/// [`StartError`]; no process is left then.
pub fn start(plan: &RecorderPlan) -> Result<(OutputRecorder, OwnedFd), StartError> {
    let (ours, theirs) = forked::packet_pair(RECORDER)?;
    let (of_supervisor, requests) = forked::packet_pair(RECORDER)?;
    match forked::fork_alone(RECORDER)? {
        ForkResult::Parent { child } => {
            // Only the child holds its ends now, so that its death shows.
            drop((theirs, requests));
            let recorder = OutputRecorder { pair: ours, pid: child };
            match forked::await_set_up(RECORDER, recorder.as_fd()) {
                Ok(()) => Ok((recorder, of_supervisor)),
                Err(error) => {
                    let _ = kill(child, Signal::SIGKILL);
                    Err(error)
                }
            }
        }
        // Our ends are closed in the child with everything else; the child never returns to drop them.
        ForkResult::Child => process::run(plan, theirs, requests),
    }
}

/// The manager's end. Nothing here blocks but its drop.
///
/// Drop it after the supervisor: then it ends by itself as soon as it has written what mlets have left, which is waited for,
/// up to four seconds; if standard output or a disk does not take it by then, it is killed.
#[derive(Debug)]
pub struct OutputRecorder {
    pair: OwnedFd,
    pid: Pid,
}

impl OutputRecorder {
    /// The next event, `None` when none has arrived; call it until then.
    ///
    /// # Errors
    /// `UnexpectedEof` when the recorder has ended, `InvalidData` when it talks nonsense: it is lost either way.
    pub fn receive(&self) -> io::Result<Option<RecorderEvent>> {
        forked::next_packet(self.pair.as_fd(), RecorderEvent::decode)
    }
}

impl Drop for OutputRecorder {
    fn drop(&mut self) {
        let _ = shutdown(self.pair.as_raw_fd(), Shutdown::Both);
        if !forked::await_end(self.pid, END_PATIENCE) {
            // It fails only when it has ended by now.
            let _ = kill(self.pid, Signal::SIGKILL);
            forked::await_end(self.pid, END_PATIENCE);
        }
    }
}

impl AsFd for OutputRecorder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pair.as_fd()
    }
}

impl AsRawFd for OutputRecorder {
    fn as_raw_fd(&self) -> RawFd {
        self.pair.as_raw_fd()
    }
}
