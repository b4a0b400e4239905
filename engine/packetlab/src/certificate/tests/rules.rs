//! Each rule of spec/protocol.md 4.4 broken once, on certificates put together from parts.

use crate::certificate::Certificate;
use crate::golden;
use crate::key::sha256;
use crate::time::Ticks;

/// DER of one element; definite length.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut der = match len {
        0..0x80 => vec![tag, len as u8],
        0x80..0x100 => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    der.extend_from_slice(content);
    der
}

/// A certificate in parts, each complete DER, to be broken one by one.
pub(crate) struct Parts {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) inner_algorithm: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) unique_ids: Vec<u8>,
    pub(crate) extensions: Vec<Vec<u8>>,
    pub(crate) tbs_tail: Vec<u8>,
    pub(crate) outer_algorithm: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) tail: Vec<u8>,
}

pub(crate) const AKI: usize = 0;
pub(crate) const SKI: usize = 1;
pub(crate) const USAGE: usize = 2;
pub(crate) const CONSTRAINTS: usize = 3;
pub(crate) const INFO: usize = 4;
pub(crate) const LIMIT: usize = 5;

pub(crate) const ED25519: [u8; 7] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
const RSA: [u8; 13] = [0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
pub(crate) const NAME: [u8; 14] = [0x30, 12, 0x31, 10, 0x30, 8, 6, 3, 0x55, 4, 3, 12, 1, 0x20];

pub(crate) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv(0x30, &[&tlv(6, oid), critical, &tlv(4, value)].concat())
}

pub(crate) fn info(text: &str) -> Vec<u8> {
    extension(&[0x2a, 3, 1], true, &tlv(4, text.as_bytes()))
}

pub(crate) fn limit(text: &str) -> Vec<u8> {
    extension(&[0x2a, 3, 3], true, &tlv(4, text.as_bytes()))
}

pub(crate) fn usage(bits: &[u8]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 15], true, bits)
}

pub(crate) fn constraints(value: &[u8]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 19], true, value)
}

pub(crate) fn key_id_of(name: &str) -> [u8; 32] {
    sha256(&golden::public_key(name).0)
}

pub(crate) fn aki(critical: bool, value: &[u8]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 35], critical, value)
}

pub(crate) fn ski(critical: bool, value: &[u8]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 14], critical, value)
}

pub(crate) fn utc(time: &str) -> Vec<u8> {
    tlv(0x17, time.as_bytes())
}

impl Parts {
    pub(crate) fn agent() -> Self {
        let id = key_id_of("xc");
        Self {
            version: vec![0xa0, 3, 2, 1, 2],
            serial: vec![2, 1, 1],
            inner_algorithm: ED25519.to_vec(),
            issuer: NAME.to_vec(),
            validity: tlv(0x30, &[utc("700101000000Z"), utc("380119031407Z")].concat()),
            spki: golden::public_key("xc").to_spki().to_vec(),
            unique_ids: Vec::new(),
            extensions: vec![
                aki(false, &tlv(0x30, &tlv(0x80, &id))),
                ski(false, &tlv(4, &id)),
                usage(&[3, 2, 7, 0x80]),
                constraints(&[0x30, 0]),
                info("cert_type=agent;"),
            ],
            tbs_tail: Vec::new(),
            outer_algorithm: ED25519.to_vec(),
            signature: tlv(3, &[0; 65]),
            tail: Vec::new(),
        }
    }

    pub(crate) fn exppriv() -> Self {
        let mut parts = Self::agent();
        parts.extensions[USAGE] = usage(&[3, 2, 2, 4]);
        parts.extensions[CONSTRAINTS] = constraints(&[0x30, 3, 1, 1, 0xff]);
        parts.extensions[INFO] = info("cert_type=exppriv;");
        parts.extensions.push(limit("max_send_pkt=7;"));
        parts
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let extensions = match self.extensions.concat() {
            none if none.is_empty() => none,
            some => tlv(0xa3, &tlv(0x30, &some)),
        };
        let tbs = [
            &self.version[..],
            &self.serial,
            &self.inner_algorithm,
            &self.issuer,
            &self.validity,
            &NAME,
            &self.spki,
            &self.unique_ids,
            &extensions,
            &self.tbs_tail,
        ];
        let tbs = tlv(0x30, &tbs.concat());
        tlv(0x30, &[&tbs[..], &self.outer_algorithm, &self.signature, &self.tail].concat())
    }
}

