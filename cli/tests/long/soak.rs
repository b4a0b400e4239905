//! What hours leave: sessions of every end at a steady pace through a real proxy, which is killed again and again, with
//! reloads and records. What the processes hold must not grow, and records, manager and endpoints must have seen the same
//! sessions.
//!
//! Not here: what an endpoint does (`endpoints`), how growth is measured (`samples`), how records are read (`judge`).

#[path = "soak/endpoints.rs"]
mod endpoints;
#[path = "soak/judge.rs"]
mod judge;
#[path = "soak/proxy.rs"]
mod proxy;
#[path = "soak/samples.rs"]
mod samples;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use self::endpoints::Seen;
use self::proxy::Proxy;
use self::samples::Samples;
use crate::common::Home;
use crate::common::churn::Holdings;
use crate::common::endpoint::{Dial, Identity};
use crate::common::http::{metrics, metrics_address};
use crate::common::manager::{Manager, cpu_time_of, wait_until, zoo};

/// Sessions begun in a second.
const RATE: u32 = 200;
/// Fewer are no soak. A machine that others use may not hold the pace.
const RATE_MIN: f64 = 100.0;
/// Endpoints at once: those that wait for a limit of 10 s, and the others.
const THREADS: usize = 96;
/// Sessions before anything is measured; after these every key has come.
const WARM_UP: u32 = 1_000;
/// Keys of endpoints. No others come, as the manager remembers how the last session of each key ended, of 57,344 and more.
const KEYS: usize = 401;

/// Connections that wait at the proxy for each snikey.
const BACKLOG: u32 = 32;

/// One more snikey than the config has, and back, so that each reload changes something.
const SECOND: &str = "ExpExec 0:second:exppriv.cert,pubcmd.cert:eop.pub::";

/// Manager and proxy under load, and what endpoints have seen so far.
struct Soak {
    home: Home,
    manager: Manager,
    proxy: Mutex<Proxy>,
    /// Endpoints that the manager knows, and one that shows no certificate.
    known: Vec<Dial>,
    nobody: Dial,
    /// Odd while the proxy is down; whoever sees another number afterwards may have been cut off by that.
    faults: AtomicU32,
    seen: Mutex<Vec<Seen>>,
}

impl Soak {
    fn start() -> Self {
        let home = Home::new();
        let proxy = Proxy::start(&home);
        home.write("xpmgr.conf", config(&home, "").as_bytes());
        let mut command = home.bare_command();
        command.args(["-c", "xpmgr.conf", "-a", &proxy.controllers.to_string()]);
        command.args(["--out", "results", "--stream", "--metrics", "0"]);
        command.args(["--mlet-timeout", "10s", "--setup-timeout", "10s"]);
        command.args(["--drain-timeout", "5s", "--linger-timeout", "2s"]);
        command.arg(zoo()).arg("obey");
        let manager = Manager::spawn(&home, command);
        manager.says("backlog filled: ");
        let nobody = Dial::to(proxy.endpoints);
        let known = || nobody.clone().with(&Identity::of(&home.keys.operator));
        let known = std::iter::repeat_with(known).take(KEYS).collect();
        let (proxy, seen) = (Mutex::new(proxy), Mutex::new(Vec::new()));
        Self { home, manager, proxy, known, nobody, faults: AtomicU32::new(0), seen }
    }

