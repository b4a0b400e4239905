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
//! Invariant: a subscription is told of a publication at most once, and only while both live.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use engine::wire::channel::ChannelId;
use engine::wire::key::KeyId;
use engine::wire::message::{EncodeError, Message};
use engine::wire::name_value::descriptor_matches;
use engine::wire::time::Ticks;
use tokio::sync::Notify;

use super::limits::Limits;
use super::refusal::Refusal;
use crate::hosting::Charge;

/// Channels that are looked up while the board is held, and publications of one channel.
pub(crate) const CHUNK_LEN: usize = 32;
/// Ended publications that are taken down while the board is held for a new one: more than one comes.
const TAKEN_DOWN_MAX: usize = 256;
/// Beside its channels and texts, what a publication or subscription costs in memory, about.
const BASE_COST: usize = 512;
/// What a channel of a publication or subscription costs in memory, about: its places in three tables.
const CHANNEL_COST: usize = 256;

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
    key: KeyId,
    _charge: Charge,
}

/// What one channel is for.
#[derive(Debug, Default)]
struct Channel {
    publications: BTreeMap<u64, Arc<Publication>>,
    listeners: HashMap<u64, Arc<Notify>>,
}

/// What one key has on the board.
#[derive(Debug, Default)]
struct OfKey {
    /// Its publications.
    by_end: BTreeSet<(Ticks, u64)>,
    /// Channels of all of them.
    channels: usize,
}

/// Publications that a subscription has to look at, in the order they came.
#[derive(Debug)]
pub(crate) struct Candidates {
    publications: BTreeMap<u64, Arc<Publication>>,
    /// All up to here are among them.
    up_to: u64,
}

impl Publication {
    /// What it costs in memory, in bytes.
    pub(crate) fn cost(&self) -> usize {
        BASE_COST + self.channels.len() * CHANNEL_COST + self.xdescr.len()
    }
}

impl Board {
    /// Puts a publication up and returns its number; takes down some of what has ended by now. Who
    /// listens has still to be woken ([`Self::listeners`]).
    ///
    /// # Errors
    /// The key has as much on the board as it may have.
    pub(crate) fn publish(
        &mut self,
        publication: Publication,
        key: KeyId,
        charge: Charge,
        limits: &Limits,
        now: Ticks,
    ) -> Result<u64, Refusal> {
        self.take_down_ended(key, now);
        let Limits { publications_max, channels_max, .. } = *limits;
        let (publications, channels) =
            self.keys.get(&key).map_or((0, 0), |of_key| (of_key.by_end.len(), of_key.channels));
        let channels = channels + publication.channels.len();
        if publications >= publications_max {
            return Err(Refusal::TooManyPublications { max: publications_max });
        }
        if channels > channels_max {
            return Err(Refusal::TooManyChannels { max: channels_max });
        }
        self.latest += 1;
        let number = self.latest;
        let of_key = self.keys.entry(key).or_default();
        of_key.by_end.insert((publication.until, number));
        of_key.channels = channels;
        let publication = Arc::new(publication);
        for channel in &publication.channels {
            let channel = self.channels.entry(*channel).or_default();
            channel.publications.insert(number, Arc::clone(&publication));
        }
        self.by_end.insert((publication.until, number));
        self.publications.insert(number, Held { publication, key, _charge: charge });
        Ok(number)
    }

    /// Takes a publication down; one that has ended may be gone already.
    pub(crate) fn withdraw(&mut self, number: u64) {
        let Some(Held { publication, key, .. }) = self.publications.remove(&number) else { return };
        self.by_end.remove(&(publication.until, number));
        for id in &publication.channels {
            self.change_channel(*id, |channel| drop(channel.publications.remove(&number)));
        }
        if let Some(of_key) = self.keys.get_mut(&key) {
            of_key.by_end.remove(&(publication.until, number));
            of_key.channels -= publication.channels.len();
            if of_key.by_end.is_empty() {
                self.keys.remove(&key);
            }
        }
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

    /// Who listens on a channel.
    pub(crate) fn listeners(&self, channel: &ChannelId) -> Vec<Arc<Notify>> {
        let channel = self.channels.get(channel);
        channel.map_or_else(Vec::new, |one| one.listeners.values().map(Arc::clone).collect())
    }

    /// Of what was published until now, for [`Self::add_candidates`].
    pub(crate) fn candidates(&self) -> Candidates {
        Candidates { publications: BTreeMap::new(), up_to: self.latest }
    }

    /// Adds what was published on these channels and the subscription has not looked at.
    pub(crate) fn add_candidates(
        &self,
        candidates: &mut Candidates,
        channels: &[ChannelId],
        seen: u64,
    ) {
        let unseen = seen.saturating_add(1)..;
        for channel in channels.iter().filter_map(|id| self.channels.get(id)) {
            let mut found = channel.publications.range(unseen.clone());
            for (number, publication) in found.by_ref().take(CHUNK_LEN) {
                candidates.publications.insert(*number, Arc::clone(publication));
            }
            if let Some((next, _)) = found.next() {
                candidates.up_to = candidates.up_to.min(*next - 1);
            }
        }
    }

    /// Those of this key first, which must not be refused for what has ended.
    fn take_down_ended(&mut self, key: KeyId, now: Ticks) {
        for _ in 0..TAKEN_DOWN_MAX {
            let own = self.keys.get(&key).and_then(|of_key| of_key.by_end.first());
            let ended = own.into_iter().chain(self.by_end.first()).find(|(until, _)| *until <= now);
            match ended.copied() {
                Some((_, number)) => self.withdraw(number),
                None => return,
            }
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

impl Candidates {
    /// How far the subscription will have looked.
    pub(crate) fn up_to(&self) -> u64 {
        self.up_to
    }

    /// How far the subscription has looked once it has looked at all of them, and each of them.
    pub(crate) fn into_parts(self) -> (u64, impl Iterator<Item = Arc<Publication>>) {
        let Self { publications, up_to } = self;
        (up_to, publications.into_iter().take_while(move |(n, _)| *n <= up_to).map(|(_, one)| one))
    }
}

impl Subscription {
    /// A subscription that has heard of nothing yet.
    pub(crate) fn new(channels: HashSet<ChannelId>, dattr: String, until: Ticks) -> Self {
        Self { channels, dattr, until, seen: 0 }
    }

    /// What it costs in memory, in bytes.
    pub(crate) fn cost(&self) -> usize {
        BASE_COST + self.channels.len() * CHANNEL_COST + self.dattr.len()
    }

    /// The last publication it has looked at.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// It has looked at all up to this one.
    pub(crate) fn has_seen(&mut self, number: u64) {
        self.seen = self.seen.max(number);
    }

    /// How many bytes it takes to look at a publication.
    pub(crate) fn matching_cost(&self, publication: &Publication) -> usize {
        self.dattr.len() + publication.xdescr.len()
    }

    /// What it has to hear of a publication (protocol.md 5.5). Takes time proportional to
    /// [`Self::matching_cost`].
    pub(crate) fn look_at(
        &self,
        publication: &Arc<Publication>,
        now: Ticks,
    ) -> Option<Notification> {
        if now >= publication.until || now >= self.until {
            return None;
        }
        let mut channels = publication.channels.iter();
        let channel = *channels.find(|channel| self.channels.contains(*channel))?;
        descriptor_matches(publication.xdescr.as_bytes(), self.dattr.as_bytes())
            .then(|| Notification { channel, publication: Arc::clone(publication) })
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
