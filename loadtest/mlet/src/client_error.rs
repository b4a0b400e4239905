//! Why an experiment cannot go on, and why a connection was not made or broke.
//!
//! Not here: what a mlet makes of it (`MletError`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use packetlab::frame::FrameError;
use packetlab::message::{EncodeError, MessageType, Outcome, StateChange, Status};

/// So many bytes of notifications and answers are kept at most until they are asked for: as much as an endpoint has receive
/// buffers. Beyond that nothing more is read, and calls fail with [`ClientError::TooMuchKept`].
pub const KEPT_LEN_MAX: usize = 64 << 20;

/// Why the experiment cannot go on, or a part of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// Fd 0 is no session socket, or it broke.
    Io(io::Error),
    /// The endpoint left; in mid-message or not.
    EndpointLeft(Awaited),
    /// What was awaited did not come in time. The answer to a request, if that was awaited, is dropped when it comes:
    /// the session goes on.
    Silence {
        /// What, and of which target.
        awaited: String,
        /// For how long.
        waited: Duration,
    },
    /// The deadline of the whole session has passed.
    SessionOver {
        /// What was awaited then, and of which target.
        awaited: String,
        /// For how long.
        waited: Duration,
    },
    /// The endpoint did not take a request in time. One of which nothing was sent is never sent, and the rest of
    /// another is sent when the endpoint takes it: the session goes on.
    Unread {
        /// Which, and of which target.
        request: String,
        /// For how long it was tried.
        waited: Duration,
    },
    /// The endpoint has sent so much that was not asked for yet, that no more is kept. What is kept can be asked for,
    /// and the session goes on then.
    TooMuchKept(Awaited),
    /// The endpoint refused a request.
    Refused {
        /// What was asked for.
        request: MessageType,
        /// Of which target.
        target: String,
        /// Why not.
        outcome: Outcome,
    },
    /// The endpoint may not do what was asked for: its operator, the experiment's certificates or its system are
    /// against it.
    Denied {
        /// What was asked for.
        request: MessageType,
        /// Of which target.
        target: String,
        /// Who is against it.
        outcome: Outcome,
    },
    /// A connection could not be made.
    NotConnected {
        /// With whom.
        remote: SocketAddr,
        /// Why not.
        end: ConnectionEnd,
        /// For how long it was awaited.
        waited: Duration,
    },
    /// A connection broke.
    Broken {
        /// Which.
        target: String,
        /// How.
        end: ConnectionEnd,
    },
    /// A monitor of the endpoint's operator has blocked what a socket received. Of a stream nothing more is handed
    /// out, since a part of it is missing; a datagram or packet may follow.
    Blocked {
        /// Which socket.
        target: String,
        /// The monitor's own code (NBLOCK); 0 if it crashed.
        monitor_errid: u16,
    },
    /// A packet did not leave the endpoint.
    NotSent {
        /// By which socket.
        target: String,
        /// Why not.
        status: Status,
    },
    /// A DNS server has no answer, or there is no such question.
    LookUp {
        /// The name that was asked for.
        name: String,
        /// Who was asked.
        server: SocketAddr,
        /// Why there is no answer.
        reason: String,
    },
    /// A name has no address at the controller, or is none.
    Unresolved {
        /// The name, perhaps with a port.
        name: String,
        /// Why not.
        cause: io::Error,
    },
    /// Nothing can be sent to a port that is 0 or above 65535.
    NoPort {
        /// The server, with the port.
        server: String,
        /// The port.
        port: String,
    },
    /// Of the numbers that were given for sockets none is left.
    NoSktid,
    /// The endpoint has suspended the session (SUSPD), which is over: another experiment needs it, or it is being ended.
    Suspended(Awaited),
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
            Self::EndpointLeft(awaited) => write!(f, "the endpoint left{awaited}"),
            Self::Silence { awaited, waited } => {
                write!(f, "{awaited} did not come in {:.3} s", waited.as_secs_f64())
            }
            Self::SessionOver { awaited, waited } => write!(
                f,
                "the session's deadline passed when {awaited} had been awaited for {:.3} s",
                waited.as_secs_f64()
            ),
            Self::Unread { request, waited } => {
                write!(f, "the endpoint did not take {request} in {:.3} s", waited.as_secs_f64())
            }
            Self::TooMuchKept(awaited) => write!(
                f,
                "the endpoint has sent more than {} MiB of notifications that the mlet has not asked for{awaited}",
                KEPT_LEN_MAX >> 20
            ),
            Self::Refused { request, target, outcome } => {
                write!(f, "the endpoint refused {}{}: {outcome}", named(*request), Of(target))
            }
            Self::Denied { request, target, outcome } => {
                write!(f, "the endpoint was denied {}{}: {outcome}", named(*request), Of(target))
            }
            Self::NotConnected { remote, end, waited } => {
                write!(f, "no connection to {remote}: {end} after {:.3} s", waited.as_secs_f64())
            }
            Self::Broken { target, end } => write!(f, "{target}: the connection broke: {end}"),
            Self::Blocked { target, monitor_errid } => {
                write!(f, "{target}: {}", block_told(*monitor_errid))
            }
            Self::NotSent { target, status } => {
                write!(f, "{target}: a packet was not sent: {status}")
            }
            Self::LookUp { name, server, reason } => {
                write!(f, "{server} on '{}': {reason}", name.escape_debug())
            }
            Self::Unresolved { name, cause } => {
                write!(f, "{} has no address: {cause}", name.escape_debug())
            }
            Self::NoPort { server, port } => {
                write!(f, "{}: port {port} is not from 1 to 65535", server.escape_debug())
            }
            Self::NoSktid => f.write_str(
                "no socket is left for it: of the numbers that may be used each is open at the endpoint, or there is none",
            ),
            Self::Suspended(awaited) => {
                write!(f, "the endpoint has suspended the session{awaited}")
            }
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

