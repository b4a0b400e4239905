//! A disk of a test's own, to be full.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Mounts a tmpfs of this size on a folder, which is made if it is not there. The test's thread gets mounts of its own, and
/// with them what it starts from now on.
#[track_caller]
pub fn mount(folder: &Path, size: &str) {
    unshare(CloneFlags::CLONE_NEWNS).expect("mounts take root");
    fs::create_dir_all(folder).unwrap();
    let size = format!("size={size}");
    for words in [
        &["--make-rprivate", "/"][..],
        &["-t", "tmpfs", "-o", &size, "none", folder.to_str().unwrap()],
    ] {
        assert!(Command::new("mount").args(words).status().unwrap().success());
    }
}
