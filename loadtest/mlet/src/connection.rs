//! Connections that the endpoint makes: when it began and when they stood, or why they were not made.
//!
//! Not here: what goes over them. Invariant: a socket whose connection was not made does not stay open.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use packetlab::message::{Message, MessageType, Open, StateChange};
use packetlab::time::Ticks;

use crate::client_error::{ClientError, ConnectionEnd};
use crate::exchange::Exchange;
use crate::requests::{CLOCK, clock_of};
use crate::talk::{Asked, Talk, after};

/// Where the endpoint's sockets are in its memory, how long each is, and where in it its state is
/// (spec/protocol.md 1.12).
const SOCKETS: u32 = 0x2000_0000;
const SOCKET_LEN: u32 = 0x400;
const SOCKET_STATE: u32 = 2;

/// How long a connection that nothing is heard of is waited for before its state is looked at: the original's
/// endpoints tell of a refused one nowhere else.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A connection that stands, with its times.
///
/// The endpoint reads its clock right before and right after it begins to connect, so that no time on the way to the
/// controller is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// Number of the socket.
    pub sktid: u8,
    /// The peer.
    pub remote: SocketAddr,
    /// The endpoint began no earlier than this, by its clock.
    pub began: Ticks,
    /// It began no later than this, by its clock.
    pub began_by: Ticks,
    /// When the connection stood, by the endpoint's clock (NSTAT).
    pub established: Ticks,
    /// When the mlet asked for it, by the controller's clock.
    pub asked: Ticks,
    /// When the mlet was told of it, by the controller's clock.
    pub told: Ticks,
}

impl Connection {
    /// How long it took to connect, all by the endpoint's clock: at most [`Self::uncertainty`] too long.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.established.saturating_duration_since(self.began)
    }

    /// How exactly it is known when the endpoint began. It is a few microseconds, unless the two looks at the clock
    /// came to the endpoint apart.
    #[must_use]
    pub fn uncertainty(&self) -> Duration {
        self.began_by.saturating_duration_since(self.began)
    }
}

