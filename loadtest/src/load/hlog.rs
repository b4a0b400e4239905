//! The file of `--hlog`: HdrHistogram's interval log of all times that were measured, one line a second.
//!
//! Not here: its form, which is that of the relay's own (`engine::log_format`). Invariant: a run appends all of its
//! lines at its end, when nothing is measured any more.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::log_format;
use hdrhistogram::Histogram;

use super::error::LoadError;
use super::start_times::Samples;

/// How long an interval is.
const INTERVAL: Duration = Duration::from_secs(1);

/// What stands above intervals, beside their start time.
const COMMENTS: [&str; 1] =
    ["Times of pktfleet load in nanoseconds; the column of maxima in milliseconds"];

/// The file, and what the clocks said when it was opened.
#[derive(Debug)]
pub(super) struct Hlog {
    file: File,
    since_1970: Duration,
    opened: Instant,
}

impl Hlog {
    /// Opens the file to append to it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // What the log can show: rounded there, an interval might seem to begin before the start.
        let since_1970 = Duration::from_millis(since_1970.as_millis() as u64);
        Ok(Self { file: file.map_err(LoadError::Output)?, since_1970, opened: Instant::now() })
    }

    /// Appends these samples, each under its tag behind `front`.
    ///
    /// # Errors
    /// They cannot be written.
    pub(super) fn write(
        &mut self,
        front: &str,
        tagged: &[(&str, Samples)],
    ) -> Result<(), LoadError> {
        let mut text = log_format::head(&COMMENTS, self.since_1970);
        for (tag, samples) in tagged {
            let tag = format!("{front}{tag}");
            for (number, times) in intervals(&samples.times, self.opened)? {
                let begun = self.since_1970 + INTERVAL * number;
                text.extend(log_format::line(&times, &tag, begun, INTERVAL));
            }
        }
        self.file.write_all(&text).map_err(LoadError::Output)
    }
}

/// The times of each interval in which something was over, by its number since `opened`, in order.
fn intervals(
    times: &[(Instant, Duration)],
    opened: Instant,
) -> Result<Vec<(u32, Histogram<u64>)>, LoadError> {
    let number = |done: Instant| {
        let since = done.saturating_duration_since(opened).as_secs() / INTERVAL.as_secs();
        u32::try_from(since).unwrap_or(u32::MAX)
    };
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let of_interval = sorted.chunk_by(|(one, _), (next, _)| number(*one) == number(*next));
    let histograms = of_interval.map(|times| {
        let mut histogram = super::histogram::empty()?;
        times.iter().for_each(|(_, took)| histogram.saturating_record(took.as_nanos() as u64));
        Ok((number(times[0].0), histogram))
    });
    histograms.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_the_second_in_which_they_were_over() {
        let opened = Instant::now();
        let at = |ms, took| (opened + Duration::from_millis(ms), Duration::from_micros(took));
        let times = [at(2_500, 7), at(100, 1), at(900, 3), at(2_400, 5)];
        let told: Vec<_> = intervals(&times, opened)
            .unwrap()
            .iter()
            .map(|(number, times)| (*number, times.len(), times.max() / 1_000))
            .collect();
        assert_eq!(told, [(0, 2, 3), (2, 2, 7)]);
    }
}
