//! The control socket (`--ctl`) and `pktxpmgr ctl`: what is asked, what is changed, and who may.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use common::endpoint::{End, Endpoint, NDATA, message};
use common::events::{EVENTS, Events, outcomes};
use common::manager::{Manager, children_of, wait_until, zoo};
use common::stalled::Stalled;
use common::{Ended, Home, assert_says};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const CTL: [&str; 2] = ["--ctl", "ctl.sock"];

/// What this request comes to.
fn ask(home: &Home, words: &[&str]) -> Ended {
    let output = home.bare_command().arg("ctl").arg("ctl.sock").args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    common::debug_forms::assert_no_debug_form(&stdout);
    common::debug_forms::assert_no_debug_form(&stderr);
    Ended { code: output.status.code(), loaded: true, stdout, stderr }
}

/// The same, done.
#[track_caller]
fn does(home: &Home, words: &[&str]) -> String {
    let ended = ask(home, words);
    assert_eq!(ended.code, Some(0), "{words:?}: {}", ended.stderr);
    ended.stdout
}

/// The same, refused with these words.
#[track_caller]
fn refuses(home: &Home, words: &[&str], part: &str) {
    let ended = ask(home, words);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{words:?}: {}", ended.stderr);
    assert_says(&ended.stderr, &[part]);
}

/// The rows of a request, without the last line.
fn rows(home: &Home, words: &[&str]) -> Vec<Value> {
    let text = ask(home, &[words, &["--json"]].concat()).stdout;
    let mut rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.pop().unwrap()["done"], true);
    rows
}

/// What was recorded of commands: the words, how they came, and whether they were done.
fn commands(home: &Home) -> Vec<(String, String, bool)> {
    let all = Events::of(home).all().into_iter();
    let commands = all.filter(|record| record["ev"] == "command");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    commands
        .map(|one| (text(&one["command"]), text(&one["via"]), one["done"].as_bool().unwrap()))
        .collect()
}

fn start(home: &Home, kind: &str) -> Manager {
    home.start(&[&CTL[..], &EVENTS, &["--eof-grace", "100ms"]].concat(), &[kind])
}

