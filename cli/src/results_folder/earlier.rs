//! What earlier runs have left in a results folder, as far as a run that goes on with it or chooses its endpoints by it has to
//! know.
//!
//! Not here: what people read of it. Invariant: what is not known of a line is passed over, and so is a line that was torn
//! when a run was killed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use packetlab::key::KeyId;
use serde::Deserialize;

use crate::results::stream_file::last_session;

/// The records in a results folder.
pub(super) const EVENTS: &str = "events.jsonl";

/// The folders of sessions, whose names begin with their numbers.
const SESSIONS: &str = "sessions";

/// The files with the output of all sessions of a run each.
const STREAMS: &str = "streams";

/// The sessions of a results folder.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// The highest number of a session.
    pub(crate) last_session: u64,
    /// Sessions that were `ok`.
    pub(crate) oks: u64,
    /// Endpoints with one that was.
    pub(crate) measured: HashSet<KeyId>,
}

#[derive(Deserialize)]
struct SessionEnd {
    sid: u64,
    ep: EndpointKey,
    outcome: String,
}

#[derive(Deserialize)]
struct EndpointKey {
    key: Option<String>,
}

impl Earlier {
    /// What is in the folder; no sessions if its file of records is not there.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut earlier = match File::open(folder.join(EVENTS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            file => Self::of_lines(BufReader::new(file?))?,
        };
        // A session that was killed has no record, but its output keeps its number.
        for entry in fs::read_dir(folder.join(SESSIONS)).into_iter().flatten() {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let number = name.split_once('-').and_then(|(number, _)| number.parse().ok());
            earlier.last_session = earlier.last_session.max(number.unwrap_or(0));
        }
        for entry in fs::read_dir(folder.join(STREAMS)).into_iter().flatten() {
            let last = last_session(&File::open(entry?.path())?)?;
            earlier.last_session = earlier.last_session.max(last);
        }
        Ok(earlier)
    }

    fn of_lines(mut lines: impl BufRead) -> io::Result<Self> {
        let (mut earlier, mut line) = (Self::default(), Vec::new());
        while lines.read_until(b'\n', &mut line)? > 0 {
            // Other lines have other members.
            if let Ok(session) = serde_json::from_slice::<SessionEnd>(&line) {
                earlier.add(&session);
            }
            line.clear();
        }
        Ok(earlier)
    }

    fn add(&mut self, session: &SessionEnd) {
        self.last_session = self.last_session.max(session.sid);
        if session.outcome == "ok" {
            self.oks += 1;
            self.measured.extend(session.ep.key.as_deref().and_then(KeyId::from_hex));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_ok_is_known_and_torn_lines_are_passed_over() {
        let of = |sid, digit: &str, outcome| {
            let key = digit.repeat(64);
            format!(
                r#"{{"v":1,"ev":"session.end","sid":{sid},"ep":{{"key":"{key}"}},"outcome":"{outcome}"}}"#
            )
        };
        let lines = [
            r#"{"v":1,"ev":"run.start","run":"00"}"#.to_owned(),
            of(7, "a", "ok"),
            of(9, "b", "mlet_failed"),
            r#"{"v":1,"ev":"session.end","sid":11,"ep":{"key":"#.to_owned(),
            r#"{"v":1,"ev":"session.end","sid":3,"ep":{"key":null},"outcome":"ok"}"#.to_owned(),
            of(8, "c", "ok")[..40].to_owned(),
        ];
        let earlier = Earlier::of_lines(lines.join("\n").as_bytes()).unwrap();
        assert_eq!((earlier.last_session, earlier.oks), (9, 2));
        assert_eq!(earlier.measured, [KeyId([0xaa; 32])].into());
    }
}
