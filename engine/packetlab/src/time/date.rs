//! Points in time as dates for people.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use der::DateTime;

use super::Ticks;

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

#[cfg(test)]
mod tests {
    use super::*;

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
