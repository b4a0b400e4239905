//! Figures of several runs: their medians and ranges, and the ratios of runs by turns, pair by pair.
//!
//! Not here: the runs. What is no number is none, and comes last when numbers are put in order.

use serde::Serialize;

use super::report::{Figure, Report};

/// The middle one, the lower of two, and the range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) greatest: f64,
}

/// That of these values; of none it is no number.
pub(super) fn spread(values: &[f64]) -> Spread {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    let last = sorted.len().saturating_sub(1);
    Spread { median: at(last / 2), least: at(0), greatest: at(last) }
}

/// A figure of the same name and unit, of each of these runs.
pub(super) fn of_each(figure: &Figure, runs: &[&Report]) -> Vec<f64> {
    runs.iter().map(|run| run.value(figure)).collect()
}

/// The median of each figure that the first run has.
pub(super) fn medians(runs: &[&Report]) -> Report {
    let mut medians = Report::default();
    for figure in runs.first().into_iter().flat_map(|first| first.figures()) {
        let median = spread(&of_each(figure, runs)).median;
        medians.add(figure.name.clone(), median, figure.unit);
    }
    medians
}

/// One round of a comparison: the other program, this one, and if it is compared with itself the other one again.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    pub(super) other: Report,
    pub(super) this: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) other_again: Option<Report>,
}

/// How a figure compares.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Ratios {
    /// This to the other, round by round.
    pub(super) pairs: Vec<f64>,
    #[serde(flatten)]
    pub(super) spread: Spread,
    /// The other's second run to its first, round by round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) itself: Option<Spread>,
    /// Whether the median lies outside the range of the other program against itself: then the difference is real.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) is_outside: Option<bool>,
}

/// How this figure compares in these rounds.
pub(super) fn ratios(figure: &Figure, rounds: &[Round]) -> Ratios {
    let pairs: Vec<_> =
        rounds.iter().map(|round| round.this.value(figure) / round.other.value(figure)).collect();
    let again =
        |round: &Round| Some(round.other_again.as_ref()?.value(figure) / round.other.value(figure));
    let itself: Vec<_> = rounds.iter().filter_map(again).collect();
    let itself = (!itself.is_empty()).then(|| spread(&itself));
    let spread = spread(&pairs);
    let is_outside = itself
        .filter(|_| spread.median.is_finite())
        .map(|itself| spread.median < itself.least || spread.median > itself.greatest);
    Ratios { pairs, spread, itself, is_outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cost: f64) -> Report {
        let mut report = Report::default();
        report.add("sessions", 100.0, "");
        report.add("sessions", 10.0 / cost, "/s");
        report.add("cpu per session", cost, "us");
        report
    }

    /// Rounds of these costs of the other, of this, and of the other again.
    fn rounds(costs: &[(f64, f64, f64)]) -> Vec<Round> {
        let round = |&(other, this, again)| Round {
            other: report(other),
            this: report(this),
            other_again: Some(report(again)),
        };
        costs.iter().map(round).collect()
    }

    #[test]
    fn the_median_is_a_value_that_occurred_and_of_nothing_no_number() {
        let of = |values: &[f64]| spread(values).median;
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, greatest: 3.0 });
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), 2.0);
        assert_eq!(of(&[f64::NAN, 1.0, 2.0]), 2.0);
        assert!(of(&[]).is_nan());
    }

    #[test]
    fn figures_of_one_name_are_told_apart_by_their_unit() {
        let reports = [report(1.0), report(4.0), report(2.0)];
        let medians = medians(&reports.iter().collect::<Vec<_>>());
        let told: Vec<_> = medians.figures().map(|figure| (figure.unit, figure.value)).collect();
        assert_eq!(told, [("", 100.0), ("/s", 5.0), ("us", 2.0)]);
    }

    #[test]
    fn ratios_are_those_of_pairs_and_not_of_medians() {
        // The machine is half as fast in the second round: both cost twice as much.
        let rounds = rounds(&[(10.0, 11.0, 10.0), (20.0, 22.0, 20.0), (10.0, 12.0, 10.5)]);
        let cost = rounds[0].this.figures().last().unwrap();
        let ratios = ratios(cost, &rounds);
        assert_eq!(ratios.pairs, [1.1, 1.1, 1.2]);
        assert_eq!(ratios.spread, Spread { median: 1.1, least: 1.1, greatest: 1.2 });
        assert_eq!(ratios.itself, Some(Spread { median: 1.0, least: 1.0, greatest: 1.05 }));
        assert_eq!(ratios.is_outside, Some(true));
    }

    #[test]
    fn what_lies_within_the_range_of_the_other_against_itself_is_no_difference() {
        let mut rounds = rounds(&[(10.0, 11.0, 12.0), (10.0, 11.0, 9.0), (10.0, 8.0, 10.0)]);
        let cost = report(1.0);
        let cost = cost.figures().last().unwrap();
        assert_eq!(ratios(cost, &rounds).is_outside, Some(false));
        for round in &mut rounds {
            round.other_again = None;
        }
        let alone = ratios(cost, &rounds);
        assert_eq!((alone.itself, alone.is_outside), (None, None));
    }

    #[test]
    fn of_figures_that_are_no_numbers_nothing_is_said() {
        let cost = report(1.0);
        let cost = cost.figures().last().unwrap();
        let ratios = ratios(cost, &rounds(&[(0.0, 0.0, 0.0)]));
        assert!(ratios.spread.median.is_nan());
        assert_eq!(ratios.is_outside, None);
    }
}
