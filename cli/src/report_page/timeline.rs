//! When sessions ended, on the time in which runs ran: the pause between two runs of a folder is left out.
//!
//! Pure. Not here: how it is drawn.

use packetlab::time::Ticks;

use crate::results::record::Event;
use crate::results::time::rfc3339;

/// Records in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    runs: Vec<Span>,
    /// Of each session: its run, when it ended, whether it is `ok`.
    ends: Vec<(usize, Ticks, bool)>,
}

#[derive(Debug)]
struct Span {
    name: String,
    first: Ticks,
    last: Ticks,
}

/// The same, ready to be drawn. Times are seconds since the first run began.
#[derive(Debug, PartialEq)]
pub(super) struct Course {
    /// Each end, in order, and whether it is one of an `ok`.
    pub(super) ends: Vec<(f64, bool)>,
    /// When each run but the first began.
    pub(super) later_runs: Vec<f64>,
    /// How long all runs took.
    pub(super) len: f64,
}

impl Timeline {
    /// Takes a record that is wanted.
    pub(super) fn add(&mut self, event: &Event) {
        match event {
            Event::RunStart(start) => {
                self.note(&start.run, rfc3339(&start.t));
            }
            Event::RunEnd(end) => {
                self.note(&end.run, rfc3339(&end.t));
            }
            Event::Session(session) => {
                // A run whose first record is lost began with its first session.
                self.note(&session.run, session.accepted_at());
                let ended = rfc3339(&session.t);
                if let (Some(run), Some(ended)) = (self.note(&session.run, ended), ended) {
                    self.ends.push((run, ended, session.outcome == "ok"));
                }
            }
            Event::Folded(_) | Event::Other => {}
        }
    }

    /// Something happened in this run, which is returned.
    fn note(&mut self, name: &str, time: Option<Ticks>) -> Option<usize> {
        let time = time?;
        let run = self.runs.iter().rposition(|run| run.name == name).unwrap_or_else(|| {
            self.runs.push(Span { name: name.to_owned(), first: time, last: time });
            self.runs.len() - 1
        });
        let span = self.runs.get_mut(run)?;
        span.first = span.first.min(time);
        span.last = span.last.max(time);
        Some(run)
    }

    /// All of it, one run behind the other.
    pub(super) fn course(&self) -> Course {
        let seconds = |from: Ticks, to: Ticks| to.saturating_duration_since(from).as_secs_f64();
        let mut starts = Vec::new();
        let mut len = 0.0;
        for run in &self.runs {
            starts.push(len);
            len += seconds(run.first, run.last);
        }
        let place = |(run, time, is_ok): &(usize, Ticks, bool)| {
            let (start, span) = (starts.get(*run)?, self.runs.get(*run)?);
            Some((start + seconds(span.first, *time), *is_ok))
        };
        let mut ends: Vec<_> = self.ends.iter().filter_map(place).collect();
        ends.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Course { ends, later_runs: starts.split_off(1.min(starts.len())), len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::record;

    fn course(lines: &[&str]) -> Course {
        let mut timeline = Timeline::default();
        for members in lines {
            let line = format!(r#"{{"v":1,{members}}}"#);
            timeline.add(&record::read(line.as_bytes()).unwrap());
        }
        timeline.course()
    }

    #[test]
    fn the_pause_between_two_runs_is_left_out() {
        let course = course(&[
            r#""ev":"run.start","run":"a","t":"2026-11-23T11:00:00Z""#,
            r#""ev":"session.end","run":"a","sid":2,"outcome":"ok","t":"2026-11-23T11:00:04Z""#,
            r#""ev":"session.end","run":"a","sid":1,"outcome":"killed","t":"2026-11-23T11:00:02.5Z""#,
            r#""ev":"run.start","run":"b","t":"2026-11-24T11:00:00Z""#,
            r#""ev":"session.end","run":"b","sid":3,"outcome":"ok","t":"2026-11-24T11:00:01Z""#,
            r#""ev":"run.end","run":"b","t":"2026-11-24T11:00:02Z""#,
        ]);
        let ends = vec![(2.5, false), (4.0, true), (5.0, true)];
        assert_eq!(course, Course { ends, later_runs: vec![4.0], len: 6.0 });
    }

    #[test]
    fn a_run_whose_first_record_is_lost_began_with_its_first_session() {
        let course = course(&[
            r#""ev":"session.end","run":"a","sid":2,"outcome":"ok","t":"2026-11-23T11:00:04Z",
               "accepted":"2026-11-23T11:00:01Z""#,
        ]);
        assert_eq!(course, Course { ends: vec![(3.0, true)], later_runs: vec![], len: 3.0 });
        let nothing = Timeline::default().course();
        assert_eq!(nothing, Course { ends: vec![], later_runs: vec![], len: 0.0 });
    }
}
