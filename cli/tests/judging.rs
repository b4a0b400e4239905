//! `--fail-on`, `--halt`, `--require`: what counts as a good run, and the summary at its end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::endpoint::{End, NDATA, message};
use common::events::{EVENTS, Events, outcomes};
use common::manager::Manager;
use common::{Home, assert_says};

/// A manager that records on one core, whose mlets do as they are told.
fn start(home: &Home, options: &[&str]) -> Manager {
    home.start(&[&EVENTS[..], &["--cores", "1"], options].concat(), &["obey"])
}

/// A session that ends so, by its mlet, and its record.
fn ends_so(home: &Home, manager: &Manager, how: &str) {
    let mut endpoint = home.dial(manager).session();
    endpoint.send(&message(NDATA, how.as_bytes()));
    assert_eq!(endpoint.read_to_end().1, End::CloseNotify, "{how}");
    endpoint.close();
}

fn run_of(options: &[&str], ends: &[&str]) -> (Option<i32>, String) {
    let home = Home::new();
    let count = ends.len().to_string();
    let manager = start(&home, &[&["-n", &count], options].concat());
    for (index, how) in ends.iter().enumerate() {
        ends_so(&home, &manager, how);
        Events::of(&home).await_sessions(index + 1);
    }
    let ended = manager.ends();
    (ended.code, ended.stderr)
}

#[test]
fn a_run_with_too_many_failures_or_too_few_that_are_ok_ends_in_exit_code_1() {
    let ends = ["exit 0", "exit 3", "signal 9", "exit 0"];
    for (options, code, said) in [
        (&[][..], 0, None),
        (&["--fail-on", "any"], 1, Some("2 of 4 sessions failed (--fail-on)")),
        (&["--fail-on", "2"], 1, Some("2 of 4 sessions failed (--fail-on)")),
        (&["--fail-on", "3"], 0, None),
        (&["--fail-on", "50%"], 1, Some("2 of 4 sessions failed (--fail-on)")),
        (&["--fail-on", "51%"], 0, None),
        (&["--require", "2"], 0, None),
        (&["--require", "3"], 1, Some("2 sessions are ok, and 3 are asked for (--require)")),
    ] {
        let (ended, stderr) = run_of(options, &ends);
        assert_eq!(ended, Some(code), "{options:?}: {stderr}");
        match said {
            Some(said) => assert!(stderr.contains(&format!("FATAL: {said}")), "{stderr}"),
            None => assert!(!stderr.contains("FATAL"), "{stderr}"),
        }
    }
}

#[test]
fn no_rule_is_passed_without_a_session() {
    for options in [["--fail-on", "any"], ["--require", "1"], ["--fail-on", "100%"]] {
        let home = Home::new();
        let ended = start(&home, &options).interrupted();
        assert_eq!(ended.code, Some(1), "{options:?}: {}", ended.stderr);
    }
}

#[test]
fn a_run_that_halts_soon_waits_for_what_runs_and_one_that_halts_now_ends_it() {
    for (rule, code) in [("soon,fail=1", 1), ("now,fail=1", 1), ("soon,ok=1", 0), ("now,ok=1", 0)] {
        let home = Home::new();
        let manager = start(&home, &["--halt", rule]);
        let dial = home.dial(&manager);
        let mut running = dial.session();
        running.send(&message(NDATA, b"say"));
        running.receive().unwrap();
        ends_so(&home, &manager, if code == 1 { "exit 3" } else { "exit 0" });
        manager.says("(--halt)");
        if rule.starts_with("soon") {
            assert!(manager.said(" 127.0.0.1 over: ") == 1, "the other one goes on");
            running.send(&message(NDATA, b"exit 0"));
        }
        let end = running.read_to_end().1;
        // Who is ended by force may be told no more than that.
        let is_forced = rule.starts_with("now") && end == End::Fin;
        assert!(end == End::CloseNotify || is_forced, "{rule}: {end:?}");
        running.close();
        let ended = manager.ends();
        assert_eq!(ended.code, Some(code), "{rule}: {}", ended.stderr);
        let sessions = Events::of(&home).sessions();
        let expected = match rule {
            "soon,fail=1" => ["ok", "mlet_failed"],
            "now,fail=1" => ["killed", "mlet_failed"],
            "soon,ok=1" => ["ok", "ok"],
            _ => ["killed", "ok"],
        };
        assert_eq!(outcomes(&sessions), expected, "{rule}");
        assert_eq!(ended.stderr.contains("ended before its time"), code == 1, "{}", ended.stderr);
        let told = match code {
            1 => format!("failed (--halt {rule})"),
            _ => format!("INFO ended as --halt {rule} asks for: "),
        };
        assert_says(&ended.stderr, &[&told]);
    }
}

#[test]
fn a_rule_that_is_none_is_told_how_it_is_written() {
    let home = Home::new();
    for (options, said) in [
        (["--fail-on", "0"], "a share such as 10%"),
        (["--halt", "soon"], "soon or now, a comma"),
        (["--require", "0"], "a number of sessions from 1 on"),
    ] {
        let ended = common::run(home.command().args(options).arg("./mlet"));
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}

/// What failed and the sums are shown where only warnings are.
#[test]
fn the_end_of_a_run_is_told_with_its_reasons_also_when_only_warnings_are_shown() {
    let home = Home::new();
    let manager = home.start(&["--cores", "1", "-n", "2"], &["obey"]);
    ends_so(&home, &manager, "exit 3");
    manager.says("over: ");
    ends_so(&home, &manager, "exit 0");
    let stderr = manager.ends().stderr;
    let expected = [
        "WARN 127.0.0.1 over: the mlet ended; mlet exit code 3",
        "INFO 127.0.0.1 over: the mlet ended; mlet exit code 0",
        "INFO run over: 2 sessions served",
        "INFO outcomes: 1 ok, 1 mlet_failed",
        "INFO   1 time: mlet exit code 3",
        "INFO slowest phase of set-up: ",
        "INFO longest session: ",
    ];
    assert_says(&stderr, &expected);
    let home = Home::new();
    home.write("mlet", b"#!/bin/sh\nexit 3\n");
    let mut command = home.command();
    command.args(["-q", "-n", "1", "./mlet"]);
    let mut manager = Manager::spawn(&home, command);
    manager.await_port();
    let mut endpoint = home.dial(&manager).session();
    assert_eq!(endpoint.read_to_end().1, End::CloseNotify);
    endpoint.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "as the original, without a rule: {}", ended.stderr);
    let expected = [
        "WARN 127.0.0.1 over: the mlet ended; mlet exit code 3",
        "WARN run over: 1 session served",
    ];
    assert_says(&ended.stderr, &expected);
    assert!(!ended.stderr.contains("INFO"), "{}", ended.stderr);
}
