//! The log, where it could stand in somebody's way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Home;
use common::endpoint::{Dial, End, Endpoint, Identity, LINFO, START, message};
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

/// Issue 11: what endpoints log without end, each byte of which takes six in the log, costs no session its start and the
/// manager no memory; what was left out is told to the last LINFO.
#[test]
fn endpoints_that_flood_the_log_neither_slow_others_nor_fill_memory_nor_the_log() {
    const PER_SECOND: usize = 256 << 10;
    let home = Home::new();
    let options = ["--linfo-rate-max", "64k", "--linfo-rate-total", "256k"];
    let manager = home.start(&options, &["echo"]);
    let dial = home.dial(&manager);
    dial.is_served();
    let (memory, lines) = (manager.memory_kib(), manager.log().len());
    let start = Instant::now();
    let (slowest, sent) = beside_floods(&dial, 0x1b, |_| {
        let starts = (0..40).map(|_| time(|| dial.is_served()));
        starts.max().unwrap()
    });
    let seconds_begun = start.elapsed().as_secs() as usize + 1;
    assert!(slowest < Duration::from_secs(2), "a session took {slowest:?} beside the floods");
    manager.says_times(" LINFOs lost", FLOODS);
    let grown = manager.memory_kib().saturating_sub(memory);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    // Other lines, and what is on top of a LINFO's text, are in the slack.
    let written = manager.log().len() - lines;
    assert!(written <= PER_SECOND * seconds_begun + (64 << 10), "{written} in {seconds_begun} s");
    let logged = manager.said("endpoint logs");
    assert!(logged >= FLOODS, "only {logged} are logged");
    let told = linfos_lost(&manager.log(), " 127.0.0.1 over: ");
    assert_eq!(logged + told, sent, "{logged} logged, {told} told to be lost");
    let ended = manager.interrupted();
    assert_eq!(linfos_lost(&ended.stderr, "run over: "), told);
}

/// The same while nobody reads the log, and with more of it than the log has room for.
#[test]
fn endpoints_that_flood_a_log_that_nobody_reads_fill_no_memory() {
    let home = Home::new();
    let options = ["--linfo-rate-max", "1g", "--linfo-rate-total", "1g"];
    let manager = home.start(&options, &["echo"]);
    let dial = home.dial(&manager);
    dial.is_served();
    manager.says(" over: ");
    let memory = manager.memory_kib();
    let held = manager.hold_log();
    let ((slowest, grown), _) = beside_floods(&dial, b'x', |sent| {
        wait_until("the log is full", || is_full(&manager));
        // Many times what may wait in it; each MiB has its time, as all of it takes long on a busy machine.
        for mib in 1..=32 {
            wait_until("they flood", || sent.load(Ordering::Relaxed) * LINFO_LEN > mib << 20);
        }
        let starts = (0..40).map(|_| time(|| dial.is_served()));
        let slowest = starts.max().unwrap();
        (slowest, manager.memory_kib().saturating_sub(memory))
    });
    drop(held);
    assert!(slowest < Duration::from_secs(5), "a session took {slowest:?} beside the floods");
    assert!(grown < 16 * 1024, "{grown} KiB more");
    manager.says("log lines are lost: nobody read them in time");
    dial.is_served();
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("run over: 46 sessions served"), "the last line is not lost");
}

const FLOODS: usize = 4;

/// Bytes of a flood's LINFOs.
const LINFO_LEN: usize = 60_000;

