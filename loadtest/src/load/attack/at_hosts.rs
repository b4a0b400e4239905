//! Clients of a broker, honest and not, and strangers at a proxy.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use packetlab::channel::{ChannelId, ChannelList};
use packetlab::message::{Message, MessageType, PAYLOAD_LEN_MAX};
use packetlab::snikey::SniKey;
use packetlab::tls::{self, PeerRule};
use packetlab::trust::TrustMode;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tally::Count;
use crate::load::error::LoadError;
use crate::load::host_process::Doors;
use hosts::home::{Agent, HomeError};
use hosts::link::{Link, LinkError};
use hosts::proxy::PREAMBLE;

/// Longest that an attacker waits for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a client that was disconnected comes again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Where all attackers publish and subscribe.
const HOSTILE_CHANNEL: [u8; 4] = [0xbb; 4];
/// Letters in the attributes of a hostile subscriber; just within the broker's limit.
const LETTERS: usize = 4_000;
/// Letters in the descriptors they are matched against. Half as many is what costs most: the pattern fails at
/// its last letter, at every place where it can begin.
const PATTERN_LETTERS: usize = LETTERS / 2;
/// Who does what among the hostile clients, by number.
const PUBLISHER: usize = 0;
const SUBSCRIBERS: std::ops::RangeInclusive<usize> = 1..=10;
const FLOODERS: std::ops::RangeInclusive<usize> = 11..=13;
/// Descriptors of one hostile publisher: as many as a broker lets it have.
const DESCRIPTORS: usize = 100;
/// Subscriptions that are under way at once in the flood of log lines.
const FLOOD_BATCH: usize = 16;
/// What a half message announces and what of it is sent.
const HALF: (usize, usize) = (64 * 1024, 63 * 1024);

type TlsLink = Link<TlsStream<TcpStream>>;

/// A client of a broker with a key of its own.
#[derive(Clone)]
pub(super) struct BrokerClient {
    tls: Arc<ClientConfig>,
    /// Where it publishes, and where it subscribes.
    doors: Doors,
    channel: ChannelId,
}

/// Why a client did not get what it wanted.
#[derive(Debug)]
enum ClientError {
    Io(io::Error),
    Link(LinkError),
    /// Something other than the answer came, or nothing more.
    Answer(Option<MessageType>),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => cause.fmt(f),
            Self::Link(cause) => cause.fmt(f),
            Self::Answer(Some(message_type)) => write!(f, "{message_type} instead of the answer"),
            Self::Answer(None) => f.write_str("closed instead of the answer"),
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

impl From<LinkError> for ClientError {
    fn from(cause: LinkError) -> Self {
        Self::Link(cause)
    }
}

impl BrokerClient {
    /// A new one, with a channel that no other client uses.
    pub(super) fn new(doors: Doors) -> Result<Self, LoadError> {
        let agent = Agent::new()?;
        let tls =
            tls::client_config(Some(&agent.identity()), any_agent()).map_err(HomeError::Tls)?;
        let id = agent.key.public_key().key_id();
        // A public channel, which needs no chain.
        let channel = ChannelId::new(id.0.get(..8).unwrap_or(&HOSTILE_CHANNEL));
        Ok(Self { tls, doors, channel: channel.map_err(io::Error::other)? })
    }

    /// The same elsewhere.
    pub(super) fn at(self, doors: Doors) -> Self {
        Self { doors, ..self }
    }

    /// Subscribes, publishes, and waits to hear of it; how long that took.
    pub(super) async fn publish_and_hear(&self) -> Result<Duration, LoadError> {
        let began = Instant::now();
        self.try_publish_and_hear()
            .await
            .map_err(|error| LoadError::Endpoint(error.to_string()))?;
        Ok(began.elapsed())
    }

    async fn try_publish_and_hear(&self) -> Result<(), ClientError> {
        let [publish, subscribe] = self.doors;
        let mut subscriber = self.connect(subscribe).await?;
        subscriber.send(&xsub(&self.channel, "hostid=honest;")).await?;
        expect(&mut subscriber, MessageType::RESULT).await?;
        let mut publisher = self.connect(publish).await?;
        let xdescr = "hostid=hon*;controller_addr=127.0.0.1:1;";
        publisher.send(&xpub(&self.channel, xdescr)).await?;
        expect(&mut publisher, MessageType::RESULT).await?;
        expect(&mut subscriber, MessageType::XNOTIFY).await?;
        subscriber.shut_down().await?;
        Ok(publisher.shut_down().await?)
    }

    async fn connect(&self, door: SocketAddr) -> io::Result<TlsLink> {
        let stream = tls_to(door, &self.tls).await?;
        Ok(Link::small(stream, PAYLOAD_LEN_MAX))
    }
}

fn xsub<'a>(channel: &ChannelId, dattr: &'a str) -> Message<'a> {
    Message::Xsub { channels: ChannelList::new([channel]), operator_key: [0; 32], dattr }
}

fn xpub<'a>(channel: &ChannelId, xdescr: &'a str) -> Message<'a> {
    Message::Xpub { channels: ChannelList::new([channel]), operator_key: [0; 32], xdescr }
}

/// The next message, which must be of this type; a RESULT must be of success.
async fn expect(peer: &mut TlsLink, wanted: MessageType) -> Result<(), ClientError> {
    match peer.receive().await? {
        Some((found, payload)) if found == wanted => match Message::decode(found, &payload) {
            Message::Result(outcome) if !outcome.is_success() => {
                Err(ClientError::Answer(Some(found)))
            }
            _ => Ok(()),
        },
        other => Err(ClientError::Answer(other.map(|(found, _)| found))),
    }
}

