//! `pktfleet endpoint`: one endpoint that a group hosts. It serves the controller it is told of, or all
//! experiments that a broker tells it of.
//!
//! Not here: the parts themselves (`subscribe`, `sessions`, and [`Endpoint`] for one session).
//!
//! Invariant: all that is opened here belongs to one future and ends with it.

use std::future::ready;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::{ArgGroup, Args};
use command_line::units::count;
use packetlab::address::HostPort;
use packetlab::channel::ChannelId;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::name_value::{self, Dialect};
use packetlab::snikey::SniKey;
use packetlab::tls::{self, Identity, PeerRule, SetupError};
use packetlab::trust::{TrustMode, verify_chain};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};

use super::ledger::{Ledger, StateError};
use super::sessions::Sessions;
use super::subscribe::{Controller, Experiment, Interest, Subscriber};
use super::{Endpoint, MonitorOptions};
use crate::clock::now;
use crate::credentials::{self, CredentialError, KeyOptions};
use crate::hosting::{self, HostError, LogOptions};

/// Pause after a broker could not be reached or refused us. The original pauses after failed connects
/// only, and so asks a broker that refuses it some hundred times a second.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// A subscription that has ended is made again at once, but no more often than this.
const RESUBSCRIBE_INTERVAL: Duration = Duration::from_secs(1);
/// Endpoints of this process that subscribe at the same time; the others would only run into the time
/// limits.
static SUBSCRIBING: Semaphore = Semaphore::const_new(100);

const EXAMPLES: &str = "\
Examples:
  pktfleet endpoint --subscribe broker.example --key k_ep --agent a --operator o
  pktfleet endpoint --controller lab.example --key k_ep --operator eop.pub";

/// What `pktfleet endpoint` can be told.
#[derive(Debug, Args)]
#[command(
    before_help = EXAMPLES,
    group = ArgGroup::new("source").required(true),
    // clap's own is one line of 120 columns.
    override_usage = "pktfleet endpoint [OPTIONS] --key <FILE> --operator <FILE>
         <--subscribe <HOST[:PORT]>|--controller <HOST[:PORT]>>"
)]
pub struct Options {
    /// Serve the experiments that this broker tells of, until a signal [default port: 20557]
    #[arg(long, value_name = "HOST[:PORT]", group = "source", requires = "agent")]
    subscribe: Option<HostPort>,
    /// Serve one session of this controller, or through this proxy [default port: 20556]
    #[arg(long, value_name = "HOST[:PORT]", group = "source")]
    controller: Option<HostPort>,
    /// Server name to ask the controller for [default: none]
    #[arg(long, value_name = "SNIKEY", requires = "controller", value_parser = SniKey::parse)]
    snikey: Option<SniKey>,
    #[command(flatten)]
    key: KeyOptions,
    /// Certificate by which the endpoint represents its operator; repeatable: subcmd, then delpriv
    /// upwards
    #[arg(long, value_name = "FILE")]
    subcmd: Vec<PathBuf>,
    /// Public key of an endpoint operator whose experiments are served; repeatable
    #[arg(long, value_name = "FILE", required = true)]
    operator: Vec<PathBuf>,
    /// Agent certificate of the key, for the broker
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// What the endpoint is, such as `hostid=EP1;endpoint_country=DEU;`
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = attributes)]
    attributes: String,
    /// Own address, from which everything is done [default: as the system chooses]
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), hide_default_value = true)]
    address: IpAddr,
    /// Keep what controllers' certificates have used up in this directory, or it is forgotten when the endpoint
    /// ends; it is made if there is none
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    serving: ServingOptions,
    #[command(flatten)]
    log: LogOptions,
}

/// Where experiments are heard of, and which are served.
#[derive(Debug, Args)]
pub struct ServingOptions {
    /// Public key that may have signed the broker's agent certificate; repeatable [default: any]
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_root: Vec<PathBuf>,
    /// Channel to subscribe to, in hexadecimal, or `key` for the private ones; repeatable
    /// [default: key]
    #[arg(long, value_name = "CHANNEL", value_parser = channel)]
    pub(crate) channel: Vec<ChannelWord>,
    /// Experiments served at once; further ones wait for their turn, or take the place of one of lower
    /// priority
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub experiments_max: usize,
    /// What is done with monitor programs
    #[command(flatten)]
    pub monitors: MonitorOptions,
}

