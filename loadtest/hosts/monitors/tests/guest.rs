//! The monitors that the guest crate has as examples, made as an operator makes them, against messages.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use monitors::{Check, Compiled, Limits, Monitors, Objection, Persistent, Surroundings, Verdict};
use packetlab::message::{Family, HEADER_LEN, Message, Open, Packet, Protocol, Socket};
use packetlab::program::Program;
use packetlab::time::Ticks;

/// An endpoint with a clock, in seconds, and what monitors keep and say there.
#[derive(Debug, Default)]
struct Endpoint {
    second: AtomicU64,
    kept: Mutex<Vec<Persistent>>,
    said: Mutex<Vec<String>>,
}

impl Surroundings for Endpoint {
    fn read(&self, address: u32, buffer: &mut [u8]) {
        assert_eq!((address, buffer.len()), (0x1001_0000, 8), "the clock alone is read");
        buffer.copy_from_slice(&(self.second.load(SeqCst) * 1_000_000_000).to_be_bytes());
    }

    fn keep(&self, persistent: &Persistent) {
        self.kept.lock().unwrap().push(*persistent);
    }

    fn flush(&self) -> bool {
        true
    }

    fn debug(&self, text: &[u8]) {
        self.said.lock().unwrap().push(String::from_utf8(text.to_vec()).unwrap());
    }

    fn debug_enabled(&self) -> bool {
        true
    }
}

/// An example, made as an operator makes it.
fn made(example: &str) -> Program {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/examples");
    made_of(&examples.join(example).with_extension("rs"))
}

fn made_of_text(name: &str, text: &str) -> Program {
    let name = format!("pktfleet-{name}-{}.rs", std::process::id());
    let source = std::env::temp_dir().join(name);
    std::fs::write(&source, text).unwrap();
    let program = made_of(&source);
    std::fs::remove_file(source).unwrap();
    program
}

