//! A record as a line of JSON: an object, members of which are only ever added.
//!
//! Not here: where it is written (`journal.rs`). Durations are milliseconds with three decimals, `null` for a phase that
//! was not reached; times are UTC. The form is described by `docs/events.schema.json`, which the tests hold lines to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::outcome::OutcomeKind;
use super::record::{Claim, Command, Mlet, SessionRecord, ShardTotals, Via};
use super::results_folder::SessionOutput;
use crate::config::RunId;
use crate::metrics::{self, Spread};
use crate::proto::account::{Flow, Relayed};
use crate::sys::supervisor::MletStatus;
use packetlab::time::Ticks;

/// Of the form of lines; another number for whoever reads them is another meaning.
const VERSION: u8 = 1;

/// Of a session, as [`SessionRecord::phases`] names them.
const PHASES: [&str; 6] = ["tls", "programs", "start", "spawn", "run", "total"];

/// Every line.
#[derive(Serialize)]
struct Line<'a, T> {
    v: u8,
    t: String,
    ev: &'static str,
    run: &'a str,
    #[serde(flatten)]
    what: T,
}

#[derive(Serialize)]
struct RunStartMembers {
    program: &'static str,
}

#[derive(Serialize)]
struct SessionMembers<'a> {
    sid: u64,
    core: usize,
    ep: EndpointMembers<'a>,
    accepted: String,
    outcome: OutcomeKind,
    failed: bool,
    reason: Option<String>,
    exit: Option<i32>,
    signal: Option<i32>,
    ms: BTreeMap<&'static str, Option<f64>>,
    bytes: BothWays,
    msgs: BothWays,
    linfos_lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    crashed_monitor: Option<u16>,
    output: Option<&'a SessionOutput>,
    relay_us: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
}

#[derive(Serialize)]
struct EndpointMembers<'a> {
    key: Option<String>,
    root: Option<String>,
    snikey: Option<&'a str>,
    peer: SocketAddr,
    via: &'static str,
    shown_key: Option<String>,
}

#[derive(Serialize)]
struct BothWays {
    to_ep: u64,
    from_ep: u64,
}

/// How long what was timed took through the relay.
#[derive(Serialize)]
struct Latency {
    to_ep: Times,
    from_ep: Times,
}

/// Microseconds; `null` where nothing was timed.
#[derive(Default, Serialize)]
struct Times {
    count: u64,
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

#[derive(Serialize)]
struct ShardMembers {
    core: usize,
    enters: u64,
    sessions: u64,
}

#[derive(Serialize)]
struct CommandMembers<'a> {
    command: &'a str,
    via: &'static str,
    done: bool,
    told: &'a str,
}

#[derive(Serialize)]
struct FoldedMembers {
    outcome: OutcomeKind,
    count: u64,
}

#[derive(Serialize)]
struct RunEndMembers<'a> {
    counts: &'a BTreeMap<OutcomeKind, u64>,
}

/// Makes the lines of one run; each has its newline, and `written` is its time.
pub(super) struct Lines {
    run: String,
    campaign: Option<String>,
}

impl Lines {
    /// Of a run that may share a campaign of this name.
    pub(super) fn of_run(run: RunId, campaign: Option<String>) -> Self {
        Self { run: run.to_string(), campaign }
    }

    /// The first line.
    pub(super) fn of_run_start(&self, written: Ticks) -> Vec<u8> {
        let program = concat!("pktxpmgr ", env!("CARGO_PKG_VERSION"));
        self.line("run.start", RunStartMembers { program }, written)
    }

    /// The line of a session whose output is kept there.
    pub(super) fn of_session(
        &self,
        record: &SessionRecord,
        output: Option<&SessionOutput>,
        written: Ticks,
    ) -> Vec<u8> {
        self.line("session.end", session_members(record, output, self.campaign.as_deref()), written)
    }

    /// The same of one whose result is not accepted or refused yet.
    pub(super) fn of_result(
        &self,
        record: &SessionRecord,
        output: Option<&SessionOutput>,
        written: Ticks,
    ) -> Vec<u8> {
        self.line(
            "session.result",
            session_members(record, output, self.campaign.as_deref()),
            written,
        )
    }

    /// The line that stands for so many sessions.
    pub(super) fn of_folded(&self, outcome: OutcomeKind, count: u64, written: Ticks) -> Vec<u8> {
        self.line("session.folded", FoldedMembers { outcome, count }, written)
    }

