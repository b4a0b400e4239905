//! Many short sessions of which some are broken: at each step of spec/reliability.md 7 (S0-S10), by
//! silence, FIN, reset or garbage. Afterwards the manager holds what it held before.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use super::Home;
use super::endpoint::{Dial, End, Endpoint, NDATA, START, SUCCESS, message};
use super::manager::{Manager, children_of, wait_until};

/// Where a session is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Step {
    S0Accepted,
    S1PartOfHello,
    S2OurFlightSent,
    S3PartOfTheirFlight,
    S4TlsDone,
    S5Programs,
    S6StartSent,
    S7SpawnAsked,
    S8RelayIdle,
    S9MidMessageIn,
    S9MidMessageOut,
    S10BytesPending,
}

const STEPS: [Step; 12] = [
    Step::S0Accepted,
    Step::S1PartOfHello,
    Step::S2OurFlightSent,
    Step::S3PartOfTheirFlight,
    Step::S4TlsDone,
    Step::S5Programs,
    Step::S6StartSent,
    Step::S7SpawnAsked,
    Step::S8RelayIdle,
    Step::S9MidMessageIn,
    Step::S9MidMessageOut,
    Step::S10BytesPending,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Silence,
    Fin,
    Reset,
    Garbage,
}

const FAULTS: [Fault; 4] = [Fault::Silence, Fault::Fin, Fault::Reset, Fault::Garbage];

/// Every step with every fault.
pub const KINDS: usize = STEPS.len() * FAULTS.len();

/// Sessions at a time.
const THREADS: usize = 8;

/// Broken sessions that each thread holds open while it goes on.
const HELD_MAX: usize = 40;

/// What must be the same afterwards.
#[derive(Debug, PartialEq, Eq)]
pub struct Holdings {
    fds: usize,
    threads: usize,
    children: usize,
    mlets: usize,
}

impl Holdings {
    pub fn of(manager: &Manager) -> Self {
        Self {
            fds: manager.open_fds(),
            threads: manager.threads(),
            children: children_of(manager.pid()).len(),
            mlets: children_of(manager.supervisor()).len(),
        }
    }

    /// What it holds once that is the same after a `pause`: what lingers for less is not of it.
    #[track_caller]
    pub fn at_rest(manager: &Manager, pause: Duration) -> Self {
        let mut now = Self::of(manager);
        wait_until("it is at rest", || {
            thread::sleep(pause);
            let last = std::mem::replace(&mut now, Self::of(manager));
            last == now
        });
        now
    }

    /// Waits until the manager holds this again.
    #[track_caller]
    pub fn are_back(&self, manager: &Manager) {
        wait_until(&format!("back to {self:?}"), || Self::of(manager) == *self);
    }
}

/// A manager for [`churn`], with short deadlines.
pub fn start() -> (Home, Manager) {
    let (home, _) = Home::with_programs();
    let mut options = Vec::new();
    for name in ["handshake", "setup", "drain", "linger"] {
        options.extend([format!("--{name}-timeout"), "1s".to_owned()]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let manager = home.start(&options, &["obey"]);
    (home, manager)
}

/// Runs so many sessions; of each `every` one is broken, each kind in turn.
pub fn churn(dial: &Dial, sessions: usize, every: usize) {
    thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || {
                let mut held = VecDeque::new();
                for number in (first..sessions).step_by(THREADS) {
                    // All kinds come to all threads, whatever the divisors.
                    if (number / THREADS).is_multiple_of(every) {
                        let kind = number / THREADS / every * THREADS + first;
                        let step = STEPS[kind / FAULTS.len() % STEPS.len()];
                        held.extend(broken(dial, step, FAULTS[kind % FAULTS.len()]));
                    } else {
                        good(dial);
                    }
                    if held.len() > HELD_MAX
                        && let Some(oldest) = held.pop_front()
                    {
                        oldest.let_go();
                    }
                }
                held.into_iter().for_each(Held::let_go);
            });
        }
    });
}

impl Dial {
    /// Asserts that the mlet `obey` echoes when told so.
    pub fn obeys(&self) {
        let mut endpoint = self.session();
        endpoint.send(&message(NDATA, b"echo"));
        endpoint.echoes(b"as on the first day");
        endpoint.close();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    }
}

fn good(dial: &Dial) {
    let mut endpoint = dial.session();
    endpoint.send(&message(NDATA, b"exit 0"));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
}

/// A broken connection that is still open on our side.
struct Held {
    endpoint: Endpoint,
    step: Step,
    fault: Fault,
}

impl Held {
    /// Asserts that the manager ends it by itself, unless it may stay silent for ever.
    fn let_go(mut self) {
        if self.fault != Fault::Silence || self.step < Step::S7SpawnAsked {
            let end = self.endpoint.raw_rest();
            assert!(
                matches!(end, Ok(_) | Err(End::Reset)),
                "{:?} {:?}: {end:?}",
                self.step,
                self.fault
            );
        }
    }
}

fn broken(dial: &Dial, step: Step, fault: Fault) -> Option<Held> {
    let mut endpoint = reach(dial, step);
    match fault {
        Fault::Silence => {}
        Fault::Fin => endpoint.tcp.shutdown(Shutdown::Write).unwrap(),
        Fault::Garbage => {
            endpoint.send_raw(b"\xff\xfe no TLS at all, and long enough for a header")
        }
        Fault::Reset => {
            endpoint.reset();
            return None;
        }
    }
    Some(Held { endpoint, step, fault })
}

fn reach(dial: &Dial, step: Step) -> Endpoint {
    match step {
        Step::S0Accepted => dial.connect(),
        Step::S1PartOfHello => {
            let mut endpoint = dial.connect();
            let hello = endpoint.hello();
            endpoint.send_raw(&hello[..hello.len() / 2]);
            endpoint
        }
        Step::S2OurFlightSent | Step::S3PartOfTheirFlight => {
            let mut endpoint = dial.connect();
            let hello = endpoint.hello();
            endpoint.send_raw(&hello);
            let flight = endpoint.second_flight().unwrap();
            if step == Step::S3PartOfTheirFlight {
                endpoint.send_raw(&flight[..flight.len() / 2]);
            }
            endpoint
        }
        Step::S4TlsDone => dial.handshake(),
        Step::S5Programs => {
            let mut endpoint = dial.handshake();
            endpoint.receive().unwrap();
            endpoint.send(&SUCCESS);
            endpoint.receive().unwrap();
            endpoint
        }
        Step::S6StartSent => {
            let mut endpoint = dial.handshake();
            while endpoint.receive().unwrap().0 != START {
                endpoint.send(&SUCCESS);
            }
            endpoint
        }
        _ => reach_in_relay(dial, step),
    }
}

fn reach_in_relay(dial: &Dial, step: Step) -> Endpoint {
    let mut endpoint = dial.session();
    if step == Step::S7SpawnAsked {
        return endpoint;
    }
    endpoint.send(&message(NDATA, b"say"));
    endpoint.receive().unwrap();
    match step {
        Step::S9MidMessageIn => endpoint.send(&message(NDATA, &[0; 1000])[..500]),
        Step::S9MidMessageOut => endpoint.send(&message(NDATA, b"flood 1 8000000")),
        Step::S10BytesPending => endpoint.send(&message(NDATA, b"flood 3 50000")),
        _ => return endpoint,
    }
    if step != Step::S9MidMessageIn {
        endpoint.tcp.peek(&mut [0]).unwrap();
    }
    endpoint
}
