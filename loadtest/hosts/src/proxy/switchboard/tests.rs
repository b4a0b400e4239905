//! The switchboard in memory.

use packetlab::key::PublicKey;

use super::*;
use crate::hosting::Source;

const GRACE: Duration = Duration::from_secs(10);

fn snikey(text: &str) -> SniKey {
    SniKey::parse(text).unwrap()
}

fn board() -> Arc<Switchboard<u32>> {
    bounded(99, 99)
}

fn bounded(per_snikey_max: usize, per_owner_max: usize) -> Arc<Switchboard<u32>> {
    Switchboard::new(Bounds { per_snikey_max, per_owner_max, grace: GRACE })
}

fn keyed(number: u8) -> Owner {
    Owner::Key(PublicKey([number; 32]).key_id())
}

fn unknown(number: u8) -> Owner {
    Owner::Unknown(Source::of([192, 0, 2, number].into()))
}

type Waiting = (Claim<u32>, QueuePlace<u32, u32>);

impl Switchboard<u32> {
    fn register(self: &Arc<Self>, name: &str, owner: Owner) -> Result<Claim<u32>, NotRegistered> {
        self.register_after(Duration::ZERO, name, owner)
    }

    fn register_after(
        self: &Arc<Self>,
        time: Duration,
        name: &str,
        owner: Owner,
    ) -> Result<Claim<u32>, NotRegistered> {
        self.claim(&snikey(name), owner, Instant::now() + time)
    }

    /// A connection that waits for an endpoint.
    fn add(self: &Arc<Self>, name: &str, owner: Owner) -> Result<Waiting, NotRegistered> {
        let claim = self.register(name, owner)?;
        let place = claim.wait()?;
        Ok((claim, place))
    }
}

/// Controllers that wait, and snikeys that anybody waits under or owns.
fn count(board: &Switchboard<u32>) -> (usize, usize) {
    let queues = board.queues();
    let waiting = queues.by_snikey.values().map(|queue| queue.controllers.len()).sum();
    (waiting, queues.by_snikey.len())
}

#[tokio::test]
async fn controllers_are_taken_in_the_order_they_came_and_by_their_snikey_alone() {
    let board = board();
    let (_one, mut first) = board.add("a", keyed(1)).unwrap();
    let (_two, mut second) = board.add("a", keyed(1)).unwrap();
    let (_three, mut other) = board.add("b", keyed(1)).unwrap();
    for endpoint in [1, 2] {
        board.take_controller(&snikey("a")).unwrap().send(endpoint).unwrap();
    }
    assert!(board.take_controller(&snikey("a")).is_err(), "b's controller is not a's");
    board.take_controller(&snikey("b")).unwrap().send(3).unwrap();
    assert_eq!(first.wait().await, Some(1));
    assert_eq!(second.wait().await, Some(2));
    assert_eq!(other.wait().await, Some(3));
}

#[tokio::test]
async fn an_endpoint_that_came_first_gets_the_next_controller() {
    let board = board();
    let mut early = board.take_controller(&snikey("a")).unwrap_err();
    let mut late = board.take_controller(&snikey("a")).unwrap_err();
    let (_one, mut controller) = board.add("a", keyed(1)).unwrap();
    early.wait().await.unwrap().send(1).unwrap();
    assert_eq!(controller.wait().await, Some(1));
    let (_two, mut controller) = board.add("a", keyed(1)).unwrap();
    late.wait().await.unwrap().send(2).unwrap();
    assert_eq!(controller.wait().await, Some(2));
}

#[tokio::test]
async fn whoever_gives_up_is_passed_over() {
    let board = board();
    drop(board.take_controller(&snikey("a")).unwrap_err());
    let (_gone, gone) = board.add("a", keyed(1)).unwrap();
    let (_stays, mut stays) = board.add("a", keyed(1)).unwrap();
    drop(gone);
    board.take_controller(&snikey("a")).unwrap().send(7).unwrap();
    assert_eq!(stays.wait().await, Some(7));
}

#[tokio::test]
async fn an_endpoint_that_came_in_the_last_moment_is_given_back() {
    let board = board();
    let (_claim, controller) = board.add("a", keyed(1)).unwrap();
    board.take_controller(&snikey("a")).unwrap().send(7).unwrap();
    assert_eq!(controller.give_up(), Some(7));
}

#[tokio::test]
async fn a_controller_learns_that_its_endpoint_vanished_while_it_was_called() {
    let board = board();
    let (_claim, mut controller) = board.add("a", keyed(1)).unwrap();
    drop(board.take_controller(&snikey("a")).unwrap());
    assert_eq!(controller.wait().await, None);
}

