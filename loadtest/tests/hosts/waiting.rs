//! Waiting for what nobody announces, by looking again and again.

use std::thread;
use std::time::{Duration, Instant};

/// Longest that anything may take which is not given another time.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Whether this comes to hold within the time.
pub(super) fn comes_true(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(LOOK_INTERVAL);
    }
    true
}

#[track_caller]
pub(super) fn await_that(what: &str, holds: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, holds), "not in time: {what}");
}
