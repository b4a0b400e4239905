//! `--tag`, `--max-output` and `--stream`: output that the recorder reads.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::disk;
use common::endpoint::{Dial, End, Endpoint, Identity, NDATA, message};
use common::events::{Events, outcomes};
use common::manager::{
    Manager, children_of, is_alive, is_all, kill_hard, processes_in, wait_until, zoo,
};
use common::stalled::Stalled;
use common::{Ended, Home, PKTXPMGR, assert_says, run};
use engine::sys::socket::waiting_len;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

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
    let heirs = || processes_in(&home.path("")).into_iter().filter(|pid| is_heir(*pid)).count();
    assert_eq!(heirs(), 1, "it lives on");
    assert_eq!(manager.interrupted().code, Some(0));
    wait_until("it is ended with the run", || heirs() == 0);
}

fn is_heir(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.ends_with(b"\0heir\0"))
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
    assert_says(&ended.stderr, &["output that is lost, or not kept whole: of 2 mlets"]);
}

#[test]
fn output_that_is_closed_before_its_session_is_known_is_in_its_record() {
    let home = Home::new();
    let manager = home.start(&["--out", "results", "--stream"], &["flood", "0", "0"]);
    let recorder = manager.recorder().unwrap();
    let pipes = || {
        let open = fs::read_dir(format!("/proc/{recorder}/fd")).unwrap().flatten();
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.starts_with("pipe:"))).count()
    };
    let pipes_at_rest = pipes();
    let stalled = Stalled::before_it_hears_the_recorder(&manager);
    let mut endpoint = home.dial(&manager).session();
    assert_eq!(endpoint.read_to_end().1, End::CloseNotify);
    endpoint.close();
    wait_until("the recorder has read the mlet's pipes to their end, and told", || {
        // It takes the pipes before it begins the file, and tells what it has to before it waits again.
        home.path("results/streams/0001.stream").exists()
            && pipes() == pipes_at_rest
            && fs::read_to_string(format!("/proc/{recorder}/wchan")).unwrap().contains("poll")
    });
    drop(stalled);
    let record = Events::of_results(&home, "results").await_sessions(1).remove(0);
    let output = &record["output"];
    assert_eq!((&record["outcome"], &output["stdout"]), (&json!("ok"), &json!(0)));
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_recorder_that_is_lost_before_a_session_is_known_does_not_keep_it_open() {
    let home = Home::new();
    let manager = home.start(&["--out", "results", "--stream"], &["speak"]);
    let stalled = Stalled::before_it_hears_the_recorder(&manager);
    let mut speaker = Speaker::new(&home, &manager);
    assert_eq!(speaker.writes(1, b"before"), "done");
    let recorder = manager.recorder().unwrap();
    kill_hard(recorder);
    wait_until("its end shows", || is_all(recorder, 'Z'));
    drop(stalled);
    manager.says("(mlets whose output is lost now: 0)");
    speaker.ends();
    let record = Events::of_results(&home, "results").await_sessions(1).remove(0);
    assert_eq!((&record["exit"], &record["output"]), (&json!(0), &Value::Null));
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert_says(&ended.stderr, &["output that is lost, or not kept whole: of 1 mlet"]);
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
    // Whoever left before the mlet ended would end the session.
    assert_eq!(home.dial(&manager).session().read_to_end(), (0, End::CloseNotify));
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
    manager.says("mlets whose output is still read, ended ones too: 3");
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
fn sessions_that_print_nothing_end_with_a_record_while_nobody_reads_standard_output() {
    let home = Home::new();
    let (manager, mut unread) = start_behind_fifo(&home, &["--out", "results"], &["speak"]);
    let mut printing = Speaker::new(&home, &manager);
    let mut half = Speaker::new(&home, &manager);
    assert_eq!(half.writes(1, b"no end"), "done");
    // More than the pipe, the recorder's read and the mlet's own pipe hold together.
    printing.0.send(&message(NDATA, &[b"1", &b"line\n".repeat(100_000)[..]].concat()));
    let is_blocked = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.contains("pipe"))
    };
    let recorder = manager.recorder().unwrap();
    wait_until("standard output is full, and the recorder and the mlet wait", || {
        let polls = fs::read_to_string(format!("/proc/{recorder}/wchan")).unwrap();
        waiting_len(&unread) > 60_000
            && polls.contains("poll")
            && children_of(manager.supervisor()).iter().any(is_blocked)
    });
    half.ends();
    for number in 1..=3 {
        let mut silent = Speaker::new(&home, &manager);
        assert_eq!(silent.writes(2, b"to the log\n"), "done");
        silent.ends();
        let sessions = Events::of_results(&home, "results").await_sessions(number);
        let is_silent = |record: &Value| record["output"]["stderr_written"] == 11;
        assert!(sessions.iter().all(is_silent), "{sessions:?}");
    }
    manager.says_times("mlet: to the log", 3);
    manager.signal(Signal::SIGINT);
    manager.says("mlets whose output is still read, ended ones too: 2");
    let reader = thread::spawn(move || {
        let mut printed = Vec::new();
        unread.read_to_end(&mut printed).map(|_| printed)
    });
    assert_eq!(printing.0.text(), "done");
    printing.ends();
    assert_eq!(manager.ends().code, Some(0));
    let printed = reader.join().unwrap().unwrap();
    let lines = printed.split_inclusive(|byte| *byte == b'\n').map(|line| untagged(line).3);
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 100_001);
    assert_eq!(lines.iter().filter(|line| **line == b"no end\n").count(), 1);
    assert_eq!(Events::of_results(&home, "results").sessions().len(), 5);
}

