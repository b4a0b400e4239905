//! `pktfleet broker`, `proxy` and `endpoint` as a group runs them: one process each, credentials in
//! files, a real `pktxpmgr` with real mlets, and an end by signal.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

#[path = "hosts/attacks.rs"]
mod attacks;
#[path = "hosts/campaign.rs"]
mod campaign;
#[path = "hosts/clients.rs"]
mod clients;
#[path = "../../engine/tests/common/debug_forms.rs"]
mod debug_forms;
#[path = "hosts/figures.rs"]
mod figures;
#[path = "hosts/figures_usage.rs"]
mod figures_usage;
#[path = "hosts/identities.rs"]
mod identities;
#[path = "hosts/network.rs"]
mod network;
#[path = "../../engine/campaign/tests/common/postgres.rs"]
mod postgres;
#[path = "hosts/rounds.rs"]
mod rounds;
#[path = "hosts/scene.rs"]
mod scene;
#[path = "hosts/several.rs"]
mod several;
#[path = "hosts/shared.rs"]
mod shared;
#[path = "hosts/shared_faults.rs"]
mod shared_faults;
#[path = "hosts/shared_judge.rs"]
mod shared_judge;
#[path = "hosts/shared_parts.rs"]
mod shared_parts;
#[path = "hosts/waiting.rs"]
mod waiting;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use engine::sys::limits;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::channel::{ChannelId, ChannelList};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::message::Message;
use packetlab::time::Ticks;
use packetlab::tls::{self, PeerRule};
use packetlab::trust::TrustMode;
use rustls::ClientConnection;

use clients::{BrokerClient, register, try_register};
use scene::{Running, Scene, expected, printed};
use waiting::{await_that, comes_true};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PKTFLEET: &str = env!("CARGO_BIN_EXE_pktfleet");
const PREAMBLE: &[u8] = b"PKTLAB";

#[test]
fn an_endpoint_hears_of_an_experiment_and_connects_back() {
    let scene = Scene::new("broker");
    let mut broker = scene.broker();
    let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
    let key = scene.endpoint("ep1");
    let endpoint = scene.subscribed("ep1", subscribe);
    let config = scene.config("one", publish, false);
    let manager = scene.pktxpmgr(&config, &["-a", &free_address(), "-n", "1"]);
    assert_eq!(printed(manager), expected("one", &[&key]));
    endpoint.end(Signal::SIGINT);
    broker.end(Signal::SIGTERM);
}

#[test]
fn why_a_broker_is_not_trusted_is_told_in_words() {
    let scene = Scene::new("untrusted");
    let mut broker = scene.broker();
    let address = broker.address("subscribers").to_string();
    scene.endpoint("ep1");
    let words = ["endpoint", "--subscribe", &address, "--key", "@ep1", "--agent", "@ep1.agent"];
    let more = ["--subcmd", "@ep1.subcmd", "--operator", "@eop.pub", "--broker-root", "@prx.pub"];
    let mut endpoint = Running::start(scene.pktfleet(&[&words[..], &more].concat()));
    endpoint
        .wait_for("the TLS handshake failed: the peer's certificates are refused: certificate 0");
    endpoint.end(Signal::SIGINT);
    broker.end(Signal::SIGTERM);
}

#[test]
fn every_endpoint_of_a_fleet_connects_back_with_a_key_of_its_own() {
    const COUNT: usize = 20;
    let scene = Scene::new("fleet");
    let mut broker = scene.broker();
    let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
    let fleet = scene.fleet(COUNT, subscribe);
    let config = scene.config("fleet", publish, false);
    let count = COUNT.to_string();
    let manager = scene.pktxpmgr(&config, &["-a", &free_address(), "-n", &count]);
    let mut lines = printed(manager);
    let is_whole = |line: &String| line.starts_with("fleet ") && line.len() == 6 + 64;
    assert!(lines.iter().all(is_whole), "{lines:?}");
    lines.dedup();
    assert_eq!(lines.len(), COUNT);
    // The first endpoint speaks for all.
    let log = fleet.end(Signal::SIGINT);
    let connecting = log.iter().filter(|line| line.contains("connecting back to"));
    assert_eq!(connecting.count(), 1, "{log:?}");
    broker.end(Signal::SIGTERM);
}

