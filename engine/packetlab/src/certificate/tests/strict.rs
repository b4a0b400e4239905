//! Laxness of encoding, each kind once: refused with the code of its part and the byte where it is.

use proptest::prelude::*;

use super::super::CertificateError;
use super::rules::*;
use crate::certificate::Certificate;
use crate::golden;

type Change = fn(&mut Parts);

/// Asserts that the changed certificate is refused with this code at the byte from which on it
/// goes on like this.
#[track_caller]
fn flawed(row: usize, base: fn() -> Parts, code: u8, at: &[u8], change: Change) {
    let mut parts = base();
    change(&mut parts);
    let der = parts.der();
    match Certificate::from_der(&der) {
        Err(CertificateError::NotDer { code: found, flaw }) => {
            let rest = &der[flaw.offset..];
            assert!(rest.starts_with(at), "row {row}: {flaw}, where {:02x?} stands", &rest[..4]);
            assert_eq!(found, code, "row {row}: {flaw}");
        }
        other => panic!("row {row}: {other:?}"),
    }
}

fn generalized(time: &str) -> Vec<u8> {
    tlv(0x18, time.as_bytes())
}

fn dates(start: Vec<u8>, end: Vec<u8>) -> Vec<u8> {
    tlv(0x30, &[start, end].concat())
}

fn until(end: Vec<u8>) -> Vec<u8> {
    dates(utc("700101000000Z"), end)
}

#[test]
fn surplus_and_padded_elements_of_the_head_are_refused_where_they_stand() {
    let table: &[(u8, &[u8], Change)] = &[
        (4, &[5, 0], |p| p.version = vec![0xa0, 5, 2, 1, 2, 5, 0]),
        (4, &[0, 2], |p| p.version = vec![0xa0, 4, 2, 2, 0, 2]),
        (4, &[], |p| p.version = vec![0xa0, 2, 2, 0]),
        (4, &[0x22], |p| p.version = vec![0xa0, 3, 0x22, 1, 2]),
        (8, &[0x80], |p| p.version = vec![0x80, 3, 2, 1, 2]),
        (8, &[0, 1], |p| p.serial = vec![2, 2, 0, 1]),
        (8, &[0xff, 0xff], |p| p.serial = vec![2, 2, 0xff, 0xff]),
        (8, &[0x30], |p| p.serial = vec![2, 0]),
        (8, &[0x81, 1], |p| p.serial = vec![2, 0x81, 1, 1]),
        (2, &[0, 0x30], |p| p.inner_algorithm = vec![0x30, 8, 6, 3, 0x2b, 0x65, 0x70, 5, 1, 0]),
        (2, &[5, 0], |p| p.inner_algorithm = vec![0x30, 9, 6, 3, 0x2b, 0x65, 0x70, 5, 0, 5, 0]),
        (2, &[0x80, 0x70], |p| p.inner_algorithm = vec![0x30, 5, 6, 3, 0x2b, 0x80, 0x70]),
        (2, &[0x10], |p| p.outer_algorithm[0] = 0x10),
        (1, &[0x11], |p| p.issuer[2] = 0x11),
        (1, &[5, 0], |p| {
            let attribute = [&[6, 3, 0x55, 4, 3, 12, 1, 0x20][..], &[5, 0]].concat();
            p.issuer = tlv(0x30, &tlv(0x31, &tlv(0x30, &attribute)));
        }),
        (1, &[0x30], |p| {
            let attribute = |id| tlv(0x30, &[6, 3, 0x55, 4, id, 12, 1, 0x20]);
            p.issuer = tlv(0x30, &tlv(0x31, &[attribute(4), attribute(3)].concat()));
        }),
        (1, &[0xff], |p| p.issuer[13] = 0xff),
        (1, &[0x2c], |p| p.issuer[11] = 0x2c),
        (1, &[0x4c], |p| p.issuer[11] = 0x4c),
        (1, &[0x8c], |p| p.issuer[11] = 0x8c),
        (1, &[0xcc], |p| p.issuer[11] = 0xcc),
        (10, &[5, 0], |p| {
            let parts = [&ED25519[..], &tlv(3, &[0; 33]), &[5, 0]].concat();
            p.spki = tlv(0x30, &parts);
        }),
        (5, &[8], |p| p.unique_ids = vec![0x81, 2, 8, 1]),
        (1, &[0xa1], |p| p.unique_ids = vec![0xa1, 4, 3, 2, 0, 1]),
        (1, &[0x23], |p| p.signature[0] = 0x23),
        (1, &[1], |p| p.signature = tlv(3, &[[3; 1].as_slice(), &[1; 64]].concat())),
        (1, &[5, 0], |p| p.tail = vec![5, 0]),
        (1, &[0, 0], |p| p.tail = vec![0, 0]),
    ];
    for (row, (code, at, change)) in table.iter().enumerate() {
        flawed(row, Parts::agent, *code, at, *change);
    }
}

