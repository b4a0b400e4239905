//! The judge of a campaign over several machines: it reads what the fleet has logged, what mlets have found locked, and what
//! the database has accepted and whom it has lost, and nothing that a manager says of itself.
//!
//! Not here: how the faults come about. Invariant: only what a fault has hit is excused, and only at the time of the fault.

use std::collections::BTreeMap;
use std::fmt;

use packetlab::time::Ticks;
use serde_json::Value;

use super::*;

const LEASE: Duration = Duration::from_secs(5);
/// A result whose session had ended so long before its manager was hit may not have reached the database.
const UNREPORTED_MAX: Duration = Duration::from_secs(3);
/// So late what has ended is seen on a busy machine.
const LATE_MAX: Duration = Duration::from_secs(2);

/// A database that is back is found again within this time.
const FOUND_MAX: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    CutOff,
    Stopped,
    Killed,
    ProxyKilled,
    DatabaseKilled,
}

/// What happened, to which managers, and when.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    what: What,
    /// Whose sessions it breaks.
    pub(super) hits: Vec<usize>,
    from: Ticks,
    /// It breaks no session that is there later.
    until: Ticks,
}

/// What is judged.
#[derive(Clone)]
pub(super) struct Told {
    /// Of the endpoints, the first first.
    pub(super) keys: Vec<String>,
    /// Of each manager its name and how its key begins.
    pub(super) managers: Vec<[String; 2]>,
    /// The fleet's.
    pub(super) log: Vec<String>,
    /// What the campaign has accepted.
    pub(super) results: Vec<Value>,
    /// When a mlet met another of its endpoint, which endpoint, and the names of their managers.
    pub(super) met: Vec<String>,
    /// The managers of memberships that were lost, and when their leases ended.
    pub(super) lost: Vec<String>,
    pub(super) faults: Vec<Fault>,
}

/// From START on, as an endpoint saw it.
#[derive(Debug, Clone)]
struct Session {
    began: Ticks,
    over: Ticks,
    /// With which manager.
    manager: usize,
    /// The mlet has said its last word, which is its only one.
    is_whole: bool,
}

/// What was found.
#[derive(Debug, Default)]
struct Verdict {
    wrong: Vec<String>,
    starts: usize,
    broken: usize,
    /// The mlet was heard, and there is no result of that.
    unreported: usize,
    /// Results of sessions that ended as they should.
    ok: usize,
}

impl Fault {
    pub(super) fn begins(what: What, hits: &[usize]) -> Self {
        let from = Ticks::from_system_time(std::time::SystemTime::now());
        Self { what, hits: hits.to_vec(), from, until: from }
    }

    pub(super) fn ends(self) -> Self {
        Self { until: Ticks::from_system_time(std::time::SystemTime::now()), ..self }
    }

    /// Whether it may have broken this session.
    fn breaks(&self, session: &Session) -> bool {
        self.hits.contains(&session.manager)
            && session.began <= self.until
            && self.is_at(session.over, Duration::ZERO)
    }

    /// Whether it may have kept the result of this session from the database.
    fn silences(&self, session: &Session) -> bool {
        self.what != What::ProxyKilled
            && self.hits.contains(&session.manager)
            && self.is_at(session.over, UNREPORTED_MAX)
    }

    /// Whether a lease that ended then was lost by it. A manager is fenced a fifth of its lease before the end of that, and a
    /// database that is back by then is found in time.
    fn loses(&self, manager: usize, lease_until: Ticks) -> bool {
        let ends = match self.what {
            What::CutOff | What::Stopped | What::Killed => self.until.saturating_add(LEASE),
            What::DatabaseKilled => self.until.saturating_add(LEASE / 5 + FOUND_MAX),
            What::ProxyKilled => return false,
        };
        self.hits.contains(&manager) && lease_until >= self.from && lease_until <= ends
    }

    /// Whether it went on at this time, or was so near.
    fn is_at(&self, time: Ticks, ahead: Duration) -> bool {
        time.saturating_add(ahead) >= self.from && time <= self.until.saturating_add(LATE_MAX)
    }
}

