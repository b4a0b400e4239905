//! From accept to the mlet: handshake, choice of the experiment, programs, START.

use std::sync::Arc;
use std::time::Duration;

use super::pair::{Chunks, Pair};
use crate::golden;
use crate::proto::greeting::{GreetingError, GreetingRequest};
use crate::proto::session_end::{End, Force, Outcome};
use crate::proto::tests::credentials::{
    HANDSHAKE_TIMEOUT, Login, OPEN, SETUP_TIMEOUT, Stage, TOO_LATE, TRUSTING, experiments,
    measured_once, plain_experiments, program,
};
use crate::proto::tests::{message, success};
use packetlab::key::Hex;
use packetlab::message::{MessageType, Outcome as Answer, Status};
use packetlab::program::Program;

const SECOND: Duration = Duration::from_secs(1);

fn pair_with_programs(programs: &[Program]) -> Pair {
    let experiments = experiments(Stage::WithDefault, programs, programs);
    Pair::with(experiments, Login::Operator, Some(TRUSTING))
}

fn assert_refused(pair: &mut Pair, error: &GreetingError) {
    match pair.finish() {
        Outcome::Greeting(found) => assert_eq!(found, error),
        outcome => panic!("{outcome:?}"),
    }
    assert!(pair.endpoint.close_notify && pair.endpoint.is_at_eof, "{}", pair.told());
    assert!(pair.mlet.is_none());
}

/// Items 72, 76.
#[test]
fn programs_are_submitted_in_order_and_then_start() {
    let programs = [program(3), program(1024 * 1024), program(700)];
    for count in 0..=programs.len() {
        for chunks in [Chunks::Whole, Chunks::UpTo(1000)] {
            let mut pair = pair_with_programs(&programs[..count]);
            pair.set_chunks(chunks);
            pair.run();
            let mut expected: Vec<_> = [12, 1_048_585, 709][..count]
                .iter()
                .map(|len| format!("endpoint: CDATA of {len} bytes"))
                .collect();
            expected.extend(
                ["permit wanted", "endpoint: START of 0 bytes", "mlet started"].map(String::from),
            );
            assert_eq!(pair.transcript, expected);
            let facts = pair.facts.as_ref().unwrap();
            assert_eq!(facts.snikey.as_str(), TRUSTING);
            assert_eq!(facts.endpoint_key, Some(golden::public_key("ep").key_id()));
            let account = pair.account();
            assert_eq!(account.snikey.as_ref(), Some(&facts.snikey));
            assert_eq!(account.endpoint_key, facts.endpoint_key);
            assert_eq!(account.operator_key, Some(golden::public_key("eop").key_id()));
            assert_eq!(account.shown_key, None, "it is proven");
            let reached = [account.tls_done, account.start_sent, account.start_answered];
            assert!(reached.iter().all(Option::is_some));
        }
    }
}

/// Who is measured once may come again as soon as a set-up has failed: its shard knows, and nobody is waited for.
#[test]
fn a_key_is_free_again_at_once_when_a_set_up_fails() {
    let programs = [program(3)];
    let experiments = measured_once(experiments(Stage::WithDefault, &programs, &programs));
    let mut pair = Pair::with(Arc::clone(&experiments), Login::Operator, Some(TRUSTING));
    pair.endpoint.is_silent = true;
    pair.run();
    let key = Some(golden::public_key("ep").key_id());
    assert!(experiments.choice.take(key).is_err(), "it is being measured");
    pair.endpoint.write(&message(MessageType::RESULT, &[0, 1]));
    assert!(matches!(pair.finish(), Outcome::Greeting(_)), "{}", pair.told());
    assert!(experiments.choice.take(key).is_ok());
}

/// Item 76.
#[test]
fn a_program_waits_for_the_answer_to_the_one_before() {
    let programs = [program(3), program(4), program(5)];
    let mut pair = pair_with_programs(&programs[..2]);
    pair.endpoint.is_silent = true;
    let mut expected = Vec::new();
    for step in ["endpoint: CDATA of 12 bytes", "endpoint: CDATA of 13 bytes"] {
        pair.run();
        expected.push(step);
        assert_eq!(pair.transcript, expected);
        pair.endpoint.write(&success());
    }
    pair.run();
    expected.extend(["permit wanted", "endpoint: START of 0 bytes"]);
    assert_eq!(pair.transcript, expected);
}

