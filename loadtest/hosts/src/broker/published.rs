//! What one connection has on the board: its publications and its subscription.
//!
//! Invariant: it is there for as long as the value of these types, and so for no longer than the connection.

use std::sync::Arc;

use packetlab::channel::ChannelId;
use tokio::sync::Notify;

use super::board::{CHUNK_LEN, Subscription};
use super::shared::BrokerShared;

/// The publications of one connection.
pub(super) struct Published {
    pub(super) shared: Arc<BrokerShared>,
    pub(super) numbers: Vec<u64>,
}

impl Drop for Published {
    fn drop(&mut self) {
        // One at a time, so that others are not kept waiting.
        for number in &self.numbers {
            self.shared.board().withdraw(*number);
        }
    }
}

/// The subscription of one connection.
pub(super) struct Subscribed {
    shared: Arc<BrokerShared>,
    listener: u64,
    pub(super) channels: Vec<ChannelId>,
    pub(super) subscription: Subscription,
}

impl Subscribed {
    pub(super) fn new(
        shared: &Arc<BrokerShared>,
        subscription: Subscription,
        wake: &Arc<Notify>,
    ) -> Self {
        let listener = shared.board().new_listener();
        let channels: Vec<_> = subscription.channels.iter().copied().collect();
        for some in channels.chunks(CHUNK_LEN) {
            shared.board().listen(listener, some, wake);
        }
        Self { shared: Arc::clone(shared), listener, channels, subscription }
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        for some in self.channels.chunks(CHUNK_LEN) {
            self.shared.board().stop_listening(self.listener, some);
        }
    }
}
