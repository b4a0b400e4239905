//! The line of the log for a session that is over.
//!
//! Not here: connections that ended before START (`sessions.rs`), and what a record holds (`records`).

use tracing::{info, warn};

use crate::proto::session_end::{End, Outcome};
use crate::records::{Mlet, SessionFacts, SessionRecord};
use packetlab::words::counted;

/// The line of a session past START.
pub(super) fn log_over(record: &SessionRecord) {
    let SessionRecord { facts, end: Some(end), mlet, .. } = record else { return };
    let mlet = match mlet {
        Mlet::Ended(status, run_time) => {
            format!("; mlet {status} after {:.3} s", run_time.as_secs_f64())
        }
        Mlet::NotStarted(reason) => format!("; mlet not started: {reason}"),
        _ => String::new(),
    };
    let (peer, lost) = (facts.peer.ip(), lost_shown(end.relayed.linfos_lost));
    let over = format!("{peer} over: {}{mlet}{lost}", end_shown(record, &end.outcome));
    if record.is_failed() {
        warn!(session = facts.id, "{over}");
    } else {
        info!(session = facts.id, "{over}");
    }
}

/// How a session ended. Where that takes many words and how its mlet ended stands behind it, they would not fit a line: the
/// name of the outcome then; the record has the words.
fn end_shown(record: &SessionRecord, end: &Outcome) -> String {
    let is_wordy = matches!(
        end,
        Outcome::MletTimeout
            | Outcome::IdleTimeout
            | Outcome::Forced(_)
            | Outcome::UndeliveredToEndpoint
            | Outcome::UndeliveredToMlet
            | Outcome::EndpointEnded(End::Broken(_))
    );
    match record.mlet {
        Mlet::Ended(..) if is_wordy => record.outcome().to_string(),
        _ => end.to_string(),
    }
}

/// The first digits of an endpoint's key, as lines show it; records hold all.
pub(super) fn shown_key(facts: &SessionFacts) -> String {
    let key = facts.account.endpoint_key;
    key.map_or_else(|| "none".into(), |key| key.short())
}

/// The end of a line about something of which so many LINFOs were lost.
fn lost_shown(linfos: u64) -> String {
    match linfos {
        0 => String::new(),
        _ => format!("; {} lost", counted(linfos, "LINFO")),
    }
}
