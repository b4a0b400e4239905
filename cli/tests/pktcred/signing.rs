//! `pktcred csr` and `pktcred sign`.

use std::fs;

use packetlab::certificate::Certificate;
use packetlab::request::SigningRequest;

use super::{Scratch, golden};
use crate::common::assert_says;

/// Every limit there is, as options and as the golden certificate has it.
const LIMITS: [&str; 24] = [
    "--monitor",
    "3a3dff7a950ab7caf70cfcf8d67f45e2e3e4cd72e3e6e484496394b419755ccd",
    "--max-num-priority",
    "100",
    "--max-socket-count",
    "8",
    "--max-exp-period",
    "1h",
    "--max-send-byte",
    "1000000",
    "--max-send-pkt",
    "1000",
    "--max-recv-byte",
    "2000000",
    "--max-recv-pkt",
    "2000",
    "--max-burst-rate-byte",
    "1000/1s,5000/10s",
    "--max-burst-rate-pkt",
    "10/1000000000",
    "--valid-dest",
    "10.0.0.0/8,192.0.2.1,2001:db8::/32",
    "--src-ip-spoofing",
    "0",
];

#[test]
fn the_golden_certificate_with_every_limit_can_be_asked_for_and_signed() {
    let scratch = Scratch::new();
    scratch.golden_key("eop");
    scratch.golden_key("exper");
    let monitors = [
        "--monitor",
        "bbd899e17631fd99c59d188e37c50888ce5333b5d2a279efc98b5dc017c119c7",
        "--monitor",
        "d026e605f222124d3b57c11225b88597b74b7613384dccd92f1fd633b62e02cd",
    ];
    let content = [
        &["--path-len", "1", "--description", "demo cert", "--info", "note=hello"][..],
        &LIMITS,
        &monitors,
        &["--limit", "foo=bar", "--limit", "*opt=x"],
    ]
    .concat();
    let expected =
        Certificate::from_pem(&fs::read(golden("exppriv_eop_exper_full.cert")).unwrap()).unwrap();
    let until = ["--not-before", "1970-01-01", "--not-after", "2038-01-19T03:14:07Z"];

    let direct = [
        &["sign", "exppriv", "--signer", "eop", "--subject", "exper.pub", "-o", "a.cert"][..],
        &until,
        &content,
    ];
    scratch.done(&direct.concat());
    let csr = [&["csr", "exppriv", "--key", "exper", "-o", "a.csr"][..], &content];
    scratch.done(&csr.concat());
    let signed =
        [&["sign", "exppriv", "--signer", "eop", "--csr", "a.csr", "-o", "b.cert"][..], &until];
    scratch.done(&signed.concat());
    for name in ["a.cert", "b.cert"] {
        let made = Certificate::from_pem(scratch.read(name).as_bytes()).unwrap();
        assert_eq!(made.limits(), expected.limits(), "{name}");
        assert_eq!(made.auxiliary(), expected.auxiliary(), "{name}");
        assert_eq!(
            (made.path_len, made.description(), made.not_before, made.not_after),
            (Some(1), expected.description(), expected.not_before, expected.not_after),
            "{name}"
        );
        // Behind the serial and before the signature the DER is the same.
        let text = |der: &[u8]| {
            let at = der.windows(10).position(|w| w == b"cert_type=").unwrap();
            der[at..der.len() - 64].to_vec()
        };
        assert_eq!(text(made.der()), text(expected.der()), "{name}");
    }
}

#[test]
fn every_type_is_signed_for_a_key_and_from_a_request() {
    let scratch = Scratch::with_home();
    for (kind, more) in [
        ("subcmd", &[][..]),
        ("pubcmd", &[]),
        ("exppriv", &[]),
        ("delpriv", &["--delegate", "exppriv,reppriv"]),
        ("agent", &[]),
    ] {
        let (csr, from_csr) = (format!("{kind}.csr"), format!("{kind}.cert"));
        let made = scratch.done(&[&["csr", kind, "--key", "k_exper"], more].concat());
        scratch.write(&csr, made);
        scratch.done(&["sign", kind, "--signer", "k_eop", "--csr", &csr, "-o", &from_csr]);
        let direct = ["sign", kind, "--signer", "k_eop", "--subject", "k_exper.pub"];
        let made = scratch.done(&[&direct[..], more].concat());
        let direct = Certificate::from_pem(made.as_bytes()).unwrap();
        let from_csr = Certificate::from_pem(scratch.read(&from_csr).as_bytes()).unwrap();
        assert_eq!(direct.certificate_type.name(), kind);
        assert_eq!(
            (direct.subject_key, direct.authority_key_id, direct.delegation),
            (from_csr.subject_key, from_csr.authority_key_id, from_csr.delegation)
        );
        assert_eq!(direct.delegation.reppriv, kind == "delpriv");
        let lifetime = direct.not_after.saturating_duration_since(direct.not_before);
        assert_eq!(lifetime.as_secs(), 365 * 86_400);
    }
}

