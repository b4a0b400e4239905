//! `--events`: exactly one record of each session, however it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use common::endpoint::{Dial, End, Endpoint, Identity, LINFO, NDATA, START, SUCCESS, message};
use common::events::{EVENTS, Events, outcomes, start};
use common::manager::{Manager, children_of, is_alive, kill_hard, wait_until, zoo};
use common::proxy::Proxy;
use common::{Home, assert_says};
use nix::sys::signal::Signal;
use packetlab::key::PrivateKey;
use serde_json::{Value, json};

/// The same with a mlet `./mlet`, which can be taken away.
fn start_copy(home: &Home, options: &[&str]) -> Manager {
    fs::copy(zoo(), home.path("mlet")).unwrap();
    let mut command = home.command();
    command.args(EVENTS).args(options).args(["./mlet", "obey"]);
    Manager::start(home, command)
}

/// Tells the zoo's `obey` what to do.
fn order(endpoint: &mut Endpoint, order: &str) -> usize {
    let order = message(NDATA, order.as_bytes());
    endpoint.send(&order);
    order.len()
}

/// A session that ends so, by its mlet.
fn ends_so(dial: &Dial, how: &str) {
    let mut endpoint = dial.session();
    order(&mut endpoint, how);
    assert_eq!(endpoint.read_to_end().1, End::CloseNotify, "{how}");
    endpoint.close();
}

/// Sends a ClientHello and waits for the answer: it is in set-up.
fn greeted(dial: &Dial) -> Endpoint {
    let mut endpoint = dial.connect();
    let hello = endpoint.hello();
    endpoint.send_raw(&hello);
    endpoint.tcp.peek(&mut [0]).unwrap();
    endpoint
}

fn milliseconds(record: &Value, phase: &str) -> f64 {
    record["ms"][phase].as_f64().unwrap_or_else(|| panic!("no {phase} in {record}"))
}

#[test]
fn whatever_ends_a_session_it_has_one_record_that_names_its_end() {
    let home = Home::new();
    let manager = start_copy(&home, &["--handshake-timeout", "1s"]);
    let events = Events::of(&home);
    let dial = home.dial(&manager);
    let mut expected = Vec::new();
    let mut is = |outcome: &'static str, exit: Option<i32>, signal: Option<i32>| {
        expected.push((outcome, exit, signal));
        let sessions = events.await_sessions(expected.len());
        assert_eq!(sessions.len(), expected.len(), "{outcome}");
    };
    ends_so(&dial, "exit 0");
    is("ok", Some(0), None);
    ends_so(&dial, "exit 3");
    is("mlet_failed", Some(3), None);
    ends_so(&dial, "signal 9");
    is("mlet_signal", None, Some(9));
    let mut endpoint = dial.session();
    order(&mut endpoint, "say");
    endpoint.receive().unwrap();
    endpoint.reset();
    // At the end of its session it finds no order.
    is("endpoint_reset", Some(65), None);
    let mut endpoint = dial.session();
    endpoint.close();
    assert_eq!(endpoint.read_to_end().1, End::CloseNotify);
    is("endpoint_closed", Some(65), None);
    let stranger = Identity::of(&PrivateKey::generate().unwrap());
    assert_eq!(dial.clone().with(&stranger).refusal(), End::Alert(46));
    is("certificate_refused", None, None);
    assert_eq!(Dial::to(manager.address).refusal(), End::Alert(116));
    is("certificate_refused", None, None);
    assert_eq!(dial.clone().asking(Some("other")).refusal(), End::Fin);
    is("no_experiment", None, None);
    dial.connect().send_raw(b"no ClientHello of TLS");
    is("tls_failed", None, None);
    let mut silent = greeted(&dial);
    is("handshake_timeout", None, None);
    assert!(silent.handshake().is_err());
    let mut endpoint = dial.handshake();
    assert_eq!(endpoint.receive().unwrap().0, START);
    endpoint.send(&[0x40, 0, 0, 2, 0, 1]);
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    drop(endpoint);
    is("start_refused", None, None);
    drop(dial.connect());
    is("endpoint_closed", None, None);
    fs::rename(home.path("mlet"), home.path("away")).unwrap();
    let mut endpoint = dial.session();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    drop(endpoint);
    is("spawn_failed", None, None);
    let _greeted = greeted(&dial);
    assert_eq!(manager.interrupted().code, Some(0));
    expected.push(("drained", None, None));

    let sessions = events.sessions();
    let told: Vec<_> = sessions
        .iter()
        .map(|record| {
            let number = |name| record[name].as_i64().map(|number| number as i32);
            (record["outcome"].as_str().unwrap(), number("exit"), number("signal"))
        })
        .collect();
    // Numbers of sessions are those of their shards: not in the order of time.
    assert_eq!(sorted(told), sorted(expected));
    for record in &sessions {
        assert_eq!(record["reason"].is_null(), record["outcome"] == "ok", "{record}");
    }
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort();
    values
}

