//! The fault matrix of spec/reliability.md 7 (promise P5): every fault at every step ends that session in
//! time with the outcome of the table, or not at all.
//!
//! Not here: EMFILE and its kind (F10), which sessions never see.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use super::pair::Pair;
use super::peers::Endpoint;
use crate::proto::session_end::{End, Outcome};
use crate::proto::tests::credentials::{
    DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, LINGER_TIMEOUT, Login, SETUP_TIMEOUT, Stage, TRUSTING,
    experiments, program,
};
use crate::proto::tests::{filled, message, success};
use packetlab::message::MessageType;

/// How far a session has come when the fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Accepted,
    PartOfHello,
    OurFlightSent,
    PartOfTheirFlight,
    AwaitingPermit,
    Submitting,
    Starting,
    MletAsked,
    Idle,
    MidMessageIn,
    MidMessageOut,
    MletGone,
    EndpointGone,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Silence,
    Fin,
    CloseNotify,
    Reset,
    Garbage,
    CutRecord,
    HugeLength,
    WrongType,
    ErrorResult,
    Trickle,
    Stop,
    MletDies,
}

/// What becomes of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    HandshakeTimeout,
    SetUpTimeout,
    NoPermit,
    LeftInSetUp,
    Tls,
    Greeting,
    Cancelled,
    EndpointEnded,
    EndpointBrokeTls,
    MletEnded,
    UndeliveredToEndpoint,
    UndeliveredToMlet,
    NoExperiment,
    MletLate,
    MadeRoom,
    Forced,
    IdleTimeout,
    Refused,
    Other,
}

impl From<&Outcome> for Class {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::HandshakeTimeout => Self::HandshakeTimeout,
            Outcome::SetUpTimeout => Self::SetUpTimeout,
            Outcome::NoPermit => Self::NoPermit,
            Outcome::LeftInSetUp(_) => Self::LeftInSetUp,
            Outcome::Tls(_) => Self::Tls,
            Outcome::Greeting(_) => Self::Greeting,
            Outcome::Cancelled | Outcome::PermitsUsedUp => Self::Cancelled,
            Outcome::EndpointEnded(_) => Self::EndpointEnded,
            Outcome::EndpointBrokeTls(_) => Self::EndpointBrokeTls,
            Outcome::MletEnded => Self::MletEnded,
            Outcome::UndeliveredToEndpoint => Self::UndeliveredToEndpoint,
            Outcome::UndeliveredToMlet => Self::UndeliveredToMlet,
            Outcome::NoExperiment(_) => Self::NoExperiment,
            Outcome::MletLate => Self::MletLate,
            Outcome::MadeRoom => Self::MadeRoom,
            Outcome::Forced(_) => Self::Forced,
            Outcome::IdleTimeout => Self::IdleTimeout,
            Outcome::CampaignRefused(_) => Self::Refused,
            Outcome::OwnChain(..)
            | Outcome::NotChosen
            | Outcome::AlreadyMeasured
            | Outcome::BacklogLost(_)
            | Outcome::MadeRoomOfKey(_)
            | Outcome::MletTimeout
            | Outcome::TooManyOfKey(_) => Self::Other,
        }
    }
}

/// Words of the table: `runs` goes on as if nothing had happened; `broken` is TLS broken by the endpoint;
/// `lingers` and `broken-l` end like `endpoint` and `broken`, once the time for the last bytes to an endpoint that does not read is over; `-` makes no sense, because there is
/// no message before TLS is up, no mlet before START, or no peer left that could do it.
const TABLE: &str = "
                  silence   fin      notify   reset    garbage  cut      huge     type     error    trickle   stop      mlet
Accepted          handshake left     -        left     tls      -        -        -        -        handshake cancelled -
PartOfHello       handshake left     -        left     tls      left     -        -        -        handshake cancelled -
OurFlightSent     handshake left     -        left     tls      left     -        -        -        handshake cancelled -
PartOfTheirFlight handshake left     -        left     tls      left     -        -        -        handshake cancelled -
AwaitingPermit    permit    left     left     left     tls      left     greeting greeting greeting permit    cancelled -
Submitting        setup     left     left     left     tls      left     greeting greeting greeting setup     cancelled -
Starting          setup     left     left     left     tls      left     greeting greeting greeting setup     setup     -
MletAsked         runs      endpoint endpoint endpoint broken   endpoint runs     runs     runs     runs      runs      mlet
Idle              runs      endpoint endpoint endpoint broken   endpoint runs     runs     runs     runs      runs      mlet
MidMessageIn      runs      endpoint endpoint endpoint broken   endpoint runs     runs     runs     runs      runs      mlet
MidMessageOut     runs      endpoint endpoint endpoint broken   endpoint runs     runs     runs     runs      runs      mlet
MletGone          lost-e    lingers  lingers  endpoint broken-l lingers  lost-e   lost-e   lost-e   lost-e    lost-e    -
EndpointGone      lost-m    -        -        -        -        -        -        -        -        -         lost-m    mlet
";

