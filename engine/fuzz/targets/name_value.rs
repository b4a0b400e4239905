//! Name-value text: the first byte chooses the dialect. Text and pairs are each other's image, and
//! matching ends and agrees with its definition on simple texts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packetlab::name_value::{Dialect, Pair, descriptor_matches, encode, parse};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, text)) = input.split_first() else { return };
    let dialect = match choice {
        0 => Dialect::Descriptor,
        1 => Dialect::Attributes,
        2 => Dialect::CertInfo,
        3 => Dialect::CertLimit,
        _ => {
            // A descriptor and attributes, between them a line end.
            let mut halves = text.splitn(2, |byte| *byte == b'\n');
            let (xdescr, dattr) = (halves.next().unwrap(), halves.next().unwrap_or_default());
            let matches = descriptor_matches(xdescr, dattr);
            let well_formed = parse(Dialect::Descriptor, xdescr).is_ok()
                && parse(Dialect::Attributes, dattr).is_ok();
            assert!(well_formed || !matches);
            assert!(!(well_formed && dattr.is_empty()) || matches);
            return;
        }
    };
    let Ok(pairs) = parse(dialect, text) else { return };
    assert_eq!(encode(&pairs).as_bytes(), text);
    for pair in pairs {
        assert_eq!(Pair::new(dialect, &pair.name, &pair.value).as_ref(), Ok(&pair));
    }
});
