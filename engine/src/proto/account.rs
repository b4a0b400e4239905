//! What a session can tell of itself, for its record.
//!
//! Not here: its sockets and its mlet, of which it knows nothing (`records`).

use std::time::Instant;

use super::endpoint_choice::Hold;
use packetlab::key::KeyId;
use packetlab::snikey::SniKey;

/// Who came, how far the set-up got and when.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The experiment that the endpoint chose; `None` before its ClientHello was whole, and when there is none of the name
    /// it gave.
    pub snikey: Option<SniKey>,
    /// Key id of the endpoint's first certificate, once it was verified; `None` also without one.
    pub endpoint_key: Option<KeyId>,
    /// Key id of the first certificate that the peer showed without proof that it is its own: its certificates were
    /// refused, or the handshake did not end. Boxed, because few sessions have it.
    pub shown_key: Option<Box<KeyId>>,
    /// The hold on its key, where each endpoint is measured once.
    pub hold: Option<Box<Hold>>,
    /// Key id of the operator's key that signed the endpoint's chain. `None` as above, and for an experiment without
    /// trusted operators.
    pub operator_key: Option<KeyId>,
    /// When the TLS handshake was over.
    pub tls_done: Option<Instant>,
    /// When START was sent: all programs were accepted, and there was a permit.
    pub start_sent: Option<Instant>,
    /// When START was answered with success. Nothing changes afterwards.
    pub start_answered: Option<Instant>,
}

/// What has passed between an endpoint and its mlet: bytes of messages, headers included. Programs, START and its answer
/// are before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    /// What was taken from the mlet for the endpoint. What it wrote after the end is not, as it is discarded.
    pub to_endpoint: Flow,
    /// What came from the endpoint, LINFOs included, also where the mlet took no more of it.
    pub from_endpoint: Flow,
    /// LINFOs of the endpoint that were not logged.
    pub linfos_lost: u64,
    /// Index of the first monitor of which a LINFO has told that it crashed (behaviour.md "Our endpoint").
    pub crashed_monitor: Option<u16>,
}

/// What all sessions of a shard have relayed; their records tell of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayedByAll {
    /// As of [`Relayed`].
    pub to_endpoint: Flow,
    /// The same.
    pub from_endpoint: Flow,
}

impl Flow {
    /// Adds what has passed in a session since it told `before`.
    pub(crate) fn add_since(&mut self, before: Self, now: Self) {
        // Most steps of a session bring nothing new.
        if now.bytes != before.bytes {
            self.bytes += now.bytes - before.bytes;
            self.messages += now.messages - before.messages;
        }
    }
}

/// What passed one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes.
    pub bytes: u64,
    /// Messages that ended.
    pub messages: u64,
}
