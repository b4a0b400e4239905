//! A broker with real sockets, and clients that say exactly what a test wants said.
//!
//! That somebody receives nothing is shown by what arrives next: a marker published afterwards.

mod attacks;

use std::time::Duration;

use packetlab::channel::{ChannelId, ChannelList};
use packetlab::key::PublicKey;
use packetlab::message::{Message, MessageType, Status};
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::golden::{certificate, private_key, public_key};
use crate::hosting::Listening;
use crate::hosting::ServerLimits;
use crate::link::Link;

/// Far longer than anything here takes; a test that runs into it has failed.
const LONG: Duration = Duration::from_secs(30);
/// A limit that a test waits for.
const SHORT: Duration = Duration::from_millis(200);
const CONTROLLER_CHAIN: [&str; 2] = ["pubcmd_exper_xc", "exppriv_eop_exper"];
const NO_OPERATOR: [u8; 32] = [0; 32];

async fn start(limits: BrokerLimits) -> Broker {
    start_for(limits, Vec::new()).await
}

/// A broker that trusts agents signed by `roots`, or any without roots.
async fn start_for(limits: BrokerLimits, roots: Vec<PublicKey>) -> Broker {
    // All clients of these tests are on one host.
    start_with(
        BrokerLimits {
            server: ServerLimits { per_source_percent: 100, ..limits.server },
            ..limits
        },
        roots,
    )
    .await
}

/// A broker of which one address gets such a share.
async fn start_sharing(limits: BrokerLimits, per_source_percent: usize) -> Broker {
    start_with(
        BrokerLimits { server: ServerLimits { per_source_percent, ..limits.server }, ..limits },
        Vec::new(),
    )
    .await
}

async fn start_with(limits: BrokerLimits, roots: Vec<PublicKey>) -> Broker {
    let chain = [certificate("agent_bop_rv")];
    let identity = Identity { chain: &chain, key: &private_key("rv") };
    let rule = PeerRule { mode: TrustMode::Agent, anchors: roots, mandatory: true };
    let tls = tls::server_config(&identity, rule).unwrap();
    let loopback = HostPort::parse("127.0.0.1:0").unwrap();
    let publish = Listening::open(&loopback, PUBLISH_PORT).await.unwrap();
    let subscribe = Listening::open(&loopback, SUBSCRIBE_PORT).await.unwrap();
    Broker::start(publish, subscribe, tls, limits)
}

/// One client of a broker.
struct Peer {
    link: Link<TlsStream<TcpStream>>,
}

impl Peer {
    async fn controller(broker: &Broker) -> Self {
        let stream = TcpStream::connect(broker.publish_addresses()[0]).await.unwrap();
        Self::open(stream, "agent_xc", "xc").await.unwrap()
    }

    async fn endpoint(broker: &Broker) -> Self {
        let stream = TcpStream::connect(broker.subscribe_addresses()[0]).await.unwrap();
        Self::open(stream, "agent_ep", "ep").await.unwrap()
    }

    async fn open(stream: TcpStream, agent: &str, key: &str) -> std::io::Result<Self> {
        let chain = [certificate(agent)];
        let identity = Identity { chain: &chain, key: &private_key(key) };
        let anchors = vec![public_key("bop")];
        let rule = PeerRule { mode: TrustMode::Agent, anchors, mandatory: true };
        let tls = tls::client_config(Some(&identity), rule).unwrap();
        let name = tls::server_name(None).unwrap();
        Ok(Self { link: Link::new(TlsConnector::from(tls).connect(name, stream).await?) })
    }

    /// Sends the first bytes of a message with a payload of this length.
    async fn begin(&mut self, payload_len: usize, sent_len: usize) {
        let [_, bytes @ ..] = u32::try_from(payload_len).unwrap().to_be_bytes();
        let begun = [&[0x38], &bytes[..], &vec![1; sent_len]].concat();
        self.link.send_encoded(&begun).await.unwrap();
    }

    async fn next(&mut self) -> Option<(MessageType, Vec<u8>)> {
        timeout(LONG, self.link.receive()).await.unwrap().unwrap()
    }

    async fn status(&mut self) -> Status {
        let (message_type, payload) = self.next().await.expect("an answer");
        match Message::decode(message_type, &payload) {
            Message::Result(outcome) => outcome.status(),
            other => panic!("RESULT expected, not {other:?}"),
        }
    }

