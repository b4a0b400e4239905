//! The example mlets, each run by the real `pktxpmgr` at real endpoints.

mod dns;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use engine::sys::fd_passing;
use hosts::endpoint::Endpoint;
use hosts::home::{Home, Surroundings};
use nix::sys::signal::Signal;
use packetlab::time::Ticks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

mod c_mlet;
mod survey;

use super::*;
use crate::page::{Expected, Pages};
use crate::pktxpmgr::Pktxpmgr;
use crate::web::Web;

/// A server for mlets.
const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, 0, 3)), 0);

/// For mlets that know them, as those with our libraries do.
const PIPES: [&str; 2] = ["--mlet-io", "pipe"];

/// A program of the same build: tests lie in a directory below the programs.
fn program(name: &str) -> PathBuf {
    let itself = std::env::current_exe().unwrap();
    let path = itself.parent().unwrap().with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path
}

/// Runs a mlet at `count` endpoints; the home and what was printed, one line each.
async fn run(
    count: usize,
    options: &[&str],
    mlet: &Path,
    arguments: &[&str],
) -> (Home, Vec<String>) {
    let home = Home::create(count, false, Surroundings::default()).unwrap();
    let number = count.to_string();
    let before = ["-a", "127.0.0.1:0", "-n", &number, "--cores", "1"].map(OsString::from);
    let mut words: Vec<OsString> = before.to_vec();
    words.extend(options.iter().map(OsString::from));
    words.extend(["-c".into(), home.config_path().into(), "--".into(), mlet.into()]);
    words.extend(arguments.iter().map(OsString::from));
    let (mut pktxpmgr, address) = Pktxpmgr::listening(&program("pktxpmgr"), words).await.unwrap();
    let endpoints = home.endpoints(address).unwrap();
    let mut running: JoinSet<_> = endpoints.into_iter().map(Endpoint::run).collect();
    while let Some(session) = running.join_next().await {
        let session = session.unwrap();
        assert!(session.started && session.end.is_ok(), "{session:?}");
    }
    let ended = pktxpmgr.finish().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    (home, ended.output)
}

/// The tab-separated columns of a line, from the second on, which is the endpoint's address; the first is its key.
fn columns<'a>(home: &Home, line: &'a str) -> Vec<&'a str> {
    let (key, rest) = line.split_once('\t').unwrap();
    let columns: Vec<&str> = rest.split('\t').collect();
    let mut identities = home.identities().iter();
    let identity = identities.find(|one| one.address.to_string() == columns[0]).unwrap();
    assert_eq!(key, identity.key_id().to_string(), "{line}");
    columns
}

/// How mlets name the endpoint at this address when something goes wrong.
fn told(home: &Home, address: &str) -> String {
    let mut identities = home.identities().iter();
    let identity = identities.find(|one| one.address.to_string() == address).unwrap();
    format!("endpoint {} {address}", &identity.key_id().to_string()[..12])
}

#[test]
fn every_mlet_says_how_it_is_used_without_an_endpoint() {
    let names =
        ["http-get", "dns", "ping", "traceroute", "path", "tls", "echo", "bulk", "single", "load"];
    for name in names {
        let name = format!("mlet-{name}");
        let ended = std::process::Command::new(program(&name)).arg("--help").output().unwrap();
        let text = String::from_utf8(ended.stdout).unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{name}: {text}");
        assert!(text.to_lowercase().contains("usage: ") && text.contains(&name), "{text}");
    }
}

#[test]
fn a_mlet_whose_output_nobody_reads_ends_with_one_line() {
    let (session, mut endpoint) = UnixStream::pair().unwrap();
    // It has answered before it was asked.
    let answer = [0x41, 0, 0, 5, 0x10, 0x01, 0, 0, 7];
    std::io::Write::write_all(&mut endpoint, &answer).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = std::process::Command::new(program("mlet-echo"))
        .args(["--count", "1", "--size", "1"])
        .env("EPADDR", "192.0.2.1")
        .stdin(OwnedFd::from(session))
        .stdout(writer)
        .output()
        .unwrap();
    let text = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{text}");
    let expected = "mlet-echo: endpoint 192.0.2.1: standard output: ";
    assert!(text.starts_with(expected) && text.lines().count() == 1, "{text}");
}

