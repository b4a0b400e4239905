//! Which certificate chains are believed (spec/protocol.md 4.5 to 4.7).
//!
//! Not here: decoding one certificate (`certificate`), TLS. Invariant: every certificate of a
//! [`VerifiedChain`] was valid at the time of the check and signed by the next one, and the last
//! one by the matched anchor, if anchors were given. The work is bounded (promise P20): a chain is small
//! ([`check_size`]), it is followed by key ids alone first, and only one that leads to an anchor costs signature checks,
//! from the anchor down, at most one for each of its certificates.

mod chain_size;
mod error;
mod judge;
mod mode;
mod path;

pub use self::chain_size::{CERTIFICATES_MAX, check_size};
pub use self::error::ChainError;
pub use self::judge::{Judge, Judged};
pub use self::mode::TrustMode;
use self::path::{Anchor, find_chain};
use crate::certificate::Certificate;
use crate::key::{KeyId, PublicKey};
use crate::program::ProgramDigest;
use crate::time::Ticks;

/// A chain that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChain {
    /// Leaf first, each signed by the next.
    pub certificates: Vec<Certificate>,
    /// Index of the anchor that signed the last certificate; `None` if there were no anchors.
    pub anchor: Option<usize>,
    /// First moment at which all certificates are valid.
    pub not_before: Ticks,
    /// Last moment at which all certificates are valid, inclusive; [`Ticks::MAX`] is never.
    pub not_after: Ticks,
}

impl VerifiedChain {
    /// The certificate of the peer's own key.
    #[must_use]
    pub fn leaf(&self) -> Option<&Certificate> {
        self.certificates.first()
    }

    /// Key id of the key that signed the last certificate: for a controller's chain the endpoint
    /// operator's, which names the private channel (spec/protocol.md 4.7).
    #[must_use]
    pub fn root_key_id(&self) -> Option<KeyId> {
        self.certificates.last().map(|certificate| certificate.authority_key_id)
    }

    /// Whether every certificate is still, or already, valid.
    #[must_use]
    pub fn is_valid_at(&self, now: Ticks) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Digests of the programs that must be supplied, leaf to top and in each certificate's order;
    /// a digest that is demanded twice is here twice (spec/pktxpmgr.md 7.2).
    pub fn monitor_digests(&self) -> impl Iterator<Item = ProgramDigest> {
        self.certificates.iter().flat_map(|certificate| certificate.limits().monitor)
    }
}

/// Decodes the certificates that a peer presents, leaf first.
///
/// # Errors
/// What [`check_size`] says (this comes first and costs nothing), or one does not decode, used or not.
pub fn decode_chain<'a>(
    ders: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    mode: TrustMode,
) -> Result<Vec<Certificate>, ChainError> {
    check_size(ders.clone(), mode)?;
    let decode = |(index, der)| {
        Certificate::from_der(der).map_err(|error| ChainError::BadCertificate { index, error })
    };
    ders.enumerate().map(decode).collect()
}

/// Verifies a chain as spec/protocol.md 4.6 says: `chain` is leaf first, the others in any order,
/// unrelated ones allowed; `anchors` are the trusted keys, and without any the last signature is
/// not checked.
///
/// The next certificate is always the first unused one of the right key, without backtracking
/// (Q22).
///
/// # Errors
/// Why no chain could be completed.
pub fn verify_chain(
    chain: &[Certificate],
    anchors: &[PublicKey],
    mode: TrustMode,
    now: Ticks,
) -> Result<VerifiedChain, ChainError> {
    let anchors: Vec<Anchor> = anchors.iter().copied().map(Anchor::from).collect();
    let is_signed =
        |_, certificate: &Certificate, key: &PublicKey| certificate.verify_signature(key);
    let found = find_chain(chain, &anchors, mode, now, is_signed)?;
    let certificates: Vec<Certificate> =
        found.links.iter().map(|link| link.certificate.clone()).collect();
    let starts = certificates.iter().map(|certificate| certificate.not_before);
    let ends = certificates.iter().map(|certificate| certificate.not_after);
    let (not_before, not_after) =
        (starts.max().unwrap_or_default(), ends.min().unwrap_or(Ticks::MAX));
    Ok(VerifiedChain { certificates, anchor: found.anchor, not_before, not_after })
}

#[cfg(test)]
mod tests;
