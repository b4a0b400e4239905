//! PacketLab time: nanoseconds since the Unix epoch (spec/protocol.md 0.1), and dates for people.
//!
//! Not a clock: nothing here reads one. Invariant: arithmetic saturates, so "no limit" stays so.

use std::fmt;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use der::DateTime;

/// A point in time, in ticks (nanoseconds) since 1970-01-01T00:00:00Z (spec/protocol.md 0.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticks(pub u64);

impl Ticks {
    /// "No limit"; as a date it lies in July 2554.
    pub const MAX: Self = Self(u64::MAX);

    /// The tick of a system time; before 1970 it is 0, after 2554 it is [`Ticks::MAX`].
    #[must_use]
    pub fn from_system_time(time: SystemTime) -> Self {
        Self(0).saturating_add(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// The first tick of a Unix second; before 1970 it is 0, after 2554 it is [`Ticks::MAX`].
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(0).saturating_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// This time plus a period, at most [`Ticks::MAX`].
    #[must_use]
    pub fn saturating_add(self, period: Duration) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(period))
    }

    /// How long ago `earlier` was; zero if it is not in the past.
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Ticks {
    /// Reads a date in UTC: `2026-11-23`, `2026-11-23T12:00:00Z`, or `never` for [`Ticks::MAX`].
    /// `None` if it is none of these, or lies before 1970 or after 2553.
    #[must_use]
    pub fn from_date(text: &str) -> Option<Self> {
        if text == "never" {
            return Some(Self::MAX);
        }
        let date = DateTime::from_str(text)
            .or_else(|_| DateTime::from_str(&format!("{text}T00:00:00Z")))
            .ok()?;
        u64::try_from(date.unix_duration().as_nanos()).ok().map(Self)
    }

    /// Shows the time as [`Ticks::from_date`] reads it, without parts of seconds.
    #[must_use]
    pub fn date(self) -> impl fmt::Display {
        let date = DateTime::from_unix_duration(Duration::from_nanos(self.0));
        match date {
            Ok(date) if self != Self::MAX => date.to_string(),
            _ => "never".to_owned(),
        }
    }
}

impl Ticks {
    /// Shows the time in UTC to the microsecond, as log lines do: `2026-11-23T11:40:02.113204Z`.
    #[must_use]
    pub fn timestamp(self) -> String {
        let second = Self(self.0 - self.0 % 1_000_000_000);
        let micros = self.0 % 1_000_000_000 / 1000;
        match DateTime::from_unix_duration(Duration::from_nanos(second.0)) {
            Ok(date) => format!("{}.{micros:06}Z", date.to_string().trim_end_matches('Z')),
            // None that fits into ticks is out of its range.
            Err(_) => String::new(),
        }
    }
}

/// The decimal number of ticks, as it appears in descriptors (spec/protocol.md 1.8).
impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tick_is_one_nanosecond_since_1970() {
        let seconds = 1_700_000_000;
        assert_eq!(Ticks::from_unix_seconds(seconds).0, 0x1797_9cfe_362a_0000);
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 7);
        assert_eq!(Ticks::from_system_time(time).to_string(), "1700000000000000007");
    }

    #[test]
    fn times_outside_1970_to_2554_saturate() {
        assert_eq!(Ticks::from_unix_seconds(-1), Ticks(0));
        assert_eq!(Ticks::from_unix_seconds(i64::MAX), Ticks::MAX);
        assert_eq!(Ticks::from_system_time(UNIX_EPOCH - Duration::from_secs(1)), Ticks(0));
        let year_9999 = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        assert_eq!(Ticks::from_system_time(year_9999), Ticks::MAX);
    }

    #[test]
    fn adding_to_no_limit_stays_no_limit() {
        assert_eq!(Ticks::MAX.saturating_add(Duration::from_nanos(1)), Ticks::MAX);
        assert_eq!(Ticks(5).saturating_add(Duration::MAX), Ticks::MAX);
        assert_eq!(Ticks(5).saturating_add(Duration::from_nanos(2)), Ticks(7));
    }

    #[test]
    fn a_time_in_the_future_is_no_time_ago() {
        assert_eq!(Ticks(9).saturating_duration_since(Ticks(4)), Duration::from_nanos(5));
        assert_eq!(Ticks(4).saturating_duration_since(Ticks(9)), Duration::ZERO);
    }

    #[test]
    fn a_timestamp_is_exact_to_the_microsecond() {
        let time = Ticks(1_709_164_800_000_000_000);
        assert_eq!(time.timestamp(), "2024-02-29T00:00:00.000000Z");
        assert_eq!(Ticks(time.0 + 7_999).timestamp(), "2024-02-29T00:00:00.000007Z");
        assert_eq!(Ticks(999_999_999).timestamp(), "1970-01-01T00:00:00.999999Z");
        assert_eq!(Ticks::MAX.timestamp(), "2554-07-21T23:34:33.709551Z");
    }

    #[test]
    fn dates_are_read_and_shown_in_utc() {
        for (text, seconds, shown) in [
            ("1970-01-01", 0, "1970-01-01T00:00:00Z"),
            ("2038-01-19T03:14:07Z", 2_147_483_647, "2038-01-19T03:14:07Z"),
            ("2024-02-29", 1_709_164_800, "2024-02-29T00:00:00Z"),
        ] {
            let time = Ticks::from_unix_seconds(seconds);
            assert_eq!(Ticks::from_date(text), Some(time));
            assert_eq!(time.date().to_string(), shown);
        }
        assert_eq!(Ticks(1_999_999_999).date().to_string(), "1970-01-01T00:00:01Z");
        assert_eq!(Ticks::from_date("never"), Some(Ticks::MAX));
        assert_eq!(Ticks::MAX.date().to_string(), "never");
        assert_eq!(Ticks(u64::MAX - 1).date().to_string(), "2554-07-21T23:34:33Z");
        for bad in
            ["", "2023-02-29", "1969-12-31", "2554-07-22", "tomorrow", "2024-1-1", "24-01-01"]
        {
            assert_eq!(Ticks::from_date(bad), None, "{bad:?}");
        }
    }
}
