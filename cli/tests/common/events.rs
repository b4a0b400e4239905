//! The file of records that `--events` names, read.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

use super::Home;
use super::manager::{Manager, wait_until};

/// The options that ask for the file; it lies in the home.
pub const EVENTS: [&str; 2] = ["--events", "events.jsonl"];

/// A manager that writes records, with these options and a mlet of the zoo.
pub fn start(home: &Home, options: &[&str], kind: &[&str]) -> Manager {
    home.start(&[&EVENTS[..], options].concat(), kind)
}

/// The file.
pub struct Events(PathBuf);

impl Events {
    pub fn of(home: &Home) -> Self {
        Self(home.path(EVENTS[1]))
    }

    /// Those of a results folder, which lies in the home.
    pub fn of_results(home: &Home, folder: &str) -> Self {
        Self(home.path(folder).join(EVENTS[1]))
    }

    /// Every record so far; asserts that lines are whole and as docs/events.schema.json says.
    pub fn all(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'), "the last line is torn");
        let records: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        records.iter().for_each(assert_has_the_documented_form);
        records
    }

    /// Those of sessions, by their numbers; asserts that no session has two.
    pub fn sessions(&self) -> Vec<Value> {
        let mut sessions = self.all();
        sessions.retain(|record| record["ev"] == "session.end");
        sessions.sort_by_key(|record| record["sid"].as_u64());
        let ids: BTreeSet<_> = sessions.iter().map(|record| record["sid"].as_u64()).collect();
        assert_eq!(ids.len(), sessions.len(), "a session has two records");
        sessions
    }

    /// Waits until there are so many of sessions; what comes later is not looked at.
    #[track_caller]
    pub fn await_sessions(&self, count: usize) -> Vec<Value> {
        let text = || fs::read_to_string(&self.0).unwrap_or_default();
        let sessions = |text: &str| {
            let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines.filter(|line| line.contains("\"session.end\"")).count()
        };
        wait_until("records", || sessions(&text()) >= count);
        self.sessions()
    }
}

/// Every record that a test reads is held to the document.
pub fn assert_has_the_documented_form(record: &Value) {
    static FORM: OnceLock<Validator> = OnceLock::new();
    let form = FORM.get_or_init(|| {
        let schema = include_str!("../../../docs/events.schema.json");
        jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
    });
    if let Err(error) = form.validate(record) {
        panic!("{record} is not as docs/events.schema.json says: {error}");
    }
}

/// The outcomes of these records.
pub fn outcomes(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["outcome"].as_str().unwrap()).collect()
}
