//! `--trace` and `--trace-session`: what endpoints and mlets say to each other, in the log.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Home;
use common::endpoint::{LINFO, message};

/// NCLOSE of a socket.
const NCLOSE: u8 = 0x2b;

#[test]
fn each_message_is_logged_in_words_with_direction_and_size() {
    let home = Home::new();
    // With one shard the first session is number 1.
    let manager = home.start(&["--trace", "--cores", "1"], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    // Whether or not the mlet gets it, the endpoint has sent it.
    endpoint.send(&message(LINFO, &[0; 12]));
    for (payload, words) in [
        (vec![5], "5 bytes, NCLOSE socket 5"),
        (vec![5; 9], "13 bytes, NCLOSE (0x2b) with 9 bytes, malformed"),
        (vec![5; 70_000], "70004 bytes, NCLOSE (0x2b), too long to be decoded"),
    ] {
        endpoint.send(&message(NCLOSE, &payload));
        assert_eq!(endpoint.receive().unwrap(), (NCLOSE, payload));
        for way in ["endpoint > mlet", "mlet > endpoint"] {
            manager.says(&format!(" s {way}: {words} session=1"));
        }
    }
    manager.says("endpoint > mlet: 16 bytes, LINFO name \"\", aux \"\", info \"\" session=1");
    endpoint.send(&message(NCLOSE, &[5])[..4]);
    endpoint.close();
    manager.says("endpoint > mlet: 4 bytes, NCLOSE (0x2b), whose rest never came session=1");
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn only_the_session_that_is_asked_for_is_logged() {
    for (options, logged) in [(&["--trace-session", "2"][..], 1), (&[], 0)] {
        let home = Home::new();
        let manager = home.start(&[&["--cores", "1"], options].concat(), &["echo"]);
        for number in 1..=3 {
            let mut endpoint = home.dial(&manager).session();
            endpoint.send(&message(NCLOSE, &[number]));
            assert_eq!(endpoint.receive().unwrap(), (NCLOSE, vec![number]));
            endpoint.close();
            manager.says_times(" over: ", number.into());
        }
        let ended = manager.interrupted();
        assert_eq!(ended.code, Some(0));
        let lines: Vec<_> = ended.stderr.lines().filter(|line| line.contains("NCLOSE")).collect();
        assert_eq!(lines.len(), 2 * logged, "{lines:?}");
        let is_second = |line: &&str| line.ends_with("NCLOSE socket 2 session=2");
        assert!(lines.iter().all(is_second), "{lines:?}");
    }
}
