//! What has lasted too long is ended: a mlet, the run, and the mlet of a session that was silent.
//!
//! Not here: when that is (`time_limits.rs`, and `proto/session` for sessions), and how the run is ended (`ending.rs`).

use std::time::{Duration, Instant};

use tracing::warn;

use super::clock::now;
use super::{Control, RunPhase};
use crate::config::Limits;
use crate::proto::session_end::Force;
use crate::records::SessionId;
use crate::run_error::RunError;
use crate::sys::children::Graces;
use crate::sys::supervisor::MletOwner;

impl Control {
    /// Ends what has lasted too long. A run that is ended by force already has no time to keep.
    pub(super) fn tend_time_limits(&mut self) {
        if !self.keeps_time() {
            return;
        }
        let now = now();
        match self.time_limits.is_over_by(now) {
            Some(Force::Deadline) => {
                warn!("the --deadline of the run: ending every session and mlet");
                self.end_by_force(Force::Deadline, RunError::Deadline);
            }
            Some(Force::DrainLimit) => {
                warn!("the --drain-limit of the run: ending every session and mlet");
                self.end_by_force(Force::DrainLimit, RunError::DrainLimit);
            }
            Some(Force::Stop | Force::Kill | Force::Fenced) | None => {
                self.end_mlets_that_ran_too_long(now);
            }
        }
    }

    /// When [`Self::tend_time_limits`] has something to do.
    pub(super) fn time_limits_due(&self) -> Option<Instant> {
        let recorder = self.sessions.under_way();
        self.keeps_time().then(|| self.time_limits.due(recorder)).flatten()
    }

    fn keeps_time(&self) -> bool {
        matches!(self.phase, RunPhase::Running | RunPhase::Draining { .. })
    }

    fn end_mlets_that_ran_too_long(&mut self, now: Instant) {
        while let Some(id) = self.time_limits.next_timed_out(self.sessions.under_way(), now) {
            if let Some(pid) = self.sessions.recorder().mlet_timed_out(id) {
                warn!(
                    session = id,
                    "the mlet, pid {pid}, ran too long (--mlet-timeout); ending it"
                );
                self.end_mlet(id, pid, Graces { eof: Duration::ZERO, ..self.graces() });
            }
        }
    }

    /// Nothing was relayed in a session for too long: its mlet reads the end, and must heed it.
    pub(super) fn end_idle_mlet(&mut self, id: SessionId) {
        if let Some(pid) = self.sessions.idle(id) {
            self.end_mlet(id, pid, self.graces());
        }
    }

    /// A session is killed: its mlet is ended, as soon as it runs.
    pub(super) fn end_mlet_of(&mut self, id: SessionId) {
        if let Some(pid) = self.sessions.recorder().kill(id) {
            self.end_mlet(id, pid, self.graces_of(id));
        }
    }

    /// How long the mlet of this session is given: no longer than others leave its endpoint alone, if its permit is lost.
    pub(super) fn graces_of(&self, id: SessionId) -> Graces {
        match self.sessions.under_way().has_lost_claim(id) {
            true => self.graces().within(self.permitting.lost_left(now())),
            false => self.graces(),
        }
    }

    /// How long mlets are given that are ended.
    pub(super) fn graces(&self) -> Graces {
        let Limits { eof_grace, term_grace, .. } = self.experiments.limits;
        Graces { eof: eof_grace, term: term_grace }
    }

    /// Has one mlet ended by the supervisor, unless it ends by itself within the first grace.
    pub(super) fn end_mlet(&mut self, id: SessionId, pid: i32, graces: Graces) {
        self.supervisor.inner.end_one(MletOwner::Session(id), pid, graces);
    }
}
