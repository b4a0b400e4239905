//! Who owns a snikey: whoever first registered a connection under it, as long as there are any.
//!
//! ```text
//! no connections            belongs to nobody, once the grace is over
//! of one without a key      its address owns it; the first one with a key takes it over
//! of a key, or of a signer  nobody else gets in
//! ```
//!
//! Not here: sockets, and who waits for whom (`switchboard`).

use std::fmt;
use std::net::IpAddr;

use packetlab::certificate::Certificate;
use packetlab::key::KeyId;

use crate::hosting::Source;

/// An owner. Two controllers with the same one share their snikeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// It has proven this key, or a certificate that this key has signed.
    Key(KeyId),
    /// It has shown no certificate; all that is known is where it is.
    Unknown(Source),
}

/// What is known of the signers of agent certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signers {
    /// Each certificate was verified with one of the keys that the proxy was given: its authority key id
    /// names that key, and all agents of it are one owner.
    Verified,
    /// Any certificate is accepted and its signature not checked (spec/protocol.md 4.6): whoever its authority
    /// key id names may know nothing of it. Only its own key is proven, by TLS.
    Unknown,
}

impl Owner {
    /// Of a controller that has proven the key of this certificate, if it showed one.
    pub(super) fn of(certificate: Option<&Certificate>, signers: Signers, address: IpAddr) -> Self {
        match (certificate, signers) {
            (None, _) => Self::Unknown(Source::of(address)),
            (Some(certificate), Signers::Verified) => Self::Key(certificate.authority_key_id),
            (Some(certificate), Signers::Unknown) => Self::Key(certificate.subject_key.key_id()),
        }
    }

    /// Whether a snikey of this owner goes over to a newcomer.
    pub(super) fn yields_to(self, newcomer: Self) -> bool {
        matches!((self, newcomer), (Self::Unknown(_), Self::Key(_)))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "the key {}", key.short()),
            Self::Unknown(source) => write!(f, "whoever without a certificate is at {source}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{certificate, public_key};

    fn owner(certificate_name: Option<&str>, signers: Signers) -> Owner {
        let shown = certificate_name.map(certificate);
        Owner::of(shown.as_ref(), signers, [192, 0, 2, 1].into())
    }

    /// `agent_bop_rv` is the agent certificate of `rv`, signed by `bop`.
    #[test]
    fn a_signer_owns_if_it_is_known_to_have_signed_and_else_the_proven_key() {
        let key = |name| Owner::Key(public_key(name).key_id());
        assert_eq!(owner(Some("agent_bop_rv"), Signers::Verified), key("bop"));
        assert_eq!(owner(Some("agent_bop_rv"), Signers::Unknown), key("rv"));
        for signers in [Signers::Verified, Signers::Unknown] {
            assert_eq!(owner(Some("agent_xc"), signers), key("xc"), "signed by itself");
        }
    }

    #[test]
    fn only_one_without_a_certificate_yields_and_only_to_one_with() {
        let (keyed, unknown) =
            (owner(Some("agent_xc"), Signers::Unknown), owner(None, Signers::Unknown));
        let other = Owner::of(None, Signers::Unknown, [192, 0, 2, 2].into());
        assert!(unknown.yields_to(keyed));
        assert!(
            !keyed.yields_to(unknown)
                && !keyed.yields_to(owner(Some("agent_ep"), Signers::Unknown))
        );
        assert!(!unknown.yields_to(other) && unknown != other);
    }
}
