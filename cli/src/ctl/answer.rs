//! What a run answers: lines of JSON, the last of which has the member `done`.
//!
//! Not here: how they are sent (`socket.rs`). Invariant: members are only ever added.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Parser;
use engine::{Answer, Change, ExperimentState, Order, RunView, SessionState, Snapshot, Steering};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;

use super::words::{Asked, Request, Shown};
use crate::args::{Args, SetLimits};
use crate::logging::SetLevel;

/// Whom to ask.
pub(crate) struct Answering {
    steering: Steering,
    view: RunView,
    /// As they are now.
    limits: Mutex<SetLimits>,
    set_level: SetLevel,
}

#[derive(Deserialize)]
struct Line {
    words: Vec<String>,
}

#[derive(Serialize)]
struct End<'a> {
    done: bool,
    told: &'a str,
}

impl Answering {
    /// For a run that was started with these words.
    pub(crate) fn new(args: &Args, steering: Steering, view: RunView, set_level: SetLevel) -> Self {
        Self { steering, view, limits: Mutex::new(args.set_limits()), set_level }
    }

    /// The answer to a line, all of its lines.
    pub(super) fn answer(&self, line: &[u8]) -> Vec<u8> {
        let asked = serde_json::from_slice::<Line>(line)
            .map_err(|_| "a request is a line such as {\"words\":[\"show\",\"stat\"]}".to_owned())
            .and_then(|Line { words }| {
                let request = Request::try_parse_from(words);
                request.map(|request| request.asked).map_err(|error| first_line(&error.to_string()))
            });
        let (rows, end) = match asked.and_then(|asked| self.carry_out(asked)) {
            Ok((rows, told)) => (rows, (true, told)),
            Err(reason) => (Vec::new(), (false, reason)),
        };
        let mut text: Vec<u8> =
            rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect();
        // Only maps with keys that are no text cannot be written.
        let end = serde_json::to_string(&End { done: end.0, told: &end.1 }).unwrap_or_default();
        text.extend(format!("{end}\n").into_bytes());
        text
    }

    fn carry_out(&self, asked: Asked) -> Result<(Vec<Value>, String), String> {
        match asked {
            Asked::Show { what: Shown::Stat } => Ok((stat(&self.view.snapshot()), String::new())),
            Asked::Show { what: Shown::Limits } => {
                let sessions_max = self.view.places().max;
                Ok((limits(&self.limits(), sessions_max), String::new()))
            }
            Asked::Show { what: Shown::Sessions } => self.ask(Order::ListSessions),
            Asked::Show { what: Shown::Experiments } => self.ask(Order::ListExperiments),
            Asked::Kill { whom } => self.ask(Order::Change(Change::Kill(whom))),
            Asked::Drain => self.ask(Order::Change(Change::Drain)),
            Asked::Stop => self.ask(Order::Change(Change::Stop)),
            Asked::Reload => self.ask(Order::Change(Change::Reload)),
            Asked::Set { limit, value } => self.set(&limit, &value),
            Asked::Loglevel { level } => {
                if !(self.set_level)(level.into()) {
                    return Err("what is logged cannot be changed in this run".into());
                }
                let words = format!("loglevel {}", LevelFilter::from(level));
                self.ask(Order::Change(Change::Note(words)))
            }
        }
    }

    fn set(&self, limit: &str, value: &str) -> Result<(Vec<Value>, String), String> {
        let mut limits = self.limits();
        let set = limits.with(limit, value).map_err(|error| first_line(&error))?;
        let before = limits.in_words().find(|(known, _)| *known == limit);
        let before = before.map(|(_, value)| value.to_owned()).unwrap_or_default();
        let words = format!("{limit} {value}");
        let order = Change::SetLimit { words, before, limits: Box::new(set.limits()) };
        let done = self.ask(Order::Change(order))?;
        *limits = set;
        Ok(done)
    }

    fn limits(&self) -> MutexGuard<'_, SetLimits> {
        // Whoever panicked has left the ones before.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, order: Order) -> Result<(Vec<Value>, String), String> {
        match self.steering.ask(order) {
            None => Err("the run is over".into()),
            Some(Answer::Refused(reason)) => Err(reason),
            Some(Answer::Done(told)) => Ok((Vec::new(), told)),
            Some(Answer::Sessions(sessions)) => {
                Ok((sessions.iter().map(session).collect(), String::new()))
            }
            Some(Answer::Experiments(experiments)) => {
                Ok((experiments.iter().map(experiment).collect(), String::new()))
            }
        }
    }
}

