//! What an init system is told of the run, and when.
//!
//! Not here: the words (`sys/service_manager.rs`), and whether shards make turns (`watchdog.rs`). Invariant: nothing of a run
//! depends on whether it is heard.

use tracing::warn;

use super::clock::now;
use super::{Control, RunPhase};
use crate::sys::service_manager::Notifier;

impl Control {
    /// Endpoints can be served from now on.
    pub(super) fn tell_ready(&mut self) {
        self.watchdog.begin(&self.cores, now());
        if let Some(Err(error)) = self.notifier.as_mut().map(Notifier::ready) {
            warn!("the init system does not hear that the run is ready (NOTIFY_SOCKET): {error}");
        }
    }

    /// No new endpoints are taken any more.
    pub(super) fn tell_stopping(&mut self) {
        // Who did not hear that the run was ready was told of then.
        let _ = self.notifier.as_mut().map(Notifier::stopping);
    }

    /// New settings are being read.
    pub(super) fn tell_reloading(&mut self) {
        // As above.
        let _ = self.notifier.as_mut().map(Notifier::reloading);
    }

    /// That is over, whatever came of it.
    pub(super) fn tell_reloaded(&mut self) {
        if self.phase == RunPhase::Running {
            // As above.
            let _ = self.notifier.as_mut().map(Notifier::ready);
        }
    }

    /// Asks the shards, and tells how the run is when they have answered, or not.
    pub(super) fn tend_watchdog(&mut self) {
        let Some(is_well) = self.watchdog.tend(&self.shards, now()) else { return };
        let stalled = self.watchdog.silent_since();
        self.view.change(|state| state.stalled = stalled);
        let status = self.notifier.is_some().then(|| self.status_line());
        if let Some((notifier, status)) = self.notifier.as_mut().zip(status) {
            // As above.
            let _ = notifier.status(status, is_well && self.is_watched);
        }
    }
}
