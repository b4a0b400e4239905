//! Who gets a place when places are short: silent connections make room, and no endpoint key has them all.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::Home;
use common::endpoint::{Dial, End, Endpoint, Identity};
use common::manager::wait_until;

/// How long a connection may be silent though others wait for its place, with time for a busy machine.
const GRACE: Duration = Duration::from_secs(1);
const GRACE_AND_MORE: Duration = Duration::from_secs(5);

/// An endpoint must be served within this.
#[track_caller]
fn is_served_within(dial: &Dial, limit: Duration) -> Duration {
    let start = Instant::now();
    dial.is_served();
    let took = start.elapsed();
    assert!(took < limit, "{took:?}");
    took
}

#[test]
fn connections_that_have_said_nothing_take_no_place_in_set_up() {
    let home = Home::new();
    let manager = home.start(&["--cores", "1", "--handshakes-max", "1"], &["echo"]);
    let dial = home.dial(&manager);
    let silent: Vec<Endpoint> = (0..50).map(|_| dial.connect()).collect();
    is_served_within(&dial, GRACE);
    assert_eq!(manager.said("others waited for the place"), 0, "nobody had to go");
    drop(silent);
}

#[test]
fn a_connection_without_a_whole_client_hello_makes_room_after_a_second_if_others_wait() {
    let home = Home::new();
    let manager = home.start(&["--cores", "1", "--handshakes-max", "4"], &["echo"]);
    let dial = home.dial(&manager);
    let start = Instant::now();
    let mut halves: Vec<Endpoint> = (0..20)
        .map(|_| {
            let mut endpoint = dial.connect();
            let hello = endpoint.hello();
            endpoint.tcp.write_all(&hello[..hello.len() / 2]).unwrap();
            endpoint
        })
        .collect();
    is_served_within(&dial, GRACE_AND_MORE);
    assert!(start.elapsed() >= GRACE, "nobody had to go before: {:?}", start.elapsed());
    manager.says("others waited for the place");
    assert_eq!(halves[0].raw_rest(), Ok(Vec::new()), "the oldest one is closed without a word");
}

#[test]
fn silent_connections_that_hold_every_session_make_room_and_sessions_do_not() {
    let home = Home::new();
    let manager = home.start(&["--cores", "1", "--sessions-max", "8"], &["echo"]);
    let dial = home.dial(&manager);
    let mut running: Vec<Endpoint> = (0..3).map(|_| dial.session()).collect();
    // This one is past its ClientHello and waits for us, not we for it.
    let mut greeted = dial.handshake();
    greeted.receive().unwrap();
    let silent: Vec<Endpoint> = (0..30).map(|_| dial.connect()).collect();
    let start = Instant::now();
    for _ in 0..4 {
        is_served_within(&dial, GRACE_AND_MORE * 3);
    }
    assert!(start.elapsed() >= GRACE / 2, "all places were taken: {:?}", start.elapsed());
    manager.says("others waited for the place");
    for endpoint in &mut running {
        endpoint.echoes(b"still here");
    }
    greeted.send(&common::endpoint::SUCCESS);
    greeted.echoes(b"so am I");
    drop(silent);
}

/// An endpoint whose set-up has failed, and which does not close, holds a descriptor only as long as nobody waits for it,
/// whichever way it has failed.
#[test]
fn connections_that_failed_and_do_not_close_make_room() {
    let home = Home::new();
    let options = ["--cores", "1", "--sessions-max", "4", "--linger-timeout", "60s"];
    let manager = home.start(&options, &["echo"]);
    let dial = home.dial(&manager);
    let mut failed: Vec<Endpoint> = (0..2)
        .map(|_| {
            let mut endpoint = dial.connect();
            endpoint.send_raw(&[0xff; 100]);
            let mut alert = [0; 7];
            endpoint.tcp.read_exact(&mut alert).unwrap();
            assert_eq!(alert[0], 21, "it has failed, and is told so");
            endpoint
        })
        .collect();
    let stranger = Identity::of(&home.keys.delegate);
    failed.extend((0..2).map(|_| {
        let mut endpoint = Dial::to(manager.address).with(&stranger).handshake();
        assert_eq!(endpoint.receive(), Err(End::Alert(46)));
        endpoint
    }));
    let took = is_served_within(&dial, GRACE_AND_MORE);
    assert!(took >= GRACE / 2, "all places were taken: {took:?}");
    manager.says("TLS failed");
    drop(failed);
}

/// A ClientHello costs nothing to send again and again, so it does not keep a place for as long as a handshake may take.
#[test]
fn handshakes_that_do_not_go_on_make_room_after_three_seconds_if_others_wait() {
    let home = Home::new();
    let options = ["--cores", "1", "--handshakes-max", "4", "--handshake-timeout", "60s"];
    let manager = home.start(&options, &["echo"]);
    let dial = home.dial(&manager);
    let mut stopped: Vec<Endpoint> = (0..4)
        .map(|_| {
            let mut endpoint = dial.connect();
            let hello = endpoint.hello();
            endpoint.send_raw(&hello);
            endpoint.tcp.peek(&mut [0]).unwrap();
            endpoint
        })
        .collect();
    // Silent ones hold no place in set-up, so to close them would be in vain.
    let mut silent = dial.connect();
    let took = is_served_within(&dial, GRACE_AND_MORE * 2);
    assert!(took >= GRACE * 2, "all places were taken: {took:?}");
    manager.says("others waited for the place");
    assert_eq!(silent.handshake(), Ok(()), "it was left alone");
    assert!(stopped[0].raw_rest().is_ok(), "the oldest one is closed");
}

#[test]
fn one_endpoint_key_has_no_more_sessions_at_once_than_it_may_and_others_are_served() {
    let home = Home::new();
    let manager = home.start(&["--sessions-per-key-max", "2"], &["echo"]);
    let identity = Identity::of(&home.keys.operator);
    let key = identity.key.public_key().key_id();
    let greedy = Dial::to(manager.address).with(&identity);
    let mut held = [greedy.session(), greedy.session()];
    assert_eq!(greedy.refusal(), End::CloseNotify);
    manager.says(&format!(
        "the endpoint's key {key} has as many sessions as one key may have (--sessions-per-key-max)"
    ));
    home.dial(&manager).is_served();
    for endpoint in &mut held {
        endpoint.echoes(b"held");
    }
    held[0].close();
    assert_eq!(held[0].receive(), Err(End::CloseNotify));
    // Its place is free when the manager has closed, which nothing announces to an endpoint.
    wait_until("the key has a place again", || {
        let mut endpoint = greedy.handshake();
        endpoint.set_up().is_ok()
    });
}

#[test]
fn without_an_option_a_key_may_have_a_quarter_of_the_sessions_but_sixteen_at_least() {
    let home = Home::new();
    let manager = home.start(&["--sessions-max", "40"], &["echo"]);
    let dial = home.dial(&manager);
    let held: Vec<Endpoint> = (0..16).map(|_| dial.session()).collect();
    assert_eq!(dial.refusal(), End::CloseNotify);
    drop(held);
    let manager = home.start(&["--sessions-max", "40", "--sessions-per-key-max", "0"], &["echo"]);
    let dial = home.dial(&manager);
    let held: Vec<Endpoint> = (0..17).map(|_| dial.session()).collect();
    assert_eq!(held.len(), 17);
}
