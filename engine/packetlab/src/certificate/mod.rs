//! The PacketLab view of an X.509 certificate (spec/protocol.md 4.2 to 4.4).
//!
//! Not here: chains and trust (`trust`), making certificates (`issue`). Invariant: a
//! [`Certificate`] that exists has passed every rule of spec/protocol.md 4.4 except the signature, and
//! keeps its DER byte for byte.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::key::{KeyId, PublicKey, SIGNATURE_LEN};
use crate::name_value::Pair;
use crate::pem;
use crate::time::Ticks;

mod certificate_type;
mod error;
pub(crate) mod form;
mod limits;
pub(crate) mod x509;

pub use self::certificate_type::{CertificateType, Delegation};
pub use self::error::CertificateError;
pub use self::limits::{BurstRate, CertificateLimits, Destination};

const LABEL: &str = "CERTIFICATE";

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
        form::check_certificate(der)?;
        let x509 = x509::read(der)?;
        let (tbs, signature) = x509::split_signature(der, x509.tbs_certificate.as_ref()).ok_or(
            CertificateError::NotX509("its signature is none of Ed25519, which has 64 bytes"),
        )?;

        let extensions = x509.extensions();
        let info = x509::parse_info(extensions)?;
        let certificate_type = info.certificate_type;
        x509::check_key_usage(extensions, certificate_type)?;
        if x509.raw_serial().iter().all(|&byte| byte == 0) {
            return Err(CertificateError::Serial);
        }
        let subject_key =
            PublicKey::from_spki(x509.subject_pki.raw).map_err(|_| CertificateError::SubjectKey)?;
        let authority_key_id = x509::parse_authority_key_id(extensions)?;
        let subject_key_id = x509::parse_subject_key_id(extensions, &subject_key)?;
        let path_len = x509::parse_basic_constraints(extensions, certificate_type)?;
        let limits = x509::parse_limits(extensions, certificate_type)?;
        let delegation = x509::parse_delegation(info.delegation.as_deref(), certificate_type)?;

        Ok(Self {
            der: der.into(),
            tbs,
            signature,
            serial: x509.raw_serial().to_vec(),
            certificate_type,
            delegation,
            subject_key,
            subject_key_id,
            authority_key_id,
            not_before: Ticks::from_unix_seconds(x509.validity.not_before.timestamp()),
            not_after: Ticks::from_unix_seconds(x509.validity.not_after.timestamp()),
            path_len,
            description: info.description,
            auxiliary: info.auxiliary,
            limits,
        })
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
