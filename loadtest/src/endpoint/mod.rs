//! One simulated endpoint: connects to a controller over TLS with its own key from its own address,
//! goes through the set-up and serves requests with real sockets (protocol.md 5.1, endpoint side).
//!
//! ```text
//! hosted       `pktfleet endpoint`: an endpoint with credentials from files
//! subscribe    how it hears of experiments from a broker
//! connection   TCP and TLS to the controller, the programs its chain demands
//! setup        CDATA and START
//! requests     the requests of the mlet, in order
//! sockets      the sockets those requests open, and their notifications
//! ```
//!
//! Not here: throw-away credentials (`home`), running monitors.
//!
//! Invariant: all that an endpoint opens belongs to the future of [`Endpoint::run`] and ends with it.

mod connection;
pub(crate) mod hosted;
mod requests;
mod setup;
mod sockets;
pub(crate) mod subscribe;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use engine::proto::tls::SetupError;
use engine::proto::trust::ChainError;
use engine::wire::key::PublicKey;
use engine::wire::message::MessageType;
use engine::wire::program::ProgramDigest;
use engine::wire::time::Ticks;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::link::{Link, LinkError};
use subscribe::{Controller, SubscribeError, Subscriber, Subscription};

/// From the end of the handshake to START (protocol.md 5.1).
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// An endpoint that is ready to connect.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Its own address: where it connects from, and the default local address of its sockets.
    pub(crate) address: IpAddr,
    /// The controller, all addresses of its name.
    pub(crate) controllers: Vec<SocketAddr>,
    /// The snikey, or an IP address for none.
    pub(crate) server_name: ServerName<'static>,
    /// Presents the endpoint's chain; accepts controllers that `operators` let run experiments.
    pub(crate) tls: Arc<ClientConfig>,
    /// The endpoint operators it serves.
    pub(crate) operators: Vec<PublicKey>,
    /// Fault: vanish, without a word, when a request of this type arrives.
    pub(crate) leave_at: Option<MessageType>,
}

/// What became of one connection to the controller.
#[derive(Debug)]
pub(crate) struct Session {
    /// START was answered with success.
    pub(crate) started: bool,
    /// From connect() to the mlet's first message.
    pub(crate) setup: Option<Duration>,
    /// How it ended.
    pub(crate) end: Result<End, EndpointError>,
}

/// A session that ended by the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The controller closed between two messages; with or without close_notify (protocol.md 3.6).
    Closed,
    /// The controller sent YIELD.
    Yielded {
        /// When it wants the endpoint back.
        resume: Ticks,
    },
    /// The endpoint vanished, as it was told to.
    Left,
}

