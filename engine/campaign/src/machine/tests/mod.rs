//! A member against a scripted server, with a clock that only jumps.

mod rig;

use std::time::Duration;

use rig::{Rig, endpoint, refused, renewed};

use super::batch::GivenBack;
use super::*;
use crate::asks::RECORD_MAX_BYTES;

#[test]
fn all_that_waits_goes_out_at_once_and_nothing_while_a_batch_is_under_way() {
    let mut rig = Rig::connected();
    rig.take(1);
    let first = rig.batch().expect("one waits");
    assert_eq!(first.take, [(1, endpoint(1))]);
    rig.take(2);
    rig.take(3);
    assert!(rig.batch().is_none(), "one is under way");
    let answer = rig.server.answer(&first);
    rig.machine.batch_answered(rig.now, &answer);
    rig.finish(1);
    rig.ask(Ask::Forget { session: 3 });
    let second = rig.batch().expect("two wait");
    assert_eq!((second.take.len(), second.finish.len()), (1, 1), "one was forgotten unasked");
    let answer = rig.server.answer(&second);
    rig.machine.batch_answered(rig.now, &answer);
    assert!(rig.batch().is_none());
    let expected = [
        ClientNews::Won { session: 1, epoch: 1 },
        ClientNews::Accepted { session: 1 },
        ClientNews::Won { session: 2, epoch: 1 },
    ];
    assert_eq!(rig.news(), expected);
}

#[test]
fn no_call_has_more_than_256_sessions() {
    let mut rig = Rig::connected();
    for session in 0..300 {
        rig.ask(Ask::Take { session, endpoint: [0; 32] });
    }
    let sizes = [(); 2].map(|()| {
        let batch = rig.batch().expect("many wait");
        let answer = rig.server.answer(&batch);
        rig.machine.batch_answered(rig.now, &answer);
        batch.take.len()
    });
    assert_eq!(sizes, [256, 44]);
}

#[test]
fn what_was_sent_and_not_answered_is_asked_again_for_the_same_session() {
    let mut rig = Rig::connected();
    rig.wins(1);
    rig.finish(1);
    rig.take(2);
    let lost = rig.batch().expect("both wait");
    rig.server.answer(&lost); // stored, but nobody hears of it
    rig.machine.disconnected(Which::Batches, "cut");
    assert!(rig.batch().is_none(), "no connection");
    rig.machine.connected(Which::Batches);
    let again = rig.batch().expect("both wait again");
    assert_eq!((&again.take, again.finish[0].session), (&lost.take, 1));
    let answer = rig.server.answer(&again);
    rig.machine.batch_answered(rig.now, &answer);
    let expected = [
        ClientNews::Trouble("cut".to_owned()),
        ClientNews::Accepted { session: 1 },
        ClientNews::Won { session: 2, epoch: 1 },
    ];
    assert_eq!(rig.news(), expected);
}

#[test]
fn a_take_without_an_answer_ends_after_nine_seconds_and_is_given_back_if_it_was_sent() {
    let mut rig = Rig::connected();
    rig.take(1);
    let under_way = rig.batch().expect("one waits");
    rig.take(2);
    rig.jump(8.9);
    assert_eq!(rig.news(), []);
    assert_eq!(rig.machine.next_wake(), Some(Duration::ZERO), "the beat that nobody asked for");
    rig.jump(9.0);
    let expected = [refused(1, Refusal::Unanswered), refused(2, Refusal::Unanswered)];
    assert_eq!(rig.news(), expected);
    // The answer comes too late: what was won is given back, and what was never sent is not sent.
    let answer = rig.server.answer(&under_way);
    rig.machine.batch_answered(rig.now, &answer);
    rig.answer_all();
    assert_eq!((rig.server.given_back.as_slice(), rig.server.claims.len()), (&[1][..], 0));
    assert_eq!(rig.news(), []);
}

