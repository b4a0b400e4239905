//! What is timed of a relayed session, on a clock that only jumps: turns take no time, and peers that do not read do.

use std::io::ErrorKind;
use std::time::Duration;

use super::pair::Pair;
use crate::metrics::{BothWays, Spread};
use crate::proto::session_end::{End, Outcome};
use crate::proto::tests::{filled, message};
use packetlab::message::MessageType;

/// More than a socket holds for a peer that does not read, and less than one receive brings.
const LEN: usize = 30_000;

const AT_ONCE: Duration = Duration::from_micros(1);

/// Ends the session by its mlet, and gives what was timed of it.
fn finish(mut pair: Pair) -> (BothWays<Option<Spread>>, Option<String>) {
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded), "{}", pair.told());
    (pair.latency(), pair.latency_of_shard())
}

fn took(max: Duration) -> Option<Spread> {
    Some(Spread { count: 1, p50: max, p99: max, max })
}

/// A single time is told as the middle of its step, unless that would be more than the longest.
#[track_caller]
fn is_timed_once(spread: Option<Spread>, exact: Duration) {
    let Some(Spread { count: 1, p50, p99, max }) = spread else { panic!("{spread:?}") };
    assert_eq!((max, p99), (exact, p50));
    assert!(p50 <= max && max - p50 <= max / 32, "{spread:?}");
}

#[test]
fn bytes_for_the_mlet_are_timed_until_it_has_taken_the_last_of_them() {
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.write(&filled(MessageType::MDATA, LEN));
    pair.run();
    assert!(pair.mlet().received.is_empty());
    pair.pass(Duration::from_secs(3));
    pair.mlet().reads = true;
    pair.run();
    let (latency, told) = finish(pair);
    is_timed_once(latency.from_endpoint, Duration::from_secs(3));
    assert_eq!(latency.to_endpoint, None);
    // To three digits.
    assert_eq!(told.unwrap(), "from endpoints 3001025/3001025/3001025 us");
}

#[test]
fn bytes_for_the_endpoint_are_timed_until_it_has_taken_the_last_of_them() {
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, LEN));
    pair.run();
    pair.pass(Duration::from_secs(2));
    pair.endpoint.reads = true;
    pair.run();
    let (latency, _) = finish(pair);
    is_timed_once(latency.to_endpoint, Duration::from_secs(2));
    assert_eq!(latency.from_endpoint, None);
}

#[test]
fn every_receive_that_brings_something_is_timed_where_one_in_one_is() {
    let mut pair = Pair::served();
    for _ in 0..5 {
        pair.endpoint.write(&message(MessageType::MDATA, b"question"));
        pair.run();
        pair.mlet().write(&message(MessageType::MDATA, b"answer"));
        pair.mlet().write(&message(MessageType::MDATA, b"and more"));
        pair.run();
    }
    let (latency, told) = finish(pair);
    let five = Some(Spread { count: 5, p50: AT_ONCE, p99: AT_ONCE, max: AT_ONCE });
    assert_eq!(latency, BothWays { to_endpoint: five, from_endpoint: five });
    assert_eq!(told.unwrap(), "to endpoints 1/1/1 us, from endpoints 1/1/1 us");
}

/// The endpoint is slow, and not the relay.
#[test]
fn bytes_that_cannot_be_passed_on_before_others_come_are_timed_with_those() {
    let mut pair = Pair::served();
    pair.endpoint.set_dam(Some(10));
    pair.endpoint.write(&message(MessageType::MDATA, b"a record in two parts"));
    pair.run();
    pair.mlet().write(&[MessageType::MDATA.0, 0]);
    pair.run();
    pair.pass(Duration::from_secs(4));
    assert!(pair.endpoint.received.is_empty() && pair.mlet().received.is_empty());
    pair.endpoint.set_dam(None);
    pair.mlet().write(&[0, 1, b'x']);
    pair.run();
    let (latency, _) = finish(pair);
    assert_eq!(latency, BothWays { to_endpoint: took(AT_ONCE), from_endpoint: took(AT_ONCE) });
}

#[test]
fn a_session_in_which_nothing_is_passed_on_has_no_times() {
    let mut pair = Pair::served();
    pair.endpoint.write(&message(MessageType::LINFO, b"for the log alone"));
    pair.run();
    assert!(pair.told().contains("for the "));
    assert_eq!(finish(pair), (BothWays::default(), None));
}

#[test]
fn what_an_endpoint_never_takes_has_no_time() {
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, LEN));
    pair.run();
    pair.pass(Duration::from_secs(1));
    pair.endpoint.end(End::Broken(ErrorKind::ConnectionReset));
    pair.mlet().exit();
    pair.finish();
    assert_eq!((pair.latency(), pair.latency_of_shard()), (BothWays::default(), None));
}

/// What a mlet writes to an endpoint that has closed is dropped, while what it wrote before is still on its way.
#[test]
fn bytes_that_are_dropped_do_not_change_the_time_of_those_before_them() {
    let mut pair = Pair::served();
    pair.mlet().exits_at_eof = false;
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, LEN));
    pair.run();
    pair.endpoint.close_notify();
    pair.run();
    pair.pass(Duration::from_secs(1));
    pair.mlet().write(&message(MessageType::MDATA, b"too late"));
    pair.run();
    assert!(pair.mlet().sent.is_empty(), "it was received");
    pair.pass(Duration::from_secs(1));
    pair.endpoint.reads = true;
    pair.run();
    pair.mlet().exit();
    pair.finish();
    is_timed_once(pair.latency().to_endpoint, Duration::from_secs(2));
}
