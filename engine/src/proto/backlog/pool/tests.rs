//! The pool under a clock of its own.

use super::*;

#[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
fn start() -> Instant {
    Instant::now()
}

/// Begins all set-ups that are due, and tells for which snikeys.
fn begun(pool: &mut Pool, now: Instant) -> Vec<SniKey> {
    std::iter::from_fn(|| pool.begin(now)).collect()
}

/// The snikey of this number.
fn nth(number: usize) -> SniKey {
    SniKey::parse(&format!("key{number}")).unwrap()
}

fn first() -> SniKey {
    nth(0)
}

/// An empty backlog for so many snikeys.
fn pool_of(snikeys: usize, target: usize) -> Pool {
    Pool::new((0..snikeys).map(nth), target, SET_UPS_MAX)
}

const MS: Duration = Duration::from_millis(1);

/// Item 107.
#[test]
fn set_ups_begin_breadth_first_in_file_order() {
    let mut pool = pool_of(3, 2);
    assert_eq!(begun(&mut pool, start()), [0, 1, 2, 0, 1, 2].map(nth));
    assert_eq!(pool.in_set_up(), 6);
    assert!(!pool.is_full());
    for snikey in [0, 1, 2, 0, 1, 2].map(nth) {
        pool.handle_ready(&snikey);
    }
    assert!(pool.is_full());
    assert_eq!((pool.ready(), pool.wanted()), (6, 6));
}

/// Item 107.
#[test]
fn a_taken_connection_is_replaced_at_once() {
    let mut pool = pool_of(2, 2);
    for snikey in begun(&mut pool, start()) {
        pool.handle_ready(&snikey);
    }
    assert!(begun(&mut pool, start()).is_empty());
    pool.handle_taken(&nth(1));
    assert_eq!(begun(&mut pool, start()), [nth(1)]);
    assert_eq!(pool.next_due(start()), None);
}

/// At another proxy others are in set-up.
#[test]
fn no_more_set_ups_are_under_way_than_its_share() {
    let mut pool = Pool::new((0..3).map(nth), 4, 2);
    assert_eq!(begun(&mut pool, start()), [0, 1].map(nth));
    assert!(!pool.may_begin(start()), "the share is used up");
    pool.handle_failed(&nth(0), Failure::Gone, start(), 0);
    assert!(pool.may_begin(start()));
    assert_eq!(begun(&mut pool, start()), [nth(2)], "the one that failed waits");
    for snikey in [1, 2].map(nth) {
        pool.handle_ready(&snikey);
    }
    assert_eq!((pool.connections(), pool.ready()), (2, 2));
}

#[test]
fn the_window_opens_with_every_success_up_to_the_limit_of_all() {
    let mut pool = pool_of(1, 2000);
    let mut rounds = Vec::new();
    while !pool.is_full() {
        let round = begun(&mut pool, start());
        rounds.push(round.len());
        for snikey in round {
            pool.handle_ready(&snikey);
        }
    }
    assert_eq!(rounds[..5], [8, 16, 32, 64, 64]);
    assert!(rounds.len() < 40, "2000 are filled in few rounds");
    let mut pool = pool_of(20, 100);
    assert_eq!(begun(&mut pool, start()).len(), SET_UPS_MAX);
}

/// Item 110.
#[test]
fn a_proxy_that_is_gone_sees_at_most_two_tries_a_second_and_one_at_least_every_two() {
    for random in [0, u32::MAX / 3, u32::MAX] {
        let start = start();
        let mut pool = pool_of(1, 100);
        let mut tries = Vec::new();
        for tick in 0..60_000 {
            let now = start + tick * MS;
            for snikey in begun(&mut pool, now) {
                tries.push(tick);
                pool.handle_failed(&snikey, Failure::Gone, now, random);
            }
        }
        // Before anything was known some began at once.
        assert_eq!(tries[..WINDOW_AT_START], [0; WINDOW_AT_START]);
        let tries = &tries[WINDOW_AT_START - 1..];
        let gaps: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (500..=2001).contains(gap)), "{random}: {gaps:?}");
        assert!(gaps.len() >= 29);
    }
}