#[test]
fn a_session_that_is_forgotten_is_given_back_whatever_is_known_of_it() {
    // Won; under way; sent without an answer; not sent.
    let mut rig = Rig::connected();
    rig.wins(1);
    rig.ask(Ask::Forget { session: 1 });
    rig.answer_all();
    assert_eq!(rig.server.given_back, [1]);
    rig.take(2);
    let under_way = rig.batch().expect("one waits");
    rig.ask(Ask::Forget { session: 2 });
    let answer = rig.server.answer(&under_way);
    rig.machine.batch_answered(rig.now, &answer);
    rig.answer_all();
    assert_eq!(rig.server.given_back, [1, 2]);
    rig.take(3);
    let lost = rig.batch().expect("one waits");
    rig.server.answer(&lost);
    rig.machine.disconnected(Which::Batches, "cut");
    rig.ask(Ask::Forget { session: 3 });
    rig.machine.connected(Which::Batches);
    rig.take(4);
    rig.ask(Ask::Forget { session: 4 });
    rig.answer_all();
    assert_eq!(rig.server.given_back, [1, 2, 3]);
    assert!(rig.server.claims.is_empty());
    assert_eq!(rig.news(), [ClientNews::Trouble("cut".to_owned())]);
}

#[test]
fn beats_are_a_fifth_of_the_lease_apart_and_at_most_five_seconds() {
    let mut rig = Rig::connected();
    let renew =
        Beat::Renew { id: ManagerId([0; 16]), places: 10, is_leaving: false, has_missed: false };
    assert_eq!(rig.beat(), Some(renew));
    assert_eq!(rig.machine.next_wake(), Some(Duration::from_secs(5)));
    rig.jump(4.9);
    assert_eq!(rig.beat(), None);
    rig.jump(5.0);
    assert_eq!(rig.beat(), Some(renew));
    assert_eq!(rig.news().len(), 2, "each beat tells how the campaign stands");
}

#[test]
fn places_that_have_changed_are_told_at_once() {
    let mut rig = Rig::connected();
    assert!(rig.beat().is_some());
    rig.ask(Ask::Places(10));
    assert_eq!(rig.beat(), None, "they have not");
    rig.ask(Ask::Places(0));
    assert_eq!(rig.machine.next_wake(), Some(rig.now));
    let none =
        Beat::Renew { id: ManagerId([0; 16]), places: 0, is_leaving: false, has_missed: false };
    assert_eq!(rig.beat(), Some(none));
    assert_eq!(rig.beat(), None);
}

#[test]
fn endpoints_that_came_in_vain_are_told_of_with_beats_until_one_is_answered() {
    let mut rig = Rig::connected();
    let tells = |rig: &mut Rig, seconds| {
        rig.jump(seconds);
        let Some(beat @ Beat::Renew { has_missed, .. }) = rig.machine.next_beat(rig.now) else {
            panic!("a beat is due");
        };
        (beat, has_missed)
    };
    let answer = |rig: &mut Rig, beat| rig.machine.beat_answered(rig.now, beat, renewed(true));
    let (beat, has_missed) = tells(&mut rig, 0.0);
    assert!(!has_missed);
    rig.ask(Ask::Missed); // while one is under way that does not tell of it
    answer(&mut rig, beat);
    assert!(tells(&mut rig, 5.0).1);
    rig.machine.disconnected(Which::Beats, "cut");
    rig.machine.connected(Which::Beats);
    let (beat, has_missed) = tells(&mut rig, 5.0);
    assert!(has_missed, "nobody knows whether it was heard");
    answer(&mut rig, beat);
    let (beat, has_missed) = tells(&mut rig, 10.0);
    assert!(!has_missed, "it was");
    answer(&mut rig, beat);
    // So is who is told that there is no room: what has room for him is known to the database alone.
    rig.take(2);
    rig.batch().expect("one waits");
    let full = TakeAnswer { session: 2, verdict: TakeVerdict::Refused(Refusal::Full) };
    let full = Answer { accepted: Vec::new(), verdicts: vec![full] };
    rig.machine.batch_answered(rig.now, &full);
    let (beat, has_missed) = tells(&mut rig, 15.0);
    assert!(has_missed, "a place may become free");
    answer(&mut rig, beat);
    // So is who has waited in vain for an answer.
    rig.machine.disconnected(Which::Batches, "cut");
    rig.take(1);
    assert!(!tells(&mut rig, 23.9).1);
    rig.machine.disconnected(Which::Beats, "cut");
    rig.machine.connected(Which::Beats);
    assert!(tells(&mut rig, 24.0).1);
}

