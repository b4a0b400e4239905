//! What a run has come to, from its records: what its end, its judgement and every view of it are made of.
//!
//! Not here: how it is shown, and what is done about it. Invariant: each session counts once, and memory does not grow
//! with what peers say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::outcome::OutcomeKind;
use super::record::{SessionId, SessionRecord};
use crate::metrics::Distribution;
use crate::proto::session_end::{Force, Outcome};
use crate::sys::supervisor::MletStatus;
use packetlab::key::KeyId;

/// Different reasons that are counted; text of peers may be among them.
const REASONS_MAX: usize = 1000;

/// Sums over the sessions of a run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Sessions and connections by how they ended.
    pub outcomes: BTreeMap<OutcomeKind, u64>,
    /// Sessions past START that were not `ok`, and set-ups that failed after a verified certificate.
    pub failed: u64,
    /// Why sessions were not `ok`, with how many.
    pub reasons: BTreeMap<String, u64>,
    /// Limits that were reached, by their options, and how often.
    pub limits_hit: BTreeMap<&'static str, u64>,
    /// How long each phase took, by its name in records and by how the session ended.
    pub phases: BTreeMap<(&'static str, OutcomeKind), Phase>,
    /// Sessions whose START succeeded.
    pub served: u64,
    /// Connections that ended before START.
    pub failed_in_set_up: u64,
    /// How mlets ended.
    pub mlets: MletEnds,
    /// How long mlets took to start, from the answer to START on, also of sessions that are not over.
    pub mlet_starts: Distribution,
    /// Mlets whose output is lost, or not kept whole.
    pub outputs_lost: u64,
    /// The session past START that took the longest from accept to close.
    pub longest: Option<Longest>,
}

/// How many mlets ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MletEnds {
    /// With exit code 0.
    pub succeeded: u64,
    /// With another exit code.
    pub failed: u64,
    /// By a signal.
    pub signalled: u64,
    /// They could not be started.
    pub not_started: u64,
}

impl MletEnds {
    /// Those that did not end with exit code 0.
    #[must_use]
    pub fn all_failed(&self) -> u64 {
        self.failed + self.signalled + self.not_started
    }

    /// One more.
    pub(crate) fn add(&mut self, status: MletStatus) {
        *match status {
            MletStatus::Code(0) => &mut self.succeeded,
            MletStatus::Code(_) => &mut self.failed,
            MletStatus::Signal(_) => &mut self.signalled,
        } += 1;
    }
}

/// How long a phase took.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Phase {
    /// In each session that went through it.
    pub times: Distribution,
    /// In the one that took longest.
    pub max: Duration,
}

impl Phase {
    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let sessions = u32::try_from(self.times.count()).unwrap_or(u32::MAX);
        self.times.sum().checked_div(sessions).unwrap_or_default()
    }

    fn add(&mut self, took: Duration) {
        self.times.add(took);
        self.max = self.max.max(took);
    }
}

/// A session that took long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Longest {
    /// Its number.
    pub session: SessionId,
    /// Its endpoint.
    pub key: Option<KeyId>,
    /// From accept to close.
    pub lasted: Duration,
}

impl Summary {
    /// How many ended so.
    #[must_use]
    pub fn count(&self, outcome: OutcomeKind) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or_default()
    }

    /// How long each phase took, however the session ended.
    #[must_use]
    pub fn phases_of_all(&self) -> BTreeMap<&'static str, Phase> {
        let mut all = BTreeMap::<_, Phase>::new();
        for ((name, _), phase) in &self.phases {
            let sum = all.entry(*name).or_default();
            sum.times.add_all(&phase.times);
            sum.max = sum.max.max(phase.max);
        }
        all
    }

    /// A connection that ended so has no record.
    pub(crate) fn add_unrecorded(&mut self, outcome: OutcomeKind, limit: &'static str) {
        *self.outcomes.entry(outcome).or_default() += 1;
        *self.limits_hit.entry(limit).or_default() += 1;
    }

    /// A session is over.
    pub(crate) fn add(&mut self, record: &SessionRecord) {
        let outcome = record.outcome();
        *self.outcomes.entry(outcome).or_default() += 1;
        self.outputs_lost += u64::from(record.output.is_lost());
        self.failed += u64::from(record.is_failed());
        if let Some(reason) = record.reason() {
            self.add_reason(reason);
        }
        if let Some(limit) = record.end.as_ref().and_then(|end| limit_of(&end.outcome)) {
            *self.limits_hit.entry(limit).or_default() += 1;
        }
        for (name, took) in record.phases() {
            self.phases.entry((name, outcome)).or_default().add(took);
        }
        self.add_duration(record);
    }

    fn add_reason(&mut self, reason: String) {
        if let Some(count) = self.reasons.get_mut(&reason) {
            *count += 1;
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.insert(reason, 1);
        } else {
            *self.reasons.entry("other reasons".into()).or_default() += 1;
        }
    }

    fn add_duration(&mut self, record: &SessionRecord) {
        let account = &record.facts.account;
        let (Some(end), Some(_)) = (&record.end, account.start_answered) else { return };
        let lasted = end.lasted();
        if self.longest.is_none_or(|longest| lasted > longest.lasted) {
            let (session, key) = (record.facts.id, account.endpoint_key);
            self.longest = Some(Longest { session, key, lasted });
        }
    }
}

