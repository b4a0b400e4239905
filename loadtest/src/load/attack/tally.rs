//! What an attacker has done, and does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What an attacker has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Connections begun.
    pub(super) connections: u64,
    /// What the attack is made of: LINFOs sent, chains presented, connections or sessions had, messages
    /// sent, registrations answered, be it with a refusal.
    pub(super) steps: u64,
    pub(super) lasted: Duration,
}

/// The same while it goes on, shared by all connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Count {
    pub(super) connections: Arc<AtomicU64>,
    pub(super) steps: Arc<AtomicU64>,
}

impl Count {
    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}
