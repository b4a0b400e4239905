//! Named figures, as a table for people and as JSON for programs.

use std::borrow::Cow;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::records::ShardEnd;

/// Below this every whole number is a figure of its own (2^53).
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// What is told of times beside their maximum.
pub(super) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The figures of one run, in order.
#[derive(Debug, Default)]
pub(super) struct Report {
    figures: Vec<Figure>,
}

/// One of them. The same name with another unit is another figure.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) name: Cow<'static, str>,
    /// Of nothing there is no quotient and no quantile: such a figure is not finite.
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

impl Figure {
    /// Its name in JSON.
    pub(super) fn key(&self) -> String {
        key(&self.name, self.unit)
    }

    /// A value of it as people read it; `-` for one that was not measured.
    pub(super) fn shown(&self, value: f64) -> String {
        // A count is whole.
        let decimals = if self.unit.is_empty() && value.fract() == 0.0 { 0 } else { 3 };
        if value.is_finite() { format!("{value:.decimals$}") } else { "-".to_owned() }
    }
}

impl Report {
    pub(super) fn add(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: f64,
        unit: &'static str,
    ) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    pub(super) fn add_time(&mut self, name: &'static str, time: Duration) {
        self.add(name, time.as_secs_f64() * 1e6, "us");
    }

    /// Median, tail and maximum of times in nanoseconds, with `front` before their names.
    pub(super) fn add_times(&mut self, front: &str, histogram: &Histogram<u64>) {
        for (name, quantile) in QUANTILES {
            let time_us = histogram.value_at_quantile(quantile) as f64 / 1e3;
            self.add(format!("{front}{name}"), time_us, "us");
        }
        self.add(format!("{front}max"), histogram.max() as f64 / 1e3, "us");
    }

    /// Adds how often the manager's rings were entered, and how evenly sessions were spread over its shards.
    pub(super) fn take_shards(&mut self, shards: &[ShardEnd]) {
        let entered = shards.iter().map(|shard| shard.enters).sum::<u64>() as f64;
        self.add("ring enters", entered, "");
        if let Some(trips) = self.figures.iter().find(|figure| figure.name == "round trips") {
            let per_trip = entered / trips.value;
            self.add("ring enters per round trip", per_trip, "");
        }
        let sessions = shards.iter().map(|shard| shard.sessions).sum::<u64>() as f64;
        let smallest = shards.iter().map(|shard| shard.sessions).min();
        let smallest = smallest.map_or(f64::NAN, |smallest| smallest as f64);
        self.add("shards", shards.len() as f64, "");
        self.add("smallest shard of the mean", smallest * shards.len() as f64 / sessions, "");
    }

    /// All of them, in order.
    pub(super) fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter()
    }

    /// The value that this figure has here; no number if there is none.
    pub(super) fn value(&self, of: &Figure) -> f64 {
        let is_it = |figure: &&Figure| figure.name == of.name && figure.unit == of.unit;
        self.figures.iter().find(is_it).map_or(f64::NAN, |figure| figure.value)
    }

    /// One figure a line.
    pub(super) fn table(&self) -> String {
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let line = |figure: &Figure| {
            let Figure { name, value, unit } = figure;
            format!("{name:<width$} {:>14} {unit}", figure.shown(*value))
        };
        self.figures.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// The name of a figure in JSON: its words and its unit, in small letters and joined by underscores.
fn key(name: &str, unit: &str) -> String {
    let words = format!("{name} {unit}").to_lowercase();
    let words = words.replace('%', " percent").replace('/', " per ");
    let words = words.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

/// One object, the units in the keys, `null` for a figure that was not measured.
impl Serialize for Report {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        let member = |figure: &Figure| {
            let value = match figure.value {
                // A count is whole, and shown so.
                count if count.fract() == 0.0 && count.abs() < WHOLE_MAX => {
                    Value::from(count as i64)
                }
                other => Value::from(other),
            };
            (figure.key(), value)
        };
        json.collect_map(self.figures.iter().map(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shards_tell_at_their_end_is_added_up() {
        let mut report = Report::default();
        report.add("round trips", 1000.0, "");
        report.take_shards(&[
            ShardEnd { enters: 300, sessions: 30 },
            ShardEnd { enters: 200, sessions: 10 },
        ]);
        let json = serde_json::to_string(&report).unwrap();
        for figure in ["\"ring_enters\":500", "trip\":0.5", "\"shards\":2", "mean\":0.5"] {
            assert!(json.contains(figure), "{figure} in {json}");
        }
    }

    #[test]
    fn keys_are_words_with_their_unit_and_have_no_brackets() {
        for (name, unit, expected) in [
            ("cpu per session", "us", "cpu_per_session_us"),
            ("throughput", "MB/s", "throughput_mb_per_s"),
            ("round trips", "/s", "round_trips_per_s"),
            ("PSS per session", "KiB", "pss_per_session_kib"),
            ("cpu of one core", "%", "cpu_of_one_core_percent"),
            ("attack to base, set-up p99", "", "attack_to_base_set_up_p99"),
            ("bare TCP + socket pair p50", "us", "bare_tcp_socket_pair_p50_us"),
            ("p99.99", "us", "p99_99_us"),
        ] {
            assert_eq!(key(name, unit), expected);
        }
    }

    #[test]
    fn the_tail_is_told_to_one_in_ten_thousand() {
        let mut times = Histogram::new_with_max(60_000_000_000, 3).unwrap();
        times.record_n(1_000, 99_980).unwrap();
        times.record_n(2_000_000, 20).unwrap();
        let mut report = Report::default();
        report.add_times("", &times);
        let told: Vec<_> =
            report.figures.iter().map(|figure| (&*figure.name, figure.value)).collect();
        assert_eq!(told[..4], [("p50", 1.0), ("p90", 1.0), ("p99", 1.0), ("p99.9", 1.0)]);
        assert!(told[4].0 == "p99.99" && told[4].1 > 1_999.0, "{told:?}");
        assert!(told[5].0 == "max" && told[5].1 > 1_999.0, "{told:?}");
    }

    #[test]
    fn a_figure_that_was_not_measured_is_told_as_such() {
        let mut report = Report::default();
        report.add("p99", f64::NAN, "us");
        report.add(format!("{} p99", "base"), 2.5, "us");
        report.add("threads", 3.0, "");
        report.add("ratio", 1.5, "");
        let json = r#"{"p99_us":null,"base_p99_us":2.5,"threads":3,"ratio":1.5}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), json);
        let table = [
            "p99                   - us",
            "base p99          2.500 us",
            "threads               3 ",
            "ratio             1.500 ",
        ];
        assert_eq!(report.table(), table.join("\n"));
    }
}
