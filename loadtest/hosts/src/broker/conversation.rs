//! One connection of a broker after its handshake: messages of [`rules`] in, notifications
//! of the [`Board`](super::board::Board) out.
//!
//! Invariant: the publications and the subscription of a connection are on the board for no longer than
//! it lives. What a client has not read is never held in memory beyond one message; what it has not
//! finished writing is held for a while, and paid for.

use std::sync::Arc;
use std::time::Duration;

use packetlab::channel::ChannelId;
use packetlab::key::PublicKey;
use packetlab::message::{Message, MessageType, Outcome, Status};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use super::board::{CHUNK_LEN, Publication, Publisher, Subscription};
use super::failure::Failure;
use super::key_use::KeyUse;
use super::published::{Published, Subscribed};
use super::refusal::Refusal;
use super::role::Role;
use super::rules::{self, Accepted};
use super::shared::BrokerShared;
use crate::clock::now;
use crate::hosting::{Brief, Budget, Charge, ConnectionLog, Ending, Place, Source, WholeRecords};
use crate::link::{Link, LinkError, Patience};

/// What a certificate costs in memory, as a multiple of its size: it is kept as it came and decoded.
const CERTIFICATE_COST: usize = 4;
/// What waking a listener is worth in looks at a character.
const WAKING_LOOKS: usize = 256;
/// What looking up a channel, or finding a publication on one, is worth in them.
const FINDING_LOOKS: usize = 32;
/// What a byte of a message is worth in them: it is read, taken apart and looked up.
const READING_LOOKS: usize = 8;
/// What a channel of a publication or subscription is worth in them: it is put on the board, and taken off again.
const CHANNEL_LOOKS: usize = 512;
/// So many looks before others have their turn.
const TURN_LOOKS: usize = 4 * 1024;

/// A client's connection.
pub(super) type Stream = TlsStream<WholeRecords>;

/// Who is connected.
pub(super) struct Peer<'s> {
    pub(super) role: Role,
    /// Of its TLS connection.
    pub(super) key: PublicKey,
    pub(super) key_use: KeyUse,
    pub(super) source: Source,
    /// Its own once a request of it was accepted.
    pub(super) place: &'s Place,
}

/// One connection after its handshake.
pub(super) struct Conversation<'c> {
    shared: Arc<BrokerShared>,
    log: &'c mut ConnectionLog,
    place: &'c Place,
    link: Link<Stream>,
    key: PublicKey,
    key_use: KeyUse,
    source: Source,
    budget: Budget,
    rules: rules::Client,
    published: Published,
    subscribed: Option<Subscribed>,
    /// For the subscription.
    subscription: Option<Charge>,
    /// For the certificates it has supplied.
    certificates: Option<Charge>,
    wake: Arc<Notify>,
    /// An XPUB or XSUB was accepted.
    has_requested: bool,
    /// When the next one has to be there. It stands still while we make the client wait.
    deadline: Option<Instant>,
}

impl<'c> Conversation<'c> {
    /// Nothing was said yet.
    pub(super) fn new(
        shared: Arc<BrokerShared>,
        stream: Stream,
        Peer { role, key, key_use, source, place }: Peer<'c>,
        log: &'c mut ConnectionLog,
    ) -> Self {
        let budget = shared.memory.budget(source);
        let (timeout, charge) = (shared.limits.message_timeout, shared.limits.payload_len_max());
        let patience = Patience { timeout, budget: budget.clone(), charge };
        Self {
            link: Link::small(stream, charge).with_patience(patience),
            log,
            place,
            rules: rules::Client::new(role, key),
            key,
            key_use,
            source,
            budget,
            published: Published { shared: Arc::clone(&shared), numbers: Vec::new() },
            subscribed: None,
            subscription: None,
            certificates: None,
            wake: Arc::new(Notify::new()),
            has_requested: false,
            deadline: Some(Instant::now() + shared.limits.request_timeout),
            shared,
        }
    }

    /// Serves the client until either side ends the connection.
    pub(super) async fn run(mut self, ending: &mut Ending) -> Result<(), Failure> {
        let must_leave = self.place.must_leave();
        let ended = tokio::select! {
            ended = self.serve() => ended,
            () = must_leave => Err(Failure::MadeRoom),
            () = ending.wait() => Ok(()),
        };
        // Gone before the client learns of the end, so that it can rely on it.
        drop((self.published, self.subscribed, self.subscription));
        let _ = timeout(self.shared.limits.unread_timeout, self.link.shut_down()).await;
        ended
    }

