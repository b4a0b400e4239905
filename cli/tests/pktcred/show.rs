//! `pktcred show` and `digest`.

use std::fs;

use super::{Scratch, golden};
use crate::common::assert_says;

/// One golden certificate as spec/protocol.md 8.3 lists it: name, type, serial, signer, subject, the
/// rest of its text.
struct Row(&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const BOTH_YEARS: &str = "not before: 1970-01-01T00:00:00Z\nnot after: 2038-01-19T03:14:07Z\n";
const ANY_LENGTH: &str = "path len: any number of delegations below\n";

const ROWS: [Row; 12] = [
    Row("agent_xc", "agent", "4fba42cfcb11b518f3a26478b52c0244", "xc", "xc", "self signed: yes\n"),
    Row(
        "agent_ep",
        "agent",
        "00ba46f9ae07af0b554c779b1639b2d41a",
        "ep",
        "ep",
        "self signed: yes\n",
    ),
    Row(
        "agent_bop_rv",
        "agent",
        "13fb78126112a1dbd21c529d9e9c7107",
        "bop",
        "rv",
        "description: broker (test)\n",
    ),
    Row(
        "agent_prx",
        "agent",
        "544957bf41dce43caaf0d7409ce0ee2a",
        "prx",
        "prx",
        "self signed: yes\n",
    ),
    Row("pubcmd_exper_xc", "pubcmd", "00b19475f18ae6da308496dac9f293af47", "exper", "xc", ""),
    Row("subcmd_eop_ep", "subcmd", "00a696592c72fdb6207ce4a1f0a1eaa142", "eop", "ep", ""),
    Row(
        "exppriv_eop_exper",
        "exppriv",
        "6445a543c674f105b519d5df73b4b3c6",
        "eop",
        "exper",
        "path len: 1\n",
    ),
    Row(
        "delpriv_exper_del",
        "delpriv",
        "70bb9aa277b4f041e8d58282cb7f9a25",
        "exper",
        "del",
        ANY_LENGTH,
    ),
    Row("pubcmd_del_xc", "pubcmd", "00e34d7c3e6b77154f6ac927e7d51acd89", "del", "xc", ""),
    Row(
        "delpriv_eop_del_rep",
        "delpriv",
        "008517bbe922aef91e9da085635d77e272",
        "eop",
        "del",
        "path len: 0\n",
    ),
    Row("subcmd_del_ep", "subcmd", "00ba3b6984d635b64cb2f456a149f8cc59", "del", "ep", ""),
    Row(
        "delpriv_both",
        "delpriv",
        "008cf39d29ecb9fa392c964f4e75cc720d",
        "eop",
        "del",
        "path len: any number of delegations below\ndescription: both\n",
    ),
];

/// Raw key and key id of spec/protocol.md 8.1.
fn key(name: &str) -> (&'static str, &'static str) {
    match name {
        "exper" => (
            "5ffc52ecf45e0c9fb3909bb0da9e7273dd0f7abe054d7e4c6d0ec54d07aefa1a",
            "1dac9851ae3b8bf1fedf66a3ec938ccfacf032acba1dc39e8e8b2e28e3a30e57",
        ),
        "xc" => (
            "5897e895f8c90ca35bb0f86e095547f60690909567ff6036430c4163052d11ef",
            "ae9cfa66e4ea9f8206b2eda01cd73df76a16e456efef0677b057663420212895",
        ),
        "eop" => (
            "b51acc8771de0b00a81bd9cd7d5f86d8ce082951805acbf4d0106482245cc357",
            "2c02ac294bf0f238a33ecd6e77b091b9165cd1ae1f5312abdede8f7063a8f950",
        ),
        "ep" => (
            "1cce4d200595f6aed6a7deac7741d31ab4117d6b9ab6adb2049286afe4e70927",
            "8a75e5dd71ea9b76d3d1aadaa37d1ecd889c1ff7a60b62118caaafd4b516c8ef",
        ),
        "bop" => (
            "a01e54a5e12d89055da2f06fcbbae8b9ea73d2ca04b18d55547616a302a6f74b",
            "d7055428d178a93b9ab9106442413045e857b0f628e74b0425c8a880bc7b6be7",
        ),
        "rv" => (
            "3f458bc4cba7d4668428b7f0cae7fd60cbe30cbf7a66ee28036980f0e36e3746",
            "89ce4eae474b66c385abfdcdeb2ab45f18b461792d465ac46eb31ecdf5faf817",
        ),
        "prx" => (
            "0c22b141cdb09dda2a54484bccffcddc19da4600b1615a5a437527fd21b30e15",
            "b44744991d04126f767b32bea31bb402ded4457d2c3f0ca9cfffd33d06864080",
        ),
        "del" => (
            "c3e5b80cd6f193b0253a0eea42f6228881613a01853e4e66445550e652447ad7",
            "c60b4db156b00c1d89ea518828eb4ae6b6e067a6e0d90911dbd6d12a1ac50dcb",
        ),
        other => panic!("{other}"),
    }
}

#[test]
fn golden_certificates_show_the_fields_of_the_specification() {
    let scratch = Scratch::new();
    for Row(name, kind, serial, signer, subject, rest) in ROWS {
        let said = scratch.done(&["show", &golden(&format!("{name}.cert"))]);
        let ((raw, subject), (_, signer)) = (key(subject), key(signer));
        let delegates = match name {
            "delpriv_exper_del" => "delegates:\n  exppriv\n",
            "delpriv_eop_del_rep" => "delegates:\n  reppriv\n",
            "delpriv_both" => "delegates:\n  exppriv\n  reppriv\n",
            _ => "",
        };
        let shown: String = said
            .lines()
            .filter(|line| !line.starts_with("file: ") && !line.starts_with("meaning: "))
            .map(|line| format!("{line}\n"))
            .collect();
        let expected = format!(
            "kind: certificate\ntype: {kind}\n{delegates}subject key: {raw}\n\
             subject key id: {subject}\nsigner key id: {signer}\nserial: {serial}\n\
             {BOTH_YEARS}valid now: yes\n{rest}"
        );
        assert_eq!(shown, expected, "{name}");
    }
}

#[test]
fn every_limit_of_the_golden_certificate_is_shown() {
    let scratch = Scratch::new();
    let name = golden("exppriv_eop_exper_full.cert");
    let said = scratch.done(&["show", &name]);
    let digests = [
        "3a3dff7a950ab7caf70cfcf8d67f45e2e3e4cd72e3e6e484496394b419755ccd",
        "bbd899e17631fd99c59d188e37c50888ce5333b5d2a279efc98b5dc017c119c7",
        "d026e605f222124d3b57c11225b88597b74b7613384dccd92f1fd633b62e02cd",
    ];
    let [one, two, three] = digests;
    let rest = format!(
        "serial: 00cecf29527fd7d2784452459be08d0782\n{BOTH_YEARS}valid now: yes\npath len: 1\n\
         description: demo cert\ninformation:\n  note: hello\nlimits:\n  monitor:\n    {one}\n    \
         {two}\n    {three}\n  max num priority: 100\n  max socket count: 8\n  max exp period: \
         3600000000000 ns (3600 s)\n  max send byte: 1000000\n  max send pkt: 1000\n  max recv byte: 2000000\n  \
         max recv pkt: 2000\n  max burst rate byte:\n    1000/1000000000\n    5000/10000000000\n  \
         max burst rate pkt:\n    10/1000000000\n  valid dest:\n    10.0.0.0/8\n    192.0.2.1\n    \
         2001:db8::/32\n  src ip spoofing: no\n  own:\n    foo: bar\n    *opt: x\n"
    );
    assert_says(&said, &[&rest]);
    let json = scratch.done(&["show", "--json", &name]);
    assert_says(
        &json,
        &[
            "\"path_len\":1,\"description\":\"demo cert\",\"information\":{\"note\":\"hello\"}",
            "\"max_num_priority\":100,\"max_socket_count\":8,",
            "\"max_burst_rate_byte\":[\"1000/1000000000\",\"5000/10000000000\"]",
            "\"src_ip_spoofing\":false,\"own\":{\"foo\":\"bar\",\"*opt\":\"x\"}}}]\n",
        ],
    );
}

#[test]
fn keys_requests_and_programs_are_shown_too() {
    let scratch = Scratch::new();
    scratch.golden_key("xc");
    scratch.golden_key("enc");
    scratch.write("pass", "hunter2\n");
    scratch.write("monitor.ebpf", "0xb7 0 0 0 1\n0x95 0 0 0 0\n");
    let (raw, id) = key("xc");
    for name in ["xc", "xc.pub"] {
        assert_says(&scratch.done(&["show", name]), &[&format!("key: {raw}\nkey id: {id}\n")]);
    }
    assert!(!scratch.done(&["show", "xc"]).contains("dcb60f6e8d8199"), "no secret");
    let said = scratch.done(&["show", "enc"]);
    assert_says(
        &said,
        &[
            "encrypted: PBES2: PBKDF2 with SHA-256 and 2048 iterations, AES-256-CBC",
            "key id: unknown without --passphrase-file",
        ],
    );
    let said = scratch.done(&["show", "--passphrase-file", "pass", "enc"]);
    let public = scratch.done(&["show", "enc.pub"]);
    assert_eq!(said.lines().last(), public.lines().last());
    let digest = "d026e605f222124d3b57c11225b88597b74b7613384dccd92f1fd633b62e02cd";
    assert_says(
        &scratch.done(&["show", "monitor.ebpf"]),
        &[&format!("language: eBPF\nencoded len bytes: 17\ndigest: {digest}\n")],
    );
    assert_eq!(scratch.done(&["digest", "monitor.ebpf"]), format!("{digest}  monitor.ebpf\n"));
    let said = scratch.done(&["show", &golden("delpriv.csr")]);
    let (raw, id) = key("del");
    assert_says(
        &said,
        &[
            "kind: signing request\ntype: delpriv\n",
            &format!("subject key: {raw}\nsubject key id: {id}\npath len: 2\n"),
            "limits:\n  max send pkt: 7\n",
        ],
    );
}

#[test]
fn whether_a_module_can_be_a_monitor_is_shown() {
    let scratch = Scratch::new();
    let least = r#"(module (import "monitor" "memory" (memory 1))
        (func (export "malloc") (param i32) (result i32) i32.const 1024) (func (export "free") (param i32))
        (func (export "check_pktlab_message_nclose") (param i32 i32 i32) (result i32) i32.const 0))"#;
    scratch.write("least.wasm", wat::parse_str(least).unwrap());
    scratch.write("none.wasm", wat::parse_str("(module (memory 1))").unwrap());
    let said = scratch.done(&["show", "least.wasm", "none.wasm"]);
    assert_says(
        &said,
        &[
            "language: WebAssembly\n",
            "\ncan be monitor: yes\nwarnings:\n  it has no function check_pktlab_message_nopen of the right type, and so \
             lets no NOPEN pass\n",
            "\ncan be monitor: no: it does not import its memory as monitor.memory",
        ],
    );
    assert!(!said.contains("lets no NCLOSE pass"), "{said}");
}

