//! The sessions of a mlet in singleton mode: they come over a socket on fd 0, each with the address of its endpoint, or
//! with all facts of it (spec/protocol.md 2.2, spec/pktxpmgr.md 7.6, behaviour.md "Singleton mode").
//!
//! Not here: what is done with them. Invariant: nothing is ever written to that socket, which the manager
//! would take for a fault.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use crate::endpoint::Endpoint;

/// The longest message: all facts, and its NUL.
const MESSAGE_LEN_MAX: usize = 255;

/// What a message is that tells of no endpoint.
const NO_ENDPOINT: &str = "something that is neither an address nor all facts of an endpoint";

/// Most descriptors that Linux lets one message carry (`SCM_MAX_FD`). With room for them all, some are missing only
/// when this process has too many open files.
const FDS_MAX: usize = 253;

/// Where the sessions come from.
#[derive(Debug)]
pub struct Sessions {
    control: UnixStream,
    /// The next session's, as far as it has come.
    message: Vec<u8>,
    session: Option<OwnedFd>,
    /// The session was sent, but this process had no room for it.
    is_lost: bool,
}

/// Why no more sessions come, other than that there are no more.
#[derive(Debug)]
pub enum SingletonError {
    /// Fd 0 is no control socket, or it broke.
    Io(io::Error),
    /// This process was started for one endpoint, and fd 0 is the session with it.
    NotSingleton,
    /// This process has too many open files to take the session; end some. Others may follow.
    TooManyFiles,
    /// The manager broke the rules; how.
    Unexpected(&'static str),
}

impl fmt::Display for SingletonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => {
                write!(f, "fd 0 brings no sessions: {cause}; start this mlet with pktxpmgr -s")
            }
            Self::NotSingleton => f.write_str(
                "this mlet serves all endpoints from one process: start pktxpmgr with -s",
            ),
            Self::TooManyFiles => {
                f.write_str("a session was lost: too many open files (raise `ulimit -n`)")
            }
            Self::Unexpected(what) => write!(f, "the manager sent {what}"),
        }
    }
}

impl std::error::Error for SingletonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(cause) => Some(cause),
            _ => None,
        }
    }
}

impl Sessions {
    /// Those that come over fd 0.
    ///
    /// # Errors
    /// Fd 0 is not open, or `EPADDR` tells that it is the session with one endpoint.
    pub fn on_stdin() -> Result<Self, SingletonError> {
        if std::env::var_os("EPADDR").is_some() {
            return Err(SingletonError::NotSingleton);
        }
        let fd = io::stdin().as_fd().try_clone_to_owned().map_err(SingletonError::Io)?;
        Ok(Self::new(UnixStream::from(fd)))
    }

    /// Those that come over `control`.
    #[must_use]
    pub fn new(control: UnixStream) -> Self {
        Self { control, message: Vec::new(), session: None, is_lost: false }
    }

    /// Waits for the next session; with its endpoint, of which the manager tells the address alone unless it was started
    /// with `--single-facts`.
    /// `None` when the manager has no more.
    ///
    /// # Errors
    /// See [`SingletonError`].
    #[expect(clippy::should_implement_trait, reason = "a for loop would hide the errors")]
    pub fn next(&mut self) -> Result<Option<(UnixStream, Endpoint)>, SingletonError> {
        loop {
            self.wait()?;
            let mut bytes = [0; MESSAGE_LEN_MAX];
            let Some(len) = self.receive(&mut bytes)? else { continue };
            if len == 0 {
                return match (self.message.is_empty(), &self.session) {
                    (true, None) => Ok(None),
                    _ => Err(SingletonError::Unexpected("half a session and left")),
                };
            }
            self.message.extend_from_slice(bytes.get(..len).unwrap_or_default());
            if let Some((0, message)) = self.message.split_last() {
                let endpoint = Endpoint::of_message(&String::from_utf8_lossy(message));
                self.message.clear();
                if std::mem::take(&mut self.is_lost) {
                    self.session = None;
                    return Err(SingletonError::TooManyFiles);
                }
                let session = self.session.take();
                let session = session.ok_or(SingletonError::Unexpected("no session"))?;
                let endpoint = endpoint.ok_or(SingletonError::Unexpected(NO_ENDPOINT))?;
                return Ok(Some((UnixStream::from(session), endpoint)));
            }
            if self.message.len() >= MESSAGE_LEN_MAX {
                return Err(SingletonError::Unexpected(NO_ENDPOINT));
            }
        }
    }

