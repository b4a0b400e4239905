//! The sessions that ended last, for whoever looks at single ones while a run goes on. All of them are in the records.
//!
//! Not here: those whose TLS handshake was never over; of them outcomes tell. Invariant: there are few of them, and
//! each is short, whatever peers have said.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::last_outcomes::LastOutcomes;
use crate::metrics::BothWays;
use crate::records::{OutcomeKind, SessionRecord, bytes_of};
use packetlab::key::KeyId;

/// So many are kept.
const KEPT_MAX: usize = 1000;

/// What is kept of a reason, which may hold text of a peer.
const REASON_LEN_MAX: usize = 200;

/// A session whose record is complete.
#[derive(Debug, Clone)]
pub struct EndedSession {
    /// Its number.
    pub id: u64,
    /// Key id of its endpoint; `None` without a certificate.
    pub key: Option<KeyId>,
    /// The TCP peer.
    pub peer: SocketAddr,
    /// From accept until its sockets were closed, if that is known.
    pub lasted: Option<Duration>,
    /// Bytes of messages that it has relayed.
    pub bytes: BothWays<u64>,
    /// How it ended.
    pub outcome: OutcomeKind,
    /// Why it is not `ok`, or the beginning of that.
    pub reason: Option<String>,
    /// How the session of its key that had ended last did so, if it is known.
    pub last_outcome: Option<OutcomeKind>,
}

/// Those that ended last.
#[derive(Debug, Default)]
pub(super) struct EndedSessions {
    sessions: VecDeque<EndedSession>,
    last_outcomes: LastOutcomes,
}

impl EndedSessions {
    /// One more has ended.
    pub(super) fn add(&mut self, record: &SessionRecord) {
        let SessionRecord { facts, end, .. } = record;
        // Whoever never finishes a TLS handshake may make sessions end as often as it likes, and would displace all others.
        if facts.account.tls_done.is_none() {
            return;
        }
        if self.sessions.len() >= KEPT_MAX {
            self.sessions.pop_front();
        }
        let (key, outcome) = (facts.account.endpoint_key, record.outcome());
        self.sessions.push_back(EndedSession {
            id: facts.id,
            key,
            peer: facts.peer,
            lasted: end.as_ref().map(|end| end.lasted()),
            bytes: end.as_ref().map(|end| bytes_of(&end.relayed)).unwrap_or_default(),
            outcome,
            reason: record.reason().map(beginning),
            last_outcome: self.last_outcomes.of(key),
        });
        if let Some(key) = key {
            self.last_outcomes.add(key, outcome);
        }
    }

    /// How the latest session of each key has ended.
    pub(super) fn last_outcomes(&self) -> &LastOutcomes {
        &self.last_outcomes
    }

    /// The last one first.
    pub(super) fn latest_first(&self) -> Vec<EndedSession> {
        self.sessions.iter().rev().cloned().collect()
    }
}

fn beginning(text: String) -> String {
    text.chars().take(REASON_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::record_of_endpoint;

    #[test]
    fn the_last_of_many_are_kept_and_none_whose_handshake_was_not_over() {
        let mut ended = EndedSessions::default();
        for id in 0..KEPT_MAX as u64 + 7 {
            ended.add(&record_of_endpoint(id, true));
            ended.add(&record_of_endpoint(id, false));
        }
        let kept = ended.latest_first();
        assert_eq!(kept.len(), KEPT_MAX);
        assert_eq!((kept[0].id, kept[KEPT_MAX - 1].id), (KEPT_MAX as u64 + 6, 7));
        assert_eq!(kept[0].outcome, OutcomeKind::HandshakeTimeout);
        assert_eq!(beginning("\u{e9}".repeat(9_999)).chars().count(), REASON_LEN_MAX);
    }
}
