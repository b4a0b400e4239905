//! `--metrics`: what a run tells over HTTP while it goes on, and that its numbers are those of the records.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::Home;
use common::broker::Broker;
use common::endpoint::{Dial, End, NDATA, message};
use common::events::{EVENTS, Events};
use common::http::{ask, get, metrics, metrics_address};
use common::manager::{Manager, PATIENCE, wait_until, zoo};
use nix::sys::signal::Signal;
use packetlab::certificate::{Certificate, CertificateType};
use packetlab::key::PrivateKey;
use packetlab::time::Ticks;
use serde_json::Value;

/// What is told of every run, below `pktxpmgr_`; when its publication ends only of one that has an end.
const NAMES: &str = "\
sessions_active sessions_total handshakes_inflight phase_seconds relay_bytes_total relay_messages_total \
relay_latency_seconds mlet_spawn_seconds mlet_exits_total accept_errors_total limit_refusals_total \
events_dropped_total open_fds fd_limit ring_cq_overflow_total ring_enobufs_total core_busy_ratio \
core_stalled_seconds core_handshake_seconds_total cert_not_after_seconds reload_success_timestamp build_info";

/// Any free port of loopback.
const METRICS: [&str; 2] = ["--metrics", "0"];

fn start(home: &Home, options: &[&str], kind: &[&str]) -> (Manager, SocketAddr) {
    let manager = home.start(&[&METRICS[..], &EVENTS, options].concat(), kind);
    let address = metrics_address(&manager);
    (manager, address)
}

/// A session whose mlet ends as it is told to.
fn obeys(dial: &Dial, order: &str) {
    let mut endpoint = dial.session();
    endpoint.send(&message(NDATA, b"say"));
    assert_eq!(endpoint.text(), "say");
    endpoint.send(&message(NDATA, order.as_bytes()));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
}

fn sum<'a>(records: &'a [Value], number: impl Fn(&'a Value) -> &'a Value) -> f64 {
    records.iter().filter_map(|record| number(record).as_f64()).sum()
}

