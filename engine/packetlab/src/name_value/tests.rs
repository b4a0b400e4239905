//! Tests of `name_value`.

use proptest::prelude::*;

use super::Dialect::{Attributes, CertInfo, CertLimit, Descriptor};
use super::*;

const ALL: [Dialect; 4] = [Descriptor, Attributes, CertInfo, CertLimit];

/// The text that the original published for the configuration shown with it (spec/protocol.md 1.8).
const PUBLISHED: &str = "hostid=HOST-1;endpoint_location=BK29;endpoint_location=IO91*;\
     endpoint_country=DEU;endpoint_country=USA;exp_priority=7;pub_end=1795434141288556833;\
     controller_addr=198.51.100.7:5555;sni_key=hello;baz=q*;foo=bar;";

fn pairs_of(dialect: Dialect, text: &str) -> Vec<(String, String)> {
    let pairs = parse(dialect, text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
    pairs.into_iter().map(|Pair { name, value }| (name, value)).collect()
}

#[test]
fn the_published_descriptor_of_the_original_is_read_and_written_alike() {
    let pairs = parse(Descriptor, PUBLISHED.as_bytes()).unwrap();
    assert_eq!(pairs.len(), 11);
    assert_eq!(pairs[2], Pair::new(Descriptor, "endpoint_location", "IO91*").unwrap());
    assert_eq!(encode(&pairs), PUBLISHED);
}

#[test]
fn an_empty_text_has_no_pairs_and_a_value_may_be_empty() {
    for dialect in ALL {
        assert_eq!(pairs_of(dialect, ""), []);
        assert_eq!(pairs_of(dialect, "a=;"), [("a".into(), String::new())]);
    }
}

/// Item 43.
#[test]
fn ill_formed_text_is_refused_with_its_place_in_every_dialect() {
    for (text, error) in [
        ("=b;", NameValueError::NoName { offset: 0 }),
        ("a=b", NameValueError::Unterminated { offset: 0 }),
        ("a=b;c=d", NameValueError::Unterminated { offset: 4 }),
        ("a=b;;", NameValueError::NoEquals { offset: 4 }),
        ("a=b=c;", NameValueError::BadCharacter { byte: b'=', offset: 3 }),
        ("a b=c;", NameValueError::BadCharacter { byte: b' ', offset: 1 }),
        (";", NameValueError::NoEquals { offset: 0 }),
        ("ab;", NameValueError::NoEquals { offset: 0 }),
        ("a=b#;", NameValueError::BadCharacter { byte: b'#', offset: 3 }),
        ("x=y;a=ä;", NameValueError::BadCharacter { byte: 0xc3, offset: 6 }),
        (" a=b;", NameValueError::BadCharacter { byte: b' ', offset: 0 }),
    ] {
        for dialect in ALL {
            assert_eq!(parse(dialect, text.as_bytes()), Err(error.clone()), "{text} {dialect:?}");
        }
    }
}

#[test]
fn values_may_hold_these_characters_and_no_others() {
    let allowed: Vec<u8> =
        (0..=255).filter(|c| check(CertInfo, &[b'a', b'=', *c, b';']).is_ok()).collect();
    let letters = (b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z');
    let mut expected: Vec<u8> = letters.chain(*b"_-.:[],/() \t").collect();
    expected.sort_unstable();
    assert_eq!(allowed, expected);
    let in_names: Vec<u8> =
        (0..=255).filter(|c| check(CertInfo, &[*c, b'=', b';']).is_ok()).collect();
    assert!(in_names.iter().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(c)));
    assert_eq!(in_names.len(), 64);
}

#[test]
fn wildcards_are_for_descriptors_and_duplicates_too() {
    for text in ["a=*;", "a=x?;", "a=1;a=2;"] {
        for dialect in ALL {
            assert_eq!(check(dialect, text.as_bytes()).is_ok(), dialect == Descriptor, "{text}");
        }
    }
    assert_eq!(parse(Attributes, b"a=1;b=2;a=1;"), Err(NameValueError::Repeated { offset: 8 }));
}

#[test]
fn a_star_before_a_limit_name_makes_it_optional_and_another_name() {
    assert!(check(CertInfo, b"*a=1;").is_err());
    assert!(check(Descriptor, b"*a=1;").is_err());
    let pairs = parse(CertLimit, b"*a=1;a=2;").unwrap();
    assert_eq!(pairs[0].limit_name(), ("a", true));
    assert_eq!(pairs[1].limit_name(), ("a", false));
    assert_eq!(encode(&pairs), "*a=1;a=2;");
    assert!(check(CertLimit, b"*=1;").is_ok(), "as the original does (Q33)");
    assert!(check(CertLimit, b"**a=1;").is_err());
    assert!(check(CertLimit, b"a*=1;").is_err());
}

#[test]
fn a_pair_cannot_smuggle_in_another() {
    assert!(Pair::new(Descriptor, "hostid", "x;sni_key=y").is_err());
    assert!(Pair::new(Descriptor, "hostid", "100%").is_err());
    assert!(Pair::new(Descriptor, "", "x").is_err());
    assert!(Pair::new(Attributes, "hostid", "HOST*").is_err());
    assert!(Pair::new(Descriptor, "hostid", "HOST*").is_ok());
}

#[test]
fn a_descriptor_matches_when_every_attribute_finds_its_name_satisfied_or_absent() {
    for (xdescr, dattr, matches) in [
        ("endpoint_country=DEU;endpoint_country=USA;", "endpoint_country=USA;", true),
        ("endpoint_country=DEU;", "endpoint_country=USA;", false),
        ("endpoint_country=USA;hostid=EP?;", "endpoint_country=USA;hostid=EP1;", true),
        ("endpoint_country=USA;hostid=EP?;", "endpoint_country=USA;hostid=EP12;", false),
        ("endpoint_country=USA;", "hostid=EP1;", true),
        ("Hostid=x;", "hostid=EP1;", true),
        ("exp_priority=7;sni_key=hello;", "endpoint_country=USA;", true),
        ("", "a=b;", true),
        ("a=b;", "", true),
        ("", "", true),
        ("a=b", "a=b;", false),
        ("a=b;", "a=b", false),
        ("a=b;", "a=*;", false),
        ("a=;", "a=;", true),
        ("a=;", "a=b;", false),
        ("a=*;", "a=;", true),
    ] {
        assert_eq!(
            descriptor_matches(xdescr.as_bytes(), dattr.as_bytes()),
            matches,
            "{xdescr} {dattr}"
        );
    }
}

#[test]
fn a_star_is_any_run_and_a_question_mark_any_one_character() {
    for (pattern, value, matches) in [
        ("IO91*", "IO91WM", true),
        ("IO91*", "IO91", true),
        ("IO91*", "IO9", false),
        ("*WM", "IO91WM", true),
        ("*a*b*", "xaxbx", true),
        ("*a*b*", "xbxax", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*?", "", false),
        ("?*", "x", true),
        ("a*bc", "abcbc", true),
        ("a*bcb", "abcbc", false),
        ("**", "", true),
        ("abc", "ABC", false),
        ("*a?c*", "xxabcx", true),
        ("*a?c*", "xxabbx", false),
        ("*??*", "x", false),
        ("ab*b", "ab", false),
    ] {
        assert_eq!(wildcard_matches(pattern, value, &mut 0), matches, "{pattern} {value}");
    }
}

/// What a matcher that goes back costs: the first for every `*`, the others for every place in the
/// value, which is some 16 million steps for each match; the last for every pattern.
#[test]
fn no_descriptor_that_may_be_searched_for_costs_more_than_linear_time() {
    const ROUNDS: usize = 30;
    let dattr = format!("a={};", "A".repeat(4000));
    #[expect(clippy::disallowed_methods, reason = "the time itself is what is tested")]
    let started = std::time::Instant::now();
    for xdescr in [
        format!("a={}B;", "*A".repeat(2000)),
        format!("a=*{}B;", "A".repeat(3990)),
        format!("a=*{}B*;", "A".repeat(2000)),
        format!("a=*{}?B*;", "A".repeat(SEARCH_COST_MAX - 2)),
        "a=*AB*;".repeat(SEARCH_COST_MAX),
    ] {
        assert_eq!(check_search(&parse(Descriptor, xdescr.as_bytes()).unwrap()), Ok(()));
        for _ in 0..ROUNDS {
            assert!(!descriptor_matches(xdescr.as_bytes(), dattr.as_bytes()), "{xdescr}");
        }
    }
    // 25 ms for each match: it takes 1 ms without optimization, and going back more than 100 ms.
    let elapsed = started.elapsed();
    assert!(elapsed < std::time::Duration::from_millis(25 * 5 * ROUNDS as u64), "{elapsed:?}");
}

#[test]
fn a_descriptor_costs_as_often_as_its_patterns_look_at_a_value() {
    for (xdescr, cost) in [
        ("", 0),
        (PUBLISHED, 0),
        ("a=??????????;a=*?????;a=?????*;a=***;a=?*?;", 0),
        ("a=*x*;a=*xyz*;b=1*2*3;", 3),
        ("a=*x?*;", 2),
        ("a=*x*?????*x*;a=*x*;", 6),
    ] {
        let pairs = parse(Descriptor, xdescr.as_bytes()).unwrap();
        assert_eq!(
            pairs.iter().map(|pair| search_cost(&pair.value)).sum::<usize>(),
            cost,
            "{xdescr}"
        );
    }
    let cost = SEARCH_COST_MAX + 1;
    for xdescr in [format!("a=*{}*;", "?".repeat(cost)), "a=*AB*;".repeat(cost)] {
        let pairs = parse(Descriptor, xdescr.as_bytes()).unwrap();
        assert_eq!(check_search(&pairs), Err(SearchError { cost }));
    }
    // What costs more is matched all the same.
    let value = "A".repeat(99);
    assert!(wildcard_matches(&format!("*{}*", "?".repeat(99)), &value, &mut 0));
    assert!(!wildcard_matches(&format!("*{}*", "?".repeat(100)), &value, &mut 0));
}

fn matching(xdescr: &str, dattr: &str) -> Matching {
    let xdescr = Patterns::new(parse(Descriptor, xdescr.as_bytes()).unwrap());
    xdescr.accept(&parse(Attributes, dattr.as_bytes()).unwrap())
}

/// The shapes that cost most for their size: each has to look at so much, whatever the matcher is.
#[test]
fn looks_are_counted_as_often_as_a_character_is_looked_at() {
    let value = format!("a={};", "A".repeat(4000));
    let names = |value: char| (0..800).map(|n| format!("{n:03}={value};")).collect::<String>();
    for (xdescr, dattr, looks_min) in [
        ("a=*AB*;".repeat(32), value.clone(), 32 * 4000),
        (format!("a=*{}?B*;", "A".repeat(30)), value.clone(), 32 * (4000 - 31)),
        (format!("a=*{}B*;", "A".repeat(2000)), value.clone(), 4000),
        (format!("a={};", "A".repeat(4000)), value.clone(), 4000),
        (format!("a={}B;", "*A".repeat(2000)), value, 4000),
        // Two for the name, at each of ten steps of a search among 800; and the value.
        (names('?'), names('x'), 800 * (2 * 10 + 1)),
    ] {
        let looks = matching(&xdescr, &dattr).looks;
        assert!(looks >= looks_min, "{looks} of {looks_min}: {xdescr}");
        assert!(looks <= looks_max(&xdescr, &dattr), "{looks}: {xdescr}");
    }
}

/// What the documentation of [`Patterns::accept`] says.
fn looks_max(xdescr: &str, dattr: &str) -> usize {
    let patterns = Patterns::new(parse(Descriptor, xdescr.as_bytes()).unwrap());
    let digits = (usize::BITS - patterns.count().leading_zeros()) as usize;
    let runs = patterns.count() + xdescr.matches('*').count();
    let each = 2 * patterns.search_cost() + 2 * digits;
    each * dattr.len() + 2 * xdescr.len() + PATTERN_LOOKS * (patterns.count() + runs)
}

#[test]
fn what_a_descriptor_says_of_other_names_costs_little() {
    let many: String = (0..800).map(|n| format!("{n}=x;")).collect();
    let Matching { accepted, looks } = matching(&many, "hostid=EP1;");
    assert!(accepted && looks < 200, "{looks}");
}

/// The definition of matching, by recursion.
fn matches_by_definition(pattern: &[u8], value: &[u8]) -> bool {
    match (pattern, value) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            (0..=value.len()).any(|n| matches_by_definition(rest, &value[n..]))
        }
        ([p, pattern @ ..], [v, value @ ..]) => {
            (*p == b'?' || p == v) && matches_by_definition(pattern, value)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn matching_agrees_with_its_definition(pattern in "[ab*?]{0,9}", value in "[ab]{0,10}") {
        prop_assert_eq!(
            wildcard_matches(&pattern, &value, &mut 0),
            matches_by_definition(pattern.as_bytes(), value.as_bytes())
        );
    }

    #[test]
    fn looks_are_bounded_by_the_sizes_of_the_texts(
        patterns in prop::collection::vec(("[ab]{1,2}", "[ab*?]{0,9}"), 0..9),
        values in prop::collection::btree_map("[ab]{1,3}", "[ab]{0,20}", 0..9),
    ) {
        let xdescr: String = patterns.iter().map(|(name, value)| format!("{name}={value};")).collect();
        let dattr: String = values.iter().map(|(name, value)| format!("{name}={value};")).collect();
        let looks = matching(&xdescr, &dattr).looks;
        prop_assert!(looks <= looks_max(&xdescr, &dattr), "{}", looks);
    }

    #[test]
    fn pairs_survive_their_encoding(
        pairs in prop::collection::vec(("[A-Za-z0-9_-]{1,5}", "[a-zA-Z0-9*?_.:,/() \t\\[\\]-]{0,5}"), 0..6),
    ) {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| Pair::new(Descriptor, name, value).unwrap()).collect();
        prop_assert_eq!(parse(Descriptor, encode(&pairs).as_bytes()), Ok(pairs));
    }

    #[test]
    fn what_parses_encodes_to_the_same_text(text in "[ab=;*?# ]{0,12}") {
        for dialect in ALL {
            if let Ok(pairs) = parse(dialect, text.as_bytes()) {
                prop_assert_eq!(encode(&pairs), text.clone());
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(text: Vec<u8>, other: Vec<u8>) {
        for dialect in ALL {
            let _ = parse(dialect, &text);
        }
        let _ = descriptor_matches(&text, &other);
    }
}
