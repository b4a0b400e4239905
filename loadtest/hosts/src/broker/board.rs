//! What is published, who listens, and which of it a subscription has still to look at.
//!
//! Pure: no socket, no clock, no lock. There are no queues: publications are numbered in the order they
//! came, and every subscription remembers up to which number it has looked. Whoever listens on a channel
//! of a new publication is woken, and nobody else.
//!
//! Whether descriptor and attributes match is not decided here but by each subscription for itself
//! ([`Subscription::look_at`]), so that the board need not be held meanwhile: it does nothing that takes
//! longer because of what a text says, and only so much at once ([`CHUNK_LEN`]).
//!
//! Not here: how long a publication stays (`published.rs`: as long as the connection that made it).
//!
//! Invariant: a subscription is told of a publication at most once, and only while both live.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use packetlab::channel::ChannelId;
use packetlab::key::KeyId;
use packetlab::message::{EncodeError, Message};
use packetlab::name_value::{self, Dialect, NameValueError, Pair, Patterns};
use packetlab::time::Ticks;
use tokio::sync::Notify;

use super::limits::BrokerLimits;
use super::refusal::Refusal;
use crate::hosting::{Charge, Source};

/// Channels that are looked up while the board is held, and publications or listeners of one channel.
pub(crate) const CHUNK_LEN: usize = 32;
/// Beside its channels and texts, what a publication or subscription costs in memory, about.
const BASE_COST: usize = 512;
/// What a channel of a publication or subscription costs in memory, about: its places in three tables.
const CHANNEL_COST: usize = 256;
/// What a pair of a text costs in memory beside the text, about: two small strings.
const PAIR_COST: usize = 128;
/// What taking up a publication is worth in looks at a character.
const TAKING_UP_LOOKS: usize = 32;

/// An accepted XPUB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    /// In the publisher's order, without duplicates.
    pub(crate) channels: Vec<ChannelId>,
    /// What it wants of endpoints.
    pub(crate) xdescr: String,
    /// The same, taken apart.
    pub(crate) patterns: Patterns,
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
    /// The same, taken apart.
    attributes: Vec<Pair>,
    /// When its certificates expire.
    pub(crate) until: Ticks,
    /// The last publication it has looked at.
    seen: u64,
}

/// A publication that a subscriber is to hear of, once, however many channels they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notification {
    /// The first channel of the publication that the subscriber listens on.
    pub(crate) channel: ChannelId,
    publication: Arc<Publication>,
}

/// All publications that live, and who listens.
#[derive(Debug, Default)]
pub(crate) struct Board {
    publications: BTreeMap<u64, Held>,
    by_end: BTreeSet<(Ticks, u64)>,
    channels: HashMap<ChannelId, Channel>,
    keys: HashMap<KeyId, OfKey>,
    /// Number of the latest publication.
    latest: u64,
    /// Number of the latest listener.
    latest_listener: u64,
}

#[derive(Debug)]
struct Held {
    publication: Arc<Publication>,
    publisher: Publisher,
    _charge: Charge,
}

/// What one channel is for.
#[derive(Debug, Default)]
struct Channel {
    publications: BTreeMap<u64, Candidate>,
    listeners: BTreeMap<u64, Arc<Notify>>,
    /// How many publications each source has here, if the channel is public.
    by_source: HashMap<Source, usize>,
}

/// What one key has on the board.
#[derive(Debug, Default)]
struct OfKey {
    /// Its publications.
    by_end: BTreeSet<(Ticks, u64)>,
    /// Channels of all of them.
    channels: usize,
}

/// A publication, and the first of its channels on which it was found.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    publication: Arc<Publication>,
    /// Its place among the publication's.
    channel: usize,
}

/// Publications that a subscription has to look at, in the order they came.
#[derive(Debug)]
pub(crate) struct Candidates {
    publications: BTreeMap<u64, Candidate>,
    /// All up to here are among them.
    up_to: u64,
}

/// Whose a publication is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publisher {
    pub(crate) key: KeyId,
    pub(crate) source: Source,
}

impl Publication {
    /// What it costs in memory, in bytes.
    pub(crate) fn cost(&self) -> usize {
        let pairs = self.patterns.count() * PAIR_COST;
        BASE_COST + self.channels.len() * CHANNEL_COST + self.xdescr.len() + pairs
    }

    /// How many looks at a character a subscriber needs for it, about, if its attributes are those of an
    /// honest one.
    pub(crate) fn looks(&self) -> usize {
        const ATTRIBUTES_LEN: usize = 256;
        TAKING_UP_LOOKS + self.xdescr.len() + self.patterns.search_cost() * ATTRIBUTES_LEN
    }
}

