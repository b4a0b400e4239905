//! A number of seats, for connections or for handshakes.
//!
//! ```text
//! full     newcomers wait, first come first served
//!          for each of them, whoever has sat longest without having settled has to leave
//! settled  keeps its seat as long as it wants
//! ```
//!
//! So those that say nothing, or little and slowly, cannot keep others out. Not here: deadlines.
//!
//! Invariant: nobody has to leave before [`UNDISTURBED`] (a handshake: [`HANDSHAKE_UNDISTURBED`]), and no more have to than newcomers wait.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::source::Source;

/// Nobody has to leave who came later than so long ago: a peer far away takes some 300 ms for a round trip.
pub(crate) const UNDISTURBED: Duration = Duration::from_secs(1);

/// The same for handshakes. It is we who may be slow in one: on a busy host, with all of them under way, one
/// can take as long without any fault of its peer, and who is sent away comes again and costs another.
const HANDSHAKE_UNDISTURBED: Duration = Duration::from_secs(3);

/// The seats.
#[derive(Debug)]
pub(crate) struct Room {
    seats: Arc<Semaphore>,
    per_source_max: usize,
    undisturbed: Duration,
    guests: Mutex<Guests>,
}

#[derive(Debug, Default)]
struct Guests {
    by_source: HashMap<Source, usize>,
    /// In the order they came.
    unsettled: BTreeMap<u64, Unsettled>,
    /// Number of the next one.
    next: u64,
}

#[derive(Debug)]
struct Unsettled {
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
}

/// The source has as many seats as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SourceFull;

impl Room {
    /// So many seats, of which one source may take so many.
    pub(crate) fn new(seats: usize, per_source_max: usize) -> Arc<Self> {
        let seats = Arc::new(Semaphore::new(seats.min(Semaphore::MAX_PERMITS)));
        let undisturbed = UNDISTURBED;
        Arc::new(Self { seats, per_source_max, undisturbed, guests: Mutex::default() })
    }

    /// Room for so many handshakes.
    pub(crate) fn for_handshakes(seats: usize) -> Arc<Self> {
        let seats = Arc::new(Semaphore::new(seats.min(Semaphore::MAX_PERMITS)));
        let (per_source_max, undisturbed) = (usize::MAX, HANDSHAKE_UNDISTURBED);
        Arc::new(Self { seats, per_source_max, undisturbed, guests: Mutex::default() })
    }

    /// No seat is free.
    pub(crate) fn is_full(&self) -> bool {
        self.seats.available_permits() == 0
    }

    /// Takes a seat as soon as there is one.
    ///
    /// # Errors
    /// The source has too many already.
    pub(crate) async fn enter(self: &Arc<Self>, source: Source) -> Result<Seat, SourceFull> {
        if self.guests().by_source.get(&source).is_some_and(|taken| *taken >= self.per_source_max) {
            return Err(SourceFull);
        }
        let mut permit = pin!(Arc::clone(&self.seats).acquire_owned());
        let mut look_at = Some(Instant::now());
        let permit = loop {
            tokio::select! {
                biased;
                permit = &mut permit => break permit,
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    look_at = self.make_room(Instant::now());
                }
            }
        };
        // The error would be a closed semaphore; nobody closes it.
        let permit = permit.map_err(|_| SourceFull)?;
        let leave = Arc::new(Notify::new());
        let mut guests = self.guests();
        guests.next += 1;
        let number = guests.next;
        *guests.by_source.entry(source).or_default() += 1;
        let unsettled = Unsettled { since: Instant::now(), leave: Arc::clone(&leave) };
        guests.unsettled.insert(number, unsettled);
        Ok(Seat { room: Arc::clone(self), source, number, leave, _permit: permit })
    }

    /// Makes one guest leave; if that cannot be, says when to try again.
    fn make_room(&self, now: Instant) -> Option<Instant> {
        let mut guests = self.guests();
        let Some(oldest) = guests.unsettled.first_entry() else {
            return Some(now + self.undisturbed);
        };
        let disturbed = oldest.get().since + self.undisturbed;
        if now < disturbed {
            return Some(disturbed);
        }
        oldest.remove().leave.notify_one();
        None
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        assert!(room.make_room(now).is_some_and(|at| at > now), "nobody leaves at once");
        assert_eq!(room.make_room(now + UNDISTURBED), None);
        let leaving = [&settled, &oldest, &younger].map(has_to_leave);
        let [settled_leaves, oldest_leaves, younger_leaves] = leaving;
        assert!(!settled_leaves.await && oldest_leaves.await && !younger_leaves.await);
        assert_eq!(room.make_room(now + UNDISTURBED), None, "the next one");
        assert!(has_to_leave(&younger).await);
        let later = now + 9 * UNDISTURBED;
        assert!(room.make_room(later).is_some_and(|at| at > later), "who has settled stays");
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
}
