//! `pktxpmgr results` on folders that the tests write themselves, as real processes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use common::campaign::{CAMPAIGN, Campaign, RUN, key, stdout};
use common::{Home, PKTXPMGR, assert_says, full};
use serde_json::{Value, json};

/// Numbers of sessions, from a table.
fn numbers(table: &str) -> Vec<u64> {
    let number = |line: &str| line.split_whitespace().next().unwrap().parse().unwrap();
    table.lines().skip(1).map(number).collect()
}

#[test]
fn every_session_is_listed_by_its_number_within_80_columns() {
    let campaign = Campaign::of(300);
    let table = campaign.says("results ls campaign");
    assert_eq!(numbers(&table), (1..=300).collect::<Vec<_>>());
    assert!(table.lines().all(|line| line.len() <= 80), "{table}");
    let lines: Vec<_> = table.lines().collect();
    for (at, expected) in [
        (
            0,
            "session key          outcome               exit      run    bytes started (UTC)"
                .into(),
        ),
        (
            1,
            format!(
                "      1 {} ok                       0  1.001 s   1100 B 11-28 11:00:00",
                &key(1)[..12]
            ),
        ),
        (
            25,
            format!(
                "     25 {} mlet_failed              3  1.025 s 24.5 KiB 11-28 11:00:02",
                &key(25)[..12]
            ),
        ),
        (
            60,
            format!(
                "     60 {} mlet_signal           KILL  1.060 s 58.7 KiB 11-28 11:00:06",
                &key(60)[..12]
            ),
        ),
        (
            100,
            "    100 -            handshake_timeout        -        -      0 B 11-28 11:00:10"
                .to_owned(),
        ),
    ] {
        assert_eq!(lines[at], expected);
    }
}

#[test]
fn sessions_are_chosen_by_outcome_key_time_and_run() {
    let campaign = Campaign::of(300);
    let prefix = |number| key(number)[..9].to_owned();
    for (words, expected) in [
        ("--outcome failed", vec![25, 50, 60, 75, 120, 125, 150, 175, 180, 225, 240, 250, 275]),
        ("--outcome mlet_signal,handshake_timeout", vec![60, 100, 120, 180, 200, 240, 300]),
        (&format!("--key {},{}", prefix(7), prefix(9).to_uppercase()), vec![7, 9]),
        ("--since 2026-11-28T11:00:29.9Z", vec![299, 300]),
        ("--until 2026-11-28T12:00:00.3+01:00", vec![1, 2]),
        ("--since 2026-11-28 --until 2026-11-28 --outcome mlet_signal", vec![60, 120, 180, 240]),
        ("--since 2026-11-29", vec![]),
        ("--run 7f3A --outcome mlet_signal --sort run", vec![240, 180, 120, 60]),
        ("--outcome MLET_SIGNAL --run 7f", vec![60, 120, 180, 240]),
        ("--since 2026-11-28T11:00 --until 2026-11-28T11:01 --key ffffffffffff", vec![]),
        (
            "--outcome mlet_signal,handshake_timeout --sort bytes",
            vec![240, 180, 120, 60, 100, 200, 300],
        ),
    ] {
        let table = campaign.says(&format!("results ls campaign {words}"));
        assert_eq!(numbers(&table), expected, "{words}");
    }
    for command in ["ls", "cat", "stats", "export"] {
        let told = campaign.run(&format!("results {command} campaign --run 8"));
        assert_eq!((told.code, told.stdout.len()), (Some(2), 0), "{command}: {}", told.stderr);
        assert_says(&told.stderr, &["pktxpmgr: campaign has no run 8"]);
    }
}

#[test]
fn of_an_output_that_was_cut_it_is_told_how_much_was_written_and_is_kept() {
    let mut campaign = Campaign::begun();
    campaign.session(1, |record| {
        let output = &mut record["output"];
        (output["stdout"], output["stdout_written"]) = (json!(1024), json!(74890));
        (output["stderr"], output["stderr_written"]) = (json!(3), json!(3));
        output["truncated"] = json!(true);
    });
    let told = campaign.says("results show campaign 1");
    assert_says(&told, &["/stdout, of 74890 bytes written 1024 are kept\n", "/stderr, 3 bytes\n"]);
}

