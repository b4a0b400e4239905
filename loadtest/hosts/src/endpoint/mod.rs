//! One simulated endpoint: connects to a controller over TLS with its own key from its own address,
//! goes through the set-up and serves requests with real sockets (spec/protocol.md 5.1, endpoint side).
//!
//! ```text
//! hosted       `pktfleet endpoint`: an endpoint with credentials from files
//! sessions     its experiments: which are set up, run and wait
//! subscribe    how it hears of experiments from a broker
//! connect      TCP from its own address      controller  the connection to the controller, and its chain
//! setup        CDATA and START
//! monitors     the monitor programs that the chain demands
//! requests     the requests of the mlet, in order
//! chain_limits what the controller's chain allows
//! ledger       what its certificates have used up of that, over all sessions
//! sockets      the sockets those requests open, and their notifications
//! session_end  how a session ends
//! monitor_error  why it does not begin because of its monitors
//! ```
//!
//! Not here: throw-away credentials (`home`), running monitors (the crate `monitors`).
//!
//! Invariant: all that an endpoint opens belongs to the future of [`Endpoint::run`] and ends with it.

mod chain_limits;
mod connect;
mod controller;
mod filter;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod hosted;
mod ledger;
mod machine;
mod memory;
mod monitor_error;
mod monitors;
mod requests;
mod session_end;
mod sessions;
mod setup;
mod sockets;
pub mod subscribe;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use packetlab::escape::Escaped;
use packetlab::key::PublicKey;
use packetlab::message::MessageType;
use packetlab::program::Program;
use packetlab::trust::VerifiedChain;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

pub use self::monitors::{MonitorOptions, MonitorRule, MonitorSettings};
use self::monitors::{SessionMonitors, Supply, demands};
use crate::clock::now;
use crate::link::Link;
use chain_limits::ChainLimits;
pub use ledger::{Ledger, LedgerError, StateError};
use machine::Machine;
pub use monitor_error::MonitorError;
use requests::SessionTerms;
pub use session_end::{End, EndpointError};
use sockets::Sockets;
use subscribe::{Controller, SubscribedLink, Subscriber};

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
    /// What is done with the monitor programs that a chain demands.
    pub monitors: MonitorRule,
    /// Programs of its own operator, which are asked about every experiment behind those that a chain demands, where these
    /// are run.
    pub own_monitors: Arc<[Program]>,
    /// What controllers' certificates have used up, which all sessions share.
    pub ledger: Arc<Ledger>,
    /// How long the experiment has run in earlier sessions.
    pub ran: Duration,
    /// Fault: vanish, without a word, when a request of this type arrives.
    pub leave_at: Option<MessageType>,
}

/// By the name that its operator gave it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {}", Escaped(self.host_id.as_bytes()))
    }
}

/// What a session has when START was answered.
type SetUp = (Link<TlsStream<TcpStream>>, VerifiedChain, Sockets, SessionMonitors);

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
            let heard = if session.setup.is_some() { "was" } else { "was not" };
            match &session.end {
                Ok(end) => tracing::debug!("{self}: session over, its mlet {heard} heard: {end}"),
                Err(error) => {
                    tracing::debug!("{self}: session over, its mlet {heard} heard: {error}");
                }
            }
            if let Err(error) = self.ledger.saved(false).await {
                tracing::error!("{error}");
            }
        }
        session
    }

    /// Subscribes, and then serves the first experiment that the broker tells of.
    pub async fn run_subscribed(self, subscriber: &Subscriber) -> Session {
        self.run_subscribed_until(subscriber, std::future::pending()).await
    }

    /// The same, but ends the session when `preempted` is done.
    pub async fn run_subscribed_until(
        mut self,
        subscriber: &Subscriber,
        preempted: impl Future<Output = ()>,
    ) -> Session {
        let mut preempted = pin!(preempted);
        let followed = tokio::select! {
            biased;
            () = &mut preempted => return Session::without_start(Ok(End::Preempted)),
            followed = self.follow(subscriber) => followed,
        };
        match followed {
            // The subscription lasts as long as the session.
            Ok(_subscription) => self.run_until(preempted, ready(true)).await,
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

    async fn follow(&mut self, subscriber: &Subscriber) -> Result<SubscribedLink, EndpointError> {
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
        let (stream, _) = self.connect_since().await?;
        let (link, ..) = self.set_up(stream, ready(true)).await?;
        Ok(link.into_stream())
    }

    /// Connects, for whoever wants a TLS stream without any set-up.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, EndpointError> {
        Ok(self.connect_since().await?.0)
    }

    /// Connects; the instant is that of the connect() that succeeded.
    async fn connect_since(&self) -> Result<(TlsStream<TcpStream>, Instant), EndpointError> {
        controller::connect(self.address, &self.controllers, &self.server_name, &self.tls).await
    }

    async fn converse(
        &self,
        session: &mut Session,
        preempted: &Notify,
        place: impl Future<Output = bool>,
    ) -> Result<End, EndpointError> {
        let set_up = async {
            let (stream, connecting_since) = self.connect_since().await?;
            let (link, chain, sockets, monitors) = self.set_up(stream, place).await?;
            // Behind a proxy the address does not tell which of several managers it is.
            let key = chain.leaf().map_or_else(String::new, |leaf| leaf.subject_key_id.short());
            tracing::debug!("{self}: a session begins, controller key {key}");
            Ok::<_, EndpointError>((link, chain.not_after, sockets, monitors, connecting_since))
        };
        let (mut link, not_after, sockets, monitors, connecting_since) = tokio::select! {
            ready = set_up => ready?,
            () = preempted.notified() => return Ok(End::Preempted),
        };
        session.started = true;
        let (ran, leave_at) = (self.ran, self.leave_at);
        let terms = SessionTerms { sockets, monitors, ran, not_after, leave_at };
        session.start = Some(Instant::now());
        let first = || session.setup = Some(connecting_since.elapsed());
        let end = requests::serve(&mut link, terms, preempted.notified(), first).await;
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
    ) -> Result<SetUp, EndpointError> {
        let chain = controller::controllers_chain(&stream, &self.operators)?;
        if let (Some(priority), Some(max)) = (self.priority, chain_limits::priority_max(&chain))
            && priority > max
        {
            return Err(EndpointError::PriorityTooHigh { priority, max });
        }
        let limits = ChainLimits::of(&chain, &self.ledger, now()).map_err(EndpointError::Ledger)?;
        // What could not be written at the end could be had again by ending this process. It is written even if
        // nothing has changed: there may be no room on the disk for anything.
        self.ledger.saved(true).await.map_err(EndpointError::State)?;
        let memories = limits.memories();
        let own = self.own_address(stream.get_ref().0);
        let sockets = Sockets::new(Machine::new(own, self.host_id.clone()), limits);
        let supply = Supply::new(
            self.monitors,
            demands(&chain.certificates),
            Arc::clone(&self.own_monitors),
            sockets.memory(),
            memories,
            self.to_string(),
        );
        let mut link = Link::new(stream);
        match setup::run(&mut link, supply, SETUP_TIMEOUT, place).await {
            Ok(monitors) => Ok((link, chain, sockets, monitors)),
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
