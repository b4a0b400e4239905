//! Runs `pktfleet` as its user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[path = "../../../engine/tests/common/debug_forms.rs"]
mod debug_forms;

const PKTFLEET: &str = env!("CARGO_BIN_EXE_pktfleet");

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs it with these words in a folder, in which its temporary files are as well.
pub(crate) fn pktfleet(folder: &Path, words: &[&str]) -> Outcome {
    let output = pktfleet_command(folder, words).output().unwrap();
    let text = |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        debug_forms::assert_no_debug_form(&text);
        text
    };
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Outcome { code: output.status.code(), stdout, stderr }
}

/// It with these words in a folder, in which its temporary files are as well.
pub(crate) fn pktfleet_command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(PKTFLEET);
    command.args(words).current_dir(folder).env("TMPDIR", folder).stdin(Stdio::null());
    command
}

/// An empty folder of a test's own; `name` tells those of this process apart.
pub(crate) fn folder(name: &str) -> PathBuf {
    let name = format!("{name}-{}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A program of the same build.
pub(crate) fn program(name: &str) -> String {
    let path = PathBuf::from(PKTFLEET).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path.to_str().unwrap().to_owned()
}
