//! How many connections are registered at a proxy: snikeys come and go, set-ups end well or not, connections are taken or lost,
//! and time passes. The first three bytes say how many there are to be of each, how many may be in set-up, and which snikeys
//! there are.
//!
//! There are never more than there are to be, in set-up or in all, and what there is is what has happened. Once a set-up of a
//! snikey has failed, no other of it begins for half a second, unless an endpoint has come through another.

#![no_main]

mod script;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use engine::proto::backlog::{Failure, Pool};
use engine::proto::backoff::WAIT_MIN;
use libfuzzer_sys::fuzz_target;
use packetlab::snikey::SniKey;
use script::Script;

/// What there is of one snikey.
#[derive(Default)]
struct Known {
    in_set_up: usize,
    ready: usize,
    /// It may have failed, and nothing is begun before.
    not_before: Option<Instant>,
}

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let (target, set_ups_max) = (script.number() % 8 + 1, script.number() % 16 + 1);
    let mut served = snikeys(script.number());
    let mut pool = Pool::new(served.iter().cloned(), target, set_ups_max);
    let mut targets: HashMap<_, _> = served.iter().map(|snikey| (snikey.clone(), target)).collect();
    let mut known: HashMap<SniKey, Known> = HashMap::new();
    let mut now = Instant::now();
    while let Some(operation) = script.next() {
        let number = script.number();
        let snikey = snikeys(0xFF).remove(number % 8);
        let of_snikey = known.entry(snikey.clone()).or_default();
        match operation % 8 {
            0 | 1 => {
                let may_begin = pool.may_begin(now);
                let begun = pool.begin(now);
                assert_eq!(may_begin, begun.is_some());
                if let Some(snikey) = begun {
                    let begun = known.entry(snikey.clone()).or_default();
                    begun.in_set_up += 1;
                    assert!(begun.not_before.is_none_or(|until| now >= until), "too soon");
                    let len = begun.in_set_up + begun.ready;
                    assert!(served.contains(&snikey) && len <= targets[&snikey], "too many");
                }
            }
            2 if of_snikey.in_set_up > 0 => {
                (of_snikey.in_set_up, of_snikey.ready) =
                    (of_snikey.in_set_up - 1, of_snikey.ready + 1);
                pool.handle_ready(&snikey);
            }
            3 if of_snikey.in_set_up > 0 => {
                of_snikey.in_set_up -= 1;
                let failure = if number & 8 == 0 { Failure::Gone } else { Failure::Refused };
                let wait =
                    pool.handle_failed(&snikey, failure, now, script.number() as u32 * 0x101_0101);
                note_wait(of_snikey, wait, now, served.contains(&snikey));
            }
            4 if of_snikey.ready > 0 => {
                of_snikey.ready -= 1;
                of_snikey.not_before = None;
                pool.handle_taken(&snikey);
            }
            5 if of_snikey.ready > 0 => {
                of_snikey.ready -= 1;
                let lived = Duration::from_secs(script.number() as u64);
                let wait =
                    pool.handle_lost(&snikey, lived, now, script.number() as u32 * 0x101_0101);
                if lived < Duration::from_secs(10) {
                    note_wait(of_snikey, wait, now, served.contains(&snikey));
                }
            }
            6 => {
                now += Duration::from_millis(number as u64 * 40);
            }
            7 => {
                served = snikeys(number);
                let target = script.number() % 8 + 1;
                pool.serve(served.iter().cloned(), target);
                targets = served.iter().map(|snikey| (snikey.clone(), target)).collect();
                // One that is not served and of which nothing is left is as new when it is served again.
                known.retain(|snikey, of_snikey| {
                    served.contains(snikey) || of_snikey.in_set_up + of_snikey.ready > 0
                });
            }
            _ => {}
        }
        if let Some(of_snikey) = known.get(&snikey)
            && of_snikey.in_set_up + of_snikey.ready == 0
            && !served.contains(&snikey)
        {
            known.remove(&snikey);
        }
        let sum = |part: fn(&Known) -> usize| known.values().map(part).sum::<usize>();
        assert_eq!(pool.in_set_up(), sum(|of_snikey| of_snikey.in_set_up));
        assert_eq!(pool.ready(), sum(|of_snikey| of_snikey.ready));
        assert!(pool.in_set_up() <= set_ups_max);
        assert!(pool.next_due(now).is_none_or(|due| due > now), "a timer that is due already");
        let is_full =
            |snikey: &SniKey| known.get(snikey).is_some_and(|one| one.ready >= targets[snikey]);
        assert_eq!(pool.is_full(), served.iter().all(is_full));
        served.iter().for_each(|snikey| assert!(pool.serves(snikey)));
    }
});

/// A failure makes it wait, unless it waits already.
fn note_wait(of_snikey: &mut Known, wait: Option<Duration>, now: Instant, is_served: bool) {
    let waits = of_snikey.not_before.is_some_and(|until| now < until);
    if is_served {
        assert_eq!(wait.is_none(), waits, "a wait that is on is not made longer");
    }
    if let Some(wait) = wait {
        assert!(wait >= WAIT_MIN, "{wait:?}");
        of_snikey.not_before = Some(now + wait);
    }
}

/// Those whose bit is set.
fn snikeys(bits: usize) -> Vec<SniKey> {
    let chosen = (0..8).filter(|bit| bits >> bit & 1 != 0);
    chosen.map(|bit| SniKey::parse(&format!("key{bit}x")).unwrap()).collect()
}
