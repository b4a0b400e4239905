//! The wall clock stepped by a day, both ways, and by a second, while a run goes on (promise P35): limits are those of the time
//! that passes, and a publication ends once, when the clock shows its end.
//!
//! The step is faketime's, which alone tells the manager the time of day; it changes no timer of the kernel. A leap second is a
//! second that the wall clock shows twice, so a step back by one. To a process a suspend is a step forwards: the wall clock
//! goes on meanwhile, and the clock that limits are measured by does not. That connections and the kernel's timers come
//! through a suspend is not shown here: it takes a machine that may be suspended.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::broker::Broker;
use common::endpoint::{End, Endpoint, NDATA, START, message};
use common::events::{EVENTS, Events, outcomes};
use common::manager::{Manager, zoo};
use common::tls_peer::TlsPeer;
use common::{Home, assert_says};
use packetlab::key::PrivateKey;

const DAY: f64 = 86_400.0;
/// How long the manager may take to look at a wall clock that was set.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The wall clock of one manager.
struct WallClock(PathBuf);

impl WallClock {
    fn of(home: &Home) -> Self {
        let clock = Self(home.path("wall-clock"));
        clock.step_to(0.0);
        clock
    }

    /// Has it show so many seconds more than the true one, or less.
    fn step_to(&self, seconds: f64) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        // Whole at any moment.
        fs::rename(new, &self.0).unwrap();
    }

    /// A manager that looks at it.
    fn start(&self, home: &Home, options: &[&str]) -> Manager {
        let library =
            Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let library = library.expect("faketime, which the package of this name has");
        let mut command = home.command();
        command.env("LD_PRELOAD", String::from_utf8(library.stdout).unwrap().trim());
        command.env("FAKETIME_TIMESTAMP_FILE", &self.0);
        let settings = ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"];
        command.envs(settings.map(|name| (name, "1")));
        command.args(EVENTS).args(options).arg(zoo()).arg("echo");
        Manager::start(home, command)
    }
}

/// Steps the clock, and makes sure that the manager sees it: what it writes now has that time.
#[track_caller]
fn step(clock: &WallClock, (home, manager): (&Home, &Manager), seconds: f64) {
    let told = manager.said("dropped 127.0.0.1");
    clock.step_to(seconds);
    let before = true_time();
    home.dial(manager).connect().send_raw(b"no TLS");
    let line = manager.says_times("dropped 127.0.0.1", told + 1);
    let shown = time_of(&line) - seconds;
    // The time of a line is cut to the microsecond.
    assert!(shown > before - 0.001 && shown < true_time(), "{seconds}: {line}");
}

fn true_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The time at the head of a log line, in seconds since 1970.
fn time_of(line: &str) -> f64 {
    let stamp = line.split(' ').next().unwrap();
    let seconds = Command::new("date").args(["-u", "-d", stamp, "+%s.%N"]).output().unwrap().stdout;
    String::from_utf8(seconds).unwrap().trim().parse().unwrap()
}

/// How long after `start` the manager has ended this, with something to do before each look.
fn ends_after(
    mut endpoint: Endpoint,
    start: Instant,
    goes_on: impl Fn(&mut Endpoint) -> bool,
) -> Duration {
    while goes_on(&mut endpoint) && endpoint.receive().is_ok() {}
    start.elapsed()
}

/// Promise P35.
#[test]
#[ignore = "needs faketime"]
fn limits_are_those_of_the_time_that_passes_whatever_the_wall_clock_shows() {
    thread::scope(|scope| {
        for seconds in [DAY, -DAY, -1.0] {
            scope.spawn(move || limits_hold_beside_a_step_of(seconds));
        }
    });
}