/// Asserts that `count` endpoints have one result each, that no session was in vain without a fault that hit it, and that
/// each fault has happened; prints what it has cost, and how much of all would have been excused.
pub(super) fn assert_judged_right(told: &Told, count: usize) {
    let verdict = judged(told, count);
    let began = told.log.iter().find_map(|line| event(line)).unwrap().0;
    for Fault { what, hits, from, until } in &told.faults {
        let [from, until] =
            [from, until].map(|time| time.saturating_duration_since(began).as_secs_f32());
        println!("{from:.1} s to {until:.1} s: {what:?}, {hits:?}");
    }
    println!(
        "{verdict}; excused would be for {:.0} % of the managers' time that a session broke, for {:.0} % that one has no result",
        100.0 * excused_share(told, Duration::ZERO),
        100.0 * excused_share(told, UNREPORTED_MAX),
    );
    assert_eq!(verdict.wrong, Vec::<String>::new());
}

fn judged(told: &Told, count: usize) -> Verdict {
    let mut verdict = Verdict::default();
    let mut sessions = sessions_in(told, &mut verdict.wrong);
    verdict.wrong.extend(faults_not_felt(told, &sessions));
    verdict.wrong.extend(leases_lost(told));
    verdict.wrong.extend(measured_twice(told));
    let mut results: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for result in &told.results {
        results.entry(result["endpoint"].as_str().unwrap()).or_default().push(result);
    }
    for (index, key) in told.keys.iter().enumerate() {
        let name = format!("EP{}", index + 1);
        let own = sessions.remove(&*name).unwrap_or_default();
        match &results.remove(&**key).unwrap_or_default()[..] {
            [] => verdict.judge(told, &name, own, None),
            [result] => verdict.judge(told, &name, own, Some(result)),
            several => verdict.wrong.push(format!("{name} has {} results", several.len())),
        }
    }
    verdict.wrong.extend(results.keys().map(|key| format!("{key} is a stranger")));
    verdict.wrong.extend(sessions.keys().map(|name| format!("{name} is a stranger")));
    let lines = |said: &str| told.log.iter().filter(|line| line.contains(said)).count();
    verdict.starts = lines(": a session begins, ");
    verdict.broken = lines(": session over, its mlet was not heard: ");
    let Verdict { starts, broken, unreported, ok, .. } = verdict;
    if told.results.len() != count || starts != broken + unreported + ok {
        verdict.wrong.push(format!("{} results of {count}; {verdict}", told.results.len()));
    }
    verdict
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { starts, broken, unreported, ok, .. } = self;
        write!(f, "{starts} STARTs, {broken} broken, {unreported} whole without a result, {ok} ok")
    }
}

impl Verdict {
    /// Judges the sessions of one endpoint, the last of which the result is of if there is one.
    fn judge(&mut self, told: &Told, name: &str, mut own: Vec<Session>, result: Option<&Value>) {
        let mut in_vain = own.len();
        if let Some(result) = result {
            let epoch = usize::try_from(result["epoch"].as_u64().unwrap()).unwrap();
            if own.len() > epoch {
                self.wrong.push(format!("{name} began {} times with {epoch} claims", own.len()));
            }
            let is_ok = result["outcome"] == "ok";
            self.ok += usize::from(is_ok);
            let of = |last: &Session| result["host"] == *told.managers[last.manager][0];
            match own.last_mut().filter(|last| of(last) && (last.is_whole || !is_ok)) {
                Some(last) => {
                    // The mlet may have been heard, and the session broken then.
                    self.unreported += usize::from(last.is_whole && !is_ok);
                    last.is_whole = is_ok;
                    in_vain -= usize::from(is_ok);
                }
                None => self.wrong.push(format!("{name} does not know of its result: {result}")),
            }
        }
        for session in &own[..in_vain] {
            let excused = |fault: &&Fault| match session.is_whole {
                true => fault.silences(session),
                false => fault.breaks(session),
            };
            if !told.faults.iter().any(|fault| excused(&fault)) {
                self.wrong.push(format!("{name} began in vain without a fault: {session:?}"));
            }
        }
        self.unreported += own[..in_vain].iter().filter(|session| session.is_whole).count();
    }
}

