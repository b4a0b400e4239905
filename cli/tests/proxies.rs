//! Several proxies: each has a backlog of its own, and what one of them loses the others carry.
//!
//! Not here: how a connection is registered at one of them, and what faults of that lead to (`proxy.rs`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::{Duration, Instant};

use common::broker::Broker;
use common::endpoint::{Dial, End, Endpoint, Identity};
use common::http::{get, metrics, metrics_address};
use common::manager::{Manager, wait_until, zoo};
use common::proxy::{Fault, Proxy, Step};
use common::{Ended, Home, assert_says, run};
use nix::sys::signal::Signal;
use packetlab::key::PrivateKey;

/// A home whose `pktxpmgr` uses two proxies.
struct Rig {
    home: Home,
    proxies: [Proxy; 2],
}

impl Rig {
    fn new(more: &str) -> Self {
        let home = Home::new();
        let proxies = [(); 2].map(|()| Proxy::start(&PrivateKey::generate().unwrap(), true));
        home.write("xpmgr.conf", home.behind_proxy(more).as_bytes());
        Self { home, proxies }
    }

    fn name(&self, index: usize) -> String {
        self.proxies[index].address.to_string()
    }

    fn spawn(&self, options: &[&str]) -> Manager {
        let mut command = self.home.bare_command();
        command.args(["-c", "xpmgr.conf", "-a", &[self.name(0), self.name(1)].join(",")]);
        command.args(options).arg(zoo()).arg("echo");
        Manager::spawn(&self.home, command)
    }

    /// One whose backlogs are filled.
    fn start(&self, options: &[&str]) -> Manager {
        let manager = self.spawn(options);
        manager.says_times("backlog filled: ", 2);
        manager
    }

    /// The session of an endpoint that comes through this proxy.
    #[track_caller]
    fn session(&self, index: usize) -> Endpoint {
        let proxy = &self.proxies[index];
        let dial = Dial::to(proxy.address).with(&Identity::of(&self.home.keys.operator));
        proxy.session(&dial)
    }

    /// Asserts that an endpoint that comes through this proxy now is served.
    #[track_caller]
    fn serves(&self, index: usize) {
        let mut endpoint = self.session(index);
        endpoint.echoes(b"through the proxy");
        endpoint.close();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    }
}

/// Waits until metrics tell that connections can be registered at so many of the proxies.
#[track_caller]
fn assert_registered_at(manager: &Manager, expected: u8) {
    let address = metrics_address(manager);
    wait_until("metrics tell of the proxies", || {
        let numbers = metrics(address);
        let at = |state| numbers[&format!("pktxpmgr_proxies{{state=\"{state}\"}}")];
        (at("registered"), at("not_registered")) == (expected.into(), (2 - expected).into())
    });
}

#[test]
fn each_proxy_has_a_whole_backlog_which_refills_alone() {
    let rig = Rig::new("TargetBacklogConn 3");
    let manager = rig.start(&["--metrics", "0"]);
    for index in [0, 1] {
        rig.proxies[index].holds(3);
        manager
            .says(&format!("backlog filled: 3 connections are registered at {}", rig.name(index)));
    }
    for _ in 0..5 {
        rig.serves(1);
    }
    rig.proxies[1].holds(3);
    assert_eq!(rig.proxies.each_ref().map(|proxy| proxy.order().len()), [3, 8]);
    rig.serves(0);
    assert_registered_at(&manager, 2);
    manager.signal(Signal::SIGUSR1);
    manager.says(&format!("status: proxy {}: 3 of 3 connections are registered", rig.name(0)));
    assert_eq!(manager.interrupted().code, Some(0));
}

