//! `storm` and `idle`: what sessions cost that are there.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::conditions::{Conditions, Outcome};
use super::error::LoadError;
use super::histogram;
use super::process::{Usage, syns_sent_again};
use super::report::Report;
use super::sessions::{is_sampled, join, message, open, open_all, round_trip};
use hosts::endpoint::Endpoint;

/// After the last set-up, until memory is looked at.
const SETTLE: Duration = Duration::from_secs(1);

/// All connect in one instant; each then makes one request.
pub(super) async fn storm(
    endpoints: Vec<Endpoint>,
    conditions: Conditions,
) -> Result<Outcome, LoadError> {
    let mut outcome = Outcome::begin(endpoints.len());
    let pid = conditions.pid;
    let syns_before = syns_sent_again()?;
    let (before, began) = (Usage::of(pid)?, Instant::now());
    let message = message(conditions.size);
    let mut tasks = JoinSet::new();
    for endpoint in endpoints {
        let message = message.clone();
        tasks.spawn(async move {
            let stream = open(&endpoint, conditions.relay).await?;
            Ok((stream, began.elapsed(), message))
        });
    }
    let sessions = join(tasks).await?;
    outcome.report.add_time("all set up after", began.elapsed());
    let held = Usage::of(pid)?;
    let mut ups = histogram::empty()?;
    let mut requests = JoinSet::new();
    for (mut stream, up, message) in sessions {
        ups.saturating_record(up.as_nanos() as u64);
        requests.spawn(async move {
            let mut answer = vec![0; message.len()];
            round_trip(&mut stream, &message, &mut answer).await?;
            Ok(stream)
        });
    }
    let answered = join(requests).await?;
    let report = &mut outcome.report;
    is_sampled(answered.len() as u64, "session")?;
    report.add("answered", answered.len() as f64, "");
    report.add_time("all answered after", began.elapsed());
    report.add("SYNs sent again", (syns_sent_again()? - syns_before) as f64, "");
    report.add_times("", &ups);
    let (cpu, count) = (held.cpu - before.cpu, answered.len() as f64);
    report.add("cpu per session", cpu.as_secs_f64() * 1e6 / count, "us");
    report.add("cpu of one core", 100.0 * cpu.div_duration_f64(began.elapsed()), "%");
    add_held(report, before, held, answered.len());
    Ok(outcome)
}

/// All are set up and let be.
pub(super) async fn idle(
    endpoints: Vec<Endpoint>,
    conditions: Conditions,
) -> Result<Outcome, LoadError> {
    let mut outcome = Outcome::begin(endpoints.len());
    let (pid, duration) = (conditions.pid, conditions.pace.duration);
    let before = Usage::of(pid)?;
    let streams = open_all(endpoints, conditions.relay).await?;
    tokio::time::sleep(SETTLE).await;
    let held = Usage::of(pid)?;
    tokio::time::sleep(duration).await;
    let after = Usage::of(pid)?;
    is_sampled(streams.len() as u64 * u64::from(!duration.is_zero()), "idle session")?;
    let report = &mut outcome.report;
    add_held(report, before, held, streams.len());
    report.add("cpu while idle", 100.0 * (after.cpu - held.cpu).div_duration_f64(duration), "%");
    Ok(outcome)
}

/// What each held session costs.
fn add_held(report: &mut Report, before: Usage, held: Usage, sessions: usize) {
    let sessions = sessions.max(1) as f64;
    let pss = held.pss_bytes.saturating_sub(before.pss_bytes) as f64;
    report.add("PSS per session", pss / sessions / 1024.0, "KiB");
    report.add("fds per session", held.fds.saturating_sub(before.fds) as f64 / sessions, "");
    report.add("threads", held.threads as f64, "");
}
