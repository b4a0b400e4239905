//! What a monitor of the endpoint's operator blocks of what comes, which NBLOCK tells.

use super::*;

/// A client with a socket at an endpoint that tells this once it is open.
fn opened(open: Open, told: &[Message<'_>]) -> (Client, UnixStream) {
    let (mut client, endpoint) = client(&[&[OK], told].concat(), false);
    client.open(1, open, 4096).unwrap();
    (client, endpoint)
}

fn block(protocol: Protocol) -> Message<'static> {
    block_with(55, protocol)
}

fn block_with(monitor_errid: u16, protocol: Protocol) -> Message<'static> {
    let socket = Socket { sktid: 1, family: Family::Ipv4, protocol };
    Message::Nblock { socket, monitor_errid, time: Ticks(0) }
}

fn piece(data: &[u8]) -> Message<'_> {
    let packet = Packet::Tcp { family: Family::Ipv4, data };
    Message::Ndata { sktid: 1, time: Ticks(0), packet }
}

fn assert_denied<T: fmt::Debug>(received: Result<T, ClientError>, socket: &str) {
    let error = received.unwrap_err();
    assert_eq!(error.word(), "denied");
    assert_eq!(error.to_string(), format!("{socket}: a monitor blocked what came (its code 55)"));
}

#[test]
fn a_stream_does_not_go_on_over_what_a_monitor_blocked() {
    let connect = Open::TcpConnect { local: "0.0.0.0:0".parse().unwrap(), remote: REMOTE };
    let told = [piece(b"before"), block(Protocol::Tcp), piece(b"behind"), OK, OK, piece(b"new")];
    let (mut client, _endpoint) = opened(connect, &told);
    assert_eq!(client.receive(1, LONG).unwrap().unwrap().data, b"before");
    for _ in 0..2 {
        assert_denied(client.receive(1, LONG), "socket 1, TCP to 127.0.0.1:80");
    }
    client.close(1).unwrap();
    client.open(1, connect, 4096).unwrap();
    assert_eq!(client.receive(1, LONG).unwrap().unwrap().data, b"new");
}

#[test]
fn a_stream_with_a_gap_does_not_go_on_because_its_number_was_asked_for_again() {
    let connect = Open::TcpConnect { local: "0.0.0.0:0".parse().unwrap(), remote: REMOTE };
    let refusal = Message::Result(Outcome::Status(Status::ESKTINUSE));
    let told = [block(Protocol::Tcp), piece(b"behind"), refusal];
    let (mut client, _endpoint) = opened(connect, &told);
    assert!(client.receive(1, LONG).is_err());
    assert!(client.open(1, connect, 4096).is_err());
    assert_denied(client.receive(1, LONG), "socket 1, TCP to 127.0.0.1:80");
}

#[test]
fn a_stream_does_not_go_on_over_what_was_told_as_other_news() {
    let connect = Open::TcpConnect { local: "0.0.0.0:0".parse().unwrap(), remote: REMOTE };
    let told = [block(Protocol::Tcp), piece(b"behind")];
    let (mut client, _endpoint) = opened(connect, &told);
    assert_eq!(client.first_of(&[1], LONG).unwrap().message(), told[0]);
    assert_denied(client.receive(1, LONG), "socket 1, TCP to 127.0.0.1:80");
    // Who asks for all news gets it all the same.
    assert_eq!(client.notification().unwrap().message(), told[1]);
}

#[test]
fn a_stream_that_is_over_stays_over() {
    let connect = Open::TcpConnect { local: "0.0.0.0:0".parse().unwrap(), remote: REMOTE };
    let (mut client, _endpoint) = opened(connect, &[ended(1, StateChange::PEER_CLOSED)]);
    for _ in 0..2 {
        assert_eq!(client.receive(1, LONG).unwrap(), None);
    }
}

#[test]
fn a_datagram_that_a_monitor_blocked_is_told_and_the_next_one_follows() {
    let packet = Packet::Udp { remote: REMOTE, data: b"next" };
    let next = Message::Ndata { sktid: 1, time: Ticks(0), packet };
    let local = "0.0.0.0:0".parse().unwrap();
    let (mut client, _endpoint) = opened(Open::Udp { local }, &[block(Protocol::Udp), next]);
    assert_denied(client.receive(1, LONG), "socket 1, UDP on 0.0.0.0:0");
    assert_eq!(client.receive(1, LONG).unwrap().unwrap().data, b"next");
}

#[test]
fn a_monitor_that_crashed_is_told_as_such() {
    let local = "0.0.0.0:0".parse().unwrap();
    let (mut client, _endpoint) = opened(Open::Udp { local }, &[block_with(0, Protocol::Udp)]);
    let error = client.receive(1, LONG).unwrap_err();
    let told = "socket 1, UDP on 0.0.0.0:0: a monitor crashed at what came, which is blocked";
    assert_eq!((error.word(), error.to_string().as_str()), ("denied", told));
}

#[test]
fn a_look_up_whose_answer_a_monitor_blocked_is_denied() {
    let told = [OK, OK, block(Protocol::Udp)];
    let (mut client, _endpoint) = client(&told, false);
    let server = "192.0.2.53:53".parse().unwrap();
    assert_denied(client.look_up(1, "a.example", server, LONG), "192.0.2.53:53 on a.example");
}