/// Each limit as it was typed; and the number in effect, of those that follow from others.
fn limits(limits: &SetLimits, sessions_max: usize) -> Vec<Value> {
    let row = |(limit, value): (&str, &str)| {
        let in_effect = match limit {
            "sessions-max" => Some(sessions_max),
            "sessions-per-key-max" => limits.limits().sessions_of_a_key(sessions_max),
            _ => None,
        };
        json!({ "limit": limit, "value": value, "in_effect": in_effect })
    };
    limits.in_words().map(row).collect()
}

fn session(session: &SessionState) -> Value {
    json!({
        "session": session.id,
        "key": session.key.map(|key| key.to_string()),
        "snikey": session.snikey.as_ref().map(|snikey| snikey.as_str()),
        "pid": session.pid,
        "age_s": tenths(session.age),
        "to_ep": session.bytes.map(|bytes| bytes.to_endpoint),
        "from_ep": session.bytes.map(|bytes| bytes.from_endpoint),
        "peer": session.peer.to_string(),
        "last_outcome": session.last_outcome.map(|outcome| outcome.to_string()),
    })
}

fn experiment(experiment: &ExperimentState) -> Value {
    json!({
        "snikey": experiment.snikey.as_str(),
        "default": experiment.is_default,
        "certificates": experiment.certificates,
        "expires": experiment.not_after.map(|end| end.date().to_string()),
        "programs": experiment.programs,
    })
}

/// Seconds, to one digit behind the point.
fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// Counts of the whole run, a row each.
fn stat(run: &Snapshot) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut row = |name: String, value: Value| rows.push(json!({ "name": name, "value": value }));
    row("state".into(), run.stage.to_string().into());
    row("lasted_s".into(), run.lasted.as_secs().into());
    for (phase, count) in run.sessions.named() {
        row(format!("sessions {phase}"), count.into());
    }
    row("sessions at once".into(), run.places.taken.into());
    row("sessions at once, limit".into(), run.places.max.into());
    row("mlets".into(), run.mlets.into());
    for (outcome, count) in &run.summary.outcomes {
        row(format!("ended {outcome}"), (*count).into());
    }
    row("failed".into(), run.summary.failed.into());
    let waiting = run.reporting.results_waiting;
    if run.campaign.is_some() || waiting > 0 {
        row("campaign results waiting".into(), waiting.into());
    }
    if let Some(silent) = run.reporting.silent {
        row("campaign database silent for_s".into(), tenths(silent).into());
    }
    if let Some(campaign) = &run.campaign {
        for (state, count) in campaign.endpoints() {
            row(format!("campaign {}", state.replace('_', " ")), count.into());
        }
        row("campaign done, last minute".into(), campaign.done_last_minute.into());
        row("campaign managers".into(), campaign.managers.into());
        row("campaign places".into(), campaign.places.into());
    }
    row("bytes to endpoints".into(), run.bytes.to_endpoint.into());
    row("bytes from endpoints".into(), run.bytes.from_endpoint.into());
    row("messages to endpoints".into(), run.messages.to_endpoint.into());
    row("messages from endpoints".into(), run.messages.from_endpoint.into());
    for core in &run.cores {
        let Some(stalled) = core.stalled else { continue };
        row(format!("core {} stalled_s", core.core), tenths(stalled).into());
    }
    for broker in &run.brokers {
        row(format!("broker {}", broker.name), broker.stage.to_string().into());
    }
    for proxy in &run.proxies {
        row(format!("proxy {}", proxy.name), proxy.to_string().into());
    }
    row("reloads done".into(), run.reloads.done.into());
    row("reloads refused".into(), run.reloads.refused.into());
    if let Some(reading) = run.reloads.reading {
        row("reload reads for_s".into(), tenths(reading).into());
    }
    row("open files".into(), run.files.open.into());
    row("open files, limit".into(), run.files.limit.into());
    rows
}

/// What clap says first, without its usage.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
