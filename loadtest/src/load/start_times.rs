//! When each session begins what it does again and again, and how long it took.
//!
//! In a closed loop a session begins anew when it is through. In an open loop (`--rate`) starts are fixed beforehand and
//! go round the sessions, and a time counts from the start that was intended: what waits behind a slow answer is slow as
//! well, and a generator that is late shows (coordinated omission).
//!
//! Not here: what is done. Invariant: what was due in the measured part of the window is a sample or counted as not started.

use std::time::{Duration, Instant};

use hosts::alarm::Alarm;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What begins so much after it was due is late, and counted.
const LATE: Duration = Duration::from_millis(1);

/// How a run spends its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Before anything is measured.
    pub(super) warm_up: Duration,
    /// How long it is measured.
    pub(super) duration: Duration,
    /// Starts a second of all sessions together; none in a closed loop.
    pub(super) per_second: Option<u32>,
}

/// From when to when a run works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    begun: Instant,
    /// What was due before is not measured.
    pub(super) measured_from: Instant,
    pub(super) end: Instant,
}

impl Window {
    /// One that begins now.
    pub(super) fn begin(pace: Pace) -> Self {
        let begun = Instant::now();
        let measured_from = begun + pace.warm_up;
        Self { begun, measured_from, end: measured_from + pace.duration }
    }

    /// Waits until its measured part begins.
    pub(super) async fn warmed_up(self) {
        tokio::time::sleep_until(self.measured_from.into()).await;
    }
}

/// What became of starts.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// When something was over, and how long it had taken.
    pub(super) times: Vec<(Instant, Duration)>,
    /// How many are over, those of the warm-up too.
    pub(super) done: u64,
    /// Of those that are measured, how many began late.
    pub(super) late: u64,
    /// How many were due but had not been begun when the window was over.
    pub(super) not_started: u64,
}

impl Samples {
    /// All of them as one.
    pub(super) fn together(all: impl IntoIterator<Item = Self>) -> Self {
        let mut together = Self::default();
        for samples in all {
            together.times.extend(samples.times);
            together.done += samples.done;
            together.late += samples.late;
            together.not_started += samples.not_started;
        }
        together
    }
}

/// The turns of one session.
#[derive(Debug)]
pub(super) struct Turns {
    window: Window,
    /// Intended starts; none in a closed loop. It never holds more than the starts of the window.
    due: Option<UnboundedReceiver<Instant>>,
    pub(super) samples: Samples,
}

impl Turns {
    /// Waits for the next one; when it was due, or `None` when the window is over.
    pub(super) async fn next(&mut self) -> Option<Instant> {
        let Some(starts) = &mut self.due else {
            let now = Instant::now();
            return (now < self.window.end).then_some(now);
        };
        let due = starts.recv().await?;
        let now = Instant::now();
        if now < self.window.end {
            let is_late = due >= self.window.measured_from && now.duration_since(due) > LATE;
            self.samples.late += u64::from(is_late);
            return Some(due);
        }
        self.leave(due);
        while let Some(due) = self.due.as_mut()?.recv().await {
            self.leave(due);
        }
        None
    }

    fn leave(&mut self, due: Instant) {
        self.samples.not_started += u64::from(due >= self.window.measured_from);
    }

    /// What was due then is over now.
    pub(super) fn done(&mut self, due: Instant) {
        self.samples.done += 1;
        if due >= self.window.measured_from {
            let now = Instant::now();
            self.samples.times.push((now, now.duration_since(due)));
        }
    }
}

/// Hands out the starts of an open loop.
#[derive(Debug)]
pub(super) struct Dispatcher {
    window: Window,
    per_second: u32,
    sessions: Vec<UnboundedSender<Instant>>,
}

impl Dispatcher {
    /// Hands each start to its session when it is due.
    pub(super) async fn run(self) {
        let mut alarm = Alarm::default();
        for (number, session) in (0..).zip(self.sessions.iter().cycle()) {
            let due = due(self.window.begun, number, self.per_second);
            if due >= self.window.end {
                return;
            }
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                alarm.wait_for(wait).await;
            } else if Instant::now() < self.window.end {
                // Behind its time: the sessions are on this thread too.
                tokio::task::yield_now().await;
            }
            // It fails when the session has failed, which ends the run.
            let _ = session.send(due);
        }
    }
}

