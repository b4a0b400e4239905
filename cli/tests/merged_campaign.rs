//! `pktxpmgr campaign merge`, `import` after a loss, and whose folder a manager takes: real managers and a real PostgreSQL.
//!
//! Not here: a campaign while it goes on (`shared_campaign.rs`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "../../engine/campaign/tests/common/postgres.rs"]
mod postgres;
#[path = "common/shared.rs"]
mod shared;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::endpoint::{Dial, End, Identity};
use common::events::outcomes;
use common::manager::{Manager, children_of, kill_hard, wait_until};
use common::{Ended, Home, PKTXPMGR, assert_says, run};
use nix::sys::signal::Signal;
use serde_json::Value;
use shared::Rig;

/// Says for whom it runs on both streams, and waits for its session while there is a file `hold`.
const MLET: &[u8] = b"#!/bin/sh
echo \"out $PKTLAB_ENDPOINT_KEY\"
echo \"err $PKTLAB_ENDPOINT_KEY\" >&2
echo \"more $PKTLAB_ENDPOINT_KEY\"
test -e hold && head -c 1
exit 0
";

fn rig() -> Rig {
    let home = Home::new();
    home.write("script", MLET);
    home.chmod("script", 0o700);
    Rig::of(home, &["./script", "argument"], &[])
}

fn key(identity: &Identity) -> String {
    identity.chain[0].subject_key_id.to_string()
}

/// Measures an endpoint to its end.
fn measure(manager: &Manager, identity: &Identity) {
    let mut session = Dial::to(manager.address).with(identity).session();
    assert_eq!(session.read_to_end().1, End::CloseNotify);
    session.close();
}

fn is_refused(manager: &Manager, identity: &Identity) {
    assert!(Dial::to(manager.address).with(identity).handshake().set_up().is_err());
}

