//! Quantities as typed: durations such as `10s`, sizes such as `64k`, counts.
//!
//! Not here: what they limit.

use std::time::Duration;

/// Units of a duration, each with its length in nanoseconds.
const DURATION_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Units of a size, in bytes. Powers of two, as everywhere in networking code.
const SIZE_UNITS: [(&str, u64); 4] = [("", 1), ("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30)];

/// Reads a duration: digits and one of `ns us ms s m h d`. A bare number is refused, since the
/// config file counts nanoseconds and people count seconds.
///
/// # Errors
/// Anything else, in words.
pub fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &DURATION_UNITS).map(Duration::from_nanos).ok_or_else(|| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return format!("'{text}' lacks its unit; write {text}s, {text}m, {text}h or {text}d");
        }
        format!("'{text}' is no duration; write 500ms, 10s, 5m or 2h")
    })
}

/// As [`duration`], but longer than zero: for limits that would otherwise strike at once.
///
/// # Errors
/// Anything else, in words.
pub fn time_limit(text: &str) -> Result<Duration, String> {
    match (text, duration(text)) {
        ("0", _) | (_, Ok(Duration::ZERO)) => {
            Err("a limit of zero would end everything at once; write more than 0s".into())
        }
        (_, limit) => limit,
    }
}

/// Reads a size in bytes: digits and optionally `k`, `m` or `g` (either case).
///
/// # Errors
/// Anything else, in words.
pub fn size(text: &str) -> Result<usize, String> {
    scaled(&text.to_ascii_lowercase(), &SIZE_UNITS)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| format!("'{text}' is no size; write 4096, 64k or 2m"))
}

/// As [`size`], but at least one byte.
///
/// # Errors
/// Anything else, in words.
pub fn size_above_zero(text: &str) -> Result<usize, String> {
    let size = size(text)?;
    if size == 0 {
        Err(format!("'{text}' is no size above zero; write 4096, 64k or 2m"))
    } else {
        Ok(size)
    }
}

/// Reads a number above zero.
///
/// # Errors
/// Anything else, in words.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("'{text}' is no number above 0"))
}

/// Reads a part of a whole, in percent, above zero.
///
/// # Errors
/// Anything else, in words.
pub fn percent(text: &str) -> Result<usize, String> {
    let part = text.parse().ok().filter(|part| (1..=100).contains(part));
    part.ok_or_else(|| format!("'{text}' is no number from 1 to 100"))
}

/// Number and unit; `None` also when the product does not fit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_number_and_a_known_unit() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0ns"), Ok(Duration::ZERO));
        assert_eq!(duration("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("365d"), Ok(Duration::from_secs(365 * 86_400)));
        for bad in ["", "10", "s", "1.5s", "-1s", " 1s", "1s ", "10 s", "1S", "584543d", "1é"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_told_that_it_lacks_one() {
        let error = duration("365").unwrap_err();
        assert_eq!(error, "'365' lacks its unit; write 365s, 365m, 365h or 365d");
        assert!(duration("1.5s").unwrap_err().contains("is no duration"));
    }

    #[test]
    fn a_time_limit_is_never_zero() {
        for zero in ["0", "0s"] {
            assert!(time_limit(zero).unwrap_err().starts_with("a limit of zero"), "{zero}");
        }
        assert_eq!(time_limit("1ns"), Ok(Duration::from_nanos(1)));
    }

    #[test]
    fn a_size_counts_in_powers_of_two() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64k"), Ok(65536));
        assert_eq!(size("2M"), Ok(2 << 20));
        assert_eq!(size("1g"), Ok(1 << 30));
        for bad in ["", "k", "64kb", "-1", "1.5k", "99999999999999999999", "18014398509481984k"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn counts_parts_and_some_sizes_are_above_zero() {
        assert_eq!((count("20000"), size_above_zero("64k")), (Ok(20_000), Ok(65_536)));
        for bad in ["", "0", "k", "-1", "1.5k", "64kb"] {
            assert!(size_above_zero(bad).is_err() && count(bad).is_err(), "{bad:?}");
        }
        assert_eq!((percent("1"), percent("100")), (Ok(1), Ok(100)));
        for bad in ["", "0", "101", "50%"] {
            assert!(percent(bad).is_err(), "{bad:?}");
        }
    }
}
