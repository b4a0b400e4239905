//! What pages are told of a run: every number on them as text, and every chart as lines.
//!
//! Not here: what is counted (`engine::Snapshot`). Invariant: all that is told at one time is of one snapshot; rates are of
//! the time since the one before.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use engine::permits::CampaignSums;
use engine::{
    BrokerStage, CoreState, Distribution, OutcomeKind, RelayTimes, RunStage, SessionsByPhase,
    Snapshot,
};
use packetlab::time::Ticks;
use serde::Serialize;

use super::cells::{Cell, Rows};
use super::history::{History, Point};
use super::sessions::Page;
use crate::page::chart::{Chart, linear, times};
use crate::results::words::{self, counted, duration};
use crate::status_line::{clock, rough, share};

/// So many reasons are listed.
const REASONS_LISTED: usize = 10;

/// A manager hears at least so often how its campaign stands, while the database answers: every five seconds, and a second for
/// the answer.
const BEAT_MAX: Duration = Duration::from_secs(6);

/// What pages are told at one time, by the names of the places where it stands.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    state: String,
    texts: BTreeMap<&'static str, String>,
    tables: BTreeMap<&'static str, Rows>,
    charts: BTreeMap<&'static str, Chart>,
    /// At the end, when nobody can ask for it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<Page>,
}

impl Told {
    /// How the run is `now`, and was `before`. With how it has gone if the charts are to be drawn.
    pub(super) fn of(now: &Snapshot, before: &Snapshot, history: (&History, bool)) -> Self {
        let (history, is_drawn) = history;
        let mut charts = BTreeMap::new();
        if is_drawn {
            charts.insert("phases-chart", phases_chart(history));
            charts.insert("bytes-chart", bytes_chart(history));
        }
        Self {
            state: state(now),
            texts: texts(now, before, SystemTime::now()),
            tables: [
                ("phases", phases(now, history)),
                ("outcomes", outcomes(now)),
                ("reasons", reasons(now)),
                ("times", all_times(now)),
                ("cores", now.cores.iter().map(core).collect()),
            ]
            .into(),
            charts,
            sessions: None,
        }
    }

    /// The same, for the last time.
    pub(super) fn with(self, sessions: Page) -> Self {
        Self { state: OVER.into(), sessions: Some(sessions), ..self }
    }

    /// As an event of this name, `message` being the one of events without any.
    pub(super) fn event(&self, name: &str) -> Vec<u8> {
        // It fails only for maps whose keys are no text.
        let data = serde_json::to_string(self).unwrap_or_default();
        format!("event: {name}\ndata: {data}\n\n").into_bytes()
    }
}

const OVER: &str = "The run is over. These are its final numbers.";

fn state(now: &Snapshot) -> String {
    match (now.stage, now.full()) {
        (RunStage::Starting, _) => "Starting: endpoints cannot be served yet.".into(),
        (RunStage::Serving, Some((sessions, max))) => {
            format!("Full: {sessions} of {max} sessions; who comes waits.")
        }
        (RunStage::Serving, None) => "Running: endpoints are served.".into(),
        (RunStage::Draining, _) => "Draining: no new endpoints, waiting for what runs.".into(),
        (RunStage::Forced, _) => "Ending: what runs is being ended by force.".into(),
        (RunStage::Over, _) => OVER.into(),
    }
}

fn texts(now: &Snapshot, before: &Snapshot, wall: SystemTime) -> BTreeMap<&'static str, String> {
    let since = now.lasted.saturating_sub(before.lasted).as_secs_f64().max(f64::MIN_POSITIVE);
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / since;
    // What is over goes at no rate.
    let is_over = now.stage == RunStage::Over;
    let rate = |told: String| if is_over { "-".to_owned() } else { format!("{told}/s") };
    let size_rate = |now, before| rate(words::size(per_second(now, before) as u64));
    let (ended, ok, failed) = (now.ended(), now.summary.count(OutcomeKind::Ok), now.summary.failed);
    [
        ("elapsed", clock(now.lasted)),
        ("running", now.sessions.running.to_string()),
        ("ended", ended.to_string()),
        ("ok", ok.to_string()),
        ("failed", failed.to_string()),
        ("neither", ended.saturating_sub(ok + failed).to_string()),
        ("rate", rate(format!("{:.1}", per_second(ended, before.ended())))),
        ("goal", goal(now)),
        ("campaign", campaign(now)),
        ("publication", publication(now, wall)),
        ("proxies", proxies(now)),
        ("to-bytes", words::size(now.bytes.to_endpoint)),
        ("from-bytes", words::size(now.bytes.from_endpoint)),
        ("to-messages", now.messages.to_endpoint.to_string()),
        ("from-messages", now.messages.from_endpoint.to_string()),
        ("to-rate", size_rate(now.bytes.to_endpoint, before.bytes.to_endpoint)),
        ("from-rate", size_rate(now.bytes.from_endpoint, before.bytes.from_endpoint)),
        ("mlets", now.mlets.to_string()),
        ("files", files(now)),
        ("lost", lost(now)),
        ("troubles", troubles(now)),
    ]
    .into()
}

