//! What a client of a broker is there for, and what that makes of its certificates.

use packetlab::channel::ChannelId;
use packetlab::trust::{TrustMode, VerifiedChain};

/// Which of the broker's two ports a client came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Publishes experiments.
    Publisher,
    /// Subscribes to channels.
    Subscriber,
}

impl Role {
    /// How the certificates of such a client are judged.
    pub(super) fn trust_mode(self) -> TrustMode {
        match self {
            Self::Publisher => TrustMode::EndpointAuthenticatesController,
            Self::Subscriber => TrustMode::ControllerAuthenticatesEndpoint,
        }
    }

    /// The channels that a chain gives a right to (spec/protocol.md 4.7).
    pub(super) fn private_channels(self, chain: &VerifiedChain) -> Vec<ChannelId> {
        let signers = chain.certificates.iter().map(|certificate| certificate.authority_key_id);
        let channels = signers.filter_map(|signer| ChannelId::new(&signer.0).ok());
        match self {
            Self::Publisher => channels.rev().take(1).collect(),
            Self::Subscriber => channels.collect(),
        }
    }
}
