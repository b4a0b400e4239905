//! One connection on its way to be registered at a proxy, without its socket.
//!
//! ```text
//!  Handshake --> Registration --> Answer --> Preamble --> Reply --> done
//!  TLS client    XREG leaves      RESULT 0   PKTLAB in    PKTLAB out
//! ```
//!
//! After RESULT our close_notify ends TLS, and the proxy's `PKTLAB` says that raw bytes follow. What
//! the proxy sends between the two, such as its own close_notify, is skipped.
//!
//! Invariant: TLS is given exactly one record at a time, so whatever lies behind the record with the
//! RESULT stays here; bytes behind the preamble are the first of the endpoint.

use std::fmt;
use std::sync::Arc;

use crate::guards::{Guard, holds};
use packetlab::frame::Framer;
use packetlab::message::{Message, MessageType, Outcome, PAYLOAD_LEN_MAX, Status};
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::{
    ClientConfig, ClientStream, Plaintext, SetupError, TlsError, reason, record_len, remedy,
};

/// What either side sends when its stream has become raw (spec/protocol.md 5.2).
const PREAMBLE: &[u8; 6] = b"PKTLAB";

/// Bytes skipped in search of the preamble. Before it come a close_notify and perhaps tickets, some
/// hundred bytes; this is far more.
const SKIPPED_MAX: usize = 64 * 1024;

/// The largest payload of a RESULT (spec/protocol.md 1.4).
const RESULT_PAYLOAD_MAX: usize = 6;

/// Where a set-up stands. Each step has a deadline of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetUpStep {
    /// The TCP connection is being made, which is its owner's task.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// XREG is being sent.
    Registration,
    /// RESULT is awaited.
    Answer,
    /// The proxy's preamble is awaited.
    Preamble,
    /// Our preamble is being sent.
    Reply,
}

impl fmt::Display for SetUpStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Handshake => "the TLS handshake",
            Self::Registration => "sending XREG",
            Self::Answer => "waiting for the answer to XREG",
            Self::Preamble => "waiting for the preamble",
            Self::Reply => "sending our preamble",
        })
    }
}

/// Why a connection did not get registered.
#[derive(Debug, Clone, PartialEq)]
pub enum SetUpError {
    /// TLS failed, for example because one side refuses the other's certificate.
    Tls(TlsError),
    /// The proxy refused the registration.
    Refused(Outcome),
    /// The proxy answered XREG with something else than a RESULT.
    Unexpected {
        /// Type of the message that came.
        message_type: MessageType,
        /// Its payload length in bytes.
        payload_len: usize,
    },
    /// The proxy sent much, but no preamble.
    NoPreamble,
    /// The proxy closed the connection.
    Closed,
}

impl fmt::Display for SetUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => write!(
                f,
                "TLS failed: {}; {}",
                reason(error),
                remedy(
                    error,
                    "a proxy's set-up port",
                    "BacklogConnAgentCertPath, ProxyCertRootPath"
                )
            ),
            Self::Refused(outcome) => {
                write!(f, "the proxy refused the registration: {outcome}")?;
                if *outcome == Outcome::Status(Status::ESYSNOPERM) {
                    f.write_str(
                        "; another controller has the snikey. Managers share one if one group key has signed their agent \
                         certificates and pktfleet proxy is given it (--client-root; with --require-client-certificate \
                         no stranger can be first)",
                    )?;
                }
                Ok(())
            }
            Self::Unexpected { message_type, payload_len } => write!(
                f,
                "the proxy answered XREG with {message_type} of {payload_len} bytes instead of a \
                 RESULT; is this a proxy's set-up port?"
            ),
            Self::NoPreamble => {
                write!(f, "the proxy sent {SKIPPED_MAX} bytes after RESULT, but not PKTLAB")
            }
            Self::Closed => f.write_str("the proxy closed the connection"),
        }
    }
}

impl std::error::Error for SetUpError {}

/// The set-up.
pub struct SetUp {
    state: SetUpState,
    /// The message with which the connection registers.
    registration: Vec<u8>,
    /// Received and not used yet.
    received: Vec<u8>,
    output: Vec<u8>,
}

enum SetUpState {
    Handshake(ClientStream),
    Registration(ClientStream),
    Answer(ClientStream, Framer),
    Preamble { skipped: usize },
    Reply,
    Done,
}

impl SetUp {
    /// The set-up of a connection that has just been made, to be registered for `snikey`.
    ///
    /// # Errors
    /// TLS cannot begin.
    pub fn new(tls: Arc<ClientConfig>, snikey: &SniKey) -> Result<Self, SetupError> {
        let mut tls = ClientStream::connect(tls)?;
        let mut output = Vec::new();
        tls.take_output(&mut output);
        let mut registration = Vec::new();
        // A snikey that exists keeps the rules of XREG.
        let encoded = Message::Xreg { snikey: snikey.as_str() }.encode(&mut registration);
        debug_assert!(encoded.is_ok());
        Ok(Self { state: SetUpState::Handshake(tls), registration, received: Vec::new(), output })
    }

