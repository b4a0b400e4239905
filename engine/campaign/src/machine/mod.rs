//! What a member of a campaign asks of the database and when, and what the answers mean. Pure: time is an argument
//! (since the client began), connections are told of, and what is to be sent is asked for.
//!
//! ```text
//!           beat refused, or none for 0.8 lease                  leave
//!   Inside ------------------------------------> Outside   any ---------> Leaving
//!      ^       (what was waiting is refused)        |                        | all is reported and the last beat
//!      +--------------------------------------------+                        v answered, or LEAVE_MAX has passed
//!                 entered with a new id                                     Left
//! ```
//!
//! A batch is under way on one connection, a beat or an entry on the other. What was sent and not answered is sent again,
//! since each call may be repeated. Sessions are in `sessions.rs`.

mod batch;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::asks::{Ask, ClientNews, Fence, Refusal, Standing, State};
use crate::join_error::JoinError;
pub(crate) use batch::{Answer, Batch, BeatAnswer, ManagerId, TakeAnswer, TakeVerdict};
use sessions::Sessions;

/// A fifth of the lease lies between two beats, and not more than this, so that a stop is heard of in time.
const BEAT_EVERY_MAX: Duration = Duration::from_secs(5);

/// So long who leaves waits for what is not reported yet.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Of one trouble no more different texts are told.
const TROUBLES_MAX: usize = 8;

/// One member's part of a campaign.
pub(crate) struct Machine {
    lease: Duration,
    phase: Phase,
    places: u32,
    sessions: Sessions,
    batches: ConnectionState,
    beats: ConnectionState,
    beat_due: Duration,
    missed: Missed,
    last_standing: Standing,
    /// What has been told of the trouble that there is.
    trouble: Vec<String>,
    new_id: Box<dyn FnMut() -> ManagerId + Send>,
    news: VecDeque<ClientNews>,
}

enum Phase {
    /// A member whose lease was last renewed by what was asked at `renewed`.
    Inside {
        id: ManagerId,
        renewed: Duration,
    },
    /// Not a member; `id` is the one to enter with.
    Outside {
        id: ManagerId,
    },
    /// Nothing new is taken. `id` is the member's, or the one with which it may have entered without hearing of it: the last
    /// beat ends either, and changes nothing where there is none.
    Leaving {
        id: ManagerId,
        until: Duration,
    },
    Left,
}

/// A connection and what is under way on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    Down,
    Idle,
    Busy { asked: Duration },
}

/// Whether endpoints may have come in vain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missed {
    Nobody,
    Some,
    /// All that are known of are told of by the beat that is under way, or was when its connection went.
    Told,
}

/// What is to be asked on the connection for beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Enter { id: ManagerId },
    Renew { id: ManagerId, places: u32, is_leaving: bool, has_missed: bool },
}

/// What an answer to [`Beat`] says.
#[derive(Clone, Debug)]
pub(crate) enum BeatTold {
    Entered,
    /// The campaign takes nobody any more; how it stands.
    Ended(State),
    /// The campaign is gone, or is another.
    ShutOut(JoinError),
    Renewed(BeatAnswer),
}

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Batches,
    Beats,
}

pub(crate) struct Start {
    pub(crate) id: ManagerId,
    /// When `enter` was asked.
    pub(crate) entered: Duration,
    pub(crate) lease: Duration,
    pub(crate) n: Option<u64>,
    pub(crate) places: u32,
    pub(crate) fence: Fence,
    pub(crate) new_id: Box<dyn FnMut() -> ManagerId + Send>,
}

impl Machine {
    /// A member that has just entered; no connection is there yet.
    pub(crate) fn new(start: Start) -> Self {
        Self {
            lease: start.lease,
            phase: Phase::Inside { id: start.id, renewed: start.entered },
            places: start.places,
            sessions: Sessions::new(start.fence),
            batches: ConnectionState::Down,
            beats: ConnectionState::Down,
            beat_due: start.entered,
            missed: Missed::Nobody,
            last_standing: unknown_standing(start.n),
            trouble: Vec::new(),
            new_id: start.new_id,
            news: VecDeque::new(),
        }
    }

