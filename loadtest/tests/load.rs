//! `pktfleet load` as its user sees it: every mode and relay measures something, and says why when not.
//!
//! Not here: how good the figures are.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

#[path = "../../engine/tests/common/debug_forms.rs"]
mod debug_forms;

use std::fs::{File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::openpty;

/// Runs `pktfleet load` for a second with these words; its exit code, JSON and errors.
fn load(words: &[&str]) -> (Option<i32>, String, String) {
    run(&[words, &["--seconds", "1", "--json"]].concat(), Stdio::piped())
}

/// Runs `pktfleet load` with these words; its exit code, what it printed, and errors.
fn run(words: &[&str], stdout: Stdio) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pktfleet"));
    command.arg("load").args(words).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let text = |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        // What other relays say is their own affair.
        let is_ours = |line: &&str| !line.contains(" socat[");
        text.lines().filter(is_ours).for_each(debug_forms::assert_no_debug_form);
        text
    };
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The figure with this key, which must have been measured.
#[track_caller]
fn figure(words: &[&str], name: &str) -> f64 {
    let (code, json, errors) = load(words);
    assert_eq!(code, Some(0), "{words:?}: {errors}");
    value(&json, name).unwrap()
}

/// The figure with this key; `None` if there was nothing to measure.
#[track_caller]
fn value(json: &str, key: &str) -> Option<f64> {
    let told: serde_json::Value = serde_json::from_str(json).unwrap();
    let figure = told["figures"].get(key);
    figure.unwrap_or_else(|| panic!("{key}: {json}")).as_f64()
}

#[test]
fn every_mode_measures_pktxpmgr() {
    assert!(figure(&["short", "--endpoints", "2"], "sessions_per_s") > 0.0);
    assert!(figure(&["storm", "--endpoints", "20"], "answered") == 20.0);
    // One may be of its start, or of a mlet on its way.
    let fds = figure(&["idle", "--endpoints", "20"], "fds_per_session");
    assert!((1.5..=2.5).contains(&fds), "{fds}");
    // Its value depends on who else runs the same program: what they share counts in part.
    assert!(figure(&["idle", "--endpoints", "2"], "pss_per_session_kib").is_finite());
    assert!(figure(&["echo", "--endpoints", "2"], "ring_enters_per_round_trip") > 0.0);
    assert!(figure(&["up", "--endpoints", "1"], "throughput_mb_per_s") > 0.0);
    assert!(figure(&["down", "--endpoints", "1"], "throughput_mb_per_s") > 0.0);
}

