//! Brings controllers and endpoints of one snikey together, first come first served, and keeps strangers
//! from a snikey that has an owner.
//!
//! Either side may be first: a controller that waits is a [`Slot`] in the queue of its snikey, and an
//! endpoint that finds none waits for one. A controller has a [`Claim`] from the moment its registration
//! is accepted to the end of its session. When one with a key takes a snikey over, the connections of the
//! one before get no endpoints any more. Not here: sockets and the clock; whoever gives up simply drops
//! its place.
//!
//! Invariant: in no queue do controllers and endpoints wait at once. A place is in a queue only as
//! long as its owner lives. All controllers in a queue belong to the snikey's owner.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use packetlab::snikey::SniKey;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::owner::Owner;

/// Snikeys whose grace is over that are forgotten for each that is claimed: more than one comes.
const FORGOTTEN_AT_ONCE: usize = 4;

/// A waiting controller, as an endpoint gets it: what is sent into it reaches the controller.
pub(super) type Slot<E> = oneshot::Sender<E>;

/// How many connections may be registered, and for how long a snikey is kept for its owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Under one snikey.
    pub(super) per_snikey_max: usize,
    /// Of one owner.
    pub(super) per_owner_max: usize,
    /// After the owner's last connection.
    pub(super) grace: Duration,
}

/// All queues; `E` is what a controller gets of its endpoint.
#[derive(Debug)]
pub(super) struct Switchboard<E> {
    bounds: Bounds,
    queues: Mutex<Queues<E>>,
}

#[derive(Debug)]
struct Queues<E> {
    by_snikey: HashMap<SniKey, Queue<E>>,
    /// Connections that are registered, without those in a session.
    by_owner: HashMap<Owner, usize>,
    /// Snikeys without connections, in the order in which they become free.
    lapsing: VecDeque<(Instant, SniKey)>,
    /// Number of the next place; places are served in this order.
    next: u64,
}

#[derive(Debug)]
struct Queue<E> {
    controllers: BTreeMap<u64, Slot<E>>,
    endpoints: BTreeMap<u64, oneshot::Sender<Slot<E>>>,
    owned: Option<Owned>,
}

#[derive(Debug)]
struct Owned {
    owner: Owner,
    /// Unique to this time of ownership.
    number: u64,
    /// Claims of the owner, those of connections in a session included.
    claims: usize,
    /// Those that are not in a session.
    registered: usize,
    /// When it becomes free, if nobody comes.
    lapses: Option<Instant>,
}

/// A connection that its owner has registered.
#[derive(Debug)]
pub(super) struct Claim<E> {
    switchboard: Arc<Switchboard<E>>,
    snikey: SniKey,
    owner: Owner,
    /// Of the time of ownership.
    number: u64,
    is_in_session: bool,
}

/// A place in a queue.
#[derive(Debug)]
pub(super) struct QueuePlace<E, T> {
    switchboard: Arc<Switchboard<E>>,
    snikey: SniKey,
    number: u64,
    receiver: oneshot::Receiver<T>,
}

/// Why a connection is not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotRegistered {
    /// The snikey belongs to another.
    Owned,
    /// More controllers wait under a snikey than are allowed.
    SnikeyFull,
    /// The owner has more connections than are allowed.
    OwnerFull,
}

impl fmt::Display for NotRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owned => {
                "its snikey belongs to another controller; agents that one key has signed share it \
                 only if the proxy is given that key (--client-root)"
            }
            Self::SnikeyFull => "as many connections as are allowed wait under its snikey already",
            Self::OwnerFull => "it has as many connections as are allowed (--backlog-per-key-max)",
        })
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { controllers: BTreeMap::new(), endpoints: BTreeMap::new(), owned: None }
    }
}

impl<E> Queue<E> {
    fn is_needed(&self) -> bool {
        !self.controllers.is_empty() || !self.endpoints.is_empty() || self.owned.is_some()
    }

    /// The ownership of this number, if it still lasts.
    fn ownership(&mut self, number: u64) -> Option<&mut Owned> {
        self.owned.as_mut().filter(|owned| owned.number == number)
    }

    fn is_owned(&self, number: u64) -> bool {
        self.owned.as_ref().is_some_and(|owned| owned.number == number)
    }

    /// One more connection of `owner`: the number of its ownership, `number` if that begins now, and who
    /// does not wait any more.
    fn claim(
        &mut self,
        owner: Owner,
        number: u64,
        max: usize,
        now: Instant,
    ) -> Result<(u64, BTreeMap<u64, Slot<E>>), NotRegistered> {
        if let Some(owned) = &mut self.owned
            && owned.owner == owner
        {
            if owned.registered >= max {
                return Err(NotRegistered::SnikeyFull);
            }
            owned.lapses = None;
            owned.claims += 1;
            owned.registered += 1;
            return Ok((owned.number, BTreeMap::new()));
        }
        let is_free = self.owned.as_ref().is_none_or(|owned| {
            owned.owner.yields_to(owner) || owned.lapses.is_some_and(|lapses| lapses <= now)
        });
        if !is_free {
            return Err(NotRegistered::Owned);
        }
        self.owned = Some(Owned { owner, number, claims: 1, registered: 1, lapses: None });
        Ok((number, std::mem::take(&mut self.controllers)))
    }
}

