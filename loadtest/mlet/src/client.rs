//! The session of a mlet with its endpoint, for one who blocks (spec/protocol.md 2).
//!
//! Not here: how answers are told from one another (`exchange`), how waits end (`talk`); how a mlet is started, and where
//! its session is.
//!
//! Invariant: notifications come out in the order they came in, also those between a request and its
//! answer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::ready;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use packetlab::message::{Message, Open, Packet, Socket};
use packetlab::program::Program;
use packetlab::time::Ticks;

use crate::client_error::ClientError;
use crate::connection::{Connection, LOOK_INTERVAL, in_time};
use crate::dns::LookUp;
use crate::names::resolve;
use crate::notification::Notification;
use crate::requests::{Received, Sent};
use crate::session::SessionStream;
use crate::talk::{Asked, Talk, after};
use crate::turn::{self, READ_LEN};

/// What a connection has room for that is closed as soon as it stands, in bytes.
const RECEIVE_BUFFER_LEN: u32 = 4096;

/// A connection that is being made.
type Connecting = Pin<Box<dyn Future<Output = Result<Connection, ClientError>> + Send>>;

/// The session with the endpoint.
///
/// An answer that does not come in time is [`ClientError::Silence`], and is dropped when it comes: the mlet may go on
/// asking. A wait without a timeout ends when nothing at all has come for the longest silence. Times of the endpoint are
/// of its clock, those of the controller of ours; both are nanoseconds since 1970.
pub struct Client {
    talk: Talk,
    stream: SessionStream,
    buffer: Vec<u8>,
    /// Connections that nobody has been told of yet.
    connecting: Vec<(u8, Connecting)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("stream", &self.stream).finish_non_exhaustive()
    }
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
    /// It is no socket.
    pub fn new(
        stream: impl Into<SessionStream>,
        silence_max: Duration,
    ) -> Result<Self, ClientError> {
        let stream = stream.into();
        stream.check().map_err(ClientError::Io)?;
        Ok(Self {
            talk: Talk::on_system_clocks(silence_max),
            stream,
            buffer: vec![0; READ_LEN],
            connecting: Vec::new(),
        })
    }

    /// From now on every wait ends at this time at the latest, with [`ClientError::SessionOver`].
    pub fn set_session_deadline(&mut self, deadline: Instant) {
        self.talk.set_session_deadline(Some(deadline));
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
        let talk = self.talk.clone();
        self.run(talk.open(sktid, open, receive_buffer_len))
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
    ) -> Result<Connection, ClientError> {
        let connecting = self.talk.clone().connect(sktid, remote, receive_buffer_len, None);
        self.run(connecting)
    }

    /// As [`Self::connect`], with a timeout of its own.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub fn connect_within(
        &mut self,
        timeout: Duration,
        sktid: u8,
        remote: SocketAddr,
        receive_buffer_len: u32,
    ) -> Result<Connection, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.connect(sktid, remote, receive_buffer_len, Some(timeout)))
    }

    /// Lets the endpoint begin a connection and does not wait for it; [`Self::next_connection`] does. Meanwhile the mlet
    /// may do other things, or begin others.
    pub fn begin_connect(
        &mut self,
        timeout: Duration,
        sktid: u8,
        remote: SocketAddr,
        receive_buffer_len: u32,
    ) {
        let talk = self.talk.clone();
        let connecting = talk.connect(sktid, remote, receive_buffer_len, Some(timeout));
        let mut connecting: Connecting = Box::pin(connecting);
        // Its requests leave now, so that it begins now.
        if let Poll::Ready(result) = connecting.as_mut().poll(&mut unwoken()) {
            connecting = Box::pin(ready(result));
        }
        self.connecting.push((sktid, connecting));
        self.flush();
    }

    /// Waits for the first of the connections that were begun, which stands or was not made; with the number of its socket.
    /// `None` if none is left.
    pub fn next_connection(&mut self) -> Option<(u8, Result<Connection, ClientError>)> {
        while !self.connecting.is_empty() {
            for (at, (sktid, connecting)) in self.connecting.iter_mut().enumerate() {
                if let Poll::Ready(result) = connecting.as_mut().poll(&mut unwoken()) {
                    let sktid = *sktid;
                    drop(self.connecting.remove(at));
                    self.flush();
                    return Some((sktid, result));
                }
            }
            self.turn(None);
        }
        None
    }

    /// Connects to each of these servers, `HOST` or `HOST:PORT`, as many at once as there are numbers to use for sockets.
    /// `tell` is called with each as soon as its connection stands or is known not to; then it is closed. What is open
    /// already is left alone, and its number not used. A server that no number is left for within the timeout is told of
    /// with [`ClientError::NoSktid`].
    ///
    /// # Errors
    /// What `tell` returns, which ends it.
    pub fn connect_each<S: AsRef<str>, E>(
        &mut self,
        timeout: Duration,
        sktids: RangeInclusive<u8>,
        (servers, default_port): (&[S], u16),
        tell: impl FnMut(&S, &Result<Connection, ClientError>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Others that were begun before stay for `next_connection`.
        let others = std::mem::take(&mut self.connecting);
        let is_free = |sktid: &u8| others.iter().all(|(other, _)| other != sktid);
        let free = sktids.rev().filter(is_free).collect();
        let told = self.connect_all(timeout, free, (servers, default_port), tell);
        self.connecting = others;
        self.flush();
        told
    }

    /// The same, of connections that are the only ones, by these numbers.
    fn connect_all<S: AsRef<str>, E>(
        &mut self,
        timeout: Duration,
        mut free: Vec<u8>,
        (servers, default_port): (&[S], u16),
        mut tell: impl FnMut(&S, &Result<Connection, ClientError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left: VecDeque<&S> = servers.iter().collect();
        let mut begun = BTreeMap::new();
        // Numbers that are open at the endpoint, and since when there has been no other.
        let (mut open, mut none_since) = (Vec::new(), None);
        loop {
            while let Some(sktid) = free.last().copied()
                && let Some(server) = left.pop_front()
            {
                match resolve(server.as_ref(), default_port) {
                    Err(error) => tell(server, &Err(error))?,
                    Ok(remote) => {
                        free.pop();
                        self.begin_connect(timeout, sktid, remote, RECEIVE_BUFFER_LEN);
                        begun.insert(sktid, server);
                    }
                }
            }
            let Some((sktid, connection)) = self.next_connection() else {
                let Some(server) = left.front() else { return Ok(()) };
                let now = self.talk.now();
                if open.is_empty() || now >= after(*none_since.get_or_insert(now), timeout) {
                    tell(server, &Err(ClientError::NoSktid))?;
                    left.pop_front();
                } else {
                    // An endpoint may take its time to close.
                    let talk = self.talk.clone();
                    let _ = self.run(talk.wait(now, Some(now + LOOK_INTERVAL), |_| None::<()>));
                }
                free.append(&mut open);
                continue;
            };
            let Some(server) = begun.remove(&sktid) else { continue };
            if connection.as_ref().is_err_and(ClientError::is_sktid_in_use) {
                open.push(sktid);
                left.push_front(server);
                continue;
            }
            none_since = None;
            if connection.is_ok() {
                self.talk.abandon(sktid);
            }
            free.push(sktid);
            tell(server, &connection)?;
        }
    }

    /// Sends a packet (NSEND) at `time` of the endpoint's clock; NTAG with this `tag` tells when it has
    /// left ([`Self::wait_until_sent`]). (Of tag 0 endpoints tell nothing.) When it was asked, by the controller's clock.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn send(
        &mut self,
        sktid: u8,
        time: Ticks,
        tag: NonZeroU16,
        packet: Packet<'_>,
    ) -> Result<Ticks, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.send(sktid, time, tag, packet))
    }

    /// Waits until the packet of this tag has left; when it did.
    ///
    /// # Errors
    /// It could not be sent; as for [`Self::notification`].
    pub fn wait_until_sent(
        &mut self,
        sktid: u8,
        tag: NonZeroU16,
        timeout: Duration,
    ) -> Result<Sent, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.wait_until_sent(sktid, tag, Some(timeout)))
    }

    /// The next that a socket receives; `None` once the peer of a connection has closed its side.
    ///
    /// # Errors
    /// The connection broke, or a monitor blocked what came ([`ClientError::Blocked`]), behind which a stream does not go
    /// on; as for [`Self::notification`].
    pub fn receive(
        &mut self,
        sktid: u8,
        timeout: Duration,
    ) -> Result<Option<Received>, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.receive(sktid, Some(timeout)))
    }

    /// Asks a DNS server through the endpoint for the IPv4 addresses of `name`, by socket `sktid`, which is closed
    /// afterwards. Only what answers the question is taken, and all of it is over by the timeout.
    ///
    /// # Errors
    /// The server has no answer ([`ClientError::LookUp`]), or answers nothing in time, or a monitor blocks what comes
    /// ([`ClientError::Blocked`]); as for [`Self::request`].
    pub fn look_up(
        &mut self,
        sktid: u8,
        name: &str,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<LookUp, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.look_up(sktid, name, server, timeout))
    }

    /// Closes the endpoint's side of a connection at `time` of its clock, after everything that was to be sent (NCTL).
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn finish(&mut self, socket: Socket, time: Ticks) -> Result<(), ClientError> {
        let talk = self.talk.clone();
        self.run(talk.finish(socket, time))
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
        let talk = self.talk.clone();
        self.run(talk.capture(socket, end, filter))
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
        let talk = self.talk.clone();
        self.run(talk.read_memory(address, len, None))
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
        let talk = self.talk.clone();
        self.run(talk.clock())
    }

    /// Asks and waits for the RESULT.
    ///
    /// # Errors
    /// The endpoint refuses, leaves or is silent.
    pub fn request(&mut self, request: &Message<'_>) -> Result<(), ClientError> {
        let talk = self.talk.clone();
        self.run(talk.request(request, None)).map(drop)
    }

    /// The same, and the answer comes by `deadline`.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub fn request_before(
        &mut self,
        request: &Message<'_>,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        let talk = self.talk.clone();
        self.run(talk.request(request, Some(deadline))).map(drop)
    }

    /// Asks and does not wait: [`Self::answer`] does, in any order. So many requests are under way at once.
    ///
    /// # Errors
    /// There is no room for it, since the endpoint takes nothing; or it cannot be written.
    pub fn ask(&mut self, request: &Message<'_>) -> Result<Asked, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.ask(request, None))
    }

    /// The answer to a request, RESULT or MDATA; [`Notification::came`] tells when it came. By `deadline`, or as long as
    /// something comes.
    ///
    /// # Errors
    /// The endpoint leaves or is silent.
    pub fn answer(
        &mut self,
        asked: &Asked,
        deadline: Option<Instant>,
    ) -> Result<Notification, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.answer(asked, deadline))
    }

    /// The next message that answers no request. News of a connection that was begun and that [`Self::next_connection`]
    /// has not told of yet is left out.
    ///
    /// # Errors
    /// The endpoint leaves or is silent.
    pub fn notification(&mut self) -> Result<Notification, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.any_notification(None))
    }

    /// The next message that answers no request, or `None` if there is none by `deadline`.
    ///
    /// # Errors
    /// The endpoint leaves.
    pub fn notification_before(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Notification>, ClientError> {
        let talk = self.talk.clone();
        in_time(self.run(talk.any_notification(Some(deadline))))
    }

    /// The first news of any of these sockets.
    ///
    /// # Errors
    /// As for [`Self::notification`].
    pub fn first_of(
        &mut self,
        sktids: &[u8],
        timeout: Duration,
    ) -> Result<Notification, ClientError> {
        let talk = self.talk.clone();
        self.run(talk.first_of(sktids, Some(timeout)))
    }

    /// Moves the session's bytes until this is done.
    fn run<T>(&mut self, doing: impl Future<Output = T>) -> T {
        let mut doing = pin!(doing);
        loop {
            if let Poll::Ready(done) = doing.as_mut().poll(&mut unwoken()) {
                self.flush();
                return done;
            }
            self.turn(None);
        }
    }

    /// One look at the stream, for as long as somebody waits.
    pub(crate) fn turn(&mut self, bell: Option<BorrowedFd<'_>>) {
        turn::turn(&self.talk, &mut self.stream, &mut self.buffer, bell);
    }

    #[cfg(feature = "async")]
    pub(crate) fn talk(&self) -> Talk {
        self.talk.clone()
    }

    /// Sends what nobody waits for.
    pub(crate) fn flush(&mut self) {
        turn::send(&mut self.talk.lock().exchange, &mut self.stream);
    }
}

/// Who moves the bytes himself needs not be woken.
fn unwoken() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[cfg(test)]
mod tests;