/// Item 76.
#[test]
fn a_demanded_program_that_is_not_supplied_is_skipped_and_a_repeated_one_sent_twice() {
    let (missing, twice) = (program(3), program(4));
    let demanded = [twice.clone(), missing, twice.clone()];
    let experiments = experiments(Stage::WithDefault, &demanded, &[twice]);
    let mut pair = Pair::with(experiments, Login::Operator, Some(TRUSTING));
    pair.run();
    assert_eq!(pair.transcript[..2], ["endpoint: CDATA of 13 bytes"; 2]);
    assert_eq!(pair.transcript[2], "permit wanted");
}

#[test]
fn the_set_up_works_byte_by_byte() {
    let mut pair = pair_with_programs(&[program(3)]);
    pair.set_chunks(Chunks::UpTo(1));
    pair.run();
    assert!(pair.mlet.is_some(), "{}", pair.told());
}

/// Items 78, 125.
#[test]
fn any_answer_but_success_ends_the_session() {
    let error = Status(0x21).0.to_be_bytes();
    let programs = [program(3), program(4)];
    let outcome = Answer::Status(Status(u16::from_be_bytes(error)));
    let refused = |what| {
        let program = match what {
            GreetingRequest::Program(index) => Some(*programs[index].digest()),
            GreetingRequest::Start => None,
        };
        GreetingError::Refused { what, outcome, program }
    };
    let unexpected = |what, message_type, payload_len| GreetingError::Unexpected {
        what,
        message_type,
        payload_len,
    };
    let huge = vec![MessageType::RESULT.0, 0xff, 0xff, 0xff];
    for (nth, what) in
        [GreetingRequest::Program(0), GreetingRequest::Program(1), GreetingRequest::Start]
            .into_iter()
            .enumerate()
    {
        for (answer, error) in [
            (message(MessageType::RESULT, &error), refused(what)),
            (message(MessageType::LINFO, b"hello"), unexpected(what, MessageType::LINFO, 5)),
            (message(MessageType::MDATA, &[]), unexpected(what, MessageType::MDATA, 0)),
            (message(MessageType::RESULT, &[0]), unexpected(what, MessageType::RESULT, 1)),
            (message(MessageType::RESULT, &[0; 7]), unexpected(what, MessageType::RESULT, 7)),
            (huge.clone(), unexpected(what, MessageType::RESULT, 0xff_ffff)),
        ] {
            let mut pair = pair_with_programs(&programs);
            pair.endpoint.answers = std::iter::repeat_n(success(), nth).chain([answer]).collect();
            assert_refused(&mut pair, &error);
        }
    }
}

