//! What a mlet needs to talk to its endpoint: a blocking session on fd 0 (protocol.md 2).
//!
//! Not here: what to ask for. One request is open at a time, which is what most mlets do.
//!
//! Invariant: notifications come out in the order they came in, also those between a request and its
//! answer.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use engine::wire::frame::{FrameError, Framer};
use engine::wire::message::{EncodeError, Message, MessageType, Outcome, PAYLOAD_LEN_MAX};

/// Bytes read at once.
const READ_LEN: usize = 64 * 1024;

/// The session with the endpoint.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    framer: Framer,
    notifications: VecDeque<Notification>,
}

/// A message that answers no request.
#[derive(Debug)]
pub(crate) struct Notification {
    message_type: MessageType,
    payload: Vec<u8>,
}

impl Notification {
    /// What it says.
    pub(crate) fn message(&self) -> Message<'_> {
        Message::decode(self.message_type, &self.payload)
    }
}

/// Why the experiment cannot go on.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// Fd 0 is no session socket, or it broke.
    Io(io::Error),
    /// The endpoint left; in mid-message or not.
    EndpointLeft,
    /// Nothing came for this long.
    Silence(Duration),
    /// The endpoint refused a request.
    Refused {
        /// What was asked for.
        request: MessageType,
        /// Why not.
        outcome: Outcome,
    },
    /// The endpoint was taken over by another experiment.
    Suspended,
    /// A message breaks the rules.
    Malformed(MessageType),
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
            Self::EndpointLeft => f.write_str("the endpoint left"),
            Self::Silence(limit) => write!(f, "nothing came for {} s", limit.as_secs()),
            Self::Refused { request, outcome } => {
                write!(f, "the endpoint refused {request}: {outcome}")
            }
            Self::Suspended => f.write_str("the endpoint serves another experiment now"),
            Self::Malformed(message_type) => {
                write!(f, "the endpoint sent a malformed {message_type}")
            }
            Self::Frame(cause) => write!(f, "the endpoint sent no message: {cause}"),
            Self::Encode(cause) => write!(f, "a request cannot be sent: {cause}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(cause) => Some(cause),
            Self::Frame(cause) => Some(cause),
            Self::Encode(cause) => Some(cause),
            _ => None,
        }
    }
}

impl ClientError {
    fn from_io(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::EndpointLeft,
            _ => Self::Io(cause),
        }
    }
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

impl Client {
    /// The session on fd 0. `silence_max` bounds every wait for the endpoint.
    ///
    /// # Errors
    /// Fd 0 is not a socket.
    pub(crate) fn on_stdin(silence_max: Duration) -> Result<Self, ClientError> {
        let fd = io::stdin().as_fd().try_clone_to_owned().map_err(ClientError::Io)?;
        Self::new(UnixStream::from(fd), silence_max)
    }

    /// The session on `stream`, as [`Client::on_stdin`].
    ///
    /// # Errors
    /// The socket refuses a limit for reading.
    pub(crate) fn new(stream: UnixStream, silence_max: Duration) -> Result<Self, ClientError> {
        stream.set_read_timeout(Some(silence_max)).map_err(ClientError::Io)?;
        let framer = Framer::new(PAYLOAD_LEN_MAX);
        Ok(Self { stream, framer, notifications: VecDeque::new() })
    }

    /// Asks and waits for the RESULT.
    ///
    /// # Errors
    /// The endpoint refuses, leaves or is silent.
    pub(crate) fn request(&mut self, request: &Message<'_>) -> Result<(), ClientError> {
        let mut encoded = Vec::new();
        request.encode(&mut encoded)?;
        // SIGPIPE is ignored in mlets, so that a session's end shows as an error.
        self.stream.write_all(&encoded).map_err(ClientError::from_io)?;
        loop {
            let received = self.receive()?;
            match received.message() {
                Message::Result(outcome) if outcome.is_success() => return Ok(()),
                Message::Result(outcome) => {
                    return Err(ClientError::Refused { request: request.message_type(), outcome });
                }
                _ => self.notifications.push_back(received),
            }
        }
    }

