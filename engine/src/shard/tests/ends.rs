//! How sessions end: what was written before is delivered, each side is told once, and nothing waits
//! for ever.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::pair::{Chunks, Pair};
use super::peers::SOCKET_LEN;
use crate::golden;
use crate::proto::session_end::{End, Force, Outcome};
use crate::proto::tests::credentials::{
    DRAIN_TIMEOUT, LINGER_TIMEOUT, Stage, experiments, measured_once,
};
use crate::proto::tests::{assert_records_hold_one_message_each, filled, message, success};
use crate::random::Random;
use packetlab::message::MessageType;

const MIB: usize = 1024 * 1024;
const SECOND: Duration = Duration::from_secs(1);
const RESET: End = End::Broken(ErrorKind::ConnectionReset);

/// Item 87.
#[test]
fn what_the_mlet_wrote_before_it_exited_is_delivered_and_then_close_notify() {
    let last = filled(MessageType::MDATA, MIB);
    for chunks in [Chunks::Whole, Chunks::UpTo(1000)] {
        let mut pair = Pair::served();
        pair.set_chunks(chunks);
        pair.mlet().write(&last);
        pair.mlet().exit();
        assert!(matches!(pair.finish(), Outcome::MletEnded));
        assert!(pair.endpoint.received == last);
        assert_records_hold_one_message_each(&pair.endpoint.record_lens, &last);
        let mut told = pair.transcript.clone();
        told.sort_unstable_by_key(|line| line.starts_with("endpoint: "));
        assert_eq!(
            told,
            [
                "mlet's input ended",
                "endpoint's input ended",
                "over: the mlet ended",
                "endpoint: close_notify",
                "endpoint: EOF",
            ]
        );
    }
}

/// Where each is measured once. Whether a session is `ok` that its mlet ended, only the control thread knows.
#[test]
fn a_key_is_free_again_when_its_endpoint_leaves_though_its_mlet_still_runs() {
    let key = Some(golden::public_key("ep").key_id());
    let served = || {
        let experiments = measured_once(experiments(Stage::WithDefault, &[], &[]));
        let pair = Pair::served_within(Arc::clone(&experiments));
        assert!(experiments.choice.take(key).is_err(), "it is being measured");
        (pair, experiments)
    };
    let leaves: [fn(&mut Pair); 2] =
        [|pair| pair.endpoint.close_notify(), |pair| pair.endpoint.end(RESET)];
    for leave in leaves {
        let (mut pair, experiments) = served();
        pair.mlet().exits_at_eof = false;
        leave(&mut pair);
        pair.run_until(|pair| !pair.gone.is_empty());
        assert!(pair.over.is_none(), "{}", pair.told());
        assert!(experiments.choice.take(key).is_ok(), "{}", pair.told());
    }
    let (mut pair, experiments) = served();
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert!(experiments.choice.take(key).is_err());
}

/// The mlet's socket is shut down both ways, so that the mlet reads the end, and what it wrote is read to its end.
#[test]
fn a_session_that_is_ended_by_force_says_so_and_delivers_what_its_mlet_wrote_before() {
    let last = filled(MessageType::MDATA, MIB);
    let mut pair = Pair::served();
    pair.mlet().exits_at_eof = false;
    pair.mlet().write(&last);
    pair.end_sessions();
    assert!(matches!(pair.finish(), Outcome::Forced(Force::Stop)));
    assert!(pair.endpoint.received == last);
    assert!(pair.mlet().is_at_eof && !pair.mlet().has_ended);
    assert!(pair.told().contains("endpoint: close_notify"), "{}", pair.told());
}

#[test]
fn a_session_in_set_up_that_is_ended_by_force_ends_at_once() {
    let mut pair = Pair::new();
    pair.end_sessions();
    assert!(matches!(pair.finish(), Outcome::Cancelled));
    assert_eq!(pair.elapsed(), Duration::ZERO);
}

#[test]
fn a_session_whose_mlet_was_not_started_in_time_delivers_nothing_more_and_ends() {
    let mut pair = Pair::served();
    pair.give_up_mlet();
    pair.run();
    assert!(pair.mlet().is_at_eof, "{}", pair.told());
    assert!(matches!(pair.finish(), Outcome::MletLate));
    assert!(pair.endpoint.close_notify && pair.elapsed() == Duration::ZERO, "{}", pair.told());
}

