//! A run as all pages see it: looked at once a second for all of them together, and without any as seldom as its history
//! has points.
//!
//! Not here: who may look (`streams.rs`).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use engine::{RunView, Snapshot, Steering};
use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::history::History;
use super::sessions::Sessions;
use super::streams::{Place, Streams};
use super::told::Told;

/// How often pages are told how the run is.
const TICK: Duration = Duration::from_secs(1);

/// The run, and who looks at it.
#[derive(Debug)]
pub(in super::super) struct Watched {
    run: RunView,
    /// Its sessions.
    pub(in super::super) sessions: Sessions,
    streams: Streams,
    seen: RefCell<Seen>,
}

/// What was seen of it.
#[derive(Debug)]
struct Seen {
    history: History,
    /// With when that was.
    now: (Instant, Snapshot),
    /// What rates are told since.
    before: Snapshot,
}

impl Seen {
    fn first(now: Snapshot, at: Instant) -> Self {
        let mut history = History::default();
        history.add(&now);
        Self { history, now: (at, now.clone()), before: now }
    }

    /// Looks at the run. Whether that is a point of its history.
    fn look(&mut self, run: &RunView) -> bool {
        self.take(run.snapshot(), Instant::now())
    }

    fn take(&mut self, now: Snapshot, at: Instant) -> bool {
        let is_point = self.history.add(&now);
        let (looked_at, last) = std::mem::replace(&mut self.now, (at, now));
        // Whoever begins to watch may have looked just before a tick: a rate of that instant would say nothing.
        if at.saturating_duration_since(looked_at) >= TICK / 2 {
            self.before = last;
        }
        is_point
    }

    fn told(&self, with_charts: bool) -> Told {
        Told::of(&self.now.1, &self.before, (&self.history, with_charts))
    }
}

impl Watched {
    /// This run, which hears questions through `steering`.
    pub(in super::super) fn new(run: RunView, steering: Steering) -> Self {
        let seen = Seen::first(run.snapshot(), Instant::now());
        let sessions = Sessions::new(run.clone(), steering);
        Self { run, sessions, streams: Streams::new(), seen: RefCell::new(seen) }
    }

    /// A stream of what is told from now on, if there is a place for it.
    pub(in super::super) fn watch(&self) -> Option<(mpsc::Receiver<Bytes>, Rc<Place>)> {
        let place = self.streams.place()?;
        let mut seen = self.seen.borrow_mut();
        if seen.now.0.elapsed() > TICK {
            seen.look(&self.run);
        }
        let first = seen.told(true).event("message");
        Some((self.streams.begin(first.into(), Rc::clone(&place)), place))
    }

    /// Follows the run until it is over, and tells that to all who look; then to whoever has sent word of it.
    pub(in super::super) async fn follow(&self, over: oneshot::Receiver<SyncSender<()>>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(over);
        let asked = loop {
            tokio::select! {
                _ = ticks.tick() => self.tell(),
                asked = &mut over => break asked,
            }
        };
        self.streams.end(self.last().into()).await;
        if let Ok(asked) = asked {
            // Whoever waits for it no more has gone.
            let _ = asked.try_send(());
        }
    }

    fn last(&self) -> Vec<u8> {
        let mut seen = self.seen.borrow_mut();
        seen.look(&self.run);
        seen.told(true).with(self.sessions.last_page()).event("end")
    }

    fn tell(&self) {
        self.sessions.forget();
        let mut seen = self.seen.borrow_mut();
        let has_streams = self.streams.len() > 0;
        // A tick may come a little early.
        if !has_streams && seen.now.0.elapsed() + TICK / 4 < seen.history.apart() {
            return;
        }
        let is_point = seen.look(&self.run);
        if has_streams {
            self.streams.tell(seen.told(is_point).event("message").into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_half_a_second_at_least_whenever_somebody_begins_to_watch() {
        let began = Instant::now();
        let at = |ms| Snapshot { lasted: Duration::from_millis(ms), ..Snapshot::default() };
        let mut seen = Seen::first(at(0), began);
        let mut since = Vec::new();
        // The third is a tick just behind somebody who has come.
        for ms in [1_000, 2_300, 2_305, 3_305, 4_305] {
            seen.take(at(ms), began + Duration::from_millis(ms));
            since.push((seen.now.1.lasted - seen.before.lasted).as_millis());
        }
        assert_eq!(since, [1_000, 1_300, 1_305, 1_000, 1_000]);
    }
}
