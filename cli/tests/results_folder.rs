//! `--out`, `--events` and `--joblog`: what a run leaves behind.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use common::disk;
use common::endpoint::{Dial, End, Identity, NDATA, message};
use common::events::{Events, outcomes};
use common::manager::{Manager, kill_hard, wait_until};
use common::{Ended, Home};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use packetlab::key::PrivateKey;
use serde_json::{Value, json};

/// Says who it is on both streams and ends with the code that its session's number is.
const MLET: &[u8] = b"#!/bin/sh
echo \"out $PKTLAB_SESSION $PKTLAB_RUN $PKTLAB_RESULTS\"
echo \"err $PKTLAB_SESSION\" >&2
exit $((PKTLAB_SESSION - 1))
";

/// A manager on one core, so that sessions are numbered as they come, with this mlet.
fn start(home: &Home, options: &[&str]) -> Manager {
    home.write("mlet", MLET);
    home.chmod("mlet", 0o700);
    let mut command = home.command();
    command.args(["--cores", "1"]).args(options).args(["./mlet", "a b"]);
    Manager::start(home, command)
}

/// Sessions of new endpoints, one after another, to their ends.
fn sessions(manager: &Manager, home: &Home, count: usize) -> Vec<String> {
    let keys = (0..count).map(|_| {
        let identity = Identity::of(&home.keys.operator);
        let mut endpoint = Dial::to(manager.address).with(&identity).session();
        assert_eq!(endpoint.read_to_end().1, End::CloseNotify);
        endpoint.close();
        identity.chain[0].subject_key_id.to_string()
    });
    keys.collect()
}

fn read_json(home: &Home, name: &str) -> Value {
    serde_json::from_slice(&fs::read(home.path(name)).unwrap()).unwrap()
}

fn mode(home: &Home, name: &str) -> u32 {
    fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_results_folder_holds_what_each_mlet_wrote_its_record_and_what_ran() {
    let home = Home::new();
    let manager = start(&home, &["-n", "2", "--out", "results", "--note", "for the paper"]);
    let keys = sessions(&manager, &home, 2);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "all output is in the folder");
    let results = fs::canonicalize(home.path("results")).unwrap();
    let events = Events::of_results(&home, "results");
    let (all, of_sessions) = (events.all(), events.sessions());
    let run = all[0]["run"].as_str().unwrap();
    assert!(all.iter().all(|line| line["run"] == run));
    for (index, (record, key)) in of_sessions.iter().zip(&keys).enumerate() {
        let number = index + 1;
        let dir = format!("sessions/{number:06}-{}", &key[..8]);
        let read = |name: &str| {
            assert_eq!(mode(&home, &format!("results/{dir}/{name}")), 0o600);
            fs::read_to_string(results.join(&dir).join(name)).unwrap()
        };
        assert_eq!(read("stdout"), format!("out {number} {run} {}\n", results.display()));
        assert_eq!(read("stderr"), format!("err {number}\n"));
        assert_eq!(&serde_json::from_str::<Value>(&read("session.json")).unwrap(), record);
        assert_eq!((&record["sid"], &record["exit"]), (&json!(number), &json!(index)));
        let (stdout, stderr) = (read("stdout").len(), read("stderr").len());
        let output = json!({
            "dir": dir, "stdout": stdout, "stderr": stderr,
            "stdout_written": stdout, "stderr_written": stderr, "truncated": false,
        });
        assert_eq!(record["output"], output);
    }
    assert_eq!(mode(&home, "results"), 0o700);
    let file = read_json(&home, "results/run.json");
    let of_run = &file["runs"][0];
    assert_eq!(
        (&file["v"], &of_run["run"], &of_run["note"]),
        (&json!(1), &json!(run), &json!("for the paper"))
    );
    assert_eq!(of_run["counts"], json!({ "ok": 1, "mlet_failed": 1 }));
    assert_eq!(all.last().unwrap()["counts"], of_run["counts"]);
    assert_eq!(of_run["mlet"]["path"], "./mlet");
    assert_eq!(of_run["mlet"]["arguments"], json!(["a b"]));
    assert_eq!(of_run["limits"]["setup-timeout"], "30s");
    for digest in [&of_run["mlet"]["sha256"], &of_run["config"]["sha256"]] {
        assert_eq!(digest.as_str().unwrap().len(), 64);
    }
    for known in ["host", "kernel", "started", "ended", "program"] {
        assert!(of_run[known].is_string(), "{known}: {of_run}");
    }
    let command: Vec<_> = of_run["command"].as_array().unwrap().iter().skip(1).collect();
    assert_eq!(command[..2], [&json!("-c"), &json!("xpmgr.conf")]);
}

