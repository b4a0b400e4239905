//! What earlier runs have left in a results folder, as far as a run that goes on with it or chooses its endpoints by it has to
//! know.
//!
//! Not here: what people read of it, and how a line is read (`results/`). Invariant: what `results` passes over, such as a
//! line that was torn when a run was killed, counts for nothing here either.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::path::Path;

use engine::config::Config;
use packetlab::key::KeyId;
use serde_json::Value;

use crate::results::failure::shown_path;
use crate::results::folder::{EVENTS, Folder};
use crate::results::record::{Event, Session};
use crate::results::stream_file::last_session;

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
    /// Sessions and connections of each run, by its name.
    of_runs: HashMap<String, u64>,
}

impl Earlier {
    /// What is in the folder; no sessions if its file of records is not there. Lines that are no record are told in the log.
    ///
    /// # Errors
    /// It cannot be read, or no line of its records is one; says which file.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let mut earlier = Self::default();
        if folder.join(EVENTS).exists() {
            earlier.read_records(folder)?;
        }
        earlier
            .count_outputs(folder)
            .map_err(|error| format!("{}: {error}", shown_path(folder)))?;
        Ok(earlier)
    }

    /// Takes what was `ok` for a part of what the run is asked for. If nothing of that is left, says so.
    pub(crate) fn count_in(&self, config: &mut Config) -> Option<String> {
        let oks = self.oks;
        config.judging.oks_before = oks;
        let asked = config.attempts?;
        config.attempts = NonZeroU64::new(asked.get().saturating_sub(oks));
        let done = format!("nothing is left to do: {oks} sessions of earlier runs are ok");
        config.attempts.is_none().then_some(done)
    }

    /// What is odd if the runs that have ended have counted (`run.json`) other sessions than there are records of.
    pub(super) fn difference_from(&self, runs: &[Value]) -> Option<String> {
        let (mut counted, mut recorded) = (0, 0);
        for run in runs {
            let Some(counts) = run["counts"].as_object() else { continue };
            let told: u64 = counts.values().filter_map(Value::as_u64).sum();
            let held = run["run"].as_str().and_then(|name| self.of_runs.get(name)).copied();
            if held.unwrap_or(0) != told {
                counted += told;
                recorded += held.unwrap_or(0);
            }
        }
        (counted != recorded).then(|| {
            format!(
                "its run.json counts {counted} sessions and connections where {EVENTS} holds records of \
                 {recorded}; endpoints without a record are measured again"
            )
        })
    }

    fn read_records(&mut self, folder: &Path) -> Result<(), String> {
        let visit = |event, _| match event {
            Event::Session(session) => self.add(&session),
            Event::Folded(folded) => self.count(folded.run, folded.count),
            Event::RunStart(_) | Event::RunEnd(_) | Event::Other => {}
        };
        let records = Folder::open(folder);
        let scanned = records
            .and_then(|records| records.scan_telling(visit, |fault| tracing::warn!("{fault}")));
        scanned.map_err(|failure| failure.to_string())
    }

    /// A session that was killed has no record, but its output keeps its number.
    fn count_outputs(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder.join(SESSIONS)).into_iter().flatten() {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let number = name.split_once('-').and_then(|(number, _)| number.parse().ok());
            self.last_session = self.last_session.max(number.unwrap_or(0));
        }
        for entry in fs::read_dir(folder.join(STREAMS)).into_iter().flatten() {
            let last = last_session(&File::open(entry?.path())?)?;
            self.last_session = self.last_session.max(last);
        }
        Ok(())
    }

    fn count(&mut self, run: String, more: u64) {
        let count = self.of_runs.entry(run).or_default();
        *count = count.saturating_add(more);
    }

    fn add(&mut self, session: &Session) {
        self.count(session.run.clone(), 1);
        self.last_session = self.last_session.max(session.number);
        if session.outcome == "ok" {
            self.oks += 1;
            self.measured.extend(session.ep.key.as_deref().and_then(KeyId::from_hex));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a folder with these lines; the last has no end.
    fn read(lines: &[String]) -> Result<Earlier, String> {
        let thread = std::thread::current().id();
        let name = format!("earlier-{}-{thread:?}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(EVENTS), lines.join("\n")).unwrap();
        let earlier = Earlier::read(&folder);
        fs::remove_dir_all(folder).unwrap();
        earlier
    }

    fn session(version: u8, sid: u64, key: &str, outcome: &str) -> String {
        format!(
            r#"{{"v":{version},"t":"","ev":"session.end","sid":{sid},"ep":{{"key":{key}}},"outcome":"{outcome}"}}"#
        )
    }

    fn key(digit: &str) -> String {
        format!("\"{}\"", digit.repeat(64))
    }

    #[test]
    fn who_was_ok_is_known_and_torn_lines_are_passed_over() {
        let lines = [
            r#"{"v":1,"t":"","ev":"run.start","run":"00"}"#.to_owned(),
            session(1, 7, &key("a"), "ok"),
            session(1, 9, &key("b"), "mlet_failed"),
            r#"{"v":1,"t":"","ev":"session.end","sid":11,"ep":{"key":"#.to_owned(),
            session(1, 3, "null", "ok"),
            session(1, 8, &key("c"), "ok")[..40].to_owned(),
        ];
        let earlier = read(&lines).unwrap();
        assert_eq!((earlier.last_session, earlier.oks), (9, 2));
        assert_eq!(earlier.measured, [KeyId([0xaa; 32])].into());
    }

    #[test]
    fn records_are_held_against_what_the_runs_that_ended_have_counted() {
        let of_run =
            |run: &str, members: &str| format!(r#"{{"v":1,"t":"","run":"{run}",{members}}}"#);
        let ok = |sid: u64| format!(r#""ev":"session.end","sid":{sid},"outcome":"ok""#);
        let folded = r#""ev":"session.folded","outcome":"tls_failed","count":5"#;
        let lines = [of_run("a", &ok(1)), of_run("a", folded), of_run("b", &ok(2)), String::new()];
        let earlier = read(&lines).unwrap();
        let run = |name: &str, counts: Value| serde_json::json!({ "run": name, "counts": counts });
        let whole = run("a", serde_json::json!({ "ok": 1, "tls_failed": 5 }));
        let killed = run("b", Value::Null);
        assert_eq!(earlier.difference_from(&[whole.clone(), killed]), None);
        let lost = run("c", serde_json::json!({ "ok": 20 }));
        let told = earlier.difference_from(&[whole, lost]).unwrap();
        assert!(
            told.contains(
                "counts 20 sessions and connections where events.jsonl holds records of 0;"
            ),
            "{told}"
        );
    }

    #[test]
    fn what_results_refuse_to_read_counts_for_nothing() {
        let later = session(2, 12, &key("d"), "ok");
        let long =
            session(1, 13, &key("e"), "ok").replace(",", &format!(",{}", " ".repeat(1 << 20)));
        let lines = [session(1, 7, &key("a"), "ok"), later.clone(), long, String::new()];
        let earlier = read(&lines).unwrap();
        assert_eq!((earlier.last_session, earlier.oks), (7, 1));
        assert_eq!(earlier.measured, [KeyId([0xaa; 32])].into());
        let refused = read(&[later, String::new()]).unwrap_err();
        assert!(
            refused.ends_with("/events.jsonl: no line of it is a record of pktxpmgr"),
            "{refused}"
        );
    }
}
