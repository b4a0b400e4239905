//! Proxy mode: connections registered at a proxy, endpoints that come through them, and what every
//! fault of the proxy leads to.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::broker::Broker;
use common::endpoint::{Dial, End, Endpoint, Identity, SUCCESS, message};
use common::manager::{Manager, wait_until, zoo};
use common::proxy::{Fault, Proxy, Step};
use common::tls_peer::reset;
use common::{Home, assert_says};
use engine::sys::limits::raise_open_files;
use nix::sys::signal::Signal;
use packetlab::certificate::CertificateType;
use packetlab::key::PrivateKey;
use socket2::{Domain, Socket, Type};

/// A home, and a proxy that its `pktxpmgr` uses.
struct Rig {
    home: Home,
    proxy: Proxy,
}

impl Rig {
    fn new(more: &str) -> Self {
        let home = Home::new();
        let proxy = Proxy::start(&PrivateKey::generate().unwrap(), true);
        home.write("xpmgr.conf", home.behind_proxy(more).as_bytes());
        Self { home, proxy }
    }

    fn spawn_with(&self, options: &[&str], mlet: &[&str]) -> Manager {
        let mut command = self.home.bare_command();
        command.args(["-c", "xpmgr.conf", "-a", &self.proxy.address.to_string()]);
        command.args(options).arg(zoo()).args(mlet);
        Manager::spawn(&self.home, command)
    }

    fn spawn(&self, options: &[&str]) -> Manager {
        self.spawn_with(options, &["echo"])
    }

    /// One whose backlog is filled.
    fn start(&self, options: &[&str]) -> Manager {
        let manager = self.spawn(options);
        manager.says("backlog filled");
        manager
    }

    /// A good endpoint that asks for snikey `hello`.
    fn dial(&self) -> Dial {
        Dial::to(self.proxy.address).with(&Identity::of(&self.home.keys.operator))
    }

    /// Asserts that an endpoint that comes now is served.
    #[track_caller]
    fn serves(&self) {
        let mut endpoint = self.proxy.session(&self.dial());
        endpoint.echoes(b"through the proxy");
        endpoint.close();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    }
}

