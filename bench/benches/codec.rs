//! Cost of the message codec: encoding and decoding single messages. Not here: finding them in a stream (`framing.rs`).

use std::hint::black_box;

use bench::{encoded, ndata, result, xpub};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use packetlab::message::{HEADER_LEN, Message};

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

criterion_group!(benches, messages);
criterion_main!(benches);