#[test]
fn ten_thousand_idle_endpoints_fit_into_a_gib() {
    const COUNT: usize = 10_000;
    const KIB_MAX: usize = 1 << 20;
    let limit = limits::raise_open_files().unwrap();
    assert!(limit > COUNT as u64 + 100, "`ulimit -Hn` is {limit}, too low for this test");
    let scene = Scene::new("idle");
    let mut broker = scene.broker();
    let fleet = scene.fleet(COUNT, broker.address("subscribers"));
    let (files, kib) = (fleet.open_files(), fleet.resident_kib());
    println!("{COUNT} idle endpoints: {kib} KiB resident, {files} open files");
    assert!(kib < KIB_MAX, "{kib} KiB");
    assert!((COUNT..COUNT + 64).contains(&files), "{files} open files");
    fleet.end(Signal::SIGINT);
    broker.end(Signal::SIGTERM);
}

#[test]
fn a_fleet_says_which_limit_on_open_files_it_needs() {
    let scene = Scene::new("limit");
    let key = scene.path("eop");
    let limited = ["-c", "ulimit -n 100 && exec \"$0\" \"$@\"", PKTFLEET];
    let fleet = ["fleet", "--endpoints", "1000", "--subscribe", "127.0.0.1:1", "--key", &key];
    let output = Command::new("/bin/sh").args(limited).args(fleet).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{log}");
    let needed = "1000 endpoints need 1064 open files even when idle, and 100 are allowed";
    assert!(log.contains(needed) && log.contains("ulimit -Hn 3064"), "{log}");
}

/// Two managers, two endpoints, one broker, one proxy: everybody meets everybody, each manager under its
/// own snikey.
#[test]
fn two_managers_on_one_broker_and_one_proxy_do_not_disturb_each_other() {
    let scene = Scene::new("proxy");
    let (mut broker, mut proxy) = (scene.broker(), scene.proxy(&[]));
    let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
    let register = proxy.address("controllers").to_string();
    let through = proxy.address("endpoints").to_string();
    let keys = [scene.endpoint("ep1"), scene.endpoint("ep2")];
    let keys = keys.each_ref().map(String::as_str);
    let endpoints = ["ep1", "ep2"].map(|name| scene.subscribed(name, subscribe));
    let managers = ["one", "two"].map(|snikey| {
        let config = scene.config(snikey, publish, true);
        (snikey, scene.pktxpmgr(&config, &["-a", &register, "-p", &through, "-n", "2"]))
    });
    for (snikey, manager) in managers {
        assert_eq!(printed(manager), expected(snikey, &keys));
    }
    for endpoint in endpoints {
        endpoint.end(Signal::SIGTERM);
    }
    proxy.end(Signal::SIGINT);
    broker.end(Signal::SIGINT);
}

/// The way of docs/operating.md, with credentials of `pktcred` and three homes instead of three hosts.
#[test]
fn a_group_with_credentials_of_its_own_has_its_own_packetlab() {
    let scene = Scene::new("group");
    let home = |host: &str| format!("--home={}", scene.path(host));
    let pktcred = |words: &[&str]| {
        let program = Path::new(PKTFLEET).with_file_name("pktcred");
        assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
        let output = Command::new(program).args(words).current_dir(&scene.folder).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let mut hosts = ["broker", "proxy"].map(|host| {
        pktcred(&["key", host, "--dir", ".", "--no-passphrase"]);
        let (key, subject) = (format!("./{host}"), format!("./{host}.pub"));
        let certificate = format!("{host}.cert");
        pktcred(&["sign", "agent", "--signer", &key, "--subject", &subject, "-o", &certificate]);
        let ports = match host {
            "broker" => ["--publish", "127.0.0.1:0", "--subscribe", "127.0.0.1:0"],
            _ => ["--controllers", "127.0.0.1:0", "--endpoints", "127.0.0.1:0"],
        };
        let words = [&[host, "--key", host, "--agent", &certificate][..], &ports].concat();
        Running::start(scene.pktfleet(&words))
    });
    let [publish, subscribe] = ["publishers", "subscribers"].map(|whom| hosts[0].address(whom));
    let [register, through] = ["controllers", "endpoints"].map(|whom| hosts[1].address(whom));

    pktcred(&["init", "--no-passphrase", "--no-broker", &home("operator")]);
    let endpoint = scene.pktfleet(&[
        "endpoint",
        "--subscribe",
        &subscribe.to_string(),
        "--broker-root=broker.pub",
        "--key=operator/keys/k_ep",
        "--agent=operator/certs/agent_ep_ep.cert",
        "--subcmd=operator/certs/subcmd_eop_ep.cert",
        "--operator=operator/keys/k_eop.pub",
        "--attributes=hostid=EP1;endpoint_country=DEU;",
    ]);
    let mut endpoint = Running::start(endpoint);
    endpoint.wait_for("subscribed at the broker");

    let roots = ["--broker-root=broker.pub", "--proxy-root=proxy.pub"];
    let broker = format!("--broker={publish}");
    pktcred(&["init", "--no-passphrase", &broker, roots[0], roots[1], &home("lab")]);
    let csr = scene.path("lab/csrs/exppriv_exper.csr");
    let signed = ["--csr", &csr, "-o", "exppriv.cert"];
    pktcred(&[&["sign", "exppriv", &home("operator"), "--signer=k_eop"][..], &signed].concat());
    let operator = scene.path("operator/keys/k_eop.pub");
    pktcred(&["add-privilege", &home("lab"), "--cert=./exppriv.cert", "--eop-key", &operator]);

    let key = PublicKey::from_pem(&fs::read(scene.path("operator/keys/k_ep.pub")).unwrap());
    let key = key.unwrap().key_id().to_string();
    for (config, words) in [
        ("lab/xpmgr.conf", vec!["-a".to_owned(), free_address()]),
        (
            "lab/xpmgr.proxy.conf",
            vec!["-a".to_owned(), register.to_string(), "-p".to_owned(), through.to_string()],
        ),
    ] {
        let words: Vec<_> = words.iter().map(String::as_str).chain(["-n", "1"]).collect();
        let lines = printed(scene.pktxpmgr(&scene.path(config), &words));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.ends_with(&format!(" {key}")), "{line}");
    }
    endpoint.end(Signal::SIGINT);
    for host in hosts {
        host.end(Signal::SIGINT);
    }
}

