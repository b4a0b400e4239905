//! Several brokers: each has a publication of its own, and what one of them loses the others carry.
//!
//! Not here: what is said to one of them (`publication.rs`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::{Duration, SystemTime};

use common::broker::{Broker, Xpub};
use common::endpoint::{End, message};
use common::http::{get, metrics, metrics_address};
use common::manager::{Manager, wait_until, zoo};
use common::proxy::Proxy;
use common::tls_peer::TlsPeer;
use common::{Ended, Home, assert_says, run};
use nix::sys::signal::Signal;
use packetlab::key::PrivateKey;
use packetlab::time::Ticks;

const EXPERIMENT: &str = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::";

/// A home that publishes at some of these brokers.
struct Rig<const COUNT: usize> {
    home: Home,
    brokers: [Broker; COUNT],
}

impl<const COUNT: usize> Rig<COUNT> {
    fn new(more: &str) -> Self {
        let home = Home::new();
        let brokers = [(); COUNT].map(|()| Broker::start(&PrivateKey::generate().unwrap()));
        let rig = Self { home, brokers };
        rig.names(&rig.brokers.each_ref().map(|broker| broker.address.to_string()), more);
        rig
    }

    /// From now on, for whoever reads it, the config file names these brokers.
    fn names(&self, brokers: &[String], more: &str) {
        let config = self.home.publishing(&self.brokers[0], &format!("{EXPERIMENT}\n{more}"));
        let one = format!("BrokerAddr {}\n", self.brokers[0].address);
        let all = format!("BrokerAddr {}\n", brokers.join(","));
        self.home.write("xpmgr.conf", config.replace(&one, &all).as_bytes());
    }

    fn name(&self, index: usize) -> String {
        self.brokers[index].address.to_string()
    }

    fn start(&self, options: &[&str]) -> Manager {
        self.home.start(options, &["echo"])
    }

    /// One that may end before it serves anybody.
    fn spawn(&self, options: &[&str]) -> Manager {
        self.home.spawn(options, &["echo"])
    }

    fn run(&self, options: &[&str]) -> Ended {
        run(self.home.command().args(options).arg(zoo()).arg("echo"))
    }

    fn take(&self, index: usize) -> (TlsPeer, Vec<Xpub>) {
        self.brokers[index].take_publication(1)
    }
}

/// Waits until metrics tell that so many brokers have it, and so many lack it.
#[track_caller]
fn assert_published_at(manager: &Manager, expected: (u8, u8)) {
    let address = metrics_address(manager);
    wait_until("metrics tell of the brokers", || {
        let numbers = metrics(address);
        let at = |state| numbers[&format!("pktxpmgr_brokers{{state=\"{state}\"}}")];
        (at("published"), at("not_published")) == (expected.0.into(), expected.1.into())
    });
}

#[test]
fn every_broker_gets_the_same_text_and_a_farewell_at_the_end() {
    let rig = Rig::<3>::new("PubPeriod 1h");
    let manager = rig.start(&[]);
    // Not in the order of the file, as nobody waits for anybody.
    let (mut last, text) = rig.take(2);
    let (mut first, of_first) = rig.take(0);
    let (mut middle, of_middle) = rig.take(1);
    assert_eq!((&of_first, &of_middle), (&text, &text));
    for index in 0..3 {
        manager.says(&format!("published at the broker {}, for ", rig.name(index)));
    }
    rig.home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
    for peer in [&mut first, &mut middle, &mut last] {
        assert_eq!(peer.receive(), Err(End::CloseNotify));
    }
}

/// Of two one refuses, and one does not answer: neither keeps the run from going on, and a signal ends it at once.
#[test]
fn a_run_is_published_while_one_broker_has_it_and_the_others_are_tried_again() {
    const ENORES: u8 = 0x44;
    let rig = Rig::<3>::new("PubPeriod 1h");
    let manager = rig.start(&["--metrics", "0"]);
    let mut refusing = rig.brokers[0].greet();
    refusing.receive().unwrap();
    refusing.send(&message(0x40, &[0, ENORES])).unwrap();
    manager.says(&format!("broker {}: it refused certificate 1", rig.name(0)));
    let silent = rig.brokers[1].accept();
    let (mut published, text) = rig.take(2);
    manager.says("published at the broker");
    rig.home.dial(&manager).is_served();
    assert_published_at(&manager, (1, 2));
    let (_taken, again) = rig.take(0);
    assert_eq!(again, text, "with the same end");
    manager.says_times("published at the broker", 2);
    assert_published_at(&manager, (2, 1));
    manager.signal(Signal::SIGUSR1);
    manager.says(&format!("status: broker {}: published", rig.name(0)));
    manager.says(&format!("status: broker {}: not published", rig.name(1)));
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(published.receive(), Err(End::CloseNotify));
    drop(silent);
}

