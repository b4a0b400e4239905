//! What the recorder is told by the supervisor and tells the manager, one message per packet.
//!
//! ```text
//! BEGIN        1 | owner | capture      + the reading ends of the mlet's standard output and standard error
//! ENDED        2 | owner                its process has ended, which others may outlive that write to its pipes
//! CLOSED       1 | owner | errno 4 | file 4 | 2 times: written 8 | kept 8 | place 8
//! LINE         2 | owner | bytes        a line of standard error, or a piece of one
//! STDOUT LOST  3 | errno 4              tagged lines find no way out any more
//! capture      tag length 1 | tag | 0 for no file, 1 | name length 1 | name for a folder, 2 for the file of all sessions
//! ```
//! The first message to the manager is SET UP (`sys/forked.rs`). What does not decode to its last byte is refused whole.

use crate::sys::mlet_owner::MletOwner;
use crate::sys::packet::{Reader, encode_short_text};

const BEGIN: u8 = 1;
const ENDED: u8 = 2;
const CLOSED: u8 = 1;
const LINE: u8 = 2;
const STDOUT_LOST: u8 = 3;
const NOWHERE: u8 = 0;
const IN_FOLDER: u8 = 1;
const IN_STREAM: u8 = 2;

/// What becomes of what a mlet writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// What stands before each of its lines where these are shown; at most 255 bytes.
    pub tag: String,
    /// Where it is kept.
    pub kept: KeptIn,
}

/// Where the output of a mlet is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptIn {
    /// Nowhere.
    Nothing,
    /// In the files `stdout` and `stderr` of this folder below the results folder; at most 255 bytes.
    Folder(String),
    /// In the file of the run that holds that of all sessions.
    Stream,
}

/// Supervisor to recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecorderRequest {
    /// A mlet runs; the reading ends of its pipes come with this message.
    Begin { owner: MletOwner, capture: Capture },
    /// It has ended.
    Ended { owner: MletOwner },
}

/// Recorder to manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecorderEvent {
    /// Nothing more comes of a mlet, and what is kept of it is in its files. Comes once for each.
    Closed {
        /// Whose mlet.
        owner: MletOwner,
        /// What it wrote.
        output: RecordedOutput,
    },
    /// A line that a mlet wrote to standard error, without its newline, or a piece of a long one.
    Line {
        /// Whose mlet.
        owner: MletOwner,
        /// Whatever bytes it wrote.
        line: Vec<u8>,
    },
    /// Standard output takes no tagged lines any more.
    StdoutLost {
        /// Why.
        errno: i32,
    },
}

/// What a mlet wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordedOutput {
    /// Why some of it could not be kept that should be; 0 if none.
    pub errno: i32,
    /// The number of the file of all sessions; 0 if there is none.
    pub stream: u32,
    /// To standard output.
    pub stdout: RecordedStream,
    /// To standard error.
    pub stderr: RecordedStream,
}

/// One of a mlet's two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordedStream {
    /// Bytes written.
    pub written: u64,
    /// Of these, the first so many are kept.
    pub kept: u64,
    /// Where the last of them are in the file of all sessions; 0 if none are.
    pub place: u64,
}

impl Capture {
    /// Adds its bytes, `None` if a text is too long.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        encode_short_text(&self.tag, out)?;
        match &self.kept {
            KeptIn::Nothing => out.push(NOWHERE),
            KeptIn::Folder(name) => {
                out.push(IN_FOLDER);
                encode_short_text(name, out)?;
            }
            KeptIn::Stream => out.push(IN_STREAM),
        }
        Some(())
    }

    /// The capture whose bytes are next.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let tag = reader.short_text()?.to_owned();
        let kept = match reader.u8()? {
            NOWHERE => KeptIn::Nothing,
            IN_FOLDER => KeptIn::Folder(reader.short_text()?.to_owned()),
            IN_STREAM => KeptIn::Stream,
            _ => return None,
        };
        Some(Self { tag, kept })
    }
}

impl RecorderRequest {
    /// The bytes of this request, `None` if a text is too long.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Begin { owner, capture } => {
                out.push(BEGIN);
                owner.encode(&mut out);
                capture.encode(&mut out)?;
            }
            Self::Ended { owner } => {
                out.push(ENDED);
                owner.encode(&mut out);
            }
        }
        Some(out)
    }

    /// The request in these bytes, `None` if they are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let kind = reader.u8()?;
        let owner = MletOwner::decode(&mut reader)?;
        let request = match kind {
            BEGIN => Self::Begin { owner, capture: Capture::decode(&mut reader)? },
            ENDED => Self::Ended { owner },
            _ => return None,
        };
        reader.is_at_end().then_some(request)
    }
}

