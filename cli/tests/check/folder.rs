//! What a check finds of a results folder, of the lists of who is measured, and of where messages are to be written.
//!
//! Not here: how a run goes on with a folder (`results_folder.rs`, `again.rs`).

use std::os::unix::fs::symlink;

use packetlab::key::{Hex, sha256};
use serde_json::json;

use super::{accepted, run_words};
use crate::common::{Ended, Home, assert_says, read, run};

/// A results folder with these records of a run of a mlet without arguments that had this digest.
fn make_results(home: &Home, folder: &str, mlet_digest: &str, records: &str) {
    home.make_directory(folder);
    let runs = json!({ "v": 1, "runs": [{ "mlet": { "sha256": mlet_digest, "arguments": [] } }] });
    home.write(&format!("{folder}/run.json"), runs.to_string().as_bytes());
    home.write(&format!("{folder}/events.jsonl"), records.as_bytes());
}

/// Each is what a run ends with, and nothing is made.
#[test]
fn what_a_run_would_refuse_of_its_folder_and_its_lists_is_found_without_one() {
    let home = Home::new();
    home.write("list", b"no key\n");
    make_results(&home, "full", "ab", "");
    let runs = read(&home.path("full/run.json"));
    home.write("none", b"# nobody yet\n\n");
    symlink("nowhere", home.path("lost")).unwrap();
    home.make_directory("other");
    home.write("other/notes", b"mine");
    for (options, said) in [
        (&["--only", "list"][..], "--only list: line 1: no key is no key id"),
        (&["--skip", "nowhere"], "--skip nowhere: "),
        (&["--out", "full"], "/full: it holds a run already (events.jsonl)"),
        (&["--out", "list"], "/list: it is not a folder"),
        (&["--out", "list/new"], "/list/new: "),
        (&["--out", "/proc/new"], "/proc/new: /proc: nothing can be made there"),
        (&["--out", "lost"], "/lost: it is a link that leads nowhere"),
        (&["--out", "other"], "/other: it is not empty, and no results folder"),
        (&["--resume", "other"], "/other: it is no results folder: it has no run.json"),
        (&["--only", "none"], "--only none: it names no key, so nobody would be measured"),
        (&["--only", "full"], "--only full: no endpoint has been ok in it, so nobody would be"),
        (&["--only", "other"], "--only other: it holds no events.jsonl"),
        (&["--resume", "nowhere"], "/nowhere: there is no run to go on with"),
        (&["--resume", "full"], "another mlet ran before: its SHA-256 was ab and is "),
    ] {
        let run = run_words(&home, &[options, &["./mlet"]].concat());
        let check = run_words(&home, &[&["--check"], options, &["./mlet"]].concat());
        for ended in [run, check] {
            assert_eq!(ended.code, Some(3), "{options:?}: {}", ended.stderr);
            assert_says(&ended.stderr, &[said]);
        }
    }
    for options in [&["--out", "new"][..], &["--resume", "full", "--resume-anyway"]] {
        accepted(&home, &[&["--check"], options, &["./mlet"]].concat());
    }
    assert!(!home.path("new").exists() && !home.path("nowhere").exists());
    assert_eq!(read(&home.path("full/run.json")), runs);
}

/// To root the kernel bars nothing.
#[test]
fn a_folder_that_may_not_be_written_or_read_is_found_with_the_reason() {
    let home = Home::new();
    home.make_directory("closed");
    home.make_directory("shut");
    home.write("shut/events.jsonl", b"");
    let stranger = home.give_away();
    home.chmod("closed", 0o500);
    home.chmod("shut", 0o000);
    for (options, said) in [
        (["--out", "closed"], "/closed: Permission denied"),
        (["--out", "closed/a/b"], "/closed/a/b: "),
        (["--resume", "shut"], "/shut: Permission denied"),
        (["--only", "shut"], "--only shut/events.jsonl: it cannot be read: Permission denied"),
    ] {
        let mut command = home.command_of(stranger, "pktxpmgr");
        let ended = run(command.args(["-c", "xpmgr.conf", "--check"]).args(options).arg("./mlet"));
        assert_eq!(ended.code, Some(3), "{options:?}: {}", ended.stderr);
        assert_says(&ended.stderr, &[said, "Permission denied"]);
    }
    home.chmod("shut", 0o700);
}

