//! The endpoint's set-up and requests against scripted controllers, over a pipe.

mod own_home;
mod session;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use engine::wire::message::{
    Family, Message, MessageType, NCTL_FIN, Open, Packet, StateChange, Status,
};
use engine::wire::program::Program;
use engine::wire::time::Ticks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::link::{Link, LinkError};
use super::{End, EndpointError, now, requests, setup};
use crate::web::Web;

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 8, 0, 1));
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const LONG: Duration = Duration::from_secs(60);

/// The program that the chain of a [`Home`] demands.
const PASS_ALL: &[u8] = b"0xb7 0 0 0 1\n0x95 0 0 0 0\n";

type Served = JoinHandle<Result<End, EndpointError>>;

/// The mlet's side of a session whose endpoint serves requests.
struct Script {
    link: Link<DuplexStream>,
    served: Served,
}

impl Script {
    fn new() -> Self {
        Self::leaving_at(None)
    }

    fn leaving_at(leave_at: Option<MessageType>) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let served = tokio::spawn(async move {
            let mut link = Link::new(far);
            let Some(first) = link.receive().await? else { return Ok(End::Closed) };
            requests::serve(&mut link, first, OWN, leave_at).await
        });
        Self { link: Link::new(near), served }
    }

    /// The next message.
    async fn next(&mut self) -> (MessageType, Vec<u8>) {
        self.link.receive().await.unwrap().expect("the endpoint should not close here")
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
    StateChange::Code { family: Family::Ipv4, protocol: engine::wire::message::Protocol::Tcp, code }
}

#[tokio::test]
async fn a_page_comes_from_the_endpoints_own_address_with_all_notifications() {
    let web = Web::start(LOOPBACK).await.unwrap();
    let mut script = Script::new();
    script.connect(web.address()).await;
    let before = now();
    assert_eq!(
        script.ask(send(Ticks(0), 0x04d2, b"GET / HTTP/1.0\r\n\r\n")).await,
        Status::SUCCESS
    );
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
    assert!(answer.ends_with(web.page(OWN).as_bytes()), "{}", answer.escape_ascii());
    assert_eq!(web.connections(OWN), 1);
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    assert!(matches!(script.leave().await, Ok(End::Closed)));
}

#[tokio::test]
async fn what_is_not_supported_is_answered_with_its_own_status() {
    let tcp = |data| Packet::Tcp { family: Family::Ipv4, data };
    let udp = Packet::Udp { remote: LOOPBACK, data: b"x" };
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let server = listener.local_addr().unwrap();
    let mut script = Script::new();
    let nsend = |packet| Message::Nsend { sktid: 1, time: Ticks(0), tag: 1, packet };
    for (request, status) in [
        (nopen(1, Open::Udp { local: ANY }), Status::ESKTNOPROTO),
        (nopen(1, Open::Raw { local: ANY.ip() }), Status::ESKTNOPROTO),
        (nopen(1, Open::TcpListen { local: ANY }), Status::ESKTNOPROTO),
        (nopen(1, Open::TcpConnect { local: foreign, remote: server }), Status::ESKTNOADDR),
        (nsend(tcp(b"x")), Status::ESKTNOTOPEN),
        (Message::Nclose { sktid: 1 }, Status::ESKTNOTOPEN),
        (Message::Mread { address: 0x1001_0000, len: 8 }, Status::ECTLNOTSUP),
        (Message::Mwrite { address: 0x2000_0070, data: b"\0>" }, Status::ECTLNOTSUP),
        (Message::End, Status::ECTLNOTSUP),
        (Message::Cont, Status::ECTLNOTSUP),
        (Message::Start, Status::ECTLNOTSUP),
    ] {
        assert_eq!(script.ask(request.clone()).await, status, "{request:?}");
    }
    script.connect(server).await;
    let socket = udp.socket(1);
    let tcp_socket = tcp(b"").socket(1);
    let nctl = |command| Message::Nctl { sktid: 1, family: Family::Ipv4, time: Ticks(0), command };
    let ncap = |socket| Message::Ncap { socket, end: Ticks::MAX, filter: b"\0" };
    for (request, status) in [
        (connect(1, server), Status::ESKTINUSE),
        (nsend(udp), Status::ESKTNOMATCH),
        (ncap(socket), Status::ESKTNOMATCH),
        (ncap(tcp_socket), Status::ESKTNOPROTO),
        (nctl(NCTL_FIN + 1), Status::ECTLNOTSUP),
    ] {
        assert_eq!(script.ask(request.clone()).await, status, "{request:?}");
    }
    script.link.send_encoded(&[0x99, 0, 0, 1, 7]).await.unwrap();
    assert_eq!(script.next().await, (MessageType::RESULT, vec![0, 0x11]));
    assert!(matches!(script.leave().await, Ok(End::Closed)));
}