    async fn serve(&mut self) -> Result<(), Failure> {
        loop {
            self.notify().await?;
            tokio::select! {
                received = self.link.receive() => match received {
                    Ok(Some((message_type, payload))) => self.answer(message_type, &payload).await?,
                    Ok(None) => return Ok(()),
                    Err(LinkError::Frame(error)) => self.refuse(Refusal::TooLarge(error)).await?,
                    Err(error) => return Err(error.into()),
                },
                () = self.wake.notified() => {}
                () = sleep_until(self.deadline.unwrap_or_else(Instant::now)), if self.deadline.is_some() => {
                    let limit = self.shared.limits.request_timeout;
                    return Err(Failure::TooSlow { awaited: "the request", limit });
                }
            }
        }
    }

    /// Sends what the subscription has not heard of yet.
    async fn notify(&mut self) -> Result<(), Failure> {
        // Taken out, so that it can be looked at while something is sent.
        let Some(mut subscribed) = self.subscribed.take() else { return Ok(()) };
        let told = self.tell(&mut subscribed).await;
        self.subscribed = Some(subscribed);
        told
    }

    async fn tell(&mut self, subscribed: &mut Subscribed) -> Result<(), Failure> {
        let Subscribed { channels, subscription, .. } = subscribed;
        loop {
            let mut candidates = self.shared.board().candidates();
            if candidates.up_to() == subscription.seen() {
                return Ok(());
            }
            for some in channels.chunks(CHUNK_LEN) {
                let seen = subscription.seen();
                let found = self.shared.board().add_candidates(&mut candidates, some, seen);
                self.pay((some.len() + found) * FINDING_LOOKS).await?;
                tokio::task::yield_now().await;
            }
            let (up_to, publications) = candidates.into_parts();
            let mut turn = 0;
            for publication in publications {
                let (notification, looks) = subscription.look_at(&publication, now());
                self.pay(looks).await?;
                turn += looks;
                if turn >= TURN_LOOKS {
                    turn = 0;
                    tokio::task::yield_now().await;
                }
                let Some(notification) = notification else { continue };
                let encoded = notification.encode().map_err(LinkError::Encode)?;
                self.send(&encoded, "reading notifications").await?;
                tracing::debug!(
                    "{} is notified on channel {}",
                    self.log.peer(),
                    notification.channel
                );
            }
            subscription.has_seen(up_to);
        }
    }

    /// So many looks at a character were or will be taken for this key: waits until they may.
    async fn pay(&mut self, looks: usize) -> Result<(), Failure> {
        self.pause(self.key_use.matching(looks, Instant::now())).await
    }

    /// Makes the client wait, which cannot keep its deadline meanwhile, but may leave.
    async fn pause(&mut self, duration: Duration) -> Result<(), Failure> {
        if !duration.is_zero() {
            let begun = Instant::now();
            tokio::select! {
                () = sleep(duration) => {}
                () = self.link.stream().get_ref().0.left() => return Err(Failure::Left),
            }
            if let Some(deadline) = &mut self.deadline {
                *deadline += begun.elapsed();
            }
        }
        Ok(())
    }

    async fn answer(&mut self, message_type: MessageType, payload: &[u8]) -> Result<(), Failure> {
        // Nothing more is read meanwhile, so that the client's own kernel holds it back.
        self.pause(self.key_use.message(Instant::now())).await?;
        self.pay(payload.len() * READING_LOOKS).await?;
        let accepted = self.rules.handle(message_type, payload, &self.shared.limits, now());
        let taken = match accepted {
            Ok(Accepted::Certificate) => Ok(()),
            Ok(Accepted::Publication(publication)) => {
                let (channels, looks) = (publication.channels.clone(), publication.looks());
                self.pay(channels.len() * CHANNEL_LOOKS).await?;
                match self.publish(publication) {
                    Ok(()) => Ok(self.wake_listeners(&channels, looks).await?),
                    Err(refusal) => Err(refusal),
                }
            }
            Ok(Accepted::Subscription(subscription)) => {
                self.pay(subscription.channels.len() * CHANNEL_LOOKS).await?;
                self.subscribe(subscription)
            }
            Err(refusal) => Err(refusal),
        };
        let paid = self.pay_for_certificates();
        match taken.and(paid) {
            Ok(()) => self.send_result(Status::SUCCESS).await,
            Err(refusal) => self.refuse(refusal).await,
        }
    }

