//! `--check` and `--dry-run`: every finding, all of them at once, and no network.
//!
//! Not here: what is found of a results folder (`check/folder.rs`), and what a dry run prints (`check/dry_run.rs`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "check/dry_run.rs"]
mod dry_run;
#[path = "check/folder.rs"]
mod folder;
#[path = "check/mlet_arguments.rs"]
mod mlet_arguments;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use common::manager::{example, is_alive, wait_until, zoo};
use common::{Ended, Home, PKTXPMGR, an_hour_ago, assert_says, full, run};
use nix::libc;
use packetlab::certificate::CertificateType;
use packetlab::time::Ticks;

/// Runs `pktxpmgr` with the home's config file and these words.
fn run_words(home: &Home, words: &[&str]) -> Ended {
    run(home.bare_command().args(["-c", "xpmgr.conf"]).args(words))
}

/// Asserts that nothing is wrong or odd, and returns what was printed.
#[track_caller]
fn accepted(home: &Home, words: &[&str]) -> String {
    let ended = run_words(home, words);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{words:?}: {}", ended.stdout);
    ended.stdout
}

/// Asserts that `--check` and `--dry-run` find something wrong, say so and print nothing, and returns what was said.
#[track_caller]
fn refused(home: &Home, words: &[&str]) -> String {
    let [check, dry_run] = ["--check", "--dry-run"].map(|task| {
        let ended = run_words(home, &[&[task], words].concat());
        assert_eq!((ended.code, &*ended.stdout), (Some(3), ""), "{task}: {}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap();
        assert_says(last, &["pktxpmgr: FATAL: no run can begin: errors: "]);
        ended.stderr
    });
    assert_eq!(check, dry_run);
    check
}

fn publishing(home: &Home) -> String {
    let on = "Publication 1\nBrokerAddr 127.0.0.1\nPubAgentCertPath agent.cert\n\
              BrokerCertRootPath eop.pub";
    home.least().replace("Publication 0", on)
}

fn within_days(days: u64) -> Ticks {
    Ticks::from_system_time(SystemTime::now() + Duration::from_secs(days * 86_400))
}

#[test]
fn what_can_be_run_is_told_in_one_line() {
    let home = Home::new();
    let key = home.keys.controller.public_key().key_id().to_string();
    let ok =
        format!("ok: xpmgr.conf, controller key {}, experiments: 1, programs: 0, ", &key[..12]);
    assert_eq!(accepted(&home, &["--check"]), format!("{ok}no mlet\n"));
    let words = ["--check", "-n", "3", "./mlet", "--check", "-x"];
    assert_eq!(accepted(&home, &words), format!("{ok}mlet ./mlet\n"));
    let mut command = home.bare_command();
    let output = command.args(["-c", "xpmgr.conf", "--check"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_says(&said, &["FATAL: cannot write to standard output: No space left on device"]);
}

#[test]
fn the_two_do_not_go_together_and_only_a_check_needs_no_mlet() {
    let home = Home::new();
    for (words, expected) in [
        (&["--check", "--dry-run", "./mlet"][..], ["--check and", "--dry-run"]),
        (&["--dry-run", "--check"], ["--check and", "--dry-run"]),
        (&["--dry-run"], ["required", "MLET"]),
    ] {
        let ended = run_words(&home, words);
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{words:?}: {}", ended.stderr);
        assert_says(&ended.stderr, &["error: ", expected[0], expected[1], "Usage: pktxpmgr"]);
    }
}

/// Something wrong: how it comes about in a home, with a config file and options; what is said of it.
type Flaw = (fn(&Home) -> (String, &'static [&'static str]), &'static str);

/// Those that a run would end with, each in a line of its own.
const ERRORS: &[Flaw] = &[
    (|home| (home.least() + "TargetBacklogConn 0\n", &[]), "xpmgr.conf:4:19: TargetBacklogConn"),
    (
        |home| (home.least().replace("ControllerPrivkeyPath xc\n", ""), &[]),
        "ControllerPrivkeyPath is missing",
    ),
    (|home| (home.least().replace(":hello:", ":Hello:"), &[]), "xpmgr.conf:3:11: 'H' at"),
    (|home| (home.least().replace(",pub", ",nowhere/pub"), &[]), "xpmgr.conf:3:30: cannot use"),
    (|home| (home.keys.controller.to_pem().to_string(), &[]), "this is no config file"),
    (|home| (home.least(), drop_mlet(home)), "cannot run the mlet ./mlet: No such file"),
    (|home| (home.least(), &["--cores", "1023-1023"]), "may not run on CPU 1023"),
    (|home| (home.least(), &["-a", "[::1"]), "-a [::1: "),
    (|home| (home.least(), &["-a", "224.0.0.1"]), "-a 224.0.0.1: 224.0.0.1 is a multicast"),
    (|home| (home.least() + "EnableProxyMode 1\n", &[]), "needs the proxy's address"),
    (
        |home| (publishing(home).replace("127.0.0.1", "fe80::1"), &[]),
        "xpmgr.conf:2:12: the broker cannot be used: fe80::1 is a link-local address",
    ),
    (|home| (publishing(home), &["-p", "h:0"]), "-p h:0: nobody can connect to port 0"),
    (|home| (publishing(home), &["-i", "50%"]), "-i 50%: it cannot be published"),
    (|home| (home.least().replace("Path xc", "Path eop.pub"), &[]), "2:23: the controller key"),
    (|home| (open_key(home, 0o604), &[]), "everybody may read or write it (mode 0604); chmod 600"),
    (|home| (open_folder(home), &[]), "everybody may write to its directory"),
    (
        |home| (home.least().replace("Path xc", "Path enc"), &["--passphrase-file", "nowhere"]),
        "cannot use the passphrase file nowhere: No such file",
    ),
    (
        |home| (home.least().replace("Path xc", "Path enc"), &["--passphrase-file", "xpmgr.conf"]),
        "2:23: the controller key cannot be used: the passphrase does not open",
    ),
    (
        |home| (publishing(home).replace("agent.cert", "pubcmd.cert"), &[]),
        "3:18: this is a certificate of type pubcmd, and every peer refuses it",
    ),
    (
        |home| (publishing(home).replace("agent.cert", foreign_agent(home)), &[]),
        "3:18: this certificate does not belong to the controller key",
    ),
    (|home| (publishing(home).replace("eop.pub\nC", "xc\nC"), &[]), "4:20: this is no public key"),
    (
        |home| (home.least().replace(",pubcmd.cert", ""), &[]),
        "3:17: none of these certificates is for the controller key (key id ",
    ),
    (|home| (expired(home), &[]), "certificate 0 has expired; certificate 0 is the pubcmd of old"),
    (|home| (home.least().replace(":eop.pub:", ":exper.pub:"), &[]), "3:17: endpoints would"),
    (|home| (home.least().replace("exppriv.cert", "xc"), &[]), "3:17: this is no PacketLab"),
    (
        |home| (publishing(home).replace("::\n", "::controller_addr=*;\n"), &[]),
        "* stands for every address of this machine",
    ),
];

/// Those that a run would begin with.
const WARNINGS: &[Flaw] = &[
    (|home| (home.least() + "Colour blue\n", &[]), "xpmgr.conf:4:1: unknown key 'Colour'"),
    (|home| (home.least(), &["-n", "10k"]), "-n: 'k' behind the number is ignored"),
    (|home| (open_key(home, 0o640), &[]), "xc: its group may use this secret file too"),
    (
        |home| (publishing(home).replace("BrokerCertRootPath eop.pub\n", ""), &[]),
        "without BrokerCertRootPath the broker certificate's signature is not checked",
    ),
    (|home| (publishing(home), &["-p", "0.0.0.0"]), "0.0.0.0 is published as it is"),
    (|home| (publishing(home), &["-i", "EP[12]"]), "-i EP[12]: [ and ] stand for themselves"),
    (
        |home| (home.least().replace(":eop.pub::", "::0102:"), &[]),
        "line 3: without TRUSTEDEOP_PATH endpoints need no certificate",
    ),
    (
        |home| (expired(home).replace(":eop.pub::", "::0102:"), &[]),
        "line 3: no endpoint will be served, as the chain does not hold: certificate 0 has expired",
    ),
    (
        |home| (publishing(home).replace("agent.cert", agent(home, an_hour_ago())), &[]),
        "xpmgr.conf:3:18: the agent certificate will be refused; now is not within its dates",
    ),
    (
        |home| (publishing(home).replace("agent.cert", agent(home, within_days(3))), &[]),
        "xpmgr.conf:3:18: the agent certificate of agent2.cert expires at 20",
    ),
    (
        |home| (chain_until(home, home.least(), within_days(3)), &[]),
        "xpmgr.conf:3:17: the pubcmd certificate of old.cert expires at 20",
    ),
    (
        |home| (chain_until(home, publishing(home) + "PubPeriod 30d\n", within_days(20)), &[]),
        ", before the publication, which ends at 20",
    ),
    (|home| (bad_program(home), &[]), "program progs/bad.ebpf is skipped: line 1"),
];

fn drop_mlet(home: &Home) -> &'static [&'static str] {
    fs::remove_file(home.path("mlet")).unwrap();
    &[]
}

fn open_key(home: &Home, mode: u32) -> String {
    home.chmod("xc", mode);
    home.least()
}

fn open_folder(home: &Home) -> String {
    home.make_directory("open");
    home.write("open/xc", home.keys.controller.to_pem().as_bytes());
    home.chmod("open", 0o777);
    home.least().replace("Path xc", "Path open/xc")
}

fn chain_until(home: &Home, config: String, end: Ticks) -> String {
    let (controller, experimenter) = (&home.keys.controller, &home.keys.experimenter);
    let kind = CertificateType::Pubcmd;
    home.issue_until("old.cert", kind, &controller.public_key(), experimenter, end);
    config.replace("pubcmd.cert", "old.cert")
}

fn expired(home: &Home) -> String {
    chain_until(home, home.least(), an_hour_ago())
}

fn agent(home: &Home, end: Ticks) -> &'static str {
    let controller = &home.keys.controller;
    let key = controller.public_key();
    home.issue_until("agent2.cert", CertificateType::Agent, &key, controller, end);
    "agent2.cert"
}

fn foreign_agent(home: &Home) -> &'static str {
    let key = &home.keys.delegate;
    home.issue("agent3.cert", CertificateType::Agent, &key.public_key(), key);
    "agent3.cert"
}