/// 80 MB of them.
#[test]
fn lines_that_do_not_end_are_cut_when_together_they_take_too_much_memory() {
    const LEN: usize = 1_000_000;
    let home = Home::new();
    let manager = home.start(&["--tag"], &["speak"]);
    let mut speakers: Vec<_> = (0..80).map(|_| Speaker::new(&home, &manager)).collect();
    for speaker in &mut speakers {
        assert_eq!(speaker.writes(1, &vec![b'x'; LEN]), "done");
    }
    wait_until("pieces of lines", || !fs::read(home.path("stdout")).unwrap().is_empty());
    let peak = peak_memory_kib(manager.recorder().unwrap());
    assert!(peak < 76 << 10, "{peak} KiB");
    speakers.into_iter().for_each(Speaker::ends);
    assert_eq!(manager.interrupted().code, Some(0));
    let printed = fs::read(home.path("stdout")).unwrap();
    let mut lens = BTreeMap::<u64, Vec<usize>>::new();
    for line in printed.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
        let (session, _, _, text) = untagged(line);
        lens.entry(session).or_default().push(text.len());
    }
    assert_eq!(lens.len(), 80);
    assert!(lens.values().all(|pieces| pieces.iter().sum::<usize>() == LEN), "{lens:?}");
    let cut = lens.values().filter(|pieces| pieces.len() > 1).count();
    assert!((1..40).contains(&cut), "{lens:?}");
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

/// What a command about a results folder prints.
fn results(home: &Home, words: &[&str]) -> Vec<u8> {
    let mut command = Command::new(PKTXPMGR);
    let ended = command.args(words).current_dir(home.path("")).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.is_empty(), "{words:?}: {said}");
    ended.stdout
}

/// A run with this layout, and what each of three mlets wrote, the second of which fails. They write by turns.
fn three_sessions(home: &Home, options: &[&str]) -> Manager {
    let options = [&["--out", "results", "--cores", "1"], options].concat();
    let manager = home.start(&options, &["speak"]);
    let mut speakers: Vec<_> = (0..3).map(|_| Speaker::new(home, &manager)).collect();
    for turn in 0..3 {
        for (index, speaker) in speakers.iter_mut().enumerate() {
            let text = format!("{index} out {turn}\0\n");
            assert_eq!(speaker.writes(1, text.as_bytes()), "done");
        }
        assert_eq!(speakers[1].writes(2, b"error "), "done");
    }
    assert_eq!(speakers[2].writes(1, &vec![b'.'; 200_000]), "done");
    // An order that it cannot follow ends it.
    speakers[1].0.send(&message(NDATA, b""));
    assert_eq!(speakers.remove(1).0.read_to_end().1, End::CloseNotify);
    speakers.into_iter().for_each(Speaker::ends);
    manager
}

#[test]
fn both_layouts_are_read_alike() {
    let read = |options: &[&str]| {
        let home = Home::new();
        let manager = three_sessions(&home, options);
        Events::of_results(&home, "results").await_sessions(3);
        assert_eq!(manager.interrupted().code, Some(0));
        let cat =
            |words: &[&str]| results(&home, &[&["results", "cat", "results"], words].concat());
        let outputs = [cat(&[]), cat(&["--stderr"]), cat(&["--outcome", "mlet_failed"])];
        let shown =
            String::from_utf8(results(&home, &["results", "show", "results", "2"])).unwrap();
        results(&home, &["report", "results"]);
        let page = fs::read_to_string(home.path("results/report.html")).unwrap();
        let listed =
            |name: &str| fs::read_dir(home.path("results").join(name)).map_or(0, Iterator::count);
        (outputs, shown, page, listed("sessions"), listed("streams"))
    };
    let (folders, shown, page, sessions, streams) = read(&[]);
    assert_eq!((sessions, streams), (3, 0));
    let turns =
        |index: usize| (0..3).map(|turn| format!("{index} out {turn}\0\n")).collect::<String>();
    let expected = turns(0) + &turns(1) + &turns(2) + &".".repeat(200_000);
    assert!(folders[0] == expected.as_bytes());
    assert!(folders[2].starts_with(turns(1).as_bytes()));
    let (stream, of_stream, page_of_stream, sessions, streams) = read(&["--stream"]);
    assert_eq!((sessions, streams), (0, 1));
    assert!(folders[0] == stream[0] && folders[2] == stream[2]);
    // Behind that a panic tells its thread's number.
    assert!([&folders[1], &stream[1]].iter().all(|text| text.starts_with(b"error error error ")));
    assert_says(&shown, &["results/sessions/000002-", "stdout, 27 bytes"]);
    assert_says(&of_stream, &["results/streams/0001.stream, 27 bytes"]);
    for page in [page, page_of_stream] {
        assert_says(&page, &["1 out 2", "error error error"]);
    }
}