    async fn ask(&mut self, message: &Message<'_>) -> Status {
        self.link.send(message).await.unwrap();
        self.status().await
    }

    async fn supply(&mut self, names: &[&str]) {
        for name in names {
            let certificate = certificate(name);
            let xcert = Message::Xcert { certificate: certificate.der() };
            assert_eq!(self.ask(&xcert).await, Status::SUCCESS, "{name}");
        }
    }

    /// Publishes on a public channel.
    async fn publish(&mut self, channel: u8, attributes: &str) {
        let xdescr = format!("{attributes}controller_addr=192.0.2.1;");
        let channels = ChannelList::new(&[ChannelId::new(&[channel]).unwrap()]);
        let xpub = Message::Xpub { channels, operator_key: NO_OPERATOR, xdescr: &xdescr };
        assert_eq!(self.ask(&xpub).await, Status::SUCCESS);
    }

    /// Subscribes to public channels.
    async fn subscribe(&mut self, channels: &[u8], dattr: &str) {
        let ids: Vec<_> = channels.iter().map(|c| ChannelId::new(&[*c]).unwrap()).collect();
        let channels = ChannelList::new(&ids);
        let xsub = Message::Xsub { channels, operator_key: NO_OPERATOR, dattr };
        assert_eq!(self.ask(&xsub).await, Status::SUCCESS);
    }

    /// The first pair of the next notification, and its channel.
    async fn notified(&mut self) -> (String, Vec<u8>) {
        let (message_type, payload) = self.next().await.expect("a notification");
        match Message::decode(message_type, &payload) {
            Message::Xnotify { channel, xdescr } => {
                let first = xdescr.split(';').next().unwrap();
                (first.to_owned(), channel.as_bytes().to_vec())
            }
            other => panic!("XNOTIFY expected, not {other:?}"),
        }
    }
}

fn eop_channel() -> ChannelId {
    ChannelId::new(&public_key("eop").key_id().0).unwrap()
}

#[tokio::test]
async fn an_experiment_on_a_private_channel_reaches_the_endpoints_of_its_operator() {
    let broker = start(BrokerLimits::default()).await;
    let operator_key = public_key("eop").0;
    let mut endpoint = Peer::endpoint(&broker).await;
    // As the original's endpoint: everything at once, answers later.
    let chain = ["subcmd_del_ep", "delpriv_eop_del_rep"].map(certificate);
    for certificate in &chain {
        endpoint.link.send(&Message::Xcert { certificate: certificate.der() }).await.unwrap();
    }
    let channels = ChannelList::new(&[eop_channel()]);
    let dattr = "hostid=EP1;";
    endpoint.link.send(&Message::Xsub { channels, operator_key, dattr }).await.unwrap();
    for _ in 0..3 {
        assert_eq!(endpoint.status().await, Status::SUCCESS);
    }

    let mut controller = Peer::controller(&broker).await;
    controller.supply(&CONTROLLER_CHAIN).await;
    let xdescr = "hostid=EP*;controller_addr=198.51.100.7:5555;sni_key=hello;";
    let channels = ChannelList::new(&[eop_channel()]);
    let xpub = Message::Xpub { channels, operator_key, xdescr };
    assert_eq!(controller.ask(&xpub).await, Status::SUCCESS);
    let (message_type, payload) = endpoint.next().await.unwrap();
    let expected = Message::Xnotify { channel: eop_channel(), xdescr };
    assert_eq!(Message::decode(message_type, &payload), expected);
    broker.end().await;
}

#[tokio::test]
async fn a_foreign_channel_and_other_attributes_receive_nothing() {
    let broker = start(BrokerLimits::default()).await;
    let (mut foreign, mut other) = (Peer::endpoint(&broker).await, Peer::endpoint(&broker).await);
    let mut right = Peer::endpoint(&broker).await;
    foreign.subscribe(&[2], "endpoint_country=DEU;").await;
    other.subscribe(&[1, 2], "endpoint_country=USA;").await;
    right.subscribe(&[1, 2], "endpoint_country=DEU;").await;
    let mut controller = Peer::controller(&broker).await;
    controller.publish(1, "endpoint_country=DEU;").await;
    controller.publish(2, "marker=1;").await;
    let first = ("endpoint_country=DEU".to_owned(), vec![1]);
    let marker = ("marker=1".to_owned(), vec![2]);
    assert_eq!(right.notified().await, first);
    for peer in [&mut foreign, &mut other, &mut right] {
        assert_eq!(peer.notified().await, marker);
    }
}

