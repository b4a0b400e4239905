//! Processes that are forked from the manager while it has one thread: how they begin, and how their ends are waited for.
//!
//! ```text
//! SET UP   4 | errno 4 | what cannot be done      the first message of each; an errno of 0 says that all is well
//! ```
//! Not here: what they do (`supervisor`, `recorder`). Invariant: of what the manager has open such a process keeps nothing
//! but what it is given, and it never returns into the manager's code.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, close, fork, setpgid};

use super::fd_passing;
use super::lack::Lack;
use super::packet::{LEN_MAX, Reader};
use super::signals::{ignore_broken_pipe, set_disposition};
use super::stdin;

const SET_UP: u8 = 4;
/// How long a process may take to set itself up.
const SET_UP_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks whether a process has ended, which takes it less than a millisecond.
const END_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Exit code when a process could not set itself up or panicked (EX_SOFTWARE); nobody reads it.
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

/// Why such a process could not be started.
#[derive(Debug)]
pub struct StartError {
    /// Which, in words.
    process: &'static str,
    /// Why.
    pub why: StartFault,
}

/// Why one could not be started.
#[derive(Debug)]
pub enum StartFault {
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

impl StartError {
    /// That this process could not be started.
    pub(super) fn of(process: &'static str) -> impl Fn(StartFault) -> Self {
        move |why| Self { process, why }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = format!("cannot start {}", self.process);
        match &self.why {
            StartFault::NulInCommand => {
                write!(f, "{start}: the mlet's path or an argument holds a NUL byte; remove it")
            }
            StartFault::Proc(error) => {
                write!(f, "{start}: /proc/self/task is not readable ({error}); mount /proc")
            }
            StartFault::ManyThreads(threads) => write!(
                f,
                "{start}: {threads} threads run already; it must be started before any other thread"
            ),
            StartFault::Lost(error) => write!(
                f,
                "{start}: its process has ended or cannot be talked to ({error}); allow poll, sendmsg and recvmsg \
                 in the seccomp profile if there is one, or see the system's log"
            ),
            StartFault::Lack(lack) => lack.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            StartFault::Proc(error) | StartFault::Lost(error) => Some(error),
            StartFault::Lack(lack) => lack.source(),
            StartFault::NulInCommand | StartFault::ManyThreads(_) => None,
        }
    }
}

/// Forks this process, which must have one thread.
pub(super) fn fork_alone(process: &'static str) -> Result<ForkResult, StartError> {
    let refused = StartError::of(process);
    let tasks = fs::read_dir("/proc/self/task").map_err(|error| {
        refused(if Lack::is_why(&error) {
            StartFault::Lack(Lack::new("look for other threads (openat)", error))
        } else {
            StartFault::Proc(error)
        })
    })?;
    let threads = tasks.count();
    if threads != 1 {
        return Err(refused(StartFault::ManyThreads(threads)));
    }
    #[allow(unsafe_code)]
    // SAFETY: this process has one thread, as just counted, so the child is a whole process and may do anything.
    let forked = unsafe { fork() };
    forked
        .map_err(Lack::when(&format!("start {process} (clone)")))
        .map_err(|lack| refused(StartFault::Lack(lack)))
}

/// A pair of sockets for packets between two processes.
pub(super) fn packet_pair(process: &'static str) -> Result<(OwnedFd, OwnedFd), StartError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(Lack::when(&format!("talk to {process} (socketpair)")))
        .map_err(|lack| StartError::of(process)(StartFault::Lack(lack)))
}

/// Waits for the first message of a process, on the manager's end of its pair.
pub(super) fn await_set_up(process: &'static str, pair: BorrowedFd<'_>) -> Result<(), StartError> {
    let lost = |error| StartError::of(process)(StartFault::Lost(error));
    // More than zero, as any time that is not negative.
    let patience = PollTimeout::try_from(SET_UP_PATIENCE).unwrap_or(PollTimeout::MAX);
    while poll(&mut [PollFd::new(pair, PollFlags::POLLIN)], patience) == Err(Errno::EINTR) {}
    let mut buffer = [0; LEN_MAX];
    let received = fd_passing::receive(pair, &mut buffer).map_err(|error| {
        let late = fd_passing::is_later(&error);
        lost(if late { io::ErrorKind::TimedOut.into() } else { error })
    })?;
    match decode_set_up(buffer.get(..received.len).unwrap_or_default()) {
        Some(told) => told.map_err(|lack| StartError::of(process)(StartFault::Lack(lack))),
        None => Err(lost(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// The next packet that a process has sent, decoded; `None` when none has arrived.
///
/// # Errors
/// `UnexpectedEof` when it has ended, `InvalidData` when it talks nonsense: it is lost either way.
pub(super) fn next_packet<T>(
    pair: BorrowedFd<'_>,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut buffer = [0; LEN_MAX];
    let received = match fd_passing::receive(pair, &mut buffer) {
        Ok(received) if received.len == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(received) => received,
        Err(error) if fd_passing::is_later(&error) => return Ok(None),
        // It ended with packets of ours unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Err(error) => return Err(error),
    };
    let bytes = buffer.get(..received.len).unwrap_or_default();
    let packet = decode(bytes).filter(|_| !received.cut);
    packet.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Waits for the end of a process, at most so long. Whether it has ended.
pub(super) fn await_end(process: Pid, patience: Duration) -> bool {
    let deadline = now() + patience;
    // An error says that there is no such child any more.
    while let Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) =
        waitpid(process, Some(WaitPidFlag::WNOHANG))
    {
        if now() >= deadline {
            return false;
        }
        thread::sleep(END_POLL_INTERVAL);
    }
    true
}

/// Is the process until it exits: sets it up, tells the manager on its end of the pair what came of that, and lets it run.
pub(super) fn run<T>(
    pair: OwnedFd,
    set_up: impl FnOnce(&OwnedFd) -> Result<T, Lack>,
    body: impl FnOnce(T, OwnedFd) -> i32,
) -> ! {
    // A panic must not unwind into the caller, which is the manager's main function.
    let code = catch_unwind(AssertUnwindSafe(|| {
        let set_up = set_up(&pair);
        let told = encode_set_up(set_up.as_ref().err());
        // There is room for a first message; a manager that gets none does not go on.
        let is_told = fd_passing::send(pair.as_fd(), &told, &[] as &[OwnedFd]).is_ok();
        match set_up {
            Ok(parts) if is_told => body(parts, pair),
            _ => EXIT_INTERNAL,
        }
    }));
    exit(code.unwrap_or(EXIT_INTERNAL))
}

/// Sheds what was inherited: descriptors but these, terminal signals, process group. `blocked` is what is to be read.
pub(super) fn shed(
    process: &str,
    name: &CStr,
    blocked: &SigSet,
    kept: &[BorrowedFd<'_>],
) -> Result<(), Lack> {
    let doing = format!("set the signals of {process} (rt_sigaction, rt_sigprocmask)");
    set_signals(blocked).map_err(Lack::when(&doing))?;
    let doing = format!("close what {process} has inherited (close_range, or /proc/self/fd)");
    close_all_but(kept).map_err(Lack::when(&doing))?;
    stdin::discard().map_err(Lack::when("put /dev/null on descriptor 0 (openat, dup2)"))?;
    // Out of the manager's group, so that killing that whole group leaves somebody to end the mlets and to write down what
    // they have written.
    let group = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    group.map_err(Lack::when(&format!("give {process} a process group (setpgid)")))?;
    // A name is for those who look at the list of processes, and nothing depends on it.
    let _ = prctl::set_name(name);
    Ok(())
}

/// Ignores what is for the manager, and blocks what is to be read.
fn set_signals(blocked: &SigSet) -> io::Result<()> {
    for signal in IGNORED {
        set_disposition(signal, SigHandler::SigIgn)?;
    }
    ignore_broken_pipe()?;
    // If SIGCHLD came ignored, the kernel would throw the exit statuses away.
    set_disposition(Signal::SIGCHLD, SigHandler::SigDfl)?;
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(blocked), None)?)
}

/// Closes every descriptor from 3 upwards except these.
fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<_> = kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    numbers.sort_unstable();
    let mut first = 3;
    let closed = numbers.iter().try_for_each(|number| {
        close_range(first, number.saturating_sub(1))?;
        first = number + 1;
        Ok(())
    });
    let closed = closed.and_then(|()| close_range(first, u32::MAX));
    // Old sandboxes bar this call, or do not know it.
    closed.or_else(|_: io::Error| close_one_by_one(kept))
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

fn close_one_by_one(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let listed = fs::read_dir("/proc/self/fd")?;
    let numbers =
        listed.map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())));
    let numbers: Vec<Option<RawFd>> = numbers.collect::<io::Result<_>>()?;
    for number in numbers.into_iter().flatten() {
        if number > 2 && kept.iter().all(|fd| fd.as_raw_fd() != number) {
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

/// The bytes of SET UP.
fn encode_set_up(lack: Option<&Lack>) -> Vec<u8> {
    let mut out = vec![SET_UP];
    // 0 is for none, also where the reason is not the kernel's.
    let errno = lack.map_or(0, |lack| match lack.errno() {
        0 => libc::EIO,
        errno => errno,
    });
    out.extend(errno.to_be_bytes());
    out.extend(lack.map_or("", Lack::doing).as_bytes());
    out
}

/// What SET UP tells, `None` if these bytes are none.
fn decode_set_up(bytes: &[u8]) -> Option<Result<(), Lack>> {
    let mut reader = Reader(bytes);
    let kind = reader.u8()?;
    let errno = reader.i32()?;
    let doing = String::from_utf8(reader.0.to_vec()).ok()?;
    let lack = || Lack::new(doing, io::Error::from_raw_os_error(errno));
    (kind == SET_UP).then(|| if errno == 0 { Ok(()) } else { Err(lack()) })
}

#[expect(clippy::disallowed_methods, reason = "how long an end is waited for")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_lacks_is_told_in_the_same_words() {
        let lack = Lack::new("close what was inherited", Errno::EPERM);
        let told = decode_set_up(&encode_set_up(Some(&lack))).unwrap().unwrap_err();
        assert_eq!(told.to_string(), lack.to_string());
        assert!(decode_set_up(&encode_set_up(None)).unwrap().is_ok());
        for nonsense in [&b""[..], b"\x04\0\0", b"\x05\0\0\0\0", b"\x04\0\0\0\x01\xff"] {
            assert!(decode_set_up(nonsense).is_none(), "{nonsense:?}");
        }
    }
}
