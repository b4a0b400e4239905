//! Publishing to a broker: what is said, in which order, when, and what every fault of it leads to.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use common::broker::{Broker, XCERT, XPUB, take_xpub};
use common::endpoint::{End, SUCCESS, message};
use common::manager::{Manager, zoo};
use common::tls_peer::{TlsPeer, reset};
use common::{Ended, Home, assert_says};
use nix::sys::signal::Signal;
use packetlab::certificate::{Certificate, CertificateType};
use packetlab::key::PrivateKey;
use packetlab::time::Ticks;

/// The experiment of most tests: an operator is trusted, the channel is that operator's.
const EXPERIMENT: &str = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::";

/// A home, a broker, and a config that publishes there.
struct Rig {
    home: Home,
    broker: Broker,
}

impl Rig {
    fn new(more: &str) -> Self {
        let home = Home::new();
        let broker = Broker::start(&PrivateKey::generate().unwrap());
        home.write("xpmgr.conf", home.publishing(&broker, more).as_bytes());
        Self { home, broker }
    }

    fn start(&self, options: &[&str]) -> Manager {
        self.home.start(options, &["echo"])
    }

    /// One that may end before it serves anybody.
    fn spawn(&self, options: &[&str]) -> Manager {
        self.home.spawn(options, &["echo"])
    }
}

fn der(home: &Home, name: &str) -> Vec<u8> {
    Certificate::from_pem(&common::read(&home.path(name))).unwrap().der().to_vec()
}

fn now() -> Ticks {
    Ticks::from_system_time(SystemTime::now())
}

#[track_caller]
fn assert_failed_publication(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert_says(&ended.stderr, &["FATAL: cannot publish at the broker"]);
    assert_says(&ended.stderr, parts);
}

/// Items 55, 56, 57, 58, 59.
#[test]
fn everything_is_published_in_order_while_endpoints_are_served_already() {
    let rig = Rig::new(
        "ExpExec 1:one:exppriv.cert,pubcmd.cert:eop.pub:0102,,aabbcc:\n\
         ExpExec 0:two:exppriv.cert,pubcmd.cert::0a:\n",
    );
    let manager = rig.start(&[]);
    let mut peer = rig.broker.greet();
    assert_eq!(peer.server_name(), None);
    assert_eq!(peer.client(), Some(rig.home.keys.controller.public_key().key_id()));
    // The broker takes its time; endpoints need not wait for it.
    rig.home.dial(&manager).asking(Some("one")).is_served();

    let last = take_xpub(&mut peer).unwrap();
    assert_eq!(last.value("sni_key"), "two", "the last ExpExec comes first");
    assert_eq!(last.channels, ["0a"]);
    assert_eq!(last.operator_key, [0; 32]);
    assert!(last.certificates.is_empty());
    let first = take_xpub(&mut peer).unwrap();
    assert_eq!(first.value("sni_key"), "one");
    let operator = rig.home.keys.operator.public_key();
    assert_eq!(first.channels, ["0102", &operator.key_id().to_string(), "aabbcc"]);
    assert_eq!(first.operator_key, operator.0);
    let leaf_first = ["pubcmd.cert", "exppriv.cert"].map(|name| der(&rig.home, name));
    assert_eq!(first.certificates, leaf_first);
    manager.says("published at the broker");
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(peer.receive(), Err(End::CloseNotify));
}

