//! A results folder that is made of those of a campaign's managers: as one manager would have left it that had several runs.
//!
//! ```text
//! run.json       their runs, each with the folder it comes from, and counts of what is here
//! events.jsonl   first and last line of each run; of each session two lines: what was reported to the campaign, as it was,
//!                and session.end, with a number and a place of output of this folder, and the number it had before
//! sessions/, streams/0001.stream, mlet/      output: links to theirs, or copies; frames; one behind the other
//! ```
//! Not here: which sessions count (`merge.rs`). Invariant: events.jsonl is there when all of it is, and nothing that was
//! there before is touched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use packetlab_home::file;
use serde_json::{Value, json};

use super::manager_folder::{Line, ManagerFolder};
use super::merged_stream::MergedStream;
use crate::results::failure::{Failure, warn};
use crate::results::folder::{EVENTS, OutputReader, Stream};
use crate::results::record::{Output, Session};
use crate::results::run::Word;
use crate::results_folder::{place, run_file};

/// The file of records, until it is whole.
const UNFINISHED: &str = "events.jsonl.part";

/// The one file of the output of all sessions.
const STREAM: &str = "streams/0001.stream";

const OUTPUTS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// Digits of a key in the name of a session's folder.
const KEY_DIGITS: usize = 8;

/// So many outputs that are not whole are told of each.
const DAMAGE_TOLD: usize = 10;

/// The folder.
pub(super) struct MergedFolder {
    path: PathBuf,
    events: BufWriter<File>,
    /// What run.json is to tell.
    runs: Vec<Value>,
    /// Outcomes of the sessions of each run.
    counts: HashMap<String, BTreeMap<String, u64>>,
    stream: Option<MergedStream>,
    merged: Merged,
}

/// How much has come into it.
#[derive(Clone, Copy, Default)]
pub(super) struct Merged {
    /// Sessions, whose numbers count from 1.
    pub(super) sessions: usize,
    /// Outputs that are not there, or not as their records say.
    pub(super) damaged: usize,
}

impl MergedFolder {
    /// Makes it.
    ///
    /// # Errors
    /// There is something already, or it cannot be made.
    pub(super) fn begin(path: &Path) -> Result<Self, Failure> {
        place::is_folder(path)
            .and_then(|()| holds_no_results(path))
            .and_then(|()| place::is_empty(path))
            .and_then(|()| place::check(path))
            .map_err(|problem| Failure::of_path(path, problem))?;
        let events = path.join(UNFINISHED);
        let made = make_folder(path).and_then(|()| create(&events));
        let events = BufWriter::new(made.map_err(|error| Failure::of_path(path, error))?);
        let (runs, counts, merged) = (Vec::new(), HashMap::new(), Merged::default());
        Ok(Self { path: path.to_owned(), events, runs, counts, stream: None, merged })
    }