#[tokio::test]
async fn bulk_goes_on_when_the_server_closes_its_side_first() {
    const BYTES: usize = 3_000_000;
    let listener = TcpListener::bind(TARGET).await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (mut sink, _) = listener.accept().await.unwrap();
        sink.shutdown().await.unwrap();
        let mut received = Vec::new();
        sink.read_to_end(&mut received).await.unwrap();
        received.len()
    });
    let arguments = ["up", &server, &BYTES.to_string()];
    let (home, output) = run(1, &[], &program("mlet-bulk"), &arguments).await;
    assert_eq!(columns(&home, &output[0])[..3], ["127.1.0.1", "up", arguments[2]], "{output:?}");
    assert_eq!(serving.await.unwrap(), BYTES);
}

/// Runs mlet-single with so many sessions and no more; its exit code, what it told and what its mlets
/// printed. `limit` is its `ulimit -n`.
fn single(sessions: usize, limit: usize, mlet: &[&str]) -> (Option<i32>, String, String) {
    let (control, manager) = UnixStream::pair().unwrap();
    for _ in 0..sessions {
        let (_near, far) = UnixStream::pair().unwrap();
        fd_passing::send(manager.as_fd(), b"192.0.2.7\0", &[&far]).unwrap();
    }
    drop(manager);
    let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
    let ended = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .arg(program("mlet-single"))
        .args(mlet)
        .stdin(OwnedFd::from(control))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stderr), text(ended.stdout))
}

#[test]
fn mlet_single_fails_if_something_failed_and_says_for_which_endpoint() {
    for (sessions, limit, mlet, code, told) in [
        (3, 64, &["/bin/true"][..], 0, ""),
        (0, 64, &["/bin/true"], 0, ""),
        (
            1,
            64,
            &["/nonexistent"],
            1,
            "mlet-single: cannot run the mlet /nonexistent: No such file",
        ),
        (2, 64, &["/bin/false"], 1, "endpoint 192.0.2.7: the mlet ended: exit code 1"),
        (2, 64, &["/bin/sh", "-c", "kill $$"], 1, "the mlet ended: SIGTERM"),
        // No room for a session beside fds 0 to 2 and a copy of 0.
        (2, 4, &["/bin/true"], 1, "a session was lost: too many open files"),
    ] {
        let (ended, log, _) = single(sessions, limit, mlet);
        assert_eq!(ended, Some(code), "{mlet:?}: {log}");
        let lines = if told.is_empty() { 0 } else { sessions };
        assert_eq!(log.lines().filter(|line| line.contains(told)).count(), lines, "{log}");
    }
}

#[test]
fn mlet_single_starts_mlets_as_pktxpmgr_does() {
    let (code, log, status) = single(1, 64, &["/bin/cat", "/proc/self/status"]);
    assert_eq!(code, Some(0), "{log}");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    assert_ne!(ignored & 1 << (Signal::SIGPIPE as u64 - 1), 0, "{status}");
    let script = "echo \"$EPADDR\"; /bin/ls -l /proc/self/fd/0";
    let (_, _, printed) = single(1, 64, &["/bin/sh", "-c", script]);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "192.0.2.7");
    assert!(lines[1].contains("socket:"), "{printed}");
}

