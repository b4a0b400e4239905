//! The judge of a campaign over several machines: it reads what the fleet has logged and what the database has accepted, and
//! nothing that a manager says of itself.
//!
//! Not here: how the faults come about. Invariant: without a fault at the time nothing is excused.

use std::collections::BTreeMap;

use packetlab::time::Ticks;
use serde_json::Value;

use super::*;

/// A result whose session had ended so long before a fault may not have reached the database, nor is it sure what the log of
/// a busy machine is late by.
const UNREPORTED_MAX: Duration = Duration::from_secs(3);
/// What a fault has broken ends so long after it at most: an endpoint's connection through a proxy, a lease.
const BROKEN_MAX: Duration = Duration::from_secs(10);

/// When what happened, from the strike until all was well again.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) from: Ticks,
    pub(super) until: Ticks,
}

/// What is judged.
#[derive(Clone)]
pub(super) struct Told {
    /// Of the endpoints, the first first.
    pub(super) keys: Vec<String>,
    /// The fleet's.
    pub(super) log: Vec<String>,
    /// What the campaign has accepted.
    pub(super) results: Vec<Value>,
    pub(super) faults: Vec<Fault>,
}

/// From START on, as an endpoint saw it.
#[derive(Debug)]
struct Session {
    began: Ticks,
    over: Ticks,
    /// The mlet has said its last word, which is its only one.
    is_whole: bool,
}

/// Why it is not so that `count` endpoints have one result each, and that no session was in vain without a fault.
pub(super) fn faults_in(told: &Told, count: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sessions = sessions_in(&told.log, &mut wrong);
    let mut results: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for result in &told.results {
        results.entry(result["endpoint"].as_str().unwrap()).or_default().push(result);
    }
    let (mut starts, mut in_vain) = (0, 0);
    for (index, key) in told.keys.iter().enumerate() {
        let name = format!("EP{}", index + 1);
        let own = sessions.remove(&*name).unwrap_or_default();
        starts += own.len();
        if let Some(pair) = own.windows(2).find(|pair| pair[1].began < pair[0].over) {
            wrong.push(format!("{name} has two sessions at once: {pair:?}"));
        }
        let accepted = results.remove(&**key).unwrap_or_default();
        let vain = match &accepted[..] {
            [] => &own[..],
            [result] => {
                let epoch = usize::try_from(result["epoch"].as_u64().unwrap()).unwrap();
                if own.len() > epoch {
                    wrong.push(format!("{name} began {} times with {epoch} claims", own.len()));
                }
                let is_ok = result["outcome"] == "ok";
                match own.split_last() {
                    Some((last, before)) if last.is_whole == is_ok => before,
                    _ => {
                        wrong.push(format!("{name} has a result that it does not know: {result}"));
                        &own[..]
                    }
                }
            }
            several => {
                wrong.push(format!("{name} has {} results", several.len()));
                continue;
            }
        };
        in_vain += vain.len();
        let unexcused = vain.iter().filter(|session| !is_excused(session, &told.faults));
        wrong.extend(unexcused.map(|session| format!("{name} began in vain: {session:?}")));
    }
    wrong.extend(results.keys().map(|key| format!("{key} is a stranger")));
    wrong.extend(sessions.keys().map(|name| format!("{name} is a stranger")));
    if told.results.len() != count || starts - in_vain != count {
        wrong.push(format!(
            "{} results of {count}, and {starts} sessions of which {in_vain} were in vain",
            told.results.len()
        ));
    }
    wrong
}

/// A fault has broken it, or has kept its result from the database.
fn is_excused(session: &Session, faults: &[Fault]) -> bool {
    faults.iter().any(|fault| {
        session.over.saturating_add(UNREPORTED_MAX) >= fault.from
            && session.over <= fault.until.saturating_add(BROKEN_MAX)
    })
}

/// The sessions of each endpoint, the first first. All have ended.
fn sessions_in(log: &[String], wrong: &mut Vec<String>) -> BTreeMap<String, Vec<Session>> {
    let mut sessions: BTreeMap<String, Vec<Session>> = BTreeMap::new();
    let mut running: BTreeMap<&str, Ticks> = BTreeMap::new();
    for line in log {
        let Some((before, said)) = line.split_once(" endpoint EP") else { continue };
        let Some((number, said)) = said.split_once(": ") else { continue };
        let time = before.split(' ').next().unwrap();
        if said == "a session begins" {
            if running.insert(number, time_of(time)).is_some() {
                wrong.push(format!("EP{number} has two sessions at once"));
            }
        } else if let Some(end) = said.strip_prefix("session over, its mlet ") {
            let Some(began) = running.remove(number) else {
                wrong.push(format!("EP{number} ends what it has not begun"));
                continue;
            };
            let is_whole = end.starts_with("was heard");
            let session = Session { began, over: time_of(time), is_whole };
            sessions.entry(format!("EP{number}")).or_default().push(session);
        }
    }
    wrong.extend(running.keys().map(|number| format!("EP{number} goes on")));
    sessions
}

/// As log lines begin: `2026-11-30T01:44:29.393272Z`.
fn time_of(text: &str) -> Ticks {
    let (seconds, micros) = text.trim_end_matches('Z').split_once('.').unwrap();
    let seconds = Ticks::from_date(&format!("{seconds}Z")).unwrap();
    seconds.saturating_add(Duration::from_micros(micros.parse().unwrap()))
}

/// What is not so would have been found.
pub(super) fn a_judge_sees_what_is_not_so(told: &Told, count: usize) {
    let whole = |line: &&String| line.contains("session over, its mlet was heard");
    let over = told.log.iter().find(whole).unwrap();
    let name = over.split("endpoint ").nth(1).unwrap().split(':').next().unwrap();
    let begins = format!("{} endpoint {name}: a session begins", over.split(' ').next().unwrap());
    let seen = |change: &dyn Fn(&mut Told), words: &str| {
        let mut changed = told.clone();
        change(&mut changed);
        let wrong = faults_in(&changed, count);
        assert!(wrong.iter().any(|one| one.contains(words)), "{words}: {wrong:?}");
    };
    seen(&|told| told.results.push(told.results[0].clone()), "has 2 results");
    seen(&|told| drop(told.results.pop()), "began in vain");
    seen(&|told| told.results[0]["endpoint"] = "ab".into(), "ab is a stranger");
    seen(&|told| told.log.push(begins.clone()), "goes on");
    seen(&|told| told.log.extend([begins.clone(), over.clone()]), "began 2 times with 1 claims");
    seen(&|told| told.log.retain(|line| line != over), "goes on");
    seen(&|told| told.faults.clear(), "began in vain");
    seen(&|told| told.log.insert(0, begins.clone()), "has two sessions at once");
}
