//! Cost of the message codec: encoding and decoding single messages, and finding whole messages in a
//! stream.

use std::hint::black_box;

use bench::{encoded, ndata, result, xpub};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use packetlab::frame::Framer;
use packetlab::message::{HEADER_LEN, Message};

/// Stream bytes handed over at once, as large as a TLS record can be.
const PIECE_LEN: usize = 16 * 1024;

fn messages(criterion: &mut Criterion) {
    let payload = [7; 1400];
    for (name, message) in [("RESULT", result()), ("NDATA_1400", ndata(&payload)), ("XPUB", xpub())]
    {
        let frame = encoded(&message);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        let mut out = Vec::new();
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&message).encode(&mut out)
            });
        });
        group.bench_function("decode", |bencher| {
            bencher.iter(|| {
                let payload = black_box(&frame[HEADER_LEN..]);
                black_box(Message::decode(message.message_type(), payload));
            });
        });
        group.finish();
    }
}

fn framer(criterion: &mut Criterion) {
    let stream = encoded(&ndata(&[7; 49])).repeat(4096);
    let mut group = criterion.benchmark_group("Framer");
    group.throughput(Throughput::Elements(4096));
    group.bench_function("4096 messages of 64 bytes", |bencher| {
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
    group.finish();
}

criterion_group!(benches, messages, framer);
criterion_main!(benches);
