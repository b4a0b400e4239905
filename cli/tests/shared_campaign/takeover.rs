//! What becomes of a campaign when a manager is killed or loses the database: another takes its place, and nothing is counted
//! twice.

use std::io::Read;

use common::broker::Xpub;
use common::manager::{Manager, PATIENCE, kill_hard};
use common::proxy::Proxy;
use packetlab::key::PrivateKey;

use super::*;

/// As its machine would end it.
fn is_killed(manager: Manager) {
    kill_hard(manager.pid());
    assert_eq!(manager.ends().code, None, "it was killed by us");
}

#[test]
#[ignore = "needs postgresql"]
fn who_follows_a_publisher_that_was_killed_publishes_the_same_bytes() {
    let rig = Rig::new(&[]);
    let one = rig.manager(&["--out", "one"]);
    let (mut publication, of_one) = rig.broker.take_publication(2);
    let other = rig.manager(&["--out", "other"]);
    wait_until("both are there", || rig.status()["managers"] == 2);
    is_killed(one);
    assert!(publication.receive().is_err(), "it has gone with its publisher");
    let (_publication, of_other) = rig.broker.take_publication(2);
    let bytes = |xpubs: &[Xpub]| xpubs.iter().map(|xpub| xpub.text.clone()).collect::<Vec<_>>();
    assert_eq!(bytes(&of_other), bytes(&of_one));
    assert_eq!(of_other, of_one, "and with it certificates and channels");
    let members = rig.status()["members"].take();
    let states = members.as_array().unwrap().iter();
    let states: Vec<_> =
        states.map(|one| (one["state"].clone(), one["publishes"].clone())).collect();
    assert_eq!(states, [(json!("lost"), json!(false)), (json!("live"), json!(true))]);
    assert_eq!(other.interrupted().code, Some(0));
}

#[test]
#[ignore = "needs postgresql"]
fn a_count_stays_exact_when_a_manager_is_killed_with_a_session() {
    let rig = Rig::new(&["-n", "3"]);
    let one = rig.manager(&["--out", "one"]);
    let other = rig.manager(&["--out", "other"]);
    let dial = Dial::to(one.address).with(&rig.identity());
    let mut lost = dial.session();
    let [second, third, fourth, fifth] = [(); 4].map(|()| rig.identity());
    let at_other = |identity: &Identity| Dial::to(other.address).with(identity);
    is_measured(&at_other(&second));
    let dial_third = at_other(&third);
    let mut running = dial_third.session();
    assert!(at_other(&fourth).handshake().set_up().is_err(), "three are taken");
    let refused = rig.events("other").await_sessions(2);
    let reasons: String = refused.iter().map(|record| record["reason"].to_string()).collect();
    assert_says(&reasons, &["refused START: full"]);
    is_killed(one);
    lost.read_to_end();
    wait_until("its place is free", || rig.status()["lost"] == 1);
    is_measured(&at_other(&fourth));
    assert!(at_other(&fifth).handshake().set_up().is_err(), "three are taken again");
    running.send(&message(NDATA, b"exit 0"));
    assert_eq!(running.read_to_end().1, End::CloseNotify);
    running.close();
    let ended = other.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let status = rig.status();
    assert_eq!((&status["state"], &status["done"]), (&"over".into(), &3.into()), "{status}");
    assert_eq!((&status["claims"], &status["lost"]), (&4.into(), &1.into()), "{status}");
    assert_eq!(rig.campaign("results", &[]).stdout.lines().count(), 3);
}

/// Endpoints that come meanwhile are the others'.
#[test]
#[ignore = "needs postgresql"]
fn who_is_no_member_leaves_the_proxy_to_others_until_it_is_one_again() {
    let (home, postgres) = (Home::new(), Postgres::new());
    let address = postgres.address("c");
    let mlet = vec![zoo().to_str().unwrap().to_owned(), "obey".to_owned()];
    let mut rig = Rig::at(home, mlet, postgres, address);
    let proxy = Proxy::start(&PrivateKey::generate().unwrap(), true);
    let proxied = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\nEnableProxyMode 1\n\
                   BacklogConnAgentCertPath agent.cert\nTargetBacklogConn 3";
    let config = rig.home.publishing(&rig.broker, proxied);
    rig.home.write("xpmgr.conf", config.as_bytes());
    let at = ["-a", &proxy.address.to_string()].map(str::to_owned);
    let of_run = ["-c", "xpmgr.conf", &at[0], &at[1]];
    let zoo = zoo();
    let mlet = [zoo.to_str().unwrap(), "obey"];
    let created = rig.campaign("create", &[&of_run[..], &["--lease", "2s"], &mlet].concat());
    assert_eq!(created.code, Some(0), "{}", created.stderr);
    let mut command = rig.home.bare_command();
    command.args(of_run).args(["--campaign", &rig.address, "--out", "one"]).args(mlet);
    let manager = Manager::spawn(&rig.home, command);
    proxy.holds(3);
    rig.postgres.kill();
    manager.says("no endpoints are taken in meanwhile: 3 connections at proxies let go");
    for _ in 0..3 {
        let mut let_go = proxy.take("hello");
        let_go.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(let_go.read(&mut [0]).unwrap(), 0);
    }
    rig.postgres.start();
    manager.says("a member of the campaign again");
    proxy.holds(3);
    let mut session = proxy.session(&Dial::to(proxy.address).with(&rig.identity()));
    session.send(&message(NDATA, b"exit 0"));
    assert_eq!(session.read_to_end().1, End::CloseNotify);
    session.close();
    wait_until("it is counted", || rig.status()["done"] == 1);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Its one mlet goes on; the sessions that it had end.
#[test]
#[ignore = "needs postgresql"]
fn a_singleton_without_a_database_ends_its_sessions_and_measures_again_when_it_is_back() {
    let mut rig = Rig::of(Home::new(), &[zoo().to_str().unwrap(), "single", "echo"], &[]);
    let manager = rig.manager(&["-s", "--out", "one"]);
    let mlets = children_of(manager.supervisor());
    let endpoint = rig.identity();
    let dial = Dial::to(manager.address).with(&endpoint);
    let mut session = dial.session();
    assert_says(&session.text(), &["index 0"]);
    rig.postgres.kill();
    manager.says("the lease of the campaign was lost: 1 session ");
    session.read_to_end();
    session.close();
    assert_eq!(outcomes(&rig.events("one").await_sessions(1)), ["killed"]);
    rig.postgres.start();
    manager.says("a member of the campaign again");
    wait_until("the endpoint is measured again", || {
        may_be_measured(&dial, |endpoint| assert_says(&endpoint.text(), &["index 1"]))
    });
    wait_until("it is counted", || rig.status()["done"] == 1);
    assert_eq!(children_of(manager.supervisor()), mlets, "by the same mlet");
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(rig.status()["claims"], 2);
}
