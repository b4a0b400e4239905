//! What the sessions of a folder come to: counts, reasons, and how times and bytes are spread.
//!
//! Pure: records come in, numbers go out. Not here: how they are shown. Invariant: the counts of outcomes are those of
//! sessions with a record of their own and those of folded connections together, so that they agree with the run's.

use std::collections::{BTreeMap, HashMap};

use super::chosen::Filter;
use super::record::{Event, Folded, RelayLatency, Session};
use super::words;

/// Everything that was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of sessions that have a record of their own.
    pub(crate) sessions: Verdicts,
    /// Connections that have none.
    pub(crate) folded: u64,
    /// By their names, folded ones among them.
    outcomes: BTreeMap<String, u64>,
    reasons: HashMap<String, u64>,
    snikeys: BTreeMap<String, Verdicts>,
    endpoints: HashMap<String, EndpointTotals>,
    spreads: BTreeMap<Quantity, Vec<f64>>,
    /// Runs in the order in which they began.
    pub(crate) runs: Vec<RunSpan>,
}

/// How many sessions, and how they are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) all: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
}

impl Verdicts {
    fn add(&mut self, session: &Session) {
        self.all += 1;
        self.ok += u64::from(session.outcome == "ok");
        self.failed += u64::from(session.failed);
    }

    /// Those that are neither.
    pub(crate) fn neither(&self) -> u64 {
        self.all - self.ok - self.failed
    }
}

/// All sessions of one endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EndpointTotals {
    pub(crate) sessions: Verdicts,
    /// How long its mlets ran, in milliseconds; nothing if none did.
    pub(crate) run_ms: Option<f64>,
    /// Relayed, both ways.
    pub(crate) bytes: u64,
}

/// When a run began and ended, in RFC 3339.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunSpan {
    pub(crate) name: String,
    pub(crate) program: Option<String>,
    pub(crate) started: String,
    /// Nothing while it runs, and for ever if it was killed.
    pub(crate) ended: Option<String>,
}

/// What is spread, in the order in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantity {
    Tls,
    Programs,
    Start,
    Spawn,
    Run,
    Total,
    ToEndpoint,
    FromEndpoint,
    RelayToP50,
    RelayToP99,
    RelayToMax,
    RelayFromP50,
    RelayFromP99,
    RelayFromMax,
}

impl Quantity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Programs => "programs",
            Self::Start => "START",
            Self::Spawn => "spawn",
            Self::Run => "run",
            Self::Total => "in all",
            Self::ToEndpoint => "to endpoint",
            Self::FromEndpoint => "from endpoint",
            Self::RelayToP50 => "relay to, p50",
            Self::RelayToP99 => "relay to, p99",
            Self::RelayToMax => "relay to, max",
            Self::RelayFromP50 => "relay from, p50",
            Self::RelayFromP99 => "relay from, p99",
            Self::RelayFromMax => "relay from, max",
        }
    }

    /// An amount of it, in at most eight characters as far as that can be.
    pub(crate) fn shown(self, amount: f64) -> String {
        match self {
            Self::ToEndpoint | Self::FromEndpoint => words::size(amount as u64),
            _ if self.is_relay() => words::microseconds(amount),
            _ => words::duration(amount),
        }
    }

    /// Of the latency of single messages, of which each session tells three numbers.
    pub(crate) fn is_relay(self) -> bool {
        self >= Self::RelayToP50
    }
}

/// How an amount is spread over sessions: nearest ranks, so that each is one that occurred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these amounts, unless there are none.
    fn of(amounts: &[f64]) -> Option<Self> {
        let mut sorted = amounts.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let max = *sorted.last()?;
        let rank = |percent: usize| {
            let at_or_below = (sorted.len() * percent).div_ceil(100);
            sorted.get(at_or_below.saturating_sub(1)).copied().unwrap_or(max)
        };
        Some(Self { count: sorted.len(), p50: rank(50), p90: rank(90), p99: rank(99), max })
    }
}

