//! Reads the sources: the walls between the folders, what every file owes its reader, and where citations lead.

#[path = "tidy/builds.rs"]
mod builds;
#[path = "tidy/citations.rs"]
mod citations;
#[path = "tidy/debug_forms.rs"]
mod debug_forms;
#[path = "tidy/guarded.rs"]
mod guarded;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/unsafe_code.rs"]
mod unsafe_code;
#[path = "tidy/walls.rs"]
mod walls;

use std::fs;
use std::path::{Path, PathBuf};

/// Traces of work that is not done. Joined here so that this file does not find itself.
const LEFTOVERS: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

fn root() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    engine.parent().expect("the engine lies in the workspace").to_owned()
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    files(folder, "rs")
}

fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.expect("a readable folder").path()) {
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            let text = fs::read_to_string(&path).expect("a readable text");
            found.push((path, text));
        }
    }
    found
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_code = |(_, line): &(usize, &str)| !line.trim_start().starts_with("//");
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(is_code)
}

#[test]
fn every_file_says_what_it_is_and_nothing_is_left_over() {
    let mut checked = 0;
    for member in ["engine", "cli", "loadtest", "bench"] {
        for (path, text) in sources(&root().join(member)) {
            checked += 1;
            let shown = path.display();
            assert!(
                text.starts_with("//!") || text.starts_with("#!"),
                "{shown} does not begin with //!"
            );
            for leftover in LEFTOVERS {
                assert!(!text.contains(leftover), "{shown} holds {leftover}");
            }
        }
    }
    assert!(checked > 60, "only {checked} files found");
}