type Change = fn(&mut Parts);

fn code(base: fn() -> Parts, change: Change) -> u8 {
    let mut parts = base();
    change(&mut parts);
    Certificate::from_der(&parts.der()).map_or_else(|error| error.code(), |_| 0)
}

#[test]
fn each_broken_rule_of_the_form_gives_its_result_code() {
    let table: &[(u8, Change)] = &[
        (0, |_| ()),
        (2, |p| p.outer_algorithm = RSA.to_vec()),
        (2, |p| p.inner_algorithm = RSA.to_vec()),
        (4, |p| p.version = vec![0xa0, 3, 2, 1, 1]),
        (4, |p| p.version = Vec::new()),
        (5, |p| p.unique_ids = vec![0x81, 2, 0, 1]),
        (5, |p| p.unique_ids = vec![0x82, 2, 0, 1]),
        (5, |p| p.extensions.clear()),
        (5, |p| p.extensions.push(extension(&[0x55, 0x1d, 17], false, &[0x30, 0]))),
        (5, |p| p.extensions.push(extension(&[0x2a, 3, 2], true, &[4, 0]))),
        (0, |p| p.extensions.push(extension(&[0x55, 0x1d, 31], false, b"not looked into"))),
        (0, |p| p.extensions.push(extension(&[0x55, 0x1d, 46], true, &[]))),
        (0, |p| p.extensions.push(extension(&[0x2b, 6, 1, 5, 5, 7, 1, 1], false, &[]))),
        (0, |p| p.extensions.push(extension(&[0x2b, 6, 1, 5, 5, 7, 1, 11], false, &[]))),
        (8, |p| p.serial = vec![2, 1, 0]),
        (0, |p| p.serial = vec![2, 1, 0xff]),
        (9, |p| p.validity = tlv(0x30, &[utc("700101000000Z"), utc("381319031407Z")].concat())),
        (9, |p| p.validity = tlv(0x30, &[utc("700101000000Z"), tlv(4, b"x")].concat())),
        (10, |p| p.spki[8] = 0x6e),
        (1, |p| p.tail = vec![5, 0]),
        (1, |p| p.tbs_tail = vec![5, 0]),
        (1, |p| p.signature = tlv(3, &[0; 64])),
    ];
    for (index, (expected, change)) in table.iter().enumerate() {
        assert_eq!(code(Parts::agent, *change), *expected, "row {index}");
    }
}

