//! What becomes of connections that a mlet closes, or leaves behind: what was sent still arrives.

use tokio::net::{TcpSocket, TcpStream};

use super::*;

/// More than the endpoint's kernel takes while the server reads nothing: its tag comes later.
const FLOOD_LEN: usize = 5 << 20;

/// Socket 1 connected to a server. NDATA is held back and the receive buffer is small.
async fn connected(limits: &str) -> (Script, TcpStream) {
    let server = TcpSocket::new_v4().unwrap();
    // Most of what is sent to it stays at the endpoint while it does not read.
    server.set_recv_buffer_size(16 * 1024).unwrap();
    server.bind(LOOPBACK).unwrap();
    let listener = server.listen(1).unwrap();
    let remote = listener.local_addr().unwrap();
    let mut script = Script::limited(limits);
    let hold_ndata_back = Message::Mwrite { address: 0x2000_0470, data: &[0, 0x08] };
    assert_eq!(script.ask(hold_ndata_back).await, Status::SUCCESS);
    let open = Open::TcpConnect { local: ANY, remote };
    let open = Message::Nopen { sktid: 1, receive_buffer_len: 1000, open };
    assert_eq!(script.ask(open).await, Status::SUCCESS);
    assert_eq!(script.change().await, StateChange::TcpEstablished { remote });
    (script, listener.accept().await.unwrap().0)
}

/// More than the receive buffer takes, so that a close at once would reset the connection.
async fn send_what_nobody_reads(server: &mut TcpStream) {
    server.write_all(&[7; 5000]).await.unwrap();
}

async fn read_to_end(server: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.expect("the connection should end, not break");
    received
}

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn what_was_sent_arrives_though_the_socket_was_closed_with_input_unread() {
    let (mut script, mut server) = connected("").await;
    send_what_nobody_reads(&mut server).await;
    let data = numbered(100_000);
    assert_eq!(script.ask(send(Ticks(0), 1, &data)).await, Status::SUCCESS);
    assert_eq!(script.tag().await.2, Status::SUCCESS);
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    // Its number is free at once.
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::ESKTNOTOPEN);
    assert!(read_to_end(&mut server).await == data);
}

#[tokio::test]
async fn what_is_due_at_a_close_is_sent_and_what_is_not_is_forgotten() {
    let (mut script, mut server) = connected("").await;
    send_what_nobody_reads(&mut server).await;
    let data = numbered(FLOOD_LEN);
    assert_eq!(script.ask(send(Ticks(0), 1, &data)).await, Status::SUCCESS);
    assert_eq!(script.ask(send(Ticks::MAX, 2, b"never")).await, Status::SUCCESS);
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    assert!(read_to_end(&mut server).await == data);
}

#[tokio::test]
async fn what_was_sent_arrives_though_the_mlet_has_left() {
    let (mut script, mut server) = connected("").await;
    send_what_nobody_reads(&mut server).await;
    let data = numbered(100_000);
    assert_eq!(script.ask(send(Ticks(0), 1, &data)).await, Status::SUCCESS);
    assert_eq!(script.tag().await.2, Status::SUCCESS);
    let reading = tokio::spawn(async move { read_to_end(&mut server).await });
    assert!(matches!(script.leave().await, Ok(End::Closed)));
    assert!(reading.await.unwrap() == data);
}

#[tokio::test]
async fn what_was_sent_arrives_though_the_chain_allows_no_more_input() {
    let (mut script, mut server) = connected("max_recv_byte=500;").await;
    let data = numbered(100_000);
    assert_eq!(script.ask(send(Ticks(0), 1, &data)).await, Status::SUCCESS);
    assert_eq!(script.tag().await.2, Status::SUCCESS);
    send_what_nobody_reads(&mut server).await;
    assert_eq!(script.next().await.0, MessageType::LINFO);
    assert_eq!(script.change().await, code(StateChange::UNKNOWN));
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    assert!(read_to_end(&mut server).await == data);
}

#[tokio::test]
async fn a_peer_that_goes_on_sending_is_cut_but_not_before_it_has_got_everything() {
    let (mut script, mut server) = connected("").await;
    let data = numbered(100_000);
    assert_eq!(script.ask(send(Ticks(0), 1, &data)).await, Status::SUCCESS);
    assert_eq!(script.tag().await.2, Status::SUCCESS);
    assert_eq!(script.ask(Message::Nclose { sktid: 1 }).await, Status::SUCCESS);
    // More than both kernels hold: the endpoint takes it although nobody wants it.
    server.write_all(&vec![7; 16 << 20]).await.unwrap();
    assert!(read_to_end(&mut server).await == data);
    let mut more_len = 0;
    while server.write_all(&[7; 1 << 20]).await.is_ok() {
        more_len += 1 << 20;
        assert!(more_len < 64 << 20, "it should be cut by now");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_close_holds_no_session_for_long() {
    let (script, server) = connected("").await;
    let end = timeout(LONG, script.leave()).await.expect("the session should end");
    assert!(matches!(end, Ok(End::Closed)));
    drop(server);
}
