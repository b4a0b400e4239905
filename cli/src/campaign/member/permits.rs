//! What the engine asks goes to the campaign's client, and what that tells becomes news for the engine.
//!
//! Not here: the join and the leave. Invariant: nothing here waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::campaign::{Ask, Client, Fence, Standing, State};
use engine::permits::{
    Holder, PermitNews, Permits, Refusal, ResultVerdict, Results, SessionResult,
};
use packetlab::escape::Escaped;
use packetlab::words::counted;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{info, warn};

use super::shared::Shared;
use crate::campaign::texts;

/// Over which the rate of a campaign is told.
const MINUTE: Duration = Duration::from_secs(60);

/// This part of the lease is left to sessions when it is lost. A fifth is left then by our own clock; with half of that,
/// what ends them may come late.
const FENCE_PART: u32 = 10;

/// What the engine asks.
pub(super) struct MemberPermits {
    client: Shared<Client>,
    heard: UnboundedReceiver<::campaign::ClientNews>,
    /// Sessions that have no result, as their records or their mlets' output could not be kept; told by the thread that writes
    /// records.
    unrecorded: UnboundedReceiver<u64>,
    tell_unrecorded: UnboundedSender<u64>,
    /// News that are ready.
    told: VecDeque<PermitNews>,
    waves: Vec<String>,
    fence: Fence,
    /// So long sessions may last whose claims are lost.
    fenced_for: Duration,
    /// What stands behind the descriptors, while this manager publishes.
    published: Option<String>,
    /// How many endpoints were done when, within the last minute.
    done: VecDeque<(Instant, u64)>,
    /// How the campaign goes on, since it takes nobody any more.
    ended: Option<State>,
    /// Records that the campaign does not take.
    records_left_out: u64,
    /// The client's thread has ended, which it does not before the run.
    is_cut_off: bool,
    /// A session has no result, as its record or its mlet's output could not be kept, after which none is begun: each would
    /// use up a try of its endpoint.
    has_lost_record: bool,
}

impl MemberPermits {
    /// `fence` and `lease` say what becomes of sessions when the lease is lost, `waves` what is published.
    pub(super) fn new(
        client: Shared<Client>,
        heard: UnboundedReceiver<::campaign::ClientNews>,
        (waves, fence, lease): (Vec<String>, Fence, Duration),
    ) -> Self {
        let (tell_unrecorded, unrecorded) = unbounded_channel();
        let (told, done) = (VecDeque::new(), VecDeque::new());
        let (published, ended) = (None, None);
        Self {
            client,
            heard,
            unrecorded,
            tell_unrecorded,
            told,
            waves,
            fence,
            fenced_for: lease / FENCE_PART,
            published,
            done,
            ended,
            records_left_out: 0,
            is_cut_off: false,
            has_lost_record: false,
        }
    }

    /// Makes news for the engine of what was heard.
    fn take(&mut self, heard: ::campaign::ClientNews) {
        use ::campaign::ClientNews as Heard;
        let settled = |session, verdict| PermitNews::Settled { session, verdict };
        let news = match heard {
            Heard::Won { session, epoch } => {
                PermitNews::Given { session, epoch: Some(u64::from(epoch)) }
            }
            Heard::Refused { session, why } => PermitNews::Refused { session, why: refusal(why) },
            Heard::Accepted { session } => settled(session, ResultVerdict::Accepted),
            Heard::Duplicate { session } => settled(session, ResultVerdict::Duplicate),
            Heard::Unreported { session } => settled(session, ResultVerdict::Unreported),
            Heard::Standing(standing) => return self.take_standing(&standing),
            Heard::Fenced => {
                self.told.push_back(PermitNews::TakesPart(false));
                // Somebody else is to publish meanwhile.
                if self.published.take().is_some() {
                    self.told.push_back(PermitNews::Publish(None));
                }
                if self.fence == Fence::Finish {
                    return warn!(
                        "the lease of the campaign was lost: sessions that run may end, and their results may be \
                         refused (--fence finish)"
                    );
                }
                PermitNews::Fenced(self.fenced_for)
            }
            Heard::RecordLeftOut { session, len_bytes } => {
                self.records_left_out += 1;
                // Of many the log has few.
                if self.records_left_out.is_power_of_two() {
                    warn!(
                        session,
                        "campaign: the record has {len_bytes} bytes, too many for the campaign, which has the outcome \
                         alone; {} so far",
                        counted(self.records_left_out, "such record")
                    );
                }
                return;
            }
            Heard::ShutOut(why) => {
                // It is told again and again.
                if self.ended.replace(State::Halted) == Some(State::Halted) {
                    return;
                }
                PermitNews::Stop(format!("--campaign: {why}"))
            }
            Heard::Entered => {
                info!("a member of the campaign again");
                PermitNews::TakesPart(true)
            }
            Heard::Trouble(problem) => {
                warn!("campaign: {}", Escaped(problem.as_bytes()));
                PermitNews::Answering(false)
            }
            Heard::Recovered => {
                info!("campaign: the database answers again");
                PermitNews::Answering(true)
            }
        };
        self.told.push_back(news);
    }

