//! Every part of pktfleet says what it is called, which version it has, and in 80 columns how it is used.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::process::Command;

#[path = "../../engine/tests/common/help_pages.rs"]
mod help_pages;

const PARTS: [&str; 7] = ["", "demo", "broker", "proxy", "endpoint", "fleet", "load"];

#[test]
fn no_page_of_help_is_wider_than_80_columns() {
    assert_eq!(help_pages::assert_pages_fit(env!("CARGO_BIN_EXE_pktfleet"), &[]), PARTS);
}

#[test]
fn every_part_of_pktfleet_says_its_own_name_and_version() {
    for part in PARTS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pktfleet"));
        command.args(Some(part).filter(|part| !part.is_empty())).arg("--version");
        let ended = command.env_clear().output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.success() && told.is_empty(), "{part}: {told}");
        let name = if part.is_empty() { "pktfleet".into() } else { format!("pktfleet-{part}") };
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), expected);
    }
}
