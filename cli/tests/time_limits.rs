//! What may not last longer: a mlet, a session in which nothing is relayed, a run, and what is left of one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::endpoint::{Dial, End, Endpoint, NDATA, START, SUCCESS, message};
use common::events::{EVENTS, Events, outcomes, start};
use common::manager::{Manager, children_of, is_alive, processes_in, wait_until, zoo};
use common::{Home, assert_says};
use engine::sys::limits::raise_open_files;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A session whose mlet has said that it runs.
fn begun(dial: &Dial) -> Endpoint {
    let mut endpoint = dial.session();
    assert_eq!(endpoint.text(), "try me");
    endpoint
}

/// Tells the zoo's `obey` what to do.
fn order(endpoint: &mut Endpoint, order: &str) {
    endpoint.send(&message(NDATA, order.as_bytes()));
}

/// The one record of the one session, which has ended so.
#[track_caller]
fn only_record(home: &Home, outcome: &str) -> Value {
    let sessions = Events::of(home).await_sessions(1);
    let [record] = &sessions[..] else { panic!("{sessions:?}") };
    assert_eq!(record["outcome"], outcome, "{record}");
    record.clone()
}

fn milliseconds(record: &Value, phase: &str) -> f64 {
    record["ms"][phase].as_f64().unwrap()
}

