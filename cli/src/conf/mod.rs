//! The config file: text in, settings out, every mistake with its place (spec/pktxpmgr.md 2).
//!
//! Stays within the one file: paths are looked up but nothing they name is read, and no name is
//! resolved (`load` does both). The invariant: where nothing is complained of, the settings have every key that their
//! mode needs.

mod exp_exec;
mod text;
mod value;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use packetlab::address::HostPort;
use packetlab::escape::Escaped;
use packetlab::{foreign, pem};

pub(crate) use exp_exec::{ExperimentSettings, Override};
pub(crate) use text::{Complaint, Located, Place, Source};
use text::{KeyValue, Value, entries, keep};
pub(crate) use value::{is_country, pattern_flaw};

/// What the file says, as far as it can be read.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `EnableExpPublication 1` and what belongs to it.
    pub(crate) publication: Option<PublicationSettings>,
    /// `EnableProxyMode 1` and what belongs to it.
    pub(crate) proxy: Option<ProxySettings>,
    /// `ControllerPrivkeyPath`; `None` was complained of.
    pub(crate) controller_key: Option<Located<PathBuf>>,
    /// `ExpExec` lines in file order; at least one, at most one of them default, snikeys distinct, or that was complained
    /// of.
    pub(crate) experiments: Vec<ExperimentSettings>,
    /// `ProgramDirPath`.
    pub(crate) program_directory: Option<Located<PathBuf>>,
}

/// How the experiments are published.
#[derive(Debug)]
pub(crate) struct PublicationSettings {
    /// `BrokerAddr`; `None` was complained of.
    pub(crate) brokers: Option<Vec<Located<HostPort>>>,
    /// `PubAgentCertPath`; `None` was complained of.
    pub(crate) agent_certificate: Option<Located<PathBuf>>,
    /// `BrokerCertRootPath`; empty: the signature of the broker's certificate is not checked.
    pub(crate) broker_roots: Vec<Located<PathBuf>>,
    /// `PubControllerAddr`, as written and as read.
    pub(crate) controller_addr: Option<(String, Located<HostPort>)>,
    /// `PubPeriod`; `None` is no end.
    pub(crate) period: Option<Duration>,
    /// `GreetPeriodAfterPubEnd`.
    pub(crate) greet_after: Duration,
    /// `PubExpPriority`.
    pub(crate) priority: Option<u64>,
    /// `PubCountry`.
    pub(crate) countries: Vec<String>,
    /// `PubLocation`.
    pub(crate) locations: Vec<String>,
}

/// How endpoints are served through a proxy.
#[derive(Debug)]
pub(crate) struct ProxySettings {
    /// `BacklogConnAgentCertPath`; `None`: no client certificate is shown.
    pub(crate) agent_certificate: Option<Located<PathBuf>>,
    /// `ProxyCertRootPath`; empty: the signature of the proxy's certificate is not checked.
    pub(crate) proxy_roots: Vec<Located<PathBuf>>,
    /// `TargetBacklogConn`: registered connections per snikey.
    pub(crate) backlog_target: usize,
    /// `BacklogConnTimeout`, for each step of setting one up.
    pub(crate) step_timeout: Duration,
    /// `BootstrapBacklogTimeout`.
    pub(crate) bootstrap_timeout: Duration,
}

/// What reading gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What is odd but does no harm, in file order.
    pub(crate) warnings: Vec<Complaint>,
    /// Everything that is wrong, in file order.
    pub(crate) errors: Vec<Complaint>,
    /// What can be read nevertheless; nothing of what is no config file.
    pub(crate) settings: Option<Settings>,
}

/// Reads a config file.
pub(crate) fn read(source: &Source) -> Outcome {
    read_where(source, true)
}

/// The same where the files that it names need not be there.
pub(crate) fn read_alone(source: &Source) -> Outcome {
    read_where(source, false)
}

