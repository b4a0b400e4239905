//! What is told of a series: as tables for people, as JSON for programs.
//!
//! Not here: measuring.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::about::About;
use super::ratios::{Ratios, Round, medians, of_each, ratios, spread};
use super::report::{Figure, Report};

/// Width of a column of numbers.
const WIDTH: usize = 12;

/// What is told of one step of a series, or of all there is.
#[derive(Debug, serde::Serialize)]
pub(super) struct Told {
    pub(super) about: About,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// What was measured.
#[derive(Debug)]
pub(super) enum Figures {
    /// In one run.
    Once(Report),
    /// In several runs.
    Repeated(Vec<Report>),
    /// In rounds, beside another program.
    Compared(Vec<Round>),
}

impl Told {
    /// For people.
    pub(super) fn table(&self) -> String {
        self.about.table() + &self.figures.table()
    }
}

impl Figures {
    /// The figures as one run would have them, of each program.
    pub(super) fn medians(&self) -> Vec<(&'static str, Report)> {
        match self {
            Self::Once(report) => vec![("this", medians(&[report]))],
            Self::Repeated(runs) => vec![("this", medians(&runs.iter().collect::<Vec<_>>()))],
            Self::Compared(rounds) => {
                let (this, other) = both(rounds);
                vec![("this", medians(&this)), ("other", medians(&other))]
            }
        }
    }

    fn table(&self) -> String {
        match self {
            Self::Once(report) => report.table(),
            Self::Repeated(runs) => table_of_runs(runs),
            Self::Compared(rounds) => table_of_rounds(rounds),
        }
    }
}

/// The runs of this program and of the other one.
fn both(rounds: &[Round]) -> (Vec<&Report>, Vec<&Report>) {
    rounds.iter().map(|round| (&round.this, &round.other)).unzip()
}

fn table_of_runs(runs: &[Report]) -> String {
    let runs: Vec<_> = runs.iter().collect();
    let heads = (1..=runs.len()).map(|number| format!("run {number}"));
    let heads = heads.chain(["median", "least", "greatest"].map(str::to_owned));
    let row = |figure: &Figure| {
        let mut values = of_each(figure, &runs);
        let spread = spread(&values);
        values.extend([spread.median, spread.least, spread.greatest]);
        values.into_iter().map(|value| figure.shown(value)).collect()
    };
    table(runs[0], heads.collect(), row)
}

fn table_of_rounds(rounds: &[Round]) -> String {
    let (this, other) = both(rounds);
    let mut heads: Vec<_> = ["this", "other"].map(str::to_owned).into();
    heads.extend((1..=rounds.len()).map(|number| format!("ratio {number}")));
    heads.push("median".to_owned());
    let is_itself = rounds[0].other_again.is_some();
    if is_itself {
        heads.extend(["itself from", "to", "outside"].map(str::to_owned));
    }
    let row = |figure: &Figure| {
        let median = |runs: &[&Report]| figure.shown(spread(&of_each(figure, runs)).median);
        let mut cells = vec![median(&this), median(&other)];
        let Ratios { pairs, spread, itself, is_outside } = ratios(figure, rounds);
        cells.extend(pairs.into_iter().chain([spread.median]).map(shown_ratio));
        if let Some(itself) = itself {
            cells.extend([itself.least, itself.greatest].map(shown_ratio));
            let outside = is_outside.map_or("-", |is_so| if is_so { "yes" } else { "no" });
            cells.push(outside.to_owned());
        }
        cells
    };
    table(&rounds[0].this, heads, row)
}

fn shown_ratio(ratio: f64) -> String {
    if ratio.is_finite() { format!("{ratio:.3}") } else { "-".to_owned() }
}

/// A head, then a row for each figure of `first`.
fn table(first: &Report, heads: Vec<String>, row: impl Fn(&Figure) -> Vec<String>) -> String {
    let name = |figure: &Figure| format!("{} {}", figure.name, figure.unit).trim_end().to_owned();
    let width = first.figures().map(|figure| name(figure).len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut line = |name: &str, cells: Vec<String>| {
        let _ = write!(text, "{name:<width$}");
        for cell in cells {
            let _ = write!(text, " {cell:>WIDTH$}");
        }
        text.push('\n');
    };
    line("", heads);
    first.figures().for_each(|figure| line(&name(figure), row(figure)));
    text.truncate(text.trim_end().len());
    text
}

/// With one run `figures`; with several `runs`, and `spread` by figure; with another program `rounds`, and `ratios` by
/// figure.
impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        let mut map = json.serialize_map(None)?;
        match self {
            Self::Once(report) => map.serialize_entry("figures", report)?,
            Self::Repeated(runs) => {
                map.serialize_entry("runs", runs)?;
                let of_runs: Vec<_> = runs.iter().collect();
                let spread = |figure: &Figure| (figure.key(), spread(&of_each(figure, &of_runs)));
                map.serialize_entry("spread", &by_key(&runs[0], spread))?;
            }
            Self::Compared(rounds) => {
                map.serialize_entry("rounds", rounds)?;
                let ratios = |figure: &Figure| (figure.key(), ratios(figure, rounds));
                map.serialize_entry("ratios", &by_key(&rounds[0].this, ratios))?;
            }
        }
        map.end()
    }
}

fn by_key<T>(first: &Report, member: impl Fn(&Figure) -> (String, T)) -> BTreeMap<String, T> {
    first.figures().map(member).collect()
}
