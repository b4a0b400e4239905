//! What X.509 holds, by the rules of spec/protocol.md 4.4: of certificates, and the parts that hold for signing
//! requests too. With `request` the only user of x509-parser, which reads only
//! what `form` has found to be strict DER.

use std::ops::Range;

use der::Decode as _;
use der::asn1::OctetStringRef;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::error::X509Error;
use x509_parser::extensions::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, X509Extension};
use x509_parser::nom::{self, Parser as _};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

use super::super::escape::clipped;
use super::super::key::{KeyId, PublicKey, SIGNATURE_LEN};
use super::super::name_value::{self, Dialect, Pair};
use super::certificate_type::{CertificateType, Delegation};
use super::error::{CertificateError, SHOWN_LEN};
use super::limits::CertificateLimits;

type Result<T, E = CertificateError> = std::result::Result<T, E>;

pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
pub(super) const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
pub(super) const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
pub(super) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(crate) const CERT_INFO: &[u8] = &[0x2a, 0x03, 0x01];
pub(crate) const CERT_LIMIT: &[u8] = &[0x2a, 0x03, 0x03];
/// Extensions that may be present (spec/protocol.md 4.2); the last four are not looked into.
const ALLOWED: [&[u8]; 10] = [
    AUTHORITY_KEY_ID,
    SUBJECT_KEY_ID,
    KEY_USAGE,
    BASIC_CONSTRAINTS,
    CERT_INFO,
    CERT_LIMIT,
    &[0x55, 0x1d, 0x1f],
    &[0x55, 0x1d, 0x2e],
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01],
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x0b],
];
/// What stands between the signed part and the 64 signature bytes: the algorithm and the head of a
/// BIT STRING.
const SIGNATURE_PREFIX: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];

/// The certificate as X.509 has it; its algorithms, version and extensions are those that are allowed.
pub(super) fn read(der: &[u8]) -> Result<X509Certificate<'_>> {
    // Extensions are parsed one by one below: those that PacketLab does not read need not make
    // sense.
    let (rest, x509) = X509CertificateParser::new()
        .with_deep_parse_extensions(false)
        .parse(der)
        .map_err(unreadable)?;
    if !rest.is_empty() {
        return Err(CertificateError::NotX509("bytes follow the certificate"));
    }
    check_head(&x509)?;
    Ok(x509)
}

/// The parser stops at the first thing it cannot read; name the rule if it tells.
fn unreadable(error: nom::Err<X509Error>) -> CertificateError {
    match error {
        nom::Err::Error(X509Error::InvalidDate) | nom::Err::Failure(X509Error::InvalidDate) => {
            CertificateError::Validity
        }
        nom::Err::Error(X509Error::InvalidSerial) => CertificateError::Serial,
        nom::Err::Error(X509Error::InvalidVersion) => CertificateError::Version,
        nom::Err::Error(X509Error::InvalidExtensions) => {
            CertificateError::Extensions("its extensions cannot be read")
        }
        _ => CertificateError::NotX509("its DER cannot be read"),
    }
}

/// Rules 1 and 2: algorithms, version, unique ids, allowed extensions.
fn check_head(x509: &X509Certificate<'_>) -> Result<()> {
    let is_ed25519 = |algorithm: &AlgorithmIdentifier<'_>| {
        algorithm.algorithm.as_bytes() == ED25519 && algorithm.parameters.is_none()
    };
    if !is_ed25519(&x509.signature_algorithm) {
        return Err(CertificateError::Algorithm);
    }
    if x509.version() != X509Version::V3 {
        return Err(CertificateError::Version);
    }
    if !is_ed25519(&x509.signature) {
        return Err(CertificateError::Algorithm);
    }
    if x509.issuer_uid.is_some() || x509.subject_uid.is_some() {
        return Err(CertificateError::Extensions("it has an issuer or subject unique id"));
    }
    if x509.extensions().is_empty() {
        return Err(CertificateError::Extensions("it has no extensions"));
    }
    if x509.iter_extensions().any(|extension| !ALLOWED.contains(&extension.oid.as_bytes())) {
        return Err(CertificateError::Extensions(
            "it has an extension that PacketLab does not allow",
        ));
    }
    Ok(())
}

