//! What is used up, or taken away, while a run goes on: it costs who needs it, and nobody else, and is there again when the
//! want is over.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::thread;
use std::time::Duration;

use common::Home;
use common::manager::{cpu_time_of, is_alive, processes_in, set_limit, wait_until};
use nix::sys::signal::Signal;

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
