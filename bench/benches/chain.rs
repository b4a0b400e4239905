//! Cost of a peer's certificate chain: an endpoint's, which is one certificate, and a controller's, which is two. Decoded
//! and verified each time, and judged by one who has judged it before, as the endpoints of one operator are.

use std::hint::black_box;

use bench::credentials::{NOW, controller_chain, endpoint_chain, operator};
use criterion::{Criterion, criterion_group, criterion_main};
use packetlab::trust::{Judge, TrustMode, decode_chain, verify_chain};

fn chains(criterion: &mut Criterion) {
    let anchors = [operator()];
    for (name, chain, mode) in [
        ("endpoint's chain", endpoint_chain(), TrustMode::ControllerAuthenticatesEndpoint),
        ("controller's chain", controller_chain(), TrustMode::EndpointAuthenticatesController),
    ] {
        let ders = || chain.iter().map(|certificate| certificate.der());
        let mut group = criterion.benchmark_group(name);
        group.bench_function("decode", |bencher| {
            bencher.iter(|| decode_chain(black_box(ders()), mode).expect("a golden chain"));
        });
        group.bench_function("verify", |bencher| {
            bencher.iter(|| {
                verify_chain(black_box(&chain), &anchors, mode, NOW).expect("a golden chain")
            });
        });
        let judge = Judge::new(mode, &anchors);
        group.bench_function("judge again", |bencher| {
            bencher.iter(|| judge.judge(black_box(ders()), NOW).expect("a golden chain"));
        });
        group.finish();
    }
}

criterion_group!(benches, chains);
criterion_main!(benches);
