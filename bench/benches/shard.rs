//! Cost of a shard's turns on the simulated driver, for a round trip of 64 bytes in each of its sessions. The driver's own
//! work is within the time, so that it tells more and less, and not what a kernel would take; peers are not.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::bench::SimulatedShard;

#[path = "../simulated/mod.rs"]
#[expect(dead_code, reason = "sessions are neither streamed through nor ended here")]
mod simulated;

use simulated::Sessions;

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round trip of 64 bytes on a shard");
    let mut sessions = Sessions::new(|work| work());
    let mut there = 0;
    for count in [1, 64] {
        (there..count).for_each(|_| sessions.set_up(|shard| shard.turn()));
        there = count;
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} sessions"), |bencher| {
            bencher.iter_custom(|times| {
                let mut taken = Duration::ZERO;
                for _ in 0..times {
                    sessions.round_trip(|shard: &mut SimulatedShard| {
                        let begin = Instant::now();
                        shard.turn();
                        taken += begin.elapsed();
                    });
                }
                taken
            });
        });
    }
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
