//! `pktcred init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use packetlab::key::{PrivateKey, PublicKey};

use super::Scratch;
use crate::common::{self, PKTCRED, PKTXPMGR, assert_says};

/// Both config files load, so nothing has to be edited by hand.
#[test]
fn pktxpmgr_takes_both_config_files_as_they_are() {
    for words in [
        &["--no-broker"][..],
        &["--broker", "127.0.0.1:9"],
        &["--broker", "127.0.0.1:9,[::1]:9"],
        &["--broker", "[::1]:9", "--broker-root", "bop.pub", "--proxy-root", "bop.pub"],
    ] {
        let scratch = Scratch::new();
        scratch.golden_key("bop");
        scratch.done(&[&["init", "--no-passphrase"], words].concat());
        scratch.write("mlet", "#!/bin/sh\n");
        fs::set_permissions(scratch.path("mlet"), fs::Permissions::from_mode(0o700)).unwrap();
        for config in ["home/xpmgr.conf", "home/xpmgr.proxy.conf"] {
            let mut command = Command::new(PKTXPMGR);
            command.current_dir("/").env_clear().stdin(Stdio::null());
            command.arg("-c").arg(scratch.path(config));
            command.args(["-a", "127.0.0.1:9", "-p", "127.0.0.1:9"]).arg(scratch.path("mlet"));
            let ended = common::run(&mut command);
            assert!(ended.loaded, "{words:?} {config}: {}", ended.stderr);
        }
    }
}

