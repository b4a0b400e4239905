//! Every part of pktfleet says what it is called, which version it has, and in 80 columns how it is used.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::path::Path;
use std::process::Command;

#[path = "../../engine/tests/common/help_pages.rs"]
mod help_pages;

const PKTFLEET: &str = env!("CARGO_BIN_EXE_pktfleet");

const PARTS: [&str; 10] =
    ["", "demo", "try", "replay", "broker", "proxy", "endpoint", "fleet", "load", "completions"];

#[test]
fn no_page_of_help_is_wider_than_80_columns() {
    assert_eq!(help_pages::assert_pages_fit(PKTFLEET, &[]), PARTS);
}

#[test]
fn every_part_refuses_what_it_does_not_know_with_code_2() {
    help_pages::assert_usage_errors(PKTFLEET, &PARTS.map(str::to_owned));
}

/// Without a word on standard output, and before anything is begun.
#[test]
fn usage_errors_of_every_kind_have_code_2() {
    for line in [
        "",
        "nothing",
        "demo --endpoints 0",
        "demo --direct --proxy",
        "demo --fail-endpoint 99",
        "broker",
        "broker --agent a",
        "broker --agent a --key k --publish :",
        "proxy --key k",
        "endpoint --key k --operator o",
        "endpoint --key k --operator o --subscribe b.example",
        "endpoint --key k --operator o --subscribe b --agent a --controller c",
        "fleet --key k --subscribe b.example",
        "fleet --endpoints 0 --key k --subscribe b.example",
        "load",
        "load sideways",
        "load idle --rate 5",
        "load echo --cores 9999",
        "load echo --itself",
        "completions",
        "completions tcsh",
        "man",
    ] {
        let mut command = Command::new(PKTFLEET);
        let ended = command.args(line.split_whitespace()).env_clear().output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(2), 0), "{line}: {said}");
        assert!(!said.is_empty(), "{line}");
    }
}

#[test]
fn a_manual_page_is_written_for_each_part() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    let ended = Command::new(PKTFLEET).arg("man").arg(&dir).env_clear().output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    for part in PARTS {
        let name = format!("pktfleet {part}").trim().replace(' ', "-");
        let page = std::fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH EXAMPLES\n"), "{page}");
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), PARTS.len());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn every_part_of_pktfleet_says_its_own_name_and_version() {
    for part in PARTS {
        let mut command = Command::new(PKTFLEET);
        command.args(Some(part).filter(|part| !part.is_empty())).arg("--version");
        let ended = command.env_clear().output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.success() && told.is_empty(), "{part}: {told}");
        let name = if part.is_empty() { "pktfleet".into() } else { format!("pktfleet-{part}") };
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), expected);
    }
}
