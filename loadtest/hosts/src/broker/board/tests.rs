//! The board in memory, with a clock of our own.

use std::net::{IpAddr, Ipv4Addr};

use packetlab::key::PublicKey;

use super::*;
use crate::hosting::{Memory, Source};

const NOW: Ticks = Ticks(1_000);

fn channel(byte: u8) -> ChannelId {
    ChannelId::new(&[byte]).unwrap()
}

fn publication(channels: &[u8], xdescr: &str) -> Publication {
    let channels = channels.iter().map(|byte| channel(*byte)).collect();
    let pairs = name_value::parse(Dialect::Descriptor, xdescr.as_bytes()).unwrap();
    let patterns = Patterns::new(pairs);
    Publication { channels, xdescr: xdescr.to_owned(), patterns, until: Ticks::MAX }
}

fn subscription(channels: &[u8], dattr: &str) -> Subscription {
    let channels = channels.iter().map(|byte| channel(*byte)).collect();
    Subscription::new(channels, dattr.to_owned(), Ticks::MAX).unwrap()
}

fn key(number: u8) -> KeyId {
    PublicKey([number; 32]).key_id()
}

/// A publisher at an address of its own.
fn publisher(key: KeyId, address: u8) -> Publisher {
    Publisher { key, source: Source::of([192, 0, 2, address].into()) }
}

fn charge(memory: &Arc<Memory>, bytes: usize) -> Charge {
    memory.budget(Source::of(IpAddr::V4(Ipv4Addr::LOCALHOST))).charge(bytes).unwrap()
}

impl Board {
    /// Publishes for a key that may publish a lot.
    fn put(&mut self, publication: Publication, now: Ticks) -> u64 {
        let charge = charge(&Memory::new(1, 100), 1);
        self.publish(publication, publisher(key(1), 1), charge, &BrokerLimits::default(), now)
            .unwrap()
    }
}

/// Everything the subscription has to hear of now: channel and descriptor.
fn told(board: &Board, subscription: &mut Subscription, now: Ticks) -> Vec<(u8, String)> {
    let channels: Vec<_> = subscription.channels.iter().copied().collect();
    let mut told = Vec::new();
    loop {
        let mut candidates = board.candidates();
        board.add_candidates(&mut candidates, &channels, subscription.seen());
        let (up_to, publications) = candidates.into_parts();
        if up_to == subscription.seen() {
            return told;
        }
        let notifications = publications.filter_map(|one| subscription.look_at(&one, now).0);
        told.extend(notifications.map(|notification| {
            (notification.channel.as_bytes()[0], notification.publication.xdescr.clone())
        }));
        subscription.has_seen(up_to);
    }
}

fn pairs(pairs: &[(u8, &str)]) -> Vec<(u8, String)> {
    pairs.iter().map(|(channel, text)| (*channel, (*text).to_owned())).collect()
}

#[test]
fn subscribers_hear_of_what_is_there_and_of_what_comes_once_each_and_in_order() {
    let mut board = Board::default();
    let mut early = subscription(&[1], "");
    board.put(publication(&[1], "n=1;"), NOW);
    assert_eq!(told(&board, &mut early, NOW), pairs(&[(1, "n=1;")]));
    board.put(publication(&[1], "n=2;"), NOW);
    board.put(publication(&[1], "n=3;"), NOW);
    assert_eq!(told(&board, &mut early, NOW), pairs(&[(1, "n=2;"), (1, "n=3;")]));
    assert!(told(&board, &mut early, NOW).is_empty());
    let mut late = subscription(&[1], "");
    let all = pairs(&[(1, "n=1;"), (1, "n=2;"), (1, "n=3;")]);
    assert_eq!(told(&board, &mut late, NOW), all);
}

#[test]
fn many_publications_on_several_channels_are_all_told_in_order() {
    let mut board = Board::default();
    let count = 3 * CHUNK_LEN;
    for number in 0..count {
        // Runs of one channel that are longer than a look takes, then single ones.
        let channels: &[u8] = if number < 2 * CHUNK_LEN { &[1] } else { &[2, 1] };
        board.put(publication(channels, &format!("n={number};")), NOW);
    }
    let expected: Vec<_> = (0..count).map(|number| format!("n={number};")).collect();
    let texts =
        |told: Vec<(u8, String)>| told.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(texts(told(&board, &mut subscription(&[1, 2, 3], ""), NOW)), expected);
    let of_two = texts(told(&board, &mut subscription(&[2], ""), NOW));
    assert_eq!(of_two, expected[2 * CHUNK_LEN..]);
}

