//! What the program tells its user: what it was asked to do, and why it cannot go on.
//!
//! Nothing here or in `logging` may fail because nobody reads: a closed pipe or a full disk behind
//! stderr loses the text and nothing else.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use command_line::log::LogWriter;
use engine::config::{Approach, Config, ControllerAddr, Publication};
use packetlab::escape::Escaped;

use crate::args::Args;
use crate::exit::Failure;
use crate::logging;

/// Logs what is going to be done, once everything is loaded.
pub(crate) fn loaded(args: &Args, config: &Config) {
    if let Some(count) = args.count.as_ref().filter(|count| !count.ignored.is_empty()) {
        let ignored = Escaped(count.ignored.as_bytes());
        tracing::warn!("-n: '{ignored}' behind the number is ignored");
    }
    let words = std::iter::once(args.mlet().as_os_str())
        .chain(args.mlet_arguments().iter().map(|word| &**word));
    let words: Vec<_> = words.map(|word| Escaped(word.as_bytes()).to_string()).collect();
    let mode = if config.singleton { "one for all sessions" } else { "one for each session" };
    tracing::info!("mlet, {mode}: {}", words.join(" "));
    match &config.approach {
        Approach::Passive { listen } => {
            let shown = |address: &SocketAddr| match address.port() {
                0 => format!("{} (a free port)", address.ip()),
                _ => address.to_string(),
            };
            let addresses: Vec<String> = listen.iter().map(shown).collect();
            tracing::info!("endpoints connect to us, at {}", addresses.join(" and "));
        }
        Approach::Proxy(proxy) => tracing::info!("endpoints come through the proxy {}", proxy.name),
    }
    if let Some(Publication { broker_name, controller_addr, .. }) = &config.publication {
        match controller_addr {
            ControllerAddr::Text(text) => {
                tracing::info!("to be published at {broker_name} as {text}")
            }
            ControllerAddr::BoundPort(host) => {
                tracing::info!(
                    "to be published at {broker_name} as {host} with the port that is bound"
                )
            }
            ControllerAddr::BrokerSide => tracing::info!("to be published at {broker_name}"),
        }
    }
    let mut ends = vec!["when interrupted".to_owned()];
    if let Some(count) = config.attempts {
        ends.insert(0, format!("after sessions: {count} (whatever becomes of their mlets)"));
    }
    if matches!(&config.publication, Some(Publication { period: Some(_), .. })) {
        ends.push("when the publication and its greeting are over".into());
    }
    let is_no_limit = args.count.is_some() && config.attempts.is_none();
    let remark = if is_no_limit { ": the number of -n is no limit" } else { "" };
    tracing::info!("ends {}{remark}", ends.join(" or "));
    let (experiments, programs) = (config.experiments.len(), config.programs.len());
    tracing::info!("configuration loaded: {experiments} experiments, {programs} programs");
}

/// Prints why the program ends, behind what was logged. `FATAL` is the word the original used and scripts look for.
pub(crate) fn failure(failure: &Failure, log: Option<&LogWriter>) {
    let text = format!("pktxpmgr: FATAL: {failure}\n");
    // One write, so that lines of mlets on the same stream do not cut it.
    let _ = match log {
        Some(log) => logging::last_line(log).write_all(text.as_bytes()),
        None => std::io::stderr().write_all(text.as_bytes()),
    };
}
