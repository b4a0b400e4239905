//! What holds after each turn of a shard, and when it has ended.

use super::super::Token;
use super::world::World;
use crate::proto::outcome::Outcome;
use crate::proto::tests::{assert_records_hold_one_message_each, message_ranges};
use packetlab::message::MessageType;

/// The most blocks a session ever holds: one each way, and the mlet's bytes that wait for records.
const BLOCKS_MAX: usize = 3;

/// In how many turns a session that is over is closed: what is under way on it has been cancelled, and a cancelled
/// operation completes in one turn of eight at least.
const CLOSING_TURNS_MAX: usize = 300;

impl World {
    /// Operations, buffers and blocks are accounted for.
    pub(super) fn check(&mut self) {
        let faults = &self.kernel.borrow().faults;
        assert!(faults.is_empty(), "{faults:?}");
        self.check_operations();
        let shard = &self.shard;
        let kept = shard.set_up_backlog.iter().filter(|(_, received)| received.is_ok()).count();
        let lent = shard.driver.lent_buffers();
        assert_eq!(lent, kept + shard.driver.untaken_buffers(), "buffers go back in their turn");
        let sessions = shard.connections.len();
        assert!(shard.pool.lent() <= BLOCKS_MAX * sessions, "{} blocks", shard.pool.lent());
        let over = shard.connections.iter().filter(|(_, connection)| connection.over.is_some());
        let before = std::mem::take(&mut self.over_since);
        let since = |id| before.get(&id).copied().unwrap_or(self.turns);
        self.over_since =
            over.map(|(_, connection)| (connection.id, since(connection.id))).collect();
        let longest = self.over_since.values().map(|since| self.turns - since).max();
        assert!(longest.unwrap_or(0) <= CLOSING_TURNS_MAX, "a session that is over is not closed");
    }

    fn check_operations(&self) {
        let shard = &self.shard;
        // By slot: receive and send of the endpoint, of the mlet, cancellations.
        let mut counts = vec![[0_u8; 5]; shard.connections.capacity()];
        for token in shard.driver.under_way() {
            let (slot, kind) = match token {
                Token::EndpointReceive(slot) => (slot, 0),
                Token::EndpointSend(slot) => (slot, 1),
                Token::MletReceive(slot) => (slot, 2),
                Token::MletSend(slot) => (slot, 3),
                Token::Cancel(slot) => (slot, 4),
                Token::Accept(_) | Token::CancelAccept(_) | Token::Mail => continue,
            };
            counts[slot][kind] += 1;
        }
        for (slot, _) in &shard.set_up_backlog {
            counts[*slot][0] += 1;
        }
        for (slot, connection) in &shard.connections {
            let under_way = &connection.under_way;
            let known = [
                u8::from(under_way.endpoint_receive),
                u8::from(under_way.endpoint_send),
                u8::from(under_way.mlet_receive),
                u8::from(under_way.mlet_send),
                under_way.cancels,
            ];
            let found = std::mem::take(&mut counts[slot]);
            assert_eq!(found, known, "what is under way, and what the shard knows of");
        }
        assert!(counts.iter().all(|left| *left == [0; 5]), "operations of nobody");
    }

    /// Nothing is left, each session has one record, and what arrived is a beginning of what was sent.
    pub(super) fn check_end(&mut self) {
        self.take_last_words();
        self.check();
        assert_eq!(self.shard.pool.lent(), 0);
        let kernel = self.kernel.borrow_mut();
        assert_eq!(kernel.streams(), kernel.waiting_streams(), "sockets are left open");
        drop(kernel);
        let records: usize = self.players.iter().map(|player| player.outcomes.len()).sum();
        let sessions = self.shard.sessions_begun as usize;
        assert_eq!(records + self.backlog_lost, sessions, "a record for each session");
        for player in &self.players {
            assert!(player.outcomes.len() <= 1, "{:?}", player.outcomes);
            let Some(mlet) = &player.mlet else { continue };
            let (mut mlet, mut endpoint) = (mlet.borrow_mut(), player.endpoint.borrow_mut());
            // What waits in the sockets was delivered, as far as the session can know.
            (mlet.reads, endpoint.reads) = (true, true);
            mlet.take_all();
            endpoint.take();
            let from_mlet: &[u8] = if player.has_begun { &player.from_mlet } else { &[] };
            assert!(
                from_mlet.starts_with(&endpoint.received),
                "the endpoint got what was never sent"
            );
            assert_records_hold_one_message_each(&endpoint.record_lens, &endpoint.received);
            if matches!(player.outcomes[..], [Outcome::MletEnded]) && !player.has_broken_off {
                assert_eq!(
                    endpoint.received.len(),
                    from_mlet.len(),
                    "the endpoint got all, {:?}: {:?}",
                    player.fault,
                    endpoint.notes
                );
            }
            let for_mlet: Vec<u8> = message_ranges(&endpoint.said)
                .into_iter()
                .filter(|message| endpoint.said[message.start] != MessageType::LINFO.0)
                .flat_map(|message| endpoint.said[message].to_vec())
                .collect();
            assert!(for_mlet.starts_with(&mlet.received), "the mlet got what was never sent");
        }
    }
}
