//! `pktxpmgr results show`: all that is known of one session, in words.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::chosen::{Chosen, Sort, hexadecimal};
use super::failure::{Failure, shown_path};
use super::folder::{Folder, Stream};
use super::record::{Event, Phases, RelayLatency, Session};
use super::words;

/// So many sessions are named when a key has several.
const NAMED_MAX: usize = 10;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr results show DIR 412     session 412
  pktxpmgr results show DIR ab12cd  the one of the endpoint whose key begins so";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// The results folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Its number, or how the key of its endpoint begins
    #[arg(value_name = "SESSION|KEYPREFIX", value_parser = hexadecimal)]
    session: String,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = Folder::open(&options.dir)?;
    let chosen = find(&folder, &options.session)?;
    let mut out = io::stdout().lock();
    for session in chosen.sessions(&folder) {
        out.write_all(told(&folder, &session?).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// The one session that is meant. A number is one if there is such a session, and the front of a key otherwise.
fn find(folder: &Folder, wanted: &str) -> Result<Chosen, Failure> {
    let number = wanted.parse::<u64>().ok();
    let (mut by_number, mut by_key) = (Chosen::default(), Chosen::default());
    folder.scan(|event, place| {
        let Event::Session(session) = event else { return };
        if Some(session.number) == number {
            by_number.push(&session, Sort::Session, place);
        } else if session.ep.key.as_deref().is_some_and(|key| key.starts_with(wanted)) {
            by_key.push(&session, Sort::Session, place);
        }
    })?;
    let found = if by_number.len() > 0 { by_number } else { by_key };
    match found.len() {
        1 => Ok(found),
        0 => Err(Failure::Usage(format!(
            "{} holds no session {wanted}, and no key that begins so",
            shown_path(folder.path())
        ))),
        count => {
            let mut found = found;
            found.sort();
            let numbers = found.numbers().take(NAMED_MAX).map(|number| number.to_string());
            let more = if count > NAMED_MAX { ", ..." } else { "" };
            Err(Failure::Usage(format!(
                "{count} sessions have keys that begin with {wanted}; name one by its number: {}{more}",
                numbers.collect::<Vec<_>>().join(", ")
            )))
        }
    }
}

/// Everything, a fact a line.
fn told(folder: &Folder, session: &Session) -> String {
    let unknown = || "not known".to_owned();
    let text = |text: &Option<String>| text.as_deref().map_or_else(unknown, words::shown);
    let mut facts = Vec::<(&str, String)>::new();
    let reason = session.reason.as_deref().map(|reason| format!(": {}", words::shown(reason)));
    let judged = if session.failed { " (counts as failed)" } else { "" };
    let outcome = words::shown(&session.outcome);
    facts.push(("outcome", format!("{outcome}{}{judged}", reason.unwrap_or_default())));
    facts.push(("run", words::shown(&session.run)));
    facts.push(("endpoint", text(&session.ep.key)));
    if let Some(key) = &session.ep.shown_key {
        facts.push(("shown key", format!("{} (not proven)", words::shown(key))));
    }
    facts.push(("operator", text(&session.ep.root)));
    facts.push(("snikey", text(&session.ep.snikey)));
    let via = match session.ep.via.as_deref() {
        Some("proxy") => ", which is the proxy's",
        _ => "",
    };
    facts.push(("address", format!("{}{via}", text(&session.ep.peer))));
    facts.push(("accepted", text(&session.accepted)));
    facts.push(("ended", words::shown(&session.t)));
    facts.extend(phases(&session.ms).map(|(name, time)| (name, words::duration(time))));
    if let Some(end) = end_of_mlet(session) {
        facts.push(("mlet", end));
    }
    let relayed =
        |bytes, messages| format!("{bytes} bytes in {}", words::counted(messages, "message"));
    facts.push(("to endpoint", relayed(session.bytes.to_ep, session.msgs.to_ep)));
    facts.push(("from endpoint", relayed(session.bytes.from_ep, session.msgs.from_ep)));
    if let Some(relay) = &session.relay_us {
        facts.extend(relay.to_ep.and_then(latency).map(|told| ("relay to", told)));
        facts.extend(relay.from_ep.and_then(latency).map(|told| ("relay from", told)));
    }
    if session.linfos_lost > 0 {
        facts.push(("LINFO", format!("{} did not come into the log", session.linfos_lost)));
    }
    if let Some(monitor) = session.crashed_monitor {
        facts.push(("monitor", format!("{monitor} crashed")));
    }
    facts.extend(outputs(folder, session));
    let lines = facts.into_iter().map(|(name, fact)| format!("{name:13}  {fact}\n"));
    format!("session        {}\n{}", session.number, lines.collect::<String>())
}

/// The phases that were reached.
fn phases(ms: &Phases) -> impl Iterator<Item = (&'static str, f64)> {
    let named = [
        ("TLS", ms.tls),
        ("programs", ms.programs),
        ("START", ms.start),
        ("spawn", ms.spawn),
        ("run", ms.run),
        ("in all", ms.total),
    ];
    named.into_iter().filter_map(|(name, time)| Some((name, time?)))
}

fn end_of_mlet(session: &Session) -> Option<String> {
    let end = words::end_of_mlet(session.exit, session.signal);
    match (session.exit, session.signal) {
        (Some(_), _) => Some(format!("exit code {end}")),
        (None, Some(_)) => Some(format!("signal {end}")),
        (None, None) => None,
    }
}

/// Of what was timed; nothing if nothing was.
fn latency(latency: RelayLatency) -> Option<String> {
    let RelayLatency { count, p50: Some(p50), p99: Some(p99), max: Some(max) } = latency else {
        return None;
    };
    let samples = words::counted(count, "sample");
    Some(format!("p50 {p50} us, p99 {p99} us, max {max} us, of {samples}"))
}

/// Where its output is, and how much there is.
fn outputs(folder: &Folder, session: &Session) -> Vec<(&'static str, String)> {
    let Some(output) = &session.output else { return vec![("output", "none was kept".into())] };
    let of = |stream: Stream, len: u64, written: Option<u64>| {
        let path = folder.output_path(output, stream);
        let named = || words::shown(output.dir.as_deref().unwrap_or_default());
        let path = path.map_or_else(named, |path| shown_path(&path));
        let kept = match written.filter(|written| *written > len) {
            Some(written) => format!("of {written} bytes written {len} are kept"),
            None => format!("{len} bytes"),
        };
        (stream.name(), format!("{path}, {kept}"))
    };
    let mut facts = vec![
        of(Stream::Stdout, output.stdout, output.stdout_written),
        of(Stream::Stderr, output.stderr, output.stderr_written),
    ];
    if output.truncated {
        facts.push(("truncated", "there was, or may have been, more than is kept".into()));
    }
    facts
}
