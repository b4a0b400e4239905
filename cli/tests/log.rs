//! The log, where it could stand in somebody's way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use common::Home;
use common::endpoint::{LINFO, message};
use common::manager::{Manager, is_alive, wait_until};
use nix::libc::O_NONBLOCK;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `pktxpmgr 2>&1 | less`, or a terminal that Ctrl-S has stopped.
#[test]
fn a_log_that_nobody_reads_holds_up_no_mlet_and_not_the_end() {
    let home = Home::new();
    let manager = home.start(&["--linfos-per-second", "1000"], &["echo"]);
    let dial = home.dial(&manager);
    let mut chatty = dial.session();
    manager.says("is ready");
    let held = manager.hold_log();
    let linfo = message(LINFO, &[b"\x04name\0\0\0\0".as_slice(), &[b'x'; 10_000]].concat());
    for _ in 0..30 {
        chatty.send(&linfo);
        chatty.echoes(b"passed");
    }
    wait_until("the log is full", || is_full(&manager));
    dial.is_served();
    chatty.echoes(b"still here");
    chatty.close();
    drop(chatty);
    let start = Instant::now();
    kill(Pid::from_raw(manager.pid()), Signal::SIGINT).unwrap();
    wait_until("it ends", || !is_alive(manager.pid()));
    let took = start.elapsed();
    assert!(took > Duration::from_secs(4), "it gave the reader no time: {took:?}");
    drop(held);
    assert_eq!(manager.ends().code, Some(0));
}

/// Whether the pipe behind its stderr takes no more.
fn is_full(manager: &Manager) -> bool {
    let stderr = format!("/proc/{}/fd/2", manager.pid());
    let mut stderr = File::options().write(true).custom_flags(O_NONBLOCK).open(stderr).unwrap();
    stderr.write(b"\n").is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
