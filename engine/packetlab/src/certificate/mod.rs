//! The PacketLab view of an X.509 certificate (spec/protocol.md 4.2 to 4.4).
//!
//! Not here: chains and trust (`trust`), making certificates (`issue`). Invariant: a
//! [`Certificate`] that exists has passed every rule of spec/protocol.md 4.4 except the signature, and
//! keeps its DER byte for byte. Beside that it holds what the rules of chains are about, which has one size; texts are
//! read when they are asked for, since a stranger's would become many times as large (promise P20).

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
use self::x509::InfoText;

const LABEL: &str = "CERTIFICATE";
const WAS_CHECKED: &str = "a text of a certificate is read before the certificate exists";

/// One decoded certificate. Cloning shares the DER.
#[derive(Clone)]
pub struct Certificate {
    der: Arc<[u8]>,
    tbs: Range<usize>,
    serial: Range<usize>,
    /// The text of `cert_info`.
    info: Range<usize>,
    /// The text of `cert_limit`; empty without that extension.
    limits: Range<usize>,
    signature: [u8; SIGNATURE_LEN],
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
}

impl Certificate {
    /// Decodes one DER certificate and checks all rules of spec/protocol.md 4.4 but the signature.
    ///
    /// # Errors
    /// The first rule that is broken. Bytes behind the certificate are an error too.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parts = form::check_certificate(der)?;
        x509::check_head(&parts)?;
        let (tbs, signature) = x509::split_signature(der, parts.signed.whole).ok_or(
            CertificateError::NotX509("its signature is none of Ed25519, which has 64 bytes"),
        )?;

        let extensions = &parts.extensions;
        let info = x509::parse_info(extensions)?;
        let certificate_type = info.certificate_type;
        x509::check_key_usage(extensions, certificate_type)?;
        if parts.serial.content.iter().all(|&byte| byte == 0) {
            return Err(CertificateError::Serial);
        }
        let (not_before, not_after) = x509::parse_validity(&parts.validity)?;
        let subject_key =
            PublicKey::from_spki(parts.key.whole).map_err(|_| CertificateError::SubjectKey)?;
        let authority_key_id = x509::parse_authority_key_id(extensions)?;
        let subject_key_id = x509::parse_subject_key_id(extensions, &subject_key)?;
        let path_len = x509::parse_basic_constraints(extensions, certificate_type)?;
        let limits = x509::check_limits(extensions, certificate_type)?;
        let delegation = x509::parse_delegation(&info)?;

        Ok(Self {
            der: der.into(),
            tbs,
            serial: parts.serial.range(),
            info: info.element.range(),
            limits: limits.map(|limits| limits.range()).unwrap_or_default(),
            signature,
            certificate_type,
            delegation,
            subject_key,
            subject_key_id,
            authority_key_id,
            not_before,
            not_after,
            path_len,
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

    /// Content bytes of the serial number; not zero.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.der[self.serial.clone()]
    }

    /// `cert_desc`, free text.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.info().description()
    }

    /// Pairs of `cert_info` without meaning to PacketLab, in order.
    #[must_use]
    pub fn auxiliary(&self) -> Vec<Pair> {
        self.info().auxiliary()
    }

    fn info(&self) -> InfoText<'_> {
        InfoText::check(&self.der[self.info.clone()]).expect(WAS_CHECKED)
    }

    /// `cert_limit`, read anew each time; without that extension nothing is limited.
    #[must_use]
    pub fn limits(&self) -> CertificateLimits {
        CertificateLimits::parse(&self.der[self.limits.clone()]).expect(WAS_CHECKED)
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
pub(crate) mod tests;
