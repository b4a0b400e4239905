//! An endpoint's LINFO as a line of the log.
//!
//! Not here: how much an endpoint may log, and what becomes of its bytes (`proto/linfo.rs`).

use tracing::{info, warn};

use crate::proto::linfo::{LINFO_TARGET, Linfo};
use crate::records::SessionId;
use packetlab::words::counted;

/// Writes an endpoint's LINFO to the log, here and not on the control thread, which starts the mlets of all sessions
/// and must not wait for what one of them logs. Nothing waits here either: the log never does.
pub(super) fn log_linfo(id: SessionId, linfo: &Linfo) {
    let Linfo { text, truncated, lost_before } = linfo;
    if *lost_before > 0 {
        warn!(
            target: LINFO_TARGET,
            session = id,
            "{} came too fast to be logged and got lost",
            counted(*lost_before, "LINFO")
        );
    }
    let cut = if *truncated { " (truncated)" } else { "" };
    info!(target: LINFO_TARGET, session = id, "endpoint logs{cut}: {text}");
}