#[test]
fn a_long_snikey_makes_no_line_of_the_sums_longer_than_80_columns() {
    let mut campaign = Campaign::begun();
    let long = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopq";
    campaign.session(1, |record| record["ep"]["snikey"] = json!(long));
    let told = campaign.says("results stats campaign");
    assert!(told.lines().all(|line| line.len() <= 80), "{told}");
    assert_says(&told, &[&format!("  {}...\n", &long[..49])]);
}

#[test]
fn programs_get_flat_columns_as_csv_and_as_json_lines() {
    let campaign = Campaign::of(300);
    let csv = campaign.says("results export campaign");
    let mut lines = csv.lines();
    let names: Vec<_> = lines.next().unwrap().split(',').collect();
    let rows: Vec<Vec<_>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(rows.len() == 300 && rows.iter().all(|row| row.len() == names.len()));
    let column = |name| names.iter().position(|other| *other == name).unwrap();
    let bytes: u64 =
        rows.iter().map(|row| row[column("from_ep_bytes")].parse::<u64>().unwrap()).sum();
    assert_eq!(bytes, 1000 * (300 * 301 / 2 - 600));
    assert_eq!((rows[24][column("key")], rows[24][column("failed")]), (&*key(25), "true"));

    let objects = campaign.says("results export campaign --format jsonl --outcome mlet_failed");
    let objects: Vec<Value> =
        objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 9);
    assert_eq!((&objects[0]["session"], &objects[0]["run_ms"]), (&json!(25), &json!(1025.0)));
    assert_eq!((&objects[0]["exit"], &objects[0]["signal"]), (&json!(3), &Value::Null));
    let mut members: Vec<_> = objects[0].as_object().unwrap().keys().map(String::as_str).collect();
    let mut sorted = names.clone();
    members.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(members, sorted);

    assert_eq!(campaign.says("results ls campaign --format csv"), csv);
    // docs/results.md has each of them.
    let page = include_str!("../../docs/results.md");
    assert!(names.iter().all(|name| page.contains(&format!("`{name}`"))), "{names:?}");
}

#[test]
#[ignore = "needs python3"]
fn the_python_reader_gives_the_same_rows() {
    let mut campaign = Campaign::of(300);
    campaign.raw(b"{\"v\":1,\"ev\":\"sess");
    let exported = campaign.says("results export campaign --format jsonl");
    let script = "import json, pktlab_mlet as m\n\
        for row in sorted(m.to_rows(m.results('campaign')), key=lambda row: row['session']):\n\
        \x20   print(json.dumps(row))\n";
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/../loadtest/mlet/python");
    let output = Command::new("python3")
        .args(["-B", "-c", script])
        .current_dir(campaign.desk())
        .env("PYTHONPATH", module)
        .output()
        .expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (ours, pythons) = (rows(&exported), rows(&String::from_utf8(output.stdout).unwrap()));
    assert_eq!(ours.len(), 300);
    for (ours, pythons) in ours.iter().zip(&pythons) {
        assert_eq!(ours, pythons);
    }
    assert_eq!(pythons.len(), 300);
}

#[test]
fn all_that_is_known_of_a_session_is_told_in_words() {
    let campaign = Campaign::of(300);
    let told = campaign.says("results show campaign 25");
    let expected = format!(
        "session        25
outcome        mlet_failed: mlet exit code 3 (counts as failed)
run            {RUN}
endpoint       {key}
operator       {root}
snikey         helloworld
address        192.0.2.25:40112
accepted       2026-11-28T11:00:02.500000Z
ended          2026-11-28T11:00:03.525000Z
TLS            42.5 ms
programs       3.0 ms
START          22.0 ms
spawn          1.5 ms
run            1.025 s
in all         1.125 s
mlet           exit code 3
to endpoint    100 bytes in 1 message
from endpoint  25000 bytes in 25 messages
relay to       p50 11 us, p99 84 us, max 912 us, of 1 sample
stdout         campaign/sessions/000025-{front}/stdout, 21 bytes
stderr         campaign/sessions/000025-{front}/stderr, 10 bytes
",
        key = key(25),
        root = "cd".repeat(32),
        front = &key(25)[..8],
    );
    assert_eq!(told, expected);
    assert!(told.lines().all(|line| line.len() <= 80));
    for same in ["0025", &key(25)[..9]] {
        assert_eq!(campaign.says(&format!("results show campaign {same}")), told);
    }
    assert_says(
        &campaign.says("results show campaign 100"),
        &["endpoint       not known", "none was kept"],
    );
}