fn read_where(source: &Source, files_exist: bool) -> Outcome {
    let mut warnings = Vec::new();
    let mut entries = entries(source, &mut warnings);
    entries.iter_mut().for_each(|entry| entry.value.must_exist = files_exist);
    if let Some(complaint) = credential(source) {
        return Outcome { warnings, errors: vec![complaint], settings: None };
    }
    let mut reader = Reader { entries, warnings, errors: Vec::new() };
    reader.warn_of_unknown_keys();
    let settings = reader.settings();
    let Reader { mut warnings, mut errors, .. } = reader;
    let line = |complaint: &Complaint| complaint.place.map_or(usize::MAX, |place| place.line);
    warnings.sort_by_key(line);
    errors.sort_by_key(line);
    Outcome { warnings, errors, settings: Some(settings) }
}

/// The complaint about a key or certificate that was named as config file.
fn credential(source: &Source) -> Option<Complaint> {
    let found = match (foreign::recognise(&source.text), pem::sections(&source.text).first()) {
        (Some(foreign), _) => format!("it is {}", foreign.what()),
        (None, Some(section)) => {
            format!("it holds a PEM section `{}`", Escaped(section.label.as_bytes()).cut(60))
        }
        (None, None) => return None,
    };
    let problem = format!("this is no config file: {found}");
    Some(Complaint { place: None, problem, advice: "name the config file with -c".into() })
}

const KEYS: [&str; 19] = [
    "EnableExpPublication",
    "BrokerAddr",
    "PubAgentCertPath",
    "BrokerCertRootPath",
    "PubControllerAddr",
    "PubPeriod",
    "PubExpPriority",
    "PubCountry",
    "PubLocation",
    "GreetPeriodAfterPubEnd",
    "ControllerPrivkeyPath",
    "ExpExec",
    "ProgramDirPath",
    "EnableProxyMode",
    "BacklogConnAgentCertPath",
    "ProxyCertRootPath",
    "TargetBacklogConn",
    "BacklogConnTimeout",
    "BootstrapBacklogTimeout",
];

/// Collects complaints while the keys are read one by one, so that all are told at once.
struct Reader<'a> {
    entries: Vec<KeyValue<'a>>,
    warnings: Vec<Complaint>,
    errors: Vec<Complaint>,
}

impl<'a> Reader<'a> {
    fn settings(&mut self) -> Settings {
        let publishes = self.switch("EnableExpPublication");
        if self.values("EnableExpPublication").is_empty() {
            self.missing("EnableExpPublication", "1 publishes to a broker, 0 does not");
        }
        let publishes = publishes == Some(true);
        let publication = self.publication(publishes);
        let uses_proxy = self.switch("EnableProxyMode") == Some(true);
        let proxy = self.proxy();
        let controller_key = self.scalar("ControllerPrivkeyPath", value::file);
        let controller_key = self.required(
            "ControllerPrivkeyPath",
            controller_key,
            "name the PEM file of the controller key",
        );
        let program_directory = self.scalar("ProgramDirPath", value::directory);
        let experiments = self.experiments(publishes);
        Settings {
            publication: publishes.then_some(publication),
            proxy: uses_proxy.then_some(proxy),
            controller_key,
            experiments,
            program_directory,
        }
    }

    /// Read also when nothing is published, as [`Self::proxy`] is.
    fn publication(&mut self, enabled: bool) -> PublicationSettings {
        let brokers = self.address("BrokerAddr", value::addresses, enabled);
        let agent_certificate = self.scalar("PubAgentCertPath", value::file);
        let broker_roots = self.scalar("BrokerCertRootPath", value::files).unwrap_or_default();
        let controller_addr = self.address("PubControllerAddr", value::address, enabled);
        let controller_text =
            self.last_value("PubControllerAddr").and_then(|value| value.text().ok());
        let controller_addr = controller_addr.zip(controller_text);
        let period = self.time("PubPeriod", Duration::from_secs(1));
        let priority = self.scalar("PubExpPriority", value::number);
        let countries = self.scalar("PubCountry", value::countries).unwrap_or_default();
        let locations = self.scalar("PubLocation", value::locations).unwrap_or_default();
        let greet_after =
            self.time("GreetPeriodAfterPubEnd", Duration::from_secs(1)).unwrap_or_default();
        let (mut brokers, mut agent_certificate) = (brokers, agent_certificate);
        if enabled {
            brokers = self.required(
                "BrokerAddr",
                brokers,
                "EnableExpPublication 1 needs the broker's host[:port]",
            );
            agent_certificate = self.required(
                "PubAgentCertPath",
                agent_certificate,
                "EnableExpPublication 1 needs an agent certificate for the controller key",
            );
        }
        PublicationSettings {
            brokers,
            agent_certificate,
            broker_roots,
            controller_addr: controller_addr.map(|(name, text)| (text.to_owned(), name)),
            period,
            greet_after,
            priority,
            countries,
            locations,
        }
    }

