//! How sessions of a campaign end before their time, and what becomes of their results.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use common::disk;
use common::manager::Manager;

use super::*;

#[test]
#[ignore = "needs postgresql"]
fn a_campaign_that_is_halted_ends_its_sessions_and_managers_and_measures_nobody() {
    let rig = Rig::new(&[]);
    let manager = rig.manager(&["--out", "one"]);
    let dial = Dial::to(manager.address).with(&rig.identity());
    let mut session = dial.session();
    wait_until("its mlet runs", || children_of(manager.supervisor()).len() == 1);
    let halted = rig.campaign("halt", &[]);
    assert_eq!((halted.code, &*halted.stdout), (Some(0), "the campaign is halted\n"));
    session.read_to_end();
    session.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    assert_says(&ended.stderr, &["the campaign is halted: ending every session and mlet"]);
    assert_eq!(outcomes(&rig.events("one").sessions()), ["killed"]);
    let status = rig.status();
    assert_eq!((&status["state"], &status["done"]), (&"over".into(), &0.into()), "{status}");
    let late = run(&mut rig.command(&["--campaign", &rig.address, "--out", "late"]));
    assert_eq!(late.code, Some(3), "{}", late.stderr);
    assert_says(&late.stderr, &["--campaign: the campaign was halted"]);
}

/// Half of what is left of a lease of 2 s is 0.2 s, and the graces are 2.5 s.
#[test]
#[ignore = "needs postgresql"]
fn a_mlet_that_heeds_nothing_does_not_outlive_the_lease_of_its_manager() {
    let mut rig = Rig::of(Home::new(), &[zoo().to_str().unwrap(), "stubborn"], &[]);
    let manager = rig.manager(&["--out", "one"]);
    let dial = Dial::to(manager.address).with(&rig.identity());
    let mut session = dial.session();
    assert_eq!(session.text(), "try me", "it heeds nothing from now on");
    let mlets = children_of(manager.supervisor());
    rig.postgres.kill();
    manager.says("the lease of the campaign was lost: 1 session ");
    let outlived = wait_until("its mlet is gone", || !is_alive(mlets[0]));
    assert!(outlived < Duration::from_secs(2), "{outlived:?}");
    session.read_to_end();
    session.close();
    assert_eq!(outcomes(&rig.events("one").await_sessions(1)), ["killed"]);
}

/// The second manager measures it meanwhile, and its result is the one that counts: also in the folders that are merged.
#[test]
#[ignore = "needs postgresql"]
fn with_fence_finish_a_session_goes_on_without_its_lease_and_its_result_is_a_duplicate() {
    let mut rig = Rig::new(&[]);
    let one = rig.manager(&["--out", "one", "--fence", "finish"]);
    let other = rig.manager(&["--out", "other"]);
    let endpoint = rig.identity();
    let dial = Dial::to(one.address).with(&endpoint);
    let mut session = dial.session();
    wait_until("its mlet runs", || children_of(one.supervisor()).len() == 1);
    let mlets = children_of(one.supervisor());
    rig.postgres.kill();
    one.says("sessions that run may end, and their results may be refused (--fence finish)");
    rig.postgres.start();
    one.says("a member of the campaign again");
    other.says("a member of the campaign again");
    wait_until("its endpoint is free", || rig.status()["lost"] == 1);
    is_measured(&Dial::to(other.address).with(&endpoint));
    wait_until("it is counted", || rig.status()["done"] == 1);
    assert!(is_alive(mlets[0]), "it goes on");
    session.send(&message(NDATA, b"exit 0"));
    assert_eq!(session.read_to_end().1, End::CloseNotify);
    session.close();
    let records = rig.events("one").await_sessions(1);
    assert_has_the_documented_form(&records[0]);
    assert_eq!((outcomes(&records), &records[0]["epoch"]), (vec!["duplicate"], &1.into()));
    assert_says(records[0]["reason"].as_str().unwrap(), &["the campaign refused its result"]);
    assert_eq!(one.said("as it no longer held the endpoint"), 1);
    assert_eq!(rig.campaign("stop", &[]).code, Some(0));
    for manager in [one, other] {
        assert_eq!(manager.ends().code, Some(0));
    }
    let merged = rig.campaign("merge", &["--out", "merged", "one", "other"]);
    assert_eq!((merged.code, &*merged.stderr), (Some(0), ""));
    assert_says(&merged.stdout, &["1 of 1 accepted results are merged into merged"]);
    let records = rig.events("merged").sessions();
    assert_eq!((outcomes(&records), &records[0]["epoch"]), (vec!["ok"], &2.into()));
}