#[tokio::test]
async fn a_malformed_request_is_answered_and_ends_the_session() {
    let mut script = Script::new();
    script.link.send_encoded(&[0x2B, 0, 0, 2, 1, 2]).await.unwrap();
    assert_eq!(script.next().await, (MessageType::RESULT, vec![0, 0x10]));
    assert!(script.link.receive().await.unwrap().is_none());
    let end = script.served.await.unwrap();
    assert!(matches!(end, Err(EndpointError::Malformed(MessageType::NCLOSE))), "{end:?}");
}

#[tokio::test]
async fn a_refused_connection_is_a_reset_and_its_socket_takes_no_data() {
    // Bound but not listening, so that nobody else can listen there.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(LOOPBACK).unwrap();
    let mut script = Script::new();
    assert_eq!(script.ask(connect(1, closed.local_addr().unwrap())).await, Status::SUCCESS);
    assert_eq!(script.change().await, code(StateChange::RESET));
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
    assert_eq!(script.ask(send(Ticks(0), 9, b"x")).await, Status::SUCCESS);
    assert_eq!(script.tag().await.2, Status::EPKTNOTSENT);
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
    assert_eq!(script.ask(Message::Yield { resume: Ticks(0) }).await, Status::SUCCESS);
    assert!(matches!(script.leave().await, Ok(End::Yielded)));
}

#[tokio::test]
async fn an_endpoint_told_to_leave_vanishes_without_an_answer() {
    let mut script = Script::leaving_at(Some(MessageType::NCLOSE));
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

/// Sends the messages of a set-up one by one; the answers' payloads and how the set-up ended.
async fn set_up(
    demanded: &[Program],
    requests: &[Message<'_>],
) -> (Vec<Vec<u8>>, Result<(), EndpointError>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let digests: Vec<_> = demanded.iter().map(|program| *program.digest()).collect();
    let set_up = tokio::spawn(async move { setup::run(&mut Link::new(far), &digests, LONG).await });
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

    let (answers, end) = set_up(&[], &[Message::Start]).await;
    assert_eq!(answers, [vec![]]);
    assert!(end.is_ok());

    let both = [pass.clone(), block.clone()];
    let (answers, end) = set_up(
        &both,
        &[
            cdata(b"monitor", pass_bytes),
            cdata(b"monitor", pass_bytes),
            cdata(b"filter", block_bytes),
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
        Message::Nclose { sktid: 1 },
        Message::Start,
    ];
    let (answers, end) = set_up(&[pass], &requests).await;
    assert_eq!(answers, [[0, 0x24], [0, 0x20], [0, 0x20], [0, 0x11], [0, 0x21]]);
    assert!(matches!(end, Err(EndpointError::ProgramsMissing { count: 1 })), "{end:?}");
}

#[tokio::test]
async fn a_controller_that_closes_before_start_is_an_error() {
    let (answers, end) = set_up(&[], &[]).await;
    assert!(answers.is_empty());
    assert!(matches!(end, Err(EndpointError::ClosedInSetup)), "{end:?}");
}

#[tokio::test]
async fn a_controller_that_never_sends_start_is_left_in_time() {
    let (near, far) = tokio::io::duplex(1024);
    let end = setup::run(&mut Link::new(far), &[], Duration::from_millis(20)).await;
    assert!(matches!(end, Err(EndpointError::TimedOut { .. })), "{end:?}");
    drop(near);
}
