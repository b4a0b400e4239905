//! What a mlet finds when it is started, and what becomes of one that ends, in whatever way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::dump::{Contract, Dump, SIGPIPE_ALONE, signals};
use common::endpoint::{Dial, End, Endpoint, Identity, NDATA, message};
use common::manager::{Manager, children_of, is_alive, wait_until, zoo};
use common::{Home, assert_says, told};

/// What a shell does before it starts the manager of these tests: lower limits than its own, ignored signals,
/// an open descriptor and a variable.
const SCRIPT: &str = "ulimit -S -n 256; ulimit -S -c 0; ulimit -S -s 4096; trap '' USR1 HUP; \
                      exec 9</dev/null; export SURPLUS=1;";

/// Mlets that start at the same moment.
const AT_ONCE: usize = 64;

/// Item 79.
#[test]
fn a_mlet_gets_its_session_four_variables_and_its_arguments() {
    let home = Home::new();
    let contract = Contract::behind(SCRIPT, &home);
    let manager = home.start_behind(SCRIPT, &[zoo().to_str().unwrap(), "dump"]);
    let identity = Identity::of(&home.keys.operator);
    let dump = Dump::of(&Dial::to(manager.address).with(&identity));
    let session = contract.is_kept(&dump);
    let number = session.strip_prefix("PKTLAB_SESSION=").unwrap();
    manager.says(&format!("session={number}"));
    let key = identity.chain[0].subject_key_id;
    let mut environment = dump.all("env").to_vec();
    environment.sort_unstable();
    let run = environment.remove(3);
    let run = run.strip_prefix("PKTLAB_RUN=").unwrap();
    assert!(run.len() == 16 && run.bytes().all(|byte| byte.is_ascii_hexdigit()), "{run}");
    let expected = [
        "EPADDR=127.0.0.1",
        &format!("PKTLAB_ENDPOINT_KEY={key}"),
        "PKTLAB_RESULTS=",
        &session,
        "PKTLAB_SNIKEY=hello",
    ];
    assert_eq!(environment, expected);
    assert_eq!(dump.all("arg"), ["mlet-zoo", "dump"]);
}

