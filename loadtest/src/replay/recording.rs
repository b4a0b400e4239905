//! A recorded conversation: lines of JSON as `pktxpmgr --capture` writes them, and as those of the original are kept.
//!
//! Not here: who speaks next. Invariant: a recording that is read can be said again; of one that lacks something it is said
//! what and where.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use packetlab::escape::Escaped;
use packetlab::message::{Header, MessageType};
use serde::Deserialize;

/// What a mlet finds that knows its endpoint's address alone, as one of the original's.
const LEAST_FOUND: (&str, &str) = ("EPADDR", "127.0.0.1");

/// What a recording may put into the environment of a mlet. Others have a mlet's interpreter and linker do what its user does
/// not want (`LD_PRELOAD`), and recordings are passed on.
const MAY_FIND: [&str; 5] =
    ["EPADDR", "PKTLAB_SESSION", "PKTLAB_ENDPOINT_KEY", "PKTLAB_SNIKEY", "PKTLAB_RUN"];

/// The longest file that is read, in bytes: more than one session says, and no more than a computer has memory for.
const FILE_LEN_MAX: u64 = 1 << 30;

/// A conversation.
#[derive(Debug)]
pub(super) struct Recording {
    found: BTreeMap<String, String>,
    steps: Vec<Step>,
}

/// What comes next in it.
#[derive(Debug)]
pub(super) struct Step {
    /// The number of its line.
    pub(super) line: usize,
    /// How long it came after the step before it.
    pub(super) took: Duration,
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// This message, or the front of one that it did not end.
    EndpointSays(Vec<u8>),
    EndpointEnds,
    /// This message, or the front of one that is longer than what was kept.
    MletSays(Vec<u8>),
    MletEnds,
}

/// Why it cannot be said again.
#[derive(Debug)]
pub(super) enum RecordingError {
    Io(io::Error),
    /// It is a folder, a device or a pipe.
    NoFile,
    /// It is longer than [`FILE_LEN_MAX`], by its length in bytes.
    TooLong(u64),
    /// The line of this number is none of a recording, and why.
    Line(usize, String),
    /// Nobody says anything.
    Empty,
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::NoFile => {
                f.write_str("it is no file; name a session's file of `pktxpmgr --capture`")
            }
            Self::TooLong(len) => write!(
                f,
                "it has {len} bytes, and a recording {FILE_LEN_MAX} at most; name a session's file of `pktxpmgr \
                 --capture`"
            ),
            Self::Line(number, problem) => write!(f, "line {number}: {problem}"),
            Self::Empty => f.write_str(
                "nobody says anything in it; name another session's file of `pktxpmgr --capture`",
            ),
        }
    }
}

/// A line.
#[derive(Debug, Deserialize)]
struct Line {
    t_ms: f64,
    from: From,
    mlet_finds: Option<BTreeMap<String, String>>,
    hex: Option<String>,
    /// How long the message was, where it is not whole.
    len: Option<usize>,
    #[serde(default)]
    cut: bool,
    #[serde(default)]
    eof: bool,
    missing: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Endpoint,
    Mlet,
}

impl Recording {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or not be said again.
    pub(super) fn read(path: &Path) -> Result<Self, RecordingError> {
        // Asked first, as a pipe that nobody writes to is not even opened.
        let file = fs::metadata(path).map_err(RecordingError::Io)?;
        if !file.is_file() {
            return Err(RecordingError::NoFile);
        }
        if file.len() > FILE_LEN_MAX {
            return Err(RecordingError::TooLong(file.len()));
        }
        let bytes = fs::read(path).map_err(RecordingError::Io)?;
        let text = str::from_utf8(&bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            RecordingError::Line(
                line,
                "it is no line of a recording, but other bytes than text".into(),
            )
        })?;
        Self::parse(text)
    }

    fn parse(text: &str) -> Result<Self, RecordingError> {
        let (mut found, mut steps, mut before) = (None, Vec::new(), 0.0);
        for (index, text) in text.lines().enumerate() {
            let number = index + 1;
            let problem = |problem: String| RecordingError::Line(number, problem);
            let line: Line = serde_json::from_str(text)
                .map_err(|error| problem(format!("it is no line of a recording: {error}")))?;
            let took = Duration::try_from_secs_f64((line.t_ms - before) / 1e3).unwrap_or_default();
            before = line.t_ms;
            let names = line.mlet_finds.iter().flat_map(BTreeMap::keys);
            if let Some(name) = names.into_iter().find(|name| !MAY_FIND.contains(&&***name)) {
                let name = Escaped(name.as_bytes());
                return Err(problem(format!(
                    "it has the mlet find `{name}` in its environment, and {} are all that a recording may; take it \
                     out if you trust whoever made this file",
                    MAY_FIND.join(", ")
                )));
            }
            found = found.or_else(|| line.mlet_finds.clone());
            if let Some(what) = line.what().map_err(problem)? {
                steps.push(Step { line: number, took, what });
            }
        }
        let (name, value) = LEAST_FOUND;
        let found = found.unwrap_or_else(|| BTreeMap::from([(name.into(), value.into())]));
        if steps.is_empty() { Err(RecordingError::Empty) } else { Ok(Self { found, steps }) }
    }

    /// What the mlet found in its environment.
    pub(super) fn found(&self) -> &BTreeMap<String, String> {
        &self.found
    }

    /// In their order.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Line {
    /// `None` if neither said anything that the other heard.
    fn what(self) -> Result<Option<What>, String> {
        if let Some(missing) = self.missing {
            return Err(format!(
                "messages that found no room are missing here ({missing}); capture fewer sessions at once, with \
                 --trace-session"
            ));
        }
        if self.eof {
            return Ok(Some(match self.from {
                From::Endpoint => What::EndpointEnds,
                From::Mlet => What::MletEnds,
            }));
        }
        let Some(hex) = self.hex else { return Ok(None) };
        let bytes = bytes_of(&hex).ok_or("its hex is none")?;
        if self.len.is_none() && !self.cut && !is_whole(&bytes) {
            return Err("its hex is not as long as its own header says".into());
        }
        match (self.from, self.len) {
            // It was for the log.
            (From::Endpoint, _) if bytes.first() == Some(&MessageType::LINFO.0) => Ok(None),
            (From::Endpoint, Some(len)) => Err(format!(
                "of the endpoint's message only {} of {len} bytes are kept",
                bytes.len()
            )),
            (From::Endpoint, None) => Ok(Some(What::EndpointSays(bytes))),
            // The endpoint acted on no part of it.
            (From::Mlet, _) if self.cut => Ok(None),
            (From::Mlet, _) => Ok(Some(What::MletSays(bytes))),
        }
    }
}

