//! Why a connection of a broker ended before its client wanted.

use std::fmt;
use std::io;
use std::time::Duration;

use super::refusal::Refusal;
use crate::hosting::{MADE_ROOM, seconds};
use crate::link::LinkError;
use crate::tls_reason;

/// Why a connection ended before its client wanted.
#[derive(Debug)]
pub(super) enum Failure {
    /// Before it had shown who it is.
    Handshake(io::Error),
    /// It had to make room for others before it had shown who it is.
    Evicted,
    /// It had to make room for others later.
    MadeRoom,
    /// The TLS identity is gone although it was verified.
    NoIdentity,
    /// Its key has too many connections.
    TooManyOfKey {
        /// Allowed.
        max: usize,
    },
    /// It did not come in time.
    TooSlow {
        /// What.
        awaited: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// It closed while it was made to wait.
    Left,
    /// What it said makes no sense.
    Refused(Refusal),
    /// It can carry no more messages.
    Link(LinkError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(cause) => {
                write!(f, "TLS handshake failed: {}", tls_reason::reason(cause))
            }
            Self::Evicted => f.write_str("its handshake was slow, and others wait"),
            Self::MadeRoom => f.write_str(MADE_ROOM),
            Self::NoIdentity => f.write_str("it has no certificate"),
            Self::TooManyOfKey { max } => write!(f, "its key has {max} connections already"),
            Self::TooSlow { awaited, limit } => {
                write!(f, "{awaited} took more than {}", seconds(*limit))
            }
            Self::Left => f.write_str("it closed while it was made to wait"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Link(cause) => cause.fmt(f),
        }
    }
}

impl From<LinkError> for Failure {
    fn from(cause: LinkError) -> Self {
        Self::Link(cause)
    }
}
