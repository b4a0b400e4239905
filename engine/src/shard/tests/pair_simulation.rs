//! Thousands of short sessions, each drawn from a seed: sizes, chunks, order of completions, the
//! moment of a fault and what it is.
//!
//! Besides the invariants that every step checks: the session ends in time, with an outcome that its
//! progress and the fault allow, and what arrived is a beginning of what was sent, or all of it when
//! the outcome says so. `SEED=n` runs one seed alone.

use std::sync::Arc;
use std::time::Duration;

use super::faults::{Class, FAULTS, Fault, strike};
use super::pair::{Chunks, Pair};
use crate::proto::experiments::Experiments;
use crate::proto::tests::credentials::{Login, Stage, TRUSTING, experiments, program};
use crate::proto::tests::{Random, assert_records_hold_one_message_each, filled, message_ranges};
use packetlab::message::MessageType;

const SESSIONS: u64 = 4000;

/// Longer than all limits together.
const PATIENCE: Duration = Duration::from_secs(100);

/// Tells the seed when its session fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={}", self.0);
        }
    }
}

/// Promises P5, P14.
#[test]
fn whatever_happens_when_a_session_ends_in_time_and_what_arrives_is_what_was_sent() {
    let programs = [program(30), program(20_000)];
    let experiment_sets = [0, 1, 2]
        .map(|count| experiments(Stage::WithDefault, &programs[..count], &programs[..count]));
    if let Ok(seed) = std::env::var("SEED") {
        simulate(&experiment_sets, seed.parse().unwrap());
        return;
    }
    let mut seen: Vec<(Class, u32)> = Vec::new();
    for seed in 0..SESSIONS {
        let class = simulate(&experiment_sets, seed);
        match seen.iter_mut().find(|(known, _)| *known == class) {
            Some((_, count)) => *count += 1,
            None => seen.push((class, 1)),
        }
    }
    // A simulation that stops early proves nothing: every outcome must have come up many times.
    assert_eq!(seen.len(), 12, "{seen:?}");
    assert!(seen.iter().all(|(_, count)| *count > 10), "{seen:?}");
}

/// What both sides have to say once the mlet runs, and whether they listen.
struct Scene {
    from_endpoint: Vec<u8>,
    from_mlet: Vec<u8>,
    /// The mlet exits after its last byte.
    mlet_exits: bool,
    endpoint_reads: bool,
    mlet_reads: bool,
    has_begun: bool,
}

impl Scene {
    fn draw(random: &mut Random) -> Self {
        let (from_endpoint, from_mlet) = (stream(random), stream(random));
        Self {
            from_endpoint,
            from_mlet,
            mlet_exits: random.below(3) == 0,
            endpoint_reads: random.below(6) != 0,
            mlet_reads: random.below(4) != 0,
            has_begun: false,
        }
    }

    /// Runs on for `steps` operations; false when none is left.
    fn play(&mut self, pair: &mut Pair, steps: usize) -> bool {
        (0..steps).all(|_| {
            if let Some(mlet) = &mut pair.mlet
                && !self.has_begun
                && pair.over.is_none()
            {
                self.has_begun = true;
                mlet.reads = self.mlet_reads;
                mlet.write(&self.from_mlet);
                if self.mlet_exits {
                    mlet.exit();
                }
                pair.endpoint.write(&self.from_endpoint);
                pair.endpoint.reads = self.endpoint_reads;
            }
            pair.step()
        })
    }
}

/// Up to 20 messages of any type; some streams end inside the last.
fn stream(random: &mut Random) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..random.below(21) {
        let len = random.size(30_000) - 1;
        stream.extend(filled(MessageType(random.next() as u8), len));
    }
    if random.below(8) == 0 {
        stream.truncate(random.below(stream.len() + 1));
    }
    stream
}

