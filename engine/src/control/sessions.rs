//! What became of every session and its mlet: one log line each when both have ended, and the sums.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::log_limit::{LINES_PER_SECOND, LogLimit, Verdict};
use crate::mailbox::SessionId;
use crate::proto::linfo::Linfo;
use crate::proto::outcome::Outcome;
use crate::proto::session::MletFacts;
use crate::sys::supervisor::MletStatus;
use crate::wire::escape::Escaped;
use crate::wire::message::{Message, MessageType};

/// Counts of a run, told at its end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Sessions whose START succeeded.
    pub served: u64,
    /// Connections that ended before START.
    pub failed_in_set_up: u64,
    /// Mlets that ended with exit code 0.
    pub mlets_succeeded: u64,
    /// Mlets that ended in another way, or could not be started.
    pub mlets_failed: u64,
}

/// A mlet's part of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mlet {
    /// Asked for, or running.
    Running,
    /// Could not be started.
    NotStarted(i32),
    /// Ended after this time.
    Ended(MletStatus, Duration),
    /// One mlet serves all sessions, or it was lost: its end is not this session's affair.
    NotOurs,
}

struct Session {
    peer: IpAddr,
    mlet: Mlet,
    outcome: Option<Outcome>,
}

/// The sessions past START that have not ended in every respect.
#[derive(Default)]
pub(super) struct Sessions {
    open: HashMap<SessionId, Session>,
    /// Of these, how many have a mlet that may still run.
    running_mlets: usize,
    report: Report,
    set_up_failures: LogLimit,
}

impl Sessions {
    /// A session's START succeeded. `own_mlet`: a mlet is started for it alone.
    pub(super) fn begin(&mut self, id: SessionId, facts: &MletFacts, own_mlet: bool) {
        self.report.served += 1;
        let mlet = if own_mlet { Mlet::Running } else { Mlet::NotOurs };
        self.running_mlets += usize::from(own_mlet);
        self.open.insert(id, Session { peer: facts.peer, mlet, outcome: None });
        let key = facts.endpoint_key.map_or_else(|| "none".into(), |key| key.to_string());
        info!(session = id, "endpoint {} is ready, key {key}, snikey {}", facts.peer, facts.snikey);
    }

    /// Mlets that may still run.
    pub(super) fn running_mlets(&self) -> usize {
        self.running_mlets
    }

    pub(super) fn mlet_not_started(&mut self, id: SessionId, errno: i32) {
        let error = std::io::Error::from_raw_os_error(errno);
        warn!(session = id, "the mlet could not be started: {error}; the session ends");
        self.report.mlets_failed += 1;
        self.set_mlet(id, Mlet::NotStarted(errno));
    }

    pub(super) fn mlet_ended(&mut self, id: SessionId, status: MletStatus, run_time: Duration) {
        match status {
            MletStatus::Code(0) => self.report.mlets_succeeded += 1,
            _ => self.report.mlets_failed += 1,
        }
        self.set_mlet(id, Mlet::Ended(status, run_time));
    }

    /// The supervisor is lost, and with it the knowledge of every mlet.
    pub(super) fn lose_mlets(&mut self) {
        let running: Vec<SessionId> = self
            .open
            .iter()
            .filter(|(_, session)| session.mlet == Mlet::Running)
            .map(|(id, _)| *id)
            .collect();
        for id in running {
            self.set_mlet(id, Mlet::NotOurs);
        }
    }

    fn set_mlet(&mut self, id: SessionId, mlet: Mlet) {
        if let Some(session) = self.open.get_mut(&id) {
            self.running_mlets -= usize::from(session.mlet == Mlet::Running);
            session.mlet = mlet;
            self.close_if_over(id);
        }
    }

    /// A connection's sockets are closed.
    pub(super) fn ended(
        &mut self,
        id: SessionId,
        peer: IpAddr,
        outcome: Outcome,
        lasted: Duration,
        now: Instant,
    ) {
        if let Some(session) = self.open.get_mut(&id) {
            session.outcome = Some(outcome);
            self.close_if_over(id);
            return;
        }
        self.report.failed_in_set_up += 1;
        let reason = Escaped(outcome.to_string().as_bytes()).to_string();
        let lasted = lasted.as_secs_f64();
        match (&outcome, self.set_up_failures.check(now, LINES_PER_SECOND)) {
            (Outcome::Cancelled, _) | (_, Verdict::LeaveOut) => {
                debug!(session = id, "dropped {peer} after {lasted:.3} s: {reason}");
            }
            (_, Verdict::Write { left_out: 0 }) => {
                warn!(session = id, "dropped {peer} after {lasted:.3} s: {reason}");
            }
            (_, Verdict::Write { left_out }) => warn!(
                session = id,
                "dropped {peer} after {lasted:.3} s: {reason} ({left_out} more like it not shown)"
            ),
        }
    }

    fn close_if_over(&mut self, id: SessionId) {
        let over = |session: &Session| session.outcome.is_some() && session.mlet != Mlet::Running;
        if !self.open.get(&id).is_some_and(over) {
            return;
        }
        let Some(Session { peer, mlet, outcome: Some(outcome) }) = self.open.remove(&id) else {
            return;
        };
        let mlet = match mlet {
            Mlet::Ended(status, run_time) => {
                format!("; mlet {status} after {:.3} s", run_time.as_secs_f64())
            }
            Mlet::NotStarted(errno) => {
                format!("; mlet not started: {}", std::io::Error::from_raw_os_error(errno))
            }
            Mlet::NotOurs | Mlet::Running => String::new(),
        };
        info!(session = id, "session with {peer} over: {outcome}{mlet}");
    }

    /// The sums.
    pub(super) fn report(&self) -> Report {
        self.report.clone()
    }
}

/// Writes an endpoint's LINFO to the log, escaped.
pub(super) fn log_linfo(id: SessionId, linfo: &Linfo, lost_before: u64) {
    if lost_before > 0 {
        warn!(session = id, "{lost_before} LINFOs came too fast to be logged, and are lost");
    }
    let cut = if linfo.truncated { " (truncated)" } else { "" };
    match Message::decode(MessageType::LINFO, &linfo.payload) {
        Message::Linfo { name, auxiliary, info } => info!(
            session = id,
            "endpoint logs{cut}: name \"{}\", aux \"{}\", info \"{}\"",
            Escaped(name),
            Escaped(auxiliary),
            Escaped(info)
        ),
        _ => info!(session = id, "endpoint logs{cut}: \"{}\"", Escaped(&linfo.payload)),
    }
}
