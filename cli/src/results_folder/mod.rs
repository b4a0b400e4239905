//! The folder of `--out`: made, held against a second run, and described by its `run.json`.
//!
//! ```text
//! DIR/run.json       which runs have filled it, with what, and what came of them (run_file.rs)
//! DIR/events.jsonl   the records             DIR/sessions/, DIR/streams/   the output of mlets       the engine's
//! ```
//! `earlier.rs` is what a run has to know of those before it, `endpoints.rs` which endpoints it measures, `place.rs` whether a
//! folder can be had where it is wanted, `of_campaign.rs` of which campaign its runs were. Not here: what
//! people read of a folder. Invariant: a folder that holds a run is not begun anew, and no two runs write to one.

mod earlier;
mod endpoints;
mod of_campaign;
pub(crate) mod place;
pub(crate) mod run_file;

use std::fs::{self, DirBuilder, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use engine::Report;
use engine::config::{Destination, Layout, Recording, Results, RunId};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use packetlab::escape::Escaped;
use serde_json::Value;

pub(crate) use self::earlier::Earlier;
pub(crate) use self::endpoints::{check_lists, choose};
pub(crate) use self::of_campaign::OfCampaign;
use self::run_file::{Mlet, OnAnother, RunFile};
use crate::args::Args;
use crate::exit::{Exit, Failure};
use crate::findings::Findings;
use crate::results::failure::shown_path;
use crate::results::folder::EVENTS;

/// What says that a folder holds a run.
const MARKS: [&str; 2] = [EVENTS, run_file::NAME];

/// The folder as an absolute path, since mlets may change their directory.
///
/// # Errors
/// There is no working directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| refused(path, &error.to_string()))
}

/// How output is to lie in the folder: as in the last run there, unless the options have it otherwise. A folder that cannot
/// be read is refused later, when it is held.
pub(crate) fn layout(args: &Args) -> Layout {
    let folder = args.results().filter(|_| args.may_go_on());
    let runs = folder.and_then(|folder| run_file::runs(folder).ok());
    args.layout(runs.as_deref().and_then(run_file::last_layout))
}

/// The folder of one run, held until it is dropped.
#[derive(Debug)]
pub(crate) struct ResultsFolder {
    path: PathBuf,
    layout: Layout,
    run_file: RunFile,
    earlier: Earlier,
    /// Also held by nobody else, as long as this is.
    _hold: Flock<File>,
}

