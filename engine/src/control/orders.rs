//! What is done about the orders of whoever operates a run.
//!
//! Not here: what may be asked (`steering.rs`). Invariant: the loop takes a few of them a turn, and each change is told in the
//! log and the records.

use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::clock::now;
use super::singleton::Mlets;
use super::steering::{
    Answer, Asked, Asker, Change, ExperimentState, Order, Orders, SessionState, Whom,
};
use super::{Control, RunPhase};
use crate::config::Limits;
use crate::mailbox::ToShard;
use crate::proto::experiments::ServedExperiment;
use crate::proto::session_end::Force;
use crate::records::{SessionId, SessionRecord, bytes_of};
use crate::run_error::RunError;
use crate::sys::signals::StopSignal;
use crate::view::LastOutcomes;
use packetlab::words::counted;

/// So many are carried out in one turn, so that mlets and signals do not wait for all.
const ORDERS_A_TURN: usize = 4;

/// So much of a key is in the log, here as elsewhere.
const KEY_DIGITS_LOGGED: usize = 12;

impl Control {
    /// Carries out some of the orders that wait.
    pub(super) fn take_orders(&mut self) {
        for _ in 0..ORDERS_A_TURN {
            let Some(Asked { order, asker }) = self.orders.as_mut().and_then(Orders::next) else {
                return;
            };
            let answer = match order {
                Order::ListSessions => {
                    self.list_sessions(asker);
                    continue;
                }
                Order::ListExperiments => Answer::Experiments(self.experiment_states()),
                Order::Change(Change::Reload) => {
                    self.ask_for_reload(Some(asker));
                    continue;
                }
                Order::Change(change) => {
                    let words = change.to_string();
                    let done = self.change(&words, change);
                    self.sessions.command(&words, "ctl", &done);
                    match done {
                        Ok(told) => Answer::Done(told),
                        Err(reason) => Answer::Refused(reason),
                    }
                }
            };
            asker.answer(answer);
        }
    }

    /// Changes something, and tells the log what was asked for, in these words, and what came of it.
    fn change(&mut self, words: &str, change: Change) -> Result<String, String> {
        use RunPhase::{Draining, Running};
        let is_first = matches!(self.phase, Running | Draining { signalled: false });
        if is_first && matches!(change, Change::Drain) {
            // It is told as a first signal is.
            return Ok(self.stop_softly(&format!("ctl {words}")));
        }
        let done = self.change_untold(change);
        // A whole key, which the record has, makes a line hard to read.
        let shown = match words.split_once(' ') {
            Some(("kill", whom)) => format!("kill {whom:.KEY_DIGITS_LOGGED$}"),
            _ => words.to_owned(),
        };
        match &done {
            Ok(told) => warn!("ctl {shown}: {told}"),
            Err(reason) => warn!("ctl {shown} is refused: {reason}"),
        }
        done
    }

    fn change_untold(&mut self, change: Change) -> Result<String, String> {
        match change {
            Change::Kill(whom) => self.kill(&whom),
            Change::Drain => Ok("no new endpoints are served any more already".into()),
            Change::Stop => match self.phase {
                RunPhase::Forced { .. } | RunPhase::Over => Ok("it is being ended already".into()),
                RunPhase::Running | RunPhase::Draining { .. } => {
                    // What is told of the order says all that a signal's line does.
                    self.end_by_force(Force::Stop, RunError::Forced(StopSignal::Terminate));
                    Ok("ending every session and mlet".into())
                }
            },
            Change::SetLimit { words, before, limits } => {
                let sets_sessions = limits.sessions_max != self.experiments.limits.sessions_max;
                self.set_limits(&limits)?;
                let (open, max) = self.counts.places().read();
                Ok(match self.time_limits.is_over_by(now()) {
                    Some(_) => format!("{words} (was {before}), which is over: the run ends now"),
                    None if sets_sessions && open > max => format!(
                        "{words} (was {before}); {open} are there and stay, nobody comes until there are fewer"
                    ),
                    None => format!("{words} (was {before})"),
                })
            }
            Change::Note(words) => Ok(words),
            // Its answer comes when the files are read.
            Change::Reload => Ok("reading".into()),
        }
    }

