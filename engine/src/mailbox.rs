//! All that passes between the control thread and the shards: messages, and the sessions they count.
//!
//! Queues are bounded. A shard never waits for room: what does not fit stays with it and goes out in a
//! later turn. Whoever sends rings the receiver's bell once for all messages of a turn; for messages that may wait it rings
//! at most once in a [`BELL_INTERVAL`], since waking a thread costs more than most of what it is told.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::metrics::SessionPlaces;
use crate::permits::{Holder, Refusal};
use crate::proto::experiments::Experiments;
use crate::proto::mlet_facts::MletFacts;
use crate::proto::session_end::Force;
use crate::records::{Ended, RelayedBy, SessionFacts, SessionId, ShardTotals};
use crate::run_error::RunError;
use crate::sys::mlet_ends::MletEnds;
use packetlab::snikey::SniKey;

/// Messages that wait in a queue; a shard keeps more by itself.
pub(crate) const QUEUE_LEN: usize = 1024;

/// So long a message that may wait waits at most, where others were told of shortly before.
pub(crate) const BELL_INTERVAL: Duration = Duration::from_millis(5);

/// What is heard of a receiver that is gone.
const GONE: u64 = u64::MAX;

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

/// From the control thread to a shard.
pub(crate) enum ToShard {
    /// Take over a connection that is registered at the proxy.
    Adopt(BacklogConnection),
    /// A reload: endpoints that have sent nothing yet, and those to come, get these.
    Reload(Arc<Experiments>),
    /// A permit for START has become free for this session.
    Permit(SessionPlace),
    /// This session gets none, and ends before START.
    Refused(SessionPlace, Refusal),
    /// Permits that were given hold no more: end the sessions that have one, so that their mlets read the end. Others go on.
    Fence,
    /// Connections that are registered at a proxy are to be let go where no endpoint has come yet: others get theirs.
    LeaveProxies,
    /// The time of those that were ended for lack of a permit is over: what is still on its way is not waited for.
    FenceOver,
    /// This session's mlet was not started in time: it ends.
    MletLate(SessionPlace),
    /// Tell what each session past START has relayed.
    TellRelayed,
    /// Stop accepting, end sessions that have not sent START, and end when the others are over.
    Drain,
    /// End this session, so that its mlet reads the end.
    EndSession(SessionId, Force),
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
    /// Where it is registered.
    pub(crate) registration: Registration,
    /// What the endpoint has sent already.
    pub(crate) received: Vec<u8>,
}

/// Where a connection of the backlog is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// Which proxy, as `-a` numbers them from 0.
    pub(crate) proxy: usize,
    /// Under which snikey.
    pub(crate) snikey: SniKey,
}

/// From a shard to the control thread.
#[derive(Debug)]
pub(crate) enum FromShard {
    /// An endpoint has come on a connection of the backlog: its ClientHello is whole.
    BacklogTaken(Registration),
    /// A connection of the backlog ended before an endpoint came.
    BacklogLost {
        /// Where it was registered.
        registration: Registration,
        /// What is known of it.
        ended: Box<Ended>,
    },
    /// The START of a session has succeeded. Its mlet is asked for next: with [`Self::StartMlet`], or the supervisor was
    /// asked already.
    Served {
        /// The session.
        place: SessionPlace,
        /// What its record begins with.
        session: Arc<SessionFacts>,
    },
    /// Start a mlet that has these ends.
    StartMlet {
        /// The session.
        id: SessionId,
        /// Its socket, and the pipes that it is offered.
        ends: MletEnds,
        /// What the mlet is told.
        facts: MletFacts,
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
    /// What each session past START has relayed so far, as was asked for.
    Relayed {
        /// The shard's number.
        shard: usize,
        /// In no order.
        sessions: Vec<RelayedBy>,
    },
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
    /// No pipes could be made for a session's mlet, which has its socket alone.
    NoPipes {
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
    heard: Arc<AtomicU64>,
    kept: VecDeque<T>,
    /// Messages in the queue for which the bell has not rung.
    unheard: usize,
    /// Something that was sent cannot wait.
    is_urgent: bool,
    /// Since when the bell may ring for messages that can wait.
    may_ring: Option<Instant>,
}

/// The receiving side of a queue.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    receiver: Receiver<T>,
    bell: Arc<EventFd>,
    /// How often the bell was silenced.
    heard: Arc<AtomicU64>,
}

/// A queue; clone the mailer for more senders.
///
/// # Errors
/// No eventfd can be made.
pub(crate) fn mailbox<T>() -> io::Result<(Mailer<T>, Inbox<T>)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    let (sender, receiver) = sync_channel(QUEUE_LEN);
    let heard = Arc::new(AtomicU64::new(0));
    let inbox = Inbox { receiver, bell: Arc::clone(&bell), heard: Arc::clone(&heard) };
    Ok((Mailer::new(sender, bell, heard), inbox))
}

impl<T> Clone for Mailer<T> {
    fn clone(&self) -> Self {
        Self::new(self.sender.clone(), Arc::clone(&self.bell), Arc::clone(&self.heard))
    }
}

impl<T> Mailer<T> {
    fn new(sender: SyncSender<T>, bell: Arc<EventFd>, heard: Arc<AtomicU64>) -> Self {
        let kept = VecDeque::new();
        Self { sender, bell, heard, kept, unheard: 0, is_urgent: false, may_ring: None }
    }

