//! What monitor programs cost an endpoint: processor time of an NSEND and of a download without and with one, memory of many
//! sessions, and what sessions get beside those of slow or hostile monitors.
//!
//! `cargo bench -p hosts --bench monitors [-- send|download|memory|beside [loop|trap|...]]`. All of it takes some three minutes; method and results are
//! in docs/performance.md "Monitor programs".
//!
//! Not here: what monitors must do, and that they end (tests).

#![expect(clippy::unwrap_used, reason = "a measurement may panic like a test")]

mod group;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use group::{Controller, Group, wasm};
use hosts::endpoint::{MonitorRule, MonitorSettings};
use nix::time::{ClockId, clock_gettime};
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

const RUN: MonitorRule =
    MonitorRule::Run(MonitorSettings { limits: LIMITS, report_crash: false, debug: false });
/// Those that an endpoint has if its operator says nothing.
const LIMITS: monitors::Limits =
    monitors::Limits { call: Duration::from_millis(100), memory_len_max: 1 << 20 };
const PASS_ALL: &str = include_str!("../../monitors/wat/pass_all.wat");
/// What NSEND is judged by, in pass_all.
const NSEND_PASSES: &str =
    "(param $persistent i32) (param $persistent_len i32) (result i32)\n    (i32.const 0))";

/// The one that lets everything pass, with other instructions for NSEND.
fn judging(instructions: &str) -> String {
    let imports =
        r#"(import "env" "read_vmem_region" (func $read (param i32 i32 i32) (result i32)))"#;
    let judges = NSEND_PASSES.replace("(i32.const 0))", &format!("{instructions})"));
    let text = PASS_ALL.replacen("(module", &format!("(module {imports}"), 1);
    let judging = text.replacen(NSEND_PASSES, &judges, 1);
    assert_ne!(judging, text);
    judging
}

/// One that reads the packet and counts in the memory that outlives the session.
fn counting() -> String {
    judging(
        "(drop (call $read (i32.const 0) (i32.const 512) (i32.const 4)))
        (i32.store (local.get $persistent) (i32.add (i32.load (local.get $persistent)) (i32.const 1)))
        (i32.const 0)",
    )
}

fn main() {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    engine::sys::limits::raise_open_files().unwrap();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sessions", rule] => sessions(if rule == "run" { RUN } else { MonitorRule::Ignore }),
        ["send"] => send(),
        ["download"] => download(),
        ["memory"] => memory(),
        ["beside"] => beside(""),
        ["beside", others] => beside(others),
        _ => {
            send();
            download();
            memory();
            beside("");
        }
    }
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}

/// NSENDs of 64 bytes by UDP, 32 at a time: processor time of the endpoint's thread for each.
fn send() {
    const ROUNDS: usize = 7;
    const COUNT: usize = 20_000;
    let controllers = multi_thread();
    let (ask, endpoint) = endpoint_with_a_thread();
    let programs = [PASS_ALL.to_owned(), counting()];
    let cases = [
        ("none", &programs[0], MonitorRule::Ignore),
        ("one that passes all", &programs[0], RUN),
        ("one that reads and counts", &programs[1], RUN),
    ];
    let mut costs_us = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for ((_, program, rule), costs_us) in cases.iter().zip(&mut costs_us) {
            let cost = controllers.block_on(async {
                let group = Group::new(&wasm(program));
                let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                let controller = Controller::listen(&group).await;
                endpoint.send(group.endpoint(controller.address(), *rule)).unwrap();
                let mut session = controller.start(&wasm(program)).await;
                let to = sink.local_addr().unwrap();
                session.send(to, COUNT / 10).await;
                let before = cpu_time(&ask).await;
                session.send(to, COUNT).await;
                cpu_time(&ask).await - before
            });
            costs_us.push(cost.as_secs_f64() * 1e6 / COUNT as f64);
        }
    }
    println!("processor time of the endpoint for an NSEND, median and range of {ROUNDS} rounds:");
    let none = median(&mut costs_us[0]);
    for ((name, ..), costs_us) in cases.iter().zip(&mut costs_us) {
        let median = median(costs_us);
        let (least, most) = (costs_us[0], costs_us[ROUNDS - 1]);
        println!("  {name}: {median:.2} us ({least:.2} to {most:.2}), {:+.2} us", median - none);
    }
}