#[test]
fn the_home_is_where_pktxpmgr_looks_for_it() {
    let scratch = Scratch::new();
    let mut command = Command::new(PKTCRED);
    command.env_clear().env("HOME", &scratch.0).args(["init", "--no-passphrase"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let config = scratch.read(".pktlab/xpmgr.conf");
    let root = scratch.path(".pktlab/keys/caida_k_bop.pub");
    let line = format!("BrokerCertRootPath {}\n", root.display());
    assert_says(&config, &["BrokerAddr pktbrokr.caida.org\n", &line]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_says(&said, &[".pktlab is ready"]);
    assert!(!said.contains("will not be checked"), "{said}");
    // Without HOME there must be an option.
    let output = Command::new(PKTCRED).env_clear().arg("init").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn everything_is_for_the_owner_alone() {
    let scratch = Scratch::with_home();
    let tree = scratch.tree("home");
    assert_eq!(tree.len(), 24);
    for (name, mode) in tree {
        let expected = if scratch.path(&name).is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{name}");
    }
}

/// The tutorial of the original downloads both keys; here they are in the home.
#[test]
fn the_keys_of_the_public_deployment_are_at_hand() {
    let scratch = Scratch::with_home();
    let published = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/home/src/caida");
    for name in ["caida_k_bop.pub", "caida_k_eop.pub"] {
        let key = fs::read_to_string(format!("{published}/{name}")).unwrap();
        assert_eq!(scratch.read(&format!("home/keys/{name}")), key);
    }
    let help = scratch.done(&["init", "--help"]);
    assert_says(&help, &["add-privilege --cert exppriv.cert --eop-key caida_k_eop.pub"]);
    // Found by its name alone: a chain that it has not signed fails for that and no other reason.
    let words = ["add-privilege", "--cert", "exppriv_eop_exper.cert", "--eop-key"];
    let said = scratch.refused(&[&words[..], &["caida_k_eop.pub"]].concat(), 3);
    assert_says(&said, &["endpoints of this operator would refuse the chain"]);
}

#[test]
fn another_brokers_key_is_not_guessed() {
    for (words, expected) in [
        (&["--broker", "127.0.0.1:9"][..], "# BrokerCertRootPath is left out"),
        (&["--broker", "pktbrokr.caida.org:20556"], "/keys/caida_k_bop.pub\n"),
        (&["--broker", "pktbrokr.caida.org,b.example:7"], "# BrokerCertRootPath is left out"),
        (
            &["--broker", "a.example,b.example:7", "--broker-root", "bop.pub"],
            "BrokerAddr a.example,b.example:7\n",
        ),
        (&["--broker-root", "bop.pub"], "/keys/broker_root.pub\n"),
    ] {
        let scratch = Scratch::new();
        scratch.golden_key("bop");
        scratch.done(&[&["init", "--no-passphrase"], words].concat());
        assert_says(&scratch.read("home/xpmgr.conf"), &[expected]);
    }
}

#[test]
fn a_period_without_a_unit_is_told_so() {
    let scratch = Scratch::new();
    let said = scratch.refused(&["init", "--no-passphrase", "--valid-for", "365"], 2);
    assert_says(&said, &["'365' lacks its unit; write 365s, 365m, 365h or 365d"]);
}

#[test]
fn a_second_run_changes_nothing() {
    let scratch = Scratch::with_home();
    let key = scratch.read("home/keys/k_eop");
    let said = scratch.refused(&["init", "--no-passphrase"], 3);
    assert_says(&said, &["home is there already and is not overwritten"]);
    assert_eq!(scratch.read("home/keys/k_eop"), key);
}

#[test]
fn one_passphrase_file_protects_all_four_keys() {
    let scratch = Scratch::new();
    scratch.write("pass", "correct horse\n");
    scratch.done(&["init", "--no-broker", "--passphrase-file", "pass"]);
    for name in ["k_exper", "k_xc", "k_eop", "k_ep"] {
        let pem = scratch.read(&format!("home/keys/{name}"));
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{name}");
        let key = PrivateKey::from_pem(pem.as_bytes(), Some(b"correct horse")).unwrap();
        let public = scratch.read(&format!("home/keys/{name}.pub"));
        assert_eq!(PublicKey::from_pem(public.as_bytes()), Ok(key.public_key()));
    }
    let said = scratch.done(&["show", "k_xc"]);
    assert_says(&said, &["PBES2: PBKDF2 with SHA-256 and 600000 iterations, AES-256-CBC"]);
    let said = scratch.done(&["show", "--passphrase-file", "pass", "k_xc"]);
    let public = scratch.done(&["show", "k_xc.pub"]);
    assert_eq!(said.lines().last(), public.lines().last());
}

#[test]
fn nothing_is_made_when_something_is_wrong() {
    let scratch = Scratch::new();
    scratch.write("empty", "\n");
    scratch.write("open", "secret\n");
    fs::set_permissions(scratch.path("open"), fs::Permissions::from_mode(0o644)).unwrap();
    for (words, code, expected) in [
        (&["--passphrase-file", "empty"][..], 3, "first line is empty"),
        (&["--passphrase-file", "open"], 3, "chmod 600"),
        (&["--passphrase-file", "nowhere"], 3, "No such file"),
        (&["--no-passphrase", "--passphrase-file", "empty"], 2, "cannot be used with"),
        (&["--no-passphrase", "--broker", "a:b"], 2, "port"),
        (&["--no-passphrase", "--no-broker", "--broker", "x"], 2, "cannot be used with"),
        (&["--no-passphrase", "--broker-root", "empty"], 3, "PUBLIC KEY"),
        (&["--no-passphrase", "--not-before", "2040-01-01"], 2, "is none"),
        (&["--no-passphrase", "--not-after", "soon"], 2, "no date"),
    ] {
        let said = scratch.refused(&[&["init"], words].concat(), code);
        assert_says(&said, &[expected]);
        assert!(!scratch.path("home").exists(), "{words:?}");
    }
    let names: Vec<_> = scratch.tree(".").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["./empty", "./open"]);
}

#[test]
fn its_certificates_have_the_dates_asked_for() {
    let scratch = Scratch::new();
    let words = ["--not-before", "2026-01-01", "--valid-for", "10d"];
    scratch.done(&[&["init", "--no-passphrase"][..], &words].concat());
    let said = scratch.done(&["show", "subcmd_eop_ep.cert"]);
    let dates = "not before: 2026-01-01T00:00:00Z\nnot after: 2026-01-11T00:00:00Z\n";
    assert_says(&said, &[dates]);
}