fn goal(now: &Snapshot) -> String {
    now.goal.map_or_else(String::new, |goal| {
        let of = if goal.is_of_campaign { "endpoints" } else { "sessions" };
        format!("{} of {} {of}: {}", goal.done, goal.wanted, share(goal, now.lasted))
    })
}

/// How the campaign stands, when that was told if it should have been told again since, and what waits.
fn campaign(now: &Snapshot) -> String {
    let old = now.reporting.told_ago.filter(|ago| *ago > BEAT_MAX);
    let old = old.map_or_else(String::new, |ago| format!(" (as of {} ago)", rough(ago)));
    let told = now.campaign.map(|campaign| campaign_told(&campaign) + &old);
    let waiting = Some(now.reporting.results_waiting).filter(|waiting| *waiting > 0);
    let waiting = waiting.map(|waiting| format!("{} for the database", results_wait(waiting)));
    told.into_iter().chain(waiting).collect::<Vec<_>>().join("; ")
}

fn results_wait(count: u64) -> String {
    format!("{} wait{}", counted(count, "result"), if count == 1 { "s" } else { "" })
}

/// Of all managers.
fn campaign_told(campaign: &CampaignSums) -> String {
    let wanted = campaign.wanted.map_or_else(String::new, |wanted| format!(" of {wanted}"));
    let per_second = campaign.done_last_minute as f64 / 60.0;
    format!(
        "{}{wanted} endpoints done, {per_second:.1}/s; {} running, {} lost, {} given back, {} out of tries; {} with {} places; \
         round {}, wave {}",
        campaign.done,
        campaign.running,
        campaign.lost,
        campaign.given_back,
        campaign.out_of_tries,
        counted(campaign.managers, "manager"),
        campaign.places,
        campaign.round,
        campaign.wave,
    )
}

/// Connections that wait at each proxy.
fn proxies(now: &Snapshot) -> String {
    let each = now.proxies.iter().map(|proxy| format!("{}: {proxy}", proxy.name));
    each.collect::<Vec<_>>().join("; ")
}

/// Until when, and which brokers lack it.
fn publication(now: &Snapshot, wall: SystemTime) -> String {
    let lacks = now.brokers.iter().filter(|broker| broker.stage == BrokerStage::NotPublished);
    let lacks: Vec<_> = lacks.map(|broker| &*broker.name).collect();
    let lacks = match &lacks[..] {
        [] => String::new(),
        lacks => format!("not at {}", lacks.join(", ")),
    };
    let until = now.publication_end.map(|end| publication_until(end, wall));
    let parts = until.into_iter().chain(Some(lacks).filter(|lacks| !lacks.is_empty()));
    parts.collect::<Vec<_>>().join("; ")
}

fn publication_until(end: Ticks, wall: SystemTime) -> String {
    match end.saturating_duration_since(Ticks::from_system_time(wall)) {
        Duration::ZERO => "over".into(),
        left => {
            let end = end.date().to_string().replace('T', " ").replace('Z', " UTC");
            format!("until {end}, {} more", rough(left))
        }
    }
}

fn files(now: &Snapshot) -> String {
    let open = now.files.open.map_or_else(|| "unknown".into(), |open| open.to_string());
    format!("{open} of {}", now.files.limit)
}

