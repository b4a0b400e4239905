//! An operator's monitor program before a real experiment: `pktcred` demands it, `pktxpmgr` supplies it, `pktfleet endpoint`
//! runs it, and mlets find out.
//!
//! Not here: what monitors may do and say (tests of `hosts` and `monitors`).

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

mod measuring;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread::{self, JoinHandle};

use measuring::{Home, program};

/// The example `no_raw` of the guest crate, as its compiler made it.
const NO_RAW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/fuzz/seeds/monitor/no_raw");

/// The one that lets everything pass, assembled.
const PASS_ALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hosts/monitors/wat/pass_all.wasm");

/// Makes the operator demand the program, and gives it to the experimenter.
fn demand_no_raw(home: &Home) {
    let (file, certificate) =
        (home.path("progs/no_raw.wasm"), home.path("certs/exppriv_eop_exper.cert"));
    fs::copy(NO_RAW, &file).unwrap();
    fs::remove_file(&certificate).unwrap();
    let mut sign = Command::new(program("pktcred"));
    sign.args(["sign", "exppriv", "--home", &home.path(""), "--signer", "k_eop"]);
    sign.args(["--subject", "k_exper.pub", "--monitor", &file, "-o", &certificate]);
    let signed = sign.output().unwrap();
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
}

/// A server of one page; once it has been asked, the threads of the endpoint whose home this is.
fn server(home: &Home) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let key = home.path("keys/k_ep");
    let serving = thread::spawn(move || {
        let (mut visitor, _) = listener.accept().unwrap();
        let _ = visitor.read(&mut [0; 1000]).unwrap();
        let threads = threads_of(&key);
        write!(visitor, "HTTP/1.0 200 OK\r\n\r\n").unwrap();
        threads
    });
    (address, serving)
}

/// The names of the threads of the process that was told this key.
fn threads_of(key: &str) -> Vec<String> {
    let is_it = |process: &Path| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == key.as_bytes())
    };
    let mut processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let process = processes.find(|process| is_it(process)).expect("an endpoint");
    let tasks = fs::read_dir(process.join("task")).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap();
    tasks.map(|task| name(task.unwrap()).trim().to_owned()).collect()
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CLOCK: &str = "monitor clock";

/// What the example prints that fetches a page from there.
fn page(home: &Home, server: SocketAddr) -> String {
    home.measure(LOCALHOST, LOCALHOST, &[&program("mlet-http-get"), &server.to_string()])
}

#[test]
fn what_an_operators_monitor_allows_is_measured_and_the_rest_denied() {
    let home = Home::new("monitored");
    demand_no_raw(&home);
    let (address, serving) = server(&home);
    let page = page(&home, address);
    assert!(page.contains("HTTP/1.0 200 OK"), "{page}");
    assert!(serving.join().unwrap().iter().any(|name| name == CLOCK));
    let ping = [&program("mlet-ping"), "127.0.0.1"];
    let (pings, log) = home.measure_and_log(LOCALHOST, LOCALHOST, &ping);
    let denied = "denied NOPEN (socket 1, raw on 0.0.0.0): ECTLMONREJ (18): a monitor rejected it (monitor 0, its code 1)";
    assert!(pings.is_empty() && log.contains(denied), "{pings}{log}");
}

#[test]
fn what_an_operators_own_monitor_refuses_is_denied_though_no_certificate_demands_it() {
    let mut home = Home::new("own-monitor");
    let file = home.path("no_raw.wasm");
    fs::copy(NO_RAW, &file).unwrap();
    home.endpoint_options = vec!["--monitor".to_owned(), file];
    let ping = [&program("mlet-ping"), "127.0.0.1"];
    let (pings, log) = home.measure_and_log(LOCALHOST, LOCALHOST, &ping);
    let denied = "a monitor rejected it (monitor 0, its code 1)";
    assert!(pings.is_empty() && log.contains(denied), "{pings}{log}");
}

#[test]
fn the_record_of_a_session_names_the_monitor_that_crashed() {
    let mut home = Home::new("crashed-monitor");
    let (file, events) = (home.path("crashes.wasm"), home.path("events"));
    // One that cannot be asked about NOPEN, for which it is as if it had trapped.
    let (asked, other) = (b"check_pktlab_message_nopen", b"check_pktlab_message_other");
    let mut module = fs::read(PASS_ALL).unwrap();
    let at = module.windows(asked.len()).position(|name| name == asked).unwrap();
    module[at..at + asked.len()].copy_from_slice(other);
    fs::write(&file, module).unwrap();
    home.endpoint_options = ["--monitor", PASS_ALL, "--monitor", &file].map(str::to_owned).to_vec();
    let mut record_of = |address: SocketAddr| {
        let page = [&program("mlet-http-get"), &address.to_string()];
        let measured = ["--events", &events, page[0], page[1]];
        let (_, log) = home.measure_and_log(LOCALHOST, LOCALHOST, &measured);
        home.endpoint_options.push("--monitor-report-crash".to_owned());
        let lines = fs::read_to_string(&events).unwrap();
        fs::remove_file(&events).unwrap();
        let record = lines.lines().find(|line| line.contains("session.end")).unwrap().to_owned();
        (serde_json::from_str::<serde_json::Value>(&record).unwrap(), log)
    };
    // Nothing is asked of it: NOPEN is refused before.
    let nobody = SocketAddr::new(LOCALHOST, 9);
    let (record, log) = record_of(nobody);
    assert!(log.contains("a monitor rejected it (monitor 1, its code 0)"), "{log}");
    assert_eq!(record.get("crashed_monitor"), None, "{record}");
    let (record, log) = record_of(nobody);
    assert!(log.contains(r#"name "monitor-crashed", aux "\u{1}\0", info "monitor 1 ("#), "{log}");
    assert_eq!(record["crashed_monitor"], 1, "{record}");
}

#[test]
fn an_endpoint_starts_nothing_for_monitors_that_nobody_demands() {
    let home = Home::new("unmonitored");
    let (address, serving) = server(&home);
    let page = page(&home, address);
    assert!(page.contains("HTTP/1.0 200 OK"), "{page}");
    let threads = serving.join().unwrap();
    assert!(!threads.is_empty() && threads.iter().all(|name| name != CLOCK), "{threads:?}");
}
