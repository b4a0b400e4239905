//! Signing requests: PKCS#10, asking for one certificate (spec/protocol.md 4.9).
//!
//! Not here: signing them (`issue`), files (`home`). No protocol carries them; people send them
//! to whoever shall sign. Invariant: a [`SigningRequest`] that exists was signed by the key it asks
//! for, and what it asks for keeps the rules of its certificate type.

use std::fmt;

use der::asn1::{AnyRef, ObjectIdentifier, SetOfVec};
use der::{Decode as _, Encode as _, Sequence, ValueOrd};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::certificate::form::{self, Extensions, Occurrence};
use super::certificate::{CertificateError, CertificateLimits, CertificateType, Delegation, x509};
use super::issue::{self, CertificateFields, IssueError};
use super::key::{PrivateKey, PublicKey};
use super::name_value::Pair;
use super::pem::{self, PemError};
use super::strict_der::Flaw;
use super::time::Ticks;

const LABEL: &str = "CERTIFICATE REQUEST";
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");

/// A request for a certificate; the dates are left to the signer, who may also change everything
/// else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    der: Vec<u8>,
    /// What the certificate shall be for.
    pub certificate_type: CertificateType,
    /// What a `delpriv` shall delegate.
    pub delegation: Delegation,
    /// The key it shall speak about, which signed the request.
    pub subject_key: PublicKey,
    /// How many delegations shall be allowed below; `None` is any number.
    pub path_len: Option<u32>,
    /// `cert_desc`.
    pub description: Option<String>,
    /// Further pairs of `cert_info`.
    pub auxiliary: Vec<Pair>,
    /// `cert_limit`.
    pub limits: CertificateLimits,
}

impl SigningRequest {
    /// Decodes one DER request, and checks its signature and its contents by the rules of
    /// spec/protocol.md 4.4 that a request can keep.
    ///
    /// # Errors
    /// The first rule that is broken. Bytes behind the request are an error too.
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        let not = RequestError::NotRequest;
        let extensions = form::check_request(der).map_err(|error| match error {
            CertificateError::NotDer { code: 1, flaw } => RequestError::NotDer(flaw),
            error => RequestError::Invalid(error),
        })?;
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|_| not("its DER cannot be read as PKCS#10"))?;
        if !rest.is_empty() {
            return Err(not("bytes follow the request"));
        }
        let info = &request.certification_request_info;
        if info.version.0 != 0 {
            return Err(not("its version is not 0"));
        }
        if request.signature_algorithm.algorithm.as_bytes() != x509::ED25519 {
            return Err(RequestError::Algorithm);
        }
        let (_, signature) = x509::split_signature(der, info.raw)
            .ok_or_else(|| not("its signature is none of Ed25519, which has 64 bytes"))?;
        let subject_key =
            PublicKey::from_spki(info.subject_pki.raw).map_err(|_| RequestError::Algorithm)?;
        let Some(extensions) = extensions else {
            return Err(not(
                "it must hold exactly one extensionRequest attribute with one set of extensions",
            ));
        };
        let read =
            Self::from_extensions(der, subject_key, &extensions).map_err(RequestError::Invalid)?;
        // Last, so that fuzzing reaches all of the above.
        if subject_key.verify(info.raw, &signature) {
            Ok(read)
        } else {
            Err(RequestError::Signature)
        }
    }

    fn from_extensions(
        der: &[u8],
        subject_key: PublicKey,
        extensions: &Extensions<'_>,
    ) -> Result<Self, CertificateError> {
        let info = x509::parse_info(extensions)?;
        let certificate_type = info.certificate_type;
        let path_len = match extensions.basic_constraints {
            Occurrence::Absent => None,
            _ => x509::parse_basic_constraints(extensions, certificate_type)?,
        };
        let limits = x509::check_limits(extensions, certificate_type)?;
        let limits = limits.map(|text| CertificateLimits::parse(text.content)).transpose()?;
        let delegation = x509::parse_delegation(&info)?;
        Ok(Self {
            der: der.to_vec(),
            certificate_type,
            delegation,
            subject_key,
            path_len,
            description: info.text.description().map(str::to_owned),
            auxiliary: info.text.auxiliary(),
            limits: limits.unwrap_or_default(),
        })
    }

    /// Decodes the one `CERTIFICATE REQUEST` section of a PEM file.
    ///
    /// # Errors
    /// No such section or several, or a request that [`SigningRequest::from_der`] refuses.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RequestError> {
        let (_, der) = pem::one(pem, &[LABEL]).map_err(RequestError::Pem)?;
        Self::from_der(&der)
    }

    /// The request as a PEM file holds it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        der::pem::encode_string(LABEL, der::pem::LineEnding::LF, &self.der)
            .expect("a request that was read is short enough for PEM")
    }

    /// The request exactly as it was received.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate that is asked for, with these dates.
    #[must_use]
    pub fn fields(&self, not_before: Ticks, not_after: Ticks) -> CertificateFields {
        CertificateFields {
            certificate_type: self.certificate_type,
            delegation: self.delegation,
            path_len: self.path_len,
            not_before,
            not_after,
            description: self.description.clone(),
            auxiliary: self.auxiliary.clone(),
            limits: self.limits.clone(),
        }
    }
}

