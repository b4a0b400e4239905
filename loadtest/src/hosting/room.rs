//! A number of seats, for connections or for handshakes.
//!
//! ```text
//! full     newcomers wait, first come first served
//!          for each of them, whoever has sat longest without having settled has to leave
//! settled  keeps its seat as long as it wants
//! ```
//!
//! So those that say nothing, or little and slowly, cannot keep others out. Who comes from a source that has its
//! share is sent away; with handshakes, it waits until one of its own source is over, and nobody else with it.
//! Not here: deadlines.
//!
//! Invariant: nobody has to leave before [`UNDISTURBED`] (a handshake: [`HANDSHAKE_UNDISTURBED`]), and no more
//! have to than newcomers wait.

use std::collections::{BTreeMap, HashMap};
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

/// So many shares are remembered before those that nobody needs any more are looked for.
const FORGOTTEN_BEYOND: usize = 1024;

/// The seats.
#[derive(Debug)]
pub(crate) struct Room {
    seats: Arc<Semaphore>,
    per_source_max: usize,
    /// Whoever comes from a source that has its share waits, and is not sent away.
    shares_are_waited_for: bool,
    undisturbed: Duration,
    guests: Mutex<Guests>,
}

#[derive(Debug, Default)]
struct Guests {
    by_source: HashMap<Source, usize>,
    /// Where shares are waited for: those of the sources that are here or wait.
    shares: HashMap<Source, Weak<Semaphore>>,
    /// How many shares there may be before the next search for those that nobody needs.
    forget_at: usize,
    /// In the order they came.
    unsettled: BTreeMap<u64, Unsettled>,
    /// Number of the next one.
    next: u64,
}

#[derive(Debug)]
struct Unsettled {
    source: Source,
    since: Instant,
    leave: Arc<Notify>,
}

/// A taken seat; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<Room>,
    source: Source,
    number: u64,
    leave: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
    _of_share: Option<OwnedSemaphorePermit>,
}

/// The source has as many seats as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SourceFull;

impl Room {
    /// So many seats, of which one source may take so many.
    pub(crate) fn new(seats: usize, per_source_max: usize) -> Arc<Self> {
        Arc::new(Self {
            seats: semaphore(seats),
            per_source_max,
            shares_are_waited_for: false,
            undisturbed: UNDISTURBED,
            guests: Mutex::default(),
        })
    }

    /// Room for so many handshakes, of which one source may have so many under way.
    pub(crate) fn for_handshakes(seats: usize, per_source_max: usize) -> Arc<Self> {
        Arc::new(Self {
            seats: semaphore(seats),
            per_source_max,
            shares_are_waited_for: per_source_max < seats,
            undisturbed: HANDSHAKE_UNDISTURBED,
            guests: Mutex::default(),
        })
    }

    /// No seat is free.
    pub(crate) fn is_full(&self) -> bool {
        self.seats.available_permits() == 0
    }

    /// Takes a seat as soon as there is one.
    ///
    /// # Errors
    /// The source has too many already, and its share is not waited for here.
    pub(crate) async fn enter(self: &Arc<Self>, source: Source) -> Result<Seat, SourceFull> {
        let of_share = if self.shares_are_waited_for {
            Some(self.permit(self.share_of(source), Some(source)).await?)
        } else if self.guests().by_source.get(&source).is_some_and(|n| *n >= self.per_source_max) {
            return Err(SourceFull);
        } else {
            None
        };
        let permit = self.permit(Arc::clone(&self.seats), None).await?;
        let leave = Arc::new(Notify::new());
        let mut guests = self.guests();
        guests.next += 1;
        let number = guests.next;
        *guests.by_source.entry(source).or_default() += 1;
        let unsettled = Unsettled { source, since: Instant::now(), leave: Arc::clone(&leave) };
        guests.unsettled.insert(number, unsettled);
        drop(guests);
        let room = Arc::clone(self);
        Ok(Seat { room, source, number, leave, _permit: permit, _of_share: of_share })
    }

    /// Waits for one of `seats`, which are all of them or the share of one source.
    async fn permit(
        &self,
        seats: Arc<Semaphore>,
        of: Option<Source>,
    ) -> Result<OwnedSemaphorePermit, SourceFull> {
        let mut permit = pin!(seats.acquire_owned());
        let mut look_at = Some(Instant::now());
        loop {
            tokio::select! {
                biased;
                // The error would be a closed semaphore; nobody closes it.
                permit = &mut permit => return permit.map_err(|_| SourceFull),
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    look_at = self.make_room(of, Instant::now());
                }
            }
        }
    }

    fn share_of(&self, source: Source) -> Arc<Semaphore> {
        let mut guests = self.guests();
        if let Some(share) = guests.shares.get(&source).and_then(Weak::upgrade) {
            return share;
        }
        if guests.shares.len() >= guests.forget_at.max(FORGOTTEN_BEYOND) {
            guests.shares.retain(|_, share| share.strong_count() > 0);
            // At twice as many the next time, so that a search is paid for by those who have come.
            guests.forget_at = 2 * guests.shares.len();
        }
        let share = semaphore(self.per_source_max);
        guests.shares.insert(source, Arc::downgrade(&share));
        share
    }

    /// Makes one guest leave, of a source if one is named; if that cannot be, says when to try again.
    fn make_room(&self, of: Option<Source>, now: Instant) -> Option<Instant> {
        let mut guests = self.guests();
        let is_meant = |guest: &Unsettled| of.is_none_or(|source| guest.source == source);
        let oldest = guests.unsettled.iter().find(|(_, guest)| is_meant(guest));
        let Some((number, since)) = oldest.map(|(number, guest)| (*number, guest.since)) else {
            return Some(now + self.undisturbed);
        };
        let disturbed = since + self.undisturbed;
        if now < disturbed {
            return Some(disturbed);
        }
        if let Some(guest) = guests.unsettled.remove(&number) {
            guest.leave.notify_one();
        }
        None
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn semaphore(seats: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(seats.min(Semaphore::MAX_PERMITS)))
}

