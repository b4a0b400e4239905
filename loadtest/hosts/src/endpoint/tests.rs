//! The endpoint's set-up and requests against scripted controllers, over a pipe.

mod datagrams;
mod denied;
mod golden;
mod lingering;
mod monitors;
pub(super) mod rights;
mod session;
mod statuses;

use std::future::ready;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use packetlab::key::Hex;
use packetlab::message::{
    Family, Message, MessageType, NCTL_FIN, Open, Packet, StateChange, Status,
};
use packetlab::program::Program;
use packetlab::time::Ticks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::chain_limits::{self, ChainLimits};
use super::machine::Machine;
use super::monitors::{MonitorRule, MonitorSettings, SessionMonitors, Supply};
use super::requests::{self, SessionTerms};
use super::sockets::Sockets;
use super::{End, EndpointError, setup};
use crate::clock::now;
use crate::link::{Link, LinkError};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 8, 0, 1));
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where socket 1 is in memory.
const SOCKET_1: u32 = 0x2000_0400;

const LONG: Duration = Duration::from_secs(60);

/// The program that the chain of a [`Home`] demands.
const PASS_ALL: &[u8] = b"0xb7 0 0 0 1\n0x95 0 0 0 0\n";

type Served = JoinHandle<Result<End, EndpointError>>;

/// The mlet's side of a session whose endpoint serves requests.
struct Script {
    link: Link<DuplexStream>,
    served: Served,
    preempt: oneshot::Sender<()>,
}

impl Script {
    fn new() -> Self {
        Self::start(OWN, "", None)
    }

    /// With the limits of a chain.
    fn limited(limits: &str) -> Self {
        Self::start(OWN, limits, None)
    }

    fn start(own: IpAddr, limits: &str, leave_at: Option<MessageType>) -> Self {
        let limits = ChainLimits::of_text(limits);
        let monitors = SessionMonitors::new(limits.memories(), false, "endpoint".to_owned());
        let sockets = Sockets::new(Machine::new(own, "host".to_owned()), limits);
        let (ran, not_after) = (Duration::ZERO, Ticks::MAX);
        Self::serve(SessionTerms { sockets, monitors, ran, not_after, leave_at })
    }

    fn serve(terms: SessionTerms) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (preempt, preempted) = oneshot::channel();
        let served = tokio::spawn(async move {
            let mut link = Link::new(far);
            let preempted = async {
                if preempted.await.is_err() {
                    std::future::pending().await
                }
            };
            requests::serve(&mut link, terms, preempted, || ()).await
        });
        Self { link: Link::new(near), served, preempt }
    }

    /// The next message.
    async fn next(&mut self) -> (MessageType, Vec<u8>) {
        let next = timeout(LONG, self.link.receive()).await.expect("a message should come");
        next.unwrap().expect("the endpoint should not close here")
    }

    /// Sends a request whose answer must be the very next message.
    async fn ask(&mut self, request: Message<'_>) -> Status {
        self.link.send(&request).await.unwrap();
        let (message_type, payload) = self.next().await;
        match Message::decode(message_type, &payload) {
            Message::Result(outcome) => outcome.status(),
            other => panic!("RESULT expected, not {other:?}"),
        }
    }

    async fn read(&mut self, address: u32, len: u16) -> Vec<u8> {
        self.link.send(&Message::Mread { address, len }).await.unwrap();
        let (message_type, payload) = self.next().await;
        match Message::decode(message_type, &payload) {
            Message::Mdata { address: same, data } if same == address => data.to_vec(),
            other => panic!("MDATA expected, not {other:?}"),
        }
    }

    async fn write(&mut self, address: u32, data: &[u8]) {
        assert_eq!(self.ask(Message::Mwrite { address, data }).await, Status::SUCCESS);
    }

    async fn change(&mut self) -> StateChange {
        let (message_type, payload) = self.next().await;
        match Message::decode(message_type, &payload) {
            Message::Nstat { sktid: 1, change, .. } => change,
            other => panic!("NSTAT of socket 1 expected, not {other:?}"),
        }
    }

    async fn tag(&mut self) -> (u16, Ticks, Status) {
        let (message_type, payload) = self.next().await;
        match Message::decode(message_type, &payload) {
            Message::Ntag { sktid: 1, tag, time, status } => (tag, time, status),
            other => panic!("NTAG of socket 1 expected, not {other:?}"),
        }
    }

    /// Opens socket 1 to `remote` and waits until it is established.
    async fn connect(&mut self, remote: SocketAddr) {
        assert_eq!(self.ask(connect(1, remote)).await, Status::SUCCESS);
        assert_eq!(self.change().await, StateChange::TcpEstablished { remote });
    }

    /// The mlet leaves; how the endpoint's side ended.
    async fn leave(self) -> Result<End, EndpointError> {
        drop(self.link);
        self.served.await.unwrap()
    }
}