#[test]
fn a_record_tells_who_came_and_when_and_exactly_what_passed() {
    let home = Home::new();
    let manager = start(&home, &["-n", "1", "--cores", "1"], &["obey"]);
    let identity = Identity::of(&home.keys.operator);
    let key = identity.key.public_key().key_id().to_string();
    let mut endpoint = Dial::to(manager.address).with(&identity).session();
    let peer = endpoint.tcp.local_addr().unwrap().to_string();
    let mut sent = 0;
    for _ in 0..3 {
        sent += order(&mut endpoint, "say");
        endpoint.receive().unwrap();
    }
    // For the log, and from the endpoint all the same.
    let linfo = message(LINFO, b"hello");
    endpoint.send(&linfo);
    sent += linfo.len() + order(&mut endpoint, "flood 40 5000");
    assert_eq!(endpoint.read_to_end(), (40, End::CloseNotify));
    endpoint.close();
    assert_eq!(manager.ends().code, Some(0));

    let sessions = Events::of(&home).sessions();
    let [record] = &sessions[..] else { panic!("{sessions:?}") };
    assert_eq!(
        record["ep"],
        json!({
            "key": key, "root": home.keys.operator.public_key().key_id().to_string(),
            "snikey": "hello", "peer": peer, "via": "direct", "shown_key": null,
        })
    );
    assert_eq!(record["bytes"], json!({ "to_ep": 3 * 7 + 40 * 5004, "from_ep": sent }));
    assert_eq!(record["msgs"], json!({ "to_ep": 43, "from_ep": 5 }));
    assert_eq!((&record["exit"], &record["linfos_lost"]), (&json!(0), &json!(0)));
    let phases = ["tls", "programs", "start", "spawn"].map(|phase| milliseconds(record, phase));
    let total = milliseconds(record, "total");
    assert!(phases.iter().all(|phase| *phase >= 0.0));
    assert!(phases.iter().sum::<f64>() <= total, "{record}");
    assert!(milliseconds(record, "run") > 0.0);
    let (accepted, written) = (record["accepted"].as_str().unwrap(), record["t"].as_str().unwrap());
    assert!(accepted < written && accepted.len() == written.len(), "{record}");
}

/// Eight endpoints at a time. Each tells its mlet another end and another amount.
#[test]
fn two_hundred_sessions_have_two_hundred_records_and_each_its_own_figures() {
    const COUNT: usize = 200;
    let home = Home::new();
    let manager = start(&home, &[], &["obey"]);
    let dials: Vec<_> = (0..8).map(|_| home.dial(&manager)).collect();
    thread::scope(|scope| {
        for (first, dial) in dials.iter().enumerate() {
            scope.spawn(move || {
                for index in (first..COUNT).step_by(8) {
                    let how = match index % 3 {
                        0 => "exit 0".to_owned(),
                        1 => format!("exit {}", index % 100 + 1),
                        _ => format!("flood {index} 100"),
                    };
                    ends_so(dial, &how);
                }
            });
        }
    });
    let ended = manager.interrupted();
    assert_says(&ended.stderr, &["run over: 200 sessions served, 0 connections failed"]);
    let sessions = Events::of(&home).sessions();
    assert_eq!(sessions.len(), COUNT);
    let mut told: BTreeMap<u64, usize> = BTreeMap::new();
    for record in &sessions {
        let is_ok = record["exit"] == 0;
        assert_eq!(record["outcome"], if is_ok { "ok" } else { "mlet_failed" }, "{record}");
        let messages = record["msgs"]["to_ep"].as_u64().unwrap();
        assert_eq!(record["bytes"]["to_ep"], messages * 104);
        assert_eq!(record["msgs"]["from_ep"], 1);
        *told.entry(messages).or_default() += 1;
    }
    let floods: Vec<u64> = (0..COUNT as u64).filter(|index| index % 3 == 2).collect();
    assert_eq!(told.remove(&0), Some(COUNT - floods.len()));
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), floods);
    // Shards tell how often they entered their rings, and how many sessions they had.
    let mut shards = Events::of(&home).all();
    shards.retain(|record| record["ev"] == "shard.end");
    let sum: u64 = shards.iter().map(|shard| shard["sessions"].as_u64().unwrap()).sum();
    assert_eq!(sum, COUNT as u64);
    assert!(shards.iter().all(|shard| shard["enters"].as_u64() > Some(0)));
}

