//! Records that find no room, and files that take no more.

use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;

use serde_json::Value;

use super::*;
use crate::config::{Destination, Keep, Layout, Results};
use crate::proto::session_end::Outcome;
use crate::records::record::{Claim, Output};
use crate::records::results_folder::folder_of;
use crate::records::tests::whole_record;
use crate::sys::supervisor::MletStatus;

fn entry(sessions: u64) -> Entry {
    Entry::Shard(ShardTotals { number: 0, core: 0, enters: 0, sessions }, Ticks(0))
}

fn open(path: String) -> Journal {
    let events = vec![Destination::File(path.into())];
    Journal::open(&Recording { events, ..Recording::default() }, Ticks(0), &Arc::default(), None)
        .unwrap()
        .unwrap()
}

/// A pipe that nobody reads, as a file of records.
fn unread() -> (Journal, PipeReader) {
    let (reader, pipe) = io::pipe().unwrap();
    (open(format!("/proc/self/fd/{}", pipe.as_raw_fd())), reader)
}

#[test]
fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_finds_no_room_is_counted() {
    let (mut journal, mut reader) = unread();
    let mut pushed = 0;
    while journal.writers[0].lost == 0 {
        journal.push(entry(pushed));
        pushed += 1;
        assert!(pushed < 10 * QUEUE_LEN as u64, "no bound");
    }
    let lost = journal.writers[0].lost;
    let read = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    let unwritten = journal.finish();
    let text = read.join().unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["ev"], "run.start");
    let sessions = lines[1..].iter().map(|line| line["sessions"].as_u64().unwrap());
    assert!(sessions.eq(0..pushed - lost), "those in the queue, in order");
    let shown = unwritten.unwrap();
    assert!(shown.starts_with(&format!("{lost} record")), "{shown}");
}

#[test]
fn records_of_many_that_end_at_once_wait_for_room_when_nobody_is_held_up_by_it() {
    let (mut journal, mut reader) = unread();
    while journal.writers[0].lost == 0 {
        journal.push(entry(0));
    }
    journal.be_patient();
    let read = thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    (0..2 * QUEUE_LEN as u64).for_each(|number| journal.push(entry(number)));
    let unwritten = journal.finish().unwrap();
    assert!(unwritten.starts_with("1 record is not whole"), "{unwritten}");
    read.join().unwrap().unwrap();
}

/// Its header and five lines.
#[test]
fn a_file_that_is_always_full_is_told_of_once_and_every_record_is_counted() {
    let mut journal = open("/dev/full".into());
    (0..5).for_each(|number| journal.push(entry(number)));
    assert_eq!(journal.finish().unwrap(), "6 records are not whole in /dev/full");
}

/// A manager may be killed at any moment.
#[test]
fn a_record_is_in_its_file_before_its_copy_is_beside_the_output() {
    let path = std::env::temp_dir().join(format!("pktxpmgr-copy-{}", std::process::id()));
    let mut record = whole_record(MletStatus::Code(0));
    // A pipe takes no more than a part of it at once.
    let long = "x".repeat(200_000);
    record.end.as_mut().unwrap().outcome = Outcome::NoExperiment(Some(long));
    let folder = path.join(folder_of(&record.facts));
    std::fs::create_dir_all(&folder).unwrap();
    let (mut reader, pipe) = io::pipe().unwrap();
    let events = vec![Destination::File(format!("/proc/self/fd/{}", pipe.as_raw_fd()).into())];
    let results = Some(Results { path: path.clone(), keep: Keep::All, layout: Layout::Folders });
    let recording = Recording { events, results, ..Recording::default() };
    let mut journal = Journal::open(&recording, Ticks(0), &Arc::default(), None).unwrap().unwrap();
    drop(pipe);
    journal.push(Entry::Session(Box::new(record), Ticks(0)));
    let mut newlines = 0;
    let mut byte = [0];
    while newlines == 0 || byte == *b"\n" {
        reader.read_exact(&mut byte).unwrap();
        newlines += usize::from(byte == *b"\n");
    }
    assert!(!folder.join("session.json").exists(), "its record has only begun to be written");
    let read = thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    assert_eq!(journal.finish(), None);
    read.join().unwrap().unwrap();
    assert!(folder.join("session.json").exists());
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn without_a_file_there_is_nothing_to_record() {
    assert!(
        Journal::open(&Recording::default(), Ticks(0), &Arc::default(), None).unwrap().is_none()
    );
}

/// What is told of results.
fn told_results() -> (crate::permits::Results, Receiver<(u64, bool)>) {
    let (tell, told) = sync_channel(2 * QUEUE_LEN);
    let results = move |session, result: Option<SessionResult>| {
        tell.send((session, result.is_some())).unwrap();
    };
    (Arc::new(results), told)
}

#[test]
fn a_result_whose_record_cannot_be_written_is_told_to_be_none() {
    let (results, told) = told_results();
    let events = vec![Destination::File("/dev/full".into())];
    let recording = Recording { events, ..Recording::default() };
    let opened = Journal::open(&recording, Ticks(0), &Arc::default(), Some(results));
    let mut journal = opened.unwrap().unwrap();
    let record = whole_record(MletStatus::Code(0));
    journal.push(Entry::Result(Box::new(record.clone()), Ticks(0)));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (record.facts.id, false));
    assert!(journal.finish().unwrap().starts_with("2 records"));
}

