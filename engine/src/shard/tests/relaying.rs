//! While both sides are there: bytes pass whole and in order, records keep messages apart, LINFO is
//! taken out, and whoever does not read stops only what is meant for it.

use std::time::Duration;

use proptest::prelude::*;

use super::pair::{Chunks, Pair};
use crate::proto::account::{Flow, Relayed};
use crate::proto::session_end::Outcome;
use crate::proto::tests::{
    assert_records_hold_one_message_each, filled, message, message_ranges, success,
};
use crate::random::Random;
use packetlab::message::{MessageType, PAYLOAD_LEN_MAX};

const MIB: usize = 1024 * 1024;

/// Messages of 0 bytes to 1 MiB, small ones more often.
fn payload_lens() -> impl Strategy<Value = Vec<usize>> {
    let len = prop_oneof![
        8 => 0usize..40,
        6 => 40usize..3000,
        3 => 3000usize..100_000,
        1 => 100_000usize..=MIB,
    ];
    prop::collection::vec(len, 0..25)
}

fn flow(stream: &[u8]) -> Flow {
    Flow { bytes: stream.len() as u64, messages: message_ranges(stream).len() as u64 }
}

fn stream(lens: &[usize]) -> Vec<u8> {
    let types = [MessageType::MDATA, MessageType::RESULT, MessageType::SUSPD, MessageType(0x99)];
    lens.iter().zip(types.iter().cycle()).flat_map(|(len, kind)| filled(*kind, *len)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Items 82, 84, 85.
    #[test]
    fn streams_pass_both_ways_byte_for_byte(
        from_endpoint in payload_lens(),
        from_mlet in payload_lens(),
        random in any::<u64>(),
    ) {
        let (from_endpoint, from_mlet) = (stream(&from_endpoint), stream(&from_mlet));
        let mut pair = Pair::served();
        pair.set_chunks(Chunks::Random(Random(random)));
        pair.mlet().write(&from_mlet);
        pair.endpoint.write(&from_endpoint);
        pair.run();
        prop_assert!(pair.mlet().received == from_endpoint);
        pair.mlet().exit();
        prop_assert!(matches!(pair.finish(), Outcome::MletEnded));
        prop_assert!(pair.endpoint.received == from_mlet);
        prop_assert!(pair.endpoint.close_notify);
        let relayed = pair.relayed();
        prop_assert_eq!(relayed.to_endpoint, flow(&from_mlet));
        prop_assert_eq!(relayed.from_endpoint, flow(&from_endpoint));
        assert_records_hold_one_message_each(&pair.endpoint.record_lens, &from_mlet);
    }
}

#[test]
fn a_flood_of_linfos_waits_and_what_is_behind_it_arrives() {
    let mut pair = Pair::served();
    let flood = filled(MessageType::LINFO, 60_000).repeat(40);
    pair.endpoint.write(&[&flood[..], b"\x62\0\0\x01x"].concat());
    // 2.4 MB, of which 1 MiB a second is skipped.
    pair.pass(Duration::from_millis(1_800));
    assert_eq!(pair.mlet().received, b"");
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.mlet().received, b"\x62\0\0\x01x");
}

#[test]
fn the_largest_message_passes_both_ways() {
    let largest = filled(MessageType::MDATA, PAYLOAD_LEN_MAX);
    let mut pair = Pair::served();
    pair.endpoint.write(&largest);
    pair.mlet().write(&largest);
    pair.run();
    assert!(pair.mlet().received == largest);
    assert!(pair.endpoint.received == largest);
    assert_records_hold_one_message_each(&pair.endpoint.record_lens, &largest);
    assert_eq!(pair.blocks_lent(), 0, "an idle session holds no block");
}

#[test]
fn streams_pass_byte_by_byte() {
    let bytes = stream(&[0, 1, 5, 300, 0, 0, 17]);
    let mut pair = Pair::served();
    pair.set_chunks(Chunks::UpTo(1));
    pair.endpoint.write(&bytes);
    pair.mlet().write(&bytes);
    pair.run();
    assert_eq!(pair.mlet().received, bytes);
    assert_eq!(pair.endpoint.received, bytes);
    assert_records_hold_one_message_each(&pair.endpoint.record_lens, &bytes);
}

