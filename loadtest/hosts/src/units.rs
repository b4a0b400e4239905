//! Quantities as typed on the command line: `500ms`, `10s`, `64k`.
//!
//! Not here: what they limit.

use std::time::Duration;

/// Units of a duration, in nanoseconds.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];
/// Units of a size, in bytes.
const SIZE_UNITS: [(&str, u64); 3] = [("", 1), ("k", 1 << 10), ("m", 1 << 20)];

/// A duration above zero: digits and one of `ms s m h d`.
pub fn time_limit(text: &str) -> Result<Duration, String> {
    match scaled(text, &DURATION_UNITS) {
        Some(nanoseconds @ 1..) => Ok(Duration::from_nanos(nanoseconds)),
        _ => Err(format!("'{text}' is no duration above zero; write 500ms, 10s, 5m or 2h")),
    }
}

/// A size above zero in bytes: digits and optionally `k` or `m`.
pub fn size(text: &str) -> Result<usize, String> {
    scaled(text, &SIZE_UNITS)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("'{text}' is no size above zero; write 4096, 64k or 2m"))
}

/// A number above zero.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("'{text}' is no number above 0"))
}

/// A part of a whole, in percent, above zero.
pub fn percent(text: &str) -> Result<usize, String> {
    let part = text.parse().ok().filter(|part| (1..=100).contains(part));
    part.ok_or_else(|| format!("'{text}' is no number from 1 to 100"))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_number_and_a_unit() {
        assert_eq!(time_limit("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(time_limit("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "10", "s", "0s", "-1s", "1.5s", "1 s", "99999999999d"] {
            assert!(time_limit(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_and_counts_are_above_zero() {
        assert_eq!((size("4096"), size("64k"), size("2m")), (Ok(4096), Ok(65_536), Ok(2 << 20)));
        assert_eq!(count("20000"), Ok(20_000));
        for bad in ["", "0", "k", "-1", "1.5k", "64kb"] {
            assert!(size(bad).is_err() && count(bad).is_err(), "{bad:?}");
        }
    }
}
