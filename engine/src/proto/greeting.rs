//! What passes between the TLS handshake and the mlet: monitor programs in lock-step, then START
//! (spec/protocol.md 5.1).
//!
//! ```text
//! Submitting --all answered--> AwaitingPermit --permit--> Starting --RESULT 0--> done
//! ```
//!
//! Any answer but a RESULT of success fails the session. What the endpoint sends after its answer to
//! START is left unread: it belongs to the mlet.

use std::fmt;
use std::sync::Arc;

use crate::guards::{Guard, holds};
use packetlab::key::Hex;
use packetlab::message::{HEADER_LEN, Message, MessageType, Outcome, PAYLOAD_LEN_MAX};
use packetlab::program::{ENCODED_LEN_MAX, Program, ProgramDigest};
use packetlab::tls::{Plaintext, ServerStream};

/// The hint under which monitor programs are submitted, behind its length.
const HINT: [u8; 8] = *b"\x07monitor";

const _: () = assert!(HINT.len() + ENCODED_LEN_MAX <= PAYLOAD_LEN_MAX, "every program can be sent");

/// The largest payload of a RESULT (spec/protocol.md 1.4).
const RESULT_PAYLOAD_MAX: usize = 6;

/// The most bytes of a program that are sealed at a time.
const PIECE_LEN: usize = 16 * 1024;

/// Where the greeting stands.
#[derive(Debug)]
pub struct Greeting {
    programs: Arc<[Program]>,
    step: GreetingStep,
    answer: [u8; HEADER_LEN + RESULT_PAYLOAD_MAX],
    answer_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GreetingStep {
    /// CDATA of program `index`, of which `written` bytes have been sealed, or its answer.
    Submitting { index: usize, written: usize },
    /// Every program was accepted; START waits for a permit.
    AwaitingPermit,
    /// START was sent.
    Starting,
}

/// What the greeting needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes from the endpoint, or room to send.
    Waiting,
    /// A permit: then call [`Greeting::start`].
    WantsPermit,
    /// START was answered with success.
    Started,
    /// Nothing more: the endpoint closed its side of TLS.
    Left,
}

/// Why a greeting failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GreetingError {
    /// The endpoint refused a program (by its place in the list) or START.
    Refused {
        /// What was refused.
        what: GreetingRequest,
        /// The endpoint's reason.
        outcome: Outcome,
        /// The program that was refused, or whose monitor the reason names.
        program: Option<ProgramDigest>,
    },
    /// Something other than a RESULT arrived while one was awaited.
    Unexpected {
        /// What awaited an answer.
        what: GreetingRequest,
        /// Type of the message that came.
        message_type: MessageType,
        /// Its payload length in bytes.
        payload_len: usize,
    },
    /// The endpoint spoke while nothing was asked of it.
    Unasked,
}

/// A request of the greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GreetingRequest {
    /// CDATA of the program with this index.
    Program(usize),
    /// START.
    Start,
}

impl fmt::Display for GreetingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(index) => write!(f, "monitor program {}", index + 1),
            Self::Start => f.write_str("START"),
        }
    }
}

impl fmt::Display for GreetingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { what, outcome, program } => {
                write!(f, "the endpoint refused {what}: {outcome}")?;
                match program {
                    Some(digest) => {
                        write!(f, ", digest {}", Hex(digest.get(..8).unwrap_or(digest)))
                    }
                    None => Ok(()),
                }
            }
            Self::Unexpected { what, message_type, payload_len } => write!(
                f,
                "the endpoint answered {what} with {message_type} of {payload_len} bytes \
                 instead of a RESULT"
            ),
            Self::Unasked => f.write_str("the endpoint sent a message before START"),
        }
    }
}

impl std::error::Error for GreetingError {}

impl Greeting {
    /// A greeting that will submit `programs`.
    pub fn new(programs: Arc<[Program]>) -> Self {
        Self {
            programs,
            step: GreetingStep::Submitting { index: 0, written: 0 },
            answer: [0; HEADER_LEN + RESULT_PAYLOAD_MAX],
            answer_len: 0,
        }
    }

    /// Goes on as far as the bytes in `tls` and its room for output allow.
    ///
    /// # Errors
    /// The endpoint refused something or broke the protocol.
    pub fn advance(&mut self, tls: &mut ServerStream) -> Result<Progress, GreetingError> {
        loop {
            let what = match self.step {
                GreetingStep::Submitting { index, .. } if index == self.programs.len() => {
                    self.step = GreetingStep::AwaitingPermit;
                    return match expect_silence(tls)? {
                        Progress::Waiting => Ok(Progress::WantsPermit),
                        progress => Ok(progress),
                    };
                }
                GreetingStep::Submitting { index, .. } => {
                    if !self.submit(tls) {
                        return Ok(Progress::Waiting);
                    }
                    GreetingRequest::Program(index)
                }
                GreetingStep::AwaitingPermit => return expect_silence(tls),
                GreetingStep::Starting => GreetingRequest::Start,
            };
            let outcome = match self.read_answer(tls, what)? {
                Answer::Outcome(outcome) => outcome,
                Answer::Incomplete => return Ok(Progress::Waiting),
                Answer::Left => return Ok(Progress::Left),
            };
            if !outcome.is_success() {
                let program = self.blamed(what, outcome).map(|program| *program.digest());
                return Err(GreetingError::Refused { what, outcome, program });
            }
            match what {
                GreetingRequest::Program(index) => {
                    self.step = GreetingStep::Submitting { index: index + 1, written: 0 };
                }
                GreetingRequest::Start => return Ok(Progress::Started),
            }
        }
    }