/// An address of this machine that is free, as far as can be known.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn what_is_wrong_with_a_command_is_said_and_has_its_exit_code() {
    let scene = Scene::new("errors");
    scene.endpoint("ep1");
    fs::set_permissions(scene.path("prx"), Permissions::from_mode(0o644)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let endpoint = ["endpoint", "--key", "@ep1", "--operator", "@eop.pub"];
    let direct = [&endpoint[..], &["--controller", "127.0.0.1:1"]].concat();
    let subscribed = [&endpoint[..], &["--subscribe", "127.0.0.1:1"]].concat();
    let agent = [&subscribed[..], &["--agent", "@ep1.agent"]].concat();
    let broker = ["broker", "--key", "@rv", "--agent", "@agent_bop_rv.cert"];
    let proxy = ["proxy", "--key", "@ep1", "--agent", "@ep1.agent"];
    for (words, code, said) in [
        (vec!["broker"], 2, "--key"),
        ([&broker[..], &["--channels-max", "0"]].concat(), 2, "no number above 0"),
        ([&broker[..], &["--unread-timeout", "1"]].concat(), 2, "lacks its unit; write 1s"),
        (subscribed.clone(), 2, "--agent"),
        (endpoint.to_vec(), 2, "--subscribe"),
        ([&agent[..], &["--subcmd", "@subcmd_del_ep.cert"]].concat(), 3, "private key"),
        ([&agent[..], &["--channel", "0"]].concat(), 2, "hexadecimal"),
        (agent.clone(), 2, "name a public channel"),
        (vec!["broker", "--key", "/nonexistent", "--agent", "x"], 3, "/nonexistent: "),
        (vec!["proxy", "--key", "@prx", "--agent", "@agent_prx.cert"], 3, "chmod 600"),
        (vec!["broker", "--key", "@rv", "--agent", "@agent_xc.cert"], 3, "agent_xc.cert: "),
        ([&broker[..], &["--publish", &taken]].concat(), 4, "another program listens on"),
        (
            [&broker[..], &["--publish", "224.0.0.1:1"]].concat(),
            4,
            "a multicast address has no conn",
        ),
        (
            [&broker[..], &["--per-source-percent", "150"]].concat(),
            2,
            "'150' is no number from 1 to 100",
        ),
        (
            [&proxy[..], &["--per-source-percent", "0"]].concat(),
            2,
            "'0' is no number from 1 to 100",
        ),
        (
            [&broker[..], &["--publish", "127.0.0.1:1", "--subscribe", "127.0.0.1:1"]].concat(),
            4,
            "or another option names it too",
        ),
        ([&broker[..], &["--publish", "192.0.2.1:1"]].concat(), 4, "cannot listen on 192.0.2.1:1"),
        (direct, 1, "no connection to the controller"),
    ] {
        assert_said(&scene, &words, code, said);
    }
}