impl Told {
    fn manager(&self, name_or_key: &str) -> Option<usize> {
        self.managers.iter().position(|own| own.iter().any(|own| own == name_or_key))
    }

    /// The managers of memberships that were lost, and when their leases ended.
    fn losses(&self) -> Vec<(usize, Ticks)> {
        let losses = self.lost.iter().map(|line| {
            let (name, time) = line.split_once('|').unwrap();
            (self.manager(name).unwrap(), time_of(time))
        });
        losses.collect()
    }
}

/// Why each fault did not happen, as far as the fleet and the database know.
fn faults_not_felt(told: &Told, sessions: &BTreeMap<String, Vec<Session>>) -> Vec<String> {
    let losses = told.losses();
    let mut wrong = Vec::new();
    for fault in told.faults.iter().filter(|fault| fault.what != What::DatabaseKilled) {
        let broken = |session: &Session| !session.is_whole && fault.breaks(session);
        if !sessions.values().flatten().any(broken) {
            wrong.push(format!("no session was broken by this: {fault:?}"));
        }
        let is_lost = |manager: usize| {
            losses.iter().any(|(of, end)| *of == manager && fault.loses(manager, *end))
        };
        if fault.what != What::ProxyKilled && !fault.hits.iter().all(|hit| is_lost(*hit)) {
            wrong.push(format!("no lease was lost by this: {fault:?}"));
        }
    }
    wrong
}

/// Leases that were lost without a fault.
fn leases_lost(told: &Told) -> Vec<String> {
    let is_excused =
        |(manager, end): (usize, Ticks)| told.faults.iter().any(|fault| fault.loses(manager, end));
    let lost = told.lost.iter().zip(told.losses()).filter(|(_, loss)| !is_excused(*loss));
    lost.map(|(line, _)| format!("a lease was lost without a fault: {line}")).collect()
}

/// Endpoints that were measured twice at once, but for those of a manager that was stopped (docs/spec/campaign.md 5).
fn measured_twice(told: &Told) -> Vec<String> {
    let is_excused = |line: &&String| {
        let [time, _, both @ ..] = &line.split(' ').collect::<Vec<_>>()[..] else { return false };
        let is_stopped = |name: &&str| {
            told.manager(name).is_some_and(|manager| {
                let stop = |fault: &Fault| fault.what == What::Stopped && fault.hits == [manager];
                told.faults
                    .iter()
                    .any(|fault| stop(fault) && fault.is_at(time_of(time), Duration::ZERO))
            })
        };
        both.iter().any(is_stopped)
    };
    let met = told.met.iter().filter(|line| !is_excused(line));
    met.map(|line| format!("two mlets at once: {line}")).collect()
}

/// At which part of all their time something of managers would be excused that was over so much before a fault.
fn excused_share(told: &Told, ahead: Duration) -> f64 {
    let mut times = told.log.iter().filter_map(|line| event(line)).map(|(time, ..)| time);
    let (Some(first), Some(last)) = (times.next(), times.next_back()) else { return 0.0 };
    let mut excused = Duration::ZERO;
    for manager in 0..told.managers.len() {
        let mut free = first;
        for fault in told.faults.iter().filter(|fault| fault.hits.contains(&manager)) {
            let from = fault.from.0.saturating_sub(ahead.as_nanos() as u64);
            let until = fault.until.saturating_add(LATE_MAX);
            excused += until.saturating_duration_since(free.max(Ticks(from)));
            free = free.max(until);
        }
    }
    let all = last.saturating_duration_since(first) * told.managers.len() as u32;
    excused.as_secs_f64() / all.as_secs_f64()
}

/// When an endpoint has logged something of a session, the endpoint, and what.
fn event(line: &str) -> Option<(Ticks, &str, &str)> {
    let (before, said) = line.split_once(" endpoint ")?;
    let (name, said) = said.split_once(": ")?;
    let is_of_session = said.starts_with("a session begins") || said.starts_with("session over");
    is_of_session.then(|| (time_of(before.split(' ').next().unwrap()), name, said))
}