#[test]
fn of_several_sessions_none_is_shown_and_their_numbers_are_told() {
    let mut campaign = Campaign::begun();
    for number in 1..=12 {
        campaign.session(number, |record| record["ep"]["key"] = json!("ab".repeat(32)));
    }
    let told = campaign.run("results show campaign ABAB");
    assert_eq!((told.code, told.stdout.len()), (Some(2), 0));
    let numbers = "12 sessions have keys that begin with abab; name one by its number: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...";
    assert_says(&told.stderr, &[numbers]);
    let told = campaign.run("results show campaign 13");
    assert_eq!(told.code, Some(2));
    assert_says(&told.stderr, &["campaign holds no session 13, and no key that begins so"]);
}

#[test]
fn output_comes_as_it_is_one_session_after_another_or_with_whole_lines_tagged() {
    let mut campaign = Campaign::of(12);
    let bytes = b"\xff\0no line end";
    let dir =
        |number: u64| campaign.path().join(format!("sessions/{number:06}-{}", &key(number)[..8]));
    fs::write(dir(2).join("stdout"), bytes).unwrap();
    let expected = [stdout(1).as_bytes(), bytes, stdout(3).as_bytes()].concat();
    let told = campaign.run("results cat campaign --until 2026-11-28T11:00:00.4Z");
    assert_eq!((told.code, &*told.stderr), (Some(0), ""));
    assert_eq!(told.stdout, expected);
    let tag = |number| format!("{number}\t{}\thelloworld\t", &key(number)[..12]);
    let expected = [
        [tag(1), stdout(1)].concat().as_bytes(),
        &[tag(2).as_bytes(), bytes, b"\n"].concat(),
        [tag(3), stdout(3)].concat().as_bytes(),
    ]
    .concat();
    let told = campaign.run("results cat campaign --tag --until 2026-11-28T11:00:00.4Z");
    assert_eq!(told.stdout, expected);

    campaign.session(25, |_| {});
    assert_eq!(campaign.says("results cat campaign --stderr"), "it failed\n");
    campaign.session(100, |_| {});
    let told = campaign.run("results cat campaign --outcome handshake_timeout");
    assert_eq!((told.code, told.stdout.len()), (Some(0), 0));
    assert_eq!(told.stderr, "pktxpmgr: 1 session chosen, none with output\n");
}

#[test]
fn output_that_is_gone_or_elsewhere_is_told_and_the_rest_is_shown() {
    let mut campaign = Campaign::of(3);
    let first = format!("sessions/000001-{}/stdout", &key(1)[..8]);
    fs::remove_file(campaign.path().join(&first)).unwrap();
    fs::write(campaign.desk().join("stdout"), "a secret").unwrap();
    let desk = campaign.desk().to_str().unwrap().to_owned();
    for (number, dir) in [(4, ".."), (5, "sessions/../.."), (6, &*desk)] {
        let record = json!({ "sid": number, "outcome": "ok", "output": { "dir": dir } });
        campaign.add("session.end", &record);
    }
    let told = campaign.run("results cat campaign");
    assert_eq!(told.code, Some(0));
    assert_eq!(String::from_utf8(told.stdout).unwrap(), stdout(2) + &stdout(3));
    let gone = format!("campaign/{first}: the stdout of session 1: No such file");
    let elsewhere = [4, 5, 6].map(|n| format!("campaign: session {n} has its output elsewhere\n"));
    assert_says(&told.stderr, &[&gone, &elsewhere[0], &elsewhere[1], &elsewhere[2]]);
}