    fn take_standing(&mut self, standing: &Standing) {
        let Standing { state, round, wave, publish, .. } = *standing;
        let told = self.told_of(standing, Instant::now());
        self.told.push_back(PermitNews::Standing(told));
        let publishes = publish && state == State::Open;
        let addition = publishes.then(|| texts::addition(round, wave, &self.waves));
        if addition != self.published {
            self.published.clone_from(&addition);
            self.told.push_back(PermitNews::Publish(addition));
        }
        if state == State::Open || self.ended == Some(state) {
            return;
        }
        self.ended = Some(state);
        let why = format!("the campaign is {state}");
        self.told.push_back(match state {
            State::Halted => PermitNews::Stop(why),
            State::Draining | State::Over | State::Open => PermitNews::Enough(why),
        });
    }
}

impl MemberPermits {
    /// Nobody renews the lease any more, nor takes results.
    fn cut_off(&mut self) {
        self.is_cut_off = true;
        let why = "the campaign's thread has ended, which is a defect: start this manager again";
        self.told.extend([PermitNews::Fenced(self.fenced_for), PermitNews::Stop(why.into())]);
    }

    /// What views are told.
    fn told_of(&mut self, standing: &Standing, now: Instant) -> engine::permits::CampaignSums {
        let Standing { n, round, wave, managers, places, taken, done, .. } = *standing;
        self.done.push_back((now, done));
        let is_old = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) > MINUTE;
        // The last one that is older tells how many there were a minute ago.
        while self.done.get(1).is_some_and(is_old) {
            self.done.pop_front();
        }
        let before = self.done.front().map_or(done, |(_, before)| *before);
        engine::permits::CampaignSums {
            wanted: n,
            managers: u64::from(managers),
            places,
            done,
            done_last_minute: done.saturating_sub(before),
            running: taken.saturating_sub(done),
            lost: standing.lost,
            given_back: standing.released,
            out_of_tries: standing.spent,
            round: u64::from(round),
            wave: u64::from(wave),
        }
    }
}

impl Permits for MemberPermits {
    fn want(&mut self, session: u64, holder: Holder) {
        match holder {
            Holder::Key(key) => self.client.ask(Ask::Take { session, endpoint: key.0 }),
            Holder::Address(_) => {
                self.told.push_back(PermitNews::Refused { session, why: Refusal::NoKey });
            }
        }
    }

    fn free(&mut self, session: u64) {
        self.client.ask(Ask::Forget { session });
    }