/// Nobody was started with the mlet's end of the socket pair, which the control thread has closed.
#[test]
fn a_session_whose_mlet_could_not_be_started_ends_as_if_it_had_exited() {
    let mut pair = Pair::new();
    pair.run_until(|pair| pair.mlet.is_some());
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert!(pair.endpoint.close_notify && pair.elapsed() == Duration::ZERO, "{}", pair.told());
}

#[test]
fn input_after_the_mlets_end_is_discarded_until_the_endpoint_closes() {
    let mut pair = Pair::served();
    pair.endpoint.closes_back = false;
    pair.mlet().exit();
    pair.run();
    assert!(pair.endpoint.is_at_eof, "{}", pair.told());
    pair.pass(SECOND);
    pair.endpoint.write(&filled(MessageType::MDATA, MIB));
    pair.run();
    assert!(pair.endpoint.sent.is_empty() && pair.over.is_none(), "{}", pair.told());
    pair.endpoint.end(End::Closed);
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert_eq!(pair.elapsed(), SECOND);
}

#[test]
fn an_endpoint_that_never_closes_is_left_after_the_linger_limit() {
    let mut pair = Pair::served();
    pair.endpoint.closes_back = false;
    pair.mlet().exit();
    pair.run();
    while pair.over.is_none() && pair.elapsed() < 2 * LINGER_TIMEOUT {
        // Whatever it sends, the limit stays.
        pair.endpoint.write(&success());
        pair.pass(SECOND / 10);
    }
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert_eq!(pair.elapsed(), LINGER_TIMEOUT);
}

#[test]
fn a_slow_endpoint_gets_everything_as_long_as_it_takes_some_in_time() {
    let last = filled(MessageType::MDATA, 300_000);
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    pair.mlet().write(&last);
    pair.mlet().exit();
    pair.run();
    let mut waits = 0;
    while pair.endpoint.received.len() < last.len() - 60_000 {
        pair.pass(DRAIN_TIMEOUT - SECOND);
        assert!(pair.over.is_none(), "{}", pair.told());
        // A block and a little more, for a send is seen only when all of it has left.
        for _ in 0..3 {
            pair.endpoint.reads = true;
            pair.endpoint.take();
            pair.endpoint.reads = false;
            pair.run();
        }
        waits += 1;
    }
    assert!(waits > 2, "it took longer than the limit for one wait");
    pair.endpoint.reads = true;
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert!(pair.endpoint.received == last);
}

#[test]
fn an_endpoint_that_takes_nothing_more_from_a_mlet_that_is_gone_is_given_up() {
    for mut pair in [Pair::served(), Pair::over_pipes()] {
        pair.endpoint.reads = false;
        pair.mlet().write(&filled(MessageType::MDATA, MIB));
        pair.run();
        // As long as the mlet is there, nobody knows better than it how long to wait.
        pair.pass(10 * DRAIN_TIMEOUT);
        assert!(pair.over.is_none(), "{}", pair.told());
        pair.mlet().exit();
        let before = pair.elapsed();
        assert!(matches!(pair.finish(), Outcome::UndeliveredToEndpoint));
        assert!(pair.elapsed() - before <= DRAIN_TIMEOUT);
    }
}

#[test]
fn a_mlet_that_takes_nothing_more_from_an_endpoint_that_is_gone_is_given_up() {
    for mut pair in [Pair::served(), Pair::over_pipes()] {
        pair.mlet().reads = false;
        pair.endpoint.write(&filled(MessageType::MDATA, MIB));
        pair.run();
        pair.pass(10 * DRAIN_TIMEOUT);
        assert!(pair.over.is_none(), "{}", pair.told());
        pair.endpoint.end(End::Closed);
        let before = pair.elapsed();
        assert!(matches!(pair.finish(), Outcome::UndeliveredToMlet));
        assert!(pair.elapsed() - before <= DRAIN_TIMEOUT);
    }
}

