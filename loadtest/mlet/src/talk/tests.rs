//! Requests under way at once, at an endpoint that answers as late as is drawn, on a clock that only jumps.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

use packetlab::frame::Framer;
use packetlab::message::{Outcome, Status};
use proptest::prelude::*;

use super::*;

const SILENCE_MAX: Duration = Duration::from_millis(1000);

/// The endpoint, the way to it, and the time.
struct World {
    talk: Talk,
    start: Instant,
    now_ms: Arc<AtomicU64>,
    framer: Framer,
    /// Bytes on the way to the client, in the order in which they come, and when.
    coming: VecDeque<(u64, Vec<u8>)>,
    /// When the last of them come.
    last_ms: u64,
    /// How long the endpoint takes for the next requests, and what it tells before it answers.
    draws: VecDeque<Draw>,
    /// When the answer of each request comes, by number.
    answered_ms: Vec<u64>,
    notifications: u16,
    leaves_ms: u64,
}

#[derive(Debug, Clone)]
struct Draw {
    delay_ms: u64,
    notifications: u16,
    /// So many 255ths of the answer come at once, never all, and the rest later by this.
    first_part: usize,
    rest_ms: u64,
}

impl World {
    fn new(leaves_ms: u64) -> Self {
        let now_ms = Arc::new(AtomicU64::new(0));
        let (clock, start) = (now_ms.clone(), Instant::now());
        let clocks = move || {
            let ms = clock.load(Ordering::Relaxed);
            (start + Duration::from_millis(ms), Ticks(ms))
        };
        Self {
            talk: Talk::new(SILENCE_MAX, Box::new(clocks)),
            start,
            now_ms,
            framer: Framer::default(),
            coming: VecDeque::new(),
            last_ms: 0,
            draws: VecDeque::new(),
            answered_ms: Vec::new(),
            notifications: 0,
            leaves_ms,
        }
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// What the client has to send comes to the endpoint.
    fn flush(&mut self) {
        loop {
            let mut state = self.talk.lock();
            let unsent = state.exchange.unsent().to_vec();
            if unsent.is_empty() {
                break;
            }
            state.exchange.sent(unsent.len());
            self.framer.push(&unsent);
        }
        while let Some((message_type, payload)) = self.framer.next().unwrap() {
            let (address, is_read) = match Message::decode(message_type, payload) {
                Message::Mread { address, .. } => (address, true),
                Message::Mwrite { address, .. } => (address, false),
                other => panic!("nobody asked for that: {other:?}"),
            };
            let draw = self.draws.pop_front().unwrap();
            let mut bytes = Vec::new();
            for _ in 0..draw.notifications {
                notification(self.notifications).encode(&mut bytes).unwrap();
                self.notifications += 1;
            }
            let data = address.to_be_bytes();
            answer(address, is_read, &data).encode(&mut bytes).unwrap();
            let first = bytes.len() * draw.first_part / 255;
            let rest = bytes.split_off(first);
            let first_ms = self.last_ms.max(self.now_ms() + draw.delay_ms);
            self.last_ms = first_ms + draw.rest_ms;
            self.coming.extend([(first_ms, bytes), (self.last_ms, rest)]);
            self.answered_ms.push(self.last_ms);
        }
    }

    /// The next bytes come, or the endpoint leaves, or a wait is over.
    fn turn(&mut self) {
        self.flush();
        let left = self.talk.lock().begin_look().unwrap();
        let limit_ms = self.now_ms() + u64::try_from(left.as_millis()).unwrap();
        let comes_ms = self.coming.front().map_or(u64::MAX, |(comes_ms, _)| *comes_ms);
        let next_ms = comes_ms.min(self.leaves_ms);
        self.now_ms.store(limit_ms.min(next_ms).max(self.now_ms()), Ordering::Relaxed);
        let mut state = self.talk.lock();
        if next_ms <= limit_ms {
            match self.coming.pop_front() {
                Some((_, bytes)) if comes_ms <= self.leaves_ms => state.push(&bytes),
                _ => state.exchange.end(),
            }
        }
        state.looked();
    }

    fn run<T>(&mut self, doing: impl Future<Output = T>) -> T {
        let mut doing = pin!(doing);
        loop {
            if let Poll::Ready(done) = doing.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return done;
            }
            self.turn();
        }
    }
}

