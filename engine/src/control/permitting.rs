//! Permits for START on the control thread: who waits for one, and who has one and has not used it.
//!
//! Not here: who gets a permit and why (`permits/`), and what news of permits lead to (`permit_news.rs`). Invariant: a session
//! waits or has a permit, never both, and is forgotten when it has told of either's end.

use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::mailbox::SessionPlace;
use crate::permits::{Holder, PermitNews, Permits};
use crate::records::{Claim, SessionId};

/// Permits that are wanted, and those that are given and not used yet.
pub(super) struct Permitting {
    /// `None` where START needs none.
    permits: Option<Box<dyn Permits>>,
    /// News that ended a wait.
    heard: Option<PermitNews>,
    waiting: HashMap<SessionId, SessionPlace>,
    /// Sessions that may send START, or have.
    given: HashMap<SessionId, Claim>,
    /// Until when sessions may last whose permits hold no more; `None` when that is over.
    lost_until: Option<Instant>,
}

impl Permitting {
    /// Nobody waits yet.
    pub(super) fn new(permits: Option<Box<dyn Permits>>) -> Self {
        let (waiting, given) = (HashMap::new(), HashMap::new());
        Self { permits, heard: None, waiting, given, lost_until: None }
    }

    /// A session begins to wait for a permit.
    pub(super) fn want(&mut self, place: SessionPlace, holder: Holder) {
        if let Some(permits) = &mut self.permits {
            self.waiting.insert(place.id, place);
            permits.want(place.id, holder);
        }
    }

    /// A session gives its permit back, or waits no more.
    pub(super) fn free(&mut self, id: SessionId) {
        self.waiting.remove(&id);
        self.given.remove(&id);
        if let Some(permits) = &mut self.permits {
            permits.free(id);
        }
    }

    /// Which session gets it. One that waits no more has told so, and with that has given back what comes too late.
    pub(super) fn give(&mut self, id: SessionId, epoch: Option<u64>) -> Option<SessionPlace> {
        let place = self.waiting.remove(&id)?;
        self.given.insert(id, epoch.map_or(Claim::None, Claim::Held));
        Some(place)
    }

    /// Which session gets none.
    pub(super) fn refuse(&mut self, id: SessionId) -> Option<SessionPlace> {
        self.waiting.remove(&id)
    }

    /// Permits that were given hold no more. Their sessions may last until then.
    pub(super) fn lose(&mut self, until: Instant) {
        self.lost_until = Some(until);
        for claim in self.given.values_mut() {
            if let Claim::Held(epoch) = *claim {
                *claim = Claim::Lost(epoch);
            }
        }
    }

    /// How much longer sessions may last whose permits hold no more.
    pub(super) fn lost_left(&self, now: Instant) -> Duration {
        self.lost_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// One of them has begun, perhaps when that was over.
    pub(super) fn lose_late(&mut self, now: Instant) {
        self.lost_until.get_or_insert(now);
    }

    /// When [`Self::take_lost_over`] has something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lost_until
    }

    /// Whether their time has passed since this was called last.
    pub(super) fn take_lost_over(&mut self, now: Instant) -> bool {
        self.lost_until.take_if(|until| now >= *until).is_some()
    }

    /// So many sessions are possible at once from now on.
    pub(super) fn places(&mut self, sessions_max: usize) {
        if let Some(permits) = &mut self.permits {
            permits.places(sessions_max);
        }
    }

    /// Endpoints may have been missed.
    pub(super) fn missed(&mut self) {
        if let Some(permits) = &mut self.permits {
            permits.missed();
        }
    }

    /// The permit of a session whose START has succeeded.
    pub(super) fn begin(&mut self, id: SessionId) -> Claim {
        let Some(permits) = &mut self.permits else { return Claim::None };
        permits.begin(id);
        self.given.remove(&id).unwrap_or(Claim::None)
    }

    /// Waits for news; [`Self::next`] gives it. A wait that is dropped loses none.
    pub(super) async fn hear(&mut self) {
        let Some(permits) = &mut self.permits else { return pending().await };
        if self.heard.is_none() {
            self.heard = Some(poll_fn(|cx| permits.poll_news(cx)).await);
        }
    }

