//! What the engine needs to run one experiment campaign, already checked: a `Config` that exists can be run.
//!
//! Not here: the text of the config file and its errors (`cli`), and reading files.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::ops::{Index, IndexMut};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use packetlab::certificate::Certificate;
use packetlab::channel::ChannelId;
use packetlab::escape::Escaped;
use packetlab::key::{KeyId, PrivateKey, PublicKey};
use packetlab::name_value::Pair;
use packetlab::program::Programs;
use packetlab::snikey::SniKey;
use packetlab::trust::VerifiedChain;

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
    /// Publication to a broker; `None` if endpoints learn of the experiments in another way.
    pub publication: Option<Publication>,
    /// `-n`: end after this many sessions whose START succeeded; `None` is unlimited.
    pub attempts: Option<NonZeroU64>,
    /// `-s`: one mlet for all sessions instead of one each.
    pub singleton: bool,
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
    /// CPU numbers, one shard each; at least one.
    pub cores: Vec<usize>,
    /// What shards and control thread wait with.
    pub io: Io,
    /// Deadlines and sizes.
    pub limits: Limits,
}

/// What is recorded of a run, and where.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Names the run.
    pub run: RunId,
    /// `--events` and the results folder: where a record of each session goes, a line of JSON.
    pub events: Vec<Destination>,
    /// `--joblog`: where a line of each mlet goes.
    pub joblog: Option<Joblog>,
    /// `--out`: where the output of mlets goes.
    pub results: Option<Results>,
    /// Sessions are numbered from the one behind this: the highest that the results folder has already.
    pub sessions_before: u64,
}

/// Names a run in records and to mlets; unlike those of all other runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What lines are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// This file, behind what it holds; it is made if it is not there.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => Escaped(path.as_os_str().as_bytes()).fmt(f),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

/// A folder with the output of each session's mlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// The folder, which is there; absolute, since mlets are told of it.
    pub path: PathBuf,
    /// Which output stays.
    pub keep: Keep,
}

/// `--keep`: whose output stays in a results folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// That of every mlet.
    #[default]
    All,
    /// That of sessions that are not `ok`.
    Failed,
    /// None: what mlets write is thrown away.
    None,
}

/// A log in GNU parallel's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joblog {
    /// Its file.
    pub destination: Destination,
    /// Its column `Command`: the mlet and its arguments.
    pub command: String,
}

/// Which endpoints are measured, by their keys; all without a word about it.
#[derive(Debug, Clone, Default)]
pub struct EndpointChoice {
    /// `--only`: these and no others.
    pub only: Option<KeyPrefixes>,
    /// `--skip`: not these.
    pub skip: KeyPrefixes,
    /// `--once-per-endpoint` and `--resume`: none that has been measured with success, or is being measured.
    pub once: bool,
    /// Which have been, before the run.
    pub measured: Vec<KeyId>,
}

/// Keys, or how their ids begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPrefixes {
    /// Of each length, in hexadecimal digits, those there are.
    by_len: BTreeMap<usize, HashSet<String>>,
}

impl KeyPrefixes {
    /// One more: 1 to 64 hexadecimal digits. False if it is none.
    pub fn insert(&mut self, prefix: &str) -> bool {
        let is_prefix = (1..=64).contains(&prefix.len())
            && prefix.bytes().all(|digit| digit.is_ascii_hexdigit());
        if is_prefix {
            let of_len = self.by_len.entry(prefix.len()).or_default();
            of_len.insert(prefix.to_ascii_lowercase());
        }
        is_prefix
    }

    /// The key is among them.
    #[must_use]
    pub fn contain(&self, key: KeyId) -> bool {
        // What has no prefixes at all is asked of every endpoint.
        if self.by_len.is_empty() {
            return false;
        }
        let digits = key.to_string();
        let has = |(len, prefixes): (&usize, &HashSet<String>)| {
            digits.get(..*len).is_some_and(|prefix| prefixes.contains(prefix))
        };
        self.by_len.iter().any(has)
    }
}