/// Item 88.
#[test]
fn what_the_endpoint_sent_before_it_closed_is_delivered_and_then_the_end() {
    let last = filled(MessageType::MDATA, MIB);
    type Close = fn(&mut Pair);
    let closes: [(Close, End); 4] = [
        (|pair| pair.endpoint.close_notify(), End::Closed),
        (|pair| pair.endpoint.end(End::Closed), End::Closed),
        (
            |pair| {
                pair.endpoint.close_notify();
                pair.endpoint.end(End::Closed);
            },
            End::Closed,
        ),
        (|pair| pair.endpoint.end(RESET), RESET),
    ];
    for (close, end) in closes {
        for chunks in [Chunks::Whole, Chunks::UpTo(1000)] {
            let mut pair = Pair::served();
            pair.set_chunks(chunks);
            pair.endpoint.write(&last);
            close(&mut pair);
            assert!(matches!(pair.finish(), Outcome::EndpointEnded(found) if *found == end));
            assert!(pair.mlet().received == last && pair.mlet().is_at_eof);
            let told = format!("mlet's input ended\nover: the endpoint {end}");
            let session_told: Vec<_> = pair
                .transcript
                .iter()
                .filter(|line| !line.starts_with("endpoint: "))
                .cloned()
                .collect();
            assert_eq!(session_told.join("\n"), told);
        }
    }
}

/// The endpoint sends its last messages and closes, while the mlet is slow and still writes: the first
/// bytes that the closed connection answers with a reset must not cost the mlet what waits for it.
#[test]
fn a_send_that_fails_loses_nothing_that_the_endpoint_had_sent() {
    let last = filled(MessageType::MDATA, MIB);
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.write(&last);
    pair.endpoint.end(RESET);
    pair.run();
    pair.mlet().write(&filled(MessageType::MDATA, 100));
    pair.run();
    assert!(pair.over.is_none(), "{}", pair.told());
    pair.pass(DRAIN_TIMEOUT - SECOND);
    pair.mlet().reads = true;
    let outcome = pair.finish();
    assert!(
        matches!(outcome, Outcome::EndpointEnded(End::Broken(ErrorKind::BrokenPipe))),
        "{outcome:?}"
    );
    assert!(pair.mlet().received == last && pair.mlet().is_at_eof);
}

#[test]
fn a_broken_connection_and_a_mlet_that_does_not_read_end_after_the_drain_limit() {
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.write(&filled(MessageType::MDATA, MIB));
    pair.endpoint.end(RESET);
    pair.run();
    pair.mlet().write(&success());
    assert!(matches!(pair.finish(), Outcome::UndeliveredToMlet));
    assert_eq!(pair.elapsed(), DRAIN_TIMEOUT);
}

#[test]
fn a_mlet_that_writes_but_does_not_read_gains_no_time_for_what_its_endpoint_sent() {
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.write(&filled(MessageType::MDATA, MIB));
    pair.endpoint.end(RESET);
    pair.run();
    let before = pair.elapsed();
    while pair.over.is_none() && pair.elapsed() - before < 2 * DRAIN_TIMEOUT {
        pair.mlet().write(&success());
        pair.pass(SECOND);
    }
    assert!(matches!(pair.over, Some(Outcome::UndeliveredToMlet)), "{}", pair.told());
}

#[test]
fn after_the_endpoints_end_the_mlet_may_write_as_long_as_it_does_not_fall_silent() {
    let mut pair = Pair::served();
    pair.mlet().exits_at_eof = false;
    pair.endpoint.end(End::Closed);
    pair.run();
    assert!(pair.mlet().is_at_eof);
    for _ in 0..5 {
        pair.pass(LINGER_TIMEOUT - SECOND);
        pair.mlet().write(&filled(MessageType::MDATA, 100_000));
        pair.run();
        assert!(pair.mlet().sent.is_empty() && pair.over.is_none(), "{}", pair.told());
    }
    let before = pair.elapsed();
    assert!(matches!(pair.finish(), Outcome::EndpointEnded(End::Closed)));
    assert_eq!(pair.elapsed() - before, LINGER_TIMEOUT);
}

#[test]
fn a_mlet_that_writes_without_end_is_left_after_the_drain_limit() {
    let mut pair = Pair::served();
    pair.mlet().exits_at_eof = false;
    pair.endpoint.end(End::Closed);
    pair.run();
    let before = pair.elapsed();
    while pair.over.is_none() && pair.elapsed() - before < 2 * DRAIN_TIMEOUT {
        pair.mlet().write(&success());
        pair.pass(SECOND);
    }
    assert!(matches!(pair.over, Some(Outcome::EndpointEnded(End::Closed))), "{}", pair.told());
    assert!(pair.elapsed() - before <= DRAIN_TIMEOUT + SECOND);
}

