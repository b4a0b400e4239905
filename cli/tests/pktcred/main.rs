//! `pktcred` as its user sees it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod add_privilege;
mod init;
mod key;
mod prompt;
mod show;
mod signing;
mod verify;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use common::PKTCRED;
use common::debug_forms::assert_no_debug_form;

/// The golden credentials of spec/protocol.md 8.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/testdata/credentials");

/// A folder that disappears with the value, in which everything runs.
struct Scratch(PathBuf);

/// What came of a run.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Scratch {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pktcred-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(fs::canonicalize(path).unwrap())
    }

    /// With a home in `home`.
    fn with_home() -> Self {
        let scratch = Self::new();
        scratch.done(&["init", "--no-passphrase", "--no-broker"]);
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The command with these words, in the folder, with `home` as home.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PKTCRED);
        command.current_dir(&self.0).env_clear().stdin(Stdio::null());
        command.args(["--home", "home"]).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        let output = self.command(words).output().unwrap();
        let text = |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert_no_debug_form(&text);
            text
        };
        Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Asserts success and returns what was printed.
    #[track_caller]
    fn done(&self, words: &[&str]) -> String {
        let ended = self.run(words);
        assert_eq!(ended.code, Some(0), "{words:?}: {ended:?}");
        ended.stdout
    }

    /// Asserts this exit code and returns everything that was said.
    #[track_caller]
    fn refused(&self, words: &[&str], code: i32) -> String {
        let ended = self.run(words);
        assert_eq!(ended.code, Some(code), "{words:?}: {ended:?}");
        ended.stdout + &ended.stderr
    }

    /// A golden key, private to us as a checkout need not be.
    fn golden_key(&self, name: &str) -> String {
        self.write(name, fs::read(format!("{GOLDEN}/keys/{name}")).unwrap());
        self.write(&format!("{name}.pub"), fs::read(format!("{GOLDEN}/keys/{name}.pub")).unwrap());
        name.to_owned()
    }

    /// Every file and folder below, with its mode.
    fn tree(&self, folder: &str) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path(folder)).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
            let metadata = fs::metadata(self.path(&name)).unwrap();
            found.push((name.clone(), metadata.permissions().mode() & 0o7777));
            if metadata.is_dir() {
                found.extend(self.tree(&name));
            }
        }
        found.sort();
        found
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn golden(name: &str) -> String {
    format!("{GOLDEN}/{name}")
}