/// What counts as a good run, and when a bad one ends early. Failed are sessions past START that are not `ok`, and set-ups
/// that failed after a verified certificate.
#[derive(Debug, Clone, Default)]
pub struct Judging {
    /// `--fail-on`: so many failed are too many.
    pub fail_on: Option<Share>,
    /// `--halt`: when the run ends before its time.
    pub halt: Option<Halt>,
    /// `--require`: so many have to be `ok`.
    pub require: Option<u64>,
    /// How many were `ok` in earlier runs whose results this one goes on with; they count for `require` and `--halt ok=N`.
    pub oks_before: u64,
}

/// A number of failed sessions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// So many, at least 1.
    Sessions(u64),
    /// So many in a hundred of those that ended `ok` or failed; more than 0.
    Percent(f64),
}

/// `--halt`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Halt {
    /// How it ends.
    pub how: HaltHow,
    /// Upon what.
    pub on: HaltOn,
}

/// How a run ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltHow {
    /// Running sessions are waited for, as after a first signal.
    Soon,
    /// They are ended, as after a second.
    Now,
}

/// Upon what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HaltOn {
    /// So many failed; percentages from 20 ended sessions on.
    Failed(Share),
    /// So many `ok`.
    Ok(u64),
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
    /// Endpoints come through connections that we keep registered at a proxy (spec/protocol.md 5.2).
    Proxy(Box<Proxy>),
}

/// The proxy and the backlog of connections registered there.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Set-up address, all that its name resolved to, in the resolver's order; at least one.
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

/// What is published, where and for how long (spec/protocol.md 5.4).
#[derive(Debug, Clone)]
pub struct Publication {
    /// The broker, all addresses of its name, in the resolver's order; at least one.
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

/// Every deadline, size and count that bounds the run (spec/reliability.md 5). All can be set on the
/// command line, none in the config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the end of the TLS handshake. Absolute, so that a trickle does not extend it.
    pub handshake_timeout: Duration,
    /// From the end of the handshake until all programs are answered, then from START to its RESULT, then to the start of
    /// the mlet. A permit is waited for twice as long. Absolute; far endpoints may be slow.
    pub setup_timeout: Duration,
    /// Longest time without progress while the rest of a session's bytes is delivered, and the longest that a mlet may go
    /// on writing whose endpoint has ended.
    pub drain_timeout: Duration,
    /// How long input is discarded after the last byte, so that a close does not reset the tail; how long a mlet whose
    /// endpoint has ended may be silent.
    pub linger_timeout: Duration,
    /// Pause in accepting after the process ran out of fds or memory.
    pub accept_pause: Duration,
    /// Of connecting to one address of the broker, of the handshake with it and of each answer.
    pub broker_timeout: Duration,
    /// Between the end of mlets' sessions and TERM when a run is ended by force: they read that end and write what they
    /// have gathered.
    pub eof_grace: Duration,
    /// Between TERM and KILL when a run, or a mlet, is ended by force.
    pub term_grace: Duration,
    /// How long a mlet may run. Then it gets TERM, with its process group, and KILL after `term_grace`; its session goes on
    /// until it has ended. `None` is no limit: only who writes a mlet knows how long it may take. Not for the one mlet of
    /// all sessions.
    pub mlet_timeout: Option<Duration>,
    /// How long a session may be relayed without a byte in either direction. Then it ends, and its mlet as at a forced
    /// end. `None` is no limit, since a measurement may be silent.
    pub idle_timeout: Option<Duration>,
    /// How long the run may last; then it is ended by force. `None` is no limit.
    pub deadline: Option<Duration>,
    /// How long the run may go on when no new endpoints are taken any more; then it is ended by force. `None` is no limit:
    /// what runs may finish.
    pub drain_limit: Option<Duration>,
    /// Sessions of one shard that may be in set-up at once; beyond it a few thousand wait accepted, and the
    /// kernel's queue behind them. A connection counts from its first byte.
    pub handshakes_max: usize,
    /// Sessions at once, of all shards together; 0 derives it from the limit of open files.
    pub sessions_max: usize,
    /// Sessions that one endpoint key may have at once, of all shards together; beyond it a session ends after the
    /// handshake. 0 is no limit; `None` is a quarter of all sessions, at least 16: one endpoint must not hold all there is
    /// room for, and those of a testbed may share a key. With 0 one key may also hold every place in set-up.
    pub sessions_per_key_max: Option<usize>,
    /// Sessions of one shard in set-up from one source address; beyond it a connection is closed at
    /// once. 0 is no limit.
    pub per_source_max: usize,
    /// Bytes of one LINFO that are logged; the rest is skipped and "truncated" noted.
    pub linfo_max: usize,
    /// LINFOs of one session that are logged in a second; those beyond are lost, and counted.
    pub linfos_per_second: u32,
    /// Bytes of log, escaped, that LINFOs of one session become in a second. Room for one as long as `linfo_max` of
    /// printable text; what is beyond is cut or lost. Escaping is the work of the shard that serves the session, and
    /// the log is written to a disk, or through a terminal.
    pub linfo_rate_max: usize,
    /// The same of all sessions together; those that log more than 1 KiB in a second may use half of it. A thousand
    /// endpoints that start in one second and log some lines each stay below it; it is 90 GB a day at worst.
    pub linfo_rate_total: usize,
}

