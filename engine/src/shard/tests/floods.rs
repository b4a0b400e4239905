//! Crowds that begin handshakes: what they cost a shard, and whom it spares.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::harness::{Harness, SharedEndpoint};
use super::peers::Endpoint;
use crate::mailbox::FromShard;
use crate::proto::session_end::{End, Outcome};
use crate::proto::tests::credentials::{
    HANDSHAKE_TIMEOUT, Login, TRUSTING, endpoint_tls, plain_experiments,
};
use crate::proto::tests::message;
use crate::random::Random;
use packetlab::message::MessageType;

/// More turns than any of these takes.
const TURNS_MAX: usize = 10_000;

/// What a costly step takes, and all else that a turn does.
const STEP: Duration = Duration::from_millis(1);
const TURN: Duration = Duration::from_micros(500);

/// A shard, and how its sessions ended.
struct Flooded {
    harness: Harness,
    outcomes: Vec<Outcome>,
}

impl Flooded {
    /// Each costly step of a handshake takes so long.
    fn new(step: Duration) -> Self {
        let harness = Harness::new(Random(1), plain_experiments(), false, 1_000);
        harness.kernel.borrow_mut().is_calm = true;
        harness.kernel.borrow_mut().work = step;
        Self { harness, outcomes: Vec::new() }
    }

    /// So many endpoints connect, send a ClientHello and end like this, each from an address of its own.
    fn come(&mut self, count: u8, end: Option<End>) -> Vec<SharedEndpoint> {
        let come = |number| {
            let mut endpoint = Endpoint::new(Some(endpoint_tls(Login::Operator, Some(TRUSTING))));
            endpoint.end = end;
            let endpoint = Rc::new(RefCell::new(endpoint));
            self.harness.connect(&endpoint, SocketAddr::from(([10, 0, 0, number], 1)));
            endpoint
        };
        (1..=count).map(come).collect()
    }

    /// The shard takes a turn. Nobody answers it.
    fn turn(&mut self) {
        self.harness.kernel.borrow_mut().now += TURN;
        self.harness.turn();
        while let Some(told) = self.harness.from_shard.next() {
            if let FromShard::Ended(ended) = told {
                self.outcomes.push(ended.outcome);
            }
        }
    }

    /// Takes turns until `done`, which they must reach.
    fn turn_until(&mut self, done: impl Fn(&Self) -> bool) {
        let turns = (0..TURNS_MAX).take_while(|_| {
            self.turn();
            !done(self)
        });
        assert!(turns.count() < TURNS_MAX, "it stands still");
    }
}

/// Those that have got something.
fn answered(crowd: &[SharedEndpoint]) -> usize {
    crowd.iter().filter(|endpoint| endpoint.borrow().progress().0 > 0).count()
}

#[test]
fn beside_messages_that_keep_coming_handshakes_have_a_quarter_of_the_time() {
    let mut flooded = Flooded::new(STEP);
    let [relaying] = &flooded.come(1, None)[..] else { unreachable!() };
    let mut passed = Vec::new();
    while passed.is_empty() {
        relaying.borrow_mut().take();
        flooded.turn();
        passed = flooded.harness.take_passed();
    }
    let mlet = flooded.harness.take_mlet(&passed[0].1);
    let mut crowd = flooded.come(60, None);
    // Since the first of them has been answered.
    let (mut began, mut most) = (None, 0.0_f64);
    for _ in 0..TURNS_MAX {
        relaying.borrow_mut().write(&message(MessageType::MDATA, b"again"));
        flooded.turn();
        mlet.borrow_mut().take();
        let (now, taken) = (flooded.harness.now(), flooded.harness.shard.pace.taken());
        let (since, before) = *began.get_or_insert((now, taken));
        let passed = now - since;
        if passed > 40 * STEP {
            most = most.max((taken - before).div_duration_f64(passed));
        }
        if answered(&crowd) == crowd.len() {
            break;
        }
    }
    assert_eq!(answered(&crowd), 60, "each has its turn");
    assert!((0.15..=0.25).contains(&most), "{most} of the time");
    // What relaying leaves is theirs.
    crowd = flooded.come(50, None);
    let began = flooded.harness.now();
    flooded.turn_until(|_| answered(&crowd) == crowd.len());
    let passed = flooded.harness.now() - began;
    assert!(passed < 100 * STEP, "{passed:?} for 50 steps");
}

#[test]
fn who_left_before_its_client_hello_was_looked_at_costs_no_key_exchange() {
    for end in [End::Closed, End::Broken(ErrorKind::ConnectionReset)] {
        let mut flooded = Flooded::new(STEP);
        let left = flooded.come(20, Some(end));
        flooded.turn_until(|flooded| flooded.outcomes.len() == left.len());
        let is_end =
            |outcome: &Outcome| matches!(outcome, Outcome::LeftInSetUp(left) if *left == end);
        assert!(flooded.outcomes.iter().all(is_end), "{:?}", flooded.outcomes);
        assert_eq!(answered(&left), 0, "{end:?}");
        assert_eq!(flooded.harness.shard.pace.taken(), Duration::ZERO, "{end:?}");
        flooded.harness.check_nothing_is_left();
    }
}

/// Four are answered in one turn, which takes longer than anybody may.
#[test]
fn whose_time_is_over_before_its_client_hello_is_looked_at_costs_no_key_exchange() {
    let mut flooded = Flooded::new(2 * HANDSHAKE_TIMEOUT);
    let late = flooded.come(6, None);
    flooded.turn_until(|flooded| flooded.outcomes.len() == late.len());
    let is_late = |outcome: &Outcome| matches!(outcome, Outcome::HandshakeTimeout);
    assert!(flooded.outcomes.iter().all(is_late), "{:?}", flooded.outcomes);
    assert_eq!(flooded.harness.shard.pace.taken(), 2 * HANDSHAKE_TIMEOUT, "of one turn");
}
