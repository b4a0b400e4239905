//! The session of a mlet with its endpoint: blocking, one request open at a time (spec/protocol.md 2).
//!
//! Not here: how answers are told from one another (`conversation`); how a mlet is started, and where its
//! session is.
//!
//! Invariant: notifications come out in the order they came in, also those between a request and its
//! answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use packetlab::message::{Message, MessageType, Open, Packet, Socket, StateChange};
use packetlab::program::Program;
use packetlab::time::Ticks;

use crate::client_error::{ClientError, ConnectionEnd};
use crate::conversation::{Conversation, Notification};
use crate::session::SessionStream;

/// Where the endpoint's clock is in its memory (spec/protocol.md 1.12).
const CLOCK: u32 = 0x1001_0000;
/// Where its sockets are, how long each is, and where in it its state is.
const SOCKETS: u32 = 0x2000_0000;
const SOCKET_LEN: u32 = 0x400;
const SOCKET_STATE: u32 = 2;

/// How long a connection that nothing is heard of is waited for before its state is looked at: the original's
/// endpoints tell of a refused one nowhere else.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The session with the endpoint.
///
/// An answer that does not come within the longest silence is [`ClientError::Silence`], and is dropped when it
/// comes: the mlet may go on asking.
#[derive(Debug)]
pub struct Client {
    conversation: Conversation,
}

impl Client {
    /// The session on fd 0, and on the pipes that are offered beside it. `silence_max` bounds every wait for the endpoint.
    ///
    /// # Errors
    /// Fd 0 is not a socket.
    pub fn on_stdin(silence_max: Duration) -> Result<Self, ClientError> {
        Self::new(SessionStream::on_stdin().map_err(ClientError::Io)?, silence_max)
    }

    /// The session on `stream`, as [`Client::on_stdin`].
    ///
    /// # Errors
    /// The socket refuses limits for reading and writing.
    pub fn new(
        stream: impl Into<SessionStream>,
        silence_max: Duration,
    ) -> Result<Self, ClientError> {
        Ok(Self { conversation: Conversation::new(stream, silence_max)? })
    }

