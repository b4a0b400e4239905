//! The form of HdrHistogram's interval log, for the relay's times and for those of load generators.
//!
//! Stamps are absolute, as the base time of 0 says, so that logs of several runs may follow one another in a file. Readers
//! pass over what is stamped before the start time above it. Not here: the file.

use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// The column of the longest time is in milliseconds, as Java's writer has it.
const NS_PER_MS: f64 = 1e6;

/// What stands above intervals that begin at `start`, since 1970, or later, with these comments.
#[must_use]
pub fn head(comments: &[&str], start: Duration) -> Vec<u8> {
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("[Histogram log format version 1.3]");
    for comment in comments {
        builder.add_comment(comment);
    }
    builder.with_start_time(UNIX_EPOCH + start).with_base_time(UNIX_EPOCH);
    let mut head = Vec::new();
    // A Vec takes everything.
    let _ = builder.begin_log_with(&mut head, &mut V2DeflateSerializer::new());
    head
}

/// The line of an interval that began at `begun`, since 1970, with these times in nanoseconds. The tag has no comma and no
/// blank, or there is none.
#[must_use]
pub fn line(times: &Histogram<u64>, tag: &str, begun: Duration, length: Duration) -> Vec<u8> {
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_max_value_divisor(NS_PER_MS);
    let mut log = Vec::new();
    // A Vec takes everything, and what has been counted can be told.
    let _ = builder.begin_log_with(&mut log, &mut serializer).map(|mut writer| {
        let _ = writer.write_histogram(times, begun, length, Tag::new(tag));
    });
    // The divisor is told in a comment above the line, and stands above all intervals in words.
    let line = log.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    log.split_off(line)
}
