//! What is recorded of a run, and where.
//!
//! Not here: how it is written (`records`).

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use packetlab::escape::Escaped;

/// What is recorded of a run, and where.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// The campaign that the run shares with others, by its name.
    pub campaign: Option<String>,
    /// Names the run.
    pub run: RunId,
    /// `--events` and the results folder: where a record of each session goes, a line of JSON. That of the folder is the
    /// first.
    pub events: Vec<Destination>,
    /// `--joblog`: where a line of each mlet goes.
    pub joblog: Option<Joblog>,
    /// `--out`: where the output of mlets goes.
    pub results: Option<Results>,
    /// Sessions are numbered from the one behind this: the highest that the results folder has already.
    pub sessions_before: u64,
}

/// Names a run in records and to mlets; unlike those of all other runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What lines are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// This file, behind what it holds; it is made if it is not there.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => Escaped(path.as_os_str().as_bytes()).fmt(f),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

/// A folder with the output of each session's mlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// The folder, which is there; absolute, since mlets are told of it.
    pub path: PathBuf,
    /// Which output stays.
    pub keep: Keep,
    /// How it lies there.
    pub layout: Layout,
}

/// How the output of mlets lies in a results folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// A folder for each session.
    #[default]
    Folders,
    /// `--stream`: one file for all of a run.
    Stream,
}

/// `--keep`: whose output stays in a results folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// That of every mlet.
    #[default]
    All,
    /// That of sessions that are not `ok`.
    Failed,
    /// None: what mlets write is thrown away.
    None,
}

/// A log in GNU parallel's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joblog {
    /// Its file.
    pub destination: Destination,
    /// Its column `Command`: the mlet and its arguments.
    pub command: String,
}