#[test]
fn who_was_not_renewed_for_four_fifths_of_the_lease_is_fenced_and_enters_anew() {
    let mut rig = Rig::connected();
    rig.beat();
    rig.jump(5.0);
    let beat = rig.machine.next_beat(rig.now).expect("due");
    // Answered three seconds later: what counts is when it was asked.
    rig.jump(8.0);
    rig.machine.beat_answered(rig.now, beat, renewed(true));
    rig.news();
    rig.wins(1); // held
    rig.take(2);
    rig.batch().expect("sent without an answer");
    rig.machine.disconnected(Which::Batches, "cut");
    rig.machine.disconnected(Which::Beats, "cut");
    rig.jump(52.9);
    let before = [ClientNews::Trouble("cut".to_owned()), refused(2, Refusal::Unanswered)];
    assert_eq!(rig.news(), before);
    rig.take(3); // not sent: it waits for the next membership
    assert_eq!(rig.machine.next_wake(), Some(Duration::from_secs(53)));
    rig.jump(53.0);
    assert_eq!(rig.news(), [ClientNews::Fenced]);
    rig.finish(1);
    assert_eq!(rig.news(), [ClientNews::Duplicate { session: 1 }], "it has no claims any more");
    rig.machine.connected(Which::Batches);
    assert!(rig.batch().is_none(), "nobody takes anything who is no member");
    rig.machine.connected(Which::Beats);
    assert_eq!(rig.beat(), Some(Beat::Enter { id: ManagerId([1; 16]) }));
    rig.answer_all();
    let expected =
        [ClientNews::Recovered, ClientNews::Entered, ClientNews::Won { session: 3, epoch: 1 }];
    assert_eq!(rig.news(), expected);
    assert_eq!(rig.server.claims[&endpoint(3)].0, ManagerId([1; 16]));
    let renew =
        Beat::Renew { id: ManagerId([1; 16]), places: 10, is_leaving: false, has_missed: true };
    assert_eq!(rig.beat(), Some(renew), "at once, to learn how the campaign stands");
}

#[test]
fn who_is_fenced_while_a_take_is_under_way_refuses_it_and_heeds_no_late_answer() {
    let mut rig = Rig::connected();
    rig.beat();
    rig.jump(47.0);
    rig.take(1);
    let under_way = rig.batch().expect("one waits");
    rig.jump(48.0);
    rig.news();
    let answer = rig.server.answer(&under_way);
    rig.machine.batch_answered(rig.now, &answer);
    assert_eq!(rig.news(), [], "the claim is of an id that is gone");
    rig.take(1);
    rig.answer_all();
    assert_eq!(rig.news(), [], "nobody is asked before it is a member again");
}

#[test]
fn a_thread_that_stood_still_is_fenced_before_it_hears_what_came_meanwhile() {
    let mut rig = Rig::connected();
    rig.beat();
    rig.news();
    rig.jump(47.0);
    rig.take(1);
    let under_way = rig.batch().expect("one waits");
    let answer = rig.server.answer(&under_way);
    rig.now = Duration::from_secs(49); // without a tick
    rig.machine.batch_answered(rig.now, &answer);
    rig.machine.tick(rig.now);
    assert_eq!(rig.news(), [refused(1, Refusal::Fenced), ClientNews::Fenced]);
    // Shorter than that, but for longer than the endpoint waits for its START.
    let mut rig = Rig::connected();
    rig.beat();
    rig.news();
    rig.take(1);
    let under_way = rig.batch().expect("one waits");
    let answer = rig.server.answer(&under_way);
    rig.now = Duration::from_secs(9);
    rig.machine.batch_answered(rig.now, &answer);
    assert_eq!(rig.news(), [refused(1, Refusal::Unanswered)]);
    rig.answer_all();
    assert_eq!(rig.server.given_back, [1]);
}