#[test]
fn what_is_wrong_with_an_endpoints_options_is_said_by_their_names() {
    let scene = Scene::new("options");
    scene.endpoint("ep1");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let endpoint = ["endpoint", "--key", "@ep1", "--operator", "@eop.pub"];
    let direct = [&endpoint[..], &["--controller", "127.0.0.1:1"]].concat();
    let agent = ["--subscribe", "127.0.0.1:1", "--agent", "@ep1.agent"];
    let agent = [&endpoint[..], &agent].concat();
    let foreign =
        ["endpoint", "--key", "@ep1", "--operator", "@bop.pub", "--subcmd", "@ep1.subcmd"];
    let foreign = [&foreign[..], &["--controller", "127.0.0.1:1"]].concat();
    scene.endpoint_until("old", Ticks(1));
    let old = ["--key", "@old", "--agent", "@old.agent"];
    let warning = "old.agent: the agent certificate will be refused: now is not within its dates";
    let expired =
        ["endpoint", "--key", "@old", "--operator", "@eop.pub", "--subcmd", "@old.subcmd"];
    let expired = [&expired[..], &["--controller", "127.0.0.1:1"]].concat();
    let fleet = ["fleet", "--endpoints", "2", "--subscribe", "127.0.0.1:1", "--key", "@ep1"];
    let fleet = [&fleet[..], &["--attributes", "a={};b"]].concat();
    for (words, code, said) in [
        ([&agent[..], &["--subcmd", "@ep1.agent"]].concat(), 3, "ep1.agent: nobody will accept"),
        ([&direct[..], &["--subcmd", "@ep1.agent"]].concat(), 3, "ep1.agent: nobody will accept"),
        (expired.to_vec(), 3, "old.subcmd: nobody will accept these certificates: "),
        ([&["broker", "--publish", &taken], &old[..]].concat(), 4, warning),
        ([&["proxy", "--controllers", &taken], &old[..]].concat(), 4, warning),
        (foreign.to_vec(), 3, "ep1.subcmd: nobody will accept these certificates: "),
        ([&agent[..], &["--attributes", "foo"]].concat(), 2, "'foo' for '--attributes <TEXT>': "),
        (fleet.to_vec(), 2, "'a={};b' for '--attributes <TEXT>': "),
        (
            [&direct[..], &["--address", "192.0.2.4"]].concat(),
            1,
            "own address 192.0.2.4 (--address)",
        ),
        ([&direct[..], &["--state", "@ep1"]].concat(), 6, "ep1: this is no directory"),
    ] {
        assert_said(&scene, &words, code, said);
    }
}

/// How `pktfleet` with these words ends, and what it says among others.
#[track_caller]
fn assert_said(scene: &Scene, words: &[&str], code: i32, said: &str) {
    let Output { status, stderr, .. } = scene.pktfleet(words).output().unwrap();
    let log = String::from_utf8(stderr).unwrap();
    debug_forms::assert_no_debug_form(&log);
    assert_eq!(status.code(), Some(code), "{words:?}: {log}");
    assert!(log.contains(said), "{words:?}: {log}");
}

#[test]
fn an_endpoint_that_is_sent_away_in_the_handshake_says_what_that_may_mean() {
    let scene = Scene::new("sent-away");
    scene.endpoint("ep1");
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap().to_string();
    let sending_away = thread::spawn(move || proxy.accept().unwrap().0.read(&mut [0; 4096]));
    let words = ["endpoint", "--key", "@ep1", "--operator", "@eop.pub", "--controller", &address];
    let ended = scene.pktfleet(&[&words[..], &["--snikey", "nobody"]].concat()).output().unwrap();
    let log = String::from_utf8(ended.stderr).unwrap();
    assert!(sending_away.join().unwrap().unwrap() > 0);
    assert_eq!(ended.status.code(), Some(1), "{log}");
    assert!(
        log.contains("no experiment of the server name that was asked for (--snikey)"),
        "{log}"
    );
}