fn lost(now: &Snapshot) -> String {
    let lost = [
        (now.lost.records, "record"),
        (now.lost.log_lines, "log line"),
        (now.lost.linfos, "LINFO"),
        (now.summary.outputs_lost, "output of mlets, or part of one,"),
    ];
    let lost = lost.into_iter().filter(|(count, _)| *count > 0);
    let lost: Vec<String> = lost.map(|(count, what)| counted(count, what)).collect();
    if lost.is_empty() { "nothing".into() } else { lost.join(", ") }
}

/// What somebody should look after: shards that stand still, a database that does not answer, and as long as endpoints are to come, brokers and proxies
/// through which they do not.
fn troubles(now: &Snapshot) -> String {
    let stalled = |core: &CoreState| {
        let lasted = core.stalled?.as_secs();
        Some(format!(
            "The shard on CPU {} has made no turn for {lasted} s: its sessions stand still.",
            core.core
        ))
    };
    let mut told: Vec<String> = now.cores.iter().filter_map(stalled).collect();
    told.extend(now.reporting.silent.map(|silent| {
        let silent = rough(silent);
        format!("The database of the campaign has not answered for {silent}: nothing begins.")
    }));
    if matches!(now.stage, RunStage::Starting | RunStage::Serving) {
        let brokers = now.brokers.iter().filter(|one| one.stage == BrokerStage::NotPublished);
        told.extend(brokers.map(|one| format!("Nothing is published at {}.", one.name)));
        let proxies = now.proxies.iter().filter(|one| !one.registers);
        told.extend(proxies.map(|one| format!("No connection can be had at {}.", one.name)));
    }
    told.join(" ")
}

/// Of each phase what its line looks like, how many sessions are in it, and how many have been at most.
fn phases(now: &Snapshot, history: &History) -> Rows {
    let rows = now.sessions.named().into_iter().zip(history.most());
    rows.map(|((phase, count), most)| {
        vec![phase.into(), Cell::Line { line: phase }, count.into(), most.into()]
    })
    .collect()
}

fn outcomes(now: &Snapshot) -> Rows {
    let mut outcomes: Vec<_> = now.summary.outcomes.iter().collect();
    outcomes.sort_by_key(|(_, count)| Reverse(**count));
    let all = now.ended().max(1) as f64;
    let row = |(outcome, count): (&OutcomeKind, &u64)| {
        let percent = *count as f64 / all * 100.0;
        vec![outcome.into(), count.into(), format!("{percent:.1} %").into(), bar(percent)]
    };
    outcomes.into_iter().map(row).collect()
}

fn bar(percent: f64) -> Cell {
    Cell::Bar { bar: format!("{percent:.2}") }
}

fn reasons(now: &Snapshot) -> Rows {
    let mut reasons: Vec<_> = now.summary.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| Reverse(**count));
    let row = |(reason, count): (&String, &u64)| vec![words::shown(reason).into(), count.into()];
    reasons.into_iter().take(REASONS_LISTED).map(row).collect()
}

/// Of steps of sessions, and of the relay.
fn all_times(now: &Snapshot) -> Rows {
    let of_all = now.summary.phases_of_all();
    let named = [
        ("tls", "TLS"),
        ("programs", "programs, permit"),
        ("start", "START"),
        ("spawn", "mlet's start"),
        ("run", "mlet's run"),
        ("total", "whole session"),
    ];
    let phases = named.into_iter().filter_map(|(phase, name)| Some((name, of_all.get(phase)?)));
    let of_phases = phases.map(|(name, phase)| {
        let at = |percent| up_to(&phase.times, percent).into();
        let longest = duration(phase.max.as_secs_f64() * 1e3);
        vec![name.into(), phase.times.count().into(), at(50), at(90), at(99), longest.into()]
    });
    let relays = [("relay to", &now.relay.to_endpoint), ("relay from", &now.relay.from_endpoint)];
    let of_relay = relays.into_iter().filter_map(|(name, times)| {
        let RelayTimes { count, p50, p99, max, .. } = times.as_ref()?;
        let [p50, p99, max] =
            [p50, p99, max].map(|time| words::microseconds(time.as_secs_f64() * 1e6));
        Some(vec![name.into(), count.into(), p50.into(), "".into(), p99.into(), max.into()])
    });
    of_phases.chain(of_relay).collect()
}