/// Items 104, 106, 107 and 122: the scripted proxy holds the order of messages and that nothing is
/// sent early; the mlet's EPADDR is the proxy's address.
#[test]
fn endpoints_are_served_through_registered_connections_which_are_replaced() {
    let rig = Rig::new("");
    let manager = rig.spawn_with(&[], &["dump"]);
    manager.says("backlog filled: 2 connections");
    for _ in 0..5 {
        let mut endpoint = rig.proxy.session(&rig.dial());
        let environment = endpoint.text();
        assert!(environment.contains("EPADDR=127.0.0.1"), "{environment}");
        assert!(environment.contains("PKTLAB_SNIKEY=hello"), "{environment}");
        rig.proxy.holds(2);
        endpoint.close();
    }
    assert_eq!(rig.proxy.waiting(), 2, "and no more than that");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Items 105, 106.
#[test]
fn whatever_lies_between_result_and_preamble_is_skipped_and_what_follows_is_kept() {
    for between in [&b""[..], b"P", b"PKTLA", b"\x17\x03\x03\x00\x13 left over from TLS, P"] {
        let rig = Rig::new("TargetBacklogConn 1");
        rig.proxy.follow_result_with(&[between, b"PKTLAB"].concat());
        let manager = rig.start(&[]);
        rig.serves();
        assert_eq!(manager.interrupted().code, Some(0));
    }
}

/// Item 106: the endpoint's first bytes come in one segment with the preamble.
#[test]
fn a_clienthello_glued_to_the_preamble_is_not_lost() {
    let rig = Rig::new("TargetBacklogConn 1");
    // The connection to which this ClientHello belongs; what it is sent over does not matter.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let beside = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut endpoint: Endpoint = rig.dial().over(beside).unwrap();
    let hello = endpoint.hello();
    rig.proxy.follow_result_with(&[b"PPKTLAB", &hello[..]].concat());
    let manager = rig.spawn(&[]);
    endpoint.tcp = rig.proxy.take("hello");
    endpoint.tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    endpoint.handshake().unwrap();
    endpoint.set_up().unwrap();
    endpoint.echoes(b"nothing lost");
    assert_eq!(manager.said("dropped"), 0);
    endpoint.close();
    manager.interrupted();
}

/// Item 107: three snikeys, three each, in rounds; each has its own chain and operator, and an endpoint
/// of one is not served by another.
#[test]
fn each_snikey_has_its_own_backlog_breadth_first_and_its_own_experiment() {
    let rig = Rig::new(
        "TargetBacklogConn 3\n\
         ExpExec 0:two:exppriv2.cert,pubcmd.cert:eop2.pub::\n\
         ExpExec 0:three:exppriv.cert,pubcmd.cert:eop.pub::",
    );
    let other = PrivateKey::generate().unwrap();
    let experimenter = rig.home.keys.experimenter.public_key();
    rig.home.write("eop2.pub", other.public_key().to_pem().as_bytes());
    rig.home.issue("exppriv2.cert", CertificateType::Exppriv, &experimenter, &other);
    let manager = rig.start(&[]);
    rig.proxy.holds(9);
    let order = rig.proxy.order();
    for round in order.chunks(3) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, ["hello", "three", "two"], "{order:?}");
    }
    let second = Dial::to(rig.proxy.address).with(&Identity::of(&other)).asking(Some("two"));
    let mut endpoint = second.over(rig.proxy.take("two")).unwrap();
    endpoint.handshake().unwrap();
    assert_eq!(endpoint.controller_chain().len(), 2);
    endpoint.set_up().unwrap();
    endpoint.echoes(b"two");
    rig.serves();
    let foreign = rig.dial().asking(Some("two"));
    let mut refused = foreign.over(rig.proxy.take("two")).unwrap();
    let end = refused.handshake().and_then(|()| refused.receive().map(drop));
    assert_eq!(end, Err(End::Alert(46)), "its operator is not trusted there");
    rig.proxy.holds(9);
    endpoint.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Item 114.