fn connect(sktid: u8, remote: SocketAddr) -> Message<'static> {
    nopen(sktid, Open::TcpConnect { local: ANY, remote })
}

fn nopen(sktid: u8, open: Open) -> Message<'static> {
    Message::Nopen { sktid, receive_buffer_len: 0x1_0000, open }
}

fn send(time: Ticks, tag: u16, data: &[u8]) -> Message<'_> {
    Message::Nsend { sktid: 1, time, tag, packet: Packet::Tcp { family: Family::Ipv4, data } }
}

fn code(code: u8) -> StateChange {
    StateChange::Code { family: Family::Ipv4, protocol: packetlab::message::Protocol::Tcp, code }
}

const REQUEST: &[u8; 18] = b"GET / HTTP/1.0\r\n\r\n";

#[tokio::test]
async fn a_page_comes_from_the_endpoints_own_address_with_all_notifications() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let server = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, visitor) = listener.accept().await.unwrap();
        let mut request = [0; REQUEST.len()];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(visitor.ip().to_string().as_bytes()).await.unwrap();
        request
    });
    let mut script = Script::new();
    script.connect(server).await;
    let before = now();
    assert_eq!(script.ask(send(Ticks(0), 0x04d2, REQUEST)).await, Status::SUCCESS);
    let (tag, time, status) = script.tag().await;
    assert_eq!((tag, status), (0x04d2, Status::SUCCESS));
    assert!(before <= time && time <= now());

    let mut answer = Vec::new();
    let end = loop {
        let (message_type, payload) = script.next().await;
        match Message::decode(message_type, &payload) {
            Message::Ndata { sktid: 1, packet: Packet::Tcp { data, .. }, .. } => {
                answer.extend_from_slice(data);
            }
            Message::Nstat { sktid: 1, change, .. } => break change,
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(end, code(StateChange::PEER_CLOSED));
    assert_eq!(answer.escape_ascii().to_string(), OWN.to_string());
    assert_eq!(served.await.unwrap(), *REQUEST);
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    assert!(matches!(script.leave().await, Ok(End::Closed)));
}

#[tokio::test]
async fn a_refused_connection_is_a_reset_and_its_socket_takes_no_data() {
    // Bound but not listening, so that nobody else can listen there.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(LOOPBACK).unwrap();
    let mut script = Script::new();
    assert_eq!(script.ask(connect(1, closed.local_addr().unwrap())).await, Status::SUCCESS);
    assert_eq!(script.change().await, code(StateChange::RESET));
    // Original endpoints tell of it in memory only.
    assert_eq!(script.read(SOCKET_1 + 2, 1).await, [0xFF]);
    // The task reports first and refuses orders then; what slips in between is reported as not sent.
    let first = script.ask(send(Ticks(0), 7, b"x")).await;
    if first == Status::SUCCESS {
        assert_eq!(script.tag().await.2, Status::EPKTNOTSENT);
    }
    let second = script.ask(send(Ticks(0), 8, b"x")).await;
    assert_eq!(second, Status::ESKTNOTOPEN);
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::ESKTNOTOPEN);
}

#[tokio::test]
async fn data_is_sent_at_its_time_in_order_and_then_the_fin() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let mut script = Script::new();
    script.connect(listener.local_addr().unwrap()).await;
    let (mut server, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip(), OWN);

    let later = now().saturating_add(Duration::from_millis(60));
    assert_eq!(script.ask(send(later, 1, b"one")).await, Status::SUCCESS);
    assert_eq!(script.ask(send(Ticks(0), 2, b"two")).await, Status::SUCCESS);
    let fin = Message::Nctl { sktid: 1, family: Family::Ipv4, time: Ticks(0), command: NCTL_FIN };
    assert_eq!(script.ask(fin).await, Status::SUCCESS);

    let (tag, time, status) = script.tag().await;
    assert_eq!((tag, status), (1, Status::SUCCESS));
    assert!(time >= later, "{time} is before {later}");
    assert_eq!(script.tag().await.0, 2);
    let mut received = String::new();
    server.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "onetwo");

    // Half-closed: the other direction still works.
    server.write_all(b"bye").await.unwrap();
    let (message_type, payload) = script.next().await;
    assert!(matches!(
        Message::decode(message_type, &payload),
        Message::Ndata { packet: Packet::Tcp { data: b"bye", .. }, .. }
    ));
}