/// Runs so many endpoints that answer START at the same moment.
fn at_once<T: Send>(dial: &Dial, part: impl Fn(Endpoint) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(AT_ONCE);
    thread::scope(|scope| {
        let run = || {
            let mut endpoint = dial.handshake();
            barrier.wait();
            endpoint.set_up().unwrap();
            part(endpoint)
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Item 80, promise P15: everything that operating.md "What a mlet can count on" names, in each of them.
#[test]
fn mlets_that_start_at_the_same_moment_get_just_what_one_gets_and_nothing_of_one_another() {
    let home = Home::new();
    let contract = Contract::behind(SCRIPT, &home);
    let manager = home.start_behind(SCRIPT, &[zoo().to_str().unwrap(), "dump"]);
    let dumps = at_once(&home.dial(&manager), Dump::read);
    let sessions: BTreeSet<String> = dumps.iter().map(|dump| contract.is_kept(dump)).collect();
    assert_eq!(sessions.len(), AT_ONCE, "every session has a number of its own");
    assert_says(
        &manager.interrupted().stderr,
        &["64 sessions served", "mlets by exit code: 64 succeeded"],
    );
}

/// Item 79.
#[test]
fn the_key_variable_is_empty_for_an_endpoint_without_certificate() {
    let home = Home::new();
    home.write(
        "xpmgr.conf",
        b"EnableExpPublication 0\nControllerPrivkeyPath xc\n\
          ExpExec 1:open:exppriv.cert,pubcmd.cert::0102:\n",
    );
    let manager = home.start(&[], &["dump"]);
    let dump = Dump::of(&Dial::to(manager.address).asking(None));
    assert!(dump.all("env").contains(&"PKTLAB_ENDPOINT_KEY=".to_owned()));
    assert!(dump.all("env").contains(&"PKTLAB_SNIKEY=open".to_owned()));
}

/// Item 122.
#[test]
#[ignore = "needs IPv6 on loopback"]
fn the_address_of_an_ipv6_endpoint_stands_without_brackets() {
    let home = Home::new();
    let mut command = home.bare_command();
    command.args(["-c", "xpmgr.conf", "-a", "[::1]:0"]).arg(zoo()).arg("dump");
    let manager = Manager::start(&home, command);
    let dump = Dump::of(&home.dial(&manager));
    assert!(dump.all("env").contains(&"EPADDR=::1".to_owned()), "{:?}", dump.all("env"));
}

/// Item 81, promise P15. Not asked of the zoo, for Rust programs ignore SIGPIPE by themselves. What was ignored
/// when the manager was started is not any more.
#[test]
fn sigpipe_is_ignored_and_no_other_signal_is_touched() {
    let home = Home::new();
    let contract = Contract::behind(SCRIPT, &home);
    let manager =
        home.start_behind(SCRIPT, &["/bin/cat", "/proc/self/limits", "/proc/self/status"]);
    at_once(&home.dial(&manager), |mut endpoint| {
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
    });
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    // `cat` writes each file in one piece, so lines of different mlets do not mix.
    let all = |name: &str| -> Vec<&str> {
        let lines = ended.stdout.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(str::trim).collect()
    };
    for (name, expected) in [("SigIgn:", SIGPIPE_ALONE), ("SigBlk:", 0), ("SigCgt:", 0)] {
        let sets: Vec<u64> = all(name).into_iter().map(signals).collect();
        assert_eq!(sets, [expected; AT_ONCE], "{name}");
    }
    assert_eq!(all("Cpus_allowed_list:"), [&*contract.cpus; AT_ONCE]);
    for limit in contract.limits.lines() {
        assert_eq!(ended.stdout.lines().filter(|line| *line == limit).count(), AT_ONCE, "{limit}");
    }
}

/// Items 7, 8, 14: a script runs, its arguments arrive as typed, what it prints is all there is on
/// stdout, and its other output stands in the log.
#[test]
fn a_script_gets_its_arguments_and_the_streams_of_the_manager() {
    let home = Home::new();
    home.write("mlet", b"#!/bin/sh\nprintf '%s\n' \"$*\"\necho to the log >&2\n");
    let mut command = home.command();
    command.args(["-n", "1", "./mlet", "-n", "7", "--help", "two words"]);
    let manager = Manager::start(&home, command);
    let mut endpoint = home.dial(&manager).session();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    let ended = manager.ends();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), "-n 7 --help two words\n"));
    assert_says(&ended.stderr, &["\nto the log\n"]);
}

/// Items 13, 14.
#[test]
fn sessions_run_with_stdin_closed_and_nothing_is_printed() {
    let home = Home::new();
    let manager = home.start_behind("exec <&-;", &[zoo().to_str().unwrap(), "echo"]);
    home.dial(&manager).is_served();
    let ended = manager.interrupted();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""));
}

/// Item 89.
#[test]
fn a_mlet_that_is_gone_costs_one_session_and_counts_as_an_attempt() {
    let home = Home::new();
    fs::copy(zoo(), home.path("mlet")).unwrap();
    let mut command = home.command();
    command.args(["-n", "2", "./mlet", "echo"]);
    let manager = Manager::start(&home, command);
    let dial = home.dial(&manager);
    fs::rename(home.path("mlet"), home.path("away")).unwrap();
    let mut endpoint = dial.session();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    manager.says("the mlet could not be started: ./mlet: No such file");
    fs::rename(home.path("away"), home.path("mlet")).unwrap();
    dial.is_served();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["2 sessions served", "mlets by exit code: 1 succeeded, 1 failed"]);
}

/// How a mlet of the zoo ends when told so, and what the log says of it.
const ENDS: [(&str, &str); 6] = [
    ("exit 0", "mlet exit code 0"),
    ("exit 3", "mlet exit code 3"),
    ("exit 255", "mlet exit code 255"),
    ("signal 11", "mlet signal 11"),
    ("signal 6", "mlet signal 6"),
    ("signal 9", "mlet signal 9"),
];

fn session_ending_so(dial: &Dial, order: &str) {
    let mut endpoint = dial.session();
    endpoint.send(&message(NDATA, order.as_bytes()));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify), "{order}");
    endpoint.close();
}

