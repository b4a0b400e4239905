//! The line that tells how far a run is.
//!
//! ```text
//! 02:13  41%, 3m left  hs 6 setup 14 run 792  ok 4120 fail 87  18.4/s  1.2/9.8 MB/s  p99 84us  fd 1640/64k
//! ```
//!
//! Not here: where and when it is shown (`command_line::status_line`), and what is counted (`engine::Snapshot`). Invariant: all
//! of a line is of one snapshot, and rates are of the time since the one before.

use std::time::{Duration, SystemTime};

use command_line::status_line::fitted;
use engine::{BrokerStage, Goal, OutcomeKind, RunStage, Snapshot};
use packetlab::time::Ticks;

/// What the line says of a run `now`, in so many columns; `before` is what was told of last.
pub(crate) fn line(now: &Snapshot, before: &Snapshot, wall: SystemTime, columns: usize) -> String {
    let since = now.lasted.saturating_sub(before.lasted).as_secs_f64().max(f64::MIN_POSITIVE);
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / since;
    let to_endpoints = per_second(now.bytes.to_endpoint, before.bytes.to_endpoint) / 1e6;
    let from_endpoints = per_second(now.bytes.from_endpoint, before.bytes.from_endpoint) / 1e6;
    // What is lacking is more important than how fast the run is.
    let (lacking, published) = match now.brokers_at(BrokerStage::NotPublished) {
        0 => (String::new(), publication(now, wall)),
        _ => (publication(now, wall), String::new()),
    };
    // By rank, the most important first: what finds no room is left out from behind.
    let parts = [
        (0, elapsed(now)),
        (1, now.goal.map(|goal| share(goal, now.lasted)).unwrap_or_default()),
        (2, phases(now)),
        (3, outcomes(now)),
        (4, campaign(now)),
        (5, lacking),
        (6, format!("{:.1}/s", per_second(now.ended(), before.ended()))),
        (7, format!("{to_endpoints:.1}/{from_endpoints:.1} MB/s")),
        (8, relay(now)),
        (9, files(now)),
        (10, published),
    ];
    fitted(&parts, columns)
}

/// How long it has lasted, and how far it is where that is not a matter of course.
fn elapsed(now: &Snapshot) -> String {
    let clock = clock(now.lasted);
    let stage = match now.stage {
        RunStage::Serving => return clock,
        RunStage::Starting => "starting",
        RunStage::Draining => "draining",
        RunStage::Forced => "ending",
        RunStage::Over => "over",
    };
    format!("{clock} {stage}")
}

/// So long as a clock shows it: `02:13`, `2:13:05`.
pub(crate) fn clock(lasted: Duration) -> String {
    let seconds = lasted.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes:02}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Which share is done, and how long the rest takes at this pace.
pub(crate) fn share(Goal { wanted, done, .. }: Goal, lasted: Duration) -> String {
    let percent = (done.saturating_mul(100) / wanted.max(1)).min(100);
    if done == 0 || done >= wanted {
        return format!("{percent}%");
    }
    let rest = (wanted - done) as f64 / done as f64;
    format!("{percent}%, {} left", rough(lasted.mul_f64(rest)))
}

fn phases(now: &Snapshot) -> String {
    let sessions = &now.sessions;
    let handshakes = sessions.waiting + sessions.handshake;
    let full = if now.full().is_some() { " full" } else { "" };
    format!("hs {handshakes} setup {} run {}{full}", sessions.greeting, sessions.running)
}

/// Those that count as failed, and others that are not `ok`: strangers, and who was let go.
fn outcomes(now: &Snapshot) -> String {
    let (ok, failed) = (now.summary.count(OutcomeKind::Ok), now.summary.failed);
    let others = now.ended().saturating_sub(ok + failed);
    match others {
        0 => format!("ok {ok} fail {failed}"),
        _ => format!("ok {ok} fail {failed} other {others}"),
    }
}

/// The slower direction.
fn relay(now: &Snapshot) -> String {
    let both = [&now.relay.to_endpoint, &now.relay.from_endpoint];
    let p99 = both.into_iter().flatten().map(|times| times.p99).max();
    p99.map_or_else(String::new, |p99| match p99.as_micros() {
        us @ ..10_000 => format!("p99 {us}us"),
        us => format!("p99 {}ms", us / 1000),
    })
}

