//! `--plot`: how each cost and each time grows with the number of endpoints, or with the rate, as one picture.
//!
//! Not here: measuring. Invariant: what is drawn are medians; what was not measured is not drawn.

use std::fs;
use std::io;
use std::path::Path;

use plotters::prelude::*;

use super::error::LoadError;
use super::report::{Figure, Report};
use super::tables_and_json::Told;

/// Of one panel, in pixels.
const PANEL: (u32, u32) = (760, 260);

/// What costs are called in reports.
const COSTS: [&str; 8] = [
    "cpu per session",
    "cpu per round trip",
    "cpu per GB",
    "PSS per session",
    "fds per session",
    "p50",
    "p99",
    "p99.9",
];

/// Its colours: this program, and another one.
const COLOURS: [RGBColor; 2] = [RGBColor(0, 90, 160), RGBColor(200, 80, 0)];

/// The reports of each program, for a number of endpoints or a rate.
type Point = (u32, Vec<(&'static str, Report)>);

/// Draws all of it into a file.
///
/// # Errors
/// There is nothing to draw, or the file cannot be written.
pub(super) fn write(path: &Path, all: &[Told]) -> Result<(), LoadError> {
    let points: Vec<Point> =
        all.iter().map(|told| (told.about.grown().1, told.figures.medians())).collect();
    let grows = all.first().map_or("", |told| told.about.grown().0);
    let picture = picture(&points, grows)?;
    fs::write(path, picture).map_err(LoadError::Output)
}

/// `grows`: what does from point to point.
fn picture(points: &[Point], grows: &str) -> Result<String, LoadError> {
    let first = points.first().and_then(|(_, programs)| programs.first());
    let is_cost = |figure: &&Figure| COSTS.contains(&&*figure.name);
    let costs: Vec<&Figure> =
        first.into_iter().flat_map(|(_, report)| report.figures()).filter(is_cost).collect();
    if costs.is_empty() {
        return Err(LoadError::NoSample("cost"));
    }
    let mut svg = String::new();
    let height = PANEL.1 * u32::try_from(costs.len()).unwrap_or(u32::MAX);
    let root = SVGBackend::with_string(&mut svg, (PANEL.0, height)).into_drawing_area();
    root.fill(&WHITE).map_err(not_drawn)?;
    for (area, cost) in root.split_evenly((costs.len(), 1)).iter().zip(costs) {
        panel(area, cost, &lines(cost, points), grows).map_err(not_drawn)?;
    }
    root.present().map_err(not_drawn)?;
    drop(root);
    Ok(svg)
}

/// The line of one program: what it is called, and the cost at each point.
type Line = (&'static str, Vec<(f64, f64)>);

fn lines(cost: &Figure, points: &[Point]) -> Vec<Line> {
    let count = points.first().map_or(0, |(_, programs)| programs.len());
    let line = |program: usize| {
        let name = points[0].1[program].0;
        let values = points
            .iter()
            .map(|(number, programs)| (f64::from(*number), programs[program].1.value(cost)));
        (name, values.filter(|(_, value)| value.is_finite()).collect())
    };
    (0..count).map(line).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(
    area: &Area<'_>,
    cost: &Figure,
    lines: &[Line],
    grows: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let all = || lines.iter().flat_map(|(_, values)| values);
    let least = all().map(|(number, _)| *number).fold(f64::INFINITY, f64::min);
    let most = all().map(|(number, _)| *number).fold(1.0, f64::max);
    let highest = all().map(|(_, value)| *value).fold(0.0, f64::max);
    // A single point, and costs of nothing, still need an axis.
    let numbers = least.min(most)..most.max(least.min(most) * 2.0);
    let values = 0.0..if highest > 0.0 { highest * 1.1 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(&cost.name, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(80)
        .build_cartesian_2d(numbers.log_scale(), values)?;
    chart.configure_mesh().x_desc(grows).y_desc(cost.unit).draw()?;
    for ((name, values), colour) in lines.iter().zip(COLOURS) {
        let line = LineSeries::new(values.iter().copied(), colour).point_size(3);
        let drawn = chart.draw_series(line)?;
        if lines.len() > 1 {
            drawn
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
    }
    if lines.len() > 1 {
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    }
    Ok(())
}

fn not_drawn(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LoadError {
    LoadError::Output(io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cost: f64) -> Report {
        let mut report = Report::default();
        report.add("sessions", 7.0, "/s");
        report.add("cpu per session", cost, "us");
        report.add("p50", 2.0 * cost, "us");
        report
    }

    fn circles(picture: &str) -> usize {
        picture.matches("<circle").count()
    }

    #[test]
    fn each_cost_has_a_panel_and_each_number_of_endpoints_a_point() {
        let points = [10, 100, 1_000].map(|n| (n, vec![("this", report(n as f64))]));
        let picture = picture(&points, "endpoints").unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        for text in ["cpu per session", "p50", "endpoints"] {
            assert!(picture.contains(text), "{text}");
        }
        // What is no cost is not drawn.
        assert!(!picture.contains("sessions\n"), "{picture}");
        assert_eq!(circles(&picture), 2 * 3);
    }

    #[test]
    fn two_programs_have_a_line_each_and_what_was_not_measured_has_no_point() {
        let both = |cost| vec![("this", report(cost)), ("other", report(f64::NAN))];
        let picture = picture(&[(10, both(1.0)), (20, both(2.0))], "begun a second").unwrap();
        assert!(picture.contains("this") && picture.contains("other"), "{picture}");
        assert_eq!(circles(&picture), 2 * 2);
    }

    #[test]
    fn a_single_number_of_endpoints_can_be_drawn_and_no_cost_cannot() {
        let one = |report| picture(&[(1, vec![("this", report)])], "endpoints");
        assert_eq!(circles(&one(report(0.0)).unwrap()), 2);
        let nothing = one(Report::default());
        assert!(matches!(nothing, Err(LoadError::NoSample("cost"))));
        assert!(picture(&[], "endpoints").is_err());
    }
}
