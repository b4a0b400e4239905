//! Where the counts of a run are while it goes on.
//!
//! Not here: what is told of them (`snapshot.rs`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use packetlab::time::Ticks;

use super::ended_sessions::{EndedSession, EndedSessions};
use super::last_outcomes::LastOutcomes;
use super::snapshot::{
    BrokerState, CoreState, Files, Goal, Losses, Places, ProxyState, Reloads, Reporting, RunStage,
    SessionsByPhase, Snapshot,
};
use crate::config::{Approach, Config};
use crate::metrics::{BothWays, RunLatency, SessionPlaces, ShardCounts, ShardNumber, ShardNumbers};
use crate::permits::CampaignSums;
use crate::records::{OutcomeKind, SessionRecord, Summary};
use crate::sys::{cpu, limits};

/// A run, to be looked at from any thread, before it begins and when it is over too.
#[derive(Debug, Clone)]
pub struct RunView(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    started: Instant,
    shards: Vec<ShardView>,
    latency: Option<Arc<RunLatency>>,
    /// `-n`, and `--require` with those of earlier runs.
    attempts: Option<u64>,
    required: Option<(u64, u64)>,
    log_lines_lost: Arc<AtomicU64>,
    records_lost: Arc<AtomicU64>,
    state: Mutex<RunState>,
    ended_sessions: Mutex<EndedSessions>,
}

#[derive(Debug)]
struct ShardView {
    core: usize,
    counts: Arc<ShardCounts>,
    load: Mutex<Load>,
}

/// How much a thread has worked, when it was looked at.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// The look from which on its share is told.
    from: (Instant, Duration),
    /// The next one.
    next: (Instant, Duration),
    /// The last one: when a thread has ended, nobody knows any more.
    last: (Instant, Duration),
}

/// A share is told of so long at least.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

impl Load {
    fn new(now: Instant) -> Self {
        let nothing = (now, Duration::ZERO);
        Self { from: nothing, next: nothing, last: nothing }
    }

    /// It has worked for so long by now, if that is known.
    fn look(&mut self, busy: Option<Duration>, now: Instant) {
        self.last = (now, busy.unwrap_or(self.last.1));
        if now.saturating_duration_since(self.next.0) >= LOAD_INTERVAL {
            (self.from, self.next) = (self.next, self.last);
        }
    }

    fn ratio(&self) -> f64 {
        let [(began, before), (now, busy)] = [self.from, self.last];
        let lasted = now.saturating_duration_since(began);
        let worked = busy.saturating_sub(before);
        if lasted.is_zero() { 0.0 } else { worked.as_secs_f64() / lasted.as_secs_f64() }
    }
}

/// What the control thread knows of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunState {
    /// How far it is.
    pub(crate) stage: RunStage,
    /// Until when experiments are published.
    pub(crate) publication_end: Option<Ticks>,
    /// How it stands with each broker.
    pub(crate) brokers: Vec<BrokerState>,
    /// How it stands with each proxy.
    pub(crate) proxies: Vec<ProxyState>,
    /// Where places of sessions are counted.
    pub(crate) places: Arc<SessionPlaces>,
    /// Sessions past START that are not over.
    pub(crate) running: usize,
    /// Mlets that may still run.
    pub(crate) mlets: usize,
    /// Mlets whose output is still read.
    pub(crate) open_outputs: usize,
    /// Sums over what is over.
    pub(crate) summary: Summary,
    /// How often accepting paused, by what was lacking.
    pub(crate) accept_pauses: BTreeMap<&'static str, u64>,
    /// LINFOs that were lost.
    pub(crate) linfos_lost: u64,
    /// When the certificates end that are shown, the nearest of each kind.
    pub(crate) certificates: BTreeMap<&'static str, Ticks>,
    /// Reloads so far.
    pub(crate) reloads: Reloads,
    /// Since when files are read for a reload, if they are.
    pub(crate) reading_since: Option<Instant>,
    /// How the campaign stands, where the run shares one, and when that was told.
    pub(crate) campaign: Option<(CampaignSums, Instant)>,
    /// Since when whoever permits START cannot be asked, if that is so.
    pub(crate) silent_since: Option<Instant>,
    /// Results that were handed over and are not settled.
    pub(crate) results_waiting: usize,
    /// Since when a shard stands still, by their numbers; none is there before shards are asked.
    pub(crate) stalled: Vec<Option<Instant>>,
}

