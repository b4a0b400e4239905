//! What an init system hands to a service and hears of it, as systemd has it: sd_notify(3), sd_listen_fds(3).
//!
//! Not here: the environment that names both, and what is told when. Invariant: nothing waits for the init system: what it
//! does not take at once is told with what comes next.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr as IpSocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::time::{ClockId, clock_gettime};
use socket2::Socket;

use super::socket::{self, BoundSocket};

/// The first descriptor that is handed over.
const FIRST: RawFd = 3;

/// What the init system has to do with this run; nothing of it by default.
#[derive(Debug, Default)]
pub struct ServiceManager {
    /// Where it wants to hear how the run is.
    pub notifier: Option<Notifier>,
    /// How long it may hear nothing of a run that is well.
    pub watchdog: Option<Duration>,
    /// Where endpoints come; if there is none, the run has sockets of its own.
    pub listening: Vec<BoundSocket>,
}

/// Tells the init system how the run is.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
    /// What it has not taken yet, of each name the last.
    waiting: Vec<(&'static str, String)>,
}

impl Notifier {
    /// For this address: a path, or behind `@` a name that is no file.
    ///
    /// # Errors
    /// It is no such address, or the kernel gives no socket.
    pub fn new(address: &OsStr) -> io::Result<Self> {
        let to = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to, waiting: Vec::new() })
    }

    /// Endpoints can be served, or a reload is over.
    ///
    /// # Errors
    /// Nobody is there to hear it. That the queue is full is none.
    pub fn ready(&mut self) -> io::Result<()> {
        self.tell([("READY", "1".into())])
    }

    /// No new endpoints are taken any more.
    ///
    /// # Errors
    /// As for [`Self::ready`].
    pub fn stopping(&mut self) -> io::Result<()> {
        self.tell([("STOPPING", "1".into())])
    }

    /// New settings are being read; [`Self::ready`] tells that this is over. The time of the kernel's monotonic clock goes with
    /// it, which `Type=notify-reload` wants.
    ///
    /// # Errors
    /// As for [`Self::ready`], or the kernel tells no time.
    pub fn reloading(&mut self) -> io::Result<()> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let now_us = now.as_micros().to_string();
        self.tell([("RELOADING", "1".into()), ("MONOTONIC_USEC", now_us)])
    }

    /// How the run is, in one line for people; and that it is well, if it `is_well`.
    ///
    /// # Errors
    /// As for [`Self::ready`].
    pub fn status(&mut self, status: String, is_well: bool) -> io::Result<()> {
        self.tell([("STATUS", status)])?;
        if is_well { self.tell([("WATCHDOG", "1".into())]) } else { Ok(()) }
    }

    fn tell<const N: usize>(&mut self, assignments: [(&'static str, String); N]) -> io::Result<()> {
        self.waiting.retain(|(name, _)| assignments.iter().all(|(told, _)| told != name));
        self.waiting.extend(assignments);
        let lines = self.waiting.iter().map(|(name, value)| format!("{name}={value}\n"));
        match self.socket.send_to_addr(lines.collect::<String>().as_bytes(), &self.to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            told => {
                self.waiting.clear();
                told.map(drop)
            }
        }
    }
}

/// Takes over the listening TCP sockets that are this process's descriptors from 3 on. To be called once, before the
/// process has opened anything.
///
/// # Errors
/// The first of them that is none.
pub fn take_listening(count: usize) -> Result<Vec<BoundSocket>, NotListening> {
    let descriptors = (FIRST..).take(count);
    descriptors
        .map(|descriptor| {
            take_one(descriptor).map_err(|reason| NotListening { descriptor, reason })
        })
        .collect()
}

fn take_one(descriptor: RawFd) -> Result<BoundSocket, Reason> {
    #[allow(unsafe_code)]
    // SAFETY: it is only asked whether it is open, and this thread, the only one yet, closes nothing meanwhile.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    // It came without the flag, or it would not be here.
    match fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        Err(Errno::EBADF) => return Err(Reason::NotOpen),
        set => set.map_err(|errno| Reason::Refused(errno.into()))?,
    };
    #[allow(unsafe_code)]
    // SAFETY: it is open, as just seen, and was handed over to this process, in which nobody else knows of it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let socket = Socket::from(owned);
    let refused = |error: io::Error| match error.raw_os_error() {
        Some(nix::libc::ENOTSOCK) => Reason::NoSocket,
        _ => Reason::Refused(error),
    };
    if socket.r#type().map_err(refused)? != socket2::Type::STREAM
        || socket.local_addr().map_err(refused)?.as_socket().is_none()
    {
        return Err(Reason::NoTcp);
    }
    if !socket.is_listener().map_err(refused)? {
        return Err(Reason::NotListening);
    }
    socket::set_connection_options(&socket).map_err(refused)?;
    Ok(BoundSocket::from(socket))
}

