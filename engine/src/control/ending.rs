//! How a run ends: by signals, by itself, or with an error; and what else signals say to it.
//!
//! Not here: the ends of single sessions (`sessions.rs`), what a shard does with its sessions then (`shard/ending.rs`),
//! when the run's time is over (`overdue.rs`), what is told of what runs (`status.rs`), how mlets are ended
//! (`sys/children.rs`), and how long each step takes (`config/limits.rs`).

use std::time::Instant;

use tracing::{debug, info, warn};

use super::clock::now;
use super::judging::verdict;
use super::{Control, RunPhase};
use crate::control::Report;
use crate::mailbox::ToShard;
use crate::metrics::IntervalLog;
use crate::proto::session_end::Force;
use crate::records::ShardTotals;
use crate::run_error::{RunError, WAITING, lack};
use crate::sys::children::{Graces, KILL_PATIENCE};
use crate::sys::signals::{RunSignal, StopSignal};

impl Control {
    pub(super) fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.inner.receive() {
            if let Some(signal) = self.answer_signal(signal) {
                self.take_stop(signal);
            }
        }
    }

    /// Answers a signal that asks for nothing but an answer. Gives one that asks to stop.
    pub(super) fn answer_signal(&mut self, signal: RunSignal) -> Option<StopSignal> {
        match signal {
            RunSignal::Stop(signal) => return Some(signal),
            RunSignal::HangUp => self.ask_for_reload(None),
            RunSignal::TellStatus => self.tell_status(),
        }
        None
    }

    fn take_stop(&mut self, signal: StopSignal) {
        match self.phase {
            RunPhase::Running | RunPhase::Draining { signalled: false } => {
                self.stop_softly(&signal.to_string());
            }
            RunPhase::Draining { signalled: true } => {
                let by = format!("second signal, {signal}");
                self.stop_hard(&by, RunError::Forced(signal));
            }
            RunPhase::Forced { by, .. } => {
                warn!("one more signal, {signal}: killing every mlet");
                self.end_mlets(by, Graces::NONE);
            }
            RunPhase::Over => {}
        }
    }

    /// Ends the run when what runs is over, as `by` asks for. What that means, in words.
    pub(super) fn stop_softly(&mut self, by: &str) -> String {
        let told = format!("no new endpoints; sessions that run: {}", self.sessions.running());
        warn!("{by}: {told}; a second signal ends them");
        self.tell_what_is_waited_for();
        self.drain();
        self.phase = RunPhase::Draining { signalled: true };
        told
    }

    /// Ends what runs, as `by` asks for, and with it the run.
    pub(super) fn stop_hard(&mut self, by: &str, error: RunError) {
        warn!("{by}: ending every session and mlet");
        self.end_by_force(Force::Stop, error);
    }

    /// Ends every session and mlet, and with them the run.
    pub(super) fn end_by_force(&mut self, by: Force, error: RunError) {
        self.note_failure(error);
        self.force(by);
    }

    /// Ends every session and mlet, with their graces.
    pub(super) fn force(&mut self, by: Force) {
        self.close_sessions(by);
        self.end_mlets(by, self.graces());
    }

    pub(super) fn drain(&mut self) {
        if self.phase == RunPhase::Running {
            self.phase = RunPhase::Draining { signalled: false };
            self.time_limits.begin_to_drain(now());
            self.tasks.stop();
            // Nothing is published by this run any more, so that somebody else must.
            self.permitting.places(0);
            self.tell_stopping();
            for shard in &mut self.shards {
                shard.push(ToShard::Drain);
            }
        }
    }

    /// Lets every mlet read the end of its session, or of its control socket.
    pub(super) fn close_sessions(&mut self, by: Force) {
        self.drain();
        self.close_singleton();
        for shard in &mut self.shards {
            shard.push(ToShard::EndSessions(by));
        }
    }

    /// Has every mlet ended by the supervisor, sooner than asked for before if need be.
    fn end_mlets(&mut self, by: Force, graces: Graces) {
        self.sessions.end_by_force();
        self.supervisor.inner.end_all(graces);
        let until = now() + graces.total() + KILL_PATIENCE;
        let until = self.force_until().map_or(until, |before| before.min(until));
        self.phase = RunPhase::Forced { by, until };
    }

    /// The graces have changed: an end that is under way has them from now on, if it is over sooner with them.
    pub(super) fn hurry_end(&mut self) {
        if let RunPhase::Forced { by, .. } = self.phase {
            self.end_mlets(by, self.graces());
        }
    }

    /// Ends the run with an error.
    pub(super) fn fail(&mut self, error: RunError) {
        if self.phase == RunPhase::Running && self.sessions.running() > 0 {
            warn!("{error}; no new endpoints, and running sessions go on");
        }
        self.note_failure(error);
        self.drain();
    }

    /// The run ends with this error, whenever it ends, unless there is one that comes before it.
    pub(super) fn note_failure(&mut self, error: RunError) {
        if self.failure.as_ref().is_none_or(|before| error.outranks(before)) {
            self.failure = Some(error);
        }
    }

    pub(super) fn force_until(&self) -> Option<Instant> {
        match self.phase {
            RunPhase::Forced { until, .. } => Some(until),
            RunPhase::Running | RunPhase::Draining { .. } | RunPhase::Over => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let mlets_ended = self.sessions.running_mlets() == 0 && self.sessions.open_outputs() == 0;
        match self.phase {
            RunPhase::Running => false,
            RunPhase::Draining { .. } => self.shards_running == 0 && mlets_ended,
            RunPhase::Forced { until, .. } => {
                mlets_ended && !self.mlets.singleton_runs()
                    || now() >= until
                    || self.supervisor_lost
            }
            RunPhase::Over => true,
        }
    }

    /// Closes the singleton's control socket and waits for that mlet, then for the supervisor.
    ///
    /// # Errors
    /// The machine does not let it wait.
    pub(super) async fn end(mut self) -> Result<Report, RunError> {
        self.close_singleton();
        while (self.mlets.singleton_runs() || !self.are_outputs_closed())
            && !self.supervisor_lost
            && self.force_until().is_none_or(|until| now() < until)
        {
            self.wait().await.map_err(lack(WAITING))?;
            self.take_signals();
            self.take_orders();
            self.take_events();
            self.take_recorded();
            self.take_permits();
            self.tend_due();
            self.flush();
            self.show();
        }
        self.end_stuck_supervisor();
        self.end_shards().await?;
        self.await_verdicts().await?;
        self.brokers.end().await;
        self.sessions.finish(now());
        self.show();
        self.tell_left_out();
        for ShardTotals { number, enters, sessions, .. } in &self.shard_totals {
            debug!("shard {number}: kernel entered {enters} times, {sessions} sessions");
        }
        let mut report = self.sessions.into_report();
        report.linfos_lost = self.experiments.linfo_budget.lost();
        let latency_unwritten = self.latency_log.take().map_or(0, IntervalLog::finish);
        report.records_lost |= latency_unwritten > 0;
        if let Some(latency) = self.view.latency().and_then(|latency| latency.summary()) {
            info!("relay p50/p99/max: {latency}");
        }
        report.verdict = verdict(&self.judging, &report.summary);
        report.failure = self.failure;
        Ok(report)
    }
}