impl<E> Switchboard<E> {
    /// Nobody waits.
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        let queues = Queues {
            by_snikey: HashMap::new(),
            by_owner: HashMap::new(),
            lapsing: VecDeque::new(),
            next: 0,
        };
        Arc::new(Self { bounds, queues: Mutex::new(queues) })
    }

    /// A controller registers a connection.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn claim(
        self: &Arc<Self>,
        snikey: &SniKey,
        owner: Owner,
        now: Instant,
    ) -> Result<Claim<E>, NotRegistered> {
        let mut queues = self.queues();
        queues.forget_lapsed(now);
        let of_owner = queues.by_owner.get(&owner).copied().unwrap_or_default();
        if of_owner >= self.bounds.per_owner_max {
            return Err(NotRegistered::OwnerFull);
        }
        let number = queues.take_number();
        let queue = queues.by_snikey.entry(snikey.clone()).or_default();
        let (number, evicted) = queue.claim(owner, number, self.bounds.per_snikey_max, now)?;
        queues.by_owner.insert(owner, of_owner + 1);
        drop(queues);
        // Their controllers wake up, which takes a while if they are many.
        drop(evicted);
        let (switchboard, snikey) = (Arc::clone(self), snikey.clone());
        Ok(Claim { switchboard, snikey, owner, number, is_in_session: false })
    }

    /// The controller that has waited longest, or else a place to wait for one.
    pub(super) fn take_controller(
        self: &Arc<Self>,
        snikey: &SniKey,
    ) -> Result<Slot<E>, QueuePlace<E, Slot<E>>> {
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
        Err(QueuePlace { switchboard: Arc::clone(self), snikey: snikey.clone(), number, receiver })
    }

    fn queues(&self) -> MutexGuard<'_, Queues<E>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Queues<E> {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn forget_lapsed(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.lapsing.front().is_none_or(|(lapses, _)| *lapses > now) {
                return;
            }
            let Some((_, snikey)) = self.lapsing.pop_front() else { return };
            if let Some(queue) = self.by_snikey.get_mut(&snikey) {
                let lapses = queue.owned.as_ref().and_then(|owned| owned.lapses);
                if lapses.is_some_and(|lapses| lapses <= now) {
                    queue.owned = None;
                }
                self.forget_if_unneeded(&snikey);
            }
        }
    }

    fn forget_if_unneeded(&mut self, snikey: &SniKey) {
        if self.by_snikey.get(snikey).is_some_and(|queue| !queue.is_needed()) {
            self.by_snikey.remove(snikey);
        }
    }

    /// One connection of this owner less is registered.
    fn unregister(&mut self, owner: Owner) {
        if let Some(count) = self.by_owner.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.by_owner.remove(&owner);
            }
        }
    }
}

impl<E> Claim<E> {
    /// The controller waits from now on.
    ///
    /// # Errors
    /// Its snikey was taken over.
    pub(super) fn wait(&self) -> Result<QueuePlace<E, E>, NotRegistered> {
        let (mut slot, receiver) = oneshot::channel();
        let mut queues = self.switchboard.queues();
        let number = queues.take_number();
        let queue = queues.by_snikey.get_mut(&self.snikey);
        let queue = queue.filter(|queue| queue.is_owned(self.number));
        let queue = queue.ok_or(NotRegistered::Owned)?;
        let (switchboard, snikey) = (Arc::clone(&self.switchboard), self.snikey.clone());
        let place = QueuePlace { switchboard, snikey, number, receiver };
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

    /// Its session begins: it keeps the snikey for its owner, but does not count for limits any more.
    pub(super) fn enter_session(&mut self) {
        let mut queues = self.switchboard.queues();
        self.is_in_session = true;
        queues.unregister(self.owner);
        let queue = queues.by_snikey.get_mut(&self.snikey);
        if let Some(owned) = queue.and_then(|queue| queue.ownership(self.number)) {
            owned.registered -= 1;
        }
    }
}

impl<E> Drop for Claim<E> {
    fn drop(&mut self) {
        let lapses = Instant::now() + self.switchboard.bounds.grace;
        let mut queues = self.switchboard.queues();
        if !self.is_in_session {
            queues.unregister(self.owner);
        }
        let queue = queues.by_snikey.get_mut(&self.snikey);
        let Some(owned) = queue.and_then(|queue| queue.ownership(self.number)) else { return };
        owned.claims -= 1;
        owned.registered -= usize::from(!self.is_in_session);
        if owned.claims == 0 {
            owned.lapses = Some(lapses);
            queues.lapsing.push_back((lapses, self.snikey.clone()));
        }
    }
}

impl<E, T> QueuePlace<E, T> {
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

impl<E, T> Drop for QueuePlace<E, T> {
    fn drop(&mut self) {
        let mut queues = self.switchboard.queues();
        let Some(queue) = queues.by_snikey.get_mut(&self.snikey) else { return };
        // Numbers are unique, so that at most one of the two is ours.
        queue.controllers.remove(&self.number);
        queue.endpoints.remove(&self.number);
        queues.forget_if_unneeded(&self.snikey);
    }
}

#[cfg(test)]
mod tests;
