//! The sessions of one manager, from the ask to the report. Not leases and connections, which are the machine's.
//!
//! ```text
//!   Waiting --> Taking --won--> Held --Finish--> Finishing --> accepted or refused
//!      ^          |  |            |                  |
//!      |          |  |            |                  | for too long, or too much of it
//!      |          |  |            |                  v
//!      +-no answer+  +--refused   +--Forget-----> Returning --> given back
//! ```
//!
//! A session that is no longer wanted and may have been won without our knowing is given back as if it had been: the
//! database knows it by its number. What waits is bounded: sessions by the places of the manager, which asks once for
//! each, results by [`FINISHING_MAX_BYTES`] and [`FINISH_MAX`].

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::batch::{Answer, Batch, Finished, GivenBack, ManagerId, TakeVerdict};
use crate::asks::{ClientNews, Fence, Refusal, fit};

/// Endpoints that get no START leave after 10 s.
const TAKE_MAX: Duration = Duration::from_secs(9);

/// So long a result is repeated. It is in the journal, from which it can be imported.
const FINISH_MAX: Duration = Duration::from_secs(600);

/// So much of results is kept; then the oldest is given up.
const FINISHING_MAX_BYTES: usize = 64 << 20;

/// So many sessions are in one call.
const CALL_MAX: usize = 256;

/// So many bytes of results are in one call, so that a slow network does not use up its time.
const CALL_MAX_BYTES: usize = 1 << 20;

pub(super) struct Sessions {
    fence: Fence,
    all: HashMap<u64, Session>,
    /// Numbers of sessions in the order in which they are sent. One that is not in that state any more is passed over.
    taking: VecDeque<u64>,
    finishing: VecDeque<u64>,
    returning: VecDeque<u64>,
    /// When asks and results are given up, in order.
    take_ends: VecDeque<(Duration, u64)>,
    finish_ends: VecDeque<(Duration, u64)>,
    finishing_bytes: usize,
    under_way: Option<Batch>,
}

enum Session {
    /// `asked`: by whom it was sent before, without an answer.
    Waiting {
        endpoint: [u8; 32],
        asked: Option<ManagerId>,
    },
    /// In the batch under way.
    Taking {
        endpoint: [u8; 32],
        manager: ManagerId,
        is_wanted: bool,
    },
    Held {
        endpoint: [u8; 32],
        manager: ManagerId,
        epoch: u32,
    },
    Finishing(Finished),
    Returning(GivenBack),
}

impl Sessions {
    pub(super) fn new(fence: Fence) -> Self {
        Self {
            fence,
            all: HashMap::new(),
            taking: VecDeque::new(),
            finishing: VecDeque::new(),
            returning: VecDeque::new(),
            take_ends: VecDeque::new(),
            finish_ends: VecDeque::new(),
            finishing_bytes: 0,
            under_way: None,
        }
    }

    pub(super) fn take(&mut self, now: Duration, session: u64, endpoint: [u8; 32]) {
        self.all.entry(session).or_insert_with(|| {
            self.taking.push_back(session);
            self.take_ends.push_back((now + TAKE_MAX, session));
            Session::Waiting { endpoint, asked: None }
        });
    }

    pub(super) fn forget(&mut self, session: u64) {
        let Some(state) = self.all.get_mut(&session) else { return };
        match state {
            Session::Waiting { asked: None, .. } => {
                self.all.remove(&session);
            }
            Session::Taking { is_wanted, .. } => *is_wanted = false,
            Session::Waiting { endpoint, .. } | Session::Held { endpoint, .. } => {
                *state = unbegun(session, *endpoint);
                self.returning.push_back(session);
            }
            Session::Finishing(_) | Session::Returning(_) => {}
        }
    }

    pub(super) fn finish(
        &mut self,
        now: Duration,
        session: u64,
        outcome: String,
        record: String,
        news: &mut VecDeque<ClientNews>,
    ) {
        let Some(Session::Held { endpoint, manager, epoch }) = self.all.get(&session) else {
            // Fenced, so that the endpoint is somebody else's by now, or never won.
            news.push_back(ClientNews::Duplicate { session });
            return;
        };
        let kept = fit(&record);
        if kept.is_none() {
            news.push_back(ClientNews::RecordLeftOut { session, len_bytes: record.len() });
        }
        let finished = Finished {
            session,
            manager: *manager,
            endpoint: *endpoint,
            epoch: *epoch,
            outcome: outcome.replace('\0', "").into(),
            record: kept.as_deref().unwrap_or("null").into(),
        };
        self.finishing_bytes += held_bytes(&finished);
        self.all.insert(session, Session::Finishing(finished));
        self.finishing.push_back(session);
        self.finish_ends.push_back((now + FINISH_MAX, session));
        while self.finishing_bytes > FINISHING_MAX_BYTES {
            let Some((_, oldest)) = self.finish_ends.pop_front() else { break };
            self.unreported(oldest, news);
        }
    }