impl Talk {
    /// Connects from the endpoint's own address; without a timeout the longest silence is one.
    pub(crate) async fn connect(
        self,
        sktid: u8,
        remote: SocketAddr,
        receive_buffer_len: u32,
        timeout: Option<Duration>,
    ) -> Result<Connection, ClientError> {
        let timeout = timeout.unwrap_or_else(|| self.silence_max());
        let begun = self.now();
        let within = (after(begun, timeout), timeout);
        let made = self.make_connection(sktid, remote, receive_buffer_len, within).await;
        let waited = self.now().saturating_duration_since(begun);
        match made {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(end)) => Err(ClientError::NotConnected { remote, end, waited }),
            Err(error) => Err(error.awaiting(|| format!("the connection to {remote}"), waited)),
        }
    }

    /// The same, by a deadline, which is after the timeout.
    async fn make_connection(
        &self,
        sktid: u8,
        remote: SocketAddr,
        receive_buffer_len: u32,
        (deadline, timeout): (Instant, Duration),
    ) -> Result<Result<Connection, ConnectionEnd>, ClientError> {
        self.room(Some(deadline)).await?;
        let local = SocketAddr::new(unspecified(remote.ip()), 0);
        let open = Open::TcpConnect { local, remote };
        // Nothing comes between the three.
        let look = Message::Mread { address: CLOCK, len: 8 };
        let before = self.put(&look)?;
        let opened = self.put(&Message::Nopen { sktid, receive_buffer_len, open })?;
        let after = self.put(&look)?;
        let mut claim = Claim::new(self, sktid, &opened);
        let began = clock_of(&before, &self.answer(&before, Some(deadline)).await?)?;
        claim.opened(opened.check(&self.answer(&opened, Some(deadline)).await?))?;
        let began_by = clock_of(&after, &self.answer(&after, Some(deadline)).await?)?;
        let connected = self.connected(sktid, remote, deadline, timeout).await?;
        claim.is_open = connected.is_err();
        let asked = opened.at();
        Ok(connected.map(|(established, told)| Connection {
            sktid,
            remote,
            began,
            began_by,
            established,
            asked,
            told,
        }))
    }

    /// Waits until a connection stands, at what time of the endpoint's clock and of ours, or until it is known that it
    /// does not.
    async fn connected(
        &self,
        sktid: u8,
        remote: SocketAddr,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Result<(Ticks, Ticks), ConnectionEnd>, ClientError> {
        loop {
            let look = deadline.min(self.now() + LOOK_INTERVAL);
            let code = match self.state_change(sktid, look).await? {
                Some((time, told, StateChange::TcpEstablished { remote: with })) => {
                    let is_asked = is_same(with, remote);
                    return Ok(if is_asked {
                        Ok((time, told))
                    } else {
                        Err(ConnectionEnd::Elsewhere(with))
                    });
                }
                Some((_, _, StateChange::Code { code, .. })) => Some(code),
                None => None,
            };
            // Its memory knows better than a code, and may be all that tells.
            match (self.connection_end(sktid, deadline).await, code) {
                (Ok(Some(end)), _) => return Ok(Err(end)),
                (_, Some(code)) => return Ok(Err(ConnectionEnd::from_code(code))),
                (Err(error), None) => return Err(error),
                (Ok(None), None) if self.now() >= deadline => {
                    return Ok(Err(ConnectionEnd::Untold(timeout)));
                }
                (Ok(None), None) => {}
            }
        }
    }

    /// What the next NSTAT of a socket says, if one comes by `deadline`; of which time, and when it came.
    async fn state_change(
        &self,
        sktid: u8,
        deadline: Instant,
    ) -> Result<Option<(Ticks, Ticks, StateChange)>, ClientError> {
        let take =
            |exchange: &mut Exchange| exchange.notification(sktid, &[MessageType::NSTAT], |_| true);
        let awaited = || format!("a connection ({})", self.socket_told(sktid));
        let news = in_time(self.notification(take, Some(deadline), awaited).await)?;
        Ok(news.and_then(|news| match news.message() {
            Message::Nstat { time, change, .. } => Some((time, news.came(), change)),
            _ => None,
        }))
    }

    /// Why a connection has failed, as the endpoint's memory tells; `None` if it has not, or if the endpoint does
    /// not tell by `deadline`.
    async fn connection_end(
        &self,
        sktid: u8,
        deadline: Instant,
    ) -> Result<Option<ConnectionEnd>, ClientError> {
        let address = SOCKETS + SOCKET_LEN * u32::from(sktid) + SOCKET_STATE;
        match in_time(self.read_memory(address, 1, Some(deadline)).await) {
            Ok(state) => Ok(state
                .and_then(|state| state.first().copied())
                .and_then(|state| ConnectionEnd::from_state(i8::from_be_bytes([state])))),
            Err(ClientError::Refused { .. } | ClientError::Denied { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The socket of something that is being done, such as a connection that is being made: its news is for nobody else, and
/// if nothing becomes of that, it is closed.
pub(crate) struct Claim<'a> {
    talk: &'a Talk,
    sktid: u8,
    /// It is to be closed.
    pub(crate) is_open: bool,
}

impl<'a> Claim<'a> {
    /// Of a socket that is to be opened by this request. It may be open as well if no answer comes; one that was open
    /// before is not closed.
    pub(crate) fn new(talk: &'a Talk, sktid: u8, opened: &Asked) -> Self {
        let mut state = talk.lock();
        state.exchange.claim(sktid);
        let is_open = !state.exchange.finds_open(sktid, opened.ticket());
        Self { talk, sktid, is_open }
    }

    /// The answer has come.
    pub(crate) fn opened(&mut self, answer: Result<(), ClientError>) -> Result<(), ClientError> {
        self.is_open = answer.is_ok();
        answer
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.talk.lock().exchange.end_claim(self.sktid);
        // Whatever becomes of that, why nothing came of the rest matters more.
        if self.is_open {
            self.talk.abandon(self.sktid);
        }
    }
}

/// Silence is no error where a deadline may pass.
pub(crate) fn in_time<T>(received: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match received {
        Ok(received) => Ok(Some(received)),
        Err(ClientError::Silence { .. } | ClientError::Unread { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a connection is with the peer that was asked for. What an unspecified address leads to is the endpoint's to say.
fn is_same(with: SocketAddr, asked: SocketAddr) -> bool {
    with.port() == asked.port() && (with.ip() == asked.ip() || asked.ip().is_unspecified())
}

/// What stands for "any address" in the family of `address`.
pub(crate) fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
