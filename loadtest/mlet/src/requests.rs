//! What an endpoint is asked for, once and for both clients: sockets, packets, memory (spec/protocol.md 1.4).
//!
//! Not here: connections (`connection`), and who waits for the answers.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use packetlab::message::{
    Message, MessageType, NCTL_FIN, Open, Packet, Socket, StateChange, Status,
};
use packetlab::program::Program;
use packetlab::time::Ticks;

use crate::client_error::{ClientError, ConnectionEnd};
use crate::exchange::Exchange;
use crate::notification::Notification;
use crate::talk::{Asked, Talk, after};

/// Where the endpoint's clock is in its memory (spec/protocol.md 1.12).
pub(crate) const CLOCK: u32 = 0x1001_0000;

/// When a packet left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// By the endpoint's clock (NTAG).
    pub time: Ticks,
    /// When the mlet was told of it, by the controller's clock.
    pub told: Ticks,
}

/// What a socket received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// A piece of a stream, a datagram, or a whole packet.
    pub data: Vec<u8>,
    /// Who sent the datagram; `None` for a stream or a whole packet.
    pub remote: Option<SocketAddr>,
    /// When the endpoint received it, by its clock (NDATA).
    pub time: Ticks,
    /// When it came to the mlet, by the controller's clock.
    pub came: Ticks,
}

impl Talk {
    pub(crate) async fn open(
        &self,
        sktid: u8,
        open: Open,
        receive_buffer_len: u32,
    ) -> Result<(), ClientError> {
        let request = Message::Nopen { sktid, receive_buffer_len, open };
        self.request(&request, None).await.map(drop)
    }

    pub(crate) async fn send(
        &self,
        sktid: u8,
        time: Ticks,
        tag: NonZeroU16,
        packet: Packet<'_>,
    ) -> Result<Ticks, ClientError> {
        self.request(&Message::Nsend { sktid, time, tag: tag.get(), packet }, None).await
    }

    pub(crate) async fn wait_until_sent(
        &self,
        sktid: u8,
        tag: NonZeroU16,
        timeout: Option<Duration>,
    ) -> Result<Sent, ClientError> {
        let is_wanted = |news: &Notification| match news.message() {
            Message::Ntag { tag: told, .. } => told == tag.get(),
            _ => false,
        };
        let take =
            |exchange: &mut Exchange| exchange.notification(sktid, &[MessageType::NTAG], is_wanted);
        let awaited = || format!("news that packet {tag} has left ({})", self.socket_told(sktid));
        let news = self.notification(take, self.deadline(timeout), awaited).await?;
        match news.message() {
            Message::Ntag { time, status: Status::SUCCESS, .. } => {
                Ok(Sent { time, told: news.came() })
            }
            Message::Ntag { status, .. } => {
                Err(ClientError::NotSent { target: self.socket_told(sktid), status })
            }
            other => Err(ClientError::Unasked(other.message_type())),
        }
    }

    pub(crate) async fn receive(
        &self,
        sktid: u8,
        timeout: Option<Duration>,
    ) -> Result<Option<Received>, ClientError> {
        // That a connection stands is for others.
        let is_wanted = |news: &Notification| {
            !matches!(
                news.message(),
                Message::Nstat { change: StateChange::TcpEstablished { .. }, .. }
            )
        };
        let types = [MessageType::NDATA, MessageType::NSTAT, MessageType::NBLOCK];
        let take = |exchange: &mut Exchange| exchange.notification(sktid, &types, is_wanted);
        let awaited = || format!("data ({})", self.socket_told(sktid));
        let end = self.lock().exchange.stream_end(sktid);
        let news = match end {
            Some(end) => end,
            None => self.notification(take, self.deadline(timeout), awaited).await?,
        };
        match news.message() {
            Message::Ndata { time, packet, .. } => {
                let (data, remote) = match packet {
                    Packet::Udp { remote, data } => (data, Some(remote)),
                    Packet::Tcp { data, .. } | Packet::Raw { data, .. } => (data, None),
                };
                Ok(Some(Received { data: data.to_vec(), remote, time, came: news.came() }))
            }
            Message::Nstat { change: StateChange::Code { code, .. }, .. } => {
                match ConnectionEnd::of_standing(code) {
                    ConnectionEnd::PeerClosed => Ok(None),
                    end => Err(ClientError::Broken { target: self.socket_told(sktid), end }),
                }
            }
            Message::Nblock { monitor_errid, .. } => {
                Err(ClientError::Blocked { target: self.socket_told(sktid), monitor_errid })
            }
            other => Err(ClientError::Unasked(other.message_type())),
        }
    }

    pub(crate) async fn finish(&self, socket: Socket, time: Ticks) -> Result<(), ClientError> {
        let Socket { sktid, family, .. } = socket;
        let request = Message::Nctl { sktid, family, time, command: NCTL_FIN };
        self.request(&request, None).await.map(drop)
    }

    pub(crate) async fn capture(
        &self,
        socket: Socket,
        end: Ticks,
        filter: &Program,
    ) -> Result<(), ClientError> {
        let request = Message::Ncap { socket, end, filter: filter.encoded() };
        self.request(&request, None).await.map(drop)
    }

    pub(crate) async fn read_memory(
        &self,
        address: u32,
        len: u16,
        deadline: Option<Instant>,
    ) -> Result<Vec<u8>, ClientError> {
        let (asked, answer) = self.exchange(&Message::Mread { address, len }, deadline).await?;
        match answer.message() {
            Message::Mdata { address: told, data }
                if told == address && data.len() == usize::from(len) =>
            {
                Ok(data.to_vec())
            }
            other => Err(asked.unsuccessful(&other)),
        }
    }

    pub(crate) async fn clock(&self) -> Result<Ticks, ClientError> {
        let (asked, answer) =
            self.exchange(&Message::Mread { address: CLOCK, len: 8 }, None).await?;
        clock_of(&asked, &answer)
    }

    /// The first news of any socket of these.
    pub(crate) async fn first_of(
        &self,
        sktids: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Notification, ClientError> {
        let awaited = || {
            let told: Vec<String> = sktids.iter().map(|sktid| self.socket_told(*sktid)).collect();
            format!("anything ({})", told.join("; "))
        };
        let take = |exchange: &mut Exchange| exchange.notification_of(sktids);
        self.notification(take, self.deadline(timeout), awaited).await
    }

    /// News of any socket but of those whose connection is being made, which is news of that alone.
    pub(crate) async fn any_notification(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Notification, ClientError> {
        self.notification(Exchange::any_notification, deadline, || "anything".to_owned()).await
    }

    /// Without a timeout a wait lasts as long as something comes.
    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        timeout.map(|timeout| after(self.now(), timeout))
    }
}

/// What the endpoint's clock was, as an MREAD of it was answered.
pub(crate) fn clock_of(asked: &Asked, answer: &Notification) -> Result<Ticks, ClientError> {
    match answer.message() {
        Message::Mdata { address: CLOCK, data } => match data.try_into() {
            Ok(time) => Ok(Ticks(u64::from_be_bytes(time))),
            Err(_) => Err(ClientError::Unasked(MessageType::MDATA)),
        },
        other => Err(asked.unsuccessful(&other)),
    }
}