#[test]
fn tries_at_a_proxy_that_refuses_become_rare() {
    let start = start();
    let mut pool = pool_of(1, 1);
    let mut tries = 0;
    for tick in 0..600 {
        let now = start + tick * 100 * MS;
        for snikey in begun(&mut pool, now) {
            tries += 1;
            pool.handle_failed(&snikey, Failure::Refused, now, u32::MAX);
        }
    }
    assert_eq!(tries, 6, "at 0, 1, 3, 7, 15 and 31 s of a minute");
}

#[test]
fn an_endpoint_that_comes_ends_the_wait_for_a_proxy_that_had_no_room() {
    let start = start();
    let mut pool = pool_of(1, 2);
    assert_eq!(begun(&mut pool, start), [first(), first()]);
    pool.handle_ready(&first());
    for _ in 0..5 {
        pool.handle_failed(
            &first(),
            Failure::Refused,
            pool.next_due(start).unwrap_or(start),
            u32::MAX,
        );
        let due = pool.next_due(start).unwrap();
        assert_eq!(begun(&mut pool, due), [first()]);
    }
    pool.handle_failed(&first(), Failure::Refused, start, u32::MAX);
    assert!(begun(&mut pool, start).is_empty());
    pool.handle_taken(&first());
    assert_eq!(begun(&mut pool, start), [first()], "one alone feels its way");
    let wait = pool.handle_failed(&first(), Failure::Refused, start, u32::MAX);
    assert_eq!(wait, Some(1000 * MS), "and it is the first failure again");
}

#[test]
fn of_set_ups_that_fail_together_only_the_first_counts() {
    let start = start();
    let mut pool = pool_of(1, 8);
    for snikey in begun(&mut pool, start) {
        let wait = pool.handle_failed(&snikey, Failure::Gone, start, u32::MAX);
        assert_eq!(wait.is_some(), pool.in_set_up() == 7);
    }
    assert_eq!(pool.next_due(start), Some(start + 1000 * MS));
    assert!(begun(&mut pool, start + 999 * MS).is_empty());
    assert_eq!(begun(&mut pool, start + 1000 * MS), [first()], "one alone feels its way");
}

#[test]
fn a_proxy_that_is_back_is_filled_within_few_rounds() {
    let start = start();
    let mut pool = pool_of(2, 100);
    for snikey in begun(&mut pool, start) {
        pool.handle_failed(&snikey, Failure::Gone, start, 0);
    }
    let now = pool.next_due(start).unwrap();
    let mut rounds = 0;
    while !pool.is_full() {
        rounds += 1;
        for snikey in begun(&mut pool, now) {
            pool.handle_ready(&snikey);
        }
    }
    assert!(rounds < 12, "{rounds}");
}

#[test]
fn a_proxy_that_registers_and_drops_at_once_is_not_stormed() {
    let start = start();
    let mut pool = pool_of(1, 10);
    let mut registered = 0;
    for tick in 0..10_000 {
        let now = start + tick * MS;
        for snikey in begun(&mut pool, now) {
            registered += 1;
            pool.handle_ready(&snikey);
            pool.handle_lost(&snikey, MS, now, 0);
        }
    }
    assert!((10..=WINDOW_AT_START + 20).contains(&registered), "{registered} in 10 s");
}

#[test]
fn old_connections_that_end_are_replaced_at_once_but_carefully() {
    let start = start();
    let mut pool = pool_of(1, 64);
    while !pool.is_full() {
        for snikey in begun(&mut pool, start) {
            pool.handle_ready(&snikey);
        }
    }
    assert_eq!(pool.handle_lost(&first(), YOUNG, start, 0), None);
    assert_eq!(begun(&mut pool, start), [first()]);
    for _ in 0..20 {
        assert_eq!(pool.handle_lost(&first(), YOUNG, start, 0), None);
    }
    assert!(begun(&mut pool, start).is_empty(), "one is under way already");
    pool.handle_ready(&first());
    assert_eq!(begun(&mut pool, start), [first(), first()], "and each that works lets two follow");
}