#[tokio::test]
async fn data_may_still_be_sent_before_a_fin_that_is_not_due_yet() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let mut script = Script::new();
    script.connect(listener.local_addr().unwrap()).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let due = now().saturating_add(Duration::from_millis(300));
    let fin = |time| Message::Nctl { sktid: 1, family: Family::Ipv4, time, command: NCTL_FIN };
    assert_eq!(script.ask(fin(due)).await, Status::SUCCESS);
    assert_eq!(script.ask(fin(Ticks(0))).await, Status::ESKTNOTOPEN, "it ends once");
    assert_eq!(script.ask(send(Ticks(0), 1, b"before")).await, Status::SUCCESS);
    let (tag, time, status) = script.tag().await;
    assert_eq!((tag, status), (1, Status::SUCCESS));
    assert!(time < due, "{time} is not before {due}");
    // What is ordered for later than the end has an answer, but does not leave.
    let later = due.saturating_add(Duration::from_millis(1));
    assert_eq!(script.ask(send(later, 2, b"after")).await, Status::SUCCESS);
    let mut received = String::new();
    server.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "before");
    assert!(now() >= due);
    let (tag, _, status) = script.tag().await;
    assert_eq!((tag, status), (2, Status::EPKTNOTSENT));
    assert_eq!(script.ask(send(Ticks(0), 3, b"x")).await, Status::ESKTNOTOPEN);
}

#[tokio::test]
async fn nothing_is_told_of_tag_0() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let mut script = Script::new();
    script.connect(listener.local_addr().unwrap()).await;
    let (mut server, _) = listener.accept().await.unwrap();
    for tag in [0, 7] {
        assert_eq!(script.ask(send(Ticks(0), tag, b"x")).await, Status::SUCCESS);
    }
    server.read_exact(&mut [0; 2]).await.unwrap();
    assert_eq!(script.tag().await.0, 7);
    assert_ne!(script.read(0x3000_0000, 8).await, [0; 8], "the time is in memory");
}

#[tokio::test]
async fn no_notification_follows_the_answer_to_nclose_and_the_number_is_free_again() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut script = Script::new();
    script.connect(address).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let flood = tokio::spawn(async move { while server.write_all(&[0; 4096]).await.is_ok() {} });
    let (message_type, _) = script.next().await;
    assert_eq!(message_type, MessageType::NDATA);

    script.link.send(&Message::Nclose { sktid: 1 }).await.unwrap();
    while script.next().await.0 != MessageType::RESULT {}
    // With notifications of the closed socket still queued, the next message is the next answer.
    assert_eq!(script.ask(connect(1, address)).await, Status::SUCCESS);
    assert_eq!(script.change().await, StateChange::TcpEstablished { remote: address });
    flood.await.unwrap();
}

#[tokio::test]
async fn a_broken_connection_is_reported_as_a_reset() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let mut script = Script::new();
    script.connect(listener.local_addr().unwrap()).await;
    let (server, _) = listener.accept().await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    assert_eq!(script.change().await, code(StateChange::RESET));
    assert_eq!(script.ask(send(Ticks(0), 9, b"x")).await, Status::ESKTNOTOPEN);
}

#[tokio::test]
async fn more_waiting_data_than_the_queue_holds_is_refused() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let mut script = Script::new();
    script.connect(listener.local_addr().unwrap()).await;
    let data = vec![0; 12 * 1024 * 1024];
    assert_eq!(script.ask(send(Ticks::MAX, 1, &data)).await, Status::SUCCESS);
    assert_eq!(script.ask(send(Ticks::MAX, 2, &data)).await, Status::SUCCESS);
    assert_eq!(script.ask(send(Ticks::MAX, 3, &data)).await, Status::ESYSNOBUFS);
}

#[tokio::test]
async fn yield_is_acknowledged_and_ends_the_session() {
    let mut script = Script::new();
    assert_eq!(script.ask(Message::Yield { resume: Ticks(9) }).await, Status::SUCCESS);
    assert!(matches!(script.leave().await, Ok(End::Yielded { resume: Ticks(9) })));
}

