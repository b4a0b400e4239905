//! A proxy with real sockets, between controllers and endpoints that do exactly what a test wants.
//!
//! That a controller gets nothing of somebody else's endpoint is shown by what it gets next: the hello
//! of its own.

mod attacks;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::message::{Message, Status};
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;
use rustls::ClientConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::preamble::PREAMBLE;
use super::records::Records;
use super::*;
use crate::golden::{certificate, private_key, public_key};
use crate::hosting::ServerLimits;

/// Far longer than anything here takes; a test that runs into it has failed.
const LONG: Duration = Duration::from_secs(30);
/// A limit that a test waits for.
const SHORT: Duration = Duration::from_millis(200);

async fn start(limits: ProxyLimits) -> Proxy {
    start_for(limits, Vec::new(), false).await
}

/// A proxy that trusts controllers signed by `roots`, or any without roots.
async fn start_for(limits: ProxyLimits, roots: Vec<PublicKey>, mandatory: bool) -> Proxy {
    let chain = [certificate("agent_prx")];
    let identity = Identity { chain: &chain, key: &private_key("prx") };
    let signers = if roots.is_empty() { Signers::Unknown } else { Signers::Verified };
    let rule = PeerRule { mode: TrustMode::Agent, anchors: roots, mandatory };
    let tls = tls::server_config(&identity, rule).unwrap();
    let loopback = HostPort::parse("127.0.0.1:0").unwrap();
    let controllers = Listening::open(&loopback, CONTROLLER_PORT).await.unwrap();
    let endpoints = Listening::open(&loopback, ENDPOINT_PORT).await.unwrap();
    // All peers of these tests are on one host.
    let limits =
        ProxyLimits { server: ServerLimits { per_source_percent: 100, ..limits.server }, ..limits };
    Proxy::start(controllers, endpoints, tls, signers, limits)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("nothing here takes so long")
}

/// Reads exactly `len` bytes.
async fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// The peer has closed, tidily or not, and said nothing before.
async fn assert_closed(stream: &mut TcpStream) {
    let end = within(stream.read(&mut [0])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

/// A certificate of the golden ones, and the name of its key; or one that a test has made.
fn client_tls(agent: Option<(&str, &str)>) -> ClientConnection {
    let agent = agent.map(|(name, key)| (certificate(name), private_key(key)));
    client_tls_as(agent.as_ref())
}

fn client_tls_as(agent: Option<&(Certificate, PrivateKey)>) -> ClientConnection {
    let chain = agent.map(|(certificate, _)| [certificate.clone()]);
    let identity = chain.as_ref().zip(agent);
    let identity = identity.map(|(chain, (_, key))| Identity { chain, key });
    let anchors = vec![public_key("prx")];
    let rule = PeerRule { mode: TrustMode::Agent, anchors, mandatory: true };
    let config = tls::client_config(identity.as_ref(), rule).unwrap();
    ClientConnection::new(config, tls::server_name(None).unwrap()).unwrap()
}

async fn connect_controller(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.controller_addresses()[0]).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks over TLS, as a controller without a certificate; the answer, and what is left of TLS.
async fn ask<'s>(stream: &'s mut TcpStream, message: &[u8]) -> io::Result<(Status, Records<'s>)> {
    ask_as(stream, None, message).await
}

async fn ask_as<'s>(
    stream: &'s mut TcpStream,
    agent: Option<(&str, &str)>,
    message: &[u8],
) -> io::Result<(Status, Records<'s>)> {
    ask_over(stream, client_tls(agent), message).await
}

async fn ask_over<'s>(
    stream: &'s mut TcpStream,
    tls: ClientConnection,
    message: &[u8],
) -> io::Result<(Status, Records<'s>)> {
    within(async {
        let mut records = Records::shake_hands(stream, tls.into()).await?;
        records.write(message).await?;
        let answer = records.read().await?;
        let (header, payload) = answer.split_first_chunk::<4>().unwrap();
        assert_eq!(header[0], 0x40, "RESULT");
        match Message::decode(packetlab::message::MessageType::RESULT, payload) {
            Message::Result(outcome) => Ok((outcome.status(), records)),
            other => panic!("{other:?}"),
        }
    })
    .await
}

fn xreg(snikey: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    Message::Xreg { snikey }.encode(&mut encoded).unwrap();
    encoded
}

/// A connection up to the proxy's preamble; what the controller is to say next comes with it: its
/// close_notify.
async fn registered(proxy: &Proxy, snikey: &str) -> (TcpStream, Vec<u8>) {
    registered_over(proxy, client_tls(None), snikey).await.unwrap()
}

