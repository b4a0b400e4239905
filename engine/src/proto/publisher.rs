//! One publication conversation with a broker (spec/protocol.md 5.4), without its socket.
//!
//! ```text
//!  Handshake --> Asking --RESULT 0 to each request--> Published --close--> Closed
//! ```
//!
//! Not here: when to publish, and again (`control/publication.rs`).
//!
//! Requests go out one at a time, each after the RESULT of the one before: for every experiment,
//! last in the file first, its chain as XCERTs leaf first, then XPUB. A RESULT of success is the only
//! answer that lets the conversation go on. Afterwards the broker has nothing to say: what it sends
//! is reported and ignored.
//!
//! The owner of the socket sends what [`Publisher::take_output`] gives, also after an error, and
//! feeds what it receives.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::descriptor::{descriptor, publication_end};
use crate::config::{Experiment, Publication};
use packetlab::channel::{ChannelId, ChannelList};
use packetlab::frame::{FrameError, Framer};
use packetlab::message::{EncodeError, Message, MessageType, Outcome, Status};
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::{self, ClientConfig, ClientStream, Plaintext, SetupError, TlsError};

/// The largest payload taken from a broker. A RESULT has at most 6 bytes, and what else it may say to
/// endpoints about 4 KiB.
const PAYLOAD_MAX: usize = 64 * 1024;

/// Plaintext taken from TLS at a time.
const READ_LEN: usize = 4096;

/// One message to the broker that awaits a RESULT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRequest {
    /// What it asks.
    pub what: What,
    /// The whole message.
    pub message: Vec<u8>,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// XCERT.
    Certificate {
        /// Whose chain.
        snikey: SniKey,
        /// Which certificate of it, from 1, leaf first.
        number: usize,
        /// Its type, such as `pubcmd`.
        kind: &'static str,
    },
    /// XPUB.
    Experiment {
        /// Which experiment.
        snikey: SniKey,
    },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { snikey, number, kind } => {
                let snikey = snikey.short();
                write!(f, "certificate {number} ({kind}) of the experiment with snikey {snikey}")
            }
            Self::Experiment { snikey } => {
                write!(f, "the publication of the experiment with snikey {}", snikey.short())
            }
        }
    }
}

/// An experiment as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedExperiment {
    /// Its channels.
    pub channels: ChannelList,
    /// Its descriptor.
    pub xdescr: String,
    /// When its publication ends; `None` is never.
    pub end: Option<Ticks>,
    /// The requests that publish it, in order.
    pub requests: Vec<BrokerRequest>,
}

impl PublishedExperiment {
    /// Makes what publishes `experiment`. `pub_end` is the end of those that do not override it.
    ///
    /// # Errors
    /// A message has no encoding, such as one that is too long.
    pub fn new(
        publication: &Publication,
        experiment: &Experiment,
        controller_addr: &str,
        pub_end: Option<Ticks>,
    ) -> Result<Self, EncodeError> {
        let xdescr = descriptor(&publication.called, experiment, controller_addr, pub_end);
        Self::of_descriptor(experiment, xdescr, publication_end(experiment, pub_end))
    }

    /// The same with a descriptor that is there, and an `end` that it tells.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn of_descriptor(
        experiment: &Experiment,
        xdescr: String,
        end: Option<Ticks>,
    ) -> Result<Self, EncodeError> {
        let certificates = experiment.verified.as_ref().map_or(&[][..], |v| &v.certificates);
        let mut requests = Vec::new();
        for (index, certificate) in certificates.iter().enumerate() {
            let what = What::Certificate {
                snikey: experiment.snikey.clone(),
                number: index + 1,
                kind: certificate.certificate_type.name(),
            };
            let message = encoded(&Message::Xcert { certificate: certificate.der() })?;
            requests.push(BrokerRequest { what, message });
        }
        let channels = channels(experiment);
        let message = encoded(&Message::Xpub {
            channels: channels.clone(),
            operator_key: operator_key(experiment),
            xdescr: &xdescr,
        })?;
        let what = What::Experiment { snikey: experiment.snikey.clone() };
        requests.push(BrokerRequest { what, message });
        Ok(Self { channels, xdescr, end, requests })
    }
}

fn encoded(message: &Message<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes)?;
    Ok(bytes)
}

