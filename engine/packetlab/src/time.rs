//! PacketLab time: nanoseconds since the Unix epoch (spec/protocol.md 0.1).
//!
//! Not a clock: nothing here reads one. Invariant: arithmetic saturates, so "no limit" stays so.

#[cfg(feature = "credentials")]
mod date;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
}
