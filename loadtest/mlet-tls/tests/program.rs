//! `mlet-tls` as a program: what it is called, how it is used, and that its arguments are judged without an endpoint. What it
//! measures is tried at real endpoints (`loadtest/tests/tls.rs`).

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::process::Command;

#[path = "../../../engine/tests/common/help_pages.rs"]
mod help_pages;

const MLET_TLS: &str = env!("CARGO_BIN_EXE_mlet-tls");

/// Exit code, standard output and standard error.
fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let ended = Command::new(MLET_TLS).args(words).env_clear().output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

#[test]
fn it_says_its_name_its_version_and_in_80_columns_how_it_is_used() {
    assert_eq!(help_pages::assert_pages_fit(MLET_TLS, &[]), [""]);
    let version = format!("mlet-tls {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"]), (Some(0), version, String::new()));
}

#[test]
fn its_arguments_are_judged_without_an_endpoint() {
    let right = run(&["--check-args", "www.example:443"]);
    assert_eq!(right, (Some(0), "arguments ok\n".to_owned(), String::new()));
    for wrong in [
        &["--check-args", "a:port"][..],
        &["--check-args", "a:0"],
        &["--check-args", "a", "b", "c"],
    ] {
        let (code, printed, told) = run(wrong);
        assert_eq!((code, printed.as_str()), (Some(2), ""), "{wrong:?}");
        assert!(told.starts_with("mlet-tls: ") && told.lines().count() == 1, "{told}");
    }
}
