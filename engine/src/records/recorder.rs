//! The records that are under way: of sessions past START that have not ended in every respect.
//!
//! What ends a session is told by its shard, but for a mlet that ran too long: its shard sees it close like any other.
//! Not here: how they are written and synced (`journal.rs`), what is logged of them (`control/sessions.rs`), and the
//! time, which is an argument. Invariant: a session leaves with its record, and with nothing else.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::{Claim, Ended, Mlet, Output, SessionFacts, SessionId, SessionRecord};
use crate::proto::session_end::Outcome;
use crate::sys::recorder::RecordedOutput;
use crate::sys::supervisor::MletStatus;

/// A mlet by its age: when it was started, and for which session.
pub(crate) type Started = (Instant, SessionId);

/// The records under way.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    under_way: HashMap<SessionId, UnderWay>,
    /// Of these, how many have a mlet that may still run.
    running_mlets: usize,
    /// Of these, how many have output that is still read.
    open_outputs: usize,
    /// Of these, those whose mlet was started.
    by_age: BTreeSet<Started>,
    /// When the last one of all was.
    youngest: Option<Instant>,
}

/// A record under way.
#[derive(Debug)]
struct UnderWay {
    record: SessionRecord,
    /// What has begun to end the session, as far as that was told before its sockets were closed.
    begun: Option<Begun>,
    /// Somebody has killed it, whatever has ended its session.
    is_killed: bool,
}

/// What has begun to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    EndpointGone,
    IdleTimeout,
    MletTimeout,
    Killed,
}

impl Begun {
    /// The mlet is ended as well.
    fn ends_mlet(self) -> bool {
        matches!(self, Self::IdleTimeout | Self::Killed)
    }
}

impl UnderWay {
    /// Something begins to end the session, unless something has before.
    fn begin_end(&mut self, begun: Begun) {
        if self.record.end.is_none() {
            self.begun.get_or_insert(begun);
        }
    }
}

impl Recorder {
    /// A session's START succeeded, for which it had `claim`. `own_mlet`: a mlet is started for it alone; `output`: what is
    /// known of what that writes.
    pub(crate) fn begin(
        &mut self,
        facts: Arc<SessionFacts>,
        (own_mlet, output): (bool, Output),
        claim: Claim,
    ) {
        let mlet = if own_mlet { Mlet::Asked } else { Mlet::Shared };
        self.running_mlets += usize::from(own_mlet);
        self.open_outputs += usize::from(output == Output::Open);
        let mut record = SessionRecord::new(facts, None, mlet);
        (record.output, record.claim) = (output, claim);
        self.under_way.insert(record.facts.id, UnderWay { record, begun: None, is_killed: false });
    }

    /// Whose session this is, while its record is under way.
    pub(crate) fn facts(&self, id: SessionId) -> Option<&SessionFacts> {
        self.under_way.get(&id).map(|under_way| &*under_way.record.facts)
    }

    /// Sessions past START that are not over.
    pub(crate) fn running(&self) -> usize {
        self.under_way.len()
    }

    /// Mlets that may still run.
    pub(crate) fn running_mlets(&self) -> usize {
        self.running_mlets
    }

    /// Mlets whose output is still read, though they may have ended.
    pub(crate) fn open_outputs(&self) -> usize {
        self.open_outputs
    }

    /// Mlets that were started and have not ended.
    pub(crate) fn started_mlets(&self) -> usize {
        self.by_age.len()
    }