#[test]
fn without_a_certificate_of_ours_a_lenient_proxy_registers_us() {
    let home = Home::new();
    let proxy = Proxy::start(&PrivateKey::generate().unwrap(), false);
    home.write("xpmgr.conf", format!("{}EnableProxyMode 1\n", home.least()).as_bytes());
    let rig = Rig { home, proxy };
    let manager = rig.start(&[]);
    rig.serves();
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn only_a_proxy_signed_by_a_trusted_key_is_used() {
    let signer = PrivateKey::generate().unwrap();
    for (trusted, code) in [(&signer, Some(0)), (&PrivateKey::generate().unwrap(), Some(4))] {
        let home = Home::new();
        home.write("pop.pub", trusted.public_key().to_pem().as_bytes());
        let more = "ProxyCertRootPath pop.pub\nBootstrapBacklogTimeout 300ms";
        home.write("xpmgr.conf", home.behind_proxy(more).as_bytes());
        let rig = Rig { home, proxy: Proxy::start(&signer, true) };
        let manager = rig.spawn(&[]);
        if code == Some(0) {
            manager.says("backlog filled");
            manager.signal(Signal::SIGINT);
        }
        let ended = manager.ends();
        assert_eq!(ended.code, code, "{}", ended.stderr);
        if code == Some(4) {
            assert_says(&ended.stderr, &["TLS failed", "ProxyCertRootPath"]);
        }
    }
}

/// Items 108, 109: a proxy that is silent, refused, or not there, at the bootstrap: code 4, on time.
#[test]
fn a_bootstrap_without_any_connection_ends_with_code_4_on_time() {
    for fault in ["silent", "refusing registrations", "not there"] {
        let mut rig = Rig::new("BootstrapBacklogTimeout 700ms\nBacklogConnTimeout 200ms");
        let refusal = message(0x40, &[0, 0x44]);
        match fault {
            "silent" => rig.proxy.fail(Step::Accepted, Fault::Stall, 100),
            "not there" => rig.proxy.go_down(),
            _ => rig.proxy.fail(Step::Registered, Fault::Message(refusal), 100),
        }
        let manager = rig.spawn(&[]);
        manager.says("registering 2 connections");
        let start = Instant::now();
        let ended = manager.ends();
        assert_eq!(ended.code, Some(4), "{}", ended.stderr);
        let took = start.elapsed();
        assert!((500..1500).contains(&took.as_millis()), "{fault}: {took:?}");
        let reason = match fault {
            "silent" => "the TLS handshake: no answer in time",
            "not there" => "refused",
            _ => "ENORES (68)",
        };
        assert_says(&ended.stderr, &["FATAL: no connection could be registered", reason]);
        assert!(fault == "not there" || rig.proxy.failed() > 0, "the fault happened");
    }
}

/// Item 108: some are enough to go on with, and only then is it published (item 55).
#[test]
fn a_bootstrap_with_some_connections_goes_on_with_a_warning_and_publishes_then() {
    let home = Home::new();
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let proxy = Proxy::start(&PrivateKey::generate().unwrap(), true);
    let config = home.publishing(
        &broker,
        "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\nEnableProxyMode 1\n\
         BacklogConnAgentCertPath agent.cert\nTargetBacklogConn 3\n\
         BootstrapBacklogTimeout 450ms",
    );
    home.write("xpmgr.conf", config.as_bytes());
    let rig = Rig { home, proxy };
    rig.proxy.fail(Step::Registered, Fault::Message(message(0x40, &[0, 0x44])), 2);
    let start = Instant::now();
    let manager = rig.spawn(&[]);
    let (_peer, published) = broker.take_publication(1);
    assert!(start.elapsed() >= Duration::from_millis(450), "not before the time is over");
    manager.says("published as 127.0.0.1 without a port, so endpoints come to its port 20556");
    manager.says("only 1 of 3 connections");
    assert_eq!(published[0].value("controller_addr"), "127.0.0.1", "the host of -a");
    assert_eq!(rig.proxy.failed(), 2);
    rig.serves();
    rig.proxy.holds(3);
    manager.says("is full again");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Item 19.
#[test]
fn a_signal_within_the_bootstrap_ends_the_run_at_once() {
    let rig = Rig::new("BootstrapBacklogTimeout 60s\nBacklogConnTimeout 60s");
    rig.proxy.fail(Step::Accepted, Fault::Stall, 100);
    let manager = rig.spawn(&[]);
    wait_until("a set-up that stalls", || rig.proxy.failed() == 2);
    let start = Instant::now();
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// Item 113: idle connections are closed when the attempts are used up, and running sessions finish.
#[test]
fn the_last_attempt_closes_the_backlog_and_lets_sessions_finish() {
    let rig = Rig::new("TargetBacklogConn 4");
    let manager = rig.start(&["-n", "2"]);
    let mut first = rig.proxy.session(&rig.dial());
    let mut second = rig.proxy.session(&rig.dial());
    manager.says("all attempts of -n are made");
    let mut idle = rig.proxy.take("hello");
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "closed");
    for session in [&mut first, &mut second] {
        session.echoes(b"to the end");
        session.close();
    }
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["run over: 2 sessions served, 0 connections failed"]);
}

#[test]
fn a_signal_closes_the_backlog_at_once_and_lets_sessions_finish() {
    let rig = Rig::new("");
    let manager = rig.start(&[]);
    let mut session = rig.proxy.session(&rig.dial());
    let mut idle = rig.proxy.take("hello");
    manager.signal(Signal::SIGINT);
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "closed");
    session.echoes(b"to the end");
    session.close();
    assert_eq!(manager.ends().code, Some(0));
}

