//! The form of certificates and signing requests in strict DER: which elements, in which order, and
//! none beside them (RFC 5280, RFC 2986).
//!
//! Not here: what they say (`x509`, `request`). Flaws within the part of a rule of spec/protocol.md 4.4 carry
//! that rule's result code. Beyond the encoding nothing is demanded that the original does not: a sequence
//! may be empty, and names may hold anything. Invariant: nothing is allocated, however many elements there are.

use super::super::strict_der::{
    BIT_STRING, BOOLEAN, DerReader, Element, Flaw, GENERALIZED_TIME, INTEGER, OBJECT_ID,
    OCTET_STRING, SEQUENCE, SET, UTC_TIME,
};
use super::error::CertificateError;

const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const CERT_INFO: &[u8] = &[0x2a, 0x03, 0x01];
const CERT_LIMIT: &[u8] = &[0x2a, 0x03, 0x03];
/// Extensions that may be there as well and are not looked into (spec/protocol.md 4.2).
const UNREAD: [&[u8]; 4] = [
    &[0x55, 0x1d, 0x1f],
    &[0x55, 0x1d, 0x2e],
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01],
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x0b],
];

const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];

/// Of a tag: the bits of its class, which are zero in universal types.
const CLASS: u8 = 0xc0;

/// The general name that is a name like those of issuer and subject.
const DIRECTORY_NAME: u8 = 0xa4;

type Result<T = ()> = std::result::Result<T, CertificateError>;
type Checked<T = ()> = std::result::Result<T, Flaw>;

impl From<Flaw> for CertificateError {
    fn from(flaw: Flaw) -> Self {
        Self::NotDer { code: 1, flaw }
    }
}

/// Makes a flaw one in the part of the rule with this result code.
fn of_rule(code: u8) -> impl Fn(Flaw) -> CertificateError {
    move |flaw| CertificateError::NotDer { code, flaw }
}

/// Where the parts of a certificate stand that its rules are about.
pub(super) struct CertificateParts<'a> {
    /// What is signed.
    pub(super) signed: Element<'a>,
    /// The INTEGER within the `[0]`.
    pub(super) version: Option<Element<'a>>,
    pub(super) serial: Element<'a>,
    /// The algorithm that is named in the signed part.
    pub(super) signed_algorithm: Element<'a>,
    pub(super) validity: Element<'a>,
    pub(super) key: Element<'a>,
    pub(super) has_unique_id: bool,
    pub(super) extensions: Extensions<'a>,
    /// The algorithm that is named beside the signature.
    pub(super) algorithm: Element<'a>,
}

/// The extensions that PacketLab reads, and what matters of the others.
#[derive(Default)]
pub(crate) struct Extensions<'a> {
    pub(super) authority_key_id: Occurrence<'a>,
    pub(super) subject_key_id: Occurrence<'a>,
    pub(super) key_usage: Occurrence<'a>,
    pub(crate) basic_constraints: Occurrence<'a>,
    pub(super) cert_info: Occurrence<'a>,
    pub(super) cert_limit: Occurrence<'a>,
    /// There are none at all.
    pub(super) are_none: bool,
    /// One of them is allowed nowhere.
    pub(super) hold_forbidden: bool,
}

/// Whether an extension is there.
#[derive(Default)]
pub(crate) enum Occurrence<'a> {
    #[default]
    Absent,
    Once {
        critical: bool,
        value: Element<'a>,
    },
    Repeated,
}

