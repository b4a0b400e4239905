//! What `--dry-run` prints, and that it is what a run does.

use std::process::Command;

use super::{accepted, publishing, run_words};
use crate::common::broker::Broker;
use crate::common::dump::Dump;
use crate::common::manager::{Manager, zoo};
use crate::common::{Home, PKTCRED, assert_says, run};

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
    let page = include_str!("../../../docs/operating.md");
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