/// Its receive is linked to a send that will never end.
#[test]
fn what_a_mlet_writes_is_read_though_its_endpoint_has_closed_tls_and_takes_nothing_more() {
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, 300_000));
    pair.run();
    assert!(pair.mlet().sent.len() > 200_000, "the endpoint takes nothing");
    pair.endpoint.close_notify();
    pair.run();
    assert!(pair.mlet().sent.is_empty() && pair.mlet().has_ended, "{}", pair.told());
    assert!(matches!(pair.finish(), Outcome::EndpointEnded(End::Closed)));
    assert_eq!(pair.elapsed(), LINGER_TIMEOUT);
}

/// The same the other way, where the end of the mlet's input ends the send to it.
#[test]
fn what_an_endpoint_sends_is_read_though_its_mlet_has_ended_its_output_and_takes_nothing_more() {
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.write(&filled(MessageType::MDATA, MIB));
    pair.run();
    assert!(!pair.endpoint.sent.is_empty(), "the mlet takes nothing");
    pair.mlet().has_ended = true;
    pair.run();
    assert!(pair.endpoint.sent.is_empty(), "{}", pair.told());
    assert!(matches!(pair.finish(), Outcome::MletEnded), "{}", pair.told());
    assert_eq!(pair.elapsed(), Duration::ZERO, "the endpoint has closed");
}

/// All is in the kernel, which is not where the endpoint has it.
#[test]
fn a_mlets_last_bytes_that_stay_in_the_kernel_are_not_told_as_delivered() {
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, 1_000));
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::UndeliveredToEndpoint), "{}", pair.told());
}

#[test]
fn what_a_forced_end_of_the_run_leaves_undelivered_is_told_as_that() {
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    // All of it comes at once, with the end, and is more than the mlet's socket holds.
    pair.endpoint.write(&filled(MessageType::MDATA, SOCKET_LEN + 5_000));
    pair.endpoint.close_notify();
    pair.run();
    pair.end_run();
    assert!(matches!(pair.finish(), Outcome::UndeliveredToMlet), "{}", pair.told());
}

#[test]
fn what_a_forced_end_of_the_run_keeps_from_an_endpoint_is_told_as_that() {
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, 1_000));
    pair.mlet().exit();
    pair.run();
    pair.end_run();
    assert!(matches!(pair.finish(), Outcome::UndeliveredToEndpoint), "{}", pair.told());
}

#[test]
fn what_an_endpoint_has_taken_stays_delivered_at_a_forced_end() {
    let mut pair = Pair::served();
    pair.mlet().write(&filled(MessageType::MDATA, 1_000));
    pair.mlet().exit();
    pair.run();
    pair.end_run();
    assert!(matches!(pair.finish(), Outcome::MletEnded), "{}", pair.told());
}

/// Each LINFO that begins has a deadline of its own, before that of a session that stands still.
#[test]
fn timers_of_a_session_whose_deadline_moves_back_and_forth_do_not_add_up() {
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    pair.mlet().write(&filled(MessageType::MDATA, MIB));
    let linfo = message(MessageType::LINFO, b"half of one");
    for _ in 0..100 {
        pair.endpoint.write(&linfo[..linfo.len() / 2]);
        pair.pass(7 * SECOND);
        pair.endpoint.write(&linfo[linfo.len() / 2..]);
        pair.run();
    }
    assert!(pair.over.is_none() && pair.timers() < 10, "{}", pair.timers());
}

#[test]
fn a_slow_mlet_gets_everything_as_long_as_it_takes_some_in_time() {
    let last = filled(MessageType::MDATA, 300_000);
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.write(&last);
    pair.endpoint.close_notify();
    pair.endpoint.end(End::Closed);
    pair.run();
    let mut waits = 0;
    while !pair.mlet().is_at_eof {
        pair.pass(DRAIN_TIMEOUT - SECOND);
        assert!(pair.over.is_none(), "{}", pair.told());
        for _ in 0..3 {
            pair.mlet().reads = true;
            pair.mlet().take();
            pair.mlet().reads = false;
            pair.run();
        }
        pair.mlet().reads = pair.told().contains("mlet's input ended");
        pair.run();
        waits += 1;
    }
    assert!(waits > 3, "it took longer than the limit for one wait");
    assert!(matches!(pair.finish(), Outcome::EndpointEnded(End::Closed)), "{}", pair.told());
    assert!(pair.mlet().received == last);
}