/// Items 60, 61, 62, 63, 64: each option by itself, as the broker gets it.
#[test]
fn the_descriptor_says_what_was_configured_and_no_more() {
    let custom = EXPERIMENT.replace("::", "::foo=bar;baz=q*;");
    let everything = format!(
        "{custom}\nPubPeriod 3600000000000\nPubExpPriority 7\nPubCountry USA,DEU\n\
         PubLocation IO91*,BK29\nPubControllerAddr 127.0.0.3:5"
    );
    for (config, options, expected) in [
        (EXPERIMENT, &["-a", "127.0.0.1:"][..], "controller_addr=127.0.0.1:PORT;sni_key=hello;"),
        (EXPERIMENT, &["-a", "localhost:0"], "controller_addr=localhost:PORT;sni_key=hello;"),
        (
            "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\nPubControllerAddr 127.0.0.3:5",
            &["-a", "127.0.0.1:"],
            "controller_addr=127.0.0.3:5;sni_key=hello;",
        ),
        (
            &everything,
            &["-a", "127.0.0.1:", "-p", "localhost:7", "-i", "HOST-*"],
            "hostid=HOST-*;endpoint_location=BK29;endpoint_location=IO91*;endpoint_country=DEU;\
             endpoint_country=USA;exp_priority=7;pub_end=END;controller_addr=localhost:7;\
             sni_key=hello;baz=q*;foo=bar;",
        ),
    ] {
        let rig = Rig::new(config);
        let before = now();
        let mut command = rig.home.bare_command();
        command.args(["-c", "xpmgr.conf"]).args(options).arg(zoo()).arg("echo");
        let manager = Manager::start(&rig.home, command);
        let (_peer, published) = rig.broker.take_publication(1);
        let xdescr: String = published[0]
            .xdescr
            .iter()
            .map(|(name, value)| match name.as_str() {
                "pub_end" => {
                    let end = Ticks(value.parse().unwrap());
                    let hour = Duration::from_secs(3600);
                    assert!(
                        end >= before.saturating_add(hour) && end <= now().saturating_add(hour)
                    );
                    "pub_end=END;".into()
                }
                _ => format!("{name}={value};"),
            })
            .collect();
        // The one that was bound, where any free port is asked for; all shards listen on it.
        let port = manager.address.port().to_string();
        assert_eq!(xdescr, expected.replace("PORT", &port));
        assert_eq!(manager.interrupted().code, Some(0));
    }
}

/// An endpoint connects to what is published, on whichever of the addresses of the name.
#[test]
#[ignore = "needs IPv6 on loopback"]
fn every_address_listens_on_the_port_that_is_published() {
    let rig = Rig::new(EXPERIMENT);
    for (listen, addresses) in [("[::1]:0", &["[::1]"][..]), ("*:0", &["127.0.0.1", "[::1]"])] {
        let mut command = rig.home.bare_command();
        command.args(["-c", "xpmgr.conf", "-a", listen]).arg(zoo()).arg("echo");
        let manager = Manager::start(&rig.home, command);
        let (_peer, published) = rig.broker.take_publication(1);
        let host = listen.strip_suffix('0').unwrap_or(listen);
        let port = manager.address.port();
        assert_eq!(published[0].value("controller_addr"), format!("{host}{port}"));
        for address in addresses {
            let mut dial = rig.home.dial(&manager);
            dial.address = format!("{address}:{port}").parse().unwrap();
            dial.is_served();
        }
        assert_eq!(manager.interrupted().code, Some(0));
    }
}

/// Nobody can connect to port 0, wherever it is asked to be published.
#[test]
fn port_0_is_not_published() {
    for (config, options, code, said) in [
        (EXPERIMENT.to_owned(), &["-p", "127.0.0.1:0"][..], 2, "-p 127.0.0.1:0: nobody can"),
        (EXPERIMENT.to_owned(), &["-p", "[::1]:0"], 2, "-p [::1]:0: nobody can connect to port 0"),
        (EXPERIMENT.to_owned(), &["-p", "localhost:"], 2, "-p localhost:: nobody can"),
        (format!("{EXPERIMENT}\nPubControllerAddr 127.0.0.1:0"), &[], 3, ": nobody can connect"),
        (
            EXPERIMENT.replace("::", "::controller_addr=127.0.0.1:0;"),
            &[],
            3,
            ": nobody can connect",
        ),
    ] {
        let rig = Rig::new(&config);
        let ended = rig.spawn(options).ends();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_says(&ended.stderr, &[said]);
    }
}

