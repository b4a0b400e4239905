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
    let ended = Command::new(script).arg(&built).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let package = names(&built).pop_first().unwrap();
    done(Command::new("dpkg-deb").arg("-x").arg(built.join(package)).arg(&root));
    root
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
