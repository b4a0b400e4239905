//! Charts as SVG: where lines and the marks of axes lie, for a page that is written once and for one that goes on changing.
//!
//! Not here: the numbers. What a chart shows is also said in words or in a table beside it, and no two marks differ by
//! their colour alone.

use serde::Serialize;

use super::html::Html;

/// Of the whole picture, and of the margins that hold its axes.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 15.0;
const BOTTOM: f64 = 50.0;

/// The part of the page in which a chart is drawn, but for what it is called.
pub(crate) const BEGIN: &str = "<svg class=\"chart\" role=\"img\" viewBox=\"0 0 720 300\"";

/// A place on an axis, from 0 at its beginning to 1 at its end, and what is written there.
pub(crate) type Tick = (f64, String);

/// A chart, ready to be drawn.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Chart {
    labels: Vec<Label>,
    paths: Vec<Path>,
}

#[derive(Debug, Serialize)]
struct Label {
    x: String,
    y: String,
    anchor: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct Path {
    class: &'static str,
    d: String,
}

impl Chart {
    /// An empty one between these axes.
    pub(crate) fn between(along: &[Tick], up: &[Tick]) -> Self {
        let mut chart = Self::default();
        let bottom = HEIGHT - BOTTOM;
        let mut grid = String::new();
        for (part, told) in along {
            grid.push_str(&format!("M{:.1} {TOP}V{bottom}", x(*part)));
            chart.label((x(*part), bottom + 22.0), "middle", told);
        }
        for (part, told) in up {
            grid.push_str(&format!("M{LEFT} {:.1}H{}", y(*part), WIDTH - RIGHT));
            chart.label((LEFT - 8.0, y(*part) + 5.0), "end", told);
        }
        chart.path("grid", grid);
        chart
    }

    fn label(&mut self, (x, y): (f64, f64), anchor: &'static str, text: &str) {
        let (x, y) = (format!("{x:.1}"), format!("{y:.1}"));
        self.labels.push(Label { x, y, anchor, text: text.to_owned() });
    }

    /// Adds a path that looks as the style says of its class.
    pub(crate) fn path(&mut self, class: &'static str, d: String) {
        self.paths.push(Path { class, d });
    }

    /// Adds a line through these places, of which each is a part of the way along and a part of the way up.
    pub(crate) fn line(&mut self, class: &'static str, places: impl Iterator<Item = (f64, f64)>) {
        let mut d = String::new();
        for (along, up) in places {
            let to = if d.is_empty() { 'M' } else { 'L' };
            d.push_str(&format!("{to}{:.1} {:.1}", x(along), y(up)));
        }
        self.path(class, d);
    }

    /// Adds the picture, called so.
    pub(crate) fn write(&self, html: &mut Html, what: &'static str) {
        html.raw(BEGIN).raw(" aria-label=\"").raw(what).raw("\">");
        for Label { x, y, anchor, text } in &self.labels {
            html.raw("<text x=\"").text(x).raw("\" y=\"").text(y);
            html.raw("\" text-anchor=\"").raw(anchor).raw("\">").text(text).raw("</text>");
        }
        for Path { class, d } in &self.paths {
            html.raw("<path class=\"").raw(class).raw("\" d=\"").text(d).raw("\"/>");
        }
        html.raw("</svg>");
    }
}

/// A bar as long as this part of the whole.
pub(crate) fn bar(html: &mut Html, part: f64) {
    html.raw("<svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">")
        .raw("<rect height=\"10\" width=\"")
        .text(format!("{:.2}", part * 100.0))
        .raw("\"/></svg>");
}

/// Up to six round numbers from 0 to this one, which is more than 0.
pub(crate) fn linear(most: f64, unit: &str) -> Vec<Tick> {
    let rough = most / 5.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let mut step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    if unit.is_empty() {
        // There are no parts of a session.
        step = step.max(1.0);
    }
    let digits = if step < 1.0 { (-step.log10()).ceil() as usize } else { 0 };
    let numbers =
        (0..).map(|number| f64::from(number) * step).take_while(|at| *at <= most * 1.000_001);
    let told = |at: f64| format!("{at:.digits$} {unit}").trim_end().to_owned();
    numbers.map(|at| (at / most, told(at))).collect()
}

/// The same for so many seconds, in the unit that suits them.
pub(crate) fn times(seconds: f64) -> Vec<Tick> {
    let (unit, of_unit) = match seconds {
        ..180.0 => ("s", 1.0),
        ..10_800.0 => ("min", 60.0),
        _ => ("h", 3600.0),
    };
    linear(seconds / of_unit, unit)
}

/// Where a part of the way along lies.
pub(crate) fn x(part: f64) -> f64 {
    LEFT + part * (WIDTH - LEFT - RIGHT)
}

/// Where a part of the way up lies.
pub(crate) fn y(part: f64) -> f64 {
    HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_bear_round_numbers() {
        let told = |ticks: &[Tick]| {
            ticks.iter().map(|(_, told)| told.as_str()).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(told(&linear(300.0, "")), "0, 100, 200, 300");
        assert_eq!(told(&linear(1.0, "")), "0, 1");
        assert_eq!(told(&linear(0.9, "s")), "0.0 s, 0.2 s, 0.4 s, 0.6 s, 0.8 s");
        assert_eq!(told(&linear(5000.0, "")), "0, 1000, 2000, 3000, 4000, 5000");
        assert_eq!(told(&times(600.0)), "0 min, 2 min, 4 min, 6 min, 8 min, 10 min");
        assert_eq!(told(&times(14_400.0)), "0 h, 1 h, 2 h, 3 h, 4 h");
    }
}
