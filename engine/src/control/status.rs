//! What is told of what runs: at SIGUSR1 all of it, at a first signal what is waited for; and what views see of it.
//!
//! Not here: what is told of sessions as they end (`sessions.rs`).

use std::time::Instant;

use tracing::warn;

use super::clock::now;
use super::session_log::shown_key;
use super::{Control, RunPhase};
use crate::records::{OutcomeKind, SessionFacts};
use crate::view::{BrokerState, RunStage, Snapshot};

/// So many mlets are listed: two screens.
const LISTED_MAX: usize = 50;

/// What a run may still wait for when its mlets have ended.
const OPEN_OUTPUTS: &str = "mlets whose output is still read, ended ones too";

impl Control {
    /// Tells how far the run is and which mlets run, as warnings, so that `-q` does not hide the answer.
    pub(super) fn tell_status(&self) {
        self.show();
        let now_seen = self.view.snapshot();
        let Snapshot { stage, sessions, mlets, summary, open_outputs, .. } = now_seen;
        let (brokers, proxies) = (now_seen.brokers, now_seen.proxies);
        let (recorder, now) = (self.sessions.under_way(), now());
        warn!("status: {stage}; sessions {}, mlets that run: {mlets}", sessions.running);
        let outcomes = summary.outcomes.iter();
        let outcomes: Vec<String> =
            outcomes.map(|(kind, count)| format!("{kind} {count}")).collect();
        let outcomes = if outcomes.is_empty() { "none".into() } else { outcomes.join(", ") };
        warn!("status: ended so far: {outcomes}");
        let waiting = now_seen.reporting.results_waiting;
        if waiting > 0 {
            warn!("status: results that wait for the campaign: {waiting}");
        }
        for BrokerState { name, stage } in brokers {
            warn!("status: broker {name}: {stage}");
        }
        for proxy in proxies {
            warn!("status: proxy {}: {proxy}", proxy.name);
        }
        if let Some((pid, started)) = self.mlets.singleton() {
            warn!("the one mlet of -s, pid {pid}, has run for {}", age(started, now));
        }
        for (facts, pid, started) in recorder.oldest_first().take(LISTED_MAX) {
            warn!(session = facts.id, "mlet {}", shown((facts, pid, started), now));
        }
        let more = recorder.started_mlets().saturating_sub(LISTED_MAX);
        if more > 0 {
            warn!("and {more} more");
        }
        if open_outputs > 0 {
            warn!("{OPEN_OUTPUTS}: {open_outputs}");
        }
    }

    /// Lets those who look at the run see how it is. To be called whenever the loop is about to wait.
    pub(super) fn show(&self) {
        let (running, mlets) = (self.sessions.running(), self.mlets_shown());
        let open_outputs = self.sessions.open_outputs();
        let linfos_lost = self.experiments.linfo_budget.lost();
        self.view.change(|state| {
            match self.phase {
                // Whether endpoints can be served is told by what lets them in.
                RunPhase::Running => {}
                RunPhase::Draining { .. } => state.stage = RunStage::Draining,
                RunPhase::Forced { .. } => state.stage = RunStage::Forced,
                RunPhase::Over => state.stage = RunStage::Over,
            }
            (state.running, state.mlets) = (running, mlets);
            (state.open_outputs, state.linfos_lost) = (open_outputs, linfos_lost);
            state.results_waiting = self.sessions.unsettled();
            if let Some(proxies) = &self.proxies {
                proxies.show(&mut state.proxies);
            }
        });
    }

    /// Tells how many mlets still run, which is the oldest, and what a second signal does to them, as warnings too.
    pub(super) fn tell_what_is_waited_for(&self) {
        warn!("mlets that run: {}", self.mlets_shown());
        if let Some(oldest @ (facts, ..)) = self.sessions.under_way().oldest_first().next() {
            warn!(session = facts.id, "the oldest: {}", shown(oldest, now()));
        }
        let outputs = self.sessions.open_outputs();
        if outputs > 0 {
            warn!("{OPEN_OUTPUTS}: {outputs}");
        }
        let (eof, term) = (self.graces().eof.as_secs_f64(), self.graces().term.as_secs_f64());
        warn!("a second signal ends every session, {eof} s later TERM, {term} s later KILL");
    }

    /// How far the run is, for an init system.
    pub(super) fn status_line(&self) -> String {
        let now = self.view.snapshot();
        let (running, over, oks) =
            (now.sessions.running, now.ended(), now.summary.count(OutcomeKind::Ok));
        format!("{}; sessions {running}, ended so far {over}, of these ok {oks}", now.stage)
    }

    fn mlets_shown(&self) -> usize {
        self.sessions.running_mlets() + usize::from(self.mlets.singleton_runs())
    }
}

fn shown((facts, pid, started): (&SessionFacts, i32, Instant), now: Instant) -> String {
    format!("key {}, pid {pid}, has run for {}", shown_key(facts), age(started, now))
}

fn age(started: Instant, now: Instant) -> String {
    format!("{:.1} s", now.saturating_duration_since(started).as_secs_f64())
}
