//! `--tag`, `--max-output` and `--stream`: output that the recorder reads.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use common::endpoint::{Dial, End, Endpoint, Identity, NDATA, message};
use common::events::{Events, outcomes};
use common::manager::{Manager, children_of, kill_hard, processes_in, wait_until, zoo};
use common::{Ended, Home, assert_says, run};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

/// A line of a mlet, as `--tag` shows it: session, front of the key, snikey, and what it printed.
fn untagged(line: &[u8]) -> (u64, String, String, &[u8]) {
    let mut parts = line.splitn(4, |byte| *byte == b'\t');
    let mut text = || String::from_utf8(parts.next().unwrap().to_vec()).unwrap();
    let (session, key, snikey) = (text().parse().unwrap(), text(), text());
    (session, key, snikey, parts.next().unwrap())
}

/// A session whose mlet writes what it is told to.
struct Speaker(Endpoint);

impl Speaker {
    fn new(home: &Home, manager: &Manager) -> Self {
        Self(home.dial(manager).session())
    }

    /// What came of writing this to standard output (1) or standard error (2).
    #[track_caller]
    fn writes(&mut self, descriptor: u8, bytes: &[u8]) -> String {
        self.0.send(&message(NDATA, &[&[b'0' + descriptor], bytes].concat()));
        self.0.text()
    }

    fn ends(mut self) {
        self.0.close();
        assert_eq!(self.0.read_to_end().1, End::CloseNotify);
    }
}

/// The most memory that a process has had, in KiB.
fn peak_memory_kib(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn lines_of_many_mlets_at_once_come_out_whole_each_once_and_tagged() {
    const MLETS: usize = 300;
    const LINES: usize = 4;
    const LEN: usize = 30_000;
    let home = Home::new();
    let (lines, len) = (LINES.to_string(), LEN.to_string());
    let manager = home.start(&["--tag", "-n", &MLETS.to_string()], &["print", &lines, &len]);
    let mut sessions: Vec<_> = (0..MLETS)
        .map(|_| {
            let identity = Identity::of(&home.keys.operator);
            let endpoint = Dial::to(manager.address).with(&identity).session();
            (endpoint, identity.chain[0].subject_key_id.short())
        })
        .collect();
    // All mlets print now.
    sessions.iter_mut().for_each(|(endpoint, _)| endpoint.close());
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let printed = fs::read(home.path("stdout")).unwrap();
    let mut seen = BTreeMap::<u64, (String, usize)>::new();
    for line in printed.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
        let (session, key, snikey, text) = untagged(line);
        let (of_session, index) = seen.entry(session).or_insert_with(|| (key.clone(), 0));
        assert_eq!((&*of_session, snikey.as_str()), (&key, "hello"));
        let mut expected = format!("{session}-{index}-");
        expected.extend(std::iter::repeat_n('x', LEN - expected.len()));
        assert!(text == expected.as_bytes(), "line {index} of session {session} is torn");
        *index += 1;
    }
    assert_eq!(seen.len(), MLETS);
    assert!(seen.values().all(|(_, count)| *count == LINES));
    let mut keys: Vec<_> = seen.into_values().map(|(key, _)| key).collect();
    let mut expected: Vec<_> = sessions.into_iter().map(|(_, key)| key).collect();
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected);
}

#[test]
fn any_bytes_are_shown_and_a_line_over_1_mib_is_cut_with_each_piece_tagged() {
    const MIB: usize = 1 << 20;
    let home = Home::new();
    let manager = home.start(&["--tag", "-n", "1"], &["speak"]);
    let mut speaker = Speaker::new(&home, &manager);
    let long = [vec![b'a'; MIB], vec![b'b'; MIB], vec![b'c'; 3]].concat();
    for bytes in [&b"\0\xff\x1b[31m\ttext\n\n"[..], &long, b"\n", &long[..MIB], b"\nlast"] {
        // A message of PacketLab has 16 MiB at most, and the mlet takes it whole.
        assert_eq!(speaker.writes(1, bytes), "done");
    }
    speaker.ends();
    assert_eq!(manager.ends().code, Some(0));
    let printed = fs::read(home.path("stdout")).unwrap();
    let lines: Vec<_> = printed.split(|byte| *byte == b'\n').collect();
    let (rest, lines) = lines.split_last().unwrap();
    assert!(rest.is_empty(), "the last line has an end");
    let texts: Vec<_> = lines.iter().map(|line| untagged(line).3).collect();
    let expected = [
        &b"\0\xff\x1b[31m\ttext"[..],
        b"",
        &long[..MIB],
        &long[MIB..2 * MIB],
        b"ccc",
        &long[..MIB],
        b"last",
    ];
    assert_eq!(texts.len(), expected.len());
    assert!(texts == expected);
}

