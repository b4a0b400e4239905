//! Following a chain from its leaf to an anchor (spec/protocol.md 4.6).
//!
//! Not here: which certificates a chain may have (`mode`).

use std::borrow::Borrow;
use std::convert::Infallible;

use guards::{Guard, holds};

use super::chain_size::check_size;
use super::error::ChainError;
use super::mode::{Phase, TrustMode};
use crate::certificate::{Certificate, CertificateType};
use crate::key::{KeyId, PublicKey};
use crate::time::Ticks;

/// A trusted key, with its key id, which is a digest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    key: PublicKey,
    pub(super) key_id: KeyId,
}

impl From<PublicKey> for Anchor {
    fn from(key: PublicKey) -> Self {
        Self { key, key_id: key.key_id() }
    }
}

/// A chain that holds.
pub(super) struct Found<'a> {
    /// Leaf first.
    pub(super) links: Vec<Link<'a>>,
    /// Index of the anchor that signed the last certificate.
    pub(super) anchor: Option<usize>,
}

/// One certificate in its place.
#[derive(Clone, Copy)]
pub(super) struct Link<'a> {
    /// In the presented list.
    pub(super) index: usize,
    pub(super) certificate: &'a Certificate,
    /// The key that signed it: the subject key of the next certificate, or the anchor; `None` at the top of a chain
    /// without anchors.
    pub(super) signer: Option<&'a PublicKey>,
}

/// Verifies a chain; `is_signed` tells whether a key signed the certificate at an index.
///
/// Signatures are looked at when the chain has been followed to an anchor, from there down, so that a stranger who
/// claims to be of that anchor costs one check, and one who does not costs none. The verdict is the one of
/// spec/protocol.md 4.6, where they are looked at on the way; only which of several faults is named may differ.
pub(super) fn find_chain<'a, C: Borrow<Certificate>>(
    chain: &'a [C],
    anchors: &'a [Anchor],
    mode: TrustMode,
    now: Ticks,
    is_signed: impl Fn(usize, &Certificate, &PublicKey) -> bool,
) -> Result<Found<'a>, ChainError> {
    check_size(chain.iter().map(|certificate| certificate.borrow().der()), mode)?;
    let mut path = Path { links: Vec::new(), ends: Vec::new() };
    let Err(stopped) = path.follow(chain, anchors, mode, now);
    let mut lowest_unsigned = None;
    for end in path.ends.iter().rev() {
        let links = &path.links[..end.len];
        let is_sound = |link: &Link<'_>| {
            let is_signed = |signer| is_signed(link.index, link.certificate, signer);
            link.signer.is_none_or(is_signed) || !holds(Guard::ChecksSignatures)
        };
        // Without anchors the last one's signature is not checked, even if a certificate follows that could.
        let checked_len = if anchors.is_empty() { end.len - 1 } else { end.len };
        let is_known = lowest_unsigned.is_some_and(|unsigned| unsigned < checked_len);
        if is_known && holds(Guard::BoundsSignatures) {
            continue;
        }
        match links[..checked_len].iter().rposition(|link| !is_sound(link)) {
            Some(unsigned) => lowest_unsigned = Some(unsigned),
            None => return Ok(Found { links: links.to_vec(), anchor: end.anchor }),
        }
    }
    Err(match lowest_unsigned.and_then(|unsigned| path.links.get(unsigned)) {
        Some(link) => ChainError::BadSignature { index: link.index },
        None => stopped,
    })
}

/// A chain as far as it can be followed by key ids.
struct Path<'a> {
    /// Leaf first.
    links: Vec<Link<'a>>,
    /// Where it may end, shortest first.
    ends: Vec<PathEnd>,
}

struct PathEnd {
    /// Certificates up to here.
    len: usize,
    /// The anchor whose key id the last of them names.
    anchor: Option<usize>,
}

