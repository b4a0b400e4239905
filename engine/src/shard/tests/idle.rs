//! How long nothing may be relayed in a session (`--idle-timeout`), and how it ends then.

use std::sync::Arc;
use std::time::Duration;

use super::pair::Pair;
use super::peers::SOCKET_LEN;
use crate::config::Limits;
use crate::proto::experiments::Experiments;
use crate::proto::session_end::{End, Outcome};
use crate::proto::tests::credentials::{
    DRAIN_TIMEOUT, LINGER_TIMEOUT, Login, Stage, TRUSTING, experiments_within, limits,
};
use crate::proto::tests::{filled, message, success};
use packetlab::message::MessageType;

const IDLE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn impatient() -> Arc<Experiments> {
    let limits = Limits { idle_timeout: Some(IDLE), ..limits() };
    experiments_within(limits, Stage::WithDefault, &[], &[])
}

fn served() -> Pair {
    Pair::served_within(impatient())
}

#[test]
fn a_session_in_which_nothing_is_relayed_ends_and_both_sides_are_told() {
    let mut pair = served();
    pair.mlet().exits_at_eof = false;
    pair.pass(IDLE - SECOND);
    assert!(pair.over.is_none() && pair.idle == 0, "{}", pair.told());
    assert!(matches!(pair.finish(), Outcome::IdleTimeout));
    assert_eq!(pair.elapsed(), IDLE, "the mlet is not waited for");
    assert_eq!(pair.idle, 1, "the mlet is to be ended");
    assert!(pair.mlet().is_at_eof && pair.endpoint.close_notify, "{}", pair.told());
    assert!(pair.gone.is_empty(), "the endpoint did not go: {:?}", pair.gone);
}

/// Without the limit it may last as long as both sides do.
#[test]
fn a_session_may_be_silent_without_end_where_that_is_not_limited() {
    let mut pair = Pair::served();
    pair.pass(100 * IDLE);
    assert!(pair.over.is_none());
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
}

#[test]
fn every_byte_of_a_message_either_way_gives_a_session_its_whole_time_again() {
    type Move = fn(&mut Pair);
    let moves: [Move; 4] = [
        |pair| pair.endpoint.write(&success()[..1]),
        |pair| pair.mlet().write(&success()[..1]),
        |pair| pair.endpoint.write(&message(MessageType::LINFO, b"logged")),
        |pair| pair.mlet().write(&success()),
    ];
    for (index, step) in moves.into_iter().enumerate() {
        let mut pair = served();
        for _ in 0..5 {
            pair.pass(IDLE - SECOND);
            step(&mut pair);
            pair.run();
        }
        assert!(pair.over.is_none(), "move {index}: {}", pair.told());
        let before = pair.elapsed();
        assert!(matches!(pair.finish(), Outcome::IdleTimeout), "move {index}");
        assert_eq!(pair.elapsed() - before, IDLE, "move {index}");
    }
}

/// Nor do bytes that are no bytes of a message: a part of a record tells nothing.
#[test]
fn records_that_never_become_whole_keep_no_session() {
    let mut pair = served();
    pair.endpoint.set_dam(Some(0));
    pair.endpoint.write(&filled(MessageType::MDATA, 1000));
    for _ in 0..40 {
        pair.endpoint.set_dam(Some(1));
        pair.pass(2 * SECOND);
    }
    assert!(matches!(pair.over, Some(Outcome::IdleTimeout)), "{}", pair.told());
}

#[test]
fn what_waits_for_a_side_that_takes_nothing_is_no_byte_that_is_relayed() {
    let mut pair = served();
    pair.mlet().reads = false;
    pair.endpoint.write(&filled(MessageType::MDATA, SOCKET_LEN + 5_000));
    assert!(matches!(pair.finish(), Outcome::IdleTimeout), "{}", pair.told());
    assert_eq!(pair.elapsed(), IDLE);
    assert!(pair.endpoint.close_notify);

    // The endpoint cannot be told before it takes what waits for it, for which it has the drain limit.
    let mut pair = served();
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, 300_000));
    assert!(matches!(pair.finish(), Outcome::IdleTimeout), "{}", pair.told());
    assert_eq!(pair.elapsed(), IDLE + DRAIN_TIMEOUT);
}

#[test]
fn a_slow_reader_that_goes_on_reading_is_not_idle() {
    let mut pair = served();
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, 300_000));
    pair.run();
    for _ in 0..6 {
        pair.pass(IDLE - SECOND);
        // A block and a little more, for a send is seen only when all of it has left.
        for _ in 0..3 {
            pair.endpoint.reads = true;
            pair.endpoint.take();
            pair.endpoint.reads = false;
            pair.run();
        }
        assert!(pair.over.is_none(), "{}", pair.told());
    }
}

#[test]
fn what_its_mlet_wrote_last_is_delivered_before_an_idle_session_ends() {
    let mut pair = served();
    let last = filled(MessageType::MDATA, 1000);
    pair.mlet().write(&last);
    assert!(matches!(pair.finish(), Outcome::IdleTimeout));
    assert_eq!(pair.endpoint.received, last);
    assert!(pair.endpoint.close_notify);
}

#[test]
fn a_session_that_has_begun_to_end_is_not_idle() {
    // The mlet has gone, and the endpoint does not close.
    let limits = Limits { idle_timeout: Some(SECOND), linger_timeout: LINGER_TIMEOUT, ..limits() };
    let experiments = experiments_within(limits, Stage::WithDefault, &[], &[]);
    let mut pair = Pair::served_within(Arc::clone(&experiments));
    pair.endpoint.closes_back = false;
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert_eq!((pair.elapsed(), pair.idle), (LINGER_TIMEOUT, 0));
    // The endpoint has gone, and the mlet does not close.
    let mut pair = Pair::served_within(experiments);
    pair.mlet().exits_at_eof = false;
    pair.endpoint.end(End::Closed);
    assert!(matches!(pair.finish(), Outcome::EndpointEnded(End::Closed)));
    assert_eq!((pair.elapsed(), pair.idle), (LINGER_TIMEOUT, 0));
    assert_eq!(pair.gone, ["the endpoint closed"]);
}

#[test]
fn an_idle_session_whose_mlet_has_no_socket_yet_never_gets_one() {
    let mut pair = Pair::with(impatient(), Login::Operator, Some(TRUSTING));
    pair.endpoint.closes_back = false;
    pair.set_lacks_descriptors(true);
    pair.pass(IDLE);
    assert!(pair.endpoint.close_notify && pair.over.is_none(), "it lingers: {}", pair.told());
    pair.set_lacks_descriptors(false);
    assert!(matches!(pair.finish(), Outcome::IdleTimeout), "{}", pair.told());
    assert!(pair.mlet.is_none() && pair.idle == 0, "{}", pair.told());
    assert!(pair.told().contains("permit freed"), "{}", pair.told());
}

/// Traffic moves the time, and no timer.
#[test]
fn timers_of_a_busy_session_with_such_a_limit_do_not_add_up() {
    let mut pair = served();
    for _ in 0..1000 {
        pair.endpoint.write(&success());
        pair.pass(SECOND / 100);
    }
    assert!(pair.over.is_none() && pair.timers() <= 3, "{}", pair.timers());
}
