//! A member, its clock, and a scripted server.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::batch::GivenBack;
use super::super::*;

/// What the server of these tests knows: endpoints and who has them, and which results it has accepted.
#[derive(Default)]
pub(super) struct Server {
    pub(super) claims: BTreeMap<[u8; 32], (ManagerId, u64, bool)>,
    pub(super) given_back: Vec<u64>,
}

impl Server {
    pub(super) fn answer(&mut self, batch: &Batch) -> Answer {
        let mut answer = Answer::default();
        for GivenBack { session, endpoint, .. } in &batch.give_back {
            self.given_back.push(*session);
            if self.claims.get(endpoint).is_some_and(|claim| claim.1 == *session) {
                self.claims.remove(endpoint);
            }
        }
        for finished in &batch.finish {
            if let Some((manager, _, is_done)) = self.claims.get_mut(&finished.endpoint)
                && *manager == finished.manager
            {
                *is_done = true;
                answer.accepted.push((finished.endpoint, finished.epoch));
            }
        }
        for (session, endpoint) in &batch.take {
            let own = (batch.manager, *session, false);
            let claim = self.claims.entry(*endpoint).or_insert(own);
            let verdict = match claim {
                (_, _, true) => TakeVerdict::Refused(Refusal::Done),
                claim if *claim == own => TakeVerdict::Won(1),
                _ => TakeVerdict::Refused(Refusal::Busy),
            };
            answer.verdicts.push(TakeAnswer { session: *session, verdict });
        }
        answer
    }
}

/// A member, its clock, and the server.
pub(super) struct Rig {
    pub(super) machine: Machine,
    pub(super) now: Duration,
    pub(super) server: Server,
}

impl Rig {
    pub(super) fn with(fence: Fence) -> Self {
        let mut drawn = 0;
        let new_id = Box::new(move || {
            drawn += 1;
            ManagerId([drawn; 16])
        });
        let start = Start {
            id: ManagerId([0; 16]),
            entered: Duration::ZERO,
            lease: Duration::from_secs(60),
            n: Some(5),
            places: 10,
            fence,
            new_id,
        };
        Self { machine: Machine::new(start), now: Duration::ZERO, server: Server::default() }
    }

    pub(super) fn connected() -> Self {
        let mut rig = Self::with(Fence::Kill);
        rig.machine.connected(Which::Batches);
        rig.machine.connected(Which::Beats);
        rig
    }

    /// Jumps to that time, without a stop.
    pub(super) fn jump(&mut self, seconds: f64) {
        self.now = Duration::from_secs_f64(seconds);
        self.machine.tick(self.now);
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        self.machine.ask(self.now, ask);
    }

    pub(super) fn take(&mut self, session: u64) {
        self.ask(Ask::Take { session, endpoint: endpoint(session) });
    }

    pub(super) fn finish(&mut self, session: u64) {
        let (outcome, record) = ("ok".to_owned(), "{}".to_owned());
        self.ask(Ask::Finish { session, outcome, record });
    }

    pub(super) fn batch(&mut self) -> Option<Batch> {
        self.machine.next_batch(self.now)
    }

    /// Lets the server answer all that waits.
    pub(super) fn answer_all(&mut self) {
        while let Some(batch) = self.batch() {
            let answer = self.server.answer(&batch);
            self.machine.batch_answered(self.now, &answer);
        }
    }

    /// Lets the server answer a beat, if one is due.
    pub(super) fn beat(&mut self) -> Option<Beat> {
        let beat = self.machine.next_beat(self.now)?;
        let told = match beat {
            Beat::Enter { .. } => BeatTold::Entered,
            Beat::Renew { .. } => renewed(true),
        };
        self.machine.beat_answered(self.now, beat, told);
        Some(beat)
    }

    pub(super) fn news(&mut self) -> Vec<ClientNews> {
        let mut news = Vec::new();
        while let Some(told) = self.machine.next_news() {
            news.push(told);
        }
        news
    }

    pub(super) fn wins(&mut self, session: u64) {
        self.take(session);
        self.answer_all();
        assert_eq!(self.news().last(), Some(&ClientNews::Won { session, epoch: 1 }));
    }
}

pub(super) fn endpoint(session: u64) -> [u8; 32] {
    [u8::try_from(session).expect("few"); 32]
}

pub(super) fn renewed(is_alive: bool) -> BeatTold {
    BeatTold::Renewed(BeatAnswer { is_alive, standing: Some(unknown_standing(Some(5))) })
}

pub(super) fn refused(session: u64, why: Refusal) -> ClientNews {
    ClientNews::Refused { session, why }
}
