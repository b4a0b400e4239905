//! A whole run at one time.
//!
//! Not here: where its numbers are counted (`run_view.rs`). Counts only grow; a rate is the difference of two snapshots.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use packetlab::time::Ticks;

use crate::metrics::{BothWays, RelayTimes};
use crate::permits::CampaignSums;
use crate::records::Summary;

/// A whole run at one time.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// How long the run has lasted.
    pub lasted: Duration,
    /// How far it is.
    pub stage: RunStage,
    /// Until when experiments are published; `None` is without end, or not known before the first publication.
    pub publication_end: Option<Ticks>,
    /// How it stands with each broker, in the order of the config file; none where nothing is published.
    pub brokers: Vec<BrokerState>,
    /// How it stands with each proxy, in the order of `-a`; none where endpoints come to us.
    pub proxies: Vec<ProxyState>,
    /// What it is to come to, if that was said.
    pub goal: Option<Goal>,
    /// How the campaign stands, where the run shares one.
    pub campaign: Option<CampaignSums>,
    /// What of the run the campaign is still to hear, and whether it can.
    pub reporting: Reporting,
    /// Sessions and connections that are not over.
    pub sessions: SessionsByPhase,
    /// Places of sessions, which registered connections take too.
    pub places: Places,
    /// Mlets that may still run.
    pub mlets: u64,
    /// Mlets whose output is still read, though they may have ended.
    pub open_outputs: u64,
    /// Sums over what is over.
    pub summary: Summary,
    /// Bytes of messages that were relayed, of running sessions too.
    pub bytes: BothWays<u64>,
    /// Messages that were relayed.
    pub messages: BothWays<u64>,
    /// How long the relay took, where that is timed.
    pub relay: BothWays<Option<RelayTimes>>,
    /// How often accepting paused for want of a resource, by what was lacking.
    pub accept_pauses: BTreeMap<&'static str, u64>,
    /// What was to be told and is not.
    pub lost: Losses,
    /// Open files of this process.
    pub files: Files,
    /// Each shard.
    pub cores: Vec<CoreState>,
    /// When the certificates that a run shows end, the nearest of each kind, by what they are shown to.
    pub certificates: BTreeMap<&'static str, Ticks>,
    /// Reloads so far.
    pub reloads: Reloads,
}

/// How it stands with a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerState {
    /// As it is named in the config file.
    pub name: String,
    /// What is published there.
    pub stage: BrokerStage,
}

/// What is published at a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerStage {
    /// Nothing, or no more: it is tried, and tried again.
    NotPublished,
    /// Everything, or what a reload has changed is not there yet and what was before is.
    Published,
    /// Nothing any more, as the publication has come to its end.
    Over,
}

/// In words, for the log.
impl fmt::Display for BrokerStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPublished => "not published",
            Self::Published => "published",
            Self::Over => "over",
        })
    }
}

/// How it stands with a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyState {
    /// As `-a` names it.
    pub name: String,
    /// The last connection that was tried is registered; false if it could not be, or none has been yet.
    pub registers: bool,
    /// Connections that wait there for their endpoints.
    pub registered: usize,
    /// How many there should be.
    pub wanted: usize,
}

/// In words, for the log.
impl fmt::Display for ProxyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} connections are registered", self.registered, self.wanted)?;
        f.write_str(if self.registers { "" } else { ", and none can be had at present" })
    }
}

/// How often the configuration was read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloads {
    /// And put into effect.
    pub done: u64,
    /// And refused, so that everything stayed as it was.
    pub refused: u64,
    /// When the one that is in effect was read: at the last that was done, or before the run.
    pub read_at: Ticks,
    /// For how long files have been read for one that is under way.
    pub reading: Option<Duration>,
}

