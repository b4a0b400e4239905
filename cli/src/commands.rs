//! `results` and `report`: words that are commands where a mlet could stand.
//!
//! Not here: what they do. Invariant: an old command line means what it always meant. A word is a command only as the very
//! first one, and only if nothing in the current directory could be run under this name: a mlet is a path, and a folder is
//! none.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use crate::results;
use crate::results::failure::Failure;

/// What a command does with the words from its name on.
type Run = fn(&[OsString]) -> Result<(), Failure>;

/// Runs the command that these words begin with, if they do; the first is the name of the program.
pub(crate) fn run(words: &[OsString]) -> Option<ExitCode> {
    let words = words.get(1..)?;
    let is_file =
        |name: &OsStr| Path::new(name).symlink_metadata().is_ok() && !Path::new(name).is_dir();
    let run = command(words.first()?, is_file)?;
    Some(run(words).map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS))
}

/// Whether whoever names this as a mlet, and there is none, means a command: behind an option, or misspelt.
pub(crate) fn is_meant(word: &OsStr) -> bool {
    ["results", "result", "report", "reports"].iter().any(|name| word == *name)
}

fn command(word: &OsStr, is_file: impl Fn(&OsStr) -> bool) -> Option<Run> {
    let run: Run = match word.to_str()? {
        "results" => results::run,
        "report" => crate::report_page::run,
        _ => return None,
    };
    (!is_file(word)).then_some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_command_only_if_it_is_no_file() {
        let is = |word: &str, is_file: bool| command(OsStr::new(word), |_| is_file).is_some();
        for word in ["results", "report"] {
            assert!(is(word, false), "{word}");
            assert!(!is(word, true), "{word}");
        }
        for word in ["--", "./results", "result", "Results", "-v", ""] {
            assert!(!is(word, false), "{word}");
        }
    }
}
