//! A broker and a proxy of one run, in this process, with throw-away credentials.
//!
//! Not here: the programs that a group hosts (`broker`, `proxy`).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use packetlab::address::HostPort;
use packetlab::tls::{self, PeerRule};
use packetlab::trust::TrustMode;
use packetlab_home as home;

use hosts::broker::{self, Broker};
use hosts::home::{Agent, HomeError, Surroundings};
use hosts::hosting::{HostError, Listening, ServerLimits};
use hosts::proxy::{self, Proxy, Signers};

/// How long endpoints wait at the proxy: the whole fleet comes at once.
const ENDPOINT_WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How endpoints come to their controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are told its address.
    Direct,
    /// A broker tells them.
    Broker,
    /// A broker tells them, and they come through a proxy.
    Proxy,
}

/// What serves one run.
#[derive(Debug)]
pub(crate) struct Hosts {
    broker: Option<Broker>,
    proxy: Option<Proxy>,
    /// As a home names them.
    surroundings: Surroundings,
}

/// Why there is no broker or proxy.
#[derive(Debug)]
pub(crate) enum HostsError {
    /// No credentials.
    Home(HomeError),
    /// No address.
    Host(HostError),
}

impl fmt::Display for HostsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(cause) => cause.fmt(f),
            Self::Host(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for HostsError {}

impl From<HomeError> for HostsError {
    fn from(cause: HomeError) -> Self {
        Self::Home(cause)
    }
}

impl From<HostError> for HostsError {
    fn from(cause: HostError) -> Self {
        Self::Host(cause)
    }
}

impl Hosts {
    /// Starts what `way` needs. Must be called within a runtime.
    ///
    /// # Errors
    /// No credentials, or no free port on loopback.
    pub(crate) async fn start(way: Way) -> Result<Self, HostsError> {
        let mut hosts = Self { broker: None, proxy: None, surroundings: Surroundings::default() };
        if way != Way::Direct {
            hosts.start_broker().await?;
        }
        if way == Way::Proxy {
            hosts.start_proxy().await?;
        }
        Ok(hosts)
    }

    async fn start_broker(&mut self) -> Result<(), HostsError> {
        let agent = Agent::new()?;
        let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
        let tls = tls::server_config(&agent.identity(), rule).map_err(HomeError::Tls)?;
        let (publish, subscribe) = (loopback().await?, loopback().await?);
        let broker = Broker::start(publish, subscribe, tls, broker_limits());
        let address = broker.publish_addresses().first().map(host_port);
        let root = Some(agent.key.public_key());
        self.surroundings.broker =
            address.map(|address| home::Broker { addresses: vec![address], root });
        self.broker = Some(broker);
        Ok(())
    }

    async fn start_proxy(&mut self) -> Result<(), HostsError> {
        let agent = Agent::new()?;
        let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: false };
        let tls = tls::server_config(&agent.identity(), rule).map_err(HomeError::Tls)?;
        let (controllers, endpoints) = (loopback().await?, loopback().await?);
        let signers = Signers::Unknown;
        self.proxy = Some(Proxy::start(controllers, endpoints, tls, signers, proxy_limits()));
        self.surroundings.proxy_root = Some(agent.key.public_key());
        Ok(())
    }

    /// How a home is to name them.
    pub(crate) fn surroundings(&self) -> Surroundings {
        self.surroundings.clone()
    }

    /// Where endpoints subscribe.
    pub(crate) fn subscribe_address(&self) -> Option<SocketAddr> {
        self.broker.as_ref()?.subscribe_addresses().first().copied()
    }

    /// The proxy's port for controllers, then the one for endpoints.
    pub(crate) fn proxy_addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let proxy = self.proxy.as_ref()?;
        proxy
            .controller_addresses()
            .first()
            .copied()
            .zip(proxy.endpoint_addresses().first().copied())
    }
}

/// All peers of a run come from this host, which may have everything.
fn server_limits() -> ServerLimits {
    ServerLimits { per_source_percent: 100, ..ServerLimits::default() }
}

fn broker_limits() -> broker::BrokerLimits {
    broker::BrokerLimits { server: server_limits(), ..broker::BrokerLimits::default() }
}

fn proxy_limits() -> proxy::ProxyLimits {
    proxy::ProxyLimits {
        wait_timeout: ENDPOINT_WAIT_TIMEOUT,
        server: server_limits(),
        backlog_per_key_max: 0,
        ..proxy::ProxyLimits::default()
    }
}

async fn loopback() -> Result<Listening, HostError> {
    let address = HostPort { host: "127.0.0.1".to_owned(), port: Some(0) };
    Listening::open(&address, 0).await
}

fn host_port(address: &SocketAddr) -> HostPort {
    HostPort { host: address.ip().to_string(), port: Some(address.port()) }
}
