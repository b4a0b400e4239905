//! What is used up, or taken away, while a run goes on: it costs who needs it, and nobody else, and is there again when the
//! want is over.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::thread;
use std::time::Duration;

use common::cgroup::{Cgroup, MEMORY_EVENTS, MEMORY_MAX, PROCESSES_MAX};
use common::endpoint::{Endpoint, NDATA, message};
use common::events::{Events, outcomes};
use common::manager::{
    Manager, children_of, cpu_time_of, is_alive, processes_in, set_limit, wait_until, zoo,
};
use common::{Home, assert_says};
use nix::sys::signal::Signal;

/// Tells the zoo's `obey` what to do.
fn order(endpoint: &mut Endpoint, order: &str) {
    endpoint.send(&message(NDATA, order.as_bytes()));
}

/// Looks for a second how much of a processor these processes take: hardly any, as all of them wait.
#[track_caller]
fn assert_they_wait(pids: &[i32]) {
    let times = || pids.iter().map(|pid| cpu_time_of(*pid)).collect::<Vec<_>>();
    let before = times();
    thread::sleep(Duration::from_secs(1));
    for (pid, (before, after)) in pids.iter().zip(before.into_iter().zip(times())) {
        let took = after - before;
        assert!(took < Duration::from_millis(200), "process {pid} took {took:?} in a second");
    }
}

/// Promises P9, P26: poll(2) refuses more descriptors than may be open, whatever is open already, and /proc cannot be read
/// without one that is free.
#[test]
fn helpers_that_may_open_nothing_any_more_neither_spin_nor_outlive_their_manager() {
    for allowed in [0, 1, 3] {
        let home = Home::new();
        let options = ["--tag", "--out", "results", "--term-grace", "300ms"];
        let manager = home.start(&options, &["parent"]);
        let dial = home.dial(&manager);
        let [mut first, mut second] = [(); 2].map(|()| dial.session());
        let orphan: i32 = first.text().parse().unwrap();
        second.text();
        let helpers = [manager.supervisor(), manager.recorder().unwrap()];
        for pid in helpers {
            set_limit(pid, "nofile", &format!("{allowed}:"));
        }
        // Their limit is in force: no other mlet can be started.
        let mut third = dial.session();
        manager.says("Too many open files");
        third.raw_rest().unwrap();
        assert_they_wait(&helpers);
        first.echoes(b"undisturbed");
        second.close();
        drop(second);
        manager.says("over: the endpoint closed; mlet exit code 0");
        assert!(is_alive(orphan));
        manager.signal(Signal::SIGKILL);
        assert_eq!(manager.ends().code, None);
        wait_until("all are gone", || processes_in(&home.path("")).is_empty());
    }
}

/// Promises P12, P26: whether a peer has gone behind bytes that nobody takes is seen by a look at its socket alone.
#[test]
fn a_manager_that_may_open_nothing_any_more_sees_that_an_endpoint_has_gone() {
    let home = Home::new();
    let limits = ["--drain-timeout", "500ms", "--linger-timeout", "300ms", "--term-grace", "100ms"];
    let manager = home.start(&limits, &["silent"]);
    let mut endpoint = home.dial(&manager).session();
    // More than the mlet's socket holds, and less than that and what the manager holds.
    endpoint.send(&message(NDATA, &[7; 460_000]));
    manager.says("is ready");
    wait_until("all has arrived", || endpoint.untaken_len() == 0);
    set_limit(manager.pid(), "nofile", "0:");
    let refused = home.dial(&manager).connect();
    manager.says("accepting pauses");
    endpoint.close();
    manager.says(" over: undelivered; mlet ");
    drop(refused);
}