impl ServingOptions {
    /// The broker's roots; with a warning if every broker is believed.
    pub fn broker_roots(&self) -> Result<Vec<PublicKey>, CredentialError> {
        if self.broker_root.is_empty() {
            tracing::warn!(
                "any broker is believed; --broker-root allows only those of an operator"
            );
        }
        credentials::public_keys(&self.broker_root)
    }

    /// The channels to subscribe to; `None` stands for the private ones.
    pub fn channels(&self) -> Vec<Option<ChannelId>> {
        let channel = |channel: &ChannelWord| match channel {
            ChannelWord::Private => None,
            ChannelWord::Named(id) => Some(*id),
        };
        match self.channel.as_slice() {
            [] => vec![None],
            channels => channels.iter().map(channel).collect(),
        }
    }
}

/// A channel as typed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ChannelWord {
    Private,
    Named(ChannelId),
}

/// Attributes as they go into a subscription.
pub fn attributes(text: &str) -> Result<String, String> {
    name_value::check(Dialect::Attributes, text.as_bytes())
        .map(str::to_owned)
        .map_err(|error| error.to_string())
}

fn channel(text: &str) -> Result<ChannelWord, String> {
    match text {
        "key" => Ok(ChannelWord::Private),
        hex => ChannelId::from_hex(hex).map(ChannelWord::Named).map_err(|error| error.to_string()),
    }
}

/// Serves until a signal, or until the one session has ended.
pub fn run(options: &Options) -> ExitCode {
    let ledger = OnceLock::new();
    // Also when a signal has ended it, the totals are written for the last time.
    let save = || ledger.get().map_or(Ok(()), |ledger: &Arc<Ledger>| ledger.save());
    hosting::run_alone(
        &options.log,
        async |_| serve(options, &ledger).await,
        || save().map_err(unusable),
    )
}

fn unusable(error: StateError) -> HostError {
    HostError::Resource(io::Error::other(error.to_string()))
}

async fn serve(options: &Options, kept: &OnceLock<Arc<Ledger>>) -> Result<(), HostError> {
    let key = options.key.read()?;
    let ledger = match &options.state {
        Some(directory) => Ledger::open(directory).map_err(unusable)?,
        None => Ledger::default(),
    };
    let ledger = kept.get_or_init(|| Arc::new(ledger));
    tokio::select! {
        served = serve_with(options, &key, ledger) => served,
        () = ledger.keep_saved() => Ok(()),
    }
}

async fn serve_with(
    options: &Options,
    key: &PrivateKey,
    ledger: &Arc<Ledger>,
) -> Result<(), HostError> {
    let endpoint = endpoint(options, key, ledger)?;
    if let Some(address) = &options.controller {
        let controller = Controller { address: address.clone(), snikey: options.snikey.clone() };
        tracing::info!("connecting to the controller {controller}");
        let end = endpoint.run_for(&controller, std::future::pending(), ready(true)).await.end;
        return end
            .map(|end| tracing::info!("{end}"))
            .map_err(|error| HostError::Session(error.to_string()));
    }
    let subscriber = subscriber(options, key)?;
    let count = options.serving.experiments_max;
    serve_subscribed(endpoint, subscriber, count, &AtomicUsize::new(0)).await;
    Ok(())
}

/// Serves the experiments that a broker tells of, for ever. `subscribed` is one more while there is a
/// subscription.
pub async fn serve_subscribed(
    endpoint: Endpoint,
    subscriber: Subscriber,
    experiments_max: usize,
    subscribed: &AtomicUsize,
) {
    let (sender, experiments) = mpsc::channel(1);
    tokio::join!(
        keep_subscribed(subscriber, sender, subscribed),
        Sessions::new(endpoint, experiments_max).serve(experiments),
    );
}

