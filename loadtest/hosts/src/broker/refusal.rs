//! Why a broker refuses a request, and the status that says so to the client (spec/protocol.md 1.11).
//!
//! Not here: when it does (`rules`).

use std::fmt;

use packetlab::certificate::CertificateError;
use packetlab::channel::{ChannelError, ChannelId};
use packetlab::frame::FrameError;
use packetlab::key::KeyId;
use packetlab::message::{MessageType, Status};
use packetlab::name_value::SearchError;
use packetlab::trust::ChainError;

use super::role::Role;
use crate::hosting::MemoryFull;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The payload breaks the rules of its type.
    Malformed(MessageType),
    /// The payload is larger than any request needs.
    TooLarge(FrameError),
    /// Such a message has no place on this port.
    Unsupported(MessageType),
    /// A certificate does not decode.
    Certificate(CertificateError),
    /// More certificates than allowed before a request.
    TooManyCertificates {
        /// Allowed.
        max: usize,
    },
    /// Certificates of more bytes than allowed before a request.
    CertificatesTooLarge {
        /// Allowed, in bytes.
        max: usize,
    },
    /// The certificates do not lead to the operator that the request names.
    Chain(ChainError),
    /// The chain is good but belongs to somebody else.
    ForeignChain {
        /// Key id of the client's TLS connection.
        key: KeyId,
    },
    /// The list of channels is not well formed.
    ChannelList(Role, ChannelError),
    /// The list of channels is empty.
    NoChannel(Role),
    /// A private channel to which the chain gives no right.
    ForeignChannel(Role, ChannelId),
    /// More channels than allowed.
    TooManyChannels {
        /// Allowed.
        max: usize,
    },
    /// More living publications than allowed.
    TooManyPublications {
        /// Allowed.
        max: usize,
    },
    /// Its source has as many publications on a public channel as are allowed.
    TooManyOfSource {
        /// Allowed.
        max: usize,
    },
    /// A descriptor or attributes that are not `name=value;` text.
    MalformedText(Role),
    /// A descriptor or attributes of more bytes than allowed.
    TextTooLong {
        /// Whose.
        role: Role,
        /// How many bytes.
        len: usize,
        /// Allowed.
        max: usize,
    },
    /// A descriptor that endpoints cannot use.
    Descriptor(&'static str),
    /// A descriptor that would take too long to be matched with attributes.
    Search(SearchError),
    /// There is no memory to keep it.
    Memory(MemoryFull),
    /// `controller_addr` is missing, repeated, or no address.
    Address,
    /// `exp_priority` is repeated or no number.
    Priority,
}

impl Refusal {
    /// What the client is told.
    pub(crate) fn status(&self) -> Status {
        let by_role = |role: &Role, publisher, subscriber| match role {
            Role::Publisher => publisher,
            Role::Subscriber => subscriber,
        };
        match self {
            Self::TooLarge(FrameError { message_type: MessageType::XCERT, .. })
            | Self::TooManyCertificates { .. }
            | Self::CertificatesTooLarge { .. } => Status::ECRTNOSPACE,
            Self::Malformed(_) | Self::TooLarge(_) => Status::ECTLBADMSG,
            Self::Unsupported(_) => Status::ECTLNOTSUP,
            Self::Certificate(_) | Self::Chain(_) | Self::ForeignChain { .. } => Status::ECRTBADFRM,
            Self::ChannelList(role, _) | Self::NoChannel(role) => {
                by_role(role, Status::EPUBBADCHL, Status::ESUBBADCHL)
            }
            Self::ForeignChannel(role, _) => by_role(role, Status::EPUBBADCHN, Status::ESUBBADCHN),
            Self::TooManyChannels { .. }
            | Self::TooManyPublications { .. }
            | Self::TooManyOfSource { .. }
            | Self::Memory(_) => Status::ENORES,
            Self::MalformedText(role) | Self::TextTooLong { role, .. } => {
                by_role(role, Status::EPUBBADXD, Status::ESUBBADDA)
            }
            Self::Descriptor(_) | Self::Search(_) => Status::EPUBBADXD,
            Self::Address => Status::EPUBBADADDR,
            Self::Priority => Status::EPUBBADPR,
        }
    }

    /// The client is not worth a further word: it does not speak the protocol.
    pub(crate) fn ends_the_connection(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::TooLarge(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(message_type) => write!(f, "a malformed {message_type}"),
            Self::TooLarge(error) => error.fmt(f),
            Self::Unsupported(message_type) => write!(f, "{message_type} has no place here"),
            Self::Certificate(error) => write!(f, "unusable certificate: {error}"),
            Self::TooManyCertificates { max } => write!(f, "more than {max} certificates"),
            Self::CertificatesTooLarge { max } => {
                write!(f, "certificates of more than {max} bytes")
            }
            Self::Chain(error) => write!(f, "chain not trusted: {error}"),
            Self::ForeignChain { key } => {
                write!(
                    f,
                    "the chain belongs to another key than {}, which opened the connection",
                    key.short()
                )
            }
            Self::ChannelList(_, error) => error.fmt(f),
            Self::NoChannel(_) => write!(f, "the channel list is empty"),
            Self::ForeignChannel(_, channel) => {
                write!(f, "the chain gives no right to the private channel {}", channel.short())
            }
            Self::TooManyChannels { max } => write!(f, "more than {max} channels"),
            Self::TooManyPublications { max } => {
                write!(f, "more than {max} publications of its key")
            }
            Self::TooManyOfSource { max } => {
                write!(f, "more than {max} publications of its source on one public channel")
            }
            Self::MalformedText(_) => write!(f, "its text is not of the form `name=value;`"),
            Self::TextTooLong { len, max, .. } => {
                write!(f, "its text has {len} bytes, more than {max}")
            }
            Self::Descriptor(reason) => write!(f, "descriptor refused: {reason}"),
            Self::Search(error) => write!(f, "descriptor refused: {error}"),
            Self::Memory(error) => error.fmt(f),
            Self::Address => {
                write!(
                    f,
                    "the descriptor has no controller_addr, several, or one that is no address"
                )
            }
            Self::Priority => write!(f, "exp_priority is no number, or there are several"),
        }
    }
}

impl std::error::Error for Refusal {}
