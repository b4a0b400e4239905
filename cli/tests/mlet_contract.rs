//! What a mlet finds when it is started, and what becomes of one that ends, in whatever way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::dump::Dump;
use common::endpoint::{Dial, End, Identity, NDATA, message};
use common::manager::{Manager, children_of, is_alive, wait_until, zoo};
use common::{Home, PKTXPMGR, assert_says};
use nix::sys::resource::{Resource, getrlimit};

/// Items 79, 80.
#[test]
fn a_mlet_gets_its_session_four_variables_and_nothing_else() {
    let home = Home::new();
    // As a shell with a lower limit, a variable and an open descriptor would start it.
    let script = "ulimit -S -n 256; exec 9</dev/null; exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, PKTXPMGR, "-c", "xpmgr.conf", "-a", "127.0.0.1:"]);
    command.arg(zoo()).args(["dump"]).current_dir(home.path("")).env("SURPLUS", "1");
    let manager = Manager::start(&home, command);
    let identity = Identity::of(&home.keys.operator);
    let dump = Dump::of(&Dial::to(manager.address).with(&identity));

    assert_eq!(dump.fds(), ["0", "1", "2"]);
    assert!(dump.all("fd").iter().any(|fd| fd.starts_with("0 socket:")), "{:?}", dump.all("fd"));
    assert_eq!((dump.one("blocking"), dump.one("unix")), ("true", "stream true"));
    let mut environment = dump.all("env").to_vec();
    environment.sort_unstable();
    let key = identity.chain[0].subject_key_id;
    let expected = [
        "EPADDR=127.0.0.1".to_owned(),
        format!("PKTLAB_ENDPOINT_KEY={key}"),
        environment[2].clone(),
        "PKTLAB_SNIKEY=hello".to_owned(),
    ];
    assert_eq!(environment, expected);
    let session = environment[2].strip_prefix("PKTLAB_SESSION=").unwrap();
    manager.says(&format!("session={session}"));
    assert_eq!(dump.all("arg"), ["mlet-zoo", "dump"]);
    assert_eq!(dump.one("pgid"), dump.one("pid"));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(dump.one("nofile"), format!("256 {hard}"));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(dump.one("cpus"), cpus.trim(), "not the one core of its shard");
    let folder = home.path("").canonicalize().unwrap();
    assert_eq!(dump.one("cwd"), folder.to_str().unwrap());
}

/// Item 80.
#[test]
fn mlets_that_start_at_the_same_moment_inherit_nothing_of_one_another() {
    let home = Home::new();
    let manager = home.start(&[], &["dump"]);
    let dial = home.dial(&manager);
    let dumps: Vec<Dump> = thread::scope(|scope| {
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(|| Dump::of(&dial))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sessions = Vec::new();
    for dump in &dumps {
        assert_eq!(dump.fds(), ["0", "1", "2"]);
        sessions.extend(dump.all("env").iter().filter(|pair| pair.starts_with("PKTLAB_SESSION=")));
    }
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 64, "every session has a number of its own");
    assert_says(&manager.interrupted().stderr, &["64 sessions served", "64 mlets succeeded"]);
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

/// Item 81. Not asked of the zoo, for Rust programs ignore SIGPIPE by themselves.
#[test]
fn sigpipe_is_ignored_and_no_other_signal_is_touched() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["-n", "1", "/bin/cat", "/proc/self/status"]);
    let manager = Manager::start(&home, command);
    let mut endpoint = home.dial(&manager).session();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    let set = |name: &str| {
        let line = ended.stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        // 32 and 33 are the C library's own.
        u64::from_str_radix(line.trim(), 16).unwrap() & !(0b11 << 31)
    };
    assert_eq!(set("SigIgn:"), 1 << (13 - 1));
    assert_eq!((set("SigBlk:"), set("SigCgt:")), (0, 0));
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
    let script = "exec \"$0\" \"$@\" <&-";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, PKTXPMGR, "-c", "xpmgr.conf", "-a", "127.0.0.1:"]);
    command.arg(zoo()).arg("echo").current_dir(home.path("")).env_clear().stdin(Stdio::null());
    let manager = Manager::start(&home, command);
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
    manager.says("the mlet could not be started: No such file");
    fs::rename(home.path("away"), home.path("mlet")).unwrap();
    dial.is_served();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["2 sessions served", "1 mlets succeeded, 1 failed"]);
}

/// How a mlet of the zoo ends when told so, and what the log says of it.
const ENDS: [(&str, &str); 6] = [
    ("exit 0", "mlet exit code 0"),
    ("exit 3", "mlet exit code 3"),
    ("exit 255", "mlet exit code 255"),
    ("signal 11", "mlet killed by signal 11"),
    ("signal 6", "mlet killed by signal 6"),
    ("signal 9", "mlet killed by signal 9"),
];

fn session_ending_so(dial: &Dial, order: &str) {
    let mut endpoint = dial.session();
    endpoint.send(&message(NDATA, order.as_bytes()));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify), "{order}");
    endpoint.close();
}

/// Item 89, and promise P8: some hundred mlets, eight at a time, beside a session that lives through
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
    assert_eq!(children_of(manager.supervisor()).len(), 1, "all but the bystander's are reaped");
    wait_until("no descriptor is left", || manager.open_fds() == fds);
    bystander.send(&message(NDATA, b"exit 0"));
    assert_eq!(bystander.receive(), Err(End::CloseNotify));
    bystander.close();
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["301 sessions served", "51 mlets succeeded, 250 failed"]);
}

/// Item 90. The mlet of the original's user who has none: `true` ends before a byte is passed.
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
    assert_says(&manager.ends().stderr, &["20 sessions served", "20 mlets succeeded"]);
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