/// A download by TCP, in NDATAs of up to 65,536 bytes: its rate, and processor time of the endpoint's thread.
fn download() {
    const ROUNDS: usize = 7;
    const LEN: usize = 256 << 20;
    let controllers = multi_thread();
    let (ask, endpoint) = endpoint_with_a_thread();
    let cases = [("none", MonitorRule::Ignore), ("one that passes all", RUN)];
    let mut rates = [const { Vec::new() }; 2];
    let mut costs = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (case, (_, rule)) in cases.iter().enumerate() {
            let (took, cost) = controllers.block_on(async {
                let group = Group::new(&wasm(PASS_ALL));
                let controller = Controller::listen(&group).await;
                endpoint.send(group.endpoint(controller.address(), *rule)).unwrap();
                let mut session = controller.start(&wasm(PASS_ALL)).await;
                session.download(LEN / 10).await;
                let (begun, before) = (Instant::now(), cpu_time(&ask).await);
                session.download(LEN).await;
                (begun.elapsed(), cpu_time(&ask).await - before)
            });
            rates[case].push(LEN as f64 / 1e6 / took.as_secs_f64());
            costs[case].push(cost.as_secs_f64() * 1e9 / LEN as f64 * 1e3);
        }
    }
    let paired = |of: &[Vec<f64>; 2]| {
        let mut ratios: Vec<_> = of[0].iter().zip(&of[1]).map(|(none, one)| one / none).collect();
        (median(&mut ratios), ratios[0], ratios[ROUNDS - 1])
    };
    let (rate, cost) = (paired(&rates), paired(&costs));
    println!("a download of {} MiB, medians of {ROUNDS} rounds:", LEN >> 20);
    for (case, (name, _)) in cases.iter().enumerate() {
        let (rate, cost) = (median(&mut rates[case]), median(&mut costs[case]));
        println!("  {name}: {rate:.0} MB/s, {cost:.0} ms of the endpoint's thread a GB");
    }
    println!(
        "  with to without: rate {:.3} ({:.3} to {:.3}), thread {:.3} ({:.3} to {:.3})",
        rate.0, rate.1, rate.2, cost.0, cost.1, cost.2
    );
}

type Ask = mpsc::UnboundedSender<oneshot::Sender<Duration>>;

/// A thread that serves one session after the other, and tells its processor time.
fn endpoint_with_a_thread() -> (Ask, mpsc::UnboundedSender<hosts::endpoint::Endpoint>) {
    let (ask, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<Duration>>();
    let (sender, mut endpoints) = mpsc::unbounded_channel::<hosts::endpoint::Endpoint>();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut sessions = JoinSet::new();
            loop {
                tokio::select! {
                    Some(tell) = asked.recv() => {
                        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
                        let _ = tell.send(time.into());
                    }
                    Some(endpoint) = endpoints.recv() => { sessions.spawn(endpoint.run()); }
                    else => break,
                }
            }
        });
    });
    (ask, sender)
}

async fn cpu_time(ask: &Ask) -> Duration {
    let (tell, told) = oneshot::channel();
    ask.send(tell).unwrap();
    told.await.unwrap()
}

/// Memory of processes with 1,000 sessions, endpoint and controller, without and with one monitor each.
fn memory() {
    println!("1,000 sessions and their controllers in one process, each after one NSEND:");
    for rule in ["ignore", "run"] {
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).args(["sessions", rule]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        print!("  monitors: {rule}, {}", String::from_utf8_lossy(&output.stdout));
    }
}

