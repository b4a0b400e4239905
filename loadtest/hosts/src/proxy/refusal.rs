//! Why a registration is answered with an error, and with which.
//!
//! Not here: ends of a connection that get no answer (`registration.rs`).

use std::fmt;

use packetlab::frame::FrameError;
use packetlab::message::{MessageType, Status};
use packetlab::snikey::SniKeyError;

use super::switchboard::NotRegistered;

/// Why a registration was answered with an error.
#[derive(Debug)]
pub(super) enum RegistrationRefusal {
    /// Too large for an XREG.
    TooLarge(FrameError),
    /// A malformed XREG.
    Malformed,
    /// A message other than XREG.
    Unsupported(MessageType),
    /// No endpoint could ask for this snikey in TLS.
    SniKey(SniKeyError),
    /// The snikey is another's, or there are too many connections.
    NotRegistered(NotRegistered),
}

impl RegistrationRefusal {
    /// The status of the RESULT.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::TooLarge(_) | Self::Malformed | Self::SniKey(_) => Status::ECTLBADMSG,
            Self::Unsupported(_) => Status::ECTLNOTSUP,
            Self::NotRegistered(NotRegistered::Owned) => Status::ESYSNOPERM,
            Self::NotRegistered(_) => Status::ENORES,
        }
    }
}

impl fmt::Display for RegistrationRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(error) => error.fmt(f),
            Self::Malformed => f.write_str("a malformed XREG"),
            Self::Unsupported(message_type) => write!(f, "{message_type} instead of XREG"),
            Self::SniKey(error) => error.fmt(f),
            Self::NotRegistered(error) => error.fmt(f),
        }
    }
}