#[test]
fn a_foreign_channel_and_other_attributes_hear_nothing() {
    let mut board = Board::default();
    board.put(publication(&[1], "endpoint_country=DEU;"), NOW);
    let mut foreign = subscription(&[2], "endpoint_country=DEU;");
    let mut other = subscription(&[1], "endpoint_country=USA;");
    let mut right = subscription(&[2, 1], "endpoint_country=DEU;");
    assert!(told(&board, &mut foreign, NOW).is_empty());
    assert!(told(&board, &mut other, NOW).is_empty());
    assert_eq!(told(&board, &mut right, NOW), pairs(&[(1, "endpoint_country=DEU;")]));
}

#[test]
fn several_shared_channels_give_one_notification_by_the_publications_first() {
    let mut board = Board::default();
    board.put(publication(&[9, 3, 1], "a=b;"), NOW);
    assert_eq!(told(&board, &mut subscription(&[1, 3], ""), NOW), pairs(&[(3, "a=b;")]));
}

#[test]
fn what_was_withdrawn_or_has_ended_is_not_told() {
    let mut board = Board::default();
    let number = board.put(publication(&[1], "n=1;"), NOW);
    board.put(Publication { until: Ticks(2_000), ..publication(&[1], "n=2;") }, NOW);
    board.put(publication(&[1], "n=3;"), NOW);
    board.withdraw(number);
    let fresh = || subscription(&[1], "");
    let living = pairs(&[(1, "n=2;"), (1, "n=3;")]);
    assert_eq!(told(&board, &mut fresh(), Ticks(1_999)), living);
    assert_eq!(told(&board, &mut fresh(), Ticks(2_000)), pairs(&[(1, "n=3;")]));
    let latest = board.put(publication(&[1], "n=4;"), Ticks(2_000));
    assert_eq!(latest, 4);
    assert_eq!(board.publications.len(), 2, "the ended one was taken down");
}

#[test]
fn a_subscription_whose_certificates_have_expired_hears_nothing_more() {
    let mut board = Board::default();
    board.put(publication(&[1], "n=1;"), NOW);
    let mut expiring = Subscription { until: Ticks(1_001), ..subscription(&[1], "") };
    assert_eq!(told(&board, &mut expiring, NOW), pairs(&[(1, "n=1;")]));
    board.put(publication(&[1], "n=2;"), NOW);
    assert!(told(&board, &mut expiring, Ticks(1_001)).is_empty());
}

/// A key with a hundred connections has no more than one with a single connection, and another key is
/// not concerned.
#[test]
fn what_a_key_may_publish_is_counted_over_all_its_connections_until_it_ends() {
    let memory = Memory::new(1 << 20, 100);
    let limits = BrokerLimits { publications_max: 2, channels_max: 3, ..BrokerLimits::default() };
    let mut board = Board::default();
    let publish = |board: &mut Board, number, channels: &[u8], until, now| {
        let publication = Publication { until, ..publication(channels, "") };
        let publisher = publisher(key(number), 1);
        board.publish(publication, publisher, charge(&memory, 1), &limits, now)
    };
    let first = publish(&mut board, 1, &[1, 2], Ticks::MAX, NOW).unwrap();
    let refused = publish(&mut board, 1, &[1, 2], Ticks::MAX, NOW);
    assert_eq!(refused, Err(Refusal::TooManyChannels { max: 3 }));
    publish(&mut board, 1, &[1], Ticks(2_000), NOW).unwrap();
    let refused = publish(&mut board, 1, &[1], Ticks::MAX, NOW);
    assert_eq!(refused, Err(Refusal::TooManyPublications { max: 2 }));
    publish(&mut board, 2, &[1, 2, 3], Ticks::MAX, NOW).unwrap();
    // One has ended, then one is withdrawn.
    publish(&mut board, 1, &[1], Ticks::MAX, Ticks(2_000)).unwrap();
    board.withdraw(first);
    publish(&mut board, 1, &[1, 2], Ticks::MAX, Ticks(2_000)).unwrap();
}

