//! Chains as a peer presents them. The first byte chooses the mode and whether there is an anchor; then
//! come certificates, each behind its length in two bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packetlab::key::PublicKey;
use packetlab::time::Ticks;
use packetlab::trust::{TrustMode, decode_chain, verify_chain};
use std::sync::LazyLock;

static OPERATOR: LazyLock<PublicKey> = LazyLock::new(|| {
    PublicKey::from_pem(include_bytes!("../../testdata/credentials/keys/eop.pub")).unwrap()
});

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else { return };
    let mode = match choice & 0x7f {
        0 => TrustMode::ControllerAuthenticatesEndpoint,
        1 => TrustMode::EndpointAuthenticatesController,
        _ => TrustMode::Agent,
    };
    let anchors = if choice & 0x80 == 0 { &[][..] } else { &[*OPERATOR][..] };
    let ders = split(rest);
    let Ok(chain) = decode_chain(ders.iter().copied(), mode) else { return };
    let now = Ticks(1_700_000_000_000_000_000);
    let Ok(verified) = verify_chain(&chain, anchors, mode, now) else { return };

    assert!(verified.is_valid_at(now));
    assert_eq!(verified.leaf(), chain.first());
    assert_eq!(verified.anchor.is_some(), !anchors.is_empty());
    for pair in verified.certificates.windows(2) {
        assert!(pair[0].verify_signature(&pair[1].subject_key));
    }
    if let Some(anchor) = verified.anchor {
        assert!(verified.certificates.last().unwrap().verify_signature(&anchors[anchor]));
    }
});

fn split(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut ders = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (der, after) = after.split_at(len);
        ders.push(der);
        rest = after;
    }
    ders
}