#[test]
fn a_run_fails_for_want_of_a_publication_when_every_broker_has_failed_and_names_each() {
    let mut rig = Rig::<2>::new("");
    rig.brokers[0].go_down();
    let manager = rig.spawn(&["--broker-timeout", "1s"]);
    let silent = rig.brokers[1].accept();
    manager.says(&format!("broker {}: cannot connect to", rig.name(0)));
    manager.says("publishing again in");
    let ended = manager.ends();
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    let both = [
        "FATAL: cannot publish at any broker: ".to_owned(),
        format!("{}: cannot connect to {0}: Connection refused", rig.name(0)),
        format!("; {}: no answer in time to the TLS handshake", rig.name(1)),
    ];
    assert_says(&ended.stderr, &both.each_ref().map(|part| &**part));
    drop(silent);
}

/// What is lost at one broker stays at the other; both are lost, and both get again what is left.
#[test]
fn what_one_broker_loses_the_other_carries_and_sessions_go_on_without_either() {
    let mut rig = Rig::<2>::new("PubPeriod 1h");
    let manager = rig.start(&["--metrics", "0"]);
    let mut session = rig.home.dial(&manager).session();
    let ((first, text), (second, _)) = (rig.take(0), rig.take(1));
    manager.says_times("published at the broker", 2);
    rig.brokers[0].go_down();
    drop(first);
    manager.says(&format!("broker {}: ", rig.name(0)));
    second.assert_silent();
    assert_published_at(&manager, (1, 1));
    rig.brokers[1].go_down();
    drop(second);
    manager.says(&format!("broker {}: ", rig.name(1)));
    assert_published_at(&manager, (0, 2));
    session.echoes(b"untouched");
    rig.home.dial(&manager).is_served();
    assert_eq!(get(metrics_address(&manager), "/ready").0, 200, "endpoints can be served");
    for index in [1, 0] {
        rig.brokers[index].come_back();
        let (peer, again) = rig.take(index);
        assert_eq!(again, text, "with the same end");
        // It is held to the end of the test.
        std::mem::forget(peer);
    }
    manager.says_times("published at the broker", 4);
    session.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn greeting_ends_on_time_where_one_broker_is_lost_and_one_never_came() {
    let mut rig = Rig::<3>::new("PubPeriod 1500ms");
    rig.brokers[2].go_down();
    let manager = rig.start(&[]);
    let ((first, text), (mut second, _)) = (rig.take(0), rig.take(1));
    let end = Ticks(text[0].value("pub_end").parse().unwrap());
    rig.brokers[0].go_down();
    drop(first);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["so does greeting"]);
    let now = Ticks::from_system_time(SystemTime::now());
    let late = now.saturating_duration_since(end);
    assert!(now >= end && late < Duration::from_millis(700), "{late:?}");
    assert_eq!(second.receive(), Err(End::CloseNotify));
}