/// Reading the memory of whoever reads it fails at its front, as a disk may.
#[test]
fn output_that_fails_while_it_is_read_is_told_and_the_rest_is_shown() {
    let campaign = Campaign::of(3);
    let first = campaign.path().join(format!("sessions/000001-{}/stdout", &key(1)[..8]));
    fs::remove_file(&first).unwrap();
    symlink("/proc/self/mem", &first).unwrap();
    fs::create_dir(campaign.path().join("mlet")).unwrap();
    symlink("/proc/self/mem", campaign.path().join("mlet/stdout")).unwrap();
    let told = campaign.run("results cat campaign");
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert_eq!(String::from_utf8(told.stdout).unwrap(), stdout(2) + &stdout(3));
    let of = |whose| format!("campaign: the stdout of {whose}: Input/output error");
    assert_says(&told.stderr, &[&of("session 1"), &of("the mlet of -s")]);
}

#[test]
fn of_a_long_snikey_the_tag_shows_what_that_of_a_run_does() {
    let mut campaign = Campaign::begun();
    campaign.session(1, |record| record["ep"]["snikey"] = json!("0123456789abcdef"));
    let expected = format!("1\t{}\t0123456789ab\t{}", &key(1)[..12], stdout(1));
    assert_eq!(campaign.says("results cat campaign --tag"), expected);
}

#[test]
fn what_the_sessions_come_to_is_told_within_80_columns() {
    let mut campaign = Campaign::begun();
    (1..=300).for_each(|number| campaign.session(number, |_| {}));
    campaign.add("session.folded", &json!({ "run": RUN, "outcome": "tls_failed", "count": 312 }));
    campaign.end();
    let told = campaign.says("results stats campaign");
    assert!(told.lines().all(|line| line.len() <= 80), "{told}");
    let expected = "\
run 7f3a5c0011223344: 11-28 11:00:00 to 11-28 12:00:00 (UTC)
300 sessions of 297 endpoints: 284 ok, 13 failed, 3 neither
312 connections without a certificate that was verified, and without records

outcome               count
tls_failed              312
ok                      284
mlet_failed               9
mlet_signal               4
handshake_timeout         3

  count  reason
      9  mlet exit code 3
      4  mlet signal 9
      3  no complete TLS handshake in time

                   count       p50       p90       p99       max
TLS                  297   55.0 ms   67.0 ms   69.7 ms   69.9 ms
programs             297    3.0 ms    3.0 ms    3.0 ms    3.0 ms
START                297   22.0 ms   22.0 ms   22.0 ms   22.0 ms
spawn                297    1.5 ms    1.5 ms    1.5 ms    1.5 ms
run                  297   1.150 s   1.270 s   1.297 s   1.299 s
in all               300   1.251 s   1.372 s   1.399 s  10.000 s
to endpoint          297     100 B     100 B     100 B     100 B
from endpoint        297   146 KiB   264 KiB   290 KiB   292 KiB
relay to, p50        297     11 us     11 us     11 us     11 us
relay to, p99        297     84 us     84 us     84 us     84 us
relay to, max        297    912 us    912 us    912 us    912 us

sessions       ok   failed  snikey
     297      284       13  helloworld
";
    assert_eq!(told, expected);
    let told = campaign.says("results stats campaign --outcome mlet_signal");
    assert_says(&told, &["4 sessions of 4 endpoints: 0 ok, 4 failed\n\noutcome "]);
}