impl Board {
    /// Puts a publication up and returns its number; takes down some of what has ended by now. Who
    /// listens has still to be woken ([`Self::listeners`]).
    ///
    /// # Errors
    /// The key has as much on the board as it may have, or the source on one of the channels.
    pub(crate) fn publish(
        &mut self,
        publication: Publication,
        publisher: Publisher,
        charge: Charge,
        limits: &BrokerLimits,
        now: Ticks,
    ) -> Result<u64, Refusal> {
        let Publisher { key, source } = publisher;
        self.take_down_ended(key, limits.channels_max, now);
        let channels_of_key = self.check(&publication, publisher, limits)?;
        self.latest += 1;
        let number = self.latest;
        let of_key = self.keys.entry(key).or_default();
        of_key.by_end.insert((publication.until, number));
        of_key.channels = channels_of_key;
        let publication = Arc::new(publication);
        for (channel, id) in publication.channels.iter().enumerate() {
            let on_channel = self.channels.entry(*id).or_default();
            let publication = Arc::clone(&publication);
            on_channel.publications.insert(number, Candidate { publication, channel });
            if !id.is_private() {
                *on_channel.by_source.entry(source).or_default() += 1;
            }
        }
        self.by_end.insert((publication.until, number));
        self.publications.insert(number, Held { publication, publisher, _charge: charge });
        Ok(number)
    }

    /// How many channels the key will have with this publication.
    fn check(
        &self,
        publication: &Publication,
        Publisher { key, source }: Publisher,
        limits: &BrokerLimits,
    ) -> Result<usize, Refusal> {
        let BrokerLimits { publications_max, channels_max, publications_per_source_max, .. } =
            *limits;
        let (publications, channels) =
            self.keys.get(&key).map_or((0, 0), |of_key| (of_key.by_end.len(), of_key.channels));
        let channels = channels + publication.channels.len();
        if publications >= publications_max {
            return Err(Refusal::TooManyPublications { max: publications_max });
        }
        if channels > channels_max {
            return Err(Refusal::TooManyChannels { max: channels_max });
        }
        let is_full = |id: &ChannelId| {
            let of_source = self.channels.get(id).and_then(|one| one.by_source.get(&source));
            of_source.is_some_and(|count| *count >= publications_per_source_max)
        };
        if publications_per_source_max > 0 && publication.channels.iter().any(is_full) {
            return Err(Refusal::TooManyOfSource { max: publications_per_source_max });
        }
        Ok(channels)
    }

    /// Takes a publication down, and says how many channels it was on; one that has ended may be gone already.
    pub(crate) fn withdraw(&mut self, number: u64) -> usize {
        let Some(Held { publication, publisher, .. }) = self.publications.remove(&number) else {
            return 0;
        };
        let Publisher { key, source } = publisher;
        self.by_end.remove(&(publication.until, number));
        for id in &publication.channels {
            self.change_channel(*id, |channel| {
                channel.publications.remove(&number);
                channel.forget_one_of(source);
            });
        }
        if let Some(of_key) = self.keys.get_mut(&key) {
            of_key.by_end.remove(&(publication.until, number));
            of_key.channels -= publication.channels.len();
            if of_key.by_end.is_empty() {
                self.keys.remove(&key);
            }
        }
        publication.channels.len()
    }

    /// A number for somebody who will listen.
    pub(crate) fn new_listener(&mut self) -> u64 {
        self.latest_listener += 1;
        self.latest_listener
    }

    /// Wakes a listener from now on whenever something is published on one of these channels.
    pub(crate) fn listen(&mut self, listener: u64, channels: &[ChannelId], wake: &Arc<Notify>) {
        for id in channels {
            let channel = self.channels.entry(*id).or_default();
            channel.listeners.insert(listener, Arc::clone(wake));
        }
    }

    /// Wakes it no longer.
    pub(crate) fn stop_listening(&mut self, listener: u64, channels: &[ChannelId]) {
        for id in channels {
            self.change_channel(*id, |channel| drop(channel.listeners.remove(&listener)));
        }
    }

    /// Some of those who listen on a channel, behind the listener of this number, which is 0 at first;
    /// nobody once that were all.
    pub(crate) fn listeners(&self, channel: &ChannelId, after: u64) -> Vec<(u64, Arc<Notify>)> {
        let Some(channel) = self.channels.get(channel) else { return Vec::new() };
        let listeners = channel.listeners.range(after.saturating_add(1)..).take(CHUNK_LEN);
        listeners.map(|(number, wake)| (*number, Arc::clone(wake))).collect()
    }