/// Others' publications have ended before, and more of them than are taken down at once.
#[test]
fn what_has_ended_of_a_key_does_not_count_for_it_however_much_of_others_has_ended() {
    let memory = Memory::new(1 << 20, 100);
    let limits = BrokerLimits { publications_max: 2, channels_max: 50, ..BrokerLimits::default() };
    let mut board = Board::default();
    let publish = |board: &mut Board, until, now| {
        let publication = Publication { until, ..publication(&[1], "") };
        let publisher = publisher(key(0), 1);
        board.publish(publication, publisher, charge(&memory, 1), &limits, now).map(drop)
    };
    publish(&mut board, Ticks(2_000), NOW).unwrap();
    publish(&mut board, Ticks::MAX, NOW).unwrap();
    assert!(publish(&mut board, Ticks::MAX, Ticks(1_999)).is_err(), "neither has ended");
    for number in 0..90 {
        let other =
            PublicKey([u8::try_from(number / 2).unwrap(), 2].repeat(16).try_into().unwrap());
        let publication = Publication { until: Ticks(1_500), ..publication(&[1, 2, 3], "") };
        let other = publisher(other.key_id(), 2);
        board.publish(publication, other, charge(&memory, 1), &limits, NOW).unwrap();
    }
    publish(&mut board, Ticks::MAX, Ticks(2_000)).unwrap();
    assert_eq!(board.keys[&key(0)].by_end.len(), 2, "the ended one is gone");
    // Others' are taken down until their channels are as many as one key may have, and not all at once.
    let left = |board: &Board| board.publications.len() - 2;
    assert_eq!(left(&board), 90 - 17);
    assert!(publish(&mut board, Ticks::MAX, Ticks(2_000)).is_err());
    assert_eq!(left(&board), 90 - 2 * 17);
}

#[tokio::test]
async fn only_who_listens_on_a_channel_is_woken_for_it() {
    let mut board = Board::default();
    let wake = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    for (wake, channels) in wake.iter().zip([[channel(1)], [channel(2)]]) {
        let listener = board.new_listener();
        board.listen(listener, &channels, wake);
    }
    let listeners = board.listeners(&channel(1), 0);
    assert!(matches!(&listeners[..], [(1, only)] if Arc::ptr_eq(only, &wake[0])));
    assert!(board.listeners(&channel(1), 1).is_empty(), "that were all");
    assert!(board.listeners(&channel(3), 0).is_empty());
}

#[test]
fn listeners_are_taken_from_the_board_some_at_a_time() {
    let mut board = Board::default();
    let count = 2 * CHUNK_LEN + 1;
    for _ in 0..count {
        let listener = board.new_listener();
        board.listen(listener, &[channel(1)], &Arc::new(Notify::new()));
    }
    let (mut last, mut lens) = (0, Vec::new());
    while let some @ [.., (number, _)] = &board.listeners(&channel(1), last)[..] {
        last = *number;
        lens.push(some.len());
    }
    assert_eq!(lens, [CHUNK_LEN, CHUNK_LEN, 1]);
}

/// The texts of a shape that costs a lot to match, and attributes that it is matched with.
fn costly() -> [(String, String); 4] {
    let names = |value: char| (0..800).map(|n| format!("{n:03}={value};")).collect();
    let letters = format!("a={};", "A".repeat(4000));
    [
        ("a=*AB*;".repeat(32), letters.clone()),
        (format!("a=*{}?B*;", "A".repeat(30)), letters.clone()),
        (names('?'), names('x')),
        (letters.clone(), letters),
    ]
}

/// What the matching budget of a key allows: 1 to 3 ns for each look, so that it is a few percent of a core.
#[test]
fn no_shape_of_texts_makes_a_key_look_at_more_characters_than_it_is_charged() {
    for (xdescr, dattr) in costly() {
        let mut board = Board::default();
        board.put(publication(&[1], &xdescr), NOW);
        let subscription = subscription(&[1], &dattr);
        let mut candidates = board.candidates();
        board.add_candidates(&mut candidates, &[channel(1)], 0);
        let looks: usize =
            candidates.into_parts().1.map(|one| subscription.look_at(&one, NOW).1).sum();
        // What each of the four has to look at, whatever the matcher is.
        let looks_min = match xdescr.as_str() {
            text if text.starts_with("a=*") => 32 * (4000 - 31),
            text if text.starts_with("a=A") => 4000,
            _ => 800 * (2 * 10 + 1),
        };
        assert!(looks >= looks_min, "{looks} of {looks_min}: {xdescr}");
    }
}

