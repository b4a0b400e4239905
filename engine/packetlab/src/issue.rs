//! Making certificates in exactly the DER form of spec/protocol.md 4.2.
//!
//! Not here: reading certificates (`certificate`), asking for them (`request`), files and
//! prompts (`home`, `cli`). Invariant:
//! whatever [`issue`] returns decodes to the very fields that were asked for, and no original
//! program crashes on it.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand;
use der::asn1::{
    AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetString, OctetStringRef, UintRef,
    UtcTime,
};
use der::{Choice, DateTime, Decode as _, Encode, Sequence};

use super::certificate::{
    Certificate, CertificateError, CertificateLimits, CertificateType, Delegation,
};
use super::key::{KeyId, PrivateKey, PublicKey};
use super::name_value::{self, Pair};
use super::time::Ticks;

/// Length of the random serial number in bytes (spec/protocol.md 4.2).
const SERIAL_LEN: usize = 16;
const ED25519: Algorithm = Algorithm { oid: ObjectIdentifier::new_unwrap("1.3.101.112") };
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const CERT_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.1");
const CERT_LIMIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.3");
/// Issuer and subject: a common name of one space (spec/protocol.md 4.2).
pub(super) const EMPTY_NAME: [u8; 14] =
    [0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, 0x20];

/// What a certificate shall say, beside its keys (spec/protocol.md 4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFields {
    /// What it is for.
    pub certificate_type: CertificateType,
    /// What a `delpriv` delegates; nothing for the other types.
    pub delegation: Delegation,
    /// How many delegations may stand below; only `exppriv` and `delpriv` may limit it.
    pub path_len: Option<u32>,
    /// First second of validity; parts of seconds are cut off.
    pub not_before: Ticks,
    /// Last second of validity; [`Ticks::MAX`] is never, written as the end of the year 9999.
    pub not_after: Ticks,
    /// `cert_desc`.
    pub description: Option<String>,
    /// Further pairs of `cert_info`.
    pub auxiliary: Vec<Pair>,
    /// `cert_limit`; only `exppriv` and `delpriv` may limit anything.
    pub limits: CertificateLimits,
}

impl From<&Certificate> for CertificateFields {
    fn from(certificate: &Certificate) -> Self {
        Self {
            certificate_type: certificate.certificate_type,
            delegation: certificate.delegation,
            path_len: certificate.path_len,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            description: certificate.description().map(str::to_owned),
            auxiliary: certificate.auxiliary(),
            limits: certificate.limits(),
        }
    }
}

/// Makes a certificate for `subject`, signed by `signer`, with a random serial number; returns its
/// DER.
///
/// # Errors
/// The fields do not make a valid certificate of their type, or the random generator fails.
pub fn issue(
    fields: &CertificateFields,
    subject: &PublicKey,
    signer: &PrivateKey,
) -> Result<Vec<u8>, IssueError> {
    let mut serial = [0; SERIAL_LEN];
    while serial == [0; SERIAL_LEN] {
        rand::fill(&mut serial).map_err(|_| IssueError::NoRandomness)?;
    }
    issue_with_serial(fields, subject, signer, &serial)
}

/// As [`issue`], with a given serial number (big-endian, unsigned).
pub(crate) fn issue_with_serial(
    fields: &CertificateFields,
    subject: &PublicKey,
    signer: &PrivateKey,
    serial: &[u8],
) -> Result<Vec<u8>, IssueError> {
    if let Some(name) = fields.limits.optional_known_limits.first() {
        return Err(IssueError::OptionalLimit(name));
    }
    if fields.not_after < fields.not_before {
        return Err(IssueError::EndsBeforeItStarts);
    }
    let wanted = to_seconds(fields);
    let der = encode(&wanted, subject, signer, serial).map_err(IssueError::Unencodable)?;
    let certificate = Certificate::from_der(&der).map_err(IssueError::Invalid)?;
    // The texts have no escaping: a `;` in a description would smuggle in a pair of its own.
    if CertificateFields::from(&certificate) == wanted {
        Ok(der)
    } else {
        Err(IssueError::Ambiguous)
    }
}