impl RunView {
    /// Of a run that is going to begin, whose configuration was read by `read_at`; `log_lines_lost` tells of the log how
    /// many lines nobody read in time.
    #[must_use]
    pub(crate) fn new(config: &Config, log_lines_lost: Arc<AtomicU64>, read_at: Ticks) -> Self {
        let started = now();
        let shards = config.cores.iter().map(|core| ShardView {
            core: *core,
            counts: Arc::default(),
            load: Mutex::new(Load::new(started)),
        });
        let latency = |one_in| Arc::new(RunLatency::new(config.cores.len(), one_in));
        Self(Arc::new(Counted {
            started,
            shards: shards.collect(),
            latency: config.latency_sample.map(latency),
            attempts: config.attempts.map(Into::into),
            required: config.judging.require.map(|wanted| (wanted, config.judging.oks_before)),
            log_lines_lost,
            records_lost: Arc::default(),
            state: Mutex::new(RunState {
                certificates: certificates(config),
                reloads: Reloads { read_at, ..Reloads::default() },
                ..RunState::default()
            }),
            ended_sessions: Mutex::default(),
        }))
    }

    /// How the run is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let counted = &*self.0;
        let state = self.state().clone();
        // Read after it: what a session has relayed is published before it is told to be over.
        let shards: Vec<ShardNumbers> =
            counted.shards.iter().map(|shard| shard.counts.read()).collect();
        let sum = |number| shards.iter().map(|shard| shard[number]).sum::<u64>();
        let (places, goal) = (places(&state), goal((counted.attempts, counted.required), &state));
        Snapshot {
            lasted: now().saturating_duration_since(counted.started),
            stage: state.stage,
            publication_end: state.publication_end,
            brokers: state.brokers,
            proxies: state.proxies,
            goal,
            campaign: state.campaign.map(|(standing, _)| standing),
            reporting: Reporting {
                results_waiting: state.results_waiting as u64,
                silent: state.silent_since.map(|since| now().saturating_duration_since(since)),
                told_ago: state.campaign.map(|(_, at)| now().saturating_duration_since(at)),
            },
            sessions: SessionsByPhase {
                waiting: sum(ShardNumber::Waiting),
                backlog: sum(ShardNumber::Backlog),
                handshake: sum(ShardNumber::Handshakes),
                greeting: sum(ShardNumber::Greetings),
                running: state.running as u64,
                closing: sum(ShardNumber::Closing),
            },
            places,
            mlets: state.mlets as u64,
            open_outputs: state.open_outputs as u64,
            summary: state.summary,
            bytes: BothWays {
                to_endpoint: sum(ShardNumber::BytesToEndpoint),
                from_endpoint: sum(ShardNumber::BytesFromEndpoint),
            },
            messages: BothWays {
                to_endpoint: sum(ShardNumber::MessagesToEndpoint),
                from_endpoint: sum(ShardNumber::MessagesFromEndpoint),
            },
            relay: counted.latency.as_ref().map(|latency| latency.so_far()).unwrap_or_default(),
            accept_pauses: state.accept_pauses,
            lost: Losses {
                records: counted.records_lost.load(Ordering::Relaxed),
                log_lines: counted.log_lines_lost.load(Ordering::Relaxed),
                linfos: state.linfos_lost,
            },
            files: Files {
                open: limits::files_open().ok().map(|open| open as u64),
                limit: limits::open_files().unwrap_or_default(),
            },
            cores: cores(&counted.shards, &shards, &state.stalled),
            certificates: state.certificates,
            reloads: Reloads {
                reading: state.reading_since.map(|since| now().saturating_duration_since(since)),
                ..state.reloads
            },
        }
    }
}

