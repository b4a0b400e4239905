//! What is told of sessions: a line of the log for each that is over, its record, and the sums.
//!
//! Not here: what a record holds and when it is complete (`records`), and the words of the log (`session_log.rs`).

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::clock::wall;
use super::session_log::{log_over, shown_key};
use crate::log_limit::LogLimit;
use crate::permits::ResultVerdict;
use crate::proto::endpoint_choice::Choice;
use crate::proto::session_end::Outcome;
use crate::records::{
    Claim, Command, Ended, Entry, Folding, Journal, Mlet, OutcomeKind, Output, Recorder,
    SessionFacts, SessionId, SessionRecord, ShardTotals, Summary,
};
use crate::run_error::RunError;
use crate::sys::recorder::{RecordedOutput, RecordedStream};
use crate::sys::supervisor::MletStatus;
use crate::view::RunView;
use packetlab::escape::Escaped;
use packetlab::key::KeyId;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Sums over its sessions.
    pub summary: Summary,
    /// LINFOs of endpoints that came too fast to be logged.
    pub linfos_lost: u64,
    /// Records or output of mlets are lost, and where was told.
    pub records_lost: bool,
    /// Why it ended before its time, if it did.
    pub failure: Option<RunError>,
    /// Why it is not good enough, if it is not.
    pub verdict: Option<String>,
}

/// The sessions of a run, as far as anything is told of them.
pub(super) struct Sessions {
    recorder: Recorder,
    choice: Arc<Choice>,
    journal: Option<Journal>,
    /// Their results are handed over with their records, and settled later.
    are_reported: bool,
    /// What runs is being ended, and with it the run.
    ends_by_force: bool,
    /// Those whose results are handed over and not settled.
    unsettled: HashMap<SessionId, SessionRecord>,
    /// Of connections whose certificate was never verified.
    strangers: Folding,
    /// Where their sums are.
    view: RunView,
    records_lost: bool,
    /// Keys of the endpoints that were served, while each session uses up one of `-n`.
    served_keys: Option<HashSet<KeyId>>,
    served_again: LogLimit,
    /// Of connections that ended before START.
    dropped: LogLimit,
    /// Of those among them for which a limit made no place, so that no other failure hides that one was reached.
    without_place: LogLimit,
    output_losses: LogLimit,
    refused_start: LogLimit,
    unaccepted: LogLimit,
}

impl Sessions {
    /// No session yet; `are_counted` for `-n`, `are_reported` where results are handed over. Records go to `journal`.
    pub(super) fn new(
        (are_counted, are_reported): (bool, bool),
        (journal, view): (Option<Journal>, RunView),
        choice: Arc<Choice>,
    ) -> Self {
        Self {
            recorder: Recorder::default(),
            choice,
            are_reported: are_reported && journal.is_some(),
            ends_by_force: false,
            unsettled: HashMap::new(),
            journal,
            strangers: Folding::default(),
            view,
            records_lost: false,
            served_keys: are_counted.then(HashSet::new),
            served_again: LogLimit::new("sessions of keys served before"),
            dropped: LogLimit::new("dropped connections"),
            without_place: LogLimit::new("connections that a limit made no place for"),
            output_losses: LogLimit::new("mlets whose output is lost"),
            refused_start: LogLimit::new("endpoints that the campaign refused"),
            unaccepted: LogLimit::new("results that were not accepted"),
        }
    }

    /// What its lines are limited by.
    pub(super) fn log_limits(&mut self) -> [&mut LogLimit; 6] {
        let Self { served_again, dropped, without_place, output_losses, .. } = self;
        let (refused_start, unaccepted) = (&mut self.refused_start, &mut self.unaccepted);
        [served_again, dropped, without_place, output_losses, refused_start, unaccepted]
    }

    /// The records that are under way.
    pub(super) fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// The same, to look at.
    pub(super) fn under_way(&self) -> &Recorder {
        &self.recorder
    }

    /// Sessions past START that are not over.
    pub(super) fn running(&self) -> usize {
        self.recorder.running()
    }

    /// Mlets that may still run.
    pub(super) fn running_mlets(&self) -> usize {
        self.recorder.running_mlets()
    }

    /// A session's START succeeded, for which it had `claim`. `own_mlet`: a mlet is started for it alone; `output`: what is
    /// known of what that writes.
    pub(super) fn begin(
        &mut self,
        facts: Arc<SessionFacts>,
        own_mlet_and_output: (bool, Output),
        claim: Claim,
        now: Instant,
    ) {
        self.add(|sums| sums.served += 1);
        if let (Some(keys), Some(key)) = (&mut self.served_keys, facts.account.endpoint_key)
            && !keys.insert(key)
            && let Some(left_out) = self.served_again.admit(now)
        {
            warn!(
                session = facts.id,
                "key {} was served before; each session counts for -n{left_out}",
                key.short()
            );
        }
        self.recorder.begin(facts, own_mlet_and_output, claim);
    }

