//! A session on a connection that waits at a proxy, until its endpoint has come.

use std::io::ErrorKind;
use std::time::Duration;

use super::pair::{Chunks, Pair};
use super::peers::Endpoint;
use crate::proto::session_end::{End, Outcome};
use crate::proto::tests::credentials::{
    HANDSHAKE_TIMEOUT, Login, TRUSTING, endpoint_tls, plain_experiments,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A connection on which an endpoint will ask for `snikey`, and the bytes with which it begins.
fn waiting_for(snikey: &str) -> (Pair, Vec<u8>) {
    let endpoint = Endpoint::new(Some(endpoint_tls(Login::Operator, Some(snikey))));
    let mut pair = Pair::in_backlog(plain_experiments(), endpoint);
    let hello = pair.endpoint.sent.drain(..).collect();
    (pair, hello)
}

#[test]
fn a_connection_waits_without_limit_and_its_first_byte_starts_the_handshake_deadline() {
    let (mut pair, hello) = waiting_for(TRUSTING);
    pair.run();
    assert_eq!(pair.session().deadline(), None);
    pair.pass(DAY);
    assert!(pair.over.is_none(), "{}", pair.told());
    pair.endpoint.sent.push_back(hello[0]);
    assert!(matches!(pair.finish(), Outcome::HandshakeTimeout));
    assert_eq!(pair.elapsed(), DAY + HANDSHAKE_TIMEOUT);
    let told = "lost to the backlog: no complete TLS handshake in time (--handshake-timeout)";
    assert_eq!(pair.told(), told, "no endpoint has come");
}

#[test]
fn a_whole_clienthello_takes_the_connection_out_of_the_backlog_once() {
    let (mut pair, hello) = waiting_for(TRUSTING);
    pair.set_chunks(Chunks::UpTo(1));
    let (last, before) = hello.split_last().unwrap();
    pair.endpoint.sent.extend(before);
    pair.run();
    assert_eq!(pair.told(), "", "no endpoint yet");
    pair.endpoint.set_dam(Some(0));
    pair.endpoint.sent.push_back(*last);
    pair.run();
    assert_eq!(pair.told(), "left the backlog");
    pair.endpoint.end(End::Closed);
    assert!(matches!(pair.finish(), Outcome::LeftInSetUp(End::Closed)));
    assert_eq!(pair.told(), "left the backlog\nover: the endpoint closed before START");
}

#[test]
fn an_endpoint_that_comes_through_the_proxy_is_served_like_any_other() {
    let (mut pair, hello) = waiting_for(TRUSTING);
    pair.pass(DAY);
    pair.endpoint.sent.extend(hello);
    pair.run();
    let told = ["left the backlog", "permit wanted", "endpoint: START of 0 bytes", "mlet started"];
    assert_eq!(pair.transcript, told);
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
}

#[test]
fn an_endpoint_that_asks_for_nothing_we_have_was_an_endpoint_all_the_same() {
    let (mut pair, hello) = waiting_for("unknown");
    pair.endpoint.sent.extend(hello);
    assert!(matches!(pair.finish(), Outcome::NoExperiment(Some(_))));
    let told = "left the backlog\nover: no ExpExec has the snikey \"unknown\"";
    assert_eq!(pair.told(), told);
}

#[test]
fn a_proxy_that_closes_or_breaks_off_has_lost_the_connection() {
    for end in [End::Closed, End::Broken(ErrorKind::ConnectionReset)] {
        let (mut pair, _) = waiting_for(TRUSTING);
        pair.endpoint.end(end);
        assert!(matches!(pair.finish(), Outcome::BacklogLost(found) if *found == end));
        assert_eq!(pair.told(), format!("lost to the backlog: the proxy {end}"));
    }
}

#[test]
fn garbage_is_no_endpoint() {
    let mut pair = Pair::in_backlog(plain_experiments(), Endpoint::new(None));
    pair.endpoint.write_raw(b"GET / HTTP/1.1\r\n");
    pair.run();
    pair.endpoint.end(End::Broken(ErrorKind::ConnectionReset));
    assert!(matches!(pair.finish(), Outcome::Tls(_)), "{}", pair.told());
    assert!(!pair.told().contains("left the backlog"), "{}", pair.told());
}

#[test]
fn a_connection_is_let_go_for_others_to_have_its_endpoint_until_a_byte_of_that_has_come() {
    let (mut pair, hello) = waiting_for(TRUSTING);
    pair.run();
    pair.leave_proxies();
    assert!(matches!(pair.finish(), Outcome::Cancelled));
    assert!(pair.told().starts_with("lost to the backlog: "), "{}", pair.told());
    let (mut pair, _) = waiting_for(TRUSTING);
    pair.endpoint.sent.push_back(hello[0]);
    pair.run();
    pair.leave_proxies();
    pair.run();
    assert!(pair.over.is_none(), "{}", pair.told());
}

/// Item 113.
#[test]
fn the_end_of_the_run_closes_a_waiting_connection_at_once() {
    let (mut pair, _) = waiting_for(TRUSTING);
    pair.drain();
    assert!(matches!(pair.finish(), Outcome::Cancelled));
    assert_eq!(pair.elapsed(), Duration::ZERO);
}
