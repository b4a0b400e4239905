//! The charts of the page: when sessions ended, and what endpoints took.
//!
//! Not here: how a chart is drawn (`page/chart.rs`), and its numbers (`timeline.rs`, `results/tally.rs`).

use super::timeline::Course;
use crate::page::chart::{Chart, Tick, linear, times, x, y};
use crate::page::html::Html;

/// A curve has so many steps, which is more than can be told apart.
const STEPS: usize = 400;

/// How many sessions had ended at what time, and how many of them `ok`.
pub(super) fn completion(html: &mut Html, course: &Course) {
    let count = course.ends.len().max(1) as f64;
    let len = course.len.max(0.001);
    let mut chart = Chart::between(&times(len), &linear(count, ""));
    for start in &course.later_runs {
        chart.line("run", [(start / len, 0.0), (start / len, 1.0)].into_iter());
    }
    chart.path("all", curve(course, |_| true));
    chart.path("good", curve(course, |is_ok| is_ok));
    chart.write(html, "Sessions that had ended, all and ok, over the time in which runs ran");
}

/// A curve of those ends that are counted.
fn curve(course: &Course, counts: impl Fn(bool) -> bool) -> String {
    let total = course.ends.len().max(1) as f64;
    let len = course.len.max(0.001);
    let mut line = format!("M{:.1} {:.1}", x(0.0), y(0.0));
    let mut ends = course.ends.iter().peekable();
    let mut ended = 0_usize;
    for step in 1..=STEPS {
        let part = step as f64 / STEPS as f64;
        let before = ended;
        // The last step takes all, whatever rounding says.
        while let Some((_, is_ok)) = ends.next_if(|(at, _)| step == STEPS || *at <= part * len) {
            ended += usize::from(counts(*is_ok));
        }
        if ended != before || step == STEPS {
            line.push_str(&format!("H{:.1}V{:.1}", x(part), y(ended as f64 / total)));
        }
    }
    line
}

/// One mark.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Milliseconds.
    pub(super) run: f64,
    pub(super) bytes: f64,
    pub(super) is_ok: bool,
}

/// Run time and bytes of each endpoint, on scales of powers of ten and of eight, in the units of the tables.
pub(super) fn endpoints(html: &mut Html, marks: &[Mark]) {
    let run = Powers::of(10, marks.iter().map(|mark| mark.run));
    let bytes = Powers::of(8, marks.iter().map(|mark| mark.bytes));
    let mut chart = Chart::between(&run.ticks(milliseconds), &bytes.ticks(size));
    let place = |mark: &Mark| (x(run.part(mark.run)), y(bytes.part(mark.bytes)));
    let (mut dots, mut crosses) = (String::new(), String::new());
    for mark in marks {
        let (x, y) = place(mark);
        match mark.is_ok {
            true => dots.push_str(&format!("M{x:.1} {y:.1}h0")),
            false => crosses.push_str(&format!("M{:.1} {:.1}l8 8m0-8l-8 8", x - 4.0, y - 4.0)),
        }
    }
    chart.path("dot", dots);
    chart.path("cross", crosses);
    chart.write(html, "Run time and bytes relayed of each endpoint");
}

/// From a power of a number to another.
struct Powers {
    base: u32,
    low: i32,
    high: i32,
}

impl Powers {
    /// Those that hold all of these; what is less than 1 is taken for 1.
    fn of(base: u32, amounts: impl Iterator<Item = f64>) -> Self {
        let exponents = amounts.map(|amount| logarithm(amount, base));
        let (low, high) = exponents.fold((f64::INFINITY, 0.0_f64), |(low, high), exponent| {
            (low.min(exponent), high.max(exponent))
        });
        let low = if low.is_finite() { low.floor() as i32 } else { 0 };
        Self { base, low, high: (high.ceil() as i32).max(low + 1) }
    }

    fn part(&self, amount: f64) -> f64 {
        (logarithm(amount, self.base) - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    fn ticks(&self, told: fn(i32) -> String) -> Vec<Tick> {
        let tick = |exponent| (self.part(f64::from(self.base).powi(exponent)), told(exponent));
        (self.low..=self.high).map(tick).collect()
    }
}

/// What is less than 1 is taken for 1. Exact for powers, which `log` is not.
fn logarithm(amount: f64, base: u32) -> f64 {
    match base {
        10 => amount.max(1.0).log10(),
        _ => amount.max(1.0).log2() / f64::from(base.ilog2()),
    }
}

/// 10 to this power, in milliseconds.
fn milliseconds(exponent: i32) -> String {
    match exponent {
        ..3 => format!("{} ms", 10_f64.powi(exponent)),
        _ => format!("{} s", 10_f64.powi(exponent - 3)),
    }
}

/// 8 to this power, in bytes.
fn size(exponent: i32) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let bits = 3 * u32::try_from(exponent).unwrap_or(0);
    let unit = units.get(usize::try_from(bits / 10).unwrap_or(0)).unwrap_or(&"");
    format!("{} {unit}", 1 << (bits % 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ticks: &[Tick]) -> String {
        ticks.iter().map(|(_, told)| told.as_str()).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn axes_of_powers_bear_them_in_the_units_of_tables() {
        let decades = Powers::of(10, [0.0, 400_000.0, 2e6].into_iter());
        let seconds = "1 ms, 10 ms, 100 ms, 1 s, 10 s, 100 s, 1000 s, 10000 s";
        assert_eq!(told(&decades.ticks(milliseconds)), seconds);
        let one = Powers::of(8, [1024.0, 2e6].into_iter());
        let sizes = "512 B, 4 KiB, 32 KiB, 256 KiB, 2 MiB";
        assert_eq!((told(&one.ticks(size)), one.part(512.0)), (sizes.into(), 0.0));
        assert_eq!(one.part(32_768.0), 0.5);
        assert_eq!(told(&Powers::of(8, std::iter::empty()).ticks(size)), "1 B, 8 B");
    }

    #[test]
    fn a_curve_ends_with_all_of_its_sessions() {
        let ends = vec![(0.5, true), (0.5, false), (2.0, true), (2.000_000_1, true)];
        let course = Course { ends, later_runs: vec![], len: 2.0 };
        let line = curve(&course, |_| true);
        assert!(line.starts_with("M80.0 250.0H232.5V132.5"), "{line}");
        assert!(line.ends_with("H690.0V15.0"), "{line}");
        let line = curve(&course, |is_ok| is_ok);
        assert!(line.ends_with("H690.0V73.8"), "{line}");
    }
}