/// Each is what a run ends with in the same words, and nothing is made.
#[test]
fn what_a_run_would_refuse_of_the_places_for_messages_is_found_without_one() {
    let home = Home::new();
    home.write("file", b"mine");
    home.write("empty", b"");
    home.make_directory("full");
    home.write("full/notes", b"mine");
    home.make_directory("none");
    symlink("nowhere", home.path("lost")).unwrap();
    for (options, said) in [
        (["--capture", "full"], "to full: it is not empty; name an empty folder"),
        (["--capture", "file"], "to file: it is not a folder; name an empty folder"),
        (["--capture", "file/new"], "to file/new: "),
        (["--capture", "/proc/new"], "to /proc/new: /proc: nothing can be made there; name an"),
        (["--capture", "lost"], "to lost: it is a link that leads nowhere; name an empty folder"),
        (["--pcap", "file"], "to file: it holds something already; name an empty folder with"),
        (["--pcap", "full"], "to full: Is a directory"),
        (["--pcap", "nowhere/m"], "to nowhere/m: No such file or directory"),
        (["--pcap", "/proc/m"], "to /proc/m: nothing can be made there; "),
    ] {
        let run = run_words(&home, &[&options[..], &["./mlet"]].concat());
        let check = run_words(&home, &[&["--check"], &options[..], &["./mlet"]].concat());
        for ended in [&run, &check] {
            assert_eq!(ended.code, Some(3), "{options:?}: {}", ended.stderr);
            assert_says(&ended.stderr, &["cannot write messages of sessions ", said]);
        }
        let words = |ended: &Ended| {
            let line = ended.stderr.lines().find(|line| line.contains(said)).unwrap();
            line[line.find("cannot write").unwrap()..].to_owned()
        };
        assert_eq!(words(&run), words(&check));
    }
    let both = run_words(&home, &["--check", "--capture", "full", "--pcap", "file", "./mlet"]);
    assert_says(&both.stderr, &["to full: ", "to file: ", "errors: 2\n"]);
    for options in
        [["--capture", "new"], ["--capture", "none"], ["--pcap", "new"], ["--pcap", "empty"]]
    {
        accepted(&home, &[&["--check"], &options[..], &["./mlet"]].concat());
    }
    assert!(!home.path("new").exists() && !home.path("nowhere").exists());
}

/// To root the kernel bars nothing.
#[test]
fn a_place_for_messages_that_may_not_be_written_is_found_with_the_reason() {
    let home = Home::new();
    home.make_directory("closed");
    home.make_directory("shut");
    home.write("shut.pcapng", b"");
    let stranger = home.give_away();
    home.chmod("closed", 0o500);
    home.chmod("shut", 0o300);
    home.chmod("shut.pcapng", 0o400);
    for options in [
        ["--capture", "closed"],
        ["--capture", "closed/new"],
        ["--capture", "shut"],
        ["--pcap", "closed/m"],
        ["--pcap", "shut.pcapng"],
    ] {
        for task in [&["--check"][..], &[]] {
            let mut command = home.command_of(stranger, "pktxpmgr");
            command.args(["-c", "xpmgr.conf"]).args(task).args(options).arg("./mlet");
            let ended = run(&mut command);
            assert_eq!(ended.code, Some(3), "{options:?} {task:?}: {}", ended.stderr);
            let said = format!("cannot write messages of sessions to {}: ", options[1]);
            assert_says(&ended.stderr, &[&said, "Permission denied"]);
        }
    }
    home.chmod("shut", 0o700);
}

