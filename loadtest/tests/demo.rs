//! `pktfleet demo` as its user sees it: the real `pktxpmgr` of the same build, real mlet processes. And how
//! `pktfleet load`, which starts the same, ends when it is interrupted.
//!
//! Every run has its own directory for temporary files and its own names for the programs it starts, so
//! that what it leaves behind cannot hide among the traces of others.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

#[path = "../../engine/tests/common/debug_forms.rs"]
mod debug_forms;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The surroundings of one run.
struct Scene {
    base: PathBuf,
}

/// What came of a run.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn last_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

impl Scene {
    /// `name` tells the tests of this file apart, the process two runs of it at the same time.
    fn new(name: &str) -> Self {
        let base =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&base);
        for directory in ["tmp", "bin"] {
            fs::create_dir_all(base.join(directory)).unwrap();
        }
        let scene = Self { base };
        let built = Path::new(env!("CARGO_BIN_EXE_pktfleet"));
        for program in ["pktfleet", "pktxpmgr", "mlet-http-get", "mlet-load"] {
            let from = built.with_file_name(program);
            assert!(from.exists(), "{} is missing: run `cargo build` first", from.display());
            fs::hard_link(from, scene.bin(program)).unwrap();
        }
        scene
    }

    fn bin(&self, program: &str) -> PathBuf {
        self.base.join("bin").join(program)
    }

    /// `pktfleet` with these words.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.bin("pktfleet"));
        command
            .args(words)
            .env("TMPDIR", self.base.join("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(&[&["demo"], arguments].concat()).output().unwrap();
        let text = |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            debug_forms::assert_no_debug_form(&text);
            text
        };
        Outcome {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// A mlet that waits until its session ends.
    fn waiting_mlet(&self) -> String {
        let path = self.bin("waiting-mlet");
        fs::write(&path, "#!/bin/sh\nwhile read -r line; do :; done\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Processes that run one of this scene's programs, or were told a path of it.
    fn processes(&self) -> Vec<String> {
        let own_pid = process::id().to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| !path.ends_with(&own_pid));
        paths.filter_map(|path| self.trace_in(&path)).collect()
    }

    fn trace_in(&self, process: &Path) -> Option<String> {
        let base = self.base.to_str().unwrap();
        let executable = fs::read_link(process.join("exe")).unwrap_or_default();
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        (executable.starts_with(&self.base) || arguments.contains(base))
            .then(|| format!("{}: {} ({arguments})", process.display(), executable.display()))
    }

    /// No process, and no file beside the programs.
    fn assert_nothing_left(&self) {
        assert_eq!(self.processes(), Vec::<String>::new());
        let files: Vec<_> = fs::read_dir(self.base.join("tmp")).unwrap().flatten().collect();
        assert!(files.is_empty(), "{files:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// The line of one endpoint in the table.
fn row(outcome: &Outcome, number: usize) -> &str {
    let line = outcome.stdout.lines().find(|line| {
        line.split_ascii_whitespace().next().and_then(|word| word.parse().ok()) == Some(number)
    });
    line.unwrap_or_else(|| panic!("no endpoint {number} in:\n{}", outcome.stdout))
}

fn assert_counts(outcome: &Outcome, counts: &str) {
    let line = outcome.last_line();
    let both = format!("{}\n{}", outcome.stdout, outcome.stderr);
    let times = line
        .strip_prefix(&format!("demo: {counts}, set-up p50 "))
        .and_then(|rest| rest.strip_suffix(" ms"))
        .and_then(|rest| rest.split_once(" ms p99 "))
        .unwrap_or_else(|| panic!("last line: {line}\n{both}"));
    let (p50, p99): (f64, f64) = (times.0.parse().unwrap(), times.1.parse().unwrap());
    assert!(0.0 < p50 && p50 <= p99, "{line}");
}

/// Each of twenty endpoints has its own key and its own page.
fn assert_twenty_pages(name: &str, arguments: &[&str]) {
    let scene = Scene::new(name);
    let outcome = scene.run(&[&["--endpoints", "20"], arguments].concat());
    assert_counts(&outcome, "20 endpoints, 20 ok, 0 failed");
    assert_eq!(outcome.code, Some(0));
    let mut nonces = HashSet::new();
    let mut keys = HashSet::new();
    for number in 1..=20 {
        let row = row(&outcome, number);
        assert!(row.contains(&format!("page for 127.1.0.{number}, nonce ")), "{row}");
        nonces.insert(row.rsplit(' ').next().unwrap());
        keys.insert(row.split_ascii_whitespace().nth(2).unwrap());
    }
    assert_eq!((nonces.len(), keys.len()), (20, 20));
    scene.assert_nothing_left();
}

#[test]
fn twenty_endpoints_hear_from_the_broker_and_connect_back() {
    assert_twenty_pages("broker", &[]);
}

#[test]
fn twenty_endpoints_come_through_a_proxy() {
    assert_twenty_pages("proxy", &["--proxy"]);
}

#[test]
fn twenty_endpoints_come_to_an_address_they_were_given() {
    assert_twenty_pages("direct", &["--direct"]);
}

#[test]
fn ending_one_endpoint_fails_exactly_its_page() {
    let scene = Scene::new("fail");
    let outcome = scene.run(&["--endpoints", "20", "--fail-endpoint", "3"]);
    assert_counts(&outcome, "20 endpoints, 19 ok, 1 failed");
    assert_eq!(outcome.code, Some(1));
    for number in 1..=20 {
        assert_eq!(row(&outcome, number).contains("FAILED"), number == 3);
    }
    scene.assert_nothing_left();
}

#[test]
fn five_hundred_endpoints_all_get_their_pages() {
    let scene = Scene::new("many");
    let outcome = scene.run(&["--endpoints", "500"]);
    assert_counts(&outcome, "500 endpoints, 500 ok, 0 failed");
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stdout.contains("490 more ok"), "{}", outcome.stdout);
    scene.assert_nothing_left();
}

#[test]
fn a_mlet_that_prints_no_page_fails_every_page() {
    let scene = Scene::new("mute");
    let outcome = scene.run(&["--endpoints", "4", "--mlet", "/bin/true"]);
    assert_eq!(outcome.code, Some(1));
    let last_line = outcome.last_line();
    assert!(last_line.starts_with("demo: 4 endpoints, 0 ok, 4 failed"), "{last_line}");
    scene.assert_nothing_left();
}

#[test]
fn a_run_that_takes_too_long_is_ended_and_has_failed() {
    let scene = Scene::new("slow");
    let mlet = scene.waiting_mlet();
    let outcome = scene.run(&["--endpoints", "4", "--timeout", "1", "--mlet", &mlet]);
    assert_eq!(outcome.code, Some(1));
    assert!(row(&outcome, 4).contains("not ended in time"), "{}", outcome.stdout);
    scene.assert_nothing_left();
}

#[test]
fn an_interrupt_ends_and_removes_everything() {
    for (signal, code, way) in [
        (Signal::SIGINT, 130, &[][..]),
        (Signal::SIGTERM, 143, &[]),
        (Signal::SIGINT, 130, &["--proxy"]),
        (Signal::SIGTERM, 143, &["--direct"]),
    ] {
        let scene = Scene::new(&format!("interrupt-{code}{}", way.concat()));
        let mlet = scene.waiting_mlet();
        let arguments = [&["demo", "--endpoints", "4", "--mlet", &mlet], way].concat();
        let mut child = scene.command(&arguments).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains("127.0.0.1:"), "{line}");
        wait_for_mlets(&scene, 4, &mut child);
        interrupt(child, stderr, signal, code);
        scene.assert_nothing_left();
    }
}

#[test]
fn an_interrupt_ends_a_measurement_and_removes_everything() {
    let attack = ["--attack", "silent", "--attack-count", "20"];
    for (signal, code, mode, more) in [
        (Signal::SIGINT, 130, "idle", &[][..]),
        (Signal::SIGTERM, 143, "echo", &[]),
        (Signal::SIGHUP, 129, "up", &[]),
        (Signal::SIGINT, 130, "echo", &attack),
        (Signal::SIGTERM, 143, "short", &["--attack", "proxy", "--attack-count", "5"]),
    ] {
        let scene = Scene::new(&format!("load-{mode}-{code}"));
        let words = ["load", mode, "--endpoints", "4", "--seconds", "60"];
        let mut child = scene.command(&[&words, more].concat()).spawn().unwrap();
        wait_for_mlets(&scene, 1, &mut child);
        let stderr = child.stderr.take().unwrap();
        let said = interrupt(child, stderr, signal, code);
        assert_eq!(said, "load: interrupted; everything was ended\n");
        scene.assert_nothing_left();
    }
}

/// Sends the signal and checks how the run ends; what it says then.
fn interrupt(mut child: Child, mut stderr: impl Read, signal: Signal, code: i32) -> String {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    let status = child.wait().unwrap();
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    debug_forms::assert_no_debug_form(&said);
    assert_eq!(status.code(), Some(code), "{said}");
    said
}

/// Until `count` mlets run.
fn wait_for_mlets(scene: &Scene, count: usize, child: &mut Child) {
    let started = Instant::now();
    let is_mlet = |process: &&String| {
        (process.contains("/bin/sh") && process.contains("waiting-mlet"))
            || process.contains("/bin/mlet-load (")
    };
    while scene.processes().iter().filter(is_mlet).count() < count {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended");
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", scene.processes());
        std::thread::yield_now();
    }
}

/// Columns of a terminal.
const COLUMNS: usize = 80;

#[test]
fn what_a_demo_says_fits_80_columns() {
    let scene = Scene::new("columns");
    let good = scene.run(&["--endpoints", "300"]);
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    for line in good.stdout.lines().chain(good.stderr.lines()) {
        assert!(line.chars().count() <= COLUMNS, "{line}");
    }
    assert_eq!(good.stdout.lines().count(), 1 + 10 + 1, "{}", good.stdout);
}

#[test]
fn a_terminal_shows_how_far_a_demo_is_unless_it_is_to_be_quiet() {
    for (quiet, is_shown) in [(&[][..], true), (&["-q"], false)] {
        let scene = Scene::new(&format!("terminal{}", quiet.len()));
        let pty = openpty(None, None).unwrap();
        let words = [&["demo", "--endpoints", "4"], quiet].concat();
        let mut child = scene.command(&words).stderr(pty.slave).spawn().unwrap();
        let mut screen = fs::File::from(pty.master);
        let (mut shown, mut bytes) = (String::new(), [0; 4096]);
        // The kernel reports the end of the other side as an error.
        while let Ok(len @ 1..) = screen.read(&mut bytes) {
            shown.push_str(std::str::from_utf8(&bytes[..len]).unwrap());
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{shown}");
        let counter = "\r\u{1b}[Kdemo: 0 of 4 endpoints are done, after 0 s";
        assert_eq!(shown.contains(counter), is_shown, "{shown}");
        let (before, last) = shown.rsplit_once("demo: 4 endpoints, 4 ok, 0 failed").unwrap();
        assert_eq!(before.ends_with("\r\u{1b}[K"), is_shown, "{shown}");
        assert_eq!(last.matches('\n').count(), 1, "{shown}");
    }
}

#[test]
fn the_credentials_are_kept_on_request() {
    let scene = Scene::new("keep");
    let outcome = scene.run(&["--endpoints", "1", "--keep"]);
    assert_counts(&outcome, "1 endpoints, 1 ok, 0 failed");
    let kept: Vec<_> = fs::read_dir(scene.base.join("tmp")).unwrap().flatten().collect();
    assert_eq!(kept.len(), 1);
    let config = kept[0].path().join("xpmgr.conf");
    assert!(config.is_file());
    assert!(outcome.stderr.contains(config.to_str().unwrap()), "{}", outcome.stderr);
}

#[test]
fn a_missing_program_is_named_with_its_remedy() {
    let scene = Scene::new("missing");
    fs::remove_file(scene.bin("pktxpmgr")).unwrap();
    let outcome = scene.run(&[]);
    assert_eq!(outcome.code, Some(3));
    let missing = scene.bin("pktxpmgr");
    assert!(outcome.stderr.contains(missing.to_str().unwrap()), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cargo build --release"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--pktxpmgr PATH"), "{}", outcome.stderr);
    let outcome = scene.run(&["--timeout", "0"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("'--timeout <SECONDS>': 0 is not in 1.."),
        "{}",
        outcome.stderr
    );
    scene.assert_nothing_left();
}