    /// Opens a socket (NOPEN) with room for `receive_buffer_len` bytes that this mlet has not been sent
    /// yet. Socket numbers are the mlet's choice. What was not asked for yet of an earlier socket of this number
    /// is forgotten.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn open(
        &mut self,
        sktid: u8,
        open: Open,
        receive_buffer_len: u32,
    ) -> Result<(), ClientError> {
        self.conversation.forget(|old| concerns(old, sktid));
        self.request(&Message::Nopen { sktid, receive_buffer_len, open })
    }

    /// Opens a TCP connection from the endpoint's own address and waits until it stands, as long as the longest
    /// silence.
    ///
    /// # Errors
    /// As for [`Self::request`]; and the connection was not made, whose socket is closed then.
    pub fn connect(
        &mut self,
        sktid: u8,
        remote: SocketAddr,
        receive_buffer_len: u32,
    ) -> Result<(), ClientError> {
        let local = SocketAddr::new(unspecified(remote.ip()), 0);
        self.open(sktid, Open::TcpConnect { local, remote }, receive_buffer_len)?;
        let deadline = Instant::now() + self.conversation.silence_max();
        match self.connected(sktid, deadline)? {
            Ok(()) => Ok(()),
            Err(end) => {
                // Whatever becomes of that, why there is no connection matters more.
                let _ = self.conversation.exchange(&Message::Nclose { sktid }, Some(deadline));
                Err(ClientError::NotConnected { remote, end })
            }
        }
    }

    /// Waits until a connection stands, or until it is known that it does not.
    fn connected(
        &mut self,
        sktid: u8,
        deadline: Instant,
    ) -> Result<Result<(), ConnectionEnd>, ClientError> {
        let limit = self.conversation.silence_max();
        loop {
            let look = deadline.min(Instant::now() + LOOK_INTERVAL);
            let code = match self.state_change(sktid, look)? {
                Some(StateChange::TcpEstablished { .. }) => return Ok(Ok(())),
                Some(StateChange::Code { code, .. }) => Some(code),
                None => None,
            };
            // Its memory knows better than a code, and may be all that tells.
            match (self.connection_end(sktid, deadline), code) {
                (Ok(Some(end)), _) => return Ok(Err(end)),
                (_, Some(code)) => return Ok(Err(ConnectionEnd::from_code(code))),
                (Err(error), None) => return Err(error),
                (Ok(None), None) if Instant::now() >= deadline => {
                    return Ok(Err(ConnectionEnd::Untold(limit)));
                }
                (Ok(None), None) => {}
            }
        }
    }

    /// What the next NSTAT of a socket says, if one comes by `deadline`.
    fn state_change(
        &mut self,
        sktid: u8,
        deadline: Instant,
    ) -> Result<Option<StateChange>, ClientError> {
        let is_wanted = |message: &Message<'_>| {
            matches!(message, Message::Nstat { .. }) && concerns(message, sktid)
        };
        let news = in_time(self.conversation.notification(is_wanted, Some(deadline)))?;
        Ok(news.and_then(|news| match news.message() {
            Message::Nstat { change, .. } => Some(change),
            _ => None,
        }))
    }

    /// Why a connection has failed, as the endpoint's memory tells; `None` if it has not, or if the endpoint does
    /// not tell by `deadline`.
    fn connection_end(
        &mut self,
        sktid: u8,
        deadline: Instant,
    ) -> Result<Option<ConnectionEnd>, ClientError> {
        let address = SOCKETS + SOCKET_LEN * u32::from(sktid) + SOCKET_STATE;
        match in_time(self.read_memory_before(address, 1, Some(deadline))) {
            Ok(state) => Ok(state
                .and_then(|state| state.first().copied())
                .and_then(|state| ConnectionEnd::from_state(i8::from_be_bytes([state])))),
            Err(ClientError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a packet (NSEND) at `time` of the endpoint's clock; NTAG with this `tag` tells when it has
    /// left. (Of tag 0 endpoints tell nothing.)
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn send(
        &mut self,
        sktid: u8,
        time: Ticks,
        tag: NonZeroU16,
        packet: Packet<'_>,
    ) -> Result<(), ClientError> {
        self.request(&Message::Nsend { sktid, time, tag: tag.get(), packet })
    }

    /// Captures raw packets (NCAP) from now until `end`, as far as `filter` wants them; see
    /// [`filter`](crate::filter).
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

    /// Closes a socket (NCLOSE); nothing is heard of it any more, but for what is already here, until its number
    /// is opened again.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn close(&mut self, sktid: u8) -> Result<(), ClientError> {
        self.request(&Message::Nclose { sktid })
    }

    /// Reads the endpoint's memory (MREAD, spec/protocol.md 1.12).
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn read_memory(&mut self, address: u32, len: u16) -> Result<Vec<u8>, ClientError> {
        self.read_memory_before(address, len, None)
    }

    fn read_memory_before(
        &mut self,
        address: u32,
        len: u16,
        deadline: Option<Instant>,
    ) -> Result<Vec<u8>, ClientError> {
        let request = Message::Mread { address, len };
        let answer = self.conversation.exchange(&request, deadline)?;
        match answer.message() {
            Message::Mdata { address: told, data }
                if told == address && data.len() == usize::from(len) =>
            {
                Ok(data.to_vec())
            }
            other => Err(unsuccessful(&request, &other)),
        }
    }

    /// Writes to the endpoint's memory (MWRITE, spec/protocol.md 1.12).
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
        match self.conversation.exchange(request, None)?.message() {
            Message::Result(outcome) if outcome.is_success() => Ok(()),
            other => Err(unsuccessful(request, &other)),
        }
    }

    /// The next message that answers no request.
    ///
    /// # Errors
    /// The endpoint leaves or is silent.
    pub fn notification(&mut self) -> Result<Notification, ClientError> {
        self.conversation.notification(|_| true, None)
    }

    /// The next message that answers no request, or `None` if there is none by `deadline`.
    ///
    /// # Errors
    /// The endpoint leaves.
    pub fn notification_before(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Notification>, ClientError> {
        in_time(self.conversation.notification(|_| true, Some(deadline)))
    }
}

/// Silence is no error where a deadline may pass.
fn in_time<T>(received: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match received {
        Ok(received) => Ok(Some(received)),
        Err(ClientError::Silence(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an answer is that does not give what was asked for.
fn unsuccessful(request: &Message<'_>, answer: &Message<'_>) -> ClientError {
    match answer {
        Message::Result(outcome) if !outcome.is_success() => {
            ClientError::Refused { request: request.message_type(), outcome: *outcome }
        }
        Message::Raw { message_type, .. } => ClientError::Malformed(*message_type),
        other => ClientError::Unasked(other.message_type()),
    }
}

/// Whether a notification is about this socket.
fn concerns(notification: &Message<'_>, number: u8) -> bool {
    match notification {
        Message::Ntag { sktid, .. }
        | Message::Nstat { sktid, .. }
        | Message::Ndata { sktid, .. } => *sktid == number,
        Message::Ndrop { socket, .. } | Message::Nblock { socket, .. } => socket.sktid == number,
        _ => false,
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
mod tests;
