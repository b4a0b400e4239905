//! Every example says what it is called, which version it has, what it prints, in 80 columns, and what is wrong with its
//! command line. A mlet that cannot say what is wrong fails all the same.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

#[path = "../../../engine/tests/common/help_pages.rs"]
mod help_pages;
#[path = "../src/scripted_manager.rs"]
mod scripted_manager;

macro_rules! programs {
    ($($name:literal)*) => { [$(($name, env!(concat!("CARGO_BIN_EXE_", $name)))),*] };
}

const MLETS: [(&str, &str); 9] = programs!(
    "mlet-http-get" "mlet-dns" "mlet-ping" "mlet-traceroute" "mlet-path" "mlet-echo" "mlet-bulk"
    "mlet-single" "mlet-load"
);

/// What a program prints when it is asked for its version, and succeeds.
fn version(program: &str, words: &[&str]) -> String {
    let ended = Command::new(program).args(words).arg("--version").env_clear().output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && told.is_empty(), "{program} {words:?}: {told}");
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn every_mlet_says_its_own_name_and_version() {
    for (name, program) in MLETS {
        assert_eq!(version(program, &[]), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn no_mlets_help_is_wider_than_80_columns() {
    for (_, program) in MLETS {
        assert_eq!(help_pages::assert_pages_fit(program, &[]), [""]);
    }
}

#[test]
fn a_mlet_says_what_it_prints() {
    for (name, program) in programs!(
        "mlet-http-get" "mlet-dns" "mlet-ping" "mlet-traceroute" "mlet-path" "mlet-echo" "mlet-bulk"
    ) {
        let ended = Command::new(program).arg("--help").env_clear().output().unwrap();
        let help = String::from_utf8(ended.stdout).unwrap().to_lowercase();
        assert!(help.contains("prints a line for "), "{name}: {help}");
        let ended = Command::new(program).arg("--no-such").env_clear().output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.starts_with(name) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn a_number_that_mlet_echo_cannot_take_is_named_in_one_line() {
    for (option, number) in
        [("--count", "0"), ("--size", "0"), ("--size", "65536"), ("--rate", "1e9")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlet-echo"));
        let ended = command.args([option, number]).env_clear().output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), told.lines().count()), (Some(2), 1), "{told}");
        let start = format!("mlet-echo: invalid value '{number}' for '{option} <");
        assert!(told.starts_with(&start) && told.contains("no whole number from 1"), "{told}");
    }
}

/// What each takes, and what it does not.
const LINES: [(&str, &[&str], &[&str]); 9] = [
    (
        env!("CARGO_BIN_EXE_mlet-http-get"),
        &["", "www.example.com:8080 /a%20path"],
        &["a:b", "a:0", "a path", "a / more", "--fast"],
    ),
    (
        env!("CARGO_BIN_EXE_mlet-dns"),
        &["", "www.example.com 192.0.2.53", "www.example.com. [2001:db8::53]:53 aaaa"],
        &["a..b", "a b:c", "a 192.0.2.53:0", "a 192.0.2.53 MX", "a 192.0.2.53 A more"],
    ),
    (
        env!("CARGO_BIN_EXE_mlet-ping"),
        &["", "-6 www.example.com 3", "192.0.2.1"],
        &[
            "127.0.0.1 0",
            "-6 127.0.0.1",
            "-4 ::1",
            "127.0.0.1 many",
            "127.0.0.1 65536",
            "127.0.0.1 1 2",
            "-5 a",
            "a:b",
            "a:80",
        ],
    ),
    (
        env!("CARGO_BIN_EXE_mlet-traceroute"),
        &["", "-4 a"],
        &["a b", "-6 127.0.0.1", "--max 3", "a:80"],
    ),
    (
        env!("CARGO_BIN_EXE_mlet-path"),
        &["", "a udp", "-6 a:443 tcp 3"],
        &["a:80 icmp", "a:0 tcp", "a tcp 0", "-6 127.0.0.1", "a sctp", "a tcp x", "a tcp 1 2"],
    ),
    (
        env!("CARGO_BIN_EXE_mlet-echo"),
        &["", "--count 3 --size 9"],
        &["--no-such-option", "--count 0", "word"],
    ),
    (
        env!("CARGO_BIN_EXE_mlet-bulk"),
        &["down 192.0.2.1:9", "up a:9 100", "up a:9 100 3600"],
        &[
            "",
            "up",
            "up a:0",
            "up a:9 0",
            "sideways 192.0.2.1:9",
            "up a:9 x",
            "up a:9 1 0",
            "up a:9 1 2 3",
        ],
    ),
    (
        env!("CARGO_BIN_EXE_mlet-load"),
        &["exit", "source 100", "echo 60 any", "sink 60 0 /run/x"],
        &["", "sing", "source x", "source 16777216", "echo 60 one", "echo 60 0 /run/x y"],
    ),
    (
        env!("CARGO_BIN_EXE_mlet-single"),
        &[concat!(env!("CARGO_BIN_EXE_mlet-ping"), " 127.0.0.1 1")],
        &["", concat!(env!("CARGO_BIN_EXE_mlet-ping"), " 127.0.0.1 many")],
    ),
];

/// How a program ends with these words alone, neither a session nor an environment.
fn called(program: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program);
    let ended = command.args(words).env_clear().stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

#[test]
fn every_mlet_judges_its_arguments_without_an_endpoint() {
    for (program, right, wrong) in LINES {
        let judged = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            called(program, &[&["--check-args"], &words[..]].concat())
        };
        for line in right {
            let ok = (Some(0), "arguments ok\n".to_owned(), String::new());
            assert_eq!(judged(line), ok, "{program} {line}");
        }
        for line in wrong {
            let (code, printed, told) = judged(line);
            assert_eq!((code, &*printed), (Some(2), ""), "{program} {line}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }
}

/// With an endpoint, as pktxpmgr starts them.
#[test]
fn arguments_that_make_no_sense_are_code_2() {
    for (program, _, wrong) in LINES {
        // Its mlet is given its arguments when there is a session.
        let is_single = program.ends_with("mlet-single");
        for line in wrong.iter().filter(|line| !is_single || line.is_empty()) {
            let (session, _endpoint) = UnixStream::pair().unwrap();
            let mut command = Command::new(program);
            command.args(line.split_whitespace()).env_clear().env("EPADDR", "192.0.2.9");
            let ended = command.stdin(OwnedFd::from(session)).output().unwrap();
            let told = String::from_utf8(ended.stderr).unwrap();
            let is_silent = ended.stdout.is_empty();
            assert_eq!((ended.status.code(), is_silent), (Some(2), true), "{line}: {told}");
        }
    }
}

/// How `mlet-single` ends with this mlet, in this environment, when the manager has no session for it.
fn single(mlet: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let (control, manager) = UnixStream::pair().unwrap();
    drop(manager);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlet-single"));
    command.arg(mlet).env_clear().envs(environment.iter().copied());
    let ended = command.stdin(OwnedFd::from(control)).output().unwrap();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

#[test]
fn mlet_single_without_a_session_succeeds_unless_it_could_serve_none() {
    assert_eq!(single("/bin/true", &[]), (Some(0), String::new()));
    let (code, told) = single("/bin/true", &[("EPADDR", "192.0.2.9")]);
    assert_eq!(code, Some(1));
    assert!(told.ends_with("start pktxpmgr with -s\n"), "{told}");
    for (mlet, why) in [
        ("./nope", "mlet-single: cannot run the mlet ./nope: No such file or directory\n"),
        (concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "it is not executable (chmod +x)\n"),
    ] {
        let (code, told) = single(mlet, &[]);
        assert!(code == Some(1) && told.ends_with(why), "{told}");
    }
}

/// A session for `mlet-single` with a mlet whose first line is this one; what it says.
fn single_with_file(name: &str, first_line: &str) -> String {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::write(&path, first_line).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let (control, manager) = UnixStream::pair().unwrap();
    let _session = scripted_manager::hand_over(&manager, b"192.0.2.9\0");
    drop(manager);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlet-single"));
    let ended = command.arg(&path).env_clear().stdin(OwnedFd::from(control)).output().unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    String::from_utf8(ended.stderr).unwrap()
}

#[test]
fn mlet_single_tells_a_missing_interpreter_from_a_missing_first_line() {
    let told = single_with_file("no-interpreter", "#!/no/such/interpreter\n");
    assert!(told.starts_with("mlet-single: endpoint 192.0.2.9: cannot run the mlet /"), "{told}");
    assert!(told.ends_with("the interpreter that its #! line names is not there\n"), "{told}");
    let told = single_with_file("no-first-line", "exit 0\n");
    assert!(told.contains("has no #! line; begin it with one"), "{told}");
}

#[test]
fn a_mlet_whose_complaint_cannot_be_written_fails_and_does_not_panic() {
    for (name, program) in MLETS {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let status = Command::new(program).env_clear().stderr(full).status().unwrap();
        // These cannot do without arguments, the others miss their endpoint.
        let is_usage = ["mlet-bulk", "mlet-single", "mlet-load"].contains(&name);
        assert_eq!(status.code(), Some(if is_usage { 2 } else { 1 }), "{name}");
    }
}