#[test]
fn a_run_that_goes_on_or_was_killed_is_read_as_far_as_it_is() {
    let mut campaign = Campaign::begun();
    campaign.session(1, |_| {});
    campaign.raw(br#"{"v":1,"t":"2026-11-28T11:00:00Z","ev":"session.end","sid":2,"outc"#);
    assert_eq!(numbers(&campaign.says("results ls campaign")), [1]);
    assert_says(
        &campaign.says("results stats campaign"),
        &["11:00:00 to no end recorded", "1 session of 1 endpoint: 1 ok"],
    );
    // Another run goes on with a line of its own.
    campaign.raw(b"\n");
    campaign.add("run.start", &json!({ "run": "8" }));
    campaign.session(3, |record| record["run"] = json!("8"));
    campaign.add("news", &json!({ "what": "a kind of a later version" }));
    let told = campaign.run("results ls campaign");
    assert_eq!(told.code, Some(0));
    assert_eq!(
        told.stderr,
        "pktxpmgr: campaign/events.jsonl: line 3 is passed over: it is no JSON\n"
    );
    assert_eq!(numbers(&String::from_utf8(told.stdout).unwrap()), [1, 3]);
    let told = campaign.run("results ls campaign --run 8");
    assert_eq!(numbers(&String::from_utf8(told.stdout).unwrap()), [3]);
}

#[test]
fn of_many_lines_that_are_none_the_first_are_told_and_the_others_counted() {
    let mut campaign = Campaign::of(1);
    (0..100).for_each(|_| campaign.raw(b"\xff\n"));
    let told = campaign.run("results ls campaign");
    assert_eq!((told.code, told.stderr.lines().count()), (Some(0), 11));
    assert_says(
        &told.stderr,
        &["line 4 is passed over", "line 13 is", ": 90 more lines are passed over\n"],
    );
}

#[test]
fn a_folder_that_cannot_be_used_is_code_3_and_says_what_to_do() {
    let campaign = Campaign::of(1);
    let desk = campaign.desk();
    fs::create_dir(desk.join("empty")).unwrap();
    fs::create_dir(desk.join("other")).unwrap();
    fs::write(desk.join("other/events.jsonl"), "one\ntwo\n").unwrap();
    fs::create_dir_all(desk.join("odd/events.jsonl")).unwrap();
    fs::write(desk.join("file"), "").unwrap();
    for command in ["results ls", "results cat", "results stats", "results export", "report"] {
        for (dir, problem) in [
            ("nowhere", "nowhere: there is no such folder; name the one of --out"),
            ("file", "file: it is no folder; name the one of --out"),
            (
                "empty",
                "empty: it holds no events.jsonl, so it is no results folder; name the one of",
            ),
            ("other", "other/events.jsonl: no line of it is a record of pktxpmgr"),
            (
                "odd",
                "odd/events.jsonl: it cannot be read: it is not a regular file but a directory",
            ),
        ] {
            let told = campaign.run(&format!("{command} {dir}"));
            assert_eq!((told.code, told.stdout.len()), (Some(3), 0), "{command} {dir}");
            assert_says(&told.stderr, &[&format!("pktxpmgr: {problem}")]);
        }
    }
}

#[test]
fn a_run_that_has_just_begun_has_no_sessions_and_no_fault() {
    let campaign = Campaign::begun();
    assert!(numbers(&campaign.says("results ls campaign")).is_empty());
    assert_says(
        &campaign.says("results stats campaign"),
        &["0 sessions of 0 endpoints: 0 ok, 0 failed"],
    );
    assert_eq!(campaign.says("results cat campaign"), "");
}

#[test]
fn what_a_peer_said_steers_no_terminal() {
    let mut campaign = Campaign::begun();
    campaign.session(1, |record| {
        record["reason"] = json!("\u{1b}[2J");
        record["ep"]["snikey"] = json!("\u{202e}x\n");
    });
    for words in ["ls campaign", "show campaign 1", "stats campaign", "cat campaign --tag"] {
        let told = campaign.says(&format!("results {words}"));
        assert!(!told.contains(['\u{1b}', '\u{202e}']), "{told}");
    }
    assert_says(&campaign.says("results show campaign 1"), &[r"\u{1b}[2J", r"\u{202e}x\n"]);
}

#[test]
fn a_reader_that_has_had_enough_ends_it_quietly_and_a_full_disk_does_not() {
    let campaign = Campaign::of(3000);
    for words in
        ["ls campaign", "export campaign", "cat campaign", "stats campaign", "show campaign 1"]
    {
        let mut command = campaign.command(&format!("results {words}"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(!line.is_empty());
        assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), &b""[..]), "{words}");

        let ended = campaign.command(&format!("results {words}")).stdout(full()).output().unwrap();
        assert_eq!(ended.status.code(), Some(74), "{words}");
        assert_says(
            &String::from_utf8(ended.stderr).unwrap(),
            &["cannot write to standard output: No space"],
        );
    }
}