/// What was lost is told once more, by the numbers of the runs themselves.
#[test]
fn records_that_are_missing_or_damaged_are_warned_of_before_endpoints_are_measured_again() {
    let home = Home::new();
    home.make_directory("results");
    let runs = json!({ "v": 1, "runs": [{ "run": "7f", "counts": { "ok": 20 } }] });
    home.write("results/run.json", runs.to_string().as_bytes());
    let session = |number: u64| {
        let record = json!({
            "v": 1, "t": "", "ev": "session.end", "run": "7f", "sid": number, "outcome": "ok",
        });
        format!("{record}\n")
    };
    let whole: String = (1..=20).map(session).collect();
    let (before, behind) = whole.split_at(whole.len() / 2);
    let missing = "results: its run.json counts 20 sessions and connections where events.jsonl \
                   holds records of ";
    for (records, said) in [
        (String::new(), &[&*format!("{missing}0;")][..]),
        (session(1), &[&*format!("{missing}1;")]),
        (format!("{before}garbage\n\u{0}{behind}"), &["line 11 is passed over", missing]),
        (whole.clone(), &[]),
    ] {
        home.write("results/events.jsonl", records.as_bytes());
        let words = ["--check", "--resume", "results", "-n", "40"];
        let ended = run_words(&home, &words);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_says(&ended.stderr, said);
        assert_eq!(ended.stderr.is_empty(), said.is_empty(), "{}", ended.stderr);
    }
    home.write("results/events.jsonl", b"\x7f\x00\xff binary\n\xfe\n");
    let ended = run_words(&home, &["--check", "--resume", "results"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_says(&ended.stderr, &["no line of it is a record of pktxpmgr"]);
}

#[test]
fn folder_and_lists_are_checked_without_a_mlet_too_and_whatever_else_is_wrong() {
    let home = Home::new();
    home.write("list", b"no key\n");
    make_results(&home, "full", "ab", "");
    let (full, nowhere) = ("it holds a run already", "there is no run to go on with");
    for (words, said) in [
        (&["--resume", "nowhere"][..], &[nowhere][..]),
        (&["--out", "full"], &[full]),
        (&["--only", "list", "--out", "full", "./mlet"], &["--only list: line 1: ", full]),
        (
            &["--only", "list", "--skip", "gone", "--resume", "full", "./mlet"],
            &["--only list: line 1: ", "--skip gone: ", "its SHA-256 was ab and is "],
        ),
        (&["--out", "full", "./gone"], &["cannot run the mlet ./gone", full]),
        (
            &["-c", "gone", "--resume", "nowhere", "./gone"],
            &["cannot run the mlet ./gone", nowhere, "cannot read the config file gone"],
        ),
    ] {
        let ended = run_words(&home, &[&["--check"], words].concat());
        assert_eq!(ended.code, Some(3), "{words:?}: {}", ended.stderr);
        assert_says(&ended.stderr, said);
        assert_says(&ended.stderr, &[&format!("errors: {}\n", said.len())]);
    }
    accepted(&home, &["--check", "--resume", "full"]);
}

/// Two sessions of an earlier run of the same mlet are `ok`.
#[test]
fn what_earlier_runs_have_done_is_taken_off_and_nothing_left_is_told() {
    let home = Home::new();
    let session = |number: u64, outcome: &str| {
        let record =
            json!({ "v": 1, "t": "", "ev": "session.end", "sid": number, "outcome": outcome });
        format!("{record}\n")
    };
    let records = [session(1, "ok"), session(2, "mlet_failed"), session(3, "ok")].concat();
    let digest = Hex(&sha256(&read(&home.path("mlet")))).to_string();
    make_results(&home, "results", &digest, &records);
    let says = |task: &str, count: &str| {
        accepted(&home, &[task, "--resume", "results", "-n", count, "./mlet"])
    };
    let done = "nothing is left to do: 2 sessions of earlier runs are ok\n";
    assert_says(&says("--dry-run", "5"), &["\n  ends          after sessions: 3\n"]);
    for count in ["1", "2"] {
        let ends = format!("\n  ends          at once: {done}\nmlet,");
        assert_says(&says("--dry-run", count), &[&ends]);
        assert!(says("--check", count).ends_with(&format!("mlet ./mlet\n{done}")));
    }
    assert!(says("--check", "3").ends_with("mlet ./mlet\n"));
    // As a run has it.
    let ended = run_words(&home, &["--resume", "results", "-n", "2", "./mlet"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &[done]);
    // Also where only warnings are shown.
    let ended = run_words(&home, &["-q", "--resume", "results", "-n", "2", "./mlet"]);
    assert_says(&ended.stderr, &["WARN nothing is left to do: 2 sessions"]);
}
