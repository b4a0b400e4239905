//! Points in time as RFC 3339 has them, and as people type them.
//!
//! Not here: a clock. Everything is UTC in the end.

use std::time::Duration;

use packetlab::time::Ticks;

/// Length of a date alone: `2026-11-23`.
const DATE_LEN: usize = 10;

/// A day, in nanoseconds.
const DAY: u64 = 86_400 * 1_000_000_000;

/// Reads RFC 3339: date, time, parts of a second if there are, and `Z` or an offset. `None` if it is something else, or
/// lies before 1970 or after 2553.
pub(crate) fn rfc3339(text: &str) -> Option<Ticks> {
    let (date, rest) = text.split_at_checked(DATE_LEN)?;
    let (clock, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let second = Ticks::from_date(&format!("{date}T{clock}Z"))?;
    let (nanoseconds, zone) = match rest.strip_prefix('.') {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
    };
    let local = second.saturating_add(Duration::from_nanos(nanoseconds));
    match zone {
        "Z" | "z" => Some(local),
        _ => to_utc(local, zone),
    }
}

/// Nanoseconds of the digits at the front, and what stands behind them.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
    (len > 0).then_some((nine.parse().ok()?, rest))
}

/// What a time with an offset such as `+01:00` is in UTC.
fn to_utc(local: Ticks, offset: &str) -> Option<Ticks> {
    let (sign, rest) = offset.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str, below: u64| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| is_number && *number < below)
    };
    let offset = (number(hours, 24)? * 60 + number(minutes, 60)?) * 60 * 1_000_000_000;
    match sign {
        "+" => local.0.checked_sub(offset).map(Ticks),
        "-" => local.0.checked_add(offset).map(Ticks),
        _ => None,
    }
}

/// `--since` as typed: a date alone is its first moment.
///
/// # Errors
/// It is no time, in words.
pub(crate) fn first_moment(text: &str) -> Result<Ticks, String> {
    date(text).or_else(|| typed(text)).ok_or_else(|| no_time(text))
}

/// `--until` as typed, of which nothing is taken: a date alone is the whole day.
///
/// # Errors
/// It is no time, in words.
pub(crate) fn end(text: &str) -> Result<Ticks, String> {
    let next_day = date(text).and_then(|day| day.0.checked_add(DAY)).map(Ticks);
    next_day.or_else(|| typed(text)).ok_or_else(|| no_time(text))
}

fn date(text: &str) -> Option<Ticks> {
    Ticks::from_date(text).filter(|_| text.len() == DATE_LEN)
}

/// RFC 3339, or the front of it: without seconds, or without a zone, which is UTC then.
fn typed(text: &str) -> Option<Ticks> {
    let (minute, rest) = text.split_at_checked(DATE_LEN + "T11:40".len())?;
    let seconds = if rest.starts_with(':') { "" } else { ":00" };
    let zone = if rest.ends_with(['Z', 'z']) || rest.contains(['+', '-']) { "" } else { "Z" };
    rfc3339(&format!("{minute}{seconds}{rest}{zone}"))
}

fn no_time(text: &str) -> String {
    format!("'{text}' is no time; write 2026-11-23, 2026-11-23T11:40 or 2026-11-23T11:40:00Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_its_parts_of_seconds_and_its_offset() {
        let second = 1_795_434_002_000_000_000;
        for (text, ticks) in [
            ("2026-11-23T11:40:02Z", second),
            ("2026-11-23T11:40:02.113204Z", second + 113_204_000),
            ("2026-11-23t11:40:02.5z", second + 500_000_000),
            ("2026-11-23 12:40:02+01:00", second),
            ("2026-11-23T06:10:02.0000000019-05:30", second + 1),
        ] {
            assert_eq!(rfc3339(text), Some(Ticks(ticks)), "{text}");
        }
        for bad in [
            "",
            "never",
            "2026-11-23",
            "2026-11-23T11:40Z",
            "2026-11-23T11:40:02",
            "2026-11-23T11:40:02.Z",
            "2026-11-23T11:40:02+1:00",
            "2026-11-23T11:40:02+24:00",
            "2026-11-23T11:40:02*01:00",
            "2026-13-23T11:40:02Z",
            "1970-01-01T00:00:00+01:00",
            "2026-11-2\u{e9}T11:40:02Z",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_date_alone_is_the_whole_day() {
        let day = 1_795_392_000_000_000_000;
        assert_eq!(first_moment("2026-11-23"), Ok(Ticks(day)));
        assert_eq!(end("2026-11-23"), Ok(Ticks(day + DAY)));
        assert_eq!(end("2026-11-23T00:00:00Z"), Ok(Ticks(day)));
        let minute = Ticks(day + (11 * 60 + 40) * 60_000_000_000);
        for text in ["2026-11-23T11:40", "2026-11-23 11:40Z", "2026-11-23T12:40+01:00"] {
            assert_eq!((first_moment(text), end(text)), (Ok(minute), Ok(minute)), "{text}");
        }
        assert_eq!(first_moment("2026-11-23T11:40:00.0"), Ok(minute));
        for bad in ["2026-11-23T11", "2026-11-23T11:4", "11:40", "2026-11-23T11:40:0"] {
            assert!(first_moment(bad).is_err(), "{bad}");
        }
        assert!(first_moment("yesterday").unwrap_err().contains("write 2026-11-23, "));
        assert!(end("never").is_err());
    }
}