    fn publish(&mut self, publication: Publication) -> Result<(), Refusal> {
        let (peer, count) = (self.log.peer(), publication.channels.len());
        let xdescr = Brief(&publication.xdescr);
        if publication.until <= now() {
            self.log.warn(format_args!("{peer} publishes what has already ended: {xdescr}"));
        } else {
            self.log.info(format_args!("{peer} publishes (channels: {count}): {xdescr}"));
        }
        let charge = self.budget.charge(publication.cost()).map_err(Refusal::Memory)?;
        let BrokerShared { limits, .. } = &*self.shared;
        let publisher = Publisher { key: self.key.key_id(), source: self.source };
        let published = self.shared.board().publish(publication, publisher, charge, limits, now());
        self.published.numbers.push(published?);
        self.has_requested();
        Ok(())
    }

    /// It has done what it came for.
    fn has_requested(&mut self) {
        self.has_requested = true;
        self.place.settle();
    }

    /// Wakes whoever listens on one of these channels. Each of them will have to look at what was published,
    /// which is worth so many looks.
    async fn wake_listeners(
        &mut self,
        channels: &[ChannelId],
        looks: usize,
    ) -> Result<(), Failure> {
        for channel in channels {
            let mut last = 0;
            loop {
                let listeners = self.shared.board().listeners(channel, last);
                self.pay(FINDING_LOOKS + listeners.len() * (WAKING_LOOKS + looks)).await?;
                let Some((number, _)) = listeners.last() else { break };
                last = *number;
                listeners.iter().for_each(|(_, listener)| listener.notify_one());
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, subscription: Subscription) -> Result<(), Refusal> {
        let (peer, count) = (self.log.peer(), subscription.channels.len());
        let dattr = Brief(&subscription.dattr);
        self.log.info(format_args!("{peer} subscribes (channels: {count}): {dattr}"));
        // It is paid for instead of the one before, which stays if that cannot be.
        let cost = subscription.cost();
        match &mut self.subscription {
            Some(charge) => charge.change_to(cost).map_err(Refusal::Memory)?,
            none => *none = Some(self.budget.charge(cost).map_err(Refusal::Memory)?),
        }
        self.subscribed = None;
        self.subscribed = Some(Subscribed::new(&self.shared, subscription, &self.wake));
        self.has_requested();
        Ok(())
    }

    /// Certificates that wait for their request cost memory and have a deadline.
    fn pay_for_certificates(&mut self) -> Result<(), Refusal> {
        let size = self.rules.certificates_size();
        self.certificates = None;
        if size > 0 {
            let charge = self.budget.charge(size * CERTIFICATE_COST).map_err(Refusal::Memory);
            self.certificates = Some(charge.inspect_err(|_| self.rules.drop_certificates())?);
            let limit = self.shared.limits.request_timeout;
            self.deadline.get_or_insert_with(|| Instant::now() + limit);
        } else if self.has_requested {
            self.deadline = None;
        }
        Ok(())
    }

    async fn refuse(&mut self, refusal: Refusal) -> Result<(), Failure> {
        self.send_result(refusal.status()).await?;
        if refusal.ends_the_connection() {
            return Err(Failure::Refused(refusal));
        }
        let (peer, status) = (self.log.peer(), refusal.status());
        self.log.info(format_args!("{peer} is refused with {status}: {refusal}"));
        Ok(())
    }

    async fn send_result(&mut self, status: Status) -> Result<(), Failure> {
        let mut encoded = Vec::new();
        Message::Result(Outcome::Status(status)).encode(&mut encoded).map_err(LinkError::Encode)?;
        self.send(&encoded, "reading answers").await
    }

    async fn send(&mut self, message: &[u8], awaited: &'static str) -> Result<(), Failure> {
        let limit = self.shared.limits.unread_timeout;
        match timeout(limit, self.link.send_encoded(message)).await {
            Ok(sent) => sent.map_err(Failure::Link),
            Err(_) => Err(Failure::TooSlow { awaited, limit }),
        }
    }
}
