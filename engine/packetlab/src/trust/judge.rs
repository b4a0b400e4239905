//! Judging many peers by one rule.
//!
//! A certificate above the leaf serves many endpoints, so the judge remembers those of chains that led to an anchor: they
//! are decoded, and their signatures checked, once and not for every endpoint. Strangers cannot fill the memory.
//! Invariant: nothing is believed that would not be believed without it. A certificate is known again by all
//! its bytes, its signature only together with the key that was seen to have made it, and dates, types and places
//! are checked each time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chain_size::check_size;
use super::error::ChainError;
use super::mode::TrustMode;
use super::path::{Anchor, Found, find_chain};
use crate::certificate::Certificate;
use crate::key::{KeyId, PublicKey};
use crate::time::Ticks;

/// Certificates that are remembered; the oldest makes room. Few operators delegate, and few serve one experiment.
const REMEMBERED_MAX: usize = 64;

/// Longest certificate that is remembered: 256 KiB in all. Real ones have some 400 bytes.
const REMEMBERED_LEN_MAX: usize = 4096;

/// A peer whose chain is believed.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The certificate of its own key.
    pub leaf: Arc<Certificate>,
    /// Key id of the anchor that signed its chain: for an endpoint its operator's. `None` without anchors, where whoever
    /// the last certificate names as its signer was not checked.
    pub anchor: Option<KeyId>,
}

/// A rule by which chains are judged, and what it remembers.
#[derive(Debug)]
pub struct Judge {
    mode: TrustMode,
    anchors: Vec<Anchor>,
    /// Locked for look-ups and additions alone, never while something is decoded or checked.
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    certificates: Vec<KnownCertificate>,
    /// The one that makes room next.
    oldest: usize,
}

/// A certificate whose signature was checked.
#[derive(Debug, Clone)]
struct KnownCertificate {
    certificate: Arc<Certificate>,
    signer: PublicKey,
}

impl Judge {
    /// Judges chains of `mode` that end in one of `anchors`; without any, every end is good.
    #[must_use]
    pub fn new(mode: TrustMode, anchors: &[PublicKey]) -> Self {
        let anchors = anchors.iter().copied().map(Anchor::from).collect();
        Self { mode, anchors, remembered: Mutex::default() }
    }

    /// Verifies a chain as [`super::verify_chain`] does, and tells whose it is. `ders` is what the peer presents,
    /// leaf first.
    ///
    /// # Errors
    /// Why the chain is not believed.
    pub fn judge<'a>(
        &self,
        ders: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        now: Ticks,
    ) -> Result<Judged, ChainError> {
        check_size(ders.clone(), self.mode)?;
        let known = self.recall(ders.clone());
        let certificates = ders
            .zip(&known)
            .enumerate()
            .map(|(index, (der, known))| match known {
                Some(known) => Ok(Arc::clone(&known.certificate)),
                None => Certificate::from_der(der)
                    .map(Arc::new)
                    .map_err(|error| ChainError::BadCertificate { index, error }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let is_signed = |index: usize, certificate: &Certificate, key: &PublicKey| {
            known[index].as_ref().is_some_and(|known| known.signer == *key)
                || certificate.verify_signature(key)
        };
        let found = find_chain(&certificates, &self.anchors, self.mode, now, is_signed)?;
        if found.anchor.is_some() {
            self.remember(&certificates, &known, &found);
        }
        let anchor = found.anchor.map(|index| self.anchors[index].key_id);
        Ok(Judged { leaf: Arc::clone(&certificates[0]), anchor })
    }

    /// For each certificate, what is remembered of it. The leaf is not: it serves one endpoint alone.
    fn recall<'a>(
        &self,
        ders: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Vec<Option<KnownCertificate>> {
        let mut known = vec![None; ders.len()];
        if known.len() > 1 {
            let remembered = self.lock();
            for (known, der) in known.iter_mut().zip(ders).skip(1) {
                let is_it = |one: &&KnownCertificate| one.certificate.der() == der;
                *known = remembered.certificates.iter().find(is_it).cloned();
            }
        }
        known
    }

    fn remember(
        &self,
        certificates: &[Arc<Certificate>],
        known: &[Option<KnownCertificate>],
        found: &Found<'_>,
    ) {
        for link in found.links.iter().skip(1) {
            let Some(signer) = link.signer.copied() else { continue };
            if known[link.index].is_some() || link.certificate.der().len() > REMEMBERED_LEN_MAX {
                continue;
            }
            let certificate = Arc::clone(&certificates[link.index]);
            self.lock().add(KnownCertificate { certificate, signer });
        }
    }

    #[cfg(test)]
    pub(super) fn remembered_count(&self) -> usize {
        self.lock().certificates.len()
    }

    /// A thread that panicked while it held the lock has left whole entries behind.
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn add(&mut self, known: KnownCertificate) {
        if self.certificates.iter().any(|one| one.certificate == known.certificate) {
            return;
        }
        if self.certificates.len() < REMEMBERED_MAX {
            self.certificates.push(known);
        } else {
            self.certificates[self.oldest] = known;
            self.oldest = (self.oldest + 1) % REMEMBERED_MAX;
        }
    }
}
