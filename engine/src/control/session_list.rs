//! The list of sessions past START, with what each has relayed.
//!
//! What a session has relayed only its shard knows, and counts for its record anyway: shards are asked when somebody wants
//! the list, and told nothing otherwise.
//!
//! ```text
//! Resting --somebody asks, and what is known is too old--> Asking --all have answered, or some not in time--> Resting
//! ```
//! Not here: who asks, and what else is in the list (`orders.rs`). Invariant: a shard has one question at most, so that none pile up at one that stands
//! still; and nobody waits longer for the list than [`PATIENCE`].

use std::time::{Duration, Instant};

use super::steering::Asker;
use crate::mailbox::{Mailer, ToShard};
use crate::metrics::BothWays;
use crate::records::{RelayedBy, SessionId};

/// What shards have told is good for so long, whoever asks.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// How long is waited for shards. What one has not told by then is not known.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who asks for the list, and what shards have told for it.
#[derive(Debug, Default)]
pub(super) struct SessionList {
    phase: Phase,
    /// Of each shard, whether it still owes an answer, maybe to an earlier question.
    owes: Vec<bool>,
    /// By the number of the session, once the phase is over.
    told: Vec<RelayedBy>,
    /// Who waits for the list.
    askers: Vec<Asker>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Phase {
    #[default]
    Never,
    Asking(Instant),
    /// With when shards were asked.
    Resting(Instant),
}

impl SessionList {
    /// Somebody wants the list, which [`Self::take_askers`] tells when it can be had.
    pub(super) fn want(&mut self, asker: Asker, shards: &mut [Mailer<ToShard>], now: Instant) {
        self.askers.push(asker);
        match self.phase {
            Phase::Resting(asked) if now.saturating_duration_since(asked) < GOOD_FOR => {}
            Phase::Asking(_) => {}
            Phase::Never | Phase::Resting(_) => {
                self.phase = Phase::Asking(now);
                self.told.clear();
                self.owes.resize(shards.len(), false);
                for (owes, shard) in self.owes.iter_mut().zip(shards).filter(|(owes, _)| !**owes) {
                    *owes = true;
                    shard.push(ToShard::TellRelayed);
                }
            }
        }
    }

    /// What the shard of this number has told.
    pub(super) fn take_told(&mut self, shard: usize, sessions: Vec<RelayedBy>) {
        if let Some(owes) = self.owes.get_mut(shard) {
            *owes = false;
        }
        if matches!(self.phase, Phase::Asking(_)) {
            self.told.extend(sessions);
        }
    }

    /// Until when is waited for shards.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Asking(asked) => Some(asked + PATIENCE),
            Phase::Never | Phase::Resting(_) => None,
        }
    }

    /// Those who are to get the list now.
    pub(super) fn take_askers(&mut self, shards: &[Mailer<ToShard>], now: Instant) -> Vec<Asker> {
        if let Phase::Asking(asked) = self.phase {
            let owes = |(owes, shard): (&bool, &Mailer<ToShard>)| *owes && !shard.is_gone();
            if now < asked + PATIENCE && self.owes.iter().zip(shards).any(owes) {
                return Vec::new();
            }
            self.told.sort_unstable_by_key(|(id, _)| *id);
            self.phase = Phase::Resting(asked);
        }
        std::mem::take(&mut self.askers)
    }

    /// What a session has relayed, as far as it was told.
    pub(super) fn bytes(&self, id: SessionId) -> Option<BothWays<u64>> {
        let at = self.told.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.told.get(at).map(|(_, bytes)| *bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::now;
    use super::*;
    use crate::mailbox::{Inbox, mailbox};

    struct Scene {
        list: SessionList,
        mailers: Vec<Mailer<ToShard>>,
        inboxes: Vec<Inbox<ToShard>>,
        now: Instant,
    }

    impl Scene {
        fn of(shards: usize) -> Self {
            let (mailers, inboxes) = (0..shards).map(|_| mailbox().unwrap()).unzip();
            Self { list: SessionList::default(), mailers, inboxes, now: now() }
        }

        fn want(&mut self) {
            self.list.want(Asker::deaf(), &mut self.mailers, self.now);
        }

        /// How many questions have come to each shard since this was asked last.
        fn questions(&mut self) -> Vec<usize> {
            self.mailers.iter_mut().for_each(|mailer| assert!(mailer.flush()));
            let asked = |inbox: &Inbox<ToShard>| std::iter::from_fn(|| inbox.next()).count();
            self.inboxes.iter().map(asked).collect()
        }

        fn answered(&mut self) -> usize {
            self.list.take_askers(&self.mailers, self.now).len()
        }

        fn tell(&mut self, shard: usize, id: SessionId, bytes: u64) {
            let bytes = BothWays { to_endpoint: bytes, from_endpoint: 2 * bytes };
            self.list.take_told(shard, vec![(id, bytes)]);
        }

        fn bytes(&self, id: SessionId) -> Option<u64> {
            self.list.bytes(id).map(|bytes| bytes.from_endpoint)
        }
    }

    #[test]
    fn shards_are_asked_once_a_second_whoever_asks_and_however_often() {
        let mut scene = Scene::of(2);
        scene.want();
        scene.want();
        assert_eq!((scene.questions(), scene.answered()), (vec![1, 1], 0));
        scene.tell(1, 8, 100);
        assert_eq!(scene.answered(), 0, "the other has not told");
        scene.tell(0, 5, 10);
        assert_eq!(scene.answered(), 2);
        assert_eq!([5, 8, 9].map(|id| scene.bytes(id)), [Some(20), Some(200), None]);
        scene.now += GOOD_FOR / 2;
        scene.want();
        assert_eq!(
            (scene.questions(), scene.answered()),
            (vec![0, 0], 1),
            "it is good for a while"
        );
        scene.now += GOOD_FOR / 2;
        scene.want();
        assert_eq!((scene.questions(), scene.answered()), (vec![1, 1], 0));
        assert_eq!(scene.bytes(5), None, "it is told anew");
    }

    #[test]
    fn a_shard_that_does_not_answer_in_time_is_not_waited_for_and_not_asked_again() {
        let mut scene = Scene::of(2);
        scene.want();
        assert_eq!(scene.questions(), [1, 1]);
        scene.tell(0, 5, 10);
        let due = scene.list.due().unwrap();
        assert_eq!(due, scene.now + PATIENCE);
        scene.now = due;
        assert_eq!((scene.answered(), scene.bytes(5)), (1, Some(20)));
        scene.now += GOOD_FOR;
        scene.want();
        assert_eq!(scene.questions(), [1, 0], "it still owes an answer");
        scene.tell(0, 5, 10);
        assert_eq!(scene.answered(), 0);
        scene.tell(1, 8, 100);
        assert_eq!((scene.answered(), scene.bytes(8)), (1, Some(200)));
        // What comes late is not part of what was told in time.
        scene.tell(1, 9, 1);
        assert_eq!(scene.bytes(9), None);
    }

    #[test]
    fn a_shard_that_has_ended_is_not_waited_for() {
        let mut scene = Scene::of(2);
        scene.want();
        scene.tell(0, 5, 10);
        assert_eq!(scene.answered(), 0);
        scene.inboxes.pop();
        assert_eq!(scene.answered(), 1);
    }
}