#[test]
fn a_server_that_knows_the_manager_as_lost_fences_it_at_once() {
    for by_beat in [true, false] {
        let mut rig = Rig::connected();
        rig.wins(1);
        if by_beat {
            let beat = rig.machine.next_beat(rig.now).expect("due");
            rig.machine.beat_answered(rig.now, beat, renewed(false));
            assert_eq!(rig.news().first(), Some(&ClientNews::Fenced));
        } else {
            rig.take(2);
            rig.batch().expect("one waits");
            let verdicts = vec![TakeAnswer { session: 2, verdict: TakeVerdict::Fenced }];
            let answer = Answer { accepted: Vec::new(), verdicts };
            rig.machine.batch_answered(rig.now, &answer);
            assert_eq!(rig.news(), [refused(2, Refusal::Fenced), ClientNews::Fenced]);
        }
        assert_eq!(rig.beat(), Some(Beat::Enter { id: ManagerId([1; 16]) }));
    }
}

#[test]
fn with_fence_finish_results_are_still_reported_under_the_old_id() {
    let mut rig = Rig::with(Fence::Finish);
    rig.machine.connected(Which::Batches);
    rig.wins(1);
    rig.jump(48.0);
    assert_eq!(rig.news(), [ClientNews::Fenced]);
    rig.finish(1);
    let batch = rig.batch().expect("a result waits");
    assert_eq!(batch.finish[0].manager, ManagerId([0; 16]));
    rig.machine.batch_answered(rig.now, &Answer::default());
    assert_eq!(rig.news(), [ClientNews::Duplicate { session: 1 }]);
}

#[test]
fn results_of_two_ids_never_share_a_call() {
    let mut rig = Rig::with(Fence::Finish);
    rig.machine.connected(Which::Batches);
    rig.wins(1);
    rig.wins(2);
    rig.jump(48.0);
    rig.machine.connected(Which::Beats);
    rig.beat().expect("it enters anew");
    rig.news();
    rig.wins(3);
    for session in [1, 3, 2] {
        rig.finish(session);
    }
    let sizes = [(); 3].map(|()| {
        let batch = rig.batch().expect("results wait");
        let managers =
            batch.finish.iter().map(|finished| finished.manager.0[0]).collect::<Vec<_>>();
        let answer = rig.server.answer(&batch);
        rig.machine.batch_answered(rig.now, &answer);
        managers
    });
    assert_eq!(sizes, [vec![0], vec![1], vec![0]]);
    assert_eq!(rig.news().len(), 3);
}