fn bad_program(home: &Home) -> String {
    home.make_directory("progs");
    home.write("progs/bad.ebpf", b"0x95 0 0\n");
    home.least() + "ProgramDirPath progs\n"
}

#[test]
fn each_error_is_found_without_a_run() {
    for (flaw, expected) in ERRORS {
        let home = Home::new();
        let (config, options) = flaw(&home);
        home.write("xpmgr.conf", config.as_bytes());
        let said = refused(&home, &[options, &["./mlet"]].concat());
        let found = said.lines().filter(|line| line.starts_with("pktxpmgr: ERROR: "));
        let found: Vec<_> = found.collect();
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}\n{said}");
        assert_says(&said, &["errors: 1\n"]);
        // And a run ends with it.
        let ended = run_words(&home, &[options, &["./mlet"]].concat());
        assert!(!ended.loaded && ended.code != Some(0), "{expected}: {}", ended.stderr);
        assert_says(&ended.stderr, &["FATAL: ", expected]);
    }
}

#[test]
fn each_warning_is_told_and_what_it_is_about_can_be_run() {
    for (flaw, expected) in WARNINGS {
        let home = Home::new();
        let (config, options) = flaw(&home);
        home.write("xpmgr.conf", config.as_bytes());
        for task in ["--check", "--dry-run"] {
            let ended = run_words(&home, &[&[task][..], options, &["./mlet"]].concat());
            assert_eq!(ended.code, Some(0), "{expected}: {}", ended.stderr);
            let mut lines = ended.stderr.lines();
            assert!(lines.all(|line| line.starts_with("pktxpmgr: WARNING: ")), "{}", ended.stderr);
            assert_says(&ended.stderr, &[expected]);
            assert_eq!(ended.stdout.starts_with("ok: "), task == "--check");
        }
    }
}

