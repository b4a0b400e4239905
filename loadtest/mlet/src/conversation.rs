//! Requests, answers and notifications on a session's stream.
//!
//! An answer does not say whose it is: answers come in the order of the requests, with notifications in
//! between (spec/protocol.md 1.2). A request whose answer does not come in time is given up, and its answer comes
//! later all the same.
//!
//! Not here: what requests mean (`client`).
//!
//! Invariants: an answer is handed out only to the request that it answers, those of requests that were given up
//! are dropped; notifications come out in the order they came in; and a deadline holds, and memory is bounded,
//! whatever the endpoint sends meanwhile.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use packetlab::frame::Framer;
use packetlab::message::{Message, MessageType, PAYLOAD_LEN_MAX};

use crate::client_error::{ClientError, KEPT_LEN_MAX};
use crate::session::SessionStream;

/// Bytes read at once.
const READ_LEN: usize = 64 * 1024;
/// What keeping one costs beside its payload.
const KEPT_LEN: usize = 64;

/// A received message: an answer, or one that answers no request.
#[derive(Debug)]
pub struct Notification {
    message_type: MessageType,
    payload: Vec<u8>,
}

impl Notification {
    /// What it says.
    pub fn message(&self) -> Message<'_> {
        Message::decode(self.message_type, &self.payload)
    }

    /// What keeping it costs.
    fn kept_len(&self) -> usize {
        self.payload.len() + KEPT_LEN
    }

    /// Only these two ever are one.
    fn is_answer(&self) -> bool {
        matches!(self.message_type, MessageType::RESULT | MessageType::MDATA)
    }
}

/// How long one call waits.
struct Wait {
    /// Without one the longest silence is the limit.
    deadline: Option<Instant>,
    /// What has come is looked at once, even if the deadline has passed before.
    has_read: bool,
}

impl Wait {
    fn until(deadline: Option<Instant>) -> Self {
        Self { deadline, has_read: false }
    }

    /// How long the next read may take, at most `silence_max`; `None` if there may be none.
    fn left(&mut self, silence_max: Duration) -> Option<Duration> {
        let Some(deadline) = self.deadline else { return Some(silence_max) };
        let left = deadline.saturating_duration_since(Instant::now());
        let is_over = left.is_zero() && self.has_read;
        self.has_read = true;
        // No time at all would mean no limit to the system.
        (!is_over).then(|| left.max(Duration::from_micros(1)))
    }
}

/// The stream of one session.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: SessionStream,
    framer: Framer,
    buffer: Vec<u8>,
    /// Notifications that came while something else was awaited.
    kept: VecDeque<Notification>,
    /// What that costs.
    kept_len: usize,
    /// Requests that were sent and whose answers have not come.
    unanswered: usize,
    /// A part of a request was sent, and the rest never will be.
    is_cut: bool,
    silence_max: Duration,
    /// The one that reads have now.
    read_timeout: Duration,
}

impl Conversation {
    /// `silence_max` bounds every wait for the endpoint.
    pub(crate) fn new(
        stream: impl Into<SessionStream>,
        silence_max: Duration,
    ) -> Result<Self, ClientError> {
        let mut stream = stream.into();
        stream.set_read_timeout(Some(silence_max)).map_err(ClientError::Io)?;
        stream.set_write_timeout(Some(silence_max)).map_err(ClientError::Io)?;
        Ok(Self {
            stream,
            framer: Framer::new(PAYLOAD_LEN_MAX),
            buffer: vec![0; READ_LEN],
            kept: VecDeque::new(),
            kept_len: 0,
            unanswered: 0,
            is_cut: false,
            silence_max,
            read_timeout: silence_max,
        })
    }

    pub(crate) fn silence_max(&self) -> Duration {
        self.silence_max
    }

