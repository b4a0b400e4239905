//! The check that no suite lets a Debug form pass, itself.

#[path = "common/debug_forms.rs"]
mod debug_forms;

use debug_forms::{assert_no_debug_form, debug_form};

#[test]
fn debug_forms_are_found_wherever_they_stand() {
    for (line, form) in [
        ("failed: Os { code: 2, kind: NotFound, message: \"No such file\" }", "Os { code: 2"),
        ("invalid peer certificate: Other(OtherError(NoSigner { index: 0 }))", "Other(OtherError("),
        ("the core is Some(3)", "Some(3)"),
        ("Err(ParseIntError { kind: Empty })", "Err("),
        ("value=Custom { kind: Other, error: \"x\" }", "Custom { kind"),
        ("corrupt message of type MissingData(\"Hello\")", "MissingData("),
        ("b\"hello\"", "b\"hello"),
        ("it said b\"hello\\x1b\"", "b\"hello"),
        ("T { _private: () }, Tt { _private: () }", "Tt { _private"),
    ] {
        let found = debug_form(line);
        assert!(found.is_some_and(|found| found.starts_with(form)), "{line}: {found:?}");
    }
}

#[test]
fn prose_json_and_names_of_things_pass() {
    for line in [
        "",
        "2026-11-23T12:00:00Z  INFO shard 0: ring entered 300 times, 30 sessions",
        r#"{"name": {"kind": 1}, "Other": [{"x": 2}], "a": {"Big": {"small": 3}}}"#,
        "Usage: pktxpmgr [OPTIONS] MLET [ARG]... (see --help)",
        "set ControllerPrivkeyPath (a file) in proc(5), README(1), or ENOSYS(38)",
        r#"address "a:b" has the port "b"; write a number"#,
        "Linux (6.1 or newer): {a: b} and Zürich (東京)",
        "r0 = 1; exit } Foo {bar} Foo { Bar: 1 } Foo {} it's rb \"quoted\" 3b \"x\"",
    ] {
        assert_eq!(debug_form(line), None, "{line}");
    }
}

#[test]
#[should_panic(expected = "in the line\nbad Some(1)")]
fn the_line_is_named() {
    assert_no_debug_form("good\nbad Some(1)\ngood");
}