/// One address has filled a public channel, under as many keys as it likes.
#[test]
fn what_one_address_publishes_costs_a_newcomer_a_bounded_number_of_looks() {
    let limits = BrokerLimits::default();
    let memory = Memory::new(limits.memory_max, limits.server.per_source_percent);
    let attacker = Source::of([192, 0, 2, 1].into());
    let mut board = Board::default();
    let newcomer = subscription(&[1], "hostid=EP1;endpoint_country=DEU;");
    let [(patterns, _), .., (filler, _)] = costly();
    let xdescr = [patterns.replace("a=", "hostid="), filler].concat();
    let xdescr = xdescr.get(..4000).map(|text| format!("{text};")).unwrap_or(xdescr);
    let (mut accepted, mut refused) = (0, None);
    while refused.is_none() {
        let key = PublicKey(std::array::from_fn(|i| (accepted / 100 + i) as u8)).key_id();
        let publication = publication(&[1], &xdescr);
        let Ok(charge) = memory.budget(attacker).charge(publication.cost()) else { break };
        let publisher = Publisher { key, source: attacker };
        match board.publish(publication, publisher, charge, &limits, NOW) {
            Ok(_) => accepted += 1,
            Err(refusal) => refused = Some(refusal),
        }
    }
    let max = limits.publications_per_source_max;
    assert_eq!((accepted, refused), (max, Some(Refusal::TooManyOfSource { max })));
    let other = publication(&[1], "hostid=EP*;");
    let charge = charge(&memory, 1);
    board.publish(other, publisher(key(200), 2), charge, &limits, NOW).unwrap();
    let mut looks = 0;
    let mut newcomer = newcomer;
    let mut heard = 0;
    loop {
        let mut candidates = board.candidates();
        board.add_candidates(&mut candidates, &[channel(1)], newcomer.seen());
        let (up_to, publications) = candidates.into_parts();
        if up_to == newcomer.seen() {
            break;
        }
        for candidate in publications {
            let (notification, some) = newcomer.look_at(&candidate, NOW);
            looks += some;
            heard += usize::from(notification.is_some());
        }
        newcomer.has_seen(up_to);
    }
    assert_eq!(heard, 1, "of the other's");
    let each = 10 * xdescr.len() + 86 * newcomer.dattr.len();
    assert!(looks <= (max + 1) * each, "{looks}");
    // Which is less than a key may use in a second.
    assert!((max + 1) * each < limits.matching_per_second, "{each}");
}

#[test]
fn on_a_private_channel_an_address_may_have_as_many_publications_as_its_keys_may() {
    let limits = BrokerLimits { publications_per_source_max: 1, ..BrokerLimits::default() };
    let memory = Memory::new(10, 100);
    let mut board = Board::default();
    let mut publish = |channel: &[u8]| {
        let channels = vec![ChannelId::new(channel).unwrap()];
        let publication = Publication { channels, ..publication(&[], "") };
        let charge = charge(&memory, 1);
        board.publish(publication, publisher(key(1), 1), charge, &limits, NOW)
    };
    for _ in 0..2 {
        publish(&key(9).0).unwrap();
    }
    let first = publish(&[1]).unwrap();
    assert_eq!(publish(&[1]), Err(Refusal::TooManyOfSource { max: 1 }));
    board.withdraw(first);
    assert!(board.channels.values().all(|channel| channel.by_source.is_empty()));
}

#[test]
fn nothing_is_left_of_those_who_have_gone() {
    let memory = Memory::new(10, 100);
    let mut board = Board::default();
    let listener = board.new_listener();
    board.listen(listener, &[channel(1), channel(2)], &Arc::new(Notify::new()));
    let limits = BrokerLimits::default();
    let publication = publication(&[2, 3], "");
    let (by, paid) = (publisher(key(1), 1), charge(&memory, 10));
    let number = board.publish(publication, by, paid, &limits, NOW).unwrap();
    board.withdraw(number);
    board.stop_listening(listener, &[channel(1), channel(2)]);
    assert!(board.channels.is_empty() && board.keys.is_empty() && board.by_end.is_empty());
    let _all_memory_is_there_again = charge(&memory, 10);
}

#[test]
fn a_notification_looks_as_in_the_specification() {
    let channel = ChannelId::new(&[1, 2]).unwrap();
    let publication = Publication { channels: vec![channel], ..publication(&[], "a=b;") };
    let subscription = Subscription::new(HashSet::from([channel]), String::new(), Ticks::MAX);
    let candidate = Candidate { publication: Arc::new(publication), channel: 0 };
    let told = subscription.unwrap().look_at(&candidate, NOW).0.unwrap();
    let expected = [&[0x70, 0, 0, 7, 2, 1, 2][..], b"a=b;"].concat();
    assert_eq!(told.encode().unwrap(), expected);
}
