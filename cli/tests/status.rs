//! What a run tells of itself when it is asked by SIGUSR1 or stopped by a first signal, and signals that end nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::endpoint::{Dial, End, Endpoint, Identity, NDATA, message};
use common::events::{EVENTS, Events, outcomes};
use common::manager::{
    Manager, PATIENCE, children_of, is_alive, kill_hard, processes_in, wait_until, zoo,
};
use common::{Home, PKTXPMGR, pid};
use engine::sys::limits::raise_open_files;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};

/// The line of this session in the answer, which must name its key and a process.
#[track_caller]
fn listed(log: &str, number: u64, key: &str, mlets: &[i32]) -> usize {
    let end = format!(" session={number}");
    let mut lines = log.lines().enumerate().filter(|(_, line)| line.contains(" mlet key "));
    let (index, line) = lines.find(|(_, line)| line.ends_with(&end)).expect("it is listed");
    assert!(line.contains(&format!("WARN mlet key {key}, pid ")), "{line}");
    let (_, after) = line.split_once(", pid ").unwrap();
    let (pid, age) = after.split_once(", has run for ").unwrap();
    assert!(mlets.contains(&pid.parse().unwrap()), "{line}");
    let (age, _) = age.split_once(" s session=").unwrap();
    assert!((0.0..20.0).contains(&age.parse::<f64>().unwrap()), "{line}");
    index
}

/// An endpoint with a key of its own, that key as lines show it, and the number of its session.
fn session(home: &Home, manager: &Manager, count: usize) -> (Endpoint, String, u64) {
    let identity = Identity::of(&home.keys.operator);
    let key = identity.key.public_key().key_id().to_string();
    let mut endpoint = Dial::to(manager.address).with(&identity).session();
    endpoint.echoes(b"it runs");
    let line = manager.says_times(" is ready, ", count);
    assert!(line.contains(&key[..12]), "{line}");
    let (_, number) = line.rsplit_once(" session=").unwrap();
    (endpoint, key[..12].to_owned(), number.parse().unwrap())
}

#[test]
fn sigusr1_lists_the_mlets_that_run_oldest_first_and_how_many_ended_how() {
    let home = Home::new();
    let manager = home.start(&["-v"], &["echo"]);
    let sessions: Vec<_> = (1..=3).map(|count| session(&home, &manager, count)).collect();
    // A mlet answers before its supervisor has told that it runs.
    manager.says_times("mlet runs as process ", 3);
    let mut mlets = children_of(manager.supervisor());
    manager.signal(Signal::SIGUSR1);
    manager.says_times("WARN mlet key ", 3);
    manager.says("WARN status: running; sessions 3, mlets that run: 3");
    manager.says("WARN status: ended so far: none");
    let log = manager.log();
    let lines = sessions.iter().map(|(_, key, number)| listed(&log, *number, key, &mlets));
    assert!(lines.is_sorted(), "oldest first: {log}");

    let mut sessions = sessions.into_iter();
    let (mut first, _, number) = sessions.next().unwrap();
    first.close();
    assert_eq!(first.receive(), Err(End::CloseNotify));
    drop(first);
    manager.says(" over: the endpoint closed");
    mlets = children_of(manager.supervisor());
    manager.signal(Signal::SIGINT);
    manager.says("WARN mlets that run: 2");
    let told = manager.says("WARN the oldest: ");
    let (_, key, second) = sessions.as_slice().first().unwrap();
    assert!(told.contains(&format!(" the oldest: key {key}, pid ")), "{told}");
    assert!(mlets.iter().any(|pid| told.contains(&format!(", pid {pid}, has run for "))), "{told}");
    assert!(told.ends_with(&format!(" session={second}")), "{told}");
    manager.says("a second signal ends every session, 0.5 s later TERM, 2 s later KILL");
    manager.signal(Signal::SIGUSR1);
    manager.says(
        "WARN status: no new endpoints, waiting for what runs; sessions 2, mlets that run: 2",
    );
    manager.says("WARN status: ended so far: endpoint_closed 1");
    manager.says_times("WARN mlet key ", 5);
    let shown = manager.log();
    let of_first = shown.lines().filter(|line| line.contains("WARN mlet key "));
    assert_eq!(of_first.filter(|line| line.ends_with(&format!(" session={number}"))).count(), 1);
    for (mut endpoint, ..) in sessions {
        endpoint.echoes(b"not disturbed");
        endpoint.close();
    }
    assert_eq!(manager.ends().code, Some(0));
}

