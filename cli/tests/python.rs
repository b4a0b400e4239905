//! Python's ssl module as the endpoint: sessions over another TLS, every record seen on the wire.
//! What each scenario proves stands in `python/endpoint.py`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::Command;

use common::endpoint::Identity;
use common::{Ended, Home, assert_says};

/// Plays one scenario against a mlet of the zoo, and ends the run after it.
fn play(scenario: &str, kind: &[&str]) -> Ended {
    let home = Home::new();
    let identity = Identity::of(&home.keys.operator);
    home.write("ep.cert", identity.chain[0].to_pem().as_bytes());
    home.write("ep", identity.key.to_pem().as_bytes());
    let manager = home.start(&["-v"], kind);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/endpoint.py");
    let output = Command::new("python3")
        .arg(script)
        .args([scenario, &manager.address.port().to_string(), "ep.cert", "ep"])
        .current_dir(home.path(""))
        .output()
        .expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    ended
}

/// Items 79, 82, 85, 88.
#[test]
#[ignore = "needs python3"]
fn python_goes_through_set_up_echo_and_close() {
    assert_says(&play("echo", &["echo"]).stderr, &["the endpoint closed; mlet exit code 0"]);
}

/// Items 85, 86.
#[test]
#[ignore = "needs python3"]
fn messages_packed_into_one_record_come_back_in_records_of_their_own() {
    play("packed", &["echo"]);
}

/// Data before the mlet runs (behaviour.md "Greeting").
#[test]
#[ignore = "needs python3"]
fn messages_behind_the_answer_to_start_reach_the_mlet() {
    play("early", &["echo"]);
}

/// Item 86, the other way round.
#[test]
#[ignore = "needs python3"]
fn a_message_in_records_of_one_byte_is_one_message() {
    play("crumbs", &["echo"]);
}

/// Items 84, 85, 87.
#[test]
#[ignore = "needs python3"]
fn small_messages_written_at_once_have_records_of_their_own() {
    assert_says(&play("flood", &["flood", "20000", "12"]).stderr, &["over: the mlet ended"]);
}

/// Item 85.
#[test]
#[ignore = "needs python3"]
fn a_large_message_comes_in_records_of_sixteen_kib_at_most() {
    play("large", &["flood", "1", "3000000"]);
}

/// Item 88, spec/protocol.md 3.6.
#[test]
#[ignore = "needs python3"]
fn an_end_without_close_notify_is_an_end() {
    assert_says(&play("abrupt", &["echo"]).stderr, &["the endpoint closed; mlet exit code 0"]);
}

/// Item 78.
#[test]
#[ignore = "needs python3"]
fn a_refused_start_is_closed_cleanly() {
    assert_says(&play("refused", &["echo"]).stderr, &["refused START", "0 sessions served"]);
}
