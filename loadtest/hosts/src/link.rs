//! Whole messages over a stream.
//!
//! Not here: what they mean.
//!
//! A server bounds what a peer's unfinished message may cost (`Patience`).
//!
//! Invariant: bytes of two messages are never in one write, and so never in one TLS record
//! (spec/protocol.md 1.6).

use std::fmt;
use std::io;
use std::time::Duration;

use packetlab::frame::{FrameError, Framer};
use packetlab::message::{EncodeError, Message, MessageType, PAYLOAD_LEN_MAX};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::hosting::{Budget, Charge, MemoryFull, seconds};

use crate::tls_reason;

/// Bytes taken from a stream of bulk data at once; one TLS record holds no more.
const BULK_READ_LEN: usize = 16 * 1024;
/// Bytes taken at once where messages are small and connections many: each one that waits holds a
/// buffer of this size.
const SMALL_READ_LEN: usize = 1024;
/// A message up to here is paid for with the connection.
const SMALL_MESSAGE_LEN: usize = 4 * 1024;
/// How long the other side may take to close after we have.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A message as received: its type and its payload.
pub type Received = (MessageType, Vec<u8>);

/// A stream of messages in both directions.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    framer: Framer,
    read_len: usize,
    patience: Option<Patience>,
    /// When the unfinished message began.
    begun: Option<Instant>,
    /// For an unfinished message that is large.
    charge: Option<Charge>,
}

/// What an unfinished message of a peer may cost.
#[derive(Debug)]
pub(crate) struct Patience {
    /// From its first byte to its last.
    pub(crate) timeout: Duration,
    /// Pays for one of more than 4 KiB.
    pub(crate) budget: Budget,
    /// How much it pays.
    pub(crate) charge: usize,
}

