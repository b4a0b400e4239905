//! The time at which certificates are judged: an argument of the call in which they come.
//!
//! rustls asks for it in the middle of its work, and does not say for which connection. A configuration that is used with
//! streams of another make has the time that rustls has by itself, the system's.

use std::cell::Cell;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use crate::time::Ticks;

thread_local! {
    static GIVEN: Cell<Option<Ticks>> = const { Cell::new(None) };
}

/// Runs `work`, which passes bytes to one connection, at the time `now`.
pub(super) fn at<T>(now: Ticks, work: impl FnOnce() -> T) -> T {
    GIVEN.set(Some(now));
    let result = work();
    GIVEN.set(None);
    result
}

/// Tells rustls the time that was given.
#[derive(Debug)]
pub(super) struct GivenTime;

impl TimeProvider for GivenTime {
    fn current_time(&self) -> Option<UnixTime> {
        match GIVEN.get() {
            Some(now) => Some(UnixTime::since_unix_epoch(Duration::from_nanos(now.0))),
            None => DefaultTimeProvider.current_time(),
        }
    }
}
