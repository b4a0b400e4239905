//! Asking for a passphrase on the terminal.
//!
//! Own code, since `rpassword` leaves echo off when a signal ends the process during the prompt.
//! The invariant: however this ends, the terminal's settings and the signal mask are as before.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Longest passphrase in bytes. The terminal itself delivers lines of at most 4,095 bytes.
const PASSPHRASE_LEN_MAX: usize = 4096;

/// Signals that end the prompt; blocked meanwhile, so that they cannot leave echo off.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP];

/// Why there is no passphrase.
#[derive(Debug)]
pub enum PromptError {
    /// There is no controlling terminal to ask on.
    NoTerminal(io::Error),
    /// A signal came instead.
    Interrupted(Signal),
    /// The terminal was closed, or end of file typed.
    Ended,
    /// No sensible passphrase is this long.
    TooLong,
    /// The terminal failed.
    Io(io::Error),
}

impl fmt::Display for PromptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTerminal(error) => {
                write!(f, "there is no terminal to ask for the passphrase ({error})")
            }
            Self::Interrupted(signal) => write!(f, "{signal} came instead of the passphrase"),
            Self::Ended => f.write_str("the terminal ended before the passphrase"),
            Self::TooLong => write!(f, "the passphrase is longer than {PASSPHRASE_LEN_MAX} bytes"),
            Self::Io(error) => write!(f, "the terminal failed: {error}"),
        }
    }
}

impl std::error::Error for PromptError {}

impl From<Errno> for PromptError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<io::Error> for PromptError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks once for a passphrase on `/dev/tty`, without echo. Waits for as long as the user takes.
/// `question` is shown as it is: escape what comes from outside.
///
/// # Errors
/// There is no terminal, it ends, or a signal comes.
pub fn ask(question: &str) -> Result<Zeroizing<Vec<u8>>, PromptError> {
    let tty = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let tty = tty.map_err(PromptError::NoTerminal)?;
    let blocked = Blocked::new()?;
    let signals = SignalFd::with_flags(&blocked.set, SfdFlags::SFD_CLOEXEC)?;
    let quiet = Quiet::new(&tty)?;
    (&tty).write_all(question.as_bytes())?;
    let line = read_line(&tty, &signals);
    drop(quiet);
    let _ = (&tty).write_all(b"\n");
    line
}

fn read_line(mut tty: &File, signals: &SignalFd) -> Result<Zeroizing<Vec<u8>>, PromptError> {
    // Full length from the start: growing would leave copies behind that nobody wipes.
    let mut line = Zeroizing::new(vec![0; PASSPHRASE_LEN_MAX]);
    let mut len = 0;
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(tty.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if fds[0].any() == Some(true) {
            let number = signals.read_signal()?.map(|info| info.ssi_signo.cast_signed());
            let signal = number.and_then(|number| Signal::try_from(number).ok());
            return Err(PromptError::Interrupted(signal.unwrap_or(Signal::SIGTERM)));
        }
        if fds[1].any() != Some(true) {
            continue;
        }
        let room =
            line.get_mut(len..).filter(|room| !room.is_empty()).ok_or(PromptError::TooLong)?;
        match tty.read(room)? {
            0 => return Err(PromptError::Ended),
            read => len += read,
        }
        if line[..len].ends_with(b"\n") {
            line.truncate(len - 1);
            return Ok(line);
        }
    }
}

/// Echo is off while this lives.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(tty: &'a File) -> Result<Self, Errno> {
        let before = tcgetattr(tty)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        // What was typed before the prompt was not typed for it.
        tcsetattr(tty, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.tty, SetArg::TCSAFLUSH, &self.before);
    }
}

/// The signals that end a program are blocked while this lives: for what must not be left half-done.
/// In a prompt it is made before `Quiet` and dropped after it.
#[derive(Debug)]
pub struct Blocked {
    set: SigSet,
    before: SigSet,
}

impl Blocked {
    /// Blocks them for this thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> Result<Self, Errno> {
        let set = SigSet::from_iter(ENDING);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        Ok(Self { set, before })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