    /// Asks and waits for the answer, RESULT or MDATA, which may be malformed; without a deadline as long as
    /// something comes.
    pub(crate) fn exchange(
        &mut self,
        request: &Message<'_>,
        deadline: Option<Instant>,
    ) -> Result<Notification, ClientError> {
        self.check_uncut()?;
        let mut encoded = Vec::new();
        request.encode(&mut encoded)?;
        self.write(&encoded)?;
        self.unanswered += 1;
        let mut wait = Wait::until(deadline);
        loop {
            let received = self.receive(&mut wait)?;
            match (received.is_answer(), self.unanswered) {
                (true, 0) => return Ok(received),
                // To a request that was given up.
                (true, _) => {}
                (false, _) => self.keep(received),
            }
        }
    }

    /// The next message that answers no request and is wanted; those before it are kept.
    pub(crate) fn notification(
        &mut self,
        is_wanted: impl Fn(&Message<'_>) -> bool,
        deadline: Option<Instant>,
    ) -> Result<Notification, ClientError> {
        self.check_uncut()?;
        let kept = self.kept.iter().position(|kept| is_wanted(&kept.message()));
        if let Some(notification) = kept.and_then(|at| self.kept.remove(at)) {
            self.kept_len -= notification.kept_len();
            return Ok(notification);
        }
        let mut wait = Wait::until(deadline);
        loop {
            let received = self.receive(&mut wait)?;
            // An answer that comes now is to a request that was given up.
            if received.is_answer() {
                continue;
            }
            if is_wanted(&received.message()) {
                return Ok(received);
            }
            self.keep(received);
        }
    }

    fn keep(&mut self, notification: Notification) {
        self.kept_len += notification.kept_len();
        self.kept.push_back(notification);
    }

    /// Forgets the kept notifications for which this is so.
    pub(crate) fn forget(&mut self, is_old: impl Fn(&Message<'_>) -> bool) {
        self.kept.retain(|kept| !is_old(&kept.message()));
        self.kept_len = self.kept.iter().map(Notification::kept_len).sum();
    }

    /// Sends a whole request, or nothing of it, or is cut.
    fn write(&mut self, mut rest: &[u8]) -> Result<(), ClientError> {
        let len = rest.len();
        while !rest.is_empty() {
            // SIGPIPE is ignored in mlets, so that a session's end shows as an error.
            match self.stream.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        self.is_cut = rest.len() < len;
                        return Err(ClientError::Unread(self.silence_max));
                    }
                    _ => return Err(ClientError::from_io(error)),
                },
            }
        }
        Ok(())
    }

    fn check_uncut(&self) -> Result<(), ClientError> {
        if self.is_cut { Err(ClientError::CutRequest) } else { Ok(()) }
    }

    /// The next message, unless too many are kept already.
    fn receive(&mut self, wait: &mut Wait) -> Result<Notification, ClientError> {
        if self.kept_len > KEPT_LEN_MAX {
            return Err(ClientError::TooMuchKept);
        }
        loop {
            if let Some((message_type, payload)) = self.framer.next()? {
                let received = Notification { message_type, payload: payload.to_vec() };
                if received.is_answer() {
                    let others = self.unanswered.checked_sub(1);
                    self.unanswered = others.ok_or(ClientError::Unasked(message_type))?;
                    return Ok(received);
                }
                return match received.message() {
                    Message::Suspd => Err(ClientError::Suspended),
                    Message::Raw { malformed: true, .. } => {
                        Err(ClientError::Malformed(message_type))
                    }
                    _ => Ok(received),
                };
            }
            let left = wait.left(self.silence_max);
            self.wait_at_most(left.ok_or(ClientError::Silence(self.read_timeout))?)?;
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(ClientError::EndpointLeft),
                Ok(len) => self.framer.push(self.buffer.get(..len).unwrap_or_default()),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        return Err(ClientError::Silence(self.read_timeout));
                    }
                    _ => return Err(ClientError::from_io(error)),
                },
            }
        }
    }

    /// Bounds the next read.
    fn wait_at_most(&mut self, timeout: Duration) -> Result<(), ClientError> {
        if timeout != self.read_timeout {
            self.stream.set_read_timeout(Some(timeout)).map_err(ClientError::Io)?;
            self.read_timeout = timeout;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
