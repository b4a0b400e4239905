//! Why there are no credentials.

use std::fmt;

use packetlab::certificate::CertificateError;
use packetlab::issue::IssueError;
use packetlab::key::KeyError;
use packetlab::program::ProgramError;
use packetlab::snikey::SniKeyError;
use packetlab::tls::SetupError;
use packetlab::trust::ChainError;
use packetlab_home as home;

use crate::endpoint::subscribe::InterestError;

/// Why there are no credentials.
#[derive(Debug)]
pub enum HomeError {
    /// The directory cannot be made or written.
    Home(home::HomeError),
    /// The name by which endpoints choose is none.
    SniKey(SniKeyError),
    /// A key cannot be made.
    Key(KeyError),
    /// The program is none.
    Program(ProgramError),
    /// A certificate cannot be made.
    Issue(IssueError),
    /// A certificate that was made cannot be read.
    Certificate(CertificateError),
    /// TLS refuses an identity.
    Tls(SetupError),
    /// The endpoints cannot subscribe.
    Interest(InterestError),
    /// An endpoint's certificates are not those of its key.
    OtherKey,
    /// No controller accepts an endpoint.
    Chain(ChainError),
}

impl HomeError {
    /// As pktxpmgr's own: 6 where the machine takes no files there, else 70.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Home(
                home::HomeError::File { .. }
                | home::HomeError::Occupied(_)
                | home::HomeError::Nameless(_)
                | home::HomeError::Inexpressible(_),
            ) => 6,
            _ => 70,
        }
    }
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(cause) => write!(f, "{cause} (TMPDIR names another place)"),
            Self::SniKey(cause) => write!(f, "the snikey is unusable: {cause}"),
            Self::Key(cause) => write!(f, "no key can be made: {cause}"),
            Self::Program(cause) => write!(f, "the program is unusable: {cause}"),
            Self::Issue(cause) => write!(f, "no certificate can be issued: {cause}"),
            Self::Certificate(cause) => write!(f, "an issued certificate is unusable: {cause}"),
            Self::Tls(cause) => write!(f, "an identity cannot be used in TLS: {cause}"),
            Self::Interest(cause) => write!(f, "an endpoint cannot subscribe: {cause}"),
            Self::OtherKey => f.write_str("the certificates are not those of the key"),
            Self::Chain(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for HomeError {}

impl From<home::HomeError> for HomeError {
    fn from(cause: home::HomeError) -> Self {
        Self::Home(cause)
    }
}

impl From<SniKeyError> for HomeError {
    fn from(cause: SniKeyError) -> Self {
        Self::SniKey(cause)
    }
}

impl From<KeyError> for HomeError {
    fn from(cause: KeyError) -> Self {
        Self::Key(cause)
    }
}

impl From<ProgramError> for HomeError {
    fn from(cause: ProgramError) -> Self {
        Self::Program(cause)
    }
}

impl From<IssueError> for HomeError {
    fn from(cause: IssueError) -> Self {
        Self::Issue(cause)
    }
}

impl From<CertificateError> for HomeError {
    fn from(cause: CertificateError) -> Self {
        Self::Certificate(cause)
    }
}

impl From<SetupError> for HomeError {
    fn from(cause: SetupError) -> Self {
        Self::Tls(cause)
    }
}

impl From<InterestError> for HomeError {
    fn from(cause: InterestError) -> Self {
        Self::Interest(cause)
    }
}