fn limits_hold_beside_a_step_of(seconds: f64) {
    let (home, start) = (Home::new(), Instant::now());
    let clock = WallClock::of(&home);
    let limits = ["--handshake-timeout", "15s", "--setup-timeout", "15s", "--idle-timeout", "15s"];
    let of_all = ["--mlet-timeout", "20s", "--deadline", "25s"];
    let manager = clock.start(&home, &[&limits[..], &of_all].concat());
    let dial = home.dial(&manager);
    let silent = dial.connect();
    let mut unanswered = dial.handshake();
    assert_eq!(unanswered.receive(), Ok((START, Vec::new())));
    let [mut idle, mut busy] = [(); 2].map(|()| dial.session());
    idle.echoes(b"before");
    busy.echoes(b"before");
    step(&clock, (&home, &manager), seconds);
    let begun = Instant::now();
    assert!(begun - start < Duration::from_secs(15), "too late: {:?}", begun - start);
    idle.echoes(b"after");
    let goes_on = |endpoint: &mut Endpoint| {
        thread::sleep(Duration::from_millis(200));
        endpoint.try_send(&message(NDATA, b"on")).is_ok()
    };
    thread::scope(|scope| {
        let waits = |_: &mut Endpoint| true;
        let ended = [
            scope.spawn(move || ends_after(silent, start, waits)),
            scope.spawn(move || ends_after(unanswered, start, waits)),
            scope.spawn(move || ends_after(idle, begun, waits)),
            scope.spawn(move || ends_after(busy, start, goes_on)),
        ];
        let ended = ended.map(|endpoint| endpoint.join().unwrap());
        for (ended, limit) in ended.into_iter().zip([15, 15, 15, 20]) {
            assert!(ended >= Duration::from_secs(limit), "{ended:?}, not {limit} s");
        }
    });
    let ended = manager.ends();
    assert_eq!(ended.code, Some(124), "{}", ended.stderr);
    assert!(start.elapsed() >= Duration::from_secs(25));
    let sessions = Events::of(&home).sessions();
    let mut told = outcomes(&sessions);
    told.sort_unstable();
    let ends = ["handshake_timeout", "idle_timeout", "mlet_timeout", "setup_timeout", "tls_failed"];
    assert_eq!(told, ends);
    for record in &sessions {
        let phases = record["ms"].as_object().unwrap().values();
        let longest = phases.filter_map(|phase| phase.as_f64()).fold(0.0, f64::max);
        assert!(longest < 60_000.0, "{record}");
    }
}

/// A home whose experiment is published for so long.
fn published(period: &str) -> (Home, Broker, WallClock) {
    let (home, broker) = (Home::new(), Broker::start(&PrivateKey::generate().unwrap()));
    let experiment = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::";
    home.write(
        "xpmgr.conf",
        home.publishing(&broker, &format!("{experiment}\n{period}")).as_bytes(),
    );
    let clock = WallClock::of(&home);
    (home, broker, clock)
}

/// Waits for the end of what is published, which comes within one look at the clock.
#[track_caller]
fn ends(peer: &mut TlsPeer) {
    peer.tcp.set_read_timeout(Some(2 * LOOK_INTERVAL)).unwrap();
    assert_eq!(peer.receive(), Err(End::CloseNotify));
}

/// Promise P35.
#[test]
#[ignore = "needs faketime, and takes more than a minute"]
fn a_publication_ends_once_when_the_wall_clock_shows_its_end() {
    thread::scope(|scope| {
        scope.spawn(a_step_forwards_ends_it_and_one_back_does_not_begin_it_again);
        scope.spawn(a_step_back_makes_it_longer);
    });
}

fn a_step_forwards_ends_it_and_one_back_does_not_begin_it_again() {
    let (home, broker, clock) = published("PubPeriod 1h\nGreetPeriodAfterPubEnd 2d");
    let manager = clock.start(&home, &[]);
    let (mut peer, _) = broker.take_publication(1);
    manager.says("published at the broker");
    step(&clock, (&home, &manager), DAY);
    ends(&mut peer);
    home.dial(&manager).is_served();
    step(&clock, (&home, &manager), 0.0);
    home.dial(&manager).is_served();
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("published at the broker").count(), 1, "{}", ended.stderr);
}

fn a_step_back_makes_it_longer() {
    let (home, broker, clock) = published("PubPeriod 15s");
    let start = Instant::now();
    let manager = clock.start(&home, &[]);
    let (mut peer, _) = broker.take_publication(1);
    step(&clock, (&home, &manager), -DAY);
    assert!(start.elapsed() < Duration::from_secs(15), "too late: {:?}", start.elapsed());
    peer.tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(peer.receive(), Err(End::Silence), "its end is tomorrow");
    home.dial(&manager).is_served();
    clock.step_to(0.0);
    ends(&mut peer);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["so does greeting"]);
    assert_eq!(ended.stderr.matches("published at the broker").count(), 1, "{}", ended.stderr);
}
