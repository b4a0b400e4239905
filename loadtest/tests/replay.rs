//! `pktfleet replay` as its user sees it: recorded conversations of the original, and sessions of our own mlets that
//! `pktfleet try --capture` has written.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

mod running;

use std::fmt::Write;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::thread;

use serde_json::Value;

use running::{Outcome, folder, pktfleet, program};

/// The path of a recorded conversation of the original.
fn recorded(name: &str) -> String {
    let transcripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/testdata/transcripts/");
    format!("{transcripts}{name}.jsonl")
}

/// A shell's script that is a mlet: it says and hears what a recording tells of the mlet, and checks that it hears all.
fn script(recording: &str) -> String {
    let mut script =
        "set -e\nhear() { test \"$(head -c \"$1\" <&0 | wc -c)\" = \"$1\"; }\n".to_owned();
    for line in fs::read_to_string(recording).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let Some(hex) = line["hex"].as_str() else { continue };
        match line["from"].as_str() {
            Some("mlet") => {
                let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                let octal = (0..hex.len()).step_by(2).map(|at| format!("\\{:03o}", byte(at)));
                writeln!(script, "printf '{}' >&0", octal.collect::<String>()).unwrap();
            }
            _ => writeln!(script, "hear {}", hex.len() / 2).unwrap(),
        }
    }
    script
}