/// Brokers and proxies are asked for by no name.
async fn tls_to(door: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = tls::server_name(None).map_err(io::Error::other)?;
    let tcp = TcpStream::connect(door).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await
}

fn any_agent() -> PeerRule {
    PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true }
}

/// One hostile client, and again when it is disconnected. The first publishes descriptors that are costly to
/// match, ten subscribe with what they are matched against, three have as many log lines written as they can,
/// and the others send half a message and wait.
pub(super) async fn harm_broker(number: usize, client: BrokerClient, count: Count) {
    let Ok(channel) = ChannelId::new(&HOSTILE_CHANNEL) else { return };
    let [publish, subscribe] = client.doors;
    let door = if number == PUBLISHER { publish } else { subscribe };
    loop {
        count.connection();
        if let Ok(Ok(peer)) = timeout(PATIENCE, client.connect(door)).await {
            // It ends when it is refused or disconnected.
            let _ = match number {
                PUBLISHER => publish_hostile(peer, &channel, &count).await,
                number if SUBSCRIBERS.contains(&number) => {
                    subscribe_hostile(peer, &channel, &count).await
                }
                number if FLOODERS.contains(&number) => flood_log(peer, &channel, &count).await,
                _ => send_half(peer, &count).await,
            };
        }
        sleep(REFUSED_PAUSE).await;
    }
}

async fn publish_hostile(
    mut peer: TlsLink,
    channel: &ChannelId,
    count: &Count,
) -> Result<(), ClientError> {
    let xdescr = format!("controller_addr=127.0.0.1:1;a=*{}B;", "A".repeat(PATTERN_LETTERS));
    for _ in 0..DESCRIPTORS {
        peer.send(&xpub(channel, &xdescr)).await?;
        expect(&mut peer, MessageType::RESULT).await?;
        count.step();
    }
    // They go with the connection; the next one publishes them anew.
    sleep(REFUSED_PAUSE).await;
    Ok(peer.shut_down().await?)
}

async fn subscribe_hostile(
    mut peer: TlsLink,
    channel: &ChannelId,
    count: &Count,
) -> Result<(), ClientError> {
    let dattr = format!("a={};", "A".repeat(LETTERS));
    peer.send(&xsub(channel, &dattr)).await?;
    count.step();
    while peer.receive().await?.is_some() {}
    Ok(())
}

async fn flood_log(
    mut peer: TlsLink,
    channel: &ChannelId,
    count: &Count,
) -> Result<(), ClientError> {
    let dattr = format!("b={};", "A".repeat(LETTERS));
    loop {
        for _ in 0..FLOOD_BATCH {
            peer.send(&xsub(channel, &dattr)).await?;
            count.step();
        }
        for _ in 0..FLOOD_BATCH {
            // Refusals are logged as well.
            peer.receive().await?.ok_or(ClientError::Answer(None))?;
        }
    }
}

async fn send_half(peer: TlsLink, count: &Count) -> Result<(), ClientError> {
    let mut stream = peer.into_stream();
    let (announced, sent) = HALF;
    let mut half = vec![MessageType::XSUB.0];
    half.extend_from_slice(&u32::try_from(announced).unwrap_or(u32::MAX).to_be_bytes()[1..]);
    half.resize(half.len() + sent, b'A');
    stream.write_all(&half).await?;
    stream.flush().await?;
    count.step();
    while stream.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

/// How strangers come to a proxy: with a certificate of their own making, and without any.
pub(super) fn strangers() -> Result<(Arc<ClientConfig>, Arc<ClientConfig>), LoadError> {
    let agent = Agent::new()?;
    let stranger =
        tls::client_config(Some(&agent.identity()), any_agent()).map_err(HomeError::Tls)?;
    let nameless = tls::client_config(None, any_agent()).map_err(HomeError::Tls)?;
    Ok((stranger, nameless))
}

/// A connection that is registered under a snikey and closed when an endpoint comes through it, and the next.
pub(super) async fn register(
    tls: Arc<ClientConfig>,
    snikey: SniKey,
    door: SocketAddr,
    count: Count,
) {
    loop {
        count.connection();
        let registering = try_register(&tls, &snikey, door, &count);
        if let Ok(Ok(mut registered)) = timeout(PATIENCE, registering).await {
            // What may be left of TLS and the preamble is shorter than any ClientHello.
            let mut bytes = [0; 4096];
            while let Ok(1..64) = registered.read(&mut bytes).await {}
        }
        sleep(REFUSED_PAUSE).await;
    }
}

async fn try_register(
    tls: &Arc<ClientConfig>,
    snikey: &SniKey,
    door: SocketAddr,
    count: &Count,
) -> Result<TcpStream, ClientError> {
    let mut peer = Link::small(tls_to(door, tls).await?, PAYLOAD_LEN_MAX);
    peer.send(&Message::Xreg { snikey: snikey.as_str() }).await?;
    let answer = expect(&mut peer, MessageType::RESULT).await;
    if matches!(answer, Ok(()) | Err(ClientError::Answer(Some(_)))) {
        count.step();
    }
    answer?;
    // TLS ends, the connection does not.
    let mut stream = peer.into_stream();
    stream.get_mut().1.send_close_notify();
    stream.flush().await?;
    let (mut tcp, _) = stream.into_inner();
    tcp.write_all(PREAMBLE).await?;
    Ok(tcp)
}
