//! A campaign that several managers share: real managers, a real PostgreSQL of the test's own.
//!
//! Not here: the database's part on its own (`engine/campaign/tests`), and whole campaigns with their proxies and fleets
//! (`loadtest/tests/hosts`). What each manager and role may do is in `shared_campaign/roles.rs`, how one takes the place of
//! another in `shared_campaign/takeover.rs`, what an owner is told who waits or is refused in `shared_campaign/owner.rs`, who is called in `shared_campaign/calls.rs`, and how sessions end before their
//! time in `shared_campaign/ends.rs`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../engine/campaign/tests/common/authority.rs"]
mod authority;
#[path = "shared_campaign/away.rs"]
mod away;
#[path = "shared_campaign/calls.rs"]
mod calls;
mod common;
#[path = "shared_campaign/ends.rs"]
mod ends;
#[path = "shared_campaign/owner.rs"]
mod owner;
#[path = "../../engine/campaign/tests/common/postgres.rs"]
mod postgres;
#[path = "shared_campaign/roles.rs"]
mod roles;
#[path = "common/shared.rs"]
mod shared;
#[path = "shared_campaign/takeover.rs"]
mod takeover;

use authority::Authority;
use common::endpoint::{Dial, End, Endpoint, Identity, NDATA, message};
use common::events::{assert_has_the_documented_form, outcomes};
use common::http;
use common::manager::{children_of, is_alive, wait_until, zoo};
use common::{Home, assert_says, run};
use nix::sys::signal::Signal;
use postgres::{Postgres, ServerCertificate};
use serde_json::{Value, json};
use shared::Rig;

/// It is served to its end.
fn is_measured(dial: &Dial) {
    let mut session = dial.session();
    session.send(&message(NDATA, b"exit 0"));
    assert_eq!(session.read_to_end().1, End::CloseNotify);
    session.close();
}

/// Whether it is served, and then does this.
fn may_be_measured(dial: &Dial, then: impl FnOnce(&mut Endpoint)) -> bool {
    let mut endpoint = dial.handshake();
    let is_served = endpoint.set_up().is_ok();
    if is_served {
        then(&mut endpoint);
    }
    endpoint.close();
    is_served
}

