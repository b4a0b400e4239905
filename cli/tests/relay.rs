//! Messages between endpoints and mlets through the running program: whole, in order, to the last
//! byte.
//!
//! Every endpoint here also holds the records it gets to the rule of protocol.md 1.6 (item 85).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::{Duration, Instant};

use common::endpoint::{End, LINFO, MADE_UP, NDATA, made_up, message};
use common::tail::a_slow_endpoint_gets_every_byte;
use common::{Home, assert_says};
use engine::wire::message::PAYLOAD_LEN_MAX;

/// Items 82, 121: whatever the type and however senseless the payload. LINFO alone stays behind.
#[test]
fn every_type_passes_byte_for_byte_both_ways() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    for message_type in (0..=u8::MAX).filter(|byte| *byte != LINFO) {
        let payload = vec![message_type ^ 0x5a; usize::from(message_type) % 9];
        endpoint.send(&message(message_type, &payload));
        assert_eq!(endpoint.receive().unwrap(), (message_type, payload));
    }
}

/// Item 82: a message of the largest size either way, whole and costing no more memory than its pieces.
#[test]
fn the_largest_message_passes_both_ways() {
    let home = Home::new();
    let manager = home.start(&[], &["both", "1", &PAYLOAD_LEN_MAX.to_string()]);
    let mut endpoint = home.dial(&manager).session();
    let largest = made_up(0, PAYLOAD_LEN_MAX);
    let before = manager.memory_kib();
    assert!(
        endpoint.receive() == Ok((MADE_UP, largest.clone())),
        "not the message that was made up"
    );
    endpoint.send(&message(NDATA, &largest));
    endpoint.close();
    manager.says(&format!("sank 1 messages with {PAYLOAD_LEN_MAX} bytes"));
    let grown = manager.memory_kib().saturating_sub(before);
    assert!(grown < 2 * 1024, "{grown} KiB for messages of 16 MiB");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Item 82: every byte of three messages in a record of its own.
#[test]
fn messages_in_pieces_of_one_byte_pass_whole() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    let payloads = [&b"first"[..], b"", b"third"];
    for byte in payloads.map(|payload| message(NDATA, payload)).concat() {
        endpoint.send(&[byte]);
    }
    for payload in payloads {
        assert_eq!(endpoint.receive(), Ok((NDATA, payload.to_vec())));
    }
}

/// Item 117 (the original: 40 ms).
#[test]
fn a_round_trip_takes_no_forty_milliseconds() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let start = Instant::now();
            endpoint.echoes(&[7; 300]);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[50] < Duration::from_millis(5), "median {:?}", times[50]);
}

/// Items 84, 87.
#[test]
fn what_a_mlet_wrote_before_it_ended_arrives_to_the_last_message() {
    for (count, len) in [(1, 4), (20_000, 12), (300, 60_000), (2, 3_000_000)] {
        let home = Home::new();
        let words = ["flood", &count.to_string(), &len.to_string()];
        let manager = home.start(&["-n", "1"], &words);
        let mut endpoint = home.dial(&manager).session();
        for index in 0..count {
            let (message_type, payload) = endpoint.receive().unwrap();
            assert!(message_type == MADE_UP && payload == made_up(index, len), "message {index}");
        }
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
        assert_eq!(manager.ends().code, Some(0));
    }
}

/// Item 120.
#[test]
fn a_mlet_that_leaves_its_input_unread_loses_nothing_of_its_output() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["leave", "100", "20000"]);
    let mut endpoint = home.dial(&manager).session();
    for _ in 0..10 {
        endpoint.send(&message(NDATA, b"never read"));
    }
    assert_eq!(endpoint.read_to_end(), (100, End::CloseNotify));
    endpoint.close();
    assert_says(&manager.ends().stderr, &["over: the mlet ended; mlet exit code 0"]);
}

/// Promise P14, items 84, 88, 120: the endpoint reads at 1 MB/s and has sent what the mlet never reads.
#[test]
fn a_slow_endpoint_gets_the_last_byte_of_a_mlet_that_is_long_gone_whatever_it_does_then() {
    a_slow_endpoint_gets_every_byte(24);
}

/// Item 88.
#[test]
fn a_mlet_reads_everything_before_the_end_of_its_endpoint() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["sink"]);
    let mut endpoint = home.dial(&manager).session();
    let packed: Vec<u8> = (0..1000).flat_map(|_| message(NDATA, &[1; 10])).collect();
    endpoint.send(&packed);
    endpoint.send(&message(NDATA, &vec![2; 1_000_000]));
    endpoint.close();
    manager.says("sank 1001 messages with 1010000 bytes");
    assert_says(&manager.ends().stderr, &["over: the endpoint closed; mlet exit code 0"]);
}

/// Item 88: so it is when the endpoint is killed, with what had arrived.
#[test]
fn an_endpoint_that_breaks_off_is_an_end_like_any_other() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"here");
    endpoint.reset();
    assert_says(&manager.ends().stderr, &["the endpoint broke off", "mlet exit code 0"]);
}

/// Item 121: the piece is delivered, then the end, which tells the mlet that its frame is cut.
#[test]
fn a_frame_cut_by_the_end_ends_the_session() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["sink"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.send(&message(NDATA, &[0; 1000])[..500]);
    endpoint.close();
    manager.says("failed to fill whole buffer");
    assert_says(&manager.ends().stderr, &["over: the endpoint closed; mlet exit code 1"]);
}

/// Item 118.
#[test]
fn a_mlet_that_pauses_inside_a_frame_goes_on_receiving() {
    let home = Home::new();
    let manager = home.start(&[], &["half"]);
    let mut endpoint = home.dial(&manager).session();
    for _ in 0..3 {
        endpoint.send(&message(NDATA, &[3; 5000]));
    }
    assert_eq!(endpoint.receive().unwrap(), (MADE_UP, b"a frame in two halves".to_vec()));
    endpoint.echoes(b"and so on");
}

/// Items 91, 119 (the original deadlocks): both sides write more than buffers hold before they read.
#[test]
fn both_sides_may_write_first_and_read_later() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["both", "200", "60000"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.send(&message(NDATA, &vec![9; 1_000_000]));
    for _ in 0..200 {
        assert_eq!(endpoint.receive().unwrap().1.len(), 60_000);
    }
    endpoint.close();
    manager.says("sank 1 messages with 1000000 bytes");
    assert_eq!(manager.ends().code, Some(0));
}