#[test]
fn only_output_that_is_to_be_kept_stays_and_every_session_has_its_record() {
    for (keep, kept) in [("failed", &["sessions/000002-"][..]), ("none", &[])] {
        let home = Home::new();
        let manager = start(&home, &["-n", "2", "--out", "results", "--keep", keep]);
        let keys = sessions(&manager, &home, 2);
        let ended = manager.ends();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
        let of_sessions = Events::of_results(&home, "results").sessions();
        assert_eq!(outcomes(&of_sessions), ["ok", "mlet_failed"]);
        let dirs = of_sessions.iter().filter_map(|record| record["output"]["dir"].as_str());
        let expected: Vec<_> = kept.iter().map(|dir| format!("{dir}{}", &keys[1][..8])).collect();
        assert_eq!(dirs.collect::<Vec<_>>(), expected);
        let listed = fs::read_dir(home.path("results/sessions")).map_or(0, Iterator::count);
        assert_eq!(listed, kept.len(), "{keep}");
    }
}

fn refusal(home: &Home, options: &[&str]) -> (Option<i32>, String) {
    let mut command = home.command();
    command.args(options).arg("./mlet");
    // It ends by itself: a signal could come before the reason does.
    let Ended { code, stderr, .. } = Manager::spawn(home, command).ends();
    (code, stderr)
}