impl Seat {
    /// Who sits here has done what it came for and may stay.
    pub(crate) fn settle(&self) {
        self.room.guests().unsettled.remove(&self.number);
    }

    /// Waits until it has to leave, which is never once it has settled. May be waited for where the seat
    /// is not at hand.
    pub(crate) fn must_leave(&self) -> impl Future<Output = ()> + Send + use<> {
        let leave = Arc::clone(&self.leave);
        async move { leave.notified().await }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut guests = self.room.guests();
        guests.unsettled.remove(&self.number);
        if let Some(taken) = guests.by_source.get_mut(&self.source) {
            *taken -= 1;
            if *taken == 0 {
                guests.by_source.remove(&self.source);
            }
        }
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
        let room = Room::new(3, 2);
        let seats = [room.enter(source(1)).await.unwrap(), room.enter(source(1)).await.unwrap()];
        assert_eq!(room.enter(source(1)).await.unwrap_err(), SourceFull);
        let _other = room.enter(source(2)).await.unwrap();
        assert!(room.is_full());
        drop(seats);
        assert!(room.enter(source(1)).await.is_ok());
        assert_eq!(room.guests().by_source.len(), 1, "only the one that is still there");
    }

    async fn has_to_leave(seat: &Seat) -> bool {
        timeout(Duration::ZERO, seat.must_leave()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_that_has_not_settled_leaves_for_a_newcomer_but_not_within_a_second() {
        let room = Room::new(3, 9);
        let enter = || async { room.enter(source(1)).await.unwrap() };
        let (settled, oldest, younger) = (enter().await, enter().await, enter().await);
        settled.settle();
        let now = Instant::now();
        assert!(room.make_room(None, now).is_some_and(|at| at > now), "nobody leaves at once");
        assert_eq!(room.make_room(None, now + UNDISTURBED), None);
        let leaving = [&settled, &oldest, &younger].map(has_to_leave);
        let [settled_leaves, oldest_leaves, younger_leaves] = leaving;
        assert!(!settled_leaves.await && oldest_leaves.await && !younger_leaves.await);
        assert_eq!(room.make_room(None, now + UNDISTURBED), None, "the next one");
        assert!(has_to_leave(&younger).await);
        let later = now + 9 * UNDISTURBED;
        assert!(room.make_room(None, later).is_some_and(|at| at > later), "who has settled stays");
    }

    #[tokio::test]
    async fn a_newcomer_waits_until_somebody_has_left() {
        let room = Room::new(1, 9);
        let seat = room.enter(source(1)).await.unwrap();
        let started = Instant::now();
        let leaving = async {
            seat.must_leave().await;
            drop(seat);
        };
        let (newcomer, ()) = tokio::join!(room.enter(source(2)), leaving);
        assert!(newcomer.is_ok());
        assert!(started.elapsed() >= UNDISTURBED - Duration::from_millis(50));
    }

    /// Many that have begun and go on no further, all from one address.
    #[tokio::test]
    async fn handshakes_of_one_source_beyond_its_share_make_only_that_source_wait() {
        let room = Room::for_handshakes(4, 2);
        let first = room.enter(source(1)).await.unwrap();
        let second = room.enter(source(1)).await.unwrap();
        let waiting: Vec<_> = (0..200).map(|_| Box::pin(room.enter(source(1)))).collect();
        let mut waiting = waiting.into_iter();
        let mut third = waiting.next().unwrap();
        let mut others: Vec<_> = waiting.collect();
        assert!(timeout(Duration::ZERO, &mut third).await.is_err(), "its source has its share");
        for other in &mut others {
            assert!(timeout(Duration::ZERO, other).await.is_err());
        }
        let newcomer = timeout(Duration::from_secs(30), room.enter(source(2)));
        let started = Instant::now();
        newcomer.await.unwrap().unwrap();
        assert!(started.elapsed() < UNDISTURBED, "{:?}", started.elapsed());
        assert!(!has_to_leave(&first).await, "nobody had to leave for it");
        drop(second);
        third.await.unwrap();
        drop((first, others));
        assert!(room.enter(source(1)).await.is_ok());
        assert_eq!(room.guests().by_source.len(), 0);
    }

    #[tokio::test]
    async fn for_a_handshake_that_waits_for_its_share_one_of_its_own_source_leaves() {
        let room = Room::for_handshakes(4, 1);
        let [foreign, own] = [room.enter(source(1)).await, room.enter(source(2)).await];
        let (foreign, own) = (foreign.unwrap(), own.unwrap());
        let later = Instant::now() + HANDSHAKE_UNDISTURBED;
        assert_eq!(room.make_room(Some(source(2)), later), None);
        assert!(has_to_leave(&own).await && !has_to_leave(&foreign).await);
        assert!(room.make_room(Some(source(2)), later).is_some_and(|at| at > later));
    }
}
