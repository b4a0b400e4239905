//! Reload on SIGHUP: all or nothing, for new sessions, without a pause for those that run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::broker::{Broker, take_xpub};
use common::endpoint::{Dial, End, Identity, NDATA, RESULT, START, SUCCESS, certificate, message};
use common::events::{EVENTS, Events, outcomes};
use common::manager::{Manager, zoo};
use common::proxy::Proxy;
use common::tls_peer::TlsPeer;
use common::{Home, an_hour_ago};
use nix::sys::signal::Signal;
use packetlab::certificate::CertificateType;
use packetlab::key::PrivateKey;
use packetlab::program::Program;

const RELOADED: &str = " INFO reloaded for new sessions: ";
const REFUSED: &str = " WARN reload refused, the run goes on with what it has:";

/// Asks for a reload, and waits for its answer: the line, and whether it was put into effect.
#[track_caller]
fn reload(manager: &Manager) -> (String, bool) {
    let (good, bad) = (manager.said(RELOADED), manager.said(REFUSED));
    manager.signal(Signal::SIGHUP);
    common::manager::wait_until("the reload is answered", || {
        manager.said(RELOADED) + manager.said(REFUSED) > good + bad
    });
    match manager.said(RELOADED) > good {
        true => (manager.says_times(RELOADED, good + 1), true),
        false => (manager.says_times(REFUSED, bad + 1), false),
    }
}

#[track_caller]
fn reloads(manager: &Manager) -> String {
    let (line, is_good) = reload(manager);
    assert!(is_good, "{}", manager.log());
    line
}

/// Asserts that a reload is refused, and that this is said of it.
#[track_caller]
fn is_refused(manager: &Manager, parts: &[&str]) {
    let (_, is_good) = reload(manager);
    assert!(!is_good, "{}", manager.log());
    for part in parts {
        manager.says(part);
    }
}

/// Another controller key with certificates of another experimenter and operator, in files of the usual names.
fn exchange_everybody(home: &Home) -> PrivateKey {
    let [controller, experimenter, operator] =
        std::array::from_fn(|_| PrivateKey::generate().unwrap());
    home.write("xc", controller.to_pem().as_bytes());
    home.write("eop.pub", operator.public_key().to_pem().as_bytes());
    let (of_us, of_them) = (controller.public_key(), experimenter.public_key());
    home.issue("exppriv.cert", CertificateType::Exppriv, &of_them, &operator);
    home.issue("pubcmd.cert", CertificateType::Pubcmd, &of_us, &experimenter);
    home.issue("agent.cert", CertificateType::Agent, &of_us, &controller);
    operator
}