/// The same, or the status of the refusal.
async fn registered_over(
    proxy: &Proxy,
    tls: ClientConnection,
    snikey: &str,
) -> Result<(TcpStream, Vec<u8>), Status> {
    registered_on(connect_controller(proxy).await, tls, snikey).await.unwrap()
}

/// On this connection; an error if it is closed.
async fn registered_on(
    mut stream: TcpStream,
    tls: ClientConnection,
    snikey: &str,
) -> io::Result<Result<(TcpStream, Vec<u8>), Status>> {
    let (status, records) = ask_over(&mut stream, tls, &xreg(snikey)).await?;
    if status != Status::SUCCESS {
        return Ok(Err(status));
    }
    let farewell = records.into_close_notify().unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(PREAMBLE) {
        seen.extend(read(&mut stream, 1).await);
    }
    // Perhaps a close_notify record, then the preamble and not a byte more.
    assert!(matches!(seen.len(), 6 | 30), "{seen:?}");
    Ok(Ok((stream, farewell)))
}

/// A controller's connection that waits for an endpoint.
async fn waiting(proxy: &Proxy, snikey: &str) -> TcpStream {
    waiting_as(proxy, None, snikey).await.unwrap()
}

async fn waiting_as(
    proxy: &Proxy,
    agent: Option<&(Certificate, PrivateKey)>,
    snikey: &str,
) -> Result<TcpStream, Status> {
    let stream = connect_controller(proxy).await;
    waiting_on(stream, agent, snikey).await.unwrap()
}

/// On this connection; an error if it is closed.
async fn waiting_on(
    stream: TcpStream,
    agent: Option<&(Certificate, PrivateKey)>,
    snikey: &str,
) -> io::Result<Result<TcpStream, Status>> {
    let (mut stream, mut farewell) =
        match registered_on(stream, client_tls_as(agent), snikey).await? {
            Ok(registered) => registered,
            Err(status) => return Ok(Err(status)),
        };
    farewell.extend_from_slice(PREAMBLE);
    stream.write_all(&farewell).await?;
    Ok(Ok(stream))
}

/// The ClientHello of an endpoint that asks for `snikey`.
fn hello(snikey: Option<&str>) -> Vec<u8> {
    let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
    let config = tls::client_config(None, rule).unwrap();
    let mut tls = ClientConnection::new(config, tls::server_name(snikey).unwrap()).unwrap();
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// An endpoint that has just said `hello`.
async fn endpoint(proxy: &Proxy, hello: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.endpoint_addresses()[0]).await.unwrap();
    stream.write_all(hello).await.unwrap();
    stream
}

#[tokio::test]
async fn an_endpoint_talks_to_the_controller_of_its_snikey_until_both_have_closed() {
    let proxy = start(ProxyLimits::default()).await;
    let mut controller = waiting(&proxy, "one").await;
    let hello = hello(Some("one"));
    let mut endpoint = endpoint(&proxy, &hello).await;
    assert_eq!(read(&mut controller, hello.len()).await, hello);
    controller.write_all(b"down").await.unwrap();
    assert_eq!(read(&mut endpoint, 4).await, b"down");
    endpoint.write_all(b"up").await.unwrap();
    endpoint.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(controller.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"up");
    // The other direction is still open.
    controller.write_all(b"last words").await.unwrap();
    controller.shutdown().await.unwrap();
    rest.clear();
    within(endpoint.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"last words");
}

#[tokio::test]
async fn a_hello_may_come_byte_by_byte_and_with_bytes_behind_it() {
    let proxy = start(ProxyLimits::default()).await;
    let mut controller = waiting(&proxy, "one").await;
    let hello = hello(Some("one"));
    let mut slow = endpoint(&proxy, &[]).await;
    for byte in &hello {
        slow.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&mut controller, hello.len()).await, hello);

    let mut controller = waiting(&proxy, "one").await;
    let more = [&hello[..], b"early data"].concat();
    let _eager = endpoint(&proxy, &more).await;
    assert_eq!(read(&mut controller, more.len()).await, more);
}

