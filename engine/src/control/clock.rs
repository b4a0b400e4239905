//! Clocks and chance, which the control thread has from here alone.

use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::rand;
use packetlab::time::Ticks;

/// How often the wall clock is looked at while one of its times is waited for, because it may be set.
const WALL_CHECK: Duration = Duration::from_secs(60);

/// The time that goes on whatever is set.
#[expect(clippy::disallowed_methods, reason = "the control thread reads the clock here alone")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The time of day, which may be set.
#[expect(clippy::disallowed_methods, reason = "the control thread reads the clock here alone")]
pub(super) fn wall() -> Ticks {
    Ticks::from_system_time(SystemTime::now())
}

/// How long until the wall clock may show `time`; never long, because it may be set.
pub(super) fn until_wall(time: Ticks) -> Duration {
    time.saturating_duration_since(wall()).min(WALL_CHECK)
}

/// Any number, for jitter.
pub(super) fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the waits lose their jitter and nothing else; TLS would have failed before.
    let _ = rand::fill(&mut bytes);
    u32::from_be_bytes(bytes)
}
