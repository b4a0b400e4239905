//! A number of places, for connections or for handshakes.
//!
//! ```text
//! unsettled  has not yet done what it came for: of these the oldest has to leave when a newcomer finds no place
//! settled    keeps its place as long as no source needs it that has fewer
//! leaving    was asked to leave
//! ```
//!
//! So those that say nothing, or little and slowly, cannot keep others out. Where all have settled, whoever came
//! last of the source that has most has to leave, if the newcomer's source has at least two fewer: no two sources
//! can hold all places, and nobody leaves for a source that has as many. If nobody has to leave for it, a newcomer
//! is sent away, so that it holds up none behind it for whom somebody would.
//!
//! Who comes from a source that has its share is sent away; with handshakes, it waits until one of its own source
//! is over, and nobody else with it. Handshakes never settle, and nobody is sent away from one.
//! Not here: deadlines.
//!
//! Invariant: nobody has to leave before [`UNDISTURBED`] (a handshake: [`HANDSHAKE_UNDISTURBED`]) unless it has
//! settled. A newcomer has one leave, and another only if that one is still there as long after.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::source::Source;

/// Nobody has to leave who came later than so long ago: a peer far away takes some 300 ms for a round trip.
pub(crate) const UNDISTURBED: Duration = Duration::from_secs(1);

/// The same for handshakes. It is we who may be slow in one: on a busy host, with all of them under way, one
/// can take as long without any fault of its peer, and who is sent away comes again and costs another.
const HANDSHAKE_UNDISTURBED: Duration = Duration::from_secs(3);

/// Why somebody had to leave.
pub(crate) const MADE_ROOM: &str =
    "others wait for its place, and it has not done what it came for, or its source has most";

/// So many shares are remembered before those that nobody needs any more are looked for.
const FORGOTTEN_BEYOND: usize = 1024;

/// The places.
#[derive(Debug)]
pub(crate) struct Places {
    count: usize,
    permits: Arc<Semaphore>,
    per_source_max: usize,
    kind: Kind,
    holders: Mutex<Holders>,
}

/// What the places are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connections,
    Handshakes,
}

#[derive(Debug, Default)]
struct Holders {
    /// All that have not been asked to leave, in the order they came.
    by_source: HashMap<Source, BTreeMap<u64, Arc<Notify>>>,
    /// How many of them each source has.
    by_count: BTreeSet<(usize, Source)>,
    /// In the order they came.
    unsettled: BTreeMap<u64, Unsettled>,
    /// How many of each source have been asked to leave.
    leaving: HashMap<Source, usize>,
    /// How many there are, those that are leaving among them.
    count: usize,
    /// Number of the next one.
    next: u64,
    /// Where shares are waited for: those of the sources that are here or wait.
    shares: HashMap<Source, Weak<Semaphore>>,
    /// How many shares there may be before the next search for those that nobody needs.
    forget_at: usize,
}

#[derive(Debug)]
struct Unsettled {
    source: Source,
    since: Instant,
}

/// A taken place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    source: Source,
    number: u64,
    leave: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
    _of_share: Option<OwnedSemaphorePermit>,
}

/// Why a newcomer gets no place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// Its source has as many as it may have.
    SourceFull,
    /// All are taken, and its source has about as many as any other.
    NobodyLeaves,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceFull => {
                "its source has its share of connections in use (--per-source-percent)"
            }
            Self::NobodyLeaves => {
                "all connections that the limits allow are in use, and its source has as many as others"
            }
        })
    }
}

impl Places {
    /// So many places, of which one source may take so many.
    pub(crate) fn new(count: usize, per_source_max: usize) -> Arc<Self> {
        Self::of(Kind::Connections, count, per_source_max)
    }

    /// Places for so many handshakes, of which one source may have so many under way.
    pub(crate) fn for_handshakes(count: usize, per_source_max: usize) -> Arc<Self> {
        Self::of(Kind::Handshakes, count, per_source_max)
    }

    fn of(kind: Kind, count: usize, per_source_max: usize) -> Arc<Self> {
        let (permits, holders) = (semaphore(count), Mutex::default());
        Arc::new(Self { count, permits, per_source_max, kind, holders })
    }

