//! Brings controllers and endpoints of one snikey together, first come first served.
//!
//! Either side may be first: a controller that waits is a [`Slot`] in the queue of its snikey, and an
//! endpoint that finds none waits for one. Not here: sockets and time; whoever gives up simply drops
//! its place.
//!
//! Invariant: in no queue do controllers and endpoints wait at once. A place is in a queue only as
//! long as its owner lives.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::wire::snikey::SniKey;
use tokio::sync::oneshot;

/// A waiting controller, as an endpoint gets it: what is sent into it reaches the controller.
pub(super) type Slot<E> = oneshot::Sender<E>;

/// All queues; `E` is what a controller gets of its endpoint.
#[derive(Debug)]
pub(super) struct Switchboard<E>(Mutex<Queues<E>>);

#[derive(Debug)]
struct Queues<E> {
    by_snikey: HashMap<SniKey, Queue<E>>,
    /// Number of the next place; places are served in this order.
    next: u64,
}

#[derive(Debug)]
struct Queue<E> {
    controllers: BTreeMap<u64, Slot<E>>,
    endpoints: BTreeMap<u64, oneshot::Sender<Slot<E>>>,
}

/// A place in a queue.
#[derive(Debug)]
pub(super) struct Place<E, T> {
    switchboard: Arc<Switchboard<E>>,
    snikey: SniKey,
    number: u64,
    receiver: oneshot::Receiver<T>,
}

/// More controllers wait under a snikey than are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BacklogFull;

impl fmt::Display for BacklogFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as many connections as are allowed wait under its snikey already")
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { controllers: BTreeMap::new(), endpoints: BTreeMap::new() }
    }
}

impl<E> Switchboard<E> {
    /// Nobody waits.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Queues { by_snikey: HashMap::new(), next: 0 })))
    }

    /// A controller waits from now on.
    ///
    /// # Errors
    /// `max` controllers wait already.
    pub(super) fn add_controller(
        self: &Arc<Self>,
        snikey: &SniKey,
        max: usize,
    ) -> Result<Place<E, E>, BacklogFull> {
        let (mut slot, receiver) = oneshot::channel();
        let mut queues = self.queues();
        let number = queues.take_number();
        let queue = queues.by_snikey.entry(snikey.clone()).or_default();
        if queue.controllers.len() >= max {
            return Err(BacklogFull);
        }
        let place =
            Place { switchboard: Arc::clone(self), snikey: snikey.clone(), number, receiver };
        while let Some((_, endpoint)) = queue.endpoints.pop_first() {
            match endpoint.send(slot) {
                Ok(()) => return Ok(place),
                // This endpoint has just given up.
                Err(unused) => slot = unused,
            }
        }
        queue.controllers.insert(number, slot);
        Ok(place)
    }

    /// The controller that has waited longest, or else a place to wait for one.
    pub(super) fn take_controller(
        self: &Arc<Self>,
        snikey: &SniKey,
    ) -> Result<Slot<E>, Place<E, Slot<E>>> {
        let mut queues = self.queues();
        let number = queues.take_number();
        let queue = queues.by_snikey.entry(snikey.clone()).or_default();
        while let Some((_, slot)) = queue.controllers.pop_first() {
            if !slot.is_closed() {
                return Ok(slot);
            }
        }
        let (endpoint, receiver) = oneshot::channel();
        queue.endpoints.insert(number, endpoint);
        Err(Place { switchboard: Arc::clone(self), snikey: snikey.clone(), number, receiver })
    }

    /// Controllers that wait under a snikey.
    pub(super) fn waiting(&self, snikey: &SniKey) -> usize {
        self.queues().by_snikey.get(snikey).map_or(0, |queue| queue.controllers.len())
    }

    fn queues(&self) -> MutexGuard<'_, Queues<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Queues<E> {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl<E, T> Place<E, T> {
    /// Waits for its turn; `None` if the other side vanished in the moment it came.
    pub(super) async fn wait(&mut self) -> Option<T> {
        (&mut self.receiver).await.ok()
    }

    /// Gives the place up; what had already come for it is returned.
    pub(super) fn give_up(mut self) -> Option<T> {
        self.receiver.close();
        self.receiver.try_recv().ok()
    }
}

