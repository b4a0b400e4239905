//! A results folder: its records, what is known of its runs, and the output of its mlets.
//!
//! Not here: what a line says (`record.rs`), and which sessions are wanted (`chosen.rs`). Everything is read once from
//! front to back, also while a run still writes; what a session's line says may be read again from its place.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use packetlab_home::file;

use super::failure::{Failure, warn};
use super::lines::{Line, Lines, Place};
use super::record::{self, Event, Output, Session};
use super::run::Run;
pub(crate) use super::stream_file::Stream;
use super::stream_file::StreamOutput;

/// The file of records.
pub(crate) const EVENTS: &str = "events.jsonl";

/// What is known of each run.
const RUNS: &str = "run.json";

/// Longest file of the latter, in bytes: thousands of runs.
const RUNS_LEN_MAX: u64 = 64 << 20;

/// The folder with the output of the one mlet of `-s`.
const OF_ALL_SESSIONS: &str = "mlet";

/// So many lines that are no record are told of each; of more, how many there are.
const FAULTS_TOLD: u64 = 10;

/// A results folder whose records can be read.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    events: File,
}

/// Tells of lines that are passed over: of so many each, of more how many there are.
#[derive(Debug)]
pub(crate) struct Faults {
    events: PathBuf,
    count: u64,
}

/// The bytes of an output.
#[derive(Debug)]
pub(crate) enum OutputReader {
    /// Of a file of its own.
    File(File),
    /// Of the file of all sessions.
    Stream(StreamOutput),
}

