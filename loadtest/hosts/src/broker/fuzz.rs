//! The door of a fuzz target to a broker's rules: one client, without a connection.
//!
//! It is there with the feature `fuzz` alone, which no program is built with.

use packetlab::channel::ChannelId;
use packetlab::key::PublicKey;
use packetlab::message::{MessageType, Status};
use packetlab::time::Ticks;

use super::limits::BrokerLimits;
use super::role::Role;
use super::rules;

/// One client.
#[derive(Debug)]
pub struct Client(rules::Client);

/// What a client asked for and gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A certificate was put to the others.
    Certificate,
    /// A publication or a subscription.
    Taken {
        /// Where, those of a subscription in any order.
        channels: Vec<ChannelId>,
        /// The descriptor or the attributes.
        text: String,
        /// Its end.
        until: Ticks,
    },
    /// Nothing.
    Refused {
        /// What it is told.
        status: Status,
        /// Whether its connection ends.
        ends: bool,
    },
}

impl Client {
    /// A publisher, or else a subscriber, with this key.
    pub fn new(publishes: bool, key: PublicKey) -> Self {
        Self(rules::Client::new(if publishes { Role::Publisher } else { Role::Subscriber }, key))
    }

    /// Bytes of the certificates that it has supplied for its next request.
    pub fn certificates_size(&self) -> usize {
        self.0.certificates_size()
    }

    /// Judges one message.
    pub fn handle(
        &mut self,
        message_type: MessageType,
        payload: &[u8],
        limits: &BrokerLimits,
        now: Ticks,
    ) -> Verdict {
        match self.0.handle(message_type, payload, limits, now) {
            Ok(rules::Accepted::Certificate) => Verdict::Certificate,
            Ok(rules::Accepted::Publication(publication)) => Verdict::Taken {
                channels: publication.channels,
                text: publication.xdescr,
                until: publication.until,
            },
            Ok(rules::Accepted::Subscription(subscription)) => Verdict::Taken {
                channels: subscription.channels.into_iter().collect(),
                text: subscription.dattr,
                until: subscription.until,
            },
            Err(refusal) => {
                Verdict::Refused { status: refusal.status(), ends: refusal.ends_the_connection() }
            }
        }
    }
}
