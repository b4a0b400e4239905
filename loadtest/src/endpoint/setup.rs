//! The set-up before the mlet: programs, then START (protocol.md 5.1).
//!
//! Not here: running the programs; an endpoint for tests only checks that they came.
//!
//! Invariant: START succeeds only after every demanded program has come.

use std::time::Duration;

use engine::wire::message::{Message, Outcome, Status};
use engine::wire::program::{Program, ProgramDigest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::EndpointError;
use crate::link::Link;

/// The CDATA hints there are (protocol.md 1.4).
const HINTS: [&[u8]; 2] = [b"monitor", b"filter"];

/// Answers the controller until START has succeeded, which must be within `limit`.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    demanded: &[ProgramDigest],
    limit: Duration,
) -> Result<(), EndpointError> {
    timeout(limit, answer_until_start(link, demanded))
        .await
        .map_err(|_| EndpointError::TimedOut { awaited: "the set-up", limit })?
}

async fn answer_until_start<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    demanded: &[ProgramDigest],
) -> Result<(), EndpointError> {
    let mut missing = demanded.to_vec();
    loop {
        let Some((message_type, payload)) = link.receive().await? else {
            return Err(EndpointError::ClosedInSetup);
        };
        let (status, done) = match Message::decode(message_type, &payload) {
            Message::Cdata { hint, data } => match admit(hint, data, demanded) {
                Ok(digest) => {
                    missing.retain(|demanded| *demanded != digest);
                    (Status::SUCCESS, None)
                }
                Err(status) => (status, None),
            },
            Message::Start if missing.is_empty() => (Status::SUCCESS, Some(Ok(()))),
            Message::Start => {
                let count = missing.len();
                (Status::ECRTNOHDAT, Some(Err(EndpointError::ProgramsMissing { count })))
            }
            Message::Raw { malformed: true, .. } => {
                (Status::ECTLBADMSG, Some(Err(EndpointError::Malformed(message_type))))
            }
            _ => (Status::ECTLNOTSUP, None),
        };
        link.send(&Message::Result(Outcome::Status(status))).await?;
        if let Some(result) = done {
            return result;
        }
    }
}

/// The digest of a program that is welcome.
fn admit(hint: &[u8], data: &[u8], demanded: &[ProgramDigest]) -> Result<ProgramDigest, Status> {
    if !HINTS.contains(&hint) {
        return Err(Status::ECRTBADHINT);
    }
    let program = Program::decode(data).map_err(|_| Status::ECRTBADHDAT)?;
    let digest = program.digest();
    if demanded.contains(digest) { Ok(*digest) } else { Err(Status::ECRTBADHDAT) }
}