/// Finds the signed bytes and the signature within a certificate or signing request. `None`: what
/// follows the signed bytes is no signature of Ed25519.
pub(crate) fn split_signature(
    der: &[u8],
    signed: &[u8],
) -> Option<(Range<usize>, [u8; SIGNATURE_LEN])> {
    let head_len = match der.get(1) {
        Some(&long @ 0x80..) => 2 + usize::from(long & 0x7f),
        _ => 2,
    };
    let range = head_len..head_len.saturating_add(signed.len());
    let rest = der.get(range.end..)?.strip_prefix(&SIGNATURE_PREFIX)?;
    let signature = rest.try_into().ok()?;
    (der.get(range.clone()) == Some(signed)).then_some((range, signature))
}

/// The one extension of that id, `None` if it is absent, an error if it is there twice.
fn find<'a, 'b>(
    extensions: &'a [X509Extension<'b>],
    oid: &[u8],
) -> Result<Option<&'a X509Extension<'b>>, &'static str> {
    let mut found = extensions.iter().filter(|extension| extension.oid.as_bytes() == oid);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err("is there twice"),
        (first, None) => Ok(first),
    }
}

/// The value of an extension that must be there, critical or not as told.
fn required<'a>(
    extensions: &[X509Extension<'a>],
    oid: &[u8],
    critical: bool,
) -> Result<&'a [u8], &'static str> {
    match find(extensions, oid)? {
        None => Err("is missing"),
        Some(extension) if critical && !extension.critical => Err("must be critical"),
        Some(extension) if !critical && extension.critical => Err("must not be critical"),
        Some(extension) => Ok(extension.value),
    }
}

/// Reads an extension value as one element that fills it.
fn whole<'a, T: FromDer<'a, X509Error>>(value: &'a [u8]) -> Option<T> {
    T::from_der(value).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, element)| element)
}

/// The bytes of an OCTET STRING within an extension value, which it must fill.
fn octets(value: &[u8]) -> Option<&[u8]> {
    <&OctetStringRef>::from_der(value).ok().map(OctetStringRef::as_bytes)
}

/// Text of cert_info or cert_limit: critical, and wrapped in a second OCTET STRING (Q20).
fn text<'a>(extensions: &[X509Extension<'a>], oid: &[u8]) -> Result<&'a [u8], &'static str> {
    octets(required(extensions, oid, true)?)
        .ok_or("must hold exactly one OCTET STRING within its value")
}

/// Rule 3, and what `cert_info` says beside the type.
pub(crate) struct Info {
    pub(crate) certificate_type: CertificateType,
    pub(crate) delegation: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) auxiliary: Vec<Pair>,
}

