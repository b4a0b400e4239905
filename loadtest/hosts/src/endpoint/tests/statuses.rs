//! Every request with a wrong length, state, family, socket or address, and its status: malformed before
//! not open before mismatch before denied.

use packetlab::message::{Protocol, Socket};
use tokio::task::JoinSet;

use super::*;

/// In which state the table's requests find the endpoint. Whatever the case, socket 9 is not open.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Given {
    Nothing,
    /// Socket 1 is a connection.
    Tcp,
    /// Socket 1 was a connection, which the peer refused.
    RefusedTcp,
    /// Socket 1 is a connection whose write side is closed.
    FinishedTcp,
    /// Socket 1 is a UDP socket.
    Udp,
    /// A UDP socket without any right to send.
    UdpDenied,
    /// No socket may be opened.
    OpenDenied,
}

async fn given(state: Given, server: SocketAddr, closed: SocketAddr) -> Script {
    let limits = match state {
        Given::UdpDenied => "max_send_pkt=0;",
        Given::OpenDenied => "max_socket_count=0;",
        _ => "",
    };
    let mut script = Script::limited(limits);
    match state {
        Given::Nothing | Given::OpenDenied => {}
        Given::Tcp => script.connect(server).await,
        Given::RefusedTcp => {
            assert_eq!(script.ask(connect(1, closed)).await, Status::SUCCESS);
            assert_eq!(script.change().await, code(StateChange::RESET));
        }
        Given::FinishedTcp => {
            script.connect(server).await;
            assert_eq!(script.ask(nctl(1, NCTL_FIN)).await, Status::SUCCESS);
        }
        Given::Udp | Given::UdpDenied => {
            assert_eq!(script.ask(nopen(1, Open::Udp { local: ANY })).await, Status::SUCCESS);
        }
    }
    script
}

fn nctl(sktid: u8, command: u8) -> Message<'static> {
    Message::Nctl { sktid, family: Family::Ipv4, time: Ticks(0), command }
}

fn nsend(sktid: u8, packet: Packet<'_>) -> Message<'_> {
    Message::Nsend { sktid, time: Ticks(0), tag: 1, packet }
}

fn ncap(sktid: u8, protocol: Protocol, filter: &[u8]) -> Message<'_> {
    let socket = Socket { sktid, family: Family::Ipv4, protocol };
    Message::Ncap { socket, end: Ticks::MAX, filter }
}

const TCP: Packet<'static> = Packet::Tcp { family: Family::Ipv4, data: b"x" };
const TCP6: Packet<'static> = Packet::Tcp { family: Family::Ipv6, data: b"x" };
const UDP: Packet<'static> = Packet::Udp { remote: LOOPBACK, data: b"x" };
const RAW: Packet<'static> = Packet::Raw { family: Family::Ipv4, data: b"x" };
const MALFORMED: Status = Status::ECTLBADMSG;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| *digit != ' ').collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Sends each of the requests to an endpoint of its own and compares the answer. All at once: an endpoint
/// whose mlet leaves waits a while for a server that does not close.
async fn check(rows: Vec<(Given, Vec<u8>, Status)>, server: SocketAddr, closed: SocketAddr) {
    let checks = rows.into_iter().map(|row| check_row(row, server, closed));
    checks.collect::<JoinSet<()>>().join_all().await;
}

async fn check_row(
    (state, request, status): (Given, Vec<u8>, Status),
    server: SocketAddr,
    closed: SocketAddr,
) {
    let mut script = given(state, server, closed).await;
    script.link.send_encoded(&request).await.unwrap();
    let (message_type, payload) = script.next().await;
    let row = format!("{state:?}: {}", request.escape_ascii());
    assert_eq!(message_type, MessageType::RESULT, "{row}");
    assert_eq!(Message::decode(message_type, &payload), result(status), "{row}");
    let end = if status == MALFORMED {
        assert!(script.link.receive().await.unwrap().is_none(), "{row}: still open");
        script.leave().await.map_err(|error| matches!(error, EndpointError::Malformed(_)))
    } else {
        // The session goes on.
        assert_eq!(script.ask(Message::End).await, Status::ECTLNOTSUP, "{row}");
        script.leave().await.map_err(|_| false)
    };
    let expected = if status == MALFORMED { Err(true) } else { Ok(End::Closed) };
    assert_eq!(end, expected, "{row}");
}

fn result(status: Status) -> Message<'static> {
    Message::Result(packetlab::message::Outcome::Status(status))
}

fn encoded(rows: Vec<(Given, Message<'_>, Status)>) -> Vec<(Given, Vec<u8>, Status)> {
    let row = |(given, message, status): (Given, Message<'_>, Status)| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        (given, bytes, status)
    };
    rows.into_iter().map(row).collect()
}

/// A server that listens, and an address where nobody does.
async fn peers() -> (TcpListener, SocketAddr, tokio::net::TcpSocket, SocketAddr) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let server = listener.local_addr().unwrap();
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(LOOPBACK).unwrap();
    let nobody = closed.local_addr().unwrap();
    (listener, server, closed, nobody)
}