    /// Where it stands; `None` when the connection is registered and ready for its endpoint.
    pub fn step(&self) -> Option<SetUpStep> {
        match &self.state {
            SetUpState::Handshake(_) => Some(SetUpStep::Handshake),
            SetUpState::Registration(_) => Some(SetUpStep::Registration),
            SetUpState::Answer(..) => Some(SetUpStep::Answer),
            SetUpState::Preamble { .. } => Some(SetUpStep::Preamble),
            SetUpState::Reply => Some(SetUpStep::Reply),
            SetUpState::Done => None,
        }
    }

    /// What is to be sent before anything more is received; may be empty. Also after an error, to let
    /// the proxy know.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// What [`Self::take_output`] gave has been sent.
    pub fn handle_sent(&mut self) {
        self.state = match std::mem::replace(&mut self.state, SetUpState::Done) {
            SetUpState::Registration(tls) => {
                let len_max =
                    if holds(Guard::BoundsAnswers) { RESULT_PAYLOAD_MAX } else { PAYLOAD_LEN_MAX };
                SetUpState::Answer(tls, Framer::new(len_max))
            }
            SetUpState::Reply => SetUpState::Done,
            state => state,
        };
    }

    /// The proxy sent `bytes`, at the time `now`.
    ///
    /// # Errors
    /// The set-up has failed.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Ticks) -> Result<(), SetUpError> {
        self.received.extend_from_slice(bytes);
        while matches!(self.state, SetUpState::Handshake(_) | SetUpState::Answer(..)) {
            let Some(len) = record_len(&self.received).map_err(SetUpError::Tls)? else {
                return Ok(());
            };
            if self.received.len() < len {
                return Ok(());
            }
            let record: Vec<u8> = self.received.drain(..len).collect();
            self.take_record(&record, now)?;
        }
        if let SetUpState::Preamble { skipped } = &mut self.state {
            let found = self.received.windows(PREAMBLE.len()).position(|bytes| bytes == PREAMBLE);
            // Without one, the last bytes may be the beginning of it.
            let gone = match found {
                Some(start) => start + PREAMBLE.len(),
                None => self.received.len().saturating_sub(PREAMBLE.len() - 1),
            };
            self.received.drain(..gone);
            *skipped += gone;
            if found.is_some() {
                self.output.extend_from_slice(PREAMBLE);
                self.state = SetUpState::Reply;
            } else if *skipped > SKIPPED_MAX {
                return Err(SetUpError::NoPreamble);
            }
        }
        Ok(())
    }

    /// The bytes behind the preamble: the first of the endpoint, if it is here already.
    pub fn into_endpoint_bytes(self) -> Vec<u8> {
        self.received
    }

    /// Feeds TLS one record, and moves on as far as it lets us.
    fn take_record(&mut self, mut record: &[u8], now: Ticks) -> Result<(), SetUpError> {
        let (SetUpState::Handshake(tls) | SetUpState::Answer(tls, _)) = &mut self.state else {
            return Ok(());
        };
        while !record.is_empty() {
            if let Err(error) = tls.receive(&mut record, now) {
                tls.take_output(&mut self.output);
                return Err(SetUpError::Tls(error));
            }
        }
        tls.take_output(&mut self.output);
        match &mut self.state {
            SetUpState::Answer(..) => self.take_answer(),
            SetUpState::Handshake(tls) if !tls.is_handshaking() => {
                self.register();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn register(&mut self) {
        let SetUpState::Handshake(mut tls) = std::mem::replace(&mut self.state, SetUpState::Done)
        else {
            return;
        };
        tls.write_piece(&self.registration);
        tls.take_output(&mut self.output);
        self.state = SetUpState::Registration(tls);
    }

    /// Looks for the RESULT in what the last record held.
    fn take_answer(&mut self) -> Result<(), SetUpError> {
        let SetUpState::Answer(tls, answer) = &mut self.state else { return Ok(()) };
        let mut bytes = [0; 256];
        let mut closed = false;
        loop {
            match tls.read(&mut bytes) {
                Plaintext::Bytes(len) => answer.push(&bytes[..len]),
                Plaintext::Empty => break,
                Plaintext::Closed => {
                    closed = true;
                    break;
                }
            }
        }
        let unexpected =
            |message_type, payload_len| SetUpError::Unexpected { message_type, payload_len };
        let next = answer.next();
        let (message_type, payload) =
            match next.map_err(|error| unexpected(error.message_type, error.payload_len))? {
                Some(message) => message,
                None if closed => return Err(SetUpError::Closed),
                None => return Ok(()),
            };
        match Message::decode(message_type, payload) {
            Message::Result(outcome) if outcome.is_success() => {
                tls.close();
                tls.take_output(&mut self.output);
                self.state = SetUpState::Preamble { skipped: 0 };
                Ok(())
            }
            Message::Result(outcome) => Err(SetUpError::Refused(outcome)),
            _ => Err(unexpected(message_type, payload.len())),
        }
    }
}

#[cfg(test)]
mod tests;