/// Makes a request for a certificate with these fields, their dates aside, for `key`; returns its
/// DER, in exactly the form of the Python tool.
///
/// # Errors
/// The fields do not make a valid certificate of their type, or a known limit is optional.
pub fn request(fields: &CertificateFields, key: &PrivateKey) -> Result<Vec<u8>, RequestError> {
    if let Some(name) = fields.limits.optional_known_limits.first() {
        return Err(RequestError::OptionalLimit(name));
    }
    let der = encode(fields, key).map_err(RequestError::Unencodable)?;
    let request = SigningRequest::from_der(&der)?;
    // The texts have no escaping: a `;` in a description would smuggle in a pair of its own.
    if request.fields(fields.not_before, fields.not_after) == *fields {
        Ok(der)
    } else {
        Err(RequestError::Ambiguous)
    }
}

fn encode(fields: &CertificateFields, key: &PrivateKey) -> der::Result<Vec<u8>> {
    let spki = key.public_key().to_spki();
    let extensions = issue::requested_extensions(fields)?.to_der()?;
    let values = SetOfVec::try_from([AnyRef::from_der(&extensions)?])?;
    let content = Content {
        version: 0,
        subject: AnyRef::from_der(&issue::EMPTY_NAME)?,
        subject_public_key_info: AnyRef::from_der(&spki)?,
        attributes: SetOfVec::try_from([Attribute { id: EXTENSION_REQUEST, values }])?,
    };
    issue::sign(&content.to_der()?, key)
}

#[derive(Sequence)]
struct Content<'a> {
    version: u8,
    subject: AnyRef<'a>,
    subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    attributes: SetOfVec<Attribute<'a>>,
}

#[derive(Sequence, ValueOrd)]
struct Attribute<'a> {
    id: ObjectIdentifier,
    values: SetOfVec<AnyRef<'a>>,
}

/// Why a signing request is refused, or was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// A file that does not hold the one `CERTIFICATE REQUEST` section that is wanted.
    Pem(PemError),
    /// Not one signing request in DER.
    NotRequest(&'static str),
    /// Not what DER demands, or not the elements of a request.
    NotDer(Flaw),
    /// Its key or signature is not Ed25519.
    Algorithm,
    /// It was not signed by the key it asks for.
    Signature,
    /// It asks for a certificate that would break a rule, by type, delegation, path length or text.
    Invalid(CertificateError),
    /// A known limit shall be optional, and original programs crash on such a certificate (Q2).
    OptionalLimit(&'static str),
    /// A text holds characters that would change the meaning of the request.
    Ambiguous,
    /// The fields are too large for DER.
    Unencodable(der::Error),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(error) => error.fmt(f),
            Self::NotRequest(why) => write!(f, "not a signing request: {why}"),
            Self::NotDer(flaw) => write!(f, "not a signing request: {flaw}"),
            Self::Algorithm => f.write_str("the request is not for, and by, an Ed25519 key"),
            Self::Signature => f.write_str("the request was not signed by the key it asks for"),
            Self::Invalid(error) => write!(f, "the certificate asked for is invalid: {error}"),
            Self::OptionalLimit(name) => IssueError::OptionalLimit(name).fmt(f),
            Self::Ambiguous => IssueError::Ambiguous.fmt(f),
            Self::Unencodable(error) => write!(f, "the request cannot be encoded: {error}"),
        }
    }
}

impl std::error::Error for RequestError {}

#[cfg(test)]
mod tests;