    /// Queues a message; [`Self::flush`] sends it.
    pub(crate) fn push(&mut self, message: T) {
        self.kept.push_back(message);
        self.is_urgent = true;
    }

    /// Queues a message that may wait for a [`BELL_INTERVAL`].
    pub(crate) fn push_unhurried(&mut self, message: T) {
        self.kept.push_back(message);
    }

    /// Sends what the queue has room for and rings once. True when nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        let is_all = self.send();
        self.ring();
        is_all
    }

    /// The same at the time `now`, but rings only for what cannot wait any longer; [`Self::ring_due`] tells when to flush
    /// again.
    pub(crate) fn flush_unhurried(&mut self, now: Instant) -> bool {
        let is_all = self.send();
        let may_ring = self.may_ring.is_none_or(|may_ring| may_ring <= now);
        if self.unheard > 0 && (self.is_urgent || !is_all || may_ring) {
            self.may_ring = Some(now + BELL_INTERVAL);
            self.ring();
        }
        is_all
    }

    /// When the bell is to ring for what was sent.
    pub(crate) fn ring_due(&self) -> Option<Instant> {
        self.may_ring.filter(|_| self.unheard > 0)
    }

    /// Sends what the queue has room for, and leaves the bell alone. True when nothing is left.
    pub(crate) fn send(&mut self) -> bool {
        while let Some(message) = self.kept.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => self.unheard += 1,
                Err(TrySendError::Full(message)) => {
                    self.kept.push_front(message);
                    break;
                }
                // The receiver has ended, and with it the run.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        self.kept.is_empty()
    }

    fn ring(&mut self) {
        self.is_urgent &= !self.kept.is_empty();
        if std::mem::take(&mut self.unheard) > 0 {
            // It fails only when the bell has rung 2^64 times unheard.
            let _ = self.bell.write(1);
        }
    }

    /// Rings the bell, though there may be no message.
    pub(crate) fn wake(&self) {
        // It fails only when the bell has rung 2^64 times unheard.
        let _ = self.bell.write(1);
    }

    /// A number that changes whenever the receiver has heard the bell, and when it is gone.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// The receiver is gone, and takes no message any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.heard() == GONE
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
        self.heard.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.heard.store(GONE, Ordering::Relaxed);
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Who permits START.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Nobody has to.
    Unneeded,
    /// This run.
    OfRun,
    /// Others, who hear of it on their own time: what is asked of them may wait.
    OfOthers,
}

impl Permission {
    /// Of others where there are any, else of the run if it counts.
    pub(crate) fn of(has_others: bool, counts: bool) -> Self {
        match (has_others, counts) {
            (true, _) => Self::OfOthers,
            (false, true) => Self::OfRun,
            (false, false) => Self::Unneeded,
        }
    }
}

/// What shards count together, which are open sessions, and who permits START.
#[derive(Debug)]
pub(crate) struct Counts {
    permission: Permission,
    places: Arc<SessionPlaces>,
}

impl Counts {
    /// Counts up to `sessions_max` open sessions.
    pub(crate) fn new(permission: Permission, sessions_max: usize) -> Self {
        Self { permission, places: Arc::new(SessionPlaces::new(sessions_max)) }
    }

    /// Whether START needs a permit, for which the control thread is asked, and of whom.
    pub(crate) fn permission(&self) -> Permission {
        self.permission
    }

    /// Where open sessions are counted, up to a limit that may change.
    pub(crate) fn places(&self) -> &Arc<SessionPlaces> {
        &self.places
    }

    /// Counts one more session as open, if there is room for it.
    pub(crate) fn open_session(&self) -> bool {
        self.places.take()
    }

    /// A session was closed.
    pub(crate) fn close_session(&self) {
        self.places.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_opened_up_to_the_limit_and_again_when_one_has_closed() {
        let counts = Counts::new(Permission::Unneeded, 2);
        assert!(counts.open_session());
        assert!(counts.open_session());
        assert!(!counts.open_session());
        counts.close_session();
        assert!(counts.open_session());
        assert!(!counts.open_session());
        counts.places().set_max(3);
        assert!(counts.open_session());
        counts.places().set_max(1);
        counts.close_session();
        assert!(!counts.open_session(), "two are still open");
    }

    #[test]
    fn the_bell_rings_at_once_for_what_is_urgent_and_once_in_an_interval_for_the_rest() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
        let start = Instant::now();
        let (mut mailer, inbox) = mailbox().expect("an eventfd");
        let rings = |mailer: &mut Mailer<u8>, after: Duration| {
            assert!(mailer.flush_unhurried(start + after));
            inbox.bell.read().is_ok()
        };
        mailer.push_unhurried(1);
        assert!(rings(&mut mailer, Duration::ZERO), "none was told of shortly before");
        assert_eq!(mailer.ring_due(), None);
        mailer.push_unhurried(2);
        assert!(!rings(&mut mailer, Duration::from_millis(1)));
        assert_eq!(inbox.next(), Some(1));
        assert_eq!(inbox.next(), Some(2), "whoever looks finds it");
        assert_eq!(mailer.ring_due(), Some(start + BELL_INTERVAL));
        assert!(rings(&mut mailer, BELL_INTERVAL), "the receiver may not have looked");
        mailer.push_unhurried(3);
        mailer.push(4);
        mailer.push_unhurried(5);
        assert!(rings(&mut mailer, BELL_INTERVAL), "the fourth is urgent");
        mailer.push_unhurried(6);
        assert!(!rings(&mut mailer, BELL_INTERVAL), "the sixth is not");
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
