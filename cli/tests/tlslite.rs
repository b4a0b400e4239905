//! tlslite-ng as the endpoint: handshakes and records that no other library sends. The cases stand in
//! `python/tls_cases.py`, a line each.
//!
//! Beside each case an honest session goes on, every byte of which must come back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use common::Home;
use common::endpoint::{End, Endpoint, Identity, NDATA, message};
use common::events::{Events, start};
use common::manager::Manager;
use serde_json::{Value, json};

/// The script, which plays a case for each line it is given.
struct Cases {
    child: Child,
    stdin: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Cases {
    /// Starts it for an endpoint of this home's operator.
    fn begin(home: &Home, manager: &Manager) -> Self {
        let identity = Identity::of(&home.keys.operator);
        home.write("ep.cert", identity.chain[0].to_pem().as_bytes());
        home.write("ep", identity.key.to_pem().as_bytes());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/tls_cases.py");
        let interpreter = std::env::var_os("PKTLAB_PYTHON").unwrap_or_else(|| "python3".into());
        let mut child = Command::new(interpreter)
            .arg(script)
            .args([&manager.address.port().to_string(), "ep.cert", "ep"])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(home.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python is installed");
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, lines }
    }

    /// Its next line; its own words for what went wrong are on stderr.
    fn line(&mut self) -> String {
        self.lines.next().expect("the script goes on").unwrap()
    }

    /// Plays the next case.
    fn play(&mut self) -> Value {
        self.stdin.write_all(b"\n").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Cases {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Messages of many lengths, and whether they all come back as they were.
fn echo_many(honest: &mut Endpoint, case: usize) -> bool {
    [0, 1, 1000, 40_000].into_iter().all(|len| {
        let payload: Vec<u8> = (0..len).map(|at: usize| ((at * (case + 7)) >> 3) as u8).collect();
        honest.send(&message(NDATA, &payload));
        honest.receive() == Ok((NDATA, payload))
    })
}

/// How many bytes that is, each way.
const ECHOED: u64 = 2 * (4 * 4 + 1 + 1000 + 40_000);

/// What is wrong with the record of a case, and the lines of the log about it; empty if nothing is.
fn faults(case: &Value, record: &Value, log: &str) -> Vec<String> {
    let words: Vec<_> = case["words"].as_str().unwrap().split("; ").collect();
    let reason = record["reason"].as_str().unwrap_or_default();
    let its_lines = || {
        // The address stands before a space and nothing else.
        let address = format!("{} ", case["address"].as_str().unwrap());
        log.lines().filter(move |line| line.contains(&address))
    };
    let mut faults: Vec<String> = case["fault"].as_str().map(str::to_owned).into_iter().collect();
    if record["outcome"] != case["outcome"] || !reason.contains(words[0]) {
        faults.push(format!("its record has {}: {reason}", record["outcome"]));
    }
    let are_all_in = |line: &str| line.contains(reason) && words.iter().all(|it| line.contains(it));
    if !its_lines().any(are_all_in) {
        faults.push(format!("the log has {:?}", its_lines().collect::<Vec<_>>()));
    }
    if let Some(relayed) = case["relayed"].as_u64()
        && record["bytes"] != json!({ "to_ep": relayed, "from_ep": relayed })
    {
        faults.push(format!("relayed was {}", record["bytes"]));
    }
    faults
}

/// Plays all cases on a manager with this driver.
fn conforms(io: &str) {
    let home = Home::new();
    let manager = start(&home, &["-v", "--io", io], &["echo"]);
    let (events, dial) = (Events::of(&home), home.dial(&manager));
    let mut cases = Cases::begin(&home, &manager);
    let count: usize = cases.line().parse().unwrap();
    let mut played = Vec::new();
    for number in 0..count {
        let mut honest = dial.session();
        let is_whole_before = echo_many(&mut honest, number);
        let case = cases.play();
        let is_whole = is_whole_before && echo_many(&mut honest, number);
        honest.close();
        let end = honest.receive();
        assert!(is_whole && end == Err(End::CloseNotify), "beside {}: {end:?}", case["case"]);
        played.push(case);
    }
    let sessions = events.await_sessions(2 * count);
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));

    let is_of = |record: &Value, address: &str| {
        let peer = record["ep"]["peer"].as_str().unwrap();
        peer.strip_prefix(address).is_some_and(|port| port.starts_with(':'))
    };
    let honest: Vec<_> = sessions.iter().filter(|record| is_of(record, "127.0.0.1")).collect();
    assert_eq!(honest.len(), count);
    for record in honest {
        let is_whole = record["bytes"] == json!({ "to_ep": ECHOED, "from_ep": ECHOED });
        assert!(
            is_whole && record["outcome"] == "endpoint_closed" && record["exit"] == 0,
            "{record}"
        );
    }
    let mut found = Vec::new();
    for case in &played {
        let (name, address) = (&case["case"], case["address"].as_str().unwrap());
        let its: Vec<_> = sessions.iter().filter(|record| is_of(record, address)).collect();
        let [record] = its[..] else { panic!("{name} has {} records", its.len()) };
        let faults = faults(case, record, &ended.stderr);
        if !faults.is_empty() {
            found.push(format!("{name}: {}", faults.join("; ")));
        }
    }
    assert!(found.is_empty(), "{} of {count}:\n{}", found.len(), found.join("\n"));
}

/// spec/reliability.md 9; promises P19, P21.
#[test]
#[ignore = "needs tlslite-ng"]
fn each_case_of_tls_has_its_answer_and_its_reason_on_io_uring() {
    conforms("uring");
}

/// The same.
#[test]
#[ignore = "needs tlslite-ng"]
fn each_case_of_tls_has_its_answer_and_its_reason_on_epoll() {
    conforms("epoll");
}
