//! Messages of sessions as lines of JSON (`--capture`): a file for each session, by its number, in the form of the recorded
//! conversations in `engine/testdata/transcripts`, which `pktfleet replay` reads.
//!
//! Not here: what is shown and what is missing (`proto/tee.rs`). Invariant: a file holds whole lines, and none of another
//! run; at most [`OPEN_MAX`] are open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::place::{Place, found_by_mlet};
use crate::config::RunId;
use crate::proto::tee::{Passed, Sender, Shown, TeeNews};
use crate::sys::record_files;

/// Files that are open at once. Of more sessions that say something by turns, each line opens one.
pub(crate) const OPEN_MAX: usize = 256;

/// The folder.
pub(super) struct Capture {
    folder: PathBuf,
    run: Option<RunId>,
    /// By the numbers of sessions.
    open: HashMap<u64, File>,
}

impl Capture {
    /// Begins in a folder with nothing in it, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be had, or holds something.
    pub(super) fn open(folder: &Path, run: Option<RunId>) -> io::Result<Self> {
        record_files::empty_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), run, open: HashMap::new() })
    }

    /// The file of a session.
    fn file(&mut self, session: u64) -> io::Result<&mut File> {
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&session) {
            self.open.clear();
        }
        match self.open.entry(session) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let path = self.folder.join(format!("{session}.jsonl"));
                Ok(place.insert(record_files::open_to_append(&path)?))
            }
        }
    }
}

impl Place for Capture {
    fn take(&mut self, shown: &Shown) -> io::Result<()> {
        let lines = lines(shown, self.run);
        if !lines.is_empty() {
            record_files::append_whole(self.file(shown.session)?, lines.as_bytes())?;
        }
        // The last that is shown of a session.
        if matches!((&shown.news, shown.from), (TeeNews::Over, Sender::Mlet))
            && let Some(file) = self.open.remove(&shown.session)
            && record_files::is_removed(&file)
        {
            return Err(record_files::removed());
        }
        Ok(())
    }
}

/// The lines that tell of it.
fn lines(shown: &Shown, run: Option<RunId>) -> String {
    let from = match shown.from {
        Sender::Endpoint => "endpoint",
        Sender::Mlet => "mlet",
    };
    let milliseconds = shown.after.as_secs_f64() * 1e3;
    let line =
        |rest: &str| format!("{{\"t_ms\": {milliseconds:.3}, \"from\": \"{from}\", {rest}}}\n");
    let missing = shown.missing_before;
    let mut lines = String::new();
    if missing > 0 {
        lines.push_str(&line(&format!("\"missing\": {missing}")));
    }
    match &shown.news {
        TeeNews::Begun(facts) => {
            if let Some(found) = found_by_mlet(run, shown.session, facts, ["\"", "\": \"", "\""]) {
                lines.push_str(&line(&format!("\"mlet_finds\": {{{}}}", found.join(", "))));
            }
        }
        TeeNews::Message(passed) => lines.push_str(&line(&message(passed))),
        TeeNews::Ended => lines.push_str(&line("\"eof\": true")),
        TeeNews::Over => {}
    }
    lines
}