/// The endpoint before it knows of any controller.
fn endpoint(
    options: &Options,
    key: &PrivateKey,
    ledger: &Arc<Ledger>,
) -> Result<Endpoint, HostError> {
    let chain = credentials::certificates(&options.subcmd)?;
    let operators = credentials::public_keys(&options.operator)?;
    let identity = options.subcmd.first().map(|path| (path, Identity { chain: &chain, key }));
    let rule = PeerRule {
        mode: TrustMode::EndpointAuthenticatesController,
        anchors: operators.clone(),
        mandatory: true,
    };
    let usage = |cause: SetupError| HostError::Usage(cause.to_string());
    let tls = match &identity {
        Some((path, identity)) => {
            let tls = tls::client_config(Some(identity), rule)
                .map_err(|cause| CredentialError::unusable(path, cause))?;
            // What every controller and broker would find.
            let mode = TrustMode::ControllerAuthenticatesEndpoint;
            verify_chain(&chain, &operators, mode, now())
                .map_err(|cause| CredentialError::untrusted(path, cause))?;
            tls
        }
        None => tls::client_config(None, rule).map_err(usage)?,
    };
    let server_name = tls::server_name(None).map_err(usage)?;
    Ok(Endpoint {
        address: options.address,
        host_id: host_id(&options.attributes),
        controllers: Vec::new(),
        server_name,
        tls,
        operators,
        priority: None,
        monitors: options.serving.monitors.rule(),
        own_monitors: options.serving.monitors.own()?,
        ledger: Arc::clone(ledger),
        ran: Duration::ZERO,
        leave_at: None,
    })
}

/// The name by which the attributes tell the endpoint apart; mlets can read it.
pub fn host_id(attributes: &str) -> String {
    let pairs = name_value::parse(Dialect::Attributes, attributes.as_bytes()).unwrap_or_default();
    let host_id = pairs.into_iter().find(|pair| pair.name == "hostid");
    host_id.map(|pair| pair.value).unwrap_or_default()
}

fn subscriber(options: &Options, key: &PrivateKey) -> Result<Subscriber, HostError> {
    // clap has seen to it that both are there.
    let (Some(broker), Some(agent)) = (&options.subscribe, &options.agent) else {
        return Err(HostError::Usage("--subscribe needs --agent".to_owned()));
    };
    let chain = [credentials::certificate(agent)?];
    let rule = PeerRule {
        mode: TrustMode::Agent,
        anchors: options.serving.broker_roots()?,
        mandatory: true,
    };
    let tls = tls::client_config(Some(&Identity { chain: &chain, key }), rule)
        .map_err(|cause| CredentialError::unusable(agent, cause))?;
    let interest = Interest {
        certificates: &credentials::certificates(&options.subcmd)?,
        operators: &credentials::public_keys(&options.operator)?,
        channels: &options.serving.channels(),
        attributes: &options.attributes,
    };
    Subscriber::new(broker.clone(), options.address, tls, &interest)
        .map_err(|error| HostError::Usage(error.to_string()))
}

/// Subscribes, and again whenever that has ended; passes on every experiment.
async fn keep_subscribed(
    subscriber: Subscriber,
    experiments: mpsc::Sender<Experiment>,
    subscribed: &AtomicUsize,
) {
    let broker = &subscriber.broker;
    loop {
        let started = Instant::now();
        let opened = {
            // The semaphore is never closed.
            let _turn = SUBSCRIBING.acquire().await;
            subscriber.open().await
        };
        let pause = match opened {
            Err(error) => {
                tracing::warn!("broker {broker}: {error}; next try in {} s", RETRY_PAUSE.as_secs());
                RETRY_PAUSE
            }
            Ok(mut subscription) => {
                tracing::info!("subscribed at the broker {broker}");
                subscribed.fetch_add(1, Ordering::Relaxed);
                let error = loop {
                    match subscription.next().await {
                        Ok(experiment) => {
                            if experiments.send(experiment).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => break error,
                    }
                };
                subscribed.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!("broker {broker}: {error}; subscribing again");
                RESUBSCRIBE_INTERVAL.saturating_sub(started.elapsed())
            }
        };
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
