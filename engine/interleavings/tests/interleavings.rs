//! What must hold in every order in which threads can run, and which defects the models notice.

use interleavings::counted;
use interleavings::mail::{self, Receiver};
use interleavings::shown;

#[test]
fn no_message_stays_unheard_and_what_does_not_fit_comes_later_in_order() {
    mail::two_senders(Receiver::TakesAll);
}

#[test]
fn who_takes_only_some_of_the_messages_and_rings_is_woken_for_the_others() {
    mail::two_senders(Receiver::TakesOneAndRings);
}

#[test]
#[should_panic = "deadlock"]
fn it_is_noticed_when_somebody_looks_for_messages_before_the_bell_is_silent() {
    mail::two_senders(Receiver::SilencesTooLate);
}

#[test]
#[should_panic = "deadlock"]
fn it_is_noticed_when_somebody_takes_only_some_of_the_messages_and_does_not_ring() {
    mail::two_senders(Receiver::TakesOne);
}

#[test]
fn messages_that_may_wait_are_heard_when_the_bell_is_due() {
    mail::unhurried(true);
}

#[test]
#[should_panic = "deadlock"]
fn it_is_noticed_when_nobody_comes_back_for_messages_that_may_wait() {
    mail::unhurried(false);
}

#[test]
fn two_threads_that_wait_for_each_other_get_their_answers() {
    mail::question_and_answer(true);
}

#[test]
#[should_panic = "deadlock"]
fn it_is_noticed_when_a_question_is_sent_without_a_ring() {
    mail::question_and_answer(false);
}

#[test]
fn a_receiver_that_ends_holds_up_no_sender_and_stays_gone() {
    mail::receiver_that_ends();
}

#[test]
fn a_thread_that_is_watched_is_seen_to_make_turns_since_it_was_asked_alone() {
    mail::watched();
}

#[test]
fn no_more_places_are_taken_than_there_are_and_all_come_back() {
    counted::places();
}

#[test]
fn no_place_is_taken_beyond_a_limit_that_is_being_lowered() {
    counted::fewer_places();
}

#[test]
fn no_place_of_a_key_is_taken_beyond_a_limit_that_is_being_lowered() {
    counted::fewer_places_of_a_key();
}

#[test]
fn one_of_two_sessions_of_a_key_gets_its_only_place_and_other_keys_are_not_concerned() {
    counted::places_of_keys();
}

#[test]
fn who_reads_that_a_session_is_over_reads_all_that_it_has_counted() {
    counted::counted_before_it_is_told(false);
}

#[test]
#[should_panic = "something is missing"]
fn it_is_noticed_when_the_end_of_a_session_is_told_before_what_it_has_counted() {
    counted::counted_before_it_is_told(true);
}

#[test]
fn what_is_shown_and_what_is_told_to_be_missing_is_all_there_was() {
    shown::what_is_missing();
}

#[test]
fn two_sessions_together_keep_no_more_than_there_is_room_for() {
    shown::room_for_one_of_two();
}

#[test]
fn a_message_for_which_there_is_room_is_kept_whatever_others_want_meanwhile() {
    shown::room_for_the_shorter_of_two();
}