/// Promise P26. Whom it strikes is told why, and what to do; others are served.
#[test]
fn processes_that_are_used_up_cost_the_sessions_whose_mlets_they_would_be() {
    let home = Home::new();
    let stranger = home.give_away();
    let mut command = home.command_of(stranger, "pktxpmgr");
    command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:", "--events", "events.jsonl"]);
    command.args(["./mlet-zoo", "echo"]);
    let manager = Manager::start(&home, command);
    outlives_want_of_processes(&home, &manager, |is_scarce| {
        // As many as there are already: a limit is compared with all that this user has.
        set_limit(manager.supervisor(), "nproc", if is_scarce { "1:" } else { "1000:" });
    });
    assert_eq!(manager.interrupted().code, Some(0));
}

/// The same by the limit of a cgroup, which applies to root as well.
#[test]
#[ignore = "needs root and a cgroup of its own"]
fn processes_of_a_cgroup_that_are_used_up_cost_the_sessions_whose_mlets_they_would_be() {
    let (home, group) = (Home::new(), Cgroup::with(PROCESSES_MAX));
    let zoo = zoo();
    let words = ["--events", "events.jsonl", zoo.to_str().unwrap(), "echo"];
    let manager = home.start_behind(&group.entering(), &words);
    outlives_want_of_processes(&home, &manager, |is_scarce| {
        group.write(PROCESSES_MAX, if is_scarce { 1 } else { 1000 });
    });
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A session goes on while the mlet of another cannot be started, and a third is served when there are processes again.
#[track_caller]
fn outlives_want_of_processes(home: &Home, manager: &Manager, are_scarce: impl Fn(bool)) {
    let dial = home.dial(manager);
    let mut bystander = dial.session();
    bystander.echoes(b"before");
    are_scarce(true);
    let mut refused = dial.session();
    let told = manager.says("the mlet could not be started");
    assert_says(&told, &["Resource temporarily unavailable", "ulimit -u", "pids.max"]);
    refused.raw_rest().unwrap();
    bystander.echoes(b"meanwhile");
    are_scarce(false);
    dial.is_served();
    bystander.close();
    drop(bystander);
    let sessions = Events::of(home).await_sessions(3);
    let refused = outcomes(&sessions).into_iter().filter(|outcome| *outcome == "spawn_failed");
    assert_eq!(refused.count(), 1);
}

/// Promise P26: of those that share a limit on memory the kernel kills the largest, which is a mlet that eats it.
#[test]
#[ignore = "needs root and a cgroup of its own"]
fn a_mlet_that_uses_up_the_memory_of_a_cgroup_ends_alone() {
    const MEMORY: usize = 256 << 20;
    let (home, group) = (Home::new(), Cgroup::with(MEMORY_MAX));
    group.write(MEMORY_MAX, MEMORY);
    group.forbid_swap(MEMORY);
    let zoo = zoo();
    let words = ["--cores", "1", "--events", "events.jsonl", zoo.to_str().unwrap(), "obey"];
    let manager = home.start_behind(&group.entering(), &words);
    let dial = home.dial(&manager);
    let [mut bystander, mut eater] = [(); 2].map(|()| dial.session());
    order(&mut bystander, "say");
    assert_eq!(bystander.text(), "say");
    assert_eq!(group.count(MEMORY_EVENTS, "oom_kill"), 0);
    order(&mut eater, &format!("eat {}", 2 * MEMORY));
    eater.read_to_end();
    drop(eater);
    manager.says("over: the mlet ended; mlet signal 9");
    assert_eq!(group.count(MEMORY_EVENTS, "oom_kill"), 1, "the limit was never reached");
    order(&mut bystander, "say");
    assert_eq!(bystander.text(), "say");
    assert_eq!(children_of(manager.supervisor()).len(), 1);
    dial.obeys();
    order(&mut bystander, "exit 0");
    bystander.read_to_end();
    drop(bystander);
    let sessions = Events::of(&home).await_sessions(3);
    let mut told = outcomes(&sessions);
    told.sort_unstable();
    assert_eq!(told, ["endpoint_closed", "mlet_signal", "ok"]);
    assert_eq!(manager.interrupted().code, Some(0));
}
