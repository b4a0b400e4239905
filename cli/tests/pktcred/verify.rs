//! `pktcred verify`.

use super::{Ended, Scratch, golden};
use crate::common::assert_says;

fn verify(scratch: &Scratch, who: &str, roots: &[&str], chain: &[&str]) -> Ended {
    let mut words = vec!["verify".to_owned(), "--as".to_owned(), who.to_owned()];
    for root in roots {
        words.extend(["--root".to_owned(), golden(&format!("keys/{root}.pub"))]);
    }
    words.extend(chain.iter().map(|name| golden(&format!("{name}.cert"))));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    scratch.run(&words)
}

/// The chains of spec/protocol.md 8 with their verdicts.
#[test]
fn golden_chains_get_the_verdicts_of_the_specification() {
    let scratch = Scratch::new();
    let controller = ["pubcmd_exper_xc", "exppriv_eop_exper"];
    let delegated = ["pubcmd_del_xc", "exppriv_eop_exper", "delpriv_exper_del"];
    let delegated_too = ["pubcmd_del_xc", "delpriv_exper_del", "exppriv_eop_exper"];
    let endpoint = ["subcmd_del_ep", "delpriv_eop_del_rep"];
    for (who, roots, chain, length) in [
        ("controller", &["eop"][..], &controller[..], 2),
        ("controller", &["eop"], &delegated, 3),
        ("controller", &["eop"], &delegated_too, 3),
        ("controller", &[], &controller, 2),
        ("endpoint", &["eop"], &["subcmd_eop_ep"], 1),
        ("endpoint", &["eop"], &endpoint, 2),
        ("endpoint", &["del"], &endpoint, 1),
        ("endpoint", &["del", "eop"], &endpoint, 2),
        ("agent", &["bop"], &["agent_bop_rv"], 1),
        ("agent", &[], &["agent_bop_rv"], 1),
    ] {
        let ended = verify(&scratch, who, roots, chain);
        assert_eq!(ended.code, Some(0), "{who} {chain:?}: {ended:?}");
        let shown = ended.stdout.lines().filter(|line| line.contains(".cert: ")).count();
        assert_eq!(shown, length, "{who} {chain:?}: {ended:?}");
        assert!(ended.stdout.contains("valid from 1970-01-01T00:00:00Z to 2038-01-19T03:14:07Z"));
        let unchecked = ended.stderr.contains("without --root");
        assert_eq!(unchecked, roots.is_empty(), "{ended:?}");
    }
    for (who, roots, chain, code) in [
        ("controller", &["exper"][..], &controller[..], 7),
        ("controller", &["eop"], &["exppriv_eop_exper", "pubcmd_exper_xc"], 5),
        ("controller", &["eop"], &["pubcmd_exper_xc"], 3),
        ("endpoint", &["eop"], &["subcmd_del_ep", "delpriv_exper_del"], 9),
        ("endpoint", &[], &["agent_ep"], 5),
        ("agent", &["ep"], &["agent_bop_rv"], 7),
        ("agent", &[], &["agent_bop_rv", "agent_ep"], 4),
    ] {
        let ended = verify(&scratch, who, roots, chain);
        assert_eq!(ended.code, Some(1), "{who} {chain:?}: {ended:?}");
        assert_says(&ended.stdout, &["FAILED: ", &format!("[code {code}]")]);
    }
}

#[test]
fn the_failing_certificate_its_file_and_the_reason_are_named() {
    let scratch = Scratch::new();
    let chain = ["exppriv_eop_exper", "pubcmd_exper_xc"];
    let said = verify(&scratch, "controller", &["eop"], &chain).stdout;
    assert_says(
        &said,
        &[
            "certificate 0 (",
            "exppriv_eop_exper.cert) is of type exppriv, but pubcmd is needed",
            "put the pubcmd certificate first",
        ],
    );
    let words = ["verify", "--as", "agent", "--at", "2040-01-01", &golden("agent_xc.cert")];
    let said = scratch.refused(&words, 1);
    assert_says(
        &said,
        &["has expired [code 6]", "to 2038-01-19T03:14:07Z, and this is 2040-01-01T00:00:00Z"],
    );
}

#[test]
fn every_section_of_a_file_counts() {
    let scratch = Scratch::new();
    let read = |name: &str| std::fs::read_to_string(golden(name)).unwrap();
    scratch.write("chain", read("pubcmd_exper_xc.cert") + &read("exppriv_eop_exper.cert"));
    scratch.write("roots", read("keys/bop.pub") + &read("keys/eop.pub"));
    let words = ["verify", "--as", "controller", "--root", "roots", "chain"];
    let said = scratch.done(&words);
    assert_says(&said, &["OK: chain: pubcmd", "<- chain: exppriv", "<- root roots\n"]);
    scratch.write("chain", read("exppriv_eop_exper.cert") + &read("pubcmd_exper_xc.cert"));
    assert_says(&scratch.refused(&words, 1), &["certificate 0 (chain) is of type exppriv"]);
    // None is left out because it cannot be read.
    let cut = read("exppriv_eop_exper.cert").replace("-----END", "-----EN");
    scratch.write("chain", read("pubcmd_exper_xc.cert") + &cut);
    assert_says(&scratch.refused(&words, 1), &["certificate 0 (chain): holds no readable PEM"]);
}

#[test]
fn lax_der_is_refused_with_its_byte() {
    let scratch = Scratch::new();
    let pem = std::fs::read_to_string(golden("agent_xc.cert")).unwrap();
    // The first base64 digit holds the constructed bit of the outer tag.
    scratch.write("lax", pem.replacen("\nMII", "\nEII", 1));
    let said = scratch.refused(&["verify", "--as", "agent", "lax"], 1);
    assert_says(&said, &["certificate 0 (lax): not an X.509 certificate", "byte 0", "rule code 1"]);
}

#[test]
fn every_unreadable_certificate_is_told_with_its_rule() {
    let scratch = Scratch::new();
    scratch.write("bad", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    scratch.write("worse", "");
    let words = ["verify", "--as", "controller", &golden("pubcmd_exper_xc.cert"), "bad", "worse"];
    let said = scratch.refused(&words, 1);
    assert_says(
        &said,
        &["certificate 1 (bad): not an X.509", "certificate 2 (worse): holds no readable PEM"],
    );
    scratch.refused(&["verify", "--as", "controller", "nowhere"], 3);
    scratch.refused(&["verify", "--as", "nobody", "bad"], 2);
    scratch.refused(&["verify", "bad"], 2);
}