#[test]
fn of_a_stream_only_output_that_is_to_be_kept_is_shown() {
    let home = Home::new();
    let manager = three_sessions(&home, &["--stream", "--keep", "failed"]);
    let sessions = Events::of_results(&home, "results").await_sessions(3);
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(outcomes(&sessions), ["endpoint_closed", "mlet_failed", "endpoint_closed"]);
    assert!(sessions.iter().all(|record| record["output"].is_object()));
    let home = Home::new();
    let manager = home
        .start(&["--stream", "--keep", "failed", "--out", "results", "-n", "1"], &["spew", "10"]);
    home.dial(&manager).session().read_to_end();
    assert_eq!(manager.ends().code, Some(0));
    let record = &Events::of_results(&home, "results").sessions()[0];
    assert_eq!((&record["outcome"], &record["output"]), (&json!("ok"), &json!(null)));
    let home = Home::new();
    let manager = home.start(&["--stream", "--out", "results", "-n", "1"], &["spew", "0"]);
    home.dial(&manager).session().read_to_end();
    assert_eq!(manager.ends().code, Some(0));
    let record = &Events::of_results(&home, "results").sessions()[0];
    assert_eq!(record["output"]["stream"], "streams/0001.stream", "also of one that is silent");
    assert!(results(&home, &["results", "cat", "results"]).is_empty());
}

/// From so many sessions on.
#[test]
fn from_ten_thousand_sessions_on_output_is_kept_in_one_file() {
    for (count, is_stream) in [("9999", false), ("10000", true)] {
        let home = Home::new();
        let manager = home.start(&["--out", "results", "-n", count], &["spew", "10"]);
        home.dial(&manager).session().read_to_end();
        let record = Events::of_results(&home, "results").await_sessions(1).remove(0);
        assert_eq!(record["output"]["stream"].is_string(), is_stream);
        assert_eq!(manager.interrupted().code, Some(0));
    }
}

#[test]
fn a_stream_is_readable_after_the_manager_was_killed_and_the_next_run_has_a_file_of_its_own() {
    let home = Home::new();
    let options = ["--out", "results", "--stream", "--cores", "1"];
    let manager = home.start(&options, &["speak"]);
    let mut done = Speaker::new(&home, &manager);
    assert_eq!(done.writes(1, b"of the first\n"), "done");
    done.ends();
    Events::of_results(&home, "results").await_sessions(1);
    let mut under_way = Speaker::new(&home, &manager);
    assert_eq!(under_way.writes(1, b"without a record"), "done");
    let recorder = manager.recorder().unwrap();
    kill_hard(manager.pid());
    wait_until("the recorder ends by itself", || !is_alive(recorder));
    drop(manager);
    let file = home.path("results/streams/0001.stream");
    let bytes = fs::read(&file).unwrap();
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(holds(b"without a record"), "what it wrote is there");
    // As a power cut leaves it.
    fs::write(&file, [&bytes[..], b"PXFo\0\0"].concat()).unwrap();
    let cat = |words: &[&str]| {
        String::from_utf8(results(&home, &[&["results", "cat", "results"], words].concat()))
            .unwrap()
    };
    assert_eq!(cat(&[]), "of the first\n");
    let manager = home.start(&["--resume", "results", "--stream", "--cores", "1"], &["speak"]);
    let mut again = Speaker::new(&home, &manager);
    assert_eq!(again.writes(1, b"of the second\n"), "done");
    again.ends();
    let sessions = Events::of_results(&home, "results").await_sessions(2);
    assert_eq!(manager.interrupted().code, Some(0));
    let numbers: Vec<_> = sessions.iter().map(|record| record["sid"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 3], "the session that was killed keeps its number");
    assert_eq!(sessions[1]["output"]["stream"], "streams/0002.stream");
    assert_eq!(cat(&[]), "of the first\nof the second\n");
}