    /// A session's mlet was started as this process so long ago; why its output is not kept as it should be, if it is not.
    /// Whether it is to be ended at once, because its session was idle meanwhile.
    pub(super) fn mlet_runs(
        &mut self,
        id: SessionId,
        (pid, output_errno): (i32, i32),
        (age, now): (Duration, Instant),
    ) -> bool {
        if output_errno != 0 {
            self.records_lost = true;
            if let Some(left_out) = self.output_losses.admit(now) {
                let error = io::Error::from_raw_os_error(output_errno);
                error!(
                    session = id,
                    "the mlet's output is lost: nothing takes it: {error}{left_out}"
                );
            }
        }
        let started = now.checked_sub(age).unwrap_or(now);
        let facts = self.recorder.facts(id);
        if let Some(answered) = facts.and_then(|facts| facts.account.start_answered) {
            let took = started.saturating_duration_since(answered);
            self.add(|sums| sums.mlet_starts.add(took));
        }
        self.recorder.mlet_runs(id, (pid, output_errno != 0), started)
    }

    /// The one mlet of all sessions was started.
    pub(super) fn singleton_runs(&mut self, output_errno: i32) {
        if output_errno != 0 {
            self.records_lost = true;
            let error = io::Error::from_raw_os_error(output_errno);
            error!("the singleton mlet's output is lost: nothing takes it: {error}");
        }
    }

    /// The one mlet of all sessions has ended; why what it wrote may not be whole, if so.
    pub(super) fn singleton_ended(&mut self, output_errno: i32) {
        if output_errno != 0 {
            self.records_lost = true;
            let error = io::Error::from_raw_os_error(output_errno);
            error!("the singleton mlet's output may not be whole: {error}");
        }
    }

    /// What a session's mlet wrote has been read to its end.
    pub(super) fn output_closed(&mut self, id: SessionId, output: RecordedOutput, now: Instant) {
        if output.errno != 0 {
            self.records_lost = true;
            if let Some(left_out) = self.output_losses.admit(now) {
                let error = io::Error::from_raw_os_error(output.errno);
                error!(session = id, "the mlet's output is not kept whole: {error}{left_out}");
            }
        }
        let record = self.recorder.output_closed(id, output);
        self.tell(record, now);
    }

