//! A record as a line of JSON: an object, members of which are only ever added.
//!
//! Not here: where it is written (`journal.rs`). Durations are milliseconds with three decimals, `null` for a phase that
//! was not reached; times are UTC.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::outcome::OutcomeKind;
use super::record::{Mlet, SessionRecord, ShardTotals, Via};
use crate::proto::account::{Flow, Relayed};
use crate::sys::supervisor::MletStatus;
use packetlab::time::Ticks;

/// Of the form of lines; another number for whoever reads them is another meaning.
const VERSION: u8 = 1;

/// Every line.
#[derive(Serialize)]
struct Line<T> {
    v: u8,
    t: String,
    ev: &'static str,
    #[serde(flatten)]
    what: T,
}

#[derive(Serialize)]
struct SessionMembers<'a> {
    sid: u64,
    core: usize,
    ep: EndpointMembers<'a>,
    accepted: String,
    outcome: OutcomeKind,
    reason: Option<String>,
    exit: Option<i32>,
    signal: Option<i32>,
    ms: Phases,
    bytes: BothWays,
    msgs: BothWays,
    linfos_lost: u64,
}

#[derive(Serialize)]
struct EndpointMembers<'a> {
    key: Option<String>,
    root: Option<String>,
    snikey: Option<&'a str>,
    peer: SocketAddr,
    via: &'static str,
}

/// How long each took.
#[derive(Serialize)]
struct Phases {
    /// From accept to the end of the handshake.
    tls: Option<f64>,
    /// From there until START was sent: programs, and the wait for a permit of `-n`.
    programs: Option<f64>,
    /// From there to its answer.
    start: Option<f64>,
    /// From there until the mlet ran.
    spawn: Option<f64>,
    /// The mlet's run.
    run: Option<f64>,
    /// From accept until the sockets were closed.
    total: Option<f64>,
}

#[derive(Serialize)]
struct BothWays {
    to_ep: u64,
    from_ep: u64,
}

#[derive(Serialize)]
struct ShardMembers {
    core: usize,
    enters: u64,
    sessions: u64,
}

/// The line of a session, with its newline; `written` is its time.
pub(super) fn of_session(record: &SessionRecord, written: Ticks) -> Vec<u8> {
    let SessionRecord { facts, end, mlet, mlet_spawned } = record;
    let account = &facts.account;
    let relayed = end.as_ref().map(|end| end.relayed).unwrap_or_default();
    let Relayed { to_endpoint, from_endpoint, linfos_lost } = relayed;
    let (exit, signal, run) = match mlet {
        Mlet::Ended(MletStatus::Code(code), run) => (Some(*code), None, Some(*run)),
        Mlet::Ended(MletStatus::Signal(signal), run) => (None, Some(*signal), Some(*run)),
        _ => (None, None, None),
    };
    let ep = EndpointMembers {
        key: account.endpoint_key.map(|key| key.to_string()),
        root: account.operator_key.map(|key| key.to_string()),
        snikey: account.snikey.as_ref().map(|snikey| snikey.as_str()),
        peer: facts.peer,
        via: match facts.via {
            Via::Direct => "direct",
            Via::Proxy => "proxy",
        },
    };
    let ms = Phases {
        tls: milliseconds_between(Some(facts.accepted), account.tls_done),
        programs: milliseconds_between(account.tls_done, account.start_sent),
        start: milliseconds_between(account.start_sent, account.start_answered),
        spawn: milliseconds_between(account.start_answered, *mlet_spawned),
        run: run.map(milliseconds),
        total: milliseconds_between(Some(facts.accepted), end.as_ref().map(|end| end.closed)),
    };
    let session = SessionMembers {
        sid: facts.id,
        core: facts.core,
        ep,
        accepted: facts.accepted_wall.timestamp(),
        outcome: record.outcome(),
        reason: record.reason(),
        exit,
        signal,
        ms,
        bytes: both_ways(to_endpoint, from_endpoint, |flow| flow.bytes),
        msgs: both_ways(to_endpoint, from_endpoint, |flow| flow.messages),
        linfos_lost,
    };
    line("session.end", session, written)
}

/// The line of a shard that has ended, with its newline.
pub(super) fn of_shard(totals: &ShardTotals, written: Ticks) -> Vec<u8> {
    let ShardTotals { core, enters, sessions, .. } = *totals;
    line("shard.end", ShardMembers { core, enters, sessions }, written)
}

fn line(ev: &'static str, what: impl Serialize, written: Ticks) -> Vec<u8> {
    let line = Line { v: VERSION, t: written.timestamp(), ev, what };
    // Only maps with keys that are no text cannot be written, and a Vec takes everything.
    let mut line = serde_json::to_vec(&line).unwrap_or_default();
    line.push(b'\n');
    line
}

fn both_ways(to_endpoint: Flow, from_endpoint: Flow, count: fn(Flow) -> u64) -> BothWays {
    BothWays { to_ep: count(to_endpoint), from_ep: count(from_endpoint) }
}

fn milliseconds_between(from: Option<Instant>, to: Option<Instant>) -> Option<f64> {
    Some(milliseconds(to?.saturating_duration_since(from?)))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