/// The least that [`Limits::sessions_per_key_max`] is by default.
const SESSIONS_PER_KEY_MIN: usize = 16;

impl Limits {
    /// How many sessions one endpoint key may have where there is room for `sessions_max` in all; `None` is no limit.
    #[must_use]
    pub fn sessions_of_a_key(&self, sessions_max: usize) -> Option<usize> {
        match self.sessions_per_key_max {
            Some(0) => None,
            Some(max) => Some(max),
            None => Some((sessions_max / 4).max(SESSIONS_PER_KEY_MIN)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            setup_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(5),
            accept_pause: Duration::from_millis(100),
            broker_timeout: Duration::from_secs(10),
            eof_grace: Duration::from_millis(500),
            term_grace: Duration::from_secs(2),
            mlet_timeout: None,
            idle_timeout: None,
            deadline: None,
            drain_limit: None,
            handshakes_max: 1024,
            sessions_max: 0,
            sessions_per_key_max: None,
            per_source_max: 0,
            linfo_max: 64 * 1024,
            linfos_per_second: 100,
            linfo_rate_max: 128 * 1024,
            linfo_rate_total: 1024 * 1024,
        }
    }
}

/// Which of the experiments of a [`Config`]; to be had from a [`PerExperiment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExperimentId(usize);

#[cfg(test)]
impl ExperimentId {
    /// The experiment of this number, from 0.
    pub(crate) const fn nth(number: usize) -> Self {
        Self(number)
    }
}

/// A value for each experiment of a [`Config`], in their order.
#[derive(Debug, Clone)]
pub struct PerExperiment<T>(Vec<T>);

impl<T> PerExperiment<T> {
    /// The first experiment whose value `is_it`.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<ExperimentId> {
        self.0.iter().position(is_it).map(ExperimentId)
    }

    /// How many experiments there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// The values, to be changed, and whose they are.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ExperimentId, &mut T)> {
        self.0.iter_mut().enumerate().map(|(position, value)| (ExperimentId(position), value))
    }
}

impl<T> FromIterator<T> for PerExperiment<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> Index<ExperimentId> for PerExperiment<T> {
    type Output = T;

    fn index(&self, ExperimentId(position): ExperimentId) -> &T {
        &self.0[position]
    }
}

impl<T> IndexMut<ExperimentId> for PerExperiment<T> {
    fn index_mut(&mut self, ExperimentId(position): ExperimentId) -> &mut T {
        &mut self.0[position]
    }
}
