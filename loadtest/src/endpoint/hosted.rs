//! `pktfleet endpoint`: one endpoint that a group hosts. It serves the controller it is told of, or all
//! experiments that a broker tells it of.
//!
//! Not here: the parts themselves (`subscribe`, and [`Endpoint`] for one session).
//!
//! Invariant: a controller is served by one session at a time, and an experiment that was served is not
//! served again before its publication has ended: brokers tell of it again whenever somebody has to
//! reconnect. No experiment waits while one of lower priority runs, but for the time that this one takes to
//! end.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{ArgGroup, Args};
use engine::proto::tls::{self, Identity, PeerRule, SetupError};
use engine::proto::trust::{TrustMode, verify_chain};
use engine::wire::address::HostPort;
use engine::wire::channel::ChannelId;
use engine::wire::key::{PrivateKey, PublicKey};
use engine::wire::name_value::{self, Dialect};
use engine::wire::snikey::SniKey;
use engine::wire::time::Ticks;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::instrument::WithSubscriber;

use super::ledger::Ledger;
use super::subscribe::{Controller, Experiment, Interest, Subscriber};
use super::{End, Endpoint, EndpointError, Session, now};
use crate::credentials::{self, CredentialError, KeyOptions};
use crate::hosting::{self, HostError, LogOptions};
use crate::units::count;

/// Pause after a broker could not be reached or refused us. The original pauses after failed connects
/// only, and so asks a broker that refuses it some hundred times a second.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// A subscription that has ended is made again at once, but no more often than this.
const RESUBSCRIBE_INTERVAL: Duration = Duration::from_secs(1);
/// Endpoints of this process that subscribe at the same time; the others would only run into the time
/// limits.
static SUBSCRIBING: Semaphore = Semaphore::const_new(100);
/// Experiments that may wait for their turn; further ones are forgotten.
const WAITING_MAX: usize = 1000;

/// What `pktfleet endpoint` can be told.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true))]
pub(crate) struct Options {
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
pub(crate) struct ServingOptions {
    /// Public key that may have signed the broker's agent certificate; repeatable [default: any]
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_root: Vec<PathBuf>,
    /// Channel to subscribe to, in hexadecimal, or `key` for the private ones; repeatable
    /// [default: key]
    #[arg(long, value_name = "CHANNEL", value_parser = channel)]
    pub(crate) channel: Vec<Channel>,
    /// Experiments served at once; further ones wait for their turn, or take the place of one of lower
    /// priority
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub(crate) experiments_max: usize,
    /// Serve experiments whose chain demands monitor programs, without running them
    #[arg(long)]
    pub(crate) monitors_not_enforced: bool,
}

impl ServingOptions {
    /// The broker's roots; with a warning if every broker is believed.
    pub(crate) fn broker_roots(&self) -> Result<Vec<PublicKey>, CredentialError> {
        if self.broker_root.is_empty() {
            tracing::warn!(
                "any broker is believed; --broker-root allows only those of an operator"
            );
        }
        credentials::public_keys(&self.broker_root)
    }

    /// The channels to subscribe to; `None` stands for the private ones.
    pub(crate) fn channels(&self) -> Vec<Option<ChannelId>> {
        let channel = |channel: &Channel| match channel {
            Channel::Private => None,
            Channel::Named(id) => Some(*id),
        };
        match self.channel.as_slice() {
            [] => vec![None],
            channels => channels.iter().map(channel).collect(),
        }
    }
}

/// A channel as typed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Channel {
    Private,
    Named(ChannelId),
}

/// Attributes as they go into a subscription.
pub(crate) fn attributes(text: &str) -> Result<String, String> {
    name_value::check(Dialect::Attributes, text.as_bytes())
        .map(str::to_owned)
        .map_err(|error| error.to_string())
}

fn channel(text: &str) -> Result<Channel, String> {
    match text {
        "key" => Ok(Channel::Private),
        hex => ChannelId::from_hex(hex).map(Channel::Named).map_err(|error| error.to_string()),
    }
}

/// Serves until a signal, or until the one session has ended.
pub(crate) fn run(options: &Options) -> ExitCode {
    hosting::run_alone(&options.log, async || serve(options).await)
}

