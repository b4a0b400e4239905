//! The clock by which certificates, publications and sockets are judged.

use std::time::SystemTime;

use packetlab::time::Ticks;

/// What time it is.
pub(crate) fn now() -> Ticks {
    Ticks::from_system_time(SystemTime::now())
}