/// Sends complete only when a socket has much room again, so they tell little about a slow peer.
#[test]
fn what_a_slow_mlet_takes_counts_though_no_send_moves() {
    let last = filled(MessageType::MDATA, 60_000);
    for mut pair in [Pair::served(), Pair::over_pipes()] {
        pair.mlet().reads = false;
        pair.endpoint.write(&last);
        pair.endpoint.close_notify();
        pair.endpoint.end(End::Closed);
        pair.run();
        let mut waits = 0;
        while !pair.mlet().is_to_read_the_end() {
            pair.pass(DRAIN_TIMEOUT / 3);
            pair.mlet().taste(700);
            pair.run();
            assert!(pair.over.is_none(), "{}", pair.told());
            waits += 1;
        }
        assert!(waits > 50, "{waits}");
        pair.mlet().reads = true;
        assert!(matches!(pair.finish(), Outcome::EndpointEnded(End::Closed)), "{}", pair.told());
        assert!(pair.mlet().received == last);
    }
}

#[test]
fn an_end_inside_a_message_delivers_the_piece_that_came() {
    let whole = filled(MessageType::MDATA, 1000);
    for len in [1, 3, 4, 5, 600] {
        let mut pair = Pair::served();
        pair.endpoint.write(&whole[..len]);
        pair.endpoint.end(End::Closed);
        assert!(matches!(pair.finish(), Outcome::EndpointEnded(End::Closed)));
        assert_eq!(pair.mlet().received, whole[..len]);

        let mut pair = Pair::served();
        pair.set_chunks(Chunks::UpTo(100));
        pair.mlet().write(&[&*whole, &whole[..len]].concat());
        pair.mlet().exit();
        assert!(matches!(pair.finish(), Outcome::MletEnded));
        assert_eq!(pair.endpoint.received[whole.len()..], whole[..len]);
        assert!(pair.endpoint.close_notify);
    }
}

/// Item 120.
#[test]
fn a_mlet_that_exits_with_unread_input_still_has_its_output_delivered() {
    let last = filled(MessageType::MDATA, MIB);
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.write(&last);
    pair.run();
    assert!(!pair.session().wants_endpoint_input());
    pair.mlet().write(&last);
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert!(pair.endpoint.received == last && pair.endpoint.close_notify);
}

/// TLS answers damage with an alert, which must not follow our close_notify.
#[test]
fn bytes_that_are_no_tls_change_nothing_behind_our_close_notify() {
    let mut pair = Pair::served();
    pair.endpoint.reads = false;
    // Two records of a message fill the socket to the last byte: close_notify waits.
    let answer = filled(MessageType::MDATA, SOCKET_LEN - 2 * 22 - 4);
    pair.mlet().write(&answer);
    pair.mlet().has_ended = true;
    pair.run();
    assert_eq!(pair.endpoint.room(), 0);
    assert!(pair.mlet().sent.is_empty() && pair.over.is_none(), "{}", pair.told());
    pair.endpoint.write_raw(&[0xff; 3000]);
    pair.run();
    pair.endpoint.reads = true;
    assert!(matches!(pair.finish(), Outcome::MletEnded), "{}", pair.told());
    assert!(pair.endpoint.received == answer && pair.endpoint.close_notify);
}

#[test]
fn a_mlet_that_dies_while_the_connection_lingers_is_not_written_to_again() {
    let mut pair = Pair::served();
    pair.mlet().reads = false;
    pair.endpoint.closes_back = false;
    pair.endpoint.write(&filled(MessageType::MDATA, 90_000));
    pair.run();
    pair.mlet().has_ended = true;
    pair.run();
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::MletEnded));
    assert_eq!(pair.elapsed(), LINGER_TIMEOUT);
}

