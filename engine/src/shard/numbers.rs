//! What a shard counts for others to read, brought together once a turn.
//!
//! Not here: where it is read (`metrics/shard_counts.rs`).

use super::operations::Token;
use super::state::Shard;
use crate::driver::Driver;
use crate::metrics::{BothWays, ShardNumbers};
use crate::proto::account::Flow;
use crate::proto::session::SetUpStage;

impl<D: Driver<Token>> Shard<D> {
    /// Tells what it has counted.
    pub(super) fn publish(&mut self) {
        let [to_endpoint, from_endpoint] = [self.relayed.to_endpoint, self.relayed.from_endpoint];
        let each = |part: fn(Flow) -> u64| BothWays {
            to_endpoint: part(to_endpoint),
            from_endpoint: part(from_endpoint),
        };
        let stages = &self.stages;
        self.numbers = ShardNumbers {
            bytes: each(|flow| flow.bytes),
            messages: each(|flow| flow.messages),
            waiting: self.listeners.waiting_for_place() as u64,
            backlog: stages.at(SetUpStage::Waiting),
            handshakes: stages.at(SetUpStage::Silent)
                + stages.at(SetUpStage::Hello)
                + stages.at(SetUpStage::Handshake),
            greetings: stages.at(SetUpStage::Greeting),
            closing: stages.at(SetUpStage::Failed),
            no_buffers: self.numbers.no_buffers,
            ring_overflows: self.driver.lost_completions(),
        };
        self.published.publish(&self.numbers);
    }
}