fn files(now: &Snapshot) -> String {
    let open = now.files.open.map(|open| format!("fd {}/{}", short(open), short(now.files.limit)));
    open.unwrap_or_default()
}

/// Of all managers.
fn campaign(now: &Snapshot) -> String {
    let told = now.campaign.map(|campaign| {
        let counts = [
            ("done", campaign.done),
            ("lost", campaign.lost + campaign.given_back),
            ("wait", now.reporting.results_waiting),
        ];
        let counts = counts.into_iter().filter(|(name, count)| *name == "done" || *count > 0);
        let counts = counts.map(|(name, count)| format!(" {name} {count}")).collect::<String>();
        format!("campaign of {}:{counts}", short(campaign.managers))
    });
    let silent = now.reporting.silent.map(|silent| format!("no database for {}", rough(silent)));
    told.into_iter().chain(silent).collect::<Vec<_>>().join(", ")
}

/// Until when, and where not all of several brokers have it, how many do; or that none has it.
fn publication(now: &Snapshot, wall: SystemTime) -> String {
    let (published, brokers) = (now.brokers_at(BrokerStage::Published), now.brokers.len());
    let lack = now.brokers_at(BrokerStage::NotPublished);
    if lack > 0 && published == 0 {
        return "not published".into();
    }
    let left = now.publication_end.map(|end| {
        let left = end.saturating_duration_since(Ticks::from_system_time(wall));
        if left.is_zero() { ": over".into() } else { format!(" {} more", rough(left)) }
    });
    match (left, lack) {
        (None, 0) => String::new(),
        (left, 0) => format!("published{}", left.unwrap_or_default()),
        (left, _) => {
            format!("published{} (at {published} of {brokers})", left.unwrap_or_default())
        }
    }
}