/// The bound below which so many percent of the times lie.
fn up_to(times: &Distribution, percent: u64) -> String {
    let wanted = (times.count() * percent).div_ceil(100);
    if wanted == 0 {
        return "-".into();
    }
    let mut bounds = times.up_to();
    let bound = bounds.find(|(_, count)| *count >= wanted);
    let shown = |bound: Duration| match bound.as_millis() {
        ms @ ..1_000 => format!("{ms} ms"),
        ms @ ..60_000 => format!("{} s", ms / 1_000),
        ms => format!("{} min", ms / 60_000),
    };
    bound.map_or_else(|| "over 1 h".into(), |(bound, _)| format!("\u{2264} {}", shown(bound)))
}

fn core(core: &CoreState) -> Vec<Cell> {
    let percent = (core.busy_ratio * 100.0).min(100.0);
    vec![
        core.core.into(),
        format!("{percent:.0} %").into(),
        bar(percent),
        duration(core.busy.as_secs_f64() * 1e3).into(),
        core.ring_overflows.into(),
        core.no_buffers.into(),
    ]
}

/// How many sessions were in each phase. A phase that had none has no line.
fn phases_chart(history: &History) -> Chart {
    let points = history.points();
    let counts = |sessions: &SessionsByPhase| sessions.named().map(|(_, count)| count);
    let most = points.iter().flat_map(|point| counts(&point.sessions)).max().unwrap_or(0).max(1);
    let len = len_of(points);
    let mut chart = Chart::between(&times(len), &linear(most as f64, ""));
    for (number, (phase, _)) in SessionsByPhase::default().named().into_iter().enumerate() {
        let count = |point: &Point| counts(&point.sessions)[number];
        if points.iter().any(|point| count(point) > 0) {
            let place =
                |point: &Point| (point.at.as_secs_f64() / len, count(point) as f64 / most as f64);
            chart.line(phase, points.iter().map(place));
        }
    }
    chart
}

/// How many bytes a second passed each way.
fn bytes_chart(history: &History) -> Chart {
    let points = history.points();
    let rates = |bytes: fn(&Point) -> u64| -> Vec<(f64, f64)> {
        let rate = |pair: &[Point]| {
            let [before, now] = pair else { return (0.0, 0.0) };
            let took = now.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
            (now.at.as_secs_f64(), bytes(now).saturating_sub(bytes(before)) as f64 / took)
        };
        points.windows(2).map(rate).collect()
    };
    let lines = [
        ("to", rates(|point| point.bytes.to_endpoint)),
        ("from", rates(|point| point.bytes.from_endpoint)),
    ];
    let most = lines.iter().flat_map(|(_, rates)| rates).map(|(_, rate)| *rate);
    // An axis of nothing would bear parts of a byte.
    let most = most.fold(1e3_f64, f64::max);
    let (unit, of_unit) = match most {
        ..1e4 => ("B", 1.0),
        ..1e7 => ("kB", 1e3),
        ..1e10 => ("MB", 1e6),
        _ => ("GB", 1e9),
    };
    let len = len_of(points);
    let mut chart = Chart::between(&times(len), &linear(most / of_unit, unit));
    for (class, rates) in lines {
        chart.line(class, rates.into_iter().map(|(at, rate)| (at / len, rate / most)));
    }
    chart
}

/// Seconds that the charts show.
fn len_of(points: &[Point]) -> f64 {
    points.last().map_or(0.0, |last| last.at.as_secs_f64()).max(1.0)
}

#[cfg(test)]
mod tests {
    use engine::{BrokerState, Places, ProxyState, Reporting};

    use super::*;

    #[test]
    fn percentiles_of_nothing_are_no_numbers() {
        assert_eq!(up_to(&Distribution::default(), 50), "-");
    }

