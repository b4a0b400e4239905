//! How a session ends: by the rules, or why it failed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use packetlab::message::MessageType;
use packetlab::time::Ticks;
use packetlab::tls::SetupError;
use packetlab::trust::ChainError;

use super::ledger::{LedgerError, StateError};
use super::monitor_error::MonitorError;
use super::subscribe::SubscribeError;
use crate::link::LinkError;
use crate::tls_reason;

/// Most programs that a chain may demand (spec/protocol.md 5.1).
pub(super) const PROGRAMS_MAX: usize = 100;

/// A session that ended by the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The controller closed between two messages; with or without close_notify (spec/protocol.md 3.6).
    Closed,
    /// The controller sent YIELD.
    Yielded {
        /// When it wants the endpoint back.
        resume: Ticks,
    },
    /// Another experiment needs the endpoint.
    Preempted,
    /// The experiment took as long as its chain allows.
    PeriodOver,
    /// The controller's chain is not valid any more.
    ChainExpired,
    /// What the controller's certificates use up cannot be kept.
    NotKept,
    /// The endpoint vanished, as it was told to.
    Left,
}

/// Why a session failed.
#[derive(Debug)]
pub enum EndpointError {
    /// No connection to the controller.
    Connect {
        /// The addresses that were tried.
        controllers: Vec<SocketAddr>,
        /// Of the last try.
        cause: io::Error,
    },
    /// The broker did not tell of an experiment.
    Subscription(SubscribeError),
    /// The controller's name means nothing.
    Resolve(io::Error),
    /// The server name cannot be asked for.
    ServerName(SetupError),
    /// The handshake failed.
    Handshake(io::Error),
    /// The controller's chain does not let it run experiments here.
    Chain(ChainError),
    /// Handshake or set-up took too long.
    TimedOut {
        /// What was waited for.
        awaited: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The chain does not allow experiments of this priority.
    PriorityTooHigh {
        /// That of the experiment.
        priority: u64,
        /// The highest allowed.
        max: u64,
    },
    /// The chain's certificates have no accounts.
    Ledger(LedgerError),
    /// What the chain's certificates use up cannot be kept.
    State(StateError),
    /// Its monitor programs are not run, or cannot be.
    Monitors(MonitorError),
    /// The chain demands more programs than an endpoint keeps track of.
    TooManyPrograms {
        /// How many.
        count: usize,
    },
    /// START came although the chain demands programs that did not.
    ProgramsMissing {
        /// How many.
        count: usize,
    },
    /// At START there was no place for it.
    NoPlace,
    /// The controller closed before START.
    ClosedInSetup,
    /// A message broke the rules of its type.
    Malformed(MessageType),
    /// The connection broke.
    Link(LinkError),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the controller closed the session",
            Self::Yielded { .. } => "the mlet yielded",
            Self::Preempted => "another experiment needs the endpoint",
            Self::PeriodOver => "the experiment took as long as its chain allows",
            Self::ChainExpired => "the controller's certificates have expired",
            Self::NotKept => "what the controller's certificates use up cannot be kept",
            Self::Left => "the endpoint was ended on purpose",
        })
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { controllers, cause } => {
                let controllers: Vec<_> = controllers.iter().map(SocketAddr::to_string).collect();
                let controllers = controllers.join(", ");
                write!(f, "no connection to the controller at {controllers}: {cause}")
            }
            Self::Subscription(cause) => write!(f, "no word from the broker: {cause}"),
            Self::Resolve(cause) => write!(f, "the controller's name has no address: {cause}"),
            Self::ServerName(cause) => cause.fmt(f),
            Self::Handshake(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => f.write_str(
                "it closed the connection in the TLS handshake; a controller does so, or a proxy for it, when it \
                 has no experiment of the server name that was asked for (--snikey)",
            ),
            Self::Handshake(cause) => {
                write!(f, "the TLS handshake failed: {}", tls_reason::reason(cause))
            }
            Self::Chain(cause) => write!(f, "the controller's chain is not trusted: {cause}"),
            Self::TimedOut { awaited, limit } => {
                write!(f, "the controller did not complete {awaited} in {} s", limit.as_secs())
            }
            Self::PriorityTooHigh { priority, max } => write!(
                f,
                "the experiment has priority {priority}, but its chain allows {max} at most"
            ),
            Self::Ledger(cause) => cause.fmt(f),
            Self::State(cause) => cause.fmt(f),
            Self::Monitors(cause) => cause.fmt(f),
            Self::TooManyPrograms { count } => {
                write!(f, "the controller's chain demands {count} programs, more than {PROGRAMS_MAX}")
            }
            Self::ProgramsMissing { count } => write!(
                f,
                "START came without all programs that the chain demands ({count} missing); \
                 put them into the controller's ProgramDirPath"
            ),
            Self::NoPlace => f.write_str("others that are as important have all places"),
            Self::ClosedInSetup => f.write_str("the controller closed before START"),
            Self::Malformed(message_type) => {
                write!(f, "the controller sent a malformed {message_type}")
            }
            Self::Link(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for EndpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect { cause, .. } | Self::Handshake(cause) | Self::Resolve(cause) => {
                Some(cause)
            }
            Self::Subscription(cause) => Some(cause),
            Self::ServerName(cause) => Some(cause),
            Self::Chain(cause) => Some(cause),
            Self::Link(cause) => Some(cause),
            Self::State(cause) => Some(cause),
            Self::Monitors(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<MonitorError> for EndpointError {
    fn from(cause: MonitorError) -> Self {
        Self::Monitors(cause)
    }
}

impl From<LinkError> for EndpointError {
    fn from(cause: LinkError) -> Self {
        Self::Link(cause)
    }
}
