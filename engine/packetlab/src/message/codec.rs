//! A whole message from its bytes and into them: header and payload.
//!
//! Not here: the layout of each payload (`payload`).

use std::fmt;

use super::message_type::{HEADER_LEN, Header, MessageType, PAYLOAD_LEN_MAX};
use super::messages::Message;
use super::payload;

impl<'a> Message<'a> {
    /// Understands one message. Never fails: what is not understood is [`Message::Raw`] (spec/protocol.md 1.1).
    #[must_use]
    pub fn decode(message_type: MessageType, payload: &'a [u8]) -> Self {
        if message_type.name().is_none() {
            return Self::Raw { message_type, payload, malformed: false };
        }
        payload::decode(message_type, payload).unwrap_or(Self::Raw {
            message_type,
            payload,
            malformed: true,
        })
    }

    /// Appends the whole message, header included, to `out`.
    ///
    /// # Errors
    /// The payload is too long, or breaks a rule without which the message would decode differently;
    /// `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let message_type = self.message_type();
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        let written = payload::encode(self, out)
            .map_err(|rule| EncodeError::RuleBroken { message_type, rule })
            .and_then(|()| {
                let payload_len = out.len() - start - HEADER_LEN;
                Header { message_type, payload_len }
                    .encode()
                    .ok_or(EncodeError::TooLong { message_type, payload_len })
            });
        match written {
            Ok(header) => {
                out[start..start + HEADER_LEN].copy_from_slice(&header);
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }
}

/// Why a message has no encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// The header cannot announce such a payload.
    TooLong {
        /// Type of the message.
        message_type: MessageType,
        /// Length of its payload, in bytes.
        payload_len: usize,
    },
    /// The receiver would take the message for malformed, or for another one.
    RuleBroken {
        /// Type of the message.
        message_type: MessageType,
        /// The rule, as a sentence.
        rule: &'static str,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { message_type, payload_len } => write!(
                f,
                "cannot encode {message_type}: its payload of {payload_len} bytes is longer than \
                 {PAYLOAD_LEN_MAX} bytes; send less at once"
            ),
            Self::RuleBroken { message_type, rule } => {
                write!(f, "cannot encode {message_type}: {rule}")
            }
        }
    }
}

impl std::error::Error for EncodeError {}
