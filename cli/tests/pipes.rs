//! `--mlet-io pipe`: sessions over pipes beside the socket, with mlets that know them and with one that does not.
//!
//! The mlets are shell scripts, so that what a mlet has to do stands here: read descriptor 0 to its end, then 3, and write
//! to 4.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;

use common::endpoint::{End, NDATA, made_up, message};
use common::manager::{Manager, children_of, kill_hard, wait_until};
use common::{Home, assert_says};
use nix::sys::signal::Signal;

/// Sends back what comes, over the pipe, which it thereby chooses.
const PIPED_ECHO: &str = "exec >&4 4>&-; /bin/cat; exec /bin/cat <&3";
/// Knows of no pipes.
const SOCKET_ECHO: &str = "exec /bin/cat >&0";

fn start(home: &Home, script: &str) -> Manager {
    let mut command = home.command();
    command.args(["--mlet-io", "pipe", "/bin/sh", "-c", script]);
    Manager::start(home, command)
}

#[test]
fn what_goes_over_pipes_comes_whole_and_in_order_and_so_it_does_for_a_mlet_that_knows_none() {
    for script in [PIPED_ECHO, SOCKET_ECHO] {
        let home = Home::new();
        let manager = start(&home, script);
        let mut endpoint = home.dial(&manager).session();
        for (index, len) in [4, 60, 1_400, 70_000, 5, 300_000, 2_000_000, 9].into_iter().enumerate()
        {
            let payload = made_up(index, len);
            endpoint.send(&message(NDATA, &payload));
            assert!(endpoint.receive().unwrap() == (NDATA, payload), "message {index} of {script}");
        }
        endpoint.close();
        manager.says("mlet exit code 0");
        assert_eq!(manager.interrupted().code, Some(0));
    }
}

#[test]
fn all_that_a_mlet_wrote_to_its_pipe_is_delivered_though_it_has_ended() {
    let home = Home::new();
    // 100 messages of 10,000 zeros; more than a pipe holds.
    let script = "n=0; while [ $n -lt 100 ]; do printf '\\142\\000\\047\\020'; \
                  /usr/bin/head -c 10000 /dev/zero; n=$((n+1)); done >&4";
    let manager = start(&home, script);
    let mut endpoint = home.dial(&manager).session();
    for _ in 0..100 {
        assert!(endpoint.receive().unwrap() == (NDATA, vec![0; 10_000]));
    }
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    manager.says("mlet exit code 0");
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_mlet_reads_all_over_both_ways_and_then_the_end_when_its_endpoint_has_left() {
    // Chooses after 8 bytes, and tells how many came in all.
    let script = "/usr/bin/head -c 8 >&4; n=$({ /bin/cat; /bin/cat <&3; } | /usr/bin/wc -c); echo \"rest $n\"";
    let (first, rest) = (message(NDATA, b"once"), message(NDATA, &made_up(1, 600_000)));
    // When it chooses, nothing is on its way over the socket, or more than that holds.
    for (at_once, later) in [(first.clone(), rest.clone()), ([first, rest].concat(), Vec::new())] {
        let home = Home::new();
        let manager = start(&home, script);
        let mut endpoint = home.dial(&manager).session();
        endpoint.send(&at_once);
        assert_eq!(endpoint.receive().unwrap(), (NDATA, b"once".to_vec()));
        endpoint.send(&later);
        endpoint.close();
        manager.says("mlet exit code 0");
        let ended = manager.interrupted();
        assert_says(&ended.stdout, &["rest 600004"]);
    }
}

#[test]
fn a_forced_end_lets_a_mlet_read_the_end_of_its_pipe() {
    let home = Home::new();
    let script = "printf '\\142\\000\\000\\000' >&4; /bin/cat >/dev/null; /bin/cat <&3; echo it read the end";
    let manager = start(&home, script);
    let mut endpoint = home.dial(&manager).session();
    assert_eq!(endpoint.receive().unwrap(), (NDATA, Vec::new()));
    manager.signal(Signal::SIGINT);
    manager.says("no new endpoints");
    manager.signal(Signal::SIGINT);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(130));
    assert_says(&ended.stdout, &["it read the end"]);
    assert_says(&ended.stderr, &["mlet exit code 0"]);
}

#[test]
fn a_mlet_that_is_killed_ends_its_session_and_nothing_is_left_open() {
    let home = Home::new();
    let manager = start(&home, PIPED_ECHO);
    let before = manager.open_fds();
    for _ in 0..3 {
        let mut endpoint = home.dial(&manager).session();
        endpoint.echoes(b"over the pipe");
        assert_eq!(manager.open_fds(), before + 4, "two sockets and two pipes");
        let mlet = children_of(manager.supervisor())[0];
        // Until it has read the end of its socket a child of its shell does.
        wait_until("it reads its pipe", || children_of(mlet).is_empty());
        kill_hard(mlet);
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
        wait_until("nothing is left of it", || {
            manager.open_fds() == before && children_of(manager.supervisor()).is_empty()
        });
    }
    assert_says(&manager.interrupted().stderr, &["mlet signal 9"]);
}

#[test]
fn pipes_are_closed_that_a_mlet_does_not_use() {
    let home = Home::new();
    let manager = start(&home, SOCKET_ECHO);
    let before = manager.open_fds();
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"over the socket");
    wait_until("its pipes are closed", || manager.open_fds() == before + 2);
    endpoint.echoes(b"and again");
    endpoint.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A child that holds the pipes of a mlet that does not use them is nothing to its session.
#[test]
fn a_session_over_the_socket_ends_with_it_though_somebody_holds_its_pipes() {
    let home = Home::new();
    let manager = start(&home, "/bin/sleep 1000 <&- >/dev/null 2>&1 &");
    let mut endpoint = home.dial(&manager).session();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    manager.says("mlet exit code 0");
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_mlet_is_told_of_its_pipes_and_has_nothing_else_that_others_do_not_have() {
    let home = Home::new();
    let script = "{ echo \"$PKTLAB_PIPES\"; /bin/ls /proc/self/fd; } >list; exec /bin/cat >&0";
    let manager = start(&home, script);
    home.dial(&manager).session().echoes(b"it has been written");
    let list = fs::read_to_string(home.path("list")).unwrap();
    assert_eq!(list, "3,4\n0\n1\n2\n3\n4\n5\n");
    assert_says(&manager.interrupted().stderr, &["(4 of "]);
}

/// Whoever has no rights has 64 MiB of pipes, as Linux has it by itself.
#[test]
fn a_user_without_rights_is_told_for_how_many_mlets_there_are_pipes() {
    let limit = fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap();
    let mlets = limit.trim().parse::<usize>().unwrap() / 128;
    let home = Home::new();
    let stranger = home.give_away();
    let mut command = home.command_of(stranger, "pktxpmgr");
    command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:", "--mlet-io", "pipe"]);
    command.args(["/bin/sh", "-c", PIPED_ECHO]);
    let manager = Manager::start(&home, command);
    manager.says(&format!("pipes for {mlets} mlets at once"));
    home.dial(&manager).session().echoes(b"over its pipe");
}
