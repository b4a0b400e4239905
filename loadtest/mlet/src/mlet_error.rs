//! Why a mlet gives up.
//!
//! Not here: why a session cannot go on (`client_error`).

use std::fmt;
use std::io;

use crate::client_error::{ClientError, block_told};

/// Why a mlet gives up.
#[derive(Debug)]
#[non_exhaustive]
pub enum MletError {
    /// The session ended, a request was refused, or a name has no address.
    Client(ClientError),
    /// The command line is no good; [`run`](crate::run) tells how it should be.
    Usage,
    /// Something at the controller failed, such as standard output.
    Io(io::Error),
    /// The measurement failed; why.
    Failed(String),
}

impl MletError {
    /// A monitor has blocked something that the measurement needs; with the code of its NBLOCK.
    #[must_use]
    pub fn blocked(monitor_errid: u16) -> Self {
        Self::Failed(block_told(monitor_errid))
    }
}

impl fmt::Display for MletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(cause) => cause.fmt(f),
            Self::Usage => f.write_str("these are not its arguments"),
            Self::Io(cause) => cause.fmt(f),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for MletError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(cause) => Some(cause),
            Self::Io(cause) => Some(cause),
            Self::Usage | Self::Failed(_) => None,
        }
    }
}

impl From<ClientError> for MletError {
    fn from(cause: ClientError) -> Self {
        Self::Client(cause)
    }
}

impl From<io::Error> for MletError {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}
