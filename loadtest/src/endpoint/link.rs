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

/// Bytes taken from the stream at once; one TLS record holds no more.
const READ_LEN: usize = 16 * 1024;
/// How long the other side may take to close after we have.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A message as received: its type and its payload.
pub(super) type Received = (MessageType, Vec<u8>);

/// A stream of messages in both directions.
#[derive(Debug)]
pub(super) struct Link<S> {
    stream: S,
    framer: Framer,
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
            Self::Io(cause) => write!(f, "the connection to the controller broke: {cause}"),
            Self::CutShort => f.write_str("the controller closed inside a message"),
            Self::Frame(cause) => write!(f, "the controller sent no message: {cause}"),
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
    pub(super) fn new(stream: S) -> Self {
        Self { stream, framer: Framer::new(PAYLOAD_LEN_MAX) }
    }

    /// The next message; `None` when the other side closed between messages. Loses nothing when
    /// abandoned.
    pub(super) async fn receive(&mut self) -> Result<Option<Received>, LinkError> {
        loop {
            if let Some((message_type, payload)) = self.framer.next()? {
                return Ok(Some((message_type, payload.to_vec())));
            }
            let mut bytes = Vec::with_capacity(READ_LEN);
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
    pub(super) async fn send(&mut self, message: &Message<'_>) -> Result<(), LinkError> {
        let mut encoded = Vec::new();
        message.encode(&mut encoded)?;
        self.send_encoded(&encoded).await
    }

    /// Sends one message that is already encoded. When abandoned half-way the link is of no more use.
    pub(super) async fn send_encoded(&mut self, message: &[u8]) -> Result<(), LinkError> {
        self.stream.write_all(message).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The bare stream.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Closes our side and waits, not for long, for the other: closing before the other side has read
    /// all could turn unread input of ours into a reset, and lose the last message.
    pub(super) async fn close(mut self) {
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
