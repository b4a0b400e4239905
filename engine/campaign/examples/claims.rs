//! How fast one manager claims endpoints through its client, and how long a session waits for its claim: with 1, 16 and
//! 64 at once, against a PostgreSQL of its own with default settings. Then whole lives: a claim and a result of 1 KB.
//!
//! `cargo run --release -p campaign --example claims [SECONDS]`; needs PostgreSQL, as the tests do.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement: it may panic, and reads the clock"
)]

#[path = "../tests/common/postgres.rs"]
mod postgres;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use campaign::administration::{Administration, Lost, NewCampaign};
use campaign::{Access, Ask, Client, ClientNews, Fence, Plan, Settings, join};
use hdrhistogram::Histogram;
use postgres::Postgres;

fn main() {
    let seconds = std::env::args().nth(1).map_or(5, |typed| typed.parse().unwrap());
    let postgres = Postgres::new();
    for in_flight in [1, 16, 64] {
        for whole_lives in [false, true] {
            let name = format!("{in_flight}-{whole_lives}");
            let mut run = Run::new(&postgres, &name, whole_lives);
            run.go_on(in_flight, Duration::from_secs(seconds));
        }
    }
}

struct Run {
    client: Client,
    news: Receiver<ClientNews>,
    whole_lives: bool,
    asked: HashMap<u64, Instant>,
    waits_us: Histogram<u64>,
}

impl Run {
    fn new(postgres: &Postgres, name: &str, whole_lives: bool) -> Self {
        let address = postgres.address(name).parse().unwrap();
        let access = Access { address, password: None, roots: None, certificate: None };
        let plan = Plan {
            mlet_digest: [0; 32],
            argv: Vec::new(),
            descriptor: Some(String::new()),
            snikeys: Vec::new(),
        };
        let (lease, lost) = (Duration::from_secs(60), Lost::Again);
        let new = NewCampaign {
            plan: plan.clone(),
            n: None,
            tries: 3,
            lease,
            lost,
            waves: Vec::new(),
            created: None,
        };
        Administration::open(&access).unwrap().create(&new).unwrap();
        let (tell, news) = channel();
        let (host, version) = ("here".to_owned(), String::new());
        let settings = Settings { access, plan, host, version, places: 64, fence: Fence::Kill };
        let client = join(settings, move |told| drop(tell.send(told))).unwrap();
        let waits_us = Histogram::new(3).unwrap();
        Self { client, news, whole_lives, asked: HashMap::new(), waits_us }
    }

    fn ask(&mut self, session: u64) {
        let mut endpoint = [0; 32];
        // Keys are digests: they come in no order.
        endpoint[..8].copy_from_slice(&session.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        self.asked.insert(session, Instant::now());
        self.client.ask(Ask::Take { session, endpoint });
    }

    fn go_on(&mut self, in_flight: u64, time: Duration) {
        let began = Instant::now();
        (0..in_flight).for_each(|session| self.ask(session));
        let (mut next, mut over) = (in_flight, 0);
        while over < next {
            let is_over = match self.news.recv().unwrap() {
                ClientNews::Won { session, .. } => {
                    let waited = self.asked.remove(&session).unwrap().elapsed();
                    self.waits_us.record(u64::try_from(waited.as_micros()).unwrap()).unwrap();
                    if self.whole_lives {
                        let record = format!("\"{}\"", "x".repeat(1000));
                        self.client.ask(Ask::Finish { session, outcome: "ok".to_owned(), record });
                    }
                    !self.whole_lives
                }
                ClientNews::Accepted { .. } => true,
                ClientNews::Standing(_) => false,
                other => panic!("{other:?}"),
            };
            if is_over {
                over += 1;
                if began.elapsed() < time {
                    self.ask(next);
                    next += 1;
                }
            }
        }
        let rate = over as f64 / began.elapsed().as_secs_f64();
        let [p50, p99] =
            [0.5, 0.99].map(|part| self.waits_us.value_at_quantile(part) as f64 / 1000.0);
        let what = if self.whole_lives { "claims and results" } else { "claims" };
        println!(
            "{in_flight:3} at once: {rate:6.0} {what}/s, waited for a claim p50 {p50:.2} ms, p99 {p99:.2} ms"
        );
    }
}
