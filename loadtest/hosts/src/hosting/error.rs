//! Why a program that is hosted cannot do its work, and its exit code.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::credentials::CredentialError;

/// Why a program cannot do its work.
#[derive(Debug)]
pub enum HostError {
    /// A key or certificate is missing or unusable.
    Credential(CredentialError),
    /// A file that was kept from before holds something else.
    Kept(String),
    /// What was typed makes no sense together.
    Usage(String),
    /// An address means nothing here.
    Resolve {
        /// As typed.
        address: String,
        /// Why not.
        cause: io::Error,
    },
    /// An address cannot be listened on.
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        cause: io::Error,
    },
    /// The one thing that was to be done has failed.
    Session(String),
    /// The kernel refuses something every program needs.
    Resource(io::Error),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(cause) => cause.fmt(f),
            Self::Kept(text) | Self::Usage(text) | Self::Session(text) => f.write_str(text),
            Self::Resolve { address, cause } => write!(f, "no address for {address}: {cause}"),
            Self::Listen { address, cause } if cause.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "another program listens on {address}, or another option names it too; end it or choose \
                     another port"
                )
            }
            Self::Listen { address, cause } => write!(f, "cannot listen on {address}: {cause}"),
            Self::Resource(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for HostError {}

impl From<CredentialError> for HostError {
    fn from(cause: CredentialError) -> Self {
        Self::Credential(cause)
    }
}

impl From<io::Error> for HostError {
    fn from(cause: io::Error) -> Self {
        Self::Resource(cause)
    }
}

impl HostError {
    /// As pktxpmgr's own codes.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Session(_) => 1,
            Self::Usage(_) => 2,
            Self::Credential(_) | Self::Kept(_) => 3,
            Self::Resolve { .. } | Self::Listen { .. } => 4,
            Self::Resource(_) => 6,
        }
    }
}
