//! One simulated endpoint: connects to a controller over TLS with its own key from its own address,
//! goes through the set-up and serves requests with real sockets (spec/protocol.md 5.1, endpoint side).
//!
//! ```text
//! hosted       `pktfleet endpoint`: an endpoint with credentials from files
//! sessions     its experiments: which are set up, run and wait
//! subscribe    how it hears of experiments from a broker
//! connection   TCP and TLS to the controller, the programs its chain demands
//! setup        CDATA and START
//! requests     the requests of the mlet, in order
//! limits       what the controller's chain allows
//! ledger       what its certificates have used up of that, over all sessions
//! sockets      the sockets those requests open, and their notifications
//! ```
//!
//! Not here: throw-away credentials (`home`), running monitors.
//!
//! Invariant: all that an endpoint opens belongs to the future of [`Endpoint::run`] and ends with it.

mod connection;
mod filter;
pub mod hosted;
mod ledger;
mod limits;
mod machine;
mod memory;
mod requests;
mod sessions;
mod setup;
mod sockets;
pub mod subscribe;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::ready;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use packetlab::key::PublicKey;
use packetlab::message::MessageType;
use packetlab::time::Ticks;
use packetlab::tls::SetupError;
use packetlab::trust::{ChainError, VerifiedChain};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use crate::link::{Link, LinkError};
use crate::tls_reason;
pub use ledger::{Ledger, LedgerError, StateError};
use limits::Limits;
use machine::Machine;
use requests::Service;
use subscribe::{Controller, SubscribeError, Subscriber, Subscription};

/// From the end of the handshake to START (spec/protocol.md 5.1).
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
/// A session that has to make room for another experiment ends by itself within this time, or is ended.
const PREEMPTION_TIMEOUT: Duration = Duration::from_secs(10);

/// An endpoint that is ready to connect.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its own address: where it connects from, and the default local address of its sockets. If it is
    /// unspecified, the address towards the controller, unless that is on loopback.
    pub address: IpAddr,
    /// Its name, which mlets can read; at most 256 bytes count.
    pub host_id: String,
    /// The controller, all addresses of its name.
    pub controllers: Vec<SocketAddr>,
    /// The snikey, or an IP address for none.
    pub server_name: ServerName<'static>,
    /// Presents the endpoint's chain; accepts controllers that `operators` let run experiments.
    pub tls: Arc<ClientConfig>,
    /// The endpoint operators it serves.
    pub operators: Vec<PublicKey>,
    /// Priority of the experiment, from its descriptor; none if that names none.
    pub priority: Option<u64>,
    /// Serve experiments whose chain demands monitor programs, without running these. Otherwise such an
    /// experiment is refused: what its operator wanted to be checked would not be.
    pub monitors_not_enforced: bool,
    /// What controllers' certificates have used up, which all sessions share.
    pub ledger: Arc<Ledger>,
    /// How long the experiment has run in earlier sessions.
    pub ran: Duration,
    /// Fault: vanish, without a word, when a request of this type arrives.
    pub leave_at: Option<MessageType>,
}

/// What became of one connection to the controller.
#[derive(Debug)]
pub struct Session {
    /// START was answered with success.
    pub started: bool,
    /// From connect() to the mlet's first message.
    pub setup: Option<Duration>,
    /// How long the experiment has run, in earlier sessions and in this one.
    pub ran: Duration,
    /// When START was answered.
    start: Option<Instant>,
    /// How it ended.
    pub end: Result<End, EndpointError>,
}

/// A session that ended by the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The controller closed between two messages; with or without close_notify (spec/protocol.md 3.6).
    Closed,
    /// The controller sent YIELD.
    Yielded {
        /// When it wants the endpoint back.
        resume: Ticks,
    },
    /// Another experiment needs the endpoint.
    Preempted,
    /// The experiment took as long as its chain allows.
    PeriodOver,
    /// The controller's chain is not valid any more.
    ChainExpired,
    /// What the controller's certificates use up cannot be kept.
    NotKept,
    /// The endpoint vanished, as it was told to.
    Left,
}

