//! What the log tells of sessions that are over, a line each.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// One session.
#[derive(Debug)]
pub struct Told {
    pub peer: String,
    /// How it ended.
    pub reason: String,
    /// What became of its mlet; empty if it had none of its own.
    pub mlet: String,
    /// How long that ran, if it was started.
    pub run_time: Option<Duration>,
}

/// Every session that this log tells of; asserts that it tells of none twice.
pub fn sessions(log: &str) -> Vec<Told> {
    let mut numbers = BTreeSet::new();
    let lines = log.lines().filter_map(|line| {
        let (before, after) = line.split_once(" over: ")?;
        let peer = before.rsplit(' ').next().filter(|peer| peer.parse::<IpAddr>().is_ok())?;
        Some((peer, after))
    });
    lines
        .map(|(peer, after)| {
            let peer = peer.to_owned();
            let (text, number) = after.rsplit_once(" session=").unwrap();
            assert!(
                numbers.insert(number.to_owned()),
                "session {number} with {peer} is told twice"
            );
            let (reason, mlet) = text.split_once("; mlet ").unwrap_or((text, ""));
            let (mlet, run_time) = match mlet.split_once(" after ") {
                Some((mlet, time)) => (mlet, Some(seconds(time))),
                None => (mlet, None),
            };
            Told { peer, reason: reason.to_owned(), mlet: mlet.to_owned(), run_time }
        })
        .collect()
}

/// `1.234 s`
fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.strip_suffix(" s").unwrap().parse().unwrap())
}