#[test]
fn a_proxy_holds_ten_thousand_waiting_connections() {
    const COUNT: usize = 10_000;
    const KIB_PER_CONNECTION_MAX: usize = 8;
    let limit = limits::raise_open_files().unwrap();
    assert!(limit > COUNT as u64 + 100, "`ulimit -Hn` is {limit}, too low for this test");
    let scene = Scene::new("backlog");
    let mut proxy = scene.proxy(&["--per-source-percent", "100", "--backlog-per-key-max", "0"]);
    let (controllers, endpoints) = (proxy.address("controllers"), proxy.address("endpoints"));
    let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
    let tls = tls::client_config(None, rule).unwrap();
    let (files_before, kib_before) = (proxy.open_files(), proxy.resident_kib());

    let mut waiting: Vec<TcpStream> = thread::scope(|scope| {
        let fill = || (0..COUNT / 2).map(|_| register(controllers, &tls, "one")).collect();
        let halves: [_; 2] = std::array::from_fn(|_| scope.spawn(fill));
        halves.into_iter().flat_map(|half| -> Vec<TcpStream> { half.join().unwrap() }).collect()
    });
    let files = proxy.open_files() - files_before;
    let kib = proxy.resident_kib() - kib_before;
    println!("{files} open files and {kib} KiB for {COUNT} waiting connections");
    assert_eq!(files, COUNT, "one for each");
    assert!(kib < KIB_PER_CONNECTION_MAX * COUNT, "{kib} KiB");

    let server_name = tls::server_name(Some("one")).unwrap();
    let mut endpoint_tls = ClientConnection::new(tls.clone(), server_name).unwrap();
    let mut hello = Vec::new();
    endpoint_tls.write_tls(&mut hello).unwrap();
    let mut endpoint = TcpStream::connect(endpoints).unwrap();
    endpoint.write_all(&hello).unwrap();
    // One of the two threads has made the connection that waits longest. The proxy serves many at once, so it need not be
    // the very first.
    let firsts = (0..32).flat_map(|index| [index, COUNT / 2 + index]);
    let oldest: Vec<TcpStream> = firsts.map(|index| waiting[index].try_clone().unwrap()).collect();
    let (sender, reached) = mpsc::channel();
    for mut stream in oldest {
        let (sender, mut heard) = (sender.clone(), vec![0; hello.len()]);
        thread::spawn(move || stream.read_exact(&mut heard).map(|()| sender.send(heard)));
    }
    assert_eq!(reached.recv_timeout(PATIENCE).unwrap(), hello);
    drop(endpoint);
    for stream in waiting.drain(..) {
        stream.shutdown(std::net::Shutdown::Both).unwrap_or_default();
    }

    let is_released = comes_true(PATIENCE, || proxy.open_files() <= files_before);
    assert!(is_released, "{} open files are left", proxy.open_files());
    proxy.end(Signal::SIGTERM);
}

#[test]
fn a_broker_tells_two_thousand_subscribers_of_one_publication() {
    const COUNT: usize = 2_000;
    const KIB_PER_CONNECTION_MAX: usize = 24;
    let limit = limits::raise_open_files().unwrap();
    assert!(limit > COUNT as u64 + 100, "`ulimit -Hn` is {limit}, too low for this test");
    let scene = Scene::new("subscribers");
    // All of them have the same key.
    let mut broker = scene.broker_with(&["--messages-per-second", "10000"]);
    let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
    let chain = [Certificate::from_pem(&fs::read(scene.path("agent_ep.cert")).unwrap()).unwrap()];
    let key = PrivateKey::from_pem(&fs::read(scene.path("ep")).unwrap(), None).unwrap();
    let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
    let identity = tls::Identity { chain: &chain, key: &key };
    let tls = tls::client_config(Some(&identity), rule).unwrap();
    let channels = ChannelList::new(&[ChannelId::new(b"all").unwrap()]);
    let operator_key = [0; 32];
    let xsub = Message::Xsub { channels: channels.clone(), operator_key, dattr: "hostid=EP1;" };

    let kib_before = broker.resident_kib();
    let mut subscribers: Vec<_> =
        (0..COUNT).map(|_| BrokerClient::open(subscribe, &tls, &xsub)).collect();
    let kib = broker.resident_kib() - kib_before;
    println!("{kib} KiB for {COUNT} subscribers");
    assert!(kib < KIB_PER_CONNECTION_MAX * COUNT, "{kib} KiB");

    let xdescr = "controller_addr=192.0.2.1;";
    let xpub = Message::Xpub { channels, operator_key, xdescr };
    let started = Instant::now();
    let _publisher = BrokerClient::open(publish, &tls, &xpub);
    let channel = ChannelId::new(b"all").unwrap();
    let mut expected = Vec::new();
    Message::Xnotify { channel, xdescr }.encode(&mut expected).unwrap();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.read(expected.len()), expected);
    }
    println!("all told after {:?}", started.elapsed());
    broker.end(Signal::SIGTERM);
}