/// When start `number` of so many a second is due.
fn due(begun: Instant, number: u64, per_second: u32) -> Instant {
    let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(per_second);
    begun + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// The turns of so many sessions from now on, and who hands them out if that is not left to themselves.
pub(super) fn begin(pace: Pace, sessions: usize) -> (Window, Vec<Turns>, Option<Dispatcher>) {
    let window = Window::begin(pace);
    let turns = |due| Turns { window, due, samples: Samples::default() };
    let Some(per_second) = pace.per_second else {
        return (window, (0..sessions).map(|_| turns(None)).collect(), None);
    };
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..sessions).map(|_| unbounded_channel()).unzip();
    let dispatcher = Dispatcher { window, per_second, sessions: senders };
    (window, receivers.into_iter().map(|due| turns(Some(due))).collect(), Some(dispatcher))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const fn pace(warm_up_ms: u64, duration_ms: u64, per_second: Option<u32>) -> Pace {
        let warm_up = Duration::from_millis(warm_up_ms);
        Pace { warm_up, duration: Duration::from_millis(duration_ms), per_second }
    }

    #[test]
    fn starts_are_due_at_even_distances_that_do_not_add_up_to_a_drift() {
        let begun = Instant::now();
        let since = |number, per_second| due(begun, number, per_second).duration_since(begun);
        assert_eq!(since(0, 3), Duration::ZERO);
        assert_eq!(since(1, 3), Duration::from_nanos(333_333_333));
        assert_eq!(since(3_000_000, 3), Duration::from_secs(1_000_000));
        assert_eq!(since(7, 1_000), Duration::from_millis(7));
    }

    #[tokio::test]
    async fn a_time_counts_from_the_intended_start_and_what_is_not_begun_is_counted() {
        // Ten starts, of which the first keeps the session busy until the window is over.
        let (window, mut turns, dispatcher) = begin(pace(0, 1_000, Some(10)), 1);
        let dispatched = tokio::spawn(dispatcher.unwrap().run());
        let mut turns = turns.remove(0);
        let first = turns.next().await.unwrap();
        assert_eq!(first, window.begun);
        dispatched.await.unwrap();
        // The last but the first are due, and none of them has been begun.
        while Instant::now() < window.end - Duration::from_millis(1) {
            std::thread::yield_now();
        }
        turns.done(first);
        let (_, took) = turns.samples.times[0];
        assert!(took >= Duration::from_millis(999), "{took:?}");
        while Instant::now() < window.end {
            std::thread::yield_now();
        }
        assert_eq!(turns.next().await, None);
        let samples = &turns.samples;
        assert_eq!((samples.times.len(), samples.not_started), (1, 9));
    }

    #[tokio::test]
    async fn a_start_that_waited_for_its_session_is_late() {
        let (window, mut turns, dispatcher) = begin(pace(0, 10_000, Some(1_000)), 1);
        let dispatched = tokio::spawn(dispatcher.unwrap().run());
        let mut turns = turns.remove(0);
        turns.next().await.unwrap();
        while Instant::now() < window.begun + Duration::from_millis(20) {
            std::thread::yield_now();
        }
        let second = turns.next().await.unwrap();
        assert_eq!(second, window.begun + Duration::from_millis(1));
        assert_eq!(turns.samples.late, 1);
        dispatched.abort();
    }

    #[tokio::test]
    async fn starts_go_round_the_sessions() {
        let (window, mut turns, dispatcher) = begin(pace(0, 4, Some(1_000)), 2);
        dispatcher.unwrap().run().await;
        for (number, session) in turns.iter_mut().enumerate() {
            let starts = session.due.as_mut().unwrap();
            for round in 0..2 {
                let expected = due(window.begun, round * 2 + number as u64, 1_000);
                assert_eq!(starts.recv().await, Some(expected));
            }
            assert_eq!(starts.recv().await, None);
        }
    }

    #[tokio::test]
    async fn what_was_due_in_the_warm_up_is_no_sample() {
        let (window, mut turns, _) = begin(pace(3_600_000, 1, None), 1);
        let warm = turns[0].next().await.unwrap();
        turns[0].done(warm);
        turns[0].done(window.measured_from);
        assert_eq!((turns[0].samples.times.len(), turns[0].samples.done), (1, 2));
        let warming = timeout(Duration::ZERO, window.warmed_up()).await;
        assert!(warming.is_err(), "an hour of warm-up was over at once");
    }
}
