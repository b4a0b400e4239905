//! The traffic secrets of a server's connection, which rustls tells as it derives them.
//!
//! It tells them to the configuration, which all connections share, so that they pass through a place of this thread.
//! Invariant: nothing is told but to [`told_during`], and what it returns is overwritten when it is dropped.

use std::cell::RefCell;

use rustls::KeyLog;
use zeroize::Zeroizing;

const OURS: &str = "SERVER_TRAFFIC_SECRET_0";
const THEIRS: &str = "CLIENT_TRAFFIC_SECRET_0";

/// The first secrets of both directions, as far as they have been told.
#[derive(Default)]
pub(super) struct Secrets {
    pub(super) ours: Zeroizing<Vec<u8>>,
    pub(super) theirs: Zeroizing<Vec<u8>>,
}

thread_local! {
    static TOLD: RefCell<Option<Secrets>> = const { RefCell::new(None) };
}

/// Runs `work`, which passes bytes to one connection, and adds what is told of its secrets meanwhile to `secrets`.
pub(super) fn told_during<T>(secrets: &mut Secrets, work: impl FnOnce() -> T) -> T {
    TOLD.set(Some(std::mem::take(secrets)));
    let result = work();
    *secrets = TOLD.take().unwrap_or_default();
    result
}

/// What a configuration tells its secrets to.
#[derive(Debug)]
pub(super) struct TellSecrets;

impl KeyLog for TellSecrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        TOLD.with_borrow_mut(|told| match (told, label) {
            (Some(told), OURS) => told.ours = Zeroizing::new(secret.to_vec()),
            (Some(told), THEIRS) => told.theirs = Zeroizing::new(secret.to_vec()),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, OURS | THEIRS) && TOLD.with_borrow(Option::is_some)
    }
}