/// Endpoints make both monitors of a program that is demanded twice when it comes first (spec/monitors.md 2).
#[test]
fn a_monitor_because_of_which_start_is_refused_is_named_by_its_program() {
    let (once, twice) = (program(3), program(4));
    let programs = [twice.clone(), once.clone(), twice.clone()];
    for (index, blamed) in [(0, Some(&twice)), (1, Some(&twice)), (2, Some(&once)), (3, None)] {
        let outcome = Answer::MonitorFailed { monitor_index: index };
        let answer = message(MessageType::RESULT, &[0, 0x13, 0, index as u8]);
        let mut pair = pair_with_programs(&programs);
        pair.endpoint.answers = std::iter::repeat_n(success(), 3).chain([answer]).collect();
        let program = blamed.map(|program| *program.digest());
        let what = GreetingRequest::Start;
        let error = GreetingError::Refused { what, outcome, program };
        assert_refused(&mut pair, &error);
        let digest = program.map(|digest| format!(", digest {}", Hex(&digest[..8])));
        let expected = format!(
            "the endpoint refused START: ECTLMONUKN (19): a monitor crashed or is unusable (monitor {index}){}",
            digest.unwrap_or_default()
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_result_of_success_may_say_so_in_two_bytes() {
    let mut pair = Pair::new();
    pair.endpoint.answers = [message(MessageType::RESULT, &[0, 0])].into();
    pair.run();
    assert!(pair.mlet.is_some(), "{}", pair.told());
}

/// Item 78.
#[test]
fn an_endpoint_that_speaks_unasked_is_dropped() {
    for answers in [vec![[success(), success()].concat()], vec![]] {
        let mut pair = pair_with_programs(&[program(3)]);
        pair.has_permits = false;
        pair.endpoint.answers = answers.into();
        pair.run();
        if pair.over.is_none() {
            assert_eq!(pair.told(), "endpoint: CDATA of 12 bytes\npermit wanted");
            pair.endpoint.write(&message(MessageType::LINFO, &[]));
        }
        assert_refused(&mut pair, &GreetingError::Unasked);
        let told = pair.told();
        let says = |word| told.lines().any(|line| line == word);
        assert_eq!(says("permit wanted"), says("permit freed"), "{told}");
        if says("permit wanted") {
            // One that was on its way meanwhile is for nobody.
            pair.grant_permit();
            pair.run();
            assert_eq!(pair.told(), told);
        }
    }
}

#[test]
fn an_answer_ahead_of_its_question_is_never_taken_for_one() {
    let mut pair = pair_with_programs(&[program(3)]);
    // Both answers at once: the permit must not be spent on the second.
    pair.endpoint.answers = [[success(), success()].concat()].into();
    assert_refused(&mut pair, &GreetingError::Unasked);
    assert!(!pair.told().contains("permit"), "{}", pair.told());
}

#[test]
fn what_follows_the_answer_to_start_in_the_same_record_reaches_the_mlet() {
    let first = message(MessageType::MDATA, b"early");
    let mut pair = Pair::new();
    pair.endpoint.answers = [[success(), first.clone()].concat()].into();
    pair.run();
    assert_eq!(pair.mlet().received, first);
}

#[test]
fn a_permit_may_come_late_and_start_has_its_whole_time_from_then_on() {
    let mut pair = Pair::new();
    pair.has_permits = false;
    pair.run();
    pair.endpoint.set_dam(Some(0));
    pair.pass(2 * SETUP_TIMEOUT - SECOND);
    assert_eq!(pair.told(), "permit wanted");
    pair.grant_permit();
    pair.run();
    assert_eq!(pair.told(), "permit wanted\nendpoint: START of 0 bytes");
    pair.pass(SETUP_TIMEOUT - SECOND);
    assert!(pair.over.is_none() && pair.mlet.is_none(), "{}", pair.told());
    pair.endpoint.set_dam(None);
    pair.run();
    assert!(pair.mlet.is_some(), "{}", pair.told());
    assert_eq!(pair.session().deadline(), None, "a session may idle as long as it likes");

    // Its time begins when it is asked for.
    let mut pair = Pair::new();
    pair.has_permits = false;
    let hello = std::mem::take(&mut pair.endpoint.sent);
    pair.pass(SECOND);
    pair.endpoint.sent = hello;
    assert!(matches!(pair.finish(), Outcome::NoPermit));
    assert_eq!(pair.elapsed(), SECOND + 2 * SETUP_TIMEOUT);
    assert_eq!(pair.told().lines().nth(1), Some("permit freed"), "{}", pair.told());
}

#[test]
fn a_mlet_waits_for_descriptors_as_long_as_its_endpoint_does() {
    let first = message(MessageType::MDATA, b"early");
    let mut pair = Pair::new();
    pair.set_lacks_descriptors(true);
    pair.run();
    pair.endpoint.write(&first);
    // Longer than any limit allows a session to wait; it looks for descriptors each millisecond.
    pair.pass(2 * SETUP_TIMEOUT + SECOND);
    assert_eq!(pair.told(), "permit wanted\nendpoint: START of 0 bytes");
    pair.set_lacks_descriptors(false);
    pair.pass(SECOND);
    assert_eq!(pair.mlet().received, first);
}

/// Its permit is given back, and a mlet would be one beyond `-n`.
#[test]
fn a_session_that_ends_while_descriptors_for_its_mlet_are_awaited_starts_none() {
    let mut pair = Pair::new();
    pair.set_lacks_descriptors(true);
    pair.run();
    pair.end_run();
    assert!(pair.step(), "it is over, and what is under way is cancelled");
    pair.set_lacks_descriptors(false);
    assert!(matches!(pair.finish(), Outcome::Forced(Force::Stop)));
    let told = ["permit wanted", "endpoint: START of 0 bytes", "permit freed"];
    assert_eq!(pair.transcript[..3], told);
    assert_eq!(pair.told().lines().last(), Some("over: the run was ended by force"));
    assert!(pair.mlet.is_none());
}

/// Also where rustls has none for it.
#[test]
fn whatever_comes_instead_of_a_client_hello_is_answered_with_a_fatal_alert() {
    let part_of_hello = [&[22, 3, 1, 0, 8, 1, 0, 0, 40][..], &[3; 4]].concat();
    let data = [23, 3, 3, 0, 2, 7, 7];
    for input in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 5000],
        &data,
        // An alert of the endpoint's own.
        &[21, 3, 1, 0, 2, 2, 40],
        // Data between the parts of a message.
        &[&part_of_hello[..], &data].concat(),
        // Records without a byte.
        &[22, 3, 1, 0, 0].repeat(40),
        // Other handshake messages.
        &[22, 3, 1, 0, 4, 20, 0, 0, 0],
        &[20, 3, 1, 0, 1, 1].repeat(3),
    ] {
        let mut pair = Pair::raw();
        pair.endpoint.write_raw(input);
        assert!(matches!(pair.finish(), Outcome::Tls(_)), "{input:?}: {}", pair.told());
        let [21, 3, _, 0, 2, 2, alert] = pair.endpoint.raw[..] else {
            panic!("{input:?} is answered with {:?}", pair.endpoint.raw);
        };
        assert_ne!(alert, 0, "close_notify");
    }
}

/// Item 73.
#[test]
fn an_endpoint_that_is_not_of_a_trusted_operator_gets_an_alert() {
    for (login, alert) in [
        (Login::Stranger, "CertificateUnknown"),
        (Login::WrongKind, "CertificateUnknown"),
        (Login::Anonymous, "CertificateRequired"),
    ] {
        let mut pair = Pair::with(plain_experiments(), login, Some(TRUSTING));
        assert!(matches!(pair.finish(), Outcome::Tls(_)), "{}", pair.told());
        let shown = (login != Login::Anonymous).then(|| golden::public_key("ep").key_id());
        let account = pair.account();
        assert_eq!((account.endpoint_key, account.shown_key.as_deref()), (None, shown.as_ref()));
        let seen = ["endpoint's input ended", &format!("endpoint: alert {alert}"), "endpoint: EOF"];
        assert_eq!(pair.transcript[..3], seen);
    }
}

/// Item 74.
#[test]
fn an_anonymous_endpoint_may_join_an_experiment_without_trusted_operators() {
    let mut pair = Pair::with(plain_experiments(), Login::Anonymous, Some(OPEN));
    pair.run();
    let facts = pair.facts.as_ref().unwrap();
    assert_eq!((facts.snikey.as_str(), facts.endpoint_key), (OPEN, None));
    let account = pair.account();
    assert_eq!((account.endpoint_key, account.operator_key), (None, None));
}

/// Item 74.
#[test]
fn whoever_presents_a_chain_must_present_a_good_one() {
    let mut pair = Pair::with(plain_experiments(), Login::WrongKind, Some(OPEN));
    assert!(matches!(pair.finish(), Outcome::Tls(_)), "{}", pair.told());
    // Any operator is good enough here.
    let mut pair = Pair::with(plain_experiments(), Login::Stranger, Some(OPEN));
    pair.run();
    assert!(pair.mlet.is_some(), "{}", pair.told());
    let account = pair.account();
    assert_eq!(account.endpoint_key, Some(golden::public_key("ep").key_id()));
    assert_eq!(account.operator_key, None, "nobody has checked who signed its chain");
}

/// Item 72.
#[test]
fn without_a_server_name_the_default_experiment_is_served_if_there_is_one() {
    let mut pair = Pair::with(plain_experiments(), Login::Operator, None);
    pair.run();
    assert_eq!(pair.facts.as_ref().unwrap().snikey.as_str(), OPEN);

    let experiments = experiments(Stage::WithoutDefault, &[], &[]);
    let mut pair = Pair::with(experiments, Login::Operator, None);
    assert!(matches!(pair.finish(), Outcome::NoExperiment(None)));
    assert_eq!(pair.told(), "over: the endpoint sent no server name and no ExpExec is the default");
}

/// Item 72.
#[test]
fn an_unknown_server_name_ends_the_session_without_a_byte() {
    let mut pair = Pair::with(plain_experiments(), Login::Operator, Some("nobody"));
    assert!(matches!(pair.finish(), Outcome::NoExperiment(Some(name)) if name == "nobody"));
    assert_eq!(pair.told(), "over: no ExpExec has the snikey \"nobody\"");
}

#[test]
fn an_endpoints_chain_is_judged_at_the_time_that_is_given() {
    let mut pair = Pair::new();
    pair.set_wall_clock(TOO_LATE);
    assert!(matches!(pair.finish(), Outcome::Tls(_)), "{}", pair.told());
    assert!(pair.told().contains("certificate 0 has expired"), "{}", pair.told());
}

#[test]
fn a_chain_of_ours_that_expired_meanwhile_ends_sessions_after_the_handshake() {
    let mut pair = Pair::with(plain_experiments(), Login::Lasting, Some(TRUSTING));
    pair.set_wall_clock(TOO_LATE);
    match pair.finish() {
        Outcome::OwnChain(snikey, _) => assert_eq!(snikey.as_str(), TRUSTING),
        outcome => panic!("{outcome:?}"),
    }
    assert!(pair.endpoint.close_notify, "{}", pair.told());
    assert!(!pair.told().contains("endpoint: START"), "no message is sent");
}

/// Item 75.
#[test]
fn a_client_without_tls_1_3_gets_the_alert_for_its_version() {
    let mut pair = Pair::raw();
    pair.endpoint.write_raw(&client_hello_of_tls_1_2());
    assert!(matches!(pair.finish(), Outcome::Tls(_)), "{}", pair.told());
    // Fatal, protocol_version.
    assert_eq!(pair.endpoint.raw, [21, 3, 3, 0, 2, 2, 70]);
    assert!(pair.endpoint.is_at_eof);
}

fn client_hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session id, one cipher suite (ECDHE-ECDSA-AES128-GCM), no compression.
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    // Extensions: signature_algorithms (Ed25519), supported_groups (x25519), point formats.
    body.extend([0, 22]);
    body.extend([0, 13, 0, 4, 0, 2, 8, 7]);
    body.extend([0, 10, 0, 4, 0, 2, 0, 29]);
    body.extend([0, 11, 0, 2, 1, 0]);
    let mut hello = vec![1, 0, 0, body.len() as u8];
    hello.extend(body);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[test]
fn bytes_that_are_no_tls_end_the_session_with_an_alert() {
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 3000], &[0; 64]] {
        for chunks in [Chunks::Whole, Chunks::UpTo(1)] {
            let mut pair = Pair::raw();
            pair.set_chunks(chunks);
            pair.endpoint.write_raw(garbage);
            assert!(matches!(pair.finish(), Outcome::Tls(_)), "{}", pair.told());
            assert_eq!(pair.endpoint.raw[..6], [21, 3, 3, 0, 2, 2], "a fatal alert");
        }
    }
}

