//! How a run has gone so far, in few points however long it lasts: when there are too many, every second one is left out,
//! and from then on points are twice as far apart.
//!
//! Pure. Not here: how it is drawn. Invariant: a page that is opened late shows the whole run.

use std::time::Duration;

use engine::{BothWays, SessionsByPhase, Snapshot};

/// More than can be told apart in a chart.
const POINTS_MAX: usize = 240;

/// How far apart points are at first.
const APART: Duration = Duration::from_secs(1);

/// What is kept of a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// Since the run began.
    pub(super) at: Duration,
    pub(super) sessions: SessionsByPhase,
    /// Since the run began as well: what passed between two points is their difference.
    pub(super) bytes: BothWays<u64>,
}

/// The run so far.
#[derive(Debug)]
pub(super) struct History {
    points: Vec<Point>,
    apart: Duration,
    /// Of each phase the most sessions that any look has seen in it, be that a point or not.
    most: [u64; 6],
}

impl Default for History {
    fn default() -> Self {
        Self { points: Vec::new(), apart: APART, most: [0; 6] }
    }
}

impl History {
    /// How far apart points are.
    pub(super) fn apart(&self) -> Duration {
        self.apart
    }

    /// All points, in order.
    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    /// How many sessions have been in each phase at most, in the order of their names.
    pub(super) fn most(&self) -> [u64; 6] {
        self.most
    }

    /// Takes this time as a point, if the one before is far enough away. True if it did.
    pub(super) fn add(&mut self, run: &Snapshot) -> bool {
        let Snapshot { lasted, sessions, bytes, .. } = run;
        self.add_point(Point { at: *lasted, sessions: *sessions, bytes: *bytes })
    }

    fn add_point(&mut self, point: Point) -> bool {
        for (most, (_, count)) in self.most.iter_mut().zip(point.sessions.named()) {
            *most = count.max(*most);
        }
        // A clock that ticks a little early must not leave out every second point.
        let near = self.apart * 3 / 4;
        if self.points.last().is_some_and(|last| point.at.saturating_sub(last.at) < near) {
            return false;
        }
        if self.points.len() >= POINTS_MAX {
            let mut number = 0_usize;
            self.points.retain(|_| {
                number += 1;
                !number.is_multiple_of(2)
            });
            self.apart *= 2;
        }
        self.points.push(point);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_sessions_are_remembered_though_no_point_is_left_of_that_time() {
        let mut history = History::default();
        for second in 0..36_000_u64 {
            // A single second, which is a point that is left out later; and half a second behind one, which is none.
            for (ms, running) in [(0, if second == 7 { 900 } else { 5 }), (500, second % 100)] {
                let sessions = SessionsByPhase { running, ..SessionsByPhase::default() };
                let at = Duration::from_millis(1_000 * second + ms);
                history.add_point(Point { at, sessions, bytes: BothWays::default() });
            }
        }
        assert!(history.points().iter().all(|point| point.sessions.running < 900));
        let names = SessionsByPhase::default().named().map(|(name, _)| name);
        let expected = names.map(|name| if name == "running" { 900 } else { 0 });
        assert_eq!(history.most(), expected);
    }

    #[test]
    fn it_holds_the_whole_run_in_few_points_that_lie_evenly() {
        let mut history = History::default();
        let mut taken = 0;
        for second in 0..36_000_u64 {
            let running = second;
            let point = Point {
                at: Duration::from_secs(second),
                sessions: SessionsByPhase { running, ..SessionsByPhase::default() },
                bytes: BothWays::default(),
            };
            taken += usize::from(history.add_point(point));
            assert!(history.points().len() <= POINTS_MAX);
        }
        assert!(taken < 2_000, "{taken}: most are not even looked at");
        let points = history.points();
        assert_eq!(points[0].at, Duration::ZERO);
        assert!(points.len() >= POINTS_MAX / 2);
        assert!(points.last().unwrap().at >= Duration::from_secs(36_000) - 2 * history.apart());
        for pair in points.windows(2) {
            let apart = pair[1].at - pair[0].at;
            assert!(
                apart >= history.apart() * 3 / 4 && apart <= history.apart() * 3 / 2,
                "{apart:?}"
            );
            assert_eq!(pair[1].sessions.running, pair[1].at.as_secs());
        }
    }
}
