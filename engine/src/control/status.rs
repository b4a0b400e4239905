//! What is told of what runs: at SIGUSR1 all of it, at a first signal what is waited for.
//!
//! Not here: what is told of sessions as they end (`sessions.rs`).

use std::time::Instant;

use tracing::warn;

use super::clock::now;
use super::sessions::shown_key;
use super::{Control, RunPhase};
use crate::records::SessionFacts;

/// So many mlets are listed: two screens.
const LISTED_MAX: usize = 50;

/// What a run may still wait for when its mlets have ended.
const OPEN_OUTPUTS: &str = "mlets whose output is still read, ended ones too";

impl Control {
    /// Tells how far the run is and which mlets run, as warnings, so that `-q` does not hide the answer.
    pub(super) fn tell_status(&self) {
        let recorder = self.sessions.under_way();
        let (phase, sessions) = (self.phase_shown(), recorder.running());
        let (mlets, now) = (self.mlets_shown(), now());
        warn!("status: {phase}; sessions {sessions}, mlets that run: {mlets}");
        let outcomes = self.sessions.summary().outcomes.iter();
        let outcomes: Vec<String> =
            outcomes.map(|(kind, count)| format!("{kind} {count}")).collect();
        let outcomes = if outcomes.is_empty() { "none".into() } else { outcomes.join(", ") };
        warn!("status: ended so far: {outcomes}");
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
        let outputs = self.sessions.open_outputs();
        if outputs > 0 {
            warn!("{OPEN_OUTPUTS}: {outputs}");
        }
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
        let (eof, term) = (self.graces.eof.as_secs_f64(), self.graces.term.as_secs_f64());
        warn!("a second signal ends every session, {eof} s later TERM, {term} s later KILL");
    }

    fn phase_shown(&self) -> &'static str {
        match self.phase {
            RunPhase::Running => "running",
            RunPhase::Draining { .. } => "no new endpoints, waiting for what runs",
            RunPhase::Forced { .. } => "being ended by force",
            RunPhase::Over => "over",
        }
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