#[test]
fn new_sessions_get_what_the_files_say_now_and_others_keep_what_they_began_with() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let before = home.dial(&manager);
    let mut running = before.session();
    running.echoes(b"before");
    // START is sent, and not answered yet.
    let mut begun = before.handshake();
    assert_eq!(begun.receive(), Ok((START, Vec::new())));
    // Connected, and nothing sent.
    let mut silent = Dial::to(manager.address).asking(Some("other")).connect();
    let operator = exchange_everybody(&home);
    home.write("xpmgr.conf", home.least().replace(":hello:", ":other:").as_bytes());
    home.make_directory("progs");
    home.write("progs/empty.wasm", b"\0asm\x01\0\0\0");
    let config = fs::read_to_string(home.path("xpmgr.conf")).unwrap();
    home.write("xpmgr.conf", format!("ProgramDirPath progs\n{config}").as_bytes());
    let line = reloads(&manager);
    assert!(line.ends_with("reloaded for new sessions: 1 experiment, 1 program"), "{line}");

    running.echoes(b"and after");
    begun.send(&SUCCESS);
    begun.echoes(b"it has what it asked for");
    manager.says_times(", snikey hello", 2);
    begun.close();
    let after = Dial::to(manager.address).with(&Identity::of(&operator)).asking(Some("other"));
    after.is_served();
    assert!(matches!(before.refusal(), End::Fin | End::Reset), "its snikey is gone");
    let of_old = before.asking(Some("other"));
    assert_eq!(of_old.refusal(), End::Alert(46), "its operator is not trusted any more");
    assert_eq!(silent.handshake().and_then(|()| silent.receive().map(drop)), Err(End::Alert(116)));
    running.echoes(b"as if nothing had been");
    running.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_program_that_a_chain_demands_is_submitted_once_it_is_there() {
    let (home, [ebpf, wasm]) = Home::with_programs();
    let bytes = fs::read(home.path("progs/empty.wasm")).unwrap();
    fs::remove_file(home.path("progs/empty.wasm")).unwrap();
    let manager = home.start(&[], &["echo"]);
    let submits = |programs: &[&Program]| {
        let mut endpoint = home.dial(&manager).handshake();
        let submitted = endpoint.set_up().unwrap();
        let expected = programs.iter().map(|one| [b"\x07monitor", &one.encoded()[..]].concat());
        assert!(submitted == expected.collect::<Vec<_>>(), "{} programs", submitted.len());
        endpoint.close();
    };
    submits(&[&ebpf, &ebpf]);
    home.write("progs/empty.wasm", &bytes);
    assert!(reloads(&manager).ends_with("1 experiment, 2 programs"));
    submits(&[&ebpf, &wasm, &ebpf]);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn whatever_cannot_be_used_changes_nothing_and_is_told_by_file_line_and_reason() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let dial = home.dial(&manager);
    let (good, kind) = (home.least(), CertificateType::Pubcmd);
    let stranger = PrivateKey::generate().unwrap();
    let pubcmd = common::read(&home.path("pubcmd.cert"));
    type Fault<'a> = (&'a str, &'a dyn Fn(), &'a [&'a str]);
    let faults: [Fault<'_>; 7] = [
        (
            "expired",
            &|| {
                let us = home.keys.controller.public_key();
                let experimenter = &home.keys.experimenter;
                home.issue_until("pubcmd.cert", kind, &us, experimenter, an_hour_ago());
            },
            &["WARN   xpmgr.conf:3:", "endpoints would refuse this chain"],
        ),
        (
            "truncated",
            &|| home.write("pubcmd.cert", &pubcmd[..pubcmd.len() / 2]),
            &["WARN   xpmgr.conf:3:30: this is no PacketLab certificate"],
        ),
        (
            "of another key",
            &|| {
                home.issue("pubcmd.cert", kind, &stranger.public_key(), &home.keys.experimenter);
            },
            &["none of these certificates is for the controller key"],
        ),
        (
            "a folder",
            &|| {
                fs::remove_file(home.path("pubcmd.cert")).unwrap();
                home.make_directory("pubcmd.cert");
            },
            &["WARN   xpmgr.conf:3:30: 'pubcmd.cert' is not a regular file"],
        ),
        (
            "no config",
            &|| home.write("xpmgr.conf", b"ExpExec 1:hello\n"),
            &["WARN   xpmgr.conf:1:"],
        ),
        (
            "the proxy's mode",
            &|| home.write("xpmgr.conf", home.behind_proxy("").as_bytes()),
            &["EnableProxyMode cannot change; it takes a new run"],
        ),
        (
            "encrypted",
            &|| {
                home.write("xc", stranger.to_encrypted_pem(b"hunter2").unwrap().as_bytes());
            },
            &["with --passphrase-file, or as the credential `passphrase` of the service"],
        ),
    ];
    for (name, cause, told) in faults {
        cause();
        is_refused(&manager, told);
        // What it serves with is what it had.
        dial.is_served();
        if name == "a folder" {
            fs::remove_dir(home.path("pubcmd.cert")).unwrap();
        }
        home.write("pubcmd.cert", &pubcmd);
        home.write("xpmgr.conf", good.as_bytes());
    }
    home.write("xc", home.keys.controller.to_pem().as_bytes());
    reloads(&manager);
    dial.is_served();
    manager.signal(Signal::SIGINT);
    assert_eq!(manager.ends().code, Some(0));
}

#[test]
fn drawn_snikeys_and_an_unchanged_encrypted_key_are_kept() {
    let home = Home::new();
    let config = home.least().replace(":hello:", "::").replace("Path xc", "Path enc");
    home.write("xpmgr.conf", config.as_bytes());
    let mut command = home.command();
    // What comes from here comes once.
    command.args(["--passphrase-file", "/dev/stdin"]).arg(zoo()).arg("echo");
    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(b"hunter2\n").unwrap();
    drop(write);
    command.stdin(Stdio::from(read));
    let manager = Manager::start(&home, command);
    let line = manager.says("line 3: snikey ");
    let snikey = line.rsplit(' ').next().unwrap();
    let dial = home.dial(&manager).asking(Some(snikey));
    dial.is_served();
    // One more without a snikey, behind the first.
    let more = "ExpExec 0::exppriv.cert,pubcmd.cert:eop.pub::\n";
    home.write("xpmgr.conf", format!("{config}{more}").as_bytes());
    assert!(reloads(&manager).ends_with(" 2 experiments, 0 programs"));
    dial.is_served();
    let line = manager.says("line 4: snikey ");
    home.dial(&manager).asking(Some(line.rsplit(' ').next().unwrap())).is_served();
    assert_eq!(manager.said(": snikey "), 2, "none is drawn anew");
    // The same key behind another salt is another file.
    let again = home.keys.controller.to_encrypted_pem(b"hunter2").unwrap();
    home.write("enc", again.as_bytes());
    is_refused(&manager, &["the controller key cannot be used: "]);
    dial.is_served();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// The passphrase of a changed key comes from a FIFO into which nobody writes for a while.
#[test]
fn a_file_that_is_slow_holds_up_nothing_and_one_more_reload_follows() {
    let home = Home::new();
    nix::unistd::mkfifo(&home.path("pass"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let manager = home.start(&["--passphrase-file", "pass"], &["echo"]);
    home.write("xc", home.keys.controller.to_encrypted_pem(b"hunter2").unwrap().as_bytes());
    manager.signal(Signal::SIGHUP);
    let mut fifo = home.await_reader("pass");
    home.dial(&manager).is_served();
    manager.signal(Signal::SIGUSR1);
    manager.says("WARN status: running");
    manager.signal(Signal::SIGHUP);
    manager.signal(Signal::SIGUSR1);
    manager.says_times("WARN status: running", 2);
    assert_eq!(manager.said(RELOADED) + manager.said(REFUSED), 0);
    fifo.write_all(b"hunter2\n").unwrap();
    drop(fifo);
    manager.says(RELOADED);
    // The second has the key already.
    manager.says_times(RELOADED, 2);
    home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn the_backlog_of_a_snikey_that_is_gone_is_let_go_and_a_new_one_is_filled() {
    let home = Home::new();
    let proxy = Proxy::start(&PrivateKey::generate().unwrap(), true);
    let entry = |snikey: &str| format!("ExpExec 0:{snikey}:exppriv.cert,pubcmd.cert:eop.pub::\n");
    let config = home.behind_proxy("TargetBacklogConn 3\n");
    home.write("xpmgr.conf", format!("{config}{}", entry("leaves")).as_bytes());
    let mut command = home.bare_command();
    command.args(["-c", "xpmgr.conf", "-a", &proxy.address.to_string()]).arg(zoo()).arg("echo");
    let manager = Manager::spawn(&home, command);
    manager.says("backlog filled: 6 connections");
    let dial = Dial::to(proxy.address).with(&Identity::of(&home.keys.operator));
    let through = |snikey: &str| {
        let dial = dial.clone().asking(Some(snikey));
        let mut endpoint = dial.over(proxy.take(snikey)).unwrap();
        endpoint.handshake().unwrap();
        endpoint.set_up().unwrap();
        endpoint
    };
    let mut running = through("leaves");
    home.write("xpmgr.conf", format!("{config}{}", entry("comes")).as_bytes());
    reloads(&manager);
    let mut taken = proxy.take("leaves");
    taken.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ended = std::io::Read::read(&mut taken, &mut [0]);
    assert_eq!(ended.unwrap(), 0, "it is let go");
    // As many as TargetBacklogConn says, before an endpoint has come on one.
    let _waiting = [proxy.take("comes"), proxy.take("comes")];
    let mut coming = through("comes");
    coming.echoes(b"new");
    running.echoes(b"old");
    proxy.session(&dial).echoes(b"neither");
    assert_eq!(manager.said("a registered connection is lost"), 0, "we have let them go");
    running.close();
    coming.close();
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn what_is_published_is_published_anew_when_it_has_changed_and_only_then() {
    let home = Home::new();
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let entry = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::";
    home.write("xpmgr.conf", home.publishing(&broker, entry).as_bytes());
    let manager = home.start(&[], &["echo"]);
    let (mut peer, first) = broker.take_publication(1);
    manager.says("published at the broker");
    assert!(reloads(&manager).ends_with("1 experiment, 0 programs"));
    let with_priority = format!("PubExpPriority 7\n{entry}");
    home.write("xpmgr.conf", home.publishing(&broker, &with_priority).as_bytes());
    assert!(reloads(&manager).ends_with("; publishing anew"));
    let mut coming = broker.greet();
    peer.assert_silent();
    let second = take_xpub(&mut coming).unwrap();
    assert_eq!(second.value("exp_priority"), "7");
    assert_eq!(second.certificates, first[0].certificates);
    assert_eq!(peer.receive().map(drop), Err(End::CloseNotify), "only now it is left");
    manager.says_times("published at the broker", 2);
    home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A manager whose publication at this broker stands, and has been changed once.
fn changed_once(home: &Home, broker: &Broker) -> (Manager, TlsPeer) {
    let entry = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::";
    home.write("xpmgr.conf", home.publishing(broker, entry).as_bytes());
    let manager = home.start(&[], &["echo"]);
    let (peer, _) = broker.take_publication(1);
    manager.says("published at the broker");
    let changed = format!("PubExpPriority 7\n{entry}");
    home.write("xpmgr.conf", home.publishing(broker, &changed).as_bytes());
    reloads(&manager);
    (manager, peer)
}

/// The next connection at this broker, whose first message it refuses so.
fn refuse_next(broker: &Broker, errid: u8) -> TlsPeer {
    let mut peer = broker.greet();
    peer.receive().unwrap();
    peer.send(&message(RESULT, &[0, errid])).unwrap();
    peer
}

#[test]
fn what_the_broker_refuses_to_publish_anew_stays_as_it_was_until_it_takes_it() {
    const ECRTBADFRM: u8 = 0x20;
    let home = Home::new();
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let (manager, mut before) = changed_once(&home, &broker);
    let _refused = refuse_next(&broker, ECRTBADFRM);
    manager.says("sessions go on, as does what was published before");
    before.assert_silent();
    let (after, published) = broker.take_publication(1);
    assert_eq!(published[0].value("exp_priority"), "7");
    assert_eq!(before.receive().map(drop), Err(End::CloseNotify));
    after.assert_silent();
    assert_eq!(manager.interrupted().code, Some(0));
}

/// It may have no room for both.
#[test]
fn what_a_broker_without_room_has_goes_before_the_new_comes() {
    const ENORES: u8 = 0x44;
    let home = Home::new();
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let (manager, mut before) = changed_once(&home, &broker);
    let _refused = refuse_next(&broker, ENORES);
    manager.says("ENORES (68)");
    manager.says("publishing again without what was there before");
    assert_eq!(before.receive().map(drop), Err(End::CloseNotify));
    let (_after, published) = broker.take_publication(1);
    assert_eq!(published[0].value("exp_priority"), "7");
    manager.says_times("published at the broker", 2);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_broker_that_fails_where_nothing_is_to_be_published_any_more_ends_no_run() {
    let home = Home::new();
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let entry = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::";
    let publishing = home.publishing(&broker, entry);
    home.write("xpmgr.conf", publishing.as_bytes());
    let manager = home.start(&[], &["echo"]);
    let unanswered = broker.greet();
    home.write("xpmgr.conf", publishing.replace("Publication 1", "Publication 0").as_bytes());
    reloads(&manager);
    drop(unanswered);
    for _ in 0..3 {
        home.dial(&manager).is_served();
    }
    assert_eq!(manager.said("no new endpoints"), 0);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_broker_that_refuses_what_a_running_run_begins_to_publish_is_asked_again() {
    const ECRTBADFRM: u8 = 0x20;
    let home = Home::new();
    let broker = Broker::start(&PrivateKey::generate().unwrap());
    let entry = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::";
    let publishing = home.publishing(&broker, entry);
    home.write("xpmgr.conf", publishing.replace("Publication 1", "Publication 0").as_bytes());
    let manager = home.start(&[], &["echo"]);
    home.write("xpmgr.conf", publishing.as_bytes());
    reloads(&manager);
    let _refused = refuse_next(&broker, ECRTBADFRM);
    manager.says("; publishing again in");
    let (_peer, published) = broker.take_publication(1);
    assert_eq!(published.len(), 1);
    home.dial(&manager).is_served();
    assert_eq!(manager.said("no new endpoints"), 0);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Promise P27.
#[test]
fn ten_a_second_under_load_fail_no_session_and_bad_ones_change_nothing() {
    const LASTS: Duration = Duration::from_secs(10);
    const INTERVAL: Duration = Duration::from_millis(100);
    let home = Home::new();
    let manager = home.start(&EVENTS, &["obey"]);
    let dial = home.dial(&manager);
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut lasting = dial.session();
    let mut answers = [0_usize; 2];
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut endpoint = dial.session();
                    endpoint.send(&message(NDATA, b"exit 0"));
                    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
                    endpoint.close();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begin = Instant::now();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0.. {
                if begin.elapsed() >= LASTS {
                    break;
                }
                let is_good = break_or_mend(&home, number);
                let (_, was_good) = reload(&manager);
                assert_eq!(was_good, is_good, "reload {number}");
                answers[usize::from(is_good)] += 1;
                let next = INTERVAL * (number + 1);
                thread::sleep(next.saturating_sub(begin.elapsed()));
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    lasting.send(&message(NDATA, b"exit 0"));
    assert_eq!(lasting.receive(), Err(End::CloseNotify));
    lasting.close();
    assert!(answers.iter().all(|count| *count >= 5), "bad and good: {answers:?}");
    let served = served.into_inner() + 1;
    assert!(served > 20, "{served} sessions are no load");
    assert_eq!(manager.said(REFUSED), answers[0]);
    assert_eq!(manager.said(RELOADED), answers[1]);
    let log = manager.interrupted();
    assert_eq!(log.code, Some(0));
    let outcomes_told = Events::of(&home).sessions();
    assert_eq!(outcomes_told.len(), served);
    assert!(outcomes(&outcomes_told).iter().all(|outcome| *outcome == "ok"));
}

/// Makes the files of the home good or bad, a kind of each in turn. Whether they are good.
fn break_or_mend(home: &Home, number: u32) -> bool {
    let (us, experimenter) = (home.keys.controller.public_key(), &home.keys.experimenter);
    let kind = CertificateType::Pubcmd;
    let good = certificate(kind, &us, experimenter).to_pem();
    let path = home.path("pubcmd.cert");
    if path.is_dir() {
        fs::remove_dir(&path).unwrap();
    }
    match number % 6 {
        0 => home.issue_until("pubcmd.cert", kind, &us, experimenter, an_hour_ago()),
        2 => home.write("pubcmd.cert", &good.as_bytes()[..good.len() / 2]),
        3 => {
            let stranger = PrivateKey::generate().unwrap().public_key();
            home.issue("pubcmd.cert", kind, &stranger, experimenter);
        }
        4 => {
            fs::remove_file(&path).unwrap();
            home.make_directory("pubcmd.cert");
        }
        // A certificate of its own each time, and every second time another key of an endpoint operator beside ours.
        _ => {
            home.write("pubcmd.cert", good.as_bytes());
            let more = PrivateKey::generate().unwrap().public_key().to_pem();
            let ours = home.keys.operator.public_key().to_pem();
            home.write("eop.pub", [ours, more].concat().as_bytes());
            return true;
        }
    }
    false
}