impl RunView {
    /// Places of sessions, without all that a snapshot looks at.
    #[must_use]
    pub fn places(&self) -> Places {
        places(&self.state())
    }

    /// The sessions that ended last, the last one first: as many as are kept, and no strangers.
    #[must_use]
    pub fn ended_sessions(&self) -> Vec<EndedSession> {
        lock(&self.0.ended_sessions).latest_first()
    }

    /// How the latest session of each key has ended.
    pub(crate) fn last_outcomes<R>(&self, look: impl FnOnce(&LastOutcomes) -> R) -> R {
        look(lock(&self.0.ended_sessions).last_outcomes())
    }

    /// A session has ended, and its record is complete.
    pub(crate) fn session_ended(&self, record: &SessionRecord) {
        lock(&self.0.ended_sessions).add(record);
    }

    /// Changes what the control thread knows.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut RunState) -> R) -> R {
        change(&mut self.state())
    }

    /// It shows the certificates of this configuration from now on, which is `now`.
    pub(crate) fn reloaded(&self, config: &Config, now: Ticks) {
        self.change(|state| {
            state.certificates = certificates(config);
            state.reloads.read_at = now;
        });
    }

    /// The sums so far.
    pub(crate) fn sums<R>(&self, look: impl FnOnce(&Summary) -> R) -> R {
        look(&self.state().summary)
    }

    /// Where the shard of this number counts.
    pub(crate) fn of_shard(&self, number: usize) -> Arc<ShardCounts> {
        self.0.shards.get(number).map(|shard| Arc::clone(&shard.counts)).unwrap_or_default()
    }

    /// Where relay latency is kept, if it is measured.
    pub(crate) fn latency(&self) -> Option<&Arc<RunLatency>> {
        self.0.latency.as_ref()
    }

    /// Where records are counted that are not in a file of theirs.
    pub(crate) fn records_lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.records_lost)
    }

    fn state(&self) -> MutexGuard<'_, RunState> {
        lock(&self.0.state)
    }
}

/// Whoever held it and panicked has left every number as it was before or after.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn places(state: &RunState) -> Places {
    let (taken, max) = state.places.read();
    Places { taken, max }
}

/// Of what `-n` and `--require` want, the one that is farther away.
fn goal(
    (attempts, required): (Option<u64>, Option<(u64, u64)>),
    RunState { summary, running, campaign, .. }: &RunState,
) -> Option<Goal> {
    let over = summary.served.saturating_sub(*running as u64);
    let of_attempts = attempts.map(|wanted| Goal { wanted, done: over, is_of_campaign: false });
    let oks = summary.count(OutcomeKind::Ok);
    let of_required =
        required.map(|(wanted, before)| Goal { wanted, done: oks + before, is_of_campaign: false });
    let share = |goal: &Goal| goal.done as f64 / goal.wanted.max(1) as f64;
    let of_campaign = campaign.and_then(|(campaign, _)| {
        campaign.wanted.map(|wanted| Goal { wanted, done: campaign.done, is_of_campaign: true })
    });
    let all = of_attempts.into_iter().chain(of_required).chain(of_campaign);
    all.min_by(|one, other| share(one).total_cmp(&share(other)))
}

fn cores(
    shards: &[ShardView],
    numbers: &[ShardNumbers],
    stalled: &[Option<Instant>],
) -> Vec<CoreState> {
    let stalled = stalled.iter().copied().chain(std::iter::repeat(None));
    let shards = shards.iter().zip(numbers).zip(stalled);
    shards.map(|((shard, numbers), since)| shard.state(numbers, since)).collect()
}

