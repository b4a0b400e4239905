//! The monitors that the guest crate has as examples, made as an operator makes them, against messages.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use monitors::{Check, Compiled, Limits, Monitors, Objection, Persistent, Surroundings, Verdict};
use packetlab::message::{Family, HEADER_LEN, Message, Open, Packet};
use packetlab::program::Program;
use packetlab::time::Ticks;

/// An endpoint with a clock, in seconds.
#[derive(Debug, Default)]
struct Endpoint(AtomicU64);

impl Surroundings for Endpoint {
    fn read(&self, address: u32, buffer: &mut [u8]) {
        assert_eq!((address, buffer.len()), (0x1001_0000, 8), "the clock alone is read");
        buffer.copy_from_slice(&(self.0.load(SeqCst) * 1_000_000_000).to_be_bytes());
    }

    fn keep(&self, _: &Persistent) {}

    fn flush(&self) -> bool {
        true
    }

    fn debug(&self, _: &[u8]) {}

    fn debug_enabled(&self) -> bool {
        false
    }
}

/// What an example says to these messages, one after the other, each second of the clock.
fn said(example: &str, messages: &[(u64, Message<'_>)]) -> Vec<u16> {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    let out = std::env::temp_dir().join(format!("pktfleet-guest-{}-{example}", std::process::id()));
    let made = Command::new(guest.join("build"))
        .arg(guest.join(format!("examples/{example}.rs")))
        .arg(&out)
        .env("RUSTC", "/usr/bin/rustc")
        .env("WASM_LD", "wasm-ld-16")
        .output()
        .expect("a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let program = Program::from_wasm(&std::fs::read(&out).unwrap()).unwrap();
    std::fs::remove_file(out).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let (endpoint, mut monitors) = (Arc::<Endpoint>::default(), Monitors::default());
        let compiled = Compiled::of(&program).await.unwrap();
        let surroundings = Arc::clone(&endpoint) as Arc<dyn Surroundings>;
        monitors
            .add(
                compiled,
                Limits { call: Duration::from_secs(60), ..Limits::default() },
                surroundings,
                [0; 256],
            )
            .await
            .unwrap();
        assert_eq!(monitors.initialize().await, Ok(vec![Vec::new()]));
        let mut codes = Vec::new();
        for (second, message) in messages {
            endpoint.0.store(*second, SeqCst);
            let mut encoded = Vec::new();
            message.encode(&mut encoded).unwrap();
            let check = Check::new(message.message_type(), encoded, HEADER_LEN).unwrap();
            codes.push(match monitors.check(check).await.unwrap().0 {
                Verdict::Pass => 0,
                Verdict::Objection { objection: Objection::Code(code), .. } => code,
                other @ Verdict::Objection { .. } => panic!("{example}: {other:?}"),
            });
        }
        codes
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
