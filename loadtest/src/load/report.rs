//! Named figures, as a table for people and as JSON for programs.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The figures of one run, in order.
#[derive(Debug, Default)]
pub(super) struct Report {
    figures: Vec<(&'static str, f64, &'static str)>,
}

impl Report {
    pub(super) fn add(&mut self, name: &'static str, value: f64, unit: &'static str) {
        // JSON has no others; a quotient of nothing is nothing.
        self.figures.push((name, if value.is_finite() { value } else { 0.0 }, unit));
    }

    pub(super) fn add_time(&mut self, name: &'static str, time: Duration) {
        self.add(name, time.as_secs_f64() * 1e6, "us");
    }

    /// Median, tail and maximum of times in nanoseconds.
    pub(super) fn add_times(&mut self, histogram: &Histogram<u64>) {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            self.add(name, histogram.value_at_quantile(quantile) as f64 / 1e3, "us");
        }
    }

    /// Adds what the manager's debug log tells at its end: how often its rings were entered, and how evenly sessions
    /// were spread over its shards.
    pub(super) fn take_log(&mut self, log: &[String]) {
        let shards: Vec<(f64, f64)> = log.iter().filter_map(|line| shard_counts(line)).collect();
        let entered: f64 = shards.iter().map(|(entered, _)| entered).sum();
        self.add("ring enters", entered, "");
        if let Some((_, trips, _)) = self.figures.iter().find(|(name, ..)| *name == "round trips") {
            let trips = *trips;
            self.add("ring enters per round trip", entered / trips, "");
        }
        let sessions: f64 = shards.iter().map(|(_, sessions)| sessions).sum();
        let smallest = shards.iter().map(|(_, sessions)| *sessions).fold(f64::INFINITY, f64::min);
        self.add("shards", shards.len() as f64, "");
        self.add("smallest shard of the mean", smallest * shards.len() as f64 / sessions, "");
    }

    pub(super) fn table(&self) -> String {
        let line =
            |(name, value, unit): &(&str, f64, &str)| format!("{name:<28} {value:>14.3} {unit}");
        self.figures.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn json(&self) -> String {
        let member = |(name, value, unit): &(&str, f64, &str)| {
            let unit = if unit.is_empty() { String::new() } else { format!(" [{unit}]") };
            format!("\"{name}{unit}\": {value}")
        };
        format!("{{{}}}", self.figures.iter().map(member).collect::<Vec<_>>().join(", "))
    }
}

/// How often the ring was entered and how many sessions there were, if this line tells it of a shard.
fn shard_counts(line: &str) -> Option<(f64, f64)> {
    let mut words = line.split_once("ring entered ")?.1.split_whitespace();
    let entered = words.next()?.parse().ok()?;
    let sessions = words.find_map(|word| word.parse().ok())?;
    Some((entered, sessions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shards_tell_at_their_end_is_added_up() {
        let mut report = Report::default();
        report.add("round trips", 1000.0, "");
        let log = ["DEBUG shard 0: ring entered 300 times, 30 sessions", "INFO run over", ""]
            .into_iter()
            .chain(["DEBUG shard 1: ring entered 200 times, 10 sessions"])
            .map(str::to_owned);
        report.take_log(&log.collect::<Vec<_>>());
        let json = report.json();
        for figure in ["\"ring enters\": 500", "trip\": 0.5", "\"shards\": 2", "mean\": 0.5"] {
            assert!(json.contains(figure), "{figure} in {json}");
        }
    }
}
