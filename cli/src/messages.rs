//! The folder of `--capture` and the file of `--pcap` before a run: both begin with nothing in them.
//!
//! Not here: what is written there (the engine). Nothing is made or changed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use engine::RunError;

use crate::args::Args;
use crate::exit::Failure;
use crate::results_folder::place;

/// What a run would refuse of each, as far as that shows without making it.
pub(crate) fn check(args: &Args) -> impl Iterator<Item = Failure> {
    let folder = args.capture.as_deref().map(|path| (path, folder(path)));
    let file = args.pcap.as_deref().map(|path| (path, file(path)));
    folder.into_iter().chain(file).filter_map(|(path, found)| {
        let refused = |problem| RunError::Messages(path.to_owned(), io::Error::other(problem));
        found.err().map(|problem| refused(problem).into())
    })
}

fn folder(path: &Path) -> Result<(), String> {
    if path.metadata().is_ok_and(|found| !found.is_dir()) {
        return Err("it is not a folder".into());
    }
    let is_empty = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        entries => entries.map_err(|error| error.to_string())?.next().is_none(),
    };
    if !is_empty {
        return Err("it is not empty".into());
    }
    place::check(path)
}

fn file(path: &Path) -> Result<(), String> {
    place::check_file(path)?;
    match path.metadata() {
        Ok(found) if found.is_file() && found.len() > 0 => Err("it holds something already".into()),
        _ => Ok(()),
    }
}
