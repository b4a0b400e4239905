//! `--check` and `--dry-run`: every finding, all of them at once, what is printed of what can be run, and no network.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use common::broker::Broker;
use common::dump::Dump;
use common::manager::{Manager, example, zoo};
use common::{Ended, Home, PKTCRED, PKTXPMGR, an_hour_ago, assert_says, full, read, run};
use nix::libc;
use packetlab::certificate::CertificateType;
use packetlab::key::{Hex, sha256};
use packetlab::time::Ticks;
use serde_json::json;

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
        "without BrokerCertRootPath the signature of the broker's certificate is not checked",
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

#[test]
fn a_dry_run_prints_what_would_be_done() {
    let home = Home::new();
    let config = publishing(&home).replace(
        "::\n",
        "::foo=bar;\nExpExec 0::exppriv.cert,pubcmd.cert::0102,03:\nPubPeriod 1h\nPubCountry USA\n",
    );
    home.write("xpmgr.conf", config.as_bytes());
    let words = ["--dry-run", "-n", "20", "-i", "EP*", "-p", "lab.example:7", "--cores", "1"];
    let limits = ["--setup-timeout", "1m", "--sessions-per-key-max", "0"];
    let mlet = ["./mlet", "two words", "\x1b[2J", "-x"];
    let ended = run_words(&home, &[&words[..], &limits, &mlet].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let key = home.keys.controller.public_key().key_id().to_string();
    let operator = home.keys.operator.public_key().key_id().to_string();
    for expected in [
        "run:\n  config file   xpmgr.conf\n",
        &format!("\n  our key id    {key}\n"),
        "\n  waits with    io_uring, or epoll where that is barred\n",
        "\n  ends          after sessions: 20\n",
        "\n  ends          when the publication is over\n",
        "\n\nmlet, one for each session:\n  file                ./mlet\n",
        "\n  argv[0]             mlet\n  argv[1]             two words\n  \
         argv[2]             \\u{1b}[2J\n  argv[3]             -x\n",
        "\n  EPADDR              <IP address of the endpoint, or of the proxy>\n",
        "\n  PKTLAB_SNIKEY       <snikey of the experiment>\n",
        "\n\naddresses:\n  listen        0.0.0.0:20556\n",
        "\n  broker        127.0.0.1:20556\n",
        "\n  publish       lab.example:7\n",
        "\n\nexperiment of line 6:\n  snikey        hello\n",
        "\n  certificate   pubcmd, valid to never\n",
        "\n  operators     1 trusted\n",
        &format!("\n  channel       {operator}\n"),
        "\n\nexperiment of line 7:\n  random snikey ",
        "\n  endpoints     need no certificate\n",
        "\n  channel       0102\n  channel       03\n",
        "\n\nlimits:\n  --handshake-timeout    10s\n",
        "\n  --setup-timeout        1m\n",
        "\n  --sessions-per-key-max 0\n",
        "\n  --linfo-max            64k\n",
    ] {
        assert_says(&ended.stdout, &[expected]);
    }
    let is_too_long = |line: &&str| line.len() > 80 && !line.starts_with("  descriptor ");
    assert_eq!(ended.stdout.lines().find(is_too_long), None);
    let descriptor = "hostid=EP*;endpoint_country=USA;pub_end=";
    let addressed = "controller_addr=lab.example:7;sni_key=hello;foo=bar;\n";
    assert_says(&ended.stdout, &[&format!("\n  descriptor    {descriptor}"), addressed]);
    let defaults = run_words(&home, &["--dry-run", "./mlet"]).stdout;
    assert_says(&defaults, &["\n  --sessions-per-key-max 1/4, >= 16\n"]);
    let of_a_key = "controller_addr=<our IP address as the broker sees it>;sni_key=hello;";
    assert_says(&defaults, &[of_a_key]);
    assert!(!ended.stdout.contains('\x1b'));
    // Of the only experiment the mlet's snikey is known, unless it is drawn.
    let least = home.least();
    for (config, expected) in [
        (least.clone(), "\n  PKTLAB_SNIKEY       hello\n"),
        (least.replace(":hello:", "::"), "\n  PKTLAB_SNIKEY       <snikey of the experiment>\n"),
    ] {
        home.write("xpmgr.conf", config.as_bytes());
        assert_says(&accepted(&home, &["--dry-run", "./mlet"]), &[expected]);
    }
    let singleton = accepted(&home, &["--dry-run", "-s", "./mlet"]);
    let expected = "\nmlet, one for all sessions:\n  file                ./mlet\n  \
                    argv[0]             mlet\n  environment         empty\n  \
                    told of a session   ADDRESS\n\n";
    assert_says(&singleton, &[expected]);
}

/// A text without what differs from home to home and from day to day: CPUs, long names and numbers, and digits.
fn without_chance(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with("  CPUs "));
    let lines = lines.map(|line| {
        let words = line.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric());
        let words = words.filter(|word| word.len() < 19).collect::<String>();
        words.replace(|letter: char| letter.is_ascii_digit(), "")
    });
    lines.collect()
}

