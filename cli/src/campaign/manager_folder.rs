//! A results folder of a manager, as a campaign looks at it: its runs that were of this campaign, and what they have reported.
//!
//! Not here: what people read of a folder (`results/`). One line is in memory at a time. Invariant: a folder is taken for one
//! of the campaign only if its run.json says so, by name, creation, mlet and arguments; what is passed over is told.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use ::campaign::administration::{JournalResult, Origin};
use packetlab::escape::Escaped;
use packetlab::key::{Hex, KeyId};
use packetlab::time::Ticks;
use packetlab::words::counted;
use packetlab_home::file;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::results::failure::{Failure, warn};
use crate::results::folder::{EVENTS, Faults, Folder};
use crate::results::lines::{Lines, Place};
use crate::results::record::{self, Session};
use crate::results::time::rfc3339;
use crate::results_folder::{OfCampaign, run_file};

/// What lines are called that were reported to the campaign.
const RESULT: &str = "session.result";

/// Those that matter here.
const KINDS: [&str; 4] = ["run.start", RESULT, "session.end", "run.end"];

/// A manager's folder.
pub(super) struct ManagerFolder {
    /// For its output.
    pub(super) folder: Folder,
    /// What run.json tells of those that were of the campaign.
    pub(super) runs: Vec<Value>,
    /// Their names.
    names: HashSet<String>,
    /// The names of those that were not.
    other_names: HashSet<String>,
}

/// What every line begins with.
#[derive(Deserialize)]
struct Head<'a> {
    v: u64,
    #[serde(borrow)]
    ev: Cow<'a, str>,
}

/// A line of its records, of a kind that matters to a campaign.
#[derive(Deserialize)]
pub(super) struct Line {
    pub(super) ev: String,
    pub(super) run: String,
    /// The session's number, of lines of sessions.
    #[serde(default)]
    pub(super) sid: u64,
    /// The number that a result had with its manager, if a merge has given it another.
    pub(super) sid_before: Option<u64>,
    #[serde(default)]
    pub(super) outcome: String,
    epoch: Option<u32>,
    /// When it was written.
    t: Option<String>,
    #[serde(default)]
    ep: Endpoint,
    /// All of it.
    #[serde(skip)]
    pub(super) text: String,
    /// The same, of those that a merge has to change: results, their ends in a folder that was merged, and ends of runs.
    #[serde(skip)]
    pub(super) record: Value,
}

#[derive(Default, Deserialize)]
struct Endpoint {
    key: Option<String>,
}

/// The lines of a folder's runs that were of the campaign. What is no line of a run is passed over.
pub(super) struct RunLines<'a> {
    lines: Lines<BufReader<File>>,
    /// Their file.
    events: PathBuf,
    of: &'a ManagerFolder,
    /// Lines so far that are records.
    records: u64,
    faults: Faults,
    tell: fn(Failure),
    has_ended: bool,
}

impl ManagerFolder {
    /// Opens the folder.
    ///
    /// # Errors
    /// It is no results folder, cannot be read, or no run of it was of this campaign and its mlet.
    pub(super) fn open(path: &Path, name: &str, origin: &Origin) -> Result<Self, Failure> {
        let folder = Folder::open(path)?;
        let of_path = |problem: String| Failure::of_path(path, problem);
        let mut runs = run_file::runs(path).map_err(of_path)?;
        let campaign = OfCampaign { name: name.to_owned(), created: Some(origin.created.clone()) };
        let mut differences = Vec::new();
        let mut other_names = HashSet::new();
        runs.retain(|run| {
            let difference =
                campaign.difference_from(run).or_else(|| difference_of_mlet(run, origin));
            if difference.is_some() {
                other_names.extend(name_of(run));
            }
            differences.extend(difference.clone());
            difference.is_none()
        });
        let passed_over = counted(differences.len() as u64, "run");
        match (runs.is_empty(), differences.into_iter().next()) {
            (true, difference) => {
                return Err(of_path(difference.unwrap_or_else(|| "it holds no run".to_owned())));
            }
            (false, Some(difference)) => {
                warn(of_path(format!("{passed_over} in it passed over: {difference}")));
            }
            (false, None) => {}
        }
        let names = runs.iter().filter_map(name_of).collect();
        Ok(Self { folder, runs, names, other_names })
    }

    /// The machine on which this run was, if that is known.
    pub(super) fn host_of(&self, run: &str) -> Option<String> {
        let run = self.runs.iter().find(|known| known["run"] == run)?;
        run["host"].as_str().filter(|host| !host.is_empty()).map(str::to_owned)
    }

    /// Whether this run has come here by a merge.
    pub(super) fn is_merged(&self, run: &str) -> bool {
        self.runs.iter().any(|known| known["run"] == run && !known["merged_from"].is_null())
    }

    /// Its lines, from the first on. What is passed over is told.
    ///
    /// # Errors
    /// They cannot be read, or none is a record.
    pub(super) fn lines(&self) -> Result<RunLines<'_>, Failure> {
        self.lines_telling(warn)
    }

    /// The same once more, when it has been told.
    ///
    /// # Errors
    /// As of [`ManagerFolder::lines`].
    pub(super) fn lines_again(&self) -> Result<RunLines<'_>, Failure> {
        self.lines_telling(drop)
    }

    pub(super) fn lines_telling(&self, tell: fn(Failure)) -> Result<RunLines<'_>, Failure> {
        let events = self.folder.path().join(EVENTS);
        let opened = file::open(&events).map_err(|error| Failure::of_path(&events, error))?;
        let lines = Lines::new(BufReader::with_capacity(1 << 16, opened));
        let (records, faults) = (0, Faults::of(self.folder.path()));
        Ok(RunLines { lines, events, of: self, records, faults, tell, has_ended: false })
    }
}