/// Items 84, 85. The records are 6.5 times as long as the messages, so that they leave in several turns.
#[test]
fn messages_of_four_bytes_packed_into_one_write_leave_in_a_record_each() {
    let mut pair = Pair::served();
    for count in (1..=4096).rev().step_by(105) {
        let bytes = success().repeat(count);
        let before = pair.endpoint.received.len();
        pair.mlet().write(&bytes);
        pair.run();
        assert_eq!(pair.endpoint.received[before..], bytes);
        assert_eq!(std::mem::take(&mut pair.endpoint.record_lens), vec![4; count]);
    }
}

/// Item 86.
#[test]
fn messages_packed_into_one_record_by_the_endpoint_all_arrive() {
    let bytes = stream(&[0, 3, 0, 100, 2]);
    let mut pair = Pair::served();
    pair.endpoint.write(&bytes);
    pair.run();
    assert_eq!(pair.mlet().received, bytes);
}

/// Item 118.
#[test]
fn half_a_message_of_the_mlet_leaves_at_once_and_holds_nothing_up() {
    let bytes = filled(MessageType::MDATA, 100);
    let mut pair = Pair::served();
    pair.mlet().write(&bytes[..2]);
    pair.run();
    assert!(pair.endpoint.received.is_empty(), "a header is kept until it is whole");
    pair.endpoint.write(&bytes);
    pair.run();
    assert_eq!(pair.mlet().received, bytes);
    pair.mlet().write(&bytes[2..50]);
    pair.run();
    assert_eq!(pair.endpoint.received, bytes[..50]);
    assert_eq!(pair.endpoint.record_lens, [4, 46]);
}

/// Item 83. The limit is 8 bytes here.
#[test]
fn linfo_is_logged_instead_of_forwarded_and_cut_at_its_limit() {
    let parts = [
        message(MessageType::MDATA, b"before"),
        message(MessageType::LINFO, b"short"),
        message(MessageType::LINFO, b""),
        message(MessageType::MDATA, b"between"),
        message(MessageType::LINFO, &[b'7'; 40_000]),
        message(MessageType::MDATA, b"after"),
    ];
    for chunks in [Chunks::Whole, Chunks::UpTo(7)] {
        let mut pair = Pair::served();
        pair.set_chunks(chunks);
        pair.endpoint.write(&parts.concat());
        pair.run();
        assert_eq!(pair.mlet().received, [&*parts[0], &*parts[3], &*parts[5]].concat());
        assert_eq!(
            pair.told(),
            r#"endpoint logs: "short"
endpoint logs: ""
endpoint logs (truncated): "77777777""#
        );
        // The mlet's LINFO is a message like any other.
        pair.mlet().write(&parts[1]);
        pair.run();
        assert_eq!(pair.endpoint.received, parts[1]);
        pair.mlet().exit();
        assert!(matches!(pair.finish(), Outcome::MletEnded));
        let (to_endpoint, from_endpoint) = (flow(&parts[1]), flow(&parts.concat()));
        let relayed = Relayed { to_endpoint, from_endpoint, ..Relayed::default() };
        assert_eq!(pair.relayed(), relayed);
    }
}

/// Half a LINFO holds memory for a limited time, and nothing else up.
#[test]
fn a_linfo_that_does_not_arrive_whole_is_logged_as_far_as_it_came() {
    let bytes = message(MessageType::LINFO, b"half");
    let mut pair = Pair::served();
    pair.endpoint.write(&bytes[..6]);
    pair.run();
    assert_eq!(pair.told(), "");
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.told(), r#"endpoint logs (truncated): "ha""#);
    assert_eq!(pair.session().deadline(), None);
    let after = message(MessageType::MDATA, b"after");
    pair.endpoint.write(&[&bytes[6..], &after].concat());
    pair.run();
    assert_eq!(pair.mlet().received, after);
}

/// Also when the endpoint breaks TLS, and of a message of which only a part came.
#[test]
fn what_has_passed_is_known_when_the_session_is_over() {
    let bytes = stream(&[0, 3, 100]);
    let mut pair = Pair::served();
    pair.mlet().write(&bytes[..bytes.len() - 1]);
    pair.endpoint.write(&bytes);
    pair.run();
    pair.endpoint.write(&bytes[..4]);
    pair.endpoint.write_raw(b"no record of TLS");
    pair.run();
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::EndpointBrokeTls(_)), "{}", pair.told());
    let Flow { bytes: len, messages } = flow(&bytes);
    let to_endpoint = Flow { bytes: len - 1, messages: messages - 1 };
    let from_endpoint = Flow { bytes: len + 4, messages: messages + 1 };
    let relayed = Relayed { to_endpoint, from_endpoint, ..Relayed::default() };
    assert_eq!(pair.relayed(), relayed);
}

