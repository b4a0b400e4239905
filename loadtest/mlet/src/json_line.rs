//! Results as lines of JSON, one for each: of which endpoint, in which session, when, and what.
//!
//! Not here: JSON that is read. Invariant: a line is one JSON object whatever texts it holds.

use std::fmt::{Display, Write as _};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use packetlab::time::Ticks;

use crate::client_error::ClientError;
use crate::connection::Connection;
use crate::dns::LookUp;
use crate::endpoint::Endpoint;
use crate::lines;

/// A line that is made member by member, and then printed. It begins with `key` and `session`, null if they are not
/// known, and `time`, which is the controller's clock in UTC.
///
/// ```
/// # let endpoint = mlet::Endpoint::default();
/// let line = mlet::JsonLine::new(&endpoint).text("name", "www.example").number("ms", 1.5);
/// assert!(line.to_string().ends_with(r#"Z","name":"www.example","ms":1.5}"#));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct JsonLine(String);

impl JsonLine {
    /// A result of this endpoint, of now.
    pub fn new(endpoint: &Endpoint) -> Self {
        let now = SystemTime::now();
        let line = Self(String::new());
        let line = match &endpoint.key {
            Some(key) => line.text("key", key),
            None => line.value("key", "null"),
        };
        let line = match endpoint.session {
            Some(session) => line.value("session", session),
            None => line.value("session", "null"),
        };
        line.text("time", &utc(now.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// A text.
    pub fn text(self, name: &str, text: &str) -> Self {
        let mut quoted = String::new();
        quote(&mut quoted, text);
        self.value(name, quoted)
    }

    /// A list of texts, such as addresses.
    pub fn texts(self, name: &str, texts: impl IntoIterator<Item = impl Display>) -> Self {
        let texts = texts.into_iter().map(|text| {
            let mut quoted = String::new();
            quote(&mut quoted, &text.to_string());
            quoted
        });
        let list = texts.collect::<Vec<_>>().join(",");
        self.value(name, format_args!("[{list}]"))
    }

    /// A number; null for one that JSON has no form of.
    pub fn number(self, name: &str, number: f64) -> Self {
        if number.is_finite() { self.value(name, number) } else { self.value(name, "null") }
    }

    /// A whole number.
    pub fn count(self, name: &str, count: u64) -> Self {
        self.value(name, count)
    }

    /// A duration, in milliseconds.
    pub fn milliseconds(self, name: &str, duration: Duration) -> Self {
        self.number(name, duration.as_nanos() as f64 / 1e6)
    }

    /// A time, in nanoseconds since 1970.
    pub fn ticks(self, name: &str, time: Ticks) -> Self {
        self.value(name, time)
    }

    /// How a look-up ended: `addresses`, `sent_ns` and `received_ns` by the endpoint's clock, `ms`; or [`Self::error`].
    pub fn look_up(self, found: &Result<LookUp, ClientError>) -> Self {
        match found {
            Ok(found) => self
                .texts("addresses", &found.addresses)
                .ticks("sent_ns", found.sent)
                .ticks("received_ns", found.received)
                .milliseconds("ms", found.took()),
            Err(error) => self.error(error),
        }
    }

    /// How a connection ended: `began_ns` and `established_ns` by the endpoint's clock, `ms`, `uncertainty_ms`; or
    /// [`Self::error`].
    pub fn connection(self, connected: &Result<Connection, ClientError>) -> Self {
        match connected {
            Ok(connection) => self
                .ticks("began_ns", connection.began)
                .ticks("established_ns", connection.established)
                .milliseconds("ms", connection.took())
                .milliseconds("uncertainty_ms", connection.uncertainty()),
            Err(error) => self.error(error),
        }
    }

    /// What went wrong: [`ClientError::word`] as `error`, and in words as `reason`.
    pub fn error(self, error: &ClientError) -> Self {
        self.text("error", error.word()).text("reason", &error.to_string())
    }

    /// Prints it in one write, so that lines of up to 4096 bytes never mix with those of other mlets.
    ///
    /// # Errors
    /// Nobody reads standard output any more, or it cannot be written.
    pub fn print(&self) -> io::Result<()> {
        lines::print(&self.to_string())
    }

    fn value(mut self, name: &str, value: impl Display) -> Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        quote(&mut self.0, name);
        // Into a String nothing fails.
        let _ = write!(self.0, ":{value}");
        self
    }
}

impl Display for JsonLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}}}", self.0)
    }
}

fn quote(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            ..' ' => {
                let _ = write!(line, "\\u{:04x}", u32::from(character));
            }
            _ => line.push(character),
        }
    }
    line.push('"');
}

/// So long after 1970 as a date and time of day, to the microsecond.
fn utc(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days from 0000-03-01 on, so that a leap day is the last of its year, in eras of 400 years.
    let (era, of_era) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let of_era_year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + of_era_year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let micros = since_1970.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(utc(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(utc(Duration::from_nanos(7_999)), "1970-01-01T00:00:00.000007Z");
    }

    #[test]
    fn a_line_is_one_object_whatever_it_holds() {
        let endpoint = Endpoint { session: Some(41), ..Endpoint::default() };
        let line = JsonLine::new(&endpoint)
            .text("a\"b", "one\ntwo\\\u{1b}\u{e4}")
            .texts("list", ["x", "\""])
            .number("nan", f64::NAN)
            .milliseconds("ms", Duration::from_nanos(25_777_104))
            .ticks("ns", Ticks::MAX)
            .count("n", 7)
            .error(&ClientError::Silence {
                awaited: "data".to_owned(),
                waited: Duration::from_millis(5),
            })
            .to_string();
        let (start, rest) = line.split_once("\"time\":\"").unwrap();
        assert_eq!(start, "{\"key\":null,\"session\":41,");
        let expected = "Z\",\"a\\\"b\":\"one\\u000atwo\\\\\\u001b\u{e4}\",\"list\":[\"x\",\"\\\"\"],\
            \"nan\":null,\"ms\":25.777104,\"ns\":18446744073709551615,\"n\":7,\
            \"error\":\"silence\",\"reason\":\"data did not come in 0.005 s\"}";
        assert_eq!(rest.split_at(26), (&rest[..26], expected));
    }
}