/// Checks the form of a certificate, the forms within its extensions included, and tells where its parts stand.
///
/// # Errors
/// The first flaw.
pub(super) fn check_certificate(der: &[u8]) -> Result<CertificateParts<'_>> {
    let mut file = DerReader::new(der);
    let mut certificate = file.take(SEQUENCE)?.inside();
    file.end()?;
    let signed = certificate.take(SEQUENCE)?;
    let mut tbs = signed.inside();
    let version = version(&mut tbs).map_err(of_rule(4))?;
    let serial = tbs.take(INTEGER).map_err(of_rule(8))?;
    let signed_algorithm = algorithm(&mut tbs).map_err(of_rule(2))?;
    name(&mut tbs)?;
    let validity = validity(&mut tbs).map_err(of_rule(9))?;
    name(&mut tbs)?;
    let key = key(&mut tbs).map_err(of_rule(10))?;
    let mut has_unique_id = false;
    for unique_id in [0x81, 0x82] {
        if let Some(id) = tbs.optional(unique_id).map_err(of_rule(5))? {
            id.check_as(BIT_STRING).map_err(of_rule(5))?;
            has_unique_id = true;
        }
    }
    let mut extensions = Extensions { are_none: true, ..Extensions::default() };
    if let Some(wrapped) = tbs.optional(0xa3).map_err(of_rule(5))? {
        let mut wrapped = wrapped.inside();
        extensions = self::extensions(&mut wrapped)?;
        wrapped.end()?;
    }
    tbs.end()?;
    let algorithm = algorithm(&mut certificate).map_err(of_rule(2))?;
    certificate.take(BIT_STRING)?;
    certificate.end()?;
    Ok(CertificateParts {
        signed,
        version,
        serial,
        signed_algorithm,
        validity,
        key,
        has_unique_id,
        extensions,
        algorithm,
    })
}

/// Checks the form of a signing request, the forms within the extensions it asks for included, and tells what
/// extensions it asks for; `None`: not once.
///
/// # Errors
/// The first flaw.
pub(crate) fn check_request(der: &[u8]) -> Result<Option<Extensions<'_>>> {
    let mut file = DerReader::new(der);
    let mut request = file.take(SEQUENCE)?.inside();
    file.end()?;
    let mut info = request.take(SEQUENCE)?.inside();
    info.take(INTEGER)?;
    name(&mut info)?;
    key(&mut info)?;
    let mut order = Order::default();
    let mut attributes = info.take(0xa0)?.inside();
    let mut requested = (0, None);
    while !attributes.is_empty() {
        attribute(&mut attributes, &mut order, &mut requested)?;
    }
    info.end()?;
    algorithm(&mut request)?;
    request.take(BIT_STRING)?;
    request.end()?;
    let (count, extensions) = requested;
    Ok(extensions.filter(|_| count == 1))
}

/// The first attribute or the next one; `requested` are how many sets of extensions have been asked for, and the last.
fn attribute<'a>(
    attributes: &mut DerReader<'a>,
    order: &mut Order<'a>,
    requested: &mut (usize, Option<Extensions<'a>>),
) -> Result {
    let whole = attributes.take(SEQUENCE)?;
    let mut attribute = whole.inside();
    let id = attribute.take(OBJECT_ID)?;
    let mut values = attribute.take(SET)?.inside();
    attribute.end()?;
    let mut value_order = Order::default();
    while !values.is_empty() {
        if id.content == EXTENSION_REQUEST {
            *requested = (requested.0 + 1, Some(extensions(&mut values)?));
        } else {
            let value = values.any()?;
            value.check_within()?;
            value_order.check(&value)?;
        }
    }
    Ok(order.check(&whole)?)
}

/// The explicit `[0]` of the version, which certificates of version 1 lack.
fn version<'a>(tbs: &mut DerReader<'a>) -> Checked<Option<Element<'a>>> {
    let Some(wrapped) = tbs.optional(0xa0)? else { return Ok(None) };
    let mut wrapped = wrapped.inside();
    let version = wrapped.take(INTEGER)?;
    wrapped.end().map(|()| Some(version))
}

fn algorithm<'a>(reader: &mut DerReader<'a>) -> Checked<Element<'a>> {
    let whole = reader.take(SEQUENCE)?;
    let mut algorithm = whole.inside();
    algorithm.take(OBJECT_ID)?;
    if !algorithm.is_empty() {
        algorithm.any()?.check_within()?;
    }
    algorithm.end().map(|()| whole)
}