impl Tally {
    /// Counts what a record tells, if it is wanted.
    pub(crate) fn add(&mut self, event: &Event, filter: &Filter) {
        match event {
            Event::Session(session) if filter.takes(session) => self.add_session(session),
            Event::Folded(folded) if filter.takes_folded(folded) => self.add_folded(folded),
            Event::RunStart(start) if filter.takes_run(&start.run) => self.runs.push(RunSpan {
                name: start.run.clone(),
                program: start.program.clone(),
                started: start.t.clone(),
                ended: None,
            }),
            Event::RunEnd(end) => {
                let run = self.runs.iter_mut().rev().find(|run| run.name == end.run);
                if let Some(run) = run {
                    run.ended = Some(end.t.clone());
                }
            }
            _ => {}
        }
    }

    fn add_session(&mut self, session: &Session) {
        self.sessions.add(session);
        count(&mut self.outcomes, &session.outcome, 1);
        if session.outcome != "ok" {
            let reason = session.reason.as_ref().unwrap_or(&session.outcome);
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
        if let Some(snikey) = &session.ep.snikey {
            self.snikeys.entry(snikey.clone()).or_default().add(session);
        }
        if let Some(key) = &session.ep.key {
            let endpoint = self.endpoints.entry(key.clone()).or_default();
            endpoint.sessions.add(session);
            endpoint.bytes = endpoint.bytes.saturating_add(session.bytes_relayed());
            if let Some(run) = session.ms.run {
                *endpoint.run_ms.get_or_insert(0.0) += run;
            }
        }
        for (quantity, amount) in amounts(session) {
            self.spreads.entry(quantity).or_default().extend(amount);
        }
    }

    fn add_folded(&mut self, folded: &Folded) {
        self.folded = self.folded.saturating_add(folded.count);
        count(&mut self.outcomes, &folded.outcome, folded.count);
    }

    /// Outcomes, the most frequent first.
    pub(crate) fn outcomes(&self) -> Vec<(&str, u64)> {
        most(self.outcomes.iter())
    }

    /// Reasons why sessions are not `ok`, the most frequent first.
    pub(crate) fn reasons(&self) -> Vec<(&str, u64)> {
        most(self.reasons.iter())
    }

    /// Snikeys by their names.
    pub(crate) fn snikeys(&self) -> impl Iterator<Item = (&str, Verdicts)> {
        self.snikeys.iter().map(|(snikey, verdicts)| (snikey.as_str(), *verdicts))
    }

    /// Endpoints by their keys.
    pub(crate) fn endpoints(&self) -> &HashMap<String, EndpointTotals> {
        &self.endpoints
    }

    /// What is known of any session.
    pub(crate) fn spreads(&self) -> impl Iterator<Item = (Quantity, Spread)> {
        let of =
            |(quantity, amounts): (&Quantity, &Vec<f64>)| Some((*quantity, Spread::of(amounts)?));
        self.spreads.iter().filter_map(of)
    }
}

/// Amounts of sessions that came to it. Of bytes nothing is told before a mlet was to run.
fn amounts(session: &Session) -> [(Quantity, Option<f64>); 14] {
    let ms = &session.ms;
    let relayed = |bytes: u64| ms.start.map(|_| bytes as f64);
    let (to, from) = match &session.relay_us {
        Some(relay) => (relay.to_ep, relay.from_ep),
        None => (None, None),
    };
    let of =
        |relay: Option<RelayLatency>, part: fn(RelayLatency) -> Option<f64>| relay.and_then(part);
    [
        (Quantity::Tls, ms.tls),
        (Quantity::Programs, ms.programs),
        (Quantity::Start, ms.start),
        (Quantity::Spawn, ms.spawn),
        (Quantity::Run, ms.run),
        (Quantity::Total, ms.total),
        (Quantity::ToEndpoint, relayed(session.bytes.to_ep)),
        (Quantity::FromEndpoint, relayed(session.bytes.from_ep)),
        (Quantity::RelayToP50, of(to, |relay| relay.p50)),
        (Quantity::RelayToP99, of(to, |relay| relay.p99)),
        (Quantity::RelayToMax, of(to, |relay| relay.max)),
        (Quantity::RelayFromP50, of(from, |relay| relay.p50)),
        (Quantity::RelayFromP99, of(from, |relay| relay.p99)),
        (Quantity::RelayFromMax, of(from, |relay| relay.max)),
    ]
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str, more: u64) {
    match counts.get_mut(name) {
        Some(count) => *count = count.saturating_add(more),
        None => {
            counts.insert(name.to_owned(), more);
        }
    }
}

/// The highest counts first, and in the order of the alphabet where they are equal.
fn most<'a>(counts: impl Iterator<Item = (&'a String, &'a u64)>) -> Vec<(&'a str, u64)> {
    let mut counts: Vec<_> = counts.map(|(name, count)| (name.as_str(), *count)).collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::record;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for members in lines {
            let line = format!(r#"{{"v":1,"t":"2026-11-23T12:00:00Z","run":"7",{members}}}"#);
            tally.add(&record::read(line.as_bytes()).unwrap(), &Filter::default());
        }
        tally
    }

    #[test]
    fn percentiles_are_amounts_that_occurred() {
        let amounts: Vec<_> = (1..=200).rev().map(f64::from).collect();
        let expected = Spread { count: 200, p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 };
        assert_eq!(Spread::of(&amounts), Some(expected));
        let one = Spread { count: 1, p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 };
        assert_eq!(Spread::of(&[7.0]), Some(one));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn sessions_and_folded_connections_are_counted_together_by_outcome() {
        let tally = tally(&[
            r#""ev":"run.start""#,
            r#""ev":"session.end","sid":1,"outcome":"ok","ep":{"key":"a","snikey":"s"},
               "ms":{"tls":2,"start":1,"run":10},"bytes":{"to_ep":1,"from_ep":2}"#,
            r#""ev":"session.end","sid":2,"outcome":"mlet_failed","failed":true,"reason":"mlet exit code 3",
               "ep":{"key":"a","snikey":"s"},"ms":{"tls":4,"start":1,"run":30}"#,
            r#""ev":"session.end","sid":3,"outcome":"tls_failed""#,
            r#""ev":"session.end","sid":4,"outcome":"surplus","ep":{"key":"b","snikey":"s"},"ms":{"tls":6}"#,
            r#""ev":"session.folded","outcome":"tls_failed","count":312"#,
            r#""ev":"run.end""#,
        ]);
        assert_eq!(tally.sessions, Verdicts { all: 4, ok: 1, failed: 1 });
        assert_eq!((tally.sessions.neither(), tally.folded), (2, 312));
        let outcomes = [("tls_failed", 313), ("mlet_failed", 1), ("ok", 1), ("surplus", 1)];
        assert_eq!(tally.outcomes(), outcomes);
        assert_eq!(tally.reasons(), [("mlet exit code 3", 1), ("surplus", 1), ("tls_failed", 1)]);
        let of_snikey = Verdicts { all: 3, ok: 1, failed: 1 };
        assert_eq!(tally.snikeys().collect::<Vec<_>>(), [("s", of_snikey)]);
        let endpoint = &tally.endpoints()["a"];
        assert_eq!((endpoint.run_ms, endpoint.bytes, endpoint.sessions.all), (Some(40.0), 3, 2));
        assert_eq!(tally.endpoints()["b"].run_ms, None);
        let spreads: Vec<_> = tally.spreads().map(|(name, spread)| (name, spread.count)).collect();
        assert_eq!(
            spreads,
            [
                (Quantity::Tls, 3),
                (Quantity::Start, 2),
                (Quantity::Run, 2),
                (Quantity::ToEndpoint, 2),
                (Quantity::FromEndpoint, 2),
            ]
        );
        assert_eq!(tally.runs[0].ended.as_deref(), Some("2026-11-23T12:00:00Z"));
    }
}
