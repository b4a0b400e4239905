//! `--latency` and `--latency-sample`: how long the relay takes, in records, in the log and in a file; and `--spin`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::endpoint::{Dial, End, MADE_UP, message};
use common::events::{EVENTS, Events};
use common::manager::{Manager, wait_until};
use common::{Home, assert_says};
use serde_json::Value;

/// Every receive is timed, and times go to this file of the home.
const TIMED: [&str; 4] = ["--latency-sample", "1", "--latency", "relay.hlog"];

/// Plays ping-pong with the zoo's `echo`, and ends the session.
fn echoes(dial: &Dial, times: usize) {
    let mut endpoint = dial.session();
    for _ in 0..times {
        endpoint.send(&message(MADE_UP, b"to and fro"));
        assert_eq!(endpoint.receive().unwrap().0, MADE_UP);
    }
    endpoint.close();
    assert_eq!(endpoint.read_to_end().1, End::CloseNotify);
}

/// Lines of intervals: tag, begin and length in seconds.
fn intervals(log: &str) -> Vec<(&str, f64, f64)> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("Tag="));
    let interval = |line| {
        let columns: Vec<&str> = str::split(line, ',').collect();
        assert!(columns.len() == 5 && columns[4].starts_with("HIST"), "{line}");
        (columns[0], columns[1].parse().unwrap(), columns[2].parse().unwrap())
    };
    lines.map(interval).collect()
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn records_log_and_file_tell_of_every_time_where_one_in_one_is_taken() {
    let home = Home::new();
    let before = seconds_since_1970();
    let manager = home.start(&[&TIMED[..], &EVENTS, &["--cores", "2"]].concat(), &["echo"]);
    let dial = home.dial(&manager);
    (1..=4).for_each(|sessions| echoes(&dial, sessions * 5));
    // The interval in which a time was taken is written within its second.
    let log = || fs::read_to_string(home.path("relay.hlog")).unwrap_or_default();
    wait_until("an interval", || log().contains("\nTag=to_ep,"));
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    let after = seconds_since_1970();
    assert_says(&ended.stderr, &["relay p50/p99/max: to endpoints ", " us, from endpoints "]);
    assert_says(&ended.stderr, &[&format!("written: {}, relay.hlog", EVENTS[1])]);
    let mode = fs::metadata(home.path("relay.hlog")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "as of all records");

    let mut counts = Vec::new();
    for record in Events::of(&home).sessions() {
        let relay = &record["relay_us"];
        for direction in ["to_ep", "from_ep"] {
            let times = &relay[direction];
            let us = ["p50", "p99", "max"].map(|name| times[name].as_f64().unwrap());
            assert!(us[0] >= 1.0 && us.is_sorted() && us[2] < 20e6, "{record}");
            assert_eq!(times["count"], relay["to_ep"]["count"], "{record}");
        }
        counts.push(relay["to_ep"]["count"].as_u64().unwrap());
    }
    counts.sort_unstable();
    assert_eq!(counts, [5, 10, 15, 20]);

    let log = log();
    let intervals = intervals(&log);
    for direction in ["to_ep", "from_ep"] {
        assert!(intervals.iter().any(|(tag, ..)| *tag == direction), "{log}");
    }
    for (_, begun, length) in intervals {
        assert!(before - 0.002 <= begun && begun + length <= after, "{log}");
        assert!(length < 20.0, "{log}");
    }
}

#[test]
fn a_session_that_was_not_chosen_has_no_times_and_neither_has_any_with_0() {
    let home = Home::new();
    let relay_us = |options: &[&str]| {
        let _ = fs::remove_file(home.path(EVENTS[1]));
        let manager = home.start(&[&EVENTS[..], options].concat(), &["echo"]);
        echoes(&home.dial(&manager), 2);
        let ended = manager.interrupted();
        assert_eq!(ended.code, Some(0));
        assert!(!ended.stderr.contains("relay p50"), "{}", ended.stderr);
        Events::of(&home).sessions()[0]["relay_us"].clone()
    };
    assert_eq!(relay_us(&["--latency-sample", "4000000000"]), Value::Null);
    assert_eq!(relay_us(&["--latency-sample", "0"]), Value::Null);
}

/// Neither a disk that is full nor a pipe that nobody reads holds anything up.
#[test]
fn times_that_cannot_be_written_are_told_of_once_and_cost_nothing_else() {
    let home = Home::new();
    let manager = home.start(&["--latency-sample", "1", "--latency", "/dev/full"], &["echo"]);
    let dial = home.dial(&manager);
    echoes(&dial, 3);
    manager.says("relay latency cannot be written to /dev/full: No space left on device");
    echoes(&dial, 3);
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(74));
    assert_eq!(ended.stderr.matches("cannot be written to /dev/full").count(), 1);
    let told = ["intervals of relay latency are not in /dev/full", "2 sessions served"];
    assert_says(&ended.stderr, &told);

    nix::unistd::mkfifo(&home.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Both ways, so that it opens at once; and full.
    let pipe = File::options().read(true).write(true).open(home.path("pipe")).unwrap();
    nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    std::io::Write::write_all(&mut &pipe, &[b'#'; 4096]).unwrap();
    let manager = home.start(&["--latency-sample", "1", "--latency", "pipe"], &["echo"]);
    echoes(&home.dial(&manager), 3);
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(74));
    let told = ["the last relay latency is not in pipe: it takes nothing", "1 session served"];
    assert_says(&ended.stderr, &told);
    drop(pipe);
}