impl<E, T> Drop for Place<E, T> {
    fn drop(&mut self) {
        let mut queues = self.switchboard.queues();
        let Some(queue) = queues.by_snikey.get_mut(&self.snikey) else { return };
        // Numbers are unique, so that at most one of the two is ours.
        queue.controllers.remove(&self.number);
        queue.endpoints.remove(&self.number);
        if queue.controllers.is_empty() && queue.endpoints.is_empty() {
            queues.by_snikey.remove(&self.snikey);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snikey(text: &str) -> SniKey {
        SniKey::parse(text).unwrap()
    }

    fn board() -> Arc<Switchboard<u32>> {
        Switchboard::new()
    }

    /// Controllers that wait, and snikeys that anybody waits under.
    fn count(board: &Switchboard<u32>) -> (usize, usize) {
        let queues = board.queues();
        let waiting = queues.by_snikey.values().map(|queue| queue.controllers.len()).sum();
        (waiting, queues.by_snikey.len())
    }

    #[tokio::test]
    async fn controllers_are_taken_in_the_order_they_came_and_by_their_snikey_alone() {
        let board = board();
        let mut first = board.add_controller(&snikey("a"), 9).unwrap();
        let mut second = board.add_controller(&snikey("a"), 9).unwrap();
        let mut other = board.add_controller(&snikey("b"), 9).unwrap();
        for endpoint in [1, 2] {
            board.take_controller(&snikey("a")).unwrap().send(endpoint).unwrap();
        }
        assert!(board.take_controller(&snikey("a")).is_err(), "b's controller is not a's");
        board.take_controller(&snikey("b")).unwrap().send(3).unwrap();
        assert_eq!(first.wait().await, Some(1));
        assert_eq!(second.wait().await, Some(2));
        assert_eq!(other.wait().await, Some(3));
    }

    #[tokio::test]
    async fn an_endpoint_that_came_first_gets_the_next_controller() {
        let board = board();
        let mut early = board.take_controller(&snikey("a")).unwrap_err();
        let mut late = board.take_controller(&snikey("a")).unwrap_err();
        let mut controller = board.add_controller(&snikey("a"), 9).unwrap();
        early.wait().await.unwrap().send(1).unwrap();
        assert_eq!(controller.wait().await, Some(1));
        let mut controller = board.add_controller(&snikey("a"), 9).unwrap();
        late.wait().await.unwrap().send(2).unwrap();
        assert_eq!(controller.wait().await, Some(2));
    }

    #[tokio::test]
    async fn whoever_gives_up_is_passed_over() {
        let board = board();
        drop(board.take_controller(&snikey("a")).unwrap_err());
        let gone = board.add_controller(&snikey("a"), 9).unwrap();
        let mut stays = board.add_controller(&snikey("a"), 9).unwrap();
        drop(gone);
        board.take_controller(&snikey("a")).unwrap().send(7).unwrap();
        assert_eq!(stays.wait().await, Some(7));
    }

    #[tokio::test]
    async fn an_endpoint_that_came_in_the_last_moment_is_given_back() {
        let board = board();
        let controller = board.add_controller(&snikey("a"), 9).unwrap();
        board.take_controller(&snikey("a")).unwrap().send(7).unwrap();
        assert_eq!(controller.give_up(), Some(7));
    }

    #[tokio::test]
    async fn a_controller_learns_that_its_endpoint_vanished_while_it_was_called() {
        let board = board();
        let mut controller = board.add_controller(&snikey("a"), 9).unwrap();
        drop(board.take_controller(&snikey("a")).unwrap());
        assert_eq!(controller.wait().await, None);
    }

    #[test]
    fn a_full_backlog_refuses_further_controllers_of_that_snikey_only() {
        let board = board();
        let one = board.add_controller(&snikey("a"), 2).unwrap();
        let _two = board.add_controller(&snikey("a"), 2).unwrap();
        assert_eq!(board.add_controller(&snikey("a"), 2).unwrap_err(), BacklogFull);
        let _other = board.add_controller(&snikey("b"), 2).unwrap();
        drop(one);
        assert!(board.add_controller(&snikey("a"), 2).is_ok());
    }

    #[test]
    fn nothing_is_left_when_all_have_gone() {
        let board = board();
        let controllers: Vec<_> =
            (0..9).map(|_| board.add_controller(&snikey("a"), 9).unwrap()).collect();
        let waiting = board.take_controller(&snikey("b")).unwrap_err();
        assert_eq!(count(&board), (9, 2));
        drop((controllers, waiting));
        assert_eq!(count(&board), (0, 0));
    }
}
