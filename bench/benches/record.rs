//! Cost of one TLS record on the controller's side: to seal a piece into a block, and to open what came into one. Not
//! here: what the endpoint does for it.

use std::hint::black_box;

use bench::streams::connected;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Records that are sealed before as many are opened.
const BATCH: BatchSize = BatchSize::NumIterations(64);

fn records(criterion: &mut Criterion) {
    for len in [64, 16 * 1024] {
        let mut group = criterion.benchmark_group(format!("record of {len} bytes"));
        group.throughput(Throughput::Bytes(len as u64));
        let piece = vec![7; len];
        let mut block = vec![0; 64 * 1024];
        let (_, mut stream) = connected();
        group.bench_function("seal", |bencher| {
            bencher.iter(|| black_box(stream.seal(black_box(&piece), &mut block)));
        });
        let (mut endpoint, mut stream) = connected();
        group.bench_function("open", |bencher| {
            let sealed = || {
                endpoint.write(&piece);
                let mut sealed = Vec::new();
                endpoint.send(&mut sealed);
                sealed
            };
            let open = |sealed: Vec<u8>| {
                let mut input = &sealed[..];
                assert_eq!(stream.open(black_box(&mut input), &mut block).len, len);
                black_box(&block);
                sealed
            };
            bencher.iter_batched(sealed, open, BATCH);
        });
        group.finish();
    }
}

criterion_group!(benches, records);
criterion_main!(benches);
