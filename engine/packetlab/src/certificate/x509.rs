//! What X.509 holds, by the rules of spec/protocol.md 4.4: of certificates, and the parts that hold for signing
//! requests too.
//!
//! Not here: where those parts stand, and that they are strict DER (`form`). Of x509-parser single elements are asked
//! for, never a whole certificate: it makes lists of names and extensions that are many times their length, and whoever
//! presents one chooses how many it has. Invariant: nothing is allocated whose size a certificate chooses.

use std::ops::Range;

use x509_parser::certificate::Validity;
use x509_parser::error::X509Error;
use x509_parser::extensions::{BasicConstraints, KeyUsage};
use x509_parser::prelude::FromDer;

use super::super::escape::clipped;
use super::super::key::{KeyId, PublicKey, SIGNATURE_LEN};
use super::super::name_value::{self, Dialect, NameValueError, Pair};
use super::super::strict_der::{Element, OCTET_STRING, SEQUENCE};
use super::super::time::Ticks;
use super::certificate_type::{CertificateType, Delegation};
use super::error::{CertificateError, SHOWN_LEN};
use super::form::{CertificateParts, Extensions, Occurrence};
use super::limits;

type Result<T, E = CertificateError> = std::result::Result<T, E>;

pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// The algorithm Ed25519 as DER, which has no parameters.
const ED25519_ALGORITHM: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
/// The INTEGER that stands for version 3.
const VERSION_3: &[u8] = &[2];
/// What stands between the signed part and the 64 signature bytes: the algorithm and the head of a
/// BIT STRING.
const SIGNATURE_PREFIX: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];

/// Rules 1 and 2: algorithms, version, unique ids, allowed extensions.
pub(super) fn check_head(parts: &CertificateParts<'_>) -> Result<()> {
    if parts.algorithm.whole != ED25519_ALGORITHM {
        return Err(CertificateError::Algorithm);
    }
    if parts.version.is_none_or(|version| version.content != VERSION_3) {
        return Err(CertificateError::Version);
    }
    if parts.signed_algorithm.whole != ED25519_ALGORITHM {
        return Err(CertificateError::Algorithm);
    }
    if parts.has_unique_id {
        return Err(CertificateError::Extensions("it has an issuer or subject unique id"));
    }
    if parts.extensions.are_none {
        return Err(CertificateError::Extensions("it has no extensions"));
    }
    if parts.extensions.hold_forbidden {
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

impl<'a> Occurrence<'a> {
    /// The value of an extension that must be there, critical or not as told.
    fn required(&self, must_be_critical: bool) -> Result<Element<'a>, &'static str> {
        match *self {
            Self::Absent => Err("is missing"),
            Self::Repeated => Err("is there twice"),
            Self::Once { critical: false, .. } if must_be_critical => Err("must be critical"),
            Self::Once { critical: true, .. } if !must_be_critical => Err("must not be critical"),
            Self::Once { value, .. } => Ok(value),
        }
    }

    /// Text of cert_info or cert_limit: critical, and wrapped in a second OCTET STRING (Q20).
    fn text(&self) -> Result<Element<'a>, &'static str> {
        octets(&self.required(true)?).ok_or("must hold exactly one OCTET STRING within its value")
    }
}

/// Reads an element as a value that fills it.
fn whole<'a, T: FromDer<'a, X509Error>>(der: &'a [u8]) -> Option<T> {
    T::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, value)| value)
}

/// The OCTET STRING within an extension value, which it must fill.
fn octets<'a>(value: &Element<'a>) -> Option<Element<'a>> {
    let mut inside = value.inside();
    let octets = inside.take(OCTET_STRING).ok()?;
    inside.is_empty().then_some(octets)
}

/// First and last moment of validity.
pub(super) fn parse_validity(validity: &Element<'_>) -> Result<(Ticks, Ticks)> {
    let validity: Validity = whole(validity.whole).ok_or(CertificateError::Validity)?;
    let ticks = |time: x509_parser::time::ASN1Time| Ticks::from_unix_seconds(time.timestamp());
    Ok((ticks(validity.not_before), ticks(validity.not_after)))
}

/// The text of `cert_info`, known to keep its grammar.
#[derive(Clone, Copy)]
pub(crate) struct InfoText<'a>(&'a str);

impl<'a> InfoText<'a> {
    pub(super) fn check(text: &'a [u8]) -> Result<Self, NameValueError> {
        name_value::check(Dialect::CertInfo, text).map(Self)
    }