async fn serve(options: &Options) -> Result<(), HostError> {
    let key = options.key.read()?;
    let ledger = match &options.state {
        Some(directory) => Ledger::open(directory)
            .map_err(|error| HostError::Resource(io::Error::other(error.to_string())))?,
        None => Ledger::default(),
    };
    let ledger = SavedAtEnd(Arc::new(ledger));
    tokio::select! {
        served = serve_with(options, &key, &ledger.0) => served,
        () = ledger.0.keep_saved() => Ok(()),
    }
}

/// Writes the totals for the last time when the endpoint ends, by a signal, too.
struct SavedAtEnd(Arc<Ledger>);

impl Drop for SavedAtEnd {
    fn drop(&mut self) {
        if let Err(error) = self.0.save() {
            tracing::error!("{error}");
        }
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
        let end = endpoint.run_for(&controller, std::future::pending()).await.end;
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
pub(crate) async fn serve_subscribed(
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
        monitors_not_enforced: options.serving.monitors_not_enforced,
        ledger: Arc::clone(ledger),
        ran: Duration::ZERO,
        leave_at: None,
    })
}

/// The name by which the attributes tell the endpoint apart; mlets can read it.
pub(crate) fn host_id(attributes: &str) -> String {
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

/// The experiments that are served, wait, or were served.
struct Sessions {
    endpoint: Endpoint,
    running_max: usize,
    running: JoinSet<(Experiment, Served)>,
    /// How those that run are told to make room.
    places: HashMap<Controller, Place>,
    /// The descriptors of those that run or wait.
    known: HashSet<String>,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
    /// Descriptors that were served and whose publication has not ended.
    served: HashMap<String, Ticks>,
}

/// An experiment that waits for a place.
struct Waiting {
    experiment: Experiment,
    /// It wants none before: its mlet has yielded until then.
    not_before: Ticks,
    /// How long it has run already.
    ran: Duration,
}

impl Waiting {
    fn at_once(experiment: Experiment) -> Self {
        Self { experiment, not_before: Ticks(0), ran: Duration::ZERO }
    }
}

/// The place that a running experiment takes.
struct Place {
    priority: u64,
    /// True once it has to be given up.
    preempted: watch::Sender<bool>,
}

/// What became of an experiment.
enum Served {
    No(String),
    Yes,
    /// It made room for another one, or its mlet has yielded, and it may come again then.
    InPart {
        not_before: Ticks,
        ran: Duration,
    },
}

impl Sessions {
    fn new(endpoint: Endpoint, running_max: usize) -> Self {
        Self {
            endpoint,
            running_max,
            running: JoinSet::new(),
            places: HashMap::new(),
            known: HashSet::new(),
            waiting: Vec::new(),
            served: HashMap::new(),
        }
    }

    async fn serve(mut self, mut experiments: mpsc::Receiver<Experiment>) {
        loop {
            let later = self.next_time();
            tokio::select! {
                experiment = experiments.recv() => match experiment {
                    Some(experiment) => self.admit(experiment),
                    None => return,
                },
                Some(ended) = self.running.join_next() => {
                    if let Ok((experiment, served)) = ended {
                        self.finish(experiment, served);
                    }
                }
                () = sleep_until(later) => {}
            }
            while let Some(next) = self.next() {
                if self.running.len() == self.running_max {
                    self.make_room();
                    break;
                }
                let waiting = self.waiting.remove(next);
                self.start(waiting);
            }
        }
    }

    /// Those that want a place now, with where they are among those that wait. The next experiment of a
    /// controller may be told while we are still leaving its last one.
    fn wanting(&self) -> impl Iterator<Item = (usize, &Experiment)> {
        let now = now();
        let wanting = self.waiting.iter().enumerate().filter(move |(_, waiting)| {
            waiting.not_before <= now && !self.places.contains_key(&waiting.experiment.controller)
        });
        wanting.map(|(index, waiting)| (index, &waiting.experiment))
    }

    /// When the next of the others will.
    fn next_time(&self) -> Option<Ticks> {
        let now = now();
        self.waiting.iter().map(|waiting| waiting.not_before).filter(|time| *time > now).min()
    }

    /// Which of those that wait has its turn: the first of the highest priority.
    fn next(&self) -> Option<usize> {
        let by_turn =
            |(index, experiment): &(usize, &Experiment)| (experiment.priority, usize::MAX - index);
        self.wanting().max_by_key(by_turn).map(|(index, _)| index)
    }

    fn start(&mut self, Waiting { experiment, ran, .. }: Waiting) {
        let (preempted, asked) = watch::channel(false);
        let place = Place { priority: experiment.priority, preempted };
        self.places.insert(experiment.controller.clone(), place);
        let priority = Some(experiment.priority);
        let endpoint = Endpoint { priority, ran, ..self.endpoint.clone() };
        let serving = async move {
            let served = serve_experiment(endpoint, &experiment, asked).await;
            (experiment, served)
        };
        // A task of its own would log for every endpoint of a fleet.
        self.running.spawn(serving.with_current_subscriber());
    }

    /// Asks the least important experiments to leave, one for each more important one that waits.
    fn make_room(&self) {
        let (leaving, mut staying): (Vec<_>, Vec<_>) =
            self.places.iter().partition(|(_, place)| *place.preempted.borrow());
        staying.sort_by_key(|(_, place)| place.priority);
        let mut wanting: Vec<_> = self.wanting().map(|(_, experiment)| experiment).collect();
        wanting.sort_by_key(|experiment| Reverse(experiment.priority));
        // The places that are being given up are for the first of them.
        for (experiment, (controller, place)) in
            wanting.into_iter().skip(leaving.len()).zip(staying)
        {
            if place.priority >= experiment.priority {
                return;
            }
            tracing::info!("{controller} makes room for {}", experiment.controller);
            place.preempted.send_replace(true);
        }
    }

    fn admit(&mut self, experiment: Experiment) {
        let now = now();
        self.served.retain(|_, pub_end| now < *pub_end);
        let controller = &experiment.controller;
        if self.served.contains_key(&experiment.xdescr) {
            return tracing::info!("already served: the experiment of {controller}");
        }
        if self.waiting.len() >= WAITING_MAX {
            return tracing::warn!("too many experiments wait; forgotten: {}", experiment.xdescr);
        }
        if !self.known.insert(experiment.xdescr.clone()) {
            return tracing::debug!("already being served: the experiment of {controller}");
        }
        self.waiting.push(Waiting::at_once(experiment));
    }

    fn finish(&mut self, experiment: Experiment, served: Served) {
        let (controller, xdescr) = (experiment.controller.clone(), experiment.xdescr.clone());
        self.places.remove(&controller);
        match served {
            Served::Yes => {
                tracing::info!("the experiment of {controller} has been served");
                if let Some(pub_end) = experiment.pub_end {
                    self.served.insert(experiment.xdescr, pub_end);
                }
            }
            Served::InPart { not_before, ran } => {
                tracing::info!("the experiment of {controller} waits for its turn again");
                return self.waiting.push(Waiting { experiment, not_before, ran });
            }
            Served::No(reason) => {
                tracing::warn!("the experiment of {controller} was not served: {reason}");
            }
        }
        self.known.remove(&xdescr);
    }
}

/// One session, until `asked` to make room.
async fn serve_experiment(
    endpoint: Endpoint,
    experiment: &Experiment,
    mut asked: watch::Receiver<bool>,
) -> Served {
    let controller = &experiment.controller;
    tracing::info!("connecting back to {controller}: {}", experiment.xdescr);
    let preempted = preempted(&mut asked);
    let Session { started, ran, end, .. } = endpoint.run_for(controller, preempted).await;
    match end {
        Ok(End::Yielded { resume }) => {
            let pause = resume.saturating_duration_since(now());
            tracing::info!("{controller} wants us back in {:.3} s", pause.as_secs_f64());
            Served::InPart { not_before: resume, ran }
        }
        Ok(End::Preempted) => Served::InPart { not_before: Ticks(0), ran },
        _ if !started => Served::No(reason(end)),
        // A session that broke is over for the controller, too.
        Ok(_) => Served::Yes,
        Err(error) => {
            tracing::info!("session with {controller}: {error}");
            Served::Yes
        }
    }
}

/// For ever without a time.
async fn sleep_until(time: Option<Ticks>) {
    match time {
        Some(time) => sleep(time.saturating_duration_since(now())).await,
        None => std::future::pending().await,
    }
}

async fn preempted(asked: &mut watch::Receiver<bool>) {
    // Without anybody to ask everything ends.
    let _ = asked.wait_for(|asked| *asked).await;
}

fn reason(end: Result<End, EndpointError>) -> String {
    end.map_or_else(|error| error.to_string(), |end| end.to_string())
}

#[cfg(test)]
mod tests;
