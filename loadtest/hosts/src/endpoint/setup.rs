//! The set-up before the mlet: programs, then START (spec/protocol.md 5.1).
//!
//! Not here: running the programs. Because monitors are not run, an experiment that demands any is
//! refused at START, unless that is not wanted.
//!
//! Invariant: START succeeds only after every demanded program has come.

use std::time::Duration;

use packetlab::message::{Message, Outcome, Status};
use packetlab::program::{Program, ProgramDigest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::session_end::{EndpointError, PROGRAMS_MAX};
use crate::link::Link;

/// The CDATA hints there are (spec/protocol.md 1.4). No certificate can demand filters.
const MONITOR: &[u8] = b"monitor";
const FILTER: &[u8] = b"filter";

/// Answers the controller until START has succeeded. It must come within `limit`, and then there must be a `place`
/// for the experiment.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    demanded: &[ProgramDigest],
    monitors_not_enforced: bool,
    limit: Duration,
    place: impl Future<Output = bool>,
) -> Result<(), EndpointError> {
    let count = demanded.len();
    if count > PROGRAMS_MAX {
        return Err(EndpointError::TooManyPrograms { count });
    }
    timeout(limit, answer_until_start(link, demanded, monitors_not_enforced))
        .await
        .map_err(|_| EndpointError::TimedOut { awaited: "the set-up", limit })??;
    if !place.await {
        return Err(EndpointError::NoPlace);
    }
    Ok(link.send(&Message::Result(Outcome::SUCCESS)).await?)
}

/// Leaves the START that succeeds unanswered.
async fn answer_until_start<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    demanded: &[ProgramDigest],
    monitors_not_enforced: bool,
) -> Result<(), EndpointError> {
    let mut missing = demanded.to_vec();
    loop {
        let Some((message_type, payload)) = link.receive().await? else {
            return Err(EndpointError::ClosedInSetup);
        };
        let (outcome, done) = match Message::decode(message_type, &payload) {
            Message::Cdata { hint, data } => match admit(hint, data, demanded) {
                Ok(digest) => {
                    missing.retain(|demanded| *demanded != digest);
                    (Outcome::SUCCESS, None)
                }
                Err(status) => (Outcome::Status(status), None),
            },
            Message::Start if !missing.is_empty() => {
                let count = missing.len();
                let error = EndpointError::ProgramsMissing { count };
                (Outcome::Status(Status::ECRTNOHDAT), Some(Err(error)))
            }
            Message::Start if !(demanded.is_empty() || monitors_not_enforced) => {
                let error = EndpointError::MonitorsNotRun { count: demanded.len() };
                (Outcome::MonitorFailed { monitor_index: 0 }, Some(Err(error)))
            }
            Message::Start => return Ok(()),
            Message::Raw { malformed: true, .. } => {
                let error = EndpointError::Malformed(message_type);
                (Outcome::Status(Status::ECTLBADMSG), Some(Err(error)))
            }
            _ => (Outcome::Status(Status::ECTLNOTSUP), None),
        };
        link.send(&Message::Result(outcome)).await?;
        if let Some(result) = done {
            return result;
        }
    }
}

/// The digest of a program that is welcome.
fn admit(hint: &[u8], data: &[u8], demanded: &[ProgramDigest]) -> Result<ProgramDigest, Status> {
    let demanded = match hint {
        MONITOR => demanded,
        FILTER => &[],
        _ => return Err(Status::ECRTBADHINT),
    };
    let program = Program::decode(data).map_err(|_| Status::ECRTBADHDAT)?;
    let digest = program.digest();
    if demanded.contains(digest) { Ok(*digest) } else { Err(Status::ECRTBADHDAT) }
}
