//! `pktcred add-privilege`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Scratch, golden};
use crate::common::{self, PKTXPMGR, assert_says};

/// A home, and beside it `eop`, `eop.pub` of an operator who gave `exppriv.cert` to its
/// experimenter.
fn scene() -> Scratch {
    let scratch = Scratch::with_home();
    scratch.done(&["key", "eop", "--no-passphrase", "--dir", "."]);
    let csr = "exppriv_exper.csr";
    scratch.done(&["sign", "exppriv", "--signer", "eop", "--csr", csr, "-o", "exppriv.cert"]);
    scratch
}

const ADD: [&str; 5] = ["add-privilege", "--cert", "exppriv.cert", "--eop-key", "eop.pub"];

fn contents(scratch: &Scratch) -> Vec<(String, Vec<u8>)> {
    let tree = scratch.tree("home").into_iter().map(|(name, _)| name);
    let files = tree.filter(|name| scratch.path(name).is_file());
    files.map(|name| (name.clone(), fs::read(scratch.path(&name)).unwrap())).collect()
}

fn loads(config: &Path) -> bool {
    let mlet = config.with_file_name("mlet");
    fs::write(&mlet, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&mlet, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = Command::new(PKTXPMGR);
    command.env_clear().stdin(Stdio::null()).arg("-c").arg(config);
    let ended = common::run(command.args(["-a", "127.0.0.1:9"]).arg(&mlet));
    fs::remove_file(&mlet).unwrap();
    ended.loaded
}

#[test]
fn both_configs_get_the_line_and_a_second_run_changes_nothing() {
    let scratch = scene();
    let before = scratch.read("home/xpmgr.conf");
    let said = scratch.done(&ADD);
    assert_says(&said, &["the chain verifies", "xpmgr.conf: amended", "xpmgr.proxy.conf: amended"]);
    let home = scratch.path("home");
    let home = home.display();
    let line = format!(
        "ExpExec 0::{home}/certs/exppriv.cert,{home}/certs/pubcmd_exper_xc.cert:\
         {home}/keys/eop.pub::\n"
    );
    assert_eq!(scratch.read("home/xpmgr.conf"), format!("{before}{line}"));
    assert!(scratch.read("home/xpmgr.proxy.conf").ends_with(&line));
    for name in ["certs/exppriv.cert", "keys/eop.pub", "xpmgr.conf"] {
        let mode = fs::metadata(scratch.path("home").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    for config in ["home/xpmgr.conf", "home/xpmgr.proxy.conf"] {
        assert!(loads(&scratch.path(config)), "{config}");
    }
    let after = contents(&scratch);
    assert_says(&scratch.done(&ADD), &["xpmgr.conf: has this privilege already"]);
    assert_eq!(contents(&scratch), after);
}

#[test]
fn a_bundle_is_taken_as_a_whole_and_two_operators_are_not() {
    let scratch = scene();
    scratch.done(&["key", "other", "--no-passphrase", "--dir", "."]);
    let two = scratch.read("eop.pub") + &scratch.read("other.pub");
    scratch.write("two.pub", two);
    let words = ["add-privilege", "--cert", "exppriv.cert", "--eop-key", "two.pub"];
    let said = scratch.refused(&words, 3);
    assert_says(&said, &["two.pub: holds 2 PEM sections `PUBLIC KEY`, and one is meant"]);
    // The privilege given to `other`, who hands it on.
    let words = ["sign", "exppriv", "--signer", "eop", "--subject", "other.pub", "-o", "first"];
    scratch.done(&words);
    let words = ["sign", "delpriv", "--delegate", "exppriv", "--signer", "other", "--subject"];
    scratch.done(&[&words[..], &["home/keys/k_exper.pub", "-o", "second"]].concat());
    scratch.write("bundle.cert", scratch.read("first") + &scratch.read("second"));
    scratch.done(&["add-privilege", "--cert", "bundle.cert", "--eop-key", "eop.pub"]);
    assert!(loads(&scratch.path("home/xpmgr.conf")));
}

#[test]
fn the_default_moves_and_stays_the_only_one() {
    let scratch = scene();
    scratch.done(&[&ADD[..], &["--default"]].concat());
    let config = scratch.read("home/xpmgr.conf");
    let flags: Vec<_> = config.lines().filter_map(|line| line.strip_prefix("ExpExec ")).collect();
    assert_eq!(flags.len(), 2);
    assert!(flags[0].starts_with("0:") && flags[1].starts_with("1:"), "{config}");
    assert!(loads(&scratch.path("home/xpmgr.conf")));
    let after = contents(&scratch);
    scratch.done(&[&ADD[..], &["--default"]].concat());
    scratch.done(&ADD);
    assert_eq!(contents(&scratch), after);
}

#[test]
fn a_chain_that_endpoints_would_refuse_changes_nothing() {
    let scratch = scene();
    scratch.done(&["key", "other", "--no-passphrase", "--dir", "."]);
    let foreign = ["sign", "exppriv", "--signer", "eop", "--subject", "other.pub"];
    scratch.done(&[&foreign[..], &["-o", "foreign.cert"]].concat());
    let old = ["--not-before", "2020-01-01", "--not-after", "2020-12-31"];
    let expired =
        ["sign", "exppriv", "--signer", "eop", "--csr", "exppriv_exper.csr", "-o", "old.cert"];
    scratch.done(&[&expired[..], &old].concat());
    let before = contents(&scratch);
    for (certificates, key, expected) in [
        (&["exppriv.cert"][..], "other.pub", "neither trusted nor among"),
        (&["foreign.cert"], "eop.pub", "neither trusted nor among"),
        (&["old.cert"], "eop.pub", "has expired"),
        (&["home/certs/subcmd_eop_ep.cert"], "eop.pub", "would refuse"),
    ] {
        let mut words = vec!["add-privilege", "--eop-key", key];
        for name in certificates {
            words.extend(["--cert", name]);
        }
        assert_says(&scratch.refused(&words, 3), &[expected, "nothing was changed"]);
    }
    let words = [&ADD[..], &["--cert", "foreign.cert"]].concat();
    assert_says(&scratch.refused(&words, 2), &["no place in the chain"]);
    assert_eq!(contents(&scratch), before);
}

#[test]
fn a_delegated_privilege_comes_with_all_its_certificates() {
    let scratch = Scratch::with_home();
    for name in ["eop", "professor"] {
        scratch.done(&["key", name, "--no-passphrase", "--dir", "."]);
    }
    let given = ["sign", "exppriv", "--signer", "eop", "--subject", "professor.pub"];
    scratch.done(&[&given[..], &["-o", "given.cert"]].concat());
    let handed_on = ["--csr", "delpriv_exp_exper.csr", "-o", "handed_on.cert"];
    scratch.done(&[&["sign", "delpriv", "--signer", "professor"], &handed_on[..]].concat());
    let words = ["add-privilege", "--cert", "given.cert", "--cert", "handed_on.cert"];
    scratch.done(&[&words[..], &["--eop-key", "eop.pub"]].concat());
    assert_says(
        &scratch.read("home/xpmgr.conf"),
        &["/certs/given.cert,", "/certs/handed_on.cert,", "/certs/pubcmd_exper_xc.cert:"],
    );
    assert!(loads(&scratch.path("home/xpmgr.conf")));
}

#[test]
fn files_of_one_name_from_two_operators_do_not_collide() {
    let scratch = scene();
    scratch.done(&ADD);
    for name in ["eop", "eop.pub", "exppriv.cert"] {
        fs::remove_file(scratch.path(name)).unwrap();
    }
    scratch.done(&["key", "eop", "--no-passphrase", "--dir", "."]);
    let csr = "exppriv_exper.csr";
    scratch.done(&["sign", "exppriv", "--signer", "eop", "--csr", csr, "-o", "exppriv.cert"]);
    scratch.done(&ADD);
    let config = scratch.read("home/xpmgr.conf");
    assert_says(&config, &["/certs/exppriv.cert,", "/certs/exppriv-2.cert,", "/keys/eop-2.pub::"]);
    assert!(loads(&scratch.path("home/xpmgr.conf")));
    let after = contents(&scratch);
    scratch.done(&ADD);
    assert_eq!(contents(&scratch), after);
}

#[test]
fn without_a_home_there_is_nothing_to_amend() {
    let scratch = Scratch::new();
    scratch.golden_key("eop");
    let certificate = golden("exppriv_eop_exper.cert");
    let words = ["add-privilege", "--cert", &certificate, "--eop-key", "eop.pub"];
    assert_says(&scratch.refused(&words, 3), &["pktcred init makes a home"]);
}
