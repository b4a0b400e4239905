//! The fault matrix of spec/reliability.md 7 (promise P5) in the simulated world: every fault at every step ends that
//! session in time as `engine/testdata/fault-matrix.csv` says, or not at all.
//!
//! Here are the steps of sessions, and the last one at a proxy, where a connection has become one. Not here: what the
//! conversations with proxy and broker make of faults (`proto/backlog/set_up/tests.rs`, `proto/publisher/tests.rs`), and
//! what is of sockets and processes alone, which the file leaves to the real world.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use super::pair::{Chunks, Pair};
use super::peers::Endpoint;
use crate::fault_matrix::{self, Cell, Expected};
use crate::proto::session_end::{End, Outcome};
use crate::proto::tests::credentials::{
    DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, LINGER_TIMEOUT, Login, SETUP_TIMEOUT, Stage, TRUSTING,
    endpoint_tls, experiments, plain_experiments, program,
};
use crate::proto::tests::{filled, message, success};
use crate::random::Random;
use crate::records::{Claim, Mlet as MletOfRecord, Output, SessionRecord};
use crate::sys::supervisor::MletStatus;
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
    SubmittingLast,
    Starting,
    MletAsked,
    Idle,
    MidMessageIn,
    MidMessageOut,
    MletGone,
    EndpointGone,
    Draining,
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
    /// No descriptor is free, and operations are refused.
    Lack,
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

pub(super) const STEPS: [Step; 15] = [
    Step::Accepted,
    Step::PartOfHello,
    Step::OurFlightSent,
    Step::PartOfTheirFlight,
    Step::AwaitingPermit,
    Step::Submitting,
    Step::SubmittingLast,
    Step::Starting,
    Step::MletAsked,
    Step::Idle,
    Step::MidMessageIn,
    Step::MidMessageOut,
    Step::MletGone,
    Step::EndpointGone,
    Step::Draining,
];

/// What drawn worlds are struck by.
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

/// The steps of a session that a step of the file stands for.
fn steps_of(cell: &Cell) -> &'static [Step] {
    match cell.step {
        "S0" => &[Step::Accepted],
        "S1" => &[Step::PartOfHello],
        "S2" => &[Step::OurFlightSent],
        "S3" => &[Step::PartOfTheirFlight],
        "S4" => &[Step::AwaitingPermit],
        // Each message.
        "S5" => &[Step::Submitting, Step::SubmittingLast],
        "S6" => &[Step::Starting],
        "S7" => &[Step::MletAsked],
        "S8" => &[Step::Idle],
        // Each way.
        "S9" => &[Step::MidMessageIn, Step::MidMessageOut],
        "S10" => &[Step::MletGone],
        "S11" => &[Step::Draining],
        other => panic!("{other} is no step of a session"),
    }
}

fn fault_of(cell: &Cell) -> Fault {
    match cell.fault {
        "F1" => Fault::Silence,
        "F2" => Fault::Fin,
        "F3" => Fault::Reset,
        "F4" => Fault::Garbage,
        "F5" => Fault::Trickle,
        "F6" => Fault::CutRecord,
        "F7" => Fault::HugeLength,
        "F8" => Fault::WrongType,
        "F9" => Fault::ErrorResult,
        "F10" => Fault::Lack,
        "F11" => Fault::Stop,
        "F12" => Fault::MletDies,
        other => panic!("{other} is no fault"),
    }
}

