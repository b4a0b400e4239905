//! The golden credentials of spec/protocol.md 8, for tests: throw-away keys and certificates made by the
//! Python tool.

use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};

/// Names of all golden certificates.
pub(crate) const CERTIFICATES: [&str; 14] = [
    "agent_bop_rv",
    "agent_ep",
    "agent_prx",
    "agent_xc",
    "delpriv_both",
    "delpriv_eop_del_rep",
    "delpriv_exper_del",
    "exppriv_eop_exper",
    "exppriv_eop_exper_full",
    "exppriv_opt",
    "pubcmd_del_xc",
    "pubcmd_exper_xc",
    "subcmd_del_ep",
    "subcmd_eop_ep",
];

/// Names of all golden keys without passphrase.
pub(crate) const KEYS: [&str; 8] = ["bop", "del", "ep", "eop", "exper", "prx", "rv", "xc"];

pub(crate) fn certificate(name: &str) -> Certificate {
    Certificate::from_pem(&read(&format!("{name}.cert"))).unwrap()
}

pub(crate) fn private_key(name: &str) -> PrivateKey {
    PrivateKey::from_pem(&read(&format!("keys/{name}")), None).unwrap()
}

pub(crate) fn public_key(name: &str) -> PublicKey {
    PublicKey::from_pem(&read(&format!("keys/{name}.pub"))).unwrap()
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    // The crate that includes this file is the engine, or lies within it.
    let crate_root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut roots = crate_root.ancestors().map(|root| root.join("testdata"));
    let path = roots.find(|root| root.exists()).unwrap().join("credentials").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
