//! What a shard counts for others to read, told once a turn.
//!
//! Not here: where it is read (`metrics/shard_counts.rs`).

use super::state::Shard;
use crate::metrics::ShardNumber;
use crate::proto::account::RelayedByAll;
use crate::proto::session::SetUpStage;

impl<D> Shard<D> {
    /// Tells what it has counted, if that has changed.
    pub(super) fn publish(&mut self) {
        use ShardNumber::{
            Backlog, BytesFromEndpoint, BytesToEndpoint, Closing, Greetings, Handshakes,
            MessagesFromEndpoint, MessagesToEndpoint, Waiting,
        };
        let RelayedByAll { to_endpoint, from_endpoint } = self.relayed;
        let waiting = self.listeners.waiting_for_place() as u64;
        let numbers = &mut self.numbers;
        let is_told = !self.has_news
            && to_endpoint.bytes == numbers[BytesToEndpoint]
            && from_endpoint.bytes == numbers[BytesFromEndpoint]
            && waiting == numbers[Waiting];
        if is_told {
            return;
        }
        numbers[BytesToEndpoint] = to_endpoint.bytes;
        numbers[BytesFromEndpoint] = from_endpoint.bytes;
        numbers[MessagesToEndpoint] = to_endpoint.messages;
        numbers[MessagesFromEndpoint] = from_endpoint.messages;
        numbers[Waiting] = waiting;
        if self.has_news {
            self.has_news = false;
            let stages = &self.stages;
            numbers[Backlog] = stages.at(SetUpStage::Waiting);
            numbers[Handshakes] = stages.at(SetUpStage::Silent)
                + stages.at(SetUpStage::Hello)
                + stages.at(SetUpStage::Handshake);
            numbers[Greetings] = stages.at(SetUpStage::Greeting);
            numbers[Closing] = stages.at(SetUpStage::Failed);
        }
        self.published.publish(numbers);
    }
}
