//! What a mlet is told about its session (behaviour.md "What a mlet finds").
//!
//! Not here: how it is told (`mlet_request`).

use std::net::IpAddr;

use packetlab::key::KeyId;
use packetlab::snikey::SniKey;

/// What a mlet is told about its session (behaviour.md "What a mlet finds").
#[derive(Debug, Clone)]
pub struct MletFacts {
    /// Address of the TCP peer.
    pub peer: IpAddr,
    /// Key id of the endpoint's first certificate, if it presented one.
    pub endpoint_key: Option<KeyId>,
    /// The experiment's snikey.
    pub snikey: SniKey,
}
