//! `-n`: exactly so many sessions, whatever else connects.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::endpoint::{Dial, End, Endpoint, Identity, NDATA, START, SUCCESS, message};
use common::manager::{Manager, wait_until};
use common::{Home, assert_says};
use engine::sys::limits::raise_open_files;

/// RESULT of a refusal.
const REFUSAL: [u8; 6] = [0x40, 0, 0, 2, 0, 1];

/// The cores there are, two where there are two.
fn two_shards() -> [&'static str; 2] {
    let cores = thread::available_parallelism().unwrap().get();
    ["--cores", if cores > 1 { "2" } else { "1" }]
}

/// Asserts that the run has ended by itself, with so many sessions.
#[track_caller]
fn assert_served(manager: Manager, count: usize) {
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let sessions = if count == 1 { "session" } else { "sessions" };
    assert_says(&ended.stderr, &[&format!("run over: {count} {sessions} served")]);
}

/// Items 5, 92. Forty at once for twelve places, on two shards: those who get one keep it until all
/// have theirs, so no place is given twice.
#[test]
fn exactly_as_many_endpoints_as_asked_for_get_a_mlet() {
    const PLACES: usize = 12;
    let home = Home::new();
    let [cores, count] = two_shards();
    let manager = home.start(&[cores, count, "-n", "0xc"], &["echo"]);
    // Each with a key of its own, as one alone gets no more than its share.
    let dials: Vec<Dial> = (0..40).map(|_| home.dial(&manager)).collect();
    let served = AtomicUsize::new(0);
    thread::scope(|scope| {
        for dial in &dials {
            scope.spawn(|| {
                // Those without a place are refused, or cancelled while they wait for one.
                let Ok(mut endpoint) = dial.try_connect() else { return };
                if endpoint.handshake().and_then(|()| endpoint.set_up()).is_err() {
                    return;
                }
                endpoint.send(&message(NDATA, b"mine?"));
                if endpoint.receive().is_ok() {
                    served.fetch_add(1, Ordering::Relaxed);
                    wait_until("all have theirs", || served.load(Ordering::Relaxed) >= PLACES);
                    endpoint.echoes(b"still mine");
                    endpoint.close();
                    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
                }
            });
        }
    });
    assert_eq!(served.into_inner(), PLACES);
    assert_served(manager, PLACES);
}

/// Items 78, 92, 93, 125.
#[test]
fn what_fails_before_the_mlet_uses_up_no_count() {
    let home = Home::new();
    let [cores, count] = two_shards();
    let manager = home.start(&[cores, count, "-n", "2"], &["echo"]);
    let dial = home.dial(&manager);
    let silent: Vec<Endpoint> = (0..20).map(|_| dial.connect()).collect();
    for _ in 0..5 {
        let mut endpoint = dial.handshake();
        endpoint.receive().unwrap();
        endpoint.send(&REFUSAL);
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        let mut endpoint = dial.handshake();
        endpoint.receive().unwrap();
        endpoint.close();
        assert_eq!(Dial::to(manager.address).refusal(), End::Alert(116));
        dial.connect().reset();
    }
    dial.is_served();
    dial.is_served();
    assert_served(manager, 2);
    drop(silent);
}

/// The permit of a START that fails goes to the session that waits longest, also on another shard
/// (behaviour.md "Counting: -n").
#[test]
fn a_place_given_in_vain_goes_to_whoever_waits_longest() {
    let home = Home::new();
    let [cores, count] = two_shards();
    let manager = home.start(&[cores, count, "-n", "1"], &["echo"]);
    let dial = home.dial(&manager);
    let mut holder = dial.handshake();
    assert_eq!(holder.receive().unwrap(), (START, Vec::new()));
    let mut waiting: Vec<Endpoint> = Vec::new();
    for _ in 0..4 {
        let mut endpoint = dial.handshake();
        // Also lets the one before arrive in the queue.
        endpoint.is_silent_for(Duration::from_millis(50));
        waiting.push(endpoint);
    }
    // It does not close its side, which is nobody's reason to wait.
    holder.send(&REFUSAL);
    let start = Instant::now();
    let mut heir = waiting.remove(0);
    assert_eq!(heir.receive().unwrap(), (START, Vec::new()));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for endpoint in &mut waiting {
        endpoint.is_silent_for(Duration::from_millis(20));
    }
    drop(heir);
    let mut last = waiting.remove(0);
    assert_eq!(last.receive().unwrap(), (START, Vec::new()));
    last.send(&SUCCESS);
    last.echoes(b"served");
    // The place is taken for good: the others are told so at once.
    for endpoint in &mut waiting {
        assert!(matches!(endpoint.receive(), Err(End::Fin | End::CloseNotify | End::Reset)));
    }
    last.close();
    // The holder and its heir have failed; the others were not needed any more.
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["run over: 1 session served, 2 connections failed in set-up"]);
}

