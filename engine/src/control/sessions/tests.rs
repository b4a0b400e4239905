//! What becomes of results, without the thread that writes records.

use super::*;
use crate::config::EndpointChoice;
use crate::proto::tests::credentials::config;
use crate::records::{record_of_endpoint, start};
use packetlab::time::Ticks;

/// The session of this record, whose result is handed over, of an endpoint that is measured once. Whether that may come
/// again when it is settled so.
fn may_come_again(verdict: ResultVerdict) -> bool {
    let once = EndpointChoice { once: true, ..EndpointChoice::default() };
    let (choice, key) = (Arc::new(Choice::new(&once)), Some(KeyId([7; 32])));
    let mut record = record_of_endpoint(1, true);
    let facts = Arc::get_mut(&mut record.facts).unwrap();
    facts.account.hold = choice.take(key).unwrap().map(Box::new);
    record.end.as_mut().unwrap().outcome = Outcome::MletEnded;
    record.mlet = Mlet::Ended(MletStatus::Code(0), Duration::ZERO);
    record.claim = Claim::Held(1);
    let view = RunView::new(&config(), Arc::default(), Ticks(0));
    let mut sessions = Sessions::new((false, true), (None, view), Arc::clone(&choice));
    sessions.unsettled.insert(1, record);
    assert!(choice.take(key).is_err(), "as long as its result may be accepted");
    sessions.settle(1, verdict, start());
    choice.take(key).is_ok()
}

#[test]
fn an_endpoint_may_come_again_unless_its_result_was_accepted() {
    assert!(!may_come_again(ResultVerdict::Accepted));
    for verdict in [ResultVerdict::Duplicate, ResultVerdict::Unreported, ResultVerdict::Unrecorded]
    {
        assert!(may_come_again(verdict), "{verdict:?}");
    }
}
