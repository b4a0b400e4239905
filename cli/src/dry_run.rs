//! What a run would do, for people to read: `--dry-run`.
//!
//! Not here: checking it. What only a run can know stands in angle brackets.

use std::fmt::Write;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;

use engine::config::{
    Approach, Config, ControllerAddr, Experiment, Io, MletIo, Publication, SingletonForm,
};
use engine::proto::descriptor::descriptor;
use engine::proto::publisher::PublishedExperiment;
use packetlab::address::HostPort;
use packetlab::escape::Escaped;
use packetlab::time::Ticks;

use crate::args::Args;
use crate::engine_config::Loaded;
use crate::engine_config::address::{EXPERIMENT_PORT, PROXY_PORT};
use crate::report;

/// What each mlet finds in its environment, the snikey aside (behaviour.md "What a mlet finds").
const ENVIRONMENT: [(&str, &str); 5] = [
    ("EPADDR", "<IP address of the endpoint, or of the proxy>"),
    ("PKTLAB_SESSION", "<number of the session>"),
    ("PKTLAB_ENDPOINT_KEY", "<key id of the endpoint, empty without a certificate>"),
    ("PKTLAB_RUN", "<name of the run>"),
    ("PKTLAB_RESULTS", "<the folder of --out, empty without>"),
];

/// An address where the one to be published is not known, and as long as one: a descriptor holds no angle brackets.
const STAND_IN: &str = "255.255.255.255:65535";

/// Everything that would be done from `now` on, unless all that is asked for is `done` already.
pub(crate) fn text(args: &Args, loaded: &Loaded, done: Option<&str>, now: Ticks) -> String {
    let config = &loaded.config;
    let mut text = Text::default();
    text.section("run", NAME_LEN);
    text.row("config file", Escaped(loaded.path.as_os_str().as_bytes()));
    text.row("our key id", config.controller_key.public_key().key_id());
    text.row("programs", config.programs.len());
    text.row("CPUs", config.cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    text.row("waits with", io(config.io));
    if config.mlet_io == MletIo::Pipe {
        text.row("mlets get", "their sockets, and pipes if they know them");
    }
    if !config.spin.is_zero() {
        text.row("looks for work", format_args!("{} us before it sleeps", config.spin.as_micros()));
    }
    match done {
        Some(done) => text.row("ends", format_args!("at once: {done}")),
        None => report::ends(args, config).iter().for_each(|end| text.row("ends", end)),
    }
    mlet(&mut text, args, loaded);
    addresses(&mut text, args, config);
    for one in &config.experiments {
        experiment(&mut text, config, one, loaded.drawn_snikeys.contains(&one.line), now);
    }
    let given = args.given_in_words().iter().map(|(option, value)| (&**option, &**value));
    options(&mut text, "results, choice and judgement", given.collect());
    options(&mut text, "limits", args.limits_in_words().collect());
    text.text
}

/// A row for each of these options; nothing for none.
fn options(text: &mut Text, name: &str, options: Vec<(&str, &str)>) {
    let Some(name_len) = options.iter().map(|(option, _)| option.len()).max() else { return };
    text.section(name, name_len);
    for (option, value) in options {
        text.row(option, value);
    }
}

/// Room for the names of rows: with it a key id fits 80 columns.
const NAME_LEN: usize = 13;

/// Sections of rows, each a name and a value.
#[derive(Default)]
struct Text {
    text: String,
    /// Room for the names of this section.
    name_len: usize,
}

impl Text {
    fn section(&mut self, name: &str, name_len: usize) {
        self.name_len = name_len;
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}{name}:");
    }

    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        let row = format!("  {name:<0$} {value}", self.name_len);
        let _ = writeln!(self.text, "{}", row.trim_end());
    }
}

fn io(io: Io) -> &'static str {
    match io {
        Io::Auto => "io_uring, or epoll where that is barred",
        Io::Uring => "io_uring",
        Io::Epoll => "epoll",
    }
}

