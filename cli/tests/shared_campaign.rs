//! A campaign that several managers share: real managers, a real PostgreSQL of the test's own.
//!
//! Not here: the database's part on its own (`engine/campaign/tests`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "../../engine/campaign/tests/common/postgres.rs"]
mod postgres;

use std::process::Command;

use common::broker::Broker;
use common::endpoint::{Dial, End, Identity, NDATA, message};
use common::events::{Events, assert_has_the_documented_form, outcomes};
use common::http;
use common::manager::{Manager, children_of, is_alive, wait_until, zoo};
use common::{Ended, Home, PKTXPMGR, assert_says, run};
use nix::sys::signal::Signal;
use packetlab::key::PrivateKey;
use postgres::Postgres;
use serde_json::Value;

/// Two managers' home, with a broker that hears of its experiment and a database.
struct Rig {
    // The managers end before it does.
    home: Home,
    broker: Broker,
    postgres: Postgres,
    address: String,
}

impl Rig {
    /// With the campaign `c`, created with these options.
    fn new(options: &[&str]) -> Self {
        let home = Home::new();
        let broker = Broker::start(&PrivateKey::generate().unwrap());
        let experiments = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\n\
                           ExpExec 0:open:exppriv.cert,pubcmd.cert::0a:\n";
        home.write("xpmgr.conf", home.publishing(&broker, experiments).as_bytes());
        let postgres = Postgres::new();
        let address = postgres.address("c");
        let rig = Self { home, broker, postgres, address };
        let zoo = zoo();
        let mut words = vec!["-c", "xpmgr.conf", "-p", "192.0.2.1", "--lease", "2s"];
        words.extend(options);
        words.extend([zoo.to_str().unwrap(), "obey"]);
        let created = rig.campaign("create", &words);
        assert_eq!(created.code, Some(0), "{}", created.stderr);
        rig
    }

    /// Runs a command of the campaign.
    fn campaign(&self, name: &str, words: &[&str]) -> Ended {
        let mut command = Command::new(PKTXPMGR);
        command.current_dir(self.home.path("")).args(["campaign", name, &self.address]).args(words);
        run(&mut command)
    }

    fn manager(&self, options: &[&str]) -> Manager {
        let shared = ["--campaign", &*self.address];
        self.home.start(&[&shared[..], options].concat(), &["obey"])
    }

    fn status(&self) -> Value {
        let told = self.campaign("status", &["--json"]);
        serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{}", told.stderr))
    }

    fn identity(&self) -> Identity {
        Identity::of(&self.home.keys.operator)
    }

    fn events(&self, folder: &str) -> Events {
        Events::of_results(&self.home, folder)
    }
}

/// It is served to its end.
fn is_measured(dial: &Dial) {
    let mut session = dial.session();
    session.send(&message(NDATA, b"exit 0"));
    assert_eq!(session.read_to_end().1, End::CloseNotify);
    session.close();
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
    rig.postgres.sql("DELETE FROM pktlab.claim");
    let imported = rig.campaign("import", &["one", "other"]);
    assert_says(&imported.stdout, &["2 results are put back"]);
    let results_again = rig.campaign("results", &[]).stdout;
    assert_eq!(results_again.lines().count(), 2);
    assert_eq!(rig.status()["done"], before["done"]);
    let again = rig.campaign("import", &["one", "other"]);
    assert_says(&again.stdout, &["0 results are put back; of 2 the database knew"]);
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
    let [one, other] = ["one", "other"].map(|folder| rig.manager(&["--out", folder]));
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
        let mut endpoint = dial.handshake();
        let is_served = endpoint.set_up().is_ok();
        if is_served {
            endpoint.send(&message(NDATA, b"exit 0"));
            endpoint.read_to_end();
        }
        endpoint.close();
        is_served
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
#[ignore = "needs postgresql"]
fn a_manager_that_would_measure_something_else_is_refused_with_the_differences() {
    let rig = Rig::new(&[]);
    let mut command = rig.home.command();
    command.args(["--campaign", &rig.address, "--out", "one"]).arg(zoo()).arg("exit");
    let ended = run(&mut command);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_says(
        &ended.stderr,
        &["--campaign: the campaign was created with something else", "arguments"],
    );
    assert!(!rig.home.path("one").exists(), "nothing is left of a run that could not begin");
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