/// The first manager's disk is full, on which the mlet's files are: whoever reads its records could not tell.
#[test]
#[ignore = "needs postgresql"]
fn a_result_whose_output_may_not_be_whole_is_none_and_another_manager_measures_the_endpoint() {
    let rig = Rig::of(Home::new(), &[zoo().to_str().unwrap(), "speak"], &[]);
    disk::mount(&rig.home.path("one/sessions"), "8m");
    // A folder of something else is refused; here no run has come to sessions yet.
    rig.home.write("one/run.json", br#"{"v":1,"runs":[]}"#);
    let one = rig.manager(&["--out", "one"]);
    let other = rig.manager(&["--out", "other"]);
    let endpoint = rig.identity();
    let speaks = |manager: &Manager| {
        let dial = Dial::to(manager.address).with(&endpoint);
        let mut session = dial.session();
        session.send(&message(NDATA, &vec![b'1'; 9 << 20]));
        let told = session.text();
        session.close();
        session.read_to_end();
        told
    };
    assert_eq!(speaks(&one), "No space left on device (os error 28)");
    one.says("its mlet's output may not be whole, so the campaign has no result of it");
    one.says("a record or a mlet's output could not be kept (is the disk full?)");
    let ended = one.ends();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    let status = rig.status();
    assert_eq!((&status["done"], &status["given_back"]), (&0.into(), &1.into()), "{status}");
    let records = rig.events("one").all();
    assert!(records.iter().all(|record| record["ev"] != "session.result"), "none to be imported");
    let records = rig.events("one").sessions();
    assert_eq!(outcomes(&records), ["duplicate"]);
    assert_says(records[0]["reason"].as_str().unwrap(), &["its mlet's output may not be whole"]);
    assert_eq!(speaks(&other), "done");
    wait_until("it is counted", || rig.status()["done"] == 1);
    assert_eq!(other.interrupted().code, Some(0));
    let records = rig.events("other").sessions();
    assert_eq!((&records[0]["epoch"], outcomes(&records)), (&2.into(), vec!["endpoint_closed"]));
}

/// Ten sessions are open when the disk is filled.
#[test]
#[ignore = "needs postgresql"]
fn a_manager_whose_disk_is_full_measures_nobody_any_more() {
    let rig = Rig::new(&[]);
    disk::mount(&rig.home.path("one"), "8m");
    let manager = rig.manager(&["--out", "one"]);
    is_measured(&Dial::to(manager.address).with(&rig.identity()));
    wait_until("there is room, and it is counted", || rig.status()["done"] == 1);
    let identities = [(); 10].map(|()| rig.identity());
    let dials = identities.each_ref().map(|identity| Dial::to(manager.address).with(identity));
    let mut sessions = dials.each_ref().map(Dial::session);
    let filled = fs::write(rig.home.path("one/filler"), vec![0; 8 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let end = |session: &mut Endpoint| {
        session.send(&message(NDATA, b"exit 0"));
        assert_eq!(session.read_to_end().1, End::CloseNotify);
        session.close();
    };
    end(&mut sessions[0]);
    manager.says("a record or a mlet's output could not be kept (is the disk full?)");
    wait_until("nobody is let in", || TcpStream::connect(manager.address).is_err());
    sessions[1..].iter_mut().for_each(end);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    let status = rig.status();
    let counts = ["done", "given_back", "lost", "running", "claims"].map(|name| &status[name]);
    assert_eq!(counts, [1, 10, 0, 0, 11], "{status}");
}

#[test]
#[ignore = "needs postgresql"]
fn a_manager_that_was_shut_out_of_its_campaign_says_why_in_its_last_line() {
    let rig = Rig::new(&[]);
    let manager = rig.manager(&["--out", "one"]);
    rig.postgres.sql("DELETE FROM pktlab.campaign");
    let ended = manager.ends();
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    let told = "FATAL: ended by force: --campaign: there is no campaign c in the database: create it first";
    assert_says(last, &[told]);
}
