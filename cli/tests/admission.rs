//! Who gets a place when places are short: those who are waited for make room, and no endpoint key has
//! them all.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::Home;
use common::endpoint::{Dial, End, Endpoint, Identity, START, SUCCESS};
use common::manager::{Manager, wait_until};

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

/// However many say nothing: they hold no place that is waited for, and hide none of those that do.
#[test]
fn behind_a_crowd_of_silent_connections_those_without_a_whole_client_hello_make_room_as_soon() {
    let home = Home::new();
    let options = ["--cores", "1", "--handshakes-max", "20", "--handshake-timeout", "60s"];
    let manager = home.start(&options, &["echo"]);
    let dial = home.dial(&manager);
    let mut silent: Vec<Endpoint> = (0..300).map(|_| dial.connect()).collect();
    // Accepted before those that follow, for it is served.
    dial.is_served();
    let halves: Vec<Endpoint> = (0..40)
        .map(|_| {
            let mut endpoint = dial.connect();
            let hello = endpoint.hello();
            endpoint.send_raw(&hello[..hello.len() / 2]);
            endpoint
        })
        .collect();
    is_served_within(&dial, GRACE_AND_MORE);
    manager.says("others waited for the place");
    assert_eq!(silent[0].handshake(), Ok(()), "the oldest one was left alone");
    drop((silent, halves));
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
    manager.says("it was silent or slow, and others waited for the place");
    for endpoint in &mut running {
        endpoint.echoes(b"still here");
    }
    greeted.send(&SUCCESS);
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

/// A crowd of one address holds all places with a ClientHello each, and as many of it wait; another address has its turn
/// with the first place that is free, and that is after a second, for the crowd holds more than its share.
#[test]
fn a_crowd_of_one_address_that_stops_in_its_handshakes_does_not_lock_out_another() {
    let home = Home::new();
    let options = ["--cores", "1", "--handshakes-max", "64", "--handshake-timeout", "60s"];
    let manager = home.start(&options, &["echo"]);
    let crowd = home.dial(&manager).from(2);
    let mut stopped: Vec<Endpoint> = (0..64 * 5)
        .map(|_| {
            let mut endpoint = crowd.connect();
            let hello = endpoint.hello();
            endpoint.send_raw(&hello);
            endpoint
        })
        .collect();
    stopped[63].tcp.peek(&mut [0]).unwrap();
    is_served_within(&home.dial(&manager), GRACE * 5 / 2);
    manager.says("others waited for the place");
    assert!(stopped[0].raw_rest().is_ok(), "the oldest one is closed");
}

#[test]
fn one_endpoint_key_has_no_more_sessions_at_once_than_it_may_and_others_are_served() {
    let home = Home::new();
    let manager = home.start(&["--sessions-per-key-max", "2"], &["echo"]);
    let identity = Identity::of(&home.keys.operator);
    let key = identity.key.public_key().key_id().short();
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

/// How many places each of the managers below has for set-ups: more than the 16 that one key may always hold.
const PLACES: usize = 20;

fn start_with_few_places(home: &Home, options: &[&str]) -> Manager {
    let places = PLACES.to_string();
    let mut all = vec!["--cores", "1", "--sessions-max", "400", "--handshakes-max", &places];
    all.extend(options);
    home.start(&all, &["echo"])
}

/// Endpoints past their handshakes that do not answer START; each new one of them is told so first.
fn unanswering<'a>(dials: impl IntoIterator<Item = &'a Dial>) -> Vec<Endpoint> {
    let unanswering = |dial: &Dial| {
        let mut endpoint = dial.handshake();
        assert_eq!(endpoint.receive().unwrap().0, START);
        endpoint
    };
    dials.into_iter().map(unanswering).collect()
}

/// Asserts that one more endpoint waits for as long as none of these answers, that all of them are served then, and that
/// it is served after them.
#[track_caller]
fn nobody_makes_room(dial: &Dial, slow: &mut Vec<Endpoint>) {
    let mut waiting = dial.connect();
    let hello = waiting.hello();
    waiting.send_raw(&hello);
    waiting.is_silent_for(GRACE * 2);
    for endpoint in slow {
        endpoint.send(&SUCCESS);
        endpoint.echoes(b"slow, but here");
    }
    let answer = waiting.second_flight().unwrap();
    waiting.send_raw(&answer);
    waiting.set_up().unwrap();
    waiting.echoes(b"at last");
}

#[test]
fn the_key_with_most_places_in_set_up_makes_room_if_others_wait_and_only_as_often() {
    let home = Home::new();
    let manager = start_with_few_places(&home, &["--setup-timeout", "120s"]);
    let identity = Identity::of(&home.keys.operator);
    let key = identity.key.public_key().key_id().short();
    let greedy = Dial::to(manager.address).with(&identity);
    let start = Instant::now();
    let mut held = unanswering(vec![&greedy; PLACES]);
    is_served_within(&home.dial(&manager), GRACE_AND_MORE);
    assert!(start.elapsed() >= GRACE, "nobody had to go before: {:?}", start.elapsed());
    manager.says(&format!("the endpoint's key {key} held too many places in set-up"));
    assert_eq!(held.remove(0).receive(), Err(End::Fin), "its oldest one is closed");
    for endpoint in &mut held {
        endpoint.send(&SUCCESS);
        endpoint.echoes(b"we are left alone");
    }
    assert_eq!(manager.said("others waited for them"), 1);
}

#[test]
fn slow_starters_with_keys_of_their_own_keep_their_places() {
    let home = Home::new();
    let manager = start_with_few_places(&home, &[]);
    let dials: Vec<Dial> = (0..PLACES).map(|_| home.dial(&manager)).collect();
    nobody_makes_room(&home.dial(&manager), &mut unanswering(&dials));
}

/// Who sets no limit for a key says that endpoints share it.
#[test]
fn without_a_limit_for_a_key_a_shared_one_keeps_its_places_in_set_up() {
    let home = Home::new();
    let manager = start_with_few_places(&home, &["--sessions-per-key-max", "0"]);
    let shared = home.dial(&manager);
    nobody_makes_room(&shared, &mut unanswering(vec![&shared; PLACES]));
}