#[test]
fn a_file_that_cannot_be_opened_is_code_3_and_one_for_nothing_is_code_2() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["--latency", "nowhere/relay.hlog", "./mlet"]);
    let ended = Manager::spawn(&home, command).ends();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let told = "FATAL: cannot write relay latency to nowhere/relay.hlog: No such file or directory";
    assert_says(&ended.stderr, &[told, "--latency"]);
    let mut command = home.command();
    command.args(["--latency", "relay.hlog", "--latency-sample", "0", "./mlet"]);
    let ended = common::run(&mut command);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert_says(&ended.stderr, &["--latency-sample 0"]);
    assert!(!home.path("relay.hlog").exists());
}

/// Prints tag, count, longest time, and when each interval began and ended, in milliseconds since 1970.
const READ_LOG: &str = "\
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 3_600_000_000_000, 3))
while True:
    read = reader.get_next_interval_histogram()
    if read is None:
        break
    start, end = read.get_start_time_stamp(), read.get_end_time_stamp()
    print(read.get_tag(), read.get_total_count(), read.get_max_value(), round(start), round(end))
";

#[test]
#[ignore = "needs python3 with hdrhistogram"]
fn pythons_hdrhistogram_takes_the_logs_of_several_runs_in_one_file_whole() {
    const RUNS: usize = 3;
    const ECHOES: usize = 40;
    let home = Home::new();
    let before = seconds_since_1970() * 1e3;
    let mut longest = [0.0_f64; 2];
    for _ in 0..RUNS {
        let manager = home.start(&[&TIMED[..], &EVENTS].concat(), &["echo"]);
        let dial = home.dial(&manager);
        echoes(&dial, ECHOES / 2);
        // So that a run has several intervals.
        let lines = || {
            fs::read_to_string(home.path("relay.hlog"))
                .unwrap_or_default()
                .matches("\nTag=")
                .count()
        };
        let written = lines();
        wait_until("an interval", || lines() > written);
        echoes(&dial, ECHOES / 2);
        assert_eq!(manager.interrupted().code, Some(0));
    }
    let after = seconds_since_1970() * 1e3;
    for record in Events::of(&home).all() {
        for (longest, direction) in longest.iter_mut().zip(["to_ep", "from_ep"]) {
            *longest = longest.max(record["relay_us"][direction]["max"].as_f64().unwrap_or(0.0));
        }
    }
    let interpreter = std::env::var_os("PKTLAB_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(interpreter);
    let read = command.args(["-c", READ_LOG]).arg(home.path("relay.hlog")).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let (mut counts, mut longest_read, mut intervals) = ([0.0; 2], [0.0_f64; 2], 0);
    for line in String::from_utf8(read.stdout).unwrap().lines() {
        let columns: Vec<&str> = line.split(' ').collect();
        let numbers: Vec<f64> = columns[1..].iter().map(|text| text.parse().unwrap()).collect();
        let direction = ["to_ep", "from_ep"].iter().position(|tag| *tag == columns[0]).unwrap();
        counts[direction] += numbers[0];
        longest_read[direction] = longest_read[direction].max(numbers[1]);
        assert!(before - 2.0 <= numbers[2] && numbers[2] <= numbers[3], "{line}");
        assert!(numbers[3] <= after + 2.0, "{line}");
        intervals += 1;
    }
    assert_eq!(counts, [(RUNS * ECHOES) as f64; 2]);
    assert!(intervals >= 2 * RUNS, "{intervals}");
    // Three digits.
    for (read, told) in longest_read.iter().zip(longest) {
        assert!((read / 1e3 - told).abs() <= told / 1000.0, "{read} ns, {told} us");
    }
}

/// `--spin`: a core that has work looks for more before it sleeps, and one that has none sleeps.
#[test]
fn a_core_looks_for_work_for_as_long_as_it_is_told_and_then_sleeps() {
    let enters = |spin: &str| {
        let home = Home::new();
        let options = ["--cores", "1", "--spin", spin];
        let manager = home.start(&[&EVENTS[..], &options].concat(), &["echo"]);
        echoes(&home.dial(&manager), 20);
        Events::of(&home).await_sessions(1);
        let before = manager.cpu_time();
        thread::sleep(Duration::from_millis(500));
        let used = manager.cpu_time() - before;
        assert!(used < Duration::from_millis(100), "{used:?} while there was nothing to do");
        assert_eq!(manager.interrupted().code, Some(0));
        let mut told = Events::of(&home).all();
        told.retain(|record| record["ev"] == "shard.end");
        told[0]["enters"].as_u64().unwrap()
    };
    let (sleeping, spinning) = (enters("0us"), enters("20ms"));
    assert!(spinning > 5 * sleeping, "{spinning} and {sleeping}");
}