#[tokio::test]
async fn a_preempted_session_says_so_and_ends() {
    let mut script = Script::new();
    assert_eq!(script.ask(Message::End).await, Status::ECTLNOTSUP);
    script.preempt.send(()).unwrap();
    assert_eq!(script.link.receive().await.unwrap(), Some((MessageType::SUSPD, vec![])));
    assert!(script.link.receive().await.unwrap().is_none());
    assert!(matches!(script.served.await.unwrap(), Ok(End::Preempted)));
}

#[tokio::test]
async fn a_session_ends_when_its_period_is_over_and_leaves_a_line_for_the_log() {
    let mut script = Script::limited("max_exp_period=1000000;");
    let (message_type, payload) = script.next().await;
    let Message::Linfo { info, .. } = Message::decode(message_type, &payload) else {
        panic!("LINFO expected, not {message_type}");
    };
    assert!(info.ends_with(b"as long as its chain allows"), "{}", info.escape_ascii());
    assert!(matches!(script.leave().await, Ok(End::PeriodOver)));
}

/// A controller that does not read stops the endpoint inside an answer; neither its period nor a preemption waits
/// for that, and nothing follows the half message.
#[tokio::test]
async fn a_controller_that_does_not_read_holds_no_session_beyond_its_end() {
    let flood = async |script: &mut Script| {
        let request = Message::Mread { address: 0, len: 0xffff };
        // Until the endpoint, stopped inside an answer, takes no more requests.
        while timeout(Duration::from_millis(100), script.link.send(&request)).await.is_ok() {}
    };
    let mut script = Script::limited("max_exp_period=300000000;");
    flood(&mut script).await;
    let end = timeout(LONG, &mut script.served).await.expect("the period ends the session");
    assert!(matches!(end.unwrap(), Ok(End::PeriodOver)));
    let mut script = Script::new();
    flood(&mut script).await;
    script.preempt.send(()).unwrap();
    let end = timeout(LONG, &mut script.served).await.expect("a preemption ends the session");
    assert!(matches!(end.unwrap(), Ok(End::Preempted)));
    // What has arrived is whole answers and the beginning of one.
    while let Ok(Some((message_type, _))) = script.link.receive().await {
        assert_eq!(message_type, MessageType::MDATA);
    }
}

#[tokio::test]
async fn an_endpoint_told_to_leave_vanishes_without_an_answer() {
    let mut script = Script::start(OWN, "", Some(MessageType::NCLOSE));
    assert_eq!(script.ask(Message::End).await, Status::ECTLNOTSUP);
    script.link.send(&Message::Nclose { sktid: 1 }).await.unwrap();
    assert!(script.link.receive().await.unwrap().is_none());
    assert!(matches!(script.leave().await, Ok(End::Left)));
}

#[tokio::test]
async fn an_end_inside_a_message_is_an_error() {
    let mut script = Script::new();
    script.link.send_encoded(&[0x2B, 0, 0]).await.unwrap();
    let end = script.leave().await;
    assert!(matches!(end, Err(EndpointError::Link(LinkError::CutShort))), "{end:?}");
}

const RUN: MonitorRule = MonitorRule::Run(MonitorSettings {
    limits: ::monitors::Limits { call: Duration::from_millis(100), memory_len_max: 1 << 20 },
    report_crash: false,
    debug: false,
});

/// Nothing has come yet of what the certificate demands.
fn supply(demanded: &[Program], rule: MonitorRule) -> Supply {
    let text = demanded.iter().map(|program| Hex(program.digest()).to_string());
    let text = text.collect::<String>();
    let limits = if text.is_empty() { text } else { format!("monitor={text};") };
    let certificates = chain_limits::certificates(&[&limits]);
    let limits = ChainLimits::of_session(&certificates, &Arc::default());
    let memories = limits.memories();
    let sockets = Sockets::new(Machine::new(OWN, "host".to_owned()), limits);
    let demanded = super::monitors::demands(&certificates);
    Supply::new(rule, demanded, Arc::default(), sockets.memory(), memories, "endpoint".to_owned())
}

