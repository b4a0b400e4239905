//! What became of every session and its mlet: one log line each when both have ended, and the sums.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::log_limit::LogLimit;
use crate::mailbox::{Ended, SessionId};
use crate::proto::outcome::Outcome;
use crate::proto::session::MletFacts;
use crate::sys::supervisor::MletStatus;
use packetlab::escape::Escaped;
use packetlab::key::KeyId;

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
    /// LINFOs of endpoints that came too fast to be logged.
    pub linfos_lost: u64,
}

/// A mlet's part of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mlet {
    /// Asked for.
    Asked,
    /// It runs.
    Running,
    /// Could not be started, for this reason.
    NotStarted(String),
    /// Ended after this time.
    Ended(MletStatus, Duration),
    /// One mlet serves all sessions, or it was lost: its end is not this session's affair.
    NotOurs,
}

impl Mlet {
    fn may_run(&self) -> bool {
        matches!(self, Self::Asked | Self::Running)
    }
}

struct Session {
    peer: IpAddr,
    mlet: Mlet,
    /// How it ended, and how many of its LINFOs were lost.
    end: Option<(Outcome, u64)>,
}

/// The sessions past START that have not ended in every respect.
pub(super) struct Sessions {
    open: HashMap<SessionId, Session>,
    /// Of these, how many have a mlet that may still run.
    running_mlets: usize,
    report: Report,
    /// Keys of the endpoints that were served, while each session uses up one of `-n`.
    served_keys: Option<HashSet<KeyId>>,
    served_again: LogLimit,
    /// Of connections that ended before START.
    dropped: LogLimit,
    /// Of those among them for which a limit made no place, so that no other failure hides that it struck.
    without_place: LogLimit,
}

impl Sessions {
    /// No session yet; `are_counted` for `-n`.
    pub(super) fn new(are_counted: bool) -> Self {
        Self {
            open: HashMap::new(),
            running_mlets: 0,
            report: Report::default(),
            served_keys: are_counted.then(HashSet::new),
            served_again: LogLimit::new("sessions of keys served before"),
            dropped: LogLimit::new("dropped connections"),
            without_place: LogLimit::new("connections that a limit made no place for"),
        }
    }

    /// What its lines are limited by.
    pub(super) fn log_limits(&mut self) -> [&mut LogLimit; 3] {
        [&mut self.served_again, &mut self.dropped, &mut self.without_place]
    }

    /// A session's START succeeded. `own_mlet`: a mlet is started for it alone.
    pub(super) fn begin(&mut self, id: SessionId, facts: &MletFacts, own_mlet: bool, now: Instant) {
        self.report.served += 1;
        if let (Some(keys), Some(key)) = (&mut self.served_keys, facts.endpoint_key)
            && !keys.insert(key)
            && let Some(left_out) = self.served_again.admit(now)
        {
            warn!(
                session = id,
                "key {key} was served before in this run; each of its sessions counts for -n{left_out}"
            );
        }
        let mlet = if own_mlet { Mlet::Asked } else { Mlet::NotOurs };
        self.running_mlets += usize::from(own_mlet);
        self.open.insert(id, Session { peer: facts.peer, mlet, end: None });
    }

    /// Sessions past START that are not over.
    pub(super) fn running(&self) -> usize {
        self.open.len()
    }

    /// Mlets that may still run.
    pub(super) fn running_mlets(&self) -> usize {
        self.running_mlets
    }

    /// The session is open, and has no mlet yet.
    pub(super) fn awaits_mlet(&self, id: SessionId) -> bool {
        let awaits = |session: &Session| session.mlet == Mlet::Asked && session.end.is_none();
        self.open.get(&id).is_some_and(awaits)
    }

    pub(super) fn mlet_runs(&mut self, id: SessionId) {
        if let Some(session) = self.open.get_mut(&id) {
            session.mlet = Mlet::Running;
        }
    }

    pub(super) fn mlet_not_started(&mut self, id: SessionId, reason: String) {
        warn!(session = id, "the mlet could not be started: {reason}; the session ends");
        self.report.mlets_failed += 1;
        self.set_mlet(id, Mlet::NotStarted(reason));
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
            .filter(|(_, session)| session.mlet.may_run())
            .map(|(id, _)| *id)
            .collect();
        for id in running {
            self.set_mlet(id, Mlet::NotOurs);
        }
    }

    fn set_mlet(&mut self, id: SessionId, mlet: Mlet) {
        if let Some(session) = self.open.get_mut(&id) {
            self.running_mlets -= usize::from(session.mlet.may_run());
            session.mlet = mlet;
            self.close_if_over(id);
        }
    }

    /// A connection's sockets are closed.
    pub(super) fn ended(&mut self, ended: Ended, now: Instant) {
        if let Some(session) = self.open.get_mut(&ended.id) {
            session.end = Some((ended.outcome, ended.linfos_lost));
            self.close_if_over(ended.id);
            return;
        }
        // One that was let go because the run ends has not failed.
        let was_cancelled = matches!(ended.outcome, Outcome::Cancelled);
        self.report.failed_in_set_up += u64::from(!was_cancelled);
        let Ended { id, peer, lasted, outcome, .. } = &ended;
        let key = ended.endpoint_key.map_or_else(String::new, |key| format!(", key {key}"));
        let (lasted, reason) = (lasted.as_secs_f64(), outcome.to_string());
        let reason = Escaped(reason.as_bytes());
        let dropped = format!("dropped {peer} after {lasted:.3} s{key}: {reason}");
        let admitted = match outcome {
            Outcome::Cancelled => None,
            Outcome::TooManyOfKey(_) | Outcome::MadeRoom | Outcome::MadeRoomOfKey(_) => {
                self.without_place.admit(now)
            }
            _ => self.dropped.admit(now),
        };
        match admitted {
            Some(left_out) => warn!(session = id, "{dropped}{left_out}"),
            None => debug!(session = id, "{dropped}"),
        }
    }

    fn close_if_over(&mut self, id: SessionId) {
        let over = |session: &Session| session.end.is_some() && !session.mlet.may_run();
        if !self.open.get(&id).is_some_and(over) {
            return;
        }
        let Some(Session { peer, mlet, end: Some((outcome, linfos_lost)) }) = self.open.remove(&id)
        else {
            return;
        };
        let mlet = match mlet {
            Mlet::Ended(status, run_time) => {
                format!("; mlet {status} after {:.3} s", run_time.as_secs_f64())
            }
            Mlet::NotStarted(reason) => format!("; mlet not started: {reason}"),
            Mlet::NotOurs | Mlet::Asked | Mlet::Running => String::new(),
        };
        let lost = lost_shown(linfos_lost);
        info!(session = id, "session with {peer} over: {outcome}{mlet}{lost}");
    }

    /// The sums.
    pub(super) fn report(&self) -> Report {
        self.report.clone()
    }
}

/// The end of a line about something of which so many LINFOs were lost.
pub(super) fn lost_shown(linfos: u64) -> String {
    match linfos {
        0 => String::new(),
        1 => "; 1 LINFO lost".into(),
        _ => format!("; {linfos} LINFOs lost"),
    }
}
