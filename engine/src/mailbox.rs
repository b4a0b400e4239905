//! All that passes between the control thread and the shards: messages, and the sessions they count.
//!
//! Queues are bounded. A shard never waits for room: what does not fit stays with it and goes out in a
//! later turn. Whoever sends rings the receiver's bell once for all messages of a turn.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::config::ExperimentId;
use crate::proto::session::MletFacts;
use crate::proto::session_end::Force;
use crate::records::{Ended, SessionFacts, SessionId, ShardTotals};
use crate::run_error::RunError;
use packetlab::key::KeyId;

/// Messages that wait in a queue; a shard keeps more by itself.
pub(crate) const QUEUE_LEN: usize = 1024;

/// A session's place on its shard, for answers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionPlace {
    /// The shard's number.
    pub(crate) shard: usize,
    /// Its slot there.
    pub(crate) slot: usize,
    /// Tells a later session in the same slot apart.
    pub(crate) id: SessionId,
}

/// In whose name a session waits for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// Its endpoint's key.
    Key(KeyId),
    /// Its endpoint has shown no certificate: its TCP peer.
    Address(IpAddr),
}

/// From the control thread to a shard.
#[derive(Debug)]
pub(crate) enum ToShard {
    /// Take over a connection that is registered at the proxy.
    Adopt(BacklogConnection),
    /// A permit for START has become free for this session.
    Permit(SessionPlace),
    /// This session's mlet was not started in time: it ends.
    MletLate(SessionPlace),
    /// Stop accepting, end sessions that have not sent START, and end when the others are over.
    Drain,
    /// End the running sessions as well, so that their mlets read the end; they are about to be ended.
    EndSessions(Force),
    /// Their mlets have ended, and the run with them: end whatever is left at once.
    RunOver(Force),
}

/// A connection registered at the proxy, on which an endpoint will come. It is counted as an open
/// session already.
#[derive(Debug)]
pub(crate) struct BacklogConnection {
    /// Nothing is under way on it. Whether it blocks is the driver's affair, which prepares it.
    pub(crate) socket: OwnedFd,
    /// The proxy.
    pub(crate) peer: SocketAddr,
    /// For which experiment.
    pub(crate) experiment: ExperimentId,
    /// What the endpoint has sent already.
    pub(crate) received: Vec<u8>,
}

/// From a shard to the control thread.
#[derive(Debug)]
pub(crate) enum FromShard {
    /// An endpoint has come on a connection of the backlog: its ClientHello is whole.
    BacklogTaken {
        /// For which experiment.
        experiment: ExperimentId,
    },
    /// A connection of the backlog ended before an endpoint came.
    BacklogLost {
        /// For which experiment.
        experiment: ExperimentId,
        /// What is known of it.
        ended: Box<Ended>,
    },
    /// Start a mlet with this socket as its fd 0.
    StartMlet {
        /// The session.
        place: SessionPlace,
        /// The mlet's end of the socket pair.
        socket: OwnedFd,
        /// What the mlet is told.
        facts: MletFacts,
        /// What its record begins with.
        session: Arc<SessionFacts>,
    },
    /// A session waits for a permit.
    PermitWanted(SessionPlace, Holder),
    /// A session has held its permit in vain, or waits for one no more.
    PermitFreed(SessionId),
    /// The endpoint of a session past START has gone while its mlet was there.
    EndpointGone {
        /// The session.
        id: SessionId,
        /// How. May hold text of the endpoint's.
        reason: String,
    },
    /// Nothing was relayed in a session for as long as that may be: it ends, and its mlet is to be ended.
    IdleTimeout(SessionId),
    /// A session is over: its sockets are closed.
    Ended(Box<Ended>),
    /// A connection was closed because too many of its source are in set-up.
    SourceRefused(IpAddr),
    /// Accepting failed for want of a resource and pauses.
    AcceptPaused(io::Error),
    /// A session past START is lost because no socket pair could be made for its mlet.
    NoSocketPair {
        /// The session.
        id: SessionId,
        /// Why not.
        error: io::Error,
    },
    /// The shard has its driver and can take connections.
    Ready,
    /// The shard could not begin.
    NotReady(RunError),
    /// The shard has ended; with an error it ended before its time and lost its sessions.
    Stopped(Result<ShardTotals, String>),
}

/// The sending side of a queue.
#[derive(Debug)]
pub(crate) struct Mailer<T> {
    sender: SyncSender<T>,
    bell: Arc<EventFd>,
    kept: VecDeque<T>,
    rang_for: usize,
}