    fn value(self, name: &str) -> Option<&'a str> {
        name_value::pairs(self.0).find(|pair| pair.0 == name).map(|(_, value)| value)
    }

    /// Free text.
    pub(crate) fn description(self) -> Option<&'a str> {
        self.value("cert_desc")
    }

    /// Pairs without meaning to PacketLab, in order.
    pub(crate) fn auxiliary(self) -> Vec<Pair> {
        let known = ["cert_type", "del_type", "cert_desc"];
        let others = name_value::pairs(self.0).filter(|(name, _)| !known.contains(name));
        others.map(Pair::from).collect()
    }
}

/// Rule 3, and the text that says the rest.
pub(crate) struct Info<'a> {
    pub(crate) certificate_type: CertificateType,
    /// Where the text stands.
    pub(super) element: Element<'a>,
    pub(crate) text: InfoText<'a>,
}

pub(crate) fn parse_info<'a>(extensions: &Extensions<'a>) -> Result<Info<'a>> {
    let bad = CertificateError::Info;
    let element = extensions.cert_info.text().map_err(|why| bad(why.to_owned()))?;
    let text = InfoText::check(element.content).map_err(|error| bad(error.to_string()))?;
    let kind = text.value("cert_type");
    let certificate_type = kind
        .and_then(CertificateType::from_name)
        .ok_or_else(|| CertificateError::UnknownType(kind.map(|kind| clipped(kind, SHOWN_LEN))))?;
    Ok(Info { certificate_type, element, text })
}

/// Rule 4; whether the extension is critical does not matter (Q18).
pub(super) fn check_key_usage(extensions: &Extensions<'_>, kind: CertificateType) -> Result<()> {
    let usage = match &extensions.key_usage {
        Occurrence::Once { value, .. } => whole::<KeyUsage>(value.content),
        _ => None,
    };
    let (digital_signature, key_cert_sign, crl_sign) = (0b1, 0b10_0000, 0b100_0000);
    let fits = match usage {
        None => false,
        Some(usage) if kind.signs_certificates() => usage.flags & !crl_sign == key_cert_sign,
        Some(usage) => usage.flags == digital_signature,
    };
    if fits { Ok(()) } else { Err(CertificateError::KeyUsage(kind)) }
}

/// Rule 6, first half.
pub(super) fn parse_authority_key_id(extensions: &Extensions<'_>) -> Result<KeyId> {
    let bad = CertificateError::AuthorityKeyId;
    let value = extensions.authority_key_id.required(false).map_err(bad)?;
    let key_id = || {
        let id = value.inside().take(SEQUENCE).ok()?.inside().optional(0x80).ok()??;
        id.content.try_into().ok()
    };
    key_id().map(KeyId).ok_or_else(|| bad("must hold a key id of 32 bytes"))
}

/// Rule 6, second half.
pub(super) fn parse_subject_key_id(
    extensions: &Extensions<'_>,
    subject_key: &PublicKey,
) -> Result<KeyId> {
    let bad = CertificateError::SubjectKeyId;
    let value = extensions.subject_key_id.required(false).map_err(bad)?;
    let key_id = subject_key.key_id();
    if octets(&value).is_some_and(|found| found.content == key_id.0) {
        Ok(key_id)
    } else {
        Err(bad("must be the SHA-256 of the raw subject key"))
    }
}

/// Rule 7: compulsory and critical on leaves too (Q18).
pub(crate) fn parse_basic_constraints(
    extensions: &Extensions<'_>,
    kind: CertificateType,
) -> Result<Option<u32>> {
    let bad = CertificateError::BasicConstraints;
    let value = extensions.basic_constraints.required(true).map_err(bad)?;
    let constraints: BasicConstraints =
        whole(value.content).ok_or_else(|| bad("cannot be read"))?;
    match (kind.signs_certificates(), constraints.ca, constraints.path_len_constraint) {
        (true, false, _) => Err(bad("must say that this certificate may sign others")),
        (false, true, _) => Err(bad("must not say that this certificate may sign others")),
        (false, false, Some(_)) => Err(bad("must not limit the path length of a leaf")),
        (_, _, path_len) => Ok(path_len),
    }
}

/// Rule 8 and the values of the limits; where their text stands, which is checked.
pub(crate) fn check_limits<'a>(
    extensions: &Extensions<'a>,
    kind: CertificateType,
) -> Result<Option<Element<'a>>> {
    let bad = |why: &str| CertificateError::Limits(why.to_owned());
    if matches!(extensions.cert_limit, Occurrence::Absent) {
        return Ok(None);
    }
    if !kind.signs_certificates() {
        return Err(bad("is allowed in exppriv and delpriv certificates only"));
    }
    let text = extensions.cert_limit.text().map_err(bad)?;
    limits::check(text.content)?;
    Ok(Some(text))
}

/// Rule 9.
pub(crate) fn parse_delegation(info: &Info<'_>) -> Result<Delegation> {
    let bad = CertificateError::Delegation;
    let words = match (info.text.value("del_type"), info.certificate_type) {
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
