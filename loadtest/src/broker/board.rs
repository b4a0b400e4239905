//! What is published, and which subscriber has still to hear of it.
//!
//! Pure: no socket, no clock. There are no queues: publications are numbered in the order they came,
//! and every subscription remembers the last number it looked at. What has ended is never told.
//!
//! Invariant: a subscription is told of a publication at most once, and only while both live.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use engine::wire::channel::ChannelId;
use engine::wire::message::{EncodeError, Message};
use engine::wire::name_value::descriptor_matches;
use engine::wire::time::Ticks;

/// An accepted XPUB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    /// In the publisher's order, without duplicates.
    pub(crate) channels: Vec<ChannelId>,
    /// What it wants of endpoints.
    pub(crate) xdescr: String,
    /// Its end: `pub_end`, or when its certificates expire.
    pub(crate) until: Ticks,
}

/// An accepted XSUB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Where it listens.
    pub(crate) channels: HashSet<ChannelId>,
    /// What the endpoint is.
    pub(crate) dattr: String,
    /// When its certificates expire.
    pub(crate) until: Ticks,
    /// The last publication it looked at.
    seen: u64,
}

/// A publication that a subscriber is to hear of, once, however many channels they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notification {
    /// The first channel of the publication that the subscriber listens on.
    pub(crate) channel: ChannelId,
    publication: Arc<Publication>,
}

/// All publications that live.
#[derive(Debug, Default)]
pub(crate) struct Board {
    publications: BTreeMap<u64, Arc<Publication>>,
    /// Number of the latest publication.
    latest: u64,
}

impl Board {
    /// Puts a publication up and returns its number; takes down what has ended by now.
    pub(crate) fn publish(&mut self, publication: Publication, now: Ticks) -> u64 {
        self.publications.retain(|_, publication| now < publication.until);
        self.latest += 1;
        self.publications.insert(self.latest, Arc::new(publication));
        self.latest
    }

    /// Takes a publication down; one that has ended may be gone already.
    pub(crate) fn withdraw(&mut self, number: u64) {
        self.publications.remove(&number);
    }

    /// The oldest publication that this subscription has to hear of.
    pub(crate) fn next_for(
        &self,
        subscription: &mut Subscription,
        now: Ticks,
    ) -> Option<Notification> {
        let unseen = subscription.seen.saturating_add(1)..;
        for (number, publication) in self.publications.range(unseen) {
            subscription.seen = *number;
            let live = now < publication.until && now < subscription.until;
            if live && let Some(channel) = subscription.channel_of(publication) {
                return Some(Notification { channel, publication: Arc::clone(publication) });
            }
        }
        None
    }
}

impl Subscription {
    /// A subscription that has heard of nothing yet.
    pub(crate) fn new(channels: HashSet<ChannelId>, dattr: String, until: Ticks) -> Self {
        Self { channels, dattr, until, seen: 0 }
    }

    /// The channel by which a publication reaches this subscription (protocol.md 5.5).
    fn channel_of(&self, publication: &Publication) -> Option<ChannelId> {
        let mut channels = publication.channels.iter();
        let shared = channels.find(|channel| self.channels.contains(*channel))?;
        descriptor_matches(publication.xdescr.as_bytes(), self.dattr.as_bytes()).then_some(*shared)
    }
}

impl Notification {
    /// The XNOTIFY for it.
    ///
    /// # Errors
    /// Its text is none that a message can carry; a publication that came in one always is.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut encoded = Vec::new();
        let xdescr = &self.publication.xdescr;
        Message::Xnotify { channel: self.channel, xdescr }.encode(&mut encoded)?;
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Ticks = Ticks(1_000);

    fn channel(byte: u8) -> ChannelId {
        ChannelId::new(&[byte]).unwrap()
    }

    fn publication(channels: &[u8], xdescr: &str) -> Publication {
        let channels = channels.iter().map(|byte| channel(*byte)).collect();
        Publication { channels, xdescr: xdescr.to_owned(), until: Ticks::MAX }
    }

    fn subscription(channels: &[u8], dattr: &str) -> Subscription {
        let channels = channels.iter().map(|byte| channel(*byte)).collect();
        Subscription::new(channels, dattr.to_owned(), Ticks::MAX)
    }

    /// Everything the subscription has to hear of now: channel and descriptor.
    fn told(board: &Board, subscription: &mut Subscription, now: Ticks) -> Vec<(u8, String)> {
        std::iter::from_fn(|| board.next_for(subscription, now))
            .map(|told| (told.channel.as_bytes()[0], told.publication.xdescr.clone()))
            .collect()
    }

