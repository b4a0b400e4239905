//! Descriptors with and without each option and override.

use super::*;
use crate::proto::publisher::tests::publication;
use packetlab::name_value::Dialect;
use packetlab::snikey::SniKey;

fn experiment(overrides: &str) -> Experiment {
    Experiment {
        line: 1,
        is_default: true,
        snikey: SniKey::parse("hello").unwrap(),
        chain: Vec::new(),
        trusted_operators: Vec::new(),
        verified: None,
        channels: Vec::new(),
        overrides: name_value::parse(Dialect::Descriptor, overrides.as_bytes()).unwrap(),
    }
}

fn text(overrides: &str) -> String {
    descriptor(
        &publication().called,
        &experiment(overrides),
        "198.51.100.7:5555",
        Some(Ticks(1000)),
    )
}

/// Items 60, 61, 62, 63, 64.
#[test]
fn the_order_is_the_one_of_the_specification() {
    let expected = "hostid=HOST-1;endpoint_location=BK29;endpoint_location=IO91*;\
                    endpoint_country=DEU;endpoint_country=USA;exp_priority=7;pub_end=1000;\
                    controller_addr=198.51.100.7:5555;sni_key=hello;baz=q*;foo=bar;";
    assert_eq!(text("foo=bar;baz=q*;"), expected);
}

/// Item 60.
#[test]
fn only_address_and_snikey_are_always_there() {
    let text = descriptor(&Called::default(), &experiment(""), "2001:db8::7", None);
    assert_eq!(text, "controller_addr=2001:db8::7;sni_key=hello;");
}

/// Item 65.
#[test]
fn an_override_replaces_every_pair_of_its_name() {
    let overridden = text(
        "hostid=*;endpoint_location=JO62;endpoint_country=FRA;endpoint_country=ITA;\
         exp_priority=9;pub_end=2000;controller_addr=h:1;",
    );
    let expected = "sni_key=hello;controller_addr=h:1;pub_end=2000;exp_priority=9;\
                    endpoint_country=ITA;endpoint_country=FRA;endpoint_location=JO62;hostid=*;";
    assert_eq!(overridden, expected);
    assert!(text("exp_priority=9;").contains("pub_end=1000;"), "others stay");
}

/// Item 65.
#[test]
fn an_overridden_end_is_the_end() {
    let end = |overrides| publication_end(&experiment(overrides), Some(Ticks(7)));
    assert_eq!(end(""), Some(Ticks(7)));
    assert_eq!(end("pub_end=2000;"), Some(Ticks(2000)));
    assert_eq!(end("pub_end=18446744073709551615;"), Some(Ticks::MAX));
    assert_eq!(end("pub_end=99999999999999999999;"), Some(Ticks::MAX), "as C reads it");
    assert_eq!(end("pub_end=-1;"), Some(Ticks::MAX), "as C reads it");
    assert_eq!(publication_end(&experiment(""), None), None);
}

#[test]
fn a_descriptor_that_is_there_tells_its_end() {
    assert_eq!(end_in_text("sni_key=a;pub_end=12345;controller_addr=h;"), Some(Ticks(12_345)));
    assert_eq!(end_in_text("sni_key=a;pub_end=x;"), Some(Ticks::MAX));
    assert_eq!(end_in_text("sni_key=a;"), None);
}
