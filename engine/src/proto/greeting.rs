//! What passes between the TLS handshake and the mlet: monitor programs in lock-step, then START
//! (protocol.md 5.1).
//!
//! ```text
//! Submitting --all answered--> AwaitingPermit --permit--> Starting --RESULT 0--> done
//! ```
//!
//! Any answer but a RESULT of success fails the session. What the endpoint sends after its answer to
//! START is left unread: it belongs to the mlet.

use std::fmt;
use std::sync::Arc;

use super::tls::{Plaintext, ServerStream};

use crate::wire::message::{HEADER_LEN, Message, MessageType, PAYLOAD_LEN_MAX, Status};

/// The hint under which monitor programs are submitted, behind its length.
const HINT: &[u8] = b"\x07monitor";

/// The largest payload of a RESULT (protocol.md 1.4).
const RESULT_PAYLOAD_MAX: usize = 6;

/// The most bytes of a program that are sealed at a time.
const PIECE_LEN: usize = 16 * 1024;

/// Where the greeting stands.
#[derive(Debug)]
pub struct Greeting {
    programs: Arc<[Arc<[u8]>]>,
    step: Step,
    answer: [u8; HEADER_LEN + RESULT_PAYLOAD_MAX],
    answer_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
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
}

/// Why a greeting failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GreetingError {
    /// The endpoint refused a program (by its place in the list) or START.
    Refused {
        /// What was refused.
        what: Request,
        /// The endpoint's reason.
        status: Status,
    },
    /// Something other than a RESULT arrived while one was awaited.
    Unexpected {
        /// What awaited an answer.
        what: Request,
        /// Type of the message that came.
        message_type: MessageType,
        /// Its payload length in bytes.
        payload_len: usize,
    },
    /// The endpoint spoke while nothing was asked of it.
    Unasked,
    /// A program is larger than a message can carry.
    ProgramTooLarge {
        /// Its encoded length in bytes.
        len: usize,
    },
}

/// A request of the greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// CDATA of the program with this index.
    Program(usize),
    /// START.
    Start,
}

impl fmt::Display for Request {
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
            Self::Refused { what, status } => write!(f, "the endpoint refused {what}: {status}"),
            Self::Unexpected { what, message_type, payload_len } => write!(
                f,
                "the endpoint answered {what} with {message_type} of {payload_len} bytes \
                 instead of a RESULT"
            ),
            Self::Unasked => f.write_str("the endpoint sent a message before START"),
            Self::ProgramTooLarge { len } => write!(
                f,
                "a monitor program of {len} bytes does not fit into a message; \
                 take it out of the program directory"
            ),
        }
    }
}

impl std::error::Error for GreetingError {}

impl Greeting {
    /// A greeting that will submit `programs`.
    pub fn new(programs: Arc<[Arc<[u8]>]>) -> Self {
        Self {
            programs,
            step: Step::Submitting { index: 0, written: 0 },
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
                Step::Submitting { index, .. } if index == self.programs.len() => {
                    self.step = Step::AwaitingPermit;
                    return Ok(Progress::WantsPermit);
                }
                Step::Submitting { index, .. } => {
                    if !self.submit(tls)? {
                        return Ok(Progress::Waiting);
                    }
                    Request::Program(index)
                }
                Step::AwaitingPermit => {
                    return match tls.read(&mut self.answer) {
                        Plaintext::Bytes(_) => Err(GreetingError::Unasked),
                        _ => Ok(Progress::Waiting),
                    };
                }
                Step::Starting => Request::Start,
            };
            let Some(status) = self.read_answer(tls, what)? else {
                return Ok(Progress::Waiting);
            };
            if status != Status::SUCCESS {
                return Err(GreetingError::Refused { what, status });
            }
            match what {
                Request::Program(index) => {
                    self.step = Step::Submitting { index: index + 1, written: 0 };
                }
                Request::Start => return Ok(Progress::Started),
            }
        }
    }

    /// Sends START; the permit for it is held.
    pub fn start(&mut self, tls: &mut ServerStream) {
        debug_assert_eq!(self.step, Step::AwaitingPermit);
        tls.write_piece(&[MessageType::START.0, 0, 0, 0]);
        self.step = Step::Starting;
    }

    /// START has been sent: the endpoint may have begun the experiment.
    pub fn has_sent_start(&self) -> bool {
        self.step == Step::Starting
    }

    /// Seals the current program piece by piece while nothing else waits to be sent; tells whether
    /// all of it is sealed.
    fn submit(&mut self, tls: &mut ServerStream) -> Result<bool, GreetingError> {
        let Step::Submitting { index, written } = &mut self.step else { return Ok(true) };
        let program = &self.programs[*index];
        let payload_len = HINT.len() + program.len();
        if payload_len > PAYLOAD_LEN_MAX {
            return Err(GreetingError::ProgramTooLarge { len: program.len() });
        }
        if *written == 0 {
            let mut head = vec![MessageType::CDATA.0];
            head.extend_from_slice(&(payload_len as u32).to_be_bytes()[1..]);
            head.extend_from_slice(HINT);
            tls.write_piece(&head);
            *written = head.len();
        }
        let head_len = HEADER_LEN + HINT.len();
        while *written < head_len + program.len() {
            let rest = &program[*written - head_len..];
            match tls.write_piece(&rest[..rest.len().min(PIECE_LEN)]) {
                // The rest follows when what is sealed has been sent.
                0 => break,
                len => *written += len,
            }
        }
        Ok(*written == head_len + program.len())
    }

    /// Reads one message, and not a byte more; `None` until it is whole.
    fn read_answer(
        &mut self,
        tls: &mut ServerStream,
        what: Request,
    ) -> Result<Option<Status>, GreetingError> {
        loop {
            let wanted = self.answer_wanted(what)?;
            if self.answer_len == wanted {
                break;
            }
            match tls.read(&mut self.answer[self.answer_len..wanted]) {
                Plaintext::Bytes(len) => self.answer_len += len,
                _ => return Ok(None),
            }
        }
        let payload = &self.answer[HEADER_LEN..self.answer_len];
        self.answer_len = 0;
        match Message::decode(MessageType::RESULT, payload) {
            Message::Result(result) => Ok(Some(result.status())),
            _ => Err(GreetingError::Unexpected {
                what,
                message_type: MessageType::RESULT,
                payload_len: payload.len(),
            }),
        }
    }

    /// How many bytes of the answer are needed, as far as is known from those that came.
    fn answer_wanted(&self, what: Request) -> Result<usize, GreetingError> {
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
