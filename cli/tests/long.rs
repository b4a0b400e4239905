//! The promises at full size, for a machine that has time: docs/reliability.md says how to
//! run them and what they gave. Each prints its figures. Small versions run with the other tests.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "long/soak.rs"]
mod soak;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::churn::{self, Holdings, KINDS};
use common::crowd;
use common::dump::{Contract, Dump};
use common::endpoint::{Dial, End, NDATA, message};
use common::manager::{Manager, children_of, wait_until, zombies, zoo};
use common::tail::a_slow_endpoint_gets_every_byte;
use common::{Home, told};
use engine::sys::limits::raise_open_files;

/// Promises P5, P6. Memory is told by the page, and the allocator keeps some, so a leak shows by how often it
/// happens: in the second half of the mixed sessions from 52 bytes a session on, in the second half of those that
/// are all broken from 5.2 KiB on in a single one of their kinds. `LEAKS_HALF` is half of the mixed ones.
#[test]
fn twenty_thousand_sessions_a_tenth_of_them_broken_leave_nothing() {
    /// A hundred of each kind.
    const BROKEN_HALF: usize = 100 * KINDS;
    /// What two looks at a quiet manager may differ by: pages that the allocator keeps or returns.
    const NOISE_KIB: usize = 512;
    let half = std::env::var("LEAKS_HALF").map_or(10_000, |text| text.parse().unwrap());
    let (home, manager) = churn::start();
    let dial = home.dial(&manager);
    churn::churn(&dial, KINDS * 10, 10);
    wait_until("the mlets are gone", || children_of(manager.supervisor()).is_empty());
    let before = Holdings::at_rest(&manager, Duration::from_millis(1500));
    for (sessions, every) in [(half, 10), (BROKEN_HALF, 1)] {
        let start = Instant::now();
        let memory = [(); 2].map(|()| {
            churn::churn(&dial, sessions, every);
            before.are_back(&manager);
            manager.memory_kib()
        });
        println!(
            "leaks: {} sessions, one of {every} broken, in {:.0?}; held before and after: {before:?}; \
             RssAnon after the first half {} KiB, after the second {} KiB (noise {NOISE_KIB} KiB)",
            2 * sessions,
            start.elapsed(),
            memory[0],
            memory[1]
        );
        assert!(memory[1] <= memory[0] + NOISE_KIB);
    }
    dial.obeys();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// How mlets of the storm end when told so, and what the log says of it.
const ENDS: [(&str, &str); 8] = [
    ("exit 0", "mlet exit code 0"),
    ("exit 1", "mlet exit code 1"),
    ("exit 255", "mlet exit code 255"),
    ("signal 11", "mlet signal 11"),
    ("signal 6", "mlet signal 6"),
    ("signal 8", "mlet signal 8"),
    ("signal 9", "mlet signal 9"),
    ("signal 15", "mlet signal 15"),
];

/// Promise P8. The manager runs one program, so those that cannot be executed have managers of their
/// own, and get a tenth of the storm each.
#[test]
fn ten_thousand_crashes_at_five_hundred_a_second_are_each_reported_once() {
    const COUNT: usize = 10_000;
    const INTERVAL: Duration = Duration::from_millis(2);
    /// Crashes in a second that must be reached; 500 are asked for.
    const RATE_MIN: usize = 475;
    /// What may end in the 100 ms until it is reaped.
    const ZOMBIES_MAX: usize = 50;
    let homes = [Home::new(), Home::new(), Home::new()];
    let mut options = homes[0].command();
    options.arg(zoo()).arg("obey");
    let managers = [
        Manager::start(&homes[0], options),
        with_mlet(&homes[1], b"#!/no/such/interpreter\n", 0o755),
        with_mlet(&homes[2], b"#!/bin/sh\n", 0o644),
    ];
    let dials = [0, 1, 2].map(|index| homes[index].dial(&managers[index]));
    let supervisor = managers[0].supervisor();
    let (zombies_max, looks) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                zombies_max.fetch_max(zombies(supervisor), Ordering::Relaxed);
                looks.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let storm = (0..16).map(|_| {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= COUNT {
                        break;
                    }
                    let due = INTERVAL * u32::try_from(number).unwrap();
                    thread::sleep(due.saturating_sub(start.elapsed()));
                    crash(&dials, number);
                }
            })
        });
        let storm: Vec<_> = storm.collect();
        storm.into_iter().for_each(|thread| thread.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
    });
    let took = start.elapsed();
    let (zombies_max, looks) = (zombies_max.into_inner(), looks.into_inner());
    println!(
        "storm: {COUNT} in {took:.1?}, {:.0} a second (asked for 500); at most {zombies_max} zombies at any \
         of {looks} looks",
        COUNT as f64 / took.as_secs_f64()
    );
    assert!(took.as_secs_f64() * RATE_MIN as f64 <= COUNT as f64, "fewer than {RATE_MIN} a second");
    assert!(looks >= 100 && zombies_max <= ZOMBIES_MAX, "{zombies_max} zombies at {looks} looks");
    for manager in &managers {
        wait_until("no child is left", || children_of(manager.supervisor()).is_empty());
    }
    let expected = ENDS.iter().map(|(_, said)| ((*said).to_owned(), COUNT / 10)).collect();
    let [obedient, no_interpreter, not_executable] = managers;
    assert_eq!(reported(obedient), expected);
    let only = |said: &str| BTreeMap::from([(said.to_owned(), COUNT / 10)]);
    assert_eq!(
        reported(no_interpreter),
        only("mlet not started: No such file or directory (os error 2)")
    );
    assert_eq!(reported(not_executable), only("mlet not started: Permission denied (os error 13)"));
}

