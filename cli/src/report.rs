//! What the program tells its user: what it was asked to do, and why it cannot go on.
//!
//! Nothing here or in `logging` may fail because nobody reads: a closed pipe or a full disk behind
//! stderr loses the text and nothing else.

use std::cmp::Reverse;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use command_line::log::LogWriter;
use engine::config::{Approach, Config, ControllerAddr, HaltOn, Keep, Layout, Publication};
use engine::{Longest, OutcomeKind, Report};
use packetlab::escape::Escaped;
use packetlab::words::counted;

use crate::args::Args;
use crate::exit::Failure;
use crate::findings::Findings;
use crate::logging::{self, LogFormat};
use crate::shell;

/// Logs what is going to be done, once everything is loaded.
pub(crate) fn loaded(args: &Args, config: &Config) {
    warn_of_count(args);
    let mode =
        if config.singleton.is_some() { "one for all sessions" } else { "one for each session" };
    tracing::info!("mlet, {mode}: {}", command_of_mlet(args));
    match &config.approach {
        Approach::Passive { listen } => {
            let shown = |address: &SocketAddr| match address.port() {
                0 => format!("{} (a free port)", address.ip()),
                _ => address.to_string(),
            };
            let addresses: Vec<String> = listen.iter().map(shown).collect();
            tracing::info!("endpoints connect to us, at {}", addresses.join(" and "));
        }
        Approach::Proxies(proxies) => {
            let names: Vec<_> = proxies.iter().map(|proxy| &*proxy.name).collect();
            match &names[..] {
                [name] => tracing::info!("endpoints come through the proxy {name}"),
                names => tracing::info!("endpoints come through the proxies {}", names.join(", ")),
            }
        }
    }
    let brokers = config.publications.iter().map(|publication| &*publication.broker_name);
    let brokers = brokers.collect::<Vec<_>>().join(", ");
    // Every broker is told the same.
    if let Some(Publication { controller_addr, .. }) = config.publications.first() {
        match controller_addr {
            // What is published has been fixed by whoever created it.
            _ if args.campaign.address().is_some() => {
                tracing::info!("to be published at {brokers} as the campaign says")
            }
            ControllerAddr::Text(text) => {
                tracing::info!("to be published at {brokers} as {text}")
            }
            ControllerAddr::BoundPort(host) => {
                tracing::info!("to be published at {brokers} as {host} with the port that is bound")
            }
            ControllerAddr::BrokerSide => tracing::info!("to be published at {brokers}"),
        }
    }
    tracing::info!("ends {}", ends(args, config).join(" or "));
    if let Some(line) = layout(args, config) {
        tracing::info!("{line}");
    }
    let (experiments, programs) = (config.experiments.len(), config.programs.len());
    let experiments = counted(experiments as u64, "experiment");
    tracing::info!("configuration loaded: {experiments}, {}", counted(programs as u64, "program"));
}

/// How output lies in the results folder, where that was not typed and is not a matter of course.
fn layout(args: &Args, config: &Config) -> Option<String> {
    let results = config.recording.results.as_ref()?;
    let is_told = args.single || args.stream || results.keep == Keep::None;
    let how = match results.layout {
        Layout::Stream => "one file for all sessions",
        Layout::Folders => "a folder for each session",
    };
    let why = match (args.resume.is_some(), results.layout) {
        _ if is_told => return None,
        (true, _) if results.keep == Keep::Failed => "as --keep failed needs it",
        (true, _) => "as in the run before",
        (false, Layout::Stream) => "as of so many sessions (-n)",
        (false, Layout::Folders) => return None,
    };
    Some(format!("output of mlets: {how}, {why}"))
}

/// Warns of what stands behind the number of `-n`.
pub(crate) fn warn_of_count(args: &Args) {
    if let Some(count) = args.count.as_ref().filter(|count| !count.ignored.is_empty()) {
        let ignored = Escaped(count.ignored.as_bytes());
        tracing::warn!("-n: '{ignored}' behind the number is ignored");
    }
}

/// When the run is going to end: at the first of these.
pub(crate) fn ends(args: &Args, config: &Config) -> Vec<String> {
    let mut ends = vec!["when interrupted".to_owned()];
    if let Some(count) = config.attempts {
        ends.insert(0, format!("after sessions: {count}"));
    }
    if config.publications.iter().any(|publication| publication.period.is_some()) {
        ends.push("when the publication is over".into());
    }
    let is_no_limit = args.count.is_some() && config.attempts.is_none();
    if let Some(last) = ends.last_mut().filter(|_| is_no_limit) {
        last.push_str(": the number of -n is no limit");
    }
    ends
}

/// Tells everything that a check found wrong.
pub(crate) fn findings(findings: &Findings) {
    let lines = findings.iter().map(|failure| format!("pktxpmgr: ERROR: {failure}\n"));
    let _ = std::io::stderr().write_all(lines.collect::<String>().as_bytes());
}

/// Tells what the run came to behind so many sessions of earlier runs that were `ok`.
pub(crate) fn ended(args: &Args, report: &Report, oks_before: u64) {
    summary_lines(args, report, oks_before).iter().for_each(|line| conclude(args, line));
}

/// Tells what comes of a run, also where only warnings are shown.
pub(crate) fn conclude(args: &Args, line: &str) {
    if args.quiet == 1 {
        tracing::warn!("{line}");
    } else {
        tracing::info!("{line}");
    }
}