#[test]
fn of_many_mlets_fifty_are_listed_and_the_others_counted() {
    const COUNT: usize = 53;
    raise_open_files().unwrap();
    let home = Home::new();
    let manager = home.start(&["-v"], &["echo"]);
    let dial = home.dial(&manager);
    let _endpoints: Vec<Endpoint> = (0..COUNT).map(|_| dial.session()).collect();
    manager.says_times("mlet runs as process ", COUNT);
    manager.signal(Signal::SIGUSR1);
    manager.says("WARN and 3 more");
    assert_eq!(manager.said("WARN mlet key "), 50);
}

/// Nobody connects, as `-q` hides the address.
#[test]
fn q_hides_neither_the_answer_to_sigusr1_nor_why_a_reload_is_refused() {
    let home = Home::new();
    let mut command = home.command();
    command.arg("-q").arg(zoo()).arg("echo");
    let manager = Manager::spawn(&home, command);
    wait_until("its supervisor runs", || !children_of(manager.pid()).is_empty());
    // Before the run it is not answered.
    wait_until("it answers", || {
        manager.signal(Signal::SIGUSR1);
        manager.said("WARN status: running; sessions 0, mlets that run: 0") > 0
    });
    home.write("xpmgr.conf", b"");
    manager.signal(Signal::SIGHUP);
    manager.says("WARN reload refused, the run goes on with what it has:");
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains(" INFO "), "{}", ended.stderr);
}

/// Before the run it is ignored, and later it is answered whatever else goes on, without hurrying anything.
#[test]
fn sigusr1_ends_nothing_and_hurries_nothing_in_any_phase() {
    let home = Home::new();
    let graces = ["--eof-grace", "200ms", "--term-grace", "1500ms"];
    let mut command = home.command();
    command.args(EVENTS).args(graces).arg(zoo()).arg("stubborn");
    let mut manager = Manager::spawn(&home, command);
    wait_until("its supervisor runs", || !children_of(manager.pid()).is_empty());
    wait_until("it listens, and never ends", || {
        manager.signal(Signal::SIGUSR1);
        assert!(manager.is_running());
        manager.said("listening on") > 0
    });
    manager.await_listening();
    let mut endpoint = home.dial(&manager).session();
    endpoint.receive().unwrap();
    let before = manager.said("WARN status: running");
    manager.signal(Signal::SIGUSR1);
    manager.says_times("WARN status: running", before + 1);
    manager.signal(Signal::SIGINT);
    manager.says("no new endpoints; ");
    manager.signal(Signal::SIGUSR1);
    manager.says(
        "WARN status: no new endpoints, waiting for what runs; sessions 1, mlets that run: 1",
    );
    manager.signal(Signal::SIGINT);
    manager.says("second signal, ");
    let start = Instant::now();
    for _ in 0..3 {
        manager.signal(Signal::SIGUSR1);
        manager.signal(Signal::SIGHUP);
    }
    manager.says("WARN status: being ended by force");
    let ended = manager.ends();
    assert_eq!(ended.code, Some(130));
    assert!(start.elapsed() >= Duration::from_millis(1600), "{:?}", start.elapsed());
    assert_eq!(outcomes(&Events::of(&home).sessions()), ["killed"]);
}