/// What a terminal shows of it is gone in the end; elsewhere a run that is soon over tells nothing.
#[test]
fn a_terminal_shows_how_far_a_series_is() {
    let pty = openpty(None, None).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pktfleet"));
    command.args(["load", "short", "--endpoints", "2", "--seconds", "1", "--repeat", "2"]);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(pty.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut screen = File::from(pty.master);
    let (mut shown, mut bytes) = (String::new(), [0; 4096]);
    // The kernel reports the end of the other side as an error.
    while let Ok(len @ 1..) = screen.read(&mut bytes) {
        shown.push_str(str::from_utf8(&bytes[..len]).unwrap());
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{shown}");
    for part in ["\r\x1b[Kload: run 1 of 2, after ", "\r\x1b[Kload: run 2 of 2, after "] {
        assert!(shown.contains(part), "{shown:?}");
    }
    assert!(shown.ends_with("\r\x1b[K") && !shown.contains('\n'), "{shown:?}");
    let (_, _, errors) = load(&["short", "--endpoints", "2"]);
    assert_eq!(errors, "");
}

#[test]
fn a_result_tells_its_parameters_its_programs_and_the_machine() {
    let (code, json, errors) = load(&["echo", "--endpoints", "3", "--size", "77"]);
    assert_eq!(code, Some(0), "{errors}");
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (about, parameters) = (&told["about"], &told["about"]["parameters"]);
    let kernel = |name| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap();
    for (key, name) in [
        ("host", "kernel/hostname"),
        ("kernel", "kernel/osrelease"),
        ("tcp_congestion_control", "net/ipv4/tcp_congestion_control"),
    ] {
        assert_eq!(about[key].as_str().unwrap(), kernel(name).trim_end());
    }
    assert_eq!(about["cores"], engine::sys::cpu::allowed_cores().unwrap().len());
    assert!(about["date"].as_str().unwrap().ends_with('Z'), "{json}");
    assert!(about["program"].as_str().unwrap().starts_with("pktfleet "), "{json}");
    let relay = &about["relay"];
    assert!(relay["version"].as_str().unwrap().starts_with("pktxpmgr "), "{json}");
    assert_eq!(relay["sha256"].as_str().unwrap().len(), 64, "{json}");
    assert_eq!((&parameters["mode"], &parameters["relay"]), (&"echo".into(), &"pktxpmgr".into()));
    let numbers = ["endpoints", "size_bytes", "seconds"].map(|key| parameters[key].as_u64());
    assert_eq!(numbers, [Some(3), Some(77), Some(1)]);
    let keys = told["figures"].as_object().unwrap().keys();
    let is_plain = |key: &&String| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    assert_eq!(keys.filter(|key| !is_plain(key)).count(), 0, "{json}");
    for percentile in ["p50_us", "p99_us", "p99_99_us"] {
        assert!(value(&json, percentile).unwrap() > 0.0, "{json}");
    }
}

#[test]
fn a_table_names_congestion_control_and_placement() {
    let core = engine::sys::cpu::allowed_cores().unwrap()[0];
    let one = core.to_string();
    let words = ["up", "--endpoints", "1", "--seconds", "1", "--mlet-core", &one];
    let (code, table, errors) = run(&words, Stdio::piped());
    assert_eq!(code, Some(0), "{errors}");
    let control = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    assert!(table.contains(&format!("congestion control {}\n", control.trim_end())), "{table}");
    let placement =
        format!("\nplacement: relay on core {core}, endpoints on any, mlets on core {core}\n");
    assert!(table.contains(&placement), "{table}");
}

#[test]
fn runs_that_are_repeated_are_told_each_and_with_their_median() {
    let (code, json, errors) = load(&["short", "--endpoints", "2", "--repeat", "3"]);
    assert_eq!(code, Some(0), "{errors}");
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut runs: Vec<f64> = told["runs"].as_array().unwrap().iter().map(rate).collect();
    runs.sort_by(f64::total_cmp);
    assert_eq!(runs.len(), 3, "{json}");
    let spread = &told["spread"]["sessions_per_s"];
    let [least, median, greatest] = ["least", "median", "greatest"].map(|key| &spread[key]);
    assert_eq!([least, median, greatest].map(|value| value.as_f64().unwrap()), runs[..], "{json}");
}

/// Sessions a second of these figures.
fn rate(figures: &serde_json::Value) -> f64 {
    figures["sessions_per_s"].as_f64().unwrap()
}

/// A pktxpmgr that first tells in `log` which one it is, and how it was called.
fn telling(folder: &Path, name: &str, log: &Path) -> String {
    let pktxpmgr = Path::new(env!("CARGO_BIN_EXE_pktfleet")).with_file_name("pktxpmgr");
    let (path, log) = (folder.join(name), log.display());
    let script =
        format!("#!/bin/sh\necho {name} $* >> {log}\nexec {} \"$@\"\n", pktxpmgr.display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_comparison_runs_both_by_turns_and_tells_the_ratio_of_each_pair() {
    let folder = std::env::temp_dir().join(format!("pktfleet-compare-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let log = folder.join("log");
    let this = telling(&folder, "this", &log);
    let other = telling(&folder, "other", &log) + " --io epoll";
    let words = ["short", "--endpoints", "1", "--repeat", "2", "--itself"];
    let (code, json, errors) =
        load(&[&words[..], &["--pktxpmgr", &this, "--compare", &other]].concat());
    let called = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(code, Some(0), "{errors}");
    let runs: Vec<_> = called.lines().filter(|line| !line.contains("--version")).collect();
    let who: Vec<_> = runs.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(who, ["other", "this", "other", "other", "this", "other"], "{called}");
    for run in runs {
        let expected = run.starts_with("other ");
        assert_eq!(run.contains(" --io epoll -- "), expected, "{run}");
    }
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rounds = told["rounds"].as_array().unwrap();
    let ratios = &told["ratios"]["sessions_per_s"];
    for (round, ratio) in rounds.iter().zip(ratios["pairs"].as_array().unwrap()) {
        let expected = rate(&round["this"]) / rate(&round["other"]);
        assert!((ratio.as_f64().unwrap() - expected).abs() < 1e-9, "{json}");
        assert!(rate(&round["other_again"]) > 0.0, "{json}");
    }
    assert_eq!(rounds.len(), 2, "{json}");
    assert!(ratios["itself"]["greatest"].is_f64() && ratios["is_outside"].is_boolean(), "{json}");
    assert_eq!(told["about"]["other"]["path"], other.split(' ').next().unwrap(), "{json}");
}

#[test]
fn a_comparison_is_a_table_with_a_column_for_each_pair() {
    let pktxpmgr = Path::new(env!("CARGO_BIN_EXE_pktfleet")).with_file_name("pktxpmgr");
    let words = ["short", "--endpoints", "1", "--seconds", "1", "--repeat", "2", "--compare"];
    let (code, table, errors) =
        run(&[&words[..], &[pktxpmgr.to_str().unwrap()]].concat(), Stdio::piped());
    assert_eq!(code, Some(0), "{errors}");
    let heads: Vec<_> = table.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(heads, ["this", "other", "ratio", "1", "ratio", "2", "median"], "{table}");
    let row = table.lines().find(|line| line.starts_with("sessions /s ")).unwrap();
    assert_eq!(row.split_whitespace().count(), 2 + 5, "{table}");
}

#[test]
fn a_ramp_is_an_array_with_a_result_for_each_number_of_endpoints_and_a_picture() {
    let path = std::env::temp_dir().join(format!("pktfleet-plot-{}.svg", std::process::id()));
    let words = ["short", "--ramp", "1,3", "--plot", path.to_str().unwrap()];
    let (code, json, errors) = load(&words);
    assert_eq!(code, Some(0), "{errors}");
    let picture = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("cpu per session"), "{picture}");
    let told: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    for (told, endpoints) in told.iter().zip([1, 3]) {
        assert_eq!(told["figures"]["endpoints"], endpoints, "{json}");
        assert_eq!(told["about"]["parameters"]["endpoints"], endpoints, "{json}");
    }
    assert_eq!(told.len(), 2, "{json}");
}

#[test]
fn a_ramp_of_rates_has_a_result_for_each_and_a_picture_of_times_against_it() {
    let path = std::env::temp_dir().join(format!("pktfleet-plot-rates-{}.svg", std::process::id()));
    let words = ["echo", "--endpoints", "2", "--ramp-rate", "40,80", "--plot"];
    let (code, json, errors) = load(&[&words[..], &[path.to_str().unwrap()]].concat());
    assert_eq!(code, Some(0), "{errors}");
    let picture = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(picture.contains("begun a second") && picture.contains("p99.9"), "{picture}");
    let told: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    for (told, rate) in told.iter().zip([40.0, 80.0]) {
        assert_eq!(told["about"]["parameters"]["rate_per_s"], rate as u32, "{json}");
        assert_eq!(due(&told.to_string(), "round_trips"), rate, "{json}");
    }
    assert_eq!(told.len(), 2, "{json}");
}

#[test]
fn small_sessions_are_measured_alone_and_beside_one_in_bulk_either_way() {
    for bulk in ["up", "down"] {
        let words = ["mix", "--endpoints", "3", "--bulk", bulk, "--rate", "50"];
        let (code, json, errors) = load(&words);
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(value(&json, "endpoints"), Some(3.0), "{json}");
        assert!(value(&json, "bulk_throughput_mb_per_s").unwrap() > 0.0, "{json}");
        for (phase, many) in [("alone", "alone_round_trips"), ("beside", "beside_round_trips")] {
            let not_started = value(&json, &format!("{phase}_not_started")).unwrap();
            assert_eq!(value(&json, many).unwrap() + not_started, 50.0, "{json}");
        }
        let [beside, alone] =
            ["beside_p99_us", "alone_p99_us"].map(|key| value(&json, key).unwrap());
        let ratio = value(&json, "beside_to_alone_p99").unwrap();
        assert!((ratio - beside / alone).abs() < 1e-6, "{json}");
    }
}

#[test]
fn the_way_through_a_proxy_is_measured_beside_the_direct_one() {
    let (code, json, errors) = load(&["through", "--endpoints", "3"]);
    assert_eq!(code, Some(0), "{errors}");
    for key in ["direct_round_trips", "through_round_trips", "proxy_cpu_per_round_trip_us"] {
        assert!(value(&json, key).unwrap() > 0.0, "{json}");
    }
    let [through, direct] =
        ["through_p50_us", "direct_p50_us"].map(|key| value(&json, key).unwrap());
    let ratio = value(&json, "through_to_direct_p50").unwrap();
    assert!((ratio - through / direct).abs() < 1e-6, "{json}");
}

#[test]
fn a_singleton_answers_in_every_session() {
    assert!(figure(&["storm", "--singleton", "--endpoints", "50"], "answered") == 50.0);
}

#[test]
fn what_cannot_be_measured_is_said_and_is_a_failure() {
    let cases: [(&[&str], i32, &str); 32] = [
        (&["up", "--singleton"], 2, "--singleton goes with storm, idle and echo"),
        (&["idle", "--relay", "haproxy"], 2, "this relay cannot be measured in this mode"),
        (&["idle", "--attack", "silent"], 2, "--attack goes with short and echo"),
        (&["echo", "--attack", "broker"], 2, "--attack proxy go with short"),
        (&["echo", "--attack", "linfo", "--endpoints", "1"], 2, "needs two --endpoints"),
        (&["short", "--attack", "silent", "--relay", "tokio"], 2, "--attack goes with pktxpmgr"),
        (&["short", "--attack-rate", "1"], 2, "--attack <KIND>"),
        (&["idle", "--rate", "5"], 2, "--rate and --ramp-rate go with short, echo, mix"),
        (&["short", "--rate", "0"], 2, "0 is not in 1..="),
        (&["up", "--hlog", "/nowhere/log"], 2, "--hlog goes with short, echo, mix and through"),
        (&["echo", "--hlog", "/nowhere/log"], 1, "the result cannot be written: No such file"),
        (&["storm", "--warm-up", "1"], 2, "--warm-up goes without storm and idle"),
        (&["short", "--attack", "silent", "--rate", "5"], 2, "--attack goes without --rate"),
        (&["short", "--itself"], 2, "--compare <COMMAND>"),
        (&["short", "--compare", "/nowhere --io epoll"], 3, "/nowhere cannot be executed"),
        (&["short", "--compare", " "], 2, "--compare names no program"),
        (&["short", "--relay", "socat", "--compare", "x"], 2, "--compare goes with pktxpmgr"),
        (&["short", "--ramp", "2,4", "--endpoints", "3"], 2, "cannot be used with"),
        (&["short", "--repeat", "0"], 2, "0 is not in 1..="),
        (&["short", "--plot", "costs.svg"], 2, "--ramp <N,N>"),
        (&["short", "--ramp", "2,4", "--ramp-rate", "5"], 2, "cannot be used with"),
        (&["short", "--rate", "5", "--ramp-rate", "5"], 2, "cannot be used with"),
        (&["idle", "--ramp-rate", "5"], 2, "--rate and --ramp-rate go with short, echo, mix"),
        (&["up", "--bulk", "up"], 2, "--bulk goes with mix"),
        (&["through", "--relay", "tokio"], 2, "this relay cannot be measured in this mode"),
        (&["short", "--no-such-option"], 2, "--no-such-option"),
        (&["short", "--cores", "1023-1023"], 2, "--cores 1023: there is no such core here"),
        (&["short", "--cores", "1-"], 2, "--cores 1-: there is no such core here"),
        (&["echo", "--size", "16777216"], 2, "16777216 is not in 0..=16777215"),
        (&["short", "--pktxpmgr", "/nowhere"], 3, "/nowhere cannot be executed"),
        (
            &["echo", "--endpoints", "1", "--mlet", "/bin/false"],
            1,
            "a session ended before its time",
        ),
        (&["storm", "--endpoints", "100000000"], 6, "200000064 open files"),
    ];
    for (words, expected, reason) in cases {
        let (code, json, errors) = load(words);
        assert_eq!((code, &*json), (Some(expected), ""), "{words:?}: {errors}");
        assert!(errors.contains(reason), "{errors}");
    }
}

/// What was due in the second that is measured, and what of it was not begun.
fn due(json: &str, many: &str) -> f64 {
    value(json, many).unwrap() + value(json, "not_started").unwrap()
}

#[test]
fn an_open_loop_begins_as_many_as_are_due_and_the_warm_up_is_not_measured() {
    for (mode, many) in [("echo", "round_trips"), ("short", "sessions")] {
        let words = [mode, "--endpoints", "4", "--rate", "40", "--warm-up", "1"];
        let (code, json, errors) = load(&words);
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(due(&json, many), 40.0, "{json}");
        assert!(value(&json, "started_late").is_some(), "{json}");
    }
}

#[test]
fn a_relay_that_cannot_keep_up_with_the_rate_is_seen_in_the_times() {
    let (code, json, errors) = load(&["echo", "--endpoints", "1", "--rate", "500000"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(due(&json, "round_trips"), 500_000.0, "{json}");
    assert!(value(&json, "not_started").unwrap() > 0.0, "{json}");
    assert!(value(&json, "started_late").unwrap() > 0.0, "{json}");
    // Most of the second was waited for one's turn.
    assert!(value(&json, "p99_us").unwrap() > 500_000.0, "{json}");
}

#[test]
fn every_time_is_in_the_log_and_logs_of_several_runs_follow_one_another() {
    let path = std::env::temp_dir().join(format!("pktfleet-load-{}.hlog", std::process::id()));
    let name = path.to_str().unwrap();
    let longest_ms = ["echo", "short"]
        .map(|mode| figure(&[mode, "--endpoints", "2", "--hlog", name], "max_us") / 1e3);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(text.matches("#[StartTime: ").count(), 2, "{text}");
    for (mode, expected) in ["echo", "short"].into_iter().zip(longest_ms) {
        let tag = format!("Tag={mode},");
        let intervals = text.lines().filter_map(|line| line.strip_prefix(&tag));
        let columns: Vec<Vec<&str>> = intervals.map(|line| line.split(',').collect()).collect();
        assert!(!columns.is_empty(), "{text}");
        let starts: Vec<f64> = columns.iter().map(|columns| columns[0].parse().unwrap()).collect();
        assert!(starts.is_sorted() && starts[0] > 1.7e9, "{text}");
        let longest = columns.iter().map(|columns| columns[2].parse::<f64>().unwrap());
        assert!((longest.fold(0.0, f64::max) - expected).abs() < 0.002, "{expected}: {text}");
    }
}

#[test]
fn messages_of_any_length_come_back_within_the_time_that_is_given() {
    let began = Instant::now();
    assert!(figure(&["echo", "--endpoints", "1", "--size", "16777215"], "round_trips") > 0.0);
    // The baseline alone would take minutes if it made all its round trips.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn a_core_that_is_not_there_is_named_with_those_that_are() {
    let allowed = engine::sys::cpu::allowed_cores().unwrap();
    let allowed = allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    for (option, more) in
        [("--own-core", &[][..]), ("--mlet-core", &[]), ("--attack-core", &["--attack", "silent"])]
    {
        let (code, _, errors) = load(&[&["short", option, "1023"], more].concat());
        assert_eq!(code, Some(2), "{errors}");
        let expected = format!(
            "load: {option} 1023: there is no such core here; those to be used are {allowed}\n"
        );
        assert_eq!(errors, expected);
    }
}

#[test]
fn a_run_in_which_nothing_was_measured_fails_and_says_so() {
    for (words, what) in [
        (["short", "--seconds", "0", "--endpoints", "1"], "session"),
        (["echo", "--seconds", "0", "--endpoints", "1"], "round trip"),
        (["up", "--seconds", "0", "--endpoints", "1"], "message"),
        (["down", "--seconds", "0", "--endpoints", "1"], "message"),
        (["idle", "--seconds", "0", "--endpoints", "1"], "idle session"),
        (["mix", "--seconds", "0", "--endpoints", "1"], "round trip"),
        (["mix", "--seconds", "1", "--endpoints", "0"], "round trip"),
        (["through", "--seconds", "0", "--endpoints", "1"], "round trip"),
        (["storm", "--seconds", "1", "--endpoints", "0"], "session"),
        (["short", "--seconds", "1", "--endpoints", "0"], "session"),
        (["echo", "--seconds", "1", "--endpoints", "0"], "round trip"),
    ] {
        let (code, result, errors) = run(&words, Stdio::piped());
        assert_eq!((code, &*result), (Some(1), ""), "{words:?}: {errors}");
        let reason = format!("there is no result, because not one {what} was measured");
        assert!(errors.contains(&reason), "{words:?}: {errors}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure_with_its_reason() {
    let words = ["short", "--endpoints", "1", "--seconds", "1"];
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (code, _, errors) = run(&words, full.into());
    assert_eq!(code, Some(1), "{errors}");
    let reason = "load: the result cannot be written: No space left on device";
    assert!(errors.starts_with(reason), "{errors}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (code, _, errors) = run(&words, writer.into());
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("the result cannot be written: Broken pipe"), "{errors}");
}

#[test]
fn no_program_of_pktfleet_panics_on_a_full_disk_or_takes_it_for_success() {
    let cases: [(&[&str], i32); 4] = [
        (&["--help"], 1),
        (&["load", "--help"], 1),
        (&["--version"], 1),
        (&["demo", "--direct", "--endpoints", "1"], 70),
    ];
    for (words, expected) in cases {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pktfleet"));
        let output = command.args(words).stdout(full()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(expected), "{words:?}: {errors}");
        assert!(errors.contains("No space left on device"), "{words:?}: {errors}");
        // Where even that cannot be told, the exit code tells it.
        let mut command = Command::new(env!("CARGO_BIN_EXE_pktfleet"));
        let status = command.args(words).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(expected), "{words:?}");
    }
}

/// Runs this attack in small beside honest sessions.
#[track_caller]
fn attacked(words: &[&str]) -> String {
    let small = ["--rounds", "1", "--endpoints", "3"];
    let (code, json, errors) = load(&[words, &small[..]].concat());
    assert_eq!(code, Some(0), "{words:?}: {errors}");
    for phase in ["alone", "base"] {
        assert!(value(&json, &format!("{phase}_set_up_p99_us")).unwrap() > 0.0, "{json}");
        assert_eq!(value(&json, &format!("{phase}_set_up_failures")), Some(0.0), "{json}");
    }
    assert!(value(&json, "attack_rss_at_most_mib").unwrap() > 0.0, "{json}");
    // The base is the same attack, but comes to nothing more than connections.
    assert!(value(&json, "base_connections_of_attacker_per_s").unwrap() > 0.0, "{json}");
    assert!(value(&json, "attack_steps_of_attacker_per_s").unwrap() > 0.0, "{json}");
    json
}

#[test]
fn attacks_in_sessions_are_measured_beside_their_base() {
    let linfo = ["echo", "--attack", "linfo", "--attack-count", "2", "--attack-rate", "20"];
    let json = attacked(&linfo);
    assert_eq!(value(&json, "base_steps_of_attacker_per_s"), Some(0.0), "{json}");
    assert!(value(&json, "attack_round_trip_p99_us").unwrap() > 0.0, "{json}");
    // Two endpoints have something logged; how much of it is the manager's affair.
    let log = |phase| value(&json, &format!("{phase}_log_b_per_s")).unwrap();
    assert!(log("attack") > log("alone"), "{json}");
    let unread = attacked(&[&linfo[..], &["--log-unread"]].concat());
    assert_eq!(value(&unread, "attack_log_b_per_s"), Some(0.0));
    for kind in ["keyupdate", "empty"] {
        // 100 messages of each session, which is ended then; it would be 400 a second otherwise.
        let flood = ["echo", "--attack", kind, "--attack-count", "2", "--attack-rate", "200"];
        let json = attacked(&flood);
        assert_eq!(value(&json, "base_steps_of_attacker_per_s"), Some(0.0), "{json}");
        let steps = value(&json, "attack_steps_of_attacker_per_s").unwrap();
        assert!((20.0..300.0).contains(&steps), "{json}");
    }
    let json = attacked(&["short", "--attack", "onekey", "--attack-count", "5"]);
    assert!(value(&json, "attack_fds_at_end").unwrap() > value(&json, "base_fds_at_end").unwrap());
}

#[test]
fn attacks_in_set_ups_are_measured_beside_their_base() {
    let long = ["short", "--attack", "longchain", "--chain-len", "10", "--attack-rate", "20"];
    let json = attacked(&long);
    assert_eq!(value(&json, "base_steps_of_attacker_per_s"), Some(0.0), "{json}");
    for kind in ["half-open", "trickle"] {
        let json = attacked(&["echo", "--attack", kind, "--attack-count", "50"]);
        assert!(value(&json, "attack_round_trip_p50_us").unwrap() > 0.0, "{json}");
        let fds = |name| value(&json, &format!("attack_fds_{name}")).unwrap();
        assert!(fds("at_end") >= fds("before") + 40.0, "{json}");
        assert!(fds("after") < fds("before") + 10.0, "{json}");
    }
    let hello = ["echo", "--attack", "hello", "--attack-count", "20", "--attack-rate", "500"];
    let json = attacked(&hello);
    assert!(value(&json, "attack_steps_of_attacker_per_s").unwrap() > 100.0, "{json}");
    assert_eq!(value(&json, "attack_round_trip_failures"), Some(0.0), "{json}");
    assert!(value(&json, "after_set_up_p99_us").unwrap() > 0.0, "{json}");
}

#[test]
fn attacks_at_a_broker_and_a_proxy_are_measured_beside_their_base() {
    let json = attacked(&["short", "--attack", "broker", "--attack-count", "20"]);
    assert_eq!(value(&json, "base_steps_of_attacker_per_s"), Some(0.0), "{json}");
    let json = attacked(&["short", "--attack", "proxy", "--attack-count", "20"]);
    let served = value(&json, "attack_served_percent").unwrap();
    assert_eq!(served, 100.0, "{json}");
}

#[test]
#[ignore = "needs tokio-relay: cargo build -p bench"]
fn the_relay_on_tokio_is_measured_too() {
    let relay = ["--relay", "tokio", "--endpoints", "2"];
    for (mode, name) in [
        ("short", "sessions_per_s"),
        ("echo", "round_trips_per_s"),
        ("up", "throughput_mb_per_s"),
        ("down", "throughput_mb_per_s"),
    ] {
        assert!(figure(&[&[mode][..], &relay].concat(), name) > 0.0, "{mode}");
    }
}

#[test]
#[ignore = "needs socat and haproxy"]
fn socat_and_haproxy_are_measured_too() {
    let socat = ["short", "--relay", "socat", "--endpoints", "2"];
    assert!(figure(&socat, "sessions_per_s") > 0.0);
    for mode in ["up", "down"] {
        let haproxy = [mode, "--relay", "haproxy", "--endpoints", "1"];
        assert!(figure(&haproxy, "throughput_mb_per_s") > 0.0, "{mode}");
    }
}