    /// Read also when the mode is off, since a wrong value is an error either way (spec/pktxpmgr.md 2.3).
    fn proxy(&mut self) -> ProxySettings {
        const STEP_TIMEOUT: Duration = Duration::from_secs(2);
        const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(5);
        const BACKLOG_TARGET: usize = 2;
        const LEAST: Duration = Duration::from_millis(1);
        ProxySettings {
            agent_certificate: self.scalar("BacklogConnAgentCertPath", value::file),
            proxy_roots: self.scalar("ProxyCertRootPath", value::files).unwrap_or_default(),
            backlog_target: self
                .scalar("TargetBacklogConn", backlog_target)
                .unwrap_or(BACKLOG_TARGET),
            step_timeout: self.time("BacklogConnTimeout", LEAST).unwrap_or(STEP_TIMEOUT),
            bootstrap_timeout: self
                .time("BootstrapBacklogTimeout", LEAST)
                .unwrap_or(BOOTSTRAP_TIMEOUT),
        }
    }

    fn experiments(&mut self, publishes: bool) -> Vec<ExperimentSettings> {
        let mut experiments = Vec::new();
        let lines = self.values("ExpExec");
        for line in lines.iter().filter(|line| !line.bytes.is_empty()) {
            experiments.extend(exp_exec::exp_exec(*line, &mut self.errors));
        }
        if lines.iter().all(|line| line.bytes.is_empty()) {
            self.missing("ExpExec", "at least one experiment is needed");
        }
        self.check_across(&experiments);
        if publishes {
            let pairs = experiments.iter().flat_map(|experiment| &experiment.overrides);
            self.warnings.extend(pairs.filter_map(Override::pattern_complaint));
        }
        let complaints = experiments.iter_mut().flat_map(|experiment| &mut experiment.overrides);
        let complaints = complaints.filter_map(|pair| pair.complaint.take());
        if publishes {
            self.errors.extend(complaints)
        } else {
            self.warnings.extend(complaints)
        }
        experiments
    }

    /// At most one default, and no server name twice: it could not be told which entry is meant.
    fn check_across(&mut self, experiments: &[ExperimentSettings]) {
        let defaults: Vec<_> = experiments.iter().filter(|entry| entry.is_default.value).collect();
        if let [first, rest @ ..] = &defaults[..] {
            let line = first.is_default.place.line;
            self.errors.extend(rest.iter().map(|entry| {
                let problem = format!("line {line} is the default ExpExec already");
                entry.is_default.complain(problem, "write 1 into one of them and 0 into the others")
            }));
        }
        let named: Vec<_> = experiments.iter().filter_map(|entry| entry.snikey.as_ref()).collect();
        for (index, key) in named.iter().enumerate() {
            if let Some(earlier) = named[..index].iter().find(|earlier| earlier.value == key.value)
            {
                let problem = format!("line {} has the same SNIKEY", earlier.place.line);
                self.errors.push(key.complain(problem, "give each ExpExec a SNIKEY of its own"));
            }
        }
    }

