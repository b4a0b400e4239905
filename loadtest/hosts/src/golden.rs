//! Credentials made by the original's tools, for tests (spec/protocol.md 8): eop lets exper run experiments
//! with the controller xc, and lets the endpoint ep represent it; del is a delegate of either.

use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::time::Ticks;

/// A time at which all of them are valid.
pub(crate) const NOW: Ticks = Ticks(1_790_000_000_000_000_000);

macro_rules! files {
    ($name:expr, $suffix:literal: $($known:literal)*) => {
        match $name {
            $($known => {
                include_bytes!(concat!("../../../engine/testdata/credentials/", $known, $suffix)).as_slice()
            })*
            other => panic!("there is no {other}"),
        }
    };
}

/// The certificate of this file name.
pub(crate) fn certificate(name: &str) -> Certificate {
    let pem = files!(name, ".cert": "agent_bop_rv" "agent_ep" "agent_prx" "agent_xc"
        "delpriv_eop_del_rep" "delpriv_exper_del" "exppriv_eop_exper" "pubcmd_del_xc"
        "pubcmd_exper_xc" "subcmd_del_ep" "subcmd_eop_ep");
    Certificate::from_pem(pem).unwrap()
}

/// The private key of this name.
pub(crate) fn private_key(name: &str) -> PrivateKey {
    let path = format!("keys/{name}");
    let pem = files!(path.as_str(), "": "keys/bop" "keys/del" "keys/eop" "keys/ep" "keys/exper"
        "keys/prx" "keys/rv" "keys/xc");
    PrivateKey::from_pem(pem, None).unwrap()
}

/// The public half of [`private_key`].
pub(crate) fn public_key(name: &str) -> PublicKey {
    private_key(name).public_key()
}