    fn kill(&mut self, whom: &Whom) -> Result<String, String> {
        let ids = match whom {
            Whom::Session(id) => {
                self.sessions.under_way().facts(*id).map(|_| *id).into_iter().collect()
            }
            Whom::Key(digits) => self.sessions.under_way().of_key(digits),
        };
        if ids.is_empty() {
            return Err("no session past START is that one's".into());
        }
        let recorder = self.sessions.under_way();
        let (already, ids): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| recorder.is_being_ended(*id));
        let killed = counted(ids.len() as u64, "session");
        ids.iter().for_each(|id| self.kill_session(*id));
        Ok(match (already.len(), ids.len()) {
            (0, _) => format!("{killed} being ended"),
            (1, 0) => "it is being ended already".into(),
            (already, 0) => format!("all {already} are being ended already"),
            (already, _) => format!("{killed} being ended, beside {already} that are already"),
        })
    }

    fn kill_session(&mut self, id: SessionId) {
        self.end_mlet_of(id);
        for shard in &mut self.shards {
            shard.push(ToShard::EndSession(id, Force::Kill));
        }
    }

    /// New sessions get these, and what is counted for the whole run is within them at once.
    fn set_limits(&mut self, limits: &Limits) -> Result<(), String> {
        let experiments = Arc::clone(&self.experiments);
        let before = &experiments.limits;
        let settable = Limits {
            handshake_timeout: limits.handshake_timeout,
            setup_timeout: limits.setup_timeout,
            drain_timeout: limits.drain_timeout,
            linger_timeout: limits.linger_timeout,
            accept_pause: limits.accept_pause,
            idle_timeout: limits.idle_timeout,
            handshakes_max: limits.handshakes_max,
            sessions_max: limits.sessions_max,
            per_source_max: limits.per_source_max,
            eof_grace: limits.eof_grace,
            term_grace: limits.term_grace,
            mlet_timeout: limits.mlet_timeout,
            deadline: limits.deadline,
            drain_limit: limits.drain_limit,
            ..before.clone()
        };
        if settable != *limits {
            return Err("this limit is settled at the start; it takes a new run".into());
        }
        if limits.mlet_timeout.is_some() && matches!(self.mlets, Mlets::OfAllSessions { .. }) {
            return Err("the one mlet of all sessions may run as long as the run does".into());
        }
        // What the run was started with may be more than there is room for, which was told then.
        if limits.sessions_max != before.sessions_max {
            self.set_sessions_max(limits)?;
        }
        self.time_limits.set(limits);
        let graces_change =
            (limits.eof_grace, limits.term_grace) != (before.eof_grace, before.term_grace);
        self.serve(Arc::new(self.experiments.within(settable)));
        if graces_change {
            self.hurry_end();
        }
        Ok(())
    }

    /// Shards that wait for a place look for one again and again. What one key may have follows, if it is a share of all.
    fn set_sessions_max(&mut self, limits: &Limits) -> Result<(), String> {
        let max = self.room.for_sessions(limits.sessions_max).map_err(|error| error.to_string())?;
        self.counts.places().set_max(max);
        if self.phase == RunPhase::Running {
            self.permitting.places(max);
        }
        if let Some(of_a_key) = limits.sessions_of_a_key(max) {
            self.experiments.keys.set_max(of_a_key);
        }
        Ok(())
    }

    fn experiment_states(&self) -> Vec<ExperimentState> {
        let state = |one: &ServedExperiment| ExperimentState {
            snikey: one.snikey.clone(),
            is_default: one.is_default,
            certificates: one.chain.len(),
            not_after: one.chain.iter().map(|certificate| certificate.not_after).min(),
            programs: one.programs.len(),
        };
        self.experiments.iter().map(state).collect()
    }

    /// The list is wanted.
    pub(super) fn list_sessions(&mut self, asker: Asker) {
        self.session_list.want(asker, &mut self.shards, now());
    }

    /// Answers those who wait for the list, if it can be had.
    pub(super) fn tend_session_list(&mut self) {
        let now = now();
        let askers = self.session_list.take_askers(&self.shards, now);
        if askers.is_empty() {
            return;
        }
        let mut states: Vec<_> = self.view.last_outcomes(|outcomes| {
            let records = self.sessions.under_way().all();
            records.map(|record| self.session_state(record, outcomes, now)).collect()
        });
        states.sort_unstable_by_key(|state| state.id);
        let states: Arc<[SessionState]> = states.into();
        for asker in askers {
            asker.answer(Answer::Sessions(Arc::clone(&states)));
        }
    }

    fn session_state(
        &self,
        SessionRecord { facts, end, mlet, .. }: &SessionRecord,
        outcomes: &LastOutcomes,
        now: Instant,
    ) -> SessionState {
        // Of one whose sockets are closed the shard knows no more.
        let ended = end.as_ref().map(|end| bytes_of(&end.relayed));
        SessionState {
            id: facts.id,
            key: facts.account.endpoint_key,
            peer: facts.peer,
            snikey: facts.account.snikey.clone(),
            pid: mlet.pid(),
            age: now.saturating_duration_since(facts.accepted),
            bytes: ended.or_else(|| self.session_list.bytes(facts.id)),
            last_outcome: outcomes.of(facts.account.endpoint_key),
        }
    }
}
