//! A line of `events.jsonl`, read.
//!
//! Not here: where lines come from (`folder.rs`). Members that are not known are passed over, and so are records of other
//! kinds; of those that are known only the number of a session and its outcome must be there.

use std::borrow::Cow;

use packetlab::time::Ticks;
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use super::time::rfc3339;

/// Of the form of lines; with another number they would mean something else.
const VERSION: u64 = 1;

/// What a line tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// A run began.
    RunStart(RunStart),
    /// A session is over in every respect.
    Session(Box<Session>),
    /// Connections that have no record of their own are over.
    Folded(Folded),
    /// A run ended as it should.
    RunEnd(RunEnd),
    /// Something that readers of results have no use for.
    Other,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RunStart {
    /// When, in RFC 3339.
    pub(crate) t: String,
    #[serde(default)]
    pub(crate) run: String,
    pub(crate) program: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RunEnd {
    /// When, in RFC 3339.
    pub(crate) t: String,
    #[serde(default)]
    pub(crate) run: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Folded {
    /// When, in RFC 3339.
    pub(crate) t: String,
    #[serde(default)]
    pub(crate) run: String,
    pub(crate) outcome: String,
    /// How many there were.
    pub(crate) count: u64,
}

/// One session. Durations are milliseconds.
#[derive(Debug, Deserialize)]
pub(crate) struct Session {
    /// When it was recorded, in RFC 3339.
    pub(crate) t: String,
    #[serde(default, deserialize_with = "known")]
    pub(crate) run: String,
    /// Its number, of which a folder has each once.
    #[serde(rename = "sid")]
    pub(crate) number: u64,
    pub(crate) core: Option<u64>,
    #[serde(default, deserialize_with = "known")]
    pub(crate) ep: Endpoint,
    /// When it was accepted, in RFC 3339.
    pub(crate) accepted: Option<String>,
    pub(crate) outcome: String,
    /// Whether it counts as failed.
    #[serde(default, deserialize_with = "known")]
    pub(crate) failed: bool,
    pub(crate) reason: Option<String>,
    pub(crate) exit: Option<i64>,
    pub(crate) signal: Option<i32>,
    #[serde(default, deserialize_with = "known")]
    pub(crate) ms: Phases,
    #[serde(default, deserialize_with = "known")]
    pub(crate) bytes: BothWays<u64>,
    #[serde(default, deserialize_with = "known")]
    pub(crate) msgs: BothWays<u64>,
    #[serde(default, deserialize_with = "known")]
    pub(crate) linfos_lost: u64,
    pub(crate) crashed_monitor: Option<u16>,
    pub(crate) relay_us: Option<BothWays<Option<RelayLatency>>>,
    pub(crate) output: Option<Output>,
}

/// Who came.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object")]
pub(crate) struct Endpoint {
    /// Hexadecimal, as `root`.
    pub(crate) key: Option<String>,
    pub(crate) root: Option<String>,
    pub(crate) snikey: Option<String>,
    pub(crate) peer: Option<String>,
    pub(crate) via: Option<String>,
    /// One that it showed and was not proven to hold.
    pub(crate) shown_key: Option<String>,
}

/// How long each took; of one that was not reached nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object")]
pub(crate) struct Phases {
    pub(crate) tls: Option<f64>,
    pub(crate) programs: Option<f64>,
    pub(crate) start: Option<f64>,
    pub(crate) spawn: Option<f64>,
    pub(crate) run: Option<f64>,
    pub(crate) total: Option<f64>,
}

/// To the endpoint and from it.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object")]
pub(crate) struct BothWays<T> {
    pub(crate) to_ep: T,
    pub(crate) from_ep: T,
}

/// Of sampled messages in one direction, in microseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(expecting = "an object")]
pub(crate) struct RelayLatency {
    /// So many were timed; of none the others are not known.
    #[serde(default, deserialize_with = "known")]
    pub(crate) count: u64,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// What its mlet printed.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub(crate) struct Output {
    /// A folder with its files, from the results folder on.
    #[serde(default)]
    pub(crate) dir: Option<String>,
    /// Or the file of all sessions that it is in, from there on, and where its last frames are in that.
    #[serde(default)]
    pub(crate) stream: Option<String>,
    #[serde(default)]
    pub(crate) stdout_at: u64,
    #[serde(default)]
    pub(crate) stderr_at: u64,
    /// Length in bytes of what is kept, as of `stderr`.
    #[serde(default)]
    pub(crate) stdout: u64,
    #[serde(default)]
    pub(crate) stderr: u64,
    /// Length in bytes of what the mlet wrote, as of `stderr_written`.
    #[serde(default)]
    pub(crate) stdout_written: Option<u64>,
    #[serde(default)]
    pub(crate) stderr_written: Option<u64>,
    /// Something was left out.
    #[serde(default)]
    pub(crate) truncated: bool,
}

impl Session {
    /// When it was accepted.
    pub(crate) fn accepted_at(&self) -> Option<Ticks> {
        self.accepted.as_deref().and_then(rfc3339)
    }

    /// Bytes relayed, both ways.
    pub(crate) fn bytes_relayed(&self) -> u64 {
        self.bytes.to_ep.saturating_add(self.bytes.from_ep)
    }
}

/// What every line begins with.
#[derive(Deserialize)]
struct Head<'a> {
    v: u64,
    #[serde(borrow)]
    ev: Cow<'a, str>,
}

/// Reads a line.
///
/// # Errors
/// It is no record, in words.
pub(crate) fn read(line: &[u8]) -> Result<Event, String> {
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err("it is no JSON object".into());
    }
    let head: Head<'_> = of(line)?;
    check_version(head.v)?;
    Ok(match &*head.ev {
        "run.start" => Event::RunStart(of(line)?),
        "session.end" => Event::Session(of(line)?),
        "session.folded" => Event::Folded(of(line)?),
        "run.end" => Event::RunEnd(of(line)?),
        _ => Event::Other,
    })
}

