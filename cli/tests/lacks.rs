//! What the machine lacks: a run that cannot be is not begun, and the reason names the call or the limit and what to do
//! about it. What can be done in another way is.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::cgroup::{Cgroup, PROCESSES_MAX};
use common::dump::{Contract, Dump};
use common::manager::{Manager, example, wait_until, zoo};
use common::{Ended, Home, PKTXPMGR, assert_says, run};
use nix::libc;

/// Exits with the code for what the machine lacks, before anybody is let in, and says so.
#[track_caller]
fn assert_lacks(ended: &Ended, said: &[&str]) {
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(!ended.stderr.contains("listening on"), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    assert_says(last, &["pktxpmgr: FATAL: "]);
    assert_says(last, said);
}

/// Waits until the manager lets endpoints in, or has given up.
fn lets_in(manager: &Manager) -> bool {
    wait_until("it listens or gives up", || {
        manager.said("listening on ") + manager.said("FATAL") > 0
    });
    manager.said("FATAL") == 0
}

/// A `pktxpmgr` in which this call is barred, and which inherits a descriptor that is not for mlets.
fn barred(home: &Home, call: libc::c_long, errno: i32, mlet: &str) -> Manager {
    barred_with(home, call, errno, &[], mlet)
}

fn barred_with(
    home: &Home,
    call: libc::c_long,
    errno: i32,
    options: &[&str],
    mlet: &str,
) -> Manager {
    let script = "exec 9</dev/null; exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).arg(example("barred"));
    command.args([&call.to_string(), &errno.to_string(), PKTXPMGR]);
    command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:"]).args(options).arg(zoo()).arg(mlet);
    command.current_dir(home.path("")).env_clear();
    Manager::spawn(home, command)
}

/// Both ways in which sandboxes bar a call.
const WAYS: [i32; 2] = [libc::EPERM, libc::ENOSYS];

#[test]
fn a_call_without_which_nothing_runs_is_named_before_anybody_is_let_in() {
    let home = Home::new();
    let calls: &[(&str, libc::c_long)] = &[
        ("socketpair", libc::SYS_socketpair),
        ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
        ("signalfd4", libc::SYS_signalfd4),
        ("eventfd2", libc::SYS_eventfd2),
        ("epoll_create1", libc::SYS_epoll_create1),
        // Others have epoll_pwait alone.
        #[cfg(target_arch = "x86_64")]
        ("epoll_wait", libc::SYS_epoll_wait),
        ("sched_getaffinity", libc::SYS_sched_getaffinity),
        ("socket", libc::SYS_socket),
        ("setpgid", libc::SYS_setpgid),
        ("prctl", libc::SYS_prctl),
        ("wait4", libc::SYS_wait4),
        ("getpeername", libc::SYS_getpeername),
    ];
    for &(name, call) in calls {
        for errno in WAYS {
            let ended = barred(&home, call, errno, "echo").ends();
            assert_lacks(&ended, &[name, "seccomp profile"]);
        }
    }
}

#[test]
fn a_call_that_an_option_takes_is_named_before_anybody_is_let_in() {
    let home = Home::new();
    let calls: [(&[&str], &str, libc::c_long); 5] = [
        (&["--io", "epoll"], "accept4", libc::SYS_accept4),
        (&["--metrics", "0"], "listen for --metrics", libc::SYS_setsockopt),
        (&["--metrics", "0"], "listen for --metrics", libc::SYS_listen),
        (&["--metrics", "0"], "listen for --metrics", libc::SYS_eventfd2),
        (&["--ctl", "ctl.sock"], "listen for --ctl", libc::SYS_fchmod),
    ];
    for (options, name, call) in calls {
        for errno in WAYS {
            let ended = barred_with(&home, call, errno, options, "echo").ends();
            assert_lacks(&ended, &[name, "seccomp profile"]);
        }
    }
}

/// The calls of io_uring. `io_uring_enter` may be barred where the others are not.
const IO_URING: [(&str, libc::c_long); 3] = [
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
];

#[test]
fn where_io_uring_is_barred_epoll_serves_and_the_log_says_why_and_what_to_do() {
    let home = Home::new();
    for (name, call) in IO_URING {
        for errno in WAYS {
            let contract = Contract::behind("", &home);
            let mut manager = barred_with(&home, call, errno, &["--io", "auto"], "dump");
            manager.await_listening();
            assert_eq!(manager.rings(), 0);
            let said = manager.says("io_uring cannot be used");
            assert_says(&said, &["WARN", name, "seccomp profile", "epoll"]);
            assert_eq!(manager.said("io_uring cannot be used"), 1, "said once, whatever follows");
            contract.is_kept(&Dump::of(&home.dial(&manager)));
            assert_eq!(manager.interrupted().code, Some(0));
        }
    }
}

#[test]
fn who_asks_for_io_uring_gets_it_or_nothing_and_for_epoll_no_ring() {
    let home = Home::new();
    for (name, call) in IO_URING {
        let ended = barred_with(&home, call, libc::EPERM, &["--io", "uring"], "echo").ends();
        assert_lacks(&ended, &[name, "seccomp profile"]);
    }
    for (io, is_uring) in [("auto", true), ("uring", true), ("epoll", false)] {
        let mut manager = home.start(&["--io", io, "--cores", "1"], &["echo"]);
        manager.await_listening();
        assert_eq!(manager.rings() > 0, is_uring, "{io}");
        assert_eq!(manager.said("epoll"), 0, "nobody is warned of what was asked for");
        manager.interrupted();
    }
}

/// The C library takes an older call where this one is unknown, but not where it is forbidden.
#[test]
fn clone3_is_needed_where_it_is_forbidden_and_not_where_it_is_unknown() {
    let home = Home::new();
    let ended = barred(&home, libc::SYS_clone3, libc::EPERM, "echo").ends();
    assert_lacks(&ended, &["clone3", "Operation not permitted", "seccomp profile"]);
    is_served_without(&home, libc::SYS_clone3, libc::ENOSYS);
}

/// A mlet gets what its contract says, whichever of these calls is barred.
#[test]
fn calls_for_which_there_is_another_are_not_missed() {
    let home = Home::new();
    let calls = [
        libc::SYS_close_range,
        libc::SYS_faccessat2,
        libc::SYS_faccessat,
        libc::SYS_pidfd_open,
        libc::SYS_mlock,
        libc::SYS_umask,
    ];
    for call in calls {
        for errno in WAYS {
            is_served_without(&home, call, errno);
        }
    }
}

#[track_caller]
fn is_served_without(home: &Home, call: libc::c_long, errno: i32) {
    let contract = Contract::behind("", home);
    let mut manager = barred_with(home, call, errno, &["--ctl", "ctl.sock"], "dump");
    manager.await_listening();
    contract.is_kept(&Dump::of(&home.dial(&manager)));
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A manager of somebody without rights, to whom the limits apply that this script sets.
fn limited(home: &Home, stranger: Option<u32>, script: &str) -> Manager {
    let mut shell = home.command_of(stranger, "/bin/sh");
    let script = format!("{script}; exec ./pktxpmgr -c xpmgr.conf -a 127.0.0.1: \"$@\"");
    shell.args(["-c", &script, "sh", "--cores", "1"]).args(["./mlet-zoo", "echo"]);
    Manager::spawn(home, shell)
}

/// Begins runs with ever more of what a limit allows, until one serves an endpoint. Those before it name the limit and
/// let nobody in; `least` of them must, or the limit did not hold.
#[track_caller]
fn rises_until_served(
    home: &Home,
    allowed: Range<usize>,
    least: usize,
    said: &[&str],
    begin: impl Fn(usize) -> Manager,
) {
    let most = allowed.end;
    for (refused, allowed) in allowed.enumerate() {
        let mut manager = begin(allowed);
        if lets_in(&manager) {
            assert!(refused >= least, "only {refused} runs lacked anything");
            manager.await_listening();
            home.dial(&manager).is_served();
            return;
        }
        assert_lacks(&manager.ends(), said);
    }
    panic!("not even {most} are enough");
}

const PROCESSES: [&str; 2] = ["ulimit -u", "pids.max"];

/// Each step of the start, and the first mlet, lacks processes once: a manager, a supervisor and threads take them.
#[test]
fn too_few_processes_are_noticed_at_the_start() {
    let home = Home::new();
    let stranger = home.give_away();
    rises_until_served(&home, 1..20, 3, &PROCESSES, |allowed| {
        // Shells do not agree on its name.
        let set = format!("ulimit -u {allowed} 2>/dev/null || ulimit -p {allowed}");
        limited(&home, stranger, &set)
    });
}

/// The same limit of a cgroup, which applies to root as well.
#[test]
#[ignore = "needs root and a cgroup of its own"]
fn too_few_processes_of_a_cgroup_are_noticed_at_the_start() {
    let home = Home::new();
    let group = Cgroup::with(PROCESSES_MAX);
    rises_until_served(&home, 1..20, 3, &PROCESSES, |allowed| {
        group.write(PROCESSES_MAX, allowed);
        let zoo = zoo();
        home.spawn_behind(&group.entering(), &["--cores", "1", zoo.to_str().unwrap(), "echo"])
    });
}

#[test]
fn too_little_locked_memory_is_noticed_at_the_start_and_epoll_needs_none() {
    let home = Home::new();
    let stranger = home.give_away();
    for kibibytes in [0, 64, 90] {
        let limit = |io: &str| format!("ulimit -l {kibibytes}; export PKTXPMGR_IO={io}");
        let manager = limited(&home, stranger, &limit("uring"));
        assert_lacks(&manager.ends(), &["io_uring", "ulimit -l"]);
        let mut manager = limited(&home, stranger, &limit("auto"));
        manager.await_listening();
        assert_eq!(manager.rings(), 0);
        assert_says(&manager.says("io_uring cannot be used"), &["WARN", "ulimit -l", "epoll"]);
        home.dial(&manager).session().echoes(b"heard");
        assert_eq!(manager.interrupted().code, Some(0));
    }
}

/// Otherwise an allocation that fails ends the process by SIGABRT, without a word of ours.
#[test]
fn too_little_memory_is_noticed_at_the_start() {
    let home = Home::new();
    let stranger = home.give_away();
    rises_until_served(&home, 4..40, 5, &["get the memory of a run", "ulimit -d"], |mebibytes| {
        limited(&home, stranger, &format!("ulimit -d {}", mebibytes << 10))
    });
}

#[test]
fn too_few_open_files_are_noticed_at_the_start() {
    let home = Home::new();
    let stranger = home.give_away();
    rises_until_served(&home, 4..60, 7, &["ulimit -n"], |allowed| {
        limited(&home, stranger, &format!("ulimit -n {allowed}"))
    });
}

/// Another program does not have these: who may not listen there is not told to look for one.
#[test]
fn an_address_that_is_barred_is_not_taken_for_one_that_is_in_use() {
    let home = Home::new();
    let stranger = home.give_away();
    let folder = home.path("barred-folder");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    for [option, address] in
        [["--metrics", "unix:barred-folder/run.sock"], ["--ctl", "barred-folder/run.sock"]]
    {
        let mut command = home.command_of(stranger, "pktxpmgr");
        command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:", option, address, "/bin/cat"]);
        let ended = run(&mut command);
        assert_eq!(ended.code, Some(4), "{}", ended.stderr);
        assert_says(&ended.stderr, &["Permission denied", "choose a path in a folder of yours"]);
        assert!(!ended.stderr.contains("end the program"), "{}", ended.stderr);
    }
}