/// A damaged record at the front of a full receive must end the session, not hang it: TLS takes no
/// more bytes once it has failed.
#[test]
fn a_damaged_record_in_a_full_receive_ends_the_session() {
    let good = filled(MessageType::MDATA, 1000);
    let mut pair = Pair::served();
    pair.endpoint.write(&good);
    pair.run();
    pair.endpoint.set_dam(Some(0));
    pair.endpoint.write(&vec![5; 100_000]);
    let mut damaged: Vec<u8> = std::mem::take(&mut pair.endpoint.held).into();
    damaged[100] ^= 1;
    pair.endpoint.set_dam(None);
    pair.endpoint.write_raw(&damaged);
    pair.run();
    assert_eq!(pair.endpoint.alert, Some(rustls::AlertDescription::BadRecordMac));
    assert!(pair.mlet().is_at_eof);
    pair.mlet().exit();
    assert!(matches!(pair.finish(), Outcome::EndpointBrokeTls(rustls::Error::DecryptError)));
    assert_eq!(pair.mlet().received, good);
}

/// Its connection is closed only when the endpoint has read the alert, for which the mlet need not wait.
#[test]
fn a_mlet_that_writes_no_more_reads_the_end_as_soon_as_it_has_all_of_an_endpoint_that_broke_tls() {
    let mut pair = Pair::served();
    pair.endpoint.closes_back = false;
    (pair.mlet().reads, pair.mlet().exits_at_eof) = (false, false);
    pair.endpoint.write(&filled(MessageType::MDATA, SOCKET_LEN + 5_000));
    pair.endpoint.write_raw(&[
        0x17, 3, 3, 0, 20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    ]);
    pair.run();
    pair.mlet().has_ended = true;
    pair.run();
    assert!(!pair.mlet().is_at_eof);
    pair.mlet().reads = true;
    pair.run();
    assert!(pair.mlet().is_at_eof && pair.over.is_none(), "{}", pair.told());
    assert!(matches!(pair.finish(), Outcome::EndpointBrokeTls(_)), "{}", pair.told());
}

/// The endpoint's TLS finds fault with what it gets and says so.
#[test]
fn an_alert_of_the_endpoint_ends_the_session_with_its_reason_and_is_not_answered() {
    let mut pair = Pair::served();
    pair.endpoint.write(b"\x62\0\0\x04said");
    let tls = pair.endpoint.tls.as_mut().unwrap();
    tls.read_tls(
        &mut &[0x17, 3, 3, 0, 20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9][..],
    )
    .unwrap();
    tls.process_new_packets().unwrap_err();
    pair.endpoint.flush();
    let outcome = pair.finish();
    assert_eq!(outcome.to_string(), "TLS broke off: the peer sent the alert 20, bad_record_mac");
    assert_eq!(pair.mlet().received, b"\x62\0\0\x04said", "what it had sent before is delivered");
    assert!(pair.mlet().is_at_eof);
    assert!(!pair.endpoint.close_notify, "it has ended with an alert, and gets no close_notify");
}

/// Where each is measured once, what ends first also decides whether the endpoint may come again.
#[test]
fn both_sides_may_end_at_once() {
    let key = Some(golden::public_key("ep").key_id());
    for seed in 0..50 {
        let (last, reply) = (filled(MessageType::MDATA, 5000), filled(MessageType::MDATA, 7000));
        let experiments = measured_once(experiments(Stage::WithDefault, &[], &[]));
        let mut pair = Pair::served_within(Arc::clone(&experiments));
        pair.set_chunks(Chunks::Random(Random(seed)));
        pair.endpoint.write(&last);
        pair.endpoint.close_notify();
        pair.endpoint.end(End::Closed);
        pair.mlet().write(&reply);
        pair.mlet().has_ended = true;
        match pair.finish() {
            Outcome::MletEnded => {
                assert!(pair.endpoint.received == reply, "seed {seed}: {}", pair.told());
                assert!(experiments.choice.take(key).is_err(), "seed {seed}: {}", pair.told());
            }
            Outcome::EndpointEnded(End::Closed) => {
                assert!(pair.mlet().received == last, "seed {seed}: {}", pair.told());
                assert!(experiments.choice.take(key).is_ok(), "seed {seed}: {}", pair.told());
            }
            outcome => panic!("seed {seed}: {outcome:?}"),
        }
    }
}
