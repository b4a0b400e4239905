//! Why a certificate is refused, with the result codes of spec/protocol.md 4.4.

use std::fmt;

use super::super::pem::PemError;
use super::super::strict_der::Flaw;
use super::certificate_type::CertificateType;

/// How much of a text in a certificate is repeated in an error: whoever presents it chooses how long it is.
pub(super) const SHOWN_LEN: usize = 64;

/// The rule of spec/protocol.md 4.4 that a certificate breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateError {
    /// A file that does not hold the `CERTIFICATE` section that is wanted.
    Pem(PemError),
    /// Not one X.509 certificate in DER.
    NotX509(&'static str),
    /// Not what DER demands, or not the elements of a certificate.
    NotDer {
        /// Result code of the rule to which the flawed part belongs.
        code: u8,
        /// What is wrong and where.
        flaw: Flaw,
    },
    /// Signed with something else than Ed25519.
    Algorithm,
    /// Not X.509 version 3.
    Version,
    /// Unique ids, or extensions missing, broken or not allowed.
    Extensions(&'static str),
    /// `cert_type` is missing or unknown.
    UnknownType(Option<String>),
    /// keyUsage is not what the type demands.
    KeyUsage(CertificateType),
    /// The serial number is zero or broken.
    Serial,
    /// A date cannot be read.
    Validity,
    /// The subject key is not an Ed25519 key.
    SubjectKey,
    /// authorityKeyIdentifier.
    AuthorityKeyId(&'static str),
    /// subjectKeyIdentifier.
    SubjectKeyId(&'static str),
    /// basicConstraints.
    BasicConstraints(&'static str),
    /// The cert_info extension or its text.
    Info(String),
    /// The cert_limit extension or its text.
    Limits(String),
    /// One limit has a value that cannot be read.
    Limit {
        /// Name of the limit.
        name: &'static str,
        /// Its result code.
        code: u8,
        /// The value.
        value: String,
    },
    /// `del_type` is missing, misplaced or unknown.
    Delegation(&'static str),
}

impl CertificateError {
    /// The result code of the original's library (spec/protocol.md 4.4).
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Pem(_) | Self::NotX509(_) => 1,
            Self::NotDer { code, .. } => *code,
            Self::Algorithm => 2,
            Self::Version => 4,
            Self::Extensions(_) => 5,
            Self::UnknownType(_) => 6,
            Self::KeyUsage(_) => 7,
            Self::Serial => 8,
            Self::Validity => 9,
            Self::SubjectKey => 10,
            Self::AuthorityKeyId(_) => 11,
            Self::SubjectKeyId(_) => 12,
            Self::BasicConstraints(_) => 13,
            Self::Info(_) => 14,
            Self::Limits(_) => 15,
            Self::Limit { code, .. } => *code,
            Self::Delegation(_) => 18,
        }
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(error) => error.fmt(f),
            Self::NotX509(why) => write!(f, "not an X.509 certificate: {why}"),
            Self::NotDer { code: 1, flaw } => write!(f, "not an X.509 certificate: {flaw}"),
            Self::NotDer { flaw, .. } => flaw.fmt(f),
            Self::Algorithm => f.write_str("not signed with Ed25519"),
            Self::Version => f.write_str("not an X.509 certificate of version 3"),
            Self::Extensions(why) => f.write_str(why),
            Self::UnknownType(None) => f.write_str("cert_info names no cert_type"),
            Self::UnknownType(Some(name)) => write!(f, "cert_type `{name}` is unknown"),
            Self::KeyUsage(kind) if kind.signs_certificates() => write!(
                f,
                "keyUsage must be exactly keyCertSign, with or without cRLSign, \
                 in certificates of type {kind}"
            ),
            Self::KeyUsage(kind) => {
                write!(
                    f,
                    "keyUsage must be exactly digitalSignature in certificates of type {kind}"
                )
            }
            Self::Serial => f.write_str("the serial number is zero or unreadable"),
            Self::Validity => f.write_str("a date of its validity cannot be read"),
            Self::SubjectKey => f.write_str("its subject key is not an Ed25519 key of 32 bytes"),
            Self::AuthorityKeyId(why) => write!(f, "authorityKeyIdentifier {why}"),
            Self::SubjectKeyId(why) => write!(f, "subjectKeyIdentifier {why}"),
            Self::BasicConstraints(why) => write!(f, "basicConstraints {why}"),
            Self::Info(why) => write!(f, "cert_info {why}"),
            Self::Limits(why) => write!(f, "cert_limit {why}"),
            Self::Limit { name, value, .. } => {
                write!(f, "cert_limit has an unreadable value for {name}: `{value}`")
            }
            Self::Delegation(why) => write!(f, "del_type {why}"),
        }
    }
}

impl std::error::Error for CertificateError {}

impl From<PemError> for CertificateError {
    fn from(error: PemError) -> Self {
        Self::Pem(error)
    }
}
