//! The mlet of README.md, made as it says: a package outside of the workspace.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlet::Message;

const README: &str = include_str!("../README.md");

/// A directory outside of the workspace, gone with the value.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The code of README.md in this language.
fn code(language: &str) -> &'static str {
    let (_, behind) = README.split_once(&format!("```{language}\n")).unwrap();
    behind.split_once("```").unwrap().0
}

/// What cargo prints.
fn cargo(directory: &Path, words: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ended = Command::new(cargo).args(words).current_dir(directory).output().unwrap();
    assert!(ended.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn the_mlets_of_the_documentation_are_those_that_are_tested_and_short() {
    let page = include_str!("../../../docs/mlets.md");
    let rust = include_str!("../examples/survey.rs");
    let python = include_str!("../python/survey.py");
    for mlet in [rust, python] {
        assert!(page.contains(mlet), "docs/mlets.md shows another than {mlet}");
        assert!(mlet.lines().count() < 30, "{mlet}");
    }
}

#[test]
fn limits_have_one_name_and_one_value_in_both_libraries_and_on_their_page() {
    let page = include_str!("../../../docs/mlets.md");
    let talk = include_str!("../python/pktlab_mlet/talk.py");
    let messages = include_str!("../python/pktlab_mlet/messages.py");
    let mebibytes = |len: usize| (format!("{} << 20", len >> 20), format!("{} MiB", len >> 20));
    let seconds = mlet::SILENCE_MAX.as_secs();
    for (name, (in_python, on_page)) in [
        ("SOCKETS_MAX", (mlet::SOCKETS_MAX.to_string(), mlet::SOCKETS_MAX.to_string())),
        ("OUTGOING_LEN_MAX", mebibytes(mlet::OUTGOING_LEN_MAX)),
        ("KEPT_LEN_MAX", mebibytes(mlet::KEPT_LEN_MAX)),
        ("SILENCE_MAX", (format!("{seconds}.0"), format!("{seconds} s"))),
    ] {
        let line = format!("\n{name} = {in_python}\n");
        assert!(talk.contains(&line) || messages.contains(&line), "Python has no{line}");
        assert!(page.contains(&format!("| `{name}` | {on_page} |")), "docs/mlets.md on {name}");
    }
}

#[test]
#[ignore = "needs a minute"]
fn a_mlet_of_ones_own_is_made_as_the_readme_says() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Place(std::env::temp_dir().join(format!("own-mlet-{}", std::process::id())));
    fs::create_dir(&place.0).unwrap();
    cargo(&place.0, &["new", "--vcs", "none", "mlet-clock"]);
    let package = place.0.join("mlet-clock");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let (package_section, _) = manifest.split_once("[dependencies]").unwrap();
    let named = "../pktxpmgr/loadtest/mlet";
    assert!(code("toml").contains(named), "{}", code("toml"));
    let dependencies = code("toml").replace(named, library.to_str().unwrap());
    fs::write(package.join("Cargo.toml"), format!("{package_section}{dependencies}")).unwrap();
    fs::write(package.join("src/main.rs"), code("rust")).unwrap();
    // Nothing is looked up: the versions are those of the workspace.
    fs::copy(library.join("../../Cargo.lock"), package.join("Cargo.lock")).unwrap();
    // Neither tokio, nor rustls, nor aws-lc, nor anything that is not known here.
    let tree =
        ["tree", "--offline", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(&package, &tree);
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let mut names: Vec<&str> =
        names.filter(|name| !["mlet-clock", "mlet"].contains(name)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["bitflags", "linux-raw-sys", "packetlab", "rustix"]);
    assert!(README.contains("Four small crates remain"));
    let target = place.0.join("target");
    cargo(&package, &["build", "--offline", "--target-dir", target.to_str().unwrap()]);

    // An endpoint that has answered before it was asked what time it is.
    let (session, mut endpoint) = UnixStream::pair().unwrap();
    let mut answer = Vec::new();
    let clock = Message::Mdata { address: 0x1001_0000, data: &7_u64.to_be_bytes() };
    clock.encode(&mut answer).unwrap();
    endpoint.write_all(&answer).unwrap();
    let ended = Command::new(target.join("debug/mlet-clock"))
        .env("EPADDR", "192.0.2.1")
        .env("PKTLAB_ENDPOINT_KEY", "ab12")
        .stdin(OwnedFd::from(session))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "ab12\t192.0.2.1\t7\n", "{ended:?}");
    assert!(ended.status.success(), "{ended:?}");

    // It judges nothing, and does not say that its arguments were wrong.
    let asked = Command::new(target.join("debug/mlet-clock")).arg("--check-args").output().unwrap();
    let told = "mlet-clock: it cannot judge its arguments before a run\n";
    assert_eq!((asked.status.code(), &*String::from_utf8_lossy(&asked.stderr)), (Some(1), told));
}