pub(crate) fn parse_info(extensions: &[X509Extension<'_>]) -> Result<Info> {
    let bad = CertificateError::Info;
    let text = text(extensions, CERT_INFO).map_err(|why| bad(why.to_owned()))?;
    let pairs = name_value::parse(Dialect::CertInfo, text).map_err(|e| bad(e.to_string()))?;
    let (mut kind, mut delegation, mut description) = (None, None, None);
    let mut auxiliary = Vec::new();
    for pair in pairs {
        match pair.name.as_str() {
            "cert_type" => kind = Some(pair.value),
            "del_type" => delegation = Some(pair.value),
            "cert_desc" => description = Some(pair.value),
            _ => auxiliary.push(pair),
        }
    }
    let certificate_type = kind.as_deref().and_then(CertificateType::from_name);
    let certificate_type = certificate_type.ok_or_else(|| {
        CertificateError::UnknownType(kind.as_deref().map(|kind| clipped(kind, SHOWN_LEN)))
    })?;
    Ok(Info { certificate_type, delegation, description, auxiliary })
}

/// Rule 4; whether the extension is critical does not matter (Q18).
pub(super) fn check_key_usage(
    extensions: &[X509Extension<'_>],
    kind: CertificateType,
) -> Result<()> {
    let usage = find(extensions, KEY_USAGE).ok().flatten().and_then(|e| whole::<KeyUsage>(e.value));
    let (digital_signature, key_cert_sign, crl_sign) = (0b1, 0b10_0000, 0b100_0000);
    let fits = match usage {
        None => false,
        Some(usage) if kind.signs_certificates() => usage.flags & !crl_sign == key_cert_sign,
        Some(usage) => usage.flags == digital_signature,
    };
    if fits { Ok(()) } else { Err(CertificateError::KeyUsage(kind)) }
}

/// Rule 6, first half.
pub(super) fn parse_authority_key_id(extensions: &[X509Extension<'_>]) -> Result<KeyId> {
    let bad = CertificateError::AuthorityKeyId;
    let value = required(extensions, AUTHORITY_KEY_ID, false).map_err(bad)?;
    whole::<AuthorityKeyIdentifier<'_>>(value)
        .and_then(|id| id.key_identifier)
        .and_then(|id| id.0.try_into().ok())
        .map(KeyId)
        .ok_or_else(|| bad("must hold a key id of 32 bytes"))
}

/// Rule 6, second half.
pub(super) fn parse_subject_key_id(
    extensions: &[X509Extension<'_>],
    subject_key: &PublicKey,
) -> Result<KeyId> {
    let bad = CertificateError::SubjectKeyId;
    let value = required(extensions, SUBJECT_KEY_ID, false).map_err(bad)?;
    let key_id = subject_key.key_id();
    if octets(value) == Some(&key_id.0) {
        Ok(key_id)
    } else {
        Err(bad("must be the SHA-256 of the raw subject key"))
    }
}

/// Rule 7: compulsory and critical on leaves too (Q18).
pub(crate) fn parse_basic_constraints(
    extensions: &[X509Extension<'_>],
    kind: CertificateType,
) -> Result<Option<u32>> {
    let bad = CertificateError::BasicConstraints;
    let value = required(extensions, BASIC_CONSTRAINTS, true).map_err(bad)?;
    let constraints: BasicConstraints = whole(value).ok_or_else(|| bad("cannot be read"))?;
    match (kind.signs_certificates(), constraints.ca, constraints.path_len_constraint) {
        (true, false, _) => Err(bad("must say that this certificate may sign others")),
        (false, true, _) => Err(bad("must not say that this certificate may sign others")),
        (false, false, Some(_)) => Err(bad("must not limit the path length of a leaf")),
        (_, _, path_len) => Ok(path_len),
    }
}

/// Rule 8 and the values of the limits.
pub(crate) fn parse_limits(
    extensions: &[X509Extension<'_>],
    kind: CertificateType,
) -> Result<CertificateLimits> {
    let bad = |why: &str| CertificateError::Limits(why.to_owned());
    if find(extensions, CERT_LIMIT).is_ok_and(|extension| extension.is_none()) {
        return Ok(CertificateLimits::default());
    }
    if !kind.signs_certificates() {
        return Err(bad("is allowed in exppriv and delpriv certificates only"));
    }
    CertificateLimits::parse(text(extensions, CERT_LIMIT).map_err(bad)?)
}

/// Rule 9.
pub(crate) fn parse_delegation(
    del_type: Option<&str>,
    kind: CertificateType,
) -> Result<Delegation> {
    let bad = CertificateError::Delegation;
    let words = match (del_type, kind) {
        (Some(words), CertificateType::Delpriv) => words,
        (None, CertificateType::Delpriv) => return Err(bad("is missing")),
        (Some(_), _) => return Err(bad("is allowed in delpriv certificates only")),
        (None, _) => return Ok(Delegation::default()),
    };
    let mut delegation = Delegation::default();
    for word in words.split(',') {
        match word {
            "exppriv" => delegation.exppriv = true,
            "reppriv" => delegation.reppriv = true,
            _ => return Err(bad("must be a comma list of exppriv and reppriv")),
        }
    }
    Ok(delegation)
}
