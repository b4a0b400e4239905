//! `pktfleet load` as its user sees it: every mode and relay measures something, and says why when not.
//!
//! Not here: how good the figures are.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::process::Command;

/// Runs `pktfleet load` with these words; its exit code, JSON and errors.
fn load(words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pktfleet"));
    let output = command.arg("load").args(words).args(["--seconds", "1", "--json"]).output();
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The figure of this name, which must have been measured.
#[track_caller]
fn figure(words: &[&str], name: &str) -> f64 {
    let (code, json, errors) = load(words);
    assert_eq!(code, Some(0), "{words:?}: {errors}");
    let (_, behind) = json.split_once(&format!("\"{name}")).unwrap();
    let (_, value) = behind.split_once("\": ").unwrap();
    value.split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn every_mode_measures_pktxpmgr() {
    assert!(figure(&["short", "--endpoints", "2"], "sessions per second") > 0.0);
    assert!(figure(&["storm", "--endpoints", "20"], "answered") == 20.0);
    // One may be of its start, or of a mlet on its way.
    let fds = figure(&["idle", "--endpoints", "20"], "fds per session");
    assert!((1.5..=2.5).contains(&fds), "{fds}");
    // Its value depends on who else runs the same program: what they share counts in part.
    assert!(figure(&["idle", "--endpoints", "2"], "PSS per session").is_finite());
    assert!(figure(&["echo", "--endpoints", "2"], "ring enters per round trip") > 0.0);
    assert!(figure(&["up", "--endpoints", "1"], "throughput") > 0.0);
    assert!(figure(&["down", "--endpoints", "1"], "throughput") > 0.0);
}

#[test]
fn a_singleton_answers_in_every_session() {
    assert!(figure(&["storm", "--singleton", "--endpoints", "50"], "answered") == 50.0);
}

#[test]
fn what_cannot_be_measured_is_said_and_is_a_failure() {
    let cases: [(&[&str], &str); 3] = [
        (&["up", "--singleton"], "--singleton goes with storm, idle and echo"),
        (&["idle", "--relay", "haproxy"], "this relay cannot be measured in this mode"),
        (&["storm", "--endpoints", "100000000"], "200000064 open files"),
    ];
    for (words, reason) in cases {
        let (code, json, errors) = load(words);
        assert_eq!((code, &*json), (Some(1), ""), "{words:?}");
        assert!(errors.contains(reason), "{errors}");
    }
}

#[test]
#[ignore = "needs tokio-relay: cargo build -p bench"]
fn the_relay_on_tokio_is_measured_too() {
    let relay = ["--relay", "tokio", "--endpoints", "2"];
    for (mode, name) in [
        ("short", "sessions per second"),
        ("echo", "round trips per second"),
        ("up", "throughput"),
        ("down", "throughput"),
    ] {
        assert!(figure(&[&[mode][..], &relay].concat(), name) > 0.0, "{mode}");
    }
}

#[test]
#[ignore = "needs socat and haproxy"]
fn socat_and_haproxy_are_measured_too() {
    let socat = ["short", "--relay", "socat", "--endpoints", "2"];
    assert!(figure(&socat, "sessions per second") > 0.0);
    for mode in ["up", "down"] {
        let haproxy = [mode, "--relay", "haproxy", "--endpoints", "1"];
        assert!(figure(&haproxy, "throughput") > 0.0, "{mode}");
    }
}
