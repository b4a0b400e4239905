//! The session of a mlet with its endpoint: blocking, one request open at a time (protocol.md 2).
//!
//! Not here: how a mlet is started, and where its session is.
//!
//! Invariant: notifications come out in the order they came in, also those between a request and its
//! answer.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use engine::wire::frame::{FrameError, Framer};
use engine::wire::message::{
    EncodeError, Message, MessageType, Open, Outcome, PAYLOAD_LEN_MAX, Packet, Socket, StateChange,
};
use engine::wire::program::Program;
use engine::wire::time::Ticks;

/// Where the endpoint's clock is in its memory (protocol.md 1.12).
const CLOCK: u32 = 0x1001_0000;

/// Bytes read at once.
const READ_LEN: usize = 64 * 1024;

/// The session with the endpoint.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    framer: Framer,
    buffer: Vec<u8>,
    notifications: VecDeque<Notification>,
    silence_max: Duration,
    /// The one that the socket has now.
    read_timeout: Duration,
}

/// A message that answers no request.
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
}

/// Why the experiment cannot go on.
#[derive(Debug)]
pub enum ClientError {
    /// Fd 0 is no session socket, or it broke.
    Io(io::Error),
    /// The endpoint left; in mid-message or not.
    EndpointLeft,
    /// Nothing came for this long.
    Silence(Duration),
    /// Nothing of a request was taken for this long.
    Unread(Duration),
    /// The endpoint refused a request.
    Refused {
        /// What was asked for.
        request: MessageType,
        /// Why not.
        outcome: Outcome,
    },
    /// A connection could not be made, or broke at once; the code is NSTAT's (protocol.md 1.3).
    NotConnected {
        /// With whom.
        remote: SocketAddr,
        /// See [`StateChange`].
        code: u8,
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
            Self::Silence(limit) => write!(f, "nothing came for {} s", limit.as_secs_f64()),
            Self::Unread(limit) => {
                write!(f, "the endpoint took nothing for {} s", limit.as_secs_f64())
            }
            Self::Refused { request, outcome } => {
                write!(f, "the endpoint refused {request}: {outcome}")
            }
            Self::NotConnected { remote, code } => {
                write!(f, "no connection to {remote}: {}", change_name(*code))
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
    pub fn on_stdin(silence_max: Duration) -> Result<Self, ClientError> {
        let fd = io::stdin().as_fd().try_clone_to_owned().map_err(ClientError::Io)?;
        Self::new(UnixStream::from(fd), silence_max)
    }

    /// The session on `stream`, as [`Client::on_stdin`].
    ///
    /// # Errors
    /// The socket refuses limits for reading and writing.
    pub fn new(stream: UnixStream, silence_max: Duration) -> Result<Self, ClientError> {
        stream.set_read_timeout(Some(silence_max)).map_err(ClientError::Io)?;
        stream.set_write_timeout(Some(silence_max)).map_err(ClientError::Io)?;
        Ok(Self {
            stream,
            framer: Framer::new(PAYLOAD_LEN_MAX),
            buffer: vec![0; READ_LEN],
            notifications: VecDeque::new(),
            silence_max,
            read_timeout: silence_max,
        })
    }

    /// Opens a socket (NOPEN) with room for `receive_buffer_len` bytes that this mlet has not been sent
    /// yet. Socket numbers are the mlet's choice.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn open(
        &mut self,
        sktid: u8,
        open: Open,
        receive_buffer_len: u32,
    ) -> Result<(), ClientError> {
        self.request(&Message::Nopen { sktid, receive_buffer_len, open })
    }

    /// Opens a TCP connection from the endpoint's own address and waits until it stands.
    ///
    /// # Errors
    /// As for [`Self::request`]; and the peer cannot be reached.
    pub fn connect(
        &mut self,
        sktid: u8,
        remote: SocketAddr,
        receive_buffer_len: u32,
    ) -> Result<(), ClientError> {
        let local = SocketAddr::new(unspecified(remote.ip()), 0);
        self.open(sktid, Open::TcpConnect { local, remote }, receive_buffer_len)?;
        let is_news = |message: &Message<'_>| matches!(message, Message::Nstat { sktid: this, .. } if *this == sktid);
        match self.wait_for(is_news)?.message() {
            Message::Nstat { change: StateChange::Code { code, .. }, .. } => {
                Err(ClientError::NotConnected { remote, code })
            }
            _ => Ok(()),
        }
    }

    /// Sends a packet (NSEND) at `time` of the endpoint's clock; NTAG with this `tag` tells when it has
    /// left.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn send(
        &mut self,
        sktid: u8,
        time: Ticks,
        tag: u16,
        packet: Packet<'_>,
    ) -> Result<(), ClientError> {
        self.request(&Message::Nsend { sktid, time, tag, packet })
    }