fn name_of(run: &Value) -> Option<String> {
    run["run"].as_str().map(str::to_owned)
}

/// In what a run has measured something else than the campaign does: it was created anew with that, or its run.json was changed.
fn difference_of_mlet(run: &Value, origin: &Origin) -> Option<String> {
    let (digest, own) = (Hex(&origin.mlet_digest).to_string(), &run["mlet"]["sha256"]);
    let (arguments, own_arguments) = (json!(origin.argv), &run["mlet"]["arguments"]);
    let shown = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => Escaped(text.as_bytes()).to_string(),
        other => Escaped(other.to_string().as_bytes()).to_string(),
    };
    let difference = if own.as_str() != Some(&*digest) {
        format!("of another mlet, whose SHA-256 is {} and not {digest}", shown(own))
    } else if *own_arguments != arguments {
        let [own, campaigns] = [own_arguments, &arguments].map(shown);
        format!("of the mlet with other arguments, which are {own} and not {campaigns}")
    } else {
        return None;
    };
    Some(format!(
        "it holds a run {difference} (if the campaign was created anew with the wrong ones, remove it with `forget`, and \
         create it with those of the run and --created {})",
        origin.created
    ))
}

impl Iterator for RunLines<'_> {
    type Item = Result<Line, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            let (place, read) = match self.lines.next() {
                Ok(Some(line)) => {
                    let read = line.whole().and_then(Line::read);
                    let is_torn = !line.is_ended;
                    (
                        line.place,
                        read.map_err(|fault| if is_torn { TORN.to_owned() } else { fault }),
                    )
                }
                Ok(None) => {
                    self.has_ended = true;
                    return self.faults.finish(self.records, self.tell).err().map(Err);
                }
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(Failure::of_path(&self.events, error)));
                }
            };
            if let Some(line) = self.judged(place, read) {
                return Some(Ok(line));
            }
        }
        None
    }
}

/// Said of a last line without an end.
const TORN: &str = "it has no end yet, or was torn when its manager was killed";

impl RunLines<'_> {
    /// The line, if it is one of a run of the campaign.
    fn judged(&mut self, place: Place, read: Result<Option<Line>, String>) -> Option<Line> {
        let fault = match read {
            Ok(None) => {
                self.records += 1;
                return None;
            }
            Ok(Some(line)) => {
                self.records += 1;
                if self.of.names.contains(&line.run) {
                    return Some(line);
                }
                if self.of.other_names.contains(&line.run) {
                    return None;
                }
                format!(
                    "it is of a run {}, which run.json does not name",
                    Escaped(line.run.as_bytes())
                )
            }
            Err(fault) => fault,
        };
        self.faults.add(place, &fault, self.tell);
        None
    }
}

impl Line {
    /// `None` of a record that matters to nobody here.
    fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is no UTF-8")?;
        // An array would pass for a record without names.
        if !text.starts_with('{') {
            return Err("it is no JSON object".into());
        }
        let Head { v, ev } = record::of(bytes)?;
        record::check_version(v)?;
        if !KINDS.contains(&&*ev) {
            return Ok(None);
        }
        let mut line: Self = record::of(bytes)?;
        text.clone_into(&mut line.text);
        let is_result = line.ev == RESULT;
        if is_result && line.result().is_none() {
            return Err(
                "it is no result of a campaign: endpoint, claim or outcome is not in it".into()
            );
        }
        let is_session = is_result || line.is_end_of_merged();
        if is_session || line.ev == "run.end" {
            // Members that nobody names here, too: a number or an escape in them that most readers refuse.
            line.record = serde_json::from_str(text).map_err(|error| {
                format!("its JSON cannot be read: {}", record::without_place(&error))
            })?;
        }
        if is_session {
            line.session()?;
        }
        Ok(Some(line))
    }

    /// What `results` read of a session, of a result and the end of one that was merged.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn session(&self) -> Result<Session, String> {
        let session = Session::deserialize(&self.record);
        session.map_err(|error| format!("it is no record: {}", record::without_place(&error)))
    }

    /// Whether it says where a merge has put the output of the session whose result stands before it.
    pub(super) fn is_end_of_merged(&self) -> bool {
        self.ev == "session.end" && self.sid_before.is_some()
    }

    /// Whose session it was.
    pub(super) fn endpoint(&self) -> Option<KeyId> {
        self.ep.key.as_deref().and_then(KeyId::from_hex)
    }

    /// What was reported to the campaign, if it is a line of that; the host is the folder's to know.
    pub(super) fn result(&self) -> Option<JournalResult> {
        let endpoint = self.endpoint()?.0;
        // As the database counts claims and sessions.
        let epoch = self.epoch.filter(|epoch| *epoch > 0 && i32::try_from(*epoch).is_ok())?;
        let session = i64::try_from(self.sid).ok().map(i64::cast_unsigned)?;
        let (outcome, record) = (self.outcome.clone(), self.text.clone());
        (self.ev == RESULT && !outcome.is_empty()).then_some(JournalResult {
            endpoint,
            epoch,
            session,
            host: None,
            // Of offsets the database takes fewer.
            at: self.t.as_deref().and_then(rfc3339).map(Ticks::timestamp),
            outcome,
            record,
        })
    }

    /// Whether the campaign has told its manager that it does not take the result.
    pub(super) fn is_refusal(&self) -> bool {
        self.ev == "session.end" && self.outcome == "duplicate"
    }
}