#[test]
fn usage_errors_are_code_2_and_help_is_on_standard_output() {
    let campaign = Campaign::of(1);
    for words in [
        "results",
        "results ls",
        "results list campaign",
        "results ls campaign --outcome okay",
        "results ls campaign --key xyz",
        "results ls campaign --since noon",
        "results show campaign",
        "results export campaign --format xml",
        "report",
        "report campaign more",
    ] {
        let told = campaign.run(words);
        assert_eq!((told.code, told.stdout.len()), (Some(2), 0), "{words}");
        let is_told = ["Usage: pktxpmgr re", "error: invalid value"];
        assert!(is_told.iter().any(|part| told.stderr.contains(part)), "{}", told.stderr);
    }
    for words in ["results --help", "report --help"] {
        let help = campaign.says(words);
        assert_says(
            &help,
            &["Examples:\n  pktxpmgr re", "Exit codes: 0 done, 2 usage", "pktxpmgr -- re"],
        );
    }
    assert_says(
        &campaign.says("results ls --help"),
        &["--outcome <LIST>", "Usage: pktxpmgr results ls"],
    );
    assert_says(&campaign.says("--help"), &["More: pktxpmgr results, report, campaign, ctl"]);
}

/// A mlet may have any name, and a folder of results too.
#[test]
fn a_word_is_a_command_only_as_the_first_and_if_no_file_has_this_name() {
    let home = Home::new();
    // So that what is taken for a mlet ends for want of it.
    fs::remove_file(home.path("xpmgr.conf")).unwrap();
    let campaign = Campaign::of(2);
    fs::write(campaign.path().join("events.jsonl"), "").unwrap();
    for word in ["results", "report"] {
        let run = |words: &[&str]| {
            let output = home.bare_command().args(words).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let is_command = |words: &[&str]| {
            let (code, stderr) = run(words);
            match code {
                Some(2) => assert_says(&stderr, &["Usage: pktxpmgr re"]),
                _ => assert_says(&stderr, &["FATAL: "]),
            }
            code == Some(2)
        };
        let options: &[&str] = &["-c", "nowhere.conf"];
        assert!(is_command(&[word]));
        assert!(!is_command(&[options, &[word]].concat()), "it is not the first word");
        assert!(!is_command(&["--", word]), "-- forces the mlet");
        assert!(!is_command(&[options, &["--", word]].concat()), "-- forces the mlet");
        // A folder could not be run, and results may well be in one of this name.
        fs::create_dir(home.path(word)).unwrap();
        assert!(is_command(&[word]));
        fs::remove_dir(home.path(word)).unwrap();
        // A mlet of this name, a file that could be made one, and a link that leads nowhere.
        home.write(word, b"#!/bin/sh\n");
        assert!(!is_command(&[word]));
        home.chmod(word, 0o700);
        assert!(!is_command(&[word]));
        fs::remove_file(home.path(word)).unwrap();
        symlink("nowhere", home.path(word)).unwrap();
        assert!(!is_command(&[word]));
        fs::remove_file(home.path(word)).unwrap();
    }
    // The results folder may be called as the command is.
    fs::rename(campaign.path(), campaign.desk().join("results")).unwrap();
    let mut command = Command::new(PKTXPMGR);
    let output = command.args(["results", "ls", "results"]).current_dir(campaign.desk()).output();
    assert_eq!(output.unwrap().status.code(), Some(0));
}

/// Nothing is asked for, taken or changed; whoever may read may look.
#[test]
fn reading_changes_nothing_in_the_folder() {
    let campaign = Campaign::of(3);
    campaign.says("results ls campaign");
    let written = fs::metadata(campaign.path().join("events.jsonl")).unwrap().modified().unwrap();
    fs::set_permissions(campaign.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let names = || {
        let names = fs::read_dir(campaign.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    };
    let before = names();
    for words in ["ls", "stats", "cat", "export", "show"] {
        let mut command = Command::new(PKTXPMGR);
        command.args(["results", words, CAMPAIGN]).current_dir(campaign.desk());
        if words == "show" {
            command.arg("2");
        }
        assert_eq!(command.output().unwrap().status.code(), Some(0), "{words}");
    }
    assert_eq!(names(), before);
    let after = fs::metadata(campaign.path().join("events.jsonl")).unwrap().modified().unwrap();
    assert_eq!(after, written);
    fs::set_permissions(campaign.path(), fs::Permissions::from_mode(0o700)).unwrap();
}