#[test]
fn with_a_folder_files_are_untagged_lines_are_shown_and_errors_are_in_the_log_escaped() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["--tag", "--out", "results", "-n", "1", "-q"]).arg(zoo()).arg("speak");
    let mut manager = Manager::spawn(&home, command);
    manager.await_port();
    let mut speaker = Speaker::new(&home, &manager);
    assert_eq!(speaker.writes(1, b"one\ntwo"), "done");
    assert_eq!(speaker.writes(2, b"no \x1b[31mway\nout"), "done");
    manager.says(r"mlet: no \u{1b}[31mway session=");
    speaker.ends();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["WARN mlet: out session="]);
    let texts: Vec<_> = ended.stdout.lines().map(|line| untagged(line.as_bytes()).3).collect();
    assert_eq!(texts, [&b"one"[..], b"two"]);
    let record = &Events::of_results(&home, "results").sessions()[0];
    let dir = home.path("results").join(record["output"]["dir"].as_str().unwrap());
    assert_eq!(fs::read(dir.join("stdout")).unwrap(), b"one\ntwo");
    assert_eq!(fs::read(dir.join("stderr")).unwrap(), b"no \x1b[31mway\nout");
    assert!(dir.join("session.json").exists());
    assert_eq!(
        (&record["output"]["stdout"], &record["output"]["stderr_written"]),
        (&json!(7), &json!(15))
    );
}

/// Promise P34: what outlives a mlet holds up neither its record nor the run.
#[test]
fn what_a_mlet_leaves_behind_with_its_output_is_read_for_two_seconds_more() {
    let home = Home::new();
    let manager = home.start(&["--tag", "--out", "results"], &["heirs"]);
    let started = Instant::now();
    let mut endpoint = home.dial(&manager).session();
    assert_eq!(endpoint.read_to_end().1, End::CloseNotify);
    endpoint.close();
    let record = Events::of_results(&home, "results").await_sessions(1).remove(0);
    let took = started.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
    assert_eq!((&record["outcome"], &record["output"]["stdout"]), (&json!("ok"), &json!(6)));
    let heirs = || processes_in(&home.path("")).into_iter().filter(|pid| is_orphan(*pid)).count();
    assert_eq!(heirs(), 1, "it lives on");
    assert_eq!(manager.interrupted().code, Some(0));
    wait_until("it is ended with the run", || heirs() == 0);
}

fn is_orphan(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.ends_with(b"\0orphan\0"))
}

#[test]
fn a_recorder_that_is_killed_ends_no_session_and_its_loss_is_told() {
    let home = Home::new();
    let manager = home.start(&["--tag", "--out", "results"], &["speak"]);
    let mut speaker = Speaker::new(&home, &manager);
    assert_eq!(speaker.writes(1, b"before\n"), "done");
    let recorder = manager.recorder().unwrap();
    wait_until("the line is shown", || !fs::read(home.path("stdout")).unwrap().is_empty());
    kill_hard(recorder);
    manager.says("the recorder of mlets' output is gone");
    assert_eq!(speaker.writes(1, b"after\n"), "Broken pipe (os error 32)", "and no signal");
    let mut another = Speaker::new(&home, &manager);
    assert_eq!(another.writes(1, b"nowhere\n"), "done");
    manager.says("the mlet's output is lost: nothing takes it: Broken pipe");
    speaker.ends();
    another.ends();
    let sessions = Events::of_results(&home, "results").await_sessions(2);
    assert_eq!(outcomes(&sessions), ["endpoint_closed", "endpoint_closed"]);
    assert!(sessions.iter().all(|record| record["exit"] == 0 && record["output"].is_null()));
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), 1);
}

#[test]
fn of_each_output_so_much_is_kept_and_what_is_beyond_is_counted() {
    for layout in [&[][..], &["--stream"]] {
        let home = Home::new();
        let options = ["--out", "results", "--max-output", "10", "--cores", "1"];
        let manager = home.start(&[&options[..], layout].concat(), &["speak"]);
        for (stdout, stderr) in [(9, 10), (10, 11), (11, 0), (100_000, 0)] {
            let mut speaker = Speaker::new(&home, &manager);
            assert_eq!(speaker.writes(1, &vec![b'o'; stdout]), "done");
            assert_eq!(speaker.writes(2, &vec![b'e'; stderr]), "done");
            speaker.ends();
        }
        let events = Events::of_results(&home, "results");
        events.await_sessions(4);
        assert_eq!(manager.interrupted().code, Some(0));
        let told: Vec<_> = events
            .sessions()
            .iter()
            .map(|record| {
                let of = |name: &str| record["output"][name].as_u64().unwrap();
                let kept = (of("stdout"), of("stderr"));
                (
                    kept,
                    (of("stdout_written"), of("stderr_written")),
                    record["output"]["truncated"].as_bool().unwrap(),
                )
            })
            .collect();
        let expected = [
            ((9, 10), (9, 10), false),
            ((10, 10), (10, 11), true),
            ((10, 0), (11, 0), true),
            ((10, 0), (100_000, 0), true),
        ];
        assert_eq!(told, expected, "{layout:?}");
    }
}