    #[test]
    fn a_publication_is_told_with_its_end_and_what_is_left() {
        let end = Ticks(1_709_164_800_000_000_000);
        let wall = |seconds| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_164_800)
                - Duration::from_secs(seconds)
        };
        let mut now = Snapshot { publication_end: Some(end), ..Snapshot::default() };
        let until = "until 2024-02-29 00:00:00 UTC, 2h more";
        assert_eq!(publication(&now, wall(7_200)), until);
        assert_eq!(publication(&now, wall(0)), "over");
        let stages = [("a", BrokerStage::NotPublished), ("b", BrokerStage::Published)];
        let state = |(name, stage): (&str, _)| BrokerState { name: name.into(), stage };
        now.brokers = stages.map(state).into();
        assert_eq!(publication(&now, wall(7_200)), format!("{until}; not at a"));
        now.publication_end = None;
        assert_eq!(publication(&now, wall(0)), "not at a");
    }

    #[test]
    fn brokers_and_proxies_are_marked_as_long_as_endpoints_are_to_come() {
        let broker = |(name, stage): (&str, _)| BrokerState { name: name.into(), stage };
        let proxy = |(name, registers): (&str, _)| ProxyState {
            name: name.into(),
            registers,
            registered: 0,
            wanted: 2,
        };
        let mut now = Snapshot {
            stage: RunStage::Serving,
            brokers: [("a", BrokerStage::NotPublished), ("b", BrokerStage::Published)]
                .map(broker)
                .into(),
            proxies: [("p", true), ("q", false)].map(proxy).into(),
            ..Snapshot::default()
        };
        let expected = "Nothing is published at a. No connection can be had at q.";
        assert_eq!(troubles(&now), expected);
        now.stage = RunStage::Draining;
        assert_eq!(troubles(&now), "");
    }

    #[test]
    fn a_campaign_whose_database_is_silent_is_marked_with_what_waits_and_how_old_its_numbers_are() {
        let standing =
            CampaignSums { wanted: Some(9), done: 4, managers: 1, ..CampaignSums::default() };
        let goal_of = |is_of_campaign| engine::Goal { wanted: 9, done: 4, is_of_campaign };
        let mut now =
            Snapshot { campaign: Some(standing), goal: Some(goal_of(true)), ..Snapshot::default() };
        now.reporting.told_ago = Some(Duration::from_secs(5));
        let told = campaign(&now);
        assert!(told.starts_with("4 of 9 endpoints done") && !told.contains("as of"), "{told}");
        assert!(goal(&now).starts_with("4 of 9 endpoints: 44%"));
        now.goal = Some(goal_of(false));
        assert!(goal(&now).starts_with("4 of 9 sessions: 44%"), "of --require");
        assert_eq!(troubles(&now), "");
        let (silent, told_ago) = (Some(Duration::from_secs(31)), Some(Duration::from_secs(34)));
        now.reporting = Reporting { results_waiting: 3, silent, told_ago };
        let told = campaign(&now);
        assert!(told.ends_with(" (as of 34s ago); 3 results wait for the database"), "{told}");
        let expected = "The database of the campaign has not answered for 31s: nothing begins.";
        assert_eq!(troubles(&now), expected);
        now.reporting.results_waiting = 1;
        assert!(campaign(&now).ends_with("; 1 result waits for the database"));
    }

    #[test]
    fn a_run_that_takes_no_more_sessions_says_so() {
        let mut now = Snapshot { stage: RunStage::Serving, ..Snapshot::default() };
        now.places = Places { taken: 2, max: 3 };
        assert_eq!(state(&now), "Running: endpoints are served.");
        now.places.taken = 3;
        assert_eq!(state(&now), "Full: 3 of 3 sessions; who comes waits.");
    }

    #[test]
    fn a_campaign_is_told_with_its_endpoints_managers_round_and_wave() {
        let campaign = CampaignSums {
            wanted: Some(100),
            managers: 2,
            places: 50,
            done: 30,
            done_last_minute: 18,
            running: 6,
            lost: 5,
            given_back: 4,
            out_of_tries: 1,
            round: 3,
            wave: 7,
        };
        let told = "30 of 100 endpoints done, 0.3/s; 6 running, 5 lost, 4 given back, 1 out of tries; 2 managers with 50 \
                    places; round 3, wave 7";
        assert_eq!(campaign_told(&campaign), told);
        let told = campaign_told(&CampaignSums { wanted: None, ..campaign });
        assert!(told.starts_with("30 endpoints done"), "{told}");
    }

    #[test]
    fn charts_of_nothing_have_axes_and_no_lines() {
        let history = History::default();
        let told = serde_json::to_string(&[phases_chart(&history), bytes_chart(&history)]).unwrap();
        assert!(told.contains("grid") && !told.contains("NaN") && !told.contains("inf"), "{told}");
        assert!(!told.contains("running"), "{told}");
    }
}
