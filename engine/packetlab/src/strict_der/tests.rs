//! The reader against DER written by hand, and against the `der` crate's strictness.

use der::Decode as _;
use proptest::prelude::*;

use super::*;

fn read(der: &[u8]) -> Result<()> {
    let mut reader = DerReader::new(der);
    reader.any()?.check_within()?;
    reader.end()
}

#[test]
fn each_way_to_write_an_element_wrongly_is_told_with_its_byte() {
    for (der, offset, problem) in [
        (&[][..], 0, "ends too early"),
        (&[0x30], 1, "ends too early"),
        (&[0x30, 0x82, 1], 3, "ends too early"),
        (&[0x30, 1], 0, "longer than what holds it"),
        (&[0x30, 0xff], 2, "ends too early"),
        (&[0x30, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0], 0, "longer than what holds it"),
        (&[0x30, 0x80, 0, 0], 1, "indefinite"),
        (&[0x30, 0x81, 2, 5, 0], 1, "length is written longer"),
        (&[0x30, 0x82, 0, 0x80], 1, "length is written longer"),
        (&[0, 0], 0, "reserved"),
        (&[0x20, 0], 0, "reserved"),
        (&[0x10, 0], 0, "constructed bit"),
        (&[0x11, 0], 0, "constructed bit"),
        (&[0x22, 0], 0, "constructed bit"),
        (&[0x2c, 2, 12, 0], 0, "constructed bit"),
        (&[0x1f, 0x1e, 0], 0, "tag is written longer"),
        (&[0x1f, 0x80, 0x1f, 0], 0, "tag is written longer"),
        (&[1, 1, 1], 2, "00 or ff"),
        (&[1, 0], 2, "00 or ff"),
        (&[2, 0], 2, "at least one byte"),
        (&[10, 2, 0, 1], 2, "longer than it must be"),
        (&[2, 2, 0xff, 0x80], 2, "longer than it must be"),
        (&[3, 0], 2, "how many bits"),
        (&[3, 1, 1], 2, "cannot be unused"),
        (&[3, 2, 8, 0], 2, "cannot be unused"),
        (&[3, 3, 1, 0, 1], 4, "must be 0"),
        (&[5, 1, 0], 2, "no content"),
        (&[6, 0], 2, "cut"),
        (&[6, 1, 0x80], 3, "cut"),
        (&[6, 3, 0x2a, 0x80, 1], 3, "longer than it must be"),
        (&[12, 2, b'a', 0xff], 3, "no UTF-8"),
        (&[28, 3, 0, 0, 0], 2, "is cut"),
        (&[30, 1, 0], 2, "is cut"),
        (&[0x30, 4, 0x31, 2, 5, 1], 4, "longer than what holds it"),
        (&[0xa0, 3, 0x22, 1, 2], 2, "constructed bit"),
        (&[5, 0, 5, 0], 2, "nothing more"),
    ] {
        let flaw = read(der).expect_err("it must be refused");
        assert_eq!(flaw.offset, offset, "{der:02x?}: {flaw}");
        assert!(flaw.problem.contains(problem), "{der:02x?}: {flaw}");
    }
}

#[test]
fn what_der_allows_is_read() {
    for der in [
        &[5, 0][..],
        &[1, 1, 0xff],
        &[2, 1, 0],
        &[2, 2, 0, 0x80],
        &[3, 1, 0],
        &[3, 2, 7, 0x80],
        &[6, 3, 0x2a, 0x83, 0x01],
        &[12, 2, 0xc3, 0xbc],
        &[0x30, 0],
        &[0x80, 3, 1, 2, 3],
        &[0xa0, 2, 5, 0],
        &[0x5f, 0x1f, 0],
        &[0x5f, 0x81, 0x00, 0],
    ] {
        assert_eq!(read(der), Ok(()), "{der:02x?}");
    }
    let long = [&[4, 0x81, 0x80][..], &[7; 0x80]].concat();
    assert_eq!(read(&long), Ok(()));
    let longer = [&[4, 0x82, 1, 0][..], &[7; 0x100]].concat();
    assert_eq!(read(&longer), Ok(()));
}

proptest! {
    /// Whatever is read here, the `der` crate reads as well: nothing is laxer than a strict reader.
    #[test]
    fn whatever_is_read_is_der_for_another_reader(
        tag in prop::sample::select(vec![1, 2, 3, 5, 0x30, 0x31, 0x80, 0xa0]),
        content in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let der = [&[tag, content.len() as u8][..], &content].concat();
        if read(&der).is_ok() {
            let parsed = match tag {
                1 => bool::from_der(&der).map(drop),
                2 => der::asn1::IntRef::from_der(&der).map(drop),
                3 => der::asn1::BitStringRef::from_der(&der).map(drop),
                _ => der::asn1::AnyRef::from_der(&der).map(drop),
            };
            prop_assert!(parsed.is_ok(), "{:02x?}: {:?}", der, parsed);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(der in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = read(&der);
    }
}
