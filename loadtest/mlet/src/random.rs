//! Numbers that nobody else draws. Not for secrets.
//!
//! The manager names run and session to a mlet, and it has drawn the name of the run at random: numbers are made of both, so
//! that a mlet which is run again with the same names, as `pktfleet replay` does, draws the same ones.

use std::collections::hash_map::RandomState;
#[expect(deprecated, reason = "DefaultHasher may be another function in another Rust")]
use std::hash::SipHasher;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that nobody else draws: it tells the answers to a mlet's own packets from those to others'.
///
/// A mlet that draws from here alone, in one thread, can be replayed (`pktfleet replay`).
#[must_use]
pub fn random() -> u64 {
    static NAMES: OnceLock<Option<(u64, u64)>> = OnceLock::new();
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    match NAMES.get_or_init(names) {
        Some(names) => of_names(*names, DRAWN.fetch_add(1, Ordering::Relaxed)),
        // The standard library draws the keys of its hashes at random.
        None => RandomState::new().build_hasher().finish(),
    }
}

/// Run and session, where this process is the mlet of one (behaviour.md "What a mlet finds").
fn names() -> Option<(u64, u64)> {
    let run = u64::from_str_radix(&std::env::var("PKTLAB_RUN").ok()?, 16).ok()?;
    Some((run, std::env::var("PKTLAB_SESSION").ok()?.parse().ok()?))
}

/// The number that is drawn after so many others.
fn of_names((run, session): (u64, u64), drawn: u64) -> u64 {
    #[expect(deprecated, reason = "as above")]
    let mut hasher = SipHasher::new_with_keys(run, session);
    hasher.write(&drawn.to_be_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mlet_with_the_same_names_draws_the_same_and_every_other_draws_others() {
        let all = [((1, 1), 0), ((1, 1), 1), ((1, 2), 0), ((2, 1), 0)]
            .map(|(names, drawn)| of_names(names, drawn));
        let mut distinct = all.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
        // For good, whatever Rust it is built with: what was captured yesterday is replayed tomorrow.
        assert_eq!(all[0], 0x5708_FE68_4112_84C3);
        assert_ne!(random(), random());
    }
}
