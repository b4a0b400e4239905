//! A results folder as a run leaves it, written by the test itself, and `pktxpmgr` to read it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::PKTXPMGR;
use super::debug_forms::assert_no_debug_form;

/// The run that all sessions are of.
pub const RUN: &str = "7f3a5c0011223344";

/// The name of the results folder.
pub const CAMPAIGN: &str = "campaign";

/// A folder with the results folder in it; both disappear with the value.
pub struct Campaign {
    desk: PathBuf,
    lines: Vec<u8>,
    /// Of outcomes, as the run would count them.
    counts: serde_json::Map<String, Value>,
}

impl Campaign {
    /// A run that has just begun.
    pub fn begun() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let desk = std::env::temp_dir().join(format!("campaign-{}-{number}", std::process::id()));
        let mut folders = fs::DirBuilder::new();
        folders.mode(0o700).recursive(true).create(desk.join(CAMPAIGN).join("sessions")).unwrap();
        let mut campaign = Self { desk, lines: Vec::new(), counts: serde_json::Map::new() };
        campaign.add("run.start", &json!({ "run": RUN, "program": "pktxpmgr 0.1.0" }));
        campaign.write_run(&json!({
            "run": RUN, "started": time(0), "ended": null, "program": "pktxpmgr 0.1.0",
            "commit": "f88e66e", "command": ["pktxpmgr", "--out", CAMPAIGN, "./mlet", "<b>&"],
            "config": { "path": "xpmgr.conf", "sha256": "c0".repeat(32) },
            "mlet": { "path": "./mlet", "sha256": "1e".repeat(32), "arguments": ["<b>&"] },
            "host": "lab", "kernel": "6.1.0", "limits": { "sessions-max": 20_000 },
            "note": "first try", "counts": null,
        }));
        campaign
    }

    /// A run that is over, with so many sessions (see [`session`]).
    pub fn of(sessions: u64) -> Self {
        let mut campaign = Self::begun();
        for number in 1..=sessions {
            campaign.session(number, |_| {});
        }
        campaign.end();
        campaign
    }

    /// Adds the record and the outputs of a session, after a change to the record.
    pub fn session(&mut self, number: u64, change: impl FnOnce(&mut Value)) {
        let mut record = session(number);
        change(&mut record);
        if let Some(dir) = record["output"]["dir"].as_str() {
            let dir = self.path().join(dir);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("stdout"), stdout(number)).unwrap();
            fs::write(
                dir.join("stderr"),
                if number.is_multiple_of(25) { "it failed\n" } else { "" },
            )
            .unwrap();
        }
        let outcome = record["outcome"].as_str().unwrap().to_owned();
        let count = self.counts.entry(outcome).or_insert(json!(0));
        *count = json!(count.as_u64().unwrap() + 1);
        self.add("session.end", &record);
    }

    /// Ends the run.
    pub fn end(&mut self) {
        self.add(
            "run.end",
            &json!({ "run": RUN, "t": time(3_600_000), "counts": self.counts.clone() }),
        );
    }

    /// Adds a record of this kind.
    pub fn add(&mut self, ev: &str, members: &Value) {
        let mut record = json!({ "v": 1, "t": time(0), "ev": ev });
        record.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let line = serde_json::to_string(&record).unwrap() + "\n";
        self.raw(line.as_bytes());
    }

    /// Adds bytes to the file of records.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.lines.extend(bytes);
    }

    fn write_run(&self, run: &Value) {
        let runs = json!({ "v": 1, "runs": [run] });
        fs::write(self.path().join("run.json"), runs.to_string()).unwrap();
    }

    /// The results folder.
    pub fn path(&self) -> PathBuf {
        self.desk.join(CAMPAIGN)
    }

    /// Where commands are run.
    pub fn desk(&self) -> &Path {
        &self.desk
    }

    /// Writes the file of records, and gives `pktxpmgr` with these words, to be run beside the results folder.
    pub fn command(&self, words: &str) -> Command {
        fs::write(self.path().join("events.jsonl"), &self.lines).unwrap();
        let mut command = Command::new(PKTXPMGR);
        command.args(words.split_whitespace()).current_dir(&self.desk).env_clear();
        command.stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub fn run(&self, words: &str) -> Told {
        let output = self.command(words).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_no_debug_form(&stderr);
        Told { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Runs it, and asserts that it does what it was asked for without a warning.
    #[track_caller]
    pub fn says(&self, words: &str) -> String {
        let told = self.run(words);
        assert_eq!((told.code, &*told.stderr), (Some(0), ""), "{words}");
        String::from_utf8(told.stdout).unwrap()
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.desk);
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Told {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// So many milliseconds after the run began.
pub fn time(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (hours, minutes) = (11 + seconds / 3600, seconds / 60 % 60);
    format!("2026-11-28T{hours:02}:{minutes:02}:{:02}.{rest:03}000Z", seconds % 60)
}

/// The key of a session's endpoint.
pub fn key(number: u64) -> String {
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(4)
}

/// What its mlet prints.
pub fn stdout(number: u64) -> String {
    format!("result of session {number}\n")
}

/// Each hundredth is a stranger's, of the others each 25th has a mlet that fails, of the rest each 60th one that is killed:
/// of 300 these are 3, 9 and 4, and 284 are ok. The mlet of session N runs for N ms more than a second.
pub fn session(number: u64) -> Value {
    let ended = time(number * 100 + 1000 + number);
    if number.is_multiple_of(100) {
        return json!({
            "run": RUN, "sid": number, "core": 0, "t": ended, "accepted": time(number * 100),
            "ep": { "key": null, "root": null, "snikey": null, "peer": "192.0.2.7:40112", "via": "direct" },
            "outcome": "handshake_timeout", "failed": false, "reason": "no complete TLS handshake in time",
            "exit": null, "signal": null,
            "ms": { "tls": null, "programs": null, "start": null, "spawn": null, "run": null, "total": 10000.0 },
            "bytes": { "to_ep": 0, "from_ep": 0 }, "msgs": { "to_ep": 0, "from_ep": 0 },
            "linfos_lost": 0, "output": null,
        });
    }
    let (outcome, reason, exit, signal) = match number {
        _ if number.is_multiple_of(25) => {
            ("mlet_failed", json!("mlet exit code 3"), json!(3), json!(null))
        }
        _ if number.is_multiple_of(60) => {
            ("mlet_signal", json!("mlet signal 9"), json!(null), json!(9))
        }
        _ => ("ok", json!(null), json!(0), json!(null)),
    };
    let key = key(number);
    json!({
        "run": RUN, "sid": number, "core": number % 2, "t": ended, "accepted": time(number * 100),
        "ep": {
            "key": key, "root": "cd".repeat(32), "snikey": "helloworld",
            "peer": format!("192.0.2.{}:40112", number % 250), "via": "direct",
        },
        "outcome": outcome, "failed": outcome != "ok", "reason": reason, "exit": exit, "signal": signal,
        "ms": {
            "tls": 40.0 + number as f64 / 10.0, "programs": 3.0, "start": 22.0, "spawn": 1.5,
            "run": 1000.0 + number as f64, "total": 1100.0 + number as f64,
        },
        "bytes": { "to_ep": 100, "from_ep": 1000 * number }, "msgs": { "to_ep": 1, "from_ep": number },
        "linfos_lost": 0,
        "relay_us": {
            "to_ep": { "count": 1, "p50": 11.0, "p99": 84.0, "max": 912.0 },
            "from_ep": { "count": 0, "p50": null, "p99": null, "max": null },
        },
        "output": {
            "dir": format!("sessions/{number:06}-{}", &key[..8]), "stdout": stdout(number).len(),
            "stderr": if number.is_multiple_of(25) { 10 } else { 0 }, "truncated": false,
        },
    })
}
