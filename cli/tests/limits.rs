//! Every limit there is, made to fire: deadlines, sizes, counts, and too few descriptors.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::churn::{self, Holdings, KINDS};
use common::crowd::{self, Figures};
use common::endpoint::{Dial, End, Endpoint, LINFO, NDATA, START, SUCCESS, message};
use common::http::{metrics, metrics_address};
use common::manager::{Manager, await_standstill, children_of, kill_hard, wait_until, zoo};
use common::{Home, PKTXPMGR, assert_says};
use engine::sys::limits::raise_open_files;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `--handshake-timeout` (promise P2, item 93). It is absolute: a byte now and then gains no time.
#[test]
fn a_handshake_has_a_deadline_that_a_trickle_does_not_move() {
    let home = Home::new();
    let manager = home.start(&["--handshake-timeout", "500ms"], &["echo"]);
    let dial = home.dial(&manager);
    let mut bystander = dial.session();
    let start = Instant::now();
    let mut silent = dial.connect();
    let mut trickling = dial.connect();
    let hello = trickling.hello();
    let mut bytes = hello.iter();
    let mut ended = false;
    while !ended {
        assert!(start.elapsed() < Duration::from_secs(3), "it trickles on");
        // Fails when the manager has closed.
        ended = trickling.tcp.write_all(&[*bytes.next().unwrap()]).is_err();
        thread::sleep(Duration::from_millis(20));
    }
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(silent.raw_rest(), Ok(Vec::new()));
    manager.says_times("no complete TLS handshake in time", 2);
    bystander.echoes(b"past the handshake there is no such deadline");
}

/// `--setup-timeout`.
#[test]
fn start_must_be_answered_in_time() {
    let home = Home::new();
    let manager = home.start(&["--setup-timeout", "300ms"], &["echo"]);
    let mut endpoint = home.dial(&manager).handshake();
    endpoint.receive().unwrap();
    let start = Instant::now();
    endpoint.receive().unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    manager.says("START was not answered in time");
    home.dial(&manager).is_served();
}

/// `--drain-timeout` towards the endpoint (promise P12): the mlet is killed while all buffers are full.
#[test]
fn an_endpoint_that_takes_nothing_is_given_up() {
    let home = Home::new();
    let manager = home.start(&["--drain-timeout", "300ms", "-n", "1"], &["flood", "2000", "60000"]);
    let endpoint = home.dial(&manager).session();
    manager.says("is ready");
    let mlet = || children_of(manager.supervisor()).first().copied();
    wait_until("the mlet runs", || mlet().is_some());
    let mlet = mlet().unwrap();
    await_standstill(&manager, mlet);
    let memory = manager.memory_kib();
    assert!(memory < 64 * 1024, "{memory} KiB");
    kill_hard(mlet);
    let start = Instant::now();
    manager.says("mlet ended, but the endpoint did not take all it wrote");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(manager.ends().code, Some(0));
    drop(endpoint);
}