#[tokio::test]
async fn megabytes_pass_both_ways_at_once_unchanged() {
    const LEN: usize = 3_000_000;
    let bytes = |seed: usize| (0..LEN).map(|n| (n * 31 + seed + n / 256) as u8).collect::<Vec<_>>();
    let proxy = start(ProxyLimits::default()).await;
    let mut controller = waiting(&proxy, "one").await;
    let hello = hello(Some("one"));
    let endpoint = endpoint(&proxy, &hello).await;
    read(&mut controller, hello.len()).await;
    let exchange = |mut stream: TcpStream, sent: Vec<u8>| async move {
        let (mut from, mut to) = stream.split();
        let mut received = Vec::new();
        let sending = async {
            to.write_all(&sent).await?;
            to.shutdown().await
        };
        let (sent, read) = tokio::join!(sending, from.read_to_end(&mut received));
        sent.unwrap();
        read.unwrap();
        received
    };
    let (down, up) = within(async {
        tokio::join!(exchange(endpoint, bytes(1)), exchange(controller, bytes(2)))
    })
    .await;
    assert!(down == bytes(2) && up == bytes(1), "bytes were changed, lost or added");
}

#[tokio::test]
async fn an_endpoint_of_another_snikey_never_reaches_this_controller() {
    let proxy = start(ProxyLimits { wait_timeout: SHORT, ..ProxyLimits::default() }).await;
    let mut controller = waiting(&proxy, "one").await;
    let mut stranger = endpoint(&proxy, &hello(Some("two"))).await;
    assert_closed(&mut stranger).await;
    let mut nameless = endpoint(&proxy, &hello(None)).await;
    assert_closed(&mut nameless).await;
    let own = hello(Some("one"));
    let _endpoint = endpoint(&proxy, &own).await;
    assert_eq!(read(&mut controller, own.len()).await, own);
}

#[tokio::test]
async fn an_endpoint_that_came_too_early_waits_for_a_controller() {
    let proxy = start(ProxyLimits { wait_timeout: LONG, ..ProxyLimits::default() }).await;
    let hello = hello(Some("one"));
    let mut endpoint = endpoint(&proxy, &hello).await;
    let mut controller = waiting(&proxy, "one").await;
    assert_eq!(read(&mut controller, hello.len()).await, hello);
    controller.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut endpoint, 1).await, b"x");
}

#[tokio::test]
async fn connections_that_died_while_they_waited_are_passed_over() {
    let proxy = start(ProxyLimits { wait_timeout: LONG, ..ProxyLimits::default() }).await;
    let mut dead = vec![waiting(&proxy, "one").await, waiting(&proxy, "one").await];
    let mut alive = waiting(&proxy, "one").await;
    dead.push(waiting(&proxy, "one").await);
    // One is reset, the others are closed.
    socket2::SockRef::from(&dead[0]).set_linger(Some(Duration::ZERO)).unwrap();
    drop(dead);
    let hello = hello(Some("one"));
    let _endpoint = endpoint(&proxy, &hello).await;
    assert_eq!(read(&mut alive, hello.len()).await, hello);
}

#[tokio::test]
async fn a_controller_that_speaks_before_its_endpoint_is_dropped() {
    let proxy = start(ProxyLimits { wait_timeout: LONG, ..ProxyLimits::default() }).await;
    let mut talking = waiting(&proxy, "one").await;
    talking.write_all(b"hello?").await.unwrap();
    assert_closed(&mut talking).await;
    let (mut eager, mut farewell) = registered(&proxy, "one").await;
    farewell.extend_from_slice(b"PKTLABhello?");
    eager.write_all(&farewell).await.unwrap();
    assert_closed(&mut eager).await;
    let mut quiet = waiting(&proxy, "one").await;
    let hello = hello(Some("one"));
    let _endpoint = endpoint(&proxy, &hello).await;
    assert_eq!(read(&mut quiet, hello.len()).await, hello);
}

/// Item 105, from the other side.
#[tokio::test]
async fn the_controllers_preamble_is_found_behind_anything() {
    let proxy = start(ProxyLimits::default()).await;
    for before in [&b""[..], b"P", b"PKTLA", &[0x17; 2000]] {
        let (mut controller, farewell) = registered(&proxy, "one").await;
        let said = [&farewell[..], before, PREAMBLE].concat();
        controller.write_all(&said).await.unwrap();
        let hello = hello(Some("one"));
        let _endpoint = endpoint(&proxy, &hello).await;
        assert_eq!(read(&mut controller, hello.len()).await, hello);
    }
    let (mut endless, _) = registered(&proxy, "one").await;
    endless.write_all(&[0; 5000]).await.unwrap();
    assert_closed(&mut endless).await;
}