#[tokio::test]
async fn a_refused_connection_is_told_from_one_that_was_reset() {
    // Bound but not listening, so that nobody else can listen there.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(TARGET).unwrap();
    let address = closed.local_addr().unwrap();
    let script = format!("{} {address} 2>&1; true", program("mlet-http-get").display());
    let (home, output) = run(1, &[], Path::new("/bin/sh"), &["-c", &script]).await;
    let endpoint = told(&home, "127.1.0.1");
    let told = format!("mlet-http-get: {endpoint}: no connection to {address}: refused after ");
    assert!(output.len() == 1 && output[0].starts_with(&told), "{output:?}");
}

#[tokio::test]
#[ignore = "needs CAP_NET_RAW"]
async fn ping_times_every_reply() {
    let (home, output) = run(1, &[], &program("mlet-ping"), &["127.77.0.1", "2"]).await;
    assert_eq!(output.len(), 2, "{output:?}");
    for (sequence, line) in output.iter().enumerate() {
        let columns = columns(&home, line);
        assert_eq!(columns[..3], ["127.1.0.1", "127.77.0.1", &sequence.to_string()]);
        assert!(columns[3].parse::<f64>().unwrap() > 0.0, "{line}");
    }
}

#[tokio::test]
#[ignore = "needs CAP_NET_RAW"]
async fn traceroute_reaches_its_target() {
    let (home, output) = run(1, &[], &program("mlet-traceroute"), &["127.77.0.1"]).await;
    assert_eq!(output.len(), 1, "{output:?}");
    let columns = columns(&home, &output[0]);
    assert_eq!(columns[..4], ["127.1.0.1", "127.77.0.1", "1", "127.77.0.1"]);
    assert!(columns[4].parse::<f64>().unwrap() > 0.0, "{output:?}");
}

#[tokio::test]
async fn echo_summarises_its_latencies_and_prints_the_log() {
    let arguments = ["--count", "200", "--size", "1000", "--hlog", "-"];
    for options in [&[][..], &PIPES] {
        let (home, output) = run(1, options, &program("mlet-echo"), &arguments).await;
        let columns = columns(&home, &output[0]);
        assert_eq!(columns[..2], ["127.1.0.1", "200"]);
        let quantiles: Vec<f64> = columns[2..].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(quantiles.len(), 5);
        assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{output:?}");
        assert!(output.iter().any(|line| line.starts_with(&tag(&home, 0))), "{output:?}");
    }
}

/// How the log of an endpoint begins: with its key.
fn tag(home: &Home, index: usize) -> String {
    format!("Tag={},", home.identities()[index].key_id())
}

/// Prints tag, count, and when each interval of a log began and ended, in milliseconds since 1970.
const READ_LOG: &str = "\
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
reader = HistogramLogReader('/dev/stdin', HdrHistogram(1, 60_000_000_000, 3))
while True:
    read = reader.get_next_interval_histogram()
    if read is None:
        break
    start, end = read.get_start_time_stamp(), read.get_end_time_stamp()
    print(read.get_tag(), read.get_total_count(), int(start), int(end))
";

/// Requests of each mlet whose log Python reads.
const ECHOES: u64 = 4000;

/// Python's reader takes the whole log: the requests of each endpoint, within the time of the run (milliseconds since
/// 1970).
#[track_caller]
fn python_reads_all(home: &Home, log: &str, (before, after): (u64, u64)) {
    let interpreter = std::env::var_os("PKTLAB_PYTHON").map_or_else(python, PathBuf::from);
    let mut reader = std::process::Command::new(interpreter)
        .args(["-c", READ_LOG])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut reader.stdin.take().unwrap(), log.as_bytes()).unwrap();
    let read = reader.wait_with_output().unwrap();
    assert!(read.status.success());
    let mut counts: HashMap<String, u64> = HashMap::new();
    for line in String::from_utf8(read.stdout).unwrap().lines() {
        let columns: Vec<&str> = line.split(' ').collect();
        let numbers: Vec<u64> = columns[1..].iter().map(|text| text.parse().unwrap()).collect();
        *counts.entry(columns[0].to_owned()).or_default() += numbers[0];
        assert!(before <= numbers[1] && numbers[1] <= numbers[2], "{line}");
        assert!(numbers[2] <= after, "{line}");
    }
    let expected = home.identities().iter().map(|one| (one.key_id().to_string(), ECHOES));
    assert_eq!(counts, expected.collect());
}

