//! The set-up before the mlet: programs, then START (spec/protocol.md 5.1).
//!
//! Not here: which programs are welcome, and what they do (`monitors`).
//!
//! Invariant: START succeeds only after every demanded program has come, and has begun where programs are run.

use std::time::Duration;

use packetlab::message::{Message, Outcome, Status};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::monitor_error::MonitorError;
use super::monitors::{SessionMonitors, Supply};
use super::session_end::{EndpointError, PROGRAMS_MAX};
use crate::link::Link;

/// Answers the controller until START has succeeded. It must come within `limit`, and then there must be a `place`
/// for the experiment. All of its monitors have begun within `limit`, too.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    mut supply: Supply,
    limit: Duration,
    place: impl Future<Output = bool>,
) -> Result<SessionMonitors, EndpointError> {
    let count = supply.demanded();
    if count > PROGRAMS_MAX {
        return Err(EndpointError::TooManyPrograms { count });
    }
    match timeout(limit, answer_until_start(link, &mut supply)).await {
        Ok(answered) => answered?,
        Err(_) => {
            return Err(match supply.under_way() {
                Some(digest) => MonitorError::SupplySlow { digest, limit }.into(),
                None => EndpointError::TimedOut { awaited: "the set-up", limit },
            });
        }
    }
    if !place.await {
        return Err(EndpointError::NoPlace);
    }
    let (said, monitors) = match supply.begin(limit).await {
        Ok(begun) => begun,
        Err((outcome, error)) => {
            link.send(&Message::Result(outcome)).await?;
            return Err(error);
        }
    };
    link.send(&Message::Result(Outcome::SUCCESS)).await?;
    for message in said {
        link.send_encoded(&message).await?;
    }
    Ok(monitors)
}

/// Leaves the START that succeeds unanswered.
async fn answer_until_start<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    supply: &mut Supply,
) -> Result<(), EndpointError> {
    loop {
        let Some((message_type, payload)) = link.receive().await? else {
            return Err(supply.unusable().unwrap_or(EndpointError::ClosedInSetup));
        };
        let (outcome, error) = match Message::decode(message_type, &payload) {
            Message::Cdata { hint, data } => {
                let taken = supply.take(hint, data).await;
                (Outcome::Status(taken.err().unwrap_or(Status::SUCCESS)), None)
            }
            Message::Start => match supply.complete() {
                Ok(()) => return Ok(()),
                Err((outcome, error)) => (outcome, Some(error)),
            },
            Message::Raw { malformed: true, .. } => {
                let error = EndpointError::Malformed(message_type);
                (Outcome::Status(Status::ECTLBADMSG), Some(error))
            }
            _ => (Outcome::Status(Status::ECTLNOTSUP), None),
        };
        link.send(&Message::Result(outcome)).await?;
        if let Some(error) = error {
            return Err(error);
        }
    }
}