/// Promise P34: memory is bounded, and no mlet is blocked by a limit.
#[test]
fn a_gigabyte_of_output_is_drained_in_little_memory() {
    let home = Home::new();
    let len = 1_usize << 30;
    let manager =
        home.start(&["--out", "results", "--max-output", "1m"], &["spew", &len.to_string()]);
    let before = manager.memory_kib();
    home.dial(&manager).session().read_to_end();
    let record = Events::of_results(&home, "results").await_sessions(1).remove(0);
    assert_eq!(record["outcome"], "ok");
    assert_eq!(record["output"]["stdout_written"], len);
    assert_eq!(record["output"]["stdout"], 1 << 20);
    let peak = peak_memory_kib(manager.recorder().unwrap());
    // A page table of a debug build, the buffer of a read, and no output.
    assert!(peak < 24 << 10, "{peak} KiB");
    assert!(manager.memory_kib() < before + (4 << 10), "{} KiB", manager.memory_kib());
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_standard_output_that_nobody_reads_holds_up_mlets_and_nothing_else_and_loses_no_line() {
    let home = Home::new();
    let (manager, mut unread) = start_behind_fifo(&home, &["-n", "3"], &["print", "10", "30000"]);
    let mut sessions: Vec<_> = (0..2).map(|_| home.dial(&manager).session()).collect();
    sessions.iter_mut().for_each(Endpoint::close);
    let is_blocked = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.contains("pipe"))
    };
    let mlets = || children_of(manager.supervisor());
    wait_until("both mlets wait", || {
        let mlets = mlets();
        mlets.len() == 2 && mlets.iter().all(is_blocked)
    });
    // Sessions begin nevertheless, and the manager answers.
    let mut third = home.dial(&manager).session();
    wait_until("a third mlet runs", || mlets().len() == 3);
    manager.signal(Signal::SIGUSR1);
    manager.says("mlets that run: 3");
    third.close();
    let peak = peak_memory_kib(manager.recorder().unwrap());
    assert!(peak < 24 << 10, "{peak} KiB");
    let mut printed = Vec::new();
    unread.read_to_end(&mut printed).unwrap();
    assert_eq!(manager.ends().code, Some(0));
    let lines: Vec<_> = printed.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 30);
    assert!(lines.iter().all(|line| untagged(line).3.len() == 30_001));
}

#[test]
fn a_reader_of_standard_output_that_is_gone_blocks_no_mlet_and_is_told() {
    let home = Home::new();
    let (manager, mut reader) = start_behind_fifo(&home, &["-n", "1"], &["speak"]);
    let mut speaker = Speaker::new(&home, &manager);
    assert_eq!(speaker.writes(1, b"first\n"), "done");
    let mut first = [0; 64];
    let len = reader.read(&mut first).unwrap();
    assert_eq!(untagged(&first[..len]).3, b"first\n");
    drop(reader);
    assert_eq!(speaker.writes(1, b"second\n"), "done");
    manager.says("standard output takes nothing more (Broken pipe");
    assert_eq!(speaker.writes(1, &vec![b'x'; 1 << 20]), "done");
    speaker.ends();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("standard output takes nothing more").count(), 1);
}

/// A manager with tagged lines that go to a FIFO, and the reading end of that.
fn start_behind_fifo(home: &Home, options: &[&str], kind: &[&str]) -> (Manager, File) {
    let path = home.path("fifo");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let opened = thread::spawn(move || File::open(path).unwrap());
    let zoo = zoo();
    let words = [&["--tag"][..], options, &[zoo.to_str().unwrap()], kind].concat();
    let manager = home.start_behind("exec >fifo;", &words);
    (manager, opened.join().unwrap())
}

#[test]
fn options_that_the_recorder_cannot_have_together_are_refused_with_a_reason() {
    let home = Home::new();
    for (options, reason) in [
        (&["-s", "--tag"][..], "'--single' cannot be used with '--tag'"),
        (&["-s", "--stream", "--out", "results"], "--stream"),
        (&["--stream"], "name one with --out DIR"),
        (&["--max-output", "1k"], "name one with --out DIR"),
        (&["--stream", "--out", "results", "--keep", "none"], "--keep none"),
        (&["--max-output", "1", "--out", "results", "--keep", "none"], "--keep none"),
        (&["--tag", "--out", "results", "--events", "-"], "--tag takes standard output"),
    ] {
        let Ended { code, stderr, .. } = run(home.command().args(options).arg("./mlet"));
        assert_eq!(code, Some(2), "{options:?}: {stderr}");
        assert_says(&stderr, &[reason]);
    }
    assert!(!home.path("results").exists());
}

#[test]
fn without_these_options_there_is_no_recorder() {
    let home = Home::new();
    for options in [&[][..], &["--out", "results"]] {
        let manager = home.start(options, &["echo"]);
        assert_eq!(manager.recorder(), None);
        home.dial(&manager).is_served();
        assert_eq!(manager.interrupted().code, Some(0));
    }
    let manager = home.start(&["--tag"], &["echo"]);
    assert!(manager.recorder().is_some());
    assert_eq!(manager.interrupted().code, Some(0));
}