/// A manager whose mlet is replaced by this once it listens.
fn with_mlet(home: &Home, bytes: &[u8], mode: u32) -> Manager {
    let mut command = home.command();
    command.arg("./mlet");
    let manager = Manager::start(home, command);
    home.write("other", bytes);
    fs::set_permissions(home.path("other"), fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(home.path("other"), home.path("mlet")).unwrap();
    manager
}

fn crash(dials: &[Dial; 3], number: usize) {
    let kind = number % 10;
    let dial = &dials[kind.saturating_sub(ENDS.len() - 1)];
    let mut endpoint = dial.session();
    if let Some((order, _)) = ENDS.get(kind) {
        endpoint.send(&message(NDATA, order.as_bytes()));
    }
    assert_eq!(endpoint.receive(), Err(End::CloseNotify), "number {number}");
    endpoint.close();
}

/// Ends the run; how often its log tells of each end of a mlet. No session has two.
fn reported(manager: Manager) -> BTreeMap<String, usize> {
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    let mut counts = BTreeMap::new();
    for told in told::sessions(&ended.stderr) {
        *counts.entry(format!("mlet {}", told.mlet)).or_default() += 1;
    }
    counts
}

/// Promise P15, items 79, 80.
#[test]
fn sixty_four_spawns_at_once_a_thousand_times_keep_the_mlet_contract() {
    const ROUNDS: usize = 1_000;
    const AT_ONCE: usize = 64;
    let home = Home::new();
    let manager = home.start(&[], &["dump"]);
    let dial = home.dial(&manager);
    let (barrier, sessions) = (Barrier::new(AT_ONCE), Mutex::new(BTreeSet::new()));
    let contract = Contract::behind("", &home);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    barrier.wait();
                    let dump = Dump::of(&dial);
                    let session = contract.is_kept(&dump);
                    assert!(sessions.lock().unwrap().insert(session), "a number given twice");
                }
            });
        }
    });
    println!("contract: {ROUNDS} rounds of {AT_ONCE} spawns at once in {:.0?}", start.elapsed());
    let ended = manager.interrupted();
    common::assert_says(
        &ended.stderr,
        &[&format!("mlets by exit code: {} succeeded, 0 failed", ROUNDS * AT_ONCE)],
    );
}

/// Promise P14, items 84, 120.
#[test]
fn twelve_mebibytes_arrive_to_the_last_byte_at_one_megabyte_a_second() {
    let took = a_slow_endpoint_gets_every_byte(192);
    println!("tail: 3 endpoints each got 12 MiB of a mlet that was gone, in {took:.1?}");
}

/// Promise P11. Five rounds, and more where the machine was too busy otherwise for those to tell.
#[test]
fn two_hundred_mlets_that_never_read_do_not_slow_twenty_honest_sessions() {
    raise_open_files().unwrap();
    let figures = crowd::measure(20, 200, 15, Duration::from_secs(3), |figures| {
        figures.crowded.len() >= 5 && figures.median_holds()
    });
    println!("crowd: p99 of 20 echo sessions, in windows of 3 s by turns: {figures:?}");
    let rounds = figures.crowded.len();
    assert!(figures.flooded_len > rounds * 200 * 100_000, "the floods did not come");
    assert!(figures.median_holds(), "{figures:?}");
}

/// Design 7: 5,000 endpoints that connect in one instant.
#[test]
fn five_thousand_connections_in_one_instant_are_all_served() {
    const COUNT: usize = 5_000;
    let fds = raise_open_files().unwrap();
    let needed = 2 * COUNT as u64 + 200;
    assert!(
        fds >= needed,
        "this machine allows {fds} open files; {needed} are needed (ulimit -Hn)"
    );
    let home = Home::new();
    let options = ["--handshake-timeout", "120s", "--setup-timeout", "120s"];
    let manager = home.start(&options, &["obey"]);
    let dial = home.dial(&manager);
    let start = Instant::now();
    let connected = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..COUNT / 8 {
                    let start = Instant::now();
                    let endpoint = dial.connect();
                    connected.lock().unwrap().push((endpoint, start.elapsed()));
                }
            });
        }
    });
    let all_connected = start.elapsed();
    let mut connected = connected.into_inner().unwrap();
    let slowest = connected.iter().map(|(_, took)| *took).max().unwrap();
    thread::scope(|scope| {
        for part in connected.chunks_mut(COUNT.div_ceil(16)) {
            scope.spawn(move || {
                for (endpoint, _) in part {
                    endpoint.tcp.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
                    endpoint.handshake().unwrap();
                    endpoint.set_up().unwrap();
                    endpoint.send(&message(NDATA, b"say"));
                    assert_eq!(endpoint.receive().unwrap().1, b"say");
                }
            });
        }
    });
    println!(
        "instant: {COUNT} connected within {all_connected:.2?} (slowest {slowest:.2?}; a lost SYN costs \
         1 s), all in sessions with a mlet each after {:.1?}",
        start.elapsed()
    );
    assert!(slowest < Duration::from_secs(1), "a SYN was lost");
    assert_eq!(children_of(manager.supervisor()).len(), COUNT);
    drop(connected);
    wait_until("all mlets are gone", || children_of(manager.supervisor()).is_empty());
    assert_eq!(manager.interrupted().code, Some(0));
}