    /// A key of which the last non-empty line counts and earlier ones are not even looked at.
    fn scalar<T, E: Into<Vec<Complaint>>>(
        &mut self,
        key: &str,
        read: fn(Value<'a>) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.last_value(key)?;
        keep(&mut self.errors, read(value))
    }

    /// A time. A number without a unit counts nanoseconds, which whoever writes fewer than `least` of
    /// them has not thought of.
    fn time(&mut self, key: &str, least: Duration) -> Option<Duration> {
        let time = self.scalar(key, value::time)?;
        let value = self.last_value(key)?;
        if value::number(value).is_ok() && !time.is_zero() && time < least {
            self.warnings.push(value.complain(
                format!("{key} of {value} nanoseconds is surely a mistake"),
                "a number without a unit counts nanoseconds; write a unit, as in 10s, 10m, 10h or 10d",
            ));
        }
        Some(time)
    }

    /// A 0/1 key: the last line counts, and must not be empty.
    fn switch(&mut self, key: &str) -> Option<bool> {
        let value = *self.values(key).last()?;
        keep(&mut self.errors, value::switch(value))
    }

    /// An address, or some. Where they are not going to be used a bad one only earns a warning.
    fn address<T, E: Into<Vec<Complaint>>>(
        &mut self,
        key: &str,
        read: fn(Value<'a>) -> Result<T, E>,
        used: bool,
    ) -> Option<T> {
        let read = read(self.last_value(key)?).map_err(|complaints| {
            let mut complaints = complaints.into();
            for complaint in complaints.iter_mut().filter(|_| !used) {
                complaint.problem.push_str(" (harmless: nothing is published)");
            }
            complaints
        });
        keep(if used { &mut self.errors } else { &mut self.warnings }, read)
    }

    /// Complains about a key that no line gives a value; a wrong value has been complained about.
    fn required<T>(&mut self, key: &str, found: Option<T>, why: &str) -> Option<T> {
        if found.is_none() && self.values(key).iter().all(|value| value.bytes.is_empty()) {
            self.missing(key, why);
        }
        found
    }

    fn missing(&mut self, key: &str, why: &str) {
        self.errors.push(Complaint {
            place: None,
            problem: format!("{key} is missing"),
            advice: format!("add a line '{key} ...': {why}"),
        });
    }

    fn values(&self, key: &str) -> Vec<Value<'a>> {
        let named = self.entries.iter().filter(|entry| entry.key.bytes == key.as_bytes());
        named.map(|entry| entry.value).collect()
    }

    fn last_value(&self, key: &str) -> Option<Value<'a>> {
        self.values(key).into_iter().rfind(|value| !value.bytes.is_empty())
    }

    /// Repeats no value, and no key either where none is known: what stands there may be secret, or the file another
    /// than was meant.
    fn warn_of_unknown_keys(&mut self) {
        let unknown =
            |entry: &&KeyValue<'_>| !KEYS.iter().any(|key| key.as_bytes() == entry.key.bytes);
        let is_config = !self.entries.iter().all(|entry| unknown(&entry));
        let warnings = self.entries.iter().filter(unknown).map(|KeyValue { key, value }| {
            if key.bytes.is_empty() {
                return value
                    .complain("the line begins with a blank and is ignored", "remove the blank");
            }
            let near = KEYS.iter().find(|known| known.as_bytes().eq_ignore_ascii_case(key.bytes));
            let advice =
                near.map_or_else(|| "check the spelling".into(), |known| format!("write {known}"));
            // Every key is of letters alone; what is not is no misspelt one.
            let is_name = key.bytes.iter().all(u8::is_ascii_alphabetic);
            let problem = match is_config && is_name {
                true => format!("unknown key '{key}' is ignored"),
                false => "this is no key of a config file; the line is ignored".into(),
            };
            key.complain(problem, advice)
        });
        self.warnings.extend(warnings);
    }
}

fn backlog_target(value: Value<'_>) -> Result<usize, Complaint> {
    match value::number(value)? {
        0 => Err(value.complain("TargetBacklogConn must be more than 0", "2 is the default")),
        target => Ok(usize::try_from(target).unwrap_or(usize::MAX)),
    }
}
