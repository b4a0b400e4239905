//! What holds for all of one measurement, and what comes of it.

use super::placement::Placement;
use super::relays::Relay;
use super::report::Report;
use super::start_times::{Pace, Samples};

/// What holds for all of one measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    pub(super) relay: Relay,
    pub(super) placement: Placement,
    /// Payload of a message, in bytes.
    pub(super) size: usize,
    pub(super) pace: Pace,
    /// Of the relay.
    pub(super) pid: u32,
}

/// What comes of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) report: Report,
    /// What was timed, by a tag.
    pub(super) tagged: Vec<(&'static str, Samples)>,
}

impl Outcome {
    /// Nothing yet, of so many endpoints.
    pub(super) fn begin(endpoints: usize) -> Self {
        let mut report = Report::default();
        report.add("endpoints", endpoints as f64, "");
        Self { report, tagged: Vec::new() }
    }
}
