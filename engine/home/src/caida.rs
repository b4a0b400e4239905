//! Public keys of the public PacketLab deployment, as its project publishes them (`caida/README.md`).
//!
//! Not here: their private halves, which CAIDA has. They are facts and never change.

use packetlab::key::PublicKey;

/// The public broker (spec/protocol.md 7).
pub const BROKER: &str = "pktbrokr.caida.org";
/// File with the key that signs the certificate of the public broker.
pub const BROKER_OPERATOR_FILE: &str = "caida_k_bop.pub";
/// File with the key of the operator of the public endpoints.
pub const ENDPOINT_OPERATOR_FILE: &str = "caida_k_eop.pub";

/// The key that signs the certificate of the public broker.
#[must_use]
pub fn broker_operator() -> PublicKey {
    PublicKey::from_pem(include_bytes!("caida/caida_k_bop.pub")).expect("a test reads it")
}

/// The key of the operator of the public endpoints, who gives the privilege to use them.
#[must_use]
pub fn endpoint_operator() -> PublicKey {
    PublicKey::from_pem(include_bytes!("caida/caida_k_eop.pub")).expect("a test reads it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_are_those_that_are_published() {
        for (key, file) in [
            (broker_operator(), &include_bytes!("caida/caida_k_bop.pub")[..]),
            (endpoint_operator(), include_bytes!("caida/caida_k_eop.pub")),
        ] {
            assert_eq!(key.to_pem().as_bytes(), file);
        }
        let id = broker_operator().key_id().to_string();
        assert_ne!(id, endpoint_operator().key_id().to_string());
    }
}