/// The sessions of each endpoint, the first first. All have ended.
fn sessions_in(told: &Told, wrong: &mut Vec<String>) -> BTreeMap<String, Vec<Session>> {
    let mut sessions: BTreeMap<String, Vec<Session>> = BTreeMap::new();
    let mut running: BTreeMap<&str, (Ticks, usize)> = BTreeMap::new();
    for (time, name, said) in told.log.iter().filter_map(|line| event(line)) {
        if let Some(key) = said.strip_prefix("a session begins, controller key ") {
            let Some(manager) = told.manager(key) else {
                wrong.push(format!("{name} was measured by a stranger: {key}"));
                continue;
            };
            if running.insert(name, (time, manager)).is_some() {
                wrong.push(format!("{name} has two sessions at once"));
            }
        } else if let Some((began, manager)) = running.remove(name) {
            let is_whole = said.starts_with("session over, its mlet was heard");
            let session = Session { began, over: time, manager, is_whole };
            sessions.entry(name.to_owned()).or_default().push(session);
        } else {
            wrong.push(format!("{name} ends what it has not begun"));
        }
    }
    wrong.extend(running.keys().map(|name| format!("{name} goes on")));
    sessions
}

/// As log lines begin: `2026-11-30T01:44:29.393272Z`.
pub(super) fn time_of(text: &str) -> Ticks {
    let (seconds, micros) = text.trim_end_matches('Z').split_once('.').unwrap();
    let seconds = Ticks::from_date(&format!("{seconds}Z")).unwrap();
    seconds.saturating_add(Duration::from_micros(micros.parse().unwrap()))
}

/// A session of a run to which nothing happened, and what is told of it.
struct Quiet {
    session: Session,
    /// When it was over, as the log has it.
    time: String,
    over: String,
    /// As if it had begun when it was over.
    begins: String,
    /// Its place among the results.
    result: usize,
}

impl Quiet {
    /// One of an endpoint that had no other, at a time that is far from all faults that hit its manager.
    fn of(told: &Told) -> Self {
        let is_far = |session: &Session, fault: &Fault| {
            session.over.saturating_add(UNREPORTED_MAX) < fault.from
                || session.over > fault.until.saturating_add(LEASE)
                || !fault.hits.contains(&session.manager)
        };
        let is_quiet = |own: &[Session]| {
            own.len() == 1 && told.faults.iter().all(|fault| is_far(&own[0], fault))
        };
        let sessions = sessions_in(told, &mut Vec::new());
        let (name, own) = sessions.into_iter().find(|(_, own)| is_quiet(own)).unwrap();
        let [session] = <[Session; 1]>::try_from(own).unwrap();
        let of = format!(" endpoint {name}: ");
        let is_over = |line: &&String| line.contains(&of) && line.contains("session over");
        let over = told.log.iter().find(is_over).unwrap().clone();
        let time = over.split(' ').next().unwrap().to_owned();
        let key = &told.managers[session.manager][1];
        let begins = format!("{time}{of}a session begins, controller key {key}");
        let key = &told.keys[name.strip_prefix("EP").unwrap().parse::<usize>().unwrap() - 1];
        let result = told.results.iter().position(|result| result["endpoint"] == **key).unwrap();
        Self { session, time, over, begins, result }
    }
}

const IN_VAIN: &str = "began in vain without a fault";

/// What is wrong with what is told after a change.
fn wrong_after(told: &Told, count: usize, change: &dyn Fn(&mut Told)) -> Vec<String> {
    let mut changed = told.clone();
    change(&mut changed);
    judged(&changed, count).wrong
}

#[track_caller]
fn assert_seen(told: &Told, count: usize, words: &str, change: &dyn Fn(&mut Told)) {
    let wrong = wrong_after(told, count, change);
    assert!(wrong.iter().any(|one| one.contains(words)), "{words}: {wrong:?}");
}

