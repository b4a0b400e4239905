//! Counts that do not depend on how busy a machine is, and their ceilings (`ceilings.json`): of sessions on a simulated shard.
//!
//! Counted is the shard's work, TLS included: what stands for the kernel and the peers is left out. Allocations and
//! driver calls are the same in a debug build. Not here: how long anything takes, which `cargo bench` and `pktfleet load`
//! measure.

mod callgrind;
mod ceilings;
#[path = "../../simulated/mod.rs"]
mod simulated;

use allocation_counter::{measure, opt_out};
use engine::bench::SimulatedShard;

use self::ceilings::{Counts, check};
use self::simulated::Sessions;

/// Round trips that are counted together, so that what happens in some of them alone counts too.
const ROUND_TRIPS: u64 = 100;

/// Sessions that are set up and ended, counted together.
const SESSIONS: usize = 16;

/// Sessions whose round trips are under way at the same time.
const BUSY_SESSIONS: usize = 64;

/// What the shard did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Done {
    allocations: u64,
    calls: u64,
    enters: u64,
}

/// Counts what the shard does within `steps`, which takes its turns by what it is given.
fn count(
    sessions: &mut Sessions,
    steps: impl FnOnce(&mut Sessions, &mut dyn FnMut(&mut SimulatedShard)),
) -> Done {
    let mut allocations = 0;
    let (calls, enters) = (sessions.shard.driver_calls(), sessions.shard.enters());
    steps(sessions, &mut |shard| {
        allocations += measure(|| shard.turn()).count_total;
    });
    let shard = &sessions.shard;
    Done { allocations, calls: shard.driver_calls() - calls, enters: shard.enters() - enters }
}

fn round_trips(sessions: &mut Sessions) -> Done {
    // What grows once has grown then.
    sessions.round_trip(turn);
    count(sessions, |sessions, turn| {
        (0..ROUND_TRIPS).for_each(|_| sessions.round_trip(&mut *turn));
    })
}

fn turn(shard: &mut SimulatedShard) {
    shard.turn();
}

/// Sessions on a shard that has had one before.
fn sessions() -> Sessions {
    let mut sessions = Sessions::new(|work| opt_out(work));
    sessions.set_up(turn);
    sessions.round_trip(turn);
    sessions.end(turn);
    sessions
}

#[test]
fn allocations_driver_calls_and_enters_keep_to_their_ceilings() {
    let mut sessions = sessions();
    let whole = count(&mut sessions, |sessions, turn| {
        for _ in 0..SESSIONS {
            sessions.set_up(&mut *turn);
            sessions.end(&mut *turn);
        }
    });
    sessions.set_up(turn);
    let of_one = round_trips(&mut sessions);
    let to_endpoint = count(&mut sessions, |sessions, turn| sessions.stream_to_endpoints(turn));
    let to_mlet = count(&mut sessions, |sessions, turn| sessions.stream_to_mlets(turn));
    (1..BUSY_SESSIONS).for_each(|_| sessions.set_up(turn));
    let of_many = round_trips(&mut sessions);
    let counts = [
        ("16 sessions, set-up to end, allocations", whole.allocations),
        ("16 sessions, set-up to end, driver calls", whole.calls),
        ("100 round trips, one session, allocations", of_one.allocations),
        ("100 round trips, one session, driver calls", of_one.calls),
        ("100 round trips, one session, enters", of_one.enters),
        ("100 round trips, each of 64 sessions, allocations", of_many.allocations),
        ("100 round trips, each of 64 sessions, driver calls", of_many.calls),
        ("100 round trips, each of 64 sessions, enters", of_many.enters),
        ("1 MiB to the endpoint, allocations", to_endpoint.allocations),
        ("1 MiB to the endpoint, driver calls", to_endpoint.calls),
        ("1 MiB to the mlet, allocations", to_mlet.allocations),
        ("1 MiB to the mlet, driver calls", to_mlet.calls),
    ];
    check("counts", &counts.map(|(name, count)| (name.to_owned(), count)).into());
}

#[test]
fn nothing_is_allocated_for_a_message() {
    let mut sessions = sessions();
    let of_set_up = count(&mut sessions, |sessions, turn| sessions.set_up(turn));
    assert!(of_set_up.allocations > 0, "nothing is counted");
    assert_eq!(round_trips(&mut sessions).allocations, 0);
}

#[test]
#[ignore = "needs valgrind"]
fn instructions_keep_to_their_ceilings() {
    let program = callgrind::build();
    let mut counts = Counts::new();
    for (step, name, times) in [
        ("handshake", "a handshake, accept to mlet", 16),
        ("round-trip", "a round trip of 64 B", 100),
        ("to-endpoint", "1 MiB to the endpoint", 4),
        ("to-mlet", "1 MiB to the mlet", 4),
    ] {
        let collected = callgrind::collect(&program, step, times);
        println!("{name}: {} instructions in C and assembly", collected.c / times);
        counts.insert(format!("{name}, instructions in Rust"), collected.rust / times);
    }
    check("instructions", &counts);
}