#[tokio::test]
async fn a_wrong_length_family_or_protocol_is_malformed_and_ends_the_session() {
    use Given::{Nothing, Tcp, Udp};
    let (_listener, server, _closed, nobody) = peers().await;
    let rows = [
        // Wrong lengths, of every request that has a rule.
        (Nothing, "20 000000"),
        (Nothing, "20 000001 05"),
        (Nothing, "21 000001 00"),
        (Nothing, "22 000001 00"),
        (Nothing, "23 000007 00000000000000"),
        (Nothing, "24 000001 00"),
        (Nothing, "28 000005 1001000000"),
        (Nothing, "28 000007 10010000000800"),
        (Nothing, "29 000003 200000"),
        (Nothing, "2a 000006 010406000010"),
        (Nothing, "2a 00000c 0104060000100000000000 00"),
        (Nothing, "2a 000012 010406000010000000000000007f4d000100"),
        (Nothing, "2a 000014 010406000010000000000000007f4d00010050 00"),
        (Nothing, "2a 00000a 01040000001000 000000"),
        (Nothing, "2a 00000b 01041100001000 00000000"),
        (Nothing, "2b 000000"),
        (Nothing, "2b 000002 0102"),
        (Nothing, "2c 00000c 010406 0000000000000000 00"),
        (Nothing, "2d 00000b 010400 ffffffffffffffff"),
        (Nothing, "2e 00000b 010406 0000000000000000"),
        // An endpoint never gets these lengths of what it sends itself.
        (Nothing, "40 000001 00"),
        (Nothing, "61 00000b 010406 0000000000000000"),
        // Wrong values.
        (Nothing, "28 000006 10010000 0000"),
        (Nothing, "28 000006 ffffffff 0001"),
        (Nothing, "29 000005 ffffffff 00"),
        (Nothing, "2a 00000d 010511000010000000000000 00"),
        (Nothing, "2a 00000d 010412000010000000000000 00"),
        (Nothing, "2c 00000e 010506 0000000000000000 0001 78"),
        (Nothing, "2c 00000e 010401 0000000000000000 0001 78"),
        (Nothing, "2d 00000c 010500 ffffffffffffffff 00"),
        (Nothing, "2e 00000c 010411 0000000000000000 01"),
        (Nothing, "2e 00000c 010506 0000000000000000 01"),
        // Malformed comes before not open, and before mismatch.
        (Nothing, "2c 000012 090411 0000000000000000 0001 7f000001 00"),
        (Tcp, "2c 000012 010411 0000000000000000 0001 7f000001 00"),
        (Udp, "2c 000012 010411 0000000000000000 0001 7f000001 00"),
        (Udp, "2e 00000c 010411 0000000000000000 01"),
    ];
    let rows = rows.map(|(given, hex)| (given, bytes(hex), MALFORMED)).to_vec();
    check(rows, server, nobody).await;
}

