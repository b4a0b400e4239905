//! A results folder that is read again. The first byte chooses what the rest of the input does.
//!
//! * It damages a file of records: it is cut, and up to four of its bits are turned. No endpoint is taken for measured that
//!   was not, and none counts twice.
//! * It is a file of records. Whoever is taken for measured has a line that says so: a record of this version, of a session
//!   that was `ok`. Each session is found again at its place.
//! * It is the file of all outputs. What is read of one session is as long as was asked for, and none of another's.
//! * It is the file of runs.

#![no_main]

#[path = "../../../cli/src/results"]
#[expect(dead_code, reason = "not all of it is needed")]
mod results {
    pub(crate) mod failure;
    pub(crate) mod folder;
    pub(crate) mod lines;
    pub(crate) mod record;
    pub(crate) mod run;
    pub(crate) mod stream_file;
    pub(crate) mod time;
}
#[path = "../../../cli/src/results_folder/earlier.rs"]
#[expect(dead_code, reason = "not all of it is needed")]
mod earlier;

mod script;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::LazyLock;

use earlier::Earlier;
use libfuzzer_sys::fuzz_target;
use packetlab::key::KeyId;
use results::folder::{EVENTS, Folder};
use results::record::Event;
use results::run::Run;
use results::stream_file::{Stream, StreamOutput};
use script::Script;
use serde_json::Value;

/// A folder beside this program.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::current_exe().unwrap().with_extension("folder");
    fs::create_dir_all(&folder).unwrap();
    folder
});

/// Records of 16 sessions, with 16 different keys, every other one `ok`.
static RECORDS: LazyLock<String> = LazyLock::new(|| {
    let outcomes = ["mlet_failed", "undelivered", "endpoint_closed", "killed", "tls_failed"];
    (0..16_usize).fold(String::new(), |records, number| {
        let outcome = if number % 2 == 0 { "ok" } else { outcomes[number / 2 % outcomes.len()] };
        let key = key(number);
        let reason = r#"said \"outcome\":\"ok\",\"ep\":{\"key\":\"00\"} and left"#;
        records
            + &format!(
                r#"{{"v":1,"t":"2026-11-23T11:40:02.113204Z","ev":"session.end","run":"7f3a","sid":{number},"core":0,"ep":{{"key":"{key}","root":null,"snikey":"hello","peer":"192.0.2.7:40112","via":"direct","shown_key":null}},"outcome":"{outcome}","failed":false,"reason":"{reason}","ms":{{"tls":41.2,"total":8200}},"bytes":{{"to_ep":18233,"from_ep":902113}}}}"#
            )
            + "\n"
    })
});

/// Far from all others, so that a few turned bits do not make it one of them.
fn key(number: usize) -> KeyId {
    let mut key = [0; 32];
    for (position, byte) in key.iter_mut().enumerate() {
        *byte = (number * 0x11) as u8 ^ (position as u8).wrapping_mul(37);
    }
    KeyId(key)
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else { return };
    match choice % 4 {
        0 => damage(Script(rest)),
        1 => read(rest),
        2 => read_stream(rest),
        _ => drop(Run::list(rest)),
    }
});

fn damage(mut script: Script<'_>) {
    let mut records = RECORDS.clone().into_bytes();
    let len = script.long_number() % (records.len() + 1);
    records.truncate(len);
    for _ in 0..script.number() % 5 {
        let at = script.long_number() % len.max(1);
        let bit = script.number() % 8;
        if let Some(byte) = records.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }
    fs::write(FOLDER.join(EVENTS), &records).unwrap();
    let Ok(earlier) = Earlier::read(&FOLDER) else { return };
    for number in (1..16).step_by(2) {
        assert!(!earlier.measured.contains(&key(number)), "session {number} was not ok");
    }
    assert!(earlier.oks <= 8 && earlier.measured.len() <= 8);
}

fn read(records: &[u8]) {
    fs::write(FOLDER.join(EVENTS), records).unwrap();
    let Ok(earlier) = Earlier::read(&FOLDER) else { return };
    let lines = || records.split(|byte| *byte == b'\n');
    let oks: Vec<Value> = lines()
        .filter_map(|line| serde_json::from_slice(line).ok())
        .filter(|record: &Value| record["v"] == 1 && record["ev"] == "session.end")
        .filter(|record| record["outcome"] == "ok")
        .collect();
    assert!(earlier.oks <= oks.len() as u64);
    let keys = oks.iter().filter_map(|record| KeyId::from_hex(record["ep"]["key"].as_str()?));
    assert!(earlier.measured.is_subset(&keys.collect::<HashSet<_>>()));

    let folder = Folder::open(&FOLDER).unwrap();
    let mut places = Vec::new();
    let visit = |event, place| {
        if let Event::Session(session) = event {
            places.push((session.number, place));
        }
    };
    folder.scan_telling(visit, drop).unwrap();
    for (number, place) in places {
        assert_eq!(folder.session_at(place).unwrap().number, number);
    }
}

fn read_stream(input: &[u8]) {
    let mut script = Script(input);
    let (session, last) = (script.number() as u64, script.long_number() as u64);
    let (len, is_stdout) = (script.long_number() as u64, script.number() % 2 == 0);
    let path = FOLDER.join("stream");
    fs::write(&path, script.0).unwrap();
    // A run that goes on has to know the last number in it.
    let highest = results::stream_file::last_session(&File::open(&path).unwrap());
    let stream = if is_stdout { Stream::Stdout } else { Stream::Stderr };
    let file = File::open(&path).unwrap();
    let Ok(mut output) = StreamOutput::find(file, (session, stream), last, len) else { return };
    let mut bytes = Vec::new();
    if output.read_to_end(&mut bytes).is_ok() {
        assert_eq!(bytes.len() as u64, len);
        assert!(bytes.len() <= script.0.len(), "nothing is read twice");
    }
    // Whatever it says of numbers is read to its end.
    highest.unwrap();
}