    fn begin(&mut self, _session: u64) {}

    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<PermitNews> {
        loop {
            if let Some(news) = self.told.pop_front() {
                return Poll::Ready(news);
            }
            if let Poll::Ready(Some(session)) = self.unrecorded.poll_recv(cx) {
                if !std::mem::replace(&mut self.has_lost_record, true) {
                    let why = "a record or a mlet's output could not be kept (is the disk full?), and others can measure \
                               what is left";
                    self.told.push_back(PermitNews::Enough(why.into()));
                }
                return Poll::Ready(PermitNews::Settled {
                    session,
                    verdict: ResultVerdict::Unrecorded,
                });
            }
            match self.heard.poll_recv(cx) {
                Poll::Ready(Some(heard)) => self.take(heard),
                Poll::Ready(None) if !self.is_cut_off => self.cut_off(),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn places(&mut self, sessions_max: usize) {
        self.client.ask(Ask::Places(u32::try_from(sessions_max).unwrap_or(u32::MAX)));
    }

    fn missed(&mut self) {
        self.client.ask(Ask::Missed);
    }

    fn results(&self) -> Option<Results> {
        let (client, tell) = (self.client.clone(), self.tell_unrecorded.clone());
        Some(Arc::new(move |session, result| match result {
            Some(SessionResult { outcome, record }) => {
                client.ask(Ask::Finish { session, outcome, record });
            }
            None => {
                client.ask(Ask::Forget { session });
                // It fails when the run is over.
                let _ = tell.send(session);
            }
        }))
    }
}

fn refusal(why: ::campaign::Refusal) -> Refusal {
    use ::campaign::Refusal as Told;
    match why {
        Told::Done => Refusal::Done,
        Told::Busy => Refusal::Busy,
        Told::Full => Refusal::Full,
        Told::Stop => Refusal::Stop,
        Told::Fenced => Refusal::Fenced,
        Told::Unanswered => Refusal::Unanswered,
        Told::Spent => Refusal::Spent,
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use ::campaign::JoinError;

    use super::*;

    fn member(fence: Fence) -> (MemberPermits, UnboundedSender<::campaign::ClientNews>) {
        let (sender, heard) = unbounded_channel();
        let waves = vec!["hostid=*0;".to_owned(), "hostid=*1;".to_owned()];
        let client = Shared::of_nobody();
        (MemberPermits::new(client, heard, (waves, fence, Duration::from_secs(60))), sender)
    }

    /// Of the lease of a minute.
    const SIX_SECONDS: Duration = Duration::from_secs(6);

    fn standing(state: State, publish: bool, (round, wave): (u32, u32)) -> ::campaign::ClientNews {
        ::campaign::ClientNews::Standing(Standing {
            state,
            n: None,
            round,
            wave,
            publish,
            managers: 1,
            places: 1,
            taken: 0,
            done: 0,
            lost: 0,
            released: 0,
            spent: 0,
        })
    }

    fn news(member: &mut MemberPermits) -> Vec<PermitNews> {
        let mut cx = Context::from_waker(Waker::noop());
        let all = std::iter::from_fn(|| match member.poll_news(&mut cx) {
            Poll::Ready(news) => Some(news),
            Poll::Pending => None,
        });
        // What views are told has a test of its own.
        all.filter(|news| !matches!(news, PermitNews::Standing(_))).collect()
    }

    #[test]
    fn who_is_elected_publishes_each_round_and_wave_once_and_nobody_publishes_when_shut_out() {
        let (mut member, hears) = member(Fence::Kill);
        for (publish, round_and_wave) in
            [(false, (1, 1)), (true, (1, 1)), (true, (1, 1)), (true, (1, 2)), (true, (2, 1))]
        {
            hears.send(standing(State::Open, publish, round_and_wave)).unwrap();
        }
        let published = |text: &str| PermitNews::Publish(Some(text.to_owned()));
        assert_eq!(
            news(&mut member),
            [
                published("round=1;hostid=*0;"),
                published("round=1;hostid=*1;"),
                published("round=2;hostid=*0;")
            ]
        );
        hears.send(::campaign::ClientNews::Fenced).unwrap();
        hears.send(standing(State::Open, false, (2, 1))).unwrap();
        hears.send(::campaign::ClientNews::Entered).unwrap();
        hears.send(standing(State::Open, true, (2, 1))).unwrap();
        assert_eq!(
            news(&mut member),
            [
                PermitNews::TakesPart(false),
                PermitNews::Publish(None),
                PermitNews::Fenced(SIX_SECONDS),
                PermitNews::TakesPart(true),
                published("round=2;hostid=*0;")
            ]
        );
    }

    #[test]
    fn a_session_of_which_not_all_could_be_kept_has_no_result_and_no_other_begins() {
        let (mut member, _hears) = member(Fence::Kill);
        let results = member.results().expect("they are wanted");
        let (outcome, record) = ("ok".to_owned(), "{}".to_owned());
        results(7, Some(SessionResult { outcome, record }));
        results(8, None);
        results(9, None);
        let told = news(&mut member);
        let settled = |session| PermitNews::Settled { session, verdict: ResultVerdict::Unrecorded };
        let [first, PermitNews::Enough(why), second] = &told[..] else { panic!("{told:?}") };
        assert!(why.starts_with("a record or a mlet's output could not be kept"), "{why}");
        assert_eq!((first, second), (&settled(8), &settled(9)));
    }

    #[test]
    fn a_client_whose_thread_ends_before_the_run_ends_the_run_and_says_so_once() {
        let (mut member, hears) = member(Fence::Finish);
        drop(hears);
        let told = news(&mut member);
        let [PermitNews::Fenced(SIX_SECONDS), PermitNews::Stop(why)] = &told[..] else {
            panic!("{told:?}")
        };
        assert!(why.contains("the campaign's thread has ended"), "{why}");
        assert_eq!(news(&mut member), []);
    }

    #[test]
    fn views_are_told_whether_the_database_answers() {
        let (mut member, hears) = member(Fence::Kill);
        hears.send(::campaign::ClientNews::Trouble("cut".into())).unwrap();
        hears.send(::campaign::ClientNews::Recovered).unwrap();
        assert_eq!(news(&mut member), [PermitNews::Answering(false), PermitNews::Answering(true)]);
    }

    #[test]
    fn with_fence_finish_sessions_go_on_when_the_lease_is_lost_and_no_endpoint_is_taken_in() {
        let (mut member, hears) = member(Fence::Finish);
        hears.send(::campaign::ClientNews::Fenced).unwrap();
        assert_eq!(news(&mut member), [PermitNews::TakesPart(false)]);
    }

    #[test]
    fn a_run_that_cannot_be_a_member_any_more_is_stopped_once_and_told_why() {
        let (mut member, hears) = member(Fence::Kill);
        let told = || ::campaign::ClientNews::ShutOut(JoinError::Unknown("eu26".to_owned()));
        hears.send(told()).unwrap();
        hears.send(told()).unwrap();
        let why = "--campaign: there is no campaign eu26 in the database: create it first";
        assert_eq!(news(&mut member), [PermitNews::Stop(why.to_owned())]);
    }

    #[test]
    fn the_end_of_a_campaign_is_told_once_and_then_its_halt() {
        let (mut member, hears) = member(Fence::Kill);
        for state in [State::Open, State::Draining, State::Draining, State::Halted, State::Halted] {
            hears.send(standing(state, true, (1, 1))).unwrap();
        }
        assert_eq!(
            news(&mut member),
            [
                PermitNews::Publish(Some("round=1;hostid=*0;".into())),
                PermitNews::Publish(None),
                PermitNews::Enough("the campaign is draining".into()),
                PermitNews::Stop("the campaign is halted".into()),
            ]
        );
    }

    #[test]
    fn views_are_told_how_many_were_done_in_the_last_minute() {
        let (mut member, _hears) = member(Fence::Kill);
        let ::campaign::ClientNews::Standing(first) = standing(State::Open, false, (1, 1)) else {
            panic!("a standing");
        };
        let start = Instant::now();
        let mut told = |seconds, taken, done| {
            let standing = Standing { taken, done, ..first.clone() };
            let told = member.told_of(&standing, start + Duration::from_secs(seconds));
            (told.running, told.done, told.done_last_minute)
        };
        assert_eq!(told(0, 12, 10), (2, 10, 0), "what was before is of no minute");
        assert_eq!(told(30, 40, 25), (15, 25, 15));
        assert_eq!(told(60, 40, 40), (0, 40, 30));
        assert_eq!(told(91, 40, 40), (0, 40, 15), "of 25 and later");
        assert_eq!(told(300, 40, 40), (0, 40, 0));
    }

    #[test]
    fn an_endpoint_without_a_key_is_refused_without_asking() {
        let (mut member, _hears) = member(Fence::Kill);
        member.want(7, Holder::Address([127, 0, 0, 1].into()));
        assert_eq!(news(&mut member), [PermitNews::Refused { session: 7, why: Refusal::NoKey }]);
    }
}
