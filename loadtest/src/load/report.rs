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

    /// Adds what the manager's debug log tells at its end: how often its rings were entered.
    pub(super) fn take_log(&mut self, log: &[String]) {
        let entered = log.iter().filter_map(|line| {
            line.split_once("ring entered ")?.1.split_whitespace().next()?.parse::<f64>().ok()
        });
        let entered: f64 = entered.sum();
        self.add("ring enters", entered, "");
        if let Some((_, trips, _)) = self.figures.iter().find(|(name, ..)| *name == "round trips") {
            let trips = *trips;
            self.add("ring enters per round trip", entered / trips, "");
        }
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
