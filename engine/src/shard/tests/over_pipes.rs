//! Sessions whose mlet is offered pipes: it gets and gives the same bytes as over its socket, whatever it chooses and whenever.

use super::pair::{Chunks, Pair};
use crate::proto::session_end::{End, Outcome};
use crate::proto::tests::{filled, message, success};
use crate::random::Random;
use packetlab::message::MessageType;

const MIB: usize = 1024 * 1024;

#[test]
fn what_is_said_before_and_behind_the_choice_arrives_in_order_both_ways() {
    for knows_pipes in [true, false] {
        for seed in 0..40 {
            let mut pair = Pair::offered_pipes(knows_pipes);
            pair.set_chunks(match seed {
                0 => Chunks::Whole,
                1 => Chunks::UpTo(700),
                _ => Chunks::Random(Random(seed)),
            });
            let (mut said, mut answered) = (Vec::new(), Vec::new());
            for len in [30_000, 0, 5, 60_000, 1_400] {
                said.push(filled(MessageType::MDATA, len));
                answered.push(filled(MessageType::NDATA, len));
                pair.endpoint.write(said.last().unwrap());
                // The choice comes while the first is on its way.
                for _ in 0..seed {
                    pair.step();
                }
                pair.mlet().write(answered.last().unwrap());
            }
            pair.run();
            pair.endpoint.close_notify();
            pair.endpoint.end(End::Closed);
            let outcome = pair.finish().to_string();
            assert!(pair.mlet().received == said.concat(), "seed {seed}: {outcome}");
            assert!(pair.endpoint.received == answered.concat(), "seed {seed}: {outcome}");
            assert!(pair.mlet().is_at_eof);
            assert_eq!(pair.mlet().has_got_by_pipe(), knows_pipes, "seed {seed}");
        }
    }
}

#[test]
fn pipes_go_with_the_request_for_the_mlet_whoever_it_is_made_to() {
    for is_full in [false, true] {
        let mut pair = Pair::uncounted();
        pair.offer_pipes();
        if is_full {
            pair.fill_mail();
            pair.run();
            pair.is_deaf = false;
        }
        pair.run();
        let asked = if is_full { "mlet started" } else { "mlet asked for at the supervisor" };
        assert!(pair.transcript.iter().any(|line| line == asked), "{}", pair.told());
        pair.mlet().knows_pipes = true;
        pair.mlet().write(&success());
        pair.endpoint.write(&success());
        pair.run();
        assert!(pair.mlet().has_got_by_pipe());
        assert_eq!(pair.endpoint.received, success());
    }
}

#[test]
fn pipes_that_are_not_used_are_closed_and_the_socket_is_kept() {
    let mut pair = Pair::offered_pipes(false);
    assert_eq!(pair.mlet_descriptors(), 3);
    pair.mlet().write(&success());
    pair.run();
    assert_eq!(pair.mlet_descriptors(), 1);
    let mut pair = Pair::offered_pipes(true);
    pair.mlet().write(&success());
    pair.run();
    assert_eq!(pair.mlet_descriptors(), 3);
}

/// Its socket and its pipes end in the same moment, and what tells of either may come first.
#[test]
fn what_a_mlet_wrote_to_its_pipe_is_delivered_though_it_exits_at_once() {
    for seed in 0..100 {
        let last = filled(MessageType::MDATA, 100_000);
        let mut pair = Pair::offered_pipes(true);
        pair.set_chunks(Chunks::Random(Random(seed)));
        pair.mlet().write(&last);
        pair.mlet().exit();
        assert!(matches!(pair.finish(), Outcome::MletEnded), "seed {seed}");
        assert!(pair.endpoint.received == last && pair.endpoint.close_notify, "seed {seed}");
    }
}

#[test]
fn a_mlet_that_exits_without_a_word_ends_its_session() {
    for knows_pipes in [true, false] {
        let mut pair = Pair::offered_pipes(knows_pipes);
        pair.mlet().exit();
        assert!(matches!(pair.finish(), Outcome::MletEnded));
    }
}

/// As when it closes its descriptors beyond 2 at its start.
#[test]
fn a_mlet_that_closes_its_pipes_has_its_socket() {
    let mut pair = Pair::offered_pipes(false);
    pair.mlet().close_pipes();
    pair.run();
    assert_eq!(pair.mlet_descriptors(), 1);
    pair.mlet().write(&success());
    pair.endpoint.write(&filled(MessageType::MDATA, 100));
    pair.run();
    assert_eq!(pair.endpoint.received, success());
    assert_eq!(pair.mlet().received.len(), 104);
}

/// Both when something is on its way to it and when nothing is, and also if it never stops writing.
#[test]
fn a_forced_end_takes_what_the_mlet_wrote_before_and_tells_it_the_end() {
    let ends: [fn(&mut Pair); 2] = [Pair::end_sessions, Pair::give_up_mlet];
    for end in ends {
        for (to_mlet, chunks) in
            [(0, Chunks::Whole), (MIB, Chunks::Whole), (MIB, Chunks::UpTo(900))]
        {
            let last = filled(MessageType::MDATA, 50_000);
            let mut pair = Pair::offered_pipes(true);
            pair.set_chunks(chunks);
            pair.mlet().write(&success());
            pair.run();
            pair.mlet().reads = to_mlet == 0;
            pair.mlet().exits_at_eof = false;
            if to_mlet > 0 {
                pair.endpoint.write(&filled(MessageType::MDATA, to_mlet));
            }
            pair.run();
            pair.mlet().write(&last);
            end(&mut pair);
            pair.run();
            for _ in 0..20 {
                pair.mlet().write(&message(MessageType::MDATA, &[7; 100_000]));
                pair.run();
            }
            let outcome = pair.finish().to_string();
            assert!(pair.endpoint.received.starts_with(&[success(), last].concat()), "{outcome}");
            pair.mlet().reads = true;
            pair.mlet().take();
            assert!(pair.mlet().is_at_eof, "{outcome}");
        }
    }
}