/// A certificate that outlives all that is asked of it.
#[test]
fn nobody_is_warned_of_a_certificate_that_lasts() {
    let home = Home::new();
    for (config, days) in [
        (home.least(), 8),
        (publishing(&home) + "PubPeriod 30d\n", 31),
        // Without an end there is none to compare with.
        (publishing(&home), 8),
        (publishing(&home) + "PubPeriod -1\n", 8),
        // As long as the publication, but made before.
        (publishing(&home) + "PubPeriod 365d\n", 364),
    ] {
        let config = chain_until(&home, config, within_days(days));
        home.write("xpmgr.conf", config.as_bytes());
        accepted(&home, &["--check"]);
    }
    // The end of the entry itself counts.
    let config = publishing(&home).replace("::\n", &format!("::pub_end={};\n", within_days(9)));
    home.write("xpmgr.conf", chain_until(&home, config, within_days(8)).as_bytes());
    let ended = run_words(&home, &["--check"]);
    assert_says(&ended.stderr, &["WARNING: ", "before the publication, which ends at 20"]);
    // A run tells of the one that lasts long as well, without a warning.
    let config = publishing(&home) + "PubPeriod 365d\n";
    let told = home.loads(&chain_until(&home, config, within_days(364)));
    assert_says(&told, &[" INFO xpmgr.conf:", "before the publication, which ends at 20"]);
    let is_warning = |line: &str| line.contains("WARN") && line.contains("expires at");
    assert!(!told.lines().any(is_warning), "{told}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_carets() {
    let home = Home::new();
    let config = expired(&home)
        + "ExpExec 0:Second:exppriv.cert,nowhere:eop.pub:0g:\n\
           ExpExec 0:third:xc,eop.pub:agent.cert::\nTargetBacklogConn 0\nProgramDirPath gone\n\
           EnableProxyMode 1\nBacklogConnAgentCertPath exppriv.cert\nProxyCertRootPath xc\n";
    home.write("xpmgr.conf", config.as_bytes());
    home.write("mlet", b"#!/no/such/interpreter\n");
    home.chmod("xc", 0o644);
    let said = refused(&home, &["-a", "h:x", "--cores", "1023-1023", "./mlet"]);
    for expected in [
        "ERROR: cannot run the mlet ./mlet: the interpreter /no/such/interpreter",
        "ERROR: --cores",
        "ERROR: -a h:x: ",
        "ERROR: xpmgr.conf:2:23: the controller key cannot be used: everybody may read",
        "ERROR: xpmgr.conf:3:17: endpoints would refuse this chain: certificate 0 has expired",
        "ERROR: xpmgr.conf:4:11: 'S' at position 1 of the snikey",
        "\n 4 | ExpExec 0:Second:exppriv.cert,nowhere:eop.pub:0g:\n   |           ^^^^^^\n",
        "ERROR: xpmgr.conf:4:31: cannot use 'nowhere'",
        "ERROR: xpmgr.conf:4:47: 'g' in the channel",
        "ERROR: xpmgr.conf:5:17: this is no PacketLab certificate",
        "ERROR: xpmgr.conf:5:20: this is no PacketLab certificate",
        "ERROR: xpmgr.conf:5:28: this is no public key",
        "ERROR: xpmgr.conf:6:19: TargetBacklogConn must be more than 0",
        "ERROR: xpmgr.conf:7:16: cannot use 'gone'",
        "ERROR: xpmgr.conf:9:26: this certificate does not belong to the controller key",
        "ERROR: xpmgr.conf:9:26: this is a certificate of type exppriv",
        "ERROR: xpmgr.conf:10:19: this is no public key",
    ] {
        assert_says(&said, &[expected]);
    }
    assert_says(&said, &["errors: 16\n"]);
    assert_eq!(said.matches("ERROR: ").count(), 16, "{said}");
}

/// A config file that cannot be read leaves the mlet and the options.
#[test]
fn without_a_config_file_the_rest_is_checked() {
    let home = Home::new();
    let words = ["--check", "-c", "nowhere.conf", "--cores", "1023-1023", "./nowhere"];
    let ended = run(home.bare_command().args(words));
    assert_eq!(ended.code, Some(3));
    let expected = ["cannot run the mlet", "may not run on CPU", "cannot read the config file"];
    assert_says(&ended.stderr, &expected);
}

/// What can be seen of a mlet's file; the first column is what is written into it.
#[test]
fn what_a_mlets_file_shows_is_told_before_a_run_and_without_one() {
    let mut foreign = fs::read(zoo()).unwrap();
    foreign.truncate(4096);
    let cut = foreign[..60].to_vec();
    (foreign[18], foreign[19]) = (243, 0);
    let long = format!("#!/{}\n", "x".repeat(300)).into_bytes();
    for (bytes, expected) in [
        (
            &b"#!/no/such/interpreter\n"[..],
            "the interpreter /no/such/interpreter of its first line",
        ),
        (
            b"#!./xc\n",
            "the interpreter ./xc of its first line cannot be used: it is not executable",
        ),
        (b"#!/bin/sh\r\n", "its first line ends in a carriage return"),
        (b"#! \n", "its first line names no interpreter"),
        (&long, "its first line names an interpreter that does not end within 256 bytes"),
        (b"echo hello\n", "it is no ELF program, and no script"),
        (b"", "it is empty"),
        (&foreign, "it is a program for RISC-V (64-bit, little-endian), and this machine is "),
        (&cut, "its ELF headers are damaged or cut"),
    ] {
        let home = Home::new();
        home.write("mlet", bytes);
        let expected = format!("cannot run the mlet ./mlet: {expected}");
        assert_says(&refused(&home, &["./mlet"]), &[&expected]);
        for single in [&[][..], &["-s"]] {
            let ended = run(home.command().args(single).arg("./mlet"));
            assert_eq!((ended.code, ended.loaded), (Some(3), false), "{}", ended.stderr);
            assert_says(&ended.stderr, &["FATAL: ", &expected]);
        }
    }
}

/// Names that nobody can look up, an address that is taken, and no call that makes a socket.
#[test]
fn no_name_is_looked_up_and_no_socket_made() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let home = Home::new();
    let config = publishing(&home).replace("127.0.0.1", "broker.invalid");
    let config = config.replace("::\n", "::controller_addr=override.invalid;\n");
    let passive = format!("{config}PubControllerAddr controller.invalid\n");
    let proxy = format!("{config}EnableProxyMode 1\nProxyCertRootPath eop.pub\n");
    let barred = |call: libc::c_long, words: &[&str]| {
        let mut command = Command::new(example("barred"));
        command.args([&call.to_string(), &libc::EPERM.to_string(), PKTXPMGR]);
        command.args(["-c", "xpmgr.conf"]).args(words).arg("./mlet");
        command.current_dir(home.path("")).env_clear().stdin(Stdio::null());
        run(&mut command)
    };
    // They are barred indeed: no run can be without them.
    for call in [libc::SYS_socket, libc::SYS_socketpair, libc::SYS_bind] {
        let ended = barred(call, &["-a", "127.0.0.1:"]);
        assert_ne!(ended.code, Some(0), "{}", ended.stderr);
        assert_says(&ended.stderr, &["FATAL: ", "Operation not permitted"]);
    }
    let calls = [libc::SYS_socket, libc::SYS_socketpair, libc::SYS_bind, libc::SYS_connect];
    for (config, addr) in [
        (&passive, "listen.invalid"),
        (&passive, &taken),
        (&proxy, "proxy.invalid"),
        (&proxy, &taken),
    ] {
        home.write("xpmgr.conf", config.as_bytes());
        for (task, call) in
            ["--check", "--dry-run"].iter().flat_map(|task| calls.map(|call| (task, call)))
        {
            let ended = barred(call, &[task, "-a", addr, "-p", "publish.invalid"]);
            assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{addr}, call {call}");
        }
    }
    drop(listener);
}