    /// Begins so many sessions at the pace, and does `beside` meanwhile, until the last has ended. Returns how
    /// long it took until the last was begun.
    fn drive(&self, count: u32, beside: impl FnOnce()) -> Duration {
        let (next, start) = (AtomicU32::new(0), Instant::now());
        let last = Mutex::new(Duration::ZERO);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            break;
                        }
                        let due = Duration::from_secs(1) * number / RATE;
                        thread::sleep(due.saturating_sub(start.elapsed()));
                        if number + 1 == count {
                            *last.lock().unwrap() = start.elapsed();
                        }
                        let seen =
                            endpoints::plays(number, &self.known, &self.nobody, &self.faults);
                        self.seen.lock().unwrap().push(seen);
                    }
                });
            }
            beside();
        });
        last.into_inner().unwrap()
    }

    /// Has the configuration changed, or changed back, and waits until that is in effect.
    fn reload(&self, number: u32) {
        let second = if number.is_multiple_of(2) { SECOND } else { "" };
        self.home.write("xpmgr.conf", config(&self.home, second).as_bytes());
        let reloads = || self.metric("pktxpmgr_reloads_total{result=\"done\"}");
        let before = reloads();
        self.manager.signal(Signal::SIGHUP);
        wait_until("the reload is done", || reloads() > before);
    }

    fn metric(&self, name: &str) -> f64 {
        metrics(metrics_address(&self.manager))[name]
    }

    fn kill_proxy(&self) {
        let mut proxy = self.proxy.lock().unwrap();
        self.faults.fetch_add(1, Ordering::SeqCst);
        proxy.is_killed_and_comes_back(&self.home);
        self.faults.fetch_add(1, Ordering::SeqCst);
    }

    /// Processor time so far, of whom. That of mlets is in none.
    fn cpu_times(&self) -> [(&'static str, Duration); 5] {
        let manager = &self.manager;
        [
            ("manager", manager.cpu_time()),
            ("supervisor", cpu_time_of(manager.supervisor())),
            ("recorder", cpu_time_of(manager.recorder().unwrap())),
            ("proxy", self.proxy.lock().unwrap().cpu_time()),
            ("endpoints", cpu_time_of(std::process::id().try_into().unwrap())),
        ]
    }

    /// Waits until no session is left and the backlog is full.
    fn rests(&self) {
        wait_until("no session is left", || {
            let metrics = metrics(metrics_address(&self.manager));
            let phase = |name| metrics[&format!("pktxpmgr_sessions_active{{phase=\"{name}\"}}")];
            let under_way: f64 =
                ["waiting", "handshake", "greeting", "running", "closing"].map(phase).iter().sum();
            under_way + metrics["pktxpmgr_mlets_active"] == 0.0
                && phase("backlog") == f64::from(BACKLOG)
        });
    }
}

fn config(home: &Home, more: &str) -> String {
    home.behind_proxy(&format!("TargetBacklogConn {BACKLOG}\n{more}"))
}

/// How often something is done in so long a soak: at its full interval, or so many times in a short one.
fn interval(full_seconds: u64, times: u32, length: Duration) -> Duration {
    Duration::from_secs(full_seconds).min(length / times)
}

/// Promises P6, P7, P25, P27, P30, for `SOAK_SECONDS`, by default an hour.
#[test]
#[ignore = "takes an hour"]
fn an_hour_of_every_end_with_reloads_and_a_proxy_that_is_killed_leaves_nothing_but_records() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(3600, |text| text.parse().unwrap());
    let length = Duration::from_secs(u64::from(seconds));
    let soak = Soak::start();
    soak.drive(WARM_UP, || (0..2).for_each(|number| soak.reload(number)));
    soak.kill_proxy();
    soak.rests();
    Holdings::at_rest(&soak.manager, Duration::from_millis(1500));
    let cpu_before = soak.cpu_times();
    let mut samples = Samples::of(&soak.manager);
    let (mut reloads, mut kills) = (0, 0);
    let took = soak.drive(seconds * RATE, || {
        let start = Instant::now();
        let [sampling, reloading, killing] =
            [(10, 60), (60, 12), (300, 4)].map(|(full, times)| interval(full, times, length));
        loop {
            let due = [samples.len() * sampling, (reloads + 1) * reloading, (kills + 1) * killing];
            let next = due.into_iter().min().unwrap();
            if next >= length {
                break;
            }
            thread::sleep(next.saturating_sub(start.elapsed()));
            let is_due = due.map(|due| start.elapsed() >= due);
            if is_due[0] {
                samples.take();
            }
            if is_due[1] {
                soak.reload(reloads);
                reloads += 1;
            }
            if is_due[2] {
                soak.kill_proxy();
                kills += 1;
            }
        }
    });
    if !reloads.is_multiple_of(2) {
        soak.reload(reloads);
        reloads += 1;
    }
    let rate = f64::from(seconds * RATE) / took.as_secs_f64();
    println!(
        "soak: {} sessions in {took:.0?}, {rate:.0} a second (asked for {RATE}); {reloads} reloads, the proxy killed \
         {kills} times",
        seconds * RATE
    );
    for ((name, after), (_, before)) in soak.cpu_times().into_iter().zip(cpu_before) {
        println!("soak: processor time of {name}: {:.0?} of {took:.0?}", after - before);
    }
    assert!(reloads >= 8 && kills >= 3 && rate >= RATE_MIN, "{reloads} {kills} {rate}: no soak");
    soak.rests();
    samples.are_back();
    let told = judge::told(&metrics(metrics_address(&soak.manager)));
    let Soak { home, manager, seen, .. } = soak;
    let ended = manager.interrupted();
    samples.have_not_grown();
    let (events, seen) = (home.path("results/events.jsonl"), seen.into_inner().unwrap());
    // Half of the reloads, those of before included, take a snikey away, and the end the other.
    let (reloads, taken_away) = (reloads + 2, reloads / 2 + 2);
    judge::judge(&events, &seen, &told, (reloads, u64::from(taken_away * BACKLOG)));
    assert_eq!(ended.code, Some(0));
}