    /// Sends START; the permit for it is held.
    pub fn start(&mut self, tls: &mut ServerStream) {
        debug_assert_eq!(self.step, GreetingStep::AwaitingPermit);
        tls.write_piece(&[MessageType::START.0, 0, 0, 0]);
        self.step = GreetingStep::Starting;
    }

    /// Every program was accepted, and START waits for a permit.
    pub fn awaits_permit(&self) -> bool {
        self.step == GreetingStep::AwaitingPermit
    }

    /// START has been sent: the endpoint may have begun the experiment.
    pub fn has_sent_start(&self) -> bool {
        self.step == GreetingStep::Starting
    }

    /// Seals the current program piece by piece while rustls takes it; tells whether all is sealed.
    fn submit(&mut self, tls: &mut ServerStream) -> bool {
        let GreetingStep::Submitting { index, written } = &mut self.step else { return true };
        let program = self.programs[*index].encoded();
        let head = cdata_head(program.len());
        let message_len = head.len() + program.len();
        while *written < message_len {
            let rest = match written.checked_sub(head.len()) {
                None => &head[*written..],
                Some(position) => &program[position..],
            };
            match tls.write_piece(&rest[..rest.len().min(PIECE_LEN)]) {
                // The rest follows when what is sealed has been sent.
                0 => return false,
                len => *written += len,
            }
        }
        true
    }

    /// The program because of which this was refused. Where START is, the reason may name a monitor: endpoints make the monitors
    /// of a program when it comes first, one for each time it is demanded (spec/monitors.md 2).
    fn blamed(&self, what: GreetingRequest, outcome: Outcome) -> Option<&Program> {
        match (what, outcome) {
            (GreetingRequest::Program(index), _) => self.programs.get(index),
            (GreetingRequest::Start, Outcome::MonitorFailed { monitor_index }) => {
                let programs = &self.programs;
                let is_new = |(at, one): &(usize, &Program)| !programs[..*at].contains(one);
                let first = programs.iter().enumerate().filter(is_new);
                let mut monitors =
                    first.flat_map(|(_, one)| programs.iter().filter(move |it| *it == one));
                monitors.nth(monitor_index.into())
            }
            (GreetingRequest::Start, _) => None,
        }
    }

    /// Reads one message, and not a byte more.
    fn read_answer(
        &mut self,
        tls: &mut ServerStream,
        what: GreetingRequest,
    ) -> Result<Answer, GreetingError> {
        loop {
            let wanted = self.answer_wanted(what)?;
            if self.answer_len == wanted {
                break;
            }
            match tls.read(&mut self.answer[self.answer_len..wanted]) {
                Plaintext::Bytes(len) => self.answer_len += len,
                Plaintext::Empty => return Ok(Answer::Incomplete),
                Plaintext::Closed => return Ok(Answer::Left),
            }
        }
        let payload = &self.answer[HEADER_LEN..self.answer_len];
        self.answer_len = 0;
        match Message::decode(MessageType::RESULT, payload) {
            Message::Result(outcome) => Ok(Answer::Outcome(outcome)),
            _ => Err(GreetingError::Unexpected {
                what,
                message_type: MessageType::RESULT,
                payload_len: payload.len(),
            }),
        }
    }

    /// How many bytes of the answer are needed, as far as is known from those that came.
    fn answer_wanted(&self, what: GreetingRequest) -> Result<usize, GreetingError> {
        if self.answer_len < HEADER_LEN {
            return Ok(HEADER_LEN);
        }
        let [message_type, high, middle, low, ..] = self.answer;
        let payload_len = u32::from_be_bytes([0, high, middle, low]) as usize;
        if message_type != MessageType::RESULT.0 || payload_len > RESULT_PAYLOAD_MAX {
            let message_type = MessageType(message_type);
            return Err(GreetingError::Unexpected { what, message_type, payload_len });
        }
        Ok(HEADER_LEN + payload_len)
    }
}

/// What there is of an awaited RESULT.
enum Answer {
    Outcome(Outcome),
    Incomplete,
    /// The endpoint closed its side of TLS instead.
    Left,
}

/// Nothing was asked of the endpoint, so any byte from it is an error.
fn expect_silence(tls: &mut ServerStream) -> Result<Progress, GreetingError> {
    match tls.read(&mut [0]) {
        Plaintext::Bytes(_) if holds(Guard::RefusesUnasked) => Err(GreetingError::Unasked),
        Plaintext::Bytes(_) | Plaintext::Empty => Ok(Progress::Waiting),
        Plaintext::Closed => Ok(Progress::Left),
    }
}

/// The bytes of a CDATA before those of the program: header and hint (spec/protocol.md 6.4).
fn cdata_head(program_len: usize) -> [u8; HEADER_LEN + HINT.len()] {
    let [_, high, middle, low] = ((HINT.len() + program_len) as u32).to_be_bytes();
    let mut head = [0; HEADER_LEN + HINT.len()];
    head[..HEADER_LEN].copy_from_slice(&[MessageType::CDATA.0, high, middle, low]);
    head[HEADER_LEN..].copy_from_slice(&HINT);
    head
}
