//! What the engine needs to run one experiment campaign, already checked: a `Config` that exists can be run.
//!
//! Not here: the text of the config file and its errors (`cli`), and reading files.

mod endpoint_choice;
mod judging;
mod limits;
mod per_experiment;
mod recording;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use packetlab::certificate::Certificate;
use packetlab::channel::ChannelId;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::name_value::Pair;
use packetlab::program::Programs;
use packetlab::snikey::SniKey;
use packetlab::trust::VerifiedChain;

pub use self::endpoint_choice::{EndpointChoice, KeyPrefixes};
pub use self::judging::{Halt, HaltHow, HaltOn, Judging, Share};
pub use self::limits::Limits;
pub use self::per_experiment::{ExperimentId, PerExperiment};
pub use self::recording::{Destination, Joblog, Keep, Layout, Recording, Results, RunId};

/// One campaign: who we are, which experiments we serve and within which limits.
#[derive(Debug)]
pub struct Config {
    /// The controller key; every chain's first certificate belongs to it.
    pub controller_key: Arc<PrivateKey>,
    /// `ExpExec` entries in file order; at least one, snikeys distinct, at most one default.
    pub experiments: Vec<Experiment>,
    /// Programs of `ProgramDirPath`, by digest.
    pub programs: Arc<Programs>,
    /// How endpoints reach us.
    pub approach: Approach,
    /// Publication, of each broker one; they are alike in all but the broker. None if endpoints learn of the
    /// experiments in another way.
    pub publications: Vec<Publication>,
    /// `-n`: end after this many sessions whose START succeeded; `None` is unlimited.
    pub attempts: Option<NonZeroU64>,
    /// `-s`: one mlet for all sessions instead of one each, and what it is told of them.
    pub singleton: Option<SingletonForm>,
    /// What is recorded of the run, and where.
    pub recording: Recording,
    /// Which endpoints are measured.
    pub choice: EndpointChoice,
    /// What counts as a good run, and when a bad one ends early.
    pub judging: Judging,
    /// `--latency-sample`: of so many receives of relayed sessions one is timed; `None` times nothing.
    pub latency_sample: Option<NonZeroU32>,
    /// `--latency`: the file that the times of the relay are appended to, as HdrHistogram's interval log.
    pub latency_log: Option<PathBuf>,
    /// Whose messages are shown, and where; `None` if nobody's are.
    pub messages: Option<Messages>,
    /// CPU numbers, one shard each; at least one.
    pub cores: Vec<usize>,
    /// `--spin`: how long a shard looks for completions again and again before it sleeps until there is one.
    pub spin: Duration,
    /// `--mlet-io`: what mlets are offered; one for all sessions always has sockets.
    pub mlet_io: MletIo,
    /// What shards and control thread wait with.
    pub io: Io,
    /// Files that this process may have open at once beside those of the run.
    pub other_files: usize,
    /// Deadlines and sizes.
    pub limits: Limits,
}

/// What the one mlet of all sessions is told of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SingletonForm {
    /// The peer's address, as by the original.
    Address,
    /// `--single-facts`: also the session's number, the endpoint's key and the snikey.
    Facts,
}

/// Whose messages are shown, and where: at least at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    /// Whose.
    pub of: Traced,
    /// `--trace`: in the log.
    pub are_logged: bool,
    /// `--capture`: in this folder, a file for each session.
    pub capture: Option<PathBuf>,
    /// `--pcap`: in this file.
    pub pcap: Option<PathBuf>,
}

/// Whose messages are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traced {
    /// Those of every session.
    All,
    /// Those of the session with this number.
    Session(u64),
}

/// What is waited with, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Io {
    /// io_uring; epoll, with a warning, where it is barred.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// What a mlet's session goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MletIo {
    /// Its socket.
    #[default]
    Socket,
    /// Its socket, and two pipes beside it for mlets that know them.
    Pipe,
}

