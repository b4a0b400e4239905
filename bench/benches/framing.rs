//! Cost of finding messages in a stream of small ones: whole, as peers of brokers do, and as pieces that may become records, as
//! the relay does.

use std::hint::black_box;

use bench::{encoded, ndata};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use packetlab::cut::Cutter;
use packetlab::frame::Framer;

/// Stream bytes handed over at once, as large as a TLS record can be.
const PIECE_LEN: usize = 16 * 1024;

/// Messages of the stream.
const MESSAGES: usize = 4096;

fn framing(criterion: &mut Criterion) {
    let stream = encoded(&ndata(&[7; 49])).repeat(MESSAGES);
    let mut group = criterion.benchmark_group("4096 messages of 64 bytes");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.bench_function("Framer", |bencher| {
        bencher.iter(|| {
            let mut framer = Framer::default();
            let mut payload_bytes = 0;
            for piece in stream.chunks(PIECE_LEN) {
                framer.push(black_box(piece));
                while let Ok(Some((_, payload))) = framer.next() {
                    payload_bytes += black_box(payload).len();
                }
            }
            payload_bytes
        });
    });
    group.bench_function("Cutter", |bencher| {
        bencher.iter(|| {
            let mut cutter = Cutter::default();
            for mut piece in stream.chunks(PIECE_LEN) {
                while let Some(cut) = cutter.next_piece(black_box(&mut piece)) {
                    black_box(cut);
                }
            }
            cutter.messages()
        });
    });
    group.finish();
}

criterion_group!(benches, framing);
criterion_main!(benches);