/// Item 93.
#[test]
fn a_trickle_does_not_extend_the_handshake() {
    let mut pair = Pair::new();
    pair.endpoint.set_dam(Some(0));
    // Before the dam stood the ClientHello had passed.
    let hello: Vec<u8> = pair.endpoint.sent.drain(..).collect();
    for byte in hello {
        pair.endpoint.sent.push_back(byte);
        pair.run();
        pair.pass(SECOND);
        if pair.over.is_some() {
            break;
        }
    }
    assert!(matches!(pair.finish(), Outcome::HandshakeTimeout));
    assert_eq!(pair.elapsed(), HANDSHAKE_TIMEOUT);
}

/// Item 93.
#[test]
fn a_trickle_does_not_extend_the_set_up() {
    let mut pair = pair_with_programs(&[program(3)]);
    pair.endpoint.is_silent = true;
    pair.run();
    pair.endpoint.set_dam(Some(0));
    pair.endpoint.write(&success());
    while pair.over.is_none() {
        pair.endpoint.set_dam(Some(1));
        pair.run();
        pair.pass(2 * SECOND);
    }
    assert!(matches!(pair.finish(), Outcome::SetUpTimeout));
    assert_eq!(pair.elapsed(), SETUP_TIMEOUT);
    assert!(!pair.endpoint.held.is_empty(), "its answer was still under way");
}

