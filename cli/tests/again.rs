//! `--resume`, `--once-per-endpoint`, `--only`, `--skip`: who is measured, and who is measured again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use common::endpoint::{Dial, End, Identity, NDATA, message};
use common::events::{Events, outcomes};
use common::manager::{Manager, children_of, is_alive, kill_hard, wait_until, zoo};
use common::{Home, assert_says, run};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A manager on one core, whose mlets do as they are told, with its results in `results`.
fn start(home: &Home, options: &[&str]) -> Manager {
    home.start(&[&["--cores", "1"], options].concat(), &["obey"])
}

fn key_of(identity: &Identity) -> String {
    identity.chain[0].subject_key_id.to_string()
}

/// Whether the endpoint is measured; its mlet ends so, and its record is there afterwards.
fn comes(home: &Home, manager: &Manager, identity: &Identity, how: &str) -> bool {
    let events = Events::of_results(home, "results");
    let before = events.sessions().len();
    let mut endpoint = Dial::to(manager.address).with(identity).handshake();
    let is_measured = endpoint.set_up().is_ok();
    if is_measured {
        endpoint.send(&message(NDATA, how.as_bytes()));
        assert_eq!(endpoint.read_to_end().1, End::CloseNotify, "{how}");
    }
    endpoint.close();
    events.await_sessions(before + 1);
    is_measured
}

fn endpoints<const N: usize>(home: &Home) -> [Identity; N] {
    std::array::from_fn(|_| Identity::of(&home.keys.operator))
}

#[test]
fn an_endpoint_that_was_ok_is_not_measured_again_and_uses_up_no_count() {
    let home = Home::new();
    let options = ["--once-per-endpoint", "-n", "3", "--out", "results"];
    let manager = start(&home, &options);
    let [one, other] = endpoints(&home);
    assert!(comes(&home, &manager, &one, "exit 3"), "the first time");
    assert!(comes(&home, &manager, &one, "exit 0"), "it was not ok");
    assert!(!comes(&home, &manager, &one, "exit 0"), "it was ok");
    assert!(!comes(&home, &manager, &one, "exit 0"));
    assert!(comes(&home, &manager, &other, "exit 0"), "the third that counts");
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["3 sessions served, 0 connections failed in set-up"]);
    assert!(!ended.stderr.contains("dropped"), "nothing has failed: {}", ended.stderr);
    let sessions = Events::of_results(&home, "results").sessions();
    let expected = ["mlet_failed", "ok", "already_measured", "already_measured", "ok"];
    assert_eq!(outcomes(&sessions), expected);
}

