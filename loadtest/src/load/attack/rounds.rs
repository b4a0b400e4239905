//! The figures of all rounds as a report: of each phase the median over the rounds, of failures the sum,
//! of memory the most; and what the attack does beside its base, as the median of the rounds' ratios.

use std::time::Duration;

use super::honest::{Measured, PATIENCE};
use super::tally::Tally;
use crate::load::error::LoadError;
use crate::load::process::Usage;
use crate::load::ratios::spread;
use crate::load::report::Report;

const MIB: f64 = 1024.0 * 1024.0;

/// How long an attack runs before anything is measured.
pub(super) const LEAD: Duration = Duration::from_millis(500);

/// What is done meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing.
    Alone,
    /// The attack, at a listener that accepts and closes.
    Base,
    /// The attack, at what is measured.
    Attack,
    /// Nothing any more, at the same victim.
    After,
}

impl Phase {
    /// Those that begin with a fresh victim.
    pub(super) const WITH_A_VICTIM: [Self; 3] = [Self::Alone, Self::Base, Self::Attack];
    const ALL: [Self; 4] = [Self::Alone, Self::Base, Self::Attack, Self::After];

    fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Base => "base",
            Self::Attack => "attack",
            Self::After => "after",
        }
    }
}

/// What one phase of one round gave.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) measured: Measured,
    /// How long the honest began anything new.
    pub(super) window: Duration,
    /// The same until all that was over.
    pub(super) elapsed: Duration,
    /// What the victim used: before the attack, at its end, and a while after it.
    pub(super) before: Usage,
    pub(super) during: Usage,
    pub(super) after: Usage,
    pub(super) resident_max_bytes: u64,
    pub(super) log_bytes_per_s: f64,
    pub(super) tally: Tally,
}

impl Figures {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.window.as_secs_f64()
    }

    /// Times of round trips, and how many have failed.
    fn trips(&self) -> (&[Duration], usize) {
        (&self.measured.trips, self.measured.trip_failures)
    }

    /// The same of set-ups.
    fn set_ups(&self) -> (&[Duration], usize) {
        (&self.measured.set_ups, self.measured.set_up_failures)
    }

    fn served_percent(&self) -> f64 {
        let served = self.measured.set_ups.len();
        100.0 * served as f64 / (served + self.measured.set_up_failures) as f64
    }
}

/// The report of all rounds, in the order they were measured.
///
/// # Errors
/// The honest alone have done nothing, or the attack has.
pub(super) fn report(figures: &[(Phase, Figures)]) -> Result<Report, LoadError> {
    let of = |phase: Phase| -> Vec<&Figures> {
        figures.iter().filter(|(of, _)| *of == phase).map(|(_, figures)| figures).collect()
    };
    let (alone, attack) = (of(Phase::Alone), of(Phase::Attack));
    if alone.iter().any(|round| round.measured.set_ups.is_empty()) {
        return Err(LoadError::NoSample("honest session"));
    }
    if attack.iter().all(|round| round.tally.steps == 0) {
        return Err(LoadError::NoAttack);
    }
    let has_trips = alone.iter().any(|round| !round.measured.trips.is_empty());
    let mut report = Report::default();
    report.add("rounds", alone.len() as f64, "");
    for phase in Phase::ALL {
        add_phase(&mut report, phase.name(), &of(phase), has_trips);
    }
    let base = of(Phase::Base);
    let mut compare = |name, figure: fn(&Figures) -> f64| {
        let ratios = attack.iter().zip(&base).map(|(attack, base)| figure(attack) / figure(base));
        report.add(name, median(ratios), "");
    };
    if has_trips {
        compare("attack to base, round trip p50", |round| quantile_us(round.trips(), 0.5));
        compare("attack to base, round trip p99", |round| quantile_us(round.trips(), 0.99));
    }
    compare("attack to base, set-up p50", |round| quantile_us(round.set_ups(), 0.5));
    compare("attack to base, set-up p99", |round| quantile_us(round.set_ups(), 0.99));
    Ok(report)
}