/// What spec/reliability.md 7 asks of the file: no gap, and a reason for each pair that makes no sense.
#[test]
fn the_file_has_each_step_by_each_fault_once_and_every_cell_says_what_or_why() {
    let cells: Vec<Cell> = fault_matrix::cells().collect();
    let places: Vec<_> = cells.iter().map(|cell| (cell.step, cell.fault)).collect();
    let of_step = |step| fault_matrix::FAULTS.into_iter().map(move |fault| (step, fault));
    let all: Vec<_> = fault_matrix::STEPS.into_iter().flat_map(of_step).collect();
    assert_eq!(places, all);
    assert_eq!(cells.len(), 276);
    for cell in cells {
        let Expected { outcome, reason, wait, told, mlet } = cell.expected;
        match cell.world {
            "n/a" => {
                let words = [outcome, reason, wait, told, mlet, cell.original];
                assert!(words.iter().all(|word| word.is_empty()), "{cell:?}");
                assert!(!cell.note.is_empty(), "a silent gap: {cell:?}");
            }
            "both" | "real" => {
                let words = [outcome, wait, told, mlet, cell.original];
                assert!(words.iter().all(|word| !word.is_empty()), "{cell:?}");
                let has_no_reason = matches!(outcome, "ok" | "goes_on" | "run_ends");
                assert_eq!(reason.is_empty(), has_no_reason, "{cell:?}");
            }
            other => panic!("{other} is no world"),
        }
    }
}

