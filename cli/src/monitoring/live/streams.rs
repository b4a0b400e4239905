//! Who is told again and again what has changed, and how slowly that may be taken.
//!
//! Each stream has a place, of which there are few. What is to be told waits in one place for all of them and is
//! overwritten there: who reads slowly misses some of it, and who does not read at all is let go.
//!
//! Not here: what is told (`told.rs`). Invariant: nothing gathers for whoever does not read.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// Streams at once; each is a descriptor that no session gets.
pub(in super::super) const STREAMS_MAX: usize = 8;

/// How long one may take nothing, though something is told each second.
const PATIENCE: Duration = Duration::from_secs(5);

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    told: watch::Sender<Told>,
    taken: Rc<Taken>,
}

/// What was told last.
#[derive(Debug, Clone)]
enum Told {
    Nothing,
    Update(Bytes),
    /// Nothing comes behind it.
    Last(Bytes),
}

#[derive(Debug, Default)]
struct Taken {
    places: Cell<usize>,
    freed: Notify,
}

/// A place; it is free again when this is gone.
#[derive(Debug)]
pub(in super::super) struct Place {
    taken: Rc<Taken>,
    /// Until when something more has to be taken.
    due: Cell<Instant>,
}

impl Place {
    /// Until when something more has to be taken.
    pub(in super::super) fn due(&self) -> Instant {
        self.due.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.places.set(self.taken.places.get() - 1);
        self.taken.freed.notify_one();
    }
}

impl Streams {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { told: watch::Sender::new(Told::Nothing), taken: Rc::default() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.taken.places.get()
    }

    /// A place for one more, if there is any.
    pub(super) fn place(&self) -> Option<Rc<Place>> {
        let is_over = matches!(*self.told.borrow(), Told::Last(_));
        if is_over || self.len() >= STREAMS_MAX {
            return None;
        }
        self.taken.places.set(self.len() + 1);
        let due = Cell::new(Instant::now() + PATIENCE);
        Some(Rc::new(Place { taken: Rc::clone(&self.taken), due }))
    }

    /// What one is told that begins with this, and which has this place.
    pub(super) fn begin(&self, first: Bytes, place: Rc<Place>) -> mpsc::Receiver<Bytes> {
        // Whoever reads asks for one at a time.
        let (sender, receiver) = mpsc::channel(1);
        tokio::task::spawn_local(feed(first, self.told.subscribe(), sender, place));
        receiver
    }

    /// Tells all of them.
    pub(super) fn tell(&self, update: Bytes) {
        self.told.send_replace(Told::Update(update));
    }

    /// Tells all of them for the last time, and waits until they are gone.
    pub(super) async fn end(&self, last: Bytes) {
        self.told.send_replace(Told::Last(last));
        while self.len() > 0 {
            self.taken.freed.notified().await;
        }
    }
}

/// Passes on what is told, as fast as it is taken.
async fn feed(
    first: Bytes,
    mut told: watch::Receiver<Told>,
    sender: mpsc::Sender<Bytes>,
    place: Rc<Place>,
) {
    if sender.send(first).await.is_err() {
        return;
    }
    loop {
        // Whoever has room has taken what came before. Only then is looked for what is to be told.
        let Ok(room) = sender.reserve().await else { return };
        place.due.set(Instant::now() + PATIENCE);
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
        match told.borrow_and_update().clone() {
            Told::Nothing => {}
            Told::Update(update) => room.send(update),
            Told::Last(last) => return room.send(last),
        }
    }
}
