//! Which certificate chains are believed (spec/protocol.md 4.5 to 4.7).
//!
//! Not here: decoding one certificate (`certificate`), TLS. Invariant: every certificate of a
//! [`VerifiedChain`] was valid at the time of the check and signed by the next one, and the last
//! one by the matched anchor, if anchors were given. The work is bounded (promise P20): a chain is small
//! ([`check_size`]), it is followed by key ids alone first, and only one that leads to an anchor costs signature checks,
//! from the anchor down, at most one for each of its certificates.

mod error;
mod judge;

use std::borrow::Borrow;
use std::convert::Infallible;

pub use self::error::ChainError;
pub use self::judge::{Judge, Judged};
use crate::certificate::{Certificate, CertificateType};
use crate::key::{KeyId, PublicKey};
use crate::program::ProgramDigest;
use crate::time::Ticks;

/// Most certificates of a chain, those included that do not belong to it. Real chains have two to four
/// (spec/reliability.md 5).
pub const CERTIFICATES_MAX: usize = 10;

/// Longest message of a TLS handshake that rustls takes; the original takes 102,400 bytes.
const HANDSHAKE_MESSAGE_LEN_MAX: usize = 0xffff;

/// Who is being judged (spec/protocol.md 4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrustMode {
    /// A controller judges an endpoint: `subcmd`, then any number of `delpriv` of the
    /// representation kind.
    ControllerAuthenticatesEndpoint,
    /// An endpoint judges a controller: `pubcmd`, any number of `delpriv` of the experiment kind,
    /// `exppriv`.
    EndpointAuthenticatesController,
    /// Either side of a connection to broker or proxy: one `agent`.
    Agent,
}

/// One step of a chain.
struct Phase {
    certificate_type: CertificateType,
    /// Any number, also none, of this step's certificates may follow one another.
    repeats: bool,
    /// The chain may be complete after a certificate of this step.
    may_end: bool,
}

impl TrustMode {
    fn phases(self) -> &'static [Phase] {
        use CertificateType::{Agent, Delpriv, Exppriv, Pubcmd, Subcmd};
        const fn once(certificate_type: CertificateType, may_end: bool) -> Phase {
            Phase { certificate_type, repeats: false, may_end }
        }
        const fn repeated(certificate_type: CertificateType, may_end: bool) -> Phase {
            Phase { certificate_type, repeats: true, may_end }
        }
        match self {
            Self::ControllerAuthenticatesEndpoint => {
                const { &[once(Subcmd, true), repeated(Delpriv, true)] }
            }
            Self::EndpointAuthenticatesController => {
                const { &[once(Pubcmd, false), repeated(Delpriv, false), once(Exppriv, true)] }
            }
            Self::Agent => const { &[once(Agent, true)] },
        }
    }

    fn check_count(self, count: usize) -> Result<(), ChainError> {
        let (min, max) = match self {
            Self::ControllerAuthenticatesEndpoint => (1, CERTIFICATES_MAX),
            Self::EndpointAuthenticatesController => (2, CERTIFICATES_MAX),
            Self::Agent => (1, 1),
        };
        if count < min {
            Err(ChainError::TooFew { count, min })
        } else if count > max {
            Err(ChainError::TooMany { count, max })
        } else {
            Ok(())
        }
    }

    fn delegates(self, certificate: &Certificate) -> bool {
        match self {
            Self::ControllerAuthenticatesEndpoint => certificate.delegation.reppriv,
            Self::EndpointAuthenticatesController => certificate.delegation.exppriv,
            Self::Agent => false,
        }
    }
}

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
    pub fn monitor_digests(&self) -> impl Iterator<Item = &ProgramDigest> {
        self.certificates.iter().flat_map(|certificate| &certificate.limits.monitor)
    }
}

/// Checks what can be said of a chain before any certificate is decoded: how many there are, and how long they are
/// together.
///
/// # Errors
/// The count does not fit the mode, or no peer could receive a TLS Certificate message with all of them.
pub fn check_size<'a>(
    ders: impl ExactSizeIterator<Item = &'a [u8]>,
    mode: TrustMode,
) -> Result<(), ChainError> {
    /// Header of the message, length of the context, length of the list (RFC 8446 4.4.2).
    const MESSAGE_OVERHEAD: usize = 4 + 1 + 3;
    /// Lengths of a certificate and of its extensions.
    const ENTRY_OVERHEAD: usize = 3 + 2;
    mode.check_count(ders.len())?;
    let len = MESSAGE_OVERHEAD + ders.map(|der| ENTRY_OVERHEAD + der.len()).sum::<usize>();
    if len > HANDSHAKE_MESSAGE_LEN_MAX {
        return Err(ChainError::TooLong { len, max: HANDSHAKE_MESSAGE_LEN_MAX });
    }
    Ok(())
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

/// A trusted key, with its key id, which is a digest.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    key: PublicKey,
    key_id: KeyId,
}

impl From<PublicKey> for Anchor {
    fn from(key: PublicKey) -> Self {
        Self { key, key_id: key.key_id() }
    }
}

/// A chain that holds.
struct Found<'a> {
    /// Leaf first.
    links: Vec<Link<'a>>,
    /// Index of the anchor that signed the last certificate.
    anchor: Option<usize>,
}

/// One certificate in its place.
#[derive(Clone, Copy)]
struct Link<'a> {
    /// In the presented list.
    index: usize,
    certificate: &'a Certificate,
    /// The key that signed it: the subject key of the next certificate, or the anchor; `None` at the top of a chain
    /// without anchors.
    signer: Option<&'a PublicKey>,
}

/// Verifies a chain; `is_signed` tells whether a key signed the certificate at an index.
///
/// Signatures are looked at when the chain has been followed to an anchor, from there down, so that a stranger who
/// claims to be of that anchor costs one check, and one who does not costs none. The verdict is the one of
/// spec/protocol.md 4.6, where they are looked at on the way; only which of several faults is named may differ.
fn find_chain<'a, C: Borrow<Certificate>>(
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
            link.signer.is_none_or(|signer| is_signed(link.index, link.certificate, signer))
        };
        // Without anchors the last one's signature is not checked, even if a certificate follows that could.
        let checked_len = if anchors.is_empty() { end.len - 1 } else { end.len };
        if lowest_unsigned.is_some_and(|unsigned| unsigned < checked_len) {
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
        if path_len.is_some_and(|max| between > max) {
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
    if certificate.is_valid_at(now) {
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
        let misfit = if found != phase.certificate_type {
            ChainError::UnexpectedType { index, found, expected: phase.certificate_type }
        } else if found == CertificateType::Delpriv && !mode.delegates(certificate) {
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

#[cfg(test)]
mod tests;
