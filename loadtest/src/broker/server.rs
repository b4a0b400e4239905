//! The sockets of a broker: TLS connections that carry the messages of [`rules`](super::rules) in and
//! the notifications of the [`Board`] out.
//!
//! Invariant: the publications of a connection are on the board for no longer than it lives. What a
//! client has not read is never held in memory beyond one message.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use engine::wire::certificate::Certificate;
use engine::wire::key::PublicKey;
use engine::wire::message::{Message, MessageType, Outcome, Status};
use engine::wire::time::Ticks;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::board::{Board, Publication, Subscription};
use super::limits::Limits;
use super::refusal::Refusal;
use super::rules::{Accepted, Client, Role};
use crate::hosting::{Ending, Listening, Service};
use crate::link::{Link, LinkError};

/// A running broker. Dropped, it ends at once.
#[derive(Debug)]
pub(crate) struct Broker {
    service: Service,
    publish: Vec<SocketAddr>,
    subscribe: Vec<SocketAddr>,
}

impl Broker {
    /// Serves publishers and subscribers. Must be called within a runtime.
    pub(crate) fn start(
        publish: Listening,
        subscribe: Listening,
        tls: Arc<ServerConfig>,
        limits: Limits,
    ) -> Self {
        let mut broker = Self {
            service: Service::new(),
            publish: publish.addresses(),
            subscribe: subscribe.addresses(),
        };
        let room = Arc::new(Semaphore::new(limits.connections_max));
        let shared = Arc::new(Shared {
            limits,
            tls: TlsAcceptor::from(tls),
            board: Mutex::default(),
            latest: watch::Sender::new(0),
        });
        for (sockets, role, whom) in
            [(publish, Role::Publisher, "publishers"), (subscribe, Role::Subscriber, "subscribers")]
        {
            let (shared, ending) = (Arc::clone(&shared), broker.service.ending());
            let serve = move |stream, peer, permit| {
                serve(Arc::clone(&shared), role, stream, peer, ending.clone(), permit)
            };
            broker.service.serve(sockets, &room, whom, serve);
        }
        broker
    }

    /// Where publishers come.
    pub(crate) fn publish_addresses(&self) -> &[SocketAddr] {
        &self.publish
    }

    /// Where subscribers come.
    pub(crate) fn subscribe_addresses(&self) -> &[SocketAddr] {
        &self.subscribe
    }

    /// Closes all connections.
    pub(crate) async fn end(self) {
        self.service.end().await;
    }
}

/// What all connections share.
struct Shared {
    limits: Limits,
    tls: TlsAcceptor,
    board: Mutex<Board>,
    /// Number of the latest publication; a change wakes subscribers.
    latest: watch::Sender<u64>,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The publications of one connection.
struct Published {
    shared: Arc<Shared>,
    numbers: Vec<u64>,
}

impl Published {
    fn add(&mut self, publication: Publication) {
        let number = self.shared.board().publish(publication, now());
        self.numbers.push(number);
        self.shared.latest.send_replace(number);
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let mut board = self.shared.board();
        self.numbers.iter().for_each(|number| board.withdraw(*number));
    }
}

/// Why a connection ended before its client wanted.
#[derive(Debug)]
enum Failure {
    Handshake(io::Error),
    /// The TLS identity is gone although it was verified.
    NoIdentity,
    TooSlow {
        awaited: &'static str,
        limit: Duration,
    },
    Refused(Refusal),
    Link(LinkError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(cause) => write!(f, "TLS handshake failed: {cause}"),
            Self::NoIdentity => f.write_str("it has no certificate"),
            Self::TooSlow { awaited, limit } => write!(f, "{awaited} took more than {limit:?}"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Link(cause) => cause.fmt(f),
        }
    }
}

impl From<LinkError> for Failure {
    fn from(cause: LinkError) -> Self {
        Self::Link(cause)
    }
}

async fn serve(
    shared: Arc<Shared>,
    role: Role,
    stream: TcpStream,
    peer: SocketAddr,
    mut ending: Ending,
    _permit: OwnedSemaphorePermit,
) {
    match converse(shared, role, stream, peer, &mut ending).await {
        Ok(()) => tracing::debug!("{peer} has left"),
        // Before the handshake is over anybody can cause this, as often as they like.
        Err(failure @ Failure::Handshake(_)) => tracing::debug!("{peer}: {failure}"),
        Err(failure) => tracing::info!("{peer} is disconnected: {failure}"),
    }
}

async fn converse(
    shared: Arc<Shared>,
    role: Role,
    stream: TcpStream,
    peer: SocketAddr,
    ending: &mut Ending,
) -> Result<(), Failure> {
    let limit = shared.limits.handshake_timeout;
    let stream = tokio::select! {
        () = ending.wait() => return Ok(()),
        // Boxed, so that it costs nothing once it is over.
        accepted = timeout(limit, Box::pin(shared.tls.accept(stream))) => accepted
            .map_err(|_| Failure::Handshake(io::ErrorKind::TimedOut.into()))?
            .map_err(Failure::Handshake)?,
    };
    let key = client_key(&stream).ok_or(Failure::NoIdentity)?;
    tracing::debug!("{peer} has the key {}", key.key_id());
    let mut conversation = Conversation {
        latest: shared.latest.subscribe(),
        published: Published { shared: Arc::clone(&shared), numbers: Vec::new() },
        peer,
        link: Link::small(stream, shared.limits.payload_len_max()),
        client: Client::new(role, key),
        subscription: None,
        has_requested: false,
        shared,
    };
    let ended = conversation.run(ending).await;
    // Gone before the client learns of the end, so that it can rely on it.
    drop(conversation.published);
    let limit = conversation.shared.limits.unread_timeout;
    let _ = timeout(limit, conversation.link.shut_down()).await;
    ended
}

/// The key of the client's verified agent certificate.
fn client_key(stream: &TlsStream<TcpStream>) -> Option<PublicKey> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    Certificate::from_der(leaf).ok().map(|leaf| leaf.subject_key)
}