/// The members of a message: its type, as much of it as is there, and what is not.
fn message(passed: &Passed) -> String {
    let bytes = passed.bytes();
    let mut members = format!("\"type\": \"{:#04x}\", \"hex\": \"", passed.message_type().0);
    members.reserve(2 * bytes.len() + 32);
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            members.push(char::from_digit(digit.into(), 16).unwrap_or_default());
        }
    }
    members.push('"');
    if bytes.len() < passed.len {
        let _ = write!(members, ", \"len\": {}", passed.len);
    }
    if !passed.is_whole {
        members.push_str(", \"cut\": true");
    }
    members
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use packetlab::snikey::SniKey;

    use super::*;
    use crate::proto::mlet_facts::MletFacts;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn shown(session: u64, from: Sender, news: TeeNews) -> Shown {
        let (at, after) = (Instant::now(), Duration::from_micros(2613));
        Shown { session, from, at, after, missing_before: 0, news }
    }

    fn closes(session: u64) -> Shown {
        let passed = Passed::of(&[0x2b, 0, 0, 1, 5], (5, true));
        shown(session, Sender::Mlet, TeeNews::Message(passed))
    }

    #[test]
    fn a_session_is_told_in_the_form_of_the_recorded_conversations() {
        let facts = MletFacts {
            peer: [192, 0, 2, 1].into(),
            endpoint_key: None,
            snikey: SniKey::parse("hello").unwrap(),
        };
        let begun = shown(7, Sender::Endpoint, TeeNews::Begun(facts));
        let cut = Passed::of(&[0x62, 0, 0, 9, 1], (5, false));
        let long = Passed::of(&[0x62, 1, 0x11, 0x70], (70_004, true));
        let gap = Shown { missing_before: 3, ..shown(7, Sender::Mlet, TeeNews::Over) };
        let told = [
            lines(&begun, Some(RunId(0xab))),
            lines(&begun, None),
            lines(&closes(7), None),
            lines(&shown(7, Sender::Endpoint, TeeNews::Message(long)), None),
            lines(&shown(7, Sender::Endpoint, TeeNews::Message(cut)), None),
            lines(&shown(7, Sender::Endpoint, TeeNews::Ended), None),
            lines(&gap, None),
        ];
        let expected = r#"{"t_ms": 2.613, "from": "endpoint", "mlet_finds": {"EPADDR": "192.0.2.1", "PKTLAB_SESSION": "7", "PKTLAB_ENDPOINT_KEY": "", "PKTLAB_SNIKEY": "hello", "PKTLAB_RUN": "00000000000000ab"}}
{"t_ms": 2.613, "from": "mlet", "type": "0x2b", "hex": "2b00000105"}
{"t_ms": 2.613, "from": "endpoint", "type": "0x62", "hex": "62011170", "len": 70004}
{"t_ms": 2.613, "from": "endpoint", "type": "0x62", "hex": "6200000901", "cut": true}
{"t_ms": 2.613, "from": "endpoint", "eof": true}
{"t_ms": 2.613, "from": "mlet", "missing": 3}
"#;
        assert_eq!(told.concat(), expected);
    }

    #[test]
    fn each_session_has_a_file_however_many_there_are_and_few_are_open() {
        let folder = std::env::temp_dir().join(format!("pktxpmgr-capture-{}", std::process::id()));
        let mut capture = Capture::open(&folder, None).unwrap();
        let sessions = OPEN_MAX as u64 + 10;
        for _ in 0..2 {
            for session in 0..sessions {
                capture.take(&closes(session)).unwrap();
                assert!(capture.open.len() <= OPEN_MAX);
            }
        }
        for session in 0..sessions {
            capture.take(&shown(session, Sender::Mlet, TeeNews::Over)).unwrap();
            let text = std::fs::read_to_string(folder.join(format!("{session}.jsonl"))).unwrap();
            assert_eq!(text, lines(&closes(session), None).repeat(2));
        }
        assert!(capture.open.is_empty());
        let error = Capture::open(&folder, None).err().unwrap().to_string();
        assert!(error.contains("it is not empty"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_is_removed_before_its_session_is_over_is_told() {
        let name = format!("pktxpmgr-capture-removed-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let mut capture = Capture::open(&folder, None).unwrap();
        for session in [7, 8] {
            capture.take(&closes(session)).unwrap();
        }
        std::fs::remove_file(folder.join("7.jsonl")).unwrap();
        let mut over = |session| capture.take(&shown(session, Sender::Mlet, TeeNews::Over));
        over(8).unwrap();
        assert_eq!(over(7).unwrap_err().to_string(), "the file was removed");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