    /// Whose these are, with their processes and when they were started, oldest first.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = (&SessionFacts, i32, Instant)> {
        self.by_age.iter().filter_map(|(started, id)| {
            let under_way = self.under_way.get(id)?;
            Some((&*under_way.record.facts, under_way.record.mlet.pid()?, *started))
        })
    }

    /// All of them as far as they are known, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &SessionRecord> {
        self.under_way.values().map(|session| &session.record)
    }

    /// Those of endpoints whose key id begins with these hexadecimal digits.
    pub(crate) fn of_key(&self, digits: &str) -> Vec<SessionId> {
        let is_of_key = |facts: &SessionFacts| {
            let key = facts.account.endpoint_key;
            key.is_some_and(|key| key.to_string().starts_with(digits))
        };
        self.all()
            .map(|record| &*record.facts)
            .filter(|facts| is_of_key(facts))
            .map(|facts| facts.id)
            .collect()
    }

    /// The oldest mlet that is younger than that one, or of all.
    pub(crate) fn oldest_after(&self, started: Option<Started>) -> Option<Started> {
        let after = started.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_age.range((after, Bound::Unbounded)).next().copied()
    }

    /// The session is open, and has no mlet yet.
    pub(crate) fn awaits_mlet(&self, id: SessionId) -> bool {
        let awaits =
            |UnderWay { record, .. }: &UnderWay| record.mlet == Mlet::Asked && record.end.is_none();
        self.under_way.get(&id).is_some_and(awaits)
    }

    /// Its mlet was started, as this process; what it writes may go nowhere, though it should be kept. Whether it is to be
    /// ended at once, because its session was idle or killed meanwhile.
    pub(crate) fn mlet_runs(
        &mut self,
        id: SessionId,
        (pid, output_lost): (i32, bool),
        started: Instant,
    ) -> bool {
        if output_lost {
            self.set_output(id, Output::Lost);
        }
        let Some(UnderWay { record, begun, .. }) = self.under_way.get_mut(&id) else {
            return false;
        };
        // One behind the other, in the order in which they are told of, whatever the time between says.
        let behind = self.youngest.map(|youngest| youngest + Duration::from_nanos(1));
        let started = behind.map_or(started, |behind| started.max(behind));
        self.youngest = Some(started);
        (record.mlet, record.mlet_spawned) = (Mlet::Running(pid), Some(started));
        self.by_age.insert((started, id));
        begun.is_some_and(Begun::ends_mlet)
    }

    /// Its mlet could not be started. The record, if that was the last to come.
    pub(crate) fn mlet_not_started(
        &mut self,
        id: SessionId,
        reason: String,
    ) -> Option<SessionRecord> {
        self.set_output(id, Output::Uncounted);
        self.set_mlet(id, Mlet::NotStarted(reason))
    }

    /// Its mlet's output has been read to its end. The record, if that was the last to come.
    pub(crate) fn output_closed(
        &mut self,
        id: SessionId,
        output: RecordedOutput,
    ) -> Option<SessionRecord> {
        self.set_output(id, Output::Recorded(output));
        self.take_if_over(id)
    }

    /// Its mlet has ended, and its files of output may not be whole.
    pub(crate) fn doubt_output(&mut self, id: SessionId) {
        self.set_output(id, Output::Doubtful);
    }

    /// What is still to be read of outputs never will be. The records that waited for nothing else.
    pub(crate) fn lose_outputs(&mut self) -> Vec<SessionRecord> {
        let is_open = |(_, session): &(_, &UnderWay)| session.record.output == Output::Open;
        let ids = self.under_way.iter().filter(is_open).map(|(id, _)| *id);
        let ids: Vec<SessionId> = ids.collect();
        ids.iter().for_each(|id| self.set_output(*id, Output::Lost));
        ids.into_iter().filter_map(|id| self.take_if_over(id)).collect()
    }

    fn set_output(&mut self, id: SessionId, output: Output) {
        let Some(UnderWay { record, .. }) = self.under_way.get_mut(&id) else { return };
        self.open_outputs -= usize::from(record.output == Output::Open);
        record.output = output;
    }

    /// The one mlet of all sessions does not take this one.
    pub(crate) fn mlet_not_taken(&mut self, id: SessionId) {
        if let Some(UnderWay { record, .. }) = self.under_way.get_mut(&id) {
            record.mlet = Mlet::NotTaken;
        }
    }

    /// Its mlet has run as long as it may. The process to be ended, while it runs.
    pub(crate) fn mlet_timed_out(&mut self, id: SessionId) -> Option<i32> {
        let under_way = self.under_way.get_mut(&id)?;
        match &mut under_way.record.end {
            // It has closed its session and runs on, which is not how it should end.
            Some(end) if matches!(end.outcome, Outcome::MletEnded) => {
                end.outcome = Outcome::MletTimeout;
            }
            _ => under_way.begin_end(Begun::MletTimeout),
        }
        under_way.record.mlet.pid()
    }

    /// Nothing was relayed for too long. The mlet's process, which is to be ended, if it runs already.
    pub(crate) fn idle(&mut self, id: SessionId) -> Option<i32> {
        let under_way = self.under_way.get_mut(&id)?;
        under_way.begin_end(Begun::IdleTimeout);
        under_way.record.mlet.pid()
    }

    /// It is being ended already, and its mlet with it.
    pub(crate) fn is_being_ended(&self, id: SessionId) -> bool {
        let is = |one: &UnderWay| one.is_killed || one.begun.is_some_and(Begun::ends_mlet);
        self.under_way.get(&id).is_some_and(is)
    }

    /// It is killed. The process of its mlet, if that runs.
    pub(crate) fn kill(&mut self, id: SessionId) -> Option<i32> {
        let under_way = self.under_way.get_mut(&id)?;
        under_way.begin_end(Begun::Killed);
        under_way.is_killed = true;
        under_way.record.mlet.pid()
    }

    /// Permits that were given hold no more. The sessions that had one.
    pub(crate) fn lose_claims(&mut self) -> Vec<SessionId> {
        let lose = |UnderWay { record, .. }: &mut UnderWay| {
            let Claim::Held(epoch) = record.claim else { return None };
            record.claim = Claim::Lost(epoch);
            Some(record.facts.id)
        };
        self.under_way.values_mut().filter_map(lose).collect()
    }

    /// Its permit was lost while it was under way.
    pub(crate) fn has_lost_claim(&self, id: SessionId) -> bool {
        let is_lost = |one: &UnderWay| matches!(one.record.claim, Claim::Lost(_));
        self.under_way.get(&id).is_some_and(is_lost)
    }

    /// Its endpoint has gone. Who it was, if the mlet may still run.
    pub(crate) fn endpoint_gone(&mut self, id: SessionId) -> Option<&SessionFacts> {
        let under_way = self.under_way.get_mut(&id)?;
        under_way.begin_end(Begun::EndpointGone);
        let record = &under_way.record;
        (record.mlet.may_run() || record.mlet == Mlet::Shared).then_some(&*record.facts)
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
        let may_run = self.under_way.iter().filter(|(_, session)| session.record.mlet.may_run());
        let ids: Vec<SessionId> = may_run.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.set_mlet(id, Mlet::Lost)).collect()
    }

    fn set_mlet(&mut self, id: SessionId, mlet: Mlet) -> Option<SessionRecord> {
        let UnderWay { record, .. } = self.under_way.get_mut(&id)?;
        self.running_mlets -= usize::from(record.mlet.may_run());
        if let Some(started) = record.mlet_spawned {
            self.by_age.remove(&(started, id));
        }
        record.mlet = mlet;
        self.take_if_over(id)
    }

    /// A session's sockets are closed. The record, unless its mlet may still run.
    pub(crate) fn ended(&mut self, mut ended: Box<Ended>) -> Option<SessionRecord> {
        let id = ended.facts.id;
        let Some(UnderWay { record, begun, .. }) = self.under_way.get_mut(&id) else {
            let (facts, mlet) = (Arc::clone(&ended.facts), Mlet::None);
            return Some(SessionRecord::new(facts, Some(ended), mlet));
        };
        if *begun == Some(Begun::MletTimeout) {
            ended.outcome = Outcome::MletTimeout;
        }
        record.end = Some(ended);
        self.take_if_over(id)
    }

    fn take_if_over(&mut self, id: SessionId) -> Option<SessionRecord> {
        let is_over = |UnderWay { record, .. }: &&UnderWay| {
            record.end.is_some() && !record.mlet.may_run() && record.output != Output::Open
        };
        self.under_way.get(&id).filter(is_over)?;
        self.under_way.remove(&id).map(|UnderWay { record, .. }| record)
    }

    /// The run is over: the records of all that is left, of which no more will be told.
    pub(crate) fn finish(&mut self) -> Vec<SessionRecord> {
        let mut records = self.lose_mlets();
        records.append(&mut self.lose_outputs());
        let mut rest: Vec<_> = self.under_way.drain().map(|(_, session)| session.record).collect();
        rest.sort_unstable_by_key(|record| record.facts.id);
        records.append(&mut rest);
        records
    }
}
