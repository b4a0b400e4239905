//! Sessions whose chain demands monitor programs (spec/monitors.md 16, 17), over TLS with real chains.
//!
//! ```text
//! beginning  from CDATA to START: which experiments begin
//! hostile    what those that mean harm cost others
//! judging    what becomes of what monitors say
//! keeping    what outlives a session
//! own        those of the endpoint's own operator
//! ```

mod beginning;
mod hostile;
mod judging;
mod keeping;
mod own;

use std::sync::Arc;

use packetlab::message::{Outcome, Socket};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::server::TlsStream;

use super::super::ledger::Ledger;
use super::super::{Endpoint, Session};
use super::rights::{Directory, Group, ledger};
use super::*;
use crate::home::Home;

const PASS_ALL_WAT: &str = include_str!("../../../monitors/wat/pass_all.wat");

/// The one that lets everything pass, with these functions instead of its own of the same names. They may read the
/// endpoint's memory with `$read`, `$flush` and `$exit`.
fn with(functions: &[(&str, &str)]) -> Program {
    let imports = r#"(import "env" "read_vmem_region" (func $read (param i32 i32 i32) (result i32)))
        (import "env" "persistent_memory_flush" (func $flush (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
    let mut text = PASS_ALL_WAT.replacen("(module", &format!("(module {imports}"), 1);
    for (name, _) in functions {
        text = text.replace(&format!("\"{name}\""), &format!("\"unused {name}\""));
    }
    let (before, _) = text.rsplit_once(')').unwrap();
    let export = |(name, rest): &(&str, &str)| format!("(func (export \"{name}\") {rest})");
    wasm(&format!("{before}{})", functions.iter().map(export).collect::<String>()))
}

const NOPEN: &str = "check_pktlab_message_nopen";
const NOPEN_PARAMETERS: &str =
    "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)";
const NSEND: &str = "check_pktlab_message_nsend";
const NSEND_PARAMETERS: &str =
    "(param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)";
const NDATA: &str = "check_pktlab_message_ndata";
const NDATA_PARAMETERS: &str = "(param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)";

fn wasm(text: &str) -> Program {
    Program::from_wasm(&wat::parse_str(text).unwrap()).unwrap()
}

/// A certificate's limits that demand these.
fn demanding(programs: &[&Program]) -> String {
    let digests = programs.iter().map(|program| Hex(program.digest()).to_string());
    format!("monitor={};", digests.collect::<String>())
}

/// A controller of a group and the sessions of its endpoint.
struct Scene {
    group: Group,
    listener: TcpListener,
    ledger: Arc<Ledger>,
    settings: MonitorSettings,
    own: Arc<[Program]>,
}

/// Of a call that is meant to be late: far longer than what takes no time.
const CALL_LIMIT: Duration = Duration::from_millis(500);

/// One session from the handshake on.
struct Conversation {
    link: Link<TlsStream<TcpStream>>,
    session: JoinHandle<Session>,
}

impl Scene {
    async fn new(demanded: &[&Program]) -> Self {
        Self::limited(demanded, "").await
    }

    /// The certificate that demands them limits this as well.
    async fn limited(demanded: &[&Program], limits: &str) -> Self {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        // A busy machine is no crash of a monitor.
        let patient = ::monitors::Limits { call: LONG, ..::monitors::Limits::default() };
        let settings = MonitorSettings { limits: patient, ..MonitorSettings::default() };
        let group = Group::new(&(demanding(demanded) + limits), LONG);
        Self { group, listener, ledger: Arc::default(), settings, own: Arc::default() }
    }

    async fn begin(&self) -> Conversation {
        self.begin_until(std::future::pending()).await
    }

    /// One that ends when the endpoint is needed elsewhere.
    async fn begin_until(
        &self,
        preempted: impl Future<Output = ()> + Send + 'static,
    ) -> Conversation {
        let endpoint = self.group.endpoint(self.listener.local_addr().unwrap(), &self.ledger);
        let (monitors, own_monitors) = (MonitorRule::Run(self.settings), Arc::clone(&self.own));
        let endpoint = Endpoint { monitors, own_monitors, ..endpoint };
        let session = tokio::spawn(endpoint.run_until(preempted, ready(true)));
        Conversation { link: self.group.handshake(&self.listener).await, session }
    }

    /// One whose monitors are supplied in this order.
    async fn start(&self, programs: &[&Program]) -> Conversation {
        let mut conversation = self.begin().await;
        conversation.start(programs).await;
        conversation
    }
}

impl Conversation {
    /// The next message in hexadecimal.
    async fn next(&mut self) -> String {
        let (message_type, payload) =
            timeout(LONG, self.link.receive()).await.unwrap().unwrap().expect("a message");
        format!("{:02x}{:06x}{}", message_type.0, payload.len(), Hex(&payload))
    }

    /// The next message that is not for the controller's log.
    async fn next_for_mlet(&mut self) -> String {
        loop {
            let next = self.next().await;
            if !next.starts_with("65") {
                return next;
            }
        }
    }

    /// What comes next after a request, but for the controller's log.
    async fn answer(&mut self, request: &Message<'_>) -> String {
        self.link.send(request).await.unwrap();
        self.next_for_mlet().await
    }

    /// Supplies monitors in this order, and starts.
    async fn start(&mut self, programs: &[&Program]) {
        for program in programs {
            assert_eq!(self.supply(program).await, "40000000");
        }
        assert_eq!(self.answer(&Message::Start).await, "40000000");
        for index in 0..programs.len() {
            let info = format!("65000015000000070000000200000000{}{index:02x}00", "6d6f6e69746f72");
            assert_eq!(self.next().await, info);
        }
    }

    async fn supply(&mut self, program: &Program) -> String {
        self.answer(&Message::Cdata { hint: b"monitor", data: program.encoded() }).await
    }

    /// Opens UDP socket 1.
    async fn open_udp(&mut self) {
        assert_eq!(self.answer(&nopen(1, Open::Udp { local: ANY })).await, "40000000");
    }

    /// Sends by socket 1; the RESULT, past notifications.
    async fn send(&mut self, remote: SocketAddr, data: &[u8]) -> String {
        let packet = Packet::Udp { remote, data };
        self.link.send(&Message::Nsend { sktid: 1, time: Ticks(0), tag: 0, packet }).await.unwrap();
        loop {
            let next = self.next().await;
            if next.starts_with("40") {
                return next;
            }
        }
    }

    /// Closes; how the session ended.
    async fn end(self) -> Result<End, EndpointError> {
        self.link.close().await;
        timeout(LONG, self.session).await.unwrap().unwrap().end
    }
}

/// An outcome as it is sent, in hexadecimal.
fn outcome(outcome: Outcome) -> String {
    let mut encoded = Vec::new();
    Message::Result(outcome).encode(&mut encoded).unwrap();
    Hex(&encoded).to_string()
}