fn key<'a>(reader: &mut DerReader<'a>) -> Checked<Element<'a>> {
    let whole = reader.take(SEQUENCE)?;
    let mut key = whole.inside();
    algorithm(&mut key)?;
    key.take(BIT_STRING)?;
    key.end().map(|()| whole)
}

fn name(reader: &mut DerReader<'_>) -> Checked {
    let mut name = reader.take(SEQUENCE)?.inside();
    while !name.is_empty() {
        let mut attributes = name.take(SET)?.inside();
        let mut order = Order::default();
        while !attributes.is_empty() {
            let whole = attributes.take(SEQUENCE)?;
            let mut attribute = whole.inside();
            attribute.take(OBJECT_ID)?;
            let value = attribute.any()?;
            if value.tag & CLASS != 0 {
                let problem = "the value of an attribute must be of a universal type";
                return Err(Flaw { offset: value.start, problem });
            }
            value.check_within()?;
            attribute.end()?;
            order.check(&whole)?;
        }
    }
    Ok(())
}

/// The order of the elements of a SET OF: ascending by their bytes.
#[derive(Default)]
struct Order<'a> {
    previous: &'a [u8],
}

impl<'a> Order<'a> {
    fn check(&mut self, next: &Element<'a>) -> Checked {
        if self.previous > next.whole {
            let problem = "the elements of a SET OF must be in ascending order";
            return Err(Flaw { offset: next.start, problem });
        }
        self.previous = next.whole;
        Ok(())
    }
}

fn validity<'a>(tbs: &mut DerReader<'a>) -> Checked<Element<'a>> {
    let whole = tbs.take(SEQUENCE)?;
    let mut validity = whole.inside();
    time(&mut validity)?;
    time(&mut validity)?;
    validity.end().map(|()| whole)
}

/// `YYMMDDHHMMSSZ` as UTCTime or `YYYYMMDDHHMMSSZ` as GeneralizedTime, and a date of the calendar.
fn time(validity: &mut DerReader<'_>) -> Checked {
    let (time, year_len) = match validity.optional(UTC_TIME)? {
        Some(time) => (time, 2),
        None => match validity.optional(GENERALIZED_TIME)? {
            Some(time) => (time, 4),
            None => return Err(validity.flaw("a UTCTime or GeneralizedTime must stand here")),
        },
    };
    let flaw = |at, problem| Err(Flaw { offset: time.offset + at, problem });
    let digits = time.content.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits != year_len + 10 || time.content.get(digits..) != Some(b"Z") {
        return flaw(
            digits.min(year_len + 10),
            "a date is YYMMDDHHMMSSZ (UTCTime) or YYYYMMDDHHMMSSZ (GeneralizedTime)",
        );
    }
    let pair = |at: usize| {
        let digit = |at| time.content.get(at).map_or(0, |byte| u32::from(byte - b'0'));
        digit(at) * 10 + digit(at + 1)
    };
    // Of a UTCTime only the century is missing, which makes no leap year (1950 to 2049).
    let year = if year_len == 2 { pair(0) } else { pair(0) * 100 + pair(2) };
    let days = match pair(year_len) {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (year_len == 2 || !year.is_multiple_of(100)) => 29,
        2 if year_len == 4 && year.is_multiple_of(400) => 29,
        2 => 28,
        _ => 31,
    };
    let ranges = [(1..=12), (1..=days), (0..=23), (0..=59), (0..=59)];
    match ranges
        .iter()
        .enumerate()
        .find(|(index, range)| !range.contains(&pair(year_len + 2 * index)))
    {
        Some((index, _)) => flaw(year_len + 2 * index, "there is no such date or time of day"),
        None => Ok(()),
    }
}