#[test]
#[ignore = "needs postgresql"]
fn two_managers_measure_each_endpoint_once_and_one_of_them_publishes() {
    let rig = Rig::new(&[]);
    let one = rig.manager(&["--out", "one", "--metrics", "0"]);
    let (other, metrics_at) = (rig.manager(&["--out", "other"]), http::metrics_address(&one));
    let (_publication, xpubs) = rig.broker.take_publication(2);
    let snikeys: Vec<_> = xpubs.iter().map(|xpub| xpub.value("sni_key")).collect();
    assert_eq!(snikeys, ["open", "hello"]);
    assert!(xpubs.iter().all(|xpub| xpub.value("controller_addr") == "192.0.2.1"));
    assert!(xpubs.iter().all(|xpub| xpub.value("round") == "1"));

    let endpoint = rig.identity();
    is_measured(&Dial::to(one.address).with(&endpoint));
    let records = rig.events("one").await_sessions(1);
    assert_has_the_documented_form(&records[0]);
    assert_eq!(outcomes(&records), ["ok"]);
    assert_eq!((&records[0]["campaign"], &records[0]["epoch"]), (&"c".into(), &1.into()));
    assert!(Dial::to(other.address).with(&endpoint).handshake().set_up().is_err(), "it is done");
    let keyless = Dial::to(other.address).asking(Some("open"));
    assert!(keyless.handshake().set_up().is_err(), "it has no key");
    let refused = rig.events("other").await_sessions(2);
    assert_eq!(outcomes(&refused), ["campaign_refused", "campaign_refused"]);
    assert_eq!(refused[0]["failed"], false);
    // They were served on one shard each, in whatever order these tell of it.
    let reasons: String = refused.iter().map(|record| record["reason"].to_string()).collect();
    assert_says(&reasons, &["refused START: done", "has shown no key"]);
    is_measured(&Dial::to(other.address).with(&rig.identity()));

    wait_until("both are counted", || rig.status()["done"] == 2);
    // By another manager than the one whose page it is, too.
    wait_until("views tell of both", || {
        http::metrics(metrics_at).get("pktxpmgr_campaign_endpoints{state=\"done\"}") == Some(&2.0)
    });
    assert_eq!(http::metrics(metrics_at)["pktxpmgr_campaign_managers"], 2.0);
    let results = rig.campaign("results", &[]).stdout;
    let results: Vec<Value> =
        results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|result| result["record"]["outcome"] == "ok"), "{results:?}");
    let stopped = rig.campaign("stop", &[]);
    assert_says(&stopped.stdout, &["the campaign is draining"]);
    for manager in [one, other] {
        let ended = manager.ends();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_says(&ended.stderr, &["the campaign is draining; no new endpoints"]);
    }
    let before = rig.status();
    assert_eq!((&before["state"], &before["outcomes"]), (&"over".into(), &json!({ "ok": 2 })));
    rig.postgres.sql("DELETE FROM pktlab.claim; DELETE FROM pktlab.manager");
    let imported = rig.campaign("import", &["one", "other"]);
    assert_says(&imported.stdout, &["the results of 2 endpoints are put back"]);
    let put_back = rig.campaign("results", &[]).stdout;
    let put_back = put_back.lines().map(|line| serde_json::from_str(line).unwrap());
    let put_back: Vec<Value> = put_back.collect();
    // By whom it was measured, and when: not when it was put back.
    let of_host = |result: &Value| (result["endpoint"].clone(), result["host"].clone());
    let sorted = |results: &[Value]| {
        let mut all: Vec<_> = results.iter().map(of_host).collect();
        all.sort_by_key(|(endpoint, _)| endpoint.to_string());
        all
    };
    assert_eq!(sorted(&put_back), sorted(&results));
    assert!(put_back.iter().all(|result| result["at"] == result["record"]["t"]), "{put_back:?}");
    let told = rig.campaign("status", &[]).stdout;
    let host = results[0]["host"].as_str().unwrap();
    assert_says(&told, &[&format!("{host} (imported)")]);
    assert_eq!(rig.status()["done"], before["done"]);
    let again = rig.campaign("import", &["one", "other"]);
    assert_says(
        &again.stdout,
        &["the results of 0 endpoints are put back; those of 2 the database had"],
    );
    assert_eq!(rig.campaign("forget", &[]).code, Some(0));
    assert_eq!(rig.campaign("status", &[]).code, Some(1), "there is none any more");
}

#[test]
#[ignore = "needs postgresql"]
fn who_drains_publishes_no_more_and_somebody_else_does() {
    let rig = Rig::new(&[]);
    let one = rig.manager(&["--out", "one", "--ctl", "ctl.sock"]);
    let (mut publication, _) = rig.broker.take_publication(2);
    let set =
        rig.home.bare_command().args(["ctl", "ctl.sock", "set", "sessions-max", "7"]).output();
    assert!(set.unwrap().status.success());
    wait_until("its places are known", || rig.status()["places"] == 7);
    let other = rig.manager(&["--out", "other", "--sessions-max", "5"]);
    wait_until("the other is there", || rig.status()["places"] == 12);
    let endpoint = rig.identity();
    let dial = Dial::to(one.address).with(&endpoint);
    let mut session = dial.session();
    one.signal(Signal::SIGINT);
    let (_publication, xpubs) = rig.broker.take_publication(2);
    assert!(xpubs.iter().all(|xpub| xpub.value("round") == "1"));
    assert!(publication.receive().is_err(), "it has been taken back");
    assert_eq!(rig.status()["places"], 5, "those that take endpoints");
    let set =
        rig.home.bare_command().args(["ctl", "ctl.sock", "set", "sessions-max", "9"]).output();
    assert!(set.unwrap().status.success());
    session.send(&message(NDATA, b"exit 0"));
    assert_eq!(session.read_to_end().1, End::CloseNotify);
    session.close();
    assert_eq!(one.ends().code, Some(0));
    assert_eq!(rig.status()["places"], 5, "one that drains has none, whatever its limit");
    other.signal(Signal::SIGINT);
    assert_eq!(other.ends().code, Some(0));
    assert_eq!(rig.status()["done"], 1);
}

