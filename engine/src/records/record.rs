//! What a record holds.
//!
//! Not here: what the session knows of itself (`proto/account.rs`), how it comes about (`recorder.rs`), and the line of JSON
//! (`json.rs`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::{BothWays, SessionLatency};
use crate::proto::account::{Account, Relayed};
use crate::proto::session_end::Outcome;
use crate::sys::recorder::RecordedOutput;
use crate::sys::supervisor::MletStatus;
use packetlab::time::Ticks;

/// Names a session for log lines, mlets and records; unique in a run.
pub(crate) type SessionId = u64;

/// A session, and the bytes of messages that it has relayed so far.
pub(crate) type RelayedBy = (SessionId, BothWays<u64>);

/// The bytes of what was relayed.
pub(crate) fn bytes_of(relayed: &Relayed) -> BothWays<u64> {
    let Relayed { to_endpoint, from_endpoint, .. } = relayed;
    BothWays { to_endpoint: to_endpoint.bytes, from_endpoint: from_endpoint.bytes }
}

/// How an endpoint came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// To our own listening socket: the peer is the endpoint.
    Direct,
    /// Through a connection of the backlog: the peer is the proxy.
    Proxy,
}

/// What whoever operates a run has asked for, and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// In words, as typed.
    pub(crate) words: String,
    /// How it came.
    pub(crate) via: &'static str,
    /// Whether it was done, and what is told of it.
    pub(crate) done: Result<String, String>,
}

/// Who came, how and when. Of a session past START its shard and its record share it, for idle sessions are counted in
/// bytes.
#[derive(Debug)]
pub(crate) struct SessionFacts {
    /// Its number.
    pub(crate) id: SessionId,
    /// CPU number of its shard.
    pub(crate) core: usize,
    /// The TCP peer.
    pub(crate) peer: SocketAddr,
    /// How its endpoint came.
    pub(crate) via: Via,
    /// When it was accepted. Of the backlog: when its endpoint came, or it was taken over if none has.
    pub(crate) accepted: Instant,
    /// The same by the wall clock.
    pub(crate) accepted_wall: Ticks,
    /// What the session itself tells of its set-up.
    pub(crate) account: Account,
}

/// A session whose sockets are closed.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Who came.
    pub(crate) facts: Arc<SessionFacts>,
    /// What was relayed.
    pub(crate) relayed: Relayed,
    /// How long that took; `None` if nothing of it was timed.
    pub(crate) latency: Option<Box<SessionLatency>>,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// When its sockets were closed.
    pub(crate) closed: Instant,
}

impl Ended {
    /// From accept to end.
    pub(crate) fn lasted(&self) -> Duration {
        self.closed.saturating_duration_since(self.facts.accepted)
    }
}

/// A mlet's part of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mlet {
    /// None was asked for: START was not answered, or no socket for the mlet could be made.
    None,
    /// Asked for.
    Asked,
    /// It runs, as this process, which leads a group of its own.
    Running(i32),
    /// Could not be started, for this reason.
    NotStarted(String),
    /// Ended after this time.
    Ended(MletStatus, Duration),
    /// One mlet serves all sessions: its end is not this session's affair.
    Shared,
    /// The same, but it took no more sessions.
    NotTaken,
    /// Its end is not known: the supervisor was lost, or has not told it by the end of the run.
    Lost,
}

impl Mlet {
    /// Its process, while that runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        match self {
            Self::Running(pid) => Some(*pid),
            _ => None,
        }
    }

    /// Its end is still to come.
    pub(super) fn may_run(&self) -> bool {
        matches!(self, Self::Asked | Self::Running(_))
    }
}

/// What a session has of a campaign that is shared with others; with the epoch of its endpoint, which is how often START was
/// permitted for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// There is none, or the session was not permitted START.
    None,
    /// It holds its endpoint, and its result is wanted.
    Held(u64),
    /// It has lost its endpoint before its record was complete.
    Lost(u64),
    /// Its result was refused.
    Refused(u64),
    /// Its record was not written, or its mlet's output not kept whole, so that there is no result.
    GivenUp(u64),
}

/// A session that is over in every respect. Its outcome of the closed list is in `outcome.rs`.
#[derive(Debug, Clone)]
pub(crate) struct SessionRecord {
    /// Who came.
    pub(crate) facts: Arc<SessionFacts>,
    /// Its end; `None` if its shard has not told it.
    pub(crate) end: Option<Box<Ended>>,
    /// What became of its mlet.
    pub(crate) mlet: Mlet,
    /// When that was started.
    pub(crate) mlet_spawned: Option<Instant>,
    /// What is known of what it wrote.
    pub(crate) output: Output,
    /// What it has of a campaign.
    pub(crate) claim: Claim,
}

/// What is known of what a mlet wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// It went where nobody counts it: to a file of the mlet's own, to our standard output, or nowhere.
    Uncounted,
    /// The recorder still reads it.
    Open,
    /// What the recorder has read of it, and kept.
    Recorded(RecordedOutput),
    /// It went to files of the mlet's own, whose file system was full when the mlet had ended: they may not be whole.
    Doubtful,
    /// It is lost.
    Lost,
}

impl Output {
    /// It is lost, or some of it, or may be.
    pub(crate) fn is_lost(self) -> bool {
        match self {
            Self::Doubtful | Self::Lost => true,
            Self::Recorded(output) => output.errno != 0,
            Self::Uncounted | Self::Open => false,
        }
    }
}

impl SessionRecord {
    /// How long each phase took that it went through, by its name:
    ///
    /// * `tls`: from accept to the end of the handshake
    /// * `programs`: from there until START was sent: programs, and the wait for a permit of `-n`
    /// * `start`: from there to its answer
    /// * `spawn`: from there until the mlet ran
    /// * `run`: the mlet's run
    /// * `total`: from accept until the sockets were closed
    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let Self { facts, end, mlet, mlet_spawned, .. } = self;
        let account = &facts.account;
        let between =
            |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        let run = match mlet {
            Mlet::Ended(_, run_time) => Some(*run_time),
            _ => None,
        };
        let phases = [
            ("tls", between(Some(facts.accepted), account.tls_done)),
            ("programs", between(account.tls_done, account.start_sent)),
            ("start", between(account.start_sent, account.start_answered)),
            ("spawn", between(account.start_answered, *mlet_spawned)),
            ("run", run),
            ("total", end.as_ref().map(|end| end.lasted())),
        ];
        phases.into_iter().filter_map(|(name, took)| Some((name, took?)))
    }

    /// As long as nothing is known of the mlet's start.
    pub(super) fn new(facts: Arc<SessionFacts>, end: Option<Box<Ended>>, mlet: Mlet) -> Self {
        Self { facts, end, mlet, mlet_spawned: None, output: Output::Uncounted, claim: Claim::None }
    }
}

/// What a shard has done in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardTotals {
    /// Its number.
    pub(crate) number: usize,
    /// Its CPU number.
    pub(crate) core: usize,
    /// How often it entered its ring.
    pub(crate) enters: u64,
    /// Sessions it began.
    pub(crate) sessions: u64,
}
