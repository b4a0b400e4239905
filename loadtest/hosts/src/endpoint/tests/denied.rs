//! What the limits of a chain deny (spec/protocol.md 4.3).

use tokio::net::UdpSocket;

use super::*;

fn udp(tag: u16, remote: SocketAddr, data: &[u8]) -> Message<'_> {
    Message::Nsend { sktid: 1, time: Ticks(0), tag, packet: Packet::Udp { remote, data } }
}

fn raw(data: &[u8]) -> Message<'_> {
    let packet = Packet::Raw { family: Family::Ipv4, data };
    Message::Nsend { sktid: 1, time: Ticks(0), tag: 1, packet }
}

#[tokio::test]
async fn destinations_outside_the_chain_are_denied_for_connections_and_packets() {
    let allowed = TcpListener::bind("127.9.0.1:0").await.unwrap().local_addr().unwrap();
    let denied = TcpListener::bind("127.9.0.2:0").await.unwrap().local_addr().unwrap();
    let mut script = Script::limited("valid_dest=127.9.0.1;");
    assert_eq!(script.ask(connect(1, denied)).await, Status::ESKTOPNDENY);
    assert_eq!(script.ask(connect(1, allowed)).await, Status::SUCCESS);
    assert!(matches!(
        script.change().await,
        StateChange::TcpEstablished { .. } | StateChange::Code { .. }
    ));
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    assert_eq!(script.ask(nopen(1, Open::Udp { local: ANY })).await, Status::SUCCESS);
    assert_eq!(script.ask(udp(1, denied, b"x")).await, Status::ESKTPKTDENY);
    assert_eq!(script.ask(udp(2, allowed, b"x")).await, Status::SUCCESS);
    assert_eq!(script.tag().await.0, 2);
}

#[tokio::test]
async fn a_peer_outside_the_chain_is_not_accepted() {
    let mut script = Script::limited("valid_dest=127.9.0.1;");
    assert_eq!(script.ask(nopen(1, Open::TcpListen { local: ANY })).await, Status::SUCCESS);
    script.link.send(&Message::Mread { address: 0x2000_0430, len: 2 }).await.unwrap();
    let (_, payload) = script.next().await;
    let address = SocketAddr::new(OWN, u16::from_be_bytes([payload[4], payload[5]]));
    let connect_from = async |source: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(source.parse().unwrap()).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut stranger = connect_from("127.9.0.2:0").await;
    assert_eq!(stranger.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let welcome = connect_from("127.9.0.1:0").await;
    let remote = welcome.local_addr().unwrap();
    assert_eq!(script.change().await, StateChange::TcpEstablished { remote });
}

#[tokio::test]
async fn sockets_are_limited_while_they_are_open() {
    let mut script = Script::limited("max_socket_count=2;");
    let open = |sktid| nopen(sktid, Open::Udp { local: ANY });
    assert_eq!(script.ask(open(1)).await, Status::SUCCESS);
    assert_eq!(script.ask(open(2)).await, Status::SUCCESS);
    assert_eq!(script.ask(open(3)).await, Status::ESKTOPNDENY);
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    assert_eq!(script.ask(open(3)).await, Status::SUCCESS);
}

#[tokio::test]
async fn totals_of_bytes_and_packets_are_denied_at_the_request() {
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let remote = server.local_addr().unwrap();
    for limits in ["max_send_byte=5;", "max_send_pkt=2;"] {
        let mut script = Script::limited(limits);
        assert_eq!(script.ask(nopen(1, Open::Udp { local: ANY })).await, Status::SUCCESS);
        for (tag, data) in [(1, &b"123"[..]), (2, b"45")] {
            assert_eq!(script.ask(udp(tag, remote, data)).await, Status::SUCCESS, "{limits}");
            assert_eq!(script.tag().await.0, tag);
        }
        assert_eq!(script.ask(udp(3, remote, b"6")).await, Status::ESKTPKTDENY, "{limits}");
    }
}

#[tokio::test]
async fn a_burst_waits_until_its_rate_allows_it_and_nothing_overtakes() {
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let remote = server.local_addr().unwrap();
    let window = Duration::from_millis(300);
    for limits in ["max_burst_rate_pkt=2/300000000;", "max_burst_rate_byte=7/300000000;"] {
        let mut script = Script::limited(limits);
        assert_eq!(script.ask(nopen(1, Open::Udp { local: ANY })).await, Status::SUCCESS);
        script.write(SOCKET_1 + 0x70, &[0, 0x02]).await;
        let data = [&b"abc"[..], b"def", b"ghi", b"j"];
        for (tag, data) in (1..).zip(data) {
            assert_eq!(script.ask(udp(tag, remote, data)).await, Status::SUCCESS, "{limits}");
        }
        script.write(SOCKET_1 + 0x70, &[0, 0]).await;
        let mut times = Vec::new();
        for (tag, data) in (1..).zip(data) {
            let mut received = [0; 8];
            let len = timeout(LONG, server.recv(&mut received)).await.expect(limits).unwrap();
            assert_eq!(&received[..len], data, "{limits}");
            let (told, time, status) = script.tag().await;
            assert_eq!((told, status), (tag, Status::SUCCESS), "{limits}");
            times.push(time);
        }
        // NTAG has the time at which it left, and the mlet was not told of any failure.
        assert!(times[2] >= times[0].saturating_add(window), "{limits}: {times:?}");
        assert!(times[3] >= times[2]);
        assert_eq!(script.read(SOCKET_1 + 0x60, 3).await, [0; 3]);
    }
}

#[tokio::test]
async fn a_stream_leaves_in_pieces_that_its_rate_allows() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let mut script = Script::limited("max_burst_rate_byte=4/100000000;");
    script.connect(listener.local_addr().unwrap()).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let before = now();
    for (tag, data) in [(1, &b"0123456789"[..]), (2, b""), (3, b"end")] {
        assert_eq!(script.ask(send(Ticks(0), tag, data)).await, Status::SUCCESS);
    }
    for tag in 1..=3 {
        let (told, _, status) = script.tag().await;
        assert_eq!((told, status), (tag, Status::SUCCESS));
    }
    let mut received = [0; 13];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"0123456789end");
    // 4 + 4 + 2 and then 3, of which 2 fit beside the 2 before: no window of 100 ms holds more than 4.
    assert!(now() >= before.saturating_add(Duration::from_millis(300)));
}

