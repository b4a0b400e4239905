//! The closed list of outcomes, and which of them each end of a session (`proto/session_end.rs`) is.
//!
//! What came first names it: a session that its endpoint ended is not `ok`, whatever its mlet exits with, because what the
//! mlet still wrote was discarded.

use std::fmt;

use serde::Serialize;

use super::record::{Claim, Mlet, SessionRecord};
use crate::proto::greeting::{GreetingError, GreetingRequest};
use crate::proto::session_end::{End, Force, Outcome};
use crate::sys::supervisor::MletStatus;
use packetlab::message::Outcome as Answer;
use packetlab::tls;

/// How a session ended, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// The mlet ended with exit code 0, or closed the session where one serves all, and everything it wrote was delivered.
    Ok,
    /// The mlet ended with another exit code.
    MletFailed,
    /// A signal ended the mlet.
    MletSignal,
    /// The mlet was ended because it ran too long.
    MletTimeout,
    /// Nothing was relayed for too long.
    IdleTimeout,
    /// The mlet could not be started, or not in time, or took no more sessions where one serves all.
    SpawnFailed,
    /// The endpoint closed first, before START or after.
    EndpointClosed,
    /// The endpoint's connection broke off, before START or after.
    EndpointReset,
    /// One side closed, and the other did not take the rest.
    Undelivered,
    /// TLS failed, in the handshake or after.
    TlsFailed,
    /// The endpoint's certificates are not believed, or it showed none.
    CertificateRefused,
    /// No experiment has the name that the endpoint asked for.
    NoExperiment,
    /// The endpoint refused a monitor program, or broke the protocol before START.
    ProgramsFailed,
    /// The endpoint refused START, or answered it with something else.
    StartRefused,
    /// No complete handshake in time.
    HandshakeTimeout,
    /// Programs or START were not answered in time.
    SetupTimeout,
    /// A limit made no place for it.
    RefusedLimit,
    /// Our own chain no longer holds.
    OwnChain,
    /// The proxy ended a connection on which no endpoint had come.
    BacklogLost,
    /// Its endpoint has been measured or is being measured, and each is measured once.
    AlreadyMeasured,
    /// Its endpoint is not to be measured.
    Skipped,
    /// There was no place of `-n` for it.
    Surplus,
    /// Its result was refused, or is not wanted: its endpoint was no longer held for it.
    Duplicate,
    /// Its campaign did not permit START.
    CampaignRefused,
    /// The run was ended by force.
    Killed,
    /// The run was ended by force when it had lasted as long as it may.
    Deadline,
    /// The run ended before START.
    Drained,
    /// A part of pktxpmgr broke down.
    Internal,
}