#[test]
fn a_session_that_is_left_because_the_run_is_over_ends_at_once_whatever_is_on_its_way() {
    let mut pair = Pair::served();
    pair.mlet().write(&filled(MessageType::MDATA, 10 * MIB));
    pair.endpoint.reads = false;
    pair.run();
    assert!(pair.over.is_none());
    pair.end_run();
    assert!(matches!(pair.finish(), Outcome::Forced(_)), "{}", pair.told());
    let mut pair = Pair::new();
    pair.endpoint.is_silent = true;
    pair.end_run();
    assert!(matches!(pair.finish(), Outcome::Cancelled), "{}", pair.told());
}

/// Items 91, 119; promise P11.
#[test]
fn a_mlet_that_does_not_read_stops_the_endpoint_and_nothing_else() {
    let flood = filled(MessageType::MDATA, 10 * MIB);
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.write(&flood);
    pair.run();
    assert!(!pair.session().wants_endpoint_input());
    assert_eq!(pair.blocks_lent(), 1);
    assert!(pair.endpoint.sent.len() > 9 * MIB, "the rest waits at the endpoint");
    let answer = filled(MessageType::MDATA, MIB);
    pair.mlet().write(&answer);
    pair.run();
    assert!(pair.endpoint.received == answer, "the other direction flows");
    assert_eq!(pair.blocks_lent(), 1);
    pair.mlet().reads = true;
    pair.run();
    assert!(pair.mlet().received == flood);
    assert_eq!(pair.blocks_lent(), 0);
}

/// Promise P12.
#[test]
fn an_endpoint_that_does_not_read_stops_the_mlet_and_nothing_else() {
    let flood = filled(MessageType::MDATA, 10 * MIB);
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    pair.mlet().write(&flood);
    pair.run();
    assert!(!pair.session().wants_mlet_input());
    assert_eq!(pair.blocks_lent(), 1);
    assert!(pair.mlet().sent.len() > 9 * MIB, "the rest waits at the mlet");
    let question = filled(MessageType::MDATA, MIB);
    pair.endpoint.write(&question);
    pair.run();
    assert!(pair.mlet().received == question, "the other direction flows");
    assert_eq!(pair.blocks_lent(), 1);
    pair.endpoint.reads = true;
    pair.run();
    assert!(pair.endpoint.received == flood);
    assert_eq!(pair.blocks_lent(), 0);
}

/// Promise P13.
#[test]
fn an_announced_length_costs_nothing() {
    let mut pair = Pair::served();
    let header = [MessageType::MDATA.0, 0xff, 0xff, 0xff];
    pair.endpoint.write(&header);
    pair.mlet().write(&header);
    pair.run();
    assert_eq!(pair.mlet().received, header);
    assert_eq!(pair.endpoint.received, header);
    assert_eq!(pair.blocks_lent(), 0);
}

#[test]
fn keys_change_while_messages_pass() {
    let bytes = filled(MessageType::MDATA, 1000);
    let mut pair = Pair::served();
    for round in 1..=5 {
        pair.endpoint.tls.as_mut().unwrap().refresh_traffic_keys().unwrap();
        pair.endpoint.flush();
        pair.endpoint.write(&bytes);
        pair.run();
        pair.mlet().write(&bytes);
        pair.run();
        assert_eq!(pair.mlet().received, bytes.repeat(round));
        assert_eq!(pair.endpoint.received, bytes.repeat(round), "{}", pair.told());
        // The answer to the change of keys, then the message: were there no answer, keys would differ.
        let answers = pair.endpoint.record_lens.iter().filter(|len| **len == 0).count();
        assert_eq!(answers, round);
    }
}

#[test]
fn many_changes_of_keys_and_tiny_messages_do_not_overfill_what_may_wait() {
    let bytes = success().repeat(30_000);
    let mut pair = Pair::served();
    pair.set_chunks(Chunks::Random(Random(5)));
    pair.mlet().write(&bytes);
    for _ in 0..50 {
        // Without data between them so many changes count as a flood.
        pair.endpoint.tls.as_mut().unwrap().refresh_traffic_keys().unwrap();
        pair.endpoint.write(&success());
        assert!(pair.step());
    }
    pair.run();
    assert_eq!(pair.endpoint.received, bytes);
    assert!(pair.endpoint.record_lens.iter().all(|len| matches!(len, 0 | 4)));
}
