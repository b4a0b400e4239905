//! `run.json`: which runs have filled a results folder, with what, on what machine, and what came of them.
//!
//! Not here: the records. Invariant: what earlier runs have written stays as it is; a run without an end has not told it,
//! because it goes on or was killed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use command_line::provenance::{self, kernel_value};
use engine::config::{Layout, RunId};
use engine::{OutcomeKind, Report};
use packetlab::escape::Escaped;
use packetlab::key::{Hex, sha256};
use packetlab::time::Ticks;
use packetlab_home::file;
use serde::Serialize;
use serde_json::Value;

use super::of_campaign::OfCampaign;
use crate::args::Args;
use crate::engine_config::config_path;
use crate::exit::{Exit, Failure};
use crate::results::run::Word;

/// Its name in the folder.
pub(crate) const NAME: &str = "run.json";

/// Of the form of the file.
const VERSION: u8 = 1;

/// The whole file.
#[derive(Debug)]
pub(super) struct RunFile {
    /// Runs before this one.
    earlier: Vec<Value>,
    run: Run,
}

/// One run.
#[derive(Debug, Serialize)]
struct Run {
    run: String,
    started: String,
    ended: Option<String>,
    program: &'static str,
    commit: Option<&'static str>,
    command: Vec<Word>,
    working_directory: Option<Word>,
    config: DigestedFile,
    mlet: Mlet,
    host: Option<String>,
    kernel: Option<String>,
    limits: BTreeMap<String, String>,
    layout: &'static str,
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<OfCampaign>,
    counts: Option<BTreeMap<OutcomeKind, u64>>,
}

#[derive(Debug, Serialize)]
struct DigestedFile {
    /// As it was named.
    path: String,
    absolute: Option<Word>,
    sha256: String,
}

/// What is run.
#[derive(Debug, Serialize)]
pub(super) struct Mlet {
    #[serde(flatten)]
    file: DigestedFile,
    arguments: Vec<Word>,
}

/// What becomes of a run behind one of another mlet.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnAnother {
    GoOn,
    SayHow,
    /// In a campaign, which has one mlet.
    NameAnotherFolder,
}

impl OnAnother {
    /// As the options have it.
    pub(super) fn of(args: &Args) -> Self {
        match args.campaign.address() {
            Some(_) => Self::NameAnotherFolder,
            None if args.resume_anyway => Self::GoOn,
            None => Self::SayHow,
        }
    }
}

impl RunFile {
    /// A run that begins now.
    ///
    /// # Errors
    /// Config file or mlet cannot be read.
    pub(super) fn begin(args: &Args, run: RunId, layout: Layout) -> Result<Self, Failure> {
        let run = Run {
            run: run.to_string(),
            started: now(),
            ended: None,
            program: concat!("pktxpmgr ", env!("CARGO_PKG_VERSION")),
            commit: provenance::COMMIT,
            command: std::env::args_os().map(|word| Word::of(word.as_bytes())).collect(),
            working_directory: std::env::current_dir().ok().map(|path| path_word(&path)),
            config: DigestedFile::of(&config_path(args), "the config file")?,
            mlet: Mlet::of(args)?,
            host: kernel_value("kernel/hostname"),
            kernel: kernel_value("kernel/osrelease"),
            limits: args.limits_in_words().map(owned).collect(),
            layout: layout_name(layout),
            note: args.note.clone(),
            campaign: OfCampaign::of(args),
            counts: None,
        };
        Ok(Self { earlier: Vec::new(), run })
    }

    /// It comes behind these runs, the last of which ran the same mlet. In a campaign that is looked at when the run is a
    /// member: what the campaign has says more.
    ///
    /// # Errors
    /// As of [`Mlet::follows`].
    pub(super) fn follow(&mut self, runs: Vec<Value>, on_another: OnAnother) -> Result<(), String> {
        if self.run.campaign.is_none() {
            self.run.mlet.follows(&runs, on_another)?;
        }
        self.earlier = runs;
        Ok(())
    }

    /// When the campaign was created that the last of the runs before it was of.
    pub(super) fn created_before(&self) -> Option<&str> {
        self.earlier.last()?["campaign"]["created"].as_str()
    }

    /// The run is a member of the campaign that its command line names, which was created then.
    ///
    /// # Errors
    /// Runs before it were of another one, or of another mlet.
    pub(super) fn join(&mut self, created: &str) -> Result<(), String> {
        if let Some(campaign) = &mut self.run.campaign {
            campaign.created = Some(created.to_owned());
            campaign.check(&self.earlier)?;
            self.run.mlet.follows(&self.earlier, OnAnother::NameAnotherFolder)?;
        }
        Ok(())
    }