/// A reload ends it at one, begins it at another, and touches no third.
#[test]
fn a_reload_changes_the_brokers_and_leaves_those_that_stay() {
    let rig = Rig::<3>::new("PubPeriod 1h");
    rig.names(&[rig.name(0), rig.name(1)], "PubPeriod 1h");
    let manager = rig.start(&[]);
    let ((stays, text), (mut leaves, _)) = (rig.take(0), rig.take(1));
    manager.says_times("published at the broker", 2);
    // One that takes the place of another is there before that goes.
    rig.names(&[rig.name(2), rig.name(0)], "PubPeriod 1h");
    manager.signal(Signal::SIGHUP);
    manager.says("1 experiment, 0 programs; publishing at 2 brokers");
    let mut coming = rig.brokers[2].greet();
    manager.signal(Signal::SIGUSR1);
    manager.says(&format!("status: broker {}: not published", rig.name(2)));
    leaves.assert_silent();
    let published = common::broker::take_xpub(&mut coming).unwrap();
    assert_eq!(published, text[0], "with the end of the others");
    assert_eq!(leaves.receive(), Err(End::CloseNotify));
    stays.assert_silent();
    // Fewer, and then more again.
    rig.names(&[rig.name(0)], "PubPeriod 1h");
    manager.signal(Signal::SIGHUP);
    manager.says("1 experiment, 0 programs; publishing at 1 broker");
    assert_eq!(coming.receive(), Err(End::CloseNotify));
    stays.assert_silent();
    rig.names(&[rig.name(0), rig.name(1)], "PubPeriod 1h");
    manager.signal(Signal::SIGHUP);
    let (_back, again) = rig.take(1);
    assert_eq!(again, text);
    stays.assert_silent();
    rig.names(&[rig.name(1), rig.name(0)], "PubPeriod 1h");
    manager.signal(Signal::SIGHUP);
    manager.says_times("reloaded for new sessions", 4);
    let said = (manager.said("publishing at"), manager.said("publishing anew"));
    assert_eq!(said, (3, 0), "another order is no change");
    stays.assert_silent();
    rig.names(&[rig.name(0)], "PubPeriod 2h");
    manager.signal(Signal::SIGHUP);
    manager.says("; publishing anew at 1 broker");
    rig.home.write("xpmgr.conf", rig.home.least().as_bytes());
    manager.signal(Signal::SIGHUP);
    manager.says("; publishes nothing any more");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A broker that a reload names, and that fails, ends no run.
#[test]
fn a_broker_that_a_reload_adds_may_fail() {
    let mut rig = Rig::<2>::new("");
    rig.brokers[1].go_down();
    rig.names(&[rig.name(0)], "");
    let manager = rig.start(&[]);
    let (stays, _) = rig.take(0);
    manager.says("published at the broker");
    rig.names(&[rig.name(0), rig.name(1)], "");
    manager.signal(Signal::SIGHUP);
    manager.says(&format!("broker {}: cannot connect", rig.name(1)));
    stays.assert_silent();
    rig.home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// What the broker before it has failed with is not its own.
#[test]
fn a_broker_that_takes_the_place_of_one_that_has_failed_has_its_own_first_try() {
    let mut rig = Rig::<3>::new("");
    rig.brokers[0].go_down();
    rig.names(&[rig.name(0), rig.name(1)], "");
    let manager = rig.start(&["--broker-timeout", "60s"]);
    let failing = rig.brokers[1].accept();
    manager.says(&format!("broker {}: cannot connect", rig.name(0)));
    rig.names(&[rig.name(2), rig.name(1)], "");
    manager.signal(Signal::SIGHUP);
    let mut tried = rig.brokers[2].greet();
    drop(failing);
    manager.says(&format!("broker {}: ", rig.name(1)));
    common::broker::take_xpub(&mut tried).unwrap();
    manager.says(&format!("published at the broker {}", rig.name(2)));
    rig.home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// One that is slow has published what was to be so before a reload, and has not come to the new yet.
#[test]
fn a_reload_that_one_broker_has_put_into_effect_is_not_undone_by_a_slow_one() {
    let rig = Rig::<2>::new("PubPeriod 1h");
    let manager = rig.start(&["--metrics", "0"]);
    let mut slow = rig.brokers[1].greet();
    let (_before, text) = rig.take(0);
    let end = || metrics(metrics_address(&manager))["pktxpmgr_publication_end_seconds"];
    assert_published_at(&manager, (1, 1));
    let first_end = end();
    rig.names(&[rig.name(0), rig.name(1)], "PubPeriod 2h");
    manager.signal(Signal::SIGHUP);
    let (_after, _) = rig.take(0);
    wait_until("the publication ends an hour later", || end() > first_end + 3599.0);
    let new_end = end();
    assert_eq!(common::broker::take_xpub(&mut slow).unwrap(), text[0]);
    assert_published_at(&manager, (2, 0));
    assert_eq!(end().to_bits(), new_end.to_bits());
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Each would be told the address from which we come to it.
#[test]
fn a_run_that_may_tell_each_broker_another_address_is_warned_of_it_once() {
    const SAID: &str =
        "WARNING: each of the 2 brokers is told the address from which we come to it";
    let rig = Rig::<2>::new("");
    let check = |more: &[&str]| {
        let ended =
            run(rig.home.bare_command().args(["-c", "xpmgr.conf"]).args(more).args(["--check"]));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr.matches(SAID).count()
    };
    assert_eq!(check(&[]), 1);
    for told in [["-a", "127.0.0.1"], ["-p", "localhost"]] {
        assert_eq!(check(&told), 0, "{told:?}");
    }
    rig.names(&[rig.name(0), rig.name(1)], "PubControllerAddr localhost");
    assert_eq!(check(&[]), 0);
    rig.names(&[rig.name(0)], "");
    assert_eq!(check(&[]), 0, "one is told one");
    let config =
        rig.home.publishing(&rig.brokers[0], &format!("{EXPERIMENT}controller_addr=localhost;"));
    let both = [rig.name(0), rig.name(1)].join(",");
    rig.home.write("xpmgr.conf", config.replace(&rig.name(0), &both).as_bytes());
    assert_eq!(check(&[]), 0, "every experiment says its own");
}

/// With an end, which counts from when publishing begins, and without.
#[test]
fn a_broker_that_a_reload_adds_while_the_backlog_first_fills_is_published_to_when_it_is_filled() {
    for period in ["PubPeriod 1h", ""] {
        let more = format!("EnableProxyMode 1\nBacklogConnAgentCertPath agent.cert\n{period}");
        let rig = Rig::<2>::new(&more);
        let mut proxy = Proxy::start(&PrivateKey::generate().unwrap(), true);
        proxy.go_down();
        rig.names(&[rig.name(0)], &more);
        let mut command = rig.home.bare_command();
        command.args(["-c", "xpmgr.conf", "-a", &proxy.address.to_string()]);
        command.arg(zoo()).arg("echo");
        let manager = Manager::spawn(&rig.home, command);
        manager.says("cannot connect");
        rig.names(&[rig.name(0), rig.name(1)], &more);
        manager.signal(Signal::SIGHUP);
        manager.says("reloaded for new sessions");
        // It had the time to come to the broker: two connections have been tried once more.
        manager.says_times("cannot connect", 4);
        assert_eq!(manager.said("publishing snikey"), 0, "nobody could be served");
        proxy.come_back();
        manager.says("backlog filled");
        manager.says_times("publishing snikey", 2);
        let ((_first, text), (_added, of_added)) = (rig.take(0), rig.take(1));
        assert_eq!(of_added, text);
        manager.says_times("published at the broker", 2);
        assert_eq!(manager.interrupted().code, Some(0));
    }
}

/// A name that nobody can look up keeps no run from the other brokers.
#[test]
fn a_broker_whose_name_is_not_found_is_warned_of_unless_it_is_so_for_all() {
    let rig = Rig::<1>::new("");
    let unknown = ["nowhere.invalid".to_owned(), "elsewhere.invalid:7".to_owned()];
    rig.names(&[unknown[0].clone(), rig.name(0)], "");
    let manager = rig.start(&[]);
    manager.says("cannot find nowhere.invalid");
    manager.says("going on without it until a reload finds it");
    let (peer, _) = rig.take(0);
    manager.says("broker nowhere.invalid: its name cannot be found");
    rig.home.dial(&manager).is_served();
    peer.assert_silent();
    assert_eq!(manager.interrupted().code, Some(0));
    rig.names(&unknown, "");
    let ended = rig.spawn(&[]).ends();
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert_says(&ended.stderr, &["cannot find nowhere.invalid", "cannot find elsewhere.invalid"]);
}

#[test]
fn each_bad_broker_of_a_list_is_told_with_its_place() {
    let rig = Rig::<1>::new("");
    for (brokers, options, code, said) in [
        (
            "a.example,,b.example",
            &["--check"][..],
            3,
            &["xpmgr.conf:2:22: an element of the list is empty"][..],
        ),
        (
            "a:x,b.example,c:70000",
            &["--check"],
            3,
            &[":2:12: address \"a:x\"", ":2:26: address \"c:70000\""],
        ),
        (
            "b.example,B.example:20556",
            &["--check"],
            3,
            &[":2:22: the broker cannot be used: it is the same as b.example"],
        ),
        ("127.0.0.1:7,localhost:7", &[], 5, &["it is the same as 127.0.0.1:7 before it"]),
        ("127.0.0.1:7,[::ffff:127.0.0.1]:7", &[], 5, &["it is the same as 127.0.0.1:7 before it"]),
        ("127.0.0.1:7,0.0.0.0:7", &[], 5, &["it is the same as 127.0.0.1:7 before it"]),
        ("a.example, b.example", &["--check"], 3, &["a blank in its host"]),
        (
            "224.0.0.1,127.0.0.1:7,ff02::1",
            &["--check"],
            3,
            &["224.0.0.1 is a multicast", "ff02::1 is a multicast"],
        ),
    ] {
        rig.names(&[brokers.to_owned()], "");
        let ended = rig.run(options);
        assert_eq!(ended.code, Some(code), "{brokers}: {}", ended.stderr);
        assert_says(&ended.stderr, said);
    }
    rig.names(&["a.example,[::1]:7".to_owned()], "");
    let ended = rig.run(&["--dry-run"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(
        &ended.stdout,
        &["broker        a.example:20556 (a name", "broker        [::1]:7\n"],
    );
}