#[tokio::test]
async fn a_datagram_larger_than_any_burst_is_denied_at_the_request() {
    let mut script = Script::limited("max_burst_rate_byte=4/1000;max_send_pkt=1;");
    assert_eq!(script.ask(nopen(1, Open::Udp { local: ANY })).await, Status::SUCCESS);
    assert_eq!(script.ask(udp(1, LOOPBACK, b"12345")).await, Status::ESKTPKTDENY);
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    // It has not used up the only packet.
    let remote = server.local_addr().unwrap();
    assert_eq!(script.ask(udp(2, remote, b"1234")).await, Status::SUCCESS);
    assert_eq!(script.tag().await.2, Status::SUCCESS);
}

#[tokio::test]
async fn what_may_not_be_received_is_dropped_or_ends_the_stream() {
    let sender = UdpSocket::bind(LOOPBACK).await.unwrap();
    let mut script = Script::limited("max_recv_pkt=1;");
    assert_eq!(script.ask(nopen(1, Open::Udp { local: ANY })).await, Status::SUCCESS);
    script.link.send(&Message::Mread { address: 0x2000_0430, len: 2 }).await.unwrap();
    let (_, payload) = script.next().await;
    let socket_1 = SocketAddr::new(OWN, u16::from_be_bytes([payload[4], payload[5]]));
    for data in [b"one", b"two"] {
        sender.send_to(data, socket_1).await.unwrap();
    }
    assert_eq!(script.next().await.0, MessageType::NDATA);
    assert_eq!(script.next().await.0, MessageType::NDROP);

    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let mut script = Script::limited("max_recv_byte=3;");
    script.connect(listener.local_addr().unwrap()).await;
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"1234").await.unwrap();
    // The log does not wait for its turn.
    assert_eq!(script.next().await.0, MessageType::LINFO);
    let (message_type, payload) = script.next().await;
    let Message::Ndata { packet, .. } = Message::decode(message_type, &payload) else {
        panic!("data expected, not {message_type} {payload:?}");
    };
    assert_eq!(packet, Packet::Tcp { family: Family::Ipv4, data: b"123" });
    assert_eq!(script.change().await, code(StateChange::UNKNOWN));
}

#[tokio::test]
async fn streams_that_share_what_may_be_received_are_cut_short_and_have_no_holes() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let remote = listener.local_addr().unwrap();
    let mut script = Script::limited("max_recv_byte=500;");
    let mut servers = Vec::new();
    for sktid in [1, 2] {
        assert_eq!(script.ask(connect(sktid, remote)).await, Status::SUCCESS);
        assert_eq!(script.next().await.0, MessageType::NSTAT);
        servers.push(listener.accept().await.unwrap().0);
    }
    // Both wait for input by now, when all of it would be allowed to either.
    for (sktid, allowed) in [(1, 400), (2, 100)] {
        servers[usize::from(sktid) - 1].write_all(&[sktid; 400]).await.unwrap();
        loop {
            let (message_type, payload) = script.next().await;
            match Message::decode(message_type, &payload) {
                Message::Ndata { sktid: from, packet: Packet::Tcp { data, .. }, .. } => {
                    assert_eq!((from, data), (sktid, &[sktid; 400][..allowed]));
                    break;
                }
                Message::Linfo { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs CAP_NET_RAW"]
async fn foreign_source_addresses_need_the_chains_leave() {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 30, 253, 0, 0];
    packet.extend_from_slice(&[192, 0, 2, 1, 127, 9, 0, 1]);
    for (limits, status) in [
        ("src_ip_spoofing=0;", Status::ESKTPKTDENY),
        ("", Status::ESKTPKTDENY),
        ("src_ip_spoofing=1;", Status::SUCCESS),
    ] {
        let mut script = Script::limited(limits);
        assert_eq!(script.ask(nopen(1, Open::Raw { local: ANY.ip() })).await, Status::SUCCESS);
        assert_eq!(script.ask(raw(&packet)).await, status, "{limits}");
    }
    // The own address and none are never foreign, nor is what does not leave the machine.
    for source in [[127, 8, 0, 1], [0; 4], [127, 0, 0, 1]] {
        packet[12..16].copy_from_slice(&source);
        let mut script = Script::limited("");
        assert_eq!(script.ask(nopen(1, Open::Raw { local: ANY.ip() })).await, Status::SUCCESS);
        assert_eq!(script.ask(raw(&packet)).await, Status::SUCCESS);
    }
    // The destination of a raw packet counts as well.
    let mut script = Script::limited("valid_dest=127.9.0.2;");
    assert_eq!(script.ask(nopen(1, Open::Raw { local: ANY.ip() })).await, Status::SUCCESS);
    assert_eq!(script.ask(raw(&packet)).await, Status::ESKTPKTDENY);
}