    pub(crate) fn ask(&mut self, now: Duration, ask: Ask) {
        let is_leaving = matches!(self.phase, Phase::Leaving { .. } | Phase::Left);
        match ask {
            Ask::Take { session, .. } if is_leaving => {
                self.news.push_back(ClientNews::Refused { session, why: Refusal::Stop });
            }
            Ask::Take { session, endpoint } => self.sessions.take(now, session, endpoint),
            Ask::Forget { session } => self.sessions.forget(session),
            Ask::Finish { session, outcome, record } => {
                self.sessions.finish(now, session, outcome, record, &mut self.news);
            }
            Ask::Places(places) => {
                if std::mem::replace(&mut self.places, places) != places {
                    self.beat_due = self.beat_due.min(now);
                }
            }
            Ask::Missed => self.missed = Missed::Some,
        }
    }

    /// Begins to leave: what waits is refused, what has ended is still reported.
    pub(crate) fn leave(&mut self, now: Duration) {
        let (Phase::Inside { id, .. } | Phase::Outside { id }) = self.phase else { return };
        self.sessions.refuse_waiting(Refusal::Stop, &mut self.news);
        self.phase = Phase::Leaving { id, until: now + LEAVE_MAX };
        self.beat_due = now;
    }

    pub(crate) fn has_left(&self) -> bool {
        matches!(self.phase, Phase::Left)
    }

    /// What is to be told to whoever asked.
    pub(crate) fn next_news(&mut self) -> Option<ClientNews> {
        self.news.pop_front()
    }

    pub(crate) fn connected(&mut self, which: Which) {
        *self.line(which) = ConnectionState::Idle;
        let are_both_there =
            self.batches != ConnectionState::Down && self.beats != ConnectionState::Down;
        if are_both_there && !self.trouble.is_empty() {
            self.beat_due = Duration::ZERO; // at once, so that it is told that all is well again
        }
    }

    /// The connection is gone, or could not be made. What was under way on it may or may not have been done.
    pub(crate) fn disconnected(&mut self, which: Which, why: &str) {
        let before = std::mem::replace(self.line(which), ConnectionState::Down);
        match which {
            Which::Batches => self.sessions.batch_unanswered(),
            Which::Beats => {
                if let ConnectionState::Busy { asked } = before {
                    self.beat_due = asked;
                }
            }
        }
        let is_new = !self.trouble.iter().any(|told| told == why);
        if is_new && self.trouble.len() < TROUBLES_MAX {
            self.trouble.push(why.to_owned());
            self.news.push_back(ClientNews::Trouble(why.to_owned()));
        }
    }

    fn line(&mut self, which: Which) -> &mut ConnectionState {
        match which {
            Which::Batches => &mut self.batches,
            Which::Beats => &mut self.beats,
        }
    }

    /// What is to be sent on the connection for batches, if it is free and anything waits.
    pub(crate) fn next_batch(&mut self, now: Duration) -> Option<Batch> {
        if self.batches != ConnectionState::Idle {
            return None;
        }
        let member = match self.phase {
            Phase::Inside { id, .. } | Phase::Leaving { id, .. } => Some(id),
            Phase::Outside { .. } | Phase::Left => None,
        };
        let batch = self.sessions.next_batch(member)?;
        self.batches = ConnectionState::Busy { asked: now };
        Some(batch)
    }

    pub(crate) fn batch_answered(&mut self, now: Duration, answer: &Answer) {
        // Who stood still for so long that he is fenced must not be told that he has won.
        self.tick(now);
        self.batches = ConnectionState::Idle;
        let is_fenced = self.sessions.batch_answered(answer, &mut self.news);
        // The place that an endpoint did not find may become free, and nobody else keeps that it has come.
        let is_full = |told: &TakeAnswer| told.verdict == TakeVerdict::Refused(Refusal::Full);
        if answer.verdicts.iter().any(is_full) {
            self.missed = Missed::Some;
        }
        if let (true, Phase::Inside { .. }) = (is_fenced, &self.phase) {
            self.fence(now);
        }
    }

    /// What is to be asked on the connection for beats, if it is free and it is time.
    pub(crate) fn next_beat(&mut self, now: Duration) -> Option<Beat> {
        if self.beats != ConnectionState::Idle || now < self.beat_due {
            return None;
        }
        let (places, has_missed) = (self.places, self.missed != Missed::Nobody);
        let renew = |id, is_leaving| Beat::Renew { id, places, is_leaving, has_missed };
        let beat = match self.phase {
            Phase::Inside { id, .. } => renew(id, false),
            Phase::Outside { id } => Beat::Enter { id },
            Phase::Leaving { id, until } => {
                let is_last = self.sessions.are_all_reported() || now >= until;
                renew(id, is_last)
            }
            Phase::Left => return None,
        };
        if let (true, Beat::Renew { .. }) = (has_missed, beat) {
            self.missed = Missed::Told;
        }
        self.beats = ConnectionState::Busy { asked: now };
        self.beat_due = now + (self.lease / 5).min(BEAT_EVERY_MAX);
        Some(beat)
    }

