//! Thousands of worlds, each drawn from a seed: how many sessions, what everybody does and when, the order in which
//! operations complete, how much they move, and what is refused for a while.
//!
//! A seed fixes schedule and lengths, but not TLS's random bytes. `SEED=n` runs one seed alone, `SEEDS=n` so many.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::faults::Class;
use super::world::{Act, World};
use crate::config::Limits;
use crate::guards::{Guard, take_out};
use crate::proto::account::{Flow, RelayedByAll};
use crate::proto::experiments::Experiments;
use crate::proto::tests::credentials::{Stage, experiments_within, limits, program};

/// Seeds of an ordinary run of the tests. The loss of a guard shows in the first 200.
const SEEDS: u64 = 2_500;

/// More turns than any world needs.
const TURNS_MAX: usize = 400_000;

/// Turns in a row in which nothing happens and no time passes to speak of.
const VAIN_TURNS_MAX: usize = 8;

fn experiment_sets() -> &'static [Arc<Experiments>] {
    static EXPERIMENT_SETS: OnceLock<Vec<Arc<Experiments>>> = OnceLock::new();
    EXPERIMENT_SETS.get_or_init(|| {
        let programs = [program(30), program(20_000)];
        // What all sessions may log together is counted for all worlds, and one must not depend on the others.
        let usual = Limits { linfos_per_second: 2, linfo_rate_total: usize::MAX, ..limits() };
        let few = Limits { handshakes_max: 2, ..usual.clone() };
        // Such a session looks at its sockets each millisecond.
        let hasty = Limits {
            linger_timeout: Duration::ZERO,
            drain_timeout: Duration::from_millis(50),
            ..usual.clone()
        };
        // Shorter than what those do who do something from time to time.
        let impatient = Limits { idle_timeout: Some(Duration::from_millis(900)), ..usual.clone() };
        let made = |limits: &Limits, count: usize| {
            let programs = &programs[..count];
            experiments_within(limits.clone(), Stage::WithDefault, programs, programs)
        };
        let with_usual = (0..=programs.len()).map(|count| made(&usual, count));
        with_usual.chain([made(&few, 0), made(&hasty, 0), made(&impatient, 0)]).collect()
    })
}

/// What came up in the worlds of some seeds.
#[derive(Debug, Default)]
struct Tally {
    sessions: u64,
    storms: u64,
    with_mlet: u64,
    refusals: u64,
    permits: u64,
    /// Mlets that the supervisor was asked for, and those that it was to be asked for in vain.
    asked: [u64; 2],
    ended_before: [u64; 4],
    classes: BTreeMap<Class, u64>,
    linfos_lost: u64,
    with_large_blocks: u64,
    with_kept_buffers: u64,
    over_pipes: u64,
}

impl Tally {
    fn with(mut self, other: Self) -> Self {
        for (class, sessions) in other.classes {
            *self.classes.entry(class).or_default() += sessions;
        }
        Self {
            sessions: self.sessions + other.sessions,
            storms: self.storms + other.storms,
            with_mlet: self.with_mlet + other.with_mlet,
            refusals: self.refusals + other.refusals,
            permits: self.permits + other.permits,
            asked: std::array::from_fn(|way| self.asked[way] + other.asked[way]),
            ended_before: std::array::from_fn(|act| {
                self.ended_before[act] + other.ended_before[act]
            }),
            classes: self.classes,
            linfos_lost: self.linfos_lost + other.linfos_lost,
            with_large_blocks: self.with_large_blocks + other.with_large_blocks,
            with_kept_buffers: self.with_kept_buffers + other.with_kept_buffers,
            over_pipes: self.over_pipes + other.over_pipes,
        }
    }
}