/// Stops the campaign, and waits until these have left.
fn stop(rig: &Rig, managers: Vec<Manager>) {
    assert_eq!(rig.campaign("stop", &[]).code, Some(0));
    for manager in managers {
        let ended = manager.ends();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

/// A campaign that two managers have measured. The folder `one` has two runs, of which the first was killed within a session;
/// `other` has that endpoint's result, and its output in a file of all sessions. The keys of the four endpoints.
fn measured(rig: &Rig) -> Vec<String> {
    let endpoints = [(); 4].map(|()| rig.identity());
    let one = rig.manager(&["--out", "one"]);
    let other = rig.manager(&["--out", "other", "--stream"]);
    measure(&one, &endpoints[0]);
    measure(&other, &endpoints[1]);
    rig.home.write("hold", b"");
    let dial = Dial::to(one.address).with(&endpoints[2]);
    let mut session = dial.session();
    wait_until("its mlet runs", || children_of(one.supervisor()).len() == 1);
    kill_hard(one.pid());
    session.read_to_end();
    session.close();
    drop(one);
    fs::remove_file(rig.home.path("hold")).unwrap();
    wait_until("it is lost", || rig.status()["lost"] == 1);
    measure(&other, &endpoints[2]);
    is_refused(&other, &endpoints[0]);
    let one = rig.manager(&["--out", "one"]);
    measure(&one, &endpoints[3]);
    wait_until("all are done", || rig.status()["done"] == 4);
    stop(rig, vec![one, other]);
    endpoints.iter().map(key).collect()
}

fn tool(rig: &Rig, words: &[&str]) -> Ended {
    run(Command::new(PKTXPMGR).current_dir(rig.home.path("")).args(words))
}

fn says(rig: &Rig, words: &[&str]) -> String {
    let ended = tool(rig, words);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{words:?}");
    ended.stdout
}

fn runs(rig: &Rig, folder: &str) -> Vec<Value> {
    let bytes = fs::read(rig.home.path(folder).join("run.json")).unwrap();
    let file: Value = serde_json::from_slice(&bytes).unwrap();
    file["runs"].as_array().unwrap().clone()
}

/// The folder holds what these endpoints' mlets wrote, and nothing else counts in it.
fn assert_holds(rig: &Rig, folder: &str, keys: &[String]) {
    let sessions = rig.events(folder).sessions();
    assert_eq!(outcomes(&sessions), vec!["ok"; keys.len()]);
    let numbers: Vec<_> = sessions.iter().map(|record| record["sid"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=keys.len() as u64).collect::<Vec<_>>());
    let measured: BTreeSet<_> =
        sessions.iter().map(|record| record["ep"]["key"].as_str().unwrap()).collect();
    assert_eq!(measured, keys.iter().map(String::as_str).collect());
    for key in keys {
        let short = &key[..16];
        let said = says(rig, &["results", "cat", folder, "--key", short]);
        assert_eq!(said, format!("out {key}\nmore {key}\n"));
        let said = says(rig, &["results", "cat", folder, "--key", short, "--stderr"]);
        assert_eq!(said, format!("err {key}\n"));
    }
    let said = says(rig, &["results", "stats", folder]);
    let counts = format!("{0} sessions of {0} endpoints: {0} ok, 0 failed", keys.len());
    assert_says(&said, &[&counts]);
    assert_says(&says(rig, &["report", folder]), &[&format!("{} sessions", keys.len())]);
}

#[test]
#[ignore = "needs postgresql"]
fn folders_of_managers_become_one_that_is_read_and_gone_on_with() {
    let rig = rig();
    let keys = measured(&rig);
    let linked = |rig: &Rig, folder: &str| {
        let records = rig.events(folder).sessions();
        let dirs = records.iter().filter_map(|record| record["output"]["dir"].as_str());
        let dirs = dirs.map(|dir| rig.home.path(folder).join(dir).join("stdout"));
        dirs.map(|file| fs::metadata(file).unwrap().nlink()).collect::<Vec<_>>()
    };
    let merged = rig.campaign("merge", &["--out", "merged", "one", "other"]);
    assert_eq!((merged.code, &*merged.stderr), (Some(0), ""));
    assert_eq!(merged.stdout, "4 of 4 accepted results are merged into merged\n");
    assert_eq!(linked(&rig, "merged"), [2, 2], "two sessions have files of their own");
    // A folder that was merged may take the place of those it is of, twice or beside them.
    let again = ["--out", "again", "other", "merged", "merged"];
    assert_says(&rig.campaign("merge", &again).stdout, &["4 of 4 accepted results"]);
    for gone in ["one", "other"] {
        fs::remove_dir_all(rig.home.path(gone)).unwrap();
    }
    assert_holds(&rig, "merged", &keys);
    assert_holds(&rig, "again", &keys);
    for record in rig.events("merged").sessions() {
        assert!(record["sid_before"].is_u64() && record["campaign"] == "c", "{record}");
        if let Some(dir) = record["output"]["dir"].as_str() {
            let copy = rig.home.path("merged").join(dir).join("session.json");
            let copy: Value = serde_json::from_slice(&fs::read(copy).unwrap()).unwrap();
            assert_eq!(copy, record);
        }
    }
    let of_runs = runs(&rig, "merged");
    let counts = of_runs.iter().map(|run| run["counts"].to_string()).collect::<Vec<_>>();
    assert_eq!(
        counts,
        ["null", "{\"ok\":2}", "{\"ok\":1}"],
        "of a run that was killed nothing is known"
    );
    let from = of_runs[0]["merged_from"].as_str().unwrap();
    assert!(from.ends_with("/one") && of_runs[2]["merged_from"] == from, "{from}");

    rig.postgres.sql("DELETE FROM pktlab.claim");
    let imported = rig.campaign("import", &["merged"]);
    assert_eq!(
        imported.stdout,
        "the results of 4 endpoints are put back; those of 0 the database had\n"
    );

    let manager = Manager::start(&rig.home, rig.command(&["--resume", "merged"]));
    let known = rig.events("merged").sessions();
    let new = rig.identity();
    measure(&manager, &new);
    manager.signal(Signal::SIGINT);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["with earlier runs: 5 sessions ok"]);
    assert!(!ended.stderr.contains("run.json counts"), "{}", ended.stderr);
    let sessions = rig.events("merged").sessions();
    assert_eq!(sessions[..4], known, "what was there stays");
    assert_eq!(sessions[4]["ep"]["key"], key(&new), "numbers go on");
}

#[test]
#[ignore = "needs postgresql"]
fn what_a_merge_lacks_is_told_and_the_rest_is_merged() {
    let rig = rig();
    let keys = measured(&rig);
    let merge =
        |out: &str, folders: &[&str]| rig.campaign("merge", &[&["--out", out], folders].concat());
    rig.home.make_directory("used");
    rig.home.write("used/notes", b"mine");
    let refused = merge("used", &["one", "other"]);
    assert_eq!(refused.code, Some(3));
    assert_says(&refused.stderr, &["used: it is not empty"]);
    assert_eq!(fs::read_dir(rig.home.path("used")).unwrap().count(), 1, "it is as it was");
    let refused = merge("one", &["other"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(3), ""));
    assert_says(&refused.stderr, &["one: it holds results already; name a new folder"]);
    for within in ["one", "one/sub/merged", "other/../one/merged"] {
        let refused = merge(within, &["other", "one"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{}", refused.stderr);
        assert_says(&refused.stderr, &["lies in one, which is one of the folders to merge"]);
    }
    assert!(!rig.home.path("one/sub").exists() && !rig.home.path("one/merged").exists());

    let part = merge("part", &["one", "nowhere"]);
    assert_eq!(part.code, Some(1));
    assert_says(&part.stdout, &["2 of 4 accepted results are merged into part"]);
    let missing = &keys[1].as_str().min(&keys[2])[..12];
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let told = format!(
        "{}: 2 accepted results in none of these folders: endpoint {missing}, ",
        host.trim()
    );
    let lacks = "not all is in part: 2 missing results, 1 refused folder";
    assert_says(&part.stderr, &["nowhere: there is no such folder", &told, lacks]);
    assert_eq!(rig.events("part").sessions().len(), 2);

    // A record that is not the accepted one, and an output that was cut.
    let events = rig.home.path("one/events.jsonl");
    let text = fs::read_to_string(&events).unwrap();
    let result = text.lines().find(|line| line.contains("session.result")).unwrap();
    let other = result.replace("\"exit\":0", "\"exit\":9");
    fs::write(&events, text.replace(result, &other)).unwrap();
    let records = rig.events("one").sessions();
    let last = records.iter().rfind(|record| record["outcome"] == "ok").unwrap();
    let cut = format!("one/{}/stdout", last["output"]["dir"].as_str().unwrap());
    OpenOptions::new().write(true).open(rig.home.path(&cut)).unwrap().set_len(3).unwrap();
    let part = merge("changed", &["one", "other"]);
    assert_eq!(part.code, Some(1));
    let told = [
        &format!("{cut}: it has 3 bytes, and its record says "),
        "1 accepted result only with a record that is not the one that was accepted: endpoint ",
        "not all is in changed: 1 missing result, 1 damaged output",
    ];
    assert_says(&part.stderr, &told);
    assert_eq!(rig.events("changed").sessions().len(), 3);
    assert_eq!(merge("none", &["nowhere"]).code, Some(3));
    assert!(!rig.home.path("none").exists(), "nothing is made of nothing");
}

#[test]
#[ignore = "needs postgresql"]
fn a_campaign_of_the_same_name_is_another_unless_it_is_created_as_the_lost_one() {
    let rig = rig();
    let endpoint = rig.identity();
    let manager = rig.manager(&["--out", "one"]);
    measure(&manager, &endpoint);
    wait_until("it is counted", || rig.status()["done"] == 1);
    stop(&rig, vec![manager]);
    let created = runs(&rig, "one")[0]["campaign"]["created"].as_str().unwrap().to_owned();
    assert_eq!(rig.campaign("forget", &[]).code, Some(0));
    assert_eq!(rig.create(&[]).code, Some(0));
    let hint = format!("if the database has lost that one, create it with --created {created}");
    let told = ["one: it holds a run of a campaign c that was created at ", &*hint];
    let imported = rig.campaign("import", &["one"]);
    assert_eq!((imported.code, imported.stdout.as_str()), (Some(3), ""));
    assert_says(&imported.stderr, &told);
    assert_eq!(rig.status()["done"], 0);
    let merged = rig.campaign("merge", &["--out", "merged", "one"]);
    assert_eq!(merged.code, Some(3));
    assert_says(&merged.stderr, &told);
    let before = fs::read(rig.home.path("one/run.json")).unwrap();
    let refused = run(&mut rig.command(&["--campaign", &rig.address, "--out", "one"]));
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert_says(&refused.stderr, &["cannot write results to ", &*hint, "; name another folder"]);
    assert_eq!(fs::read(rig.home.path("one/run.json")).unwrap(), before, "it is as it was");
    wait_until("who was refused has left", || rig.campaign("forget", &[]).code == Some(0));

    for (time, why) in [("yesterday", "as run.json has it"), ("2100-01-01T00:00:00Z", "later than")]
    {
        let odd = rig.create(&["--created", time]);
        assert_eq!(odd.code, Some(2), "{}", odd.stderr);
        assert_says(&odd.stderr, &[why]);
    }
    assert_eq!(rig.create(&["--created", &created]).code, Some(0));
    assert_says(&rig.campaign("import", &["one"]).stdout, &["the results of 1 endpoint are put"]);
    let manager = rig.manager(&["--out", "one"]);
    is_refused(&manager, &endpoint);
    stop(&rig, vec![manager]);
}

#[test]
#[ignore = "needs postgresql"]
fn a_manager_takes_no_folder_of_another_campaign_or_of_a_run_without_one() {
    let rig = rig();
    let manager = Manager::start(&rig.home, rig.command(&["--out", "alone"]));
    manager.signal(Signal::SIGINT);
    assert_eq!(manager.ends().code, Some(0));
    let manager = rig.manager(&["--out", "shared"]);
    manager.signal(Signal::SIGINT);
    assert_eq!(manager.ends().code, Some(0));
    let other = rig.address.replace("#c", "#other");
    for (address, folder, why) in [
        (&rig.address, "alone", "it holds a run that was of no campaign; name another folder"),
        (
            &other,
            "shared",
            "it holds a run of the campaign c and not of other; name another folder",
        ),
    ] {
        let before = fs::read(rig.home.path(folder).join("run.json")).unwrap();
        for options in [&[][..], &["--check"]] {
            let shared = ["--campaign", address, "--out", folder];
            let ended = run(&mut rig.command(&[options, &shared].concat()));
            assert_eq!(ended.code, Some(3), "{}", ended.stderr);
            assert_says(&ended.stderr, &["cannot write results to ", why]);
        }
        assert_eq!(fs::read(rig.home.path(folder).join("run.json")).unwrap(), before);
    }
    let merged = rig.campaign("merge", &["--out", "merged", "alone"]);
    assert_eq!(merged.code, Some(3));
    assert_says(&merged.stderr, &["alone: it holds a run that was of no campaign\n"]);
}

/// Twice in one folder, and once in each of the other: an endpoint is counted once.
#[test]
#[ignore = "needs postgresql"]
fn lines_that_are_no_records_are_told_and_the_rest_is_merged_and_put_back() {
    let rig = rig();
    let keys = measured(&rig);
    let events = rig.home.path("one/events.jsonl");
    let text = fs::read_to_string(&events).unwrap();
    let end = text.lines().rfind(|line| line.contains("\"run.end\"")).unwrap();
    let odd_end = end.replacen('{', "{\"odd\":1e400,", 1);
    let result = text.lines().find(|line| line.contains("\"session.result\"")).unwrap();
    let odd_result = result.replacen('{', "{\"odd\":\"\\ud800\",", 1);
    let more =
        format!("{odd_result}\n{{\"v\":1,\"ev\":\"sess\nof another program\n{result}\n{{\"v\":1");
    fs::write(&events, text.replace(end, &odd_end) + &more).unwrap();
    let number = |line: &str| 1 + text.lines().position(|one| one == line).unwrap();
    let last = text.lines().count();
    let told = [
        (number(end), "its JSON cannot be read: number out of range"),
        (last + 1, "its JSON cannot be read: unexpected end of hex escape"),
        (last + 2, "it is no JSON"),
        (last + 3, "it is no JSON object"),
        (last + 5, "it has no end yet, or was torn when its manager was killed"),
    ];
    let told = told.map(|(number, why)| {
        format!("pktxpmgr: one/events.jsonl: line {number} is passed over: {why}\n")
    });
    let merged = rig.campaign("merge", &["--out", "merged", "one", "other"]);
    assert_eq!((merged.code, merged.stderr), (Some(0), told.concat()));
    assert_eq!(merged.stdout, "4 of 4 accepted results are merged into merged\n");
    assert_holds(&rig, "merged", &keys);

    rig.postgres.sql("DELETE FROM pktlab.claim");
    for put_back in [
        "the results of 4 endpoints are put back; those of 0 the database had\n",
        "the results of 0 endpoints are put back; those of 4 the database had\n",
    ] {
        let imported = rig.campaign("import", &["one", "other", "merged"]);
        assert_eq!((imported.code, &*imported.stderr), (Some(0), &*told.concat()));
        assert_eq!(imported.stdout, put_back);
    }

    // Of a result in a merged folder it is the line behind it that says where its output is.
    let events = rig.home.path("merged/events.jsonl");
    let text = fs::read_to_string(&events).unwrap();
    let end = text.lines().find(|line| line.contains("\"session.end\"")).unwrap();
    fs::write(&events, text.replace(end, "torn")).unwrap();
    let again = rig.campaign("merge", &["--out", "again", "merged"]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    let told =
        ["is passed over: it is no JSON object", "no output of session ", "1 damaged output"];
    assert_says(&again.stderr, &told);
    assert_says(&again.stdout, &["4 of 4 accepted results"]);
    fs::write(&events, "torn\n").unwrap();
    let rest = rig.campaign("merge", &["--out", "rest", "merged", "one"]);
    assert_eq!(rest.code, Some(1), "{}", rest.stderr);
    let told = ["no line of it is a record of pktxpmgr", "2 missing results, 1 refused folder"];
    assert_says(&rest.stderr, &told);
    assert_says(&rest.stdout, &["2 of 4 accepted results"]);
    let imported = rig.campaign("import", &["one", "merged"]);
    assert_eq!((imported.code, &*imported.stdout), (Some(3), ""));
}

#[test]
#[ignore = "needs postgresql"]
fn folders_of_other_arguments_are_neither_merged_nor_put_back() {
    let rig = rig();
    let manager = rig.manager(&["--out", "one"]);
    measure(&manager, &rig.identity());
    wait_until("it is counted", || rig.status()["done"] == 1);
    stop(&rig, vec![manager]);
    let created = rig.status()["created"].as_str().unwrap().to_owned();
    rig.postgres.sql("UPDATE pktlab.campaign SET argv = '{argument,more}'");
    let told = [
        "one: it holds a run of the mlet with other arguments, which are [\"argument\"] and not \
         [\"argument\",\"more\"]",
        &format!(
            "remove it with `forget`, and create it with those of the run and --created {created}"
        ),
    ];
    for (name, words) in [("import", &["one"][..]), ("merge", &["--out", "merged", "one"])] {
        let refused = rig.campaign(name, words);
        assert_eq!((refused.code, &*refused.stdout), (Some(3), ""), "{}", refused.stderr);
        assert_says(&refused.stderr, &told);
    }
    // What is said to do can be done.
    assert_eq!(rig.campaign("forget", &[]).code, Some(0));
    assert_eq!(rig.create(&["--created", &created]).code, Some(0));
    assert_says(&rig.campaign("import", &["one"]).stdout, &["the results of 1 endpoint are put"]);
    // A run that was of no campaign in the same folder is passed over, and that is told.
    let alone = Manager::start(&rig.home, rig.command(&["--resume", "one"]));
    alone.signal(Signal::SIGINT);
    assert_eq!(alone.ends().code, Some(0));
    let again = rig.campaign("import", &["one"]);
    assert_says(&again.stdout, &["those of 1 the database had"]);
    assert_says(
        &again.stderr,
        &["one: 1 run in it passed over: it holds a run that was of no campaign"],
    );
}

/// Of the folder nothing else is said than what can be done: in a campaign nobody goes on with another mlet.
#[test]
#[ignore = "needs postgresql"]
fn a_folder_of_a_campaign_that_was_removed_is_refused_as_that_and_not_for_its_mlet() {
    let rig = rig();
    let manager = rig.manager(&["--out", "one"]);
    measure(&manager, &rig.identity());
    wait_until("it is counted", || rig.status()["done"] == 1);
    stop(&rig, vec![manager]);
    let created = rig.status()["created"].as_str().unwrap().to_owned();
    assert_eq!(rig.campaign("forget", &[]).code, Some(0));
    rig.home.write("script", [MLET, b"# another\n"].concat().as_slice());
    let before = fs::read(rig.home.path("one/run.json")).unwrap();
    let refused = |options: &[&str], told: &[&str]| {
        let words = [&["--campaign", &*rig.address, "--out", "one"], options].concat();
        let refused = run(&mut rig.command(&words));
        assert_eq!(refused.code, Some(3), "{}", refused.stderr);
        assert_says(&refused.stderr, told);
        assert!(!refused.stderr.contains("--resume-anyway"), "{}", refused.stderr);
        assert_eq!(fs::read(rig.home.path("one/run.json")).unwrap(), before, "it is as it was");
    };
    let of_lost = format!("one is of one that was created at {created} (if the database has lost");
    refused(&[], &["there is no campaign c in the database: create it first; ", &of_lost]);
    assert_eq!(rig.create(&[]).code, Some(0));
    let of_other =
        format!("it holds a run of a campaign c that was created at {created}, and the one");
    refused(&[], &[&of_other, "; name another folder"]);
    wait_until("who was refused has left", || rig.campaign("forget", &[]).code == Some(0));
    assert_eq!(rig.create(&["--created", &created]).code, Some(0));
    refused(&[], &["another mlet ran before: its SHA-256 was ", "; name another folder"]);
    refused(&["--check"], &["another mlet ran before: its SHA-256 was ", "; name another folder"]);
}