#[test]
#[ignore = "needs postgresql"]
fn what_a_manager_ends_by_force_is_measured_by_another() {
    let rig = Rig::new(&[]);
    let [one, other] =
        ["one", "other"].map(|folder| rig.manager(&["--out", folder, "--cores", "1"]));
    let [ended, killed] = [rig.identity(), rig.identity()];
    is_measured(&Dial::to(one.address).with(&ended));
    rig.events("one").await_sessions(1);
    let dial = Dial::to(one.address).with(&killed);
    let mut session = dial.session();
    wait_until("its mlet runs", || children_of(one.supervisor()).len() == 1);
    one.signal(Signal::SIGINT);
    one.says("a second signal ends them");
    one.signal(Signal::SIGINT);
    session.read_to_end();
    session.close();
    assert_eq!(one.ends().code, Some(130));
    let sessions = rig.events("one").sessions();
    assert_eq!(outcomes(&sessions), ["ok", "killed"]);
    let status = rig.status();
    assert_eq!((&status["done"], &status["lost"]), (&1.into(), &1.into()), "{status}");
    is_measured(&Dial::to(other.address).with(&killed));
    let records = rig.events("other").await_sessions(1);
    assert_eq!((&records[0]["outcome"], &records[0]["epoch"]), (&"ok".into(), &2.into()));
    other.signal(Signal::SIGINT);
    assert_eq!(other.ends().code, Some(0));
    assert_eq!(rig.status()["done"], 2);
}

#[test]
#[ignore = "needs postgresql"]
fn a_count_is_that_of_all_managers_and_ends_them() {
    let rig = Rig::new(&["-n", "2"]);
    let managers = [rig.manager(&["--out", "one"]), rig.manager(&["--out", "other"])];
    for manager in &managers {
        is_measured(&Dial::to(manager.address).with(&rig.identity()));
    }
    for manager in managers {
        let ended = manager.ends();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_says(&ended.stderr, &["the campaign is over; no new endpoints"]);
    }
    assert_eq!(rig.status()["state"], "over");
}

#[test]
#[ignore = "needs postgresql"]
fn a_manager_without_a_database_ends_its_sessions_and_measures_again_when_it_is_back() {
    let mut rig = Rig::new(&[]);
    let manager = rig.manager(&["--out", "one"]);
    let endpoint = rig.identity();
    let dial = Dial::to(manager.address).with(&endpoint);
    let mut session = dial.session();
    wait_until("its mlet runs", || children_of(manager.supervisor()).len() == 1);
    let mlets = children_of(manager.supervisor());
    rig.postgres.kill();
    manager.says("the lease of the campaign was lost: 1 session and their mlets are being ended");
    session.read_to_end();
    session.close();
    wait_until("its mlet is gone", || !is_alive(mlets[0]));
    let records = rig.events("one").await_sessions(1);
    assert_eq!(outcomes(&records), ["killed"]);
    assert_says(records[0]["reason"].as_str().unwrap(), &["the lease of the campaign was lost"]);
    rig.postgres.start();
    manager.says("a member of the campaign again");
    // The one that was lost is free for it when its lease has run out by the server's clock.
    wait_until("the endpoint is measured again", || {
        may_be_measured(&dial, |endpoint| {
            endpoint.send(&message(NDATA, b"exit 0"));
            endpoint.read_to_end();
        })
    });
    wait_until("it is counted", || rig.status()["done"] == 1);
    manager.signal(Signal::SIGINT);
    assert_eq!(manager.ends().code, Some(0));
    // A session's end is written when the campaign has its result, and at the end of the run at the latest.
    let sessions = rig.events("one").sessions();
    let last = sessions.iter().find(|record| record["outcome"] == "ok").unwrap();
    assert_eq!(last["epoch"], 2, "it was taken before");
}