/// Item 61: without `-a` it is our side of the connection to the broker, without a port. The default
/// listening port may be taken, so this one is only spawned where it can be had.
#[test]
fn without_any_address_the_one_towards_the_broker_is_published() {
    let rig = Rig::new(EXPERIMENT);
    let mut command = rig.home.bare_command();
    command.args(["-c", "xpmgr.conf"]).arg(zoo()).arg("echo");
    if TcpListener::bind("0.0.0.0:20556").is_err() {
        eprintln!("port 20556 is taken; nothing is tested");
        return;
    }
    let manager = Manager::start(&rig.home, command);
    let (_peer, published) = rig.broker.take_publication(1);
    assert_eq!(published[0].value("controller_addr"), "127.0.0.1");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Item 65.
#[test]
fn overrides_replace_what_would_be_published() {
    let end = now().saturating_add(Duration::from_secs(3600));
    let overrides = format!(
        "hostid=*;endpoint_country=FRA;exp_priority=9;pub_end={end};controller_addr=127.0.0.9:9;"
    );
    let rig = Rig::new(&format!(
        "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::{overrides}\n\
         PubPeriod 1\nPubExpPriority 7\nPubCountry USA,DEU"
    ));
    let manager = rig.start(&["-i", "HOST-1"]);
    let (mut peer, published) = rig.broker.take_publication(1);
    for (name, value) in [
        ("hostid", "*"),
        ("endpoint_country", "FRA"),
        ("exp_priority", "9"),
        ("pub_end", &end.to_string()),
        ("controller_addr", "127.0.0.9:9"),
        ("sni_key", "hello"),
    ] {
        assert_eq!(published[0].value(name), value);
    }
    // The end is the overridden one, so PubPeriod has not ended it.
    rig.home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(peer.receive(), Err(End::CloseNotify));
}

/// Item 66, at each request, with the errids a broker may give.
#[test]
fn a_refused_request_ends_the_start_with_code_5_and_the_errid_by_name() {
    for (request, errid, name) in [
        (0, 0x22, "ECRTBADFRM (34)"),
        (1, 0x23, "ECRTNOSPACE (35)"),
        (2, 0x50, "EPUBBADCHL (80)"),
        (2, 0x54, "EPUBBADXD (84)"),
        (2, 0x7777, "unnamed status (30583)"),
    ] {
        let rig = Rig::new(EXPERIMENT);
        let manager = rig.spawn(&[]);
        let mut peer = rig.broker.greet();
        let types = [XCERT, XCERT, XPUB];
        for expected in &types[..request] {
            assert_eq!(peer.receive().unwrap().0, *expected);
            peer.send(&SUCCESS).unwrap();
        }
        assert_eq!(peer.receive().unwrap().0, types[request]);
        let [high, low] = u16::to_be_bytes(errid);
        peer.send(&message(0x40, &[high, low])).unwrap();
        assert_failed_publication(&manager.ends(), &[name, "snikey hello"]);
    }
}

/// B0 to B3 of spec/reliability.md 7, at the first publication: every fault ends the start with code 5.
#[test]
fn every_fault_of_the_broker_at_the_start_is_code_5() {
    type Act = fn(&Broker) -> Option<TlsPeer>;
    let cases: [(&str, Act, &str); 12] = [
        ("B1 FIN at once", |broker| drop_it(broker.accept()), "within the TLS handshake"),
        ("B1 reset at once", |broker| reset_it(broker.accept()), "reset by peer"),
        (
            "B1 garbage",
            |broker| say(broker.accept(), b"220 mail\r\n"),
            "is this a broker's publish port?",
        ),
        (
            "B1 silence",
            |broker| Some(broker.accept()),
            "no answer in time to the TLS handshake; is",
        ),
        ("B2 FIN", |broker| drop_it(broker.greet()), "instead of answering certificate 1"),
        ("B2 reset", |broker| reset_it(asked(broker, 0)), "reset by peer"),
        (
            "B2 silence",
            |broker| Some(asked(broker, 0)),
            "no answer in time to certificate 1 (pubcmd)",
        ),
        ("B2 garbage", |broker| say(asked(broker, 0), &[7; 100]), "TLS failed"),
        ("B2 wrong type", |broker| seal(asked(broker, 0), &message(0x70, &[1, 2])), "XNOTIFY"),
        ("B3 FIN", |broker| drop_it(asked(broker, 2)), "instead of answering the publication"),
        ("B3 silence", |broker| Some(asked(broker, 2)), "no answer in time to the publication"),
        ("B3 huge", |broker| seal(asked(broker, 2), &[0x40, 0xff, 0xff, 0xff]), "16777215 bytes"),
    ];
    for (fault, act, expected) in cases {
        let rig = Rig::new(EXPERIMENT);
        let manager = rig.spawn(&["--broker-timeout", "300ms"]);
        let held = act(&rig.broker);
        let ended = manager.ends();
        assert_failed_publication(&ended, &[expected]);
        drop((fault, held));
    }
}

fn drop_it(peer: TlsPeer) -> Option<TlsPeer> {
    // Half-closed, so that it is a FIN whatever has not been read.
    peer.tcp.shutdown(Shutdown::Write).unwrap();
    Some(peer)
}

fn reset_it(peer: TlsPeer) -> Option<TlsPeer> {
    reset(peer.tcp);
    None
}

fn say(mut peer: TlsPeer, bytes: &[u8]) -> Option<TlsPeer> {
    peer.tcp.write_all(bytes).unwrap();
    Some(peer)
}

fn seal(mut peer: TlsPeer, plaintext: &[u8]) -> Option<TlsPeer> {
    peer.send(plaintext).unwrap();
    Some(peer)
}

/// A connection on which the request after so many others has come.
fn asked(broker: &Broker, accepted: usize) -> TlsPeer {
    let mut peer = broker.greet();
    for _ in 0..accepted {
        peer.receive().unwrap();
        peer.send(&SUCCESS).unwrap();
    }
    peer.receive().unwrap();
    peer
}

/// B0.
#[test]
fn a_broker_that_refuses_connections_is_code_5() {
    let mut rig = Rig::new(EXPERIMENT);
    rig.broker.go_down();
    assert!(TcpStream::connect(rig.broker.address).is_err(), "the fault is there");
    assert_failed_publication(
        &rig.spawn(&[]).ends(),
        &["cannot connect", "refused", "check BrokerAddr"],
    );
}

#[test]
fn a_broker_whose_certificate_nobody_we_trust_has_signed_is_code_5() {
    let mut rig = Rig::new(&format!("{EXPERIMENT}\nBrokerCertRootPath bop.pub"));
    let signer = PrivateKey::generate().unwrap();
    rig.home.write("bop.pub", signer.public_key().to_pem().as_bytes());
    let manager = rig.spawn(&[]);
    let mut peer = rig.broker.accept();
    assert_eq!(peer.handshake(), Err(End::Alert(46)), "spec/protocol.md 3.5");
    assert_failed_publication(&manager.ends(), &["TLS failed", "BrokerCertRootPath"]);

    let config = rig.home.publishing(&rig.broker, EXPERIMENT);
    rig.broker = Broker::start(&signer);
    let config = config.replace(
        &config.lines().nth(1).unwrap()["BrokerAddr ".len()..],
        &rig.broker.address.to_string(),
    );
    rig.home.write("xpmgr.conf", format!("{config}\nBrokerCertRootPath bop.pub\n").as_bytes());
    let manager = rig.start(&[]);
    let (_peer, _) = rig.broker.take_publication(1);
    manager.says("published at the broker");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Items 67, 68: the session that runs when greeting ends goes on, and so does the process.
#[test]
fn the_connection_ends_at_pub_end_and_greeting_some_time_later() {
    let period = Duration::from_millis(800);
    let greet_after = Duration::from_millis(700);
    let rig = Rig::new(&format!(
        "{EXPERIMENT}\nPubPeriod {}\nGreetPeriodAfterPubEnd {}",
        period.as_nanos(),
        greet_after.as_nanos()
    ));
    let manager = rig.start(&[]);
    let (mut peer, published) = rig.broker.take_publication(1);
    let end = Ticks(published[0].value("pub_end").parse().unwrap());
    assert_eq!(peer.receive(), Err(End::CloseNotify));
    let late = now().saturating_duration_since(end);
    assert!(now() >= end && late < Duration::from_millis(400), "{late:?}");
    // Greeting is not over.
    let mut session = rig.home.dial(&manager).session();
    manager.says("so does greeting");
    let late = now().saturating_duration_since(end.saturating_add(greet_after));
    assert!(late < Duration::from_millis(400), "{late:?}");
    assert!(manager.is_running());
    session.echoes(b"still here");
    session.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Item 68: the latest end of several counts, and an end that is over does not end the others.
#[test]
fn the_latest_end_of_all_experiments_is_the_end() {
    let at = |after: u64| now().saturating_add(Duration::from_millis(after));
    let (soon, later) = (at(6000), at(8000));
    let rig = Rig::new(&format!(
        "ExpExec 1:one:exppriv.cert,pubcmd.cert:eop.pub::pub_end={later};\n\
         ExpExec 0:two:exppriv.cert,pubcmd.cert:eop.pub::pub_end={soon};\n\
         ExpExec 0:over:exppriv.cert,pubcmd.cert:eop.pub::pub_end=1;"
    ));
    let manager = rig.start(&[]);
    let (mut peer, published) = rig.broker.take_publication(2);
    let snikeys: Vec<_> = published.iter().map(|published| published.value("sni_key")).collect();
    assert_eq!(snikeys, ["two", "one"]);
    assert_eq!(peer.receive(), Err(End::CloseNotify));
    assert!(now() >= later);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["snikey over is not published: its pub_end has passed"]);
}

/// Item 69.
#[test]
fn without_a_period_it_greets_until_told_otherwise() {
    let rig = Rig::new(EXPERIMENT);
    let manager = rig.start(&["-n", "1"]);
    let (mut peer, published) = rig.broker.take_publication(1);
    assert!(published[0].xdescr.iter().all(|(name, _)| name != "pub_end"));
    manager.says("without end");
    peer.tcp.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert_eq!(peer.receive(), Err(End::Silence));
    rig.home.dial(&manager).is_served();
    assert_eq!(manager.ends().code, Some(0));
    assert_eq!(peer.receive(), Err(End::CloseNotify), "publication ends with the attempts");
}

/// Item 70.
#[test]
fn what_the_broker_says_afterwards_is_warned_of_and_ignored() {
    let rig = Rig::new(EXPERIMENT);
    let manager = rig.start(&[]);
    let (mut peer, _) = rig.broker.take_publication(1);
    peer.send(&message(0x70, b"\x01aa=b;")).unwrap();
    manager.says("it sent XNOTIFY (0x70), which is not for us");
    peer.send(&message(0x99, &[0; 5000])).unwrap();
    manager.says("it sent type 0x99");
    for _ in 0..20 {
        peer.send(&message(0x70, b"\x01aa=b;")).unwrap();
    }
    // A second after the last one, unless the limit of that second let more of them pass.
    manager.says(" that are not for us: ");
    assert!(manager.said("which is not for us") <= 10);
    rig.home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(peer.receive(), Err(End::CloseNotify));
}

/// Item 71 and B4: whatever ends the connection, a session goes on, and what is left is published.
#[test]
fn a_broker_that_is_lost_later_gets_everything_again_with_the_same_end() {
    let period = Duration::from_secs(3600);
    let rig = Rig::new(&format!("{EXPERIMENT}\nPubPeriod {}", period.as_nanos()));
    let manager = rig.start(&[]);
    let mut session = rig.home.dial(&manager).session();
    let (peer, published) = rig.broker.take_publication(1);
    manager.says("published at the broker");
    let mut peer = peer;
    let losses: [fn(TlsPeer) -> Option<TlsPeer>; 4] = [
        drop_it,
        reset_it,
        |peer| say(peer, b"garbage, garbage, garbage"),
        |mut peer| {
            let bytes = peer.close_notify();
            say(peer, &bytes)
        },
    ];
    for (index, lose) in losses.into_iter().enumerate() {
        let lost = lose(peer);
        manager.says_times("publishing again in", index + 1);
        let (next, again) = rig.broker.take_publication(1);
        assert_eq!(again, published);
        drop(lost);
        peer = next;
        session.echoes(b"untouched");
        rig.home.dial(&manager).is_served();
    }
    session.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A broker that stays away, refuses, stalls and speaks nonsense when it is back: tries go on, none
/// sooner than half a second after the one before, and nothing else is disturbed.
#[test]
fn a_broker_that_stays_away_is_tried_after_a_wait_each_time_and_disturbs_nobody() {
    let mut rig = Rig::new(EXPERIMENT);
    let manager = rig.start(&["--broker-timeout", "1s"]);
    let mut session = rig.home.dial(&manager).session();
    let (peer, published) = rig.broker.take_publication(1);
    rig.broker.go_down();
    drop(peer);
    manager.says_times("publishing again in", 3);
    assert!(manager.said("refused") >= 1, "{}", manager.log());
    session.echoes(b"untouched");
    rig.broker.come_back();
    let before = Instant::now();
    let mut refused = asked(&rig.broker, 2);
    refused.send(&message(0x40, &[0, 0x44])).unwrap();
    manager.says("ENORES (68)");
    let silent = rig.broker.accept();
    assert!(before.elapsed() >= Duration::from_millis(500), "a wait after the refusal");
    manager.says("no answer in time");
    drop(silent);
    let (_peer, again) = rig.broker.take_publication(1);
    assert_eq!(again, published);
    manager.says_times("published at the broker", 2);
    session.echoes(b"untouched");
    session.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// The end of the publication is kept although the broker is away; greeting ends on time.
#[test]
fn greeting_ends_on_time_although_the_broker_is_lost() {
    let mut rig = Rig::new(&format!("{EXPERIMENT}\nPubPeriod 1200ms"));
    let manager = rig.start(&[]);
    let (peer, published) = rig.broker.take_publication(1);
    let end = Ticks(published[0].value("pub_end").parse().unwrap());
    rig.broker.go_down();
    drop(peer);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["publishing again in", "so does greeting"]);
    let late = now().saturating_duration_since(end);
    assert!(now() >= end && late < Duration::from_millis(500), "{late:?}");
}

/// Item 19: also while the broker does not answer.
#[test]
fn a_signal_within_the_publication_ends_the_run() {
    let rig = Rig::new(EXPERIMENT);
    let manager = rig.start(&[]);
    let mut peer = asked(&rig.broker, 1);
    manager.signal(Signal::SIGTERM);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut rest = Vec::new();
    let end = peer.tcp.read_to_end(&mut rest).map_err(|error| error.kind());
    assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{end:?}");
}

/// Two experiments, each with a chain, a key and a publication of its own.
#[test]
fn each_experiment_has_its_own_chain_and_operator() {
    let rig = Rig::new(
        "ExpExec 1:one:exppriv.cert,pubcmd.cert:eop.pub::\n\
         ExpExec 0:two:exppriv2.cert,pubcmd.cert:eop2.pub,eop.pub::",
    );
    let other = PrivateKey::generate().unwrap();
    let experimenter = rig.home.keys.experimenter.public_key();
    rig.home.write("eop2.pub", other.public_key().to_pem().as_bytes());
    rig.home.issue("exppriv2.cert", CertificateType::Exppriv, &experimenter, &other);
    let manager = rig.start(&[]);
    let (_peer, published) = rig.broker.take_publication(2);
    let operators = [&other, &rig.home.keys.operator].map(PrivateKey::public_key);
    let chains = ["exppriv2.cert", "exppriv.cert"];
    for ((published, operator), exppriv) in published.iter().zip(operators).zip(chains) {
        assert_eq!(published.operator_key, operator.0);
        assert_eq!(published.channels, [operator.key_id().to_string()]);
        assert_eq!(
            published.certificates,
            ["pubcmd.cert", exppriv].map(|name| der(&rig.home, name))
        );
    }
    assert_eq!(manager.interrupted().code, Some(0));
}
