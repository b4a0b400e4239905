//! Whole sessions of an endpoint with a scripted controller, over TLS and TCP.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use packetlab::address::HostPort;
use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::message::{Message, MessageType, Packet, StateChange, Status};
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::{End, Endpoint, EndpointError, subscribe};
use super::{LOOPBACK, connect};
use crate::home::{Home, Surroundings};
use crate::link::{Link, LinkError};

/// A controller for one endpoint of `home`, which it judges by `operator`.
struct Controller {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Controller {
    async fn new(home: &Home, operator: PublicKey) -> Self {
        let (chain, key, _) = home.controller();
        let rule = PeerRule {
            mode: TrustMode::ControllerAuthenticatesEndpoint,
            anchors: vec![operator],
            mandatory: true,
        };
        let config = tls::server_config(&Identity { chain: &chain, key: &key }, rule).unwrap();
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(config) }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn accept(&self) -> std::io::Result<TlsStream<Tapped>> {
        let (stream, _) = self.listener.accept().await?;
        self.acceptor.accept(Tapped { stream, received: Vec::new() }).await
    }
}

/// A connection that remembers what came over it.
struct Tapped {
    stream: TcpStream,
    received: Vec<u8>,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received.extend_from_slice(&buffer.filled()[before..]);
        result
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The only endpoint of `home`.
fn endpoint(home: &Home, controller: SocketAddr) -> Endpoint {
    home.endpoints(controller).unwrap().remove(0)
}

async fn request(link: &mut Link<TlsStream<Tapped>>, message: &Message<'_>) -> Status {
    link.send(message).await.unwrap();
    let (message_type, payload) = link.receive().await.unwrap().unwrap();
    let Message::Result(outcome) = Message::decode(message_type, &payload) else {
        panic!("RESULT expected, not {message_type}");
    };
    if matches!(message, Message::Start) && outcome.status() == Status::SUCCESS {
        // What the monitor program has to say.
        assert_eq!(link.receive().await.unwrap().unwrap().0, MessageType::LINFO);
    }
    outcome.status()
}

#[tokio::test]
async fn a_whole_session_over_tls_shows_key_address_and_snikey_and_ends_with_the_controller() {
    let home = Home::create(1, false, Surroundings::default()).unwrap();
    let controller = Controller::new(&home, home.controller().2).await;
    let session = tokio::spawn(endpoint(&home, controller.address()).run());

    let stream = controller.accept().await.unwrap();
    let (tcp, tls) = stream.get_ref();
    assert_eq!(tcp.stream.peer_addr().unwrap().ip(), home.identities()[0].address);
    assert_eq!(tls.server_name(), Some("demo"));
    let leaf = Certificate::from_der(&tls.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(leaf.subject_key_id, home.identities()[0].key_id());

    let mut link = Link::new(stream);
    let program = Home::program();
    let cdata = Message::Cdata { hint: b"monitor", data: program.encoded() };
    assert_eq!(request(&mut link, &cdata).await, Status::SUCCESS);
    assert_eq!(request(&mut link, &Message::Start).await, Status::SUCCESS);
    assert_eq!(request(&mut link, &Message::End).await, Status::ECTLNOTSUP);
    link.close().await;

    let session = session.await.unwrap();
    assert!(matches!(session.end, Ok(End::Closed)), "{session:?}");
    assert!(session.started);
    assert!(session.setup.is_some());
}

#[tokio::test]
async fn a_missing_close_notify_is_an_end_too() {
    let home = Home::create(1, false, Surroundings::default()).unwrap();
    let controller = Controller::new(&home, home.controller().2).await;
    let session = tokio::spawn(endpoint(&home, controller.address()).run());
    let mut link = Link::new(controller.accept().await.unwrap());
    let program = Home::program();
    let cdata = Message::Cdata { hint: b"monitor", data: program.encoded() };
    assert_eq!(request(&mut link, &cdata).await, Status::SUCCESS);
    assert_eq!(request(&mut link, &Message::Start).await, Status::SUCCESS);
    drop(link);
    let session = session.await.unwrap();
    assert!(matches!(session.end, Ok(End::Closed)), "{session:?}");
    assert!(session.started && session.setup.is_none(), "{session:?}");
}

#[tokio::test]
async fn the_programs_of_the_controllers_chain_must_come_before_start() {
    let home = Home::create(1, false, Surroundings::default()).unwrap();
    let controller = Controller::new(&home, home.controller().2).await;
    let session = tokio::spawn(endpoint(&home, controller.address()).run());
    let mut link = Link::new(controller.accept().await.unwrap());
    assert_eq!(request(&mut link, &Message::Start).await, Status::ECRTNOHDAT);
    assert!(link.receive().await.unwrap().is_none());
    link.close().await;
    let session = session.await.unwrap();
    let Err(error @ EndpointError::ProgramsMissing { count: 1 }) = session.end else {
        panic!("{session:?}");
    };
    let told = "START came without all programs that the chain demands (1 missing); \
                put them into the controller's ProgramDirPath";
    assert_eq!(error.to_string(), told);
    assert!(!session.started);
}

#[tokio::test]
async fn an_endpoint_of_another_operator_is_refused() {
    let home = Home::create(1, false, Surroundings::default()).unwrap();
    let stranger = PrivateKey::generate().unwrap().public_key();
    let controller = Controller::new(&home, stranger).await;
    let session = tokio::spawn(endpoint(&home, controller.address()).run());
    assert!(controller.accept().await.is_err());
    let session = session.await.unwrap();
    // In TLS 1.3 the client learns of it only after its own handshake.
    assert!(matches!(session.end, Err(EndpointError::Link(LinkError::Io(_)))), "{session:?}");
}

#[tokio::test]
async fn a_controller_without_the_operators_privilege_is_refused() {
    let home = Home::create(1, false, Surroundings::default()).unwrap();
    let other = Home::create(1, false, Surroundings::default()).unwrap();
    let controller = Controller::new(&other, home.controller().2).await;
    let session = tokio::spawn(endpoint(&home, controller.address()).run());
    assert!(controller.accept().await.is_err());
    let session = session.await.unwrap();
    assert!(matches!(session.end, Err(EndpointError::Handshake(_))), "{session:?}");
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_until_the_controller_listens() {
    let home = Home::create(1, false, Surroundings::default()).unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(LOOPBACK).unwrap();
    let session = tokio::spawn(endpoint(&home, socket.local_addr().unwrap()).run());
    // Lets the first try happen; on a current-thread runtime it runs to its first wait.
    tokio::task::yield_now().await;
    let listener = socket.listen(1).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    drop(stream);
    let session = session.await.unwrap();
    assert!(matches!(session.end, Err(EndpointError::Handshake(_))), "{session:?}");
}

#[tokio::test]
async fn an_endpoint_that_must_make_room_does_not_wait_for_a_name_server() {
    let home = Home::create(1, false, Surroundings::default()).unwrap();
    let address = HostPort::parse("controller.invalid").unwrap();
    let controller = subscribe::Controller { address, snikey: None };
    let asked = std::future::ready(());
    let session =
        endpoint(&home, LOOPBACK).run_for(&controller, asked, std::future::ready(true)).await;
    assert!(matches!(session.end, Ok(End::Preempted)) && !session.started, "{session:?}");
}

/// Plaintext bytes of each TLS record in `stream`: a record is 5 bytes of header, then the plaintext
/// with one byte of type and 16 of tag (RFC 8446, 5.2).
fn record_lengths(mut stream: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = stream {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        assert_eq!(*kind, 23, "application data expected");
        lengths.push(len - 17);
        stream = &rest[len..];
    }
    assert!(stream.is_empty());
    lengths
}

#[tokio::test]
async fn no_tls_record_holds_bytes_of_two_messages() {
    const FLOOD_LEN: usize = 300_000;
    let home = Home::create(1, false, Surroundings::default()).unwrap();
    let controller = Controller::new(&home, home.controller().2).await;
    let session = tokio::spawn(endpoint(&home, controller.address()).run());
    let stream = controller.accept().await.unwrap();
    let handshake_len = stream.get_ref().0.received.len();
    let mut link = Link::new(stream);
    let program = Home::program();
    let cdata = Message::Cdata { hint: b"monitor", data: program.encoded() };
    assert_eq!(request(&mut link, &cdata).await, Status::SUCCESS);
    assert_eq!(request(&mut link, &Message::Start).await, Status::SUCCESS);

    let flooder = TcpListener::bind(LOOPBACK).await.unwrap();
    let open = connect(1, flooder.local_addr().unwrap());
    assert_eq!(request(&mut link, &open).await, Status::SUCCESS);
    let (mut server, _) = flooder.accept().await.unwrap();
    let flood = tokio::spawn(async move { server.write_all(&[7; FLOOD_LEN]).await.unwrap() });
    // Three answers of 4 bytes have come so far, and the LINFO of the monitor program.
    let (mut lengths, mut data_len) = (vec![4, 4, 25, 4], 0);
    loop {
        let (message_type, payload) = link.receive().await.unwrap().unwrap();
        lengths.push(4 + payload.len());
        match Message::decode(message_type, &payload) {
            Message::Ndata { packet: Packet::Tcp { data, .. }, .. } => data_len += data.len(),
            Message::Nstat { change: StateChange::Code { .. }, .. } => break,
            _ => {}
        }
    }
    flood.await.unwrap();
    assert_eq!(data_len, FLOOD_LEN);

    let stream = link.into_stream();
    let mut records = record_lengths(&stream.get_ref().0.received[handshake_len..]).into_iter();
    for message_len in lengths {
        let mut covered = 0;
        while covered < message_len {
            covered += records.next().unwrap();
        }
        assert_eq!(covered, message_len, "a record goes past the end of a message");
    }
    assert_eq!(records.next(), None);
    drop(stream);
    session.await.unwrap();
}