/// A START that is never answered gives its place back in time for whoever has asked since, who has its whole time then.
#[test]
fn a_place_that_is_held_to_its_deadline_is_of_use_to_whoever_waits() {
    let home = Home::new();
    let manager = home.start(&["-n", "1", "--setup-timeout", "1s"], &["echo"]);
    let dial = home.dial(&manager);
    let mut holder = dial.handshake();
    holder.receive().unwrap();
    let mut waiting = dial.handshake();
    assert_eq!(waiting.receive().unwrap(), (START, Vec::new()));
    manager.says_times("START was not answered in time", 1);
    let start = Instant::now();
    let (_, end) = waiting.read_to_end();
    assert!(matches!(end, End::Fin | End::CloseNotify), "{end:?}");
    let took = start.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(2), "{took:?}");
    manager.says_times("START was not answered in time", 2);
    dial.is_served();
    assert_served(manager, 1);
}

/// One key answers no START and has others wait for theirs all the time; it comes before all others, and has the larger
/// half of the places.
#[test]
fn one_key_that_answers_no_start_keeps_no_other_from_its_place() {
    let home = Home::new();
    let manager = home.start(&["-n", "3", "--setup-timeout", "2s"], &["echo"]);
    let dial = home.dial(&manager);
    let mut silent = Vec::new();
    // One after the other, as two that ask at the same time of two shards are heard in any order.
    for _ in 0..2 {
        let mut holder = dial.handshake();
        assert_eq!(holder.receive().unwrap(), (START, Vec::new()));
        silent.push(holder);
    }
    silent.extend((0..6).map(|_| dial.handshake()));
    let start = Instant::now();
    for endpoint in &mut silent[2..] {
        endpoint.is_silent_for(Duration::from_millis(20));
    }
    // Another key, as those below.
    home.dial(&manager).is_served();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // Both that are left are held; each goes to another key when its time is up.
    for _ in 0..2 {
        silent.extend((0..4).map(|_| dial.handshake()));
        home.dial(&manager).is_served();
    }
    drop(silent);
    assert_served(manager, 3);
}

/// Promise P3 (D2, item 93): one silent connection stopped the original for good.
#[test]
fn silent_connections_do_not_keep_the_next_endpoint_from_its_place() {
    raise_open_files().unwrap();
    for count in [1, 10, 1000] {
        let home = Home::new();
        let manager = home.start(&["-n", "1"], &["echo"]);
        let dial = home.dial(&manager);
        let silent: Vec<Endpoint> = (0..count).map(|_| dial.connect()).collect();
        let start = Instant::now();
        dial.is_served();
        let served = start.elapsed();
        assert!(served < Duration::from_secs(1), "{count} silent: {served:?}");
        assert_served(manager, 1);
        let over = start.elapsed();
        assert!(over < Duration::from_secs(2), "{count} silent: {over:?}");
        println!("{count} silent: served after {served:?}, over after {over:?}");
        drop(silent);
    }
}

/// Items 5, 6.
#[test]
fn minus_one_is_no_limit() {
    let home = Home::new();
    let manager = home.start(&["-n", "-1"], &["echo"]);
    let dial = home.dial(&manager);
    for _ in 0..3 {
        dial.is_served();
    }
    assert!(manager.is_running());
    assert_eq!(manager.interrupted().code, Some(0));
}

/// An endpoint that is started again while a run counts takes another one's place, and somebody must be told.
#[test]
fn a_key_that_is_counted_twice_is_told_of() {
    let home = Home::new();
    let manager = home.start(&["-n", "2"], &["echo"]);
    let identity = Identity::of(&home.keys.operator);
    let key = identity.key.public_key().key_id().short();
    let dial = Dial::to(manager.address).with(&identity);
    dial.is_served();
    assert_eq!(manager.said("was served before"), 0);
    dial.is_served();
    assert_says(
        &manager.ends().stderr,
        &[&format!("key {key} was served before; each session counts for -n")],
    );
    // Without -n nobody's place is taken.
    let manager = home.start(&[], &["echo"]);
    let dial = Dial::to(manager.address).with(&identity);
    dial.is_served();
    dial.is_served();
    assert!(!manager.interrupted().stderr.contains("was served before"));
}
