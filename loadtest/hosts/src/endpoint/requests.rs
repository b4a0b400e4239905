//! The requests of a mlet, one after the other, and the notifications between the answers.
//!
//! Not here: what sockets do and what memory holds.
//!
//! Invariant: every request is answered once, in order; a notification never follows the answer to the
//! NCLOSE of its socket. Nothing follows a message that could not be sent whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use packetlab::message::{Message, MessageType, NCTL_FIN, Outcome, Protocol, Socket, Status};
use packetlab::time::Ticks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::monitors::{Asked, SessionMonitors};
use super::session_end::{End, EndpointError};
use super::sockets::Sockets;
use super::sockets::table::News;
use crate::clock::now;
use crate::link::{Link, Received};

/// The last words of a session must not wait for a controller that does not listen.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(5);

/// Shortest and longest wait between two looks at the clock that says whether certificates have expired.
const CLOCK_STEP: Duration = Duration::from_millis(1);
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What a session's requests are served with.
#[derive(Debug)]
pub(super) struct SessionTerms {
    /// None is open yet.
    pub(super) sockets: Sockets,
    /// Who is asked first.
    pub(super) monitors: SessionMonitors,
    /// How long the experiment has run in earlier sessions, which counts against its period.
    pub(super) ran: Duration,
    /// The last moment at which the controller's chain is valid.
    pub(super) not_after: Ticks,
    /// Fault: vanish, without a word, when a request of this type arrives.
    pub(super) leave_at: Option<MessageType>,
}

/// What is sent back for a request, and whether the session goes on.
struct Answer {
    message: Vec<u8>,
    /// Set if the session ends with this answer.
    end: Option<Result<End, EndpointError>>,
}

/// What happens next in a session.
enum Event {
    Request(Option<Received>),
    News(News),
}

/// Serves from START on until the session ends, which `preempted` makes it do. `first` is called when
/// the first request comes.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    terms: SessionTerms,
    preempted: impl Future<Output = ()>,
    first: impl FnOnce(),
) -> Result<End, EndpointError> {
    let SessionTerms { mut sockets, mut monitors, ran, not_after, leave_at } = terms;
    let (period, not_kept) = {
        let mut table = sockets.table();
        if !monitors.is_empty() {
            table.have_monitors();
        }
        (table.limits().period(), table.limits().not_kept())
    };
    let period = period.map(|period| period.saturating_sub(ran));
    let period_over = async {
        match period {
            Some(period) => sleep(period).await,
            None => std::future::pending().await,
        }
    };
    let in_message = AtomicBool::new(false);
    // Whatever the conversation waits for, a controller that does not read included, these end it.
    let end = tokio::select! {
        end = converse(link, &mut sockets, &mut monitors, leave_at, first, &in_message) => {
            if matches!(end, Ok(End::Closed | End::Yielded { .. })) {
                // The controller need not wait for what the sockets have still to send.
                let closing = timeout(LAST_WORDS_TIMEOUT, link.shut_down());
                let _ = tokio::join!(closing, sockets.close_all());
            }
            return end;
        }
        () = preempted => End::Preempted,
        () = period_over => End::PeriodOver,
        () = past(not_after) => End::ChainExpired,
        () = not_kept => End::NotKept,
    };
    let log = |info| Message::Linfo { name: b"pktfleet", auxiliary: b"", info };
    let words = match end {
        End::Preempted => Message::Suspd,
        End::ChainExpired => log(b"the controller's certificates have expired"),
        End::NotKept => log(b"the endpoint cannot keep what the certificates have used up"),
        _ => log(b"the experiment has lasted as long as its chain allows"),
    };
    if !in_message.load(Ordering::Relaxed) {
        // Said or not, the session is over.
        let _ = timeout(LAST_WORDS_TIMEOUT, link.send(&words)).await;
    }
    Ok(end)
}

/// Waits until a moment has passed by the clock of certificates, which may be set meanwhile.
async fn past(moment: Ticks) {
    while now() <= moment {
        let left = moment.saturating_duration_since(now());
        sleep(left.clamp(CLOCK_STEP, CLOCK_CHECK_INTERVAL)).await;
    }
}