#[test]
fn each_broken_rule_of_the_extensions_gives_its_result_code() {
    let table: &[(u8, Change)] = &[
        (14, |p| {
            p.extensions[INFO] = extension(&[0x2a, 3, 1], false, &tlv(4, b"cert_type=agent;"))
        }),
        (14, |p| p.extensions.push(p.extensions[INFO].clone())),
        (14, |p| _ = p.extensions.remove(INFO)),
        (14, |p| p.extensions[INFO] = info("cert_type=agent")),
        (14, |p| p.extensions[INFO] = info("cert_type=agent;cert_type=agent;")),
        (14, |p| p.extensions[INFO] = info("cert_type=agent;\0")),
        (14, |p| p.extensions[INFO] = extension(&[0x2a, 3, 1], true, b"cert_type=agent;")),
        (14, |p| {
            p.extensions[INFO] = extension(&[0x2a, 3, 1], true, &tlv(12, b"cert_type=agent;"))
        }),
        (14, |p| {
            let text = [tlv(4, b"cert_type=agent;"), vec![0]].concat();
            p.extensions[INFO] = extension(&[0x2a, 3, 1], true, &text);
        }),
        (14, |p| {
            let constructed = tlv(0x24, &tlv(4, b"cert_type=agent;"));
            p.extensions[INFO] = extension(&[0x2a, 3, 1], true, &constructed);
        }),
        (14, |p| {
            let indefinite = [&[0x24, 0x80][..], &tlv(4, b"cert_type=agent;"), &[0, 0]].concat();
            p.extensions[INFO] = extension(&[0x2a, 3, 1], true, &indefinite);
        }),
        (6, |p| p.extensions[INFO] = info("cert_desc=x;")),
        (6, |p| p.extensions[INFO] = info("")),
        (6, |p| p.extensions[INFO] = info("cert_type=Agent;")),
        (6, |p| p.extensions[INFO] = info("cert_type=;")),
        (7, |p| p.extensions[USAGE] = usage(&[3, 2, 6, 0xc0])),
        (7, |p| p.extensions[USAGE] = usage(&[3, 2, 2, 4])),
        (7, |p| p.extensions[USAGE] = usage(&[3, 3, 7, 0x80, 0x80])),
        (7, |p| p.extensions[USAGE] = usage(&[4, 1, 0x80])),
        (7, |p| _ = p.extensions.remove(USAGE)),
        (7, |p| p.extensions.push(p.extensions[USAGE].clone())),
        (0, |p| p.extensions[USAGE] = extension(&[0x55, 0x1d, 15], false, &[3, 2, 7, 0x80])),
        (11, |p| _ = p.extensions.remove(AKI)),
        (11, |p| p.extensions.push(p.extensions[AKI].clone())),
        (11, |p| p.extensions[AKI] = aki(true, &tlv(0x30, &tlv(0x80, &key_id_of("xc"))))),
        (11, |p| p.extensions[AKI] = aki(false, &tlv(0x30, &tlv(0x80, &[1; 31])))),
        (11, |p| p.extensions[AKI] = aki(false, &[0x30, 0])),
        (0, |p| p.extensions[AKI] = aki(false, &tlv(0x30, &tlv(0x80, &[1; 32])))),
        (12, |p| _ = p.extensions.remove(SKI)),
        (12, |p| p.extensions.push(p.extensions[SKI].clone())),
        (12, |p| p.extensions[SKI] = ski(true, &tlv(4, &key_id_of("xc")))),
        (12, |p| p.extensions[SKI] = ski(false, &tlv(4, &key_id_of("ep")))),
        (12, |p| p.extensions[SKI] = ski(false, &tlv(4, &key_id_of("xc")[..31]))),
        (13, |p| _ = p.extensions.remove(CONSTRAINTS)),
        (13, |p| p.extensions.push(p.extensions[CONSTRAINTS].clone())),
        (13, |p| p.extensions[CONSTRAINTS] = extension(&[0x55, 0x1d, 19], false, &[0x30, 0])),
        (13, |p| p.extensions[CONSTRAINTS] = constraints(&[0x30, 3, 1, 1, 0xff])),
        (13, |p| p.extensions[CONSTRAINTS] = constraints(&[0x30, 3, 2, 1, 0])),
        (13, |p| p.extensions[CONSTRAINTS] = constraints(&[0x30, 0, 0])),
        (15, |p| p.extensions.push(limit(""))),
        (18, |p| p.extensions[INFO] = info("cert_type=agent;del_type=exppriv;")),
    ];
    for (index, (expected, change)) in table.iter().enumerate() {
        assert_eq!(code(Parts::agent, *change), *expected, "row {index}");
    }
}