fn simulate(experiment_sets: &[Arc<Experiments>; 3], seed: u64) -> Class {
    let _seed = Seed(seed);
    let mut random = Random(seed);
    let mut scene = Scene::draw(&mut random);
    let experiments = Arc::clone(&experiment_sets[random.below(experiment_sets.len())]);
    let mut pair = Pair::with(experiments, Login::Operator, Some(TRUSTING));
    // The set-up takes few operations, the relay many; both have their share.
    let strikes_at = random.size(1000);
    let fault = FAULTS[random.below(FAULTS.len())];
    pair.has_permits = random.below(10) != 0;
    pair.endpoint.is_silent = random.below(10) == 0;
    pair.chunks = Chunks::Random(random);

    scene.play(&mut pair, strikes_at);
    let fault = can_strike(&pair, fault).then_some(fault);
    let allowed = allowed(&pair, fault);
    if let Some(fault) = fault {
        strike(&mut pair, fault);
    }
    while scene.play(&mut pair, 1) {}
    let struck_at = pair.elapsed();
    pair.pass(PATIENCE);
    if pair.over.is_none() {
        // A session without a fault goes on until the mlet ends.
        pair.mlet().exit();
    }
    pair.finish();
    assert!(pair.elapsed() - struck_at <= 2 * PATIENCE, "{}", pair.told());
    let outcome = pair.over.take().unwrap();
    let class = Class::from(&outcome);
    assert!(
        allowed.is_empty() || allowed.contains(&class),
        "{class:?} after {fault:?} instead of {allowed:?}:\n{}",
        pair.told()
    );
    check_bytes(&mut pair, &scene, class, fault);
    class
}

/// Messages need TLS and a mlet must be there to die.
fn can_strike(pair: &Pair, fault: Fault) -> bool {
    let has_tls = pair.endpoint.tls.as_ref().is_some_and(|tls| !tls.is_handshaking());
    pair.over.is_none()
        && pair.endpoint.end.is_none()
        && match fault {
            Fault::HugeLength | Fault::WrongType | Fault::ErrorResult | Fault::Trickle => has_tls,
            Fault::MletDies => pair.mlet.is_some(),
            _ => true,
        }
}

/// What may become of the session when `fault` strikes it now; nothing said when it is over already.
fn allowed(pair: &Pair, fault: Option<Fault>) -> Vec<Class> {
    if pair.over.is_some() {
        return Vec::new();
    }
    let relayed = vec![
        Class::MletEnded,
        Class::EndpointEnded,
        Class::EndpointBrokeTls,
        Class::UndeliveredToEndpoint,
        Class::UndeliveredToMlet,
    ];
    let goes_on = pair.session.is_served() || pair.session.awaits_start();
    if fault == Some(Fault::Stop) && !goes_on {
        return vec![Class::Cancelled];
    }
    if pair.endpoint.is_relayed {
        return relayed;
    }
    match fault {
        Some(Fault::Fin | Fault::Reset | Fault::CutRecord) => vec![Class::LeftInSetUp],
        Some(Fault::Garbage) => vec![Class::Tls],
        Some(Fault::HugeLength | Fault::WrongType | Fault::ErrorResult) => vec![Class::Greeting],
        Some(Fault::Silence) => {
            vec![Class::HandshakeTimeout, Class::SetUpTimeout, Class::NoPermit]
        }
        Some(Fault::Trickle) => vec![Class::SetUpTimeout, Class::NoPermit, Class::Greeting],
        _ if pair.endpoint.is_silent || !pair.has_permits => {
            vec![Class::SetUpTimeout, Class::NoPermit]
        }
        _ => relayed,
    }
}

/// What arrived against what was sent.
fn check_bytes(pair: &mut Pair, scene: &Scene, class: Class, fault: Option<Fault>) {
    let Some(mlet) = &mut pair.mlet else { return };
    // What waits in the sockets was delivered, as far as the session can know.
    mlet.reads = true;
    mlet.take();
    pair.endpoint.reads = true;
    pair.endpoint.take();
    let from_mlet: &[u8] = if scene.has_begun { &scene.from_mlet } else { &[] };
    let received = &pair.endpoint.received;
    assert!(from_mlet.starts_with(received), "the endpoint got what was never sent");
    assert_records_hold_one_message_each(&pair.endpoint.record_lens, received);
    if class == Class::MletEnded {
        assert_eq!(received.len(), from_mlet.len(), "the endpoint got all");
    }
    let said = &pair.endpoint.said;
    let for_mlet: Vec<u8> = message_ranges(said)
        .into_iter()
        .filter(|message| said[message.start] != MessageType::LINFO.0)
        .flat_map(|message| said[message].to_vec())
        .collect();
    assert!(for_mlet.starts_with(&mlet.received), "the mlet got what was never sent");
    if class == Class::EndpointEnded
        && mlet.is_at_eof
        && matches!(fault, Some(Fault::Fin | Fault::Reset))
    {
        assert_eq!(mlet.received.len(), for_mlet.len(), "the mlet got all");
    }
}
