//! The file of `--joblog` before a run: lines are appended to a joblog, and to nothing else.
//!
//! Not here: what a line looks like and how it is written (the engine). Nothing is made or changed.

use std::io::Read;
use std::path::Path;

use packetlab_home::file;

use crate::args::Args;
use crate::exit::{Exit, Failure};
use crate::results::failure::shown_path;

/// How the first line of GNU parallel's joblog, and of ours, begins.
const START: &str = "Seq\tHost\tStarttime\t";

/// Looks into the file that `--joblog` names.
///
/// # Errors
/// It holds something else. What cannot be opened is told by the run, which makes it.
pub(crate) fn check(args: &Args) -> Result<(), Failure> {
    let Some(path) = args.joblog.as_deref().filter(|path| *path != Path::new("-")) else {
        return Ok(());
    };
    // A pipe or a device holds nothing yet.
    if !path.is_file() {
        return Ok(());
    }
    let Ok(found) = file::open(path) else { return Ok(()) };
    let mut start = Vec::new();
    let read = found.take(START.len() as u64).read_to_end(&mut start);
    if read.is_err() || start.is_empty() || start == START.as_bytes() {
        return Ok(());
    }
    let problem = "it holds something else than a joblog; name another file";
    Err(Failure::new(Exit::Config, format!("--joblog {}: {problem}", shown_path(path))))
}