fn extensions<'a>(reader: &mut DerReader<'a>) -> Result<Extensions<'a>> {
    let mut list = reader.take(SEQUENCE).map_err(of_rule(5))?.inside();
    let mut found = Extensions { are_none: list.is_empty(), ..Extensions::default() };
    while !list.is_empty() {
        let (id, critical, value) = extension(&mut list).map_err(of_rule(5))?;
        let (code, check, place): (u8, fn(&mut DerReader<'_>) -> Checked, _) = match id {
            AUTHORITY_KEY_ID => (11, authority_key_id, &mut found.authority_key_id),
            SUBJECT_KEY_ID => (12, octets, &mut found.subject_key_id),
            KEY_USAGE => (7, key_usage, &mut found.key_usage),
            BASIC_CONSTRAINTS => (13, basic_constraints, &mut found.basic_constraints),
            CERT_INFO => (14, octets, &mut found.cert_info),
            CERT_LIMIT => (15, octets, &mut found.cert_limit),
            // The others that are allowed need not make sense.
            _ => {
                found.hold_forbidden |= !UNREAD.contains(&id);
                continue;
            }
        };
        let mut inside = value.inside();
        check(&mut inside).and_then(|()| inside.end()).map_err(of_rule(code))?;
        *place = match place {
            Occurrence::Absent => Occurrence::Once { critical, value },
            _ => Occurrence::Repeated,
        };
    }
    Ok(found)
}

/// Its id, whether it is critical, and its value.
fn extension<'a>(list: &mut DerReader<'a>) -> Checked<(&'a [u8], bool, Element<'a>)> {
    let mut extension = list.take(SEQUENCE)?.inside();
    let id = extension.take(OBJECT_ID)?;
    let critical = default_false(&mut extension)?;
    let value = extension.take(OCTET_STRING)?;
    extension.end()?;
    Ok((id.content, critical, value))
}

/// A BOOLEAN that is false when it is absent, and must be absent then.
fn default_false(reader: &mut DerReader<'_>) -> Checked<bool> {
    match reader.optional(BOOLEAN)? {
        Some(flag) if flag.content == [0] => {
            Err(Flaw { offset: flag.offset, problem: "FALSE is the default and must be left out" })
        }
        flag => Ok(flag.is_some()),
    }
}

fn octets(value: &mut DerReader<'_>) -> Checked {
    value.take(OCTET_STRING).map(drop)
}

fn authority_key_id(value: &mut DerReader<'_>) -> Checked {
    let mut id = value.take(SEQUENCE)?.inside();
    id.optional(0x80)?;
    if let Some(issuer) = id.optional(0xa1)? {
        let mut names = issuer.inside();
        while !names.is_empty() {
            let name = names.any()?;
            if !matches!(name.tag, 0xa0 | 0x81 | 0x82 | 0xa3..=0xa5 | 0x86..=0x88) {
                return Err(Flaw { offset: name.start, problem: "a general name must stand here" });
            }
            if name.tag == DIRECTORY_NAME {
                let mut inside = name.inside();
                self::name(&mut inside)?;
                inside.end()?;
            }
            name.check_within()?;
        }
    }
    if let Some(serial) = id.optional(0x82)? {
        serial.check_as(INTEGER)?;
    }
    id.end()
}

/// Bits with names have no zeros behind the last that is set.
fn key_usage(value: &mut DerReader<'_>) -> Checked {
    let usage = value.take(BIT_STRING)?;
    match usage.content {
        [] | [_] => Ok(()),
        [unused, .., last] if *last != 0 && last.trailing_zeros() == u32::from(*unused) => Ok(()),
        _ => Err(Flaw { offset: usage.offset, problem: "zero bits at the end must be left out" }),
    }
}

fn basic_constraints(value: &mut DerReader<'_>) -> Checked {
    let mut constraints = value.take(SEQUENCE)?.inside();
    default_false(&mut constraints)?;
    constraints.optional(INTEGER)?;
    constraints.end()
}
