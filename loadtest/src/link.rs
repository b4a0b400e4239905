//! Whole messages over a stream.
//!
//! Not here: what they mean.
//!
//! Invariant: bytes of two messages are never in one write, and so never in one TLS record
//! (protocol.md 1.6).

use std::fmt;
use std::io;
use std::time::Duration;

use engine::wire::frame::{FrameError, Framer};
use engine::wire::message::{EncodeError, Message, MessageType, PAYLOAD_LEN_MAX};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes taken from a stream of bulk data at once; one TLS record holds no more.
const BULK_READ_LEN: usize = 16 * 1024;
/// Bytes taken at once where messages are small and connections many: each one that waits holds a
/// buffer of this size.
const SMALL_READ_LEN: usize = 1024;
/// How long the other side may take to close after we have.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A message as received: its type and its payload.
pub(crate) type Received = (MessageType, Vec<u8>);

/// A stream of messages in both directions.
#[derive(Debug)]
pub(crate) struct Link<S> {
    stream: S,
    framer: Framer,
    read_len: usize,
}

/// A connection that can carry no more messages.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// The stream broke.
    Io(io::Error),
    /// The stream ended inside a message.
    CutShort,
    /// What came cannot be a message.
    Frame(FrameError),
    /// A message of ours cannot be written.
    Encode(EncodeError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => write!(f, "the connection broke: {cause}"),
            Self::CutShort => f.write_str("the peer closed inside a message"),
            Self::Frame(cause) => cause.fmt(f),
            Self::Encode(cause) => write!(f, "a message cannot be sent: {cause}"),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(cause) => Some(cause),
            Self::CutShort => None,
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
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, framer: Framer::new(PAYLOAD_LEN_MAX), read_len: BULK_READ_LEN }
    }

    /// Messages over `stream` whose payloads have at most `payload_len_max` bytes.
    pub(crate) fn small(stream: S, payload_len_max: usize) -> Self {
        Self { stream, framer: Framer::new(payload_len_max), read_len: SMALL_READ_LEN }
    }

    /// The next message; `None` when the other side closed between messages. Loses nothing when
    /// abandoned.
    pub(crate) async fn receive(&mut self) -> Result<Option<Received>, LinkError> {
        loop {
            if let Some((message_type, payload)) = self.framer.next()? {
                return Ok(Some((message_type, payload.to_vec())));
            }
            let mut bytes = Vec::with_capacity(self.read_len);
            match self.stream.read_buf(&mut bytes).await {
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

    /// Sends one message.
    pub(crate) async fn send(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        let mut encoded = Vec::new();
        message.encode(&mut encoded)?;
        self.send_encoded(&encoded).await
    }

    /// Sends one message that is already encoded. When abandoned half-way the link is of no more use.
    pub(crate) async fn send_encoded(&mut self, message: &[u8]) -> Result<(), LinkError> {
        self.stream.write_all(message).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The bare stream.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// Closes our side and waits for nothing.
    pub(crate) async fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes our side and waits, not for long, for the other: closing before the other side has read
    /// all could turn unread input of ours into a reset, and lose the last message.
    pub(crate) async fn close(mut self) {
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
