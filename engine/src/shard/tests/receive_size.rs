//! Bytes in bulk: who sends many gets large receives for as long as they go on leaving, and no session large blocks beyond
//! what all may have. The bound itself is checked after each turn (`invariants.rs`).

use std::time::Duration;

use super::pair::Pair;
use super::peers::SOCKET_LEN;
use crate::proto::session_end::Outcome;
use crate::proto::tests::credentials::DRAIN_TIMEOUT;
use crate::proto::tests::filled;
use packetlab::message::MessageType;

const KIB: usize = 1024;

fn bulk() -> Vec<u8> {
    filled(MessageType::MDATA, 1000 * KIB)
}

/// A mlet has begun to write in bulk and its endpoint takes nothing any more. All large blocks are spoken for.
fn stuck_in_bulk() -> (Pair, Vec<u8>) {
    let mut pair = Pair::served();
    pair.set_large_blocks_max(16);
    let bytes = bulk();
    pair.mlet().write(&bytes);
    while pair.large_blocks_most() == 0 {
        assert!(pair.step());
    }
    pair.endpoint.reads = false;
    pair.run();
    (pair, bytes)
}

#[test]
fn what_comes_in_bulk_is_taken_in_large_parts_and_leaves_nothing_behind() {
    for from_mlet in [true, false] {
        let mut pair = Pair::served();
        let bytes = bulk();
        let before = pair.turns();
        if from_mlet {
            pair.mlet().write(&bytes);
        } else {
            pair.endpoint.write(&bytes);
        }
        pair.run();
        let received =
            if from_mlet { &pair.endpoint.received } else { &pair.mlet.as_ref().unwrap().received };
        assert!(*received == bytes);
        // With small receives alone it takes twice as many.
        let turns = pair.turns() - before;
        assert!(turns < bytes.len() / (32 * KIB), "{turns} turns");
        assert!(pair.large_blocks_most() > 0);
        assert_eq!(pair.blocks_lent(), 0);
    }
}

#[test]
fn a_peer_whose_bytes_are_taken_slowly_gets_small_receives() {
    for period in [Duration::from_millis(40), Duration::from_millis(140)] {
        let mut pair = Pair::served();
        for _ in 0..8 {
            pair.mlet().write(&filled(MessageType::MDATA, 32 * KIB - 4));
            pair.pass(period);
        }
        let is_fast = period < Duration::from_millis(100);
        assert_eq!(pair.takes_much_of_mlet(), is_fast, "{period:?}");
    }
}

#[test]
fn after_a_receive_that_a_small_one_would_have_taken_they_are_small_again() {
    let mut pair = Pair::served();
    pair.mlet().write(&bulk());
    pair.run();
    let taken = pair.endpoint.received.len();
    pair.mlet().write(&filled(MessageType::MDATA, 100));
    pair.run();
    assert_eq!(pair.endpoint.received.len(), taken + 104);
    assert!(!pair.takes_much_of_mlet());
}

/// Messages of 4 bytes become records 6.5 times as long, so that most of a large receive waits in a second block.
#[test]
fn records_much_longer_than_their_messages_take_no_third_large_block() {
    let mut pair = Pair::served();
    let bytes = filled(MessageType(0x90), 0).repeat(100 * KIB);
    pair.mlet().write(&bytes);
    pair.run();
    assert!(pair.endpoint.received == bytes);
    assert_eq!(pair.large_blocks_most(), 2);
}

/// A large send that leaves in steps is no standstill: its bytes go on leaving.
#[test]
fn last_bytes_in_bulk_are_delivered_to_a_slow_reader_whole() {
    let (mut pair, bytes) = stuck_in_bulk();
    pair.mlet().exit();
    while pair.endpoint.received.len() < bytes.len() - 2 * SOCKET_LEN {
        let before = pair.endpoint.received.len();
        pair.pass(DRAIN_TIMEOUT - Duration::from_secs(1));
        // More than a small block, and much less than a large one.
        for _ in 0..3 {
            pair.endpoint.reads = true;
            pair.endpoint.take();
            pair.endpoint.reads = false;
            pair.run();
        }
        assert!(pair.over.is_none(), "after {before}: {}", pair.told());
    }
    pair.endpoint.reads = true;
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert!(pair.endpoint.received == bytes);
}

/// A buffer without blocks behind it is kept from the kernel, and whoever finds none takes a small one.
#[test]
fn where_large_blocks_are_short_bytes_in_bulk_pass_in_small_receives() {
    let (mut pair, bytes) = stuck_in_bulk();
    assert_eq!(
        pair.kept_buffers(),
        1,
        "eight buffers of two blocks each, and a block that is lent"
    );
    pair.endpoint.write(&bytes);
    pair.run();
    assert!(pair.mlet().received == bytes);
    pair.endpoint.reads = true;
    pair.run();
    assert!(pair.endpoint.received == bytes);
    assert_eq!(pair.kept_buffers(), 0);
}
