//! Why an experiment cannot go on, and why a connection was not made or broke.
//!
//! Not here: what a mlet makes of it (`MletError`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use packetlab::frame::FrameError;
use packetlab::message::{EncodeError, MessageType, Outcome, StateChange};

/// Notifications that are kept until they are asked for, in bytes: as much as an endpoint has receive buffers.
pub(crate) const KEPT_LEN_MAX: usize = 64 << 20;

/// Why the experiment cannot go on.
#[derive(Debug)]
pub enum ClientError {
    /// Fd 0 is no session socket, or it broke.
    Io(io::Error),
    /// The endpoint left; in mid-message or not.
    EndpointLeft,
    /// Nothing that was awaited came for this long. The answer that was awaited, if one was, is dropped when it
    /// comes.
    Silence(Duration),
    /// Nothing of a request was taken for this long, or nothing more of it.
    Unread(Duration),
    /// The endpoint has sent so much that was not asked for yet, that no more is kept. What is kept can be asked for,
    /// and the session goes on then.
    TooMuchKept,
    /// A part of an earlier request was sent and the rest was not: what is sent now would be taken for that
    /// rest. The session is of no more use.
    CutRequest,
    /// The endpoint refused a request.
    Refused {
        /// What was asked for.
        request: MessageType,
        /// Why not.
        outcome: Outcome,
    },
    /// A connection could not be made.
    NotConnected {
        /// With whom.
        remote: SocketAddr,
        /// Why not.
        end: ConnectionEnd,
    },
    /// The endpoint was taken over by another experiment.
    Suspended,
    /// A message breaks the rules.
    Malformed(MessageType),
    /// An answer came to no request, or to another one.
    Unasked(MessageType),
    /// What came is no message.
    Frame(FrameError),
    /// A request cannot be written.
    Encode(EncodeError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => {
                write!(f, "fd 0 is no session: {cause}; a mlet is started by pktxpmgr")
            }
            Self::EndpointLeft => f.write_str("the endpoint left"),
            Self::Silence(limit) => write!(f, "nothing came for {} s", limit.as_secs_f64()),
            Self::Unread(limit) => {
                write!(f, "the endpoint took nothing for {} s", limit.as_secs_f64())
            }
            Self::TooMuchKept => write!(
                f,
                "the endpoint has sent more than {} MiB of notifications that the mlet has not asked for",
                KEPT_LEN_MAX >> 20
            ),
            Self::CutRequest => f.write_str(
                "the endpoint took only a part of an earlier request, so that nothing can be asked any more; \
                 end the session",
            ),
            Self::Refused { request, outcome } => {
                write!(f, "the endpoint refused {request}: {outcome}")
            }
            Self::NotConnected { remote, end } => write!(f, "no connection to {remote}: {end}"),
            Self::Suspended => f.write_str("the endpoint serves another experiment now"),
            Self::Malformed(message_type) => {
                write!(f, "the endpoint sent a malformed {message_type}")
            }
            Self::Unasked(message_type) => {
                write!(f, "the endpoint sent a {message_type} that answers no request")
            }
            Self::Frame(cause) => write!(f, "the endpoint sent no message: {cause}"),
            Self::Encode(cause) => write!(f, "a request cannot be sent: {cause}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(cause) => Some(cause),
            Self::Frame(cause) => Some(cause),
            Self::Encode(cause) => Some(cause),
            _ => None,
        }
    }
}

impl ClientError {
    pub(crate) fn from_io(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::EndpointLeft,
            _ => Self::Io(cause),
        }
    }
}

impl From<FrameError> for ClientError {
    fn from(cause: FrameError) -> Self {
        Self::Frame(cause)
    }
}

impl From<EncodeError> for ClientError {
    fn from(cause: EncodeError) -> Self {
        Self::Encode(cause)
    }
}

/// How a connection ended, or why it was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The peer has no such service.
    Refused,
    /// The peer broke it off.
    Reset,
    /// One of the two: NSTAT has one code for both.
    RefusedOrReset,
    /// The peer did not answer.
    TimedOut,
    /// There is no way to the peer.
    Unreachable,
    /// The peer closed its side.
    PeerClosed,
    /// The endpoint told nothing of it for this long.
    Untold(Duration),
    /// Something else.
    Unknown,
}

impl ConnectionEnd {
    /// What the code of an NSTAT says (spec/protocol.md 1.3).
    pub(crate) fn from_code(code: u8) -> Self {
        match code {
            StateChange::RESET => Self::RefusedOrReset,
            StateChange::TIMEOUT => Self::TimedOut,
            StateChange::PEER_CLOSED => Self::PeerClosed,
            _ => Self::Unknown,
        }
    }

    /// What the state of a socket in the endpoint's memory says (spec/protocol.md 1.12); `None` for a socket that
    /// has not failed.
    pub(crate) fn from_state(state: i8) -> Option<Self> {
        match state {
            0.. => None,
            -1 => Some(Self::Refused),
            -2 => Some(Self::Reset),
            -3 => Some(Self::TimedOut),
            -4 => Some(Self::Unreachable),
            _ => Some(Self::Unknown),
        }
    }
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::RefusedOrReset => f.write_str("refused or reset"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::Untold(limit) => {
                write!(f, "the endpoint told nothing of it for {} s", limit.as_secs_f64())
            }
            Self::Unknown => f.write_str("for an unknown reason"),
        }
    }
}
