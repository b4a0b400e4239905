//! What a shard counts for others to read, told once a turn.
//!
//! Most turns relay and change nothing else, so that what was relayed is told apart from the rest.
//!
//! Not here: where it is read (`metrics/shard_counts.rs`).

use super::state::Shard;
use crate::metrics::{BothWays, ShardNumbers};
use crate::proto::account::{Flow, RelayedByAll};
use crate::proto::session::SetUpStage;

impl<D> Shard<D> {
    /// Tells what it has counted, as far as that has changed.
    pub(super) fn publish(&mut self) {
        let RelayedByAll { to_endpoint, from_endpoint } = self.relayed;
        let told = self.numbers.bytes;
        if to_endpoint.bytes != told.to_endpoint || from_endpoint.bytes != told.from_endpoint {
            let each = |part: fn(Flow) -> u64| BothWays {
                to_endpoint: part(to_endpoint),
                from_endpoint: part(from_endpoint),
            };
            self.numbers.bytes = each(|flow| flow.bytes);
            self.numbers.messages = each(|flow| flow.messages);
            self.published.publish_relayed(&self.numbers);
        }
        let waiting = self.listeners.waiting_for_place() as u64;
        if self.has_news || waiting != self.numbers.waiting {
            self.has_news = false;
            self.publish_rest(waiting);
        }
    }

    fn publish_rest(&mut self, waiting: u64) {
        let stages = &self.stages;
        self.numbers = ShardNumbers {
            waiting,
            backlog: stages.at(SetUpStage::Waiting),
            handshakes: stages.at(SetUpStage::Silent)
                + stages.at(SetUpStage::Hello)
                + stages.at(SetUpStage::Handshake),
            greetings: stages.at(SetUpStage::Greeting),
            closing: stages.at(SetUpStage::Failed),
            ..self.numbers
        };
        self.published.publish(&self.numbers);
    }
}