    /// Captures raw packets (NCAP) from now until `end`, as far as `filter` wants them.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn capture(
        &mut self,
        socket: Socket,
        end: Ticks,
        filter: &Program,
    ) -> Result<(), ClientError> {
        self.request(&Message::Ncap { socket, end, filter: filter.encoded() })
    }

    /// Closes a socket (NCLOSE); nothing is heard of it any more, but for what is already here.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn close(&mut self, sktid: u8) -> Result<(), ClientError> {
        self.request(&Message::Nclose { sktid })
    }

    /// Reads the endpoint's memory (MREAD, protocol.md 1.12).
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn read_memory(&mut self, address: u32, len: u16) -> Result<Vec<u8>, ClientError> {
        let request = Message::Mread { address, len };
        let answer = self.exchange(&request)?;
        match answer.message() {
            Message::Mdata { data, .. } => Ok(data.to_vec()),
            Message::Result(outcome) => Err(refused(&request, outcome)),
            _ => Err(ClientError::Malformed(answer.message_type)),
        }
    }

    /// Writes to the endpoint's memory (MWRITE, protocol.md 1.12).
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn write_memory(&mut self, address: u32, data: &[u8]) -> Result<(), ClientError> {
        self.request(&Message::Mwrite { address, data })
    }

    /// The endpoint's clock, which all times are of.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn clock(&mut self) -> Result<Ticks, ClientError> {
        let time = self.read_memory(CLOCK, 8)?;
        let time = time.try_into().map_err(|_| ClientError::Malformed(MessageType::MDATA))?;
        Ok(Ticks(u64::from_be_bytes(time)))
    }

    /// Asks and waits for the RESULT.
    ///
    /// # Errors
    /// The endpoint refuses, leaves or is silent.
    pub fn request(&mut self, request: &Message<'_>) -> Result<(), ClientError> {
        match self.exchange(request)?.message() {
            Message::Result(outcome) if outcome.is_success() => Ok(()),
            Message::Result(outcome) => Err(refused(request, outcome)),
            other => Err(ClientError::Malformed(other.message_type())),
        }
    }

    /// The next message that answers no request.
    ///
    /// # Errors
    /// The endpoint leaves or is silent.
    pub fn notification(&mut self) -> Result<Notification, ClientError> {
        match self.notifications.pop_front() {
            Some(notification) => Ok(notification),
            None => self.receive(None),
        }
    }

    /// The next message that answers no request, or `None` if there is none by `deadline`.
    ///
    /// # Errors
    /// The endpoint leaves.
    pub fn notification_before(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Notification>, ClientError> {
        if let Some(notification) = self.notifications.pop_front() {
            return Ok(Some(notification));
        }
        match self.receive(Some(deadline)) {
            Ok(notification) => Ok(Some(notification)),
            Err(ClientError::Silence(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next notification of a kind; those before it are kept.
    fn wait_for(
        &mut self,
        is_wanted: impl Fn(&Message<'_>) -> bool,
    ) -> Result<Notification, ClientError> {
        let kept = self.notifications.iter().position(|kept| is_wanted(&kept.message()));
        if let Some(notification) = kept.and_then(|at| self.notifications.remove(at)) {
            return Ok(notification);
        }
        loop {
            let received = self.receive(None)?;
            if is_wanted(&received.message()) {
                return Ok(received);
            }
            self.notifications.push_back(received);
        }
    }

    /// Asks and waits for the answer, RESULT or MDATA; only these two ever are one.
    fn exchange(&mut self, request: &Message<'_>) -> Result<Notification, ClientError> {
        let mut encoded = Vec::new();
        request.encode(&mut encoded)?;
        // SIGPIPE is ignored in mlets, so that a session's end shows as an error.
        self.stream.write_all(&encoded).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ClientError::Unread(self.silence_max),
            _ => ClientError::from_io(error),
        })?;
        loop {
            let received = self.receive(None)?;
            match received.message_type {
                MessageType::RESULT | MessageType::MDATA => return Ok(received),
                _ => self.notifications.push_back(received),
            }
        }
    }

    /// The next message. Without a deadline the longest silence is the limit.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<Notification, ClientError> {
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
            self.wait_at_most(deadline)?;
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
    fn wait_at_most(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // No time at all would mean no limit to the system.
        let timeout = left.map_or(self.silence_max, |left| left.max(Duration::from_micros(1)));
        if timeout != self.read_timeout {
            self.stream.set_read_timeout(Some(timeout)).map_err(ClientError::Io)?;
            self.read_timeout = timeout;
        }
        Ok(())
    }
}

fn refused(request: &Message<'_>, outcome: Outcome) -> ClientError {
    ClientError::Refused { request: request.message_type(), outcome }
}

/// In words, the code of an NSTAT.
pub(crate) fn change_name(code: u8) -> &'static str {
    match code {
        StateChange::RESET => "refused or reset",
        StateChange::TIMEOUT => "timed out",
        StateChange::PEER_CLOSED => "closed by the peer",
        _ => "for an unknown reason",
    }
}

/// What stands for "any address" in the family of `address`.
fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
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
    fn memory_is_read_past_notifications_or_refused() {
        let mdata = Message::Mdata { address: CLOCK, data: &[0, 0, 0, 0, 0, 0, 1, 2] };
        let refusal = Message::Result(Outcome::Status(Status::EMEMBADADR));
        let (mut client, mut endpoint) = client(&[Message::Resumd, mdata, refusal], false);
        assert_eq!(client.clock().unwrap(), Ticks(0x102));
        assert_eq!(client.notification().unwrap().message(), Message::Resumd);
        assert!(matches!(client.write_memory(1, b"x"), Err(ClientError::Refused { .. })));
        let mut request = [0; 10];
        endpoint.read_exact(&mut request).unwrap();
        assert_eq!(request, [0x28, 0, 0, 6, 0x10, 1, 0, 0, 0, 8]);
    }

    #[test]
    fn a_connection_is_waited_for_and_other_news_are_kept() {
        let remote = SocketAddr::from(([127, 0, 0, 1], 80));
        let established = StateChange::TcpEstablished { remote };
        let family = engine::wire::message::Family::Ipv4;
        let protocol = engine::wire::message::Protocol::Tcp;
        let reset = StateChange::Code { family, protocol, code: StateChange::RESET };
        let nstat = |sktid, change| Message::Nstat { sktid, time: Ticks(0), change };
        let (mut client, _endpoint) =
            client(&[OK, nstat(2, reset), nstat(1, established), OK, nstat(1, reset)], false);
        client.connect(1, remote, 4096).unwrap();
        let refused = client.connect(1, remote, 4096).unwrap_err();
        assert!(matches!(refused, ClientError::NotConnected { code: StateChange::RESET, .. }));
        assert_eq!(client.notification().unwrap().message(), nstat(2, reset));
    }

    #[test]
    fn a_deadline_that_passes_is_no_error() {
        let (mut client, mut endpoint) = client(&[], false);
        let deadline = Instant::now() + Duration::from_millis(5);
        assert!(client.notification_before(deadline).unwrap().is_none());
        assert!(Instant::now() >= deadline);
        assert!(client.notification_before(deadline).unwrap().is_none());
        endpoint.write_all(&[0x69, 0, 0, 0]).unwrap();
        assert_eq!(client.notification().unwrap().message(), Message::Resumd);
    }

    #[test]
    fn silence_has_a_limit() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::new(near, Duration::from_millis(10)).unwrap();
        assert!(matches!(client.notification(), Err(ClientError::Silence(_))));
    }

    #[test]
    fn an_endpoint_that_reads_nothing_is_not_waited_for_without_limit() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::new(near, Duration::from_millis(10)).unwrap();
        // More than any socket buffer holds.
        let written = client.write_memory(0, &vec![0; 15_000_000]);
        assert!(matches!(written, Err(ClientError::Unread(_))), "{written:?}");
    }
}
