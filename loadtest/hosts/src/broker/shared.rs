//! What all connections of a broker share.
//!
//! Invariant: the board is held for look-ups only, never while texts are compared or anything is sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_rustls::TlsAcceptor;

use super::board::Board;
use super::key_use::Keys;
use super::limits::BrokerLimits;
use crate::hosting::{Memory, Places};

/// What all connections share.
pub(super) struct BrokerShared {
    pub(super) limits: BrokerLimits,
    pub(super) memory: Arc<Memory>,
    pub(super) keys: Arc<Keys>,
    pub(super) tls: TlsAcceptor,
    pub(super) handshakes: Arc<Places>,
    pub(super) board: Mutex<Board>,
}

impl BrokerShared {
    /// To be held for a look-up only.
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