    fn pairs(pairs: &[(u8, &str)]) -> Vec<(u8, String)> {
        pairs.iter().map(|(channel, text)| (*channel, (*text).to_owned())).collect()
    }

    #[test]
    fn subscribers_hear_of_what_is_there_and_of_what_comes_once_each_and_in_order() {
        let mut board = Board::default();
        let mut early = subscription(&[1], "");
        board.publish(publication(&[1], "n=1;"), NOW);
        assert_eq!(told(&board, &mut early, NOW), pairs(&[(1, "n=1;")]));
        board.publish(publication(&[1], "n=2;"), NOW);
        board.publish(publication(&[1], "n=3;"), NOW);
        assert_eq!(told(&board, &mut early, NOW), pairs(&[(1, "n=2;"), (1, "n=3;")]));
        assert_eq!(told(&board, &mut early, NOW), []);
        let mut late = subscription(&[1], "");
        let all = pairs(&[(1, "n=1;"), (1, "n=2;"), (1, "n=3;")]);
        assert_eq!(told(&board, &mut late, NOW), all);
    }

    #[test]
    fn a_foreign_channel_and_other_attributes_hear_nothing() {
        let mut board = Board::default();
        board.publish(publication(&[1], "endpoint_country=DEU;"), NOW);
        let mut foreign = subscription(&[2], "endpoint_country=DEU;");
        let mut other = subscription(&[1], "endpoint_country=USA;");
        let mut right = subscription(&[2, 1], "endpoint_country=DEU;");
        assert_eq!(told(&board, &mut foreign, NOW), []);
        assert_eq!(told(&board, &mut other, NOW), []);
        assert_eq!(told(&board, &mut right, NOW), pairs(&[(1, "endpoint_country=DEU;")]));
    }

    #[test]
    fn several_shared_channels_give_one_notification_by_the_publications_first() {
        let mut board = Board::default();
        board.publish(publication(&[9, 3, 1], "a=b;"), NOW);
        assert_eq!(told(&board, &mut subscription(&[1, 3], ""), NOW), pairs(&[(3, "a=b;")]));
    }

    #[test]
    fn what_was_withdrawn_or_has_ended_is_not_told() {
        let mut board = Board::default();
        let number = board.publish(publication(&[1], "n=1;"), NOW);
        board.publish(Publication { until: Ticks(2_000), ..publication(&[1], "n=2;") }, NOW);
        board.publish(publication(&[1], "n=3;"), NOW);
        board.withdraw(number);
        let fresh = || subscription(&[1], "");
        let living = pairs(&[(1, "n=2;"), (1, "n=3;")]);
        assert_eq!(told(&board, &mut fresh(), Ticks(1_999)), living);
        assert_eq!(told(&board, &mut fresh(), Ticks(2_000)), pairs(&[(1, "n=3;")]));
        let latest = board.publish(publication(&[1], "n=4;"), Ticks(2_000));
        assert_eq!(latest, 4);
        assert_eq!(board.publications.len(), 2, "the ended one was taken down");
    }

    #[test]
    fn a_subscription_whose_certificates_have_expired_hears_nothing_more() {
        let mut board = Board::default();
        board.publish(publication(&[1], "n=1;"), NOW);
        let mut expiring = Subscription { until: Ticks(1_001), ..subscription(&[1], "") };
        assert_eq!(told(&board, &mut expiring, NOW), pairs(&[(1, "n=1;")]));
        board.publish(publication(&[1], "n=2;"), NOW);
        assert_eq!(told(&board, &mut expiring, Ticks(1_001)), []);
    }

    #[test]
    fn a_notification_looks_as_in_the_specification() {
        let mut board = Board::default();
        let channels = vec![ChannelId::new(&[1, 2]).unwrap()];
        let publication = Publication { channels, ..publication(&[], "a=b;") };
        board.publish(publication, NOW);
        let channels = HashSet::from([ChannelId::new(&[1, 2]).unwrap()]);
        let mut subscription = Subscription::new(channels, String::new(), Ticks::MAX);
        let told = board.next_for(&mut subscription, NOW).unwrap();
        let expected = [&[0x70, 0, 0, 7, 2, 1, 2][..], b"a=b;"].concat();
        assert_eq!(told.encode().unwrap(), expected);
    }
}