    /// What the one mlet of all sessions wrote has been read to its end.
    pub(super) fn singleton_output_closed(&mut self, output: &RecordedOutput) {
        if output.errno != 0 {
            self.records_lost = true;
            let error = io::Error::from_raw_os_error(output.errno);
            error!("the singleton mlet's output is not kept whole: {error}");
        }
        for (name, stream) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            let RecordedStream { written, kept, .. } = stream;
            if kept < written {
                info!("of the singleton mlet's {name} {kept} of {written} bytes are kept");
            }
        }
    }

    /// The recorder is lost, and with it what it had not written.
    pub(super) fn lose_outputs(&mut self, now: Instant) {
        let records = self.recorder.lose_outputs();
        self.tell(records, now);
    }

    /// Output of mlets is lost, which was told.
    pub(super) fn note_loss(&mut self) {
        self.records_lost = true;
    }

    /// Mlets whose output is still read.
    pub(super) fn open_outputs(&self) -> usize {
        self.recorder.open_outputs()
    }

    pub(super) fn mlet_not_started(&mut self, id: SessionId, reason: String, now: Instant) {
        warn!(session = id, "the mlet could not be started: {reason}; the session ends");
        self.add(|sums| sums.mlets.not_started += 1);
        self.give_back_key_of(id);
        let record = self.recorder.mlet_not_started(id, reason);
        self.tell(record, now);
    }

    /// A session's mlet has ended; why what it wrote may not be whole, if so.
    pub(super) fn mlet_ended(
        &mut self,
        id: SessionId,
        (status, run_time): (MletStatus, Duration),
        (output_errno, now): (i32, Instant),
    ) {
        if output_errno != 0 {
            self.records_lost = true;
            if let Some(left_out) = self.output_losses.admit(now) {
                let error = io::Error::from_raw_os_error(output_errno);
                error!(session = id, "the mlet's output may not be whole: {error}{left_out}");
            }
            self.recorder.doubt_output(id);
        }
        self.add(|sums| sums.mlets.add(status));
        if status != MletStatus::Code(0) {
            self.give_back_key_of(id);
        }
        let record = self.recorder.mlet_ended(id, status, run_time);
        self.tell(record, now);
    }

    /// A session's mlet failed. Its endpoint may come again before the record is complete, which takes until it has closed.
    fn give_back_key_of(&self, id: SessionId) {
        if let Some(facts) = self.recorder.facts(id) {
            give_back_key(&self.choice, facts);
        }
    }

    /// The endpoint of a session has gone. That its mlet was reaped may be told much later.
    pub(super) fn endpoint_gone(&mut self, id: SessionId, reason: &str) {
        if let Some(facts) = self.recorder.endpoint_gone(id) {
            let (reason, key) = (Escaped(reason.as_bytes()), shown_key(facts));
            info!(session = id, "{reason}, key {key}; its mlet still runs");
        }
    }

    /// Nothing was relayed in a session for too long. The process of its mlet, if that runs.
    pub(super) fn idle(&mut self, id: SessionId) -> Option<i32> {
        info!(session = id, "nothing was relayed for too long (--idle-timeout); the session ends");
        self.recorder.idle(id)
    }

    /// The supervisor is lost, and with it the knowledge of every mlet.
    pub(super) fn lose_mlets(&mut self, now: Instant) {
        let records = self.recorder.lose_mlets();
        self.tell(records, now);
    }

    /// A connection's sockets are closed.
    pub(super) fn ended(&mut self, ended: Box<Ended>, now: Instant) {
        let record = self.recorder.ended(ended);
        self.tell(record, now);
    }

    /// A connection ended on which no endpoint came, or none got as far as a whole ClientHello. The log tells of it as a
    /// matter of the proxy.
    pub(super) fn backlog_lost(&mut self, ended: Box<Ended>, now: Instant) {
        // No endpoint had come on one that was let go because the run ends.
        if !matches!(ended.outcome, Outcome::Cancelled) {
            let record = self.recorder.ended(ended);
            record.into_iter().for_each(|record| self.record(record, now));
        }
    }

    /// A connection was closed before a session began, because too many of its address are in set-up.
    pub(super) fn refused(&mut self, now: Instant) {
        self.add(|sums| sums.add_unrecorded(OutcomeKind::RefusedLimit, "--per-source-max"));
        self.strangers.fold(OutcomeKind::RefusedLimit, now);
    }

    /// Whoever operates the run has asked for a change.
    pub(super) fn command(
        &mut self,
        words: &str,
        via: &'static str,
        done: &Result<String, String>,
    ) {
        if let Some(journal) = &mut self.journal {
            let command = Command { words: words.to_owned(), via, done: done.clone() };
            journal.push(Entry::Command(command, wall()));
        }
    }

    /// A shard has ended.
    pub(super) fn shard_ended(&mut self, totals: ShardTotals) {
        if let Some(journal) = &mut self.journal {
            journal.push(Entry::Shard(totals, wall()));
        }
    }

    /// Writes how many strangers have no record of their own, a second after the first of them.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.due().is_some_and(|due| now >= due) {
            self.record_folded();
        }
    }

    /// When [`Self::tend`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.journal.as_ref().and_then(|_| self.strangers.due())
    }

    fn record_folded(&mut self) {
        for (outcome, count) in self.strangers.take() {
            if let Some(journal) = &mut self.journal {
                journal.push(Entry::Folded(outcome, count, wall()));
            }
        }
    }

    /// Many sessions end at once, and none goes on. Those that end by that have no result: who leaves a campaign leaves what
    /// it still had to others.
    pub(super) fn end_by_force(&mut self) {
        self.ends_by_force = true;
        self.wait_for_records();
    }

    /// No session goes on: records may wait for room.
    fn wait_for_records(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.be_patient();
        }
    }

    /// The run is over: nothing more is told of what is left.
    pub(super) fn finish(&mut self, now: Instant) {
        self.wait_for_records();
        self.records_lost |= self.recorder.open_outputs() > 0;
        let records = self.recorder.finish();
        self.tell(records, now);
        self.record_folded();
        let unsettled: Vec<SessionId> = self.unsettled.keys().copied().collect();
        unsettled.into_iter().for_each(|id| self.settle(id, ResultVerdict::Unreported, now));
        if let Some(mut journal) = self.journal.take() {
            journal.push(Entry::RunEnd(self.view.sums(|sums| sums.outcomes.clone()), wall()));
            if let Some(unwritten) = journal.finish() {
                warn!("{unwritten}");
                self.records_lost = true;
            }
        }
    }

    /// Logs and writes what is known of sessions that are over in every respect.
    fn tell(&mut self, records: impl IntoIterator<Item = SessionRecord>, now: Instant) {
        for record in records {
            match record.mlet {
                Mlet::None => self.log_dropped(&record, now),
                _ => log_over(&record),
            }
            self.record(record, now);
        }
    }

    fn record(&mut self, record: SessionRecord, now: Instant) {
        if self.are_reported
            && matches!(record.claim, Claim::Held(_))
            && !record.is_cut_off(self.ends_by_force)
            && let Some(journal) = &mut self.journal
        {
            journal.push(Entry::Result(Box::new(record.clone()), wall()));
            self.unsettled.insert(record.facts.id, record);
            return;
        }
        self.complete(record, now);
    }

    /// It is over, and what it came to will not change.
    fn complete(&mut self, record: SessionRecord, now: Instant) {
        let outcome = record.outcome();
        self.add(|sums| sums.add(&record));
        self.view.session_ended(&record);
        if outcome != OutcomeKind::Ok {
            give_back_key(&self.choice, &record.facts);
        }
        let Some(journal) = &mut self.journal else { return };
        let is_stranger = record.facts.account.tls_done.is_none();
        if !is_stranger || self.strangers.admits(outcome, now) {
            journal.push(Entry::Session(Box::new(record), wall()));
        }
    }

    /// The result of a session was accepted, or not.
    pub(super) fn settle(&mut self, id: SessionId, verdict: ResultVerdict, now: Instant) {
        let Some(mut record) = self.unsettled.remove(&id) else { return };
        let told = match verdict {
            ResultVerdict::Accepted => "accepted",
            ResultVerdict::Duplicate => {
                "the campaign refused its result, as it no longer held the endpoint for this session"
            }
            ResultVerdict::Unreported => {
                "whether the campaign has its result is not known; it is in the records"
            }
            ResultVerdict::Unrecorded if record.output.is_lost() => {
                "its mlet's output may not be whole, so the campaign has no result of it; others may measure its endpoint"
            }
            ResultVerdict::Unrecorded => {
                "its record could not be written, so the campaign has no result of it; others may measure its endpoint"
            }
        };
        if verdict != ResultVerdict::Accepted
            && let Some(left_out) = self.unaccepted.admit(now)
        {
            warn!(session = id, "{told}{left_out}");
        }
        if verdict != ResultVerdict::Accepted {
            // Should it come again, the campaign knows whether it is to be measured.
            give_back_key(&self.choice, &record.facts);
        }
        record.claim = match (verdict, record.claim) {
            (ResultVerdict::Duplicate, Claim::Held(epoch)) => Claim::Refused(epoch),
            (ResultVerdict::Unrecorded, Claim::Held(epoch)) => Claim::GivenUp(epoch),
            (_, claim) => claim,
        };
        self.complete(record, now);
    }

    /// Sessions whose results were handed over and are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    fn log_dropped(&mut self, record: &SessionRecord, now: Instant) {
        let SessionRecord { facts, end: Some(end), .. } = record else { return };
        let outcome = &end.outcome;
        // Those that were let go because the run ends, or are not to be measured, have not failed.
        let was_let_go = matches!(
            outcome,
            Outcome::Cancelled
                | Outcome::PermitsUsedUp
                | Outcome::AlreadyMeasured
                | Outcome::NotChosen
                | Outcome::CampaignRefused(_)
        );
        self.add(|sums| sums.failed_in_set_up += u64::from(!was_let_go));
        let key = facts.account.endpoint_key;
        let key = key.map_or_else(String::new, |key| format!(", key {}", key.short()));
        let lasted = end.lasted().as_secs_f64();
        let (peer, reason) = (facts.peer.ip(), outcome.to_string());
        let reason = Escaped(reason.as_bytes());
        let dropped = format!("dropped {peer} after {lasted:.3} s{key}: {reason}");
        let admitted = match outcome {
            Outcome::CampaignRefused(why) => {
                // In a round everybody comes, and most are done: no more than a few lines, and none of them a warning.
                let (Some(left_out), peer) = (self.refused_start.admit(now), facts.peer.ip())
                else {
                    return;
                };
                return info!(session = facts.id, "{peer}{key} is not started: {why}{left_out}");
            }
            _ if was_let_go => None,
            Outcome::TooManyOfKey(_) | Outcome::MadeRoom | Outcome::MadeRoomOfKey(_) => {
                self.without_place.admit(now)
            }
            _ => self.dropped.admit(now),
        };
        match admitted {
            Some(left_out) => warn!(session = facts.id, "{dropped}{left_out}"),
            None => debug!(session = facts.id, "{dropped}"),
        }
    }

    /// Sessions whose START succeeded.
    pub(super) fn served(&self) -> u64 {
        self.view.sums(|sums| sums.served)
    }

    fn add(&self, add: impl FnOnce(&mut Summary)) {
        self.view.change(|state| add(&mut state.summary));
    }

    /// The sums.
    pub(super) fn into_report(self) -> Report {
        let summary = self.view.sums(Summary::clone);
        Report { summary, records_lost: self.records_lost, ..Report::default() }
    }
}

/// The endpoint of a session that is not `ok`, and will not be, may come again where each is measured once. Its shard knows
/// first, but of what became of the mlet.
fn give_back_key(choice: &Choice, facts: &SessionFacts) {
    if let Some(hold) = &facts.account.hold {
        choice.give_back(hold);
    }
}

#[cfg(test)]
mod tests;