#[test]
fn two_sessions_of_an_endpoint_at_once_are_one_too_many() {
    let home = Home::new();
    let manager = start(&home, &["--once-per-endpoint", "--out", "results"]);
    let [one] = endpoints(&home);
    let mut first = Dial::to(manager.address).with(&one).session();
    assert!(!comes(&home, &manager, &one, "exit 0"));
    first.send(&message(NDATA, b"exit 0"));
    assert_eq!(first.read_to_end().1, End::CloseNotify);
    first.close();
    let events = Events::of_results(&home, "results");
    assert_eq!(outcomes(&events.await_sessions(2)), ["ok", "already_measured"]);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Its first mlet would never end: who waits for that session's record would wait for ever.
#[test]
fn an_endpoint_that_has_left_is_measured_again_though_its_mlet_still_runs() {
    let home = Home::new();
    let script = "#!/bin/sh\n/bin/mkdir first 2>/dev/null && exec /bin/sleep 1000\nexit 0\n";
    home.write("stay", script.as_bytes());
    home.chmod("stay", 0o755);
    let mut command = home.command();
    command.args(["--cores", "1", "--once-per-endpoint", "--out", "results", "./stay"]);
    let manager = Manager::start(&home, command);
    let [one] = endpoints(&home);
    let dial = Dial::to(manager.address).with(&one);
    let mut first = dial.session();
    wait_until("its mlet runs", || home.path("first").exists());
    first.close();
    manager.says("the endpoint closed, key");
    let mut second = dial.session();
    assert_eq!(second.read_to_end().1, End::CloseNotify);
    second.close();
    let events = Events::of_results(&home, "results");
    assert_eq!(outcomes(&events.await_sessions(1)), ["ok"], "and the first still runs");
    assert!(dial.handshake().set_up().is_err());
    events.await_sessions(2);
    kill_hard(children_of(manager.supervisor())[0]);
    events.await_sessions(3);
    // The end of the first gives nothing back that is the second's.
    assert!(dial.handshake().set_up().is_err());
    let expected = ["endpoint_closed", "ok", "already_measured", "already_measured"];
    assert_eq!(outcomes(&events.await_sessions(4)), expected);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn an_endpoint_is_measured_again_once_its_mlet_has_failed_though_it_has_not_closed_yet() {
    let home = Home::new();
    let manager = start(&home, &["--once-per-endpoint", "--out", "results"]);
    let [one] = endpoints(&home);
    let dial = Dial::to(manager.address).with(&one);
    let mut first = dial.session();
    first.send(&message(NDATA, b"exit 3"));
    assert_eq!(first.read_to_end().1, End::CloseNotify);
    wait_until("its end is known", || {
        manager.signal(Signal::SIGUSR1);
        manager.said("sessions 1, mlets that run: 0") > 0
    });
    let mut second = dial.session();
    let events = Events::of_results(&home, "results");
    assert!(events.sessions().is_empty(), "the first is open, or this proves nothing");
    second.send(&message(NDATA, b"exit 0"));
    assert_eq!(second.read_to_end().1, End::CloseNotify);
    first.close();
    second.close();
    assert_eq!(outcomes(&events.await_sessions(2)), ["mlet_failed", "ok"]);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn only_those_asked_for_are_measured_by_key_by_its_beginning_or_by_a_folder() {
    let home = Home::new();
    let [one, other] = endpoints(&home);
    home.write("only", format!("# the first\n{}\n", key_of(&one)).as_bytes());
    home.write("skip", format!("{}  # by its beginning\n", &key_of(&one)[..10]).as_bytes());
    let run_of = |options: [&str; 2], measured: [bool; 2]| {
        let manager = start(&home, &[&options[..], &["--out", "results"]].concat());
        for (identity, measured) in [&one, &other].into_iter().zip(measured) {
            assert_eq!(comes(&home, &manager, identity, "exit 0"), measured, "{options:?}");
        }
        assert_eq!(manager.interrupted().code, Some(0));
        let sessions = Events::of_results(&home, "results").sessions();
        let expected = measured.map(|measured| if measured { "ok" } else { "skipped" });
        assert_eq!(outcomes(&sessions), expected);
    };
    run_of(["--only", "only"], [true, false]);
    fs::rename(home.path("results"), home.path("before")).unwrap();
    run_of(["--skip", "skip"], [false, true]);
    fs::remove_dir_all(home.path("results")).unwrap();
    run_of(["--skip", "before"], [false, true]);
    fs::remove_dir_all(home.path("results")).unwrap();
    run_of(["--only", "before"], [true, false]);
}

#[test]
fn a_list_that_is_none_is_refused_with_its_line() {
    let home = Home::new();
    home.write("list", b"abcd\nnot a key\n");
    fs::create_dir(home.path("empty")).unwrap();
    for (list, said) in [
        ("list", "line 2: not a key is no key id"),
        ("empty", "it is no results folder"),
        ("missing", "No such file"),
    ] {
        let ended = run(home.command().args(["--only", list, "./mlet"]));
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}

/// Promise P30, in small: kill, resume, and every endpoint is `ok` once.
#[test]
fn a_killed_run_is_gone_on_with_and_in_the_end_each_endpoint_is_ok_once() {
    let home = Home::new();
    let all = endpoints::<4>(&home);
    let manager = start(&home, &["-n", "4", "--out", "results"]);
    assert!(comes(&home, &manager, &all[0], "exit 0"));
    assert!(comes(&home, &manager, &all[1], "exit 3"));
    let unfinished = Dial::to(manager.address).with(&all[2]).session();
    let outputs = || fs::read_dir(home.path("results/sessions")).map_or(0, Iterator::count);
    wait_until("its mlet's files", || outputs() == 3);
    kill_hard(manager.pid());
    wait_until("its end", || !is_alive(manager.pid()));
    drop((unfinished, manager));
    // As a kill in the middle of a write leaves it.
    let events = home.path("results/events.jsonl");
    let text = fs::read_to_string(&events).unwrap();
    fs::write(&events, format!("{text}{{\"v\":1,\"t\":\"20")).unwrap();

    let manager = start(&home, &["-n", "4", "--resume", "results"]);
    let measured = all.each_ref().map(|one| comes_torn(&home, &manager, one));
    assert_eq!(measured, [false, true, true, true]);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "-n counts those of before: {}", ended.stderr);
    assert_says(&ended.stderr, &["outcomes: 3 ok, ", "with earlier runs: 4 sessions ok"]);
    // Ended before the next began, the torn line has cost no other.
    assert_eq!(whole_records(&home, "run.start").len(), 2);
    let sessions = whole_records(&home, "session.end");
    for identity in &all {
        let key = Value::from(key_of(identity));
        let oks = sessions.iter().filter(|one| one["outcome"] == "ok" && one["ep"]["key"] == key);
        assert_eq!(oks.count(), 1);
    }
    let mut numbers: Vec<_> = sessions.iter().map(|one| one["sid"].as_u64().unwrap()).collect();
    assert_eq!(numbers[2], 4, "the third has output and no record");
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), sessions.len(), "numbers go on");
    let file: Value =
        serde_json::from_slice(&fs::read(home.path("results/run.json")).unwrap()).unwrap();
    let runs = file["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert!(runs[0]["ended"].is_null() && runs[1]["ended"].is_string());

    let mut command = home.command();
    command.args(["-n", "4", "--resume", "results"]).arg(zoo()).arg("obey");
    let ended = run(&mut command);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("nothing is left to do"), "{}", ended.stderr);
}

/// Records of this kind of a file with a torn line in it.
fn whole_records(home: &Home, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(home.path("results/events.jsonl")).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["ev"] == kind).collect()
}

