//! What programs are built from.

use std::collections::BTreeSet;
use std::process::Command;

use super::root;

/// The crates that the library or program of this package is built from.
fn crates_of(package: &str, options: &[&str]) -> Vec<String> {
    let tree = cargo_tree(&[&["-e", "normal,build", "-p", package], options].concat());
    let names = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn cargo_tree(options: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ended = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(options)
        .current_dir(root())
        .output()
        .expect("cargo runs this test, and is there");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

#[test]
fn no_program_is_built_with_a_door_of_benchmarks_or_fuzz_targets() {
    let has_door = |kinds: &str, package: &str, door: &str| {
        let kinds = format!("{kinds},features");
        let tree = cargo_tree(&["--workspace", "-i", package, "-e", &kinds]);
        tree.lines().any(|line| line.starts_with(&format!("{package} feature \"{door}\"")))
    };
    assert!(!has_door("normal,build", "engine", "bench"));
    assert!(has_door("normal,build,dev", "engine", "bench"), "it would be found");
    // Those of fuzz targets, which are in no build of the workspace.
    for package in ["engine", "hosts"] {
        assert!(!has_door("normal,build,dev", package, "fuzz"), "{package}");
    }
}

#[test]
fn nothing_lacks_a_guard_unless_that_is_asked_for() {
    let can_lack = |options: &[&str]| {
        let tree =
            cargo_tree(&[&["--workspace", "-i", "guards", "-e", "features"], options].concat());
        tree.lines().any(|line| line.starts_with("guards feature \"sabotage\""))
    };
    assert!(!can_lack(&[]));
    assert!(can_lack(&["--features", "guards/sabotage"]), "it would be found");
}

#[test]
fn a_mlet_is_built_from_few_crates_and_without_tls_or_an_async_runtime() {
    let library = ["bitflags", "linux-raw-sys", "mlet", "packetlab", "rustix"];
    assert_eq!(crates_of("mlet", &["--no-default-features"]), library);
    let examples = crates_of("mlet", &[]);
    assert!(examples.len() < 50, "{} crates: {examples:?}", examples.len());
    for heavy in ["aws-lc-rs", "aws-lc-sys", "rustls", "tokio", "x509-parser", "engine"] {
        assert!(!examples.iter().any(|name| name == heavy), "a mlet depends on {heavy}");
    }
    let pktfleet = crates_of("loadtest", &[]);
    assert!(pktfleet.iter().any(|name| name == "aws-lc-sys"), "it would be found: {pktfleet:?}");
}
