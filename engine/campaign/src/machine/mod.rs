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

use crate::asks::{Ask, Fence, News, Refusal, Standing, State};
pub(crate) use batch::{Answer, Batch, BeatAnswer, ManagerId, TakeAnswer, Verdict};
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
    place: Place,
    places: u32,
    sessions: Sessions,
    batches: Line,
    beats: Line,
    beat_due: Duration,
    last_standing: Standing,
    /// What has been told of the trouble that there is.
    trouble: Vec<String>,
    new_id: Box<dyn FnMut() -> ManagerId + Send>,
    news: VecDeque<News>,
}

enum Place {
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
enum Line {
    Down,
    Idle,
    Busy { asked: Duration },
}

/// What is to be asked on the connection for beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Enter { id: ManagerId },
    Renew { id: ManagerId, places: u32, is_leaving: bool },
}

/// What an answer to [`Beat`] says.
#[derive(Clone, Debug)]
pub(crate) enum BeatTold {
    Entered,
    /// The campaign is gone, or takes no member; how it stands.
    NotEntered(State),
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
            place: Place::Inside { id: start.id, renewed: start.entered },
            places: start.places,
            sessions: Sessions::new(start.fence),
            batches: Line::Down,
            beats: Line::Down,
            beat_due: start.entered,
            last_standing: unknown_standing(start.n),
            trouble: Vec::new(),
            new_id: start.new_id,
            news: VecDeque::new(),
        }
    }

    pub(crate) fn ask(&mut self, now: Duration, ask: Ask) {
        let is_leaving = matches!(self.place, Place::Leaving { .. } | Place::Left);
        match ask {
            Ask::Take { session, .. } if is_leaving => {
                self.news.push_back(News::Refused { session, why: Refusal::Stop });
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
        }
    }

    /// Begins to leave: what waits is refused, what has ended is still reported.
    pub(crate) fn leave(&mut self, now: Duration) {
        let (Place::Inside { id, .. } | Place::Outside { id }) = self.place else { return };
        self.sessions.refuse_waiting(Refusal::Stop, &mut self.news);
        self.place = Place::Leaving { id, until: now + LEAVE_MAX };
        self.beat_due = now;
    }

    pub(crate) fn has_left(&self) -> bool {
        matches!(self.place, Place::Left)
    }

    /// What is to be told to whoever asked.
    pub(crate) fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    pub(crate) fn connected(&mut self, which: Which) {
        *self.line(which) = Line::Idle;
    }

    /// The connection is gone, or could not be made. What was under way on it may or may not have been done.
    pub(crate) fn disconnected(&mut self, which: Which, why: &str) {
        let before = std::mem::replace(self.line(which), Line::Down);
        match which {
            Which::Batches => self.sessions.batch_unanswered(),
            Which::Beats => {
                if let Line::Busy { asked } = before {
                    self.beat_due = asked;
                }
            }
        }
        let is_new = !self.trouble.iter().any(|told| told == why);
        if is_new && self.trouble.len() < TROUBLES_MAX {
            self.trouble.push(why.to_owned());
            self.news.push_back(News::Trouble(why.to_owned()));
        }
    }

    fn line(&mut self, which: Which) -> &mut Line {
        match which {
            Which::Batches => &mut self.batches,
            Which::Beats => &mut self.beats,
        }
    }

    /// What is to be sent on the connection for batches, if it is free and anything waits.
    pub(crate) fn next_batch(&mut self, now: Duration) -> Option<Batch> {
        if self.batches != Line::Idle {
            return None;
        }
        let member = match self.place {
            Place::Inside { id, .. } | Place::Leaving { id, .. } => Some(id),
            Place::Outside { .. } | Place::Left => None,
        };
        let batch = self.sessions.next_batch(member)?;
        self.batches = Line::Busy { asked: now };
        Some(batch)
    }

    pub(crate) fn batch_answered(&mut self, now: Duration, answer: &Answer) {
        // Who stood still for so long that he is fenced must not be told that he has won.
        self.tick(now);
        self.batches = Line::Idle;
        let is_fenced = self.sessions.batch_answered(answer, &mut self.news);
        if let (true, Place::Inside { .. }) = (is_fenced, &self.place) {
            self.fence(now);
        }
    }

    /// What is to be asked on the connection for beats, if it is free and it is time.
    pub(crate) fn next_beat(&mut self, now: Duration) -> Option<Beat> {
        if self.beats != Line::Idle || now < self.beat_due {
            return None;
        }
        let beat = match self.place {
            Place::Inside { id, .. } => Beat::Renew { id, places: self.places, is_leaving: false },
            Place::Outside { id } => Beat::Enter { id },
            Place::Leaving { id, until } => {
                let is_last = self.sessions.are_all_reported() || now >= until;
                Beat::Renew { id, places: self.places, is_leaving: is_last }
            }
            Place::Left => return None,
        };
        self.beats = Line::Busy { asked: now };
        self.beat_due = now + (self.lease / 5).min(BEAT_EVERY_MAX);
        Some(beat)
    }

    pub(crate) fn beat_answered(&mut self, now: Duration, beat: Beat, told: BeatTold) {
        let Line::Busy { asked } = self.beats else { return };
        self.beats = Line::Idle;
        if self.batches != Line::Down && !self.trouble.is_empty() {
            self.trouble.clear();
            self.news.push_back(News::Recovered);
        }
        match (&mut self.place, beat, told) {
            (Place::Outside { id }, Beat::Enter { id: entered }, BeatTold::Entered)
                if *id == entered =>
            {
                self.place = Place::Inside { id: entered, renewed: asked };
                self.news.push_back(News::Entered);
                self.beat_due = now;
            }
            (_, Beat::Enter { .. }, BeatTold::NotEntered(state)) => {
                let last = self.last_standing.clone();
                self.stands(Standing { state, publish: false, ..last });
            }
            (
                Place::Inside { id, renewed },
                Beat::Renew { id: own, .. },
                BeatTold::Renewed(told),
            ) if *id == own => {
                if told.is_alive {
                    *renewed = asked;
                } else {
                    self.fence(now);
                }
                // Without one the campaign has been removed: nothing can come of going on.
                let last = self.last_standing.clone();
                let gone = || Standing { state: State::Halted, publish: false, ..last };
                self.stands(told.standing.unwrap_or_else(gone));
            }
            (Place::Leaving { .. }, Beat::Renew { is_leaving: true, .. }, _) => self.end(),
            _ => {}
        }
    }

    fn stands(&mut self, standing: Standing) {
        self.last_standing = standing.clone();
        self.news.push_back(News::Standing(standing));
    }

    /// Does what it is time for.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.sessions.expire(now, &mut self.news);
        match self.place {
            Place::Inside { renewed, .. } if now >= renewed + self.fence_after() => self.fence(now),
            // Without a connection nobody will hear of it; with one, the last beat is still waited for.
            Place::Leaving { until, .. } => {
                let is_due = now >= until;
                if now >= until + LEAVE_MAX || (is_due && self.beats == Line::Down) {
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
        self.news.push_back(News::Fenced);
        self.place = Place::Outside { id: (self.new_id)() };
        self.beat_due = now;
    }

    fn end(&mut self) {
        self.sessions.give_up(&mut self.news);
        self.place = Place::Left;
    }

    /// When [`Self::tick`], [`Self::next_batch`] or [`Self::next_beat`] has something to do, if nothing comes before.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let is_asked = matches!(self.beats, Line::Busy { .. });
        let place = match self.place {
            Place::Inside { renewed, .. } => Some(renewed + self.fence_after()),
            Place::Outside { .. } | Place::Left => None,
            Place::Leaving { until, .. } if is_asked => Some(until + LEAVE_MAX),
            Place::Leaving { until, .. } => Some(until),
        };
        let beat = (self.beats == Line::Idle).then_some(self.beat_due);
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