impl Snapshot {
    /// Sessions and connections that are over.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.summary.outcomes.values().sum()
    }

    /// At how many brokers it stands so.
    #[must_use]
    pub fn brokers_at(&self, stage: BrokerStage) -> usize {
        self.brokers.iter().filter(|broker| broker.stage == stage).count()
    }

    /// So many sessions are there, and so many may be, where no more may. Connections that wait at a proxy have a place for
    /// an endpoint that comes.
    #[must_use]
    pub fn full(&self) -> Option<(usize, usize)> {
        let Places { taken, max } = self.places;
        let sessions = taken.saturating_sub(self.sessions.backlog as usize);
        (max > 0 && sessions >= max).then_some((sessions, max))
    }

    /// Endpoints can be served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.stage == RunStage::Serving && self.reporting.silent.is_none()
    }
}

/// What of a run its campaign is still to hear, and whether it can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reporting {
    /// Results of sessions that are over, which the campaign has neither accepted nor refused yet. No other sum counts them.
    pub results_waiting: u64,
    /// For how long the database of the campaign has not answered, if it does not: nothing begins.
    pub silent: Option<Duration>,
    /// How long ago it was told how the campaign stands.
    pub told_ago: Option<Duration>,
}

/// Places of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places {
    /// Those that are taken; where the limit was lowered these may be more than there are.
    pub taken: usize,
    /// How many there are; 0 before the run knows.
    pub max: usize,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunStage {
    /// Endpoints cannot be served yet.
    #[default]
    Starting,
    /// Endpoints are served.
    Serving,
    /// There are no new endpoints.
    Draining,
    /// What runs is being ended by force.
    Forced,
    /// Nothing runs any more.
    Over,
}

/// In words, for the log.
impl fmt::Display for RunStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Serving => "running",
            Self::Draining => "no new endpoints, waiting for what runs",
            Self::Forced => "being ended by force",
            Self::Over => "over",
        })
    }
}

/// So many sessions are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    /// How many: of `-n` all that come to START, of `--require` those that are `ok`, of a campaign its endpoints.
    pub wanted: u64,
    /// Of these, how many are over.
    pub done: u64,
    /// It is the campaign's.
    pub is_of_campaign: bool,
}

/// Sessions and connections that are not over, by how far they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionsByPhase {
    /// Connections that were accepted and wait for a place in set-up.
    pub waiting: u64,
    /// Connections that wait at a proxy for their endpoints.
    pub backlog: u64,
    /// Connections whose TLS handshake is not over.
    pub handshake: u64,
    /// From there to the answer to START: programs, permit, START.
    pub greeting: u64,
    /// Past START, until the record is complete.
    pub running: u64,
    /// Their set-up has failed, and they are not closed yet.
    pub closing: u64,
}

impl SessionsByPhase {
    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("waiting", self.waiting),
            ("backlog", self.backlog),
            ("handshake", self.handshake),
            ("greeting", self.greeting),
            ("running", self.running),
            ("closing", self.closing),
        ]
    }
}

/// What was to be told and is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records that are not in a file of theirs.
    pub records: u64,
    /// Lines of the log that nobody read in time.
    pub log_lines: u64,
    /// LINFOs of endpoints that came too fast to be logged.
    pub linfos: u64,
}

/// Open files of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Files {
    /// How many are open; `None` where `/proc` cannot be read.
    pub open: Option<u64>,
    /// How many may be.
    pub limit: u64,
}

/// A shard.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CoreState {
    /// The CPU number of its core.
    pub core: usize,
    /// Processor time that its thread has had.
    pub busy: Duration,
    /// Which share of the last second or more it has worked: since a snapshot that is at least a second old.
    pub busy_ratio: f64,
    /// How long it has spent on costly steps of handshakes.
    pub handshakes: Duration,
    /// How long it has made no turn, if it stands still.
    pub stalled: Option<Duration>,
    /// Completions that were lost because its ring had no room.
    pub ring_overflows: u64,
    /// Receives that found no buffer, and came again later.
    pub no_buffers: u64,
}
