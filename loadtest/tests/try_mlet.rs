//! `pktfleet try` as its user sees it: the real `pktxpmgr` of the same build, real mlets, and a server they reach over the
//! network of this host.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

mod running;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use running::{Outcome, folder, pktfleet, program};

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
}

#[test]
fn the_exit_code_is_the_mlets() {
    for (script, code, outcome) in
    assert!(!tried.stderr.contains("WARN"), "{}", tried.stderr);
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

/// NCLOSE of a socket that is not open, and its answer.
const ASKS: &str = r"printf '\053\000\000\001\005' >&0; head -c 6 <&0 >/dev/null; ";

#[test]
fn a_mlet_is_ended_when_its_time_is_over() {
    let words = ["--mlet-timeout", "1s", "/bin/sh", "-c", "exec sleep 1000"];
    let tried = try_mlet("late", &words);
    assert_eq!(tried.code, Some(143), "{}", tried.stderr);
    assert!(tried.stderr.starts_with("try: session 1: mlet_timeout: "), "{}", tried.stderr);
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