#[test]
fn a_folder_that_holds_a_run_or_is_written_to_is_left_as_it_is() {
    let home = Home::new();
    let manager = start(&home, &["--out", "results"]);
    let (code, said) = refusal(&home, &["--out", "results"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("another run writes to it"), "{said}");
    assert_eq!(manager.interrupted().code, Some(0));
    let before = read_json(&home, "results/run.json");
    let (code, said) = refusal(&home, &["--out", "results"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("it holds a run already"), "{said}");
    assert_eq!(read_json(&home, "results/run.json"), before);
    home.write("file", b"");
    let (code, said) = refusal(&home, &["--out", "file"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("/file: it is not a folder"), "{said}");
}

/// Or the next try would have to name another one.
#[test]
fn a_run_that_could_not_begin_leaves_no_folder() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = refusal(&home, &["-a", &address, "--out", "results"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(!home.path("results").exists());
    fs::create_dir(home.path("results")).unwrap();
    home.write("results/notes", b"mine");
    let (code, said) = refusal(&home, &["--out", "results"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("it is not empty, and no results folder"), "{said}");
    let left: Vec<_> = fs::read_dir(home.path("results")).unwrap().collect();
    assert_eq!(left.len(), 1, "what is not ours stays: {left:?}");
}

#[test]
fn what_cannot_be_had_together_is_refused_with_the_way_out() {
    let home = Home::new();
    for (options, part) in [
        (&["--events", "-"][..], "needs --out or --resume"),
        (&["--keep", "failed"], "needs --out or --resume"),
        (&["--note", "x"], "--out"),
        (&["--keep", "some", "--out", "results"], "failed"),
    ] {
        let (code, said) = refusal(&home, options);
        assert_eq!(code, Some(2), "{options:?}: {said}");
        assert!(said.contains(part), "{options:?}: {said}");
    }
    assert!(!home.path("results").exists());
}

#[test]
fn records_go_to_standard_output_where_that_is_free_and_to_a_joblog_beside_it() {
    let home = Home::new();
    let options = ["-n", "2", "--out", "results", "--events", "-", "--joblog", "jobs"];
    let manager = start(&home, &options);
    let keys = sessions(&manager, &home, 2);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, fs::read_to_string(home.path("results/events.jsonl")).unwrap());
    let jobs = fs::read_to_string(home.path("jobs")).unwrap();
    let rows: Vec<Vec<&str>> = jobs.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0][..3], ["Seq", "Host", "Starttime"]);
    for (index, (row, key)) in rows[1..].iter().zip(&keys).enumerate() {
        let expected = [&(index + 1).to_string(), "127.0.0.1"];
        assert_eq!(row[..2], expected);
        assert_eq!(row[6..], [&index.to_string(), "0", "./mlet 'a b'", key]);
    }
    assert_eq!(rows.len(), 3);
}

#[test]
fn a_joblog_goes_to_standard_output_too_and_into_no_file_of_something_else() {
    let home = Home::new();
    let manager = start(&home, &["-n", "1", "--out", "results", "--joblog", "-"]);
    let keys = sessions(&manager, &home, 1);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let rows: Vec<_> = ended.stdout.lines().collect();
    assert!(rows[0].starts_with("Seq\t") && rows[1].ends_with(&keys[0]), "{rows:?}");
    assert_eq!((rows.len(), home.path("-").exists()), (2, false));
    home.write("jobs", b"a list of mine\n");
    let said = "--joblog jobs: it holds something else than a joblog; name another file";
    for check in [&[][..], &["--check"]] {
        let options = [&["--out", "other", "--joblog", "jobs"], check].concat();
        let (code, told) = refusal(&home, &options);
        assert_eq!(code, Some(3), "{told}");
        assert!(told.contains(said), "{told}");
    }
    assert_eq!(fs::read(home.path("jobs")).unwrap(), b"a list of mine\n");
    assert!(!home.path("other").exists());
    // Ours, and one of GNU parallel.
    home.write("jobs", b"Seq\tHost\tStarttime\tJobRuntime\n");
    assert!(common::run(home.command().args(["--joblog", "jobs", "./mlet"])).loaded);
}

#[test]
fn output_goes_on_as_in_the_run_before_and_the_log_says_so() {
    let home = Home::new();
    let manager = start(&home, &["-n", "1", "--out", "results", "--stream"]);
    sessions(&manager, &home, 1);
    assert_eq!(manager.ends().code, Some(0));
    let manager = start(&home, &["-n", "2", "--resume", "results"]);
    sessions(&manager, &home, 1);
    let ended = manager.ends();
    let said = "output of mlets: one file for all sessions, as in the run before";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert!(home.path("results/streams/0002.stream").exists());
    assert!(!home.path("results/sessions").exists());
    let file = read_json(&home, "results/run.json");
    assert_eq!(
        (&file["runs"][0]["layout"], &file["runs"][1]["layout"]),
        (&json!("stream"), &json!("stream"))
    );
    let ended = common::run(home.command().args(["-n", "10000", "--out", "many", "./mlet"]));
    let said = "output of mlets: one file for all sessions, as of so many sessions (-n)";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[test]
fn the_one_mlet_of_all_sessions_has_one_folder() {
    let home = Home::new();
    home.write("mlet", b"#!/bin/sh\necho one; echo two >&2; env\n");
    home.chmod("mlet", 0o700);
    let mut command = home.command();
    command.args(["-s", "--out", "results", "./mlet"]);
    let ended = Manager::start(&home, command).ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let read = |name: &str| fs::read_to_string(home.path("results/mlet").join(name)).unwrap();
    // A shell sets PWD and the like itself.
    assert!(read("stdout").starts_with("one\n") && !read("stdout").contains("PKTLAB"));
    assert_eq!(read("stderr"), "two\n");
}

/// Folders of sessions cannot be made where a file of that name is.
#[test]
fn a_mlet_whose_output_finds_no_room_runs_all_the_same_and_the_exit_code_tells() {
    let home = Home::new();
    let manager = start(&home, &["-n", "1", "--out", "results"]);
    home.write("results/sessions", b"");
    sessions(&manager, &home, 1);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert!(ended.stderr.contains("the mlet's output is lost"), "{}", ended.stderr);
    let last = "pktxpmgr: FATAL: records, or output of mlets, are lost: the log tells where";
    assert!(ended.stderr.ends_with(last), "{}", ended.stderr);
    let records = Events::of_results(&home, "results").sessions();
    assert_eq!(outcomes(&records), ["ok"]);
    assert_eq!(records[0]["output"], Value::Null);
}

/// Promise P30, as far as records go: whoever reads them finds all that had been written a second before.
#[test]
fn after_a_kill_the_records_are_there_and_nothing_of_the_run_is_told_that_is_not_true() {
    let home = Home::new();
    let manager = start(&home, &["--out", "results"]);
    sessions(&manager, &home, 2);
    let events = Events::of_results(&home, "results");
    events.await_sessions(2);
    kill_hard(manager.pid());
    wait_until("its end", || !common::manager::is_alive(manager.pid()));
    assert_eq!(outcomes(&events.sessions()), ["ok", "mlet_failed"]);
    assert!(events.all().iter().all(|line| line["ev"] != "run.end"));
    let of_run = &read_json(&home, "results/run.json")["runs"][0];
    assert_eq!((&of_run["ended"], &of_run["counts"]), (&Value::Null, &Value::Null));
}

#[test]
fn of_a_crowd_of_strangers_a_part_has_records_and_the_sums_agree() {
    const STRANGERS: u64 = 400;
    let home = Home::new();
    let manager = start(&home, &["--out", "results"]);
    for _ in 0..STRANGERS {
        Dial::to(manager.address).connect().send_raw(b"no ClientHello of TLS");
    }
    let known = Identity::of(&PrivateKey::generate().unwrap());
    assert_eq!(Dial::to(manager.address).with(&known).refusal(), End::Alert(46));
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let all = Events::of_results(&home, "results").all();
    let mut sums = BTreeMap::<String, u64>::new();
    for line in all.iter().filter(|line| line["outcome"].is_string()) {
        let count = line["count"].as_u64().unwrap_or(1);
        *sums.entry(line["outcome"].as_str().unwrap().to_owned()).or_default() += count;
    }
    assert_eq!(json!(sums), all.last().unwrap()["counts"]);
    assert_eq!(sums.values().sum::<u64>(), STRANGERS + 1);
}

/// Writer and readers are one program, and so is their folder.
#[test]
fn what_a_run_leaves_is_what_the_commands_read() {
    let home = Home::new();
    let manager = start(&home, &["-n", "2", "--out", "results"]);
    let keys = sessions(&manager, &home, 2);
    assert_eq!(manager.ends().code, Some(0));
    let read = |words: &[&str]| {
        let output = home.bare_command().args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = read(&["results", "ls", "results", "--format", "jsonl"]);
    let rows: Vec<Value> = listed.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(outcomes(&rows), ["ok", "mlet_failed"]);
    for (row, key) in rows.iter().zip(&keys) {
        assert_eq!(&row["key"], key);
    }
    assert!(read(&["results", "cat", "results", "--outcome", "ok"]).starts_with("out 1 "));
    assert!(read(&["results", "stats", "results"]).contains("mlet exit code 1"));
    read(&["report", "results"]);
    let page = fs::read_to_string(home.path("results/report.html")).unwrap();
    assert!(keys.iter().all(|key| page.contains(&key[..12])));
}

/// It has a reader, who reads nothing.
#[test]
fn a_pipe_of_records_that_takes_nothing_keeps_none_from_the_folder() {
    let home = Home::new();
    mkfifo(&home.path("fifo"), Mode::S_IRWXU).unwrap();
    let mut options = File::options();
    let unread = options.read(true).custom_flags(O_NONBLOCK).open(home.path("fifo")).unwrap();
    fcntl(&unread, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let options = ["-n", "20", "--out", "results", "--events", "fifo", "--joblog", "jobs"];
    let manager = start(&home, &options);
    sessions(&manager, &home, 20);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert!(ended.stderr.contains("are not in fifo: it takes nothing"), "{}", ended.stderr);
    assert_eq!(Events::of_results(&home, "results").sessions().len(), 20);
    assert_eq!(fs::read_to_string(home.path("jobs")).unwrap().lines().count(), 21);
}

#[test]
fn records_whose_file_is_removed_under_way_are_told_to_be_lost() {
    let home = Home::new();
    let manager = start(&home, &["--out", "results"]);
    sessions(&manager, &home, 1);
    fs::remove_file(home.path("results/events.jsonl")).unwrap();
    sessions(&manager, &home, 1);
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert!(ended.stderr.contains("events.jsonl: the file was removed"), "{}", ended.stderr);
}

#[test]
fn a_limit_of_the_size_of_files_ends_no_run() {
    let home = Home::new();
    home.write("mlet", b"#!/bin/sh\nexit 0\n");
    home.chmod("mlet", 0o700);
    // In blocks of 512 bytes.
    let words = ["-n", "20", "--out", "results", "./mlet"];
    let manager = home.start_behind("ulimit -f 16;", &words);
    sessions(&manager, &home, 20);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert!(ended.stderr.contains("File too large"), "{}", ended.stderr);
}

/// The files of its own are a mlet's descriptors: what it could not write there nobody but the mlet is told.
#[test]
fn output_in_files_of_a_mlets_own_is_in_doubt_when_it_ends_on_a_full_disk() {
    let home = Home::new();
    disk::mount(&home.path("results/sessions"), "8m");
    // A folder of something else is refused; here no run has come to sessions yet.
    home.write("results/run.json", br#"{"v":1,"runs":[]}"#);
    let manager = home.start(&["--resume", "results", "--cores", "1"], &["speak"]);
    let speaks = |len: usize| {
        let mut endpoint = home.dial(&manager).session();
        endpoint.send(&message(NDATA, &vec![b'1'; 1 + len]));
        let told = endpoint.text();
        endpoint.close();
        assert_eq!(endpoint.read_to_end().1, End::CloseNotify);
        told
    };
    assert_eq!(speaks(5), "done");
    let events = Events::of_results(&home, "results");
    let dir = |number: usize| events.await_sessions(number)[number - 1]["output"]["dir"].take();
    assert_eq!(speaks(9 << 20), "No space left on device (os error 28)");
    manager.says("the mlet's output may not be whole: No space left on device");
    let full = home.path("results").join(dir(2).as_str().unwrap());
    fs::remove_dir_all(full).unwrap();
    assert_eq!(speaks(5), "done");
    let records = events.await_sessions(3);
    assert_eq!(outcomes(&records), ["endpoint_closed"; 3]);
    let kept = records.iter().map(|record| {
        let output = &record["output"];
        (output["stdout"].as_u64().unwrap(), output["truncated"].as_bool().unwrap())
    });
    let kept: Vec<_> = kept.collect();
    let [(5, false), (beginning, true), (5, false)] = kept[..] else { panic!("{kept:?}") };
    assert!((6 << 20..=8 << 20).contains(&beginning), "{beginning}");
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("may not be whole").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("not kept whole: of 1 mlet"), "{}", ended.stderr);
}

#[test]
fn a_file_system_that_tells_no_size_is_not_taken_for_full() {
    let home = Home::new();
    disk::mount(&home.path("results"), "0");
    let manager = home.start(&["-n", "1", "--out", "results"], &["print", "1", "10"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(Events::of_results(&home, "results").sessions()[0]["output"]["truncated"], false);
}

/// Two pipes and two files each, in the recorder.
#[test]
fn descriptors_of_the_recorder_count_where_they_are_more_than_a_sessions_own() {
    let home = Home::new();
    for (options, each) in [(&["--max-output", "1m"][..], 4), (&["--stream"], 2), (&[], 2)] {
        let words = [&["-n", "1", "--out", "results"], options, &["/bin/true"]].concat();
        let manager = home.start_behind("ulimit -n 300;", &words);
        manager.says(&format!("({each} of 300 open files each"));
        assert_eq!(manager.interrupted().code, Some(0));
        fs::remove_dir_all(home.path("results")).unwrap();
    }
}