fn mlet(text: &mut Text, args: &Args, loaded: &Loaded) {
    let config = &loaded.config;
    let path = args.mlet().as_os_str().as_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let each = if config.singleton.is_some() { "all sessions" } else { "each session" };
    let names = ENVIRONMENT.iter().map(|(name, _)| name.len());
    text.section(&format!("mlet, one for {each}"), names.max().unwrap_or(0));
    text.row("file", Escaped(path));
    let words = args.mlet_arguments().iter().map(|word| word.as_bytes());
    for (number, word) in std::iter::once(name).chain(words).enumerate() {
        text.row(&format!("argv[{number}]"), Escaped(word));
    }
    if let Some(form) = config.singleton {
        text.row("environment", "empty");
        let told = match form {
            SingletonForm::Address => "ADDRESS",
            SingletonForm::Facts => "ADDRESS SESSION KEY SNIKEY",
        };
        text.row("told of a session", told);
        return;
    }
    for (name, value) in ENVIRONMENT {
        text.row(name, value);
    }
    match &config.experiments[..] {
        [one] if loaded.drawn_snikeys.is_empty() => text.row("PKTLAB_SNIKEY", &one.snikey),
        _ => text.row("PKTLAB_SNIKEY", "<snikey of the experiment>"),
    }
}

fn addresses(text: &mut Text, args: &Args, config: &Config) {
    text.section("addresses", NAME_LEN);
    match &config.approach {
        Approach::Proxies(proxies) => {
            for proxy in proxies {
                text.row("proxy", shown(&proxy.name, PROXY_PORT));
            }
        }
        Approach::Passive { listen } => match args.addr.as_deref() {
            Some(name) if !name.starts_with('*') => {
                text.row("listen", shown(name, EXPERIMENT_PORT))
            }
            _ => {
                let addresses: Vec<_> = listen.iter().map(ToString::to_string).collect();
                text.row("listen", with_free_port(&addresses.join(" and ")));
            }
        },
    }
    for Publication { broker_name, .. } in &config.publications {
        text.row("broker", shown(broker_name, EXPERIMENT_PORT));
    }
    // Every broker is told the same.
    match config.publications.first() {
        Some(publication) => text.row("publish", published(publication)),
        None => text.row("publish", "nothing"),
    }
}

/// An address with its port; whether it is a name that a run would look up.
fn shown(name: &str, default_port: u16) -> String {
    let Ok(HostPort { host, port }) = HostPort::parse(name) else { return name.to_owned() };
    let is_literal = host.parse::<IpAddr>().is_ok();
    let address = HostPort { host, port: port.or(Some(default_port)) }.to_string();
    let shown = with_free_port(&Escaped(address.as_bytes()).to_string());
    if is_literal { shown } else { format!("{shown} (a name, not looked up)") }
}

fn with_free_port(address: &str) -> String {
    if address.ends_with(":0") { format!("{address} (a free port)") } else { address.to_owned() }
}

/// The address that endpoints are told, unless an experiment overrides it.
fn published(publication: &Publication) -> String {
    match &publication.controller_addr {
        ControllerAddr::Text(text) => text.clone(),
        ControllerAddr::BoundPort(host) => {
            let address = HostPort { host: host.clone(), port: Some(0) }.to_string();
            format!("{}<port that is bound>", address.strip_suffix('0').unwrap_or(&address))
        }
        ControllerAddr::BrokerSide => "<our IP address as the broker sees it>".into(),
    }
}

fn experiment(text: &mut Text, config: &Config, one: &Experiment, is_drawn: bool, now: Ticks) {
    text.section(&format!("experiment of line {}", one.line), NAME_LEN);
    // Another one at each start.
    text.row(if is_drawn { "random snikey" } else { "snikey" }, &one.snikey);
    if one.is_default {
        text.row("is default", "serves endpoints without a server name too");
    }
    for certificate in &one.chain {
        let (kind, end) = (certificate.certificate_type, certificate.not_after.date());
        text.row("certificate", format!("{kind}, valid to {end}"));
    }
    match one.trusted_operators.len() {
        0 => text.row("endpoints", "need no certificate"),
        count => text.row("operators", format!("{count} trusted")),
    }
    let Some(publication) = config.publications.first() else { return };
    let pub_end = publication.period.map(|period| now.saturating_add(period));
    match PublishedExperiment::new(publication, one, STAND_IN, pub_end) {
        Ok(found) => {
            for channel in found.channels.iter() {
                text.row("channel", channel);
            }
            let end = found.end.map_or_else(|| "never".into(), |end| end.date().to_string());
            text.row("ends", end);
            text.row(
                "descriptor",
                descriptor(&publication.called, one, &published(publication), pub_end),
            );
        }
        Err(error) => text.row("unpublished", error),
    }
}