/// What a line may take.
const COLUMNS: usize = 80;

/// How many reasons are told.
const REASONS_SHOWN: usize = 10;

fn summary_lines(args: &Args, report: &Report, oks_before: u64) -> Vec<String> {
    let Report { summary, .. } = report;
    let lost = match report.linfos_lost {
        0 => String::new(),
        linfos => format!("; {} lost", counted(linfos, "LINFO")),
    };
    let (sessions, failed) =
        (counted(summary.served, "session"), counted(summary.failed_in_set_up, "connection"));
    let mut lines = vec![format!("run over: {sessions} served, {failed} failed in set-up{lost}")];
    let oks = oks_before + summary.count(OutcomeKind::Ok);
    if let Some(HaltOn::Ok(enough)) = args.judging().halt.map(|halt| halt.on)
        && oks >= enough
    {
        let rule = args.given("--halt");
        lines.push(format!("ended as --halt {rule} asks for: {} ok", counted(oks, "session")));
    }
    // The one of -s is told of apart.
    if !args.single {
        let (succeeded, failed) = (summary.mlets.succeeded, summary.mlets.all_failed());
        lines.push(format!("mlets by exit code: {succeeded} succeeded, {failed} failed"));
    }
    let outcomes = summary.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}"));
    lines.extend(listed("outcomes: ", outcomes));
    if args.resume.is_some() {
        lines.push(format!("with earlier runs: {} ok", counted(oks, "session")));
    }
    let mut reasons: Vec<_> = summary.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| Reverse(**count));
    let reasons = reasons.into_iter().take(REASONS_SHOWN);
    lines.extend(reasons.map(|(reason, count)| format!("  {}: {reason}", counted(*count, "time"))));
    let phases = summary.phases_of_all();
    let of_phases = phases.iter().filter(|(name, _)| **name != "total" && **name != "run");
    if let Some((name, phase)) = of_phases.max_by_key(|(_, phase)| phase.mean()) {
        let (mean, max) = (phase.mean().as_secs_f64(), phase.max.as_secs_f64());
        lines.push(format!(
            "slowest phase of set-up: {name}, {mean:.3} s on average, {max:.3} s at most"
        ));
    }
    if let Some(Longest { session, key, lasted }) = summary.longest {
        let key = key.map_or_else(|| "no key".to_owned(), |key| format!("key {}", key.short()));
        let lasted = lasted.as_secs_f64();
        lines.push(format!("longest session: {session}, {key}, {lasted:.3} s"));
    }
    let limits = summary
        .limits_hit
        .iter()
        .map(|(limit, count)| format!("{limit} ({})", counted(*count, "time")));
    lines.extend(listed("limits that were hit: ", limits));
    if summary.outputs_lost > 0 {
        let mlets = summary.outputs_lost;
        lines
            .push(format!("output that is lost, or not kept whole: of {}", counted(mlets, "mlet")));
    }
    let files = [&args.events, &args.joblog, &args.latency].map(Option::as_deref);
    let written = std::iter::once(args.results()).chain(files).flatten();
    let written = written.filter(|path| *path != Path::new("-"));
    let written = written.map(|path| Escaped(path.as_os_str().as_bytes()).to_string());
    lines.extend(listed("written: ", written));
    lines
}

/// A list behind its name, on as many lines as it takes; none if it is empty.
fn listed(name: &str, items: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.len() + ", ".len() + item.len() < COLUMNS => {
                line.push_str(", ");
                line.push_str(&item);
            }
            Some(line) => {
                line.push(',');
                lines.push(format!("  {item}"));
            }
            None => lines.push(format!("{name}{item}")),
        }
    }
    lines
}

/// The mlet and its arguments, on one line, as a shell reads them.
pub(crate) fn command_of_mlet(args: &Args) -> String {
    let words = std::iter::once(args.mlet().as_os_str())
        .chain(args.mlet_arguments().iter().map(|word| &**word));
    let words: Vec<_> = words.map(|word| shell::quoted(word.as_bytes())).collect();
    words.join(" ")
}

/// Prints why the program ends, behind what was logged.
pub(crate) fn failure(failure: &Failure, log_format: LogFormat, log: Option<&LogWriter>) {
    let text = logging::fatal(log_format, &failure.to_string());
    // One write, so that lines of mlets on the same stream do not cut it.
    let _ = match log {
        Some(log) => logging::last_line(log).write_all(text.as_bytes()),
        None => std::io::stderr().write_all(text.as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_goes_on_in_the_next_line_and_an_empty_one_has_none() {
        assert_eq!(listed("written: ", std::iter::empty()), Vec::<String>::new());
        assert_eq!(
            listed("written: ", ["a", "b"].map(String::from).into_iter()),
            ["written: a, b"]
        );
        let lines = listed("outcomes: ", (0..20).map(|number| format!("{number} mlet_failed")));
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= COLUMNS), "{lines:?}");
        assert!(lines[0].starts_with("outcomes: 0 mlet_failed, 1 mlet_failed, "));
        assert!(lines[0].ends_with(',') && lines[1].starts_with("  "), "{lines:?}");
        assert_eq!(lines.join(" ").matches("mlet_failed").count(), 20);
    }
}