#[test]
fn a_result_is_repeated_for_ten_minutes_and_not_kept_beyond_its_share_of_memory() {
    let mut rig = Rig::with(Fence::Finish);
    rig.machine.connected(Which::Batches);
    rig.wins(1);
    rig.machine.disconnected(Which::Batches, "cut");
    rig.finish(1);
    rig.jump(599.9);
    assert!(!rig.news().contains(&ClientNews::Unreported { session: 1 }));
    rig.jump(600.0);
    assert_eq!(rig.news(), [ClientNews::Unreported { session: 1 }]);
    let mut rig = Rig::connected();
    let sessions = 64 * 64 + 1; // of 16 KiB each
    let (ask, all) = (|session| Ask::Take { session, endpoint: [0; 32] }, 0..sessions);
    all.clone().for_each(|session| rig.ask(ask(session)));
    while let Some(batch) = rig.batch() {
        let told = |session| TakeAnswer { session, verdict: TakeVerdict::Won(1) };
        let verdicts = batch.take.iter().map(|(session, _)| told(*session)).collect();
        rig.machine.batch_answered(rig.now, &Answer { accepted: Vec::new(), verdicts });
    }
    rig.news();
    let record = format!("\"{}\"", "x".repeat(RECORD_MAX_BYTES - 2));
    for session in all {
        rig.ask(Ask::Finish { session, outcome: "ok".to_owned(), record: record.clone() });
    }
    let given_up = rig.news();
    assert_eq!(
        given_up.first(),
        Some(&ClientNews::Unreported { session: 0 }),
        "the oldest goes first"
    );
    assert!(given_up.len() < 100, "{} were given up", given_up.len());
    let batch = rig.batch().expect("the others wait");
    assert_eq!(batch.finish.len(), 64, "a megabyte a call");
    // Nobody else could have their endpoints for as long as this manager is a member.
    let lost = |told: &ClientNews| match told {
        ClientNews::Unreported { session } => {
            Some(GivenBack { session: *session, endpoint: [0; 32], has_begun: true })
        }
        _ => None,
    };
    assert_eq!(batch.give_back, given_up.iter().filter_map(lost).collect::<Vec<_>>());
}

#[test]
fn who_leaves_reports_what_has_ended_and_says_so_last() {
    let mut rig = Rig::connected();
    rig.beat();
    rig.wins(1);
    rig.wins(2);
    rig.finish(1);
    rig.take(3);
    rig.machine.leave(rig.now);
    rig.take(4);
    assert_eq!(rig.news(), [refused(3, Refusal::Stop), refused(4, Refusal::Stop)]);
    let first = rig.beat().expect("a beat");
    assert!(matches!(first, Beat::Renew { is_leaving: false, .. }), "a result waits");
    rig.answer_all();
    rig.machine.tick(rig.now);
    assert!(!rig.machine.has_left());
    let last = rig.beat().expect("the last");
    assert!(matches!(last, Beat::Renew { is_leaving: true, .. }));
    assert!(rig.machine.has_left());
    assert_eq!(rig.server.claims[&endpoint(2)].1, 2, "what runs is lost by the last beat");
}

#[test]
fn who_leaves_without_a_database_has_left_after_five_seconds() {
    let mut rig = Rig::connected();
    rig.beat();
    rig.wins(1);
    rig.finish(1);
    rig.machine.disconnected(Which::Batches, "cut");
    rig.machine.disconnected(Which::Beats, "cut");
    rig.machine.leave(rig.now);
    rig.jump(4.9);
    assert!(!rig.machine.has_left());
    rig.news();
    rig.jump(5.0);
    assert!(rig.machine.has_left());
    assert_eq!(rig.news(), [ClientNews::Unreported { session: 1 }]);
    // And with one that takes the last beat and never answers, after ten.
    let mut rig = Rig::connected();
    rig.machine.leave(rig.now);
    rig.machine.next_beat(rig.now).expect("the last");
    assert_eq!(rig.machine.next_wake(), Some(Duration::from_secs(10)));
    rig.jump(10.0);
    assert!(rig.machine.has_left());
}

/// It is not known whether it has entered: what it says last takes back whatever came of it.
#[test]
fn who_leaves_while_it_enters_leaves_no_member_behind() {
    for is_cut in [false, true] {
        let mut rig = Rig::connected();
        rig.jump(48.0);
        let enter = rig.machine.next_beat(rig.now).expect("it enters anew");
        rig.machine.leave(rig.now);
        if is_cut {
            rig.machine.disconnected(Which::Beats, "cut");
            rig.machine.tick(rig.now);
            assert!(!rig.machine.has_left());
            rig.machine.connected(Which::Beats);
        } else {
            rig.machine.beat_answered(rig.now, enter, BeatTold::Entered);
        }
        rig.machine.tick(rig.now);
        let last =
            Beat::Renew { id: ManagerId([1; 16]), places: 10, is_leaving: true, has_missed: false };
        assert_eq!(rig.beat(), Some(last));
        assert!(rig.machine.has_left());
    }
}

