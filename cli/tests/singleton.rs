//! Singleton mode (`-s`): one mlet for all sessions, each handed over on its control socket.
//!
//! Item 103, with the original's own mlet, needs its C library; the zoo's `single` kinds do byte for
//! byte what its receiver does (spec/pktxpmgr.md 7.6).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::endpoint::{Dial, End, Endpoint, Identity, NDATA, START, SUCCESS, message};
use common::manager::{Manager, children_of, wait_until, zoo};
use common::{Home, PKTXPMGR, assert_says, run};
use engine::sys::limits::raise_open_files;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

/// A session, and what the mlet says was handed over for it.
fn introduced(dial: &Dial) -> (Endpoint, String) {
    let mut endpoint = dial.session();
    let handed = endpoint.text();
    (endpoint, handed)
}

/// Items 97, 98, 101.
#[test]
fn one_mlet_gets_every_session_as_address_nul_and_one_descriptor() {
    let home = Home::new();
    let manager = home.start(&["-s"], &["single", "echo"]);
    manager.says("zoo: singleton with 0 variables");
    // It runs before anybody can connect.
    let (spawned, listening) = (manager.says("singleton mlet runs as"), manager.says("listening"));
    assert!(spawned < listening, "log lines begin with their time");
    let mlets = children_of(manager.supervisor());
    assert_eq!(mlets.len(), 1);
    assert_eq!(control_sockets(mlets[0]), 1, "fd 0 and nothing but the streams");
    let dial = home.dial(&manager);
    let mut sessions: Vec<Endpoint> = Vec::new();
    for index in 0..3 {
        let (endpoint, handed) = introduced(&dial.clone().from(index + 1));
        assert_eq!(
            handed,
            format!("index {index}\ntext 127.0.0.{}\\x00\nfds 1\nblocking true\n", index + 1)
        );
        sessions.push(endpoint);
    }
    for endpoint in sessions.iter_mut().rev() {
        endpoint.echoes(b"side by side");
    }
    assert_eq!(children_of(manager.supervisor()), mlets, "still one mlet");
    for mut endpoint in sessions {
        endpoint.close();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    }
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    assert_says(
        &ended.stderr,
        &[
            "zoo: control socket at its end",
            "singleton mlet ended: exit code 0",
            "3 sessions served",
        ],
    );
}

/// The form of `--single-facts`; that of the original is what the test above reads, without it.
#[test]
fn a_mlet_that_asks_for_all_facts_gets_address_session_key_and_snikey() {
    let home = Home::new();
    let manager = home.start(&["-s", "--single-facts"], &["single", "echo"]);
    let identity = Identity::of(&home.keys.operator);
    let key = identity.chain[0].subject_key_id;
    let (mut endpoint, handed) = introduced(&Dial::to(manager.address).with(&identity));
    let ready = manager.says("is ready");
    let session = ready.rsplit_once("session=").unwrap().1;
    let text = format!("127.0.0.1 {session} {key} hello\\x00");
    assert_eq!(handed, format!("index 0\ntext {text}\nfds 1\nblocking true\n"));
    endpoint.echoes(b"still one descriptor");
}