#[test]
fn every_recorded_conversation_of_the_original_is_replayed() {
    let folder = folder("replay-original");
    for name in ["dns", "http_get", "icmp_echo", "pktif_dns", "traceroute"] {
        let recording = recorded(name);
        let mlet = script(&recording) + "echo \"$EPADDR is done\"\n";
        fs::write(folder.join("mlet.sh"), mlet).unwrap();
        let words = ["replay", &recording, "--", "/bin/sh", "mlet.sh"];
        let replayed = pktfleet(&folder, &words);
        assert_eq!((replayed.code, &*replayed.stderr), (Some(0), ""), "{name}");
        assert_eq!(replayed.stdout, "127.0.0.1 is done\n");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_first_difference_is_shown_in_words_and_the_mlet_is_ended() {
    let folder = folder("replay-differs");
    let recording = recorded("dns");
    let right = script(&recording);
    // Another name in the question; it leaves early; it says more; it says nothing more, and stays.
    for (mlet, line, told) in [
        (
            right.replace("\\003\\167\\167\\167", "\\003\\146\\164\\160"),
            3,
            "56 bytes, NSEND socket 1: 33 bytes, peer 127.77.0.1:53, at once, tag 1234\n  from byte 36 on: recorded",
        ),
        ("exit 0".into(), 1, "came:     the end of its session; mlet exit code 0\n"),
        ("exit 7".into(), 1, "came:     the end of its session; mlet exit code 7\n"),
        ("kill -9 $$".into(), 1, "came:     the end of its session; mlet signal 9\n"),
        (
            "exec <&-; exec 0</dev/null; exec sleep 1000".into(),
            1,
            "came:     the end of its session\n",
        ),
        (
            right.clone() + "printf '\\053\\000\\000\\001\\001' >&0",
            9,
            "came:     5 bytes, NCLOSE socket 1\n",
        ),
        (right.clone() + "exec sleep 1000", 9, "came:     nothing within "),
        (
            right.clone() + "exec <&-; exec 0</dev/null; exec sleep 1000",
            0,
            "but still ran 0.5 s later; it was killed",
        ),
    ] {
        fs::write(folder.join("mlet.sh"), mlet).unwrap();
        let words = ["replay", "--timeout", "500ms", &recording, "--", "/bin/sh", "mlet.sh"];
        let replayed = pktfleet(&folder, &words);
        assert_eq!(replayed.code, Some(76), "{}", replayed.stderr);
        assert!(replayed.stderr.contains(told), "{told}: {}", replayed.stderr);
        let place = format!("replay: {recording}, line {line}: ");
        assert!(line == 0 || replayed.stderr.starts_with(&place), "{}", replayed.stderr);
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// A line of a recording.
fn line(from: &str, hex: &str) -> String {
    format!(
        "{{\"t_ms\": 1, \"from\": \"{from}\", \"type\": \"0x{}\", \"hex\": \"{hex}\"}}\n",
        &hex[..2]
    )
}

#[test]
fn what_is_asked_of_several_sockets_may_come_in_another_order_and_is_answered_in_that() {
    let folder = folder("replay-order");
    let lines = [("mlet", "2b00000105"), ("mlet", "2b00000106")];
    let answers = [("endpoint", "40000000"), ("endpoint", "4000000200ff")];
    let recording = lines.into_iter().chain(answers).map(|(from, hex)| line(from, hex));
    fs::write(folder.join("two.jsonl"), recording.collect::<String>()).unwrap();
    let ask = |last: char| format!("printf '\\053\\000\\000\\001\\00{last}' >&0\n");
    let hear = "head -c 10 <&0 | od -An -tx1\n";
    for (order, told) in
        [("56", " 40 00 00 00 40 00 00 02 00 ff\n"), ("65", " 40 00 00 02 00 ff 40 00 00 00\n")]
    {
        let script: String = order.chars().map(ask).chain([hear.to_owned()]).collect();
        fs::write(folder.join("mlet.sh"), script).unwrap();
        let replayed = pktfleet(&folder, &["replay", "two.jsonl", "--", "/bin/sh", "mlet.sh"]);
        assert_eq!((replayed.code, &*replayed.stdout), (Some(0), told), "{}", replayed.stderr);
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_mlet_that_reads_what_is_there_reads_one_message() {
    let folder = folder("replay-one");
    let messages = ["6200000101", "62000003020202", "6200000103"];
    let recording = messages.map(|hex| line("endpoint", hex)).concat();
    fs::write(folder.join("three.jsonl"), recording).unwrap();
    // One read, which takes all that is there.
    let script = "for each in 1 2 3; do dd bs=65536 count=1 <&0 2>/dev/null | wc -c; done\n";
    fs::write(folder.join("mlet.sh"), script).unwrap();
    let replayed = pktfleet(&folder, &["replay", "three.jsonl", "--", "/bin/sh", "mlet.sh"]);
    assert_eq!((replayed.code, &*replayed.stdout), (Some(0), "5\n7\n5\n"), "{}", replayed.stderr);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn where_all_is_as_recorded_the_exit_code_is_the_mlets() {
    let folder = folder("replay-code");
    let recording = recorded("dns");
    for (end, code) in [("exit 7", 7), ("kill -9 $$", 137)] {
        fs::write(folder.join("mlet.sh"), script(&recording) + end).unwrap();
        let replayed = pktfleet(&folder, &["replay", &recording, "--", "/bin/sh", "mlet.sh"]);
        assert_eq!((replayed.code, &*replayed.stderr), (Some(code), ""));
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_the_mlet_has_started_ends_with_the_replay() {
    let folder = folder("replay-left");
    // Its output is read until nobody has it any more.
    fs::write(folder.join("mlet.sh"), "(sleep 30; echo still here) &\nwait\n").unwrap();
    let words = ["replay", "--timeout", "500ms", &recorded("dns"), "--", "/bin/sh", "mlet.sh"];
    let replayed = pktfleet(&folder, &words);
    assert_eq!((replayed.code, &*replayed.stdout), (Some(76), ""), "{}", replayed.stderr);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_step_that_took_longer_than_a_clock_can_tell_is_waited_for_and_replayed() {
    let folder = folder("replay-ages");
    // A duration can just hold it.
    let step = r#"{"t_ms": 1.8446744073709549568e22, "from": "mlet", "type": "0x2b", "hex": "2b00000105"}"#;
    fs::write(folder.join("ages.jsonl"), step).unwrap();
    fs::write(folder.join("mlet.sh"), script(folder.join("ages.jsonl").to_str().unwrap())).unwrap();
    let words = ["replay", "--timeout", "1h", "ages.jsonl", "--", "/bin/sh", "mlet.sh"];
    let replayed = pktfleet(&folder, &words);
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_replayed_is_told_before_the_mlet_runs() {
    let folder = folder("replay-unusable");
    fs::write(folder.join("gap.jsonl"), "{\"t_ms\": 1, \"from\": \"mlet\", \"missing\": 2}\n")
        .unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    // It takes no room.
    fs::File::create(folder.join("long.jsonl")).unwrap().set_len((1 << 30) + 1).unwrap();
    fs::write(folder.join("bytes.jsonl"), b"{\n\xff\n").unwrap();
    for (file, mlet, told) in [
        (
            "gap.jsonl",
            "/bin/echo",
            "replay: gap.jsonl: line 1: messages that found no room are missing here (2)",
        ),
        ("nowhere.jsonl", "/bin/echo", "replay: nowhere.jsonl: it cannot be read: No such file"),
        ("/dev/zero", "/bin/echo", "replay: /dev/zero: it is no file; name a session's file"),
        ("pipe", "/bin/echo", "replay: pipe: it is no file"),
        ("long.jsonl", "/bin/echo", "replay: long.jsonl: it has 1073741825 bytes, and a recording"),
        ("bytes.jsonl", "/bin/echo", "replay: bytes.jsonl: line 2: it is no line of a recording"),
        (&*recorded("dns"), "nowhere/mlet", "nowhere/mlet cannot be started: No such file"),
    ] {
        let replayed = pktfleet(&folder, &["replay", file, "--", mlet]);
        assert_eq!((replayed.code, &*replayed.stdout), (Some(3), ""), "{}", replayed.stderr);
        assert!(replayed.stderr.contains(told), "{}", replayed.stderr);
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// Answers each question for the addresses of a name with two.
fn name_server() -> String {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((len, asker)) = server.recv_from(&mut bytes) {
            let mut answer = bytes[..len].to_vec();
            answer[2] |= 0x80;
            answer[7] = 2;
            for last in [7, 8] {
                answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02");
                answer.push(last);
            }
            let _ = server.send_to(&answer, asker);
        }
    });
    address
}

/// A session that was captured is replayed to the same output, and one with another argument differs.
fn assert_replays(name: &str, words: &[&str], other: &[&str]) {
    let folder = folder(&format!("replay-captured-{name}"));
    let tried = pktfleet(&folder, &[&["try", "--capture", "captured"], words].concat());
    assert_eq!((tried.code, &*tried.stderr), (Some(0), ""));
    let files: Vec<_> = fs::read_dir(folder.join("captured")).unwrap().collect();
    assert_eq!(files.len(), 1);
    let recording = files[0].as_ref().unwrap().path();
    let replay = |words: &[&str]| {
        pktfleet(&folder, &[&["replay", recording.to_str().unwrap(), "--"], words].concat())
    };
    let replayed = replay(words);
    assert_eq!((replayed.code, &*replayed.stderr), (Some(0), ""));
    assert_eq!(replayed.stdout, tried.stdout);
    let replayed = replay(other);
    assert_eq!(replayed.code, Some(76), "{}", replayed.stderr);
    assert!(replayed.stderr.contains(", line "), "{}", replayed.stderr);
    fs::remove_dir_all(&folder).unwrap();
}

/// Servers at once, of which some refuse, and names before them, are measured and replayed 20 times: with the results of the
/// recorded run, each without the members of `chance`. What was printed each time, in its order.
fn replayed_surveys(
    name: &str,
    mlet: &[&str],
    names: &[&str],
    chance: &[&str],
) -> Vec<Vec<String>> {
    let folder = folder(&format!("replay-survey-{name}"));
    let listeners = [(); 6].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let listening = listeners.iter().map(|one| one.local_addr().unwrap().to_string());
    let refusing = (1..=3).map(|host| format!("127.0.0.{host}:1"));
    let servers: Vec<_> = refusing.chain(listening).collect();
    let arguments = names.iter().copied().chain(servers.iter().map(|server| &**server));
    let words: Vec<_> = mlet.iter().copied().chain(arguments).collect();
    let tried = pktfleet(&folder, &[&["try", "--capture", "captured"], &words[..]].concat());
    assert_eq!((tried.code, &*tried.stderr), (Some(0), ""));
    drop(listeners);
    let results = |outcome: &Outcome| {
        let result = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().retain(|member, _| !chance.contains(&&**member));
            line.to_string()
        };
        outcome.stdout.lines().map(result).collect::<Vec<_>>()
    };
    let sorted = |results: &[String]| {
        let mut results = results.to_vec();
        results.sort();
        results
    };
    let recorded = sorted(&results(&tried));
    let replay = |_| {
        let replay = ["replay", "captured/1.jsonl", "--"];
        let replayed = pktfleet(&folder, &[&replay, &words[..]].concat());
        assert_eq!((replayed.code, &*replayed.stderr), (Some(0), ""));
        let replayed = results(&replayed);
        assert_eq!(sorted(&replayed), recorded);
        replayed
    };
    let replayed = (0..20).map(replay).collect();
    fs::remove_dir_all(&folder).unwrap();
    replayed
}

/// Of one thread, printed in the same order each time; what is of the mlet's own clock is another.
fn assert_survey_replays(name: &str, mlet: &[&str]) {
    let server = name_server();
    let names = [&*server, "one.example", "two.example"];
    let replayed = replayed_surveys(name, mlet, &names, &["time", "reason"]);
    assert_eq!(replayed[0].len(), 11);
    assert!(replayed.iter().all(|results| *results == replayed[0]), "{replayed:#?}");
}

#[test]
fn a_captured_survey_of_the_rust_library_is_replayed_the_same_each_time() {
    assert_survey_replays("rust", &[&program("examples/survey")]);
}

#[test]
#[ignore = "needs python3"]
fn a_captured_survey_of_the_python_library_is_replayed_the_same_each_time() {
    let survey = concat!(env!("CARGO_MANIFEST_DIR"), "/mlet/python/survey.py");
    assert_survey_replays("python", &["/usr/bin/python3", "-B", survey]);
}

/// It numbers its sockets as threads find addresses, and looks at the clock in that order, too.
#[test]
#[ignore = "needs python3"]
fn a_captured_mlet_that_opens_sockets_in_any_order_is_replayed() {
    let at_once = concat!(env!("CARGO_MANIFEST_DIR"), "/mlet/python/at_once.py");
    let mlet = ["/usr/bin/python3", "-B", at_once];
    let replayed = replayed_surveys("at-once", &mlet, &[], &["time", "reason", "ms"]);
    assert_eq!(replayed[0].len(), 9);
}

#[test]
fn a_captured_question_is_replayed_without_its_server() {
    let (mlet, server) = (program("mlet-dns"), name_server());
    let words = [&*mlet, "www.example.com", &server];
    assert_replays("dns", &words, &[&mlet, "www.example.org", &server]);
}

#[test]
#[ignore = "needs python3"]
fn a_captured_question_of_the_python_library_is_replayed() {
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/mlet/python");
    let script = format!(
        "import sys\nsys.path.insert(0, '{library}')\nfrom pktlab_mlet import Session\n\
         with Session() as endpoint:\n    print(endpoint.key, *endpoint.look_up(*sys.argv[1:]).addresses)\n"
    );
    let server = name_server();
    let mlet = ["/usr/bin/python3", "-B", "-c", &script];
    let asking = |name| [&mlet[..], &[name, &server]].concat();
    assert_replays("python", &asking("www.example.com"), &asking("www.example.org"));
}

#[test]
#[ignore = "needs CAP_NET_RAW"]
fn captured_pings_are_replayed_without_their_target() {
    let mlet = program("mlet-ping");
    assert_replays("ping", &[&mlet, "127.0.0.1", "2"], &[&mlet, "127.0.0.2", "2"]);
}
