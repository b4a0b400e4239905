//! Monitors that mean harm cost their own sessions alone (spec/monitors.md 11).
//!
//! Not here: what each of their functions does then (the crate `monitors`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

use super::*;

/// What such a monitor does when it is asked about NSEND, and what is said to the controller.
fn hostile() -> [(&'static str, String, &'static str); 7] {
    let refused = "40000006001200000000";
    let grow_and_fill = "(loop $l (drop (memory.grow (i32.const 1)))
        (memory.fill (i32.const 65536) (i32.const 7)
          (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 65536)))
        (br $l)) (i32.const 0)";
    let judging = |does: &str| format!("{NSEND_PARAMETERS} {does}");
    [
        ("loops", judging("(loop $l (br $l)) (i32.const 0)"), refused),
        ("grows to its limit and fills it", judging(grow_and_fill), refused),
        (
            "calls itself",
            judging("(call $deep)) (func $deep (result i32) (i32.add (call $deep) (i32.const 1))"),
            refused,
        ),
        ("traps", judging("unreachable"), refused),
        ("has the wrong type", "(param i32) (result i32) (i32.const 0)".to_owned(), refused),
        (
            "asks for its clock without end",
            judging(
                "(loop $l (drop (call $read (i32.const 0x10010000) (i32.const 512) (i32.const 8))) (br $l)) (i32.const 0)",
            ),
            refused,
        ),
        (
            "flushes without end",
            judging(
                "(loop $l (i32.store (local.get 10) (i32.add (i32.load (local.get 10)) (i32.const 1)))
                  (drop (call $flush)) (br $l)) (i32.const 0)",
            ),
            refused,
        ),
    ]
}

/// How often an endpoint has written its totals: each time they are another file. That of one that is gone may be had again
/// by a later one, which makes them fewer.
struct Writes {
    path: PathBuf,
    last: Option<u64>,
    count: u64,
}

impl Writes {
    fn of(state: &Path) -> Self {
        let mut writes = Self { path: state.join("totals"), last: None, count: 0 };
        writes.look();
        Self { count: 0, ..writes }
    }

    fn look(&mut self) {
        let now = fs::metadata(&self.path).ok().map(|file| file.ino());
        self.count += u64::from(std::mem::replace(&mut self.last, now) != now);
    }
}

/// What this thread has had.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// All of it on one thread, which a monitor that held it up would keep from everything.
#[tokio::test]
async fn whatever_a_monitor_does_the_sessions_of_others_go_on() {
    let pass = wasm(PASS_ALL_WAT);
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let to = server.local_addr().unwrap();
    for (what, does, answer) in hostile() {
        let harms = with(&[(NSEND, &does)]);
        let mut scene = Scene::new(&[&harms]).await;
        let limits = ::monitors::Limits::default();
        scene.settings.limits = limits;
        let directory = Directory::new("hostile");
        scene.ledger = ledger(&directory.0);
        let mut session = scene.start(&[&harms]).await;
        session.open_udp().await;
        let mut others = Scene::new(&[&pass]).await;
        others.ledger = Arc::clone(&scene.ledger);
        let mut honest = others.start(&[&pass]).await;
        honest.open_udp().await;
        let begun = Instant::now();
        let mut writes = Writes::of(&directory.0);
        // The first is begun on the thread, the second is known to be one that takes long.
        for _ in 0..2 {
            let harming = tokio::spawn(async move {
                assert_eq!(session.send(to, b"x").await, answer, "{what}");
                session
            });
            let (mut beside, mut longest) = (0, Duration::ZERO);
            while !harming.is_finished() || beside < 20 {
                let before = processor_time();
                assert_eq!(honest.send(to, b"x").await, "40000000", "beside one that {what}");
                longest = longest.max(processor_time() - before);
                beside += 1;
                writes.look();
            }
            session = harming.await.unwrap();
            // What is held up does nothing but what the monitor does; how busy the machine is, is not in it.
            assert!(longest < limits.call / 2, "{} s of one that {what}", longest.as_secs_f64());
        }
        // Of the endpoint's totals there are as many as without it.
        writes.look();
        assert!(
            writes.count <= 2 + begun.elapsed().as_secs(),
            "{} of one that {what}",
            writes.count
        );
        // Refused again and again, its session goes on, too.
        assert_eq!(session.answer(&Message::Nclose { sktid: 1 }).await, "40000000");
        for session in [session, honest] {
            session.end().await.unwrap();
        }
    }
}

