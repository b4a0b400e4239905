//! What signals say to a run, as something to read instead of something that interrupts; SIGPIPE out of the way.
//!
//! No work is ever done in a signal handler: there is none.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT, usually Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// What a signal says to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunSignal {
    /// SIGINT or SIGTERM: to stop.
    Stop(StopSignal),
    /// SIGHUP: the terminal is gone, or somebody hopes for new settings.
    HangUp,
    /// SIGUSR1: to tell what runs.
    TellStatus,
}

/// The signals of this process that say something to a run, readable.
#[derive(Debug)]
pub struct RunSignals(SignalFd);

impl RunSignals {
    /// Blocks the signals in the calling thread and makes them readable here. Call it after the supervisor is forked, and
    /// before threads start that do not block signals by themselves: the process would be killed by way of such a one.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn block() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1] {
            signals.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next signal that arrived, `None` when there is none. Never blocks.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn receive(&self) -> io::Result<Option<RunSignal>> {
        let received = self.0.read_signal()?;
        Ok(received.map(|info| match info.ssi_signo.cast_signed() {
            libc::SIGHUP => RunSignal::HangUp,
            libc::SIGUSR1 => RunSignal::TellStatus,
            libc::SIGINT => RunSignal::Stop(StopSignal::Interrupt),
            _ => RunSignal::Stop(StopSignal::Terminate),
        }))
    }
}

impl AsFd for RunSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for RunSignals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Ignores SIGPIPE: writing to a peer that is gone is an error to handle, not a reason to die. Mlets inherit it,
/// and the mlets of the original count on that (spec/pktxpmgr.md 1.5).
///
/// # Errors
/// As the kernel says.
pub fn ignore_broken_pipe() -> io::Result<()> {
    set_disposition(Signal::SIGPIPE, SigHandler::SigIgn)
}

/// Ignores SIGXFSZ: a file that may not grow any more (`ulimit -f`) is an error to handle. Mlets get its default action back.
///
/// # Errors
/// As the kernel says.
pub fn ignore_file_size_limit() -> io::Result<()> {
    set_disposition(Signal::SIGXFSZ, SigHandler::SigIgn)
}

/// Ignores SIGUSR1, which asks a run for its status and would end a process whose run has not begun. Blocked by
/// [`RunSignals::block`] it is read all the same; mlets get its default action back.
///
/// # Errors
/// As the kernel says.
pub fn ignore_status_question() -> io::Result<()> {
    set_disposition(Signal::SIGUSR1, SigHandler::SigIgn)
}

/// Ignores a signal or gives it its default action.
#[allow(unsafe_code)]
pub(super) fn set_disposition(number: Signal, disposition: SigHandler) -> io::Result<()> {
    debug_assert!(matches!(disposition, SigHandler::SigIgn | SigHandler::SigDfl));
    // SAFETY: neither disposition runs code of ours, which is what could go wrong here.
    unsafe { signal(number, disposition) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn blocked_signals_are_read_in_the_thread_that_was_to_get_them() {
        std::thread::spawn(|| {
            let signals = RunSignals::block().unwrap();
            assert_eq!(signals.receive().unwrap(), None);
            for (signal, read) in [
                (Signal::SIGTERM, RunSignal::Stop(StopSignal::Terminate)),
                (Signal::SIGINT, RunSignal::Stop(StopSignal::Interrupt)),
                (Signal::SIGHUP, RunSignal::HangUp),
                (Signal::SIGUSR1, RunSignal::TellStatus),
            ] {
                raise(signal).unwrap();
                assert_eq!(signals.receive().unwrap(), Some(read));
            }
            assert_eq!(signals.receive().unwrap(), None);
        })
        .join()
        .unwrap();
    }
}
