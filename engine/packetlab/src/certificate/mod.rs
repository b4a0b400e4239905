//! The PacketLab view of an X.509 certificate (spec/protocol.md 4.2 to 4.4).
//!
//! Not here: chains and trust (`trust`), making certificates (`issue`). Invariant: a
//! [`Certificate`] that exists has passed every rule of spec/protocol.md 4.4 except the signature, and
//! keeps its DER byte for byte.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::key::{KeyId, PublicKey, SIGNATURE_LEN};
use super::name_value::Pair;
use super::pem;
use super::time::Ticks;

mod error;
pub(crate) mod form;
mod limits;
pub(crate) mod x509;

pub use error::CertificateError;
pub use limits::{BurstRate, CertificateLimits, Destination};

const LABEL: &str = "CERTIFICATE";

/// What a certificate entitles its subject to (spec/protocol.md 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateType {
    /// An endpoint may represent its endpoint operator.
    Subcmd,
    /// A controller may run the experimenter's experiments.
    Pubcmd,
    /// Experiment privilege, given by an endpoint operator to an experimenter.
    Exppriv,
    /// Delegation of a privilege; [`Delegation`] says of which.
    Delpriv,
    /// Identity for connections to broker and proxy.
    Agent,
}

impl CertificateType {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Subcmd, Self::Pubcmd, Self::Exppriv, Self::Delpriv, Self::Agent];

    /// The word of `cert_type` (spec/protocol.md 4.3).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Subcmd => "subcmd",
            Self::Pubcmd => "pubcmd",
            Self::Exppriv => "exppriv",
            Self::Delpriv => "delpriv",
            Self::Agent => "agent",
        }
    }

    /// Whether the subject may sign further certificates: `exppriv` and `delpriv`.
    #[must_use]
    pub fn signs_certificates(self) -> bool {
        matches!(self, Self::Exppriv | Self::Delpriv)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for CertificateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a `delpriv` certificate delegates, its `del_type` (spec/protocol.md 4.3). Neither bit in all
/// other types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Delegation {
    /// The experiment privilege; not to be confused with the certificate type of that name.
    pub exppriv: bool,
    /// The right to represent an endpoint operator.
    pub reppriv: bool,
}

/// One decoded certificate. Cloning shares the DER.
#[derive(Clone)]
pub struct Certificate {
    der: Arc<[u8]>,
    tbs: Range<usize>,
    signature: [u8; SIGNATURE_LEN],
    /// Content bytes of the serial number; not zero.
    pub serial: Vec<u8>,
    /// What it is for.
    pub certificate_type: CertificateType,
    /// What it delegates.
    pub delegation: Delegation,
    /// The key it speaks about.
    pub subject_key: PublicKey,
    /// Key id of the subject key.
    pub subject_key_id: KeyId,
    /// Key id of the key that signed it; unproven until the signature is checked.
    pub authority_key_id: KeyId,
    /// First moment of validity; times before 1970 count as 1970.
    pub not_before: Ticks,
    /// Last moment of validity, inclusive; times that ticks cannot hold (the year 9999) are
    /// [`Ticks::MAX`], never.
    pub not_after: Ticks,
    /// How many delegations may stand between this certificate and the leaf; `None` is any number.
    pub path_len: Option<u32>,
    /// `cert_desc`, free text.
    pub description: Option<String>,
    /// Pairs of `cert_info` without meaning to PacketLab, kept in order.
    pub auxiliary: Vec<Pair>,
    /// `cert_limit`; without that extension nothing is limited.
    pub limits: CertificateLimits,
}

impl Certificate {
    /// Decodes one DER certificate and checks all rules of spec/protocol.md 4.4 but the signature.
    ///
    /// # Errors
    /// The first rule that is broken. Bytes behind the certificate are an error too.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        x509::decode(der)
    }

    /// Decodes the one `CERTIFICATE` section of a PEM file (spec/protocol.md 4.1).
    ///
    /// # Errors
    /// No such section or several, or a certificate that [`Certificate::from_der`] refuses.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let (_, der) = pem::one(pem, &[LABEL])?;
        Self::from_der(&der)
    }

    /// Decodes every `CERTIFICATE` section of a PEM file, at least one.
    ///
    /// # Errors
    /// No such section, or one that [`Certificate::from_pem`] refuses.
    pub fn list_from_pem(pem: &[u8]) -> Result<Vec<Self>, CertificateError> {
        pem::list(pem, LABEL)?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// The certificate as a PEM file holds it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        der::pem::encode_string(LABEL, der::pem::LineEnding::LF, &self.der)
            .expect("a certificate that was read is short enough for PEM")
    }

    /// The certificate exactly as it was received.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether `key` signed this certificate.
    #[must_use]
    pub fn verify_signature(&self, key: &PublicKey) -> bool {
        self.der.get(self.tbs.clone()).is_some_and(|tbs| key.verify(tbs, &self.signature))
    }

    /// Whether `now` lies within the validity, both ends included (spec/protocol.md 4.6).
    #[must_use]
    pub fn is_valid_at(&self, now: Ticks) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, subject, authority) =
            (self.certificate_type, self.subject_key_id, self.authority_key_id);
        write!(f, "Certificate({kind} of {subject} by {authority})")
    }
}

#[cfg(test)]
mod tests;