    fn wait(&self) -> Result<(), SingletonError> {
        let mut fds = [PollFd::new(&self.control, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(SingletonError::Io(errno.into())),
        }
    }

    /// Takes what is there: the session, and so many bytes of its message; none at the end, `None` if nothing has come.
    fn receive(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, SingletonError> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut passed = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        // Every record carries an fd, so that one read never brings bytes of two records.
        let received = recvmsg(&self.control, &mut [IoSliceMut::new(bytes)], &mut passed, flags);
        let received = match received {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(SingletonError::Io(errno.into())),
        };
        self.is_lost |= received.flags.contains(ReturnFlags::CTRUNC);
        for message in passed.drain() {
            let RecvAncillaryMessage::ScmRights(fds) = message else { continue };
            for fd in fds {
                if self.session.replace(fd).is_some() {
                    return Err(SingletonError::Unexpected("two sessions with one message"));
                }
            }
        }
        Ok(Some(received.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::scripted_manager::hand_over;

    fn pair() -> (Sessions, UnixStream) {
        let (control, manager) = UnixStream::pair().unwrap();
        (Sessions::new(control), manager)
    }

    #[test]
    fn sessions_come_in_order_with_what_is_told_of_them() {
        let (mut sessions, manager) = pair();
        let mut first = hand_over(&manager, b"127.0.0.1\0");
        let _second = hand_over(&manager, b"\0");
        let _third = hand_over(&manager, b"127.0.0.3 41 abcd hello\0");
        let (mut session, endpoint) = sessions.next().unwrap().unwrap();
        assert_eq!((&*endpoint.address, endpoint.session), ("127.0.0.1", None));
        first.write_all(b"x").unwrap();
        session.read_exact(&mut [0]).unwrap();
        assert_eq!(sessions.next().unwrap().unwrap().1, Endpoint::default());
        let (_, endpoint) = sessions.next().unwrap().unwrap();
        assert_eq!((endpoint.key.as_deref(), endpoint.session), (Some("abcd"), Some(41)));
        assert_eq!((&*endpoint.address, endpoint.snikey.as_deref()), ("127.0.0.3", Some("hello")));
        drop(manager);
        assert!(sessions.next().unwrap().is_none());
    }

    #[test]
    fn a_message_may_come_in_pieces() {
        let (mut sessions, mut manager) = pair();
        let _session = hand_over(&manager, b"2001:db8:");
        manager.write_all(b":1\0").unwrap();
        assert_eq!(sessions.next().unwrap().unwrap().1.address, "2001:db8::1");
    }

    #[test]
    fn what_breaks_the_rules_is_an_error() {
        let (mut sessions, manager) = pair();
        let _one = hand_over(&manager, b"1");
        let _two = hand_over(&manager, b"2\0");
        assert!(matches!(sessions.next(), Err(SingletonError::Unexpected(_))));
        let (mut sessions, mut manager) = pair();
        manager.write_all(b"127.0.0.1\0").unwrap();
        assert!(matches!(sessions.next(), Err(SingletonError::Unexpected("no session"))));
        let (mut sessions, manager) = pair();
        let _session = hand_over(&manager, &[b'1'; MESSAGE_LEN_MAX]);
        assert!(matches!(sessions.next(), Err(SingletonError::Unexpected(NO_ENDPOINT))));
        let (mut sessions, manager) = pair();
        let _session = hand_over(&manager, b"127.0.0.1 and more\0");
        assert!(matches!(sessions.next(), Err(SingletonError::Unexpected(NO_ENDPOINT))));
        let (mut sessions, manager) = pair();
        let _session = hand_over(&manager, b"127");
        drop(manager);
        assert!(matches!(sessions.next(), Err(SingletonError::Unexpected(_))));
    }
}
