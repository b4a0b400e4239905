//! Credentials exchanged both ways with `ppksman`, the Python tool of the original (pktlab 1.0.4).
//!
//! Needs a Python with the module, which does not run with cryptography 44 or later:
//!
//! ```text
//! python3 -m venv VENV && VENV/bin/pip install pktlab==1.0.4 'cryptography<44'
//! PKTLAB_PYTHON=VENV/bin/python cargo test -p cli --test ppksman -- --include-ignored
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::request::SigningRequest;

const PKTCRED: &str = env!("CARGO_BIN_EXE_pktcred");

/// `ppksman` itself.
const PPKSMAN: &str = "from pktlab._scripts.ppksman_cmd import main; main()";

/// Makes keys with the module: arguments are the folder, then name and passphrase of each.
const MAKE_KEYS: &str = "\
import sys
from pktlab.ppks.PPKSManager import PPKSManager
from pktlab.ppks.LocalFSPPKSKeyManager import LocalFSPPKSKeyManager
from pktlab.ppks.LocalFSPPKSStateManager import LocalFSPPKSStateManager
manager = PPKSManager(LocalFSPPKSKeyManager(dirpath=sys.argv[1]),
                      LocalFSPPKSStateManager(dirpath=sys.argv[2]))
for name, passphrase in zip(sys.argv[3::2], sys.argv[4::2]):
    manager.gen_key(name, passphrase.encode())
";

/// Loads every key of a folder with the module; prints name and raw public key of each private key
/// that the passphrase opens.
const LOAD_KEYS: &str = "\
import sys
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pktlab.ppks.PPKSManager import PPKSManager
from pktlab.ppks.LocalFSPPKSKeyManager import LocalFSPPKSKeyManager
from pktlab.ppks.LocalFSPPKSStateManager import LocalFSPPKSStateManager
manager = PPKSManager(LocalFSPPKSKeyManager(dirpath=sys.argv[1]),
                      LocalFSPPKSStateManager(dirpath=sys.argv[2]))
def raw(key): return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
for index, name in enumerate(manager.get_privkey_list()):
    print('private', name, raw(manager.get_privkey(index, sys.argv[3].encode() or None).public_key()))
for index, name in enumerate(manager.get_pubkey_list()):
    print('public', name, raw(manager.get_pubkey(index)))
";