    /// No place is free.
    pub(crate) fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Takes a place as soon as there is one.
    ///
    /// # Errors
    /// The source gets none, and with connections its newcomers do not wait for one.
    pub(crate) async fn enter(self: &Arc<Self>, source: Source) -> Result<Place, NoPlace> {
        let of_share = match self.kind {
            Kind::Handshakes if self.per_source_max < self.count => {
                Some(self.permit(self.share_of(source), source, true).await?)
            }
            Kind::Connections if self.holders().of(source) >= self.per_source_max => {
                return Err(NoPlace::SourceFull);
            }
            _ => None,
        };
        let permit = self.permit(Arc::clone(&self.permits), source, false).await?;
        let leave = Arc::new(Notify::new());
        let number = self.holders().enter(source, &leave);
        let places = Arc::clone(self);
        Ok(Place { places, source, number, leave, _permit: permit, _of_share: of_share })
    }

    /// Waits for one of `permits`, which are all of them or the share of the newcomer's source.
    async fn permit(
        &self,
        permits: Arc<Semaphore>,
        newcomer: Source,
        of_share: bool,
    ) -> Result<OwnedSemaphorePermit, NoPlace> {
        let mut permit = pin!(permits.acquire_owned());
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                // The error would be a closed semaphore; nobody closes it.
                permit = &mut permit => return permit.map_err(|_| NoPlace::NobodyLeaves),
                () = sleep_until(look_at) => {
                    look_at = self.make_room(newcomer, of_share, Instant::now())?;
                }
            }
        }
    }

    fn share_of(&self, source: Source) -> Arc<Semaphore> {
        let mut holders = self.holders();
        if let Some(share) = holders.shares.get(&source).and_then(Weak::upgrade) {
            return share;
        }
        if holders.shares.len() >= holders.forget_at.max(FORGOTTEN_BEYOND) {
            holders.shares.retain(|_, share| share.strong_count() > 0);
            // At twice as many the next time, so that a search is paid for by those who have come.
            holders.forget_at = 2 * holders.shares.len();
        }
        let share = semaphore(self.per_source_max);
        holders.shares.insert(source, Arc::downgrade(&share));
        share
    }

    /// Makes one holder leave for a newcomer, of its own source if it waits for its share. Says when to look
    /// again: also who was asked may stay, if it settles or ends in this very moment.
    fn make_room(
        &self,
        newcomer: Source,
        of_share: bool,
        now: Instant,
    ) -> Result<Instant, NoPlace> {
        let mut holders = self.holders();
        let undisturbed = self.undisturbed();
        let is_meant = |holder: &Unsettled| !of_share || holder.source == newcomer;
        let oldest = holders.unsettled.iter().find(|(_, holder)| is_meant(holder));
        if let Some((number, Unsettled { source, since })) = oldest {
            let disturbed = *since + undisturbed;
            if now < disturbed {
                return Ok(disturbed);
            }
            let (number, source) = (*number, *source);
            holders.ask_to_leave(number, source);
        } else if self.kind == Kind::Connections {
            // Otherwise one has got a place, or left one, and is not yet counted so.
            let is_full = holders.count >= self.count;
            match holders.last_of_most(newcomer) {
                Some((number, source)) => holders.ask_to_leave(number, source),
                None if is_full && holders.leaving.is_empty() => return Err(NoPlace::NobodyLeaves),
                None => {}
            }
        }
        Ok(now + undisturbed)
    }

    fn undisturbed(&self) -> Duration {
        match self.kind {
            Kind::Connections => UNDISTURBED,
            Kind::Handshakes => HANDSHAKE_UNDISTURBED,
        }
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holders {
    /// How many a source has.
    fn of(&self, source: Source) -> usize {
        self.staying(source) + self.leaving.get(&source).copied().unwrap_or_default()
    }

    fn staying(&self, source: Source) -> usize {
        self.by_source.get(&source).map_or(0, BTreeMap::len)
    }

    fn enter(&mut self, source: Source, leave: &Arc<Notify>) -> u64 {
        self.next += 1;
        self.count += 1;
        let number = self.next;
        self.change(source, |holders| holders.insert(number, Arc::clone(leave)));
        self.unsettled.insert(number, Unsettled { source, since: Instant::now() });
        number
    }

    /// Whoever came last of the source that has most, if that has two more than the newcomer's.
    fn last_of_most(&self, newcomer: Source) -> Option<(u64, Source)> {
        let (count, most) = *self.by_count.last()?;
        let (last, _) = self.by_source.get(&most)?.last_key_value()?;
        (count >= self.staying(newcomer) + 2).then_some((*last, most))
    }

    fn ask_to_leave(&mut self, number: u64, source: Source) {
        if let Some(leave) = self.remove(number, source) {
            *self.leaving.entry(source).or_default() += 1;
            leave.notify_one();
        }
    }

    /// It has left.
    fn leave(&mut self, number: u64, source: Source) {
        self.count -= 1;
        if self.remove(number, source).is_none()
            && let Some(leaving) = self.leaving.get_mut(&source)
        {
            *leaving -= 1;
            if *leaving == 0 {
                self.leaving.remove(&source);
            }
        }
    }

    fn remove(&mut self, number: u64, source: Source) -> Option<Arc<Notify>> {
        self.unsettled.remove(&number);
        self.change(source, |holders| holders.remove(&number))
    }

    fn change<T>(
        &mut self,
        source: Source,
        change: impl FnOnce(&mut BTreeMap<u64, Arc<Notify>>) -> T,
    ) -> T {
        let holders = self.by_source.entry(source).or_default();
        self.by_count.remove(&(holders.len(), source));
        let changed = change(holders);
        match holders.len() {
            0 => drop(self.by_source.remove(&source)),
            count => drop(self.by_count.insert((count, source))),
        }
        changed
    }
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

impl Place {
    /// Its holder has done what it came for and may stay, unless another source needs the place more.
    pub(crate) fn settle(&self) {
        self.places.holders().unsettled.remove(&self.number);
    }

    /// Waits until it has to leave. May be waited for where the place is not at hand.
    pub(crate) fn must_leave(&self) -> impl Future<Output = ()> + Send + use<> {
        let leave = Arc::clone(&self.leave);
        async move { leave.notified().await }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.holders().leave(self.number, self.source);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    #[tokio::test]
    async fn one_source_gets_no_more_than_its_share() {
        let places = Places::new(3, 2);
        let held = [places.enter(source(1)).await.unwrap(), places.enter(source(1)).await.unwrap()];
        assert_eq!(places.enter(source(1)).await.unwrap_err(), NoPlace::SourceFull);
        let _other = places.enter(source(2)).await.unwrap();
        assert!(places.is_full());
        drop(held);
        assert!(places.enter(source(1)).await.is_ok());
        assert_eq!(places.holders().by_source.len(), 1, "only the one that is still there");
    }

    async fn has_to_leave(place: &Place) -> bool {
        timeout(Duration::ZERO, place.must_leave()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_that_has_not_settled_leaves_for_a_newcomer_but_not_within_a_second() {
        let places = Places::new(3, 9);
        let enter = || async { places.enter(source(1)).await.unwrap() };
        let (settled, oldest, younger) = (enter().await, enter().await, enter().await);
        settled.settle();
        let now = Instant::now();
        let make_room = |now| places.make_room(source(1), false, now);
        assert!(make_room(now).is_ok_and(|at| at > now), "nobody leaves at once");
        assert_eq!(make_room(now + UNDISTURBED), Ok(now + 2 * UNDISTURBED));
        let leaving = [&settled, &oldest, &younger].map(has_to_leave);
        let [settled_leaves, oldest_leaves, younger_leaves] = leaving;
        assert!(!settled_leaves.await && oldest_leaves.await && !younger_leaves.await);
        // It is still there when the newcomer looks again: the next one.
        assert_eq!(make_room(now + 2 * UNDISTURBED), Ok(now + 3 * UNDISTURBED));
        assert!(has_to_leave(&younger).await);
        // Nobody else; but two are about to leave.
        assert_eq!(make_room(now + 3 * UNDISTURBED), Ok(now + 4 * UNDISTURBED));
        assert!(!has_to_leave(&settled).await, "who has settled stays");
    }

    /// Those that were asked stay: whoever waits is not forgotten.
    #[tokio::test]
    async fn a_newcomer_asks_another_when_the_first_stays() {
        let places = Places::new(2, 9);
        let _stays = places.enter(source(1)).await.unwrap();
        let leaves = places.enter(source(1)).await.unwrap();
        let leaving = async {
            leaves.must_leave().await;
            drop(leaves);
        };
        let (newcomer, ()) =
            timeout(60 * UNDISTURBED, async { tokio::join!(places.enter(source(2)), leaving) })
                .await
                .expect("the second was asked");
        assert!(newcomer.is_ok());
    }

    /// Two addresses that have done what they came for hold all places; a third has its turn at once.
    #[tokio::test]
    async fn no_two_sources_hold_all_places_and_nobody_leaves_for_one_that_has_as_many() {
        let places = Places::new(6, 3);
        let mut held = Vec::new();
        for last in [1, 1, 1, 2, 2, 2] {
            let place = places.enter(source(last)).await.unwrap();
            place.settle();
            held.push(place);
        }
        let now = Instant::now();
        // The two do not drive each other out, nor have their own leave.
        assert_eq!(places.enter(source(2)).await.unwrap_err(), NoPlace::SourceFull);
        assert_eq!(places.make_room(source(2), false, now), Err(NoPlace::NobodyLeaves));
        let mut left = Vec::new();
        for newcomer in [3, 3, 4] {
            assert!(places.make_room(source(newcomer), false, now).is_ok());
            let mut leaving = Vec::new();
            for (index, place) in held.iter().enumerate() {
                if has_to_leave(place).await {
                    leaving.push(index);
                }
            }
            let [index] = leaving[..] else { panic!("{leaving:?} leave") };
            let place = held.remove(index);
            left.push((place.source, place.number));
            drop(place);
            held.push(places.enter(source(newcomer)).await.unwrap());
            held.last().unwrap().settle();
        }
        // Whoever came last of the source that has most; then all have one or two.
        assert_eq!(left, [(source(2), 6), (source(1), 3), (source(3), 8)]);
        assert_eq!(places.make_room(source(4), false, now), Err(NoPlace::NobodyLeaves));
        assert_eq!(places.enter(source(4)).await.unwrap_err(), NoPlace::NobodyLeaves);
        assert!(places.make_room(source(5), false, now).is_ok());
        drop(held);
        let holders = places.holders();
        assert_eq!((holders.count, holders.by_count.len(), holders.leaving.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_newcomer_waits_until_somebody_has_left() {
        let places = Places::new(1, 9);
        let place = places.enter(source(1)).await.unwrap();
        let started = Instant::now();
        let leaving = async {
            place.must_leave().await;
            drop(place);
        };
        let (newcomer, ()) = tokio::join!(places.enter(source(2)), leaving);
        assert!(newcomer.is_ok());
        assert!(started.elapsed() >= UNDISTURBED - Duration::from_millis(50));
    }

    /// Many that have begun and go on no further, all from one address.
    #[tokio::test]
    async fn handshakes_of_one_source_beyond_its_share_make_only_that_source_wait() {
        let places = Places::for_handshakes(4, 2);
        let first = places.enter(source(1)).await.unwrap();
        let second = places.enter(source(1)).await.unwrap();
        let waiting: Vec<_> = (0..200).map(|_| Box::pin(places.enter(source(1)))).collect();
        let mut waiting = waiting.into_iter();
        let mut third = waiting.next().unwrap();
        let mut others: Vec<_> = waiting.collect();
        assert!(timeout(Duration::ZERO, &mut third).await.is_err(), "its source has its share");
        for other in &mut others {
            assert!(timeout(Duration::ZERO, other).await.is_err());
        }
        let newcomer = timeout(Duration::from_secs(30), places.enter(source(2)));
        let started = Instant::now();
        newcomer.await.unwrap().unwrap();
        assert!(started.elapsed() < UNDISTURBED, "{:?}", started.elapsed());
        assert!(!has_to_leave(&first).await, "nobody had to leave for it");
        drop(second);
        third.await.unwrap();
        drop((first, others));
        assert!(places.enter(source(1)).await.is_ok());
        assert_eq!(places.holders().by_source.len(), 0);
    }

    #[tokio::test]
    async fn for_a_handshake_that_waits_for_its_share_one_of_its_own_source_leaves() {
        let places = Places::for_handshakes(4, 1);
        let [foreign, own] = [places.enter(source(1)).await, places.enter(source(2)).await];
        let (foreign, own) = (foreign.unwrap(), own.unwrap());
        let later = Instant::now() + HANDSHAKE_UNDISTURBED;
        let make_room = || places.make_room(source(2), true, later);
        assert!(make_room().is_ok());
        assert!(has_to_leave(&own).await && !has_to_leave(&foreign).await);
        // It may be about to leave; one of another source does not for it.
        assert!(make_room().is_ok_and(|at| at > later));
        assert!(!has_to_leave(&foreign).await);
    }
}