#[test]
fn certificates_that_sign_others_have_rules_of_their_own() {
    let table: &[(u8, Change)] = &[
        (0, |_| ()),
        (0, |p| p.extensions[USAGE] = usage(&[3, 2, 1, 6])),
        (7, |p| p.extensions[USAGE] = usage(&[3, 2, 1, 2])),
        (7, |p| p.extensions[USAGE] = usage(&[3, 2, 7, 0x80])),
        (0, |p| p.extensions[CONSTRAINTS] = constraints(&[0x30, 6, 1, 1, 0xff, 2, 1, 9])),
        (13, |p| p.extensions[CONSTRAINTS] = constraints(&[0x30, 0])),
        (13, |p| p.extensions[CONSTRAINTS] = constraints(&[0x30, 6, 1, 1, 0xff, 2, 1, 0xff])),
        (0, |p| _ = p.extensions.remove(LIMIT)),
        (0, |p| p.extensions[LIMIT] = limit("")),
        (15, |p| p.extensions.push(limit(""))),
        (15, |p| p.extensions[LIMIT] = extension(&[0x2a, 3, 3], false, &tlv(4, b"a=b;"))),
        (15, |p| p.extensions[LIMIT] = extension(&[0x2a, 3, 3], true, b"a=b;")),
        (15, |p| p.extensions[LIMIT] = limit("a=b;a=b;")),
        (18, |p| p.extensions[INFO] = info("cert_type=delpriv;")),
        (18, |p| p.extensions[INFO] = info("cert_type=delpriv;del_type=;")),
        (18, |p| p.extensions[INFO] = info("cert_type=delpriv;del_type=exppriv, reppriv;")),
        (18, |p| p.extensions[INFO] = info("cert_type=delpriv;del_type=exppriv,;")),
        (18, |p| p.extensions[INFO] = info("cert_type=exppriv;del_type=exppriv;")),
        (0, |p| p.extensions[INFO] = info("cert_type=delpriv;del_type=reppriv,exppriv;")),
    ];
    for (index, (expected, change)) in table.iter().enumerate() {
        assert_eq!(code(Parts::exppriv, *change), *expected, "row {index}");
    }
}

#[test]
fn dates_outside_the_range_of_ticks_are_its_ends() {
    let validity = |start: Vec<u8>, end: Vec<u8>| {
        let mut parts = Parts::agent();
        parts.validity = tlv(0x30, &[start, end].concat());
        let certificate = Certificate::from_der(&parts.der()).unwrap();
        (certificate.not_before, certificate.not_after)
    };
    let generalized = |time: &str| tlv(0x18, time.as_bytes());
    assert_eq!(
        validity(utc("500101000000Z"), generalized("99991231235959Z")),
        (Ticks(0), Ticks::MAX)
    );
    let second = 1_000_000_000;
    assert_eq!(
        validity(utc("491231235959Z"), generalized("20500101000000Z")),
        (Ticks(2_524_607_999 * second), Ticks(2_524_608_000 * second))
    );
}

#[test]
fn an_error_says_in_words_what_is_wrong() {
    let mut parts = Parts::exppriv();
    parts.extensions[LIMIT] = limit("max_socket_count=many;");
    let error = Certificate::from_der(&parts.der()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cert_limit has an unreadable value for max_socket_count: `many`"
    );
    let mut parts = Parts::agent();
    parts.extensions[USAGE] = usage(&[3, 2, 2, 4]);
    let error = Certificate::from_der(&parts.der()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "keyUsage must be exactly digitalSignature in certificates of type agent"
    );
}

/// Issue 11: a stranger chooses how long the texts in its certificate are, not how long the log line about them is.
#[test]
fn an_error_repeats_no_more_of_a_certificate_than_its_reader_needs() {
    let long = "x".repeat(50_000);
    let mut unknown = Parts::agent();
    unknown.extensions[INFO] = info(&format!("cert_type={long};"));
    let mut unreadable = Parts::exppriv();
    unreadable.extensions[LIMIT] = limit(&format!("max_socket_count={long};"));
    for parts in [unknown, unreadable] {
        let error = Certificate::from_der(&parts.der()).unwrap_err().to_string();
        assert!(error.contains("xxx...`") && error.len() < 200, "{error}");
    }
}