/// One connection after its handshake.
struct Conversation {
    shared: Arc<Shared>,
    peer: SocketAddr,
    link: Link<TlsStream<TcpStream>>,
    client: Client,
    published: Published,
    subscription: Option<Subscription>,
    latest: watch::Receiver<u64>,
    /// An XPUB or XSUB was accepted.
    has_requested: bool,
}

impl Conversation {
    async fn run(&mut self, ending: &mut Ending) -> Result<(), Failure> {
        let limit = self.shared.limits.request_timeout;
        let deadline = Instant::now() + limit;
        loop {
            self.notify().await?;
            tokio::select! {
                received = self.link.receive() => match received {
                    Ok(Some((message_type, payload))) => self.answer(message_type, &payload).await?,
                    Ok(None) => return Ok(()),
                    Err(LinkError::Frame(error)) => self.refuse(Refusal::TooLarge(error)).await?,
                    Err(error) => return Err(error.into()),
                },
                _ = self.latest.changed(), if self.subscription.is_some() => {}
                () = sleep_until(deadline), if !self.has_requested => {
                    return Err(Failure::TooSlow { awaited: "the request", limit });
                }
                () = ending.wait() => return Ok(()),
            }
        }
    }

    /// Sends what the subscription has not heard of yet.
    async fn notify(&mut self) -> Result<(), Failure> {
        let Some(mut subscription) = self.subscription.take() else { return Ok(()) };
        loop {
            let next = self.shared.board().next_for(&mut subscription, now());
            let Some(notification) = next else { break };
            let encoded = notification.encode().map_err(LinkError::Encode)?;
            self.send(&encoded, "reading notifications").await?;
            tracing::debug!("{} is notified on channel {}", self.peer, notification.channel);
        }
        self.subscription = Some(subscription);
        Ok(())
    }

    async fn answer(&mut self, message_type: MessageType, payload: &[u8]) -> Result<(), Failure> {
        let accepted = self.client.handle(message_type, payload, &self.shared.limits, now());
        let peer = self.peer;
        match accepted {
            Err(refusal) => return self.refuse(refusal).await,
            Ok(Accepted::Certificate) => {}
            Ok(Accepted::Publication(publication)) => {
                let (count, xdescr) = (publication.channels.len(), &publication.xdescr);
                if publication.until <= now() {
                    tracing::warn!("{peer} publishes what has already ended: {xdescr}");
                } else {
                    tracing::info!("{peer} publishes ({count} channels): {xdescr}");
                }
                self.published.add(publication);
                self.has_requested = true;
            }
            Ok(Accepted::Subscription(subscription)) => {
                let (count, dattr) = (subscription.channels.len(), &subscription.dattr);
                tracing::info!("{peer} subscribes ({count} channels): {dattr}");
                self.subscription = Some(subscription);
                self.has_requested = true;
            }
        }
        self.send_result(Status::SUCCESS).await
    }

    async fn refuse(&mut self, refusal: Refusal) -> Result<(), Failure> {
        self.send_result(refusal.status()).await?;
        if refusal.ends_the_connection() {
            return Err(Failure::Refused(refusal));
        }
        tracing::info!("{} is refused with {}: {refusal}", self.peer, refusal.status());
        Ok(())
    }

    async fn send_result(&mut self, status: Status) -> Result<(), Failure> {
        let mut encoded = Vec::new();
        Message::Result(Outcome::Status(status)).encode(&mut encoded).map_err(LinkError::Encode)?;
        self.send(&encoded, "reading answers").await
    }

    async fn send(&mut self, message: &[u8], awaited: &'static str) -> Result<(), Failure> {
        let limit = self.shared.limits.unread_timeout;
        match timeout(limit, self.link.send_encoded(message)).await {
            Ok(sent) => sent.map_err(Failure::Link),
            Err(_) => Err(Failure::TooSlow { awaited, limit }),
        }
    }
}

fn now() -> Ticks {
    Ticks::from_system_time(SystemTime::now())
}
