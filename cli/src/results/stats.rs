//! `pktxpmgr results stats`: what the sessions come to.
//!
//! Not here: the counting (`tally.rs`).

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::Args;

use super::chosen::Wanted;
use super::failure::Failure;
use super::tally::{RunSpan, Spread, Tally, Verdicts};
use super::words::{self, counted};

/// So many reasons are shown.
const REASONS_SHOWN: usize = 10;

/// So many characters of a reason, and of a snikey, so that a line has 80.
const REASON_LEN: usize = 70;
const SNIKEY_LEN: usize = 52;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr results stats DIR
  pktxpmgr results stats DIR --since 2026-11-23";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    wanted: Wanted,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = options.wanted.open()?;
    let mut tally = Tally::default();
    folder.scan(|event, _| tally.add(&event, &options.wanted.filter))?;
    let mut out = io::stdout().lock();
    out.write_all(told(&tally).as_bytes())?;
    Ok(out.flush()?)
}

fn told(tally: &Tally) -> String {
    let mut told = String::new();
    // Writing to a String does not fail.
    let mut line = |line: String| {
        let _ = writeln!(told, "{line}");
    };
    tally.runs.iter().for_each(|run| line(told_run(run)));
    line(told_sessions(tally.sessions, tally.endpoints().len()));
    if tally.folded > 0 {
        let folded = counted(tally.folded, "connection");
        line(format!("{folded} without a certificate that was verified, and without records"));
    }
    line("\noutcome               count".into());
    for (outcome, count) in tally.outcomes() {
        line(format!("{:19} {count:>7}", words::shown(outcome)));
    }
    let reasons = tally.reasons();
    if !reasons.is_empty() {
        line("\n  count  reason".into());
    }
    for (reason, count) in reasons.iter().take(REASONS_SHOWN) {
        line(format!("{count:>7}  {}", clipped(&words::shown(reason), REASON_LEN)));
    }
    if let Some(more) = reasons.get(REASONS_SHOWN..).filter(|more| !more.is_empty()) {
        let count: u64 = more.iter().map(|(_, count)| count).sum();
        line(format!("{count:>7}  of {}", counted(more.len() as u64, "other reason")));
    }
    let mut spreads = tally.spreads().peekable();
    if spreads.peek().is_some() {
        line(format!("\n{:16} {:>7}  {}", "", "count", "     p50       p90       p99       max"));
    }
    for (quantity, Spread { count, p50, p90, p99, max }) in spreads {
        let amounts = [p50, p90, p99, max].map(|amount| format!("{:>8}", quantity.shown(amount)));
        line(format!("{:16} {count:>7}  {}", quantity.name(), amounts.join("  ")));
    }
    let mut snikeys = tally.snikeys().peekable();
    if snikeys.peek().is_some() {
        line("\nsessions       ok   failed  snikey".into());
    }
    for (snikey, Verdicts { all, ok, failed }) in snikeys {
        let snikey = clipped(&words::shown(snikey), SNIKEY_LEN);
        line(format!("{all:>8} {ok:>8} {failed:>8}  {snikey}"));
    }
    told
}

fn told_run(run: &RunSpan) -> String {
    let short = |time: &str| words::short_time(Some(time));
    let ended = run.ended.as_deref().map_or_else(|| "no end recorded".into(), short);
    let name = words::shown(&run.name);
    format!("run {name}: {} to {ended} (UTC)", short(&run.started))
}

/// `300 sessions of 297 endpoints: 290 ok, 8 failed, 2 neither`.
fn told_sessions(sessions: Verdicts, endpoints: usize) -> String {
    let Verdicts { all, ok, failed } = sessions;
    let neither = match sessions.neither() {
        0 => String::new(),
        neither => format!(", {neither} neither"),
    };
    let (all, endpoints) = (counted(all, "session"), counted(endpoints as u64, "endpoint"));
    format!("{all} of {endpoints}: {ok} ok, {failed} failed{neither}")
}

fn clipped(text: &str, len_max: usize) -> String {
    if text.chars().count() <= len_max {
        return text.to_owned();
    }
    format!("{}...", text.chars().take(len_max - 3).collect::<String>())
}