/// Why a session failed.
#[derive(Debug)]
pub enum EndpointError {
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
    /// The chain does not allow experiments of this priority.
    PriorityTooHigh {
        /// That of the experiment.
        priority: u64,
        /// The highest allowed.
        max: u64,
    },
    /// The chain's certificates have no accounts.
    Ledger(LedgerError),
    /// What the chain's certificates use up cannot be kept.
    State(StateError),
    /// The chain demands monitor programs, which this endpoint does not run.
    MonitorsNotRun {
        /// How many.
        count: usize,
    },
    /// The chain demands more programs than an endpoint keeps track of.
    TooManyPrograms {
        /// How many.
        count: usize,
    },
    /// START came although the chain demands programs that did not.
    ProgramsMissing {
        /// How many.
        count: usize,
    },
    /// At START there was no place for it.
    NoPlace,
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
            Self::Preempted => "another experiment needs the endpoint",
            Self::PeriodOver => "the experiment took as long as its chain allows",
            Self::ChainExpired => "the controller's certificates have expired",
            Self::NotKept => "what the controller's certificates use up cannot be kept",
            Self::Left => "the endpoint was ended on purpose",
        })
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { controllers, cause } => {
                let controllers: Vec<_> = controllers.iter().map(SocketAddr::to_string).collect();
                let controllers = controllers.join(", ");
                write!(f, "no connection to the controller at {controllers}: {cause}")
            }
            Self::Subscription(cause) => write!(f, "no word from the broker: {cause}"),
            Self::Resolve(cause) => write!(f, "the controller's name has no address: {cause}"),
            Self::ServerName(cause) => cause.fmt(f),
            Self::Handshake(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => f.write_str(
                "it closed the connection in the TLS handshake; a controller does so, or a proxy for it, when it \
                 has no experiment of the server name that was asked for (--snikey)",
            ),
            Self::Handshake(cause) => {
                write!(f, "the TLS handshake failed: {}", tls_reason::reason(cause))
            }
            Self::Chain(cause) => write!(f, "the controller's chain is not trusted: {cause}"),
            Self::TimedOut { awaited, limit } => {
                write!(f, "the controller did not complete {awaited} in {} s", limit.as_secs())
            }
            Self::PriorityTooHigh { priority, max } => write!(
                f,
                "the experiment has priority {priority}, but its chain allows {max} at most"
            ),
            Self::Ledger(cause) => cause.fmt(f),
            Self::State(cause) => cause.fmt(f),
            Self::MonitorsNotRun { count } => write!(
                f,
                "the controller's chain demands that {count} monitor programs be run, which this \
                 endpoint does not do; start it with --monitors-not-enforced to serve it without"
            ),
            Self::TooManyPrograms { count } => write!(
                f,
                "the controller's chain demands {count} programs, more than {}",
                setup::PROGRAMS_MAX
            ),
            Self::ProgramsMissing { count } => write!(
                f,
                "START came but {count} programs that the chain demands did not; \
                 put them into the controller's ProgramDirPath"
            ),
            Self::NoPlace => f.write_str("others that are as important have all places"),
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
            Self::State(cause) => Some(cause),
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
        Self::without_start(Err(error))
    }

    /// There was no START.
    fn without_start(end: Result<End, EndpointError>) -> Self {
        Self { started: false, setup: None, ran: Duration::ZERO, start: None, end }
    }
}

impl Endpoint {
    /// Connects once and serves until either side ends the session. Abandoning it closes everything.
    pub async fn run(self) -> Session {
        self.run_until(std::future::pending(), ready(true)).await
    }

    /// The same, but ends the session when `preempted` is done: another experiment needs the endpoint. It is awaited
    /// at START whether there is a `place` for it, which answers in less than 20 s.
    pub async fn run_until(
        self,
        preempted: impl Future<Output = ()>,
        place: impl Future<Output = bool>,
    ) -> Session {
        let mut session = Session { ran: self.ran, ..Session::without_start(Ok(End::Closed)) };
        let asked = Notify::new();
        let forced = async {
            preempted.await;
            asked.notify_one();
            sleep(PREEMPTION_TIMEOUT).await;
        };
        session.end = tokio::select! {
            end = self.converse(&mut session, &asked, place) => end,
            () = forced => Ok(End::Preempted),
        };
        if let Some(start) = session.start {
            session.ran = session.ran.saturating_add(start.elapsed());
            if let Err(error) = self.ledger.saved(false).await {
                tracing::error!("{error}");
            }
        }
        session
    }

    /// Subscribes, and then serves the first experiment that the broker tells of.
    pub async fn run_subscribed(mut self, subscriber: &Subscriber) -> Session {
        match self.follow(subscriber).await {
            // The subscription lasts as long as the session.
            Ok(_subscription) => self.run().await,
            Err(error) => Session::failed(error),
        }
    }

