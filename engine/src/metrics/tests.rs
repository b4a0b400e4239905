//! Which receives are chosen, how times are kept, and what the log says of them.

use std::num::NonZeroU32;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::bounds::{LONGEST_NS, SHORTEST_NS};
use super::choice::OneIn;
use super::latency::RunLatency;
use super::*;

fn nth(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn one_in_one_is_every_one() {
    let mut choice = OneIn::new(nth(1), 7);
    assert!((0..1000).all(|_| choice.draw()));
}

/// Also of those that come in a rhythm: a fixed distance of 10 would choose from one half, or one tenth, alone.
#[test]
fn one_in_ten_is_chosen_of_the_whole_row_and_of_every_tenth_of_it() {
    for seed in 0..4 {
        let mut choice = OneIn::new(nth(10), seed);
        let mut chosen = [0; 10];
        (0..100_000).for_each(|number| chosen[number % 10] += u32::from(choice.draw()));
        assert!((9_500..10_500).contains(&chosen.iter().sum::<u32>()), "{chosen:?}");
        assert!(chosen.iter().all(|count| (850..1150).contains(count)), "{chosen:?}");
    }
}

#[test]
fn the_rarest_choice_is_one_in_so_many_at_last() {
    let mut choice = OneIn::new(NonZeroU32::MAX, 0);
    assert!((0..1000).filter(|_| choice.draw()).count() <= 1);
}

/// The times of one direction of a session, in nanoseconds, as they are told.
fn spread_of(times: &[u64]) -> Spread {
    let (mut latency, start) = (SessionLatency::default(), start());
    for ns in times {
        latency.begin(Direction::ToEndpoint, start);
        let took = Duration::from_nanos(*ns);
        assert_eq!(latency.end(Direction::ToEndpoint, start + took), Some(took));
    }
    let spread = latency.spread().unwrap();
    assert_eq!(spread.from_endpoint, None);
    spread.to_endpoint.unwrap()
}

/// Of all times, the one that so many in a hundred do not exceed.
fn exact(times: &mut [u64], percent: usize) -> u64 {
    times.sort_unstable();
    times[(times.len() * percent).div_ceil(100) - 1]
}

#[track_caller]
fn is_close(told: Duration, exact: u64) {
    let error = (told.as_nanos() as f64 - exact as f64).abs() / exact as f64;
    assert!(error <= 1.0 / 32.0, "{told:?} is told of {exact} ns");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_quantile_of_a_session_is_wrong_by_a_32nd_at_most_and_its_longest_time_is_exact(
        mut times in prop::collection::vec(
            (10_u32..42).prop_flat_map(|bits| (1_u64 << (bits - 1))..(1 << bits).min(LONGEST_NS)),
            1..300,
        ),
    ) {
        times.iter_mut().for_each(|ns| *ns = (*ns).max(SHORTEST_NS));
        let told = spread_of(&times);
        prop_assert_eq!(told.count, times.len() as u64);
        is_close(told.p50, exact(&mut times, 50));
        is_close(told.p99, exact(&mut times, 99));
        prop_assert_eq!(told.max, Duration::from_nanos(exact(&mut times, 100)));
        prop_assert!(told.p50 <= told.p99 && told.p99 <= told.max);
    }
}

#[test]
fn one_time_is_its_own_median_percentile_and_maximum() {
    for ns in [SHORTEST_NS, 8_704, 9_215, 9_216, 1_000_003, LONGEST_NS] {
        let Spread { count, p50, p99, max } = spread_of(&[ns]);
        assert_eq!((count, max), (1, Duration::from_nanos(ns)));
        is_close(p50, ns);
        assert_eq!(p50, p99);
    }
}

#[test]
fn what_is_shorter_or_longer_than_can_be_told_counts_as_the_shortest_or_longest() {
    assert_eq!(spread_of(&[0]).max, Duration::from_micros(1));
    assert_eq!(spread_of(&[u64::MAX]).max, Duration::from_secs(3600));
}

#[test]
fn only_what_was_begun_and_not_given_up_has_a_time() {
    let (mut latency, start) = (SessionLatency::default(), start());
    assert_eq!(latency.end(Direction::FromEndpoint, start), None);
    latency.begin(Direction::FromEndpoint, start);
    assert_eq!(latency.end(Direction::ToEndpoint, start), None, "the other direction");
    latency.give_up(Direction::FromEndpoint);
    assert_eq!(latency.end(Direction::FromEndpoint, start), None);
    assert_eq!(latency.spread(), None);
}

/// Promise: an idle session holds a few KiB.
#[test]
fn a_session_holds_eight_bytes_until_it_is_timed_and_then_some_for_each_kind_of_time() {
    assert_eq!(size_of::<Option<Box<SessionLatency>>>(), 8);
    assert!(size_of::<SessionLatency>() <= 128);
    let scale = LONGEST_NS.ilog2() - SHORTEST_NS.ilog2() + 1;
    let (mut latency, start) = (SessionLatency::default(), start());
    // Every time that may lie on a step of its own, and twice.
    for ns in (0..scale * 64).map(|step| {
        let doubling = SHORTEST_NS.ilog2() + step / 64;
        (1_u64 << doubling) + (u64::from(step % 64) << (doubling - 6))
    }) {
        for _ in 0..2 {
            latency.begin(Direction::ToEndpoint, start);
            latency.end(Direction::ToEndpoint, start + Duration::from_nanos(ns));
        }
    }
    let steps = latency.steps(Direction::ToEndpoint);
    assert!((500..=528).contains(&steps), "{steps} steps of 8 bytes");
}

#[test]
fn a_run_without_times_tells_nothing_and_one_with_times_tells_both_directions() {
    let run = RunLatency::new(2, nth(1));
    assert_eq!(run.summary(), None);
    assert!(run.stopwatch(2).is_none());
    let stopwatches = [run.stopwatch(0).unwrap(), run.stopwatch(1).unwrap()];
    stopwatches[1].record(Direction::FromEndpoint, Duration::from_micros(7));
    assert_eq!(run.summary().unwrap().to_string(), "from endpoints 7/7/7 us");
    for number in 1..=200 {
        let took = Duration::from_micros(number * 10);
        stopwatches[number as usize % 2].record(Direction::ToEndpoint, took);
    }
    // To three digits, of which the last is rounded up.
    let expected = "to endpoints 1000/1980/2001 us, from endpoints 7/7/7 us";
    assert_eq!(run.summary().unwrap().to_string(), expected);
    assert_eq!(run.summary().unwrap().to_string(), expected, "told once, they are told again");
}

/// Who looks at the run takes nothing from the file of intervals.
#[test]
fn times_that_somebody_has_looked_at_are_still_in_their_interval() {
    let run = RunLatency::new(1, nth(1));
    assert_eq!(run.so_far(), BothWays::default());
    let stopwatch = run.stopwatch(0).unwrap();
    for us in [10, 30, 40_000] {
        stopwatch.record(Direction::ToEndpoint, Duration::from_micros(us));
    }
    for _ in 0..2 {
        let times = run.so_far().to_endpoint.unwrap();
        assert_eq!((times.count, times.sum.as_micros() / 1_000), (3, 40));
        let up_to = |us| {
            let bound = Duration::from_micros(us);
            times.up_to.iter().find(|(at, _)| *at == bound).unwrap().1
        };
        assert_eq!([10, 20, 50, 10_000, 50_000].map(up_to), [1, 1, 2, 2, 3]);
    }
    assert_eq!(run.take().to_endpoint.len(), 3);
    assert_eq!(run.take().to_endpoint.len(), 0, "they are in one interval alone");
    assert_eq!(run.so_far().to_endpoint.unwrap().count, 3);
}

/// However often somebody reads meanwhile.
#[test]
fn every_time_is_taken_once() {
    const TIMES_MIN: u64 = 200_000;
    const TIMES_MAX: u64 = 1_000 * TIMES_MIN;
    let run = RunLatency::new(1, nth(1));
    let stopwatch = run.stopwatch(0).unwrap();
    // The reader's thread may get no processor for a while.
    let parts = AtomicU64::new(0);
    let is_enough = |number| number >= TIMES_MIN && parts.load(Ordering::Relaxed) > 1;
    let (recorded, taken) = thread::scope(|scope| {
        let shard = scope.spawn(|| {
            let record = |number: &u64| {
                let ns = 1_000 + number.min(&TIMES_MIN);
                stopwatch.record(Direction::ToEndpoint, Duration::from_nanos(ns));
            };
            (0..TIMES_MAX).take_while(|number| !is_enough(*number)).inspect(record).count() as u64
        });
        let mut taken = 0;
        while !shard.is_finished() {
            let part = run.take().to_endpoint.len();
            parts.fetch_add(u64::from(part > 0), Ordering::Relaxed);
            taken += part;
        }
        (shard.join().unwrap(), taken + run.take().to_endpoint.len())
    });
    assert_eq!(taken, recorded);
    assert!(parts.into_inner() > 1, "nothing was taken meanwhile");
    assert!(run.summary().unwrap().to_string().ends_with("/201 us"), "all are in the total");
}

/// As where two who read come one after the other, and are at each place just when the shard looks there.
#[test]
fn a_time_that_finds_no_place_free_at_first_is_kept() {
    let run = RunLatency::new(1, nth(1));
    let stopwatch = run.stopwatch(0).unwrap();
    let begun = Barrier::new(2);
    thread::scope(|scope| {
        let held = [0, 1].map(|place| run.hold(place));
        let shard = scope.spawn(|| {
            begun.wait();
            stopwatch.record(Direction::ToEndpoint, Duration::from_micros(5));
        });
        begun.wait();
        // For a shard that gives it up this is time enough.
        for _ in (0..10_000).take_while(|_| !shard.is_finished()) {
            thread::yield_now();
        }
        drop(held);
    });
    assert_eq!(run.take().to_endpoint.len(), 1);
}

#[test]
fn a_shard_does_not_wait_for_who_reads() {
    let run = RunLatency::new(1, nth(1));
    let stopwatch = run.stopwatch(0).unwrap();
    for place in 0..2 {
        let held = run.hold(place);
        stopwatch.record(Direction::ToEndpoint, Duration::from_micros(5));
        drop(held);
        assert_eq!(run.take().to_endpoint.len(), 1, "while place {place} was held");
    }
}