#[tokio::test]
async fn every_request_in_a_wrong_state_or_with_a_wrong_name_has_its_status() {
    use Given::{FinishedTcp, Nothing, OpenDenied, RefusedTcp, Tcp, Udp, UdpDenied};
    let (_listener, server, _closed, nobody) = peers().await;
    let udp = || nopen(1, Open::Udp { local: ANY });
    let no_filter = b"\x00";
    let rows = vec![
        // Not requests, or not here and now.
        (Nothing, Message::Start, Status::ECTLNOTSUP),
        (Nothing, Message::End, Status::ECTLNOTSUP),
        (Nothing, Message::Cont, Status::ECTLNOTSUP),
        (Nothing, Message::Cdata { hint: b"monitor", data: b"\0" }, Status::ECTLNOTSUP),
        (Nothing, Message::Xreg { snikey: "a" }, Status::ECTLNOTSUP),
        (Nothing, Message::Suspd, Status::ECTLNOTSUP),
        (Nothing, result(Status::SUCCESS), Status::ECTLNOTSUP),
        (Tcp, nctl(1, NCTL_FIN + 1), Status::ECTLNOTSUP),
        // Not open.
        (Nothing, nsend(9, TCP), Status::ESKTNOTOPEN),
        (Nothing, nsend(9, UDP), Status::ESKTNOTOPEN),
        (Nothing, nsend(9, RAW), Status::ESKTNOTOPEN),
        (Nothing, ncap(9, Protocol::Raw, no_filter), Status::ESKTNOTOPEN),
        (Nothing, nctl(9, NCTL_FIN), Status::ESKTNOTOPEN),
        (Nothing, nctl(9, 0), Status::ESKTNOTOPEN),
        (Nothing, Message::Nclose { sktid: 9 }, Status::ESKTNOTOPEN),
        (Tcp, nsend(9, TCP), Status::ESKTNOTOPEN),
        // In an error state; before mismatch.
        (RefusedTcp, nsend(1, TCP), Status::ESKTNOTOPEN),
        (RefusedTcp, nsend(1, UDP), Status::ESKTNOTOPEN),
        (RefusedTcp, ncap(1, Protocol::Tcp, no_filter), Status::ESKTNOTOPEN),
        (RefusedTcp, nctl(1, NCTL_FIN), Status::ESKTNOTOPEN),
        (RefusedTcp, Message::Nclose { sktid: 1 }, Status::SUCCESS),
        (FinishedTcp, nsend(1, TCP), Status::ESKTNOTOPEN),
        (FinishedTcp, nctl(1, NCTL_FIN), Status::ESKTNOTOPEN),
        // Of another family or protocol.
        (Tcp, nsend(1, UDP), Status::ESKTNOMATCH),
        (Tcp, nsend(1, RAW), Status::ESKTNOMATCH),
        (Tcp, nsend(1, TCP6), Status::ESKTNOMATCH),
        (Tcp, ncap(1, Protocol::Udp, no_filter), Status::ESKTNOMATCH),
        (Udp, nctl(1, NCTL_FIN), Status::ESKTNOMATCH),
        (Udp, nctl(1, 0), Status::ESKTNOMATCH),
        (Udp, nsend(1, TCP), Status::ESKTNOMATCH),
        // Mismatch comes before denied, denied before the rest.
        (UdpDenied, nsend(1, TCP), Status::ESKTNOMATCH),
        (UdpDenied, nsend(1, UDP), Status::ESKTPKTDENY),
        (UdpDenied, udp(), Status::ESKTINUSE),
        (OpenDenied, udp(), Status::ESKTOPNDENY),
        (OpenDenied, nopen(1, Open::Udp { local: foreign() }), Status::ESKTOPNDENY),
        // Only raw sockets capture.
        (Tcp, ncap(1, Protocol::Tcp, no_filter), Status::ESKTNOPROTO),
        (Udp, ncap(1, Protocol::Udp, no_filter), Status::ESKTNOPROTO),
        // Sockets that cannot be had.
        (Udp, udp(), Status::ESKTINUSE),
        (Tcp, connect(1, server), Status::ESKTINUSE),
        (Nothing, nopen(1, Open::Udp { local: foreign() }), Status::ESKTNOADDR),
        (Nothing, nopen(1, Open::TcpListen { local: foreign() }), Status::ESKTNOADDR),
        (
            Nothing,
            nopen(1, Open::TcpConnect { local: foreign(), remote: server }),
            Status::ESKTNOADDR,
        ),
        (Nothing, nopen(1, Open::TcpListen { local: server }), Status::ETCPNOPORT),
        (Nothing, nopen(1, Open::TcpConnect { local: server, remote: server }), Status::ETCPNOPORT),
        // Memory.
        (Nothing, Message::Mwrite { address: 0x1001_0000, data: b"\0" }, Status::EMEMBADADR),
        (Nothing, Message::Mwrite { address: 0x2000_0072, data: b"\0" }, Status::EMEMBADADR),
        (Nothing, Message::Mwrite { address: 0x2000_0070, data: b"\0>" }, Status::SUCCESS),
        (Nothing, Message::Mwrite { address: 0x2000_0440, data: b"\0" }, Status::EMEMBADADR),
        (Udp, Message::Mwrite { address: 0x2000_0440, data: b"\0\0\x10\0" }, Status::SUCCESS),
        (Udp, Message::Mwrite { address: 0x2000_0444, data: b"\0" }, Status::EMEMBADADR),
        (Udp, Message::Mwrite { address: 0x2000_0460, data: b"\0" }, Status::SUCCESS),
        // And what is right.
        (Nothing, udp(), Status::SUCCESS),
        (Nothing, huge_buffer(), Status::SUCCESS),
        (Nothing, nopen(1, Open::TcpListen { local: ANY }), Status::SUCCESS),
        (Tcp, Message::Nclose { sktid: 1 }, Status::SUCCESS),
    ];
    let mut rows = encoded(rows);
    rows.push((Nothing, bytes("99 000001 07"), Status::ECTLNOTSUP));
    rows.push((Nothing, bytes("00 000000"), Status::ECTLNOTSUP));
    check(rows, server, nobody).await;
}

/// An address that this machine does not have.
fn foreign() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 0))
}

fn huge_buffer() -> Message<'static> {
    Message::Nopen { sktid: 1, receive_buffer_len: u32::MAX, open: Open::Udp { local: ANY } }
}

#[tokio::test]
async fn a_udp_port_that_is_taken_has_its_own_status() {
    let taken = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
    let mut script = Script::new();
    let open = nopen(1, Open::Udp { local: taken.local_addr().unwrap() });
    assert_eq!(script.ask(open).await, Status::EUDPNOPORT);
}