/// `--mlet-timeout`. Its last words are relayed, and the session ends as with any mlet.
#[test]
fn a_mlet_that_runs_too_long_gets_term_and_may_say_its_last_words() {
    let home = Home::new();
    let options = ["--mlet-timeout", "500ms", "--term-grace", "20s"];
    let manager = start(&home, &options, &["farewell"]);
    let start = Instant::now();
    let mut endpoint = begun(&home.dial(&manager));
    assert_eq!(endpoint.text(), "last words");
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    let record = only_record(&home, "mlet_timeout");
    assert_eq!(record["exit"], 0, "{record}");
    assert_eq!(record["reason"], "the mlet ran too long (--mlet-timeout)");
    let run = milliseconds(&record, "run");
    assert!((500.0..5_000.0).contains(&run), "{run}");
    assert_says(&manager.says("ran too long (--mlet-timeout); ending it"), &["WARN", " pid "]);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_mlet_that_ignores_term_when_it_runs_too_long_is_killed_after_the_grace() {
    let home = Home::new();
    let options = ["--mlet-timeout", "500ms", "--term-grace", "700ms", "--eof-grace", "20s"];
    let manager = start(&home, &options, &["stubborn"]);
    let start = Instant::now();
    let mut endpoint = begun(&home.dial(&manager));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    let took = start.elapsed();
    assert!((1200..3000).contains(&took.as_millis()), "{took:?}");
    endpoint.close();
    assert_eq!(only_record(&home, "mlet_timeout")["signal"], 9);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// The leader heeds TERM, and what it has started does not, and holds the session.
#[test]
fn what_a_mlet_that_ran_too_long_leaves_in_its_group_is_killed_after_the_grace() {
    let home = Home::new();
    let options = ["--mlet-timeout", "500ms", "--term-grace", "500ms"];
    let manager = start(&home, &options, &["family"]);
    let mut endpoint = home.dial(&manager).session();
    let child: i32 = endpoint.text().parse().unwrap();
    let start = Instant::now();
    wait_until("its parent has ended", || children_of(manager.supervisor()) == [child]);
    assert!(is_alive(child));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    wait_until("it is gone as well", || !is_alive(child));
    endpoint.close();
    assert_eq!(only_record(&home, "mlet_timeout")["signal"], 15);
}

/// The manager is stopped until all have run too long. Some heed TERM, some do not.
#[test]
fn two_hundred_mlets_that_run_too_long_at_once_are_all_ended() {
    const COUNT: usize = 200;
    raise_open_files().unwrap();
    for (kind, signal) in [("heedless", 15), ("stubborn", 9)] {
        let home = Home::new();
        let options = ["-v", "--mlet-timeout", "5s", "--term-grace", "300ms", "-n", "200"];
        let manager = start(&home, &options, &[kind]);
        // Each with a key of its own: one may not have all places of `-n` at once.
        let mut endpoints: Vec<Endpoint> =
            (0..COUNT).map(|_| home.dial(&manager).handshake()).collect();
        for endpoint in &mut endpoints {
            assert_eq!(endpoint.receive(), Ok((START, Vec::new())));
        }
        for endpoint in &mut endpoints {
            endpoint.send(&SUCCESS);
        }
        for endpoint in &mut endpoints {
            assert_eq!(endpoint.text(), "try me");
        }
        // Their time runs from when the manager hears that they do.
        manager.says_times("mlet runs as process", COUNT);
        assert_eq!(manager.said("ran too long"), 0, "too slow to be at once");
        manager.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_secs(5));
        assert_eq!(children_of(manager.supervisor()).len(), COUNT);
        manager.signal(Signal::SIGCONT);
        let start = Instant::now();
        for mut endpoint in endpoints {
            assert_eq!(endpoint.receive(), Err(End::CloseNotify));
            endpoint.close();
        }
        // One after another they would take a minute.
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        let ended = manager.ends();
        assert_eq!(ended.code, Some(0));
        assert_says(
            &ended.stderr,
            &["200 sessions served", "mlets by exit code: 0 succeeded, 200 failed"],
        );
        let sessions = Events::of(&home).sessions();
        assert_eq!(outcomes(&sessions), ["mlet_timeout"; COUNT]);
        assert!(sessions.iter().all(|record| record["signal"] == signal));
        assert!(processes_in(&home.path("")).is_empty());
    }
}

/// Some end just before, some just after, some while they are being ended.
#[test]
fn a_mlet_that_ends_as_its_time_is_over_has_one_record_that_fits_its_end() {
    const COUNT: usize = 150;
    raise_open_files().unwrap();
    let home = Home::new();
    let options = ["--mlet-timeout", "400ms", "-n", "150"];
    let manager = start(&home, &options, &["nap", "360", "440"]);
    let dial = home.dial(&manager);
    let endpoints: Vec<Endpoint> = (0..COUNT).map(|_| dial.session()).collect();
    for mut endpoint in endpoints {
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
    }
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    let sessions = Events::of(&home).sessions();
    assert_eq!(sessions.len(), COUNT);
    for record in &sessions {
        let fits = match record["outcome"].as_str().unwrap() {
            "ok" => record["exit"] == 0 && record["reason"].is_null(),
            "mlet_timeout" => milliseconds(record, "run") >= 400.0 || record["exit"] == 0,
            _ => false,
        };
        assert!(fits, "{record}");
    }
    let timed_out = outcomes(&sessions).iter().filter(|kind| **kind == "mlet_timeout").count();
    println!("{timed_out} of {COUNT} ran too long");
    assert!(timed_out > 0 && timed_out < COUNT, "{timed_out} of {COUNT} prove nothing");
    // Also of some whose sessions are over already, and of whose end nothing has been heard.
    let told = ended.stderr.matches("ran too long (--mlet-timeout); ending it").count();
    assert!((timed_out..COUNT).contains(&told), "{told} are told, {timed_out} recorded");
}

/// The end of an endpoint is told when it comes, and names the session whatever becomes of its mlet.
#[test]
fn an_endpoint_that_goes_is_told_of_at_once_and_its_mlet_may_not_run_on_for_ever() {
    let home = Home::new();
    let options = ["--mlet-timeout", "3s", "--term-grace", "200ms", "--linger-timeout", "100ms"];
    let manager = start(&home, &options, &["stubborn"]);
    let mut endpoint = begun(&home.dial(&manager));
    endpoint.close();
    let told = manager.says("the endpoint closed, key ");
    let (_, key) = told.split_once(", key ").unwrap();
    let (key, rest) = key.split_once(';').unwrap();
    assert!(key.len() == 12 && rest.starts_with(" its mlet still runs"), "{told}");
    assert_eq!(manager.said(" over: "), 0, "its mlet has ended");
    assert_eq!(children_of(manager.supervisor()).len(), 1);
    let record = only_record(&home, "endpoint_closed");
    assert!(record["ep"]["key"].as_str().unwrap().starts_with(key), "{record}");
    assert_eq!(record["signal"], 9);
    assert!(milliseconds(&record, "total") < milliseconds(&record, "run"), "{record}");
    assert_eq!(manager.said("the endpoint closed, key "), 1);
}

/// `--idle-timeout`. Others are not idle, as long as a byte passes now and then.
#[test]
fn a_session_in_which_nothing_is_relayed_for_too_long_ends_and_no_other() {
    let home = Home::new();
    let manager = start(&home, &["--idle-timeout", "800ms"], &["obey"]);
    let dial = home.dial(&manager);
    let mut busy = dial.session();
    order(&mut busy, "echo");
    let mut silent = dial.session();
    order(&mut silent, "silent");
    let start = Instant::now();
    silent.tcp.set_nonblocking(true).unwrap();
    while silent.tcp.peek(&mut [0]).is_err() {
        assert!(start.elapsed() < Duration::from_secs(5), "it is not idle");
        busy.echoes(b"not idle");
        thread::sleep(Duration::from_millis(50));
    }
    silent.tcp.set_nonblocking(false).unwrap();
    let took = start.elapsed();
    assert!((700..2000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(silent.receive(), Err(End::CloseNotify));
    silent.close();
    let record = only_record(&home, "idle_timeout");
    assert_eq!(record["reason"], "nothing was relayed for too long (--idle-timeout)");
    assert_eq!(record["exit"], 0, "it has read the end: {record}");
    busy.echoes(b"still here");
    busy.close();
    assert_eq!(busy.receive(), Err(End::CloseNotify));
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(outcomes(&Events::of(&home).sessions()).len(), 2);
}

#[test]
fn the_mlet_of_an_idle_session_that_heeds_neither_the_end_nor_term_is_killed_after_both_graces() {
    let home = Home::new();
    let options = ["--idle-timeout", "400ms", "--eof-grace", "300ms", "--term-grace", "300ms"];
    let manager = start(&home, &options, &["stubborn"]);
    let mut endpoint = begun(&home.dial(&manager));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    let [mlet] = children_of(manager.supervisor())[..] else { panic!("not one mlet") };
    let took = wait_until("it is killed", || !is_alive(mlet));
    assert!((400..2000).contains(&took.as_millis()), "{took:?}");
    let record = only_record(&home, "idle_timeout");
    assert_eq!(record["signal"], 9, "{record}");
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn an_idle_session_of_a_mlet_for_all_ends_alone() {
    let home = Home::new();
    let options = ["-s", "--idle-timeout", "500ms", "--eof-grace", "1ms", "--term-grace", "1ms"];
    let manager = start(&home, &options, &["single", "echo"]);
    let mlets = children_of(manager.supervisor());
    for count in 1..=2 {
        let mut endpoint = home.dial(&manager).session();
        endpoint.text();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
        let sessions = Events::of(&home).await_sessions(count);
        assert_eq!(outcomes(&sessions), vec!["idle_timeout"; count]);
        assert_eq!(children_of(manager.supervisor()), mlets);
    }
    assert_eq!(manager.interrupted().code, Some(0));
}

/// `--deadline`: mlets read the end and finish, and each session has its record.
#[test]
fn a_run_ends_at_its_deadline_with_code_124() {
    let home = Home::new();
    let (start_of_run, options) = (Instant::now(), ["--deadline", "1500ms", "--eof-grace", "20s"]);
    let manager = start(&home, &options, &["gather", "100"]);
    let dial = home.dial(&manager);
    let mut endpoints = [dial.session(), dial.session()];
    for endpoint in &mut endpoints {
        endpoint.send(&message(NDATA, b"result"));
        assert_eq!(endpoint.text(), "gathered");
    }
    assert!(manager.is_running() && manager.said("--deadline") == 0);
    for mut endpoint in endpoints {
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
    }
    let ended = manager.ends();
    assert_eq!(ended.code, Some(124));
    let took = start_of_run.elapsed();
    assert!((1500..4000).contains(&took.as_millis()), "{took:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert_eq!(last, "pktxpmgr: FATAL: ended by force at its --deadline");
    assert_says(
        &ended.stderr,
        &["gathered 1 messages", "mlets by exit code: 2 succeeded, 0 failed"],
    );
    let sessions = Events::of(&home).sessions();
    assert_eq!(outcomes(&sessions), ["deadline"; 2]);
    assert_eq!(sessions[0]["reason"], "the run was ended by force at its --deadline");
    assert!(processes_in(&home.path("")).is_empty());
}

#[test]
fn a_deadline_ends_runs_that_nobody_has_come_to_that_drain_and_whose_mlets_heed_nothing() {
    let graces = ["--eof-grace", "200ms", "--term-grace", "200ms"];
    // Nobody has come.
    let home = Home::new();
    assert_eq!(home.start(&["--deadline", "300ms"], &["echo"]).ends().code, Some(124));
    // One signal has, and mlets that heed neither the end nor TERM are waited for.
    let home = Home::new();
    let manager = start(&home, &[&graces[..], &["--deadline", "1s"]].concat(), &["stubborn"]);
    let _endpoint = begun(&home.dial(&manager));
    manager.signal(Signal::SIGINT);
    manager.says("no new endpoints");
    let ended = manager.ends();
    assert_eq!(ended.code, Some(124), "{}", ended.stderr);
    assert_eq!(only_record(&home, "deadline")["signal"], 9);
    assert!(processes_in(&home.path("")).is_empty());
    // The one mlet of all sessions, while the run goes on and when only that mlet is left.
    for drains in [false, true] {
        let home = Home::new();
        let options = [&graces[..], &["-s", "--deadline", "1s"]].concat();
        let manager = home.start(&options, &["single", "deaf"]);
        manager.says("zoo: deaf");
        if drains {
            manager.signal(Signal::SIGINT);
            manager.await_end_of_shards();
        }
        let ended = manager.ends();
        assert_eq!(ended.code, Some(124), "{}", ended.stderr);
        assert_says(&ended.stderr, &["singleton mlet ended: signal 9"]);
        assert!(processes_in(&home.path("")).is_empty());
    }
}

/// `--drain-limit` counts from a first signal, or when all attempts of `-n` are made (promise P23).
#[test]
fn what_still_runs_when_a_run_has_drained_for_too_long_is_ended_by_force() {
    let limits = ["--drain-limit", "800ms", "--eof-grace", "200ms", "--term-grace", "200ms"];
    for is_counted in [false, true] {
        let home = Home::new();
        let count: &[&str] = if is_counted { &["-n", "1"] } else { &[] };
        let manager = start(&home, &[&limits[..], count].concat(), &["stubborn"]);
        let begin = Instant::now();
        let _endpoint = begun(&home.dial(&manager));
        let start = if is_counted {
            manager.says("all attempts of -n are made");
            begin
        } else {
            // No limit of it runs yet.
            thread::sleep(Duration::from_millis(1500));
            assert!(manager.is_running() && manager.said("--drain-limit") == 0);
            let start = Instant::now();
            manager.signal(Signal::SIGTERM);
            start
        };
        let ended = manager.ends();
        assert_eq!(ended.code, Some(124), "{}", ended.stderr);
        let took = start.elapsed();
        assert!((1200..2500).contains(&took.as_millis()), "{took:?}");
        let record = only_record(&home, "killed");
        assert_eq!(record["reason"], "the run was ended by force at its --drain-limit");
        assert!(processes_in(&home.path("")).is_empty());
    }
}

#[test]
fn a_run_that_ends_within_its_limits_ends_well() {
    let home = Home::new();
    let limits = ["--deadline", "1h", "--drain-limit", "1h", "--mlet-timeout", "1h"];
    let manager = start(&home, &[&limits[..], &["--idle-timeout", "1h"]].concat(), &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"before");
    manager.signal(Signal::SIGINT);
    manager.says("no new endpoints");
    endpoint.echoes(b"after");
    endpoint.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    only_record(&home, "endpoint_closed");
}

/// Of the codes that apply the first is given: 70, 130 or 143, 124, 1.
#[test]
fn whoever_ends_a_run_by_force_first_gives_its_code_and_a_defect_goes_before() {
    let graces = ["--eof-grace", "10s", "--term-grace", "10s"];
    let stubborn = |deadline: &str| {
        let home = Home::new();
        let options = [&EVENTS[..], &graces[..], &["--deadline", deadline]].concat();
        let manager = home.start(&options, &["stubborn"]);
        home.dial(&manager).session().receive().unwrap();
        (home, manager)
    };
    // The deadline passes while a second signal ends the run.
    let (_home, manager) = stubborn("1500ms");
    manager.signal(Signal::SIGINT);
    manager.says("no new endpoints");
    manager.signal(Signal::SIGINT);
    manager.says("second signal, ");
    thread::sleep(Duration::from_millis(1500));
    assert!(manager.is_running(), "nothing has ended its mlet");
    manager.signal(Signal::SIGINT);
    assert_eq!(manager.ends().code, Some(130));
    // A signal comes while the deadline ends it.
    let (_home, manager) = stubborn("1s");
    manager.says("the --deadline of the run");
    manager.signal(Signal::SIGINT);
    manager.says("one more signal, SIGINT: killing every mlet");
    assert_eq!(manager.ends().code, Some(124));
    // The supervisor was lost before.
    let home = Home::new();
    let options = ["--eof-grace", "1ms", "--term-grace", "100ms", "--deadline", "1s"];
    let mut command = home.command();
    command.args(options).arg("-s").arg(zoo()).args(["single", "speak"]);
    let manager = Manager::start(&home, command);
    let _endpoint = home.dial(&manager).session();
    manager.says("wrote on its control socket");
    let ended = manager.ends();
    assert_eq!(ended.code, Some(70), "{}", ended.stderr);
    assert_says(&ended.stderr, &["the --deadline of the run"]);
}

/// Nobody could say of which session it would be.
#[test]
fn a_mlet_of_all_sessions_has_no_mlet_timeout() {
    let home = Home::new();
    let ended = Manager::spawn(&home, {
        let mut command = home.command();
        command.args(["-s", "--mlet-timeout", "1s"]).arg(zoo()).args(["single", "echo"]);
        command
    })
    .ends();
    assert_eq!(ended.code, Some(2));
    assert_says(&ended.stderr, &["--mlet-timeout", "do not go together", "--single"]);
}