/// Sends the messages of a set-up one by one; the answers' payloads and how the set-up ended.
async fn set_up(
    demanded: &[Program],
    rule: MonitorRule,
    requests: &[Message<'_>],
) -> (Vec<Vec<u8>>, Result<(), EndpointError>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let supply = supply(demanded, rule);
    let set_up = tokio::spawn(async move {
        setup::run(&mut Link::new(far), supply, LONG, ready(true)).await.map(drop)
    });
    let mut link = Link::new(near);
    let mut answers = Vec::new();
    for request in requests {
        link.send(request).await.unwrap();
        let (message_type, payload) = link.receive().await.unwrap().unwrap();
        assert_eq!(message_type, MessageType::RESULT);
        answers.push(payload);
    }
    drop(link);
    (answers, set_up.await.unwrap())
}

#[tokio::test]
async fn start_succeeds_once_every_demanded_program_has_come() {
    let pass = Program::from_ebpf_text(PASS_ALL).unwrap();
    let block = Program::from_ebpf_text(b"0xb7 0 0 0 0\n0x95 0 0 0 0\n").unwrap();
    let cdata = |hint, program: &'static [u8]| Message::Cdata { hint, data: program };
    let leak = |program: &Program| &*program.encoded().to_vec().leak();
    let (pass_bytes, block_bytes) = (leak(&pass), leak(&block));

    let (answers, end) = set_up(&[], RUN, &[Message::Start]).await;
    assert_eq!(answers, [Vec::<u8>::new()]);
    assert!(end.is_ok());

    let both = [pass.clone(), block.clone()];
    let (answers, end) = set_up(
        &both,
        MonitorRule::Ignore,
        &[
            cdata(b"monitor", pass_bytes),
            cdata(b"monitor", pass_bytes),
            cdata(b"monitor", block_bytes),
            Message::Start,
        ],
    )
    .await;
    assert!(answers.iter().all(Vec::is_empty), "{answers:?}");
    assert!(end.is_ok());

    let requests = [
        cdata(b"screen", pass_bytes),
        cdata(b"monitor", block_bytes),
        cdata(b"monitor", b"\x09"),
        // The program of a monitor is no filter, which no certificate can demand.
        cdata(b"filter", pass_bytes),
        Message::Nclose { sktid: 1 },
        Message::Start,
    ];
    let (answers, end) = set_up(&[pass], RUN, &requests).await;
    assert_eq!(answers, [[0, 0x24], [0, 0x20], [0, 0x20], [0, 0x20], [0, 0x11], [0, 0x21]]);
    assert!(matches!(end, Err(EndpointError::ProgramsMissing { count: 1 })), "{end:?}");
}

#[tokio::test]
async fn an_experiment_whose_monitors_should_be_run_is_refused_where_none_are() {
    let pass = Program::from_ebpf_text(PASS_ALL).unwrap();
    let encoded: &[u8] = pass.encoded().to_vec().leak();
    let requests = [Message::Cdata { hint: b"monitor", data: encoded }, Message::Start];
    for (rule, reason) in
        [(MonitorRule::Refuse, "--no-monitors"), (RUN, "a monitor program in eBPF")]
    {
        let (answers, end) = set_up(std::slice::from_ref(&pass), rule, &requests).await;
        assert_eq!(answers, [vec![], vec![0, 0x13, 0, 0]]);
        let error = end.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_chain_may_demand_a_hundred_programs_and_no_more() {
    let program = Program::from_ebpf_text(PASS_ALL).unwrap();
    let (answers, end) = set_up(&vec![program.clone(); 101], RUN, &[]).await;
    assert!(answers.is_empty());
    assert!(matches!(end, Err(EndpointError::TooManyPrograms { count: 101 })), "{end:?}");
    let (_, end) = set_up(&vec![program; 100], RUN, &[]).await;
    assert!(matches!(end, Err(EndpointError::ClosedInSetup)), "{end:?}");
}

#[tokio::test]
async fn a_controller_that_closes_before_start_is_an_error() {
    let (answers, end) = set_up(&[], RUN, &[]).await;
    assert!(answers.is_empty());
    assert!(matches!(end, Err(EndpointError::ClosedInSetup)), "{end:?}");
}

#[tokio::test]
async fn a_controller_that_never_sends_start_is_left_in_time() {
    let (near, far) = tokio::io::duplex(1024);
    let limit = Duration::from_millis(20);
    let end = setup::run(&mut Link::new(far), supply(&[], RUN), limit, ready(true)).await;
    assert!(matches!(end, Err(EndpointError::TimedOut { .. })), "{end:?}");
    drop(near);
}