    /// The next news, if there is any.
    pub(super) fn next(&mut self) -> Option<PermitNews> {
        self.heard.take().or_else(|| {
            match self.permits.as_mut()?.poll_news(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(news) => Some(news),
                Poll::Pending => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::permits::Refusal;
    use crate::records::start;

    /// Tells what it is asked, and has the news that it was given.
    struct Scripted {
        asked: Sender<(&'static str, u64)>,
        news: VecDeque<PermitNews>,
    }

    impl Permits for Scripted {
        fn want(&mut self, session: u64, _: Holder) {
            self.asked.send(("want", session)).unwrap();
        }

        fn free(&mut self, session: u64) {
            self.asked.send(("free", session)).unwrap();
        }

        fn begin(&mut self, session: u64) {
            self.asked.send(("begin", session)).unwrap();
        }

        fn poll_news(&mut self, _: &mut Context<'_>) -> Poll<PermitNews> {
            self.news.pop_front().map_or(Poll::Pending, Poll::Ready)
        }
    }

    fn scripted(
        news: impl IntoIterator<Item = PermitNews>,
    ) -> (Permitting, Receiver<(&'static str, u64)>) {
        let (asked, told) = channel();
        let permits = Scripted { asked, news: news.into_iter().collect() };
        (Permitting::new(Some(Box::new(permits))), told)
    }

    fn place(id: SessionId) -> SessionPlace {
        SessionPlace { shard: 0, slot: 3, id }
    }

    const HOLDER: Holder = Holder::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));

    #[test]
    fn who_holds_a_permit_when_they_are_lost_is_told_so_when_its_start_succeeds_and_nobody_else() {
        let (mut permitting, _told) = scripted([]);
        (1..=3).for_each(|id| permitting.want(place(id), HOLDER));
        assert_eq!(permitting.give(1, Some(7)), Some(place(1)));
        assert_eq!(permitting.give(2, Some(1)), Some(place(2)));
        assert_eq!(permitting.begin(2), Claim::Held(1), "before");
        permitting.lose(start() + Duration::from_secs(1));
        assert_eq!(permitting.begin(1), Claim::Lost(7));
        assert_eq!(permitting.give(3, Some(1)), Some(place(3)), "it still waits");
        assert_eq!(permitting.begin(3), Claim::Held(1), "one that was given later");
    }

    #[test]
    fn sessions_whose_permits_are_lost_have_a_time_and_one_that_begins_later_has_none() {
        let (mut permitting, _told) = scripted([]);
        let (start, second) = (start(), Duration::from_secs(1));
        permitting.lose(start + second);
        assert_eq!(permitting.lost_left(start + second / 4), second * 3 / 4);
        assert!(!permitting.take_lost_over(start + second / 2));
        assert_eq!(permitting.due(), Some(start + second));
        assert!(permitting.take_lost_over(start + second));
        assert!(!permitting.take_lost_over(start + second), "it is told once");
        assert_eq!(permitting.lost_left(start + second), Duration::ZERO);
        permitting.lose_late(start + second * 2);
        assert!(permitting.take_lost_over(start + second * 2));
    }

    #[test]
    fn news_of_a_session_that_waits_no_more_are_not_heeded() {
        let (mut permitting, told) = scripted([]);
        (1..=2).for_each(|id| permitting.want(place(id), HOLDER));
        (1..=2).for_each(|id| permitting.free(id));
        assert_eq!(permitting.give(1, Some(1)), None);
        assert_eq!(permitting.refuse(2), None);
        let asked: Vec<_> = told.try_iter().collect();
        assert_eq!(asked, [("want", 1), ("want", 2), ("free", 1), ("free", 2)]);
        assert!(permitting.waiting.is_empty() && permitting.given.is_empty());
    }

    #[tokio::test]
    async fn news_that_end_a_wait_come_before_those_behind_them() {
        let refused = |session| PermitNews::Refused { session, why: Refusal::Busy };
        let (mut permitting, _told) = scripted([refused(1), PermitNews::Fenced(Duration::ZERO)]);
        permitting.hear().await;
        permitting.hear().await;
        assert_eq!(permitting.next(), Some(refused(1)));
        assert_eq!(permitting.next(), Some(PermitNews::Fenced(Duration::ZERO)));
        assert_eq!(permitting.next(), None);
    }

    #[test]
    fn where_nobody_permits_anything_nothing_is_kept() {
        let mut permitting = Permitting::new(None);
        permitting.want(place(1), HOLDER);
        assert!(permitting.waiting.is_empty());
        assert_eq!((permitting.begin(1), permitting.next()), (Claim::None, None));
    }
}
