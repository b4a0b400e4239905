//! Log lines fit a terminal of 80 columns: what stands behind their time and level.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::broker::{Broker, take_xpub};
use common::endpoint::{Dial, End, Identity, NDATA, message};
use common::manager::wait_until;
use common::{Home, assert_says};
use nix::sys::signal::Signal;
use packetlab::key::PrivateKey;

const COLUMNS: usize = 80;

/// Lines that an address, a path or a text from outside may make longer; it stands at their end.
const MAY_BE_LONGER: [&str; 3] = ["mlet, one for each session: ", "dropped ", "written: "];

/// What stands behind time and level.
fn text(line: &str) -> &str {
    let (_, rest) =
        line.split_once("Z ").unwrap_or_else(|| panic!("a line without a time: {line}"));
    let (level, text) = rest.trim_start().split_once(' ').unwrap();
    assert!(["ERROR", "WARN", "INFO"].contains(&level), "{line}");
    text
}

fn assert_fits(log: &str) {
    for line in log.lines().map(text) {
        let may_be_longer = MAY_BE_LONGER.iter().any(|begin| line.starts_with(begin));
        let len = line.chars().count();
        assert!(len <= COLUMNS || may_be_longer, "{len} columns: {line}");
    }
}

/// A campaign in which sessions end well and badly, come again, are dropped, and are waited for at the end. Its snikey is
/// as long as a random one.
#[test]
fn the_log_of_a_run_fits_80_columns() {
    let home = Home::new();
    let snikey = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopq";
    let config = home.least().replace(":hello:", &format!(":{snikey}:"));
    home.write("xpmgr.conf", config.as_bytes());
    let manager = home.start(&["-n", "20", "--cores", "1", "--out", "results"], &["obey"]);
    let identity = Identity::of(&home.keys.operator);
    let dial = Dial::to(manager.address).with(&identity).asking(Some(snikey));
    for order in ["exit 0", "exit 3", "signal 11"] {
        let mut endpoint = dial.session();
        endpoint.send(&message(NDATA, order.as_bytes()));
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
    }
    manager.says_times(" over: the mlet ended; mlet ", 3);
    dial.connect().send_raw(b"no TLS");
    manager.says("dropped 127.0.0.1 ");
    let mut waited_for = dial.session();
    manager.says_times(" is ready, key ", 4);
    // It is ready a moment before its mlet runs.
    wait_until("the mlet is listed", || {
        manager.signal(Signal::SIGUSR1);
        manager.said("WARN mlet key ") > 0
    });
    manager.signal(Signal::SIGHUP);
    manager.says("reloaded for new sessions: ");
    manager.signal(Signal::SIGINT);
    manager.says("a second signal ends");
    waited_for.send(&message(NDATA, b"exit 0"));
    assert_eq!(waited_for.receive(), Err(End::CloseNotify));
    waited_for.close();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let key = identity.key.public_key().key_id();
    let ready =
        format!("127.0.0.1 is ready, key {}, snikey {} session=", key.short(), &snikey[..12]);
    assert_eq!(ended.stderr.matches(&ready).count(), 4, "{}", ended.stderr);
    assert!(!ended.stderr.contains(&key.to_string()) && !ended.stderr.contains(snikey));
    assert_fits(&ended.stderr);
}

/// What ended them is told by its outcome, so that there is room for how they ended.
#[test]
fn the_log_of_mlets_that_are_ended_by_force_fits_80_columns() {
    for (option, outcome) in [
        ("--mlet-timeout", "mlet_timeout"),
        ("--idle-timeout", "idle_timeout"),
        // It begins when the one session of -n has begun.
        ("--drain-limit", "killed"),
    ] {
        let home = Home::new();
        let graces = ["--eof-grace", "100ms", "--term-grace", "20s", "-n", "1"];
        let options = [&[option, "500ms"], &graces[..]].concat();
        let manager = home.start(&options, &["heedless"]);
        let mut endpoint = home.dial(&manager).session();
        assert_eq!(endpoint.text(), "try me");
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
        let ended = manager.ends();
        let over = format!("WARN 127.0.0.1 over: {outcome}; mlet signal 15 after ");
        assert_says(&ended.stderr, &[&over]);
        // The others are the mlet's own, and the last one.
        let is_logged = |line: &&str| line.starts_with("20");
        assert_fits(&ended.stderr.lines().filter(is_logged).collect::<Vec<_>>().join("\n"));
    }
}

/// A random snikey is told whole: nobody else tells it to an endpoint that no broker reaches.
#[test]
fn the_log_of_a_publication_fits_80_columns() {
    let home = Home::new();
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let config = home.publishing(
        &broker,
        "PubPeriod 30d\n\
         ExpExec 0:few:exppriv.cert,pubcmd.cert:eop.pub:0102,aabbcc:\n\
         ExpExec 1::exppriv.cert,pubcmd.cert:eop.pub:01,02,03,04:\n",
    );
    home.write("xpmgr.conf", config.as_bytes());
    let manager = home.start(&[], &["echo"]);
    let mut peer = broker.greet();
    let random = take_xpub(&mut peer).unwrap().value("sni_key").to_owned();
    take_xpub(&mut peer).unwrap();
    manager.says("published at the broker");
    let ended = manager.interrupted();
    assert_eq!(random.len(), 63);
    let told = [
        &format!(": snikey {random}\n"),
        &format!("publishing snikey {} on 4 channels\n", &random[..12]),
        "publishing snikey few on 0102, aabbcc\n",
        ", for 30d00h00m\n",
    ];
    assert_says(&ended.stderr, &told);
    assert_fits(&ended.stderr);
}
