//! Monitors as their text says, against checks made of messages.

mod arguments;
mod calls;
mod hostile;
mod sharing;
mod supply;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use packetlab::message::{Family, Message, Open, Packet, Protocol, Socket};
use packetlab::program::Program;
use packetlab::time::Ticks;

use crate::{
    Check, Compiled, Crash, Limits, Monitors, Objection, Persistent, Scheduling, Surroundings,
    Unusable, Verdict,
};

/// What monitors may take that do not try to take more: a busy machine is no crash.
const PATIENT: Limits = Limits { call: Duration::from_secs(60), memory_len_max: 1 << 20 };
const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);
const PASS_ALL: &str = include_str!("../wat/pass_all.wat");
/// What a monitor may import.
const IMPORTS: &str = r#"
  (import "monitor" "memory" (memory 1))
  (import "env" "read_vmem_region" (func $read (param i32 i32 i32) (result i32)))
  (import "env" "persistent_memory_flush" (func $flush (result i32)))
  (import "env" "endpoint_debug_enabled" (func $debugging (result i32)))
  (import "env" "monitor_debug" (func $debug (param i32)))
"#;
const NSEND_PARAMETERS: &str = "(param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32)";

/// An endpoint whose memory is 0x11 everywhere, and what its monitors have said and kept.
#[derive(Debug, Default)]
struct Endpoint {
    debug_enabled: bool,
    full: bool,
    kept: Mutex<Vec<Persistent>>,
    said: Mutex<Vec<Vec<u8>>>,
    /// The threads on which they said it.
    said_by: Mutex<Vec<String>>,
    /// The threads on which it was asked for anything.
    asked_on: Mutex<Vec<ThreadId>>,
}

impl Endpoint {
    fn asked(&self) {
        self.asked_on.lock().unwrap().push(std::thread::current().id());
    }
}

impl Surroundings for Endpoint {
    fn read(&self, _: u32, buffer: &mut [u8]) {
        self.asked();
        buffer.fill(0x11);
    }

    fn keep(&self, persistent: &Persistent) {
        self.asked();
        self.kept.lock().unwrap().push(*persistent);
    }

    fn flush(&self) -> bool {
        self.asked();
        !self.full
    }

    fn debug(&self, text: &[u8]) {
        self.asked();
        self.said.lock().unwrap().push(text.to_vec());
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.said_by.lock().unwrap().push(thread);
    }

    fn debug_enabled(&self) -> bool {
        self.debug_enabled
    }
}

/// What every monitor of these tests has: an allocator that frees what was allocated last.
fn allocator() -> &'static str {
    let begin = PASS_ALL.find("(global $next").unwrap();
    let end = PASS_ALL.find(r#"(func (export "check_"#).unwrap();
    &PASS_ALL[begin..end]
}

/// A module with an allocator and these functions.
fn module(functions: &str) -> String {
    format!("(module {IMPORTS} {} {functions})", allocator())
}

/// One that judges NSEND by these instructions.
fn nsend(instructions: &str) -> String {
    module(&format!(
        r#"(func (export "check_pktlab_message_nsend") {NSEND_PARAMETERS} (result i32) {instructions})"#
    ))
}

fn program(text: &str) -> Program {
    Program::from_wasm(&wat::parse_str(text).unwrap()).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(work)
}

async fn add(
    monitors: &mut Monitors,
    text: &str,
    endpoint: &Arc<Endpoint>,
) -> Result<(), Unusable> {
    add_limited(monitors, text, endpoint, PATIENT).await
}

async fn add_limited(
    monitors: &mut Monitors,
    text: &str,
    endpoint: &Arc<Endpoint>,
    limits: Limits,
) -> Result<(), Unusable> {
    let compiled = Compiled::of(&program(text)).await?;
    let surroundings: Arc<dyn Surroundings> = Arc::clone(endpoint) as Arc<dyn Surroundings>;
    monitors.add(compiled, limits, surroundings, [0; 256]).await
}

/// A session with these monitors.
async fn session(texts: &[&str]) -> Monitors {
    let mut monitors = Monitors::default();
    for text in texts {
        add(&mut monitors, text, &Arc::default()).await.unwrap();
    }
    monitors
}

fn check_of(message: &Message<'_>) -> Check {
    let mut encoded = Vec::new();
    message.encode(&mut encoded).unwrap();
    Check::new(message.message_type(), encoded, packetlab::message::HEADER_LEN).unwrap()
}

fn udp(data: &[u8]) -> Check {
    let packet = Packet::Udp { remote: LOOPBACK, data };
    check_of(&Message::Nsend { sktid: 1, time: Ticks(0), tag: 7, packet })
}

/// What a monitor says to an NSEND.
async fn says(monitors: &Monitors) -> Verdict {
    monitors.check(udp(b"x")).await.unwrap().0
}

fn objection(objection: Objection) -> Verdict {
    Verdict::Objection { monitor: 0, objection }
}