#[tokio::test]
async fn refused_registrations_are_answered_with_a_status_and_closed() {
    let proxy = start(ProxyLimits { backlog_max: 1, ..ProxyLimits::default() }).await;
    let _only = waiting(&proxy, "full").await;
    // Once an endpoint's hello has come through, the one before it is known to be registered.
    let mut probe = waiting(&proxy, "other").await;
    let other = hello(Some("other"));
    let _endpoint = endpoint(&proxy, &other).await;
    read(&mut probe, other.len()).await;
    for (message, expected) in [
        (xreg("full"), Status::ENORES),
        (xreg("123"), Status::ECTLBADMSG),
        (xreg("0xbeef"), Status::ECTLBADMSG),
        (vec![0x80, 0, 0, 3, b'A', b'-', b'b'], Status::ECTLBADMSG),
        (vec![0x80, 0, 0, 0], Status::ECTLBADMSG),
        (vec![0x80, 0, 0, 64], Status::ECTLBADMSG),
        (vec![0x80, 0xFF, 0xFF, 0xFF], Status::ECTLBADMSG),
        (vec![0x21, 0, 0, 0], Status::ECTLNOTSUP),
        (vec![0x99, 0, 0, 0], Status::ECTLNOTSUP),
    ] {
        let mut stream = connect_controller(&proxy).await;
        let (status, mut records) = ask(&mut stream, &message).await.unwrap();
        assert_eq!(status, expected, "{message:?}");
        let end = within(records.read()).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "close_notify");
        drop(records);
        assert_closed(&mut stream).await;
    }
}

#[tokio::test]
async fn an_xreg_may_come_in_pieces() {
    let proxy = start(ProxyLimits::default()).await;
    let mut stream = connect_controller(&proxy).await;
    let mut records = Records::shake_hands(&mut stream, client_tls(None).into()).await.unwrap();
    for byte in xreg("one") {
        records.write(&[byte]).await.unwrap();
    }
    assert_eq!(within(records.read()).await.unwrap(), [0x40, 0, 0, 0]);
}

#[tokio::test]
async fn what_is_not_tls_is_closed_without_a_word_to_endpoints() {
    let proxy = start(ProxyLimits::default()).await;
    let mut garbage = endpoint(&proxy, b"GET / HTTP/1.0\r\n\r\n").await;
    assert_closed(&mut garbage).await;
    let mut garbage = connect_controller(&proxy).await;
    garbage.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Perhaps an alert, perhaps a reset; in any case the end.
    let _ = within(garbage.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn controllers_may_come_without_a_certificate_but_not_with_a_wrong_one() {
    let proxy = start_for(ProxyLimits::default(), vec![public_key("xc")], false).await;
    for (agent, is_welcome) in
        [(None, true), (Some(("agent_xc", "xc")), true), (Some(("agent_ep", "ep")), false)]
    {
        let mut stream = connect_controller(&proxy).await;
        let asked = ask_as(&mut stream, agent, &xreg("one")).await;
        assert_eq!(asked.is_ok(), is_welcome, "{agent:?}");
    }
    let proxy = start_for(ProxyLimits::default(), vec![public_key("xc")], true).await;
    for (agent, is_welcome) in [(None, false), (Some(("agent_xc", "xc")), true)] {
        let mut stream = connect_controller(&proxy).await;
        let asked = ask_as(&mut stream, agent, &xreg("one")).await;
        assert_eq!(asked.is_ok(), is_welcome, "{agent:?}, mandatory");
    }
}

#[tokio::test]
async fn silent_controllers_are_disconnected_at_every_step_of_their_set_up() {
    let proxy = start(ProxyLimits { setup_timeout: SHORT, ..ProxyLimits::default() }).await;
    let mut silent = connect_controller(&proxy).await;
    assert_closed(&mut silent).await;
    let mut stream = connect_controller(&proxy).await;
    let mut records = Records::shake_hands(&mut stream, client_tls(None).into()).await.unwrap();
    assert!(within(records.read()).await.is_err());
    let (mut stream, _) = registered(&proxy, "one").await;
    assert_closed(&mut stream).await;
}

#[tokio::test]
async fn endpoints_are_disconnected_for_a_late_or_endless_hello() {
    let proxy = start(ProxyLimits { hello_timeout: SHORT, ..ProxyLimits::default() }).await;
    let mut silent = endpoint(&proxy, &[]).await;
    assert_closed(&mut silent).await;
    let hello = hello(Some("one"));
    let mut half = endpoint(&proxy, &hello[..hello.len() - 1]).await;
    assert_closed(&mut half).await;

    let limits = ProxyLimits { hello_max: hello.len() - 1, ..ProxyLimits::default() };
    let proxy = start(limits).await;
    let mut long = endpoint(&proxy, &hello).await;
    assert_closed(&mut long).await;
}

#[tokio::test]
async fn a_half_closed_session_ends_when_nothing_moves_any_more() {
    const LIMIT: Duration = Duration::from_secs(1);
    let proxy = start(ProxyLimits { half_closed_timeout: LIMIT, ..ProxyLimits::default() }).await;
    let mut controller = waiting(&proxy, "one").await;
    let hello = hello(Some("one"));
    let mut endpoint = endpoint(&proxy, &hello).await;
    read(&mut controller, hello.len()).await;
    endpoint.shutdown().await.unwrap();
    assert_closed(&mut controller).await;
    // Long after the limit it is still open, since something moved every time.
    for _ in 0..5 {
        controller.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut endpoint, 1).await, b"x");
        tokio::time::sleep(LIMIT / 4).await;
    }
    assert_closed(&mut endpoint).await;
}