/// The text names what the operator has said; it comes at once, though one of the proxies is not there, and that
/// one is filled when it is back.
#[test]
fn a_proxy_that_is_not_there_at_the_start_is_not_waited_for() {
    let mut rig = Rig::new("");
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let config = rig.home.publishing(
        &broker,
        "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\nEnableProxyMode 1\n\
         BacklogConnAgentCertPath agent.cert\nBootstrapBacklogTimeout 60s",
    );
    rig.home.write("xpmgr.conf", config.as_bytes());
    rig.proxies[0].go_down();
    let start = Instant::now();
    let manager = rig.spawn(&["-p", "localhost:7", "--metrics", "0"]);
    let (_peer, published) = broker.take_publication(1);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(published[0].value("controller_addr"), "localhost:7");
    manager.says(&format!("only 0 of 2 connections are registered at {}; going on", rig.name(0)));
    manager.says(&format!("proxy {}, snikey hello: cannot connect", rig.name(0)));
    assert_eq!(get(metrics_address(&manager), "/ready").0, 200);
    assert_registered_at(&manager, 1);
    rig.serves(1);
    rig.proxies[0].come_back();
    rig.proxies[0].holds(2);
    manager.says(&format!("the backlog at {} is full again", rig.name(0)));
    rig.serves(0);
    assert_registered_at(&manager, 2);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// One that does not answer is waited for as long as it may take, and so is one that is slow.
#[test]
fn a_proxy_that_has_not_failed_yet_is_waited_for() {
    let rig = Rig::new("BootstrapBacklogTimeout 700ms\nBacklogConnTimeout 60s");
    rig.proxies[0].fail(Step::Accepted, Fault::Stall, 100);
    let start = Instant::now();
    let manager = rig.spawn(&[]);
    manager.says("connections are registered at");
    manager.says(&format!("only 0 of 2 connections are registered at {} within", rig.name(0)));
    assert!(start.elapsed() >= Duration::from_millis(700), "{:?}", start.elapsed());
    rig.serves(1);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// What has failed early and goes well now is waited for as what has not failed.
#[test]
fn a_proxy_that_has_failed_and_registers_now_is_waited_for() {
    let mut rig = Rig::new("BootstrapBacklogTimeout 60s\nBacklogConnTimeout 60s");
    rig.proxies[1].go_down();
    rig.proxies[0].fail(Step::Accepted, Fault::Fin, 1);
    let manager = rig.spawn(&[]);
    rig.proxies[0].holds(1);
    // The one that failed is tried again after half a second at least.
    rig.proxies[0].fail(Step::Accepted, Fault::Stall, 1);
    wait_until("it is tried again", || rig.proxies[0].failed() == 1);
    rig.proxies[1].come_back();
    manager.says(&format!("backlog filled: 2 connections are registered at {}", rig.name(1)));
    rig.proxies[0].go_down();
    manager.says(&format!("of 2 connections are registered at {}; going on", rig.name(0)));
    let log = manager.log();
    let place = |part: &str, times: usize| log.match_indices(part).nth(times - 1).unwrap().0;
    let failures = format!("proxy {}, snikey hello: ", rig.name(0));
    assert!(place(&failures, 2) < place("; going on", 1), "{log}");
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_run_fails_for_want_of_a_proxy_when_nothing_is_registered_at_any_and_names_each() {
    let mut rig = Rig::new("BootstrapBacklogTimeout 700ms\nBacklogConnTimeout 200ms");
    rig.proxies[0].go_down();
    rig.proxies[1].fail(Step::Accepted, Fault::Stall, 100);
    let ended = rig.spawn(&[]).ends();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    let both = [
        "FATAL: no connection could be registered at any proxy in time: ".to_owned(),
        format!("{}: cannot connect to {0}: Connection refused", rig.name(0)),
        format!("; {}: the TLS handshake: no answer in time; check -a", rig.name(1)),
    ];
    assert_says(&ended.stderr, &both.each_ref().map(|part| &**part));
}

/// Its waiting connections and its sessions are all that a proxy takes along.
#[test]
fn a_proxy_that_dies_costs_its_own_connections_and_is_filled_when_it_is_back() {
    let mut rig = Rig::new("");
    let manager = rig.start(&["--metrics", "0"]);
    let (lost, mut kept) = (rig.session(0), rig.session(1));
    rig.proxies[1].holds(2);
    rig.proxies[0].go_down();
    // The endpoint's end of a session that went through it is gone with it.
    lost.tcp.shutdown(std::net::Shutdown::Both).unwrap();
    manager.says(&format!("proxy {}, snikey hello: ", rig.name(0)));
    assert_registered_at(&manager, 1);
    for _ in 0..3 {
        rig.serves(1);
        kept.echoes(b"untouched");
    }
    rig.proxies[0].come_back();
    rig.proxies[0].holds(2);
    manager.says(&format!("the backlog at {} is full again", rig.name(0)));
    rig.serves(0);
    kept.echoes(b"untouched");
    kept.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Where there is not room for all, none takes what the other lacks.
#[test]
fn a_limit_of_sessions_is_spread_over_the_proxies() {
    let rig = Rig::new("TargetBacklogConn 8\nBootstrapBacklogTimeout 500ms");
    let manager = rig.spawn(&["--sessions-max", "6"]);
    manager.says_times("only 3 of 8 connections are registered at", 2);
    assert_eq!(rig.proxies.each_ref().map(Proxy::waiting), [3, 3]);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// One that does not answer holds set-ups, of which there are few at once, but not those of the other.
#[test]
fn a_proxy_that_does_not_answer_leaves_the_other_its_set_ups() {
    let names: Vec<String> = (0..20).map(|number| format!("name{number}")).collect();
    let entry = |name: &String| format!("ExpExec 0:{name}:exppriv.cert,pubcmd.cert:eop.pub::");
    let entries: Vec<_> = names.iter().map(entry).collect();
    let more = format!("{}\nTargetBacklogConn 4\nBacklogConnTimeout 60s", entries.join("\n"));
    let rig = Rig::new(&more);
    rig.proxies[0].fail(Step::Accepted, Fault::Stall, 1000);
    let manager = rig.spawn(&[]);
    // With `hello` 21 snikeys, which ask for 84 set-ups at once.
    rig.proxies[1].holds(84);
    wait_until("the other stalls all of its share", || rig.proxies[0].failed() == 32);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn failures_that_are_not_shown_are_told_with_their_proxy() {
    let mut rig = Rig::new("TargetBacklogConn 20\nBootstrapBacklogTimeout 60s");
    rig.proxies[0].go_down();
    let manager = rig.spawn(&["-v"]);
    manager.says(&format!("DEBUG proxy {}, snikey hello: cannot connect", rig.name(0)));
    let ended = manager.interrupted();
    let told = format!("failures at the proxy {}: ", rig.name(0));
    assert_says(&ended.stderr, &[&told, "more like it not shown"]);
}

#[test]
fn a_reload_is_of_the_backlogs_at_all_proxies() {
    let rig = Rig::new("");
    let manager = rig.start(&[]);
    let more = "TargetBacklogConn 1\nExpExec 0:two:exppriv.cert,pubcmd.cert:eop.pub::";
    rig.home.write("xpmgr.conf", rig.home.behind_proxy(more).as_bytes());
    manager.signal(Signal::SIGHUP);
    manager.says("2 experiments");
    for proxy in &rig.proxies {
        // Two of the one, and one of the other.
        proxy.holds(3);
        assert_eq!(proxy.order()[2], "two");
    }
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn each_bad_proxy_of_a_list_is_told() {
    let rig = Rig::new("");
    let ended = |options: &[&str]| -> Ended {
        run(rig.home.bare_command().args(["-c", "xpmgr.conf"]).args(options).arg(zoo()).arg("echo"))
    };
    for (options, code, said) in [
        (&["--check", "-a", "a:x,b.example,c:70000"][..], 3, &["-a a:x: ", "-a c:70000: "][..]),
        (&["-a", "a.example,"], 2, &["-a : the address is empty"]),
        (&["-a", "127.0.0.1:7,localhost:7"], 4, &["-a localhost:7: it is the same as 127.0.0.1:7"]),
        (&["--check", "-a", "a, c"], 3, &["address \" c\" has a blank in its host"]),
        (&["--check", "-a", "a,A:20557,b"], 3, &["-a A:20557: it is the same as a before it"]),
        (
            &["-a", "nowhere.invalid,elsewhere.invalid"],
            4,
            &["find nowhere.invalid", "find elsewhere.invalid"],
        ),
    ] {
        let ended = ended(options);
        assert_eq!(ended.code, Some(code), "{options:?}: {}", ended.stderr);
        assert_says(&ended.stderr, said);
    }
    let dry = ended(&["--dry-run", "-a", "a.example,[::1]:7"]);
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert_says(&dry.stdout, &["proxy         a.example:20557 (a name", "proxy         [::1]:7\n"]);
}

/// Endpoints are told one address, which nobody but the operator knows.
#[test]
fn what_is_published_of_several_proxies_has_to_be_said() {
    let rig = Rig::new("");
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let check = |overrides: &str, more: &[&str]| -> Ended {
        let experiment = format!(
            "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::{overrides}\nEnableProxyMode 1\n"
        );
        rig.home.write("xpmgr.conf", rig.home.publishing(&broker, &experiment).as_bytes());
        let words = ["-c", "xpmgr.conf", "-a", "a.example,b.example", "--check"];
        run(rig.home.bare_command().args(words).args(more).arg(zoo()).arg("echo"))
    };
    let refused = check("", &[]);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert_says(
        &refused.stderr,
        &["-a a.example,b.example: of several proxies none is the one to publish"],
    );
    for (overrides, more) in [("", &["-p", "p.example"][..]), ("controller_addr=p.example;", &[])] {
        let taken = check(overrides, more);
        assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    }
}

/// A name that nobody can look up keeps no run from the other proxy.
#[test]
fn a_proxy_whose_name_is_not_found_is_warned_of() {
    let rig = Rig::new("");
    let mut command = rig.home.bare_command();
    let proxies = ["nowhere.invalid".to_owned(), rig.name(1)].join(",");
    command.args(["-c", "xpmgr.conf", "-a", &proxies]).arg(zoo()).arg("echo");
    let manager = Manager::spawn(&rig.home, command);
    manager.says("cannot find nowhere.invalid");
    manager.says("proxy nowhere.invalid, snikey hello: connecting: its name cannot be found");
    rig.serves(1);
    assert_eq!(manager.interrupted().code, Some(0));
}
