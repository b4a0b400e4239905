//! The Python package: its own tests, and its wheel. What its examples do at real endpoints is tested in `pktfleet`.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::path::Path;
use std::process::Command;

/// Runs a file of its tests.
fn passes(python: &str, file: &str) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(file);
    let mut command = Command::new(python);
    command.args(["-W", "ignore"]).arg(&tests).env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = command.output().unwrap();
    let report = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && report.contains("\nRan "), "{file}: {report}");
}

#[test]
#[ignore = "needs python3"]
fn the_python_package_passes_its_own_tests() {
    for file in ["test_pktlab_mlet.py", "test_talk.py", "test_many_at_once.py"] {
        passes("python3", file);
    }
}

#[test]
#[ignore = "needs PKTLAB_PYTHON: one with setuptools and mypy"]
fn the_python_package_is_built_installed_and_typed() {
    passes(&std::env::var("PKTLAB_PYTHON").unwrap(), "test_package.py");
}