/// Certificates know whole seconds only.
fn to_seconds(fields: &CertificateFields) -> CertificateFields {
    let cut = |time: Ticks| match time {
        Ticks::MAX => time,
        Ticks(ticks) => Ticks(ticks - ticks % 1_000_000_000),
    };
    let (not_before, not_after) = (cut(fields.not_before), cut(fields.not_after));
    CertificateFields { not_before, not_after, ..fields.clone() }
}

fn encode(
    fields: &CertificateFields,
    subject: &PublicKey,
    signer: &PrivateKey,
    serial: &[u8],
) -> der::Result<Vec<u8>> {
    let subject_public_key_info = subject.to_spki();
    let tbs = Tbs {
        version: 2,
        serial: UintRef::new(serial)?,
        signature: ED25519,
        issuer: AnyRef::from_der(&EMPTY_NAME)?,
        validity: Validity {
            not_before: Time::new(fields.not_before)?,
            not_after: Time::new(fields.not_after)?,
        },
        subject: AnyRef::from_der(&EMPTY_NAME)?,
        subject_public_key_info: AnyRef::from_der(&subject_public_key_info)?,
        extensions: extensions(fields, subject.key_id(), signer.public_key().key_id())?,
    }
    .to_der()?;
    sign(&tbs, signer)
}

/// The signed form of a certificate or signing request.
pub(super) fn sign(content: &[u8], signer: &PrivateKey) -> der::Result<Vec<u8>> {
    let signature = signer.sign(content);
    Signed {
        content: AnyRef::from_der(content)?,
        algorithm: ED25519,
        signature: BitStringRef::from_bytes(&signature)?,
    }
    .to_der()
}

/// In the order of spec/protocol.md 4.2.
fn extensions(
    fields: &CertificateFields,
    subject: KeyId,
    authority: KeyId,
) -> der::Result<Vec<Extension>> {
    let signs = fields.certificate_type.signs_certificates();
    let key_usage: &[u8] = if signs { &[3, 2, 2, 4] } else { &[3, 2, 7, 0x80] };
    let mut extensions = vec![
        Extension::new(
            AUTHORITY_KEY_ID,
            false,
            [&[0x30, 0x22, 0x80, 0x20], &authority.0[..]].concat(),
        )?,
        Extension::new(SUBJECT_KEY_ID, false, OctetStringRef::new(&subject.0)?.to_der()?)?,
        Extension::new(KEY_USAGE, true, key_usage.to_vec())?,
        constraints(fields)?,
    ];
    extensions.extend(texts(fields)?);
    Ok(extensions)
}

/// What a signing request holds of them (spec/protocol.md 4.9).
pub(super) fn requested_extensions(fields: &CertificateFields) -> der::Result<Vec<Extension>> {
    let mut extensions = match fields.path_len {
        Some(_) => vec![constraints(fields)?],
        None => Vec::new(),
    };
    extensions.extend(texts(fields)?);
    Ok(extensions)
}

fn constraints(fields: &CertificateFields) -> der::Result<Extension> {
    let ca = fields.certificate_type.signs_certificates();
    let constraints = Constraints { ca, path_len: fields.path_len };
    Extension::new(BASIC_CONSTRAINTS, true, constraints.to_der()?)
}

/// cert_info, and cert_limit if anything is limited.
fn texts(fields: &CertificateFields) -> der::Result<Vec<Extension>> {
    let mut extensions = vec![Extension::text(CERT_INFO, &info(fields))?];
    let limits = fields.limits.to_text();
    if !limits.is_empty() {
        extensions.push(Extension::text(CERT_LIMIT, &limits)?);
    }
    Ok(extensions)
}