/// The channels in configured order; the key channel is the key id of the chain's operator. Without a
/// verified chain there is none, which the config has made sure nobody asks for.
fn channels(experiment: &Experiment) -> ChannelList {
    let root = experiment.verified.as_ref().and_then(|verified| verified.root_key_id());
    let key_channel = root.and_then(|root| ChannelId::new(&root.0).ok());
    let channels: Vec<_> =
        experiment.channels.iter().filter_map(|channel| channel.or(key_channel)).collect();
    ChannelList::new(&channels)
}

/// The trusted operator key that our chain is rooted in; zeros when there is none.
fn operator_key(experiment: &Experiment) -> [u8; 32] {
    let anchor = experiment.verified.as_ref().and_then(|verified| verified.anchor);
    let key = anchor.and_then(|anchor| experiment.trusted_operators.get(anchor));
    key.map_or([0; 32], |key| key.0)
}

/// Why nothing is published, or no more.
#[derive(Debug, Clone, PartialEq)]
pub enum PublishError {
    /// TLS failed, for example because one side refuses the other's certificate.
    Tls(TlsError),
    /// The broker refused a request.
    Refused {
        /// Which.
        what: What,
        /// Its reason.
        outcome: Outcome,
    },
    /// Something other than a RESULT arrived while one was awaited.
    Unexpected {
        /// What awaited an answer.
        what: What,
        /// Type of the message that came.
        message_type: MessageType,
        /// Its payload length in bytes.
        payload_len: usize,
    },
    /// The broker spoke before it was asked anything.
    Unasked,
    /// Everything is published, but what the broker sends is no message it could mean.
    Nonsense(FrameError),
    /// The broker closed the connection before TLS was set up.
    ClosedInHandshake,
    /// The broker closed the connection.
    Closed {
        /// What awaited an answer; `None`: everything had been published.
        awaiting: Option<What>,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => write!(
                f,
                "TLS failed: {}; {}",
                tls::reason(error),
                tls::remedy(error, "a broker's publish port", "PubAgentCertPath, BrokerCertRootPath")
            ),
            Self::Refused { what, outcome } => {
                write!(f, "it refused {what}: {outcome}; {}", advice(outcome.status()))
            }
            Self::Unexpected { what, message_type, payload_len } => write!(
                f,
                "it answered {what} with {message_type} of {payload_len} bytes instead of a \
                 RESULT; is this a broker's publish port?"
            ),
            Self::Unasked => f.write_str("it sent a message before it was asked anything"),
            Self::Nonsense(error) => error.fmt(f),
            Self::ClosedInHandshake => f.write_str(
                "it closed the connection within the TLS handshake; is this a broker's publish port?",
            ),
            Self::Closed { awaiting: Some(what) } => {
                write!(f, "it closed the connection instead of answering {what}")
            }
            Self::Closed { awaiting: None } => f.write_str("it closed the connection"),
        }
    }
}

impl std::error::Error for PublishError {}

/// Whether the broker has no room for what it refuses.
pub fn is_want_of_room(status: Status) -> bool {
    matches!(status, Status::ECRTNOSPACE | Status::ESYSNOBUFS | Status::ENORES)
}

/// What to do about a refusal (spec/protocol.md 1.11).
fn advice(status: Status) -> &'static str {
    match status {
        Status::ECTLBADMSG | Status::ECTLNOTSUP => {
            "is this a broker's publish port, and of a broker that knows this message?"
        }
        Status::ECRTBADFRM => {
            "it does not accept the chain of EXPPRIVCHAIN_PATH for this key and operator"
        }
        status if is_want_of_room(status) => {
            "it has no room; publish fewer experiments or ask its operator"
        }
        Status::ESYSNOPERM => "ask its operator for permission",
        Status::EPUBBADCHL | Status::EPUBBADCHN => {
            "correct PUB_CHANNEL; a private channel must be the key id of the chain's operator"
        }
        Status::EPUBBADADDR => "publish another address with -p or PubControllerAddr",
        Status::EPUBBADPR => "correct PubExpPriority, or the limit in the chain's certificates",
        Status::EPUBBADXD => "correct OVERRIDE_XDESCRNVP, -i or the Pub* options",
        _ => "ask its operator what that means there",
    }
}

/// What became of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublisherEvent {
    /// Every request was answered with success.
    Published,
    /// A message that means nothing to us.
    Ignored(MessageType),
}

/// The conversation.
pub struct Publisher {
    tls: ClientStream,
    state: PublisherState,
    to_ask: VecDeque<BrokerRequest>,
    received: Framer,
    events: VecDeque<PublisherEvent>,
    output: Vec<u8>,
}