/// Items 89, 90, and promise P8: some hundred mlets, eight at a time, beside a session that lives through
/// it.
#[test]
fn a_storm_of_crashing_mlets_is_reported_one_by_one_and_leaves_nothing() {
    const ROUNDS: usize = 50;
    let home = Home::new();
    let manager = home.start(&[], &["obey"]);
    let dial = home.dial(&manager);
    let mut bystander = dial.session();
    wait_until("the bystander's mlet runs", || children_of(manager.supervisor()).len() == 1);
    let fds = manager.open_fds();
    thread::scope(|scope| {
        for first in 0..8 {
            let dial = &dial;
            scope.spawn(move || {
                for number in (first..ROUNDS * ENDS.len()).step_by(8) {
                    session_ending_so(dial, ENDS[number % ENDS.len()].0);
                }
            });
        }
    });
    for (_, said) in ENDS {
        manager.says_times(said, ROUNDS);
        assert_eq!(manager.said(said), ROUNDS, "{said}");
    }
    assert_eq!(told::sessions(&manager.log()).len(), ROUNDS * ENDS.len(), "none is told twice");
    assert_eq!(children_of(manager.supervisor()).len(), 1, "all but the bystander's are reaped");
    // The count before may have held the other end of the bystander's mlet, which the manager was just about to close.
    wait_until("no descriptor is left", || manager.open_fds() <= fds);
    bystander.send(&message(NDATA, b"exit 0"));
    assert_eq!(bystander.receive(), Err(End::CloseNotify));
    bystander.close();
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    assert_says(
        &ended.stderr,
        &["301 sessions served", "mlets by exit code: 51 succeeded, 250 failed"],
    );
}

/// Promise P8: the log tells how long each ran. Theirs are the times between what the test sees
/// before and after their starts and ends; the first lives on while the second comes and goes.
#[test]
fn the_log_tells_once_how_long_each_mlet_ran() {
    /// The log has whole milliseconds.
    const GRAIN: Duration = Duration::from_millis(1);
    let home = Home::new();
    let manager = home.start(&["-n", "2"], &["obey"]);
    let dial = home.dial(&manager);
    let begin = |last| {
        let asked_for = Instant::now();
        let mut endpoint = dial.clone().from(last).session();
        endpoint.send(&message(NDATA, b"say"));
        endpoint.receive().unwrap();
        (endpoint, asked_for, Instant::now())
    };
    let end = |(mut endpoint, asked_for, seen): (Endpoint, Instant, Instant), order: &str| {
        // Not a wait for anything: this is how long it lives.
        thread::sleep(Duration::from_millis(200));
        let least = seen.elapsed();
        endpoint.send(&message(NDATA, order.as_bytes()));
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
        manager.says(&format!("{order} after").replace("exit", "exit code"));
        least - GRAIN..=asked_for.elapsed() + GRAIN
    };
    let first = begin(1);
    let second = begin(2);
    let second = end(second, "exit 5");
    let first = end(first, "exit 0");
    let ended = manager.ends();
    let told = told::sessions(&ended.stderr);
    let told: Vec<_> = told.iter().map(|told| (&*told.peer, &*told.mlet, told.run_time)).collect();
    let [
        ("127.0.0.2", "exit code 5", Some(of_second)),
        ("127.0.0.1", "exit code 0", Some(of_first)),
    ] = told[..]
    else {
        panic!("{told:?}");
    };
    assert!(first.contains(&of_first), "{of_first:?} is not in {first:?}");
    assert!(second.contains(&of_second), "{of_second:?} is not in {second:?}");
}

/// Item 87. The mlet of the original's user who has none: `true` ends before a byte is passed.
#[test]
fn a_mlet_that_ends_at_once_closes_its_session_at_once() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["-n", "20", "/bin/true"]);
    let manager = Manager::start(&home, command);
    let dial = home.dial(&manager);
    for _ in 0..20 {
        let mut endpoint = dial.session();
        let start = Instant::now();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    assert_says(
        &manager.ends().stderr,
        &["20 sessions served", "mlets by exit code: 20 succeeded"],
    );
}

/// Part of P9: what a mlet leaves behind in a session and group of its own ends with the run.
#[test]
fn an_orphan_that_left_its_group_and_ignores_term_ends_with_the_run() {
    let home = Home::new();
    let manager = home.start(&["--term-grace", "300ms"], &["parent"]);
    let mut endpoint = home.dial(&manager).session();
    let orphan: i32 = endpoint.text().parse().unwrap();
    endpoint.echoes(b"the mlet itself");
    endpoint.close();
    manager.says("mlet exit code 0");
    assert!(is_alive(orphan), "it is none of the session's business");
    assert_eq!(manager.interrupted().code, Some(0));
    assert!(!is_alive(orphan));
}