/// The manager itself ends the mlets then, for as long as their graces last.
#[test]
fn neither_sigusr1_nor_sighup_hurries_the_end_of_mlets_whose_supervisor_is_gone() {
    let home = Home::new();
    let manager = home.start(&["--term-grace", "1500ms"], &["stubborn"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.receive().unwrap();
    let [mlet] = children_of(manager.supervisor())[..] else { panic!("not one mlet") };
    let start = Instant::now();
    kill_hard(manager.supervisor());
    manager.says("the supervisor of mlets is gone");
    manager.signal(Signal::SIGUSR1);
    manager.signal(Signal::SIGHUP);
    manager.says("WARN status: ");
    manager.says("WARN   no new endpoints are served any more");
    wait_until("its mlet is killed", || !is_alive(mlet));
    assert!(start.elapsed() >= Duration::from_millis(2000), "{:?}", start.elapsed());
    endpoint.close();
    assert_eq!(manager.ends().code, Some(70));
    assert!(processes_in(&home.path("")).is_empty());
}

#[test]
fn with_one_mlet_for_all_that_mlet_is_told() {
    let home = Home::new();
    let manager = home.start(&["-s"], &["single", "echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.text();
    let [mlet] = children_of(manager.supervisor())[..] else { panic!("not one mlet") };
    manager.signal(Signal::SIGUSR1);
    manager.says("WARN status: running; sessions 1, mlets that run: 1");
    manager.says(&format!("WARN the one mlet of -s, pid {mlet}, has run for "));
    endpoint.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Reads what a terminal shows until a line is whole that contains this, and returns it.
fn shows(screen: &mut File, part: &str) -> String {
    let (start, mut shown) = (Instant::now(), String::new());
    loop {
        if let Some(line) = shown.lines().find(|line| line.contains(part))
            && shown.split_once(line).unwrap().1.starts_with(['\r', '\n'])
        {
            return line.to_owned();
        }
        let left = PollTimeout::try_from(PATIENCE.saturating_sub(start.elapsed())).unwrap();
        let ready = poll(&mut [PollFd::new(screen.as_fd(), PollFlags::POLLIN)], left).unwrap();
        assert_eq!(ready, 1, "{part:?} is not shown, only {shown}");
        let mut bytes = [0; 1024];
        let len = screen.read(&mut bytes).unwrap();
        shown.push_str(str::from_utf8(&bytes[..len]).unwrap());
    }
}

/// A manager whose controlling terminal this is; its stdout and stderr are there, too.
fn start_on(home: &Home, line: OwnedFd) -> Child {
    let on_line = || Stdio::from(line.try_clone().unwrap());
    // A session of its own, whose controlling terminal is its stdin.
    let mut command = Command::new("/usr/bin/setsid");
    command.args(["-c", PKTXPMGR, "-c", "xpmgr.conf", "-a", "127.0.0.1:"]);
    command.args(EVENTS).arg(zoo()).arg("obey").current_dir(home.path("")).env_clear();
    command.stdin(on_line()).stdout(on_line()).stderr(on_line()).spawn().unwrap()
}

/// The terminal window is closed: SIGHUP comes, and nothing can be written to stdout and stderr any more.
#[test]
fn a_run_survives_the_end_of_its_terminal() {
    let home = Home::new();
    let pty = openpty(None, None).unwrap();
    for fd in [&pty.master, &pty.slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    let mut screen = File::from(pty.master);
    let mut child = start_on(&home, pty.slave);
    let line = shows(&mut screen, "listening on ");
    let address = line.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
    let dial = Dial::to(address).with(&Identity::of(&home.keys.operator));
    let order = |endpoint: &mut Endpoint, order: &str| {
        endpoint.send(&message(NDATA, order.as_bytes()));
    };
    let mut before = dial.session();
    order(&mut before, "say");
    assert_eq!(before.text(), "say");
    kill(pid(&child), Signal::SIGHUP).unwrap();
    shows(&mut screen, "reloaded for new sessions: 1 experiment");
    drop(screen);
    for _ in 0..2 {
        let mut after = dial.session();
        order(&mut after, "exit 0");
        assert_eq!(after.receive(), Err(End::CloseNotify));
        after.close();
    }
    order(&mut before, "say");
    assert_eq!(before.text(), "say", "its mlet goes on");
    let events = Events::of(&home);
    assert_eq!(outcomes(&events.await_sessions(2)), ["ok", "ok"]);
    kill(pid(&child), Signal::SIGUSR1).unwrap();
    kill(pid(&child), Signal::SIGINT).unwrap();
    order(&mut before, "exit 0");
    assert_eq!(before.receive(), Err(End::CloseNotify));
    before.close();
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(outcomes(&events.sessions()), ["ok", "ok", "ok"]);
    assert!(processes_in(&home.path("")).is_empty());
}