#[tokio::test]
async fn a_reset_of_one_side_ends_the_other() {
    let proxy = start(ProxyLimits::default()).await;
    let mut controller = waiting(&proxy, "one").await;
    let hello = hello(Some("one"));
    let endpoint = endpoint(&proxy, &hello).await;
    read(&mut controller, hello.len()).await;
    socket2::SockRef::from(&endpoint).set_linger(Some(Duration::ZERO)).unwrap();
    drop(endpoint);
    assert_closed(&mut controller).await;
}

#[tokio::test]
async fn beyond_the_connections_allowed_peers_of_one_source_are_sent_away_until_one_leaves() {
    let limits = ProxyLimits { controllers_max: 1, endpoints_max: 1, ..ProxyLimits::default() };
    let proxy = start(ProxyLimits { wait_timeout: LONG, ..limits }).await;
    let first = waiting(&proxy, "one").await;
    assert_closed(&mut connect_controller(&proxy).await).await;
    drop(first);
    let mut second = within(once_there_is_room(&proxy)).await;

    let hello = hello(Some("one"));
    let mut talking = endpoint(&proxy, &hello).await;
    read(&mut second, hello.len()).await;
    // A controller in a session does not count any more, so that another one may wait.
    let mut third = within(waiting(&proxy, "one")).await;
    assert_closed(&mut endpoint(&proxy, &hello).await).await;
    second.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut talking, 1).await, b"x");
    drop((second, talking));
    let heard = async {
        let mut asking = Vec::new();
        while timeout(SHORT, third.peek(&mut [0])).await.is_err() {
            asking.push(endpoint(&proxy, &hello).await);
        }
        asking
    };
    let _asking = within(heard).await;
    assert_eq!(read(&mut third, hello.len()).await, hello);
}

/// A controller, when the place of one that has left is free.
async fn once_there_is_room(proxy: &Proxy) -> TcpStream {
    loop {
        let stream = connect_controller(proxy).await;
        if let Ok(Ok(stream)) = waiting_on(stream, None, "one").await {
            return stream;
        }
    }
}

#[tokio::test]
async fn the_end_of_the_proxy_closes_everything() {
    let proxy = start(ProxyLimits::default()).await;
    let mut talking = waiting(&proxy, "one").await;
    let hello = hello(Some("one"));
    let mut endpoint = endpoint(&proxy, &hello).await;
    read(&mut talking, hello.len()).await;
    let mut idle = waiting(&proxy, "one").await;
    let address = proxy.endpoint_addresses()[0];
    within(proxy.end()).await;
    for stream in [&mut talking, &mut endpoint, &mut idle] {
        assert_closed(stream).await;
    }
    assert!(TcpStream::connect(address).await.is_err());
}

/// The end of TLS and the preamble may arrive in one segment with the answer (item 106, from the
/// other side), and the original must not miss the preamble, which it does if a `P` stands before it.
#[tokio::test]
async fn the_original_sees_every_preamble() {
    let proxy = Arc::new(start(ProxyLimits::default()).await);
    for _ in 0..300 {
        let mut stream = connect_controller(&proxy).await;
        let (_, records) = ask(&mut stream, &xreg("one")).await.unwrap();
        drop(records);
        let mut seen = Vec::new();
        while !seen.ends_with(PREAMBLE) {
            seen.extend(read(&mut stream, 1).await);
        }
        let before = &seen[..seen.len() - PREAMBLE.len()];
        assert!(preamble::is_seen_by_the_original_after(before), "{before:?}");
    }
}