/// Sockets that a process has open; asserts that it has no descriptor beyond 2.
fn control_sockets(pid: i32) -> usize {
    let fds: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().collect();
    assert_eq!(fds.len(), 3, "{fds:?}");
    let targets = fds.iter().filter_map(|fd| fs::read_link(fd.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Item 98: first come, first served (the original was last in, first out), also when more sessions
/// wait than the control socket holds. Item 94: a thousand sessions with more than 1,024 descriptors.
#[test]
fn sessions_are_handed_over_in_the_order_of_their_start() {
    const COUNT: usize = 1_000;
    raise_open_files().unwrap();
    let home = Home::new();
    let manager = home.start(&["-s", "--cores", "1"], &["single", "late"]);
    let sockets = manager.open_sockets();
    let dial = home.dial(&manager);
    let (mut first, _) = introduced(&dial);
    let mut waiting: Vec<Endpoint> = (1..COUNT).map(|_| dial.session()).collect();
    manager.says_times("is ready", COUNT);
    let kept = manager.open_sockets() - sockets - 2 * COUNT;
    assert!(kept > 0, "the control socket held them all, which proves nothing");
    first.send(&message(NDATA, b"go on"));
    for (index, endpoint) in waiting.iter_mut().enumerate() {
        let handed = endpoint.text();
        assert!(handed.starts_with(&format!("index {}\n", index + 1)), "{index}: {handed}");
    }
    assert!(manager.open_fds() > 1024, "{}", manager.open_fds());
    for endpoint in &mut waiting {
        endpoint.echoes(b"all are there");
    }
}

/// Items 99, 101.
#[test]
fn a_mlet_that_closes_its_control_socket_ends_the_run_when_its_sessions_end() {
    let home = Home::new();
    let manager = home.start(&["-s"], &["single", "leave", "2"]);
    let dial = home.dial(&manager);
    let (mut first, _) = introduced(&dial);
    let (mut second, _) = introduced(&dial);
    manager.says("closed its control socket");
    wait_until("connections are refused", || dial.try_connect().is_err());
    first.echoes(b"still served");
    second.echoes(b"still served");
    assert!(manager.is_running());
    for mut endpoint in [first, second] {
        endpoint.close();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    }
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["2 sessions served", "singleton mlet ended: exit code 0"]);
}

/// Item 99: the same when it is killed, with sessions that it never took; but then the run has not ended well.
#[test]
fn sessions_that_the_mlet_never_took_are_closed_when_it_exits() {
    let home = Home::new();
    let manager = home.start(&["-s"], &["single", "late"]);
    let dial = home.dial(&manager);
    let (mut first, _) = introduced(&dial);
    let mut never = dial.session();
    manager.says_times("is ready", 2);
    let mlet = children_of(manager.supervisor())[0];
    common::manager::kill_hard(mlet);
    assert_eq!(first.receive(), Err(End::CloseNotify));
    assert_eq!(never.receive(), Err(End::CloseNotify));
    drop((first, never));
    let ended = manager.ends();
    assert_eq!(ended.code, Some(1));
    assert_says(&ended.stderr, &["singleton mlet ended: signal 9", "2 sessions served"]);
}

/// START is answered when the mlet is gone: its program must not be run again, as a mlet of this session alone.
#[test]
fn a_session_that_starts_after_the_singleton_has_ended_is_closed_without_a_mlet() {
    let home = Home::new();
    let manager = home.start(&["-s"], &["single", "echo"]);
    manager.says("zoo: singleton");
    let mut endpoint = home.dial(&manager).handshake();
    assert_eq!(endpoint.receive(), Ok((START, Vec::new())));
    common::manager::kill_hard(children_of(manager.supervisor())[0]);
    manager.says("singleton mlet ended");
    endpoint.send(&SUCCESS);
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(1));
    assert_says(&ended.stderr, &["1 session served"]);
    assert!(!ended.stderr.contains("mlets by exit code"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("zoo: singleton").count(), 1);
}

/// A mlet that ends by itself at once, and one that serves to the end and then fails: scripts must see it.
#[test]
fn a_singleton_that_fails_is_code_1() {
    let home = Home::new();
    let ended = Manager::spawn(&home, singleton(&home, &["exit", "1"])).ends();
    assert_eq!(ended.code, Some(1));
    let failed = "pktxpmgr: FATAL: the singleton mlet failed: exit code 1;";
    assert_says(ended.stderr.lines().last().unwrap(), &[failed]);

    let manager = home.start(&["-s", "-n", "1"], &["single", "fail"]);
    home.dial(&manager).session().close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(1));
    assert_says(&ended.stderr, &["zoo: control socket at its end", failed]);
}

#[test]
fn a_singleton_that_wants_no_session_and_succeeds_is_code_0() {
    let home = Home::new();
    let ended = Manager::spawn(&home, singleton(&home, &["exit", "0"])).ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

fn singleton(home: &Home, words: &[&str]) -> Command {
    let mut command = home.command();
    command.arg("-s").arg(zoo()).arg("single").args(words);
    command
}

/// Item 100, with the code of operating.md "Exit codes".
#[test]
fn a_byte_on_the_control_socket_is_code_70() {
    let home = Home::new();
    let manager = home.start(&["-s"], &["single", "speak"]);
    let (mut endpoint, _) = introduced(&home.dial(&manager));
    manager.says("wrote on its control socket");
    // What follows is for who started a mlet of the other kind.
    endpoint.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(70));
    let last = ended.stderr.lines().last().unwrap();
    assert_says(
        last,
        &["pktxpmgr: FATAL: ", "control socket", "not made for -s", "mlet-single MLET"],
    );
}

/// Item 102. What can be seen of its file is told before (`mlets.rs`), so it is changed while the passphrase is awaited.
#[test]
fn a_singleton_that_cannot_be_started_is_code_4() {
    let home = Home::new();
    let config = home.least().replace("Path xc", "Path enc");
    home.write("xpmgr.conf", config.as_bytes());
    mkfifo(&home.path("passphrase"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    for (mlet, expected) in [
        (
            "#!/nowhere/interpreter\n",
            "No such file or directory (os error 2); the interpreter /nowhere/interpreter of its",
        ),
        ("echo no first line\n", "Exec format error (os error 8); a script needs a first line"),
    ] {
        home.write("mlet", b"#!/bin/sh\n");
        let mut command = home.command();
        command.args(["-s", "--passphrase-file", "passphrase", "./mlet"]);
        let manager = Manager::spawn(&home, command);
        let mut fifo = home.await_reader("passphrase");
        home.write("mlet", mlet.as_bytes());
        fifo.write_all(b"hunter2\n").unwrap();
        drop(fifo);
        let ended = manager.ends();
        assert_eq!(ended.code, Some(4), "{}", ended.stderr);
        let said = "FATAL: the singleton mlet could not be started: ./mlet: ";
        assert_says(&ended.stderr, &[said, expected]);
        assert!(!ended.stderr.contains("listening on"), "nobody was let in");
    }
}

/// It says so by its end alone: of what it does with a control socket nothing can be seen before. One that has served is
/// made for it.
#[test]
fn a_singleton_that_ends_before_any_session_is_told_what_it_lacks() {
    let home = Home::new();
    let hint = ["it served nobody: a mlet that is not made for -s ", "`-s mlet-single MLET`"];
    for (script, code) in [("exit 0", 0), ("exit 3", 1)] {
        home.write("mlet", format!("#!/bin/sh\n{script}\n").as_bytes());
        let mut command = home.command();
        command.args(["-s", "./mlet"]);
        let ended = Manager::spawn(&home, command).ends();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_says(&ended.stderr, &hint);
    }
    let manager = home.start(&["-s"], &["single", "echo"]);
    let mlet = children_of(manager.supervisor())[0];
    introduced(&home.dial(&manager)).0.echoes(b"served");
    kill(Pid::from_raw(mlet), Signal::SIGKILL).unwrap();
    let ended = manager.ends();
    assert_says(&ended.stderr, &["the singleton mlet closed its control socket"]);
    assert!(!ended.stderr.contains("it served nobody"), "{}", ended.stderr);
}

/// Item 92 in singleton mode: the mlet is told the end when the counted sessions have ended.
#[test]
fn a_count_ends_the_run_in_singleton_mode_too() {
    let home = Home::new();
    let manager = home.start(&["-s", "-n", "2"], &["single", "echo"]);
    let dial = home.dial(&manager);
    for _ in 0..2 {
        let (mut endpoint, _) = introduced(&dial);
        endpoint.echoes(b"served");
        endpoint.close();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    }
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["zoo: control socket at its end", "2 sessions served"]);
}

/// Item 99: one session's end is that session's affair.
#[test]
fn an_endpoint_that_leaves_does_not_touch_the_other_sessions() {
    let home = Home::new();
    let manager = home.start(&["-s"], &["single", "echo"]);
    let dial = home.dial(&manager);
    let (mut stays, _) = introduced(&dial);
    for _ in 0..20 {
        let (endpoint, _) = introduced(&dial);
        endpoint.reset();
        stays.echoes(b"here");
    }
    assert!(manager.is_running());
}

/// Item 18 in singleton mode: a mlet that stays is ended by the second signal.
#[test]
fn the_second_signal_ends_the_singleton_too() {
    let home = Home::new();
    let manager = home.start(&["-s", "--eof-grace", "10s"], &["single", "echo"]);
    let (mut endpoint, _) = introduced(&home.dial(&manager));
    manager.signal(Signal::SIGTERM);
    manager.says("no new endpoints; sessions that run: 1; a second signal ends them");
    endpoint.echoes(b"not yet");
    let start = Instant::now();
    manager.signal(Signal::SIGTERM);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(143));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_says(&ended.stderr, &["zoo: control socket at its end", "mlet ended: exit code 0"]);
}

/// One that does not read the end of its control socket gets TERM, and then KILL.
#[test]
fn waiting_for_the_mlet_at_the_end_of_a_run_takes_no_processor() {
    let home = Home::new();
    let mut options = vec!["-s", "--events", "events", "--cores", "1", "--per-source-max", "1"];
    options.extend(["--ctl", "ctl.sock"]);
    let manager = home.start(&options, &["single", "deaf"]);
    manager.says("zoo: deaf");
    let dial = home.dial(&manager);
    // Any of the two may be accepted first; of the other, a record of how many were refused is due a second later.
    let _both = [dial.connect(), dial.connect()];
    manager.says("too many of it are in set-up");
    manager.signal(Signal::SIGINT);
    manager.await_end_of_shards();
    let read = || fs::read_to_string(home.path("events")).unwrap();
    wait_until("the record", || read().contains("session.folded"));
    // Orders are still heard, and who gave one is not kept waiting.
    let mut show = Command::new(PKTXPMGR);
    let told = run(show.arg("ctl").arg(home.path("ctl.sock")).args(["show", "experiments"]));
    assert_eq!(told.code, Some(0), "{told:?}");
    let before = manager.cpu_time();
    thread::sleep(Duration::from_millis(500));
    let used = manager.cpu_time() - before;
    assert!(used < Duration::from_millis(100), "{used:?}");
    manager.signal(Signal::SIGINT);
    manager.signal(Signal::SIGINT);
    assert_eq!(manager.ends().code, Some(130));
}

#[test]
fn a_singleton_that_heeds_nothing_is_killed_after_both_graces() {
    let home = Home::new();
    let manager =
        home.start(&["-s", "--eof-grace", "300ms", "--term-grace", "300ms"], &["single", "deaf"]);
    manager.says("zoo: deaf");
    for said in ["no new endpoints", "second signal, "] {
        manager.signal(Signal::SIGINT);
        manager.says(said);
    }
    let start = Instant::now();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(130));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_millis(1600), "{took:?}");
    assert_says(&ended.stderr, &["singleton mlet ended: signal 9"]);
}
