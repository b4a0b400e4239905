//! `pktxpmgr campaign merge`: joins the folders of a campaign's managers into one results folder, which holds for each endpoint
//! the session that the campaign has accepted, and no other.
//!
//! Not here: which that is (`accepted.rs`), how a folder is read (`manager_folder.rs`) and written (`merged_folder.rs`).
//! Invariant: what is lacking is told, and the exit code says so; all the rest is there.

use std::path::{self, Path, PathBuf};

use clap::Args;
use packetlab::words::counted;

use super::accepted::AcceptedResults;
use super::manager_folder::{Line, ManagerFolder};
use super::merged_folder::{Merged, MergedFolder};
use super::named::{Named, failed};
use super::status::print;
use crate::results::failure::{Failure, shown_path, warn};

const EXAMPLES: &str = "\
Examples:
  pktxpmgr campaign merge URL#NAME --out eu26 host1/eu26 host2/eu26";

const NOTES: &str = "\
DIR is the folder that a manager was given with --out, or one that merge has
written. MERGED is a new folder, or an empty one; the files of output in it are
those of DIR (hard links), or copies on another disk, so that DIR may go. The
database tells which results count. One that is in no DIR is told, as is a
folder of another campaign, mlet or arguments, and the exit code is 1; the
others are merged. Lines that are no records are told and passed over.";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub(super) struct Options {
    #[command(flatten)]
    named: Named,

    /// The folder that is made
    #[arg(long, value_name = "MERGED")]
    out: PathBuf,

    /// Folders of its managers
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let campaign = options.named.campaign()?;
    lies_apart(&options.out, &options.folders)?;
    let mut administration = options.named.open()?;
    let origin = administration.origin().map_err(failed)?;
    let opened = options.folders.iter().map(|path| ManagerFolder::open(path, &campaign, &origin));
    let folders = opened.filter_map(|opened| opened.map_err(warn).ok()).collect::<Vec<_>>();
    if folders.is_empty() {
        return Err(Failure::Unusable("there is no folder to merge".into()));
    }
    let mut refused = options.folders.len() - folders.len();
    let mut accepted = AcceptedResults::default();
    administration.accepted(|result| accepted.add(result)).map_err(failed)?;
    drop(administration);
    let mut merged = MergedFolder::begin(&options.out)?;
    for folder in &folders {
        match merge(folder, &mut accepted, &mut merged) {
            // The others are merged.
            Err(failure @ Failure::Unusable(_)) => {
                warn(failure);
                refused += 1;
            }
            merged => merged?,
        }
    }
    let Merged { sessions, damaged } = merged.finish()?;
    let (missing, told) = accepted.missing();
    told.into_iter().for_each(warn);
    let (all, out) = (accepted.len(), shown_path(&options.out));
    print(&format!("{sessions} of {all} accepted results are merged into {out}\n"))?;
    let lacking =
        [(missing, "missing result"), (refused, "refused folder"), (damaged, "damaged output")];
    let lacking = lacking.into_iter().filter(|(count, _)| *count > 0);
    let lacking = lacking.map(|(count, what)| counted(count as u64, what)).collect::<Vec<_>>();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(Failure::Refused(format!("not all is in {out}: {}", lacking.join(", ")))),
    }
}

/// What is read stays as it is.
///
/// # Errors
/// The folder that is made would be one of those that are merged, or in one.
fn lies_apart(out: &Path, folders: &[PathBuf]) -> Result<(), Failure> {
    let absolute = path::absolute(out).unwrap_or_else(|_| out.to_owned());
    // What is not there yet leads nowhere else than where it is.
    let real = absolute.ancestors().find_map(|place| {
        let rest = absolute.strip_prefix(place).ok()?;
        Some(place.canonicalize().ok()?.join(rest))
    });
    let real = real.unwrap_or(absolute);
    let is_around =
        |folder: &&PathBuf| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
    folders.iter().find(is_around).map_or(Ok(()), |folder| {
        let [out, folder] = [out, folder].map(shown_path);
        Err(Failure::Usage(format!(
            "--out {out} lies in {folder}, which is one of the folders to merge: name a new folder elsewhere"
        )))
    })
}

/// Adds what counts of a folder.
fn merge(
    folder: &ManagerFolder,
    accepted: &mut AcceptedResults,
    merged: &mut MergedFolder,
) -> Result<(), Failure> {
    let new_runs = merged.add_runs(folder)?;
    let mut result: Option<Line> = None;
    for line in folder.lines()? {
        let line = line?;
        if let Some(result) = result.take() {
            merged.add_session(folder, &result, Some(&line))?;
        }
        match &*line.ev {
            "run.start" if new_runs.contains(&line.run) => merged.add_line(&line.text)?,
            "run.end" if new_runs.contains(&line.run) => merged.end_run(&line)?,
            _ => {}
        }
        let is_accepted = line.result().is_some_and(|result| accepted.take(result));
        result = is_accepted.then_some(line);
    }
    result.map_or(Ok(()), |result| merged.add_session(folder, &result, None))
}