/// One `ExpExec` entry.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Line of the config file, for messages.
    pub line: usize,
    /// Serves endpoints that send no SNI.
    pub is_default: bool,
    /// Server name by which endpoints choose this entry.
    pub snikey: SniKey,
    /// Chain as presented in TLS: the controller key's certificate first, the rest in configured
    /// order (spec/protocol.md 4.8).
    pub chain: Vec<Certificate>,
    /// Trusted endpoint operator keys; empty means endpoints may be anonymous (spec/protocol.md 3.5).
    pub trusted_operators: Vec<PublicKey>,
    /// Our own chain as verified at start, leaf first; `None` without trusted operators (spec/protocol.md 4.8).
    pub verified: Option<VerifiedChain>,
    /// Publication channels in configured order; `None` stands for the key channel (spec/protocol.md 5.4).
    pub channels: Vec<Option<ChannelId>>,
    /// `OVERRIDE_XDESCRNVP`, in configured order (spec/protocol.md 1.8).
    pub overrides: Vec<Pair>,
}

/// How endpoints reach us.
#[derive(Debug, Clone)]
pub enum Approach {
    /// Endpoints connect to our own listening sockets (spec/protocol.md 5.1).
    Passive {
        /// Where to listen; every shard listens on each. At least one; an IPv6 wildcard beside an
        /// IPv4 wildcard asks for `IPV6_V6ONLY`.
        listen: Vec<SocketAddr>,
    },
    /// Endpoints come through connections that we keep registered at these proxies (spec/protocol.md 5.2), which are
    /// alike in all but where they are. At least one.
    Proxies(Vec<Proxy>),
}

/// A proxy and the backlog of connections registered there.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Set-up address, all that its name resolved to, in the resolver's order. None if its name cannot be found, which is
    /// no reason not to run where there are other proxies.
    pub addresses: Vec<SocketAddr>,
    /// Its name, for messages.
    pub name: String,
    /// Agent certificate of the controller key; `None`: no client certificate is shown.
    pub certificate: Option<Certificate>,
    /// Keys that may have signed the proxy's certificate; empty: its signature is not checked.
    pub proxy_roots: Vec<PublicKey>,
    /// `TargetBacklogConn`: connections to keep registered for each snikey; at least 1.
    pub backlog_target: usize,
    /// `BacklogConnTimeout`: limit of each step of setting one up.
    pub step_timeout: Duration,
    /// `BootstrapBacklogTimeout`: limit of filling the backlog at start.
    pub bootstrap_timeout: Duration,
}

/// What is published at a broker, and for how long (spec/protocol.md 5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The broker, all addresses of its name, in the resolver's order. None if its name cannot be found, which is no
    /// reason not to run where there are other brokers.
    pub broker: Vec<SocketAddr>,
    /// Its name, for messages.
    pub broker_name: String,
    /// Agent certificate of the controller key.
    pub certificate: Certificate,
    /// Keys that may have signed the broker's certificate; empty: its signature is not checked.
    pub broker_roots: Vec<PublicKey>,
    /// Default of the pair `controller_addr`.
    pub controller_addr: ControllerAddr,
    /// `PubPeriod`: from now to `pub_end`; `None` is no end.
    pub period: Option<Duration>,
    /// `GreetPeriodAfterPubEnd`: from the latest `pub_end` to the end of greeting.
    pub greet_after: Duration,
    /// Who is called.
    pub called: Called,
    /// The descriptors that are published instead of those that all this makes, one for each experiment in configured order;
    /// and when they are is said by whoever hands out permits. `None` where the run is nobody else's matter.
    pub texts: Option<Vec<String>>,
}

/// Whom descriptors call, where an experiment does not override it (spec/protocol.md 1.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Called {
    /// Default of the pair `exp_priority`.
    pub priority: Option<u64>,
    /// Defaults of the pairs `endpoint_country`, in configured order.
    pub countries: Vec<String>,
    /// Defaults of the pairs `endpoint_location`, in configured order.
    pub locations: Vec<String>,
    /// `-i`: default of the pair `hostid`.
    pub hostid: Option<String>,
}

/// Where endpoints are told to connect to (spec/protocol.md 1.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControllerAddr {
    /// This text; a descriptor can carry it.
    Text(String),
    /// This host, without brackets, and the port that is bound where any free one was asked for.
    BoundPort(String),
    /// Our own IP address as the connection to the broker shows it, without a port.
    BrokerSide,
}
