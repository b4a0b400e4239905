//! What becomes of a session whose permit for START is refused, or holds no more.
//!
//! Not here: who refuses it and why (`permits/`, `control/permit_news.rs`), and drawn worlds, in which some are (`world.rs`).

use std::time::Duration;

use super::faults::{Class, STEPS, Step, reach};
use super::pair::Pair;
use crate::permits::Refusal;
use crate::proto::session_end::{End, Force, Outcome};
use crate::proto::tests::credentials::LINGER_TIMEOUT;
use crate::proto::tests::filled;
use packetlab::message::MessageType;

/// A session that waits for a permit.
fn waiting() -> Pair {
    let mut pair = Pair::new();
    pair.has_permits = false;
    pair.run();
    assert_eq!(pair.told(), "permit wanted");
    pair
}

#[test]
fn a_session_that_is_refused_start_is_closed_before_it_and_gives_nothing_back() {
    for why in [Refusal::Done, Refusal::Busy, Refusal::Spent, Refusal::NoKey] {
        let mut pair = waiting();
        pair.refuse_permit(why);
        let outcome = pair.finish();
        assert!(matches!(outcome, Outcome::CampaignRefused(told) if *told == why), "{outcome:?}");
        assert!(pair.endpoint.close_notify, "{}", pair.told());
        assert!(pair.endpoint.received.is_empty(), "not a byte, and no START");
        assert!(!pair.told().contains("freed"), "{}", pair.told());
    }
}

#[test]
fn a_refused_endpoint_that_does_not_close_is_not_waited_for_long() {
    let mut pair = waiting();
    pair.endpoint.reads = false;
    pair.refuse_permit(Refusal::Busy);
    assert!(matches!(pair.finish(), Outcome::CampaignRefused(Refusal::Busy)));
    assert_eq!(pair.elapsed(), LINGER_TIMEOUT);
}

#[test]
fn only_a_session_that_waits_for_a_permit_heeds_a_refusal() {
    for step in STEPS {
        let mut pair = reach(step);
        let outcome = match step {
            Step::AwaitingPermit => Class::Refused,
            Step::Starting => Class::SetUpTimeout,
            // It has asked for nothing yet.
            Step::Accepted
            | Step::PartOfHello
            | Step::OurFlightSent
            | Step::PartOfTheirFlight
            | Step::Submitting
            | Step::SubmittingLast => continue,
            _ => Class::MletEnded,
        };
        pair.refuse_permit(Refusal::Full);
        pair.run();
        if outcome == Class::MletEnded {
            assert!(pair.over.is_none(), "{step}: {}", pair.told());
            continue;
        }
        assert_eq!(Class::from(pair.finish()), outcome, "{step}: {}", pair.told());
    }
}

#[test]
fn an_endpoint_that_leaves_while_it_waits_says_so_and_a_late_answer_is_not_heeded() {
    for late in [true, false] {
        let mut pair = waiting();
        pair.endpoint.end(End::Closed);
        if late {
            pair.run();
            assert!(pair.told().contains("permit freed"), "{}", pair.told());
        }
        pair.refuse_permit(Refusal::Done);
        pair.grant_permit();
        pair.finish();
        pair.refuse_permit(Refusal::Done);
        pair.grant_permit();
        pair.run();
        assert_eq!(pair.told().matches("over").count(), 1, "{}", pair.told());
        assert_eq!(pair.told().matches("permit freed").count(), usize::from(late));
    }
}

#[test]
fn an_answer_to_a_session_that_was_in_the_same_slot_before_is_not_heeded() {
    let mut pair = waiting();
    pair.refuse_permit_of(u64::MAX, Refusal::Done);
    pair.run();
    pair.grant_permit();
    pair.run();
    assert!(pair.mlet.is_some(), "{}", pair.told());
}

#[test]
fn a_lost_lease_ends_who_was_permitted_start_and_nobody_else() {
    for step in STEPS {
        let mut pair = reach(step);
        pair.fence();
        pair.run();
        let ends = match step {
            Step::Accepted
            | Step::PartOfHello
            | Step::OurFlightSent
            | Step::PartOfTheirFlight
            | Step::Submitting
            | Step::SubmittingLast
            | Step::AwaitingPermit => false,
            Step::Starting
            | Step::MletAsked
            | Step::Idle
            | Step::MidMessageIn
            | Step::MidMessageOut
            | Step::Draining => true,
            // What ended these before remains their end.
            Step::MletGone | Step::EndpointGone => continue,
        };
        if !ends {
            assert!(
                pair.over.is_none() && !pair.told().contains("freed"),
                "{step}: {}",
                pair.told()
            );
            continue;
        }
        if let Some(mlet) = &mut pair.mlet {
            assert!(mlet.is_at_eof, "{step}: the mlet reads its end; {}", mlet.notes.join("; "));
            mlet.exit();
        }
        pair.endpoint.end(End::Closed);
        let outcome = pair.finish();
        assert!(matches!(outcome, Outcome::Forced(Force::Fenced)), "{step}: {outcome:?}");
        assert_eq!(pair.elapsed(), Duration::ZERO, "{step}");
    }
}

/// Others may be measuring it.
#[test]
fn an_endpoint_that_takes_nothing_is_let_go_when_the_time_of_a_lost_lease_is_over() {
    for (written_len, is_over) in [(1_000, true), (1 << 20, true), (1_000, false)] {
        let mut pair = Pair::served();
        pair.endpoint.reads = false;
        pair.mlet().write(&filled(MessageType::NDATA, written_len));
        pair.run();
        pair.fence();
        pair.run();
        pair.mlet().exit();
        pair.run();
        assert!(pair.over.is_none(), "it still has bytes to take: {}", pair.told());
        if is_over {
            pair.end_fenced();
            let outcome = pair.finish();
            assert!(matches!(outcome, Outcome::Forced(Force::Fenced)), "{outcome:?}");
        } else {
            pair.finish();
        }
        assert_eq!(pair.elapsed() < LINGER_TIMEOUT, is_over, "{:?}", pair.elapsed());
    }
}