fn now_ms() -> u64 {
    Ticks::from_system_time(SystemTime::now()).0 / 1_000_000
}

#[tokio::test]
#[ignore = "needs python3 with hdrhistogram"]
async fn pythons_hdrhistogram_reads_the_printed_logs_of_all_mlets_in_any_order() {
    let before = now_ms();
    let arguments = ["--count", &ECHOES.to_string(), "--hlog", "-"];
    let (home, output) = run(4, &[], &program("mlet-echo"), &arguments).await;
    let run = (before, now_ms());
    let lines: Vec<String> = output.iter().map(|line| format!("{line}\n")).collect();
    let mut logs: Vec<&[String]> =
        lines.chunk_by(|_, next| !next.starts_with("#[StartTime")).collect();
    python_reads_all(&home, &logs.concat().concat(), run);
    logs.reverse();
    python_reads_all(&home, &logs.concat().concat(), run);
}

/// The file holds nothing else: Java's reader ends at a line that is no log.
#[tokio::test]
#[ignore = "needs python3 with hdrhistogram"]
async fn pythons_hdrhistogram_reads_the_file_that_all_mlets_append_to() {
    let file = std::env::temp_dir().join(format!("mlet-echo-{}.hlog", std::process::id()));
    let before = now_ms();
    let arguments = ["--count", &ECHOES.to_string(), "--hlog", file.to_str().unwrap()];
    let (home, output) = run(4, &[], &program("mlet-echo"), &arguments).await;
    let run = (before, now_ms());
    assert_eq!(output.len(), 4, "{output:?}");
    let log = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(log.lines().filter(|line| !line.starts_with('#')).count(), 4, "{log}");
    python_reads_all(&home, &log, run);
}

#[tokio::test]
async fn echo_appends_its_log_to_a_file_and_says_at_once_which_it_cannot_write() {
    let file = std::env::temp_dir().join(format!("mlet-echo-{}-2.hlog", std::process::id()));
    let arguments = ["--count", "50", "--hlog", file.to_str().unwrap()];
    let (home, output) = run(2, &[], &program("mlet-echo"), &arguments).await;
    assert_eq!(output.len(), 2, "{output:?}");
    let log = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    for tag in [tag(&home, 0), tag(&home, 1)] {
        assert_eq!(log.lines().filter(|line| line.starts_with(&tag)).count(), 1, "{log}");
    }
    assert_eq!(log.matches("#[StartTime: ").count(), 2, "{log}");
    let (_home, output) = run(1, &[], &program("mlet-echo"), &["--hlog", "/nowhere/x"]).await;
    assert!(output.is_empty(), "{output:?}");
}