/// Answers and notifies until the mlet or the controller ends the session. `in_message` is set while a message
/// is on its way: nothing may follow when this is abandoned then.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    sockets: &mut Sockets,
    monitors: &mut SessionMonitors,
    leave_at: Option<MessageType>,
    first: impl FnOnce(),
    in_message: &AtomicBool,
) -> Result<End, EndpointError> {
    let mut first = Some(first);
    loop {
        let backlogged = sockets.table().is_backlogged();
        let event = tokio::select! {
            received = link.receive(), if !backlogged => Event::Request(received?),
            news = sockets.next() => Event::News(news),
        };
        let answer = match event {
            Event::Request(None) => return Ok(End::Closed),
            Event::Request(Some((message_type, _))) if leave_at == Some(message_type) => {
                return Ok(End::Left);
            }
            Event::Request(Some((message_type, payload))) => {
                if let Some(first) = first.take() {
                    first();
                }
                Some(answer_if_allowed(sockets, monitors, message_type, payload).await?)
            }
            Event::News(News::Message(message)) => Some(Answer { message, end: None }),
            Event::News(News::Unchecked(number, ndata)) => {
                sockets.checked(number, monitors.ask_data(ndata).await);
                None
            }
        };
        in_message.store(true, Ordering::Relaxed);
        // Before the answer, as a mlet may end by that, and its session with it.
        for report in monitors.take_reports() {
            link.send_encoded(&report).await?;
        }
        let mut end = None;
        if let Some(answer) = answer {
            link.send_encoded(&answer.message).await?;
            end = answer.end;
        }
        in_message.store(false, Ordering::Relaxed);
        if let Some(end) = end {
            return end;
        }
    }
}

/// Asks monitors, then answers, and tells them before the answer leaves.
async fn answer_if_allowed(
    sockets: &mut Sockets,
    monitors: &mut SessionMonitors,
    message_type: MessageType,
    payload: Vec<u8>,
) -> Result<Answer, EndpointError> {
    let check = match monitors.ask(message_type, payload).await {
        Asked::Not(payload) => {
            return answer(sockets, &Message::decode(message_type, &payload)).await;
        }
        Asked::Refused(outcome) => return encoded(&Message::Result(outcome), None),
        Asked::Passed(check) => check,
    };
    let result = carry_out(sockets, &Message::decode(message_type, check.payload())).await;
    let status = result.err().unwrap_or(Status::SUCCESS);
    monitors.tell(message_type, check, status).await;
    encoded(&Message::Result(Outcome::Status(status)), None)
}

async fn answer(sockets: &mut Sockets, request: &Message<'_>) -> Result<Answer, EndpointError> {
    let (result, end) = match *request {
        Message::Mread { address, len } => {
            let data = sockets.memory().read(address, len.into());
            return encoded(&Message::Mdata { address, data: &data }, None);
        }
        Message::Yield { resume } => (Ok(()), Some(Ok(End::Yielded { resume }))),
        Message::Raw { malformed: true, message_type, .. } => {
            (Err(Status::ECTLBADMSG), Some(Err(EndpointError::Malformed(message_type))))
        }
        _ => (carry_out(sockets, request).await, None),
    };
    let status = result.err().unwrap_or(Status::SUCCESS);
    encoded(&Message::Result(Outcome::Status(status)), end)
}

fn encoded(
    message: &Message<'_>,
    end: Option<Result<End, EndpointError>>,
) -> Result<Answer, EndpointError> {
    let mut encoded = Vec::new();
    message.encode(&mut encoded).map_err(crate::link::LinkError::from)?;
    Ok(Answer { message: encoded, end })
}

/// The requests that only succeed or fail.
async fn carry_out(sockets: &mut Sockets, request: &Message<'_>) -> Result<(), Status> {
    match *request {
        Message::Nopen { sktid, receive_buffer_len, open } => {
            sockets.open(sktid, &open, receive_buffer_len)
        }
        Message::Nclose { sktid } => sockets.close(sktid).await,
        Message::Nsend { sktid, time, tag, packet } => sockets.send(sktid, time, tag, &packet),
        Message::Ncap { socket, end, filter } => sockets.capture(socket, end, filter),
        Message::Nctl { sktid, family, time, command } => {
            let socket = Socket { sktid, family, protocol: Protocol::Tcp };
            sockets.table().check(socket)?;
            match command {
                NCTL_FIN => sockets.finish(socket, time),
                _ => Err(Status::ECTLNOTSUP),
            }
        }
        Message::Mwrite { address, data } => sockets.write(address, data),
        _ => Err(Status::ECTLNOTSUP),
    }
}