/// The header announces what stands behind it.
fn is_whole(bytes: &[u8]) -> bool {
    bytes
        .split_first_chunk()
        .is_some_and(|(header, payload)| Header::decode(*header).payload_len == payload.len())
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digit =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pair = |pair: &[u8]| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    hex.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAYS: &str = r#"{"t_ms": 2.6, "from": "mlet", "type": "0x2b", "hex": "2b00000105"}"#;

    #[test]
    fn a_recording_is_what_each_side_said_and_what_the_mlet_found() {
        let finds = r#"{"t_ms": 0, "from": "endpoint", "mlet_finds": {"EPADDR": "192.0.2.1"}}"#;
        let linfo = r#"{"t_ms": 4, "from": "endpoint", "type": "0x65", "hex": "65000000"}"#;
        let long =
            r#"{"t_ms": 5, "from": "mlet", "type": "0x2c", "hex": "2c01117000", "len": 70004}"#;
        let cut =
            r#"{"t_ms": 5, "from": "endpoint", "type": "0x62", "hex": "620000", "cut": true}"#;
        let end = r#"{"t_ms": 9, "from": "endpoint", "eof": true}"#;
        let left = r#"{"t_ms": 5, "from": "mlet", "type": "0x2c", "hex": "2c0000", "cut": true}"#;
        let text = [finds, SAYS, linfo, long, cut, left, end].join("\n");
        let recording = Recording::parse(&text).unwrap();
        assert_eq!(recording.found()["EPADDR"], "192.0.2.1");
        let told: Vec<_> = recording
            .steps()
            .iter()
            .map(|step| (step.line, step.took.as_micros(), &step.what))
            .collect();
        let expected = [
            (2, 2600, &What::MletSays(vec![0x2b, 0, 0, 1, 5])),
            (4, 1000, &What::MletSays(vec![0x2c, 1, 0x11, 0x70, 0])),
            (5, 0, &What::EndpointSays(vec![0x62, 0, 0])),
            (7, 4000, &What::EndpointEnds),
        ];
        assert_eq!(told, expected);
        assert_eq!(Recording::parse(SAYS).unwrap().found()["EPADDR"], "127.0.0.1");
    }

    #[test]
    fn what_cannot_be_said_again_is_refused_with_its_line() {
        for (line, told) in [
            (" ", "it is no line of a recording"),
            ("{\"from\": \"mlet\"}", "it is no line of a recording"),
            (r#"{"t_ms": 0, "from": "mlet", "missing": 3}"#, "missing here (3)"),
            (r#"{"t_ms": 0, "from": "mlet", "hex": "2b0"}"#, "its hex is none"),
            (r#"{"t_ms": 0, "from": "mlet", "hex": "2b000002ff"}"#, "as its own header says"),
            (
                r#"{"t_ms": 0, "from": "endpoint", "mlet_finds": {"EPADDR": "::1", "LD_PRELOAD": "x.so"}}"#,
                "find `LD_PRELOAD` in its environment, and EPADDR, PKTLAB_SESSION,",
            ),
            (
                r#"{"t_ms": 0, "from": "endpoint", "mlet_finds": {"PKTLAB_PIPES": "3,4"}}"#,
                "find `PKTLAB_PIPES`",
            ),
            (
                r#"{"t_ms": 0, "from": "endpoint", "hex": "6201117000", "len": 70004}"#,
                "only 5 of 70004 bytes are kept",
            ),
        ] {
            let error = Recording::parse(&format!("{SAYS}\n{line}")).unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && error.contains(told), "{error}");
        }
        let finds = r#"{"t_ms": 0, "from": "endpoint", "mlet_finds": {"EPADDR": "192.0.2.1"}}"#;
        for silent in ["", finds] {
            let error = Recording::parse(silent).unwrap_err().to_string();
            assert!(error.starts_with("nobody says anything in it"), "{error}");
        }
    }
}