/// Monitors that loop in one function each, the answers to CDATA, START, NOPEN and NSEND as far as the session comes, and
/// of which function the report of a crash tells, if that comes.
fn looping() -> [(&'static str, Program, &'static [&'static str], &'static str); 6] {
    const FOREVER: &str = "(loop $l (br $l))";
    const OK: &str = "40000000";
    let loops = |name, rest: &str| with(&[(name, &format!("{rest} {FOREVER} (i32.const 0)"))]);
    let start = format!(") (func $start {FOREVER}) (start $start");
    let told = format!("(param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32) {FOREVER}");
    [
        ("its start function", with(&[("start", &start)]), &["400000020020"], ""),
        ("malloc", loops("malloc", "(param i32) (result i32)"), &["400000020020"], ""),
        (
            "initialize",
            loops("initialize", "(param i32 i32 i32) (result i32)"),
            &[OK, "4000000400130000"],
            "",
        ),
        (
            "free",
            with(&[("free", &format!("(param i32) {FOREVER}"))]),
            &[OK, "4000000400130000"],
            "",
        ),
        ("NDATA", loops(NDATA, NDATA_PARAMETERS), &[OK, OK, OK, OK], "asked about NDATA"),
        (
            "the result of NSEND",
            with(&[("pktlab_message_nsend_result", &told)]),
            &[OK, OK, OK, OK],
            "told of its NSEND",
        ),
    ]
}

/// What the endpoint answers, one request after the other; nothing if the set-up was over before, as on a busy machine the
/// second of a processor that a monitor has to start may take longer than that; and the logs behind the last of four.
async fn driven(mut harms: Conversation, program: &Program, to: SocketAddr) -> Vec<String> {
    let cdata = Message::Cdata { hint: b"monitor", data: program.encoded() };
    harms.link.send(&cdata).await.unwrap();
    let Ok(Some((kind, payload))) = timeout(LONG, harms.link.receive()).await.unwrap() else {
        return Vec::new();
    };
    let mut said = vec![format!("{:02x}{:06x}{}", kind.0, payload.len(), Hex(&payload))];
    if said == ["40000000"] {
        said.push(harms.answer(&Message::Start).await);
    }
    if said == ["40000000"; 2] {
        harms.next().await;
        // The report of its first crash, which comes before the answer to a request.
        let mut report = None;
        let packet = Packet::Udp { remote: to, data: b"x" };
        let send = Message::Nsend { sktid: 1, time: Ticks(0), tag: 0, packet };
        for request in [nopen(1, Open::Udp { local: ANY }), send] {
            harms.link.send(&request).await.unwrap();
            loop {
                let next = harms.next().await;
                match next.get(..2) {
                    Some("65") => report = Some(next),
                    Some("40") => break said.push(next),
                    _ => {}
                }
            }
        }
        while report.is_none() {
            report = Some(harms.next().await).filter(|next| next.starts_with("65"));
        }
        said.extend(report);
    }
    said
}

#[tokio::test]
async fn wherever_a_monitor_loops_the_sessions_of_others_go_on() {
    let pass = wasm(PASS_ALL_WAT);
    let server = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
    let to = server.local_addr().unwrap();
    let echo = tokio::spawn(async move {
        let mut data = [0; 16];
        while let Ok((len, from)) = server.recv_from(&mut data).await {
            let _ = server.send_to(&data[..len], from).await;
        }
    });
    for (what, program, answers, report) in looping() {
        let mut scene = Scene::new(&[&program]).await;
        scene.settings = MonitorSettings { report_crash: true, ..MonitorSettings::default() };
        let harms = scene.begin().await;
        let mut honest = Scene::new(&[&pass]).await.start(&[&pass]).await;
        honest.open_udp().await;
        let harming = tokio::spawn(async move { driven(harms, &program, to).await });
        let (mut beside, mut longest) = (0, Duration::ZERO);
        while !harming.is_finished() || beside < 20 {
            let before = processor_time();
            assert_eq!(honest.send(to, b"x").await, "40000000", "beside one that loops in {what}");
            longest = longest.max(processor_time() - before);
            beside += 1;
        }
        let said = harming.await.unwrap();
        let is_over = said.is_empty() && answers.len() == 1;
        assert!(
            is_over || said.get(..answers.len()).is_some_and(|said| said == answers),
            "{what}: {said:?}"
        );
        let reported =
            said.last().is_none_or(|last| last.contains(&Hex(report.as_bytes()).to_string()));
        assert!(reported, "{what}: {said:?}");
        assert!(
            longest < scene.settings.limits.call / 2,
            "{longest:?} of one that loops in {what}"
        );
        honest.end().await.unwrap();
    }
    echo.abort();
}

/// Whether a thread of this process is called like this and has this policy (fields 2 and 41 of proc_pid_stat(5)).
fn has_thread(name: &str, policy: &str) -> bool {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // One may have ended meanwhile.
    let told = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    told.into_iter().any(|told| {
        let (head, behind_name) = told.rsplit_once(") ").unwrap();
        head.ends_with(&format!("({name}")) && behind_name.split(' ').nth(38) == Some(policy)
    })
}

#[tokio::test]
async fn a_monitor_that_takes_long_runs_only_while_a_core_has_nothing_else_to_do() {
    const SCHED_IDLE: &str = "5";
    let loops = with(&[(NSEND, &format!("{NSEND_PARAMETERS} (loop $l (br $l)) (i32.const 0)"))]);
    let mut scene = Scene::new(&[&loops]).await;
    scene.settings.limits = ::monitors::Limits { call: CALL_LIMIT, ..Default::default() };
    let mut session = scene.start(&[&loops]).await;
    session.open_udp().await;
    let asked =
        tokio::spawn(async move { session.send("127.0.0.1:9".parse().unwrap(), b"x").await });
    let mut seen = false;
    while !asked.is_finished() {
        seen |= has_thread("monitor", SCHED_IDLE);
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.await.unwrap(), "40000006001200000000");
    assert!(seen, "it had no such thread");
}

/// It looks at the clock, and so runs for no longer than that, however busy the machine is: its limit is 100 ms of a processor.
#[tokio::test]
async fn a_monitor_that_takes_ninety_milliseconds_for_a_message_passes_it() {
    // The clock has the most significant byte first; of its nanoseconds the bytes 2 to 5 are units of 65.5 us.
    let now = "(drop (call $read (i32.const 0x10010002) (i32.const 512) (i32.const 4)))
        (i32.or (i32.or (i32.shl (i32.load8_u (i32.const 512)) (i32.const 24)) (i32.shl (i32.load8_u (i32.const 513)) (i32.const 16)))
          (i32.or (i32.shl (i32.load8_u (i32.const 514)) (i32.const 8)) (i32.load8_u (i32.const 515))))";
    let slow = with(&[(
        NSEND,
        &format!(
            "{NSEND_PARAMETERS} (local $begun i32) (local.set $begun (block (result i32) {now}))
            (loop $l (br_if $l (i32.lt_u (i32.sub (block (result i32) {now}) (local.get $begun)) (i32.const 1373))))
            (i32.const 0)"
        ),
    )]);
    let mut scene = Scene::new(&[&slow]).await;
    scene.settings.limits = ::monitors::Limits::default();
    let mut session = scene.start(&[&slow]).await;
    session.open_udp().await;
    for _ in 0..3 {
        let before = Instant::now();
        assert_eq!(session.send("127.0.0.1:9".parse().unwrap(), b"x").await, "40000000");
        assert!(before.elapsed() >= Duration::from_millis(89));
    }
    session.end().await.unwrap();
}