    /// The line of what whoever operates the run has asked for.
    pub(super) fn of_command(&self, command: &Command, written: Ticks) -> Vec<u8> {
        let Command { words, via, done } = command;
        let (Ok(told) | Err(told)) = done;
        let members = CommandMembers { command: words, via, done: done.is_ok(), told };
        self.line("command", members, written)
    }

    /// The line of a shard that has ended.
    pub(super) fn of_shard(&self, totals: &ShardTotals, written: Ticks) -> Vec<u8> {
        let ShardTotals { core, enters, sessions, .. } = *totals;
        self.line("shard.end", ShardMembers { core, enters, sessions }, written)
    }

    /// The last line.
    pub(super) fn of_run_end(
        &self,
        counts: &BTreeMap<OutcomeKind, u64>,
        written: Ticks,
    ) -> Vec<u8> {
        self.line("run.end", RunEndMembers { counts }, written)
    }

    fn line(&self, ev: &'static str, what: impl Serialize, written: Ticks) -> Vec<u8> {
        let line = Line { v: VERSION, t: written.timestamp(), ev, run: &self.run, what };
        // Only maps with keys that are no text cannot be written, and a Vec takes everything.
        let mut line = serde_json::to_vec(&line).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

fn session_members<'a>(
    record: &'a SessionRecord,
    output: Option<&'a SessionOutput>,
    campaign: Option<&'a str>,
) -> SessionMembers<'a> {
    let facts = &record.facts;
    let relayed = record.end.as_ref().map(|end| end.relayed).unwrap_or_default();
    let Relayed { to_endpoint, from_endpoint, linfos_lost, .. } = relayed;
    let (exit, signal) = match record.mlet {
        Mlet::Ended(MletStatus::Code(code), _) => (Some(code), None),
        Mlet::Ended(MletStatus::Signal(signal), _) => (None, Some(signal)),
        _ => (None, None),
    };
    SessionMembers {
        sid: facts.id,
        core: facts.core,
        ep: endpoint_members(record),
        accepted: facts.accepted_wall.timestamp(),
        outcome: record.outcome(),
        failed: record.is_failed(),
        reason: record.reason(),
        exit,
        signal,
        ms: phases(record),
        bytes: both_ways(to_endpoint, from_endpoint, |flow| flow.bytes),
        msgs: both_ways(to_endpoint, from_endpoint, |flow| flow.messages),
        linfos_lost,
        crashed_monitor: record.crashed_monitor(),
        output,
        relay_us: end_latency(record),
        campaign,
        epoch: match record.claim {
            Claim::None => None,
            Claim::Held(epoch)
            | Claim::Lost(epoch)
            | Claim::Refused(epoch)
            | Claim::GivenUp(epoch) => Some(epoch),
        },
    }
}

fn endpoint_members(record: &SessionRecord) -> EndpointMembers<'_> {
    let facts = &record.facts;
    let account = &facts.account;
    EndpointMembers {
        key: account.endpoint_key.map(|key| key.to_string()),
        root: account.operator_key.map(|key| key.to_string()),
        snikey: account.snikey.as_ref().map(|snikey| snikey.as_str()),
        peer: facts.peer,
        via: match facts.via {
            Via::Direct => "direct",
            Via::Proxy => "proxy",
        },
        shown_key: account.shown_key.as_deref().map(ToString::to_string),
    }
}

fn phases(record: &SessionRecord) -> BTreeMap<&'static str, Option<f64>> {
    let unreached = PHASES.map(|name| (name, None));
    let reached = record.phases().map(|(name, took)| (name, Some(milliseconds(took))));
    unreached.into_iter().chain(reached).collect()
}

fn both_ways(to_endpoint: Flow, from_endpoint: Flow, count: fn(Flow) -> u64) -> BothWays {
    BothWays { to_ep: count(to_endpoint), from_ep: count(from_endpoint) }
}

fn end_latency(record: &SessionRecord) -> Option<Latency> {
    record.end.as_ref().and_then(|end| end.latency.as_ref()?.spread()).map(latency)
}

fn latency(spread: metrics::BothWays<Option<Spread>>) -> Latency {
    let times = |spread: Option<Spread>| {
        let microseconds = |time: Duration| Some(time.as_nanos() as f64 / 1000.0);
        let told = |Spread { count, p50, p99, max }| {
            let (p50, p99, max) = (microseconds(p50), microseconds(p99), microseconds(max));
            Times { count, p50, p99, max }
        };
        spread.map(told).unwrap_or_default()
    };
    Latency { to_ep: times(spread.to_endpoint), from_ep: times(spread.from_endpoint) }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
