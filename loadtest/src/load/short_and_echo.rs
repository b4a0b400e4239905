//! `short` and `echo`: every endpoint does the same again and again.
//!
//! Not here: when it begins anew (`start_times`).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::bare;
use super::conditions::{Conditions, Outcome};
use super::error::LoadError;
use super::histogram;
use super::process::{self, Usage};
use super::report::{QUANTILES, Report};
use super::sessions::{Stream, is_sampled, join, message, open, open_all, read_to_end, round_trip};
use super::start_times::{self, Dispatcher, Pace, Samples, Window};
use hosts::endpoint::Endpoint;

/// What is done, by its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct What {
    one: &'static str,
    many: &'static str,
}

const SESSIONS: What = What { one: "session", many: "sessions" };
pub(super) const ROUND_TRIPS: What = What { one: "round trip", many: "round trips" };

/// What has been done in the measured part of a window.
#[derive(Debug)]
pub(super) struct Repeated {
    pub(super) samples: Samples,
    pub(super) elapsed: Duration,
    /// CPU time of the relay.
    pub(super) cpu: Duration,
}

/// Sessions, each of which ends at once.
pub(super) async fn short(
    endpoints: Vec<Endpoint>,
    conditions: Conditions,
) -> Result<Outcome, LoadError> {
    let mut outcome = Outcome::begin(endpoints.len());
    let (window, turns, dispatcher) = start_times::begin(conditions.pace, endpoints.len());
    let mut tasks = JoinSet::new();
    for (endpoint, mut turns) in endpoints.into_iter().zip(turns) {
        tasks.spawn(async move {
            while let Some(due) = turns.next().await {
                let mut stream = open(&endpoint, conditions.relay).await?;
                read_to_end(&mut stream).await?;
                // It is the endpoint's turn to close, or the manager would linger.
                stream.shutdown().await?;
                turns.done(due);
            }
            Ok(turns.samples)
        });
    }
    let (all, repeated) = gather(tasks, window, dispatcher, conditions.pid).await?;
    let repeated = Repeated { samples: Samples::together(all), ..repeated };
    let report = &mut outcome.report;
    repeated.add_to(report, "", SESSIONS, conditions.pace)?;
    repeated.add_cpu(report, "", SESSIONS);
    report.add("fds at end", Usage::of(conditions.pid)?.fds as f64, "");
    outcome.tagged.push(("short", repeated.samples));
    Ok(outcome)
}

/// Messages to mlets that send them back.
pub(super) async fn echo(
    endpoints: Vec<Endpoint>,
    conditions: Conditions,
) -> Result<Outcome, LoadError> {
    let mut outcome = Outcome::begin(endpoints.len());
    let mut streams = open_all(endpoints, conditions.relay).await?;
    let message = message(conditions.size);
    let bare = bare::round_trip(message.len(), conditions.placement)?;
    let repeated = round_trips(&mut streams, &message, conditions).await?;
    let report = &mut outcome.report;
    repeated.add_to(report, "", ROUND_TRIPS, conditions.pace)?;
    report.add_time("bare TCP + socket pair p50", bare);
    repeated.add_cpu(report, "", ROUND_TRIPS);
    outcome.tagged.push(("echo", repeated.samples));
    Ok(outcome)
}

/// Round trips in all these sessions, which stay.
pub(super) async fn round_trips(
    streams: &mut Vec<Stream>,
    message: &[u8],
    conditions: Conditions,
) -> Result<Repeated, LoadError> {
    let (window, turns, dispatcher) = start_times::begin(conditions.pace, streams.len());
    let mut tasks = JoinSet::new();
    for (mut stream, mut turns) in streams.drain(..).zip(turns) {
        let message = message.to_vec();
        tasks.spawn(async move {
            let mut answer = vec![0; message.len()];
            while let Some(due) = turns.next().await {
                round_trip(&mut stream, &message, &mut answer).await?;
                turns.done(due);
            }
            Ok((stream, turns.samples))
        });
    }
    let (all, repeated) = gather(tasks, window, dispatcher, conditions.pid).await?;
    let (kept, samples): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    streams.extend(kept);
    Ok(Repeated { samples: Samples::together(samples), ..repeated })
}

/// Waits for the tasks of a window; what they return, and what the relay has used meanwhile.
async fn gather<T: 'static>(
    tasks: JoinSet<Result<T, LoadError>>,
    window: Window,
    dispatcher: Option<Dispatcher>,
    pid: u32,
) -> Result<(Vec<T>, Repeated), LoadError> {
    // Dropped with this, it ends with it.
    let mut dispatching = JoinSet::new();
    if let Some(dispatcher) = dispatcher {
        dispatching.spawn(dispatcher.run());
    }
    window.warmed_up().await;
    let (before, began) = (process::cpu_of(pid)?, Instant::now());
    let all = join(tasks).await?;
    let (elapsed, cpu) = (began.elapsed(), process::cpu_of(pid)? - before);
    Ok((all, Repeated { samples: Samples::default(), elapsed, cpu }))
}

impl Repeated {
    /// Adds, with `front` before the names, how many there were, how many a second, and how long they took.
    ///
    /// # Errors
    /// There was none.
    pub(super) fn add_to(
        &self,
        report: &mut Report,
        front: &str,
        what: What,
        pace: Pace,
    ) -> Result<(), LoadError> {
        let count = self.samples.times.len();
        is_sampled(count as u64, what.one)?;
        report.add(format!("{front}{}", what.many), count as f64, "");
        let per_second = count as f64 / self.elapsed.as_secs_f64();
        report.add(format!("{front}{}", what.many), per_second, "/s");
        if pace.per_second.is_some() {
            report.add(format!("{front}started late"), self.samples.late as f64, "");
            report.add(format!("{front}not started"), self.samples.not_started as f64, "");
        }
        report.add_times(front, &histogram::of(&self.samples)?);
        Ok(())
    }

    pub(super) fn add_cpu(&self, report: &mut Report, front: &str, what: What) {
        let count = self.samples.times.len().max(1);
        let each = self.cpu.as_secs_f64() * 1e6 / count as f64;
        report.add(format!("{front}cpu per {}", what.one), each, "us");
        report.add(
            format!("{front}cpu of one core"),
            100.0 * self.cpu.div_duration_f64(self.elapsed),
            "%",
        );
    }
}

/// Adds the ratios of the times of two phases, under names with this front.
pub(super) fn add_beside(
    report: &mut Report,
    front: &str,
    one: &Samples,
    other: &Samples,
) -> Result<(), LoadError> {
    let (one, other) = (histogram::of(one)?, histogram::of(other)?);
    for (name, quantile) in QUANTILES {
        let of = |times: &Histogram<u64>| times.value_at_quantile(quantile) as f64;
        report.add(format!("{front}{name}"), of(&one) / of(&other), "");
    }
    Ok(())
}
