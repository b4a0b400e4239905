//! A message that came.
//!
//! Not here: to whom it goes (`exchange`).

use packetlab::message::{Message, MessageType, Protocol, StateChange};
use packetlab::time::Ticks;

/// What keeping a message costs beside its payload, in bytes.
const KEPT_LEN: usize = 128;

/// A received message: an answer, or one that answers no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    message_type: MessageType,
    payload: Vec<u8>,
    came: Ticks,
}

impl Notification {
    /// What it says.
    pub fn message(&self) -> Message<'_> {
        Message::decode(self.message_type, &self.payload)
    }

    /// When it came, by the controller's clock. The endpoint's is in the message.
    #[must_use]
    pub fn came(&self) -> Ticks {
        self.came
    }

    /// Which of the endpoint's sockets it is about.
    #[must_use]
    pub fn sktid(&self) -> Option<u8> {
        match self.message() {
            Message::Ntag { sktid, .. }
            | Message::Nstat { sktid, .. }
            | Message::Ndata { sktid, .. } => Some(sktid),
            Message::Ndrop { socket, .. } | Message::Nblock { socket, .. } => Some(socket.sktid),
            _ => None,
        }
    }

    /// One of this type, which came then.
    pub(crate) fn new(message_type: MessageType, payload: &[u8], came: Ticks) -> Self {
        Self { message_type, payload: payload.to_vec(), came }
    }

    /// Of what type it is.
    pub(crate) fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// Nothing of this socket that comes behind it belongs to what came before: the stream is over, or a part of it is
    /// missing. Of datagrams and packets each stands for itself.
    pub(crate) fn ends_stream(&self) -> bool {
        let protocol = match self.message() {
            Message::Nstat { change: StateChange::Code { protocol, .. }, .. } => protocol,
            Message::Nblock { socket, .. } => socket.protocol,
            _ => return false,
        };
        protocol == Protocol::Tcp
    }

    /// What keeping it costs.
    pub(crate) fn kept_len(&self) -> usize {
        self.payload.len() + KEPT_LEN
    }
}