    /// Finds the controller, connects once and serves as [`Self::run_until`] does.
    pub(crate) async fn run_for(
        mut self,
        controller: &Controller,
        preempted: impl Future<Output = ()>,
        place: impl Future<Output = bool>,
    ) -> Session {
        let mut preempted = pin!(preempted);
        // A name server that does not answer must not keep the endpoint from others.
        let aimed = tokio::select! {
            biased;
            () = &mut preempted => {
                return Session { ran: self.ran, ..Session::without_start(Ok(End::Preempted)) };
            }
            aimed = self.aim_at(controller) => aimed,
        };
        match aimed {
            Ok(()) => self.run_until(preempted, place).await,
            Err(error) => Session::failed(error),
        }
    }

    async fn follow(&mut self, subscriber: &Subscriber) -> Result<Subscription, EndpointError> {
        let mut subscription = subscriber.open().await.map_err(EndpointError::Subscription)?;
        let experiment = subscription.next().await.map_err(EndpointError::Subscription)?;
        self.priority = Some(experiment.priority);
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
    pub async fn open(&self) -> Result<TlsStream<TcpStream>, EndpointError> {
        let (stream, _) = connection::connect(self).await?;
        let (link, ..) = self.set_up(stream, ready(true)).await?;
        Ok(link.into_stream())
    }

    /// Connects, for whoever wants a TLS stream without any set-up.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, EndpointError> {
        Ok(connection::connect(self).await?.0)
    }

    async fn converse(
        &self,
        session: &mut Session,
        preempted: &Notify,
        place: impl Future<Output = bool>,
    ) -> Result<End, EndpointError> {
        let set_up = async {
            let (stream, connecting_since) = connection::connect(self).await?;
            let own = self.own_address(stream.get_ref().0);
            let (link, chain, limits) = self.set_up(stream, place).await?;
            Ok::<_, EndpointError>((link, chain.not_after, limits, own, connecting_since))
        };
        let (mut link, not_after, limits, own, connecting_since) = tokio::select! {
            ready = set_up => ready?,
            () = preempted.notified() => return Ok(End::Preempted),
        };
        session.started = true;
        let service = Service {
            machine: Machine::new(own, self.host_id.clone()),
            limits,
            ran: self.ran,
            not_after,
            leave_at: self.leave_at,
        };
        session.start = Some(Instant::now());
        let first = || session.setup = Some(connecting_since.elapsed());
        let end = requests::serve(&mut link, service, preempted.notified(), first).await;
        if !matches!(end, Ok(End::Left)) {
            link.close().await;
        }
        end
    }

    /// What follows the handshake, up to START.
    async fn set_up(
        &self,
        stream: TlsStream<TcpStream>,
        place: impl Future<Output = bool>,
    ) -> Result<(Link<TlsStream<TcpStream>>, VerifiedChain, Limits), EndpointError> {
        let chain = connection::controllers_chain(&stream, &self.operators)?;
        if let (Some(priority), Some(max)) = (self.priority, limits::priority_max(&chain))
            && priority > max
        {
            return Err(EndpointError::PriorityTooHigh { priority, max });
        }
        let limits = Limits::of(&chain, &self.ledger, now()).map_err(EndpointError::Ledger)?;
        // What could not be written at the end could be had again by ending this process. It is written even if
        // nothing has changed: there may be no room on the disk for anything.
        self.ledger.saved(true).await.map_err(EndpointError::State)?;
        let demanded = chain.monitor_digests().copied().collect::<Vec<_>>();
        let mut link = Link::new(stream);
        let unenforced = self.monitors_not_enforced;
        match setup::run(&mut link, &demanded, unenforced, SETUP_TIMEOUT, place).await {
            Ok(()) => Ok((link, chain, limits)),
            Err(error) => {
                link.close().await;
                Err(error)
            }
        }
    }

    /// The address that stands for the endpoint. One on loopback would not reach the world, and the
    /// controller being here does not mean that its targets are.
    fn own_address(&self, stream: &TcpStream) -> IpAddr {
        match stream.local_addr() {
            Ok(local) if self.address.is_unspecified() && !local.ip().is_loopback() => local.ip(),
            _ => self.address,
        }
    }
}

/// The clock of endpoints.
fn now() -> Ticks {
    Ticks::from_system_time(SystemTime::now())
}
