//! Whether a mlet says what is recorded, and in words what it says instead.
//!
//! Times that a mlet makes of its clock are others in each run: of those only that they are there is compared. Not here: how
//! messages come.

use std::fmt::{self, Write};
use std::time::Duration;

use engine::sys::supervisor::MletStatus;
use packetlab::message::{HEADER_LEN, Header, Message, MessageType};
use packetlab::time::Ticks;
use packetlab::words::counted;

use super::recording::{Step, What};

/// Bytes that are shown from where two messages differ.
const SHOWN_LEN: usize = 8;

/// What comes of a mlet.
#[derive(Debug)]
pub(super) enum Heard {
    /// A whole message.
    Message(Vec<u8>),
    /// It has closed its session.
    End,
    /// Nothing, for as long as is allowed.
    Nothing,
}

/// The first thing that is not as recorded.
#[derive(Debug)]
pub(super) struct Difference {
    line: usize,
    expected: String,
    came: String,
    is_end: bool,
    /// Where two messages of the same words differ, and what was said before its turn.
    detail: String,
}

/// ```text
/// line 3: the mlet does not say what is recorded
///   recorded: 56 bytes, NSEND socket 1: 33 bytes, peer 192.0.2.53:53, at once, tag 1234
///   came:     5 bytes, NCLOSE socket 1
/// ```
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, expected, came, detail, .. } = self;
        writeln!(f, "line {line}: the mlet does not do what is recorded")?;
        write!(f, "  recorded: {expected}\n  came:     {came}{detail}")
    }
}

impl Difference {
    /// Between what is recorded of the mlet at this step and what was heard; `None` if there is none.
    pub(super) fn between(step: &Step, heard: Heard, waited: Duration) -> Option<Self> {
        let expected = match &step.what {
            What::MletSays(expected) => told(expected),
            _ => "the end of its session".to_owned(),
        };
        let is_end = matches!(heard, Heard::End);
        let (came, detail) = match (&step.what, heard) {
            (What::MletSays(expected), Heard::Message(came)) => {
                let came = front(expected, &came);
                if are_alike(expected, came) {
                    return None;
                }
                (told(came), first_bytes(expected, came))
            }
            (What::MletEnds, Heard::End) => return None,
            (_, Heard::Message(came)) => (told(&came), String::new()),
            (_, Heard::End) => ("the end of its session".to_owned(), String::new()),
            (_, Heard::Nothing) => (nothing_within(waited), String::new()),
        };
        Some(Self { line: step.line, expected, came, is_end, detail })
    }

    /// The same of a mlet that has said what is recorded later, at this step.
    pub(super) fn behind(mut self, early: Option<&Step>) -> Self {
        if let Some(Step { line, what: What::MletSays(said), .. }) = early {
            let _ =
                write!(self.detail, "\n  before: what is recorded in line {line}: {}", told(said));
        }
        self
    }

    /// The mlet does not read what the endpoint says at this step.
    pub(super) fn unread(step: &Step, waited: Duration) -> Self {
        let expected = "that it reads what the endpoint says".to_owned();
        Self::nothing_came(step, expected, waited)
    }

    /// The mlet does not end though its endpoint has.
    pub(super) fn stays(step: &Step, waited: Duration) -> Self {
        let expected = "the end of its session, as the endpoint ends here".to_owned();
        Self::nothing_came(step, expected, waited)
    }

    fn nothing_came(step: &Step, expected: String, waited: Duration) -> Self {
        let (came, detail) = (nothing_within(waited), String::new());
        Self { line: step.line, expected, came, is_end: false, detail }
    }

    /// The mlet has closed its session instead, and may have ended.
    pub(super) fn is_end(&self) -> bool {
        self.is_end
    }

    /// The mlet has ended so.
    pub(super) fn ended(&mut self, status: MletStatus) {
        let _ = write!(self.came, "; mlet {status}");
    }
}

fn nothing_within(waited: Duration) -> String {
    format!("nothing within {:.3} s", waited.as_secs_f64())
}

/// Of a message as much as is recorded of the other, where that is a front.
fn front<'a>(recorded: &[u8], came: &'a [u8]) -> &'a [u8] {
    let whole_len =
        recorded.first_chunk().map_or(0, |header| HEADER_LEN + Header::decode(*header).payload_len);
    let is_front = recorded.len() < whole_len;
    came.get(..recorded.len()).filter(|_| is_front).unwrap_or(came)
}

pub(super) fn are_alike(expected: &[u8], came: &[u8]) -> bool {
    expected.get(..HEADER_LEN) == came.get(..HEADER_LEN) && timeless(expected) == timeless(came)
}

