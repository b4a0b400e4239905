//! Which certificate chains are believed (protocol.md 4.5 to 4.7).
//!
//! Not here: decoding one certificate (`wire::certificate`), TLS. Invariant: every certificate of a
//! [`VerifiedChain`] was valid at the time of the check and signed by the next one, and the last
//! one by the matched anchor, if anchors were given. The work is bounded: at most one signature
//! check per placed certificate and one per possible end.

use std::convert::Infallible;
use std::fmt;

use crate::wire::certificate::{Certificate, CertificateError, CertificateType};
use crate::wire::key::{KeyId, PublicKey};
use crate::wire::program::ProgramDigest;
use crate::wire::time::Ticks;

/// Who is being judged (protocol.md 4.6).
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
            Self::ControllerAuthenticatesEndpoint => (1, usize::MAX),
            Self::EndpointAuthenticatesController => (2, usize::MAX),
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
    /// operator's, which names the private channel (protocol.md 4.7).
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
    /// a digest that is demanded twice is here twice (pktxpmgr.md 7.2).
    pub fn monitor_digests(&self) -> impl Iterator<Item = &ProgramDigest> {
        self.certificates.iter().flat_map(|certificate| &certificate.limits.monitor)
    }
}

/// Decodes the certificates that a peer presents, leaf first.
///
/// # Errors
/// Their count does not fit the mode (this comes first and costs nothing), or one does not
/// decode, used or not.
pub fn decode_chain<'a>(
    ders: impl ExactSizeIterator<Item = &'a [u8]>,
    mode: TrustMode,
) -> Result<Vec<Certificate>, ChainError> {
    mode.check_count(ders.len())?;
    let decode = |(index, der)| {
        Certificate::from_der(der).map_err(|error| ChainError::BadCertificate { index, error })
    };
    ders.enumerate().map(decode).collect()
}

/// Verifies a chain as protocol.md 4.6 says: `chain` is leaf first, the others in any order,
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
    mode.check_count(chain.len())?;
    let mut search = Search {
        chain,
        anchors: anchors.iter().map(|anchor| (anchor.key_id(), anchor)).collect(),
        now,
        used: vec![false; chain.len()],
        placed: Vec::new(),
        complete: None,
    };
    let Err(stopped) = search.run(mode);
    search.complete.map(|complete| search.verified(complete)).ok_or(stopped)
}

/// How much of the placed certificates is a complete chain.
#[derive(Clone, Copy)]
struct Complete {
    len: usize,
    anchor: Option<usize>,
}

