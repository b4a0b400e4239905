//! Cost of the session machine without sockets and shard: from the first byte to the request for a mlet, and a round trip
//! of 64 bytes. Only the session's own calls are timed; the endpoint's TLS is not.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::credentials::{NOW, endpoint_config, experiments};
use bench::endpoint::Endpoint;
use bench::{encoded, ndata};
use criterion::{Criterion, criterion_group, criterion_main};
use engine::proto::account::RelayedByAll;
use engine::proto::experiments::Experiments;
use engine::proto::outbox::BlockPool;
use engine::proto::session::{Context, Request, Session};
use packetlab::tls::ClientConfig;

/// A session with its endpoint, and how long its calls have taken.
struct Timed {
    session: Session,
    endpoint: Endpoint,
    pool: BlockPool,
    relayed: RelayedByAll,
    now: Instant,
    taken: Duration,
    passing: Vec<u8>,
}

impl Timed {
    fn new(experiments: &Arc<Experiments>, config: &Arc<ClientConfig>) -> Self {
        let now = Instant::now();
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            session: Session::new(peer, Arc::clone(experiments), now),
            endpoint: Endpoint::new(Arc::clone(config)),
            pool: BlockPool::default(),
            relayed: RelayedByAll::default(),
            now,
            taken: Duration::ZERO,
            passing: Vec::new(),
        }
    }

    fn call<R>(&mut self, call: impl FnOnce(&mut Session, &mut Context<'_>) -> R) -> R {
        let mut cx =
            Context { now: self.now, wall: NOW, pool: &mut self.pool, relayed: &mut self.relayed };
        let begin = Instant::now();
        let result = black_box(call(&mut self.session, &mut cx));
        self.taken += begin.elapsed();
        result
    }

    /// The endpoint's bytes go to the session, and the session's to it.
    fn exchange(&mut self) {
        let mut sent = std::mem::take(&mut self.passing);
        sent.clear();
        self.endpoint.send(&mut sent);
        if !sent.is_empty() {
            self.call(|session, cx| session.handle_endpoint_bytes(&sent, cx));
        }
        self.passing = sent;
        while let Some(out) = self.call(|session, _| session.transmit_to_endpoint()) {
            self.endpoint.receive(&out.block[out.start..out.end]);
            let len = out.end - out.start;
            self.call(|session, cx| session.handle_sent_to_endpoint(out.block, Ok(len), cx));
        }
    }

    fn set_up(&mut self) {
        loop {
            self.exchange();
            let requests = self.call(|session, _| session.take_requests());
            if requests.iter().any(|request| matches!(request, Request::Permit)) {
                self.call(Session::handle_permit);
            }
            assert!(!requests.iter().any(|request| matches!(request, Request::Over(_))));
            if requests.iter().any(|request| matches!(request, Request::Mlet(_))) {
                return;
            }
        }
    }

    fn round_trip(&mut self, message: &[u8]) {
        self.call(|session, cx| session.handle_mlet_bytes(message, cx));
        self.exchange();
        assert_eq!(self.endpoint.take_received(), message.len());
        self.endpoint.write(message);
        self.exchange();
        let out = self.call(|session, _| session.transmit_to_mlet()).expect("the answer");
        assert_eq!(&out.block[out.start..out.end], message);
        let len = out.end - out.start;
        self.call(|session, cx| session.handle_sent_to_mlet(out.block, Ok(len), cx));
    }
}

fn sessions(criterion: &mut Criterion) {
    let (experiments, config) = (experiments(), endpoint_config());
    let mut group = criterion.benchmark_group("session");
    group.bench_function("handshake to mlet", |bencher| {
        bencher.iter_custom(|times| {
            let set_up = |_| {
                let mut timed = Timed::new(&experiments, &config);
                timed.set_up();
                timed.taken
            };
            (0..times).map(set_up).sum()
        });
    });
    let message = encoded(&ndata(&[7; 49]));
    group.bench_function("round trip of 64 bytes", |bencher| {
        let mut timed = Timed::new(&experiments, &config);
        timed.set_up();
        bencher.iter_custom(|times| {
            timed.taken = Duration::ZERO;
            (0..times).for_each(|_| timed.round_trip(&message));
            timed.taken
        });
    });
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
