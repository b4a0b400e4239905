//! The histogram of times that all modes use: nanoseconds up to a minute, three digits.

use std::io;

use hdrhistogram::Histogram;

use super::error::LoadError;
use super::start_times::Samples;

/// What takes longer counts as this.
const LONGEST_NS: u64 = 60_000_000_000;

/// One without times.
pub(super) fn empty() -> Result<Histogram<u64>, LoadError> {
    Histogram::new_with_max(LONGEST_NS, 3).map_err(|error| LoadError::Io(io::Error::other(error)))
}

/// That of samples.
pub(super) fn of(samples: &Samples) -> Result<Histogram<u64>, LoadError> {
    let mut histogram = empty()?;
    for (_, took) in &samples.times {
        histogram.saturating_record(took.as_nanos() as u64);
    }
    Ok(histogram)
}
