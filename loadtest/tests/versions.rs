//! Every program says what it is called and which version it has, and a mlet that cannot say what is wrong fails
//! all the same.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::fs::File;
use std::process::Command;

macro_rules! programs {
    ($($name:literal)*) => { [$(($name, env!(concat!("CARGO_BIN_EXE_", $name)))),*] };
}

/// What a program prints when it is asked for its version, and succeeds.
fn version(program: &str, words: &[&str]) -> String {
    let ended = Command::new(program).args(words).arg("--version").env_clear().output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && told.is_empty(), "{program} {words:?}: {told}");
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn every_program_says_its_own_name_and_version() {
    for (name, program) in programs!(
        "pktfleet" "mlet-http-get" "mlet-dns" "mlet-ping" "mlet-traceroute" "mlet-echo" "mlet-bulk"
        "mlet-single" "mlet-load"
    ) {
        assert_eq!(version(program, &[]), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn every_part_of_pktfleet_says_its_own_name_and_version() {
    for part in ["demo", "broker", "proxy", "endpoint", "fleet", "load"] {
        let expected = format!("pktfleet-{part} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(version(env!("CARGO_BIN_EXE_pktfleet"), &[part]), expected);
    }
}

#[test]
fn a_mlet_whose_complaint_cannot_be_written_fails_and_does_not_panic() {
    for (name, program) in programs!(
        "mlet-http-get" "mlet-dns" "mlet-ping" "mlet-traceroute" "mlet-echo" "mlet-bulk" "mlet-single"
        "mlet-load"
    ) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let status = Command::new(program).env_clear().stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(1), "{name}");
    }
}
