//! Records whose parts come in every order, and which outcome each end is.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::joblog;
use super::json::Lines;
use super::outcome::OutcomeKind;
use super::results_folder::{ResultsFolder, folder_of};
use super::*;
use crate::config::{Keep, Layout, Results, RunId};
use crate::metrics::{Direction, SessionLatency};
use crate::proto::account::{Account, Flow, Relayed};
use crate::proto::greeting::{GreetingError, GreetingRequest};
use crate::proto::session_end::{End, Force, Outcome};
use crate::sys::recorder::{RecordedOutput, RecordedStream};
use crate::sys::supervisor::MletStatus;
use packetlab::key::KeyId;
use packetlab::message::{MessageType, Outcome as Answer};
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::TlsError;
use packetlab::trust::ChainError;

/// When the sessions here are accepted.
#[expect(clippy::disallowed_methods, reason = "an Instant comes from nowhere else")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(super) fn facts(id: SessionId) -> Arc<SessionFacts> {
    Arc::new(facts_of(id, start()))
}

pub(super) fn facts_of(id: SessionId, accepted: Instant) -> SessionFacts {
    SessionFacts {
        id,
        core: 3,
        peer: "192.0.2.7:40112".parse().unwrap(),
        via: Via::Direct,
        accepted,
        accepted_wall: Ticks(1_709_164_800_000_000_000),
        account: Account::default(),
    }
}

pub(super) fn ended(id: SessionId, outcome: Outcome) -> Box<Ended> {
    let facts = facts(id);
    let closed = facts.accepted + Duration::from_millis(20);
    Box::new(Ended { facts, relayed: Relayed::default(), latency: None, outcome, closed })
}

/// Of one that has timed out, with a handshake that was over or not.
pub(crate) fn record_of_endpoint(id: SessionId, is_known: bool) -> SessionRecord {
    let mut facts = facts_of(id, start());
    facts.account.tls_done = is_known.then(start);
    let end = ended(id, Outcome::HandshakeTimeout);
    SessionRecord::new(Arc::new(facts), Some(end), Mlet::None)
}

/// A recorder with one session past START.
fn recorder(id: SessionId) -> Recorder {
    let mut recorder = Recorder::default();
    recorder.begin(facts(id), (true, Output::Uncounted), Claim::None);
    assert_eq!((recorder.running(), recorder.running_mlets()), (1, 1));
    recorder
}

fn is_empty(recorder: &mut Recorder) {
    assert_eq!((recorder.running(), recorder.running_mlets()), (0, 0));
    assert!(recorder.finish().is_empty());
}

