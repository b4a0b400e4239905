//! All that passes between the control thread and the shards: messages, and the sessions they count.
//!
//! Not here: how messages pass (`mailbox/queue.rs`).

mod queue;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::metrics::SessionPlaces;
use crate::permits::{Holder, Refusal};
use crate::proto::experiments::Experiments;
use crate::proto::mlet_facts::MletFacts;
use crate::proto::session_end::Force;
use crate::records::{Ended, RelayedBy, SessionFacts, SessionId, ShardTotals};
use crate::run_error::RunError;
use crate::sys::mlet_ends::MletEnds;
use packetlab::snikey::SniKey;

pub(crate) use self::queue::{Inbox, Mailer, QUEUE_LEN, mailbox};

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

/// Readable while the bell rings.
impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell().as_fd()
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
}