fn made_of(source: &Path) -> Program {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/build");
    // Several tests make the same example.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("pktfleet-guest-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
    let out = std::env::temp_dir().join(name);
    let made = Command::new(build)
        .arg(source)
        .arg(&out)
        .env("RUSTC", "/usr/bin/rustc")
        .env("WASM_LD", "wasm-ld-16")
        .output()
        .expect("a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let program = Program::from_wasm(&std::fs::read(&out).unwrap()).unwrap();
    std::fs::remove_file(out).unwrap();
    assert_eq!(monitor_module::check(&program), Ok(Vec::new()));
    program
}

/// What an example says to these messages, one after the other, each at a second of the clock.
fn said(example: &str, messages: &[(u64, Message<'_>)]) -> Vec<u16> {
    let (texts, codes) = session(&made(example), &Arc::default(), messages);
    assert!(texts.is_empty());
    codes
}

/// The text with which the session of one begins that goes on with what was kept last, and what it says to messages, of which
/// those are carried out that it allows.
fn session(
    program: &Program,
    endpoint: &Arc<Endpoint>,
    messages: &[(u64, Message<'_>)],
) -> (String, Vec<u16>) {
    session_with_answers(program, endpoint, messages, |_| 0)
}

/// The same; what it allows is answered with this status of the message of that number.
fn session_with_answers(
    program: &Program,
    endpoint: &Arc<Endpoint>,
    messages: &[(u64, Message<'_>)],
    status: impl Fn(usize) -> u16,
) -> (String, Vec<u16>) {
    let kept = endpoint.kept.lock().unwrap().last().copied().unwrap_or([0; 256]);
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let mut monitors = Monitors::default();
        let compiled = Compiled::of(program).await.unwrap();
        let surroundings = Arc::clone(endpoint) as Arc<dyn Surroundings>;
        monitors
            .add(
                compiled,
                Limits { call: Duration::from_secs(60), ..Limits::default() },
                surroundings,
                kept,
            )
            .await
            .unwrap();
        let texts = monitors.initialize().await.unwrap().concat();
        let mut codes = Vec::new();
        for (number, (second, message)) in messages.iter().enumerate() {
            endpoint.second.store(*second, SeqCst);
            let mut encoded = Vec::new();
            message.encode(&mut encoded).unwrap();
            let check = Check::new(message.message_type(), encoded, HEADER_LEN).unwrap();
            let (verdict, check) = monitors.check(check).await.unwrap();
            codes.push(match verdict {
                Verdict::Pass => {
                    monitors.tell(check, status(number)).await.unwrap();
                    0
                }
                Verdict::Objection { objection: Objection::Code(code), .. } => code,
                other @ Verdict::Objection { .. } => panic!("{other:?}"),
            });
        }
        (String::from_utf8(texts).unwrap(), codes)
    })
}

fn open(open: Open) -> (u64, Message<'static>) {
    (0, Message::Nopen { sktid: 1, receive_buffer_len: 1, open })
}

fn to(remote: &str) -> (u64, Message<'static>) {
    open(Open::TcpConnect { local: "0.0.0.0:0".parse().unwrap(), remote: remote.parse().unwrap() })
}

fn udp() -> (u64, Message<'static>) {
    open(Open::Udp { local: "0.0.0.0:0".parse().unwrap() })
}

fn raw() -> (u64, Message<'static>) {
    open(Open::Raw { local: [0, 0, 0, 0].into() })
}

/// A datagram that is asked for in one second to leave in another.
fn later(second: u64, leaves: u64) -> (u64, Message<'static>) {
    let packet = Packet::Udp { remote: "192.0.2.9:1".parse().unwrap(), data: b"x" };
    let time = Ticks(leaves * 1_000_000_000);
    (second, Message::Nsend { sktid: 1, time, tag: 0, packet })
}

fn tcp_data(data: &[u8]) -> (u64, Message<'_>) {
    let packet = Packet::Tcp { family: Family::Ipv4, data };
    (0, Message::Nsend { sktid: 1, time: Ticks(0), tag: 0, packet })
}

fn datagram(second: u64, remote: &str) -> (u64, Message<'static>) {
    let packet = Packet::Udp { remote: remote.parse().unwrap(), data: b"x" };
    (second, Message::Nsend { sktid: 1, time: Ticks(0), tag: 0, packet })
}

#[test]
#[ignore = "needs Debian's rustc, libstd-rust-dev-wasm32 and lld-16"]
fn the_monitors_of_the_guest_crate_allow_what_they_say() {
    assert_eq!(said("no_raw", &[raw(), udp(), to("192.0.2.9:1"), tcp_data(b"x")]), [1, 0, 0, 0]);
    let of_port_80 = [to("192.0.2.1:80"), to("192.0.2.1:81"), to("192.0.2.2:80"), raw(), udp()];
    assert_eq!(said("only_these", &of_port_80), [0, 2, 2, 1, 0]);
    let received = Packet::Udp { remote: "192.0.2.54:53".parse().unwrap(), data: b"x" };
    let received = (0, Message::Ndata { sktid: 1, time: Ticks(0), packet: received });
    let datagrams = [datagram(0, "192.0.2.53:53"), datagram(0, "192.0.2.53:54"), received];
    assert_eq!(said("only_these", &datagrams), [0, 2, 2]);
    let pieces = [
        to("192.0.2.9:80"),
        to("192.0.2.9:443"),
        udp(),
        tcp_data(b"GET / HTTP/1.0\r\n\r\n"),
        tcp_data(b"hello world"),
        tcp_data(b"GE"),
        tcp_data(b""),
    ];
    assert_eq!(said("http_only", &pieces), [0, 1, 1, 0, 2, 2, 2]);
    let rate = [vec![datagram(7, "192.0.2.9:1"); 101], vec![datagram(8, "192.0.2.9:1"); 100]];
    let expected = [vec![0; 100], vec![3], vec![0; 100]].concat();
    assert_eq!(said("packets_per_second", &rate.concat()), expected);
}

/// Other tests and the fuzz target `monitor` begin with them, where there is no such compiler.
#[test]
#[ignore = "needs Debian's rustc, libstd-rust-dev-wasm32 and lld-16"]
fn the_seeds_of_fuzzing_are_what_the_compiler_makes_of_the_examples_today() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../engine/fuzz/seeds/monitor");
    let mut count = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let seed = seed.unwrap().path();
        let kept = Program::from_wasm(&std::fs::read(&seed).unwrap()).unwrap();
        let is_it = kept == made(seed.file_name().unwrap().to_str().unwrap());
        assert!(is_it, "make it anew with monitors/guest/build: {}", seed.display());
        count += 1;
    }
    assert_eq!(count, 3);
}

/// NSEND names when a packet is to leave (spec/protocol.md 1.4).
#[test]
#[ignore = "needs Debian's rustc, libstd-rust-dev-wasm32 and lld-16"]
fn packets_that_are_to_leave_in_one_second_count_for_that_whenever_they_are_asked_for() {
    let packet = Packet::Tcp { family: Family::Ipv4, data: b"x" };
    let stream = Message::Nsend { sktid: 2, time: Ticks(8_000_000_000), tag: 0, packet };
    let messages = [
        vec![later(7, 9); 101],
        // What is past leaves at once.
        vec![later(7, 3); 101],
        vec![
            later(8, 9),
            later(8, 8),
            later(9, 0),
            later(9, 68),
            later(9, 69),
            (7, stream.clone()),
            (9, stream),
        ],
        // A minute later the same place is of another second.
        vec![later(69, 0); 100],
    ];
    let full = [vec![0; 100], vec![3]].concat();
    let expected = [full.clone(), full, vec![3, 0, 3, 0, 4, 4, 3], vec![0; 100]].concat();
    assert_eq!(said("packets_per_second", &messages.concat()), expected);
}

#[test]
#[ignore = "needs Debian's rustc, libstd-rust-dev-wasm32 and lld-16"]
fn what_a_monitor_of_the_guest_crate_counts_outlives_its_session() {
    let (limit, endpoint) = (made("packet_limit"), Arc::<Endpoint>::default());
    let packet = datagram(0, "192.0.2.9:1");
    let (text, codes) = session(&limit, &endpoint, &vec![packet.clone(); 400]);
    assert_eq!((&*text, codes), ("1000 packets left", vec![0; 400]));
    let (text, codes) = session(&limit, &endpoint, &vec![packet.clone(); 601]);
    assert_eq!((&*text, codes), ("600 packets left", [vec![0; 600], vec![5]].concat()));
    assert_eq!(*endpoint.said.lock().unwrap(), ["all packets are used up"]);
    assert_eq!(session(&limit, &endpoint, &[packet]), ("0 packets left".to_owned(), vec![5]));
}

#[test]
#[ignore = "needs Debian's rustc, libstd-rust-dev-wasm32 and lld-16"]
fn a_monitor_of_the_guest_crate_knows_what_became_of_what_it_allowed() {
    let ipv4: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let udp = |sktid| {
        (0, Message::Nopen { sktid, receive_buffer_len: 1, open: Open::Udp { local: ipv4 } })
    };
    let ipv6 = Open::Udp { local: "[::]:0".parse().unwrap() };
    let socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Raw };
    let capture =
        |end: u64| (7, Message::Ncap { socket, end: Ticks(end * 1_000_000_000), filter: &[0] });
    let close = (0, Message::Nclose { sktid: 3 });
    let messages = [
        // A number that is in use is open once.
        vec![udp(1), udp(1), udp(2), udp(3), udp(4), udp(5)],
        // So is one that was not closed.
        vec![close.clone(), udp(5), close, udp(5), udp(6)],
        vec![open(ipv6), capture(67), capture(68)],
    ];
    let failed = |number| if [1, 6].contains(&number) { 0x32 } else { 0 };
    let few = made("few_sockets");
    let (_, codes) = session_with_answers(&few, &Arc::default(), &messages.concat(), failed);
    let expected = [vec![0, 0, 0, 0, 0, 6], vec![0, 6, 0, 0, 6], vec![7, 0, 8]];
    assert_eq!(codes, expected.concat());
}

/// Refuses with what it was asked and told.
const ARGUMENTS: &str = r#"
#![no_std]
use monitor_guest::{monitor, outcomes, Capture, Monitor, Open, Outcomes, Packet, Verdict, ALLOW};
struct Arguments { told: u16 }
impl Monitor for Arguments {
    fn open(&mut self, open: &Open) -> Verdict {
        if open.buffer_len == 1 { ALLOW } else { Verdict::refuse(open.buffer_len as u16 + u16::from(open.family)) }
    }
    fn close(&mut self, sktid: u8) -> Verdict {
        if sktid == 1 { ALLOW } else { Verdict::refuse(self.told) }
    }
    fn send(&mut self, packet: &Packet) -> Verdict {
        if packet.family == 4 { ALLOW } else { Verdict::refuse(packet.tag) }
    }
    fn received(&mut self, packet: &Packet) -> Verdict {
        Verdict::refuse(u16::from(packet.family) * 0x100 + packet.tag)
    }
    fn capture(&mut self, capture: &Capture) -> Verdict {
        if capture.family == 4 { ALLOW } else { Verdict::refuse(u16::from(capture.sktid)) }
    }
}
impl Outcomes for Arguments {
    fn opened(&mut self, open: &Open, status: u16) {
        self.told = status + open.remote.port;
    }
    fn closed(&mut self, sktid: u8, status: u16) {
        self.told = status + u16::from(sktid);
    }
    fn sent(&mut self, packet: &Packet, status: u16) {
        self.told = if packet.begins_with(b"x") { status + packet.tag } else { 1 };
    }
    fn capturing(&mut self, capture: &Capture, status: u16) {
        self.told = status + (capture.end / 1_000_000_000) as u16;
    }
}
monitor!(Arguments { told: 0 }, Arguments);
outcomes!();
"#;

#[test]
#[ignore = "needs Debian's rustc, libstd-rust-dev-wasm32 and lld-16"]
fn every_argument_and_every_result_reaches_a_monitor_of_the_guest_crate() {
    let ipv6 = Open::Udp { local: "[::]:0".parse().unwrap() };
    let open_ipv6 = Message::Nopen { sktid: 1, receive_buffer_len: 0x300, open: ipv6 };
    let capture = |family, sktid| {
        let socket = Socket { sktid, family, protocol: Protocol::Raw };
        (0, Message::Ncap { socket, end: Ticks(1_024_000_000_000), filter: &[0] })
    };
    let send = |remote: &str, tag| {
        let packet = Packet::Udp { remote: remote.parse().unwrap(), data: b"x" };
        (0, Message::Nsend { sktid: 1, time: Ticks(0), tag, packet })
    };
    let packet = Packet::Udp { remote: "[2001:db8::1]:1".parse().unwrap(), data: b"x" };
    let received = (0, Message::Ndata { sktid: 1, time: Ticks(0), packet });
    let (close, told) = ((0, Message::Nclose { sktid: 1 }), (0, Message::Nclose { sktid: 2 }));
    let messages = [
        [(0, open_ipv6), send("[2001:db8::1]:1", 0x1234), received, capture(Family::Ipv6, 9)],
        [to("192.0.2.1:80"), told.clone(), close, told.clone()],
        [send("192.0.2.1:1", 0x500), told.clone(), capture(Family::Ipv4, 1), told],
    ];
    let (_, codes) = session_with_answers(
        &made_of_text("arguments", ARGUMENTS),
        &Arc::default(),
        &messages.concat(),
        |_| 0x33,
    );
    let expected = [
        [0x306, 0x1234, 0x600, 9],
        [0, 0x33 + 80, 0, 0x33 + 1],
        [0, 0x33 + 0x500, 0, 0x33 + 1_024],
    ];
    assert_eq!(codes, expected.concat());
}

const ASKS: &str = r#"
#![no_std]
use core::fmt::Write;
use monitor_guest::{debug, debug_enabled, flush, keep, kept, monitor, Info, Monitor, KEPT_LEN};
struct Asks;
impl Monitor for Asks {
    fn begin(&mut self, info: &mut Info) {
        let before = kept();
        keep(&[7; KEPT_LEN]);
        let _ = write!(info, "{} {} {}", before == [0; KEPT_LEN], debug_enabled(), flush());
        let long = [b'x'; 300];
        debug(core::str::from_utf8(&long).unwrap());
        for _ in 0..300 {
            let _ = info.write_str(core::str::from_utf8(&long).unwrap());
        }
    }
}
monitor!(Asks, Asks);
"#;

#[test]
#[ignore = "needs Debian's rustc, libstd-rust-dev-wasm32 and lld-16"]
fn what_the_guest_crate_asks_of_an_endpoint_is_answered() {
    let (asks, endpoint) = (made_of_text("asks", ASKS), Arc::<Endpoint>::default());
    let (text, _) = session(&asks, &endpoint, &[]);
    assert!(text.starts_with("true true truexxx") && text.len() == 0x1_0000, "{}", text.len());
    assert_eq!(*endpoint.said.lock().unwrap(), ["x".repeat(200)]);
    assert_eq!(endpoint.kept.lock().unwrap().last(), Some(&[7; 256]));
}
