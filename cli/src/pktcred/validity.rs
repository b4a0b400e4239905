//! From when until when a certificate is valid.

use std::time::Duration;

use clap::Args;
use command_line::units;
use packetlab::time::Ticks;

use crate::failure::Failure;

/// Dates as typed.
#[derive(Debug, Args)]
pub(crate) struct Validity {
    /// First moment, in UTC: 2026-11-23 or 2026-11-23T12:00:00Z [default: now; of init: 1970-01-01]
    #[arg(long, value_name = "DATE", value_parser = date)]
    not_before: Option<Ticks>,
    /// Last moment, in UTC, or `never` [default: a year from now; of init: 2038-01-19]
    #[arg(long, value_name = "DATE", value_parser = date, conflicts_with = "valid_for")]
    not_after: Option<Ticks>,
    /// How long from the first moment on: 90d, 12h
    #[arg(long, value_name = "TIME", value_parser = units::time_limit)]
    valid_for: Option<Duration>,
}

impl Validity {
    /// First and last moment; what was not typed comes from `default`.
    pub(crate) fn resolve(&self, default: (Ticks, Ticks)) -> Result<(Ticks, Ticks), Failure> {
        let not_before = self.not_before.unwrap_or(default.0);
        let not_after = match (self.not_after, self.valid_for) {
            (Some(not_after), _) => not_after,
            (None, Some(period)) => not_before.saturating_add(period),
            (None, None) => default.1,
        };
        if not_after < not_before {
            let (start, end) = (not_before.date(), not_after.date());
            return Err(Failure::usage(format!("a validity from {start} to {end} is none")));
        }
        Ok((not_before, not_after))
    }
}

/// Reads a date, for clap.
pub(crate) fn date(text: &str) -> Result<Ticks, String> {
    Ticks::from_date(text).ok_or_else(|| {
        format!("'{text}' is no date from 1970 to 2553; write 2026-11-23 or 2026-11-23T12:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        not_before: Option<&str>,
        not_after: Option<&str>,
        valid_for: Option<&str>,
    ) -> Option<(String, String)> {
        let typed = Validity {
            not_before: not_before.map(|text| date(text).unwrap()),
            not_after: not_after.map(|text| date(text).unwrap()),
            valid_for: valid_for.map(|text| units::time_limit(text).unwrap()),
        };
        let default = (date("2020-01-01").unwrap(), date("2021-01-01").unwrap());
        let (start, end) = typed.resolve(default).ok()?;
        Some((start.date().to_string(), end.date().to_string()))
    }

    #[test]
    fn dates_and_durations_go_together() {
        let expect = |start: &str, end: &str| {
            let full = |text: &str| match text {
                "never" => text.to_owned(),
                _ => format!("{text}T00:00:00Z"),
            };
            Some((full(start), full(end)))
        };
        assert_eq!(resolve(None, None, None), expect("2020-01-01", "2021-01-01"));
        assert_eq!(resolve(None, None, Some("31d")), expect("2020-01-01", "2020-02-01"));
        assert_eq!(
            resolve(Some("2020-06-01"), None, Some("48h")),
            expect("2020-06-01", "2020-06-03")
        );
        assert_eq!(resolve(None, Some("never"), None), expect("2020-01-01", "never"));
        assert_eq!(
            resolve(Some("1970-01-01"), Some("2038-01-19"), None),
            expect("1970-01-01", "2038-01-19")
        );
    }

    #[test]
    fn an_end_before_the_start_is_refused() {
        assert_eq!(resolve(Some("2022-01-01"), None, None), None);
        assert_eq!(resolve(None, Some("2019-12-31"), None), None);
    }
}