enum PublisherState {
    Handshake,
    Asking(What),
    Published,
}

impl Publisher {
    /// A conversation that will make `requests`, in order.
    ///
    /// # Errors
    /// TLS cannot begin.
    pub fn new(tls: Arc<ClientConfig>, requests: Vec<BrokerRequest>) -> Result<Self, SetupError> {
        let mut tls = ClientStream::connect(tls)?;
        let mut output = Vec::new();
        tls.take_output(&mut output);
        Ok(Self {
            tls,
            state: PublisherState::Handshake,
            to_ask: requests.into(),
            received: Framer::new(PAYLOAD_MAX),
            events: VecDeque::new(),
            output,
        })
    }

    /// What is to be sent now; may be empty.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.tls.take_output(&mut self.output);
        std::mem::take(&mut self.output)
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<PublisherEvent> {
        self.events.pop_front()
    }

    /// The broker sent `input`, at the time `now`.
    ///
    /// # Errors
    /// The conversation is over.
    pub fn handle_bytes(&mut self, mut input: &[u8], now: Ticks) -> Result<(), PublishError> {
        while !input.is_empty() {
            let received = self.tls.receive(&mut input, now);
            self.take_plaintext()?;
            received.map_err(PublishError::Tls)?;
        }
        Ok(())
    }

    /// The broker closed, or its connection broke: what that means for the conversation.
    pub fn handle_end(&self) -> PublishError {
        match &self.state {
            PublisherState::Handshake => PublishError::ClosedInHandshake,
            PublisherState::Asking(what) => PublishError::Closed { awaiting: Some(what.clone()) },
            PublisherState::Published => PublishError::Closed { awaiting: None },
        }
    }

    /// What the broker is to answer now; `None`: nothing more.
    pub fn awaits(&self) -> Option<String> {
        match &self.state {
            PublisherState::Handshake => Some("the TLS handshake".into()),
            PublisherState::Asking(what) => Some(what.to_string()),
            PublisherState::Published => None,
        }
    }

    /// Announces the end of what we send.
    pub fn close(&mut self) {
        self.tls.close();
    }

    fn take_plaintext(&mut self) -> Result<(), PublishError> {
        if matches!(self.state, PublisherState::Handshake) && !self.tls.is_handshaking() {
            self.ask_next();
        }
        let mut bytes = [0; READ_LEN];
        loop {
            match self.tls.read(&mut bytes) {
                Plaintext::Bytes(len) => self.received.push(&bytes[..len]),
                Plaintext::Empty => return Ok(()),
                Plaintext::Closed => return Err(self.handle_end()),
            }
            while self.take_message()? {}
        }
    }

    /// Takes one message; false when none is whole.
    fn take_message(&mut self) -> Result<bool, PublishError> {
        let unexpected = |what: &What, message_type, payload_len| {
            Err(PublishError::Unexpected { what: what.clone(), message_type, payload_len })
        };
        let (message_type, payload) = match (self.received.next(), &self.state) {
            (Ok(None), _) => return Ok(false),
            (_, PublisherState::Handshake) => return Err(PublishError::Unasked),
            (Ok(Some(message)), _) => message,
            (Err(error), PublisherState::Asking(what)) => {
                return unexpected(what, error.message_type, error.payload_len);
            }
            (Err(error), PublisherState::Published) => return Err(PublishError::Nonsense(error)),
        };
        let PublisherState::Asking(what) = &self.state else {
            self.events.push_back(PublisherEvent::Ignored(message_type));
            return Ok(true);
        };
        match Message::decode(message_type, payload) {
            Message::Result(outcome) if outcome.is_success() => self.ask_next(),
            Message::Result(outcome) => {
                return Err(PublishError::Refused { what: what.clone(), outcome });
            }
            _ => return unexpected(what, message_type, payload.len()),
        }
        Ok(true)
    }

    /// Sends the next request, or tells that none is left.
    fn ask_next(&mut self) {
        let Some(BrokerRequest { what, message }) = self.to_ask.pop_front() else {
            self.state = PublisherState::Published;
            self.events.push_back(PublisherEvent::Published);
            return;
        };
        // Each message begins a record of its own (spec/protocol.md 1.6).
        let mut rest = &message[..];
        while !rest.is_empty() {
            let taken = self.tls.write_piece(rest);
            rest = &rest[taken..];
            self.tls.take_output(&mut self.output);
        }
        self.state = PublisherState::Asking(what);
    }
}

#[cfg(test)]
pub(crate) mod tests;