    /// Adds a folder's runs, and the output of the one mlet that each of them may have had. The names of those that are new.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(super) fn add_runs(&mut self, from: &ManagerFolder) -> Result<HashSet<String>, Failure> {
        let path = from.folder.path();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut new = HashSet::new();
        for run in &from.runs {
            let Some(name) = run["run"].as_str() else { continue };
            if self.runs.iter().any(|known| known["run"] == name) {
                continue;
            }
            let mut run = run.clone();
            if run["merged_from"].is_null() {
                run["merged_from"] = json!(Word::of(absolute.as_os_str().as_bytes()));
            }
            new.insert(name.to_owned());
            self.runs.push(run);
        }
        if !new.is_empty() {
            OUTPUTS.into_iter().try_for_each(|stream| self.add_output_of_all(from, stream))?;
        }
        Ok(new)
    }

    /// Adds a line as it is.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn add_line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.events, "{text}").map_err(|error| self.unwritten(&error))
    }

    /// Adds the last line of a run, of which all sessions are here.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn end_run(&mut self, line: &Line) -> Result<(), Failure> {
        let mut record = line.record.clone();
        record["counts"] = json!(self.counts.entry(line.run.clone()).or_default());
        self.add_line(&record.to_string())
    }

    /// Adds a session by what was reported of it, with its output. Where it comes from a folder that was merged, the `next`
    /// line is what it was there.
    ///
    /// # Errors
    /// It is no record, or cannot be written.
    pub(super) fn add_session(
        &mut self,
        from: &ManagerFolder,
        reported: &Line,
        next: Option<&Line>,
    ) -> Result<(), Failure> {
        let is_its_end = |line: &&Line| {
            line.is_end_of_merged()
                && line.run == reported.run
                && line.sid_before == Some(reported.sid)
        };
        let end = next.filter(is_its_end);
        let placed = end.unwrap_or(reported);
        let of_path = |problem: String| Failure::of_path(from.folder.path(), problem);
        let session = placed.session().map_err(of_path)?;
        self.merged.sessions += 1;
        let number = self.merged.sessions;
        let mut record = reported.record.clone();
        record["output"] = placed.record["output"].clone();
        if end.is_none() && from.is_merged(&reported.run) {
            let why = "its session.end, which says where, does not follow its session.result";
            self.tell_damage(of_path(format!("no output of session {}: {why}", reported.sid)));
            record["output"] = Value::Null;
        }
        let key = reported.endpoint().map_or_else(String::new, |key| key.to_string());
        let key = key.get(..KEY_DIGITS).unwrap_or("nokey");
        let dir = self.add_output(from, (&session, key), &mut record["output"])?;
        record["ev"] = json!("session.end");
        record["sid"] = json!(number);
        record["sid_before"] = json!(reported.sid);
        let line = record.to_string();
        self.add_line(&reported.text)?;
        self.add_line(&line)?;
        let counts = self.counts.entry(reported.run.clone()).or_default();
        *counts.entry(reported.outcome.clone()).or_default() += 1;
        let Some(dir) = dir else { return Ok(()) };
        let copy = create(&dir.join("session.json")).and_then(|mut file| writeln!(file, "{line}"));
        copy.map_err(|error| self.unwritten(&error))
    }

    /// No more comes.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(mut self) -> Result<Merged, Failure> {
        let Self { runs, counts, .. } = &mut self;
        for run in runs.iter_mut().filter(|run| run["counts"].is_object()) {
            let of_run = run["run"].as_str().and_then(|name| counts.get(name));
            run["counts"] = json!(of_run.cloned().unwrap_or_default());
        }
        // In the order in which one manager would have had them.
        runs.sort_by(|one, other| one["started"].as_str().cmp(&other["started"].as_str()));
        let streamed = self.stream.take().map_or(Ok(()), MergedStream::finish);
        let written = streamed
            .and_then(|()| run_file::write_runs(&self.path, &self.runs))
            .and_then(|()| self.events.flush())
            .and_then(|()| self.events.get_ref().sync_all())
            .and_then(|()| fs::rename(self.path.join(UNFINISHED), self.path.join(EVENTS)));
        written.map_err(|error| self.unwritten(&error))?;
        Ok(self.merged)
    }

    /// Takes over the output of a session, and tells `place` where it is now. Its folder, if it has one.
    fn add_output(
        &mut self,
        from: &ManagerFolder,
        (session, key): (&Session, &str),
        place: &mut Value,
    ) -> Result<Option<PathBuf>, Failure> {
        let Some(output) = session.output.as_ref().filter(|_| place.is_object()) else {
            return Ok(None);
        };
        if output.dir.is_none() {
            let [stdout_at, stderr_at] = self.add_frames(from, session)?;
            place["stream"] = json!(STREAM);
            place["stdout_at"] = json!(stdout_at);
            place["stderr_at"] = json!(stderr_at);
            return Ok(None);
        }
        let dir = format!("sessions/{:06}-{key}", self.merged.sessions);
        place["dir"] = json!(dir);
        let dir = self.path.join(dir);
        make_folder(&dir).map_err(|error| self.unwritten(&error))?;
        for stream in OUTPUTS {
            self.add_file(from, (session.number, output), (stream, &dir.join(stream.name())))?;
        }
        Ok(Some(dir))
    }

    /// Takes over one file of a session.
    fn add_file(
        &mut self,
        from: &ManagerFolder,
        (session, output): (u64, &Output),
        (stream, target): (Stream, &Path),
    ) -> Result<(), Failure> {
        let Some(source) = from.folder.output_path(output, stream) else {
            let problem = format!("session {session} has its output elsewhere");
            self.tell_damage(Failure::of_path(from.folder.path(), problem));
            return Ok(());
        };
        let recorded = match stream {
            Stream::Stdout => output.stdout,
            Stream::Stderr => output.stderr,
        };
        let opened = file::open(&source).and_then(|file| Ok((file.metadata()?.len(), file)));
        let is_link = source.symlink_metadata().is_ok_and(|found| found.is_symlink());
        let (len, mut opened) = match opened {
            Ok(opened) if !is_link => opened,
            Ok(_) => {
                self.tell_damage(Failure::of_path(&source, "it is a link"));
                return Ok(());
            }
            Err(error) => {
                self.tell_damage(Failure::of_path(&source, error));
                return Ok(());
            }
        };
        if len != recorded {
            let problem = format!("it has {len} bytes, and its record says {recorded}");
            self.tell_damage(Failure::of_path(&source, problem));
        }
        let linked = fs::hard_link(&source, target);
        let copy = |_| create(target).and_then(|mut to| io::copy(&mut opened, &mut to).map(|_| ()));
        linked.or_else(copy).map_err(|error| self.unwritten(&error))
    }

    /// Takes over what a session has in the file of all sessions of its run.
    fn add_frames(&mut self, from: &ManagerFolder, session: &Session) -> Result<[u64; 2], Failure> {
        let mut outputs = Vec::new();
        for stream in OUTPUTS {
            match from.folder.output(session, stream) {
                Some(Ok(OutputReader::Stream(output))) => match output.check() {
                    Ok(()) => outputs.push((stream, output)),
                    Err(error) => {
                        let name = stream.name();
                        let problem = format!("the {name} of session {}: {error}", session.number);
                        self.tell_damage(Failure::of_path(from.folder.path(), problem));
                    }
                },
                Some(Ok(OutputReader::File(_))) | None => {}
                Some(Err(failure)) => self.tell_damage(failure),
            }
        }
        let number = self.merged.sessions as u64;
        let appended = self.stream().and_then(|stream| stream.append(number, outputs));
        appended.map_err(|error| self.unwritten(&error))
    }

    fn stream(&mut self) -> io::Result<&mut MergedStream> {
        if self.stream.is_none() {
            let path = self.path.join(STREAM);
            make_folder(&self.path.join("streams"))?;
            self.stream = Some(MergedStream::begin(create(&path)?)?);
        }
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What the one mlet of `-s` wrote is of no single session: all of it comes, behind that of other managers.
    fn add_output_of_all(&mut self, from: &ManagerFolder, stream: Stream) -> Result<(), Failure> {
        let mut read = match from.folder.output_of_all(stream) {
            None => return Ok(()),
            Some(Err(failure)) => {
                self.tell_damage(failure);
                return Ok(());
            }
            Some(Ok(read)) => read,
        };
        let folder = self.path.join("mlet");
        let copied = make_folder(&folder).and_then(|()| {
            let mut options = OpenOptions::new();
            let options = options.append(true).create(true).mode(0o600);
            io::copy(&mut read, &mut options.open(folder.join(stream.name()))?)
        });
        copied.map(|_| ()).map_err(|error| self.unwritten(&error))
    }

    fn tell_damage(&mut self, failure: Failure) {
        self.merged.damaged += 1;
        if self.merged.damaged <= DAMAGE_TOLD {
            warn(failure);
        }
    }

    fn unwritten(&self, error: &io::Error) -> Failure {
        let problem = format!("it cannot be written: {error}");
        Failure::NotWritten(Failure::of_path(&self.path, problem).to_string())
    }
}

/// What is merged does not go to what is there.
fn holds_no_results(path: &Path) -> Result<(), String> {
    match path.join(EVENTS).exists() || path.join(UNFINISHED).exists() {
        true => Err("it holds results already; name a new folder".into()),
        false => Ok(()),
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