    /// A result is given up, if it is not reported by now. Its claim is given back as lost: kept, it would count as taken for
    /// as long as the manager is a member. Where the result was accepted unheard, or the manager is another by now, that
    /// changes nothing.
    fn unreported(&mut self, session: u64, news: &mut VecDeque<ClientNews>) {
        if let Some(Session::Finishing(finished)) = self.all.get(&session) {
            self.finishing_bytes -= held_bytes(finished);
            let given_back = GivenBack { session, endpoint: finished.endpoint, has_begun: true };
            self.all.insert(session, Session::Returning(given_back));
            self.returning.push_back(session);
            news.push_back(ClientNews::Unreported { session });
        }
    }

    /// All that waits, as far as one call of each kind takes it. Only a member takes and gives back.
    pub(super) fn next_batch(&mut self, member: Option<ManagerId>) -> Option<Batch> {
        let finish = self.next_finish();
        let manager = member.or_else(|| finish.first().map(|finished| finished.manager))?;
        let mut batch = Batch { manager, give_back: Vec::new(), finish, take: Vec::new() };
        if member.is_some() {
            while batch.give_back.len() < CALL_MAX {
                let Some(session) = self.returning.pop_front() else { break };
                if let Some(Session::Returning(given_back)) = self.all.get(&session) {
                    batch.give_back.push(*given_back);
                }
            }
            while batch.take.len() < CALL_MAX {
                let Some(session) = self.taking.pop_front() else { break };
                let Some(state) = self.all.get_mut(&session) else { continue };
                if let Session::Waiting { endpoint, .. } = *state {
                    *state = Session::Taking { endpoint, manager, is_wanted: true };
                    batch.take.push((session, endpoint));
                }
            }
        }
        let is_empty =
            batch.give_back.is_empty() && batch.finish.is_empty() && batch.take.is_empty();
        if is_empty {
            return None;
        }
        self.under_way = Some(batch.clone());
        Some(batch)
    }

    fn next_finish(&mut self) -> Vec<Finished> {
        let (mut chosen, mut bytes) = (Vec::<Finished>::new(), 0);
        while chosen.len() < CALL_MAX {
            let Some(session) = self.finishing.pop_front() else { break };
            let Some(Session::Finishing(finished)) = self.all.get(&session) else { continue };
            bytes += finished.record.len();
            let is_other = chosen.first().is_some_and(|first| first.manager != finished.manager);
            if is_other || (!chosen.is_empty() && bytes > CALL_MAX_BYTES) {
                self.finishing.push_front(session);
                break;
            }
            chosen.push(finished.clone());
        }
        chosen
    }

    /// Nobody knows what became of the batch under way: all of it waits again, in front.
    pub(super) fn batch_unanswered(&mut self) {
        let Some(batch) = self.under_way.take() else { return };
        for (session, _) in batch.take.iter().rev() {
            self.taken_without_answer(*session);
        }
        for finished in batch.finish.iter().rev() {
            self.finishing.push_front(finished.session);
        }
        for given_back in batch.give_back.iter().rev() {
            self.returning.push_front(given_back.session);
        }
    }

    fn taken_without_answer(&mut self, session: u64) {
        let Some(state) = self.all.get_mut(&session) else { return };
        let Session::Taking { endpoint, manager, is_wanted } = *state else { return };
        if is_wanted {
            *state = Session::Waiting { endpoint, asked: Some(manager) };
            self.taking.push_front(session);
        } else {
            *state = unbegun(session, endpoint);
            self.returning.push_front(session);
        }
    }

    /// Whether the answer says that the manager is none any more.
    pub(super) fn batch_answered(
        &mut self,
        answer: &Answer,
        news: &mut VecDeque<ClientNews>,
    ) -> bool {
        let Some(batch) = self.under_way.take() else { return false };
        for GivenBack { session, .. } in &batch.give_back {
            if let Some(Session::Returning(_)) = self.all.get(session) {
                self.all.remove(session);
            }
        }
        for finished in &batch.finish {
            let session = finished.session;
            if let Some(Session::Finishing(held)) = self.all.get(&session) {
                self.finishing_bytes -= held_bytes(held);
                self.all.remove(&session);
                let is_accepted = answer.accepted.contains(&(finished.endpoint, finished.epoch));
                news.push_back(match is_accepted {
                    true => ClientNews::Accepted { session },
                    false => ClientNews::Duplicate { session },
                });
            }
        }
        for told in &answer.verdicts {
            self.judged(told.session, told.verdict, news);
        }
        // One without a verdict is asked for again, after those that wait.
        for (session, _) in batch.take {
            self.taken_without_answer(session);
        }
        answer.verdicts.iter().any(|told| told.verdict == TakeVerdict::Fenced)
    }