fn add_phase(report: &mut Report, phase: &str, rounds: &[&Figures], has_trips: bool) {
    let mut add = |name: &str, value: f64, unit| report.add(format!("{phase} {name}"), value, unit);
    let over = |figure: &dyn Fn(&Figures) -> f64| median(rounds.iter().map(|round| figure(round)));
    let most = |figure: &dyn Fn(&Figures) -> u64| rounds.iter().map(|round| figure(round)).max();
    let sum = |figure: &dyn Fn(&Figures) -> usize| -> usize {
        rounds.iter().map(|round| figure(round)).sum()
    };
    if has_trips {
        add(
            "round trips",
            over(&|round| round.per_second(round.measured.trips.len() as u64)),
            "/s",
        );
        add("round trip p50", over(&|round| quantile_us(round.trips(), 0.5)), "us");
        add("round trip p99", over(&|round| quantile_us(round.trips(), 0.99)), "us");
        add("round trip failures", sum(&|round| round.measured.trip_failures) as f64, "");
    }
    add("sessions", over(&|round| round.per_second(round.measured.set_ups.len() as u64)), "/s");
    add("set-up p50", over(&|round| quantile_us(round.set_ups(), 0.5)), "us");
    add("set-up p99", over(&|round| quantile_us(round.set_ups(), 0.99)), "us");
    add("set-up failures", sum(&|round| round.measured.set_up_failures) as f64, "");
    add("served", over(&Figures::served_percent), "%");
    let mib = |bytes: Option<u64>| bytes.unwrap_or(0) as f64 / MIB;
    add("PSS before", mib(most(&|round| round.before.pss_bytes)), "MiB");
    add("PSS at end", mib(most(&|round| round.during.pss_bytes)), "MiB");
    add("PSS after", mib(most(&|round| round.after.pss_bytes)), "MiB");
    add("RSS at most", mib(most(&|round| round.resident_max_bytes)), "MiB");
    add("log", over(&|round| round.log_bytes_per_s), "B/s");
    let fds =
        |usage: fn(&Figures) -> Usage| most(&|round| usage(round).fds as u64).unwrap_or(0) as f64;
    add("fds before", fds(|round| round.before), "");
    add("fds at end", fds(|round| round.during), "");
    add("fds after", fds(|round| round.after), "");
    let cpu = |round: &Figures| {
        100.0 * (round.during.cpu - round.before.cpu).div_duration_f64(round.elapsed + LEAD)
    };
    add("cpu of one core", over(&cpu), "%");
    if [Phase::Base, Phase::Attack].iter().any(|attacked| attacked.name() == phase) {
        let per_second =
            |count: u64, round: &Figures| count as f64 / round.tally.lasted.as_secs_f64();
        add(
            "connections of attacker",
            over(&|round| per_second(round.tally.connections, round)),
            "/s",
        );
        add("steps of attacker", over(&|round| per_second(round.tally.steps, round)), "/s");
    }
}

/// Of times in any order, in microseconds, and of failures, each of which counts as the longest that was waited; of
/// none it is no number.
fn quantile_us((times, failures): (&[Duration], usize), quantile: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.resize(times.len() + failures, PATIENCE);
    sorted.sort_unstable();
    // The smallest time that so many do not exceed.
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    spread(&values.collect::<Vec<_>>()).median
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(times: &[u64]) -> Vec<Duration> {
        times.iter().copied().map(Duration::from_millis).collect()
    }

    fn round(set_ups: &[u64], set_up_failures: usize, steps: u64) -> Figures {
        let set_ups = milliseconds(set_ups);
        Figures {
            measured: Measured { set_ups, set_up_failures, ..Measured::default() },
            window: Duration::from_secs(1),
            elapsed: Duration::from_secs(1),
            before: Usage::default(),
            during: Usage::default(),
            after: Usage::default(),
            resident_max_bytes: 3 << 20,
            log_bytes_per_s: 7.0,
            tally: Tally { connections: 1, steps, lasted: Duration::from_secs(1) },
        }
    }

    #[test]
    fn quantiles_are_values_that_occurred_and_of_nothing_no_number() {
        let times: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(quantile_us((&milliseconds(&times), 0), 0.5), 50_000.0);
        assert_eq!(quantile_us((&milliseconds(&times), 0), 0.99), 99_000.0);
        assert_eq!(quantile_us((&milliseconds(&[4]), 0), 0.99), 4_000.0);
        assert!(quantile_us((&[], 0), 0.5).is_nan());
        // What has failed has taken as long as anybody waits.
        let three = milliseconds(&[1, 2, 3]);
        assert_eq!(quantile_us((&three, 2), 0.5), 3_000.0);
        assert_eq!(quantile_us((&three, 2), 0.99), 30_000_000.0);
        assert_eq!(quantile_us((&[], 1), 0.5), 30_000_000.0);
    }

    #[test]
    fn phases_are_told_apart_and_the_attack_is_compared_with_its_base() {
        let figures = [
            (Phase::Alone, round(&[1], 0, 0)),
            (Phase::Base, round(&[2], 0, 1)),
            (Phase::Attack, round(&[6, 6, 6], 1, 5)),
            (Phase::After, round(&[3], 0, 0)),
        ];
        let json = serde_json::to_string(&report(&figures).unwrap()).unwrap();
        for figure in [
            r#""rounds":1"#,
            r#""alone_set_up_p99_us":1000"#,
            r#""base_set_up_p50_us":2000"#,
            r#""attack_set_up_failures":1"#,
            r#""attack_served_percent":75"#,
            r#""attack_rss_at_most_mib":3"#,
            r#""attack_steps_of_attacker_per_s":5"#,
            r#""attack_to_base_set_up_p50":3"#,
            r#""after_set_up_p99_us":3000"#,
            r#""attack_to_base_set_up_p99":15000"#,
        ] {
            assert!(json.contains(figure), "{figure} in {json}");
        }
        assert!(!json.contains("round_trip"), "{json}");
        assert!(!json.contains("after_steps"), "{json}");
    }

    #[test]
    fn a_run_without_honest_sessions_or_without_an_attack_has_no_result() {
        let run = |alone: &[u64], steps| {
            let (base, attack) = (round(&[2], 0, 0), round(&[], 3, steps));
            let alone = round(alone, 0, 0);
            report(&[(Phase::Alone, alone), (Phase::Base, base), (Phase::Attack, attack)])
        };
        assert!(matches!(run(&[], 1), Err(LoadError::NoSample("honest session"))));
        assert!(matches!(run(&[1], 0), Err(LoadError::NoAttack)));
        // That nobody is served under attack is a result.
        let json = serde_json::to_string(&run(&[1], 1).unwrap()).unwrap();
        assert!(json.contains(r#""attack_set_up_p50_us":30000000"#), "{json}");
        assert!(json.contains(r#""attack_served_percent":0"#), "{json}");
    }
}