/// Promise P5.
#[test]
fn every_fault_at_every_step_has_what_the_file_says() {
    let mut walked = 0;
    let mut wrong = Vec::new();
    for cell in fault_matrix::cells() {
        if !cell.step.starts_with('S') || cell.world != "both" {
            continue;
        }
        for step in steps_of(&cell) {
            wrong.extend(difference(*step, fault_of(&cell), &cell.expected));
        }
        walked += 1;
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(walked, 122, "no cell is lost");
}

/// What the matrix does not have: an endpoint that closes TLS before it goes, and one that is gone while its mlet still has
/// to take what it sent.
#[test]
fn what_the_file_does_not_have_ends_as_well() {
    let left =
        ("endpoint_closed", "the endpoint closed before START", "at once", "close_notify", "none");
    let ended = ("endpoint_closed", "the endpoint closed", "at once", "close_notify", "eof");
    let lingers = ("endpoint_closed", "the endpoint closed", "linger", "nothing", "gone");
    let lost = ("undelivered", "the mlet did not take all it sent", "drain", "fin", "cut off");
    let mut wrong = Vec::new();
    for (step, fault, (outcome, reason, wait, told, mlet)) in [
        (Step::AwaitingPermit, Fault::CloseNotify, left),
        (Step::Submitting, Fault::CloseNotify, left),
        (Step::SubmittingLast, Fault::CloseNotify, left),
        (Step::Starting, Fault::CloseNotify, left),
        (Step::MletAsked, Fault::CloseNotify, ended),
        (Step::Idle, Fault::CloseNotify, ended),
        (Step::MidMessageIn, Fault::CloseNotify, ended),
        (Step::MidMessageOut, Fault::CloseNotify, ended),
        (Step::Draining, Fault::CloseNotify, ended),
        (Step::MletGone, Fault::CloseNotify, lingers),
        (Step::EndpointGone, Fault::Silence, lost),
        (Step::EndpointGone, Fault::Stop, lost),
        (
            Step::EndpointGone,
            Fault::MletDies,
            ("mlet_signal", "mlet signal 9", "at once", "close_notify", "killed"),
        ),
    ] {
        wrong.extend(difference(step, fault, &Expected { outcome, reason, wait, told, mlet }));
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The last step at a proxy: the preamble is out, and the connection is a session's.
#[test]
fn every_fault_of_a_proxy_behind_its_preamble_has_what_the_file_says() {
    let mut walked = 0;
    let mut wrong = Vec::new();
    for cell in fault_matrix::cells() {
        if cell.step != "P5" || cell.world != "both" {
            continue;
        }
        let endpoint = Endpoint::new(Some(endpoint_tls(Login::Operator, Some(TRUSTING))));
        let mut pair = Pair::in_backlog(plain_experiments(), endpoint);
        let hello: Vec<u8> = pair.endpoint.sent.drain(..).collect();
        pair.endpoint.set_dam(Some(0));
        let fault = fault_of(&cell);
        match fault {
            Fault::CutRecord | Fault::Trickle => pair.endpoint.held.extend(&hello),
            // Without TLS they are bytes.
            Fault::HugeLength | Fault::WrongType | Fault::ErrorResult => {
                pair.endpoint.set_dam(None);
                pair.endpoint.write_raw(match fault {
                    Fault::HugeLength => &[MessageType::RESULT.0, 0xff, 0xff, 0xff],
                    Fault::WrongType => &[MessageType::XNOTIFY.0, 0, 0, 1, 1],
                    _ => &[MessageType::RESULT.0, 0, 0, 2, 0, 0x44],
                });
                pair.run();
            }
            _ => {}
        }
        let struck_at = pair.elapsed();
        if !pair.endpoint.has_parted {
            strike(&mut pair, fault);
        }
        pair.run();
        if cell.expected.outcome == "goes_on" {
            pair.pass(Duration::from_secs(24 * 3600));
            assert!(pair.over.is_none() && pair.told().is_empty(), "{cell:?}: {}", pair.told());
        } else {
            let case = format!("{fault:?} at P5");
            wrong.extend(differs(&mut pair, (fault, &case), struck_at, &cell.expected));
        }
        walked += 1;
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(walked, 10, "no cell is lost");
}

/// Lets `fault` happen at `step`; what is not as expected, if anything.
fn difference(step: Step, fault: Fault, expected: &Expected) -> Option<String> {
    let case = format!("{fault:?} at {step}");
    let mut pair = reach(step);
    let struck_at = pair.elapsed();
    match (step, fault) {
        // The second signal.
        (Step::Draining, Fault::Stop) => pair.end_sessions(),
        _ => strike(&mut pair, fault),
    }
    pair.run();
    if expected.wait == "goes on" {
        goes_on(&mut pair, step, fault, &case);
        pair.mlet().exit();
    }
    differs(&mut pair, (fault, &case), struck_at, expected)
}

/// Asserts that the session of the pair, which nothing has ended, is what it was.
fn goes_on(pair: &mut Pair, step: Step, fault: Fault, case: &str) {
    assert!(pair.over.is_none(), "{case}: {}", pair.told());
    if fault == Fault::Lack {
        lacks(pair, step, case);
    }
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
}

/// The endpoint goes on while descriptors are lacking, and these are there again.
fn lacks(pair: &mut Pair, step: Step, case: &str) {
    if pair.mlet.is_some() {
        // A session that has its mlet needs none. Operations are refused instead.
        let before = pair.refusals();
        pair.set_chunks(Chunks::Random(Random(3)));
        while pair.refusals() < before + 3 {
            pair.endpoint.write(&success());
            pair.mlet().write(&success());
            pair.run();
            assert!(pair.over.is_none(), "{case}: {}", pair.told());
        }
        return;
    }
    let waits_for_answer = pair.endpoint.is_silent;
    pair.endpoint.is_silent = false;
    if waits_for_answer {
        pair.endpoint.write(&success());
        pair.endpoint.is_relayed = step == Step::Starting;
    }
    pair.endpoint.set_dam(None);
    if step == Step::AwaitingPermit {
        pair.has_permits = true;
        pair.grant_permit();
    }
    pair.pass(Duration::from_secs(5));
    assert!(pair.endpoint.is_relayed, "{case}: START was answered: {}", pair.told());
    assert!(pair.mlet.is_none() && pair.over.is_none(), "{case}: nothing is left for a mlet");
    pair.set_lacks_descriptors(false);
    pair.pass(Duration::from_secs(1));
    assert!(pair.mlet.is_some(), "{case}: {}", pair.told());
}

/// Runs the session to its end; what of it is not as expected, if anything.
fn differs(
    pair: &mut Pair,
    (fault, case): (Fault, &str),
    struck_at: Duration,
    expected: &Expected,
) -> Option<String> {
    pair.finish();
    let wait = match expected.wait {
        "at once" => Some(Duration::ZERO),
        "goes on" => None,
        "handshake" => Some(HANDSHAKE_TIMEOUT),
        "setup" => Some(SETUP_TIMEOUT),
        "permit" => Some(2 * SETUP_TIMEOUT),
        "drain" => Some(DRAIN_TIMEOUT),
        "linger" => Some(LINGER_TIMEOUT),
        other => panic!("{other} is no limit of a session"),
    };
    let took = pair.elapsed() - struck_at;
    let mlet = mlet_of(pair, expected.mlet);
    let (outcome, reason) = record_of(pair, mlet);
    let told = told_of(&pair.endpoint, fault == Fault::Reset);
    let is_so = outcome == expected.outcome
        && reason.contains(expected.reason)
        && wait.is_none_or(|wait| wait == took)
        && told == expected.told
        && mlet == expected.mlet;
    (!is_so).then(|| {
        format!(
            "{case}: {outcome}, {reason}, after {took:?}, {told}, mlet {mlet}\n  instead of {expected:?}\n  {}",
            pair.told().replace('\n', "\n  ")
        )
    })
}

/// What has become of the mlet; `before` tells what only who let it end can know.
fn mlet_of(pair: &Pair, before: &'static str) -> &'static str {
    match &pair.mlet {
        None => "none",
        Some(_) if matches!(before, "killed" | "gone") => before,
        Some(mlet) if mlet.is_at_eof => "eof",
        Some(mlet) if mlet.has_ended => "ended",
        Some(_) => "cut off",
    }
}

/// The outcome and the reason that the session's record has, with what the supervisor tells of such a mlet.
fn record_of(pair: &Pair, mlet: &str) -> (String, String) {
    let ended = pair.ended.clone().unwrap();
    let status = |status| MletOfRecord::Ended(status, Duration::ZERO);
    let record = SessionRecord {
        facts: ended.facts.clone(),
        end: Some(Box::new(ended)),
        mlet: match mlet {
            "none" => MletOfRecord::None,
            "killed" => status(MletStatus::Signal(9)),
            _ => status(MletStatus::Code(0)),
        },
        mlet_spawned: None,
        output: Output::Uncounted,
        claim: Claim::None,
    };
    (record.outcome().to_string(), record.reason().unwrap_or_default())
}

/// What the endpoint was told.
fn told_of(endpoint: &Endpoint, is_gone: bool) -> String {
    match (endpoint.alert, endpoint.close_notify) {
        _ if is_gone => "gone".into(),
        // Nobody can say what it would hear.
        _ if !endpoint.reads => "nothing".into(),
        (Some(alert), _) => format!("alert {}", u8::from(alert)),
        (None, true) => "close_notify".into(),
        (None, false) => "fin".into(),
    }
}

/// A session that stands at `step`, at a time other than 0 when nothing was waited for yet.
pub(super) fn reach(step: Step) -> Pair {
    let programs = [program(20), program(21)];
    let submits = matches!(step, Step::Submitting | Step::SubmittingLast);
    let programs = if submits { &programs[..] } else { &[] };
    let experiments = experiments(Stage::WithDefault, programs, programs);
    let mut pair = Pair::with(experiments, Login::Operator, Some(TRUSTING));
    pair.endpoint.is_silent = submits || step == Step::Starting;
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
        Step::SubmittingLast => pair.endpoint.write(&success()),
        Step::Idle | Step::Draining => {
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
    if step == Step::Draining {
        pair.drain();
        pair.run();
    }
    pair
}

/// Lets `fault` happen.
pub(super) fn strike(pair: &mut Pair, fault: Fault) {
    match fault {
        Fault::Trickle => trickle(pair),
        Fault::Lack => pair.set_lacks_descriptors(true),
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
        Fault::Trickle | Fault::Lack | Fault::Stop | Fault::MletDies => {}
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