    /// The next message that answers no request.
    ///
    /// # Errors
    /// The endpoint leaves or is silent.
    pub(crate) fn notification(&mut self) -> Result<Notification, ClientError> {
        match self.notifications.pop_front() {
            Some(notification) => Ok(notification),
            None => self.receive(),
        }
    }

    fn receive(&mut self) -> Result<Notification, ClientError> {
        loop {
            if let Some((message_type, payload)) = self.framer.next()? {
                let received = Notification { message_type, payload: payload.to_vec() };
                return match received.message() {
                    Message::Suspd => Err(ClientError::Suspended),
                    Message::Raw { malformed: true, .. } => {
                        Err(ClientError::Malformed(message_type))
                    }
                    _ => Ok(received),
                };
            }
            let mut bytes = vec![0; READ_LEN];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ClientError::EndpointLeft),
                Ok(len) => self.framer.push(&bytes[..len]),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        let limit = self.stream.read_timeout().ok().flatten();
                        return Err(ClientError::Silence(limit.unwrap_or_default()));
                    }
                    _ => return Err(ClientError::from_io(error)),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::wire::message::Status;

    /// A client whose endpoint has already sent `messages` and, with `leave`, left.
    fn client(messages: &[Message<'_>], leave: bool) -> (Client, UnixStream) {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut bytes = Vec::new();
        for message in messages {
            message.encode(&mut bytes).unwrap();
        }
        far.write_all(&bytes).unwrap();
        if leave {
            far.shutdown(std::net::Shutdown::Both).unwrap();
        }
        (Client::new(near, Duration::from_secs(60)).unwrap(), far)
    }

    const OK: Message<'static> = Message::Result(Outcome::SUCCESS);
    const CLOSE: Message<'static> = Message::Nclose { sktid: 1 };

    #[test]
    fn notifications_before_an_answer_are_kept_in_order() {
        let linfo = |name| Message::Linfo { name, auxiliary: b"", info: b"" };
        let (mut client, mut endpoint) =
            client(&[linfo(b"one"), linfo(b"two"), OK, linfo(b"three")], false);
        client.request(&CLOSE).unwrap();
        for name in [&b"one"[..], b"two", b"three"] {
            assert_eq!(client.notification().unwrap().message(), linfo(name));
        }
        let mut request = [0; 5];
        endpoint.read_exact(&mut request).unwrap();
        assert_eq!(request, [0x2B, 0, 0, 1, 1]);
    }

    #[test]
    fn a_refusal_names_request_and_reason() {
        let refusal = Message::Result(Outcome::Status(Status::ESKTNOTOPEN));
        let (mut client, _endpoint) = client(&[refusal], false);
        let error = client.request(&CLOSE).unwrap_err().to_string();
        assert!(error.contains("NCLOSE") && error.contains("ESKTNOTOPEN"), "{error}");
    }

    #[test]
    fn an_endpoint_that_leaves_or_is_suspended_or_errs_ends_the_experiment() {
        let (mut gone, _endpoint) = client(&[], true);
        assert!(matches!(gone.notification(), Err(ClientError::EndpointLeft)));
        assert!(matches!(gone.request(&CLOSE), Err(ClientError::EndpointLeft)));
        let (mut suspended, _endpoint) = client(&[Message::Suspd], false);
        assert!(matches!(suspended.request(&CLOSE), Err(ClientError::Suspended)));
        let (mut client, mut endpoint) = client(&[], false);
        endpoint.write_all(&[0x40, 0, 0, 1, 0]).unwrap();
        let error = client.notification().unwrap_err();
        assert!(matches!(error, ClientError::Malformed(MessageType::RESULT)), "{error}");
    }

    #[test]
    fn silence_has_a_limit() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::new(near, Duration::from_millis(10)).unwrap();
        assert!(matches!(client.notification(), Err(ClientError::Silence(_))));
    }
}
