//! Large buffers and blocks for bytes in bulk, of which all sessions of a shard together have so many.
//!
//! What a large receive brought is kept in large blocks until it has left. Those are bounded, and nothing is reserved
//! for peers of which a large receive is under way, for they may be silent for hours: what counts are the buffers that
//! the driver may fill at once. A buffer is kept from it while there are not blocks for what all others may bring.
//!
//! Not here: who gets large receives (`receive_size.rs`). Invariant: there are never more large blocks than
//! [`LARGE_BLOCKS_MAX`], whatever peers do.

use std::time::Instant;

use super::connection::Connection;
use super::operations::{
    BULK_BUFFERS, BULK_GROUP, LARGE_BLOCKS_MAX, RELAY_GROUP, SET_UP_GROUP, Token,
};
use super::receive_size::Intake;
use super::state::Shard;
use crate::driver::{Driver, Received};
use crate::metrics::Direction;
use crate::proto::outbox::{BULK_BLOCK_LEN, BULK_RECEIVE_LEN};

/// Large blocks that what one receive brought may take: the records sealed from it, and what found no room there.
const BLOCKS_OF_A_RECEIVE: usize = 2;

/// The most memory that a shard takes for bytes in bulk.
pub(crate) const BULK_MEMORY_LEN: usize =
    LARGE_BLOCKS_MAX * BULK_BLOCK_LEN + BULK_BUFFERS as usize * BULK_RECEIVE_LEN;

impl Connection {
    /// The buffers that the next receive of a direction takes its own from.
    pub(super) fn group(&self, direction: Direction) -> u16 {
        let intake = match direction {
            Direction::FromEndpoint if self.in_set_up => return SET_UP_GROUP,
            Direction::FromEndpoint => &self.from_endpoint,
            Direction::ToEndpoint => &self.from_mlet,
        };
        if intake.is_large() { BULK_GROUP } else { RELAY_GROUP }
    }

    fn intake(&mut self, direction: Direction) -> &mut Intake {
        match direction {
            Direction::FromEndpoint => &mut self.from_endpoint,
            Direction::ToEndpoint => &mut self.from_mlet,
        }
    }

    /// A receive has brought `len` bytes.
    pub(super) fn note_received(&mut self, direction: Direction, len: usize, now: Instant) {
        self.intake(direction).note_received(len, now);
    }

    /// Takes small receives from now on, if the last one was large.
    pub(super) fn receive_less(&mut self, direction: Direction) -> bool {
        self.intake(direction).receive_less()
    }
}

impl<D: Driver<Token>> Shard<D> {
    /// Gives a buffer back to the driver, or keeps it while blocks are short.
    pub(super) fn give_back(&mut self, received: Received) {
        if received.group() == BULK_GROUP && self.lacks_blocks(self.kept_buffers.len()) {
            self.kept_buffers.push(received);
        } else {
            self.driver.give_back(received);
        }
    }

    /// Gives back buffers that were kept, as far as there are blocks again.
    pub(super) fn give_back_kept(&mut self) {
        while let Some(left) = self.kept_buffers.len().checked_sub(1)
            && !self.lacks_blocks(left)
            && let Some(received) = self.kept_buffers.pop()
        {
            self.driver.give_back(received);
        }
    }

    /// There would not be blocks for all that large receives may bring, if so many buffers were kept from them.
    fn lacks_blocks(&self, kept: usize) -> bool {
        let may_be_filled = usize::from(BULK_BUFFERS) - kept;
        self.pool.lent_large() + BLOCKS_OF_A_RECEIVE * may_be_filled > self.large_blocks_max
    }
}