    pub(crate) fn beat_answered(&mut self, now: Duration, beat: Beat, told: BeatTold) {
        let ConnectionState::Busy { asked } = self.beats else { return };
        self.beats = ConnectionState::Idle;
        if let (Missed::Told, BeatTold::Renewed(_)) = (self.missed, &told) {
            self.missed = Missed::Nobody;
        }
        if self.batches != ConnectionState::Down && !self.trouble.is_empty() {
            self.trouble.clear();
            self.news.push_back(ClientNews::Recovered);
        }
        match (&mut self.phase, beat, told) {
            (Phase::Outside { id }, Beat::Enter { id: entered }, BeatTold::Entered)
                if *id == entered =>
            {
                self.phase = Phase::Inside { id: entered, renewed: asked };
                self.news.push_back(ClientNews::Entered);
                self.beat_due = now;
            }
            (_, Beat::Enter { .. }, BeatTold::Ended(state)) => {
                let last = self.last_standing.clone();
                self.stands(Standing { state, publish: false, ..last });
            }
            (_, Beat::Enter { .. }, BeatTold::ShutOut(why)) => {
                self.news.push_back(ClientNews::ShutOut(why));
            }
            (
                Phase::Inside { id, renewed },
                Beat::Renew { id: own, .. },
                BeatTold::Renewed(told),
            ) if *id == own => {
                if told.is_alive {
                    *renewed = asked;
                } else {
                    self.fence(now);
                }
                // Without one the campaign has been removed, as the next entry is told.
                if let Some(standing) = told.standing {
                    self.stands(standing);
                }
            }
            (Phase::Leaving { .. }, Beat::Renew { is_leaving: true, .. }, _) => self.end(),
            _ => {}
        }
    }

    fn stands(&mut self, standing: Standing) {
        self.last_standing = standing.clone();
        self.news.push_back(ClientNews::Standing(standing));
    }

    /// Does what it is time for.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.sessions.expire(now, &mut self.news) {
            self.missed = Missed::Some;
        }
        match self.phase {
            Phase::Inside { renewed, .. } if now >= renewed + self.fence_after() => self.fence(now),
            // Without a connection nobody will hear of it; with one, the last beat is still waited for.
            Phase::Leaving { until, .. } => {
                let is_due = now >= until;
                if now >= until + LEAVE_MAX || (is_due && self.beats == ConnectionState::Down) {
                    self.end();
                } else if is_due || self.sessions.are_all_reported() {
                    self.beat_due = self.beat_due.min(now);
                }
            }
            _ => {}
        }
    }

    /// Four fifths of a lease after the last renewal was asked for, which the server's lease outlasts.
    fn fence_after(&self) -> Duration {
        self.lease * 4 / 5
    }

    fn fence(&mut self, now: Duration) {
        self.sessions.fence(&mut self.news);
        self.news.push_back(ClientNews::Fenced);
        self.phase = Phase::Outside { id: (self.new_id)() };
        self.beat_due = now;
    }

    fn end(&mut self) {
        self.sessions.give_up(&mut self.news);
        self.phase = Phase::Left;
    }

    /// When [`Self::tick`], [`Self::next_batch`] or [`Self::next_beat`] has something to do, if nothing comes before.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let is_asked = matches!(self.beats, ConnectionState::Busy { .. });
        let place = match self.phase {
            Phase::Inside { renewed, .. } => Some(renewed + self.fence_after()),
            Phase::Outside { .. } | Phase::Left => None,
            Phase::Leaving { until, .. } if is_asked => Some(until + LEAVE_MAX),
            Phase::Leaving { until, .. } => Some(until),
        };
        let beat = (self.beats == ConnectionState::Idle).then_some(self.beat_due);
        [place, beat, self.sessions.next_expiry()].into_iter().flatten().min()
    }
}

/// Before the first beat.
fn unknown_standing(n: Option<u64>) -> Standing {
    Standing {
        state: State::Open,
        n,
        round: 1,
        wave: 1,
        publish: false,
        managers: 0,
        places: 0,
        taken: 0,
        done: 0,
        lost: 0,
        released: 0,
        spent: 0,
    }
}