impl<'a> Path<'a> {
    /// Follows the chain until it cannot go on, and says why.
    fn follow<C: Borrow<Certificate>>(
        &mut self,
        chain: &'a [C],
        anchors: &'a [Anchor],
        mode: TrustMode,
        now: Ticks,
    ) -> Result<Infallible, ChainError> {
        let mut used = vec![false; chain.len()];
        let mut phases = mode.phases();
        let mut index = 0;
        loop {
            let certificate = chain.get(index).ok_or(ChainError::EndOfPhases { index })?.borrow();
            check_dates(index, certificate, now)?;
            phases = skip_to_fitting(phases, mode, index, certificate)?;
            self.place(index, certificate)?;
            used[index] = true;

            let Some((phase, later)) = phases.split_first() else {
                return Err(ChainError::EndOfPhases { index });
            };
            let must_end = later.is_empty() && !phase.repeats;
            if phase.may_end && !self.may_end(certificate, anchors) && must_end {
                let signer = certificate.authority_key_id;
                return Err(ChainError::NoSigner { index, signer });
            }
            if must_end {
                return Err(ChainError::EndOfPhases { index });
            }
            if !phase.repeats {
                phases = later;
            }
            index = find_next(chain, &used, index, certificate)?;
        }
    }

    /// Puts a certificate above those placed so far.
    fn place(&mut self, index: usize, certificate: &'a Certificate) -> Result<(), ChainError> {
        // The leaf does not count.
        let between = self.links.len().saturating_sub(1);
        let path_len = certificate.path_len.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        if path_len.is_some_and(|max| between > max) && holds(Guard::ChecksPathLen) {
            return Err(ChainError::PathTooLong { index, between });
        }
        if let Some(lower) = self.links.last_mut() {
            lower.signer = Some(&certificate.subject_key);
        }
        self.links.push(Link { index, certificate, signer: None });
        Ok(())
    }

    /// Notes that the chain may end here, if the last certificate names an anchor or there are none.
    fn may_end(&mut self, certificate: &Certificate, anchors: &'a [Anchor]) -> bool {
        let signer = certificate.authority_key_id;
        let anchor = anchors.iter().position(|anchor| anchor.key_id == signer);
        if anchor.is_none() && !anchors.is_empty() {
            return false;
        }
        if let (Some(last), Some(anchor)) = (self.links.last_mut(), anchor) {
            last.signer = Some(&anchors[anchor].key);
        }
        self.ends.push(PathEnd { len: self.links.len(), anchor });
        true
    }
}

fn check_dates(index: usize, certificate: &Certificate, now: Ticks) -> Result<(), ChainError> {
    if certificate.is_valid_at(now) || !holds(Guard::ChecksDates) {
        return Ok(());
    }
    Err(ChainError::NotValidNow { index, expired: certificate.not_after < now })
}

/// The first unused certificate whose key should have signed this one; never the leaf.
fn find_next<C: Borrow<Certificate>>(
    chain: &[C],
    used: &[bool],
    index: usize,
    certificate: &Certificate,
) -> Result<usize, ChainError> {
    let signer = certificate.authority_key_id;
    let mut candidates = chain.iter().zip(used).skip(1);
    let next =
        candidates.position(|(other, used)| !used && other.borrow().subject_key_id == signer);
    next.map(|position| position + 1).ok_or(ChainError::NoSigner { index, signer })
}

/// The phases from the one on that this certificate belongs to. A phase that repeats is over when
/// it does not fit.
fn skip_to_fitting<'p>(
    mut phases: &'p [Phase],
    mode: TrustMode,
    index: usize,
    certificate: &Certificate,
) -> Result<&'p [Phase], ChainError> {
    while let Some((phase, later)) = phases.split_first() {
        let found = certificate.certificate_type;
        let delegates = mode.delegates(certificate) || !holds(Guard::ChecksDelegations);
        let misfit = if found != phase.certificate_type {
            ChainError::UnexpectedType { index, found, expected: phase.certificate_type }
        } else if found == CertificateType::Delpriv && !delegates {
            ChainError::WrongDelegation { index }
        } else {
            return Ok(phases);
        };
        if !phase.repeats {
            return Err(misfit);
        }
        phases = later;
    }
    Err(ChainError::EndOfPhases { index })
}