/// `--drain-timeout` is about progress: a slow reader that keeps reading gets everything.
#[test]
fn an_endpoint_that_reads_slowly_is_not_given_up() {
    let home = Home::new();
    let manager = home.start(&["--drain-timeout", "400ms", "-n", "1"], &["flood", "60", "100000"]);
    let mut endpoint = home.dial(&manager).session();
    let start = Instant::now();
    for index in 0..60_u32 {
        let (_, payload) = endpoint.receive().unwrap();
        assert_eq!((payload.len(), &payload[..4]), (100_000, &index.to_be_bytes()[..]));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    assert!(start.elapsed() > Duration::from_millis(800), "{:?}", start.elapsed());
    endpoint.close();
    assert_says(&manager.ends().stderr, &["over: the mlet ended; mlet exit code 0"]);
}

/// Promise P11: a mlet that takes nothing stops its endpoint and costs no memory.
#[test]
fn a_mlet_that_takes_nothing_stops_its_endpoint() {
    let home = Home::new();
    let manager = home.start(&[], &["silent"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.tcp.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let stopped = (0..10_000).any(|_| {
        let sent = endpoint.try_send(&message(NDATA, &[7; 16_000]));
        sent.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    assert!(stopped, "the manager took 160 MB for a mlet that reads nothing");
    let memory = manager.memory_kib();
    assert!(memory < 64 * 1024, "{memory} KiB");
}

/// `--drain-timeout` towards the mlet: whatever of an endpoint's last bytes fits into the mlet's socket, and
/// wherever its end stands behind them, the session does not wait for a mlet that never reads.
#[test]
fn a_mlet_that_takes_nothing_is_given_up() {
    let home = Home::new();
    let limits = ["--drain-timeout", "300ms", "--linger-timeout", "300ms", "--term-grace", "100ms"];
    let manager = home.start(&limits, &["silent"]);
    let dial = home.dial(&manager);
    let sockets = manager.open_sockets();
    let ends: [fn(Endpoint) -> Endpoint; 2] = [
        |mut endpoint| {
            endpoint.close();
            endpoint
        },
        |endpoint| {
            endpoint.tcp.shutdown(Shutdown::Write).unwrap();
            endpoint
        },
    ];
    let mut sessions: Vec<Endpoint> = Vec::new();
    // A mlet's socket holds some 400 to 450 KB, so the last of these leave some behind in any case.
    for number in 1..=17 {
        for end in ends {
            let mut endpoint = dial.session();
            endpoint.send(&message(NDATA, &vec![7; 33_000 * number]));
            sessions.push(end(endpoint));
        }
    }
    manager.says_times("is ready", sessions.len());
    let (over, start) = (|| manager.open_sockets() == sockets, Instant::now());
    wait_until("some time has passed", || over() || start.elapsed() > Duration::from_secs(3));
    // No look can show an end that the endpoint's own kernel must hold back, for want of room in our window.
    let hidden: Vec<Endpoint> =
        sessions.into_iter().filter(|endpoint| endpoint.untaken_len() > 0).collect();
    assert!(hidden.len() <= 4, "{} of 34 have not arrived", hidden.len());
    hidden.into_iter().for_each(Endpoint::reset);
    wait_until("every session is over", over);
    manager.says(" over: undelivered; mlet ");
}

/// `--linger-timeout` for an endpoint that does not close.
#[test]
fn an_endpoint_that_never_closes_is_closed() {
    let home = Home::new();
    let manager = home.start(&["--linger-timeout", "300ms", "-n", "1"], &["flood", "3", "100"]);
    let mut endpoint = home.dial(&manager).session();
    let start = Instant::now();
    assert_eq!(endpoint.read_to_end(), (3, End::CloseNotify));
    assert_eq!(manager.ends().code, Some(0));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(2), "{took:?}");
}

/// `--linger-timeout` begins when the endpoint has taken everything: what it sends meanwhile must not make TCP reset
/// the connection and lose the rest.
#[test]
fn an_endpoint_that_reads_slowly_and_goes_on_sending_gets_the_last_byte() {
    const COUNT: usize = 40;
    let home = Home::new();
    let words = ["flood", &COUNT.to_string(), "100000"];
    let manager = home.start(&["--linger-timeout", "200ms", "-n", "1"], &words);
    let mut endpoint = home.dial(&manager).session();
    let start = Instant::now();
    for index in 0..COUNT {
        let (_, payload) = endpoint.receive().unwrap_or_else(|end| panic!("{index}: {end:?}"));
        assert_eq!(payload[..4], u32::try_from(index).unwrap().to_be_bytes());
        endpoint.send(&message(NDATA, b"nobody reads this"));
        // In the middle it pauses for longer than that limit.
        thread::sleep(Duration::from_millis(if index == COUNT / 2 { 600 } else { 40 }));
    }
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    assert_says(&manager.ends().stderr, &["over: the mlet ended; mlet exit code 0"]);
}

/// `--linger-timeout` for a mlet that does not close.
#[test]
fn a_mlet_that_never_closes_loses_its_session() {
    let home = Home::new();
    let options = ["--linger-timeout", "300ms", "--term-grace", "100ms"];
    let manager = home.start(&options, &["stubborn"]);
    let sockets = manager.open_sockets();
    let mut endpoint = home.dial(&manager).session();
    endpoint.receive().unwrap();
    endpoint.close();
    let start = Instant::now();
    wait_until("the session's are closed", || manager.open_sockets() == sockets);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// `--handshakes-max`: the kernel's queue waits, nobody is refused.
#[test]
fn beyond_the_limit_of_handshakes_endpoints_wait_for_their_turn() {
    let home = Home::new();
    let options = ["--cores", "1", "--handshakes-max", "2", "--handshake-timeout", "800ms"];
    let manager = home.start(&options, &["echo"]);
    let dial = home.dial(&manager);
    let mut bystander = dial.session();
    let start = Instant::now();
    // They have sent their ClientHello and go no further.
    let half_way = [(); 2].map(|()| {
        let mut endpoint = dial.connect();
        let hello = endpoint.hello();
        endpoint.send_raw(&hello);
        endpoint.tcp.peek(&mut [0]).unwrap();
        endpoint
    });
    dial.is_served();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(3), "{took:?}");
    bystander.echoes(b"not in set-up, so not counted");
    drop(half_way);
}

/// `--sessions-max`: exact, and the place of a session that is over goes to the next.
#[test]
fn beyond_the_limit_of_sessions_endpoints_wait_for_their_turn() {
    let home = Home::new();
    let manager = home.start(&["--cores", "1", "--sessions-max", "2"], &["echo"]);
    let dial = home.dial(&manager);
    let mut first = dial.session();
    let mut second = dial.session();
    let mut third = dial.connect();
    let hello = third.hello();
    third.send_raw(&hello);
    third.is_silent_for(Duration::from_millis(300));
    first.echoes(b"first");
    second.echoes(b"second");
    first.close();
    assert_eq!(first.receive(), Err(End::CloseNotify));
    drop(first);
    let start = Instant::now();
    third.tcp.peek(&mut [0]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    second.echoes(b"second");
}

/// `--sessions-max` with two shards: a place that becomes free on one is taken on the other.
#[test]
fn a_place_that_is_free_again_is_seen_by_every_shard() {
    let home = Home::new();
    let manager = home.start(&["--sessions-max", "1"], &["echo"]);
    let dial = home.dial(&manager);
    for _ in 0..12 {
        dial.is_served();
    }
    assert_says(&manager.interrupted().stderr, &["12 sessions served"]);
}

/// `--per-source-max`: one source that holds everything up is refused, others are not.
#[test]
fn one_source_cannot_hold_up_the_others() {
    raise_open_files().unwrap();
    let home = Home::new();
    let options = ["--cores", "1", "--handshakes-max", "40", "--per-source-max", "30"];
    let manager = home.start(&options, &["echo"]);
    let dial = home.dial(&manager);
    let silent: Vec<Endpoint> = (0..500).map(|_| dial.clone().from(2).connect()).collect();
    let start = Instant::now();
    dial.clone().from(3).is_served();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    manager.says("--per-source-max");
    let kept = silent.iter().filter(|endpoint| is_open(endpoint)).count();
    assert_eq!(kept, 30);
    // Sessions past their set-up are not counted, and places become free again.
    drop(silent);
    let mut sessions: Vec<Endpoint> = Vec::new();
    wait_until("the places are free", || dial.clone().from(2).connect().handshake().is_ok());
    for _ in 0..35 {
        sessions.push(dial.clone().from(2).session());
    }
    for session in &mut sessions {
        session.echoes(b"all here");
    }
}

/// Whether the manager has left the connection open.
fn is_open(endpoint: &Endpoint) -> bool {
    endpoint.tcp.set_nonblocking(true).unwrap();
    endpoint.tcp.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// `--linfo-max` (item 83).
#[test]
fn a_long_linfo_is_cut_in_the_log_and_none_reaches_the_mlet() {
    let home = Home::new();
    let manager = home.start(&["--linfo-max", "1k"], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    let linfo = |len: usize| {
        let text = vec![b'x'; len];
        message(LINFO, &[b"\x04name", &[0, 0, 0, 0][..], b"\x1b[2J\nWARN ", &text[..]].concat())
    };
    for bytes in [linfo(100), linfo(100_000), linfo(1_000_000)] {
        endpoint.send(&bytes);
        endpoint.echoes(b"the mlet sees only this");
    }
    manager.says_times("endpoint logs", 3);
    // What it logs neither moves a terminal nor makes a line of its own (promise P29).
    let whole = manager.says("endpoint logs: ");
    assert!(whole.contains("\\u{1b}[2J\\nWARN x") && !whole.contains('\x1b'), "{whole}");
    let cut = manager.says_times("endpoint logs (truncated)", 2);
    assert!(cut.len() < 5_000, "{} bytes", cut.len());
    assert_eq!(manager.said("endpoint logs (truncated)"), 2, "the short one is whole");
}

/// `--linfos-per-second`: an endpoint that logs without end loses lines, and nobody else loses time.
#[test]
fn an_endpoint_that_floods_the_log_is_cut_short_and_the_next_line_tells_of_it() {
    const PER_SECOND: usize = 5;
    let home = Home::new();
    let manager = home.start(&["--linfos-per-second", &PER_SECOND.to_string()], &["echo"]);
    let dial = home.dial(&manager);
    let mut flood = dial.session();
    let linfo = message(LINFO, b"\x04name\0\0\0\0text");
    let start = Instant::now();
    flood.send(&linfo.repeat(5_000));
    flood.echoes(b"all of them have passed");
    dial.is_served();
    wait_until("a second is over", || {
        flood.send(&linfo);
        flood.echoes(b"passed");
        manager.said("LINFOs came too fast to be logged") > 0
    });
    let logged = manager.said("endpoint logs");
    // Every line belongs to a second that began, at the earliest, when the one before was over.
    let seconds_begun = start.elapsed().as_secs() as usize + 1;
    assert!(logged <= PER_SECOND * seconds_begun, "{logged} lines in {seconds_begun} s");
    assert!(logged >= PER_SECOND, "{logged} lines are fewer than the first second allows");
}

/// Starts a manager that may open only so many files. Its endpoints share a key.
fn start_with_fds(home: &Home, fds: usize, options: &[&str]) -> Manager {
    let script = format!("ulimit -n {fds}; exec \"$0\" \"$@\"");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, PKTXPMGR, "-c", "xpmgr.conf", "-a", "127.0.0.1:"]);
    command.args(["--sessions-per-key-max", "0"]).args(options);
    command.arg(zoo()).arg("echo").current_dir(home.path("")).env_clear();
    Manager::start(home, command)
}

/// Open files that a manager with these options sets aside for itself.
fn set_aside(home: &Home, options: &[&str]) -> usize {
    let told = home.start(options, &["echo"]).says("set aside");
    let words: Vec<&str> = told.split_whitespace().collect();
    let at = words.windows(2).position(|pair| pair == ["set", "aside)"]).unwrap();
    words[at - 1].parse().unwrap()
}

/// The processor time and log lines of one second.
fn cost_of_a_second(manager: &Manager) -> (Duration, usize) {
    let (cpu, lines) = (manager.cpu_time(), manager.said(""));
    thread::sleep(Duration::from_secs(1));
    (manager.cpu_time() - cpu, manager.said("") - lines)
}

/// Promise P26 (D4): 200 connections for a manager that may open 64 files, which serves several at once.
#[test]
fn too_few_descriptors_are_neither_spun_on_nor_logged_without_end() {
    const FDS: usize = 64;
    let home = Home::new();
    let options = ["--cores", "1", "--handshake-timeout", "2s"];
    let room = (FDS - set_aside(&home, &options)) / 2;
    assert!(room >= 4, "room for {room}");
    let manager = start_with_fds(&home, FDS, &options);
    manager.says(&format!("room for {room} sessions at once (2 of 64 open files each"));
    let dial = home.dial(&manager);
    let mut sessions: Vec<Endpoint> = (0..room - 1).map(|_| dial.session()).collect();
    // What was logged before that second is not counted, however late it is read.
    manager.says_times("is ready, key", sessions.len());
    let crowd: Vec<Endpoint> = (0..200).map(|_| dial.connect()).collect();
    let (cpu, lines) = cost_of_a_second(&manager);
    assert!(cpu < Duration::from_millis(200), "{cpu:?} in a second");
    assert!(lines <= 5, "{lines} lines in a second");
    for session in &mut sessions {
        session.echoes(b"not disturbed");
    }
    drop(crowd);
    let start = Instant::now();
    dial.is_served();
    assert!(start.elapsed() < Duration::from_secs(1), "back after {:?}", start.elapsed());
    drop(sessions);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// The limit of open files allows so many sessions (operating.md "Limits"), also when all of them start at once,
/// which takes a third descriptor of each until the supervisor has it.
#[test]
fn as_many_sessions_as_descriptors_allow_may_start_in_one_instant() {
    const COUNT: usize = 800;
    raise_open_files().unwrap();
    let home = Home::new();
    let fds = 2 * COUNT + set_aside(&home, &[]);
    let manager = start_with_fds(&home, fds, &[]);
    manager.says(&format!("room for {COUNT} sessions"));
    let dial = home.dial(&manager);
    let mut endpoints: Vec<Endpoint> = (0..COUNT).map(|_| dial.handshake()).collect();
    for endpoint in &mut endpoints {
        assert_eq!(endpoint.receive(), Ok((START, Vec::new())));
    }
    let supervisor = Pid::from_raw(manager.supervisor());
    kill(supervisor, Signal::SIGSTOP).unwrap();
    for endpoint in &mut endpoints {
        endpoint.send(&SUCCESS);
    }
    // A pair takes two.
    wait_until("no pair of descriptors is left", || manager.open_fds() >= fds - 1);
    kill(supervisor, Signal::SIGCONT).unwrap();
    for endpoint in &mut endpoints {
        endpoint.echoes(b"served");
    }
    assert_eq!(manager.said("no socket pair"), 0);
}

/// Sessions whose mlet still waits for a descriptor when their endpoint has left end alone, and use up none of `-n`.
#[test]
fn endpoints_that_leave_while_no_descriptor_is_free_end_their_own_sessions() {
    const COUNT: usize = 800;
    raise_open_files().unwrap();
    let home = Home::new();
    let fds = 2 * COUNT + set_aside(&home, &[]);
    let attempts = COUNT.to_string();
    let manager = start_with_fds(&home, fds, &["-v", "--drain-timeout", "400ms", "-n", &attempts]);
    let dial = home.dial(&manager);
    let mut endpoints: Vec<Endpoint> = (0..COUNT).map(|_| dial.handshake()).collect();
    let supervisor = Pid::from_raw(manager.supervisor());
    kill(supervisor, Signal::SIGSTOP).unwrap();
    for endpoint in &mut endpoints {
        assert_eq!(endpoint.receive(), Ok((START, Vec::new())));
        endpoint.send(&SUCCESS);
    }
    wait_until("no pair of descriptors is left", || manager.open_fds() >= fds - 1);
    // Some two hundred have no pair, most of them among those that answered last; the others stay.
    for mut endpoint in endpoints.split_off(COUNT - 200) {
        endpoint.send(&message(NDATA, b"nobody reads this"));
        endpoint.close();
    }
    manager.says("dropped 127.0.0.1");
    kill(supervisor, Signal::SIGCONT).unwrap();
    for endpoint in &mut endpoints {
        endpoint.echoes(b"served");
    }
    drop(endpoints);
    // Not cut short, for debug lines are written.
    let dropped = || manager.said("dropped 127.0.0.1");
    wait_until("each had a mlet or left", || manager.said("is ready") + dropped() == COUNT);
    for _ in 0..dropped() {
        assert!(manager.is_running());
        dial.is_served();
    }
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stderr.matches("is ready").count(), COUNT, "mlets");
}

/// `--accept-pause` (item 95): the manager has a few descriptors more than it needs for itself.
#[test]
fn running_out_of_descriptors_pauses_accepting() {
    let home = Home::new();
    let metered = ["-v", "--cores", "1", "--metrics", "0"];
    let manager = home.start(&metered, &["echo"]);
    let fds = manager.open_fds();
    drop(manager);
    let options = [&metered[..], &["--accept-pause", "2s", "--handshake-timeout", "2s"]].concat();
    let manager = start_with_fds(&home, fds + 5, &options);
    let dial = home.dial(&manager);
    let start = Instant::now();
    let process = Pid::from_raw(manager.pid());
    // All in one instant, so that several accepts that are under way fail.
    kill(process, Signal::SIGSTOP).unwrap();
    let crowd: Vec<Endpoint> = (0..20).map(|_| dial.connect()).collect();
    kill(process, Signal::SIGCONT).unwrap();
    manager.says("accepting pauses");
    let (cpu, lines) = cost_of_a_second(&manager);
    assert!(cpu < Duration::from_millis(200), "{cpu:?} in a second");
    assert!(lines <= 5, "{lines} lines in a second");
    // Without the pause there would be five a second, the most that are logged; each is told once.
    let told = manager.said("accepting pauses");
    let pauses = start.elapsed().as_secs() / 2 + 1;
    assert!(told as u64 <= pauses, "{told} lines, {pauses} pauses");
    drop(crowd);
    let start = Instant::now();
    // Those that have been accepted and are gone would take the descriptors of its mlet.
    manager.says_times("dropped 127.0.0.1", 20);
    dial.is_served();
    assert!(start.elapsed() < Duration::from_secs(3), "back after {:?}", start.elapsed());
    let samples = metrics(metrics_address(&manager));
    let counted = samples["pktxpmgr_accept_errors_total{reason=\"files_of_process\"}"];
    assert!(counted >= told as f64, "{counted} of {told}");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Promise P13 (D11): a header that announces 16 MiB costs nothing.
#[test]
fn a_header_alone_costs_nothing() {
    const COUNT: usize = 200;
    raise_open_files().unwrap();
    let home = Home::new();
    let manager = home.start(&[], &["sink"]);
    let dial = home.dial(&manager);
    let mut sessions: Vec<Endpoint> = (0..COUNT).map(|_| dial.session()).collect();
    manager.says_times("is ready", COUNT);
    let before = manager.memory_kib();
    for session in &mut sessions {
        session.send(&[NDATA, 0xff, 0xff, 0xff]);
    }
    // Answered only after all of the headers have been taken.
    dial.session().close();
    manager.says("sank 0 messages");
    let grown = manager.memory_kib().saturating_sub(before);
    assert!(grown < 5 * 1024, "{grown} KiB for {COUNT} headers");
}

/// Promises P5, P6: each fault at each step once, beside as many sessions without one.
#[test]
fn sessions_broken_at_any_step_leave_nothing() {
    let (home, manager) = churn::start();
    let dial = home.dial(&manager);
    dial.obeys();
    // Logged when its mlet is gone and its sockets are closed.
    manager.says(" over: ");
    let before = Holdings::of(&manager);
    churn::churn(&dial, 2 * KINDS, 2);
    before.are_back(&manager);
    dial.obeys();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Promise P11: mlets that never read, whose endpoints flood, beside honest sessions. On a machine that is busy
/// otherwise it may take some rounds until a window with them and one without are comparable.
#[test]
fn mlets_that_never_read_do_not_slow_the_others() {
    const OTHERS: usize = 20;
    let window = Duration::from_millis(300);
    let holds = |figures: &Figures| figures.best_holds() || figures.median_holds();
    let figures = crowd::measure(5, OTHERS, 12, window, holds);
    println!("p99 of honest sessions: {figures:?}");
    let rounds = figures.crowded.len();
    assert!(figures.flooded_len > rounds * OTHERS * 100_000, "the floods did not come");
    assert!(holds(&figures), "{figures:?}");
}

/// Promise P2: slow, silent and garbage peers beside real ones, which notice nothing.
#[test]
fn a_crowd_of_bad_peers_does_not_disturb_real_ones() {
    raise_open_files().unwrap();
    let home = Home::new();
    let manager = home.start(&["--handshake-timeout", "1s"], &["echo"]);
    let dial = home.dial(&manager);
    let sockets = manager.open_sockets();
    let median = |dial: &Dial| {
        let mut times: Vec<Duration> = (0..21)
            .map(|_| {
                let start = Instant::now();
                dial.is_served();
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let alone = median(&dial);
    let silent: Vec<Endpoint> = (0..200).map(|_| dial.connect()).collect();
    let garbage: Vec<Endpoint> = (0..50)
        .map(|_| {
            let mut endpoint = dial.connect();
            endpoint.send_raw(b"\x16\x03\x01\x00\x05hello");
            endpoint
        })
        .collect();
    let in_a_crowd = median(&dial);
    assert!(in_a_crowd < alone * 4 + Duration::from_millis(50), "{alone:?}, then {in_a_crowd:?}");
    // The garbage lingers until it closes.
    drop(garbage);
    for mut endpoint in silent {
        assert_eq!(endpoint.raw_rest(), Ok(Vec::new()));
    }
    wait_until("no socket is left", || manager.open_sockets() == sockets);
}