/// A connection may wait for its endpoint without any limit; from its first byte on there is one.
#[test]
fn idle_connections_wait_without_limit_but_a_begun_handshake_does_not() {
    let rig = Rig::new("TargetBacklogConn 1");
    let manager = rig.start(&["--handshake-timeout", "200ms"]);
    let mut slow = rig.proxy.take("hello");
    thread::sleep(Duration::from_millis(600));
    slow.write_all(&[0x16, 3, 1]).unwrap();
    let start = Instant::now();
    assert_eq!(slow.read(&mut [0]).unwrap(), 0);
    let took = start.elapsed();
    assert!((150..1000).contains(&took.as_millis()), "{took:?}");
    manager.says("no complete TLS handshake in time");
    rig.serves();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Whatever happens to a set-up, the run goes on, a running session is not touched, and the backlog is
/// full again.
#[track_caller]
fn assert_survived(step: Step, faults: &[Fault]) {
    let rig = Rig::new("TargetBacklogConn 2\nBacklogConnTimeout 300ms");
    let manager = rig.start(&[]);
    let mut bystander = rig.proxy.session(&rig.dial());
    rig.proxy.holds(2);
    // Its mlet has its socket.
    bystander.echoes(b"before");
    // A set-up that has just ended may still hold a socket twice; at rest there are the fewest.
    let looks = (0..50).map(|_| {
        thread::sleep(Duration::from_millis(5));
        manager.open_sockets()
    });
    let sockets = looks.min().unwrap();
    for fault in faults {
        let complaints = manager.said("WARN");
        rig.proxy.fail(step, fault.clone(), 1);
        // Its endpoint takes a connection, which is to be replaced.
        rig.serves();
        wait_until("the fault", || rig.proxy.failed() == 1);
        rig.proxy.holds(2);
        wait_until("a complaint", || manager.said("WARN") > complaints);
        bystander.echoes(format!("{step:?} {fault:?}").as_bytes());
        assert!(manager.is_running(), "{step:?} {fault:?}");
    }
    wait_until("no socket is left behind", || manager.open_sockets() <= sockets);
    rig.serves();
    bystander.close();
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
}

fn any_fault() -> [Fault; 4] {
    [Fault::Fin, Fault::Reset, Fault::Stall, Fault::Raw(vec![7; 100_000])]
}

/// Item 111, P0 and P1 of spec/reliability.md 7.
#[test]
fn no_fault_right_after_the_connect_ends_anything_but_its_set_up() {
    assert_survived(Step::Accepted, &any_fault());
}

/// Item 111, P1.
#[test]
fn no_fault_within_the_handshake_ends_anything_but_its_set_up() {
    assert_survived(Step::Hello, &any_fault());
}

/// Item 111, P2.
#[test]
fn no_fault_before_xreg_is_read_ends_anything_but_its_set_up() {
    assert_survived(Step::Tls, &any_fault());
}

/// Items 111, 112, P3.
#[test]
fn no_fault_instead_of_result_ends_anything_but_its_set_up() {
    assert_survived(Step::Registered, &any_fault());
    assert_survived(
        Step::Registered,
        &[
            Fault::Message(message(0x40, &[0, 0x44])),
            Fault::Message(message(0x70, &[1, 1])),
            Fault::Message(vec![0x40, 0xff, 0xff, 0xff]),
        ],
    );
}

/// Item 111, P4.
#[test]
fn no_fault_instead_of_the_preamble_ends_anything_but_its_set_up() {
    assert_survived(Step::Answered, &any_fault());
}

/// Item 111, P5. What follows the preamble belongs to the endpoint, so that silence is no fault there.
#[test]
fn no_fault_after_the_preamble_ends_anything_but_its_set_up() {
    assert_survived(Step::Preamble, &[Fault::Fin, Fault::Reset, Fault::Raw(vec![7; 100])]);
}

/// P0, stalled: a proxy whose kernel takes no connection.
#[test]
fn a_connect_that_gets_no_answer_is_given_up_in_time() {
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    full.bind(&any.into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    // What the kernel still lets in; the next one gets no answer.
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
        assert!(queued.len() < 10, "the queue never fills");
    }
    let home = Home::new();
    let more = "BootstrapBacklogTimeout 900ms\nBacklogConnTimeout 200ms";
    home.write("xpmgr.conf", home.behind_proxy(more).as_bytes());
    let mut command = home.bare_command();
    command.args(["-c", "xpmgr.conf", "-a", &address.to_string()]).arg(zoo()).arg("echo");
    let ended = Manager::spawn(&home, command).ends();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert_says(&ended.stderr, &["cannot connect to", "timed out"]);
}

/// The deadline of a step is absolute: a proxy that trickles does not extend it.
#[test]
fn a_proxy_that_sends_a_byte_now_and_then_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let home = Home::new();
    let more = "BootstrapBacklogTimeout 2s\nBacklogConnTimeout 300ms\nTargetBacklogConn 1";
    home.write("xpmgr.conf", home.behind_proxy(more).as_bytes());
    let mut command = home.bare_command();
    command.args(["-c", "xpmgr.conf", "-a", &address.to_string()]).arg(zoo()).arg("echo");
    let manager = Manager::spawn(&home, command);
    let (mut tcp, _) = listener.accept().unwrap();
    let start = Instant::now();
    // The beginning of a record that would hold 16 KiB.
    let mut bytes = [0x16, 3, 3, 0x40].into_iter().chain(std::iter::repeat(0));
    while tcp.write_all(&[bytes.next().unwrap()]).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(2), "it is not given up");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
    manager.says("the TLS handshake: no answer in time");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A connection that is lost while it waits is replaced; many at once are no storm.