/// Does something while endpoints send LINFOs of this character, whose number it sees grow, and ends them; returns how
/// many they sent.
fn beside_floods<T>(
    dial: &Dial,
    character: u8,
    work: impl FnOnce(&AtomicUsize) -> T,
) -> (T, usize) {
    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut floods: Vec<Endpoint> = (0..FLOODS).map(|_| dial.session()).collect();
    let result = thread::scope(|scope| {
        // Also when the work panics, for the scope waits for its threads.
        let _over = Over(&is_over);
        for flood in &mut floods {
            scope.spawn(|| {
                let lens = [0, 0, LINFO_LEN as u32].map(u32::to_be_bytes).concat();
                let linfo = message(LINFO, &[&lens[..], &[character; LINFO_LEN]].concat());
                while !is_over.load(Ordering::Relaxed) {
                    flood.send(&linfo);
                    sent.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(5));
                }
                flood.echoes(b"all of them have passed");
            });
        }
        work(&sent)
    });
    for flood in &mut floods {
        flood.close();
    }
    (result, sent.into_inner())
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// How many LINFOs are told to be lost in lines with this text.
fn linfos_lost(log: &str, part: &str) -> usize {
    let lines = log.lines().filter(|line| line.contains(part));
    let counts = lines.filter_map(|line| {
        line.split_once(" LINFOs lost")?.0.rsplit(' ').next()?.parse::<usize>().ok()
    });
    counts.sum()
}

/// Issue 11: of many alike five a second are shown, and the others are told by their number when no more come, and at
/// the end of the run.
#[test]
fn connections_whose_end_is_not_shown_are_counted_after_a_second_and_at_the_end() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let dial = home.dial(&manager);
    let sockets = manager.open_sockets();
    let drop_some = |count: usize| {
        let mut endpoints: Vec<Endpoint> = (0..count).map(|_| dial.connect()).collect();
        for endpoint in &mut endpoints {
            endpoint.send_raw(b"\x16\x03\x01\x00\x05hello");
        }
        for mut endpoint in endpoints {
            // An alert, and the end.
            endpoint.raw_rest().unwrap();
        }
        wait_until("they are dropped", || manager.open_sockets() == sockets);
    };
    drop_some(40);
    manager.says("dropped connections: ");
    assert_eq!(all_dropped(&manager.log()), 40);
    drop_some(30);
    let ended = manager.interrupted();
    assert!(ended.stderr.contains("70 connections failed in set-up"), "{}", ended.stderr);
    assert_eq!(all_dropped(&ended.stderr), 70, "{}", ended.stderr);
}

/// Those that are shown, and those that are told not to be.
fn all_dropped(log: &str) -> usize {
    let shown = log.matches("dropped 127.0.0.1").count();
    let lines = log.lines().filter_map(|line| line.split_once(" more like it not shown"));
    let counts =
        lines.filter_map(|(before, _)| before.rsplit([' ', '(']).next()?.parse::<usize>().ok());
    shown + counts.sum::<usize>()
}

/// The same for connections that a source may not have.
#[test]
fn refused_connections_that_are_not_shown_are_counted() {
    let home = Home::new();
    let manager = home.start(&["--cores", "1", "--per-source-max", "1"], &["echo"]);
    let dial = home.dial(&manager);
    let crowd: Vec<Endpoint> = (0..31).map(|_| dial.connect()).collect();
    let told = manager.says("refused connections: ");
    assert!(told.contains("25 more like it not shown"), "{told}");
    assert_eq!(manager.said("refused 127.0.0.1"), 5);
    drop(crowd);
}

/// Issue 11: whom its key is known of is named when it is dropped.
#[test]
fn a_dropped_endpoint_that_has_shown_its_certificate_is_named_by_its_key() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let identity = Identity::of(&home.keys.operator);
    let mut endpoint = Dial::to(manager.address).with(&identity).handshake();
    assert_eq!(endpoint.receive().unwrap(), (START, Vec::new()));
    endpoint.send(&[0x40, 0, 0, 2, 0, 1]);
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    drop(endpoint);
    let told = manager.says("dropped 127.0.0.1");
    let key = identity.key.public_key().key_id().short();
    assert!(told.contains(&format!(" s, key {key}: the endpoint refused START")), "{told}");
    home.dial(&manager).connect().send_raw(b"no TLS, so no certificate");
    let told = manager.says_times("dropped 127.0.0.1", 2);
    assert!(!told.contains("key"), "{told}");
}

/// Whether the pipe behind its stderr takes no more.
fn is_full(manager: &Manager) -> bool {
    let stderr = format!("/proc/{}/fd/2", manager.pid());
    let mut stderr = File::options().write(true).custom_flags(O_NONBLOCK).open(stderr).unwrap();
    stderr.write(b"\n").is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