struct Search<'a> {
    chain: &'a [Certificate],
    anchors: Vec<(KeyId, &'a PublicKey)>,
    now: Ticks,
    /// By index into the chain.
    used: Vec<bool>,
    /// Indices into the chain and their certificates, leaf first.
    placed: Vec<(usize, &'a Certificate)>,
    /// The longest complete chain so far.
    complete: Option<Complete>,
}

impl<'a> Search<'a> {
    /// Places certificates until it cannot go on, and says why; what was complete by then is
    /// remembered.
    fn run(&mut self, mode: TrustMode) -> Result<Infallible, ChainError> {
        let mut phases = mode.phases();
        let mut index = 0;
        loop {
            let certificate = self.chain.get(index).ok_or(ChainError::EndOfPhases { index })?;
            self.check_dates(index, certificate)?;
            phases = skip_to_fitting(phases, mode, index, certificate)?;
            self.check_link(index, certificate)?;
            self.place(index, certificate);

            let Some((phase, later)) = phases.split_first() else {
                return Err(ChainError::EndOfPhases { index });
            };
            let must_end = later.is_empty() && !phase.repeats;
            if phase.may_end {
                match self.find_anchor(index, certificate) {
                    Ok(anchor) => self.complete = Some(Complete { len: self.placed.len(), anchor }),
                    // A chain that may go on finds its anchor further up.
                    Err(ChainError::NoSigner { .. }) if !must_end => {}
                    Err(error) => return Err(error),
                }
            }
            if must_end {
                return Err(ChainError::EndOfPhases { index });
            }
            if !phase.repeats {
                phases = later;
            }
            index = self.find_next(index, certificate)?;
        }
    }

    fn check_dates(&self, index: usize, certificate: &Certificate) -> Result<(), ChainError> {
        if certificate.is_valid_at(self.now) {
            return Ok(());
        }
        Err(ChainError::NotValidNow { index, expired: certificate.not_after < self.now })
    }

    /// Checks a certificate above the leaf against those placed below it.
    fn check_link(&self, index: usize, certificate: &Certificate) -> Result<(), ChainError> {
        let Some((lower_index, lower)) = self.placed.last() else {
            return Ok(());
        };
        // The leaf does not count.
        let between = self.placed.len() - 1;
        if certificate
            .path_len
            .is_some_and(|max| between > usize::try_from(max).unwrap_or(usize::MAX))
        {
            return Err(ChainError::PathTooLong { index, between });
        }
        if !lower.verify_signature(&certificate.subject_key) {
            return Err(ChainError::BadSignature { index: *lower_index });
        }
        Ok(())
    }

    fn place(&mut self, index: usize, certificate: &'a Certificate) {
        self.placed.push((index, certificate));
        if let Some(used) = self.used.get_mut(index) {
            *used = true;
        }
    }

    /// The anchor that signed the last certificate; without any anchors nothing is checked.
    fn find_anchor(
        &self,
        index: usize,
        certificate: &Certificate,
    ) -> Result<Option<usize>, ChainError> {
        if self.anchors.is_empty() {
            return Ok(None);
        }
        let signer = certificate.authority_key_id;
        let mut anchors = self.anchors.iter().enumerate();
        let Some((anchor, (_, key))) = anchors.find(|(_, (key_id, _))| *key_id == signer) else {
            return Err(ChainError::NoSigner { index, signer });
        };
        if certificate.verify_signature(key) {
            Ok(Some(anchor))
        } else {
            Err(ChainError::BadSignature { index })
        }
    }

    /// The first unused certificate whose key should have signed this one; never the leaf.
    fn find_next(&self, index: usize, certificate: &Certificate) -> Result<usize, ChainError> {
        let signer = certificate.authority_key_id;
        let mut candidates = self.chain.iter().zip(&self.used).skip(1);
        let next = candidates.position(|(other, used)| !used && other.subject_key_id == signer);
        next.map(|position| position + 1).ok_or(ChainError::NoSigner { index, signer })
    }

    fn verified(&self, Complete { len, anchor }: Complete) -> VerifiedChain {
        let placed = self.placed.iter().take(len);
        let certificates: Vec<Certificate> = placed.map(|(_, one)| (*one).clone()).collect();
        let starts = certificates.iter().map(|certificate| certificate.not_before);
        let ends = certificates.iter().map(|certificate| certificate.not_after);
        let (not_before, not_after) =
            (starts.max().unwrap_or_default(), ends.min().unwrap_or(Ticks::MAX));
        VerifiedChain { certificates, anchor, not_before, not_after }
    }
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

/// Why a chain is not believed. `index` counts in the presented list, the leaf being 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainError {
    /// A certificate does not decode.
    BadCertificate {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// A certificate was not signed by the key it names.
    BadSignature {
        /// Which one.
        index: usize,
    },
    /// Fewer certificates than a chain needs.
    TooFew {
        /// Presented.
        count: usize,
        /// Needed.
        min: usize,
    },
    /// More certificates than a chain may have.
    TooMany {
        /// Presented.
        count: usize,
        /// Allowed.
        max: usize,
    },
    /// A certificate of another type was needed in its place.
    UnexpectedType {
        /// Which one.
        index: usize,
        /// Its type.
        found: CertificateType,
        /// The needed type.
        expected: CertificateType,
    },
    /// A certificate is not valid at this time.
    NotValidNow {
        /// Which one.
        index: usize,
        /// Whether its time is over, rather than still to come.
        expired: bool,
    },
    /// The key that signed a certificate is neither among the presented certificates nor trusted.
    NoSigner {
        /// Which certificate.
        index: usize,
        /// The key id it names.
        signer: KeyId,
    },
    /// More delegations stand below a certificate than it allows.
    PathTooLong {
        /// Which one.
        index: usize,
        /// Certificates between it and the leaf.
        between: usize,
    },
    /// The chain goes on where it should have ended.
    EndOfPhases {
        /// The certificate that has no place.
        index: usize,
    },
    /// A `delpriv` delegates something else than the chain needs.
    WrongDelegation {
        /// Which one.
        index: usize,
    },
}

impl ChainError {
    /// Which certificate breaks the rule, if it is one.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        match *self {
            Self::TooFew { .. } | Self::TooMany { .. } => None,
            Self::BadCertificate { index, .. }
            | Self::BadSignature { index }
            | Self::UnexpectedType { index, .. }
            | Self::NotValidNow { index, .. }
            | Self::NoSigner { index, .. }
            | Self::PathTooLong { index, .. }
            | Self::EndOfPhases { index }
            | Self::WrongDelegation { index } => Some(index),
        }
    }

    /// The result code of the original's library (protocol.md 4.6).
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::BadCertificate { .. } | Self::BadSignature { .. } => 2,
            Self::TooFew { .. } => 3,
            Self::TooMany { .. } => 4,
            Self::UnexpectedType { .. } => 5,
            Self::NotValidNow { .. } => 6,
            Self::NoSigner { .. } => 7,
            Self::PathTooLong { .. } => 8,
            Self::EndOfPhases { .. } => 9,
            Self::WrongDelegation { .. } => 10,
        }
    }
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCertificate { index, error } => write!(f, "certificate {index}: {error}"),
            Self::BadSignature { index } => {
                write!(f, "certificate {index} was not signed by the key it names")
            }
            Self::TooFew { count, min } => {
                write!(f, "{count} certificates, but a chain needs at least {min}")
            }
            Self::TooMany { count, max } => {
                write!(f, "{count} certificates, but a chain may have {max} at most")
            }
            Self::UnexpectedType { index, found, expected } => {
                write!(
                    f,
                    "certificate {index} is of type {found}, but {expected} is needed in its place"
                )
            }
            Self::NotValidNow { index, expired: true } => {
                write!(f, "certificate {index} has expired")
            }
            Self::NotValidNow { index, expired: false } => {
                write!(f, "certificate {index} is not valid yet")
            }
            Self::NoSigner { index, signer } => write!(
                f,
                "certificate {index} was signed by the key {signer}, \
                 which is neither trusted nor among the certificates"
            ),
            Self::PathTooLong { index, between } => {
                write!(
                    f,
                    "certificate {index} allows fewer than the {between} delegations below it"
                )
            }
            Self::EndOfPhases { index } => {
                write!(f, "the chain goes on with certificate {index}, which has no place in it")
            }
            Self::WrongDelegation { index } => {
                write!(f, "certificate {index} delegates something else than this chain needs")
            }
        }
    }
}

impl std::error::Error for ChainError {}

#[cfg(test)]
mod tests;