impl ShardView {
    fn state(&self, numbers: &ShardNumbers, stalled_since: Option<Instant>) -> CoreState {
        let (mut load, now) = (lock(&self.load), now());
        load.look(self.counts.thread().and_then(cpu::time_of_thread), now);
        CoreState {
            core: self.core,
            busy: load.last.1,
            busy_ratio: load.ratio(),
            stalled: stalled_since.map(|since| now.saturating_duration_since(since)),
            handshakes: Duration::from_nanos(numbers[ShardNumber::HandshakeNanoseconds]),
            ring_overflows: numbers[ShardNumber::RingOverflows],
            no_buffers: numbers[ShardNumber::NoBuffers],
        }
    }
}

/// When the certificates end that are shown to endpoints, to the broker and to the proxy, the nearest of each.
fn certificates(config: &Config) -> BTreeMap<&'static str, Ticks> {
    let chains = config.experiments.iter().flat_map(|one| &one.chain);
    let of_endpoints = chains.map(|certificate| ("endpoint", certificate));
    let of_broker = config.publications.iter().map(|one| ("broker", &one.certificate));
    let of_proxy = match &config.approach {
        // All are shown the same.
        Approach::Proxies(proxies) => proxies.first().and_then(|one| one.certificate.as_ref()),
        Approach::Passive { .. } => None,
    };
    let of_proxy = of_proxy.map(|certificate| ("proxy", certificate));
    let mut nearest = BTreeMap::new();
    for (role, certificate) in of_endpoints.chain(of_broker).chain(of_proxy) {
        let end = nearest.entry(role).or_insert(certificate.not_after);
        *end = certificate.not_after.min(*end);
    }
    nearest
}

#[expect(clippy::disallowed_methods, reason = "whoever looks at a run is not part of it")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_counts_what_is_over_and_of_two_the_one_that_is_farther_away_is_told() {
        let outcomes = [(OutcomeKind::Ok, 3), (OutcomeKind::MletFailed, 5)].into();
        let summary = Summary { outcomes, served: 10, ..Summary::default() };
        let state = RunState { summary, running: 2, ..RunState::default() };
        let told = |attempts, required| goal((attempts, required), &state);
        let goal_of = |wanted, done| Goal { wanted, done, is_of_campaign: false };
        assert_eq!(told(None, None), None);
        assert_eq!(told(Some(20), None), Some(goal_of(20, 8)), "running ones do not");
        assert_eq!(told(None, Some((10, 1))), Some(goal_of(10, 4)), "earlier ones do");
        assert_eq!(told(Some(20), Some((10, 0))), Some(goal_of(10, 3)));
        assert_eq!(told(Some(20), Some((4, 0))), Some(goal_of(20, 8)));
        let standing = CampaignSums { wanted: Some(100), done: 2, ..CampaignSums::default() };
        let shared = RunState { campaign: Some((standing, now())), ..state.clone() };
        let of_all = goal((None, Some((10, 0))), &shared);
        assert_eq!(
            of_all,
            Some(Goal { wanted: 100, done: 2, is_of_campaign: true }),
            "of all managers"
        );
    }

    #[test]
    fn the_share_of_a_core_is_of_a_second_at_least_however_often_somebody_looks() {
        let start = now();
        let ms = Duration::from_millis;
        let mut load = Load::new(start);
        let mut ratio_at = |at, busy| {
            load.look(busy, start + at);
            load.ratio()
        };
        assert_eq!(ratio_at(ms(0), Some(ms(0))), 0.0);
        assert_eq!(ratio_at(ms(1_000), Some(ms(500))), 0.5);
        assert_eq!(ratio_at(ms(1_500), Some(ms(1_000))), 1_000.0 / 1_500.0);
        assert_eq!(ratio_at(ms(2_000), Some(ms(1_500))), 1.0, "of the last second");
        assert_eq!(ratio_at(ms(3_000), None), 0.0, "its thread has ended");
    }
}
