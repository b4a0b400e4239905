//! `pktfleet try` as its user sees it: the real `pktxpmgr` of the same build, real mlets, and a server they reach over the
//! network of this host.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

mod running;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use running::{Outcome, folder, pktfleet, pktfleet_command, program};

/// Runs `pktfleet try` with these words and checks that it leaves no file; `name` tells runs of this process apart.
fn try_mlet(name: &str, words: &[&str]) -> Outcome {
    let folder = folder(&format!("try-{name}"));
    let outcome = pktfleet(&folder, &[&["try"], words].concat());
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    fs::remove_dir(&folder).unwrap();
    outcome
}

/// A server whose page is the address that a visitor came from.
fn web() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, visitor)) = listener.accept() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap_or_default().is_empty()) {}
            let page = format!("page for {}\n", visitor.ip());
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
            let _ = stream.write_all((head + &page).as_bytes());
        }
    });
    address
}

#[test]
fn a_mlet_runs_once_and_only_its_output_is_seen() {
    let web = web().to_string();
    let tried = try_mlet("once", &[&program("mlet-http-get"), &web]);
    assert_eq!(tried.code, Some(0), "{}", tried.stderr);
    assert_eq!(tried.stdout.matches("page for 127.0.0.1").count(), 1, "{}", tried.stdout);
    assert_eq!(tried.stderr, "");
}

#[test]
fn for_each_endpoint_the_mlet_runs_once_and_messages_are_seen() {
    let web = web().to_string();
    let words = ["--endpoints", "3", "--trace", &program("mlet-http-get"), &web];
    let tried = try_mlet("trace", &words);
    assert_eq!(tried.code, Some(0), "{}", tried.stderr);
    assert_eq!(tried.stdout.matches("page for 127.0.0.1").count(), 3, "{}", tried.stdout);
    let connected = format!("connected to {web}");
    for words in ["mlet > endpoint: ", "NOPEN socket", &connected] {
        assert!(tried.stderr.matches(words).count() >= 3, "{words}: {}", tried.stderr);
    }
    assert!(!tried.stderr.contains("WARN"), "{}", tried.stderr);
}

#[test]
fn the_exit_code_is_the_mlets() {
    for (script, code, outcome) in
        [("exit 7", 7, "mlet_failed"), ("kill -9 $$", 137, "mlet_signal")]
    {
        let tried = try_mlet("code", &["/bin/sh", "-c", script]);
        assert_eq!(tried.code, Some(code), "{}", tried.stderr);
        let told = format!("try: session 1: {outcome}: ");
        assert!(tried.stderr.starts_with(&told), "{}", tried.stderr);
    }
}

#[test]
fn a_mlet_that_is_not_there_is_told_and_no_success() {
    let tried = try_mlet("missing", &["/nowhere/mlet"]);
    assert!(tried.code.is_some_and(|code| code != 0), "{}", tried.stderr);
    assert!(tried.stderr.contains("/nowhere/mlet"), "{}", tried.stderr);
}

