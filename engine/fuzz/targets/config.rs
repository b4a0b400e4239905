//! A config file. The first byte says whether the files that it names must be there.
//!
//! Each complaint has its line and column, which are within the file, or says what the whole file lacks; it shows no control
//! character. Where nothing is complained of the settings are whole, and written down they are read again as the same.

#![no_main]

#[path = "../../../cli/src/c_number.rs"]
mod c_number;
#[path = "../../../cli/src/conf/mod.rs"]
#[expect(dead_code, unused_imports, reason = "not all of it is needed")]
mod conf;

use std::collections::HashSet;
use std::fmt::{self, Display, Write};
use std::path::PathBuf;
use std::time::Duration;

use conf::{Complaint, ExperimentSettings, Located, Outcome, Settings, Source};
use libfuzzer_sys::fuzz_target;
use packetlab::channel::ChannelId;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, text)) = input.split_first() else { return };
    let source = source(text);
    let read = if choice == 0 { conf::read_alone } else { conf::read };
    let Outcome { warnings, errors, settings } = read(&source);
    let lines = text.split(|byte| *byte == b'\n').count();
    for complaint in warnings.iter().chain(&errors) {
        check(complaint, &source, lines);
    }
    let Some(settings) = settings else {
        assert_eq!(errors.len(), 1, "what is no config file is told to be none");
        return;
    };
    if !errors.is_empty() {
        return;
    }
    check_whole(&settings);
    let written = text_of(&settings);
    let again = source_of(&written);
    let Outcome { errors, settings, .. } = read(&again);
    assert!(errors.is_empty(), "{}\n{written}", again.one_line(&errors[0]));
    assert_eq!(settings.map(|settings| text_of(&settings)), Some(written));
});

fn source(text: &[u8]) -> Source {
    Source { path: PathBuf::from("x.conf"), text: text.to_vec() }
}

fn source_of(text: &str) -> Source {
    source(text.as_bytes())
}

fn check(complaint: &Complaint, source: &Source, lines: usize) {
    let shown = [source.one_line(complaint), source.with_caret(complaint)];
    match complaint.place {
        Some(place) => {
            assert!((1..=lines).contains(&place.line), "{place:?}");
            let line = format!("x.conf:{}:", place.line);
            for shown in &shown {
                let column = shown.strip_prefix(&line).and_then(|rest| rest.split_once(": "));
                let column = column.and_then(|(column, _)| column.parse::<usize>().ok());
                assert!(column.is_some_and(|column| column > 0), "{shown}");
            }
        }
        None => assert!(
            complaint.problem.contains("is missing")
                || complaint.problem.contains("no config file"),
            "{complaint:?}"
        ),
    }
    assert!(!shown[0].contains(char::is_control), "{shown:?}");
    let is_shown = |character: char| character == '\n' || !character.is_control();
    assert!(shown[1].chars().all(is_shown), "{shown:?}");
    assert!(!complaint.advice.is_empty() && shown.iter().all(|shown| shown.len() < 4096));
}

fn check_whole(settings: &Settings) {
    assert!(settings.controller_key.is_some());
    if let Some(publication) = &settings.publication {
        assert!(publication.brokers.as_ref().is_some_and(|brokers| !brokers.is_empty()));
        assert!(publication.agent_certificate.is_some());
    }
    let experiments = &settings.experiments;
    assert!(!experiments.is_empty());
    assert!(experiments.iter().filter(|experiment| experiment.is_default.value).count() <= 1);
    let mut snikeys = HashSet::new();
    for experiment in experiments {
        let snikey = experiment.snikey.as_ref().map(|snikey| snikey.value.as_str());
        assert!(snikey.is_none_or(|snikey| snikeys.insert(snikey)), "{snikey:?} twice");
        assert!(experiment.chain.as_ref().is_some_and(|chain| !chain.is_empty()));
        let is_open = experiment.trusted_operators.as_ref().is_some_and(Vec::is_empty);
        let is_public = |channel: &Option<ChannelId>| {
            channel.as_ref().is_some_and(|channel| !channel.is_private())
        };
        assert!(!is_open || experiment.channels.iter().all(is_public), "vouched for by nobody");
    }
}

/// The settings as a config file.
fn text_of(settings: &Settings) -> String {
    let mut text = String::new();
    // A line may end in CR LF, and then in no CR of its own.
    let mut key = |name: &str, value: &dyn Display| write!(text, "{name} {value}\r\n").unwrap();
    key("EnableExpPublication", &u8::from(settings.publication.is_some()));
    key("EnableProxyMode", &u8::from(settings.proxy.is_some()));
    key("ControllerPrivkeyPath", &Paths(settings.controller_key.as_slice()));
    key("ProgramDirPath", &Paths(settings.program_directory.as_slice()));
    if let Some(publication) = &settings.publication {
        key("BrokerAddr", &Commas(publication.brokers.iter().flatten().map(|one| &one.value)));
        key("PubAgentCertPath", &Paths(publication.agent_certificate.as_slice()));
        key("BrokerCertRootPath", &Paths(&publication.broker_roots));
        if let Some((written, address)) = &publication.controller_addr {
            key("PubControllerAddr", written);
            assert_eq!(packetlab::address::HostPort::parse(written).as_ref(), Ok(&address.value));
        }
        key("PubCountry", &Commas(publication.countries.iter()));
        key("PubLocation", &Commas(publication.locations.iter()));
        key("GreetPeriodAfterPubEnd", &publication.greet_after.as_nanos());
        publication.period.iter().for_each(|period| key("PubPeriod", &period.as_nanos()));
        publication.priority.iter().for_each(|priority| key("PubExpPriority", priority));
    }
    if let Some(proxy) = &settings.proxy {
        key("BacklogConnAgentCertPath", &Paths(proxy.agent_certificate.as_slice()));
        key("ProxyCertRootPath", &Paths(&proxy.proxy_roots));
        key("TargetBacklogConn", &proxy.backlog_target);
        let nanoseconds = Duration::as_nanos;
        key("BacklogConnTimeout", &nanoseconds(&proxy.step_timeout));
        key("BootstrapBacklogTimeout", &nanoseconds(&proxy.bootstrap_timeout));
    }
    settings.experiments.iter().for_each(|experiment| key("ExpExec", &Line(experiment)));
    text
}

/// An experiment as its line has it.
struct Line<'a>(&'a ExperimentSettings);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let experiment = self.0;
        let snikey = experiment.snikey.as_ref().map_or("", |snikey| snikey.value.as_str());
        write!(f, "{}:{snikey}:", u8::from(experiment.is_default.value))?;
        write!(f, "{}:", Paths(experiment.chain.as_deref().unwrap_or_default()))?;
        write!(f, "{}:", Paths(experiment.trusted_operators.as_deref().unwrap_or_default()))?;
        let channels = experiment.channels.iter();
        let channels = channels.map(|one| one.map(|id| id.to_string()).unwrap_or_default());
        write!(f, "{}:", Commas(channels))?;
        experiment
            .overrides
            .iter()
            .try_for_each(|pair| write!(f, "{}={};", pair.pair.name, pair.pair.value))
    }
}

/// Between commas.
struct Commas<I>(I);

impl<I: Iterator<Item: Display> + Clone> Display for Commas<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .clone()
            .enumerate()
            .try_for_each(|(number, one)| write!(f, "{}{one}", if number == 0 { "" } else { "," }))
    }
}

/// Paths between commas, which have to be text: only those are tried.
struct Paths<'a>(&'a [Located<PathBuf>]);

impl Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Commas(self.0.iter().map(|path| path.value.display())).fmt(f)
    }
}
