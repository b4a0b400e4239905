//! The requests of a mlet, one after the other, and the notifications between the answers.
//!
//! Not here: what sockets do. Memory (MREAD, MWRITE) and capture filters are answered as unsupported.
//!
//! Invariant: every request is answered once, in order; a notification never follows the answer to the
//! NCLOSE of its socket.

use std::net::IpAddr;

use engine::wire::message::{Message, MessageType, NCTL_FIN, Outcome, Protocol, Socket, Status};
use tokio::io::{AsyncRead, AsyncWrite};

use super::sockets::Sockets;
use super::{End, EndpointError};
use crate::link::{Link, Received};

/// What follows a request.
struct Answer {
    status: Status,
    /// Set if the session ends with this answer.
    end: Option<Result<End, EndpointError>>,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self { status, end: None }
    }
}

impl From<Result<(), Status>> for Answer {
    fn from(result: Result<(), Status>) -> Self {
        result.err().unwrap_or(Status::SUCCESS).into()
    }
}

/// Serves from the `first` request on until the session ends. `address` is the endpoint's own;
/// a request of type `leave_at` ends everything at once.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    first: Received,
    address: IpAddr,
    leave_at: Option<MessageType>,
) -> Result<End, EndpointError> {
    let (mut sockets, mut notifications) = Sockets::new(address);
    let mut next = Some(first);
    loop {
        let received = match next.take() {
            Some(received) => received,
            None => tokio::select! {
                received = link.receive() => match received? {
                    Some(received) => received,
                    None => return Ok(End::Closed),
                },
                Some(notification) = notifications.recv() => {
                    if sockets.is_open(notification.socket) {
                        link.send_encoded(&notification.message).await?;
                    }
                    continue;
                }
            },
        };
        let (message_type, payload) = received;
        if leave_at == Some(message_type) {
            return Ok(End::Left);
        }
        let answer = answer(&mut sockets, &Message::decode(message_type, &payload));
        link.send(&Message::Result(Outcome::Status(answer.status))).await?;
        if let Some(end) = answer.end {
            return end;
        }
    }
}

fn answer(sockets: &mut Sockets, request: &Message<'_>) -> Answer {
    match *request {
        Message::Nopen { sktid, open, .. } => sockets.open(sktid, &open).into(),
        Message::Nclose { sktid } => sockets.close(sktid).into(),
        Message::Nsend { sktid, time, tag, packet } => {
            sockets.send(sktid, time, tag, &packet).into()
        }
        Message::Nctl { sktid, family, time, command } => {
            let socket = Socket { sktid, family, protocol: Protocol::Tcp };
            match command {
                NCTL_FIN => sockets.finish(socket, time).into(),
                _ => Status::ECTLNOTSUP.into(),
            }
        }
        Message::Ncap { socket, .. } => sockets.check(socket).and(Err(Status::ESKTNOPROTO)).into(),
        Message::Yield { resume } => {
            Answer { status: Status::SUCCESS, end: Some(Ok(End::Yielded { resume })) }
        }
        Message::Raw { malformed: true, message_type, .. } => Answer {
            status: Status::ECTLBADMSG,
            end: Some(Err(EndpointError::Malformed(message_type))),
        },
        _ => Status::ECTLNOTSUP.into(),
    }
}