#[test]
fn dates_have_one_form_and_are_in_the_calendar() {
    let table: &[(&[u8], Change)] = &[
        (b".5Z", |p| p.validity = until(generalized("20300101000000.5Z"))),
        (b".", |p| p.validity = until(generalized("20300101000000."))),
        (b"Z", |p| p.validity = until(generalized("203001010000Z"))),
        (b"Z", |p| p.validity = until(utc("3001010000Z"))),
        (b"+0100", |p| p.validity = until(utc("300101000000+0100"))),
        (b"-0000", |p| p.validity = until(generalized("20300101000000-0000"))),
        (b"z", |p| p.validity = until(utc("300101000000z"))),
        (b"", |p| p.validity = until(utc("300101000000"))),
        (b"Z", |p| p.validity = until(utc("300101000000ZZ"))),
        (b"00", |p| p.validity = until(utc("20300101000000Z"))),
        (b" ", |p| p.validity = until(utc(" 30101000000Z"))),
        (b"00", |p| p.validity = until(utc("300001000000Z"))),
        (b"13", |p| p.validity = until(utc("301301000000Z"))),
        (b"00", |p| p.validity = until(utc("300100000000Z"))),
        (b"32", |p| p.validity = until(utc("300132000000Z"))),
        (b"31", |p| p.validity = until(utc("300431000000Z"))),
        (b"29", |p| p.validity = until(utc("300229000000Z"))),
        (b"29", |p| p.validity = until(generalized("21000229000000Z"))),
        (b"24", |p| p.validity = until(utc("300101240000Z"))),
        (b"60", |p| p.validity = until(utc("300101006000Z"))),
        (b"60Z", |p| p.validity = until(utc("300101000060Z"))),
        (&[5, 0], |p| {
            let three = [utc("700101000000Z"), utc("380119031407Z"), vec![5, 0]];
            p.validity = tlv(0x30, &three.concat());
        }),
        (&[0x30], |p| p.validity = tlv(0x30, &utc("700101000000Z"))),
        (&[0x37], |p| p.validity = until(tlv(0x37, b"380119031407Z"))),
    ];
    for (row, (at, change)) in table.iter().enumerate() {
        flawed(row, Parts::agent, 9, at, *change);
    }
    for good in ["320229000000Z", "000229235959Z", "491231235959Z"] {
        let mut parts = Parts::agent();
        parts.validity = until(utc(good));
        assert!(Certificate::from_der(&parts.der()).is_ok(), "{good}");
    }
    for good in ["20300101000000Z", "20000229000000Z", "24000229000000Z", "99991231235959Z"] {
        let mut parts = Parts::agent();
        parts.validity = until(generalized(good));
        assert!(Certificate::from_der(&parts.der()).is_ok(), "{good}");
    }
}

#[test]
fn an_extension_is_its_id_true_or_nothing_and_its_value() {
    let table: &[(u8, &[u8], Change)] = &[
        (5, &[0], |p| {
            let parts = [&tlv(6, &[0x55, 0x1d, 31])[..], &[1, 1, 0], &tlv(4, &[])].concat();
            p.extensions.push(tlv(0x30, &parts));
        }),
        (5, &[1, 4], |p| {
            let parts = [&tlv(6, &[0x55, 0x1d, 31])[..], &[1, 1, 1], &tlv(4, &[])].concat();
            p.extensions.push(tlv(0x30, &parts));
        }),
        (5, &[0xff, 0xff], |p| {
            let parts = [&tlv(6, &[0x55, 0x1d, 31])[..], &[1, 2, 0xff, 0xff], &[4, 0]].concat();
            p.extensions.push(tlv(0x30, &parts));
        }),
        (5, &[5, 0], |p| {
            let parts = [&tlv(6, &[0x55, 0x1d, 31])[..], &[4, 0, 5, 0]].concat();
            p.extensions.push(tlv(0x30, &parts));
        }),
        (5, &[0x10], |p| p.extensions[AKI][0] = 0x10),
        (5, &[0x31], |p| p.extensions[AKI][0] = 0x31),
    ];
    for (row, (code, at, change)) in table.iter().enumerate() {
        flawed(row, Parts::agent, *code, at, *change);
    }
}