/// One in set-up, one whose mlet does not go, one whose endpoint takes nothing, one that lingers. The mlets are
/// ended at once by the second signal, and nothing waits for their endpoints.
#[test]
fn a_run_that_is_ended_by_force_leaves_a_record_of_every_session() {
    let home = Home::new();
    let options = ["--eof-grace", "1ms", "--term-grace", "100ms", "--linger-timeout", "1m"];
    let manager = start(&home, &options, &["obey"]);
    let dial = home.dial(&manager);
    let mut quiet = dial.session();
    order(&mut quiet, "silent");
    let mut deaf = dial.session();
    order(&mut deaf, "flood 100 100000");
    let mlets = || children_of(manager.supervisor());
    wait_until("two mlets", || mlets().len() == 2);
    let stranger = Identity::of(&PrivateKey::generate().unwrap());
    let mut refused = dial.clone().with(&stranger).connect();
    assert_eq!(refused.handshake().and_then(|()| refused.receive()), Err(End::Alert(46)));
    let _greeted = greeted(&dial);
    manager.signal(Signal::SIGINT);
    manager.says("no new endpoints; sessions that run");
    manager.signal(Signal::SIGINT);
    assert_eq!(manager.ends().code, Some(130));
    let sessions = Events::of(&home).sessions();
    let told = sorted(outcomes(&sessions));
    assert_eq!(told, ["certificate_refused", "drained", "killed", "killed"]);
}

/// The supervisor takes its mlets with it, whose ends nobody can tell any more.
#[test]
fn sessions_whose_mlets_were_lost_with_the_supervisor_have_a_record_each() {
    let home = Home::new();
    let manager = start(&home, &["--eof-grace", "1ms", "--term-grace", "100ms"], &["obey"]);
    let dial = home.dial(&manager);
    let mut sessions: Vec<_> = (0..3).map(|_| dial.session()).collect();
    let supervisor = manager.supervisor();
    wait_until("three mlets", || children_of(supervisor).len() == 3);
    kill_hard(supervisor);
    sessions.iter_mut().for_each(|session| drop(session.read_to_end()));
    drop(sessions);
    assert_eq!(manager.ends().code, Some(70));
    assert!(!is_alive(supervisor));
    let sessions = Events::of(&home).sessions();
    assert_eq!(sessions.len(), 3);
    for record in sessions {
        assert!(["killed", "internal"].contains(&record["outcome"].as_str().unwrap()), "{record}");
        assert!(record["exit"].is_null() && !record["reason"].is_null(), "{record}");
    }
}

/// The recorder ends with the supervisor, and nobody is left who could tell what a mlet wrote that was never started.
#[test]
fn sessions_that_start_when_the_supervisor_is_gone_have_a_record_and_the_run_ends() {
    // Whether they start before that is noticed or after is the threads' affair: one attempt in four has some after.
    let are_late = (0..100).any(|attempt| {
        let home = Home::new();
        let manager = start(&home, &["--tag", "--cores", "1"], &["obey"]);
        let dial = home.dial(&manager);
        let mut waiting: Vec<_> = (0..10).map(|_| dial.handshake()).collect();
        for endpoint in &mut waiting {
            while endpoint.receive().unwrap().0 != START {}
        }
        manager.signal(Signal::SIGSTOP);
        kill_hard(manager.supervisor());
        let goes_on_first = attempt % 2 == 0;
        if goes_on_first {
            manager.signal(Signal::SIGCONT);
        }
        // Those that are ended already cannot send any more.
        waiting.iter_mut().for_each(|endpoint| drop(endpoint.try_send(&SUCCESS)));
        if !goes_on_first {
            manager.signal(Signal::SIGCONT);
        }
        waiting.iter_mut().for_each(|endpoint| drop(endpoint.read_to_end()));
        drop(waiting);
        let ended = manager.ends();
        assert_eq!(ended.code, Some(70), "{}", ended.stderr);
        assert_eq!(Events::of(&home).sessions().len(), 10, "{}", ended.stderr);
        ended.stderr.contains("the mlet could not be started: its supervisor is gone")
    });
    assert!(are_late, "no START succeeded after the supervisor was gone");
}