impl Read for OutputReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Stream(stream) => stream.read(buffer),
        }
    }
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// It is no results folder, or cannot be read; says which and what to do.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let found = path.metadata().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::of_path(path, "there is no such folder; name the one of --out")
            }
            _ => Failure::of_path(path, error),
        })?;
        if !found.is_dir() {
            return Err(Failure::of_path(path, "it is no folder; name the one of --out"));
        }
        let events = path.join(EVENTS);
        match file::open(&events) {
            Ok(events) => Ok(Self { path: path.to_owned(), events }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let problem =
                    "it holds no events.jsonl, so it is no results folder; name the one of --out";
                Err(Failure::of_path(path, problem))
            }
            Err(error) => Err(Failure::of_path(&events, format!("it cannot be read: {error}"))),
        }
    }

    /// The folder, as it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Shows every record with its place, and tells of lines that are none.
    ///
    /// # Errors
    /// The file cannot be read, or no line of it is a record.
    pub(crate) fn scan(&self, visit: impl FnMut(Event, Place)) -> Result<(), Failure> {
        self.scan_telling(visit, warn)
    }

    /// The same for whoever has another place for warnings than standard error.
    ///
    /// # Errors
    /// As of [`Folder::scan`].
    pub(crate) fn scan_telling(
        &self,
        mut visit: impl FnMut(Event, Place),
        tell: impl Fn(Failure),
    ) -> Result<(), Failure> {
        let unreadable = |error| self.of_events(format!("it cannot be read: {error}"));
        (&self.events).rewind().map_err(unreadable)?;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 16, &self.events));
        let (mut records, mut faults) = (0_u64, Faults::of(&self.path));
        while let Some(line) = lines.next().map_err(unreadable)? {
            match read(&line) {
                Ok(event) => {
                    records += 1;
                    visit(event, line.place);
                }
                // A run that still writes, or was killed: the rest of it comes, or never will.
                Err(_) if !line.is_ended => {}
                Err(fault) => faults.add(line.place, &fault, &tell),
            }
        }
        faults.finish(records, tell)
    }

    /// Reads the session again that was found there.
    ///
    /// # Errors
    /// The file was changed in the meantime, or cannot be read.
    pub(crate) fn session_at(&self, place: Place) -> Result<Session, Failure> {
        let mut line = vec![0; place.len];
        self.events
            .read_exact_at(&mut line, place.offset)
            .map_err(|error| self.of_events(format!("it cannot be read: {error}")))?;
        match record::read(&line) {
            Ok(Event::Session(session)) => Ok(*session),
            _ => {
                let problem = format!("line {} was changed while it was read", place.number);
                Err(self.of_events(problem))
            }
        }
    }

    /// What is known of its runs; of none, with a word on why, if that cannot be read.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let path = self.path.join(RUNS);
        let runs = file::read(&path, RUNS_LEN_MAX)
            .map_err(|error| error.to_string())
            .and_then(|text| Run::list(&text));
        runs.unwrap_or_else(|problem| {
            warn(Failure::of_path(&path, format!("{problem}; what it says is left out")));
            Vec::new()
        })
    }

    /// The file that holds an output of a session. `None` if the record names no place within this folder.
    pub(crate) fn output_path(&self, output: &Output, stream: Stream) -> Option<PathBuf> {
        let place = match (&output.dir, &output.stream) {
            (Some(dir), _) => Path::new(dir).join(stream.name()),
            (None, Some(file)) => PathBuf::from(file),
            (None, None) => return None,
        };
        // Whoever gets a folder from somebody else must not be shown files of his own as output.
        let is_within = place.components().all(|part| matches!(part, Component::Normal(_)));
        is_within.then(|| self.path.join(place))
    }

    /// Opens an output of a session; `None` if it has none.
    ///
    /// # Errors
    /// It should be there and is not, or cannot be read.
    pub(crate) fn output(
        &self,
        session: &Session,
        stream: Stream,
    ) -> Option<Result<OutputReader, Failure>> {
        let output = session.output.as_ref()?;
        let Some(path) = self.output_path(output, stream) else {
            let problem = format!("session {} has its output elsewhere", session.number);
            return Some(Err(Failure::of_path(&self.path, problem)));
        };
        let (last, len) = match stream {
            Stream::Stdout => (output.stdout_at, output.stdout),
            Stream::Stderr => (output.stderr_at, output.stderr),
        };
        let opened = file::open(&path).and_then(|file| match output.dir {
            Some(_) => Ok(OutputReader::File(file)),
            None => StreamOutput::find(file, (session.number, stream), last, len)
                .map(OutputReader::Stream),
        });
        Some(opened.map_err(|error| {
            let (number, stream) = (session.number, stream.name());
            Failure::of_path(&path, format!("the {stream} of session {number}: {error}"))
        }))
    }

    /// Opens an output of the one mlet of `-s`, which is of no single session; `None` if there was none.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn output_of_all(&self, stream: Stream) -> Option<Result<File, Failure>> {
        let path = self.path.join(OF_ALL_SESSIONS).join(stream.name());
        match file::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(|error| Failure::of_path(&path, error))),
        }
    }

    fn of_events(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::of_path(&self.path.join(EVENTS), problem)
    }
}

impl Faults {
    /// In the records of this folder.
    pub(crate) fn of(folder: &Path) -> Self {
        Self { events: folder.join(EVENTS), count: 0 }
    }

    /// The line at this place is one.
    pub(crate) fn add(&mut self, place: Place, fault: &str, tell: impl Fn(Failure)) {
        self.count += 1;
        if self.count <= FAULTS_TOLD {
            let problem = format!("line {} is passed over: {fault}", place.number);
            tell(Failure::of_path(&self.events, problem));
        }
    }

    /// There are no more, beside so many records.
    ///
    /// # Errors
    /// No line is a record.
    pub(crate) fn finish(&self, records: u64, tell: impl Fn(Failure)) -> Result<(), Failure> {
        if self.count > FAULTS_TOLD {
            let more = self.count - FAULTS_TOLD;
            tell(Failure::of_path(&self.events, format!("{more} more lines are passed over")));
        }
        match records == 0 && self.count > 0 {
            true => Err(Failure::of_path(&self.events, "no line of it is a record of pktxpmgr")),
            false => Ok(()),
        }
    }
}

fn read(line: &Line<'_>) -> Result<Event, String> {
    line.whole().and_then(record::read)
}