fn sessions(rule: MonitorRule) {
    const COUNT: usize = 1000;
    let runtime = multi_thread();
    runtime.block_on(async {
        let program = wasm(&counting());
        let group = Group::new(&program);
        let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let controller = Controller::listen(&group).await;
        let before = resident_kb();
        let mut sessions = Vec::new();
        for _ in 0..COUNT {
            tokio::spawn(group.endpoint(controller.address(), rule).run());
            let mut session = controller.start(&program).await;
            session.send(sink.local_addr().unwrap(), 1).await;
            sessions.push(session);
        }
        let after = resident_kb();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        println!(
            "{} MB resident, {:.1} KB more a session, {maps} mappings",
            after / 1024,
            (after - before) as f64 / COUNT as f64
        );
    });
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One that takes 90 ms for each NSEND: it looks at the clock, whose unit here is 65.5 us.
fn slow() -> String {
    let now = "(drop (call $read (i32.const 0x10010002) (i32.const 512) (i32.const 4)))
        (i32.or (i32.or (i32.shl (i32.load8_u (i32.const 512)) (i32.const 24)) (i32.shl (i32.load8_u (i32.const 513)) (i32.const 16)))
          (i32.or (i32.shl (i32.load8_u (i32.const 514)) (i32.const 8)) (i32.load8_u (i32.const 515))))";
    judging(&format!(
        "(local $begun i32) (local.set $begun (block (result i32) {now}))
        (loop $l (br_if $l (i32.lt_u (i32.sub (block (result i32) {now}) (local.get $begun)) (i32.const 1373))))
        (i32.const 0)"
    ))
}

/// Round trips of eight sessions with a monitor that passes all, alone and beside others that send as fast as they are
/// answered, those whose description holds this.
fn beside(wanted: &str) {
    const ROUNDS: usize = 5;
    let grows = "(loop $l (drop (memory.grow (i32.const 1)))
        (memory.fill (i32.const 65536) (i32.const 7) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 65536)))
        (br $l)) (i32.const 0)";
    let recursion = judging("(call $deep)");
    let (before, _) = recursion.rsplit_once(')').unwrap();
    let recursion =
        format!("{before} (func $deep (result i32) (i32.add (call $deep) (i32.const 1))))");
    let others = [
        ("1 whose monitor takes 90 ms", 1, slow()),
        ("4 whose monitors loop for ever", 4, judging("(loop $l (br $l)) (i32.const 0)")),
        ("4 whose monitors grow to their limit and fill it", 4, judging(grows)),
        ("4 whose monitors call themselves", 4, recursion),
        ("4 whose monitors trap", 4, judging("unreachable")),
        // What part of all that is the senders' hurry.
        ("4 whose monitors pass all", 4, PASS_ALL.to_owned()),
    ];
    println!("round trips of 8 sessions, p50 / p99 in us, medians of {ROUNDS} rounds:");
    let (endpoints, controllers) = (multi_thread(), multi_thread());
    for (name, count, text) in others.into_iter().filter(|(name, ..)| name.contains(wanted)) {
        let mut figures = [const { [const { Vec::new() }; 2] }; 3];
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let (alone, _) = round_trips(&endpoints, &controllers, None);
            let (beside, own) = round_trips(&endpoints, &controllers, Some((count, &text)));
            ratios.push(beside.1 / alone.1);
            for (figures, (p50, p99)) in figures.iter_mut().zip([alone, beside, own]) {
                figures[0].push(p50);
                figures[1].push(p99);
            }
        }
        let [alone, beside, own] =
            figures.map(|mut figures| figures.each_mut().map(|one| median(one)));
        let ratio = median(&mut ratios);
        println!(
            "  alone {:.0} / {:.0}, beside {name} {:.0} / {:.0}; p99 {ratio:.2} times ({:.2} to {:.2}); theirs {:.0} / {:.0}",
            alone[0],
            alone[1],
            beside[0],
            beside[1],
            ratios[0],
            ratios[ROUNDS - 1],
            own[0],
            own[1]
        );
    }
}

/// Median and 99th percentile, in microseconds.
type Times = (f64, f64);

/// Those of the eight in two seconds, and of so many others with this monitor.
fn round_trips(
    endpoints: &Runtime,
    controllers: &Runtime,
    others: Option<(usize, &str)>,
) -> (Times, Times) {
    const LASTING: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(4);
    controllers.block_on(async {
        let sink = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let to = sink.local_addr().unwrap();
        let (mut fast, mut honest) = (JoinSet::new(), JoinSet::new());
        let is_over = Arc::new(AtomicBool::new(false));
        if let Some((count, text)) = others {
            for session in open(endpoints, text, count).await {
                let is_over = Arc::clone(&is_over);
                let goes_on = move || !is_over.load(Ordering::Relaxed);
                fast.spawn(send_again_and_again(session, to, goes_on, Duration::ZERO));
            }
        }
        for session in open(endpoints, PASS_ALL, 8).await {
            let begun = Instant::now();
            honest.spawn(send_again_and_again(
                session,
                to,
                move || begun.elapsed() < LASTING,
                PAUSE,
            ));
        }
        let honest = times(honest.join_all().await.concat());
        is_over.store(true, Ordering::Relaxed);
        (honest, times(fast.join_all().await.concat()))
    })
}

async fn send_again_and_again(
    mut session: group::Session,
    to: SocketAddr,
    goes_on: impl Fn() -> bool,
    pause: Duration,
) -> Vec<f64> {
    let mut times_us = Vec::new();
    while goes_on() {
        let asked = Instant::now();
        session.send(to, 1).await;
        times_us.push(asked.elapsed().as_secs_f64() * 1e6);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    times_us
}

fn times(mut times_us: Vec<f64>) -> Times {
    times_us.sort_by(f64::total_cmp);
    let at = |percent: usize| times_us.get(times_us.len() * percent / 100).copied();
    (at(50).unwrap_or_default(), at(99).unwrap_or_default())
}

/// Sessions with a monitor each, whose socket is open.
async fn open(endpoints: &Runtime, text: &str, count: usize) -> Vec<group::Session> {
    let program = wasm(text);
    let group = Group::new(&program);
    let controller = Controller::listen(&group).await;
    let mut sessions = Vec::new();
    for _ in 0..count {
        endpoints.spawn(group.endpoint(controller.address(), RUN).run());
        sessions.push(controller.start(&program).await);
    }
    sessions
}

/// The middle one; sorts.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