/// To two digits or so.
pub(crate) fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn short(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{}k", number / 1_000),
        _ => format!("{}M", number / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use engine::permits::CampaignSums;
    use engine::{
        BothWays, BrokerState, Files, Places, RelayTimes, Reporting, SessionsByPhase, Summary,
    };

    use super::*;

    /// So many sessions are `ok`, and so many MB have gone each way.
    fn at(seconds: u64, oks: u64, megabytes: (u64, u64)) -> Snapshot {
        let bytes = |megabytes| megabytes * 1_000_000;
        let times = |p99_us| {
            let p99 = Duration::from_micros(p99_us);
            let none = Duration::ZERO;
            Some(RelayTimes { count: 9, sum: none, p50: none, p99, max: p99, up_to: Vec::new() })
        };
        Snapshot {
            lasted: Duration::from_secs(seconds),
            stage: RunStage::Serving,
            goal: Some(Goal { wanted: 100, done: oks, is_of_campaign: false }),
            sessions: SessionsByPhase {
                waiting: 1,
                handshake: 2,
                greeting: 4,
                running: 5,
                ..SessionsByPhase::default()
            },
            summary: Summary {
                outcomes: [(OutcomeKind::Ok, oks), (OutcomeKind::MletFailed, 6)].into(),
                failed: 6,
                ..Summary::default()
            },
            bytes: BothWays { to_endpoint: bytes(megabytes.0), from_endpoint: bytes(megabytes.1) },
            relay: BothWays { to_endpoint: times(84), from_endpoint: times(12) },
            files: Files { open: Some(23), limit: 20_000 },
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_line_is_of_one_snapshot_and_its_rates_of_the_time_since_the_one_before() {
        let (before, now) = (at(40, 20, (10, 100)), at(50, 50, (30, 400)));
        let told = |columns| line(&now, &before, SystemTime::UNIX_EPOCH, columns);
        let whole = "00:50  50%, 50s left  hs 3 setup 4 run 5  ok 50 fail 6  3.0/s  2.0/30.0 MB/s  \
                     p99 84us  fd 23/20k";
        assert_eq!(told(200), whole);
        assert_eq!(told(whole.len()), whole);
        assert_eq!(told(whole.len() - 1), whole.strip_suffix("  fd 23/20k").unwrap());
        assert_eq!(told(5), "00:50");
    }

    #[test]
    fn of_several_brokers_it_is_told_how_many_have_it_where_one_lacks_it() {
        let (has, lacks) = (BrokerStage::Published, BrokerStage::NotPublished);
        let hour = Some(Ticks(7_200_000_000_000));
        let told = |stages: &[BrokerStage], publication_end| {
            let state = |stage: &BrokerStage| BrokerState { name: "b".into(), stage: *stage };
            let brokers = stages.iter().map(state).collect();
            let now = Snapshot { brokers, publication_end, ..Snapshot::default() };
            publication(&now, SystemTime::UNIX_EPOCH)
        };
        assert_eq!(told(&[], None), "");
        assert_eq!(told(&[lacks], None), "not published");
        assert_eq!(told(&[lacks], hour), "not published", "it was, and is lost");
        assert_eq!(told(&[has, has], None), "");
        assert_eq!(told(&[has, has], hour), "published 2h more");
        assert_eq!(told(&[lacks, has], hour), "published 2h more (at 1 of 2)");
        assert_eq!(told(&[lacks, lacks], hour), "not published");
        assert_eq!(told(&[BrokerStage::Over; 2], Some(Ticks(0))), "published: over");
    }

    #[test]
    fn a_run_that_takes_no_more_sessions_is_full_and_what_waits_at_a_proxy_fills_none() {
        let told = |taken, max, backlog| {
            let mut now = at(50, 50, (0, 0));
            now.places = Places { taken, max };
            now.sessions.backlog = backlog;
            phases(&now)
        };
        let free = "hs 3 setup 4 run 5";
        assert_eq!(told(0, 0, 0), free, "nobody knows yet how many may be");
        assert_eq!(told(11, 12, 0), free);
        assert_eq!(told(12, 12, 0), format!("{free} full"));
        assert_eq!(told(12, 3, 0), format!("{free} full"), "the limit was lowered");
        assert_eq!(told(12, 12, 1), free);
    }

    #[test]
    fn a_publication_that_is_lacking_is_left_out_after_the_rates_and_not_before_them() {
        let state = |stage| BrokerState { name: "b".into(), stage };
        let publication_end = Some(Ticks(7_200_000_000_000));
        let told = |stage, columns| {
            let now =
                Snapshot { brokers: vec![state(stage)], publication_end, ..at(50, 50, (30, 400)) };
            line(&now, &at(40, 20, (10, 100)), SystemTime::UNIX_EPOCH, columns)
        };
        let lacking = "00:50  50%, 50s left  hs 3 setup 4 run 5  ok 50 fail 6  not published";
        assert_eq!(told(BrokerStage::NotPublished, lacking.len()), lacking);
        assert!(told(BrokerStage::NotPublished, 200).starts_with(&format!("{lacking}  3.0/s")));
        assert!(told(BrokerStage::Published, 200).ends_with("  fd 23/20k  published 2h more"));
    }

    #[test]
    fn results_that_wait_for_the_database_are_counted_and_that_it_is_away_is_told() {
        let standing = CampaignSums { managers: 2, done: 7, lost: 1, ..CampaignSums::default() };
        let mut now = Snapshot { campaign: Some(standing), ..Snapshot::default() };
        assert_eq!(campaign(&now), "campaign of 2: done 7 lost 1");
        let silent = Some(Duration::from_secs(12));
        now.reporting = Reporting { results_waiting: 3, silent, ..Reporting::default() };
        assert_eq!(campaign(&now), "campaign of 2: done 7 lost 1 wait 3, no database for 12s");
        now.campaign = None;
        assert_eq!(campaign(&now), "no database for 12s", "nothing else has been told yet");
    }

    #[test]
    fn times_are_told_to_two_digits_or_so_and_large_numbers_short() {
        let told = [59, 119, 120, 7_199, 7_200, 172_800]
            .map(|seconds| rough(Duration::from_secs(seconds)));
        assert_eq!(told, ["59s", "119s", "2m", "119m", "2h", "2d"]);
        assert_eq!([9_999, 10_000, 65_536, 2_000_000].map(short), ["9999", "10k", "65k", "2M"]);
    }

    #[test]
    fn the_rest_is_estimated_from_what_is_done_and_not_told_without_any() {
        let goal_of = |wanted, done| Goal { wanted, done, is_of_campaign: false };
        let told = |done| share(goal_of(200, done), Duration::from_secs(60));
        assert_eq!(
            [0, 1, 50, 199, 200].map(told),
            ["0%", "0%, 3h left", "25%, 3m left", "99%, 0s left", "100%"]
        );
        let of_hundred = share(goal_of(100, 57), Duration::from_secs(57));
        assert_eq!(of_hundred, "57%, 43s left");
    }
}