/// Where nothing of the session's output was to be kept, its result is one all the same.
#[test]
fn a_result_whose_output_is_not_kept_whole_is_told_to_be_none_and_is_not_in_the_journal() {
    let path = std::env::temp_dir().join(format!("pktxpmgr-doubtful-{}", std::process::id()));
    for (keep, is_result) in [(Keep::All, false), (Keep::Failed, true), (Keep::None, true)] {
        for output in [Output::Doubtful, Output::Lost] {
            std::fs::create_dir(&path).unwrap();
            let (results, told) = told_results();
            let file = path.join("events.jsonl");
            let kept = Results { path: path.clone(), keep, layout: Layout::Folders };
            let recording = Recording {
                events: vec![Destination::File(file.clone())],
                results: Some(kept),
                ..Recording::default()
            };
            let opened = Journal::open(&recording, Ticks(0), &Arc::default(), Some(results));
            let mut journal = opened.unwrap().unwrap();
            let mut record = whole_record(MletStatus::Code(0));
            (record.output, record.claim) = (output, Claim::Held(1));
            record.end.as_mut().unwrap().outcome = Outcome::MletEnded;
            journal.push(Entry::Result(Box::new(record.clone()), Ticks(0)));
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (record.facts.id, is_result));
            assert_eq!(journal.finish(), None);
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(text.contains("session.result"), is_result, "{keep:?} {output:?}");
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
}

#[test]
fn a_result_that_finds_no_room_is_told_to_be_none_and_each_other_is_handed_over() {
    let (results, told) = told_results();
    let (mut reader, pipe) = io::pipe().unwrap();
    let events = vec![Destination::File(format!("/proc/self/fd/{}", pipe.as_raw_fd()).into())];
    let recording = Recording { events, ..Recording::default() };
    let opened = Journal::open(&recording, Ticks(0), &Arc::default(), Some(results));
    let mut journal = opened.unwrap().unwrap();
    drop(pipe);
    let record = whole_record(MletStatus::Code(0));
    let mut pushed = 0;
    while journal.writers[0].lost < 3 {
        journal.push(Entry::Result(Box::new(record.clone()), Ticks(0)));
        pushed += 1;
        assert!(pushed < 10 * QUEUE_LEN, "no bound");
    }
    let read = thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    assert!(journal.finish().unwrap().starts_with("3 records"));
    read.join().unwrap().unwrap();
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told.len(), pushed, "of each");
    assert_eq!(told.iter().filter(|(_, is_some)| !is_some).count(), 3);
}

#[test]
fn a_result_is_handed_over_once_its_record_is_in_the_journal() {
    let path = std::env::temp_dir().join(format!("pktxpmgr-results-{}", std::process::id()));
    let events = vec![Destination::File(path.clone())];
    let (tell, told) = sync_channel(10);
    let read = path.clone();
    let results = Arc::new(move |session, result: Option<SessionResult>| {
        tell.send((session, result.unwrap(), std::fs::read_to_string(&read).unwrap())).unwrap();
    });
    let recording = Recording { events, ..Recording::default() };
    let opened = Journal::open(&recording, Ticks(0), &Arc::default(), Some(results));
    let mut journal = opened.unwrap().unwrap();
    let record = whole_record(MletStatus::Code(0));
    let with = |claim| Box::new(SessionRecord { claim, ..record.clone() });
    journal.push(Entry::Session(with(Claim::None), Ticks(0)));
    journal.push(Entry::Session(with(Claim::Lost(1)), Ticks(0)));
    journal.push(Entry::Session(with(Claim::GivenUp(1)), Ticks(0)));
    let mut doubtful = with(Claim::GivenUp(1));
    doubtful.output = Output::Doubtful;
    journal.push(Entry::Session(doubtful, Ticks(0)));
    journal.push(Entry::Result(with(Claim::Held(2)), Ticks(0)));
    let (session, result, in_journal) = told.recv_timeout(PATIENCE).unwrap();
    journal.push(Entry::Session(with(Claim::Refused(2)), Ticks(0)));
    assert_eq!(journal.finish(), None);
    assert!(told.try_recv().is_err(), "once, and nothing else");
    assert_eq!((session, &*result.outcome), (record.facts.id, "ok"));
    assert_eq!(in_journal.lines().last(), Some(&*result.record), "as it is in the journal");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let members = |line: Value| ["ev", "outcome", "reason"].map(|name| line[name].clone());
    let told: Vec<_> = lines.map(members).collect();
    let of_lost = "the lease of the campaign was lost before it had a result; it ended as ok";
    let of_given_up = "its record could not be written before, so the campaign has no result of it; it ended as ok";
    let of_doubtful =
        "its mlet's output may not be whole, so the campaign has no result of it; it ended as ok";
    let of_refused = "the campaign refused its result; it ended as ok";
    let expected = [
        ["session.end".into(), "ok".into(), Value::Null],
        ["session.end".into(), "duplicate".into(), of_lost.into()],
        ["session.end".into(), "duplicate".into(), of_given_up.into()],
        ["session.end".into(), "duplicate".into(), of_doubtful.into()],
        ["session.result".into(), "ok".into(), Value::Null],
        ["session.end".into(), "duplicate".into(), of_refused.into()],
    ];
    assert_eq!(told, expected);
    std::fs::remove_file(path).unwrap();
}
