//! The operations that a shard starts: what for, and into which buffers it receives.

use crate::driver::GroupSize;
use crate::proto::outbox::{BULK_RECEIVE_LEN, RECEIVE_LEN};

/// Receive buffers of relayed sessions: 1 MiB.
pub(super) const RELAY_GROUP: u16 = 0;
/// Receive buffers of sessions in set-up, apart so that many handshakes at once do not take those of relays.
pub(super) const SET_UP_GROUP: u16 = 1;
/// Receive buffers of directions in which bytes come in bulk: 1 MiB.
pub(super) const BULK_GROUP: u16 = 2;
pub(crate) const GROUPS: [GroupSize; 3] = [
    GroupSize { count: 32, len: RECEIVE_LEN as u32 },
    GroupSize { count: 64, len: 4096 },
    GroupSize { count: BULK_BUFFERS, len: BULK_RECEIVE_LEN as u32 },
];
/// Large blocks that sessions of a shard may have.
pub(super) const LARGE_BLOCKS_MAX: usize = 64;
/// How many large receives may complete in one turn.
pub(super) const BULK_BUFFERS: u16 = 8;

/// What an operation was started for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token {
    Accept(usize),
    CancelAccept(usize),
    EndpointReceive(usize),
    EndpointSend(usize),
    MletReceive(usize),
    MletSend(usize),
    /// The pipe from a mlet, until it has chosen.
    MletWatch(usize),
    Cancel(usize),
    Mail,
}