#[test]
fn the_dry_run_that_people_read_is_what_is_printed() {
    let page = include_str!("../../docs/operating.md");
    let (_, sample) = page.split_once("\n$ pktxpmgr --dry-run ").unwrap();
    let (sample, _) = sample.split_once("\n```\n").unwrap();
    let (words, sample) = sample.split_once('\n').unwrap();
    let home = Home::new();
    home.write("mlet-http-get", b"#!/bin/sh\n");
    home.chmod("mlet-http-get", 0o700);
    let mut init = Command::new(PKTCRED);
    init.args(["init", "--no-passphrase", "--broker", "broker.example"]);
    home.make_directory("lab");
    let made = init.env_clear().env("HOME", home.path("lab")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut command = home.bare_command();
    let words = words.split(' ');
    let ended = run(command.env("HOME", home.path("lab")).arg("--dry-run").args(words));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let here = home.path("lab").to_str().unwrap().to_owned();
    let printed = (ended.stderr + &ended.stdout).replace(&here, "/home/lab");
    let (printed, sample) = (without_chance(&printed), without_chance(sample));
    assert_eq!(printed[..sample.len()], sample);
}

#[test]
fn a_dry_run_prints_the_options_of_results_choice_and_judgement() {
    let home = Home::new();
    home.write("these", b"abcd\n");
    let words = ["--dry-run", "--out", "r\x1b", "--only", "these", "--once-per-endpoint"];
    let rules = ["--halt", "soon,fail=10%", "--require", "3", "-s", "--single-facts", "./mlet"];
    let printed = accepted(&home, &[&words[..], &rules].concat());
    let expected = "\n\nresults, choice and judgement:\n  --out               r\\u{1b}\n  \
                    --only              these\n  --once-per-endpoint\n  \
                    --halt              soon,fail=10%\n  --require           3\n\nlimits:\n";
    assert_says(&printed, &[expected, "\n  told of a session   ADDRESS SESSION KEY SNIKEY\n"]);
    assert!(!accepted(&home, &["--dry-run", "./mlet"]).contains("judgement"));
    assert!(!home.path("r\x1b").exists());
}

/// A results folder with these records of a run of a mlet without arguments that had this digest.
fn make_results(home: &Home, folder: &str, mlet_digest: &str, records: &str) {
    home.make_directory(folder);
    let runs = json!({ "v": 1, "runs": [{ "mlet": { "sha256": mlet_digest, "arguments": [] } }] });
    home.write(&format!("{folder}/run.json"), runs.to_string().as_bytes());
    home.write(&format!("{folder}/events.jsonl"), records.as_bytes());
}

/// Each is what a run ends with, and nothing is made.
#[test]
fn what_a_run_would_refuse_of_its_folder_and_its_lists_is_found_without_one() {
    let home = Home::new();
    home.write("list", b"no key\n");
    make_results(&home, "full", "ab", "");
    let runs = read(&home.path("full/run.json"));
    home.write("none", b"# nobody yet\n\n");
    symlink("nowhere", home.path("lost")).unwrap();
    home.make_directory("other");
    home.write("other/notes", b"mine");
    for (options, said) in [
        (&["--only", "list"][..], "--only list: line 1: no key is no key id"),
        (&["--skip", "nowhere"], "--skip nowhere: "),
        (&["--out", "full"], "/full: it holds a run already (events.jsonl)"),
        (&["--out", "list"], "/list: it is not a folder"),
        (&["--out", "list/new"], "/list/new: "),
        (&["--out", "/proc/new"], "/proc/new: /proc: no folder can be made there"),
        (&["--out", "lost"], "/lost: it is a link that leads nowhere"),
        (&["--out", "other"], "/other: it is not empty, and no results folder"),
        (&["--resume", "other"], "/other: it is no results folder: it has no run.json"),
        (&["--only", "none"], "--only none: it names no key, so nobody would be measured"),
        (&["--only", "full"], "--only full: no endpoint has been ok in it, so nobody would be"),
        (&["--only", "other"], "--only other: it holds no events.jsonl"),
        (&["--resume", "nowhere"], "/nowhere: there is no run to go on with"),
        (&["--resume", "full"], "another mlet ran before: its SHA-256 was ab and is "),
    ] {
        let run = run_words(&home, &[options, &["./mlet"]].concat());
        let check = run_words(&home, &[&["--check"], options, &["./mlet"]].concat());
        for ended in [run, check] {
            assert_eq!(ended.code, Some(3), "{options:?}: {}", ended.stderr);
            assert_says(&ended.stderr, &[said]);
        }
    }
    for options in [&["--out", "new"][..], &["--resume", "full", "--resume-anyway"]] {
        accepted(&home, &[&["--check"], options, &["./mlet"]].concat());
    }
    assert!(!home.path("new").exists() && !home.path("nowhere").exists());
    assert_eq!(read(&home.path("full/run.json")), runs);
}

/// To root the kernel bars nothing.
#[test]
fn a_folder_that_may_not_be_written_or_read_is_found_with_the_reason() {
    let home = Home::new();
    home.make_directory("closed");
    home.make_directory("shut");
    home.write("shut/events.jsonl", b"");
    let stranger = home.give_away();
    home.chmod("closed", 0o500);
    home.chmod("shut", 0o000);
    for (options, said) in [
        (["--out", "closed"], "/closed: Permission denied"),
        (["--out", "closed/a/b"], "/closed/a/b: "),
        (["--resume", "shut"], "/shut: Permission denied"),
        (["--only", "shut"], "--only shut/events.jsonl: it cannot be read: Permission denied"),
    ] {
        let mut command = home.command_of(stranger, "pktxpmgr");
        let ended = run(command.args(["-c", "xpmgr.conf", "--check"]).args(options).arg("./mlet"));
        assert_eq!(ended.code, Some(3), "{options:?}: {}", ended.stderr);
        assert_says(&ended.stderr, &[said, "Permission denied"]);
    }
    home.chmod("shut", 0o700);
}

/// What was lost is told once more, by the numbers of the runs themselves.
#[test]
fn records_that_are_missing_or_damaged_are_warned_of_before_endpoints_are_measured_again() {
    let home = Home::new();
    home.make_directory("results");
    let runs = json!({ "v": 1, "runs": [{ "run": "7f", "counts": { "ok": 20 } }] });
    home.write("results/run.json", runs.to_string().as_bytes());
    let session = |number: u64| {
        let record = json!({
            "v": 1, "t": "", "ev": "session.end", "run": "7f", "sid": number, "outcome": "ok",
        });
        format!("{record}\n")
    };
    let whole: String = (1..=20).map(session).collect();
    let (before, behind) = whole.split_at(whole.len() / 2);
    let missing = "results: its run.json counts 20 sessions and connections where events.jsonl \
                   holds records of ";
    for (records, said) in [
        (String::new(), &[&*format!("{missing}0;")][..]),
        (session(1), &[&*format!("{missing}1;")]),
        (format!("{before}garbage\n\u{0}{behind}"), &["line 11 is passed over", missing]),
        (whole.clone(), &[]),
    ] {
        home.write("results/events.jsonl", records.as_bytes());
        let words = ["--check", "--resume", "results", "-n", "40"];
        let ended = run_words(&home, &words);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_says(&ended.stderr, said);
        assert_eq!(ended.stderr.is_empty(), said.is_empty(), "{}", ended.stderr);
    }
    home.write("results/events.jsonl", b"\x7f\x00\xff binary\n\xfe\n");
    let ended = run_words(&home, &["--check", "--resume", "results"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_says(&ended.stderr, &["no line of it is a record of pktxpmgr"]);
}

#[test]
fn folder_and_lists_are_checked_without_a_mlet_too_and_whatever_else_is_wrong() {
    let home = Home::new();
    home.write("list", b"no key\n");
    make_results(&home, "full", "ab", "");
    let (full, nowhere) = ("it holds a run already", "there is no run to go on with");
    for (words, said) in [
        (&["--resume", "nowhere"][..], &[nowhere][..]),
        (&["--out", "full"], &[full]),
        (&["--only", "list", "--out", "full", "./mlet"], &["--only list: line 1: ", full]),
        (
            &["--only", "list", "--skip", "gone", "--resume", "full", "./mlet"],
            &["--only list: line 1: ", "--skip gone: ", "its SHA-256 was ab and is "],
        ),
        (&["--out", "full", "./gone"], &["cannot run the mlet ./gone", full]),
        (
            &["-c", "gone", "--resume", "nowhere", "./gone"],
            &["cannot run the mlet ./gone", nowhere, "cannot read the config file gone"],
        ),
    ] {
        let ended = run_words(&home, &[&["--check"], words].concat());
        assert_eq!(ended.code, Some(3), "{words:?}: {}", ended.stderr);
        assert_says(&ended.stderr, said);
        assert_says(&ended.stderr, &[&format!("errors: {}\n", said.len())]);
    }
    accepted(&home, &["--check", "--resume", "full"]);
}

/// Two sessions of an earlier run of the same mlet are `ok`.
#[test]
fn what_earlier_runs_have_done_is_taken_off_and_nothing_left_is_told() {
    let home = Home::new();
    let session = |number: u64, outcome: &str| {
        let record =
            json!({ "v": 1, "t": "", "ev": "session.end", "sid": number, "outcome": outcome });
        format!("{record}\n")
    };
    let records = [session(1, "ok"), session(2, "mlet_failed"), session(3, "ok")].concat();
    let digest = Hex(&sha256(&read(&home.path("mlet")))).to_string();
    make_results(&home, "results", &digest, &records);
    let says = |task: &str, count: &str| {
        accepted(&home, &[task, "--resume", "results", "-n", count, "./mlet"])
    };
    let done = "nothing is left to do: 2 sessions of earlier runs are ok\n";
    assert_says(&says("--dry-run", "5"), &["\n  ends          after sessions: 3\n"]);
    for count in ["1", "2"] {
        let ends = format!("\n  ends          at once: {done}\nmlet,");
        assert_says(&says("--dry-run", count), &[&ends]);
        assert!(says("--check", count).ends_with(&format!("mlet ./mlet\n{done}")));
    }
    assert!(says("--check", "3").ends_with("mlet ./mlet\n"));
    // As a run has it.
    let ended = run_words(&home, &["--resume", "results", "-n", "2", "./mlet"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_says(&ended.stderr, &[done]);
    // Also where only warnings are shown.
    let ended = run_words(&home, &["-q", "--resume", "results", "-n", "2", "./mlet"]);
    assert_says(&ended.stderr, &["WARN nothing is left to do: 2 sessions"]);
}

#[test]
fn a_dry_run_tells_where_endpoints_come_to() {
    let home = Home::new();
    let proxy = publishing(&home) + "EnableProxyMode 1\nProxyCertRootPath eop.pub\n";
    for (config, addr, expected) in [
        (
            publishing(&home),
            "lab.example",
            ["listen ", "lab.example:20556 (a name, not looked up)\n"],
        ),
        (publishing(&home), "[::1]:7", ["listen ", " [::1]:7\n"]),
        (publishing(&home), "*:7", ["listen ", " 0.0.0.0:7 and [::]:7\n"]),
        (publishing(&home), "::1", ["listen ", " [::1]:20556\n"]),
        (publishing(&home), "[::1]:0", ["publish ", " [::1]:<port that is bound>\n"]),
        (publishing(&home), "127.0.0.1:0", ["listen ", " 127.0.0.1:0 (a free port)\n"]),
        (
            proxy.clone(),
            "proxy.example",
            ["proxy ", "proxy.example:20557 (a name, not looked up)\n"],
        ),
        (proxy, "192.0.2.1:4000", ["proxy ", " 192.0.2.1:4000\n"]),
        (home.least(), "127.0.0.1:7", ["publish ", " nothing\n"]),
    ] {
        home.write("xpmgr.conf", config.as_bytes());
        let ended = run_words(&home, &["--dry-run", "-a", addr, "./mlet"]);
        assert_eq!(ended.code, Some(0), "{addr}: {}", ended.stderr);
        let printed = ended.stdout;
        let row = printed.lines().find(|line| line.trim_start().starts_with(expected[0]));
        assert!(format!("{}\n", row.unwrap()).ends_with(expected[1]), "{printed}");
    }
}

/// The names in a section of what a dry run printed, and their values.
fn rows(printed: &str, section: &str) -> Vec<(String, String)> {
    let mut sections = printed.split("\n\n");
    let found = sections.find(|found| found.starts_with(section)).unwrap();
    let rows = found.lines().skip(1).map(|row| {
        let (name, value) = row.trim_start().split_once(' ').unwrap();
        (name.to_owned(), value.trim_start().to_owned())
    });
    rows.collect()
}

/// Words and variables of a real mlet are those that were foretold, and so is what is published.
#[test]
fn what_a_dry_run_foretells_happens() {
    let home = Home::new();
    let broker = Broker::start(&home.keys.operator);
    let config = home.publishing(&broker, home.least().lines().last().unwrap());
    let config = config + "BrokerCertRootPath eop.pub\nPubCountry USA,DEU\n";
    home.write("xpmgr.conf", config.as_bytes());
    let zoo = zoo().to_str().unwrap().to_owned();
    let words = ["-p", "127.0.0.3:5", "-i", "EP*", &zoo, "dump"];
    let addressed = [&["-a", "127.0.0.1:"], &words[..]].concat();
    let printed = accepted(&home, &[&["--dry-run"], &addressed[..]].concat());
    let mut command = home.bare_command();
    command.args(["-c", "xpmgr.conf"]).args(&addressed);
    let manager = Manager::start(&home, command);
    let (_peer, published) = broker.take_publication(1);
    let dump = Dump::of(&home.dial(&manager));
    assert_eq!(manager.interrupted().code, Some(0));

    let foretold = rows(&printed, "mlet, one for each session:");
    let (argv, environment): (Vec<_>, Vec<_>) =
        foretold[1..].iter().partition(|(name, _)| name.starts_with("argv["));
    let argv: Vec<_> = argv.into_iter().map(|(_, word)| word.as_str()).collect();
    assert_eq!(argv, ["mlet-zoo", "dump"]);
    assert_eq!(dump.all("arg"), argv);
    let mut found: Vec<_> =
        dump.all("env").iter().map(|one| one.split_once('=').unwrap()).collect();
    let mut names: Vec<_> = environment.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    found.sort_unstable();
    assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    for (name, value) in environment.into_iter().filter(|(_, value)| !value.starts_with('<')) {
        assert!(found.contains(&(name.as_str(), value.as_str())), "{name}={value}");
    }

    let experiment = rows(&printed, "experiment of line ");
    let all = |name: &str| -> Vec<String> {
        let values = experiment.iter().filter(|(found, _)| found == name);
        values.map(|(_, value)| value.clone()).collect()
    };
    let xdescr: String =
        published[0].xdescr.iter().map(|(name, value)| format!("{name}={value};")).collect();
    assert_eq!(all("descriptor"), [xdescr]);
    assert_eq!(all("channel"), published[0].channels);
}