    /// Of what was published until now, for [`Self::add_candidates`].
    pub(crate) fn candidates(&self) -> Candidates {
        Candidates { publications: BTreeMap::new(), up_to: self.latest }
    }

    /// Adds what was published on these channels and the subscription has not looked at; says how often
    /// something was found.
    pub(crate) fn add_candidates(
        &self,
        candidates: &mut Candidates,
        channels: &[ChannelId],
        seen: u64,
    ) -> usize {
        let mut count = 0;
        for channel in channels.iter().filter_map(|id| self.channels.get(id)) {
            // What came later has its turn later, with whatever else came before it.
            let mut found = channel.publications.range(seen.saturating_add(1)..);
            let is_meant = |(number, _): &(&u64, _)| **number <= candidates.up_to;
            for (number, candidate) in found.by_ref().take(CHUNK_LEN).take_while(is_meant) {
                count += 1;
                let known = candidates.publications.entry(*number);
                let known = known.or_insert_with(|| candidate.clone());
                known.channel = known.channel.min(candidate.channel);
            }
            if let Some((next, _)) = found.next() {
                candidates.up_to = candidates.up_to.min(*next - 1);
            }
        }
        count
    }

    /// Those of this key first, which must not be refused for what has ended. No more than one key may have,
    /// and than come with one publication: of so many channels.
    fn take_down_ended(&mut self, key: KeyId, channels_max: usize, now: Ticks) {
        let mut taken_down = 0;
        while taken_down < channels_max {
            let own = self.keys.get(&key).and_then(|of_key| of_key.by_end.first());
            let ended = own.into_iter().chain(self.by_end.first()).find(|(until, _)| *until <= now);
            let Some((_, number)) = ended.copied() else { return };
            taken_down += self.withdraw(number);
        }
    }

    fn change_channel(&mut self, id: ChannelId, change: impl FnOnce(&mut Channel)) {
        if let Some(channel) = self.channels.get_mut(&id) {
            change(channel);
            if channel.publications.is_empty() && channel.listeners.is_empty() {
                self.channels.remove(&id);
            }
        }
    }
}

impl Channel {
    fn forget_one_of(&mut self, source: Source) {
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

impl Candidates {
    /// How far the subscription will have looked.
    pub(crate) fn up_to(&self) -> u64 {
        self.up_to
    }

    /// How far the subscription has looked once it has looked at all of them, and each of them.
    pub(crate) fn into_parts(self) -> (u64, impl Iterator<Item = Candidate>) {
        let Self { publications, up_to } = self;
        (up_to, publications.into_iter().take_while(move |(n, _)| *n <= up_to).map(|(_, one)| one))
    }
}

impl Subscription {
    /// A subscription that has heard of nothing yet.
    ///
    /// # Errors
    /// `dattr` is no text of attributes.
    pub(crate) fn new(
        channels: HashSet<ChannelId>,
        dattr: String,
        until: Ticks,
    ) -> Result<Self, NameValueError> {
        let attributes = name_value::parse(Dialect::Attributes, dattr.as_bytes())?;
        Ok(Self { channels, dattr, attributes, until, seen: 0 })
    }

    /// What it costs in memory, in bytes.
    pub(crate) fn cost(&self) -> usize {
        let pairs = self.attributes.len() * PAIR_COST;
        BASE_COST + self.channels.len() * CHANNEL_COST + self.dattr.len() + pairs
    }

    /// The last publication it has looked at.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// It has looked at all up to this one.
    pub(crate) fn has_seen(&mut self, number: u64) {
        self.seen = self.seen.max(number);
    }

    /// What it has to hear of a publication (spec/protocol.md 5.5), and how many looks at a character it took to
    /// find that out, to which its time is proportional.
    pub(crate) fn look_at(
        &self,
        Candidate { publication, channel }: &Candidate,
        now: Ticks,
    ) -> (Option<Notification>, usize) {
        if now >= publication.until || now >= self.until {
            return (None, TAKING_UP_LOOKS);
        }
        let matching = publication.patterns.accept(&self.attributes);
        let notification = publication.channels.get(*channel).filter(|_| matching.accepted);
        let notification = notification.map(|channel| Notification {
            channel: *channel,
            publication: Arc::clone(publication),
        });
        (notification, TAKING_UP_LOOKS + matching.looks)
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
mod tests;