fn notification(number: u16) -> Message<'static> {
    Message::Ntag { sktid: 1, tag: number, time: Ticks(0), status: Status::SUCCESS }
}

fn answer(number: u32, is_read: bool, data: &[u8]) -> Message<'_> {
    match is_read {
        true => Message::Mdata { address: number, data },
        false => {
            let status = Status(0x7000 + u16::try_from(number).unwrap());
            Message::Result(Outcome::Status(status))
        }
    }
}

/// What a mlet does next.
#[derive(Debug, Clone)]
enum Step {
    Ask {
        is_read: bool,
        draw: Draw,
    },
    /// For the answer to one of the requests that are under way.
    Wait {
        which: usize,
        timeout_ms: u64,
    },
    GiveUp {
        which: usize,
    },
    Listen {
        timeout_ms: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ms = || prop_oneof![Just(0), 0..3000_u64];
    let draw = (ms(), 0..3_u16, 0..255_usize, ms());
    let draw = draw.prop_map(|(delay_ms, notifications, first_part, rest_ms)| Draw {
        delay_ms,
        notifications,
        first_part,
        rest_ms,
    });
    let step = prop_oneof![
        3 => (any::<bool>(), draw).prop_map(|(is_read, draw)| Step::Ask { is_read, draw }),
        3 => (any::<usize>(), 0..2500_u64)
            .prop_map(|(which, timeout_ms)| Step::Wait { which, timeout_ms }),
        1 => any::<usize>().prop_map(|which| Step::GiveUp { which }),
        1 => (0..2500_u64).prop_map(|timeout_ms| Step::Listen { timeout_ms }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A mlet that checks each answer.
struct Asker {
    world: World,
    /// Requests under way: number, kind, and what is asked with.
    under_way: Vec<(u32, bool, Asked)>,
    asked: u32,
    heard: u16,
    /// How often something was seen, so that a run that sees nothing can be told.
    taken: usize,
    late: usize,
}

impl Asker {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask { is_read, draw } => {
                self.world.draws.push_back(draw.clone());
                let (address, data) = (self.asked, [7; 4]);
                let request = match is_read {
                    true => Message::Mread { address, len: 4 },
                    false => Message::Mwrite { address, data: &data },
                };
                let talk = self.world.talk.clone();
                match self.world.run(talk.ask(&request, None)) {
                    Ok(asked) => self.under_way.push((address, *is_read, asked)),
                    Err(error) => panic!("there should be room: {error}"),
                }
                self.asked += 1;
                self.world.flush();
            }
            Step::Wait { which, timeout_ms } => self.wait(*which, *timeout_ms),
            Step::GiveUp { which } => {
                if !self.under_way.is_empty() {
                    drop(self.under_way.swap_remove(which % self.under_way.len()));
                }
            }
            Step::Listen { timeout_ms } => {
                let talk = self.world.talk.clone();
                let deadline = self.world.at(self.world.now_ms() + timeout_ms);
                if let Ok(news) = self.world.run(talk.any_notification(Some(deadline))) {
                    assert_eq!(news.message(), notification(self.heard));
                    self.heard += 1;
                }
            }
        }
    }

    fn wait(&mut self, which: usize, timeout_ms: u64) {
        if self.under_way.is_empty() {
            return;
        }
        let (number, is_read, asked) = self.under_way.swap_remove(which % self.under_way.len());
        let deadline_ms = self.world.now_ms() + timeout_ms;
        let deadline = self.world.at(deadline_ms);
        let comes_ms = self.world.answered_ms[usize::try_from(number).unwrap()];
        let talk = self.world.talk.clone();
        match self.world.run(talk.answer(&asked, Some(deadline))) {
            Ok(given) => {
                let data = number.to_be_bytes();
                assert_eq!(given.message(), answer(number, is_read, &data));
                assert_eq!(given.came(), Ticks(comes_ms), "when it came");
                assert!(comes_ms <= deadline_ms.min(self.world.leaves_ms));
                self.taken += 1;
            }
            Err(ClientError::Silence { .. }) => {
                assert_eq!(self.world.now_ms(), deadline_ms, "not before, and not after");
                // What comes in two pieces at that very time may be half there.
                assert!(comes_ms >= deadline_ms);
                self.late += 1;
            }
            Err(ClientError::EndpointLeft(_)) => assert!(comes_ms >= self.world.leaves_ms),
            Err(other) => panic!("neither late nor gone: {other}"),
        }
    }
}

/// Whatever delays are drawn, in whatever order answers are waited for or given up.
fn converse(steps: &[Step], leaves_ms: u64) -> (usize, usize) {
    let world = World::new(leaves_ms);
    let mut asker = Asker { world, under_way: Vec::new(), asked: 0, heard: 0, taken: 0, late: 0 };
    for step in steps {
        asker.step(step);
    }
    (asker.taken, asker.late)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_answer_is_that_of_its_request_whatever_is_under_way(
        steps in steps(),
        leaves_ms in prop_oneof![3 => Just(u64::MAX), 1 => 0..20_000_u64],
    ) {
        converse(&steps, leaves_ms);
    }
}

#[test]
fn the_draws_hold_answers_in_time_and_late_ones() {
    let draw = |delay_ms| Draw { delay_ms, notifications: 1, first_part: 100, rest_ms: 10 };
    let ask = |delay_ms| Step::Ask { is_read: true, draw: draw(delay_ms) };
    let wait = |which, timeout_ms| Step::Wait { which, timeout_ms };
    let steps = [ask(500), ask(1700), ask(0), wait(1, 1000), wait(0, 0), wait(0, 9000), ask(0)];
    assert_eq!(converse(&steps, u64::MAX), (2, 1));
}

/// The issue's own example: the clock is asked for each half second, with a timeout of a second, and the endpoint stands
/// still for 1.7 s.
#[test]
fn after_a_timeout_later_answers_are_those_of_later_requests() {
    let mut world = World::new(u64::MAX);
    let delays = [0, 0, 1700, 0, 0, 0, 0];
    let mut outcomes = Vec::new();
    for (number, delay_ms) in (0..).zip(delays) {
        let draw = Draw { delay_ms, notifications: 0, first_part: 0, rest_ms: 0 };
        world.draws.push_back(draw);
        let deadline = Some(world.at(world.now_ms() + 1000));
        let talk = world.talk.clone();
        let read = world.run(talk.read_memory(number, 4, deadline));
        outcomes.push(read.map(|data| u32::from_be_bytes(data.try_into().unwrap())).ok());
        let next_ms = world.now_ms() + 500;
        world.now_ms.store(next_ms, Ordering::Relaxed);
    }
    assert_eq!(outcomes, [Some(0), Some(1), None, Some(3), Some(4), Some(5), Some(6)]);
}

#[test]
fn a_request_of_which_nothing_was_sent_is_never_sent() {
    let world = World::new(u64::MAX);
    let close = |sktid| Message::Nclose { sktid };
    let first = world.talk.put(&close(1)).unwrap();
    let second = world.talk.put(&close(2)).unwrap();
    let third = world.talk.put(&close(3)).unwrap();
    world.talk.lock().exchange.sent(2);
    drop(second);
    drop(first);
    let mut sent = Vec::new();
    let mut state = world.talk.lock();
    while !state.exchange.unsent().is_empty() {
        let unsent = state.exchange.unsent().to_vec();
        state.exchange.sent(unsent.len());
        sent.extend(unsent);
    }
    // The rest of the first, and the third.
    assert_eq!(sent, [0, 1, 1, 0x2B, 0, 0, 1, 3]);
    // The first answer is the first's, which nobody wants.
    state.push(&[0x40, 0, 0, 2, 0, 0x33, 0x40, 0, 0, 0]);
    assert_eq!(state.exchange.answer(third.ticket).map(|answer| answer.came()), Some(Ticks(0)));
    drop(state);
}

#[test]
fn the_deadline_of_the_session_ends_every_wait_and_says_what_was_awaited() {
    let mut world = World::new(u64::MAX);
    let talk = world.talk.clone();
    talk.set_session_deadline(Some(world.at(300)));
    let draw = Draw { delay_ms: 400, notifications: 0, first_part: 0, rest_ms: 0 };
    world.draws.extend([draw.clone(), draw]);
    let over = world.run(talk.read_memory(0x1001_0000, 8, None)).unwrap_err();
    assert_eq!(world.now_ms(), 300);
    assert_eq!(
        over.to_string(),
        "the session's deadline passed when the answer to MREAD (memory 0x10010000) had been awaited for 0.300 s"
    );
    let later = world.run(talk.any_notification(None)).unwrap_err();
    assert!(matches!(later, ClientError::SessionOver { .. }), "{later}");
    assert_eq!(world.now_ms(), 300);
}