/// What was awaited when a session ended or did not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// What, and of which target.
    pub what: String,
    /// For how long.
    pub waited: Duration,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "; {} had been awaited for {:.3} s", self.what, self.waited.as_secs_f64())
    }
}

/// What the code of an NBLOCK says (spec/monitors.md 8).
pub(crate) fn block_told(monitor_errid: u16) -> String {
    match monitor_errid {
        0 => "a monitor crashed at what came, which is blocked".to_owned(),
        code => format!("a monitor blocked what came (its code {code})"),
    }
}

/// A request by its name.
pub(crate) fn named(request: MessageType) -> String {
    request.name().map_or_else(|| request.to_string(), str::to_owned)
}

/// A target, if there is one.
struct Of<'a>(&'a str);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(cause) | Self::Unresolved { cause, .. } => Some(cause),
            Self::Frame(cause) => Some(cause),
            Self::Encode(cause) => Some(cause),
            _ => None,
        }
    }
}

impl ClientError {
    /// What an outcome other than success is.
    pub(crate) fn from_outcome(request: MessageType, target: String, outcome: Outcome) -> Self {
        if is_denial(outcome.status()) {
            Self::Denied { request, target, outcome }
        } else {
            Self::Refused { request, target, outcome }
        }
    }

    /// The same, where what was awaited is made of several requests: what that is, and for how long it was awaited.
    pub(crate) fn awaiting(self, what: impl FnOnce() -> String, waited: Duration) -> Self {
        match self {
            Self::SessionOver { .. } => Self::SessionOver { awaited: what(), waited },
            Self::EndpointLeft(_) => Self::EndpointLeft(Awaited { what: what(), waited }),
            Self::Suspended(_) => Self::Suspended(Awaited { what: what(), waited }),
            Self::TooMuchKept(_) => Self::TooMuchKept(Awaited { what: what(), waited }),
            other => other,
        }
    }

    /// The endpoint has a socket of this number already.
    pub(crate) fn is_sktid_in_use(&self) -> bool {
        matches!(self, Self::Refused { request: MessageType::NOPEN, outcome, .. }
            if outcome.status() == Status::ESKTINUSE)
    }

    /// One word for programs, of a closed list: `refused`, `reset`, `refused_or_reset`, `timed_out`, `unreachable`,
    /// `denied`, `closed`, `unknown` of connections, `denied` and `not_sent` of packets, and else `denied`,
    /// `request_refused`, `look_up_failed`, `unresolved`, `silence`, `session_over`, `unread`, `too_much_kept`, `left`, `suspended`, `bad_message`,
    /// `bad_request` or `io`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotConnected { end, .. } | Self::Broken { end, .. } => end.word(),
            Self::Denied { .. } | Self::Blocked { .. } => "denied",
            Self::NotSent { status, .. } if is_denial(*status) => "denied",
            Self::NotSent { .. } => "not_sent",
            Self::Refused { .. } => "request_refused",
            Self::Silence { .. } => "silence",
            Self::SessionOver { .. } => "session_over",
            Self::Unread { .. } => "unread",
            Self::TooMuchKept(_) => "too_much_kept",
            Self::LookUp { .. } => "look_up_failed",
            Self::Unresolved { .. } => "unresolved",
            Self::EndpointLeft(_) => "left",
            Self::Suspended(_) => "suspended",
            Self::Malformed(_) | Self::Unasked(_) | Self::Frame(_) => "bad_message",
            Self::NoPort { .. } | Self::NoSktid | Self::Encode(_) => "bad_request",
            Self::Io(_) => "io",
        }
    }
}

/// What monitors, limits of certificates and the endpoint's system answer (spec/protocol.md 1.11).
fn is_denial(status: Status) -> bool {
    let denials = [
        Status::ECTLMONREJ,
        Status::ECTLMONUKN,
        Status::ESYSNOPERM,
        Status::ESKTPKTDENY,
        Status::ESKTOPNDENY,
    ];
    denials.contains(&status)
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
    /// The peer did not answer the endpoint.
    TimedOut,
    /// There is no way to the peer.
    Unreachable,
    /// The peer closed its side.
    PeerClosed,
    /// The endpoint told nothing of it within this time, which the mlet has set.
    Untold(Duration),
    /// The endpoint says that it stands with another peer.
    Elsewhere(SocketAddr),
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

    /// The same of a connection that stood, and so cannot have been refused.
    pub(crate) fn of_standing(code: u8) -> Self {
        match Self::from_code(code) {
            Self::RefusedOrReset => Self::Reset,
            end => end,
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

    fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::RefusedOrReset => "refused_or_reset",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::PeerClosed => "closed",
            Self::Untold(_) => "silence",
            Self::Elsewhere(_) | Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::RefusedOrReset => f.write_str("refused or reset"),
            Self::TimedOut => f.write_str("timed out at the endpoint"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::Untold(_) => f.write_str("the endpoint told nothing of it, given up"),
            Self::Elsewhere(peer) => write!(f, "the endpoint says that it stands with {peer}"),
            Self::Unknown => f.write_str("for an unknown reason"),
        }
    }
}