#[test]
fn who_leaves_without_being_a_member_wakes_only_when_there_is_something_to_do() {
    let mut rig = Rig::with(Fence::Finish);
    rig.machine.connected(Which::Batches);
    rig.wins(1);
    rig.jump(48.0);
    rig.finish(1);
    rig.machine.connected(Which::Beats);
    rig.batch().expect("a result that nobody answers");
    rig.machine.leave(rig.now);
    let mut wakes = 0;
    loop {
        let beat = rig.machine.next_beat(rig.now);
        if let Some(beat) = beat {
            rig.machine.beat_answered(rig.now, beat, renewed(false));
        }
        if rig.machine.has_left() {
            break;
        }
        let wake = rig.machine.next_wake().expect("it leaves in time");
        assert!(wake > rig.now, "it wakes at {wake:?}, and it is {:?}", rig.now);
        rig.jump(wake.as_secs_f64());
        wakes += 1;
    }
    assert!(wakes < 5, "it woke {wakes} times");
    assert_eq!(rig.now, Duration::from_secs(53));
    assert!(rig.news().contains(&ClientNews::Unreported { session: 1 }));
}

#[test]
fn one_trouble_is_told_once_and_its_end_when_a_beat_is_answered() {
    let mut rig = Rig::connected();
    rig.beat();
    rig.news();
    for why in ["away", "away", "no password", "away"] {
        rig.machine.disconnected(Which::Beats, why);
    }
    rig.machine.disconnected(Which::Batches, "away");
    let told = |why: &str| ClientNews::Trouble(why.to_owned());
    assert_eq!(rig.news(), [told("away"), told("no password")]);
    rig.machine.connected(Which::Beats);
    assert_eq!(rig.beat(), None, "it is not due");
    rig.machine.connected(Which::Batches);
    assert_eq!(rig.news(), []);
    assert!(rig.beat().is_some(), "it is now");
    assert_eq!(rig.news().first(), Some(&ClientNews::Recovered));
}

#[test]
fn a_campaign_that_is_over_or_gone_is_told_of_to_who_would_enter_anew() {
    let mut rig = Rig::connected();
    rig.jump(48.0);
    rig.news();
    let beat = rig.machine.next_beat(rig.now).expect("it enters");
    rig.machine.beat_answered(rig.now, beat, BeatTold::Ended(State::Over));
    let standing = Standing { state: State::Over, ..unknown_standing(Some(5)) };
    assert_eq!(rig.news(), [ClientNews::Standing(standing)]);
    let mut rig = Rig::connected();
    let beat = rig.machine.next_beat(rig.now).expect("due");
    let gone = BeatTold::Renewed(BeatAnswer { is_alive: false, standing: None });
    rig.machine.beat_answered(rig.now, beat, gone);
    assert_eq!(rig.news(), [ClientNews::Fenced]);
    let beat = rig.machine.next_beat(rig.now).expect("it enters at once");
    rig.machine.beat_answered(rig.now, beat, BeatTold::ShutOut(JoinError::Protocol));
    assert_eq!(rig.news(), [ClientNews::ShutOut(JoinError::Protocol)]);
}

#[test]
fn queues_hold_nothing_of_sessions_that_are_over() {
    let mut rig = Rig::with(Fence::Kill);
    for second in 0..100_u32 {
        rig.jump(f64::from(second));
        for index in 0..10 {
            let session = u64::from(second * 10 + index);
            rig.ask(Ask::Take { session, endpoint: [0; 32] });
        }
        rig.news();
    }
    assert!(rig.machine.sessions.waiting() <= 100, "{} wait", rig.machine.sessions.waiting());
}