impl ResultsFolder {
    /// Makes the folder, if need be, and writes down what is about to run.
    ///
    /// # Errors
    /// It cannot be made or written, another run holds it, it holds one already that is not gone on with, or one of
    /// something else.
    pub(crate) fn begin(
        path: &Path,
        args: &Args,
        run: RunId,
        layout: Layout,
    ) -> Result<Self, Failure> {
        let refuse = |problem: String| refused(path, &problem);
        if args.resume.is_none() {
            place::check(path).map_err(refuse)?;
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| refuse(error.to_string()))?;
        } else if !path.exists() {
            return Err(nothing_to_resume(path));
        }
        let folder = File::open(path).map_err(|error| refuse(error.to_string()))?;
        let hold = Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            refuse(match errno {
                Errno::EWOULDBLOCK => "another run writes to it; name another folder".into(),
                _ => errno.to_string(),
            })
        })?;
        let (runs, earlier) = look(path, args)?;
        let mut run_file = RunFile::begin(args, run, layout)?;
        run_file.follow(runs, OnAnother::of(args)).map_err(refuse)?;
        run_file.write(path).map_err(|error| refuse(error.to_string()))?;
        Ok(Self { path: path.to_owned(), layout, run_file, earlier, _hold: hold })
    }

    /// What earlier runs have left.
    pub(crate) fn earlier(&self) -> &Earlier {
        &self.earlier
    }

    /// The run is a member of its campaign, which was created then; that is written down.
    ///
    /// # Errors
    /// The folder holds runs of another campaign of its name, or cannot be written.
    pub(crate) fn join(&mut self, created: &str) -> Result<(), Failure> {
        let joined = self.run_file.join(created);
        let written = joined
            .and_then(|()| self.run_file.write(&self.path).map_err(|error| error.to_string()));
        written.map_err(|problem| refused(&self.path, &problem))
    }

    /// What is to be said to who finds no campaign of its name: there was one, from which its last run is.
    pub(crate) fn of_lost_campaign(&self) -> Option<String> {
        let created = Escaped(self.run_file.created_before()?.as_bytes());
        Some(format!(
            "{} is of one that was created at {created} (if the database has lost that one, create it with --created \
             {created}; else name another folder)",
            shown_path(&self.path)
        ))
    }

    /// What the engine is to write into it.
    pub(crate) fn recording(&self, args: &Args, run: RunId) -> Recording {
        let (path, keep) = (self.path.clone(), args.keep.into());
        let results = Results { path, keep, layout: self.layout };
        let events = vec![Destination::File(self.path.join(EVENTS))];
        let sessions_before = self.earlier.last_session;
        Recording { run, events, results: Some(results), sessions_before, ..Recording::default() }
    }

    /// The run could not begin: what was written for it is taken away, as far as it is in the way of the next try.
    pub(crate) fn abandon(self) {
        if self.run_file.takes_itself_back(&self.path) {
            return;
        }
        let events = self.path.join(EVENTS);
        let lines = fs::read(&events).map_or(0, |text| text.split(|byte| *byte == b'\n').count());
        // More than the line with which every run begins.
        if lines <= 2 {
            // Who cannot remove them is told when the folder is named again.
            let _ = fs::remove_file(events);
            let _ = fs::remove_file(self.path.join(run_file::NAME));
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Writes down what came of the run. False, told in the log, if that is lost.
    pub(crate) fn finish(mut self, report: &Report) -> bool {
        self.run_file.end(report);
        let written = self.run_file.write(&self.path);
        if let Err(error) = &written {
            let shown = Escaped(self.path.as_os_str().as_bytes());
            tracing::error!("the end of the run is not in {shown}/{}: {error}", run_file::NAME);
        }
        written.is_ok()
    }
}

/// Finds what a run would refuse of its results folder, and what earlier runs have left in it. Nothing is made, and nobody is
/// kept out. A mlet is compared with that of earlier runs only if there is one that `can_run`.
pub(crate) fn check(args: &Args, can_run: bool, findings: &mut Findings) -> Option<Earlier> {
    let path = findings.keep(absolute(args.results()?))?;
    let mlet = if can_run { findings.keep(Mlet::of(args)) } else { None };
    let (runs, earlier) = findings.keep(look(&path, args))?;
    findings.keep(place::check(&path).map_err(|problem| refused(&path, &problem)));
    if let Some(mlet) = mlet {
        let follows = mlet.follows(&runs, OnAnother::of(args));
        findings.keep(follows.map_err(|problem| refused(&path, &problem)));
    }
    Some(earlier)
}

/// What a folder holds for a run that begins in it, or goes on with it: earlier runs, and what they have left.
///
/// # Errors
/// It holds a run that is not gone on with, or none that could be, or cannot be read.
fn look(path: &Path, args: &Args) -> Result<(Vec<Value>, Earlier), Failure> {
    let refuse = |problem: String| refused(path, &problem);
    place::is_folder(path).map_err(refuse)?;
    let holds =
        |name: &str| path.join(name).try_exists().map_err(|error| refuse(error.to_string()));
    // A manager of a campaign that was killed is started again by the same command.
    let goes_on = args.resume.is_some() || args.may_go_on() && holds(run_file::NAME)?;
    if !goes_on {
        for mark in MARKS {
            if holds(mark)? {
                let hint = "name another folder, or go on with --resume";
                return Err(refuse(format!("it holds a run already ({mark}); {hint}")));
            }
        }
        place::is_empty(path).map_err(refuse)?;
        return Ok((Vec::new(), Earlier::default()));
    }
    if !path.exists() {
        return Err(nothing_to_resume(path));
    }
    if !holds(run_file::NAME)? {
        let problem = "it is no results folder: it has no run.json; name the one of --out";
        return Err(refuse(problem.into()));
    }
    let runs = run_file::runs(path).map_err(refuse)?;
    if let Some(campaign) = OfCampaign::of(args) {
        campaign.check(&runs).map_err(refuse)?;
    }
    let earlier = Earlier::read(path).map_err(refuse)?;
    if let Some(difference) = earlier.difference_from(&runs) {
        tracing::warn!("{}: {difference}", Escaped(path.as_os_str().as_bytes()));
    }
    Ok((runs, earlier))
}

fn nothing_to_resume(path: &Path) -> Failure {
    refused(path, "there is no run to go on with; begin one with --out")
}

fn refused(path: &Path, problem: &str) -> Failure {
    let shown = Escaped(path.as_os_str().as_bytes());
    Failure::new(Exit::Config, format!("cannot write results to {shown}: {problem}"))
}