/// The addresses of listening sockets.
///
/// # Errors
/// As the kernel says.
pub fn addresses(listening: &[BoundSocket]) -> io::Result<Vec<IpSocketAddr>> {
    listening.iter().map(BoundSocket::local_address).collect()
}

/// A descriptor that was handed over is no listening TCP socket.
#[derive(Debug)]
pub struct NotListening {
    /// Which.
    descriptor: RawFd,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    NotOpen,
    NoSocket,
    NoTcp,
    NotListening,
    Refused(io::Error),
}

impl fmt::Display for NotListening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {} ", self.descriptor)?;
        match &self.reason {
            Reason::NotOpen => f.write_str("is not open"),
            Reason::NoSocket => f.write_str("is no socket"),
            Reason::NoTcp => f.write_str("is a socket, but none of TCP"),
            Reason::NotListening => f.write_str("is a TCP socket that does not listen"),
            Reason::Refused(error) => write!(f, "cannot be used: {error}"),
        }
    }
}

impl std::error::Error for NotListening {}

#[cfg(test)]
mod tests {
    use super::*;

    /// An init system with an abstract name of this kind that nobody else has, and who tells it.
    fn pair(kind: &str) -> (UnixDatagram, Notifier) {
        let name = format!("pktxpmgr-test-{kind}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let init = UnixDatagram::bind_addr(&address).unwrap();
        init.set_nonblocking(true).unwrap();
        (init, Notifier::new(OsStr::new(&format!("@{name}"))).unwrap())
    }

    fn heard(init: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let len = init.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
    }

    #[test]
    fn each_state_is_told_in_the_words_of_the_protocol() {
        let (init, mut notifier) = pair("words");
        notifier.ready().unwrap();
        assert_eq!(heard(&init).unwrap(), "READY=1\n");
        notifier.status("well".into(), true).unwrap();
        assert_eq!(heard(&init).unwrap(), "STATUS=well\n");
        assert_eq!(heard(&init).unwrap(), "WATCHDOG=1\n");
        notifier.status("ill".into(), false).unwrap();
        notifier.stopping().unwrap();
        assert_eq!(heard(&init).unwrap(), "STATUS=ill\n");
        assert_eq!(heard(&init).unwrap(), "STOPPING=1\n");
        let before = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        notifier.reloading().unwrap();
        let told = heard(&init).unwrap();
        let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(time.parse::<u128>().unwrap() >= before.as_micros(), "{told}");
        assert_eq!(heard(&init), None);
    }

    #[test]
    fn what_finds_no_room_is_told_with_what_comes_next_and_only_its_last_state() {
        let (init, mut notifier) = pair("full");
        let mut told = 0;
        while notifier.waiting.is_empty() {
            notifier.status(told.to_string(), false).unwrap();
            told += 1;
        }
        notifier.status("later".into(), false).unwrap();
        notifier.ready().unwrap();
        while heard(&init).is_some() {}
        notifier.stopping().unwrap();
        assert_eq!(heard(&init).unwrap(), "STATUS=later\nREADY=1\nSTOPPING=1\n");
        assert_eq!(heard(&init), None);
    }

    #[test]
    fn an_init_system_that_is_gone_is_an_error_and_later_states_are_told_to_the_next_one() {
        let (init, mut notifier) = pair("gone");
        drop(init);
        assert!(notifier.ready().is_err());
        let (init, _) = pair("gone");
        notifier.stopping().unwrap();
        assert_eq!(heard(&init).unwrap(), "STOPPING=1\n");
        for bad in ["", "relative", "vsock:2:1"] {
            assert!(Notifier::new(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