#[test]
fn a_full_backlog_refuses_further_controllers_of_that_snikey_only() {
    let board = bounded(2, 99);
    let mut one = board.add("a", keyed(1)).unwrap();
    let two = board.add("a", keyed(1)).unwrap();
    assert_eq!(board.add("a", keyed(1)).unwrap_err(), NotRegistered::SnikeyFull);
    let _other = board.add("b", keyed(1)).unwrap();
    one.0.enter_session();
    let _three = board.add("a", keyed(1)).unwrap();
    assert_eq!(board.add("a", keyed(1)).unwrap_err(), NotRegistered::SnikeyFull);
    drop(two);
    assert!(board.add("a", keyed(1)).is_ok());
}

#[test]
fn an_owner_has_only_so_many_connections_under_all_its_snikeys() {
    for (owner, other) in [(keyed(1), keyed(2)), (unknown(1), unknown(2))] {
        let board = bounded(99, 2);
        let mut one = board.add("a", owner).unwrap();
        let _two = board.add("b", owner).unwrap();
        assert_eq!(board.add("c", owner).unwrap_err(), NotRegistered::OwnerFull);
        let _other = board.add("d", other).unwrap();
        // In a session it does not count any more.
        one.0.enter_session();
        let three = board.add("c", owner).unwrap();
        assert_eq!(board.add("a", owner).unwrap_err(), NotRegistered::OwnerFull);
        drop((one, three));
        assert!(board.add("c", owner).is_ok());
    }
}

#[test]
fn a_snikey_is_shared_by_its_owner_alone() {
    let board = board();
    let _first = board.add("a", keyed(1)).unwrap();
    for stranger in [keyed(2), unknown(1)] {
        assert_eq!(board.add("a", stranger).unwrap_err(), NotRegistered::Owned, "{stranger}");
    }
    let _second = board.add("a", keyed(1)).unwrap();
    let _address = board.add("b", unknown(1)).unwrap();
    assert_eq!(board.add("b", unknown(2)).unwrap_err(), NotRegistered::Owned);
    let _same_address = board.add("b", unknown(1)).unwrap();
    assert_eq!(count(&board), (4, 2));
}

#[test]
fn it_is_owned_through_its_sessions_and_for_a_while_after_the_last_connection() {
    let board = board();
    let stranger = |time| board.register_after(time, "a", keyed(2));
    let (mut in_session, place) = board.add("a", keyed(1)).unwrap();
    drop(place);
    in_session.enter_session();
    assert_eq!(stranger(9 * GRACE).unwrap_err(), NotRegistered::Owned, "a session is there");
    drop(in_session);
    assert_eq!(stranger(GRACE / 2).unwrap_err(), NotRegistered::Owned, "the owner may come back");
    let back = board.register_after(GRACE / 2, "a", keyed(1)).unwrap();
    assert_eq!(stranger(9 * GRACE).unwrap_err(), NotRegistered::Owned, "it was there again");
    drop(back);
    assert!(stranger(2 * GRACE).is_ok());
    assert_eq!(
        board.register("a", keyed(1)).unwrap_err(),
        NotRegistered::Owned,
        "it came too late"
    );
}

#[tokio::test]
async fn one_without_a_key_yields_to_one_with_and_gets_no_endpoint_any_more() {
    let board = board();
    let (claim, mut waits) = board.add("a", unknown(1)).unwrap();
    // Its registration was accepted, but it does not wait yet.
    let not_yet = board.register("a", unknown(1)).unwrap();
    let (_owner, mut owner) = board.add("a", keyed(1)).unwrap();
    assert_eq!(waits.wait().await, None);
    for claim in [&claim, &not_yet] {
        assert_eq!(claim.wait().unwrap_err(), NotRegistered::Owned);
    }
    board.take_controller(&snikey("a")).unwrap().send(7).unwrap();
    assert_eq!(owner.wait().await, Some(7));
    // What is left of the one before has no influence on the new owner.
    drop((claim, not_yet));
    assert_eq!(board.add("a", unknown(1)).unwrap_err(), NotRegistered::Owned);
}

#[test]
fn nothing_is_left_when_all_have_gone() {
    let board = board();
    let controllers: Vec<_> = (0..9).map(|_| board.add("a", keyed(1)).unwrap()).collect();
    let waiting = board.take_controller(&snikey("b")).unwrap_err();
    assert_eq!(count(&board), (9, 2));
    drop((controllers, waiting));
    assert_eq!(count(&board), (0, 1), "a is kept for its owner");
    drop(board.register_after(2 * GRACE, "c", keyed(2)).unwrap());
    assert_eq!(count(&board), (0, 1), "c is kept, a is forgotten");
    assert!(board.queues().by_owner.is_empty());
}