/// Runs the world of a seed to its end.
fn run(seed: u64, tally: &mut Tally) {
    let mut world = World::new(seed, experiment_sets());
    let (mut vain, mut before) = (0, world.harness.now());
    while !world.is_over() {
        world.turn();
        let now = world.harness.now();
        let is_vain = now == before && world.is_quiet();
        vain = if is_vain { vain + 1 } else { 0 };
        before = now;
        assert!(vain <= VAIN_TURNS_MAX, "it turns without cause: {}", world.standing());
        assert!(world.harness.turns < TURNS_MAX, "it never ends: {}", world.standing());
    }
    world.check_end();
    tally.sessions += world.harness.shard.sessions_begun;
    tally.storms += u64::from(world.players.len() > 100);
    tally.with_mlet += world.players.iter().filter(|player| player.mlet.is_some()).count() as u64;
    let mlets = world.players.iter().filter_map(|player| player.mlet.as_ref());
    tally.over_pipes += mlets.filter(|mlet| mlet.borrow().has_got_by_pipe()).count() as u64;
    tally.refusals += world.harness.kernel.borrow().refusals as u64;
    tally.permits += world.permits_given as u64;
    let mut relayed = RelayedByAll::default();
    tally.asked[0] += world.asked.0 as u64;
    tally.asked[1] += world.asked.1 as u64;
    for ended in world.players.iter().flat_map(|player| &player.ended) {
        let none = Flow::default();
        relayed.to_endpoint.add_since(none, ended.relayed.to_endpoint);
        relayed.from_endpoint.add_since(none, ended.relayed.from_endpoint);
        *tally.classes.entry(Class::from(&ended.outcome)).or_default() += 1;
        tally.linfos_lost += ended.relayed.linfos_lost;
    }
    assert_eq!(world.harness.shard.relayed, relayed, "what all have relayed is what each has");
    tally.with_large_blocks += u64::from(world.harness.large_blocks_most > 0);
    tally.with_kept_buffers += u64::from(world.harness.kept_buffers_most > 0);
    tally.ended_before[match world.act {
        Act::Play | Act::Strike => 0,
        Act::Finish => 1,
        Act::Drain => 2,
        Act::Force => 3,
    }] += 1;
}

/// Runs it, and tells the seed if something is wrong.
fn run_telling(seed: u64, tally: &mut Tally) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, tally))) {
        eprintln!(
            "to see it again: SEED={seed} cargo test -p engine --lib shard::tests::simulation"
        );
        std::panic::resume_unwind(panic);
    }
}

/// Promises P5, P14 and the invariants of the shard.
#[test]
fn whatever_happens_a_shard_keeps_account_and_ends_each_session_with_one_record() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    if let Some(seed) = number("SEED") {
        run_telling(seed, &mut Tally::default());
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let of_thread = |first: usize| {
        let mut tally = Tally::default();
        for seed in (first as u64..seeds).step_by(threads) {
            run_telling(seed, &mut tally);
        }
        tally
    };
    let tally = std::thread::scope(|scope| {
        let of_thread = &of_thread;
        let running: Vec<_> =
            (0..threads).map(|first| scope.spawn(move || of_thread(first))).collect();
        running
            .into_iter()
            .map(|running| running.join().unwrap())
            .fold(Tally::default(), Tally::with)
    });
    println!("{tally:?}");
    // Worlds in which nothing happens prove nothing.
    assert!(tally.storms * 300 > seeds, "{tally:?}");
    assert!(tally.sessions > seeds && tally.with_mlet * 3 > tally.sessions, "{tally:?}");
    assert!(tally.refusals > seeds && tally.permits * 10 > seeds, "{tally:?}");
    assert!(tally.asked.iter().all(|mlets| mlets * 10 > seeds), "{tally:?}");
    assert!(tally.ended_before.iter().all(|worlds| worlds * 100 > seeds), "{tally:?}");
    assert!(tally.linfos_lost * 50 > seeds, "{tally:?}");
    assert!(tally.with_large_blocks * 100 > seeds, "{tally:?}");
    assert!(tally.with_kept_buffers * 1000 > seeds, "{tally:?}");
    assert!(tally.over_pipes * 10 > seeds, "{tally:?}");
    assert_eq!(tally.classes.len(), 18, "{tally:?}");
    assert!(tally.classes.values().all(|sessions| sessions * 1000 > seeds), "{tally:?}");
}

/// Each guard stands for a defect that was in this code; without it the same seeds must fail.
#[test]
fn the_simulation_notices_the_loss_of_each_guard() {
    let guards = [
        Guard::ReadsBesideSends,
        Guard::TurnEnds,
        Guard::CancelsOnce,
        Guard::WakesForBuffers,
        Guard::ClosesWhenQuiet,
        Guard::KnowsSessions,
        Guard::ProbesLater,
    ];
    for guard in guards {
        take_out(Some(guard));
        let fails = |seed: u64| {
            catch_unwind(AssertUnwindSafe(|| run(seed, &mut Tally::default()))).is_err()
        };
        let found = (0..SEEDS).find(|seed| fails(*seed));
        take_out(None);
        println!("{guard:?}: seed {found:?}");
        let Some(seed) = found else { panic!("nobody misses {guard:?}") };
        // It is the guard that is missed: with it the same world runs to its end.
        run_telling(seed, &mut Tally::default());
    }
}