/// Why a session failed.
#[derive(Debug)]
pub(crate) enum EndpointError {
    /// No connection to the controller.
    Connect {
        /// The addresses that were tried.
        controllers: Vec<SocketAddr>,
        /// Of the last try.
        cause: io::Error,
    },
    /// The broker did not tell of an experiment.
    Subscription(SubscribeError),
    /// The controller's name means nothing.
    Resolve(io::Error),
    /// The server name cannot be asked for.
    ServerName(SetupError),
    /// The handshake failed.
    Handshake(io::Error),
    /// The controller's chain does not let it run experiments here.
    Chain(ChainError),
    /// Handshake or set-up took too long.
    TimedOut {
        /// What was waited for.
        awaited: &'static str,
        /// How long.
        limit: Duration,
    },
    /// START came although the chain demands programs that did not.
    ProgramsMissing {
        /// How many.
        count: usize,
    },
    /// The controller closed before START.
    ClosedInSetup,
    /// A message broke the rules of its type.
    Malformed(MessageType),
    /// The connection broke.
    Link(LinkError),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the controller closed the session",
            Self::Yielded { .. } => "the mlet yielded",
            Self::Left => "the endpoint was ended on purpose",
        })
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { controllers, cause } => {
                write!(f, "no connection to the controller at {controllers:?}: {cause}")
            }
            Self::Subscription(cause) => write!(f, "no word from the broker: {cause}"),
            Self::Resolve(cause) => write!(f, "the controller's name has no address: {cause}"),
            Self::ServerName(cause) => cause.fmt(f),
            Self::Handshake(cause) => write!(f, "the TLS handshake failed: {cause}"),
            Self::Chain(cause) => write!(f, "the controller's chain is not trusted: {cause}"),
            Self::TimedOut { awaited, limit } => {
                write!(f, "the controller did not complete {awaited} in {} s", limit.as_secs())
            }
            Self::ProgramsMissing { count } => write!(
                f,
                "START came but {count} programs that the chain demands did not; \
                 put them into the controller's ProgramDirPath"
            ),
            Self::ClosedInSetup => f.write_str("the controller closed before START"),
            Self::Malformed(message_type) => {
                write!(f, "the controller sent a malformed {message_type}")
            }
            Self::Link(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for EndpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect { cause, .. } | Self::Handshake(cause) | Self::Resolve(cause) => {
                Some(cause)
            }
            Self::Subscription(cause) => Some(cause),
            Self::ServerName(cause) => Some(cause),
            Self::Chain(cause) => Some(cause),
            Self::Link(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<LinkError> for EndpointError {
    fn from(cause: LinkError) -> Self {
        Self::Link(cause)
    }
}

impl Session {
    /// It came to nothing.
    fn failed(error: EndpointError) -> Self {
        Self { started: false, setup: None, end: Err(error) }
    }
}

impl Endpoint {
    /// Connects once and serves until either side ends the session. Abandoning it closes everything.
    pub(crate) async fn run(self) -> Session {
        let mut session = Session { started: false, setup: None, end: Ok(End::Closed) };
        session.end = self.converse(&mut session).await;
        session
    }

    /// Subscribes, and then serves the first experiment that the broker tells of.
    pub(crate) async fn run_subscribed(mut self, subscriber: &Subscriber) -> Session {
        match self.follow(subscriber).await {
            // The subscription lasts as long as the session.
            Ok(_subscription) => self.run().await,
            Err(error) => Session::failed(error),
        }
    }

    /// Finds the controller, connects once and serves as [`Self::run`] does.
    pub(crate) async fn run_for(mut self, controller: &Controller) -> Session {
        match self.aim_at(controller).await {
            Ok(()) => self.run().await,
            Err(error) => Session::failed(error),
        }
    }

    async fn follow(&mut self, subscriber: &Subscriber) -> Result<Subscription, EndpointError> {
        let mut subscription = subscriber.open().await.map_err(EndpointError::Subscription)?;
        let experiment = subscription.next().await.map_err(EndpointError::Subscription)?;
        self.aim_at(&experiment.controller).await?;
        Ok(subscription)
    }

    async fn aim_at(&mut self, controller: &Controller) -> Result<(), EndpointError> {
        self.controllers = controller.resolve().await.map_err(EndpointError::Resolve)?;
        self.server_name = controller.server_name().map_err(EndpointError::ServerName)?;
        Ok(())
    }

    /// Connects and goes through the set-up, for whoever wants the bare stream to the mlet. The mlet must
    /// not speak first: what it sent with START's answer still under way would be lost.
    pub(crate) async fn open(&self) -> Result<TlsStream<TcpStream>, EndpointError> {
        let (stream, _) = connection::connect(self).await?;
        let demanded = connection::demanded_programs(&stream, &self.operators)?;
        let mut link = Link::new(stream);
        setup::run(&mut link, &demanded, SETUP_TIMEOUT).await?;
        Ok(link.into_stream())
    }

    async fn converse(&self, session: &mut Session) -> Result<End, EndpointError> {
        let (stream, connecting_since) = connection::connect(self).await?;
        let demanded = connection::demanded_programs(&stream, &self.operators)?;
        let mut link = Link::new(stream);
        let end = self.serve(&mut link, &demanded, connecting_since, session).await;
        if !matches!(end, Ok(End::Left)) {
            link.close().await;
        }
        end
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        link: &mut Link<S>,
        demanded: &[ProgramDigest],
        connecting_since: Instant,
        session: &mut Session,
    ) -> Result<End, EndpointError> {
        setup::run(link, demanded, SETUP_TIMEOUT).await?;
        session.started = true;
        let Some(first) = link.receive().await? else { return Ok(End::Closed) };
        session.setup = Some(connecting_since.elapsed());
        requests::serve(link, first, self.address, self.leave_at).await
    }
}

/// The clock of endpoints.
fn now() -> Ticks {
    Ticks::from_system_time(SystemTime::now())
}
