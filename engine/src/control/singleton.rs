//! Whose the mlets of a run are; the one of singleton mode, and the sessions handed to it (spec/pktxpmgr.md 7.6).
//!
//! For each session one message goes out on the control socket: the peer's address as text, with `--single-facts` more
//! of who it is, a NUL, and the session's socket. First come, first served. The mlet sends nothing back: its end of the
//! control socket ends the run, and a byte on it is an error.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use crate::config::SingletonForm;
use crate::mailbox::SessionPlace;
use crate::proto::mlet_facts::MletFacts;
use crate::records::SessionId;
use crate::sys::fd_passing;
use crate::sys::supervisor::Flushed;
use crate::sys::watch::Watched;

/// Whose the mlets of a run are.
pub(super) enum Mlets {
    /// Each session has one of its own.
    OfEachSession {
        /// Sessions whose mlet was asked for, and until when it is waited for; some of them may have it.
        awaited: VecDeque<(Instant, SessionPlace)>,
    },
    /// One serves all sessions, also those that start when it is gone: singleton mode.
    OfAllSessions {
        /// `None` once it is closed.
        control_socket: Option<Watched<ControlSocket>>,
        /// Its process and when it was started, until it has ended.
        runs: Option<(i32, Instant)>,
    },
}

impl Mlets {
    /// Of singleton mode, as long as it is open.
    pub(super) fn control_socket(&self) -> Option<&Watched<ControlSocket>> {
        match self {
            Self::OfEachSession { .. } => None,
            Self::OfAllSessions { control_socket, .. } => control_socket.as_ref(),
        }
    }

    /// The one mlet of singleton mode has not ended.
    pub(super) fn singleton_runs(&self) -> bool {
        self.singleton().is_some()
    }

    /// Its process and when it was started, while it runs.
    pub(super) fn singleton(&self) -> Option<(i32, Instant)> {
        match self {
            Self::OfAllSessions { runs, .. } => *runs,
            Self::OfEachSession { .. } => None,
        }
    }

    /// It has ended.
    pub(super) fn handle_singleton_end(&mut self) {
        if let Self::OfAllSessions { runs, .. } = self {
            *runs = None;
        }
    }
}

/// What the mlet did on its control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Nothing,
    /// It closed: it wants no more sessions.
    Closed,
    /// It wrote something, which it must not.
    Bytes,
}

/// Our end of the control socket, and the sessions that wait for room in it.
#[derive(Debug)]
pub(super) struct ControlSocket {
    socket: OwnedFd,
    form: SingletonForm,
    waiting: VecDeque<WaitingSession>,
    /// Those that the mlet will not take.
    not_taken: Vec<SessionId>,
}

/// A session that waits for room, or a part of its message.
#[derive(Debug)]
struct WaitingSession {
    id: SessionId,
    text: Vec<u8>,
    /// `None` once it has left.
    session: Option<OwnedFd>,
}

impl ControlSocket {
    /// Tells the mlet of sessions in this form.
    pub(super) fn new(socket: OwnedFd, form: SingletonForm) -> Self {
        Self { socket, form, waiting: VecDeque::new(), not_taken: Vec::new() }
    }

    /// Queues a session for the mlet.
    pub(super) fn push(&mut self, id: SessionId, facts: &MletFacts, session: OwnedFd) {
        let text = message(self.form, id, facts).into_bytes();
        self.waiting.push_back(WaitingSession { id, text, session: Some(session) });
    }

    /// Sessions wait for room.
    pub(super) fn wants_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Closes the sockets of those that wait: their sessions end.
    fn give_up(&mut self) {
        let waiting = self.waiting.drain(..).filter(|waiting| waiting.session.is_some());
        self.not_taken.extend(waiting.map(|waiting| waiting.id));
    }

    /// The sessions that the mlet did not take because it is gone. Each is told once.
    pub(super) fn take_not_taken(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.not_taken)
    }

    /// Closes the control socket. The sessions that the mlet has not taken.
    pub(super) fn close(mut self) -> Vec<SessionId> {
        self.give_up();
        self.not_taken
    }

    /// Hands over what there is room for. Nothing is left when the mlet is gone.
    pub(super) fn flush(&mut self) -> Flushed {
        while let Some(WaitingSession { text, session, .. }) = self.waiting.front_mut() {
            match fd_passing::send(self.socket.as_fd(), text, session.as_slice()) {
                Ok(sent) => {
                    // The socket goes with the first byte; what is left of the text follows alone.
                    *session = None;
                    text.drain(..sent);
                    if text.is_empty() {
                        self.waiting.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Flushed::WhenWritable;
                }
                Err(error) if fd_passing::is_later(&error) => return Flushed::AfterPause,
                // The mlet is gone, which its end of the socket tells as well: no session waits on.
                Err(_) => self.give_up(),
            }
        }
        Flushed::All
    }

    /// What the mlet did. Never blocks.
    pub(super) fn listen(&self) -> Heard {
        let mut byte = [0];
        match fd_passing::receive(self.socket.as_fd(), &mut byte) {
            Ok(received) if received.len == 0 => Heard::Closed,
            Ok(_) => Heard::Bytes,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Heard::Closed,
            Err(_) => Heard::Nothing,
        }
    }
}

/// What goes with a session's socket (behaviour.md "Singleton mode"): at most 255 bytes, since an address has up to 45, a
/// number 20, a key 64 and a snikey 63.
fn message(form: SingletonForm, id: SessionId, facts: &MletFacts) -> String {
    let MletFacts { peer, endpoint_key, snikey } = facts;
    match form {
        SingletonForm::Address => format!("{peer}\0"),
        SingletonForm::Facts => {
            let key = endpoint_key.map_or_else(|| "-".to_owned(), |key| key.to_string());
            format!("{peer} {id} {key} {snikey}\0")
        }
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use packetlab::key::KeyId;
    use packetlab::snikey::SniKey;

    use super::*;

    #[test]
    fn a_session_is_told_by_its_address_or_by_all_facts_in_255_bytes_at_most() {
        let told = |form, id, facts| message(form, id, &facts);
        let facts = |peer: &str, endpoint_key, snikey: &str| MletFacts {
            peer: peer.parse().unwrap(),
            endpoint_key,
            snikey: SniKey::parse(snikey).unwrap(),
        };
        let keyless = || facts("::ffff:192.0.2.1", None, "open");
        assert_eq!(told(SingletonForm::Address, 7, keyless()), "::ffff:192.0.2.1\0");
        assert_eq!(told(SingletonForm::Facts, 7, keyless()), "::ffff:192.0.2.1 7 - open\0");
        let peer = "1111:2222:3333:4444:5555:6666:7777:8888";
        let long = facts(peer, Some(KeyId([0xab; 32])), &"s".repeat(63));
        let (key, snikey) = ("ab".repeat(32), "s".repeat(63));
        let expected = format!("{peer} {} {key} {snikey}\0", u64::MAX);
        let message = told(SingletonForm::Facts, u64::MAX, long);
        assert_eq!(message, expected);
        assert!(message.len() <= 255, "{}", message.len());
    }
}