/// The text of cert_info: type, delegation, description, auxiliary pairs.
fn info(fields: &CertificateFields) -> String {
    let pair = |name: &str, value: &str| Pair { name: name.to_owned(), value: value.to_owned() };
    let mut pairs = vec![pair("cert_type", fields.certificate_type.name())];
    let words: Vec<&str> = [
        fields.delegation.exppriv.then_some("exppriv"),
        fields.delegation.reppriv.then_some("reppriv"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !words.is_empty() {
        pairs.push(pair("del_type", &words.join(",")));
    }
    if let Some(description) = &fields.description {
        pairs.push(pair("cert_desc", description));
    }
    pairs.extend(fields.auxiliary.iter().cloned());
    name_value::encode(&pairs)
}

#[derive(Sequence)]
struct Signed<'a> {
    content: AnyRef<'a>,
    algorithm: Algorithm,
    signature: BitStringRef<'a>,
}

#[derive(Sequence)]
struct Tbs<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial: UintRef<'a>,
    signature: Algorithm,
    issuer: AnyRef<'a>,
    validity: Validity,
    subject: AnyRef<'a>,
    subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Algorithm {
    oid: ObjectIdentifier,
}

#[derive(Sequence)]
struct Validity {
    not_before: Time,
    not_after: Time,
}

#[derive(Choice)]
enum Time {
    #[asn1(type = "UTCTime")]
    Utc(UtcTime),
    #[asn1(type = "GeneralizedTime")]
    Generalized(GeneralizedTime),
}

impl Time {
    /// UTCTime up to 2049, as RFC 5280 wants it.
    fn new(time: Ticks) -> der::Result<Self> {
        if time == Ticks::MAX {
            return Ok(Self::Generalized(DateTime::INFINITY.into()));
        }
        let since_epoch = Duration::from_nanos(time.0);
        match UtcTime::from_unix_duration(since_epoch) {
            Ok(time) => Ok(Self::Utc(time)),
            Err(_) => GeneralizedTime::from_unix_duration(since_epoch).map(Self::Generalized),
        }
    }
}

#[derive(Sequence)]
struct Constraints {
    #[asn1(default = "Default::default")]
    ca: bool,
    #[asn1(optional = "true")]
    path_len: Option<u32>,
}

#[derive(Sequence)]
pub(super) struct Extension {
    id: ObjectIdentifier,
    #[asn1(default = "Default::default")]
    critical: bool,
    value: OctetString,
}

impl Extension {
    fn new(id: ObjectIdentifier, critical: bool, value: Vec<u8>) -> der::Result<Self> {
        Ok(Self { id, critical, value: OctetString::new(value)? })
    }

    /// A PacketLab text, in its second OCTET STRING (Q20).
    fn text(id: ObjectIdentifier, text: &str) -> der::Result<Self> {
        Self::new(id, true, OctetStringRef::new(text.as_bytes())?.to_der()?)
    }
}

/// Why a certificate was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueError {
    /// A known limit shall be optional, and original programs crash on such a certificate (Q2).
    OptionalLimit(&'static str),
    /// The end of validity lies before its start.
    EndsBeforeItStarts,
    /// The fields break a rule of certificates.
    Invalid(CertificateError),
    /// A text holds characters that would change the meaning of the certificate.
    Ambiguous,
    /// The fields are too large for DER.
    Unencodable(der::Error),
    /// The system's random generator failed.
    NoRandomness,
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OptionalLimit(name) => write!(
                f,
                "the limit {name} cannot be optional: \
                 original PacketLab programs crash on such a certificate"
            ),
            Self::EndsBeforeItStarts => f.write_str("the certificate would end before it starts"),
            Self::Invalid(error) => write!(f, "the certificate would be invalid: {error}"),
            Self::Ambiguous => f.write_str(
                "the description, an additional pair or a limit would be read as something \
                 else; names and values cannot hold `=` or `;`, and reserved names cannot be used",
            ),
            Self::Unencodable(error) => write!(f, "the certificate cannot be encoded: {error}"),
            Self::NoRandomness => f.write_str("the system's random generator failed"),
        }
    }
}

impl std::error::Error for IssueError {}

#[cfg(test)]
mod tests;