#[test]
fn a_full_disk_ends_no_session_and_what_is_kept_is_a_beginning() {
    let home = Home::new();
    for (folder, layout, kept_in) in
        [("folders", &["--max-output", "1m"][..], "sessions"), ("stream", &["--stream"], "streams")]
    {
        disk::mount(&home.path(folder).join(kept_in), "64k");
        // A folder of something else is refused; here no run has come to sessions yet.
        home.write(&format!("{folder}/run.json"), br#"{"v":1,"runs":[]}"#);
        let options = [&["--resume", folder, "--cores", "1"], layout].concat();
        let manager = home.start(&options, &["speak"]);
        let mut first = Speaker::new(&home, &manager);
        assert_eq!(first.writes(1, b"small"), "done");
        assert_eq!(first.writes(1, &vec![b'x'; 100_000]), "done", "it does not notice");
        assert_eq!(first.writes(1, b"more"), "done");
        first.ends();
        manager.says("the mlet's output is not kept whole: No space left on device");
        let record = Events::of_results(&home, folder).await_sessions(1).remove(0);
        let output = &record["output"];
        assert_eq!(
            (&output["stdout_written"], &output["truncated"]),
            (&json!(100_009), &json!(true))
        );
        let kept = output["stdout"].as_u64().unwrap();
        assert!((5..100_000).contains(&kept), "{kept}");
        let shown = results(&home, &["results", "cat", folder]);
        assert_eq!((shown.len() as u64, &shown[..5]), (kept, &b"small"[..]));
        let mut second = Speaker::new(&home, &manager);
        assert_eq!(second.writes(1, b"after"), "done");
        second.ends();
        let sessions = Events::of_results(&home, folder).await_sessions(2);
        assert_eq!(outcomes(&sessions), ["endpoint_closed", "endpoint_closed"]);
        let ended = manager.interrupted();
        assert_eq!(ended.code, Some(74), "{}", ended.stderr);
        if kept_in == "streams" {
            // The piece that found no room was taken away again, so that others have it.
            let shown = results(&home, &["results", "cat", folder]);
            assert_eq!(shown[usize::try_from(kept).unwrap()..], *b"after");
        }
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_gets_no_file_for_each_session() {
    let home = Home::new();
    let streams = home.path("results/streams");
    disk::mount(&streams, "64k");
    let filled = fs::write(streams.join("filler"), vec![0; 100_000]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    home.write("results/run.json", br#"{"v":1,"runs":[]}"#);
    let manager = home.start(&["--resume", "results", "--stream", "-n", "5"], &["speak"]);
    for _ in 0..5 {
        let mut speaker = Speaker::new(&home, &manager);
        assert_eq!(speaker.writes(1, b"text"), "done");
        speaker.ends();
    }
    let ended = manager.ends();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    let left: Vec<_> = streams.read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["filler"]);
}

#[test]
fn the_output_of_the_one_mlet_of_s_is_kept_limited_and_shown() {
    for (options, kept) in [(&[][..], 8), (&["--max-output", "5"], 5)] {
        let home = Home::new();
        home.write("mlet", b"#!/bin/sh\necho one out\necho one err >&2\n");
        home.chmod("mlet", 0o700);
        let mut command = home.command();
        command.args(["-s", "--out", "results"]).args(options).arg("./mlet");
        let ended = Manager::start(&home, command).ends();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(fs::read(home.path("results/mlet/stdout")).unwrap(), b"one out\n"[..kept]);
        assert_eq!(results(&home, &["results", "cat", "results"]), b"one out\n"[..kept]);
        let tagged = results(&home, &["results", "cat", "results", "--stderr", "--tag"]);
        assert!(tagged.starts_with(b"-\t-\t-\tone e"));
        let told = ended.stderr.contains("of the singleton mlet's stdout 5 of 8 bytes are kept");
        assert_eq!(told, kept == 5, "{}", ended.stderr);
    }
}

#[test]
fn options_that_the_recorder_cannot_have_together_are_refused_with_a_reason() {
    let home = Home::new();
    for (options, reason) in [
        (&["-s", "--tag"][..], "-s (--single) and --tag"),
        (&["-s", "--stream", "--out", "results"], "-s (--single) and --stream"),
        (&["--stream"], "--stream needs --out or --resume"),
        (&["--max-output", "1k"], "--max-output needs --out or --resume"),
        (&["--stream", "--out", "results", "--keep", "none"], "--keep none"),
        (&["--max-output", "1", "--out", "results", "--keep", "none"], "--keep none"),
        (&["--tag", "--out", "results", "--events", "-"], "--events - and --tag"),
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