#[tokio::test]
async fn later_subscribers_hear_of_what_lives_and_of_nothing_that_has_ended() {
    let broker = start(BrokerLimits::default()).await;
    let (mut leaving, mut staying) =
        (Peer::controller(&broker).await, Peer::controller(&broker).await);
    leaving.publish(1, "of=leaving;").await;
    staying.publish(1, "of=staying;").await;
    staying.publish(1, "of=past;pub_end=1;").await;
    let mut early = Peer::endpoint(&broker).await;
    early.subscribe(&[1], "").await;
    assert_eq!(early.notified().await.0, "of=leaving");
    assert_eq!(early.notified().await.0, "of=staying");

    leaving.link.shut_down().await.unwrap();
    // The broker closes in turn, after it has taken the publications down.
    assert_eq!(leaving.next().await, None);
    let mut late = Peer::endpoint(&broker).await;
    late.subscribe(&[1], "").await;
    assert_eq!(late.notified().await.0, "of=staying");
    staying.publish(1, "of=marker;").await;
    assert_eq!(late.notified().await.0, "of=marker");
    assert_eq!(early.notified().await.0, "of=marker");
}

#[tokio::test]
async fn another_subscription_replaces_the_one_before() {
    let broker = start(BrokerLimits::default()).await;
    let mut controller = Peer::controller(&broker).await;
    let mut endpoint = Peer::endpoint(&broker).await;
    endpoint.subscribe(&[1], "").await;
    endpoint.subscribe(&[2], "").await;
    controller.publish(1, "channel=1;").await;
    controller.publish(2, "channel=2;").await;
    assert_eq!(endpoint.notified().await.0, "channel=2");
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_usable() {
    let broker = start(BrokerLimits::default()).await;
    let mut controller = Peer::controller(&broker).await;
    let channels = ChannelList::new(&[eop_channel()]);
    let xdescr = "controller_addr=h;";
    let operator_key = public_key("eop").0;
    let xpub = Message::Xpub { channels, operator_key, xdescr };
    assert_eq!(controller.ask(&xpub).await, Status::ECRTBADFRM);
    let bad = Message::Xcert { certificate: &[0x30, 0] };
    assert_eq!(controller.ask(&bad).await, Status::ECRTBADFRM);
    assert_eq!(controller.ask(&Message::Start).await, Status::ECTLNOTSUP);
    controller.supply(&CONTROLLER_CHAIN).await;
    assert_eq!(controller.ask(&xpub).await, Status::SUCCESS);
}

#[tokio::test]
async fn malformed_and_oversized_messages_are_answered_and_end_the_connection() {
    for (header, payload, status) in [
        ([0x31, 0, 0, 3], &[1, 1, 0][..], Status::ECTLBADMSG),
        ([0x30, 0, 0, 0], &[], Status::ECTLBADMSG),
        ([0x31, 1, 0, 1], &[], Status::ECTLBADMSG),
        ([0x30, 1, 0, 1], &[], Status::ECRTNOSPACE),
        ([0x30, 0xFF, 0xFF, 0xFF], &[], Status::ECRTNOSPACE),
    ] {
        let broker = start(BrokerLimits::default()).await;
        let mut controller = Peer::controller(&broker).await;
        controller.link.send_encoded(&[&header, payload].concat()).await.unwrap();
        assert_eq!(controller.status().await, status, "{header:?}");
        assert_eq!(controller.next().await, None, "{header:?}");
    }
}

#[tokio::test]
async fn clients_need_an_agent_certificate_of_a_root_that_the_broker_trusts() {
    let broker = start_for(BrokerLimits::default(), vec![public_key("xc")]).await;
    let connect = async || TcpStream::connect(broker.publish_addresses()[0]).await.unwrap();
    let mut known = Peer::open(connect().await, "agent_xc", "xc").await.unwrap();
    known.publish(1, "").await;
    // In TLS 1.3 a client learns of its refusal only after its own handshake.
    let mut unknown = Peer::open(connect().await, "agent_ep", "ep").await.unwrap();
    assert!(timeout(LONG, unknown.link.receive()).await.unwrap().is_err());
    let mut no_agent = Peer::open(connect().await, "pubcmd_exper_xc", "xc").await.unwrap();
    assert!(timeout(LONG, no_agent.link.receive()).await.unwrap().is_err());

    let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
    let tls = tls::client_config(None, rule).unwrap();
    let name = tls::server_name(None).unwrap();
    let stream = TlsConnector::from(tls).connect(name, connect().await).await.unwrap();
    assert!(timeout(LONG, Link::new(stream).receive()).await.unwrap().is_err());
}

#[tokio::test]
async fn beyond_the_connections_allowed_clients_of_one_source_are_sent_away_until_one_leaves() {
    let limits = BrokerLimits { publishers_max: 1, subscribers_max: 1, ..BrokerLimits::default() };
    let broker = start(limits).await;
    let mut first = Peer::controller(&broker).await;
    first.publish(1, "").await;
    let connect = || TcpStream::connect(broker.publish_addresses()[0]);
    let mut second = connect().await.unwrap();
    assert_eq!(timeout(LONG, second.read(&mut [0])).await.unwrap().unwrap(), 0);
    // A subscriber has a place of its own.
    timeout(LONG, Peer::endpoint(&broker)).await.unwrap().subscribe(&[1], "").await;
    first.publish(1, "").await;
    drop(first);
    let third = async {
        loop {
            if let Ok(peer) = Peer::open(connect().await.unwrap(), "agent_xc", "xc").await {
                return peer;
            }
        }
    };
    timeout(LONG, third).await.unwrap().publish(1, "").await;
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_or_ask_in_time_is_disconnected() {
    let limits = BrokerLimits {
        handshake_timeout: SHORT,
        request_timeout: SHORT,
        ..BrokerLimits::default()
    };
    let broker = start(limits).await;
    let mut silent = TcpStream::connect(broker.publish_addresses()[0]).await.unwrap();
    assert_eq!(timeout(LONG, silent.read(&mut [0])).await.unwrap().unwrap(), 0);

    let mut supplying = Peer::controller(&broker).await;
    supplying.supply(&CONTROLLER_CHAIN).await;
    assert_eq!(supplying.next().await, None);
    // Who has asked may be silent.
    let mut endpoint = Peer::endpoint(&broker).await;
    endpoint.subscribe(&[1], "").await;
    assert!(timeout(2 * SHORT, endpoint.link.receive()).await.is_err());
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_its_notifications_is_disconnected() {
    const FLOOD: usize = 1_500;
    let limits = BrokerLimits {
        publications_max: FLOOD + 1,
        publications_per_source_max: 0,
        messages_per_second: FLOOD,
        matching_per_second: 100_000_000,
        ..BrokerLimits::default()
    };
    let broker =
        start(BrokerLimits { unread_timeout: SHORT, channels_max: FLOOD + 1, ..limits }).await;
    // A small receive buffer, so that the kernel holds little for it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(broker.subscribe_addresses()[0]).await.unwrap();
    let mut lazy = Peer::open(stream, "agent_ep", "ep").await.unwrap();
    let mut diligent = Peer::endpoint(&broker).await;
    lazy.subscribe(&[1], "").await;
    diligent.subscribe(&[1], "").await;
    let mut controller = Peer::controller(&broker).await;
    let filler = format!("filler={};", "x".repeat(4000));
    for _ in 0..FLOOD {
        controller.publish(1, &filler).await;
        diligent.notified().await;
    }
    // It reads nothing for longer than it may, however fast all of them were sent.
    tokio::time::sleep(SHORT * 5).await;
    // What the kernel had taken for it is still there, then comes the end.
    let mut received = 0;
    while let Ok(Some(_)) = timeout(LONG, lazy.link.receive()).await.unwrap() {
        received += 1;
    }
    assert!(received < FLOOD, "{received} notifications came, nothing was held back");
    controller.publish(1, "marker=1;").await;
    assert_eq!(diligent.notified().await.0, "marker=1");
}

#[tokio::test]
async fn the_end_of_the_broker_closes_every_connection_tidily() {
    let broker = start(BrokerLimits::default()).await;
    let (mut controller, mut endpoint) =
        (Peer::controller(&broker).await, Peer::endpoint(&broker).await);
    controller.publish(1, "").await;
    endpoint.subscribe(&[2], "").await;
    let address = broker.publish_addresses()[0];
    let ending = tokio::spawn(broker.end());
    assert_eq!(controller.next().await, None);
    assert_eq!(endpoint.next().await, None);
    timeout(LONG, ending).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