#[test]
fn surplus_and_default_elements_within_extensions_are_refused_where_they_stand() {
    let table: &[(u8, &[u8], Change)] = &[
        (11, &[0x80, 0x20], |p| {
            let twice = [tlv(0x80, &key_id_of("xc")), tlv(0x80, &key_id_of("ep"))].concat();
            p.extensions[AKI] = aki(false, &tlv(0x30, &twice));
        }),
        (11, &[5, 0], |p| {
            let surplus = [&tlv(0x80, &key_id_of("xc"))[..], &[5, 0]].concat();
            p.extensions[AKI] = aki(false, &tlv(0x30, &surplus));
        }),
        (11, &[5, 0], |p| {
            let surplus = [&tlv(0x30, &tlv(0x80, &key_id_of("xc")))[..], &[5, 0]].concat();
            p.extensions[AKI] = aki(false, &surplus);
        }),
        (11, &[0xa0], |p| p.extensions[AKI] = aki(false, &tlv(0x30, &tlv(0xa0, &[4, 0])))),
        (11, &[0x10], |p| p.extensions[AKI] = aki(false, &tlv(0x10, &tlv(0x80, &[1; 32])))),
        (11, &[0, 1], |p| {
            let serial = [tlv(0x80, &key_id_of("xc")), tlv(0x82, &[0, 1])].concat();
            p.extensions[AKI] = aki(false, &tlv(0x30, &serial));
        }),
        (11, &[0xa2], |p| {
            let names = [tlv(0x80, &key_id_of("xc")), tlv(0xa1, &tlv(0xa2, &[]))].concat();
            p.extensions[AKI] = aki(false, &tlv(0x30, &names));
        }),
        (11, &[0x4c], |p| {
            let mut name = NAME;
            name[11] = 0x4c;
            let parts = [tlv(0x80, &key_id_of("xc")), tlv(0xa1, &tlv(0xa4, &name))].concat();
            p.extensions[AKI] = aki(false, &tlv(0x30, &parts));
        }),
        (12, &[5, 0], |p| {
            let surplus = [&tlv(4, &key_id_of("xc"))[..], &[5, 0]].concat();
            p.extensions[SKI] = ski(false, &surplus);
        }),
        (12, &[0x24], |p| {
            p.extensions[SKI] = ski(false, &tlv(0x24, &tlv(4, &key_id_of("xc"))));
        }),
        (7, &[6, 0x80], |p| p.extensions[USAGE] = usage(&[3, 2, 6, 0x80])),
        (7, &[0x81], |p| p.extensions[USAGE] = usage(&[3, 2, 7, 0x81])),
        (7, &[7, 0x80], |p| p.extensions[USAGE] = usage(&[3, 3, 7, 0x80, 0])),
        (7, &[5, 0], |p| p.extensions[USAGE] = usage(&[3, 2, 7, 0x80, 5, 0])),
        (13, &[0], |p| p.extensions[CONSTRAINTS] = constraints(&[0x30, 3, 1, 1, 0])),
        (13, &[5, 0], |p| p.extensions[CONSTRAINTS] = constraints(&[0x30, 2, 5, 0])),
        (14, &[0x24], |p| {
            let indefinite = [&[0x24, 0x80][..], &tlv(4, b"cert_type=agent;"), &[0, 0]].concat();
            p.extensions[INFO] = extension(&[0x2a, 3, 1], true, &indefinite);
        }),
        (14, &[0x81, 0x10], |p| {
            let text = [&[4, 0x81, 0x10][..], b"cert_type=agent;"].concat();
            p.extensions[INFO] = extension(&[0x2a, 3, 1], true, &text);
        }),
    ];
    for (row, (code, at, change)) in table.iter().enumerate() {
        flawed(row, Parts::agent, *code, at, *change);
    }
    let path_len =
        |der: &'static [u8]| move |p: &mut Parts| p.extensions[CONSTRAINTS] = constraints(der);
    for der in [&[0x30, 7, 1, 1, 0xff, 2, 2, 0, 9][..], &[0x30, 8, 1, 1, 0xff, 2, 1, 9, 5, 0]] {
        let mut parts = Parts::exppriv();
        path_len(der)(&mut parts);
        let error = Certificate::from_der(&parts.der()).unwrap_err();
        assert!(matches!(error, CertificateError::NotDer { code: 13, .. }), "{error}");
    }
}