#[test]
fn idle_connections_that_are_lost_are_replaced() {
    let rig = Rig::new("TargetBacklogConn 3");
    let manager = rig.start(&[]);
    for lose in
        [|tcp: TcpStream| drop(tcp), reset, |tcp: TcpStream| tcp.shutdown(Shutdown::Write).unwrap()]
    {
        let lost = rig.proxy.take("hello");
        let complaints = manager.said("a registered connection is lost");
        lose(lost);
        wait_until("the loss", || manager.said("a registered connection is lost") > complaints);
        rig.proxy.holds(3);
    }
    rig.serves();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// P25: twenty restarts of the proxy in one run, with sessions alive throughout, and the backlog full
/// within 5 s of each.
#[test]
fn twenty_restarts_of_the_proxy_hurt_no_session() {
    const TARGET: usize = 20;
    let mut rig = Rig::new(&format!("TargetBacklogConn {TARGET}"));
    let manager = rig.start(&[]);
    let mut sessions: Vec<_> = (0..5).map(|_| rig.proxy.session(&rig.dial())).collect();
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        rig.proxy.holds(TARGET);
        rig.proxy.go_down();
        assert!(TcpStream::connect(rig.proxy.address).is_err(), "the fault is there");
        wait_until("the loss", || manager.said("a registered connection is lost") > 0);
        rig.proxy.come_back();
        let start = Instant::now();
        rig.proxy.holds(TARGET);
        longest = longest.max(start.elapsed());
        for session in &mut sessions {
            session.echoes(format!("round {round}").as_bytes());
        }
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    rig.serves();
    for mut session in sessions {
        session.close();
        assert_eq!(session.receive(), Err(End::CloseNotify));
    }
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Item 110: against a proxy that is dead, at most two tries a second for a snikey; when it is back,
/// the backlog is full within 5 s.
#[test]
fn a_dead_proxy_is_tried_at_most_twice_a_second_and_refilled_when_it_is_back() {
    let rig = Rig::new("TargetBacklogConn 20\nExpExec 0:two:exppriv.cert,pubcmd.cert:eop.pub::");
    let manager = rig.start(&[]);
    let mut session = rig.proxy.session(&rig.dial());
    rig.proxy.holds(40);
    // Dead, but counting: it resets every connection.
    rig.proxy.fail(Step::Accepted, Fault::Reset, usize::MAX);
    let before = rig.proxy.accepted().len();
    rig.proxy.close_waiting();
    let start = Instant::now();
    thread::sleep(Duration::from_secs(6));
    let tries = rig.proxy.accepted()[before..].iter().filter(|at| **at > start).count();
    assert!(rig.proxy.failed() > 0, "the fault happened");
    assert!((4..=24).contains(&tries), "{tries} tries in 6 s for two snikeys");
    session.echoes(b"untouched");
    rig.proxy.fail(Step::Accepted, Fault::Reset, 0);
    let back = Instant::now();
    rig.proxy.holds(40);
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    session.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Large fleets: 2000 connections are registered within 10 s, and 500 endpoints that come at once are
/// all served while it is refilled.
#[test]
fn two_thousand_connections_are_filled_in_ten_seconds_and_refilled_under_a_storm() {
    const TARGET: usize = 2000;
    const STORM: usize = 500;
    raise_open_files().unwrap();
    let rig = Rig::new(&format!("TargetBacklogConn {TARGET}\nBootstrapBacklogTimeout 60s"));
    let manager = rig.spawn_with(&["-s"], &["single", "echo"]);
    manager.says("registering 2000 connections");
    let start = Instant::now();
    manager.says("backlog filled: 2000");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");

    let dial = rig.dial();
    let all_here = Barrier::new(STORM);
    thread::scope(|scope| {
        for _ in 0..STORM {
            scope.spawn(|| {
                let mut endpoint = rig.proxy.endpoint(&dial);
                all_here.wait();
                endpoint.handshake().unwrap();
                endpoint.set_up().unwrap();
                endpoint.text();
                endpoint.echoes(b"one of many");
                endpoint.close();
                assert_eq!(endpoint.receive(), Err(End::CloseNotify));
            });
        }
    });
    rig.proxy.holds(TARGET);
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["run over: 500 sessions served, 0 connections failed"]);
}

/// Nobody but an endpoint can use a connection up: garbage is the proxy's fault, and no storm follows.
#[test]
fn garbage_instead_of_an_endpoint_is_no_endpoint_and_no_storm() {
    let rig = Rig::new("TargetBacklogConn 2");
    let manager = rig.start(&["--linger-timeout", "50ms"]);
    rig.proxy.holds(2);
    rig.proxy.fail(Step::Preamble, Fault::Raw(b"GET / HTTP/1.1\r\n\r\n".to_vec()), usize::MAX);
    drop(rig.proxy.take("hello"));
    drop(rig.proxy.take("hello"));
    let start = Instant::now();
    wait_until("some garbage", || rig.proxy.failed() >= 5);
    assert!(start.elapsed() >= Duration::from_millis(1500), "{:?}", start.elapsed());
    rig.proxy.fail(Step::Preamble, Fault::Fin, 0);
    rig.serves();
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &["a registered connection is lost: TLS failed"]);
}

/// The peer's answer to START and the first message behind it pass, as without a proxy.
#[test]
fn a_session_through_the_proxy_is_like_any_other() {
    let rig = Rig::new("");
    let manager = rig.start(&[]);
    let mut endpoint = rig.proxy.endpoint(&rig.dial());
    endpoint.handshake().unwrap();
    let (start, _) = endpoint.receive().unwrap();
    assert_eq!(start, 0x21);
    endpoint.send(&SUCCESS);
    let payload: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    endpoint.echoes(&payload);
    endpoint.close();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    let ended = manager.interrupted();
    assert_says(&ended.stderr, &["run over: 1 session served, 0 connections failed"]);
}