/// A connection that can carry no more messages.
#[derive(Debug)]
pub enum LinkError {
    /// The stream broke.
    Io(io::Error),
    /// The stream ended inside a message.
    CutShort,
    /// A message was not whole in time.
    TooSlow {
        /// From its first byte.
        limit: Duration,
    },
    /// There is no memory for a large message.
    Memory(MemoryFull),
    /// What came cannot be a message.
    Frame(FrameError),
    /// A message of ours cannot be written.
    Encode(EncodeError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => write!(f, "the connection broke: {}", tls_reason::reason(cause)),
            Self::CutShort => f.write_str("the peer closed inside a message"),
            Self::TooSlow { limit } => write!(f, "a message took more than {}", seconds(*limit)),
            Self::Memory(cause) => cause.fmt(f),
            Self::Frame(cause) => cause.fmt(f),
            Self::Encode(cause) => write!(f, "a message cannot be sent: {cause}"),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(cause) => Some(cause),
            Self::CutShort | Self::TooSlow { .. } | Self::Memory(_) => None,
            Self::Frame(cause) => Some(cause),
            Self::Encode(cause) => Some(cause),
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

impl From<FrameError> for LinkError {
    fn from(cause: FrameError) -> Self {
        Self::Frame(cause)
    }
}

impl From<EncodeError> for LinkError {
    fn from(cause: EncodeError) -> Self {
        Self::Encode(cause)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Messages over `stream`, of up to the largest payload the protocol has.
    pub fn new(stream: S) -> Self {
        Self::with(stream, Framer::new(PAYLOAD_LEN_MAX), BULK_READ_LEN)
    }

    /// Messages over `stream` whose payloads have at most `payload_len_max` bytes.
    pub fn small(stream: S, payload_len_max: usize) -> Self {
        Self::with(stream, Framer::new(payload_len_max), SMALL_READ_LEN)
    }

    fn with(stream: S, framer: Framer, read_len: usize) -> Self {
        Self { stream, framer, read_len, patience: None, begun: None, charge: None }
    }

    /// The same with a bound on what an unfinished message costs.
    pub(crate) fn with_patience(self, patience: Patience) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// The next message; `None` when the other side closed between messages. Loses nothing when
    /// abandoned.
    pub async fn receive(&mut self) -> Result<Option<Received>, LinkError> {
        loop {
            if let Some((message_type, payload)) = self.framer.next()? {
                let payload = payload.to_vec();
                (self.begun, self.charge) = (None, None);
                return Ok(Some((message_type, payload)));
            }
            self.has_to_wait()?;
            let mut bytes = Vec::with_capacity(self.read_len);
            let reading = self.stream.read_buf(&mut bytes);
            let read = match (&self.patience, self.begun) {
                (Some(Patience { timeout: limit, .. }), Some(begun)) => {
                    let limit = *limit;
                    timeout_at(begun + limit, reading)
                        .await
                        .map_err(|_| LinkError::TooSlow { limit })?
                }
                _ => reading.await,
            };
            match read {
                Ok(1..) => self.framer.push(&bytes),
                // rustls calls a missing close_notify an unexpected end; for us it is one (3.6).
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(error.into());
                }
                Ok(0) | Err(_) if self.framer.is_empty() => return Ok(None),
                Ok(0) | Err(_) => return Err(LinkError::CutShort),
            }
        }
    }

    /// No whole message is there. Of the next one some may be: also when it came together with the last one.
    fn has_to_wait(&mut self) -> Result<(), LinkError> {
        let Some(patience) = self.patience.as_ref().filter(|_| !self.framer.is_empty()) else {
            return Ok(());
        };
        self.begun.get_or_insert_with(Instant::now);
        if self.framer.len() > SMALL_MESSAGE_LEN && self.charge.is_none() {
            let charge = patience.budget.charge(patience.charge).map_err(LinkError::Memory)?;
            self.charge = Some(charge);
        }
        Ok(())
    }

    /// Sends one message.
    pub async fn send(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        let mut encoded = Vec::new();
        message.encode(&mut encoded)?;
        self.send_encoded(&encoded).await
    }

    /// Sends one message that is already encoded. When abandoned half-way the link is of no more use.
    pub async fn send_encoded(&mut self, message: &[u8]) -> Result<(), LinkError> {
        self.stream.write_all(message).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// What carries the messages.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The bare stream.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Closes our side and waits for nothing.
    pub async fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes our side and waits, not for long, for the other: closing before the other side has read
    /// all could turn unread input of ours into a reset, and lose the last message.
    pub async fn close(mut self) {
        let closing = async {
            self.stream.shutdown().await?;
            let mut rest = vec![0; 1024];
            while self.stream.read(&mut rest).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        // Whatever goes wrong now, the session is over.
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::duplex;

    use super::*;
    use crate::hosting::{Memory, Source};

    const LONG: Duration = Duration::from_secs(30);

    /// START, and the front of a message of 30,000 bytes.
    fn one_and_a_part(part_len: usize) -> Vec<u8> {
        [&[0x20, 0, 0, 0, 0x38, 0, 0x75, 0x30][..], &vec![1; part_len]].concat()
    }

    fn link(stream: tokio::io::DuplexStream, memory_max: usize) -> Link<tokio::io::DuplexStream> {
        let source = Source::of(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let budget = Memory::new(memory_max, 100).budget(source);
        let timeout = Duration::from_millis(200);
        Link::small(stream, 65_536).with_patience(Patience { timeout, budget, charge: 1_000 })
    }

    #[tokio::test]
    async fn what_has_come_with_the_message_before_has_a_deadline_too() {
        let (mut peer, stream) = duplex(4096);
        let mut link = link(stream, 1_000);
        peer.write_all(&one_and_a_part(1)).await.unwrap();
        assert!(link.receive().await.unwrap().is_some());
        let ended = timeout(LONG, link.receive()).await.unwrap();
        assert!(matches!(ended, Err(LinkError::TooSlow { .. })), "{ended:?}");
    }

    #[tokio::test]
    async fn a_large_message_is_paid_for_and_silence_has_no_deadline() {
        let (mut peer, stream) = duplex(65_536);
        let mut link = link(stream, 999);
        peer.write_all(&one_and_a_part(0)[..4]).await.unwrap();
        assert!(link.receive().await.unwrap().is_some());
        assert!(timeout(LONG / 60, link.receive()).await.is_err(), "nothing has begun");
        peer.write_all(&one_and_a_part(8_000)[4..]).await.unwrap();
        let ended = timeout(LONG, link.receive()).await.unwrap();
        assert!(matches!(ended, Err(LinkError::Memory(_))), "{ended:?}");
    }
}