#[test]
fn the_numbers_of_metrics_are_those_of_the_records() {
    let home = Home::new();
    let (manager, address) = start(&home, &["--cores", "2", "--latency-sample", "1"], &["obey"]);
    let dial = home.dial(&manager);
    for order in ["exit 0", "exit 0", "exit 3"] {
        obeys(&dial, order);
    }
    // A stranger who says nothing that is TLS.
    let mut stranger = TcpStream::connect(manager.address).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = stranger.read_to_end(&mut Vec::new());
    drop(stranger);
    let records = Events::of(&home).await_sessions(4);
    let samples = metrics(address);
    let told = |name: &str| samples.get(name).copied().unwrap_or(-1.0);
    let mut outcomes = BTreeMap::<_, u64>::new();
    for record in &records {
        *outcomes.entry(record["outcome"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
    for (outcome, count) in &outcomes {
        let name = format!("pktxpmgr_sessions_total{{outcome=\"{outcome}\"}}");
        assert_eq!(told(&name), *count as f64, "{name}");
    }
    let all = samples.iter().filter(|(name, _)| name.starts_with("pktxpmgr_sessions_total{"));
    assert_eq!(all.map(|(_, count)| count).sum::<f64>(), 4.0);
    for dir in ["to_ep", "from_ep"] {
        let bytes = sum(&records, |record| &record["bytes"][dir]);
        assert!(bytes > 0.0);
        assert_eq!(told(&format!("pktxpmgr_relay_bytes_total{{dir=\"{dir}\"}}")), bytes);
        let messages = sum(&records, |record| &record["msgs"][dir]);
        assert_eq!(told(&format!("pktxpmgr_relay_messages_total{{dir=\"{dir}\"}}")), messages);
        let timed = sum(&records, |record| &record["relay_us"][dir]["count"]);
        assert!(timed > 0.0);
        assert_eq!(told(&format!("pktxpmgr_relay_latency_seconds_count{{dir=\"{dir}\"}}")), timed);
    }
    for phase in ["tls", "programs", "start", "spawn", "run", "total"] {
        for outcome in outcomes.keys() {
            let of_outcome = records.iter().filter(|record| record["outcome"] == **outcome);
            let times = of_outcome.filter_map(|record| record["ms"][phase].as_f64());
            let times: Vec<f64> = times.collect();
            let labels = format!("{{phase=\"{phase}\",outcome=\"{outcome}\"}}");
            let count = samples.get(&format!("pktxpmgr_phase_seconds_count{labels}"));
            assert_eq!(count.copied().unwrap_or_default(), times.len() as f64, "{labels}");
            let seconds = samples.get(&format!("pktxpmgr_phase_seconds_sum{labels}"));
            let difference = times.iter().sum::<f64>() / 1e3 - seconds.copied().unwrap_or_default();
            // Records round to microseconds.
            assert!(difference.abs() < 1e-5, "{labels}: {difference}");
        }
    }
    assert_eq!(told("pktxpmgr_mlet_exits_total{reason=\"exit_0\"}"), 2.0);
    assert_eq!(told("pktxpmgr_mlet_exits_total{reason=\"exit_other\"}"), 1.0);
    assert_eq!(told("pktxpmgr_mlet_spawn_seconds_count"), 3.0);
    assert_eq!(told("pktxpmgr_sessions_failed_total"), 1.0);
    assert_eq!(told("pktxpmgr_events_dropped_total{reason=\"record\"}"), 0.0);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Before anything is over.
#[test]
fn a_session_that_runs_is_seen_with_what_it_has_relayed() {
    let home = Home::new();
    let (manager, address) = start(&home, &["--sessions-max", "9"], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"while it runs");
    // Its mlet's start is told by another process, and a shard publishes what it counts when it has done all it can.
    let mut samples = BTreeMap::new();
    wait_until("it is seen", || {
        samples = metrics(address);
        samples["pktxpmgr_mlet_spawn_seconds_count"] == 1.0
            && samples["pktxpmgr_relay_bytes_total{dir=\"to_ep\"}"] > 0.0
    });
    assert_eq!(samples["pktxpmgr_sessions_active{phase=\"running\"}"], 1.0);
    assert_eq!(samples["pktxpmgr_mlets_active"], 1.0);
    let len = (message(NDATA, b"while it runs").len()) as f64;
    assert_eq!(samples["pktxpmgr_relay_bytes_total{dir=\"to_ep\"}"], len);
    assert_eq!(samples["pktxpmgr_relay_bytes_total{dir=\"from_ep\"}"], len);
    // One more that has said nothing.
    let silent = TcpStream::connect(manager.address).unwrap();
    wait_until("the silent one is seen", || {
        metrics(address)["pktxpmgr_sessions_active{phase=\"handshake\"}"] == 1.0
    });
    drop(silent);
    wait_until("it is gone", || {
        metrics(address)["pktxpmgr_sessions_active{phase=\"handshake\"}"] == 0.0
    });
    let before = samples["pktxpmgr_open_fds"];
    assert!(before >= 10.0 && before <= samples["pktxpmgr_fd_limit"], "{before}");
    assert!(samples["pktxpmgr_cert_not_after_seconds{role=\"endpoint\"}"] > 1e9);
    endpoint.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Names, types, help and labels, by a reader of our own.
#[test]
fn every_sample_has_a_family_with_help_and_type_and_no_label_but_those_that_are_fixed() {
    let home = Home::new();
    let (manager, address) = start(&home, &["--latency-sample", "1"], &["obey"]);
    obeys(&home.dial(&manager), "exit 3");
    Events::of(&home).await_sessions(1);
    let (_, text) = get(address, "/metrics");
    let (mut types, mut helped) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(helped.insert(name), "{name} has two helps");
            assert!(words.ends_with('.') && line.len() < 160, "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name) && types.insert(name, kind).is_none(), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (name, labels) = line.split_once(['{', ' ']).unwrap();
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family = family.filter(|family| types.get(family) == Some(&"histogram"));
            assert!(types.contains_key(family.unwrap_or(name)), "{line} is of no family");
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            for label in labels.split(',').filter_map(|label| label.split_once('=')) {
                let fixed = ["outcome", "phase", "dir", "core", "reason", "result", "role", "le"];
                let of_build = name == "pktxpmgr_build_info";
                assert!(of_build || fixed.contains(&label.0), "{line}");
            }
        }
    }
    let missing = |name: &&str| !types.contains_key(&*format!("pktxpmgr_{name}"));
    assert_eq!(NAMES.split(' ').filter(missing).collect::<Vec<_>>(), [""; 0], "{types:?}");
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn ready_is_200_while_endpoints_are_served_and_503_while_what_runs_is_waited_for() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["echo"]);
    // It listens a little before it says so here.
    wait_until("it is ready", || get(address, "/ready") == (200, "running\n".into()));
    assert_eq!(get(address, "/healthz"), (200, "ok\n".into()));
    assert_eq!(get(address, "/nothing").0, 404);
    let post = TcpStream::connect(address).unwrap();
    assert_eq!(ask(post, "POST", "/metrics").0, 405);
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"it runs");
    manager.signal(Signal::SIGINT);
    manager.says("no new endpoints");
    wait_until("it is not ready", || get(address, "/ready").0 == 503);
    assert_eq!(get(address, "/healthz").0, 200);
    endpoint.close();
    assert_eq!(manager.ends().code, Some(0));
}

/// Nobody registers at a proxy that is not there, so nobody can come.
#[test]
fn a_run_whose_proxy_has_not_answered_is_not_ready() {
    let home = Home::new();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!("EnableProxyMode 1\nTargetBacklogConn 1\n{}", home.least());
    home.write("xpmgr.conf", config.as_bytes());
    let mut command = home.command();
    command.args(["-a", &proxy.local_addr().unwrap().to_string()]);
    command.args(METRICS).arg(zoo()).arg("echo");
    let manager = Manager::spawn(&home, command);
    let address = metrics_address(&manager);
    assert_eq!(get(address, "/ready"), (503, "starting\n".into()));
    manager.says("registering 1 connection");
    assert_eq!(get(address, "/ready").0, 503);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn the_end_of_the_publication_and_of_every_certificate_is_told_once_it_is_known() {
    const END: &str = "pktxpmgr_publication_end_seconds";
    let home = Home::new();
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let more = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\nPubPeriod 3600000000000";
    home.write("xpmgr.conf", home.publishing(&broker, more).as_bytes());
    let manager = home.start(&METRICS, &["echo"]);
    let address = metrics_address(&manager);
    assert_eq!(metrics(address).get(END), None, "nothing is published yet");
    let (_peer, published) = broker.take_publication(1);
    wait_until("its end is told", || metrics(address).contains_key(END));
    let samples = metrics(address);
    let end = published[0].value("pub_end").parse::<f64>().unwrap() / 1e9;
    assert!((samples[END] - end).abs() < 1e-3, "{} is not {end}", samples[END]);
    for (role, file) in [("endpoint", "pubcmd.cert"), ("broker", "agent.cert")] {
        let certificate = Certificate::from_pem(&common::read(&home.path(file))).unwrap();
        let told = samples[&format!("pktxpmgr_cert_not_after_seconds{{role=\"{role}\"}}")];
        assert_eq!(told, certificate.not_after.0 as f64 / 1e9, "{role}");
    }
    assert!(!samples.contains_key("pktxpmgr_cert_not_after_seconds{role=\"proxy\"}"));
    let unpublished = home.publishing(&broker, more).replace("Publication 1", "Publication 0");
    home.write("xpmgr.conf", unpublished.as_bytes());
    manager.signal(Signal::SIGHUP);
    manager.says("reloaded for new sessions");
    assert_eq!(metrics(address).get(END), None, "nothing is published any more");
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn the_time_of_the_last_reload_that_was_done_is_told_and_none_of_one_that_was_refused() {
    const READ_AT: &str = "pktxpmgr_reload_success_timestamp";
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let home = Home::new();
    let before = seconds();
    let (manager, address) = start(&home, &[], &["echo"]);
    let reloads = |result: &str| {
        manager.signal(Signal::SIGHUP);
        let name = format!("pktxpmgr_reloads_total{{result=\"{result}\"}}");
        wait_until("it is counted", || metrics(address)[&name] == 1.0);
        metrics(address)[READ_AT]
    };
    let first = metrics(address)[READ_AT];
    assert!((before..=seconds()).contains(&first), "{first}");
    let good = fs::read(home.path("xpmgr.conf")).unwrap();
    home.write("xpmgr.conf", b"Nothing\n");
    assert_eq!(reloads("refused"), first);
    home.write("xpmgr.conf", &good);
    let before = seconds();
    let (us, experimenter) = (home.keys.controller.public_key(), &home.keys.experimenter);
    let end = Ticks::from_system_time(SystemTime::now()).saturating_add(Duration::from_secs(7_200));
    home.issue_until("pubcmd.cert", CertificateType::Pubcmd, &us, experimenter, end);
    let second = reloads("done");
    assert!((before..=seconds()).contains(&second), "{second}");
    let told = metrics(address)["pktxpmgr_cert_not_after_seconds{role=\"endpoint\"}"];
    assert!((told - end.0 as f64 / 1e9).abs() < 1.0, "the new certificate ends at {told}");
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn an_address_that_is_taken_ends_the_start_and_is_named() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = home.command();
    command.args(["--metrics", &address]).arg(zoo()).arg("echo");
    let ended = Manager::spawn(&home, command).ends();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    let told = format!("cannot listen on {address} for --metrics: Address already in use");
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    assert!(!ended.stderr.contains("listening on"), "{}", ended.stderr);
}

/// More than it ever holds at once say nothing, and some of them stop half-way.
#[test]
fn slow_clients_keep_nobody_out_and_no_more_of_them_are_held_than_are_set_aside() {
    const SLOW: usize = 100;
    // The places of those who watch the run are not for them.
    const HELD_MAX: usize = 24;
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"before");
    let before = manager.open_sockets();
    let mut slow: Vec<TcpStream> = (0..SLOW)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").unwrap();
            }
            stream
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(get(address, "/ready").0, 200);
    }
    // Of all of them the one that has been there for longest made room, long before its time was over.
    slow[0].set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let ended = slow[0].read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(ended, Ok(0) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
    wait_until("all were accepted", || manager.open_sockets() >= before + HELD_MAX - 5);
    assert!(manager.open_sockets() <= before + HELD_MAX + 1);
    endpoint.echoes(b"beside");
    // Whoever has said nothing for seconds is let go.
    wait_until("they are let go", || manager.open_sockets() <= before);
    drop(slow);
    endpoint.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_path_is_its_owners_alone_and_goes_with_the_run() {
    let home = Home::new();
    let path = home.path("metrics.sock");
    let name = format!("unix:{}", path.display());
    // Left behind by a program that is gone.
    drop(UnixListener::bind(&path).unwrap());
    let manager = home.start(&["--metrics", &name], &["echo"]);
    manager.says("metrics, ready and healthz are at unix:");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let healthz = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ask(stream, "GET", "/healthz")
    };
    assert_eq!(healthz(), (200, "ok\n".into()));
    // One that somebody listens at is not taken away.
    let mut command = home.command();
    command.args(["--metrics", &name]).arg(zoo()).arg("echo");
    let ended = Manager::spawn(&home, command).ends();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert_eq!(healthz().0, 200);
    assert_eq!(manager.interrupted().code, Some(0));
    assert!(!path.exists());
}

#[test]
#[ignore = "needs promtool"]
fn promtool_finds_nothing_wrong() {
    let home = Home::new();
    let (manager, address) = start(&home, &["--latency-sample", "1"], &["obey"]);
    for order in ["exit 0", "exit 3"] {
        obeys(&home.dial(&manager), order);
    }
    Events::of(&home).await_sessions(2);
    let (_, text) = get(address, "/metrics");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// What it has scraped is asked of it again.
#[test]
#[ignore = "needs prometheus"]
fn a_real_prometheus_scrapes_it() {
    let home = Home::new();
    let (manager, address) = start(&home, &[], &["obey"]);
    for order in ["exit 0", "exit 0", "exit 3"] {
        obeys(&home.dial(&manager), order);
    }
    Events::of(&home).await_sessions(3);
    let config = format!(
        "scrape_configs:\n- job_name: pktxpmgr\n  scrape_interval: 1s\n  static_configs:\n  \
         - targets: ['{address}']\n"
    );
    home.write("prometheus.yml", config.as_bytes());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = SocketAddr::from(([127, 0, 0, 1], port));
    let mut prometheus = Command::new("prometheus");
    prometheus.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=tsdb");
    prometheus.arg(format!("--web.listen-address={own}")).current_dir(home.path(""));
    let mut child = prometheus.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let query = "/api/v1/query?query=pktxpmgr_sessions_total";
    let mut answer = String::new();
    let is_there = || TcpStream::connect(own).is_ok();
    wait_until("it listens", is_there);
    wait_until("it has scraped", || {
        answer = get(own, query).1;
        answer.contains("mlet_failed")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let body = answer.find('{').map(|start| &answer[start..=answer.rfind('}').unwrap()]).unwrap();
    let answer: Value = serde_json::from_str(body).unwrap();
    let results = answer["data"]["result"].as_array().unwrap();
    let counts = results.iter().map(|result| {
        let outcome = result["metric"]["outcome"].as_str().unwrap().to_owned();
        (outcome, result["value"][1].as_str().unwrap().to_owned())
    });
    let expected = [("mlet_failed".to_owned(), "1".to_owned()), ("ok".to_owned(), "2".to_owned())];
    assert_eq!(counts.collect::<BTreeMap<_, _>>(), expected.into());
    assert_eq!(manager.interrupted().code, Some(0));
}