#[test]
fn a_snikey_in_trouble_does_not_hold_up_another() {
    let start = start();
    let mut pool = pool_of(2, 3);
    let mut served = [0, 0];
    for tick in 0..100 {
        for snikey in begun(&mut pool, start + tick * MS) {
            let is_first = snikey == first();
            served[usize::from(!is_first)] += 1;
            match is_first {
                true => drop(pool.handle_failed(&first(), Failure::Refused, start + tick * MS, 0)),
                false => assert_eq!(pool.handle_ready(&snikey), None),
            }
        }
    }
    assert_eq!(served, [3, 3], "three at once at first, and no more within the wait");
}

#[test]
fn a_snikey_that_is_served_no_more_is_not_filled_and_forgotten_with_its_last_connection() {
    let mut pool = pool_of(2, 2);
    for snikey in [nth(0), nth(1), nth(0)] {
        assert_eq!(pool.begin(start()), Some(snikey.clone()));
        pool.handle_ready(&snikey);
    }
    assert_eq!(pool.begin(start()), Some(nth(1)), "it is under way at the reload");
    pool.serve([nth(2), nth(0)], 2);
    assert!(pool.serves(&nth(2)) && pool.serves(&nth(0)) && !pool.serves(&nth(1)));
    assert_eq!(begun(&mut pool, start()), [nth(2), nth(2)], "what there is of the other remains");
    assert_eq!(pool.wanted(), 4);
    pool.handle_ready(&nth(1));
    assert_eq!(pool.ready(), 4);
    pool.handle_let_go(&nth(1));
    pool.handle_let_go(&nth(1));
    assert_eq!((pool.ready(), pool.snikeys.len()), (2, 2));
    pool.serve([nth(1)], 1);
    assert_eq!(begun(&mut pool, start()), [nth(1)], "as if it were new");
}

#[test]
fn what_was_let_go_leaves_a_gap_in_which_endpoints_may_have_been_missed() {
    let mut pool = pool_of(1, 2);
    assert_eq!(filled(&mut pool), [None, None]);
    pool.handle_let_go(&nth(0));
    pool.handle_let_go(&nth(0));
    assert_eq!(filled(&mut pool), [Some(Gap::Lost), None], "and no wait before it");
}

/// Registers what is due, and tells which gaps are over with that.
fn filled(pool: &mut Pool) -> Vec<Option<Gap>> {
    begun(pool, start()).iter().map(|snikey| pool.handle_ready(snikey)).collect()
}

#[test]
fn the_first_connection_is_told_of_after_the_last_one_was_lost() {
    let mut pool = pool_of(2, 2);
    assert_eq!(filled(&mut pool), [None; 4], "they are the first of all");
    pool.handle_lost(&first(), YOUNG, start(), 0);
    assert_eq!(filled(&mut pool), [None], "another was there");
    (0..2).for_each(|_| _ = pool.handle_lost(&first(), YOUNG, start(), 0));
    assert_eq!(filled(&mut pool), [Some(Gap::Lost)], "none was; one is tried at a time");
    pool.handle_taken(&first());
    assert_eq!(begun(&mut pool, start()), [first(), first()]);
    pool.handle_failed(&first(), Failure::Refused, start(), 0);
    let back = pool.handle_ready(&first());
    assert_eq!(back, Some(Gap::Lost), "one was refused while there was none");
}

#[test]
fn connections_that_endpoints_took_are_told_of_when_there_are_as_many_again_after_the_last() {
    let mut pool = pool_of(2, 2);
    filled(&mut pool);
    pool.handle_taken(&first());
    assert_eq!(filled(&mut pool), [None], "another waited meanwhile");
    (0..2).for_each(|_| pool.handle_taken(&first()));
    assert_eq!(begun(&mut pool, start()), [first(), first()]);
    assert_eq!(pool.handle_ready(&first()), None, "others may wait at the proxy");
    assert_eq!(pool.handle_ready(&first()), Some(Gap::UsedUp));
    pool.handle_taken(&first());
    assert_eq!(filled(&mut pool), [None], "it is told once");
}