/// # Errors
/// A line of this version would mean something else.
pub(crate) fn check_version(version: u64) -> Result<(), String> {
    match version == VERSION {
        true => Ok(()),
        false => Err(format!("it is of version {version}, and {VERSION} is what is known here")),
    }
}

/// A member that may be there and `null`.
fn known<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// What a line says of this.
///
/// # Errors
/// It is no record, in words.
pub(crate) fn of<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    // Whoever wrote a line that is no text has written other bytes, though it be in a member that nobody reads.
    let line = str::from_utf8(line).map_err(|error| format!("it is no text: {error}"))?;
    serde_json::from_str(line).map_err(|error| match error.classify() {
        Category::Data => format!("it is no record: {}", without_place(&error)),
        _ => "it is no JSON".into(),
    })
}

/// What is wrong, without where in the line.
pub(crate) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a line of the format's description, with members that nobody knows.
    const LINE: &str = r#"{"v":1,"t":"2026-11-23T11:40:02.113204Z","ev":"session.end","run":"7f3a",
        "sid":4120,"core":3,"news":[{"x":1}],
        "ep":{"key":"ab12","root":"cd","snikey":"hello","peer":"192.0.2.7:40112","via":"proxy","as":7},
        "accepted":"2026-11-23T11:39:54.001000Z","outcome":"mlet_failed","failed":true,"reason":"mlet exit code 3",
        "exit":3,"signal":null,"linfos_lost":2,"crashed_monitor":1,
        "ms":{"tls":41.2,"programs":3.1,"start":22.0,"spawn":1.4,"run":8123.9,"total":8200},
        "bytes":{"to_ep":18233,"from_ep":902113},"msgs":{"to_ep":412,"from_ep":431},
        "relay_us":{"to_ep":{"count":412,"p50":11.0,"p99":84.0,"max":912.0},"from_ep":null},
        "output":{"dir":"sessions/004120-ab12cd34","stdout":1234,"stderr":0,"truncated":false}}"#;

    fn session(line: &str) -> Session {
        match read(line.as_bytes()) {
            Ok(Event::Session(session)) => *session,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_of_a_record_is_read_and_what_is_not_known_is_passed_over() {
        let session = session(LINE);
        assert_eq!((session.number, session.core, &*session.run), (4120, Some(3), "7f3a"));
        assert_eq!(session.ep.key.as_deref(), Some("ab12"));
        assert_eq!((session.exit, session.signal, session.linfos_lost), (Some(3), None, 2));
        assert_eq!(session.crashed_monitor, Some(1));
        assert_eq!((session.ms.run, session.ms.total), (Some(8123.9), Some(8200.0)));
        assert_eq!((session.bytes_relayed(), session.msgs.to_ep), (920_346, 412));
        assert_eq!(session.relay_us.as_ref().unwrap().to_ep.unwrap().p99, Some(84.0));
        assert_eq!(session.output.as_ref().unwrap().stdout, 1234);
        assert_eq!(session.accepted_at().unwrap().0, 1_795_433_994_001_000_000);
        assert!(session.failed);
    }

    #[test]
    fn a_record_with_little_in_it_is_one() {
        let line = r#"{"v":1,"t":"","ev":"session.end","sid":1,"outcome":"new_outcome","ep":{"key":null}}"#;
        let session = session(line);
        assert_eq!(
            (session.number, &*session.outcome, session.ep.key.clone()),
            (1, "new_outcome", None)
        );
        assert_eq!((session.bytes_relayed(), session.accepted_at()), (0, None));
        assert!(!session.failed);
    }

    /// As the writer has it where nothing was timed, and more of it than it has.
    #[test]
    fn a_member_that_is_null_is_one_that_is_not_known() {
        let nothing = r#"{"count":0,"p50":null,"p99":null,"max":null}"#;
        let line = format!(
            r#"{{"v":1,"t":"","ev":"session.end","sid":1,"outcome":"ok","run":null,"ep":null,"ms":null,
               "bytes":null,"msgs":null,"linfos_lost":null,"core":null,"output":null,
               "relay_us":{{"to_ep":{nothing},"from_ep":{nothing}}}}}"#
        );
        let session = session(&line);
        let relay = session.relay_us.as_ref().unwrap().to_ep.unwrap();
        assert_eq!((session.bytes_relayed(), relay.count, relay.p50), (0, 0, None));
    }

    #[test]
    fn other_kinds_of_records_are_passed_over_and_what_is_none_says_why() {
        let other = r#"{"v":1,"t":"","ev":"session.start","sid":1}"#;
        assert!(matches!(read(other.as_bytes()), Ok(Event::Other)));
        for (line, reason) in [
            ("", "it is no JSON object"),
            (r#"{"v":1,"ev":"session.end","sid":4"#, "it is no JSON"),
            ("[1]", "it is no JSON object"),
            (
                r#"{"v":1,"ev":"session.end","t":"","sid":1,"outcome":"ok","ms":5}"#,
                "it is no record: invalid type: integer `5`, expected an object",
            ),
            (r#"{"v":2,"ev":"session.end"}"#, "it is of version 2, and 1 is"),
            (
                r#"{"v":1,"ev":"session.end","t":"","sid":1}"#,
                "it is no record: missing field `outcome`",
            ),
        ] {
            let told = read(line.as_bytes()).unwrap_err();
            assert!(told.starts_with(reason), "{line}: {told}");
            assert!(!told.contains("at line"), "{told}");
        }
        // In a member that nobody reads, too.
        let line = b"{\"v\":1,\"ev\":\"session.end\",\"t\":\"\",\"sid\":1,\"outcome\":\"ok\",\"x\":\"\xff\"}";
        assert!(read(line).unwrap_err().starts_with("it is no text: invalid utf-8"));
    }
}