#[test]
fn a_bad_file_does_not_hide_the_others_and_names_its_flaw() {
    let scratch = Scratch::new();
    scratch.golden_key("xc");
    scratch.write("bad.cert", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    scratch.write("bad.ebpf", "1 2 3\n");
    scratch.write("notes.txt", "hello");
    scratch.write("empty", "");
    let words = ["show", "bad.cert", "bad.ebpf", "notes.txt", "empty", "nowhere", "xc.pub"];
    let said = scratch.refused(&words, 1);
    assert_says(
        &said,
        &[
            "file: bad.cert\nerror: this is no PacketLab certificate: not an X.509 certificate",
            "file: bad.ebpf\nerror: line 1: offset is missing",
            "file: notes.txt\nerror: holds no key, certificate or signing request in PEM; as a program: not",
            "file: empty\nerror: the file is empty\n",
            "file: nowhere\nerror: No such file",
            "kind: public key",
        ],
    );
    let json = scratch.refused(&["show", "--json", "bad.cert", "xc.pub"], 1);
    assert!(json.starts_with("[{\"file\":\"bad.cert\",\"error\":\"this is no PacketLab"), "{json}");
}

#[test]
fn every_section_of_a_file_is_shown() {
    let scratch = Scratch::new();
    let marked = "\u{feff}".to_owned() + &fs::read_to_string(golden("agent_xc.cert")).unwrap();
    let key = fs::read_to_string(golden("keys/xc.pub")).unwrap();
    let ec = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    scratch.write("one", &marked);
    assert!(!scratch.done(&["show", "one"]).contains("section"));
    scratch.write("bundle", marked + "a note\n" + &key);
    let said = scratch.done(&["show", "bundle"]);
    assert_says(
        &said,
        &[
            "file: bundle\nsection: 1\nkind: certificate\ntype: agent\n",
            "file: bundle\nsection: 2\nkind: public key\n",
        ],
    );
    let json = scratch.done(&["show", "--json", "bundle"]);
    assert_says(&json, &["{\"file\":\"bundle\",\"section\":1,", "\"section\":2,"]);
    scratch.write("odd", key + ec);
    let said = scratch.refused(&["show", "odd"], 1);
    assert_says(&said, &["section: 2\nerror: a PEM section `EC PARAMETERS`, for which"]);
}

#[test]
fn a_file_in_another_form_is_named_with_the_command_that_converts_it() {
    let scratch = Scratch::new();
    let der = |name: &str| pem_contents(&fs::read_to_string(golden(name)).unwrap());
    let utf_16 = |text: &str| {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect::<Vec<_>>()
    };
    let section = |label: &str| {
        format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n").into_bytes()
    };
    let forms = [
        (der("agent_xc.cert"), "a certificate in DER, not PEM; `openssl x509 -inform DER -in FILE"),
        (
            der("exppriv.csr"),
            "a signing request in DER, not PEM; `openssl req -inform DER -in FILE",
        ),
        (der("keys/xc"), "a private key in DER, not PEM; `openssl pkey -inform DER -in FILE"),
        (der("keys/xc.pub"), "a public key in DER, not PEM; `openssl pkey -pubin -inform DER"),
        (der("keys/enc"), "an encrypted private key in DER, not PEM; `openssl pkcs8 -topk8"),
        (
            vec![0x30, 0x80, 2, 1, 3, 0x30, 0x80],
            "a PKCS#12 file; `openssl pkcs12 -in FILE -nocerts",
        ),
        (section("OPENSSH PRIVATE KEY"), "a private key of OpenSSH; openssl cannot read it"),
        (section("RSA PRIVATE KEY"), "a traditional RSA key (RSA PRIVATE KEY); `openssl pkcs8"),
        (section("EC PRIVATE KEY"), "(EC PRIVATE KEY); `openssl pkcs8 -topk8 -in FILE"),
        (section("TRUSTED CERTIFICATE"), "(TRUSTED CERTIFICATE); `openssl x509 -in FILE -out NEW`"),
        (utf_16("-----BEGIN PUBLIC KEY-----\n"), "text in UTF-16; `iconv -f UTF-16 -t UTF-8 FILE"),
    ];
    for (contents, expected) in forms {
        scratch.write("file", contents);
        let said = scratch.refused(&["show", "file"], 1);
        assert_says(&said, &["error: it is ", expected]);
        // Whoever reads keys and certificates says the same.
        for words in [
            &["sign", "agent", "--signer", "file", "--subject", "file"][..],
            &["sign", "agent", "--signer", "file", "--csr", "file"],
            &["csr", "exppriv", "--key", "file"],
        ] {
            assert_says(&scratch.refused(words, 3), &["holds no readable PEM section", expected]);
        }
        let said = scratch.refused(&["verify", "--as", "agent", "file"], 1);
        assert_says(&said, &["holds no readable PEM section `CERTIFICATE`: it is ", expected]);
    }
}

/// What a PEM file holds.
fn pem_contents(pem: &str) -> Vec<u8> {
    let mut bits = 0_u32;
    let mut contents = Vec::new();
    let digits = pem.lines().filter(|line| !line.starts_with('-')).flat_map(str::bytes);
    for (index, digit) in digits.take_while(|digit| *digit != b'=').enumerate() {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let value = DIGITS.iter().position(|known| *known == digit).unwrap();
        bits = bits << 6 | value as u32;
        if index % 4 > 0 {
            contents.push((bits >> (6 - 2 * (index % 4))) as u8);
        }
    }
    contents
}

#[test]
fn a_fifo_is_not_waited_for() {
    let scratch = Scratch::new();
    nix::unistd::mkfifo(&scratch.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let refused = "it is not a regular file but a FIFO";
    assert_says(&scratch.refused(&["show", "fifo"], 1), &[refused]);
    assert_says(&scratch.refused(&["verify", "--as", "agent", "fifo"], 3), &[refused]);
    assert_says(&scratch.refused(&["csr", "exppriv", "--key", "fifo"], 3), &[refused]);
}

#[test]
fn the_cipher_of_a_key_that_cannot_be_opened_is_named() {
    let scratch = Scratch::new();
    scratch.write("pass", "hunter2\n");
    for (name, shown, refused) in [
        ("pbes1", "not supported: PBES1; `openssl pkcs8 -topk8", "unsupported way (PBES1)"),
        ("gcm", "not supported: AES-256-GCM", "unsupported way (AES-256-GCM)"),
        ("zero_iterations", "and 0 iterations, AES-256-CBC", "no sense (PBKDF2 with 0 iterations)"),
    ] {
        let file = format!("{}/../encrypted_keys/{name}.pem", golden(""));
        scratch.write(name, fs::read(file).unwrap());
        assert_says(&scratch.done(&["show", name]), &[shown]);
        let words = ["csr", "exppriv", "--passphrase-file", "pass", "--key", name];
        assert_says(&scratch.refused(&words, 3), &[refused]);
    }
}

#[test]
fn text_from_outside_cannot_steer_the_terminal() {
    let scratch = Scratch::new();
    let name = "a\x1b[2J\"b";
    scratch.write(name, fs::read(golden("agent_xc.cert")).unwrap());
    let said = scratch.done(&["show", name]);
    assert_says(&said, &["file: a\\u{1b}[2J\"b\n"]);
    assert!(!said.contains('\x1b'));
}
