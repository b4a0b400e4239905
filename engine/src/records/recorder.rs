//! The records that are under way: of sessions past START that have not ended in every respect.
//!
//! Not here: what is logged of them (`control/sessions.rs`), and the time, which is an argument. Invariant: a session
//! leaves with its record, and with nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::{Ended, Mlet, SessionFacts, SessionId, SessionRecord};
use crate::sys::supervisor::MletStatus;

/// The records under way.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    under_way: HashMap<SessionId, SessionRecord>,
    /// Of these, how many have a mlet that may still run.
    running_mlets: usize,
}

impl Recorder {
    /// A session's START succeeded. `own_mlet`: a mlet is started for it alone.
    pub(crate) fn begin(&mut self, facts: Arc<SessionFacts>, own_mlet: bool) {
        let mlet = if own_mlet { Mlet::Asked } else { Mlet::Shared };
        self.running_mlets += usize::from(own_mlet);
        let record = SessionRecord::new(facts, None, mlet);
        self.under_way.insert(record.facts.id, record);
    }

    /// Sessions past START that are not over.
    pub(crate) fn running(&self) -> usize {
        self.under_way.len()
    }

    /// Mlets that may still run.
    pub(crate) fn running_mlets(&self) -> usize {
        self.running_mlets
    }

    /// The session is open, and has no mlet yet.
    pub(crate) fn awaits_mlet(&self, id: SessionId) -> bool {
        let awaits = |record: &SessionRecord| record.mlet == Mlet::Asked && record.end.is_none();
        self.under_way.get(&id).is_some_and(awaits)
    }

    /// Its mlet was started. `output_lost`: what it writes goes nowhere, though it should be kept.
    pub(crate) fn mlet_runs(&mut self, id: SessionId, output_lost: bool, now: Instant) {
        if let Some(record) = self.under_way.get_mut(&id) {
            (record.mlet, record.mlet_spawned) = (Mlet::Running, Some(now));
            record.output_lost = output_lost;
        }
    }

    /// Its mlet could not be started. The record, if that was the last to come.
    pub(crate) fn mlet_not_started(
        &mut self,
        id: SessionId,
        reason: String,
    ) -> Option<SessionRecord> {
        self.set_mlet(id, Mlet::NotStarted(reason))
    }

    /// The one mlet of all sessions does not take this one.
    pub(crate) fn mlet_not_taken(&mut self, id: SessionId) {
        if let Some(record) = self.under_way.get_mut(&id) {
            record.mlet = Mlet::NotTaken;
        }
    }

    /// Its mlet ended after `run_time`. The record, if that was the last to come.
    pub(crate) fn mlet_ended(
        &mut self,
        id: SessionId,
        status: MletStatus,
        run_time: Duration,
    ) -> Option<SessionRecord> {
        self.set_mlet(id, Mlet::Ended(status, run_time))
    }

    /// What becomes of mlets will not be known any more. The records that waited for nothing else.
    pub(crate) fn lose_mlets(&mut self) -> Vec<SessionRecord> {
        let may_run = self.under_way.values().filter(|record| record.mlet.may_run());
        let ids: Vec<SessionId> = may_run.map(|record| record.facts.id).collect();
        ids.into_iter().filter_map(|id| self.set_mlet(id, Mlet::Lost)).collect()
    }

    fn set_mlet(&mut self, id: SessionId, mlet: Mlet) -> Option<SessionRecord> {
        let record = self.under_way.get_mut(&id)?;
        self.running_mlets -= usize::from(record.mlet.may_run());
        record.mlet = mlet;
        self.take_if_over(id)
    }

    /// A session's sockets are closed. The record, unless its mlet may still run.
    pub(crate) fn ended(&mut self, ended: Box<Ended>) -> Option<SessionRecord> {
        let id = ended.facts.id;
        let Some(record) = self.under_way.get_mut(&id) else {
            let (facts, mlet) = (Arc::clone(&ended.facts), Mlet::None);
            return Some(SessionRecord::new(facts, Some(ended), mlet));
        };
        record.end = Some(ended);
        self.take_if_over(id)
    }

    fn take_if_over(&mut self, id: SessionId) -> Option<SessionRecord> {
        let is_over = |record: &&SessionRecord| record.end.is_some() && !record.mlet.may_run();
        self.under_way.get(&id).filter(is_over)?;
        self.under_way.remove(&id)
    }

    /// The run is over: the records of all that is left, of which no more will be told.
    pub(crate) fn finish(&mut self) -> Vec<SessionRecord> {
        let mut records = self.lose_mlets();
        let mut rest: Vec<_> = self.under_way.drain().map(|(_, record)| record).collect();
        rest.sort_unstable_by_key(|record| record.facts.id);
        records.append(&mut rest);
        records
    }
}
