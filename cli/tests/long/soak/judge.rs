//! Whether the records, the manager and the endpoints have seen the same sessions, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::endpoints::{Kind, Seen, SeenEnd};
use crate::common::events::assert_has_the_documented_form;

/// Of how many lines one is held to the schema, which takes longer than reading them.
const JUDGED_EVERY: usize = 100;

/// How many, by outcome.
pub(super) type Tally = BTreeMap<String, u64>;

/// The records of a run, by what they say.
#[derive(Default)]
struct Records {
    numbers: BTreeSet<u64>,
    /// Outcomes of sessions whose endpoint knew its number, by that.
    of_known: BTreeMap<u64, String>,
    /// The outcomes of the others.
    of_others: Tally,
    /// Of all.
    tally: Tally,
    /// What the manager counted.
    counted: Tally,
    /// How many its shards began, those included that it let go at the proxy before an endpoint came, which have no record.
    begun: u64,
    reloads: u32,
}

impl Records {
    fn read(path: &Path, known: &BTreeMap<u64, &Seen>) -> Self {
        let mut records = Self::default();
        for (index, line) in BufReader::new(File::open(path).unwrap()).lines().enumerate() {
            let record: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if index.is_multiple_of(JUDGED_EVERY) {
                assert_has_the_documented_form(&record);
            }
            records.take(&record, known);
        }
        records
    }

    fn take(&mut self, record: &Value, known: &BTreeMap<u64, &Seen>) {
        let outcome = || record["outcome"].as_str().unwrap().to_owned();
        match record["ev"].as_str().unwrap() {
            "session.end" => {
                let number = record["sid"].as_u64().unwrap();
                assert!(self.numbers.insert(number), "{number} has two records");
                *self.tally.entry(outcome()).or_default() += 1;
                if known.contains_key(&number) {
                    self.of_known.insert(number, outcome());
                } else {
                    *self.of_others.entry(outcome()).or_default() += 1;
                }
            }
            "session.folded" => {
                let count = record["count"].as_u64().unwrap();
                *self.tally.entry(outcome()).or_default() += count;
                *self.of_others.entry(outcome()).or_default() += count;
            }
            "run.end" => {
                let counts = record["counts"].as_object().unwrap().iter();
                self.counted =
                    counts.map(|(name, n)| (name.clone(), n.as_u64().unwrap())).collect();
            }
            "shard.end" => self.begun += record["sessions"].as_u64().unwrap(),
            "command" if record["via"] == "signal" => {
                assert_eq!(record["done"], true, "{record}");
                self.reloads += 1;
            }
            _ => {}
        }
    }
}

/// How many sessions have come to which outcome, as metrics tell it.
pub(super) fn told(metrics: &BTreeMap<String, f64>) -> Tally {
    let of_outcomes = metrics.iter().filter_map(|(name, count)| {
        let name = name.strip_prefix("pktxpmgr_sessions_total{outcome=\"")?.strip_suffix("\"}")?;
        Some((name.to_owned(), *count as u64))
    });
    of_outcomes.filter(|(_, count)| *count > 0).collect()
}

/// Asserts that the records of a run are those of the sessions that were seen, and were told before its end. At most
/// `let_go_max` connections were let go at the proxy.
pub(super) fn judge(path: &Path, seen: &[Seen], told: &Tally, (reloads, let_go_max): (u32, u64)) {
    let known: BTreeMap<u64, &Seen> =
        seen.iter().filter_map(|one| Some((one.number?, one))).collect();
    assert_eq!(known.len(), seen.iter().filter(|one| one.number.is_some()).count());
    let records = Records::read(path, &known);
    let ends = |end| seen.iter().filter(|one| one.end == end).count();
    let total: u64 = records.tally.values().sum();
    println!(
        "soak: {} sessions: {} ended as meant, {} cut off with the proxy, {} otherwise; {total} records: {:?}",
        seen.len(),
        ends(SeenEnd::AsMeant),
        ends(SeenEnd::CutOff),
        ends(SeenEnd::Otherwise),
        records.tally
    );
    println!(
        "soak: shards began {}; of sessions without a number: {:?}",
        records.begun, records.of_others
    );
    assert_eq!(ends(SeenEnd::Otherwise), 0, "ended otherwise than meant");
    assert_eq!(records.tally, records.counted, "what the manager counted");
    assert_eq!(records.tally, *told, "what metrics told");
    let let_go = records.begun - total;
    assert!(let_go <= let_go_max, "{let_go} have no record, and {let_go_max} were let go");
    assert_eq!(records.reloads, reloads);
    of_others_are_as_many(&records.of_others, seen);
    let mut faults = Vec::new();
    for (number, one) in &known {
        let outcome = records.of_known.get(number).map_or("without a record", String::as_str);
        let is_cut_off = one.end == SeenEnd::CutOff && is_of_proxy(outcome);
        if !one.kind.outcomes().contains(&outcome) && !is_cut_off {
            faults.push(format!("{number} is {outcome}: {one:?}"));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

/// What becomes of a session whose proxy is killed.
fn is_of_proxy(outcome: &str) -> bool {
    ["endpoint_closed", "endpoint_reset", "tls_failed", "undelivered"].contains(&outcome)
}

/// Asserts it of those whose endpoints knew no number: each that ended as meant is there, and beside them no more than were
/// cut off, and connections on which no endpoint had come.
fn of_others_are_as_many(of_others: &Tally, seen: &[Seen]) {
    let without_number = || seen.iter().filter(|one| one.number.is_none());
    let cut_off = without_number().filter(|one| one.end == SeenEnd::CutOff).count() as u64;
    let kinds: BTreeSet<Kind> = without_number().map(|one| one.kind).collect();
    let mut left = of_others.clone();
    left.retain(|outcome, _| outcome != "backlog_lost" && outcome != "drained");
    for kind in kinds {
        let meant = without_number()
            .filter(|one| one.kind == kind && one.end == SeenEnd::AsMeant)
            .count() as u64;
        let outcome = kind.outcomes()[0];
        let found = left.entry(outcome.to_owned()).or_default();
        assert!(*found >= meant, "{found} {outcome} of {meant} {kind:?}");
        *found -= meant;
    }
    let left: u64 = left.values().sum();
    println!(
        "soak: {cut_off} cut off before they knew their number, of which {left} have a record"
    );
    assert!(left <= cut_off, "{left} records are of nobody, of {cut_off} cut off");
}