#[tokio::test]
async fn bulk_moves_bytes_either_way() {
    const BYTES: usize = 3_000_000;
    let listener = TcpListener::bind(TARGET).await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    // The source sends first and the sink reads first, whichever comes first.
    let serving = tokio::spawn(async move {
        let (mut source, _) = listener.accept().await.unwrap();
        source.write_all(&vec![1; BYTES]).await.unwrap();
        drop(source);
        let (mut sink, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        sink.read_to_end(&mut received).await.unwrap();
        received.len()
    });
    let bytes = BYTES.to_string();
    let ways = [("down", None), ("up", Some(bytes.as_str()))];
    for ((direction, limit), options) in ways.into_iter().zip([&[][..], &PIPES]) {
        let arguments: Vec<&str> = [direction, &server].into_iter().chain(limit).collect();
        let (home, output) = run(1, options, &program("mlet-bulk"), &arguments).await;
        let columns = columns(&home, &output[0]);
        assert_eq!(columns[..3], ["127.1.0.1", direction, &bytes], "{output:?}");
        assert!(columns[4].parse::<f64>().unwrap() > 0.0);
    }
    assert_eq!(serving.await.unwrap(), BYTES);
}

#[tokio::test]
async fn one_mlet_can_run_another_for_every_endpoint() {
    let web = Web::start(LOOPBACK).await.unwrap();
    let http_get = program("mlet-http-get").into_os_string().into_string().unwrap();
    let arguments = [http_get.as_str(), &web.address().to_string()];
    for (options, learns_keys) in [(&["-s"][..], false), (&["-s", "--single-facts"], true)] {
        let (home, output) = run(3, options, &program("mlet-single"), &arguments).await;
        for identity in home.identities() {
            let address = identity.address;
            let key = if learns_keys { identity.key_id().to_string() } else { "-".to_owned() };
            let page = web.page(address).trim_end().to_owned() + "\\n";
            let line = format!("{key}\t{address}\tHTTP/1.0 200 OK\t{page}");
            assert_eq!(output.iter().filter(|printed| **printed == line).count(), 1, "{output:?}");
        }
    }
}

/// The interpreter: a mlet's environment has no PATH to find it by.
fn python() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found =
        std::env::split_paths(&path).map(|place| place.join("python3")).find(|p| p.exists());
    found.expect("python3 should be installed")
}

fn script(name: &str) -> String {
    format!("{}/mlet/python/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
#[ignore = "needs python3"]
async fn a_page_is_fetched_by_a_mlet_in_python() {
    let web = Web::start(LOOPBACK).await.unwrap();
    let (script, address) = (script("fetch_page.py"), web.address().to_string());
    for options in [&[][..], &PIPES] {
        // By its first line, which has to be right where there is no PATH.
        let (home, output) = run(3, options, Path::new(&script), &[&address]).await;
        let mut pages = Pages::parse(&output);
        for identity in home.identities() {
            let (key, address) = (identity.key_id().to_string(), identity.address);
            pages.take(&Expected { key, address, page: web.page(address) }).unwrap();
        }
    }
}

#[tokio::test]
#[ignore = "needs python3"]
async fn python_serves_all_endpoints_from_one_process() {
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    // Nobody is answered before both endpoints have asked: they are served at the same time. Before every answer
    // comes what is none: with another run's mark.
    tokio::spawn(async move {
        let mut data = [0; 16];
        let mut unanswered = Vec::new();
        let mut endpoints = HashSet::new();
        loop {
            let (len, peer) = server.recv_from(&mut data).await.unwrap();
            unanswered.push((data[..len].to_vec(), peer));
            endpoints.insert(peer);
            if endpoints.len() % 2 == 0 {
                for (data, peer) in unanswered.drain(..) {
                    let mut other = data.clone();
                    other[0] ^= 1;
                    server.send_to(&other, peer).await.unwrap();
                    server.send_to(&data, peer).await.unwrap();
                }
            }
        }
    });
    let script = script("time_datagrams.py");
    let arguments = [script.as_str(), "127.0.0.1", &port, "4"];
    for (options, learns_keys) in [(&["-s"][..], false), (&["-s", "--single-facts"], true)] {
        let (home, output) = run(2, options, &python(), &arguments).await;
        assert_eq!(output.len(), 8, "{output:?}");
        for identity in home.identities() {
            let key = if learns_keys { identity.key_id().to_string() } else { "-".to_owned() };
            let begin = format!("{key}\t{}\t", identity.address);
            let own = output.iter().filter_map(|line| line.strip_prefix(&begin));
            let numbers = own.map(|rest| {
                let (number, milliseconds) = rest.split_once('\t').unwrap();
                assert!(milliseconds.parse::<f64>().unwrap() > 0.0, "{output:?}");
                number
            });
            assert_eq!(numbers.collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        }
    }
}