pub(super) const STEPS: [Step; 13] = [
    Step::Accepted,
    Step::PartOfHello,
    Step::OurFlightSent,
    Step::PartOfTheirFlight,
    Step::AwaitingPermit,
    Step::Submitting,
    Step::Starting,
    Step::MletAsked,
    Step::Idle,
    Step::MidMessageIn,
    Step::MidMessageOut,
    Step::MletGone,
    Step::EndpointGone,
];

/// In the order of the table's columns.
pub(crate) const FAULTS: [Fault; 12] = [
    Fault::Silence,
    Fault::Fin,
    Fault::CloseNotify,
    Fault::Reset,
    Fault::Garbage,
    Fault::CutRecord,
    Fault::HugeLength,
    Fault::WrongType,
    Fault::ErrorResult,
    Fault::Trickle,
    Fault::Stop,
    Fault::MletDies,
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Promise P5.
#[test]
fn every_fault_at_every_step_has_the_outcome_of_the_table() {
    let mut cases = 0;
    for (step, row) in STEPS.into_iter().zip(TABLE.trim().lines().skip(1)) {
        let mut words = row.split_whitespace();
        assert_eq!(
            words.next(),
            Some(&*step.to_string()),
            "the table is in the order of the steps"
        );
        let words: Vec<_> = words.collect();
        assert_eq!(words.len(), FAULTS.len(), "{row}");
        for (fault, word) in FAULTS.into_iter().zip(words) {
            if word != "-" {
                check(step, fault, word);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 122, "no cell is lost");
}

fn check(step: Step, fault: Fault, word: &str) {
    let case = format!("{fault:?} at {step}");
    let mut pair = reach(step);
    let struck_at = pair.elapsed();
    strike(&mut pair, fault);
    pair.run();
    if word == "runs" {
        assert!(pair.over.is_none(), "{case}: {}", pair.told());
        let spoken: &[u8] = match fault {
            Fault::HugeLength => &[MessageType::RESULT.0, 0xff, 0xff, 0xff],
            Fault::WrongType => &message(MessageType::NTAG, &[0; 11]),
            Fault::ErrorResult => &message(MessageType::RESULT, &[0, 0x21]),
            Fault::Trickle => &success(),
            _ => &[],
        };
        assert!(pair.mlet().received.ends_with(spoken), "{case}: it passes like any other");
        // The mlet still has its say.
        let before = pair.endpoint.received.len();
        pair.mlet().write(&filled(MessageType::MDATA, 500));
        pair.run();
        assert_eq!(pair.endpoint.received.len() - before, 504, "{case}");
        pair.mlet().exit();
    }
    let class = Class::from(pair.finish());
    let (expected, wait) = match word {
        "handshake" => (Class::HandshakeTimeout, HANDSHAKE_TIMEOUT),
        "setup" => (Class::SetUpTimeout, SETUP_TIMEOUT),
        "permit" => (Class::NoPermit, 2 * SETUP_TIMEOUT),
        "left" => (Class::LeftInSetUp, Duration::ZERO),
        "tls" => (Class::Tls, Duration::ZERO),
        "greeting" => (Class::Greeting, Duration::ZERO),
        "cancelled" => (Class::Cancelled, Duration::ZERO),
        "endpoint" => (Class::EndpointEnded, Duration::ZERO),
        "broken" => (Class::EndpointBrokeTls, Duration::ZERO),
        "broken-l" => (Class::EndpointBrokeTls, LINGER_TIMEOUT),
        "lingers" => (Class::EndpointEnded, LINGER_TIMEOUT),
        "runs" => (Class::MletEnded, pair.elapsed() - struck_at),
        "mlet" => (Class::MletEnded, Duration::ZERO),
        "lost-e" => (Class::UndeliveredToEndpoint, DRAIN_TIMEOUT),
        "lost-m" => (Class::UndeliveredToMlet, DRAIN_TIMEOUT),
        _ => panic!("{word} is no word of the table"),
    };
    assert_eq!(class, expected, "{case}: {}", pair.told());
    assert_eq!(pair.elapsed() - struck_at, wait, "{case}: {}", pair.told());
    assert_told(&pair, class, fault, &case);
}

/// Who is told what: alerts and close_notify for what the endpoint did wrong, nothing to one that left
/// or was silent, and the mlet always reads its end.
fn assert_told(pair: &Pair, class: Class, fault: Fault, case: &str) {
    let told = (pair.endpoint.alert.is_some(), pair.endpoint.close_notify);
    let expected = match class {
        Class::Tls => (true, false),
        // One that does not read cannot be told.
        Class::EndpointBrokeTls => (pair.endpoint.reads, false),
        Class::Greeting | Class::MletEnded => (false, true),
        // One that has closed TLS alone is answered.
        Class::LeftInSetUp => (false, fault == Fault::CloseNotify),
        Class::EndpointEnded | Class::UndeliveredToEndpoint | Class::UndeliveredToMlet => told,
        _ => (false, false),
    };
    assert_eq!(told, expected, "{case}: alert, close_notify; {}", pair.told());
    if matches!(class, Class::EndpointEnded | Class::EndpointBrokeTls) {
        assert!(pair.told().contains("mlet's input ended"), "{case}: {}", pair.told());
    }
}

/// A session that stands at `step`, at a time other than 0 when nothing was waited for yet.
pub(super) fn reach(step: Step) -> Pair {
    let programs = [program(20)];
    let programs = if step == Step::Submitting { &programs[..] } else { &[] };
    let experiments = experiments(Stage::WithDefault, programs, programs);
    let mut pair = Pair::with(experiments, Login::Operator, Some(TRUSTING));
    pair.endpoint.is_silent = matches!(step, Step::Submitting | Step::Starting);
    pair.has_permits = step != Step::AwaitingPermit;
    if matches!(step, Step::Accepted | Step::PartOfHello) {
        // The ClientHello has passed before a dam could be built.
        let hello: Vec<u8> = pair.endpoint.sent.drain(..).collect();
        pair.endpoint.set_dam(Some(if step == Step::Accepted { 0 } else { hello.len() / 2 }));
        pair.endpoint.write_raw(&hello);
        pair.run();
        return pair;
    }
    if matches!(step, Step::OurFlightSent | Step::PartOfTheirFlight) {
        pair.endpoint.set_dam(Some(0));
        pair.run();
        assert!(!pair.endpoint.held.is_empty(), "its flight is held back");
        if step == Step::PartOfTheirFlight {
            pair.endpoint.set_dam(Some(pair.endpoint.held.len() / 2));
            pair.run();
        }
        return pair;
    }
    if step == Step::MletAsked {
        pair.run_until(|pair| pair.mlet.is_some());
        return pair;
    }
    pair.run();
    let part = &filled(MessageType::MDATA, 1000)[..300];
    match step {
        Step::Idle => {
            pair.endpoint.write(&success());
            pair.mlet().write(&success());
        }
        Step::MidMessageIn => pair.endpoint.write(part),
        Step::MidMessageOut => pair.mlet().write(part),
        Step::MletGone => {
            pair.endpoint.reads = false;
            pair.mlet().write(&filled(MessageType::MDATA, 300_000));
            pair.mlet().exit();
        }
        Step::EndpointGone => {
            pair.mlet().reads = false;
            pair.endpoint.write(&filled(MessageType::MDATA, 300_000));
            pair.endpoint.close_notify();
            pair.endpoint.end(End::Closed);
        }
        _ => {}
    }
    pair.run();
    pair
}

/// Lets `fault` happen.
pub(super) fn strike(pair: &mut Pair, fault: Fault) {
    match fault {
        Fault::Trickle => trickle(pair),
        Fault::Stop => pair.drain(),
        Fault::MletDies => pair.mlet().exit(),
        _ => strike_endpoint(&mut pair.endpoint, fault),
    }
}

/// Its handshake is over, as far as it knows, and what it says arrives.
fn has_tls(endpoint: &Endpoint) -> bool {
    endpoint.tls.as_ref().is_some_and(|tls| !tls.is_handshaking()) && endpoint.dam.is_none()
}

/// Lets the endpoint do what `fault` says; nothing if it is for others to do.
pub(crate) fn strike_endpoint(endpoint: &mut Endpoint, fault: Fault) {
    match fault {
        Fault::Silence => endpoint.set_dam(Some(0)),
        Fault::Fin => endpoint.end(End::Closed),
        Fault::CloseNotify => endpoint.close_notify(),
        Fault::Reset => endpoint.end(End::Broken(ErrorKind::ConnectionReset)),
        Fault::Garbage => {
            endpoint.held.clear();
            endpoint.set_dam(None);
            endpoint.write_raw(&[0xff; 5000]);
        }
        Fault::CutRecord => {
            if has_tls(endpoint) {
                endpoint.set_dam(Some(20));
                endpoint.write(&success());
            } else {
                endpoint.set_dam(Some(endpoint.held.len() / 2));
            }
            endpoint.end(End::Closed);
        }
        Fault::HugeLength => endpoint.write(&[MessageType::RESULT.0, 0xff, 0xff, 0xff]),
        Fault::WrongType => endpoint.write(&message(MessageType::NTAG, &[0; 11])),
        Fault::ErrorResult => endpoint.write(&message(MessageType::RESULT, &[0, 0x21])),
        Fault::Trickle | Fault::Stop | Fault::MletDies => {}
    }
}

/// What the endpoint has to say arrives byte by byte, two seconds apart, and never whole in set-up.
fn trickle(pair: &mut Pair) {
    if has_tls(&pair.endpoint) {
        pair.endpoint.set_dam(Some(0));
        pair.endpoint.write(&success());
    }
    for _ in 0..pair.endpoint.held.len() {
        pair.endpoint.set_dam(Some(1));
        pair.run();
        pair.pass(Duration::from_secs(5));
        if pair.over.is_some() {
            break;
        }
    }
    pair.endpoint.set_dam(None);
}