fn told(record: &SessionRecord) -> (OutcomeKind, Option<String>) {
    (record.outcome(), record.reason())
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_record_is_complete_when_session_and_mlet_have_ended_whichever_is_first() {
    let status = MletStatus::Code(0);
    let mut recorder = recorder(7);
    assert!(recorder.awaits_mlet(7));
    recorder.mlet_runs(7, (700, false), start());
    assert!(!recorder.awaits_mlet(7));
    assert!(recorder.ended(ended(7, Outcome::MletEnded)).is_none(), "the mlet may still run");
    assert_eq!((recorder.running(), recorder.running_mlets()), (1, 1));
    let first = recorder.mlet_ended(7, status, SECOND).unwrap();
    is_empty(&mut recorder);

    recorder.begin(facts(8), (true, Output::Uncounted), Claim::None);
    recorder.mlet_runs(8, (800, false), start());
    assert!(recorder.mlet_ended(8, status, SECOND).is_none(), "its last bytes are on the way");
    assert_eq!((recorder.running(), recorder.running_mlets()), (1, 0));
    let second = recorder.ended(ended(8, Outcome::MletEnded)).unwrap();
    is_empty(&mut recorder);
    for (record, id) in [(first, 7), (second, 8)] {
        assert_eq!((record.facts.id, &record.mlet), (id, &Mlet::Ended(status, SECOND)));
        assert!(record.mlet_spawned.is_some());
        assert_eq!(told(&record), (OutcomeKind::Ok, None));
    }
}

#[test]
fn a_record_holds_what_its_shard_told_last() {
    let mut recorder = recorder(7);
    let relayed = Relayed { linfos_lost: 3, ..Relayed::default() };
    let mut end = ended(7, Outcome::MletEnded);
    end.relayed = relayed;
    recorder.ended(end);
    let record = recorder.mlet_ended(7, MletStatus::Code(0), SECOND).unwrap();
    assert_eq!(record.end.unwrap().relayed, relayed);
}

#[test]
fn a_mlet_that_could_not_be_started_is_the_end_of_a_session_before_or_after_its_sockets_are_closed()
{
    let reason = || "no such file".to_owned();
    let mut recorder = recorder(7);
    assert!(recorder.mlet_not_started(7, reason()).is_none());
    let first = recorder.ended(ended(7, Outcome::MletEnded)).unwrap();
    recorder.begin(facts(8), (true, Output::Uncounted), Claim::None);
    assert!(recorder.ended(ended(8, Outcome::MletEnded)).is_none());
    let second = recorder.mlet_not_started(8, reason()).unwrap();
    is_empty(&mut recorder);
    for record in [first, second] {
        let why = Some("mlet not started: no such file".to_owned());
        assert_eq!(told(&record), (OutcomeKind::SpawnFailed, why));
        assert_eq!(record.mlet_spawned, None);
    }
    // Its endpoint had left before.
    recorder.begin(facts(9), (true, Output::Uncounted), Claim::None);
    assert!(recorder.ended(ended(9, Outcome::EndpointEnded(End::Closed))).is_none());
    let record = recorder.mlet_not_started(9, reason()).unwrap();
    let why = Some("the endpoint closed; mlet not started: no such file".to_owned());
    assert_eq!(told(&record), (OutcomeKind::EndpointClosed, why));
}

#[test]
fn a_session_that_did_not_come_to_start_has_a_record_at_once() {
    let mut recorder = Recorder::default();
    let record = recorder.ended(ended(7, Outcome::HandshakeTimeout)).unwrap();
    let why = "no complete TLS handshake in time (--handshake-timeout)".to_owned();
    assert_eq!(told(&record), (OutcomeKind::HandshakeTimeout, Some(why)));
    assert_eq!(record.mlet, Mlet::None);
    is_empty(&mut recorder);
}

/// START was answered, but there was no descriptor for the mlet's socket.
#[test]
fn a_session_without_a_socket_for_its_mlet_is_one_whose_mlet_was_not_started() {
    let record = Recorder::default().ended(ended(7, Outcome::MletEnded)).unwrap();
    let why = "mlet not started: no socket pair could be made for it".to_owned();
    assert_eq!(told(&record), (OutcomeKind::SpawnFailed, Some(why)));
}

#[test]
fn a_session_that_was_killed_is_that_whatever_its_mlet_ends_with() {
    for status in [MletStatus::Code(0), MletStatus::Code(3), MletStatus::Signal(15)] {
        let mut recorder = recorder(7);
        recorder.mlet_runs(7, (700, false), start());
        assert!(recorder.ended(ended(7, Outcome::Forced(Force::Stop))).is_none());
        let record = recorder.mlet_ended(7, status, SECOND).unwrap();
        let why = "the run was ended by force".to_owned();
        assert_eq!(told(&record), (OutcomeKind::Killed, Some(why)));
        is_empty(&mut recorder);
    }
}

/// What came first names it. `begin`: what is told before the sockets are closed.
#[test]
fn a_mlet_that_ran_too_long_names_its_session_unless_that_had_begun_to_end() {
    type Begin = fn(&mut Recorder);
    let cases: [(Begin, Outcome, OutcomeKind); 7] = [
        (
            |recorder| assert_eq!(recorder.mlet_timed_out(7), Some(700)),
            Outcome::MletEnded,
            OutcomeKind::MletTimeout,
        ),
        (
            |recorder| {
                recorder.mlet_timed_out(7);
                assert!(recorder.endpoint_gone(7).is_some(), "its mlet still runs");
            },
            Outcome::EndpointEnded(End::Closed),
            OutcomeKind::MletTimeout,
        ),
        (
            |recorder| {
                recorder.endpoint_gone(7);
                assert_eq!(recorder.mlet_timed_out(7), Some(700), "it is ended all the same");
            },
            Outcome::EndpointEnded(End::Closed),
            OutcomeKind::EndpointClosed,
        ),
        (
            |recorder| {
                assert_eq!(recorder.idle(7), Some(700));
                recorder.mlet_timed_out(7);
            },
            Outcome::IdleTimeout,
            OutcomeKind::IdleTimeout,
        ),
        (
            |recorder| {
                recorder.mlet_timed_out(7);
                recorder.idle(7);
            },
            Outcome::IdleTimeout,
            OutcomeKind::MletTimeout,
        ),
        // It had closed its session.
        (|_| {}, Outcome::MletEnded, OutcomeKind::MletTimeout),
        (|_| {}, Outcome::EndpointEnded(End::Closed), OutcomeKind::EndpointClosed),
    ];
    for (begin, outcome, expected) in cases {
        let mut recorder = recorder(7);
        assert!(!recorder.mlet_runs(7, (700, false), start()));
        begin(&mut recorder);
        assert!(recorder.ended(ended(7, outcome)).is_none());
        // Its sockets are closed, and it runs on.
        recorder.mlet_timed_out(7);
        let record = recorder.mlet_ended(7, MletStatus::Code(0), SECOND).unwrap();
        assert_eq!(record.outcome(), expected);
        assert_eq!(recorder.mlet_timed_out(7), None, "nobody is left to be ended");
        is_empty(&mut recorder);
    }
}

#[test]
fn a_mlet_that_is_started_for_a_session_that_was_idle_meanwhile_is_to_be_ended_at_once() {
    let mut recorder = recorder(7);
    assert_eq!(recorder.idle(7), None, "there is none yet");
    assert!(recorder.mlet_runs(7, (700, false), start()));
}

#[test]
fn mlets_that_run_are_listed_oldest_first_until_they_end() {
    let (mut recorder, begun) = (Recorder::default(), start());
    for (age, id) in [5, 1, 9, 3].into_iter().enumerate() {
        recorder.begin(facts(id), (true, Output::Uncounted), Claim::None);
        recorder.mlet_runs(id, (id as i32 * 100, false), begun + age as u32 * SECOND);
    }
    recorder.begin(facts(2), (true, Output::Uncounted), Claim::None);
    let listed = |recorder: &Recorder| -> Vec<(SessionId, i32)> {
        recorder.oldest_first().map(|(facts, pid, _)| (facts.id, pid)).collect()
    };
    assert_eq!(listed(&recorder), [(5, 500), (1, 100), (9, 900), (3, 300)]);
    let first = recorder.oldest_after(None).unwrap();
    assert_eq!(first, (begun, 5));
    assert_eq!(recorder.oldest_after(Some(first)), Some((begun + SECOND, 1)));
    recorder.mlet_ended(1, MletStatus::Code(0), SECOND);
    assert_eq!(recorder.oldest_after(Some(first)), Some((begun + 2 * SECOND, 9)));
    recorder.mlet_not_started(2, "no such file".into());
    assert_eq!(listed(&recorder), [(5, 500), (9, 900), (3, 300)]);
    recorder.lose_mlets();
    assert_eq!((listed(&recorder), recorder.started_mlets()), (vec![], 0));
    assert_eq!(recorder.oldest_after(None), None);
}

/// Of those that ran too long each is looked for behind the one before.
#[test]
fn a_mlet_that_is_told_of_later_is_listed_later_however_old_it_is_said_to_be() {
    let (mut recorder, begun) = (Recorder::default(), start());
    for (id, after) in [(7, SECOND), (5, Duration::ZERO), (6, Duration::ZERO)] {
        recorder.begin(facts(id), (true, Output::Uncounted), Claim::None);
        recorder.mlet_runs(id, (700, false), begun + after);
    }
    let oldest = recorder.oldest_after(None);
    assert_eq!(oldest, Some((begun + SECOND, 7)));
    let second = recorder.oldest_after(oldest);
    assert_eq!(second.map(|(_, id)| id), Some(5));
    assert_eq!(recorder.oldest_after(second).map(|(_, id)| id), Some(6));
}

#[test]
fn when_mlets_are_lost_those_sessions_are_over_whose_sockets_are_closed() {
    let mut recorder = recorder(7);
    recorder.begin(facts(8), (true, Output::Uncounted), Claim::None);
    recorder.ended(ended(7, Outcome::MletEnded));
    let records = recorder.lose_mlets();
    assert_eq!(records.iter().map(|record| record.facts.id).collect::<Vec<_>>(), [7]);
    assert_eq!(records[0].outcome(), OutcomeKind::Internal);
    assert_eq!((recorder.running(), recorder.running_mlets()), (1, 0));
    // A word of it that was on its way changes nothing.
    assert!(recorder.mlet_ended(7, MletStatus::Code(0), SECOND).is_none());
    let record = recorder.ended(ended(8, Outcome::Forced(Force::Stop))).unwrap();
    assert_eq!(record.outcome(), OutcomeKind::Killed);
    is_empty(&mut recorder);
}

/// Whatever was told of them, and in whatever order.
#[test]
fn at_the_end_of_the_run_every_session_that_is_left_has_one_record() {
    let mut recorder = Recorder::default();
    (1..=40)
        .for_each(|id| recorder.begin(facts(id), (id % 2 == 0, Output::Uncounted), Claim::None));
    let mut ids = Vec::new();
    let mut keep = |record: Option<SessionRecord>| ids.extend(record.map(|record| record.facts.id));
    for id in 1..=40 {
        if id % 3 == 0 {
            keep(recorder.mlet_ended(id, MletStatus::Code(0), SECOND));
        }
        if id % 5 == 0 {
            keep(recorder.ended(ended(id, Outcome::MletEnded)));
        }
    }
    let rest = recorder.finish();
    let without_end = rest.iter().filter(|record| record.end.is_none());
    assert!(without_end.clone().count() > 20);
    assert!(without_end.into_iter().all(|record| record.outcome() == OutcomeKind::Internal));
    rest.into_iter().for_each(|record| keep(Some(record)));
    ids.sort_unstable();
    assert_eq!(ids, (1..=40).collect::<Vec<_>>());
    is_empty(&mut recorder);
}

#[test]
fn one_mlet_for_all_sessions_is_nothing_that_a_record_waits_for() {
    let mut recorder = Recorder::default();
    for id in [1, 2] {
        recorder.begin(facts(id), (false, Output::Uncounted), Claim::None);
    }
    assert_eq!(recorder.running_mlets(), 0);
    let record = recorder.ended(ended(1, Outcome::MletEnded)).unwrap();
    assert_eq!(told(&record), (OutcomeKind::Ok, None));
    recorder.mlet_not_taken(2);
    let record = recorder.ended(ended(2, Outcome::MletEnded)).unwrap();
    let why = "the one mlet of -s took no more sessions".to_owned();
    assert_eq!(told(&record), (OutcomeKind::SpawnFailed, Some(why)));
    is_empty(&mut recorder);
}

#[test]
fn each_end_of_a_session_is_one_outcome_of_the_closed_list() {
    let broken = || End::Broken(ErrorKind::ConnectionReset);
    let refused = |what| {
        let outcome = packetlab::message::Outcome::SUCCESS;
        GreetingError::Refused { what, outcome, program: None }
    };
    let message_type = MessageType::MDATA;
    let unexpected = |what| GreetingError::Unexpected { what, message_type, payload_len: 0 };
    let (key, snikey) = (KeyId([1; 32]), SniKey::parse("hello").unwrap());
    let chain_error = ChainError::EndOfPhases { index: 0 };
    for (end, expected) in [
        (Outcome::MletLate, "spawn_failed"),
        (Outcome::EndpointEnded(End::Closed), "endpoint_closed"),
        (Outcome::EndpointEnded(broken()), "endpoint_reset"),
        (Outcome::LeftInSetUp(End::Closed), "endpoint_closed"),
        (Outcome::LeftInSetUp(broken()), "endpoint_reset"),
        (Outcome::EndpointBrokeTls(TlsError::DecryptError), "tls_failed"),
        (Outcome::UndeliveredToEndpoint, "undelivered"),
        (Outcome::UndeliveredToMlet, "undelivered"),
        (Outcome::HandshakeTimeout, "handshake_timeout"),
        (Outcome::SetUpTimeout, "setup_timeout"),
        (Outcome::MadeRoom, "refused_limit"),
        (Outcome::MadeRoomOfKey(key), "refused_limit"),
        (Outcome::TooManyOfKey(key), "refused_limit"),
        (Outcome::NotChosen, "skipped"),
        (Outcome::AlreadyMeasured, "already_measured"),
        (Outcome::NoPermit, "surplus"),
        (Outcome::PermitsUsedUp, "surplus"),
        (Outcome::NoExperiment(None), "no_experiment"),
        (Outcome::Tls(TlsError::NoCertificatesPresented), "certificate_refused"),
        (Outcome::Tls(TlsError::DecryptError), "tls_failed"),
        (Outcome::OwnChain(snikey, chain_error), "own_chain"),
        (Outcome::Greeting(refused(GreetingRequest::Program(0))), "programs_failed"),
        (Outcome::Greeting(unexpected(GreetingRequest::Program(0))), "programs_failed"),
        (Outcome::Greeting(GreetingError::Unasked), "programs_failed"),
        (Outcome::Greeting(refused(GreetingRequest::Start)), "start_refused"),
        (Outcome::Greeting(unexpected(GreetingRequest::Start)), "start_refused"),
        (Outcome::BacklogLost(End::Closed), "backlog_lost"),
        (Outcome::Cancelled, "drained"),
        (Outcome::Forced(Force::Stop), "killed"),
        (Outcome::Forced(Force::DrainLimit), "killed"),
        (Outcome::Forced(Force::Deadline), "deadline"),
        (Outcome::IdleTimeout, "idle_timeout"),
        (Outcome::MletTimeout, "mlet_timeout"),
    ] {
        let reason = end.to_string();
        let record = Recorder::default().ended(ended(1, end)).unwrap();
        assert_eq!(serde_json::to_value(record.outcome()).unwrap(), expected, "{reason}");
        assert_eq!(record.outcome().to_string(), expected, "as it is shown");
        assert_eq!(record.reason(), Some(reason));
    }
    for (mlet, expected) in [
        (Mlet::Ended(MletStatus::Code(0), SECOND), "ok"),
        (Mlet::Shared, "ok"),
        (Mlet::Ended(MletStatus::Code(3), SECOND), "mlet_failed"),
        (Mlet::Ended(MletStatus::Signal(11), SECOND), "mlet_signal"),
        (Mlet::Lost, "internal"),
    ] {
        let end = Some(ended(1, Outcome::MletEnded));
        let record = SessionRecord::new(facts(1), end, mlet);
        assert_eq!(serde_json::to_value(record.outcome()).unwrap(), expected);
        assert_eq!(record.reason().is_none(), expected == "ok");
    }
}

#[test]
fn what_ends_with_its_run_by_force_or_nobody_knows_how_is_no_result_of_its_endpoint() {
    let code = Mlet::Ended(MletStatus::Code(0), SECOND);
    let signal = Mlet::Ended(MletStatus::Signal(15), SECOND);
    for (end, mlet, is_cut_off) in [
        (Outcome::Forced(Force::Stop), &code, [true; 2]),
        (Outcome::Forced(Force::Deadline), &signal, [true; 2]),
        (Outcome::Forced(Force::DrainLimit), &code, [true; 2]),
        (Outcome::Forced(Force::Kill), &signal, [false; 2]),
        (Outcome::MletEnded, &code, [false; 2]),
        (Outcome::MletEnded, &signal, [false, true]),
        (Outcome::MletEnded, &Mlet::Lost, [true; 2]),
        (Outcome::EndpointEnded(End::Closed), &signal, [false; 2]),
    ] {
        let reason = format!("{end}, {mlet:?}");
        let record = SessionRecord::new(facts(1), Some(ended(1, end)), mlet.clone());
        assert_eq!([false, true].map(|force| record.is_cut_off(force)), is_cut_off, "{reason}");
    }
    let lost = SessionRecord::new(facts(1), None, code);
    assert!(lost.is_cut_off(false));
}

fn read(line: &[u8]) -> Value {
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(line.last(), Some(&b'\n'));
    serde_json::from_slice(line).unwrap()
}

/// A session that its mlet ended with this status, with everything that a record holds.
pub(super) fn whole_record(status: MletStatus) -> SessionRecord {
    let accepted = start();
    let at = |micros| accepted + Duration::from_micros(micros);
    let mut facts = facts_of(4120, accepted);
    facts.via = Via::Proxy;
    facts.account = Account {
        snikey: Some(SniKey::parse("hello").unwrap()),
        endpoint_key: Some(KeyId([0xab; 32])),
        shown_key: None,
        hold: None,
        operator_key: Some(KeyId([0xcd; 32])),
        tls_done: Some(at(1_500)),
        start_sent: Some(at(2_000)),
        start_answered: Some(at(12_000)),
    };
    let facts = Arc::new(facts);
    let relayed = Relayed {
        to_endpoint: Flow { bytes: 18_233, messages: 412 },
        from_endpoint: Flow { bytes: 902_113, messages: 431 },
        linfos_lost: 2,
        crashed_monitor: Some(1),
    };
    let mut latency = SessionLatency::default();
    for micros in [11, 84, 912] {
        latency.begin(Direction::ToEndpoint, at(0));
        latency.end(Direction::ToEndpoint, at(micros));
    }
    let (outcome, closed) = (Outcome::MletEnded, at(900_001));
    let latency = Some(Box::new(latency));
    let end = Ended { facts: Arc::clone(&facts), relayed, latency, outcome, closed };
    let mlet = Mlet::Ended(status, Duration::from_micros(870_250));
    let mut record = SessionRecord::new(facts, Some(Box::new(end)), mlet);
    record.mlet_spawned = Some(at(13_000));
    record
}

const LINES: RunId = RunId(0x7f3a_5c00_1122_3344);

#[test]
fn a_line_tells_all_that_is_known() {
    let lines = Lines::of_run(LINES, None);
    let record = whole_record(MletStatus::Code(3));
    let written = Ticks(1_709_164_801_000_007_000);
    let head = |ev| json!({ "v": 1, "t": "2024-02-29T00:00:01.000007Z", "ev": ev, "run": "7f3a5c0011223344" });
    let with = |ev, members: Value| {
        let mut line = head(ev);
        line.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        line
    };
    let expected = json!({
        "sid": 4120, "core": 3,
        "ep": {
            "key": "ab".repeat(32), "root": "cd".repeat(32), "snikey": "hello",
            "peer": "192.0.2.7:40112", "via": "proxy", "shown_key": null,
        },
        "accepted": "2024-02-29T00:00:00.000000Z",
        "outcome": "mlet_failed", "failed": true, "reason": "mlet exit code 3", "exit": 3, "signal": null,
        "ms": {
            "tls": 1.5, "programs": 0.5, "start": 10.0, "spawn": 1.0, "run": 870.25,
            "total": 900.001,
        },
        "bytes": { "to_ep": 18_233, "from_ep": 902_113 },
        "msgs": { "to_ep": 412, "from_ep": 431 },
        "linfos_lost": 2,
        "crashed_monitor": 1,
        "output": null,
        // The middles of the steps of 84 and 912 us, and the longest.
        "relay_us": {
            "to_ep": { "count": 3, "p50": 83.968, "p99": 901.12, "max": 912.0 },
            "from_ep": { "count": 0, "p50": null, "p99": null, "max": null },
        },
    });
    assert_eq!(read(&lines.of_session(&record, None, written)), with("session.end", expected));
    let totals = ShardTotals { number: 0, core: 5, enters: 300, sessions: 30 };
    let expected = json!({ "core": 5, "enters": 300, "sessions": 30 });
    assert_eq!(read(&lines.of_shard(&totals, written)), with("shard.end", expected));
    let expected = json!({ "outcome": "tls_failed", "count": 312 });
    let folded = lines.of_folded(OutcomeKind::TlsFailed, 312, written);
    assert_eq!(read(&folded), with("session.folded", expected));
    let program = concat!("pktxpmgr ", env!("CARGO_PKG_VERSION"));
    let expected = with("run.start", json!({ "program": program }));
    assert_eq!(read(&lines.of_run_start(written)), expected);
    let counts = [(OutcomeKind::Ok, 290), (OutcomeKind::Drained, 1)].into();
    let expected = with("run.end", json!({ "counts": { "ok": 290, "drained": 1 } }));
    assert_eq!(read(&lines.of_run_end(&counts, written)), expected);
}

#[test]
fn a_joblog_has_the_columns_of_gnu_parallel_and_the_key_behind_them() {
    let key = "ab".repeat(32);
    let line = |status| joblog::line(&whole_record(status), "./mlet -v").unwrap();
    assert_eq!(
        format!("{}{}", joblog::HEADER, line(MletStatus::Code(3))),
        format!(
            "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tKey\n\
             4120\t192.0.2.7\t1709164800.013\t     0.870\t18233\t902113\t3\t0\t./mlet -v\t{key}\n"
        )
    );
    assert!(line(MletStatus::Signal(9)).contains("\t0\t9\t./mlet"));
    let of_set_up = Recorder::default().ended(ended(1, Outcome::HandshakeTimeout)).unwrap();
    assert_eq!(joblog::line(&of_set_up, "./mlet"), None, "no mlet, no line");
    let not_started = SessionRecord::new(facts(1), None, Mlet::NotStarted("why".into()));
    assert!(joblog::line(&not_started, "./mlet").unwrap().contains("\t127\t0\t"));
}

/// The results folder as it is kept in this way, below a folder of the test's own.
fn results_folder(name: &str, keep: Keep, layout: Layout) -> (PathBuf, ResultsFolder) {
    let path = std::env::temp_dir().join(format!("pktxpmgr-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    let folder = ResultsFolder::new(&Results { path: path.clone(), keep, layout }, true);
    (path, folder)
}

#[test]
fn a_session_leaves_its_record_beside_its_output_and_what_is_not_kept_is_taken_away() {
    let name = "sessions/004120-abababab";
    assert_eq!(folder_of(&whole_record(MletStatus::Code(0)).facts), name);
    let cases = [(Keep::All, 0, true), (Keep::Failed, 0, false), (Keep::Failed, 3, true)];
    for (keep, code, is_kept) in cases {
        let (path, mut results) = results_folder("results", keep, Layout::Folders);
        fs::create_dir_all(path.join(name)).unwrap();
        fs::write(path.join(name).join("stdout"), "12345").unwrap();
        let record = whole_record(MletStatus::Code(code));
        let output = results.output_of(&record);
        let told = serde_json::to_value(&output).unwrap();
        let expected = json!({
            "dir": name, "stdout": 5, "stderr": 0, "stdout_written": 5, "stderr_written": 0,
            "truncated": false,
        });
        assert_eq!(told, if is_kept { expected } else { Value::Null });
        let doubtful = SessionRecord { output: Output::Doubtful, ..record.clone() };
        let doubtful = serde_json::to_value(results.output_of(&doubtful)).unwrap();
        assert_eq!(doubtful["truncated"], if is_kept { json!(true) } else { Value::Null });
        results.complete(&record, b"the line\n");
        assert_eq!(results.unwritten(), 0);
        let copy = fs::read(path.join(name).join("session.json")).ok();
        assert_eq!(copy.as_deref(), is_kept.then_some(&b"the line\n"[..]));
        assert_eq!(path.join(name).exists(), is_kept);
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn what_the_recorder_kept_in_the_file_of_all_sessions_is_told_by_its_place_and_leaves_no_folder() {
    let stream = |written, kept, place| RecordedStream { written, kept, place };
    let output = RecordedOutput {
        errno: 0,
        stream: 12,
        stdout: stream(900, 400, 18),
        stderr: stream(0, 0, 0),
    };
    for (keep, is_kept) in [(Keep::All, true), (Keep::Failed, false)] {
        let (path, mut results) = results_folder("stream", keep, Layout::Stream);
        let mut record = whole_record(MletStatus::Code(0));
        record.output = Output::Recorded(output);
        let told = serde_json::to_value(results.output_of(&record)).unwrap();
        let expected = json!({
            "stream": "streams/0012.stream", "stdout_at": 18, "stderr_at": 0,
            "stdout": 400, "stderr": 0, "stdout_written": 900, "stderr_written": 0,
            "truncated": true,
        });
        assert_eq!(told, if is_kept { expected } else { Value::Null });
        results.complete(&record, b"the line\n");
        assert_eq!((results.unwritten(), fs::read_dir(&path).unwrap().count()), (0, 0));
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn a_record_waits_for_what_the_recorder_still_reads_and_for_no_more_than_that() {
    let mut recorder = Recorder::default();
    for id in 1..=3 {
        recorder.begin(facts(id), (true, Output::Open), Claim::None);
        assert!(recorder.ended(ended(id, Outcome::MletEnded)).is_none());
    }
    let (ok, ran) = (MletStatus::Code(0), Duration::from_secs(1));
    assert!(recorder.mlet_ended(1, ok, ran).is_none(), "its output is open");
    assert_eq!((recorder.running_mlets(), recorder.open_outputs()), (2, 3));
    let output = RecordedOutput { errno: 5, ..RecordedOutput::default() };
    let record = recorder.output_closed(1, output).unwrap();
    assert!(record.output.is_lost());
    assert!(recorder.output_closed(1, output).is_none(), "it is over");
    assert!(recorder.lose_outputs().is_empty(), "the mlets of the others run");
    assert_eq!(recorder.mlet_ended(2, ok, ran).unwrap().output, Output::Lost);
    recorder.begin(facts(4), (true, Output::Uncounted), Claim::None);
    recorder.doubt_output(4);
    assert!(recorder.mlet_ended(4, ok, ran).is_none(), "its session is open");
    let doubtful = recorder.ended(ended(4, Outcome::MletEnded)).unwrap();
    assert!(doubtful.output.is_lost(), "its files may not be whole");
    let not_started = recorder.mlet_not_started(3, "why".into()).unwrap();
    assert_eq!((not_started.output, recorder.open_outputs()), (Output::Uncounted, 0));
}

#[test]
fn what_a_results_folder_does_not_take_is_counted() {
    let (path, mut results) = results_folder("full", Keep::All, Layout::Folders);
    let mut record = whole_record(MletStatus::Code(0));
    results.complete(&record, b"the line\n");
    assert_eq!(results.unwritten(), 1, "there is no folder of the session");
    record.output = Output::Lost;
    results.complete(&record, b"the line\n");
    let told = "lost output is told where it is lost";
    assert_eq!((results.unwritten(), results.output_of(&record)), (1, None), "{told}");
    fs::remove_dir_all(path).unwrap();
}

/// Also what a peer says is text of one line.
#[test]
fn a_line_of_a_session_that_never_began_holds_null_for_what_is_not_known() {
    let name = "a\n\u{1b}[31m".to_owned();
    let record = Recorder::default().ended(ended(1, Outcome::NoExperiment(Some(name)))).unwrap();
    let line = read(&Lines::of_run(LINES, None).of_session(&record, None, Ticks(0)));
    let nothing = json!({
        "tls": null, "programs": null, "start": null, "spawn": null, "run": null, "total": 20.0,
    });
    assert_eq!(line["ms"], nothing);
    assert_eq!(line["relay_us"], Value::Null);
    assert_eq!((&line["exit"], &line["signal"]), (&Value::Null, &Value::Null));
    for name in ["key", "root", "snikey"] {
        assert_eq!(line["ep"][name], Value::Null, "{name}");
    }
    assert_eq!(line["reason"], r#"no ExpExec has the snikey "a\n\u{1b}[31m""#);
}

#[test]
fn a_record_names_the_monitor_that_kept_start_from_being_answered() {
    let refused = |outcome| {
        let refused =
            GreetingError::Refused { what: GreetingRequest::Start, outcome, program: None };
        let end = ended(1, Outcome::Greeting(refused));
        SessionRecord::new(facts(1), Some(end), Mlet::None).crashed_monitor()
    };
    assert_eq!(refused(Answer::MonitorFailed { monitor_index: 3 }), Some(3));
    assert_eq!(refused(Answer::MonitorRejected { monitor_index: 3, monitor_errid: 0 }), None);
}