/// Its name in records.
impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl SessionRecord {
    /// Past START it is not `ok`, or a set-up failed after a certificate was verified. Strangers do not fail a run, and
    /// neither does who was let go.
    pub(crate) fn is_failed(&self) -> bool {
        let account = &self.facts.account;
        let is_known = account.start_answered.is_some() || account.endpoint_key.is_some();
        is_known
            && !matches!(
                self.outcome(),
                OutcomeKind::Ok
                    | OutcomeKind::Surplus
                    | OutcomeKind::Duplicate
                    | OutcomeKind::CampaignRefused
                    | OutcomeKind::Skipped
                    | OutcomeKind::AlreadyMeasured
                    | OutcomeKind::Drained
            )
    }

    /// Which of the closed list its end is.
    pub(crate) fn outcome(&self) -> OutcomeKind {
        if self.is_duplicate() { OutcomeKind::Duplicate } else { self.own_outcome() }
    }

    /// Whatever it came to, its endpoint was no longer held for it. One that was ended for that reason has no result.
    fn is_duplicate(&self) -> bool {
        let is_fenced = self
            .end
            .as_ref()
            .is_some_and(|end| matches!(end.outcome, Outcome::Forced(Force::Fenced)));
        matches!(self.claim, Claim::Lost(_) | Claim::Refused(_) | Claim::GivenUp(_)) && !is_fenced
    }

    /// It came to its end by what ended the run by force, or nobody knows how: that is no result of its endpoint. A mlet that
    /// a signal has ended then may have been ended with the run.
    pub(crate) fn is_cut_off(&self, ends_by_force: bool) -> bool {
        let is_forced = self.end.as_ref().is_some_and(|end| {
            let Outcome::Forced(by) = end.outcome else { return false };
            matches!(by, Force::Stop | Force::Deadline | Force::DrainLimit)
        });
        match self.own_outcome() {
            OutcomeKind::Internal => true,
            OutcomeKind::MletSignal => ends_by_force,
            _ => is_forced,
        }
    }

    /// Its outcome, whatever others say of its result.
    pub(crate) fn own_outcome(&self) -> OutcomeKind {
        let Some(end) = &self.end else { return OutcomeKind::Internal };
        match &end.outcome {
            Outcome::MletEnded => of_mlet(&self.mlet),
            Outcome::MletTimeout => OutcomeKind::MletTimeout,
            Outcome::IdleTimeout => OutcomeKind::IdleTimeout,
            Outcome::MletLate => OutcomeKind::SpawnFailed,
            Outcome::EndpointEnded(end) | Outcome::LeftInSetUp(end) => match end {
                End::Closed => OutcomeKind::EndpointClosed,
                End::Broken(_) => OutcomeKind::EndpointReset,
            },
            Outcome::UndeliveredToEndpoint | Outcome::UndeliveredToMlet => OutcomeKind::Undelivered,
            Outcome::EndpointBrokeTls(_) => OutcomeKind::TlsFailed,
            Outcome::Tls(error) if tls::is_refused_certificate(error) => {
                OutcomeKind::CertificateRefused
            }
            Outcome::Tls(_) => OutcomeKind::TlsFailed,
            Outcome::NoExperiment(_) => OutcomeKind::NoExperiment,
            Outcome::Greeting(error) => of_greeting(error),
            Outcome::HandshakeTimeout => OutcomeKind::HandshakeTimeout,
            Outcome::SetUpTimeout => OutcomeKind::SetupTimeout,
            Outcome::MadeRoom | Outcome::MadeRoomOfKey(_) | Outcome::TooManyOfKey(_) => {
                OutcomeKind::RefusedLimit
            }
            Outcome::NotChosen => OutcomeKind::Skipped,
            Outcome::AlreadyMeasured => OutcomeKind::AlreadyMeasured,
            Outcome::NoPermit | Outcome::PermitsUsedUp => OutcomeKind::Surplus,
            Outcome::CampaignRefused(_) => OutcomeKind::CampaignRefused,
            Outcome::OwnChain(..) => OutcomeKind::OwnChain,
            Outcome::BacklogLost(_) => OutcomeKind::BacklogLost,
            Outcome::Cancelled => OutcomeKind::Drained,
            Outcome::Forced(Force::Stop | Force::DrainLimit | Force::Kill | Force::Fenced) => {
                OutcomeKind::Killed
            }
            Outcome::Forced(Force::Deadline) => OutcomeKind::Deadline,
        }
    }

    /// Why it is not `ok`, in words; `None` if it is. May hold text of the peer's.
    pub(crate) fn reason(&self) -> Option<String> {
        if !self.is_duplicate() {
            return self.own_reason();
        }
        let why = match self.claim {
            Claim::Refused(_) => "the campaign refused its result",
            Claim::GivenUp(_) if self.output.is_lost() => {
                "its mlet's output may not be whole, so the campaign has no result of it"
            }
            Claim::GivenUp(_) => {
                "its record could not be written before, so the campaign has no result of it"
            }
            _ => "the lease of the campaign was lost before it had a result",
        };
        Some(match self.own_reason() {
            None => format!("{why}; it ended as ok"),
            Some(reason) => format!("{why}; it ended as {}: {reason}", self.own_outcome()),
        })
    }

    /// Index of the monitor that has crashed, of several the first, as far as the endpoint told: by a LINFO, or by its answer
    /// to START.
    pub(crate) fn crashed_monitor(&self) -> Option<u16> {
        let end = self.end.as_ref()?;
        match &end.outcome {
            Outcome::Greeting(GreetingError::Refused {
                outcome: Answer::MonitorFailed { monitor_index },
                ..
            }) => Some(*monitor_index),
            _ => end.relayed.crashed_monitor,
        }
    }

    fn own_reason(&self) -> Option<String> {
        let Some(end) = &self.end else {
            return Some("a part of pktxpmgr broke down, and its end is not known".into());
        };
        match (&end.outcome, &self.mlet) {
            (Outcome::MletEnded, Mlet::Ended(MletStatus::Code(0), _) | Mlet::Shared) => None,
            (Outcome::MletEnded, Mlet::Ended(status, _)) => Some(format!("mlet {status}")),
            (Outcome::MletEnded, Mlet::NotStarted(reason)) => {
                Some(format!("mlet not started: {reason}"))
            }
            (Outcome::MletEnded, Mlet::None) => {
                Some("mlet not started: no socket pair could be made for it".into())
            }
            (Outcome::MletEnded, Mlet::NotTaken) => {
                Some("the one mlet of -s took no more sessions".into())
            }
            (Outcome::MletEnded, Mlet::Lost | Mlet::Asked | Mlet::Running(_)) => {
                Some("the mlet ended, and how is not known: its supervisor was lost".into())
            }
            (outcome, Mlet::NotStarted(reason)) => {
                Some(format!("{outcome}; mlet not started: {reason}"))
            }
            (outcome, _) => Some(outcome.to_string()),
        }
    }
}

/// Of a session that its mlet ended, and of which everything was delivered.
fn of_mlet(mlet: &Mlet) -> OutcomeKind {
    match mlet {
        Mlet::Ended(MletStatus::Code(0), _) | Mlet::Shared => OutcomeKind::Ok,
        Mlet::Ended(MletStatus::Code(_), _) => OutcomeKind::MletFailed,
        Mlet::Ended(MletStatus::Signal(_), _) => OutcomeKind::MletSignal,
        Mlet::None | Mlet::NotStarted(_) | Mlet::NotTaken => OutcomeKind::SpawnFailed,
        Mlet::Asked | Mlet::Running(_) | Mlet::Lost => OutcomeKind::Internal,
    }
}

fn of_greeting(error: &GreetingError) -> OutcomeKind {
    match error {
        GreetingError::Refused { what: GreetingRequest::Start, .. }
        | GreetingError::Unexpected { what: GreetingRequest::Start, .. } => {
            OutcomeKind::StartRefused
        }
        GreetingError::Refused { what: GreetingRequest::Program(_), .. }
        | GreetingError::Unexpected { what: GreetingRequest::Program(_), .. }
        | GreetingError::Unasked => OutcomeKind::ProgramsFailed,
    }
}