#[test]
fn with_one_mlet_for_all_a_record_has_no_exit_code_and_says_which_sessions_it_never_took() {
    let home = Home::new();
    let manager = start(&home, &["-s"], &["single", "echo"]);
    let mut ended_by_endpoint = home.dial(&manager).session();
    ended_by_endpoint.text();
    ended_by_endpoint.close();
    assert_eq!(ended_by_endpoint.receive(), Err(End::CloseNotify));
    let events = Events::of(&home);
    let sessions = events.await_sessions(1);
    assert_eq!(sessions[0]["outcome"], "endpoint_closed");
    assert!(sessions[0]["exit"].is_null() && sessions[0]["ms"]["run"].is_null());
    let mut late = home.dial(&manager).handshake();
    assert_eq!(late.receive(), Ok((START, Vec::new())));
    kill_hard(children_of(manager.supervisor())[0]);
    manager.says("singleton mlet ended");
    late.send(&SUCCESS);
    assert_eq!(late.receive(), Err(End::CloseNotify));
    late.close();
    assert_eq!(manager.ends().code, Some(1));
    let told = events.sessions();
    let told = told.iter().find(|record| record["outcome"] != "endpoint_closed").unwrap();
    assert_eq!(told["outcome"], "spawn_failed");
    assert_eq!(told["reason"], "the one mlet of -s took no more sessions");
}

#[test]
fn behind_a_proxy_the_peer_is_the_proxy_and_a_connection_that_it_drops_is_told() {
    let home = Home::new();
    let mut proxy = Proxy::start(&PrivateKey::generate().unwrap(), true);
    home.write("xpmgr.conf", home.behind_proxy("TargetBacklogConn 1").as_bytes());
    let mut command = home.bare_command();
    command.args(["-c", "xpmgr.conf", "-a", &proxy.address.to_string()]);
    command.args(EVENTS).arg(zoo()).arg("obey");
    let manager = Manager::spawn(&home, command);
    manager.says("backlog filled");
    let dial = Dial::to(proxy.address).with(&Identity::of(&home.keys.operator));
    let mut endpoint = proxy.session(&dial);
    order(&mut endpoint, "exit 0");
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    let events = Events::of(&home);
    let sessions = events.await_sessions(1);
    assert_eq!(sessions[0]["ep"]["via"], "proxy");
    assert_eq!(sessions[0]["ep"]["peer"], proxy.address.to_string());
    assert!(!sessions[0]["ep"]["key"].is_null());
    proxy.holds(1);
    proxy.close_waiting();
    let sessions = events.await_sessions(2);
    let told: Vec<_> = outcomes(&sessions);
    assert_eq!(sorted(told), ["backlog_lost", "ok"]);
    proxy.holds(1);
    assert_eq!(manager.interrupted().code, Some(0));
    // The one that nobody had come on when the run ended is nobody's session.
    assert_eq!(events.sessions().len(), 2);
    proxy.go_down();
}

/// Neither a disk that is full nor a pipe that nobody reads holds anything up.
#[test]
fn records_that_cannot_be_written_are_told_of_once_and_cost_nothing_else() {
    let home = Home::new();
    let manager = home.start(&["--events", "/dev/full"], &["echo"]);
    let dial = home.dial(&manager);
    (0..3).for_each(|_| dial.is_served());
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(74));
    let told = "a record cannot be written to /dev/full: No space left on device";
    assert_eq!(ended.stderr.matches(told).count(), 1, "{}", ended.stderr);
    assert_says(&ended.stderr, &["records are not whole in /dev/full", "3 sessions served"]);
}

#[test]
fn records_are_appended_and_a_file_that_cannot_be_opened_is_code_3() {
    let home = Home::new();
    let before = json!({
        "v": 1, "t": "2024-02-29T00:00:01.000007Z", "ev": "run.start", "run": "00".repeat(8),
        "program": "of yesterday",
    });
    home.write("events.jsonl", format!("{before}\n").as_bytes());
    let manager = start(&home, &[], &["echo"]);
    home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
    let events = Events::of(&home);
    assert_eq!((events.sessions().len(), &events.all()[0]), (1, &before));

    let mut command = home.command();
    command.args(["--events", "nowhere/events", "./mlet"]);
    let ended = Manager::spawn(&home, command).ends();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_says(
        &ended.stderr,
        &["FATAL: cannot write records to nowhere/events: No such file or directory", "--events"],
    );
}