/// A message with its times made alike.
fn timeless(bytes: &[u8]) -> Vec<u8> {
    let (mut message, mut encoded) = (decoded(bytes), Vec::new());
    match &mut message {
        Message::Nsend { time, .. }
        | Message::Nctl { time, .. }
        | Message::Ncap { end: time, .. }
        | Message::Yield { resume: time } => {
            // At once, and never, are no times.
            if !matches!(*time, Ticks(0) | Ticks::MAX) {
                *time = Ticks(1);
            }
        }
        _ => return bytes.to_vec(),
    }
    match message.encode(&mut encoded) {
        Ok(()) => encoded,
        Err(_) => bytes.to_vec(),
    }
}

fn decoded(bytes: &[u8]) -> Message<'_> {
    let message_type = MessageType(bytes.first().copied().unwrap_or_default());
    Message::decode(message_type, bytes.get(HEADER_LEN..).unwrap_or_default())
}

/// Its size and its words.
fn told(bytes: &[u8]) -> String {
    format!("{}, {}", counted(bytes.len() as u64, "byte"), decoded(bytes))
}

/// Where two messages differ first, and how they go on there.
fn first_bytes(expected: &[u8], came: &[u8]) -> String {
    let (expected, came) = (timeless(expected), timeless(came));
    let at = expected.iter().zip(&came).take_while(|(one, other)| one == other).count();
    let from = |bytes: &[u8]| {
        let shown = bytes.iter().skip(at).take(SHOWN_LEN).map(|byte| format!("{byte:02x}"));
        let rest = if bytes.len() > at + SHOWN_LEN { ".." } else { "" };
        format!("{}{rest}", shown.collect::<String>())
    };
    format!("\n  from byte {at} on: recorded {}, came {}", from(&expected), from(&came))
}

#[cfg(test)]
mod tests {
    use packetlab::message::Packet;

    use super::*;

    fn nsend(time: u64, data: &[u8]) -> Vec<u8> {
        let packet = Packet::Udp { remote: ([192, 0, 2, 53], 53).into(), data };
        let mut bytes = Vec::new();
        let message = Message::Nsend { sktid: 1, time: Ticks(time), tag: 7, packet };
        message.encode(&mut bytes).unwrap();
        bytes
    }

    fn between(what: What, heard: Heard) -> Option<String> {
        let step = Step { line: 3, took: Duration::ZERO, what };
        Difference::between(&step, heard, Duration::from_secs(2)).map(|found| found.to_string())
    }

    #[test]
    fn times_differ_in_each_run_and_nothing_else_may() {
        let said = |recorded: &[u8], came: &[u8]| {
            between(What::MletSays(recorded.to_vec()), Heard::Message(came.to_vec()))
        };
        assert_eq!(said(&nsend(5, b"data"), &nsend(6, b"data")), None);
        assert!(said(&nsend(0, b"data"), &nsend(6, b"data")).is_some());
        let told = said(&nsend(0, b"data"), &nsend(0, b"dada")).unwrap();
        let expected = "line 3: the mlet does not do what is recorded\n  \
            recorded: 27 bytes, NSEND socket 1: 4 bytes, peer 192.0.2.53:53, at once, tag 7\n  \
            came:     27 bytes, NSEND socket 1: 4 bytes, peer 192.0.2.53:53, at once, tag 7\n  \
            from byte 25 on: recorded 7461, came 6461";
        assert_eq!(told, expected);
        assert!(said(&nsend(0, b"data"), &nsend(0, b"data and more")).is_some());
    }

    #[test]
    fn of_a_long_message_the_front_that_was_kept_is_compared() {
        let (long, other) =
            (nsend(5, &[7; 9000]), nsend(6, &[[7; 8000].as_slice(), &[8; 1000]].concat()));
        let front = |len: usize| What::MletSays(long[..len].to_vec());
        assert_eq!(between(front(8000), Heard::Message(other.clone())), None);
        assert!(between(front(8500), Heard::Message(other)).is_some());
        assert!(between(front(8000), Heard::Message(nsend(6, &[7; 8999]))).is_some());
    }

    #[test]
    fn a_mlet_that_leaves_stays_or_is_silent_is_told_so() {
        let closes = || vec![0x2b, 0, 0, 1, 5];
        let told = between(What::MletSays(closes()), Heard::End).unwrap();
        assert!(told.ends_with("5 bytes, NCLOSE socket 5\n  came:     the end of its session"));
        let told = between(What::MletEnds, Heard::Message(closes())).unwrap();
        assert!(told.ends_with("the end of its session\n  came:     5 bytes, NCLOSE socket 5"));
        let told = between(What::MletEnds, Heard::Nothing).unwrap();
        assert!(told.ends_with("came:     nothing within 2.000 s"));
        assert_eq!(between(What::MletEnds, Heard::End), None);
    }
}