#[test]
fn a_password_in_the_address_is_refused_and_not_repeated() {
    let home = Home::new();
    for words in [
        &["campaign", "status", "postgres://u:secret7@h/d#n"][..],
        &["--campaign", "postgres://u:secret7@h/d#n", "--out", "one", "./mlet"],
    ] {
        let ended = run(home.bare_command().args(words));
        assert_eq!(ended.code, Some(2), "{words:?}: {}", ended.stderr);
        assert_says(&ended.stderr, &["must hold no password"]);
        assert!(!ended.stderr.contains("secret7"), "{}", ended.stderr);
    }
}

/// In every command and in a run.
#[test]
#[ignore = "needs postgresql, openssl"]
fn a_certificate_in_a_file_tells_the_database_who_asks() {
    let authority = Authority::new("shared-campaign");
    let (certificate, key) = authority.certify("db.example");
    let mut postgres = Postgres::over_tcp(Some(&ServerCertificate { certificate, key }));
    postgres.sql("CREATE ROLE lab SUPERUSER LOGIN");
    postgres.kill();
    let rules = "local all all trust\nhostssl all all 127.0.0.1/32 cert clientcert=verify-full\n";
    postgres.demand(rules, &authority.read("ca.pem"));
    postgres.start();
    let address = postgres.tcp_address("db.example", "c").replace("postgres@", "lab@");
    let root = ["--campaign-root", "ca.pem"];
    let access = ["--campaign-cert", "lab.pem", "--campaign-key", "lab.key"];
    let mlet = [zoo().to_str().unwrap().to_owned(), "obey".to_owned()].to_vec();
    let mut rig = Rig::at(Home::new(), mlet, postgres, address);
    rig.access = [&root[..], &access].concat();
    let (chain, key) = authority.certify_user("lab");
    let (_, others_key) = authority.certify_user("other");
    rig.home.write("ca.pem", &authority.read("ca.pem"));
    rig.home.write("lab.pem", &chain);
    rig.home.write("other.key", &others_key);
    rig.home.write("host.pem", &authority.certify("host").0);
    rig.home.write("lab.key", &key);
    let created = rig.create(&[]);
    assert_eq!(created.code, Some(0), "{}", created.stderr);
    assert_eq!(rig.status()["state"], "open");
    let manager = rig.manager(&["--out", "one"]);
    is_measured(&Dial::to(manager.address).with(&rig.identity()));
    wait_until("it is counted", || rig.status()["done"] == 1);
    rig.campaign("stop", &[]);
    assert_eq!(manager.ends().code, Some(0));

    rig.home.chmod("lab.key", 0o644);
    let refusals = [
        ("lab.pem", Some("lab.key"), 3, "--campaign-key lab.key: everybody may read or write it"),
        ("host.pem", Some("other.key"), 3, "--campaign-key other.key: it is not the key of the"),
        // Of a certificate of version 1 it is the database that tells.
        ("lab.pem", Some("other.key"), 4, "it is about the certificate that was shown, or its key"),
        ("lab.pem", Some("ca.pem"), 3, "--campaign-key ca.pem: it holds no private key in PEM"),
        ("other.key", Some("other.key"), 3, "--campaign-cert other.key: it holds no certificate"),
        ("lab.pem", None, 2, "--campaign-cert and --campaign-key go together"),
    ];
    for (certificate, key, code, why) in refusals {
        rig.access = [&root[..], &["--campaign-cert", certificate]].concat();
        rig.access.extend(key.into_iter().flat_map(|key| ["--campaign-key", key]));
        let refused = rig.campaign("status", &[]);
        assert_eq!(refused.code, Some(code), "{}", refused.stderr);
        assert_says(&refused.stderr, &[why]);
    }
    rig.access = root.to_vec();
    let refused = rig.campaign("status", &[]);
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert_says(&refused.stderr, &["connection requires a valid client certificate"]);
}