#[test]
fn an_endpoint_that_closes_tls_in_set_up_has_left_at_once() {
    for has_programs in [false, true] {
        let programs = [program(3)];
        let mut pair = pair_with_programs(if has_programs { &programs } else { &[] });
        (pair.has_permits, pair.endpoint.is_silent) = (false, true);
        pair.run();
        // It closes TLS alone, and waits for our end.
        pair.endpoint.close_notify();
        assert!(matches!(pair.finish(), Outcome::LeftInSetUp(End::Closed)), "{}", pair.told());
        assert_eq!(pair.elapsed(), Duration::ZERO);
        assert!(pair.endpoint.close_notify, "{}", pair.told());
    }
}

#[test]
fn a_stop_ends_a_session_in_set_up_and_only_once() {
    let mut pair = Pair::new();
    pair.has_permits = false;
    pair.run();
    pair.drain();
    assert!(matches!(pair.finish(), Outcome::PermitsUsedUp));
    pair.drain();
    pair.run();
    assert_eq!(
        pair.told(),
        "permit wanted\npermit freed\nover: the run ended before there was a permit for START (-n, --campaign)"
    );

    let mut pair = Pair::with(plain_experiments(), Login::Operator, Some("nobody"));
    pair.finish();
    pair.drain();
    pair.run();
    assert_eq!(pair.told(), "over: no ExpExec has the snikey \"nobody\"");
}