/// The option of the limit that ended a session so.
fn limit_of(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::MadeRoom | Outcome::MadeRoomOfKey(_) => Some("--handshakes-max"),
        Outcome::TooManyOfKey(_) => Some("--sessions-per-key-max"),
        Outcome::HandshakeTimeout => Some("--handshake-timeout"),
        Outcome::SetUpTimeout | Outcome::MletLate => Some("--setup-timeout"),
        Outcome::UndeliveredToEndpoint | Outcome::UndeliveredToMlet => Some("--drain-timeout"),
        Outcome::MletTimeout => Some("--mlet-timeout"),
        Outcome::IdleTimeout => Some("--idle-timeout"),
        Outcome::Forced(Force::Deadline) => Some("--deadline"),
        Outcome::Forced(Force::DrainLimit) => Some("--drain-limit"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::records::record::Mlet;
    use crate::records::tests::{ended, facts, whole_record};

    #[test]
    fn each_session_counts_once_and_strangers_do_not_fail_a_run() {
        let mut summary = Summary::default();
        for code in [0, 0, 3] {
            summary.add(&whole_record(MletStatus::Code(code)));
        }
        let stranger = Some(ended(1, Outcome::HandshakeTimeout));
        summary.add(&SessionRecord::new(facts(1), stranger, Mlet::None));
        summary.add_unrecorded(OutcomeKind::RefusedLimit, "--per-source-max");
        let expected = [
            (OutcomeKind::Ok, 2),
            (OutcomeKind::MletFailed, 1),
            (OutcomeKind::HandshakeTimeout, 1),
            (OutcomeKind::RefusedLimit, 1),
        ];
        assert_eq!(summary.outcomes, expected.into());
        assert_eq!(summary.failed, 1);
        assert_eq!(summary.reasons["mlet exit code 3"], 1);
        assert_eq!(
            summary.limits_hit,
            [("--handshake-timeout", 1), ("--per-source-max", 1)].into()
        );
        let all = &summary.phases_of_all()["run"];
        let sum = all.times.sum();
        assert_eq!((all.times.count(), all.max, all.mean()), (3, sum / 3, all.max));
        let of_ok = &summary.phases[&("run", OutcomeKind::Ok)];
        assert_eq!((of_ok.times.count(), of_ok.times.sum()), (2, sum / 3 * 2));
        assert_eq!(summary.longest.unwrap().session, 4120);
    }

    #[test]
    fn a_verified_endpoint_that_fails_in_set_up_fails_and_one_that_is_let_go_does_not() {
        for (outcome, failed) in [
            (Outcome::SetUpTimeout, 1),
            (Outcome::Cancelled, 0),
            (Outcome::NoPermit, 0),
            (Outcome::PermitsUsedUp, 0),
            (Outcome::NotChosen, 0),
            (Outcome::AlreadyMeasured, 0),
        ] {
            let mut facts = crate::records::tests::facts_of(1, crate::records::tests::start());
            facts.account.endpoint_key = Some(KeyId([1; 32]));
            let end = Some(ended(1, outcome));
            let mut summary = Summary::default();
            summary.add(&SessionRecord::new(Arc::new(facts), end, Mlet::None));
            assert_eq!(summary.failed, failed, "{:?}", summary.outcomes);
        }
    }

    #[test]
    fn reasons_that_peers_make_up_do_not_grow_without_end() {
        let mut summary = Summary::default();
        for number in 0..2 * REASONS_MAX {
            let end = Some(ended(1, Outcome::NoExperiment(Some(number.to_string()))));
            summary.add(&SessionRecord::new(facts(1), end, Mlet::None));
        }
        assert_eq!(summary.reasons.len(), REASONS_MAX + 1);
        assert_eq!(summary.reasons.values().sum::<u64>(), 2 * REASONS_MAX as u64);
    }
}