    fn judged(&mut self, session: u64, verdict: TakeVerdict, news: &mut VecDeque<ClientNews>) {
        let Some(state) = self.all.get_mut(&session) else { return };
        let Session::Taking { endpoint, manager, is_wanted } = *state else { return };
        match verdict {
            TakeVerdict::Won(epoch) if is_wanted => {
                *state = Session::Held { endpoint, manager, epoch };
                news.push_back(ClientNews::Won { session, epoch });
            }
            TakeVerdict::Won(_) => {
                *state = unbegun(session, endpoint);
                self.returning.push_back(session);
            }
            TakeVerdict::Refused(why) => {
                self.all.remove(&session);
                if is_wanted {
                    news.push_back(ClientNews::Refused { session, why });
                }
            }
            // All of them are refused when the machine fences.
            TakeVerdict::Fenced => {}
        }
    }

    /// Gives up what has waited for too long. Whether an endpoint was turned away.
    pub(super) fn expire(&mut self, now: Duration, news: &mut VecDeque<ClientNews>) -> bool {
        let mut is_turned_away = false;
        while let Some((end, session)) = self.take_ends.front().copied() {
            if end > now {
                break;
            }
            self.take_ends.pop_front();
            let is_waiting = matches!(
                self.all.get(&session),
                Some(Session::Waiting { .. } | Session::Taking { is_wanted: true, .. })
            );
            if is_waiting {
                self.forget(session);
                news.push_back(ClientNews::Refused { session, why: Refusal::Unanswered });
                is_turned_away = true;
            }
        }
        while let Some((end, session)) = self.finish_ends.front().copied() {
            if end > now {
                break;
            }
            self.finish_ends.pop_front();
            self.unreported(session, news);
        }
        self.let_go_of_what_is_over();
        is_turned_away
    }

    /// Takes off the queues what has left its state, as far as it stands in front: they never hold more than that and
    /// what waits.
    fn let_go_of_what_is_over(&mut self) {
        let all = &self.all;
        let waits = |session: &u64| {
            matches!(all.get(session), Some(Session::Waiting { .. } | Session::Taking { .. }))
        };
        let finishes = |session: &u64| matches!(all.get(session), Some(Session::Finishing(_)));
        while self.taking.front().is_some_and(|session| !waits(session)) {
            self.taking.pop_front();
        }
        while self.take_ends.front().is_some_and(|(_, session)| !waits(session)) {
            self.take_ends.pop_front();
        }
        while self.finishing.front().is_some_and(|session| !finishes(session)) {
            self.finishing.pop_front();
        }
        while self.finish_ends.front().is_some_and(|(_, session)| !finishes(session)) {
            self.finish_ends.pop_front();
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let ends = [self.take_ends.front(), self.finish_ends.front()];
        ends.into_iter().flatten().map(|(end, _)| *end).min()
    }

    /// The manager has no claims any more. Those of which nothing is known are refused; those that were never sent wait
    /// for the next membership; results are still reported, as the database may not have marked the manager yet.
    pub(super) fn fence(&mut self, news: &mut VecDeque<ClientNews>) {
        let keeps_running = self.fence == Fence::Finish;
        let mut refused = Vec::new();
        self.all.retain(|session, state| match state {
            Session::Waiting { asked: None, .. } | Session::Finishing(_) => true,
            Session::Waiting { .. } | Session::Taking { is_wanted: true, .. } => {
                refused.push(*session);
                false
            }
            Session::Taking { .. } | Session::Returning(_) => false,
            Session::Held { .. } => keeps_running,
        });
        self.returning.clear();
        refused.sort_unstable();
        let refused = refused.into_iter();
        news.extend(refused.map(|session| ClientNews::Refused { session, why: Refusal::Fenced }));
    }

    /// Refuses what has not been answered; what may have been won is given back.
    pub(super) fn refuse_waiting(&mut self, why: Refusal, news: &mut VecDeque<ClientNews>) {
        let is_waiting = |state: &Session| {
            matches!(state, Session::Waiting { .. } | Session::Taking { is_wanted: true, .. })
        };
        let waiting = self.all.iter().filter(|(_, state)| is_waiting(state));
        let mut waiting = waiting.map(|(session, _)| *session).collect::<Vec<_>>();
        waiting.sort_unstable();
        for session in waiting {
            self.forget(session);
            news.push_back(ClientNews::Refused { session, why });
        }
    }

    /// Whether nothing is left to be told to the database; sessions that run do not count.
    pub(super) fn are_all_reported(&self) -> bool {
        self.all.values().all(|state| matches!(state, Session::Held { .. }))
    }

    /// Entries of the queues.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.taking.len().max(self.take_ends.len()) + self.finishing.len() + self.returning.len()
    }

    /// What is not reported by now never will be.
    pub(super) fn give_up(&mut self, news: &mut VecDeque<ClientNews>) {
        while let Some((_, session)) = self.finish_ends.pop_front() {
            self.unreported(session, news);
        }
    }
}

/// It has not begun and will not.
fn unbegun(session: u64, endpoint: [u8; 32]) -> Session {
    Session::Returning(GivenBack { session, endpoint, has_begun: false })
}

/// What a result costs while it waits: its record, and about so much for all around it.
fn held_bytes(finished: &Finished) -> usize {
    finished.record.len() + 256
}