    /// The run could not begin: where it came behind others, the file is theirs again. False if there are none.
    pub(super) fn takes_itself_back(&self, folder: &Path) -> bool {
        if !self.earlier.is_empty() {
            // Who cannot write it has a run more in it that did not end.
            let _ = write_runs(folder, &self.earlier);
        }
        !self.earlier.is_empty()
    }

    /// The run has ended like this.
    pub(super) fn end(&mut self, report: &Report) {
        self.run.ended = Some(now());
        self.run.counts = Some(report.summary.outcomes.clone());
    }

    /// Writes it into the folder, in place of what is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut runs = self.earlier.clone();
        runs.push(serde_json::to_value(&self.run)?);
        write_runs(folder, &runs)
    }
}

/// The runs that have filled the folder.
///
/// # Errors
/// They cannot be read.
pub(crate) fn runs(folder: &Path) -> Result<Vec<Value>, String> {
    let read =
        || -> io::Result<Value> { Ok(serde_json::from_slice(&fs::read(folder.join(NAME))?)?) };
    let mut file = read().map_err(|error| format!("{NAME}: {error}"))?;
    if file["v"] != VERSION {
        return Err(format!("{NAME} is of another version than {VERSION}"));
    }
    match file["runs"].take() {
        Value::Array(runs) => Ok(runs),
        _ => Err(format!("{NAME} holds no runs")),
    }
}

/// How the output of the last of these runs lies; `None` if that is not told.
pub(super) fn last_layout(runs: &[Value]) -> Option<Layout> {
    let name = runs.last()?["layout"].as_str()?;
    [Layout::Folders, Layout::Stream].into_iter().find(|layout| layout_name(*layout) == name)
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Folders => "folders",
        Layout::Stream => "stream",
    }
}

/// Writes the file into the folder, in place of what is there.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write_runs(folder: &Path, runs: &[Value]) -> io::Result<()> {
    let file = serde_json::json!({ "v": VERSION, "runs": runs });
    let mut bytes = serde_json::to_vec_pretty(&file)?;
    bytes.push(b'\n');
    file::put(&folder.join(NAME), &bytes)
}

impl Mlet {
    /// That of the command line.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn of(args: &Args) -> Result<Self, Failure> {
        let arguments = args.mlet_arguments().iter().map(|word| Word::of(word.as_bytes()));
        Ok(Self {
            file: DigestedFile::of(args.mlet(), "the mlet")?,
            arguments: arguments.collect(),
        })
    }

    /// Refuses to run behind another one.
    ///
    /// # Errors
    /// The last of these runs had another; in what it differs, and what to do.
    pub(super) fn follows(&self, runs: &[Value], on_another: OnAnother) -> Result<(), String> {
        let differences = runs.last().map(|last| self.differences(&last["mlet"]));
        let differences = differences.unwrap_or_default().join("; ");
        let hint = match on_another {
            _ if differences.is_empty() => return Ok(()),
            OnAnother::GoOn => return Ok(()),
            OnAnother::SayHow => "--resume-anyway goes on all the same",
            OnAnother::NameAnotherFolder => "name another folder",
        };
        Err(format!("another mlet ran before: {differences}; {hint}"))
    }

    /// In what it differs from that of an earlier run.
    fn differences(&self, earlier: &Value) -> Vec<String> {
        let mut differences = Vec::new();
        let (digest, before) = (&self.file.sha256, earlier["sha256"].as_str().unwrap_or("none"));
        if digest != before {
            let front = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
            differences.push(format!("its SHA-256 was {} and is {}", front(before), front(digest)));
        }
        if earlier["arguments"] != serde_json::json!(self.arguments) {
            let (before, now) = (&earlier["arguments"], serde_json::json!(self.arguments));
            differences.push(format!("its arguments were {before} and are {now}"));
        }
        differences
    }
}

impl DigestedFile {
    fn of(path: &Path, what: &str) -> Result<Self, Failure> {
        let named = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
        let absolute = std::path::absolute(path).ok().map(|path| path_word(&path));
        let bytes = fs::read(path).map_err(|error| {
            let shown = Escaped(path.as_os_str().as_bytes());
            Failure::new(Exit::Config, format!("cannot read {what} {shown}: {error}"))
        })?;
        Ok(Self { path: named, absolute, sha256: Hex(&sha256(&bytes)).to_string() })
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.trim_start_matches("--").to_owned(), value.to_owned())
}

fn path_word(path: &Path) -> Word {
    Word::of(path.as_os_str().as_bytes())
}

fn now() -> String {
    Ticks::from_system_time(SystemTime::now()).timestamp()
}