/// A try in a terminal of its own, as far as Ctrl-C goes.
struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// With this script as its mlet, whose first line is "up".
    fn start(folder: &Path, options: &[&str], script: &str) -> Self {
        use std::os::unix::process::CommandExt;
        let words = [&["try"], options, &["/bin/sh", "-c", script]].concat();
        let mut child = pktfleet_command(folder, &words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Self { child, stdout, stderr }
    }

    /// Presses Ctrl-C.
    fn interrupt(&self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        killpg(group, Signal::SIGINT).unwrap();
    }

    /// The next line on standard error.
    fn says(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }

    /// How it ends by itself.
    fn ends(mut self) -> Outcome {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        Outcome { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

/// NCLOSE of a socket that is not open, and its answer.
const ASKS: &str = r"printf '\053\000\000\001\005' >&0; head -c 6 <&0 >/dev/null; ";

const INTERRUPTED: &str =
    "try: interrupted; the endpoint leaves and the mlet may finish; once more ends it by force\n";

#[test]
fn an_interrupted_mlet_reads_the_end_of_its_session_and_what_was_captured_is_kept() {
    let folder = folder("try-interrupted");
    let script = format!("{ASKS}echo up; cat <&0; echo the end");
    let mut running = Running::start(&folder, &["--capture", "captured"], &script);
    running.interrupt();
    assert_eq!(running.says(), INTERRUPTED);
    let ended = running.ends();
    // SUSPD, then the end.
    let told = (Some(130), "h\0\0\0the end\n");
    assert_eq!((ended.code, &*ended.stdout), told, "{}", ended.stderr);
    assert_eq!(ended.stderr, "try: interrupted; everything was ended\n");
    let captured = fs::read_to_string(folder.join("captured/1.jsonl")).unwrap();
    for line in [r#""type": "0x40""#, r#""type": "0x68""#, r#""endpoint", "eof": true"#] {
        assert!(captured.contains(line), "{line} is missing: {captured}");
    }
    assert!(captured.lines().all(|line| line.ends_with('}')), "{captured}");
    let left = fs::read_dir(&folder).unwrap().count();
    assert_eq!(left, 1, "only what was captured");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_mlet_that_stays_is_ended_by_force_at_the_second_interrupt() {
    let folder = folder("try-killed");
    let script = "trap '' TERM; echo up; while :; do /bin/sleep 1; done";
    let mut running = Running::start(&folder, &[], script);
    running.interrupt();
    assert_eq!(running.says(), INTERRUPTED);
    running.interrupt();
    let ended = running.ends();
    assert_eq!((ended.code, &*ended.stdout), (Some(130), ""), "{}", ended.stderr);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_try_that_is_killed_leaves_no_process_behind() {
    let folder = folder("try-sigkill");
    let script = "trap '' TERM; echo up; /bin/sleep 20; echo stayed";
    let mut running = Running::start(&folder, &[], script);
    running.child.kill().unwrap();
    // The end of the output is that of the last process that holds it.
    let ended = running.ends();
    assert_eq!((ended.code, &*ended.stdout), (None, ""), "{}", ended.stderr);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_mlet_is_ended_when_its_time_is_over() {
    let words = ["--mlet-timeout", "1s", "/bin/sh", "-c", "exec sleep 1000"];
    let tried = try_mlet("late", &words);
    assert_eq!(tried.code, Some(143), "{}", tried.stderr);
    assert!(tried.stderr.starts_with("try: session 1: mlet_timeout: "), "{}", tried.stderr);
}

#[test]
fn where_no_home_can_be_made_the_machine_is_blamed_and_not_a_defect() {
    let folder = folder("try-nowhere");
    let run = |word, mlet| {
        let mut command = pktfleet_command(&folder, &[word]);
        let ended = command.args(mlet).env("TMPDIR", folder.join("none")).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    for (word, mlet) in [("try", Some("/bin/true")), ("demo", None)] {
        let (code, told) = run(word, mlet);
        assert_eq!(code, Some(6), "{word}: {told}");
        let none = "No such file or directory (os error 2) (TMPDIR names another place)";
        assert!(told.contains(none), "{told}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_could_not_be_captured_is_no_success_though_the_mlet_is() {
    let folder = folder("try-lost");
    for pipe in ["m", "go"] {
        assert!(Command::new("mkfifo").arg(folder.join(pipe)).status().unwrap().success());
    }
    let (messages, go) = (folder.join("m"), folder.join("go"));
    let reader = thread::spawn(move || {
        // The reader leaves, and only then the mlet goes on.
        fs::File::open(messages).unwrap().read_exact(&mut [0; 8]).unwrap();
        fs::write(go, "go\n").unwrap();
    });
    let script = format!("read line <go; {ASKS}");
    let tried = pktfleet(&folder, &["try", "--pcap", "m", "/bin/sh", "-c", &script]);
    reader.join().unwrap();
    assert_eq!(tried.code, Some(74), "{}", tried.stderr);
    let told = "messages of sessions cannot be written to m: Broken pipe";
    assert!(tried.stderr.contains(told), "{}", tried.stderr);
    fs::remove_dir_all(&folder).unwrap();
}
