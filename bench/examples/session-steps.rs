//! `session-steps STEP TIMES`: takes one step of a session so many times on a simulated shard, for callgrind, under which
//! `tests/counts` runs it. Prints nothing.
//!
//! Collected is what runs within [`counted_turn`] and not within [`set_apart`]: callgrind is told their names. Whatever is
//! done once, such as seeding the random generator, is done before.

use std::process::ExitCode;

use engine::bench::SimulatedShard;

#[path = "../simulated/mod.rs"]
#[expect(dead_code, reason = "the end of sessions is no step that is counted here")]
mod simulated;

use simulated::Sessions;

type Turn = fn(&mut SimulatedShard);
type Step = fn(&mut Sessions, Turn);

/// Steps that are taken before any is collected.
const WARM_UP: usize = 3;

fn main() -> ExitCode {
    let words = std::env::args().skip(1).collect::<Vec<_>>();
    let step = words.first().and_then(|name| step(name));
    let (Some(step), Some(Ok(times))) = (step, words.get(1).map(|times| times.parse())) else {
        eprintln!("usage: session-steps handshake|round-trip|to-endpoint|to-mlet TIMES");
        return ExitCode::FAILURE;
    };
    let mut sessions = Sessions::new(set_apart);
    sessions.set_up(turn);
    (0..WARM_UP).for_each(|_| step(&mut sessions, turn));
    (0..times).for_each(|_: usize| step(&mut sessions, counted_turn));
    ExitCode::SUCCESS
}

fn step(name: &str) -> Option<Step> {
    Some(match name {
        "handshake" => Sessions::set_up,
        "round-trip" => Sessions::round_trip,
        "to-endpoint" => Sessions::stream_to_endpoints,
        "to-mlet" => Sessions::stream_to_mlets,
        _ => return None,
    })
}

fn turn(shard: &mut SimulatedShard) {
    shard.turn();
}

/// A turn that is collected.
#[inline(never)]
fn counted_turn(shard: &mut SimulatedShard) {
    shard.turn();
}

/// What stands for the kernel, which is not.
#[inline(never)]
fn set_apart(work: &mut dyn FnMut()) {
    work();
}