#[test]
fn a_stop_leaves_a_served_session_alone() {
    let mut pair = Pair::served();
    pair.drain();
    pair.mlet().write(&success());
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert_eq!(pair.endpoint.received, success());
}

#[test]
fn half_of_a_large_program_can_be_sent_when_the_endpoint_breaks_off() {
    let mut pair = pair_with_programs(&[program(1024 * 1024)]);
    pair.run_until(|pair| pair.endpoint.received.len() > 500_000);
    pair.endpoint.end(End::Broken(std::io::ErrorKind::ConnectionReset));
    assert!(matches!(pair.finish(), Outcome::LeftInSetUp(End::Broken(_))), "{}", pair.told());
}

#[test]
fn where_nothing_is_counted_the_supervisor_is_asked_for_the_mlet() {
    let mut pair = Pair::uncounted();
    pair.run();
    assert_eq!(pair.told(), "endpoint: START of 0 bytes\nmlet asked for at the supervisor");
    pair.mlet().write(&success());
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert_eq!(pair.endpoint.received, success());
}

/// What the supervisor answers would be about a session of which the control thread has not heard.
#[test]
fn the_supervisor_is_not_asked_while_the_control_thread_cannot_be_told() {
    let mut pair = Pair::uncounted();
    pair.fill_mail();
    pair.run();
    pair.is_deaf = false;
    pair.run();
    assert!(pair.transcript.iter().any(|line| line == "mlet started"), "{}", pair.told());
    assert!(pair.mlet.is_some(), "{}", pair.told());
}