fn comes_torn(home: &Home, manager: &Manager, identity: &Identity) -> bool {
    let sessions = || whole_records(home, "session.end").len();
    let before = sessions();
    let mut endpoint = Dial::to(manager.address).with(identity).handshake();
    let is_measured = endpoint.set_up().is_ok();
    if is_measured {
        endpoint.send(&message(NDATA, b"exit 0"));
        assert_eq!(endpoint.read_to_end().1, End::CloseNotify);
    }
    endpoint.close();
    wait_until("its record", || sessions() > before);
    is_measured
}

#[test]
fn arguments_that_are_no_text_are_told_apart_and_paths_are_known_in_whole() {
    let home = Home::new();
    let run_with = |options: [&str; 2], argument: &[u8]| {
        run(home.command().args(options).arg("./mlet").arg(OsStr::from_bytes(argument)))
    };
    assert!(run_with(["--out", "results"], b"a\xff").loaded);
    let file: Value =
        serde_json::from_slice(&fs::read(home.path("results/run.json")).unwrap()).unwrap();
    let of_run = &file["runs"][0];
    assert_eq!(of_run["mlet"]["arguments"], serde_json::json!([{ "hex": "61ff" }]));
    assert_eq!(
        of_run["command"].as_array().unwrap().last(),
        Some(&serde_json::json!({ "hex": "61ff" }))
    );
    let folder = fs::canonicalize(home.path("")).unwrap();
    let folder = folder.to_str().unwrap();
    assert_eq!(of_run["working_directory"], folder);
    for (what, name) in [("mlet", "./mlet"), ("config", "xpmgr.conf")] {
        let absolute = format!("{folder}/{}", name.trim_start_matches("./"));
        assert_eq!(
            (&of_run[what]["path"], &of_run[what]["absolute"]),
            (&name.into(), &absolute.into())
        );
    }
    let ended = run_with(["--resume", "results"], b"a\xfe");
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let differences = r#"its arguments were [{"hex":"61ff"}] and are [{"hex":"61fe"}]"#;
    assert_says(&ended.stderr, &[differences]);
    assert!(run_with(["--resume", "results"], b"a\xff").loaded);
    assert!(run(home.bare_command().args(["report", "results"])).stdout.contains("report.html"));
}

#[test]
fn another_mlet_is_refused_with_what_differs_unless_it_is_meant() {
    let home = Home::new();
    let ended = start(&home, &["--out", "results"]).interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let resume = |options: &[&str], words: &[&str]| {
        let mut command = home.command();
        command.args(["--resume", "results"]).args(options).args(words);
        run(&mut command)
    };
    let zoo = zoo();
    let zoo = zoo.to_str().unwrap();
    for (words, said) in [
        (&[zoo, "echo"][..], "its arguments were [\"obey\"] and are [\"echo\"]"),
        (&["./mlet", "obey"], "its SHA-256 was "),
    ] {
        let ended = resume(&[], words);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(
            ended.stderr.contains(said) && ended.stderr.contains("--resume-anyway"),
            "{}",
            ended.stderr
        );
        assert!(resume(&["--resume-anyway"], words).loaded);
        // And back, or the next would find this one's.
        assert!(resume(&["--resume-anyway"], &[zoo, "obey"]).loaded);
    }
    let ended = run(home.command().args(["--resume", "nowhere", "./mlet"]));
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("there is no run to go on with"), "{}", ended.stderr);
    assert!(!home.path("nowhere").exists());
    let ended = run(home.command().args(["--resume", "results", "--out", "other", "./mlet"]));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
}