/// What is well-formed and odd stays accepted, as the original accepts it.
#[test]
fn well_formed_der_that_nobody_writes_is_accepted() {
    let table: &[Change] = &[
        |p| p.issuer = vec![0x30, 0],
        |p| p.issuer = tlv(0x30, &tlv(0x31, &tlv(0x30, &[6, 3, 0x55, 4, 3, 0x13, 1, b'x']))),
        |p| {
            let attribute = |id| tlv(0x30, &[6, 3, 0x55, 4, id, 12, 1, 0x20]);
            p.issuer = tlv(0x30, &tlv(0x31, &[attribute(3), attribute(4)].concat()));
        },
        |p| p.serial = vec![2, 2, 0, 0x80],
        |p| p.serial = vec![2, 2, 0xff, 0x7f],
        |p| p.serial = tlv(2, &[1; 300]),
        |p| {
            let name = tlv(0xa4, &NAME);
            let parts =
                [tlv(0x80, &key_id_of("xc")), tlv(0xa1, &name), tlv(0x82, &[0, 0x80])].concat();
            p.extensions[AKI] = aki(false, &tlv(0x30, &parts));
        },
        |p| p.extensions.reverse(),
        // The original looks into neither of them.
        |p| p.extensions.extend([0, 1].map(|_| extension(&[0x55, 0x1d, 31], false, b"any"))),
    ];
    for (row, change) in table.iter().enumerate() {
        let mut parts = Parts::agent();
        change(&mut parts);
        let decoded = Certificate::from_der(&parts.der());
        assert!(decoded.is_ok(), "row {row}: {}", decoded.unwrap_err());
    }
}

#[test]
fn an_error_of_der_names_its_byte() {
    let mut der = golden::certificate("agent_xc").der().to_vec();
    der[0] = 0x10;
    let error = Certificate::from_der(&der).unwrap_err();
    let text = "not an X.509 certificate: its DER is wrong at byte 0: \
                the constructed bit of this tag is wrong";
    assert_eq!((error.code(), error.to_string()), (1, text.to_owned()));
    der[0] = 0x30;
    der.insert(4, 0);
    der[1] = 0x83;
    der.swap(2, 4);
    der.swap(3, 4);
    let error = Certificate::from_der(&der).unwrap_err().to_string();
    assert!(error.contains("at byte 1: this length is written longer than it must be"), "{error}");
}

#[test]
fn nesting_without_end_costs_no_stack() {
    let mut value = vec![5, 0];
    for _ in 0..10_000 {
        value = tlv(0x30, &value);
        if value.len() > 60_000 {
            break;
        }
    }
    let mut parts = Parts::agent();
    let attribute = [&[6, 3, 0x55, 4, 3][..], &value].concat();
    parts.issuer = tlv(0x30, &tlv(0x31, &tlv(0x30, &attribute)));
    let error = Certificate::from_der(&parts.der()).unwrap_err().to_string();
    assert!(error.contains("nested too deeply"), "{error}");
}

proptest! {
    /// Each length of a golden certificate, written longer by one byte: BER, but not DER.
    #[test]
    fn no_length_may_be_written_in_another_way(which in 0..golden::CERTIFICATES.len()) {
        let der = golden::certificate(golden::CERTIFICATES[which]).der().to_vec();
        // The last element is the signature: 03 41 00 and 64 bytes.
        let at = der.len() - 66;
        prop_assert_eq!(der[at], 0x41);
        let longer = [&der[..at], &[0x81], &der[at..]].concat();
        let longer = [&[0x30, 0x82][..], &u16::try_from(longer.len() - 4).unwrap().to_be_bytes(), &longer[4..]].concat();
        let error = Certificate::from_der(&longer).unwrap_err();
        let found = matches!(error, CertificateError::NotDer { flaw, .. } if flaw.offset == at);
        prop_assert!(found, "{}", error);
    }
}
