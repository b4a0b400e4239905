//! How a session ended, in words for the log.
//!
//! Not here: what becomes of the mlet's exit status (`records/outcome.rs`).

use std::fmt;
use std::io::ErrorKind;

use super::greeting::GreetingError;
use crate::permits::Refusal;
use packetlab::escape::Escaped;
use packetlab::key::KeyId;
use packetlab::snikey::SniKey;
use packetlab::tls::{self, TlsError};
use packetlab::trust::ChainError;

/// How a peer's byte stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed.
    Closed,
    /// The connection broke.
    Broken(ErrorKind),
}

/// What ended a run by force, and its sessions with it; or one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// A second signal, or the loss of the supervisor.
    Stop,
    /// The run has lasted as long as it may.
    Deadline,
    /// It has gone on without new endpoints for as long as it may.
    DrainLimit,
    /// Whoever operates the run has ended this session, and not the run.
    Kill,
    /// The permits of this session and others hold no more, and the run goes on.
    Fenced,
}

/// How a session ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The mlet closed and everything it wrote was delivered.
    MletEnded,
    /// The mlet was ended because it had run as long as it may; told by the control thread, as its session only sees it
    /// close.
    MletTimeout,
    /// No byte was relayed in either direction for as long as that may be.
    IdleTimeout,
    /// The endpoint closed; the mlet got everything it had sent.
    EndpointEnded(End),
    /// The endpoint broke TLS, or told us that we did; the mlet got everything it had sent before.
    EndpointBrokeTls(TlsError),
    /// No mlet was started in time.
    MletLate,
    /// The mlet closed, but the endpoint did not take the rest in time or broke off.
    UndeliveredToEndpoint,
    /// The endpoint closed, but the mlet did not take the rest in time.
    UndeliveredToMlet,
    /// The endpoint left before START was answered.
    LeftInSetUp(End),
    /// No complete handshake in time.
    HandshakeTimeout,
    /// It said nothing or did not go on in its handshake, and others waited for what it held.
    MadeRoom,
    /// Past the handshake its key held more than its share of the places in set-up, and others waited for them.
    MadeRoomOfKey(KeyId),
    /// Its key has as many sessions as one key may have.
    TooManyOfKey(KeyId),
    /// Its key is not among those that are to be measured.
    NotChosen,
    /// Its key has been measured with success, or is being measured, and each is measured once.
    AlreadyMeasured,
    /// No answer to programs or START in time.
    SetUpTimeout,
    /// No permit for START in time.
    NoPermit,
    /// No experiment has this server name (`None`: there is no default one).
    NoExperiment(Option<String>),
    /// TLS failed: another version, bytes that are no TLS, a refused certificate.
    Tls(TlsError),
    /// Our own chain no longer holds.
    OwnChain(SniKey, ChainError),
    /// The greeting failed.
    Greeting(GreetingError),
    /// The proxy ended a connection on which no endpoint had come.
    BacklogLost(End),
    /// It is not to be measured, as those say who hand out permits.
    CampaignRefused(Refusal),
    /// The run ended while it waited for a permit.
    PermitsUsedUp,
    /// The run ended before START.
    Cancelled,
    /// The run was ended by force, and this session with it.
    Forced(Force),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Broken(kind) => write!(f, "broke off ({kind})"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MletEnded => f.write_str("the mlet ended"),
            Self::MletTimeout => f.write_str("the mlet ran too long (--mlet-timeout)"),
            Self::IdleTimeout => f.write_str("nothing was relayed for too long (--idle-timeout)"),
            Self::EndpointEnded(end) => write!(f, "the endpoint {end}"),
            Self::EndpointBrokeTls(error) => write!(f, "TLS broke off: {}", tls::reason(error)),
            Self::MletLate => f.write_str("its mlet was not started in time (--setup-timeout)"),
            Self::UndeliveredToEndpoint => {
                f.write_str("the mlet ended, but the endpoint did not take all it wrote")
            }
            Self::UndeliveredToMlet => {
                f.write_str("the endpoint closed, but the mlet did not take all it sent")
            }
            Self::LeftInSetUp(end) => write!(f, "the endpoint {end} before START"),
            Self::HandshakeTimeout => {
                f.write_str("no complete TLS handshake in time (--handshake-timeout)")
            }
            Self::MadeRoom => f.write_str(
                "it was silent or slow, and others waited for the place (--handshakes-max, --sessions-max)",
            ),
            Self::MadeRoomOfKey(key) => write!(
                f,
                "the endpoint's key {} held too many places in set-up, and others waited for them (--handshakes-max)",
                key.short()
            ),
            Self::TooManyOfKey(key) => write!(
                f,
                "the endpoint's key {} has as many sessions as one key may have (--sessions-per-key-max)",
                key.short()
            ),
            Self::NotChosen => f.write_str("the endpoint is not to be measured (--only, --skip)"),
            Self::AlreadyMeasured => f.write_str(
                "the endpoint has been measured or is being measured by this manager (--once-per-endpoint, --resume, --campaign)",
            ),
            Self::SetUpTimeout => f.write_str("START was not answered in time (--setup-timeout)"),
            Self::NoPermit => f.write_str(
                "no place of -n became free in twice the --setup-timeout; other endpoints hold them all",
            ),
            Self::NoExperiment(Some(name)) => {
                write!(f, "no ExpExec has the snikey \"{}\"", Escaped(name.as_bytes()))
            }
            Self::NoExperiment(None) => {
                f.write_str("the endpoint sent no server name and no ExpExec is the default")
            }
            Self::Tls(error) => write!(f, "TLS failed: {}", tls::reason(error)),
            Self::OwnChain(snikey, error) => {
                write!(f, "our own chain for snikey {} no longer holds: {error}", snikey.short())
            }
            Self::Greeting(error) => error.fmt(f),
            Self::BacklogLost(end) => write!(f, "the proxy {end}"),
            Self::PermitsUsedUp => f.write_str("the run ended before there was a permit for START (-n, --campaign)"),
            Self::CampaignRefused(why) => write!(f, "the campaign refused START: {why}"),
            Self::Cancelled => f.write_str("the run ended before START"),
            Self::Forced(Force::Stop) => f.write_str("the run was ended by force"),
            Self::Forced(Force::Kill) => f.write_str("it was killed (ctl)"),
            Self::Forced(Force::Fenced) => {
                f.write_str("the lease of the campaign was lost, and the session with it (--fence)")
            }
            Self::Forced(Force::Deadline) => {
                f.write_str("the run was ended by force at its --deadline")
            }
            Self::Forced(Force::DrainLimit) => {
                f.write_str("the run was ended by force at its --drain-limit")
            }
        }
    }
}