#[test]
fn what_is_shown_has_columns_and_is_whole_in_json() {
    let home = Home::new();
    let manager = start(&home, "echo");
    let mode = home.path("ctl.sock").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let dial = home.dial(&manager);
    dial.is_served();
    Events::of(&home).await_sessions(1);
    let mut endpoint = dial.session();
    endpoint.echoes(b"here");
    let table = does(&home, &["show", "sessions"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    let [session] = &rows(&home, &["show", "sessions"])[..] else { panic!("one") };
    let key = session["key"].as_str().unwrap();
    assert_eq!(key.len(), 64);
    assert_eq!(session["last_outcome"], Events::of(&home).sessions()[0]["outcome"]);
    assert_says(&table, &[&key[..12], "hello", "127.0.0.1:"]);
    // What it relays is told while it runs, as its record does when it is over.
    let len = message(NDATA, b"here").len();
    assert_eq!((&session["to_ep"], &session["from_ep"]), (&len.into(), &len.into()));
    assert_says(&table, &["to_ep  from_ep", &format!("{len} B")]);
    let mlets = children_of(manager.supervisor());
    assert_eq!(session["pid"].as_i64().unwrap(), i64::from(mlets[0]));
    let stat = rows(&home, &["show"]);
    let value = |name: &str| {
        stat.iter().find(|row| row["name"] == name).map(|row| row["value"].clone()).unwrap()
    };
    assert_eq!(value("state"), "running");
    assert_eq!(value("sessions running"), 1);
    assert_eq!(value("mlets"), 1);
    assert_says(&does(&home, &["show", "limits"]), &["idle-timeout", "handshake-timeout", "10s"]);
    let experiments = does(&home, &["show", "experiments"]);
    assert_says(&experiments, &["snikey", "default", "certificates", "expires", "hello", "yes"]);
    assert!(commands(&home).is_empty(), "who looks changes nothing");
    endpoint.close();
    assert_eq!(manager.interrupted().code, Some(0));
    assert!(!home.path("ctl.sock").exists());
    let ended = ask(&home, &["show"]);
    assert_eq!(ended.code, Some(3));
    assert_says(&ended.stderr, &["ctl.sock", "is it the SOCK of --ctl of a run?"]);
}

#[test]
fn a_run_that_ends_leaves_sockets_alone_that_another_has_made_under_their_names() {
    let home = Home::new();
    let options = [&CTL[..], &["--metrics", "unix:metrics.sock"]].concat();
    let sockets = ["ctl.sock", "metrics.sock"].map(|name| home.path(name));
    let first = home.start(&options, &["echo"]);
    for socket in &sockets {
        fs::remove_file(socket).unwrap();
    }
    let second = home.start(&options, &["echo"]);
    assert_eq!(first.interrupted().code, Some(0));
    assert!(sockets.iter().all(|socket| socket.exists()));
    does(&home, &["show"]);
    assert_eq!(second.interrupted().code, Some(0));
    assert!(!sockets.iter().any(|socket| socket.exists()));
}

/// Asked again and again, so that questions would pile up at it.
#[test]
fn a_shard_that_stands_still_keeps_the_list_waiting_for_no_second_and_its_bytes_are_unknown() {
    let home = Home::new();
    let manager = home.start(&[&CTL[..], &["--cores", "1"]].concat(), &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"here");
    let stalled = Stalled::shard(&manager, 0);
    for _ in 0..3 {
        let asked = Instant::now();
        let [session] = &rows(&home, &["show", "sessions"])[..] else { panic!("one") };
        // Twice of what it may take, on a machine that does much else.
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert!(session["to_ep"].is_null() && session["from_ep"].is_null(), "{session}");
        assert_eq!(session["session"], 1);
    }
    drop(stalled);
    wait_until("its bytes are known again", || {
        rows(&home, &["show", "sessions"])[0]["to_ep"].is_number()
    });
    endpoint.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_session_is_killed_by_number_or_key_and_others_go_on() {
    let home = Home::new();
    let manager = start(&home, "echo");
    assert_eq!(does(&home, &["show", "sessions"]), "none\n");
    let mut endpoints: Vec<_> = (0..3).map(|_| home.dial(&manager).session()).collect();
    endpoints.iter_mut().for_each(|endpoint| endpoint.echoes(b"here"));
    let sessions = rows(&home, &["show", "sessions"]);
    let id = |index: usize| sessions[index]["session"].to_string();
    let (first, second) = (id(0), sessions[1]["key"].as_str().unwrap().to_owned());
    assert_says(&does(&home, &["kill", &first]), &["1 session being ended"]);
    assert_says(&does(&home, &["kill", &second[..12]]), &["1 session being ended"]);
    let events = Events::of(&home);
    let ends = events.await_sessions(2);
    assert_eq!(outcomes(&ends), ["killed", "killed"]);
    assert!(ends.iter().all(|end| end["reason"] == "it was killed (ctl)"), "{ends:?}");
    assert_eq!(ends[0]["sid"].to_string(), first);
    assert_eq!(ends[1]["ep"]["key"], *second);
    let going: Vec<_> = rows(&home, &["show", "sessions"]);
    assert_eq!(going.len(), 1);
    refuses(&home, &["kill", &first], "no session past START is that one's");
    let mut closed = 0;
    for mut endpoint in endpoints {
        endpoint.send(&message(NDATA, b"are you there?"));
        match endpoint.receive() {
            Ok(_) => endpoint.close(),
            Err(_) => closed += 1,
        }
    }
    assert_eq!(closed, 2, "the third goes on");
    assert_eq!(manager.interrupted().code, Some(0));
    let told = commands(&home);
    assert_eq!(told.iter().filter(|(_, via, done)| via == "ctl" && *done).count(), 2);
    assert_eq!(told.len(), 3);
}

#[test]
fn drain_is_a_first_signal_and_stop_a_second() {
    let home = Home::new();
    let manager = start(&home, "echo");
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"here");
    assert_says(&does(&home, &["drain"]), &["no new endpoints; sessions that run: 1"]);
    manager.says("WARN ctl drain: no new endpoints; ");
    manager.says("a second signal ends every session");
    assert_eq!(manager.said("ctl drain"), 1);
    endpoint.echoes(b"it goes on");
    assert_says(&does(&home, &["drain"]), &["already"]);
    refuses(&home, &["reload"], "no new endpoints are served any more");
    assert_says(&does(&home, &["stop"]), &["ending every session and mlet"]);
    manager.says("WARN ctl stop: ending every session and mlet");
    assert_eq!(manager.said("ctl stop"), 1);
    assert_eq!(manager.ends().code, Some(143));
    assert_eq!(outcomes(&Events::of(&home).sessions()), ["killed"]);
    let told = commands(&home);
    let told: Vec<_> = told.iter().map(|(words, _, done)| (&**words, *done)).collect();
    assert_eq!(told, [("drain", true), ("drain", true), ("reload", false), ("stop", true)]);
}

#[test]
fn a_reload_answers_when_it_is_over_and_is_recorded_however_it_came() {
    let home = Home::new();
    let manager = start(&home, "echo");
    assert_says(&does(&home, &["reload"]), &["reloaded for new sessions: 1 experiment"]);
    let good = home.least();
    home.write("xpmgr.conf", b"ExpExec 1:hello\n");
    refuses(&home, &["reload"], "xpmgr.conf:1:");
    refuses(&home, &["reload"], "\n 1 | ExpExec 1:hello\n");
    home.write("xpmgr.conf", good.as_bytes());
    manager.signal(Signal::SIGHUP);
    manager.says_times("reloaded for new sessions", 2);
    home.dial(&manager).is_served();
    let counted = |row: &Value| row["name"].as_str().unwrap().starts_with("reloads ");
    let counts: Vec<_> = rows(&home, &["show"]).into_iter().filter(counted).collect();
    assert_eq!(counts.iter().map(|row| row["value"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(manager.interrupted().code, Some(0));
    let reload = |via: &str, done| ("reload".to_owned(), via.to_owned(), done);
    assert_eq!(
        commands(&home),
        [("ctl", true), ("ctl", false), ("ctl", false), ("signal", true)]
            .map(|(via, done)| reload(via, done))
    );
}

#[test]
fn a_limit_is_set_for_new_sessions_or_refused() {
    let home = Home::new();
    let manager = start(&home, "echo");
    let dial = home.dial(&manager);
    let mut before = dial.session();
    before.echoes(b"before");
    let told = does(&home, &["set", "idle-timeout", "300ms"]);
    assert_eq!(told, "idle-timeout 300ms (was 0)\n");
    let limits = rows(&home, &["show", "limits"]);
    assert!(limits.iter().any(|row| row["limit"] == "idle-timeout" && row["value"] == "300ms"));
    let mut after = dial.session();
    assert_eq!(after.receive(), Err(End::CloseNotify), "it is idle for too long");
    after.close();
    before.echoes(b"and is as it was");
    // A reload keeps it.
    does(&home, &["reload"]);
    let mut later = dial.session();
    assert_eq!(later.receive(), Err(End::CloseNotify));
    later.close();
    refuses(&home, &["set", "linfo-max", "5"], "it takes a new run");
    refuses(&home, &["set", "idle-timeout", "soon"], "soon");
    refuses(&home, &["set", "colour", "red"], "there is no limit 'colour'");
    before.close();
    assert_eq!(manager.interrupted().code, Some(0));
    let ends = Events::of(&home).sessions();
    assert_eq!(outcomes(&ends).iter().filter(|one| **one == "idle_timeout").count(), 2);
}

#[test]
fn more_or_fewer_sessions_at_once_are_let_in_as_far_as_open_files_go() {
    let home = Home::new();
    let manager = home.start(&[&CTL[..], &EVENTS, &["--sessions-max", "1"]].concat(), &["echo"]);
    let dial = home.dial(&manager);
    let waiting = || {
        let mut waiting = dial.connect();
        let hello = waiting.hello();
        waiting.send_raw(&hello);
        waiting.is_silent_for(Duration::from_millis(200));
        waiting
    };
    let is_answered = |waiting: &Endpoint| assert!(waiting.tcp.peek(&mut [0]).unwrap() > 0);
    let mut sessions = vec![dial.session()];
    let second = waiting();
    let told = does(&home, &["set", "sessions-max", "3"]);
    assert_eq!(told, "sessions-max 3 (was 1)\n");
    is_answered(&second);
    drop(second);
    (0..2).for_each(|_| sessions.push(dial.session()));
    let told = does(&home, &["set", "sessions-max", "1"]);
    assert_says(&told, &["sessions-max 1 (was 3); 3 are there and stay, nobody comes until "]);
    // Three stay, and one more waits though one of them has gone.
    sessions.iter_mut().for_each(|session| session.echoes(b"it stays"));
    sessions.pop().unwrap().close();
    let fourth = waiting();
    refuses(
        &home,
        &["set", "sessions-max", "99999999"],
        "--sessions-max 99999999 needs `ulimit -n ",
    );
    does(&home, &["set", "sessions-max", "0"]);
    let in_effect = |limit: &str| {
        let limits = rows(&home, &["show", "limits"]);
        limits.into_iter().find(|row| row["limit"] == limit).unwrap()["in_effect"].as_u64()
    };
    let max = in_effect("sessions-max").unwrap();
    assert!(max > 3);
    assert_eq!(in_effect("sessions-per-key-max"), Some((max / 4).max(16)));
    assert_eq!(in_effect("idle-timeout"), None);
    let stat = rows(&home, &["show"]);
    let limit = stat.iter().find(|row| row["name"] == "sessions at once, limit").unwrap();
    assert_eq!(limit["value"], max);
    is_answered(&fourth);
    drop(fourth);
    sessions.into_iter().for_each(|mut session| session.close());
    assert_eq!(manager.interrupted().code, Some(0));
    let done: Vec<bool> = commands(&home).into_iter().map(|(.., done)| done).collect();
    assert_eq!(done, [true, true, false, true]);
}

#[test]
fn what_can_be_set_is_what_help_and_completions_tell() {
    let home = Home::new();
    let manager = start(&home, "echo");
    let page = ask(&home, &["set", "--help"]).stdout;
    let told: Vec<&str> = page.split([' ', ',', ']', '\n']).collect();
    let limits = rows(&home, &["show", "limits"]);
    assert!(limits.len() > 15);
    for row in limits {
        let limit = row["limit"].as_str().unwrap();
        let is_time = ["timeout", "grace", "pause", "deadline", "drain-limit"];
        let is_time = is_time.iter().any(|end| limit.ends_with(end));
        let value = if is_time { "1h" } else { "77" };
        let code = ask(&home, &["set", limit, value]).code;
        assert_eq!(code == Some(0), told.contains(&limit), "{limit}");
    }
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn limits_of_mlets_and_of_the_run_are_set_for_what_runs_already() {
    let home = Home::new();
    let manager = start(&home, "echo");
    let mut first = home.dial(&manager).session();
    first.echoes(b"it runs");
    does(&home, &["set", "mlet-timeout", "10ms"]);
    assert_eq!(first.receive(), Err(End::CloseNotify), "its mlet has run for so long");
    first.close();
    let events = Events::of(&home);
    assert_eq!(outcomes(&events.await_sessions(1)), ["mlet_timeout"]);
    does(&home, &["set", "mlet-timeout", "0"]);
    let mut second = home.dial(&manager).session();
    second.echoes(b"as long as it likes");
    does(&home, &["set", "eof-grace", "7s"]);
    does(&home, &["drain"]);
    manager.says("a second signal ends every session, 7 s later TERM, 2 s later KILL");
    second.echoes(b"it goes on");
    does(&home, &["set", "drain-limit", "1h"]);
    second.echoes(b"still");
    let told = does(&home, &["set", "drain-limit", "1ms"]);
    assert_says(&told, &["drain-limit 1ms (was 1h), which is over: the run ends now"]);
    assert_eq!(manager.ends().code, Some(124));
    // In the order of their numbers, which shards give.
    let ends = events.sessions();
    let mut ends = outcomes(&ends);
    ends.sort_unstable();
    assert_eq!(ends, ["killed", "mlet_timeout"]);
}

/// It stays at the end of its session, and at TERM.
#[test]
fn graces_that_are_set_hold_for_an_end_that_is_under_way() {
    let home = Home::new();
    let options = [&CTL[..], &EVENTS, &["--eof-grace", "1h", "--term-grace", "1h"]].concat();
    let manager = home.start(&options, &["stubborn"]);
    let dial = home.dial(&manager);
    let mut endpoint = dial.session();
    wait_until("its mlet runs", || !children_of(manager.supervisor()).is_empty());
    does(&home, &["stop"]);
    endpoint.close();
    does(&home, &["set", "eof-grace", "10ms"]);
    does(&home, &["set", "term-grace", "10ms"]);
    assert_eq!(manager.ends().code, Some(143));
}

/// Somebody who has a place at the control socket, and holds it for 10 s after each answer.
struct Holder(BufReader<UnixStream>);

impl Holder {
    /// Of those who find none the last may have gone just before.
    fn connect(home: &Home) -> Self {
        let mut found = None;
        wait_until("a place is free", || {
            let mut holder =
                Self(BufReader::new(UnixStream::connect(home.path("ctl.sock")).unwrap()));
            found = holder.is_answered().then_some(holder);
            found.is_some()
        });
        found.unwrap()
    }

    fn is_answered(&mut self) -> bool {
        // Who is turned away may be told so before anything is asked.
        let _ = writeln!(self.0.get_mut(), "{}", json!({ "words": ["show", "stat"] }));
        let lines = (&mut self.0).lines().map_while(Result::ok);
        let answers = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
        answers.map(|answer| answer["done"].clone()).find(|done| !done.is_null())
            == Some(true.into())
    }
}

/// Eight who hold all places. Who has gone has none.
#[test]
fn who_finds_no_place_is_told_so_and_who_has_gone_holds_none() {
    let home = Home::new();
    let manager = start(&home, "echo");
    let mut holders: Vec<Holder> = (0..7).map(|_| Holder::connect(&home)).collect();
    for _ in 0..10 {
        drop(Holder::connect(&home));
    }
    holders.push(Holder::connect(&home));
    for _ in 0..10 {
        // However slow the machine is, none of them is silent for too long.
        assert!(holders.iter_mut().all(Holder::is_answered));
        refuses(&home, &["show"], "too many are connected; try again");
    }
    drop(holders);
    wait_until("there is room again", || ask(&home, &["show"]).code == Some(0));
    assert_eq!(manager.interrupted().code, Some(0));
}

/// The options do not go together either.
#[test]
fn the_one_mlet_of_all_sessions_gets_no_time_limit() {
    let home = Home::new();
    let manager = home.start(&[&CTL[..], &["-s"]].concat(), &["single", "echo"]);
    refuses(&home, &["set", "mlet-timeout", "5s"], "may run as long as the run does");
    does(&home, &["set", "idle-timeout", "5m"]);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn more_is_logged_from_a_word_on_and_less_from_another() {
    let home = Home::new();
    let manager = start(&home, "echo");
    home.dial(&manager).is_served();
    assert_eq!(manager.said("DEBUG"), 0);
    does(&home, &["loglevel", "debug"]);
    home.dial(&manager).is_served();
    manager.says("DEBUG mlet runs as process ");
    does(&home, &["loglevel", "error"]);
    let before = manager.said(" is ready, ");
    home.dial(&manager).is_served();
    does(&home, &["loglevel", "info"]);
    home.dial(&manager).is_served();
    manager.says_times(" is ready, ", before + 1);
    assert_eq!(manager.interrupted().code, Some(0));
    let words: Vec<_> = commands(&home).into_iter().map(|(words, ..)| words).collect();
    assert_eq!(words, ["loglevel debug", "loglevel error", "loglevel info"]);
}

#[test]
fn a_socket_that_lives_is_not_taken_and_one_that_is_left_behind_is() {
    let home = Home::new();
    let live = UnixListener::bind(home.path("ctl.sock")).unwrap();
    let mut command = home.command();
    command.args(CTL).arg(zoo()).arg("echo");
    let ended = common::run(&mut command);
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert_says(&ended.stderr, &["cannot listen on --ctl ctl.sock: ", "choose another"]);
    drop(live);
    let manager = start(&home, "echo");
    assert_says(&does(&home, &["show"]), &["running"]);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn usage_errors_are_told_before_anybody_is_asked() {
    let home = Home::new();
    assert_says(&ask(&home, &["dance"]).stderr, &["REQUEST is one of show, kill, drain, stop"]);
    for words in [&["help"][..], &["help", "kill"]] {
        let page = ask(&home, words);
        assert_eq!((page.code, &*page.stderr), (Some(0), ""), "{words:?}");
        assert_says(&page.stdout, &["\n  kill ", "End the session of this number"]);
    }
    for words in [&["dance"][..], &["show", "weather"], &["kill"], &["kill", "abc"], &[]] {
        let ended = ask(&home, words);
        assert_eq!(ended.code, Some(2), "{words:?}: {}", ended.stderr);
    }
    assert_says(&ask(&home, &["kill"]).stderr, &["Usage: pktxpmgr ctl <SOCK> kill <ID|KEY>"]);
    // A file of this name is a mlet.
    home.write("ctl", b"#!/bin/sh\n");
    let ended = ask(&home, &["show"]);
    assert_says(&ended.stderr, &["FATAL"]);
}

/// It stays at the end of its session, and so can be killed again.
#[test]
fn who_is_being_ended_is_not_ended_again_and_the_log_has_no_whole_key() {
    let home = Home::new();
    let options = [&CTL[..], &EVENTS, &["--eof-grace", "1h"]].concat();
    let manager = home.start(&options, &["stubborn"]);
    let mut endpoint = home.dial(&manager).session();
    wait_until("its mlet runs", || !children_of(manager.supervisor()).is_empty());
    let key = rows(&home, &["show", "sessions"])[0]["key"].as_str().unwrap().to_owned();
    assert_eq!(does(&home, &["kill", &key]), "1 session being ended\n");
    endpoint.close();
    assert_eq!(does(&home, &["kill", &key]), "it is being ended already\n");
    manager.says(&format!("WARN ctl kill {}: it is being ended already", &key[..12]));
    assert_eq!(manager.said(&key), 0);
    does(&home, &["stop"]);
    does(&home, &["set", "eof-grace", "10ms"]);
    does(&home, &["set", "term-grace", "10ms"]);
    assert_eq!(manager.ends().code, Some(143));
    assert_eq!(commands(&home)[1].0, format!("kill {key}"), "the record has all of it");
}

#[test]
fn whoever_has_a_file_read_again_is_told_what_is_odd_in_it() {
    let home = Home::new();
    let manager = start(&home, "echo");
    let good = home.least();
    home.write("xpmgr.conf", format!("{good}Colour red\n").as_bytes());
    let told = does(&home, &["reload"]);
    assert_says(
        &told,
        &["reloaded for new sessions: 1 experiment", "\nwarning: xpmgr.conf:", "Colour"],
    );
    manager.says("Colour");
    assert_eq!(manager.said("warning: "), 0, "the log has it as a warning of its own");
    assert_eq!(manager.said("Colour"), 1);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Nobody accepts, as with a run that is stopped.
#[test]
fn a_run_that_does_not_answer_is_given_up_in_words() {
    let home = Home::new();
    let _silent = UnixListener::bind(home.path("ctl.sock")).unwrap();
    let began = Instant::now();
    let ended = ask(&home, &["show"]);
    assert_eq!(ended.code, Some(3));
    assert_says(&ended.stderr, &["ctl.sock: the run does not answer (stopped or stalled?)\n"]);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(60), "{took:?}");
}

/// One says nothing, one never ends its line, one asks again and again without reading, and one reads nothing.
#[test]
fn clients_that_stall_or_flood_cost_only_themselves() {
    let home = Home::new();
    let manager = start(&home, "echo");
    let connect = || UnixStream::connect(home.path("ctl.sock")).unwrap();
    let dial = home.dial(&manager);
    let mut endpoint = dial.session();
    let _silent: Vec<UnixStream> = (0..3).map(|_| connect()).collect();
    let mut endless = connect();
    // Long before its time is over.
    endless.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = endless.write_all(&[b'x'; 100_000]);
    let ended = endless.read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(ended, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "a line has a length: {ended:?}"
    );
    let flood = connect();
    flood.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let asks = "{\"words\":[\"show\",\"sessions\"]}\n".repeat(10_000);
    assert!((&flood).write_all(asks.as_bytes()).is_err(), "it is not taken without end");
    for _ in 0..20 {
        endpoint.echoes(b"not disturbed");
        dial.is_served();
    }
    assert_says(&does(&home, &["show"]), &["running"]);
    let mut nonsense = connect();
    nonsense.write_all(b"no json\n{\"words\":[\"show\",\"limits\"]}\n").unwrap();
    let mut lines = BufReader::new(&nonsense).lines();
    assert_says(
        &lines.next().unwrap().unwrap(),
        &["\"done\":false", "a request is a line such as"],
    );
    assert_says(&lines.next().unwrap().unwrap(), &["\"limit\":"]);
    // Whoever says nothing is let go, and makes room.
    let many: Vec<UnixStream> = (0..8).map(|_| connect()).collect();
    let told = |mut stream: &UnixStream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    let texts: Vec<String> = many.iter().map(told).collect();
    assert!(texts.iter().any(|text| text.contains("too many are connected")), "{texts:?}");
    wait_until("there is room again", || ask(&home, &["show"]).code == Some(0));
    endpoint.send(&message(NDATA, b"x"));
    endpoint.receive().unwrap();
    endpoint.close();
    assert_eq!(manager.interrupted().code, Some(0));
}