/// What is not so would have been found.
pub(super) fn a_judge_sees_what_is_not_so(told: &Told, count: usize) {
    let seen = |change: &dyn Fn(&mut Told), words: &str| assert_seen(told, count, words, change);
    let Quiet { session, time, over, begins, result } = Quiet::of(told);
    seen(&|told| told.results.push(told.results[0].clone()), "has 2 results");
    seen(&|told| drop(told.results.remove(result)), IN_VAIN);
    seen(&|told| told.results[0]["endpoint"] = "ab".into(), "ab is a stranger");
    seen(&|told| told.results[0]["host"] = "lab".into(), "does not know of its result");
    seen(&|told| told.results[result]["outcome"] = "mlet_failed".into(), IN_VAIN);
    let breaks = |told: &mut Told| {
        let line = told.log.iter_mut().find(|line| **line == over).unwrap();
        *line = line.replace("was heard", "was not heard");
    };
    seen(&breaks, "does not know of its result");
    seen(
        &|told| {
            breaks(told);
            told.results[result]["outcome"] = "endpoint_lost".into();
        },
        IN_VAIN,
    );
    seen(&|told| told.log.push(begins.clone()), "goes on");
    seen(&|told| told.log.extend([begins.clone(), over.clone()]), "began 2 times with 1 claims");
    seen(&|told| told.log.retain(|line| *line != over), "goes on");
    seen(&|told| told.log.insert(0, begins.clone()), "has two sessions at once");
    seen(&|told| told.managers[session.manager][1].clear(), "was measured by a stranger");
    let manager = &told.managers[session.manager][0];
    let lost = format!("{manager}|{time}");
    seen(&|told| told.lost.push(lost.clone()), "was lost without a fault: ");
    seen(&|told| told.lost.clear(), "no lease was lost by this");
    seen(&|told| told.met.push(format!("{time} key {manager} {manager}")), "two mlets at once");
    let (what, hits) = (What::Killed, vec![session.manager]);
    let fault = Fault { what, hits, from: session.over, until: session.over };
    seen(&|told| told.faults.push(fault.clone()), "no session was broken by this");
    only_what_a_fault_has_hit_is_excused(told, count);
}

/// What is excused would have been found if the fault had hit another manager, or at another time.
fn only_what_a_fault_has_hit_is_excused(told: &Told, count: usize) {
    let others = |hits: &[usize]| -> Vec<usize> {
        (0..told.managers.len()).filter(|manager| !hits.contains(manager)).collect()
    };
    for (index, fault) in told.faults.iter().enumerate() {
        if fault.what != What::DatabaseKilled {
            let another = |told: &mut Told| told.faults[index].hits = others(&fault.hits);
            assert_seen(told, count, IN_VAIN, &another);
        }
    }
    let Quiet { session, result, .. } = Quiet::of(told);
    let is_in_vain = |what, hits: &[usize], later: u64| {
        let from = session.over.saturating_add(Duration::from_secs(later));
        let wrong = wrong_after(told, count, &|told| {
            told.results.remove(result);
            told.faults.push(Fault { what, hits: hits.to_vec(), from, until: from });
        });
        wrong.iter().any(|one| one.contains(IN_VAIN))
    };
    let own = [session.manager];
    assert!(!is_in_vain(What::Killed, &own, 2), "its result may be lost");
    assert!(is_in_vain(What::Killed, &own, 4), "it had time enough");
    assert!(is_in_vain(What::Killed, &others(&own), 2), "its manager was not hit");
    assert!(is_in_vain(What::ProxyKilled, &own, 2), "results do not pass the proxy");
    let stop = told.faults.iter().find(|fault| fault.what == What::Stopped).unwrap();
    let during = |line: &&String| {
        event(line).is_some_and(|(time, ..)| time >= stop.from && time <= stop.until)
    };
    let line = told.log.iter().find(during).unwrap();
    let time = line.split(' ').next().unwrap();
    let names = [&stop.hits[..], &others(&stop.hits)].concat();
    let names = names.into_iter().map(|manager| &*told.managers[manager][0]).collect::<Vec<_>>();
    let met = |one: &str, other: &str| {
        let line = format!("{time} key {one} {other}");
        wrong_after(told, count, &|told| told.met.push(line.clone()))
    };
    assert_eq!(met(names[1], names[0]), Vec::<String>::new(), "one was stopped");
    assert!(!met(names[1], names[2]).is_empty(), "none was stopped");
}