/// A folder that disappears with the value, in which everything runs, and which is HOME.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ppksman-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        let scratch = Self(fs::canonicalize(path).unwrap());
        for folder in [".pktlab", "keys", "state"] {
            fs::DirBuilder::new().mode(0o700).create(scratch.0.join(folder)).unwrap();
        }
        // Choices of its first run: the only key and state managers there are, at the usual places.
        scratch.python(PPKSMAN, &["init"], "0\n\n0\n\n");
        scratch
    }

    /// Runs Python code that must succeed; what it printed.
    #[track_caller]
    fn python(&self, code: &str, words: &[&str], typed: &str) -> String {
        let interpreter = std::env::var_os("PKTLAB_PYTHON").unwrap_or_else(|| "python3".into());
        let mut command = Command::new(interpreter);
        command.arg("-c").arg(code).args(words).current_dir(&self.0).env("HOME", &self.0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("python3 with pktlab 1.0.4");
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let failure = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}:\n{said}\n{failure}");
        said
    }

    #[track_caller]
    fn ppksman(&self, words: &[&str]) -> String {
        self.python(PPKSMAN, words, "")
    }

    /// Runs `pktcred`, which must succeed; what it printed.
    #[track_caller]
    fn pktcred(&self, words: &[&str]) -> String {
        let mut command = Command::new(PKTCRED);
        command.args(["--home", "home"]).args(words).current_dir(&self.0).env_clear();
        let output = command.stdin(Stdio::null()).output().unwrap();
        let failure = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {failure}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn write(&self, name: &str, contents: &str) {
        fs::write(self.0.join(name), contents).unwrap();
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn certificate(&self, name: &str) -> Certificate {
        Certificate::from_pem(&self.read(name)).unwrap()
    }

    fn public_key(&self, name: &str) -> PublicKey {
        PublicKey::from_pem(&self.read(name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

/// The text of cert_info or cert_limit, which holds neither blank nor bracket around it.
fn texts(der: &[u8]) -> Vec<u8> {
    let at = der.windows(10).position(|window| window == b"cert_type=").unwrap();
    der[at..der.len() - 64].to_vec()
}

/// Limits as `ppksman` and as `pktcred` are told them, and their text in a certificate.
const DIGEST: &str = "d026e605f222124d3b57c11225b88597b74b7613384dccd92f1fd633b62e02cd";
const THEIR_LIMITS: [&str; 28] = [
    "--cert_description",
    "demo (1)",
    "--aux_info_str",
    "note=hello;",
    "--monitor_digest",
    DIGEST,
    "--max_num_priority",
    "100",
    "--max_socket_count",
    "8",
    "--max_exp_period",
    "3600000000000",
    "--max_send_byte",
    "1000000",
    "--max_send_pkt",
    "1000",
    "--max_recv_byte",
    "2000000",
    "--max_recv_pkt",
    "2000",
    "--max_burst_rate_byte",
    "1000/1000000000",
    "--valid_dest",
    "10.0.0.0/8",
    "--src_ip_spoofing",
    "1",
    "--aux_limit_str",
    "foo=bar;*opt=x;",
];
const OUR_LIMITS: [&str; 30] = [
    "--description",
    "demo (1)",
    "--info",
    "note=hello",
    "--monitor",
    DIGEST,
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
    "1000/1s",
    "--valid-dest",
    "10.0.0.0/8",
    "--src-ip-spoofing",
    "1",
    "--limit",
    "foo=bar",
    "--limit",
    "*opt=x",
];
const INFO: &str = "cert_type=exppriv;cert_desc=demo (1);note=hello;";

fn limits() -> String {
    format!(
        "monitor={DIGEST};max_num_priority=100;max_socket_count=8;max_exp_period=3600000000000;\
         max_send_byte=1000000;max_send_pkt=1000;max_recv_byte=2000000;max_recv_pkt=2000;\
         max_burst_rate_byte=1000/1000000000;valid_dest=10.0.0.0/8;src_ip_spoofing=1;\
         foo=bar;*opt=x;"
    )
}

#[test]
#[ignore = "needs python3 with pktlab 1.0.4"]
fn the_module_loads_the_keys_of_a_home_with_and_without_passphrase() {
    let scratch = Scratch::new("keys");
    scratch.write("pass", "correct horse\n");
    for (home, passphrase) in [("open", ""), ("closed", "correct horse")] {
        let protection = match passphrase {
            "" => &["--no-passphrase"][..],
            _ => &["--passphrase-file", "pass"],
        };
        scratch.pktcred(&[&["init", "--home", home], protection].concat());
        let folder = format!("{home}/keys/");
        let loaded = scratch.python(LOAD_KEYS, &[&folder, "state/", passphrase], "");
        // Four pairs, and the public keys of the public deployment.
        assert_eq!(loaded.lines().count(), 10, "{loaded}");
        for name in ["k_exper", "k_xc", "k_eop", "k_ep"] {
            let key = scratch.public_key(&format!("{folder}{name}.pub"));
            let raw: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
            let lines = [format!("private {name} {raw}\n"), format!("public {name}.pub {raw}\n")];
            assert_says(&loaded, &[&lines[0], &lines[1]]);
        }
    }
}

#[test]
#[ignore = "needs python3 with pktlab 1.0.4"]
fn the_module_accepts_every_certificate_and_request_of_a_home() {
    let scratch = Scratch::new("home");
    scratch.pktcred(&["init", "--no-passphrase"]);
    for (name, kind, signer) in [
        ("agent_xc_xc", "agent", "k_xc"),
        ("agent_ep_ep", "agent", "k_ep"),
        ("exppriv_eop_exper", "exppriv", "k_eop"),
        ("pubcmd_exper_xc", "pubcmd", "k_exper"),
        ("subcmd_eop_ep", "subcmd", "k_eop"),
    ] {
        let (signer, path) = (format!("home/keys/{signer}.pub"), format!("home/certs/{name}.cert"));
        let said = scratch.ppksman(&["show", "cert", "-k", &signer, &path]);
        assert_says(
            &said,
            &[
                &format!("pktlab certificate type: {kind}\n"),
                &format!("'cert_type={kind};'"),
                "(Epoch time: 0)",
                "(Epoch time: 2147483647)",
                "Signature (valid)",
            ],
        );
    }
    for (name, info) in [
        ("exppriv_exper", "'cert_type=exppriv;'"),
        ("delpriv_exp_exper", "'cert_type=delpriv;del_type=exppriv;'"),
        ("delpriv_rep_eop", "'cert_type=delpriv;del_type=reppriv;'"),
    ] {
        let said = scratch.ppksman(&["show", "csr", &format!("home/csrs/{name}.csr")]);
        assert_says(&said, &[info, "Signature (valid)"]);
    }
    // Its own signing takes our keys and our request.
    let signed = ["gen", "cert", "-y", "-r", "home/csrs/exppriv_exper.csr", "exppriv"];
    let words = [&signed[..], &["home/keys/k_eop", "0", "2147483647", "theirs.cert"]].concat();
    scratch.ppksman(&words);
    let words = ["verify", "--as", "controller", "--root", "k_eop.pub", "pubcmd_exper_xc.cert"];
    let said = scratch.pktcred(&[&words[..], &["theirs.cert"]].concat());
    assert!(said.starts_with("OK: pubcmd_exper_xc.cert"), "{said}");
}

#[test]
#[ignore = "needs python3 with pktlab 1.0.4"]
fn the_module_reads_the_same_limits_that_pktcred_was_told() {
    let scratch = Scratch::new("limits");
    scratch.pktcred(&["init", "--no-passphrase"]);
    let csr = ["csr", "exppriv", "--key", "k_exper", "--path-len", "3", "-o", "ours.csr"];
    scratch.pktcred(&[&csr[..], &OUR_LIMITS].concat());
    let sign = ["sign", "exppriv", "--signer", "k_eop", "--csr", "ours.csr", "-o", "ours.cert"];
    scratch.pktcred(&[&sign[..], &["--not-before", "2026-01-01", "--valid-for", "1d"]].concat());
    let read = [
        scratch.ppksman(&["show", "csr", "ours.csr"]),
        scratch.ppksman(&["show", "cert", "-k", "home/keys/k_eop.pub", "ours.cert"]),
    ];
    for said in &read {
        assert_says(
            said,
            &[
                "(allowed further delegation count): 3\n",
                &format!("'{INFO}'"),
                &format!("'{}'", limits()),
                "Signature (valid)",
            ],
        );
    }
    assert_says(&read[1], &["(Epoch time: 1767225600)", "(Epoch time: 1767312000)"]);
}

#[test]
#[ignore = "needs python3 with pktlab 1.0.4"]
fn pktcred_reads_what_the_module_makes_with_the_same_fields() {
    let scratch = Scratch::new("theirs");
    scratch.write("pass", "hunter2\n");
    let keys = ["eop", "", "exper", "", "del", "", "xc", "", "ep", "", "enc", "hunter2"];
    scratch.python(MAKE_KEYS, &[&["keys/", "state/"], &keys[..]].concat(), "");
    let enc = PrivateKey::from_pem(&scratch.read("keys/enc"), Some(b"hunter2")).unwrap();
    let said = scratch.pktcred(&["show", "--passphrase-file", "pass", "keys/enc"]);
    let key_id = enc.public_key().key_id().to_string();
    assert_says(&said, &["encrypted: PBES2: PBKDF2 with SHA-256", &key_id]);
    assert_eq!(scratch.public_key("keys/enc.pub"), enc.public_key());

    let dates = ["1000000000", "2147483647"];
    let certify = |kind, signer, subject, file, more: &[&str]| {
        let (signer, subject) = (format!("keys/{signer}"), format!("keys/{subject}.pub"));
        let words = [&["gen", "cert", "-y", kind, &signer], &dates[..], &[file, "-k", &subject]];
        scratch.ppksman(&[&words.concat()[..], more].concat());
    };
    let full = [&THEIR_LIMITS[..], &["--pathlen", "3"]].concat();
    certify("exppriv", "eop", "exper", "exppriv.cert", &full);
    certify("delpriv", "exper", "del", "delpriv.cert", &["--del_exppriv", "--del_reppriv"]);
    certify("pubcmd", "del", "xc", "pubcmd.cert", &[]);
    certify("subcmd", "eop", "ep", "subcmd.cert", &[]);
    certify("agent", "xc", "xc", "agent.cert", &[]);
    let request = ["gen", "csr", "-y", "exppriv", "keys/exper", "exppriv.csr"];
    scratch.ppksman(&[&request[..], &full].concat());

    for (who, chain) in [
        ("controller", &["pubcmd.cert", "exppriv.cert", "delpriv.cert"][..]),
        ("endpoint", &["subcmd.cert"]),
    ] {
        let words = ["verify", "--as", who, "--root", "keys/eop.pub"];
        let said = scratch.pktcred(&[&words[..], chain].concat());
        assert_eq!(said.matches(".cert: ").count(), chain.len(), "{said}");
    }
    scratch.pktcred(&["verify", "--as", "agent", "--root", "keys/xc.pub", "agent.cert"]);
    same_fields(&scratch);
    shown_as_json(&scratch);
}

/// What `pktcred` makes of the same fields has the same bytes, serial and signature aside.
fn same_fields(scratch: &Scratch) {
    let words = ["sign", "exppriv", "--signer", "keys/eop", "--subject", "keys/exper.pub"];
    let dates = ["--not-before", "2001-09-09T01:46:40Z", "--not-after", "2038-01-19T03:14:07Z"];
    let path = ["--path-len", "3", "-o", "ours.cert"];
    scratch.pktcred(&[&words[..], &dates, &path, &OUR_LIMITS].concat());
    let (ours, theirs) = (scratch.certificate("ours.cert"), scratch.certificate("exppriv.cert"));
    assert_eq!(texts(ours.der()), texts(theirs.der()));
    assert_eq!((ours.not_before, ours.not_after), (theirs.not_before, theirs.not_after));
    assert_eq!(ours.path_len, theirs.path_len);
    let words = ["csr", "exppriv", "--key", "keys/exper", "--path-len", "3", "-o", "ours.csr"];
    scratch.pktcred(&[&words[..], &OUR_LIMITS].concat());
    let request = |name| SigningRequest::from_pem(&scratch.read(name)).unwrap();
    assert_eq!(
        request("ours.csr"),
        request("exppriv.csr"),
        "requests are the same to the last bit"
    );
}

/// The JSON is JSON, by Python's measure, and holds the fields that were asked for.
fn shown_as_json(scratch: &Scratch) {
    let files = ["exppriv.cert", "delpriv.cert", "exppriv.csr", "keys/enc", "keys/eop.pub"];
    let json = scratch.pktcred(&[&["show", "--json"], &files[..]].concat());
    let check = "\
import json, sys
certificate, delegation, request, enc, eop = json.load(sys.stdin)
assert certificate['not_before'] == '2001-09-09T01:46:40Z', certificate
assert certificate['path_len'] == request['path_len'] == 3
assert certificate['information'] == request['information'] == {'note': 'hello'}
limits = certificate['limits']
assert limits == request['limits']
assert limits['max_send_byte'] == 1000000 and limits['max_exp_period'] == 3600000000000
assert limits['monitor'] == [sys.argv[1]] and limits['valid_dest'] == ['10.0.0.0/8']
assert limits['src_ip_spoofing'] is True and limits['own'] == {'foo': 'bar', '*opt': 'x'}
assert delegation['delegates'] == ['exppriv', 'reppriv'] and delegation['path_len'] is None
assert delegation['signer_key_id'] == certificate['subject_key_id'] == request['subject_key_id']
assert certificate['signer_key_id'] == eop['key_id'] and enc['key_id'] is None
print('checked')
";
    assert_eq!(scratch.python(check, &[DIGEST], &json), "checked\n");
}
