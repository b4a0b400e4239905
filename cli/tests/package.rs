//! The Debian package, built and unpacked into a folder of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Home, assert_says, run};

const UNIT: &str = include_str!("../../docs/pktxpmgr.service");

fn done(command: &mut Command) -> String {
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
    ended.stdout
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Builds the package and unpacks it; where it lies then.
fn unpacked(home: &Home) -> std::path::PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb");
    let (built, root) = (home.path("built"), home.path("root"));
    let mut command = Command::new(script);
    command.env("DEBFULLNAME", "A Builder").env("DEBEMAIL", "builder@localhost");
    let ended = command.arg(&built).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let package = names(&built).pop_first().unwrap();
    let maintainer =
        done(Command::new("dpkg-deb").arg("-f").arg(built.join(&package)).arg("Maintainer"));
    assert_eq!(maintainer, "A Builder <builder@localhost>\n");
    done(Command::new("dpkg-deb").arg("-x").arg(built.join(package)).arg(&root));
    root
}

/// Those that are linked into the programs, as `cargo tree` has them; not what only builds them.
#[test]
fn the_licences_of_all_crates_that_are_linked_in_are_written_down_with_their_texts() {
    let home = Home::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/third-party");
    let file = home.path("licences");
    done(Command::new(script).arg(&file));
    let written = fs::read_to_string(&file).unwrap();
    let (crates, texts) = written.split_once("\n======== [1] ========\n").unwrap();
    let (_, crates) = crates.split_once("\n\n").unwrap();
    assert!(crates.lines().count() > 100, "{crates}");
    for part in ["rustls 0.23.", "aws-lc-sys 0.", "tokio-uring 0.5.0: MIT; [", "subtle 2."] {
        assert!(crates.lines().any(|line| line.starts_with(part)), "{part}");
    }
    for line in crates.lines().filter(|line| !line.is_empty()) {
        let (_, rest) = line.split_once(": ").unwrap();
        let (licence, numbers) = rest.split_once("; ").unwrap();
        assert!(!licence.is_empty() && licence != "none declared", "{line}");
        for number in numbers.split(' ') {
            let is_there =
                number == "[1]" || texts.contains(&format!("======== {number} ========"));
            assert!(is_there, "{line}");
        }
        assert!(!["syn ", "clap_derive ", "cc "].iter().any(|built| line.starts_with(built)));
    }
    assert_says(texts, &["Permission is hereby granted", "Apache License", "Brian Smith"]);
    assert!(!written.contains("registry/src"), "a folder of the machine that builds it");
}

#[test]
#[ignore = "needs cargo-deb and systemd-analyze, and builds a release"]
fn the_debian_package_has_programs_that_run_and_what_belongs_to_them() {
    let home = Home::new();
    let root = unpacked(&home);
    let programs = names(&root.join("usr/bin"));
    for program in ["pktxpmgr", "pktcred", "pktfleet", "mlet-http-get", "mlet-load"] {
        assert!(programs.contains(program), "{program} is not in the package: {programs:?}");
    }
    for program in &programs {
        let said = done(Command::new(root.join("usr/bin").join(program)).arg("--version"));
        assert!(said.starts_with(&format!("{program} {}", env!("CARGO_PKG_VERSION"))), "{said}");
    }
    let pages = names(&root.join("usr/share/man/man1"));
    for program in ["pktxpmgr", "pktcred", "pktfleet"] {
        let own_pages = home.path(program);
        done(Command::new(root.join("usr/bin").join(program)).arg("man").arg(&own_pages));
        for page in names(&own_pages) {
            assert!(pages.contains(&format!("{page}.gz")), "{page} is not in the package");
        }
        let page = root.join(format!("usr/share/man/man1/{program}.1.gz"));
        assert_says(&done(Command::new("gzip").arg("-dc").arg(page)), &[".TH ", ".SH EXAMPLES"]);
        let completions = root.join("usr/share/bash-completion/completions").join(program);
        done(Command::new("bash").arg("-n").arg(&completions));
        let script = r#"source "$0"; complete -p "$1""#;
        done(Command::new("bash").args(["-c", script]).arg(completions).arg(program));
    }
    let documents = names(&root.join("usr/share/doc/pktxpmgr"));
    for document in ["third-party-licences", "packetlab.lua"] {
        assert!(documents.contains(document), "{document}: {documents:?}");
    }
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/pktxpmgr.service")).unwrap();
    assert_eq!(unit, UNIT);
    // It is verified in `init_system.rs`; here, with the program that the package has.
    let program = root.join("usr/bin/pktxpmgr");
    let unit = UNIT.replace("/usr/bin/pktxpmgr", program.to_str().unwrap());
    home.write("pktxpmgr.service", unit.as_bytes());
    let mut analyze = Command::new("systemd-analyze");
    let ended = run(analyze.args(["verify", "--man=no"]).arg(home.path("pktxpmgr.service")));
    assert!(!ended.stderr.contains("pktxpmgr.service"), "{}", ended.stderr);
    assert!(!root.join("etc").exists(), "nothing is enabled or configured");
}