/// The receiving side of a queue.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    receiver: Receiver<T>,
    bell: Arc<EventFd>,
}

/// A queue; clone the mailer for more senders.
///
/// # Errors
/// No eventfd can be made.
pub(crate) fn mailbox<T>() -> io::Result<(Mailer<T>, Inbox<T>)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    let (sender, receiver) = sync_channel(QUEUE_LEN);
    let inbox = Inbox { receiver, bell: Arc::clone(&bell) };
    Ok((Mailer { sender, bell, kept: VecDeque::new(), rang_for: 0 }, inbox))
}

impl<T> Clone for Mailer<T> {
    fn clone(&self) -> Self {
        let (sender, bell) = (self.sender.clone(), Arc::clone(&self.bell));
        Self { sender, bell, kept: VecDeque::new(), rang_for: 0 }
    }
}

impl<T> Mailer<T> {
    /// Queues a message; [`Self::flush`] sends it.
    pub(crate) fn push(&mut self, message: T) {
        self.kept.push_back(message);
    }

    /// Sends what the queue has room for and rings once. True when nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(message) = self.kept.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => self.rang_for += 1,
                Err(TrySendError::Full(message)) => {
                    self.kept.push_front(message);
                    break;
                }
                // The receiver has ended, and with it the run.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        if std::mem::take(&mut self.rang_for) > 0 {
            // It fails only when the bell has rung 2^64 times unheard.
            let _ = self.bell.write(1);
        }
        self.kept.is_empty()
    }
}

impl<T> Inbox<T> {
    /// The next message. Silence the bell first, so that none is missed.
    pub(crate) fn next(&self) -> Option<T> {
        // No sender left is as good as no message: the threads' ends are told by messages.
        self.receiver.try_recv().ok()
    }

    /// Rings the bell: there is more than was taken.
    pub(crate) fn ring(&self) {
        // It fails only when the bell has rung 2^64 times unheard.
        let _ = self.bell.write(1);
    }

    /// Makes the bell unreadable until it rings again.
    pub(crate) fn silence(&self) {
        // It fails only when the bell has not rung.
        let _ = self.bell.read();
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// What shards count together, which are open sessions, and whether attempts are counted (`-n`).
#[derive(Debug)]
pub(crate) struct Counts {
    attempts_max: Option<NonZeroU32>,
    sessions_max: usize,
    sessions: AtomicUsize,
}

impl Counts {
    /// Counts up to `sessions_max` open sessions. More than 2^32 - 1 attempts are as good as no limit.
    pub(crate) fn new(attempts_max: Option<NonZeroU64>, sessions_max: usize) -> Self {
        Self {
            attempts_max: attempts_max.and_then(|max| max.try_into().ok()),
            sessions_max,
            sessions: AtomicUsize::new(0),
        }
    }

    /// How many attempts the run may make; `None` is any number, so that START needs no permit.
    pub(crate) fn attempts_max(&self) -> Option<NonZeroU32> {
        self.attempts_max
    }

    /// Counts one more session as open, if there is room for it.
    pub(crate) fn open_session(&self) -> bool {
        let room = |sessions: usize| (sessions < self.sessions_max).then_some(sessions + 1);
        self.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// A session was closed.
    pub(crate) fn close_session(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_opened_up_to_the_limit_and_again_when_one_has_closed() {
        let counts = Counts::new(None, 2);
        assert!(counts.open_session());
        assert!(counts.open_session());
        assert!(!counts.open_session());
        counts.close_session();
        assert!(counts.open_session());
        assert!(!counts.open_session());
    }

    #[test]
    fn a_full_queue_keeps_messages_with_the_sender_in_order() {
        let (mut mailer, inbox) = mailbox().expect("an eventfd");
        for number in 0..QUEUE_LEN + 3 {
            mailer.push(number);
        }
        assert!(!mailer.flush(), "three do not fit");
        assert_eq!(inbox.next(), Some(0));
        assert!(!mailer.flush(), "two do not fit");
        for number in 1..QUEUE_LEN + 1 {
            assert_eq!(inbox.next(), Some(number));
        }
        assert!(mailer.flush());
        assert_eq!(inbox.next(), Some(QUEUE_LEN + 1));
        assert_eq!(inbox.next(), Some(QUEUE_LEN + 2));
        assert_eq!(inbox.next(), None);
    }
}