#[test]
fn the_signer_may_change_what_a_request_asks_for_and_sees_what_is_signed() {
    let scratch = Scratch::with_home();
    let asked = ["--max-send-pkt", "1000000", "--max-recv-pkt", "7", "--path-len", "9"];
    let csr = ["csr", "exppriv", "--key", "k_exper", "-o", "a.csr"];
    scratch.done(&[&csr[..], &asked].concat());
    let ended = scratch.run(&[
        "sign",
        "exppriv",
        "--signer",
        "k_eop",
        "--csr",
        "a.csr",
        "-o",
        "a.cert",
        "--max-send-pkt",
        "10",
        "--valid-for",
        "2h",
        "--path-len",
        "0",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_says(&ended.stderr, &["type: exppriv", "max send pkt: 10", "max recv pkt: 7"]);
    let made = Certificate::from_pem(scratch.read("a.cert").as_bytes()).unwrap();
    let limits = made.limits();
    assert_eq!((limits.max_send_pkt, limits.max_recv_pkt), (Some(10), Some(7)));
    assert_eq!(made.path_len, Some(0));
    let lifetime = made.not_after.saturating_duration_since(made.not_before);
    assert_eq!(lifetime.as_secs(), 7200);
}

/// Quirk Q2: original programs crash on a known limit that is optional.
#[test]
fn a_known_limit_is_never_written_as_optional() {
    let scratch = Scratch::with_home();
    scratch.golden_key("eop");
    let csr = golden("delpriv.csr");
    let ended = scratch.run(&["sign", "delpriv", "--signer", "eop", "--csr", &csr]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_says(&ended.stderr, &["warning: the request wants max_send_pkt to be optional"]);
    let made = Certificate::from_pem(ended.stdout.as_bytes()).unwrap();
    let limits = made.limits();
    assert_eq!(limits.max_send_pkt, Some(7));
    assert!(limits.optional_known_limits.is_empty());
    for words in [
        &["csr", "exppriv", "--key", "k_exper", "--limit", "*max_send_pkt=7"][..],
        &["sign", "exppriv", "--signer", "k_eop", "--subject", "k_ep.pub", "--limit", "*monitor="],
    ] {
        assert_says(&scratch.refused(words, 2), &["original programs crash"]);
    }
    for name in ["exppriv_opt.cert", "delpriv.csr"] {
        let said = scratch.done(&["show", &golden(name)]);
        assert_says(&said, &["warnings:", "max_send_pkt is optional", "crash"]);
    }
    let (leaf, optional) = (golden("pubcmd_exper_xc.cert"), golden("exppriv_opt.cert"));
    let words = ["verify", "--as", "controller", "--root", "eop.pub", &leaf, &optional];
    let ended = scratch.run(&words);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_says(&ended.stderr, &["warning: ", "max_send_pkt is optional"]);
}

#[test]
fn values_that_peers_would_misread_are_refused() {
    let scratch = Scratch::with_home();
    for (option, value) in [
        ("--max-send-byte", "-1"),
        ("--max-send-byte", "1e6"),
        ("--max-num-priority", "18446744073709551616"),
        ("--max-exp-period", "1 h"),
        ("--max-burst-rate-byte", "5/0"),
        ("--max-burst-rate-pkt", "5"),
        ("--valid-dest", "10.0.0.1/8"),
        ("--valid-dest", "example.org"),
        ("--src-ip-spoofing", "yes"),
        ("--limit", "max_send_pkt=1"),
        ("--info", "cert_type=agent"),
        ("--delegate", "everything"),
        ("--path-len", "-1"),
    ] {
        let option = format!("{option}={value}");
        let words = ["csr", "delpriv", "--key", "k_exper", &option];
        let said = scratch.refused(&words, 2);
        assert_says(&said, &["error: invalid value"]);
    }
    for words in [
        ["agent", "--max-send-pkt", "1"],
        ["pubcmd", "--path-len", "1"],
        ["subcmd", "--valid-dest", "::1"],
        ["exppriv", "--delegate", "reppriv"],
    ] {
        let said = scratch.refused(&[&["csr"], &words[..], &["--key", "k_exper"]].concat(), 2);
        assert_says(&said, &["unexpected argument", words[1], "Usage: pktcred csr"]);
    }
    for (words, expected) in [
        (["exppriv", "--description", "a=b"], "cert_info"),
        (["exppriv", "--description", "a;b=c"], "something else"),
        (["exppriv", "--monitor", "nowhere"], "no such file"),
    ] {
        let said = scratch.refused(&[&["csr"], &words[..], &["--key", "k_exper"]].concat(), 3);
        assert_says(&said, &[expected]);
    }
    let whom = ["--signer", "k_exper", "--subject", "k_exper.pub"];
    for (words, expected) in [
        (&["csr", "delpriv", "--key", "k_exper"][..], "a delpriv needs --delegate"),
        (&[&["sign", "delpriv"][..], &whom].concat(), "a delpriv needs --delegate"),
        (&["sign", "agent", "--signer", "k_exper"], "say for whom: --csr or --subject"),
    ] {
        assert_says(&scratch.refused(words, 2), &[expected]);
    }
}

/// What every monitor has: its memory and an allocator.
const LEAST: &str = r#"(import "monitor" "memory" (memory 1))
    (func (export "malloc") (param i32) (result i32) i32.const 1024) (func (export "free") (param i32))"#;

#[test]
fn a_monitor_that_no_endpoint_can_run_is_not_signed_and_its_flaw_is_named() {
    let scratch = Scratch::with_home();
    let wasm = |contents: &str| wat::parse_str(format!("(module {contents})")).unwrap();
    scratch.write("old.ebpf", "0xb7 0 0 0 0\n0x95 0 0 0 0\n");
    scratch.write("text.wasm", "(module)");
    scratch.write("own.wasm", wasm("(memory 1)"));
    scratch.write("clock.wasm", wasm(&format!(r#"(import "env" "clock" (func)) {LEAST}"#)));
    scratch.write("large.wasm", vec![0; (1 << 20) + 1]);
    for (file, flaw) in [
        ("old.ebpf", "it is in eBPF, which no endpoint runs"),
        ("text.wasm", "it cannot be compiled: "),
        ("own.wasm", "it does not import its memory as monitor.memory"),
        ("clock.wasm", "it imports env.clock, which endpoints do not have"),
        ("large.wasm", "it has 1048577 bytes, more than 1048576"),
    ] {
        for command in [&["csr", "exppriv", "--key", "k_exper"][..], &SIGN] {
            let said = scratch.refused(&[command, &["--monitor", file]].concat(), 3);
            assert_says(&said, &[&format!("pktcred: {file}: cannot be a monitor: {flaw}")]);
        }
    }
    // Who knows better says so by the digest, which the error names.
    let said = scratch.refused(&[&SIGN[..], &["--monitor", "old.ebpf"]].concat(), 3);
    let anyway = said.split("; --monitor ").nth(1).unwrap().split(' ').next().unwrap();
    scratch.done(&[&SIGN[..], &["--monitor", anyway]].concat());
}

const SIGN: [&str; 6] = ["sign", "exppriv", "--signer", "k_eop", "--subject", "k_exper.pub"];

#[test]
fn a_monitor_that_lets_no_message_of_a_kind_pass_is_signed_with_a_warning() {
    let scratch = Scratch::with_home();
    let rest = |kinds: &[(&str, &str)]| {
        let function = |(kind, parameters): &(&str, &str)| {
            format!(
                r#"(func (export "check_pktlab_message_{kind}") (param {parameters}) (result i32) i32.const 0)"#
            )
        };
        kinds.iter().map(function).collect::<String>()
    };
    let (open, data) = ("i32 ".repeat(14), format!("i32 i32 i32 i64 {}", "i32 ".repeat(7)));
    let kinds = [("nopen", &*open), ("nclose", "i32 i32 i32"), ("nsend", "i32"), ("ndata", &data)];
    let text = format!("(module {LEAST} {})", rest(&kinds));
    scratch.write("partial.wasm", wat::parse_str(text).unwrap());
    let ended = scratch.run(&[&SIGN[..], &["--monitor", "partial.wasm"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let warnings: Vec<_> =
        ended.stderr.lines().filter(|line| line.starts_with("warning")).collect();
    let expected = ["nsend", "ncap"].map(|kind| {
        format!(
            "warning: partial.wasm: it has no function check_pktlab_message_{kind} of the right type, and so lets \
             no {} pass",
            kind.to_uppercase()
        )
    });
    assert_eq!(warnings, expected);
}

#[test]
fn a_result_is_never_written_over_a_file() {
    let scratch = Scratch::with_home();
    scratch.write("a", "mine");
    for words in [
        &["csr", "agent", "--key", "k_xc", "-o", "a"][..],
        &["sign", "agent", "--signer", "k_xc", "--subject", "k_xc.pub", "-o", "a"],
    ] {
        assert_says(&scratch.refused(words, 3), &["a: exists already and is not overwritten"]);
    }
    assert_eq!(scratch.read("a"), "mine");
}

#[test]
fn a_request_must_be_of_the_type_and_signed_by_its_key() {
    let scratch = Scratch::with_home();
    let csr = golden("exppriv.csr");
    let said = scratch.refused(&["sign", "agent", "--signer", "k_eop", "--csr", &csr], 3);
    assert_says(&said, &["asks for a certificate of type exppriv, not agent"]);
    let mut request = SigningRequest::from_pem(&fs::read(&csr).unwrap()).unwrap().der().to_vec();
    *request.last_mut().unwrap() ^= 1;
    let begin = "-----BEGIN CERTIFICATE REQUEST-----\n";
    scratch.write("forged.csr", format!("{begin}{}", base64(&request)));
    let words = ["sign", "exppriv", "--signer", "k_eop", "--csr", "forged.csr"];
    assert_says(&scratch.refused(&words, 3), &["not signed by the key it asks for"]);
    scratch.refused(&["sign", "agent", "--signer", "k_eop"], 2);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            text.push(match digit <= chunk.len() {
                true => char::from(DIGITS[index as usize]),
                false => '=',
            });
        }
    }
    format!("{text}\n-----END CERTIFICATE REQUEST-----\n")
}
