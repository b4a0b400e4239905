//! Why a conversation with the broker ended before its time.
//!
//! Not here: what follows from it (`publication.rs`).

use std::fmt;

use super::super::peer::PeerError;
use crate::proto::publisher::{PublishError, is_want_of_room};
use packetlab::message::EncodeError;
use packetlab::tls::SetupError;

/// Why a conversation ended before its time.
#[derive(Debug)]
pub(super) enum Trouble {
    Peer(PeerError),
    /// This was not answered in time.
    Silent(String),
    Protocol(PublishError),
    Tls(SetupError),
    Encode(EncodeError),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(error @ PeerError::Connect(..)) => {
                write!(f, "{error}; check BrokerAddr, and whether the broker runs")
            }
            Self::Peer(error) => error.fmt(f),
            Self::Silent(what) => write!(
                f,
                "no answer in time to {what}; is this a broker's publish port? Give it longer with \
                 --broker-timeout"
            ),
            Self::Protocol(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
        }
    }
}

impl Trouble {
    /// Whether the broker may take it once nothing else of us is there: it has no room, or closes for no reason it names.
    pub(super) fn may_be_for_want_of_room(&self) -> bool {
        match self {
            Self::Protocol(PublishError::Refused { outcome, .. }) => {
                is_want_of_room(outcome.status())
            }
            Self::Protocol(PublishError::ClosedInHandshake | PublishError::Closed { .. }) => true,
            _ => false,
        }
    }
}

impl From<PeerError> for Trouble {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

impl From<PublishError> for Trouble {
    fn from(error: PublishError) -> Self {
        Self::Protocol(error)
    }
}