impl RecorderEvent {
    /// The bytes of this event.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Closed { owner, output } => {
                out.push(CLOSED);
                owner.encode(&mut out);
                out.extend(output.errno.to_be_bytes());
                out.extend(output.stream.to_be_bytes());
                for stream in [output.stdout, output.stderr] {
                    let RecordedStream { written, kept, place } = stream;
                    [written, kept, place].iter().for_each(|n| out.extend(n.to_be_bytes()));
                }
            }
            Self::Line { owner, line } => {
                out.push(LINE);
                owner.encode(&mut out);
                out.extend(line);
            }
            Self::StdoutLost { errno } => {
                out.push(STDOUT_LOST);
                out.extend(errno.to_be_bytes());
            }
        }
        out
    }

    /// The event in these bytes, `None` if they are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let event = match reader.u8()? {
            CLOSED => {
                let owner = MletOwner::decode(&mut reader)?;
                let (errno, stream) = (reader.i32()?, reader.u32()?);
                let (stdout, stderr) = (decode_stream(&mut reader)?, decode_stream(&mut reader)?);
                let output = RecordedOutput { errno, stream, stdout, stderr };
                Self::Closed { owner, output }
            }
            LINE => {
                let owner = MletOwner::decode(&mut reader)?;
                return Some(Self::Line { owner, line: reader.0.to_vec() });
            }
            STDOUT_LOST => Self::StdoutLost { errno: reader.i32()? },
            _ => return None,
        };
        reader.is_at_end().then_some(event)
    }
}

fn decode_stream(reader: &mut Reader<'_>) -> Option<RecordedStream> {
    let (written, kept, place) = (reader.u64()?, reader.u64()?, reader.u64()?);
    Some(RecordedStream { written, kept, place })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_capture() -> impl Strategy<Value = Capture> {
        let kept = prop_oneof![
            Just(KeptIn::Nothing),
            ".{0,60}".prop_map(KeptIn::Folder),
            Just(KeptIn::Stream)
        ];
        (".{0,60}", kept).prop_map(|(tag, kept)| Capture { tag, kept })
    }

    fn any_owner() -> impl Strategy<Value = MletOwner> {
        prop_oneof![any::<u64>().prop_map(MletOwner::Session), Just(MletOwner::AllSessions)]
    }

    fn any_request() -> impl Strategy<Value = RecorderRequest> {
        prop_oneof![
            (any_owner(), any_capture())
                .prop_map(|(owner, capture)| RecorderRequest::Begin { owner, capture }),
            any_owner().prop_map(|owner| RecorderRequest::Ended { owner }),
        ]
    }

    fn any_event() -> impl Strategy<Value = RecorderEvent> {
        let stream = || {
            any::<[u64; 3]>().prop_map(|[written, kept, place]| RecordedStream {
                written,
                kept,
                place,
            })
        };
        prop_oneof![
            (any_owner(), any::<i32>(), any::<u32>(), stream(), stream()).prop_map(
                |(owner, errno, number, stdout, stderr)| {
                    let output = RecordedOutput { errno, stream: number, stdout, stderr };
                    RecorderEvent::Closed { owner, output }
                }
            ),
            any::<i32>().prop_map(|errno| RecorderEvent::StdoutLost { errno }),
        ]
    }

    #[test]
    fn a_line_is_whatever_stands_behind_its_owner() {
        for line in [&b""[..], b"\0\xff\n"] {
            let event = RecorderEvent::Line { owner: MletOwner::Session(3), line: line.into() };
            assert_eq!(RecorderEvent::decode(&event.encode()), Some(event));
        }
        assert_eq!(RecorderEvent::decode(b"\x02\0\0\0"), None);
    }

    #[test]
    fn a_text_longer_than_its_length_can_tell_is_not_encoded() {
        let capture = Capture { tag: "x".repeat(256), kept: KeptIn::Nothing };
        let request = RecorderRequest::Begin { owner: MletOwner::AllSessions, capture };
        assert_eq!(request.encode(), None);
    }

    proptest! {
        #[test]
        fn messages_survive_the_way_and_no_shorter_or_longer_form_does(
            request in any_request(), event in any_event()
        ) {
            let (mut request_bytes, mut event_bytes) = (request.encode().unwrap(), event.encode());
            prop_assert_eq!(RecorderRequest::decode(&request_bytes), Some(request));
            prop_assert_eq!(RecorderEvent::decode(&event_bytes), Some(event));
            for len in 0..request_bytes.len() {
                prop_assert_eq!(RecorderRequest::decode(&request_bytes[..len]), None);
            }
            for len in 0..event_bytes.len() {
                prop_assert_eq!(RecorderEvent::decode(&event_bytes[..len]), None);
            }
            request_bytes.push(0);
            event_bytes.push(0);
            prop_assert_eq!(RecorderRequest::decode(&request_bytes), None);
            prop_assert_eq!(RecorderEvent::decode(&event_bytes), None);
        }
    }
}
