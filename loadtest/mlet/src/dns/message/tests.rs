//! Messages of DNS by examples, and what holds of any that a server may send.

use proptest::prelude::*;

use super::*;

const ID: [u8; 2] = [0x15, 0xbe];
const QUESTION: &[u8] = b"\x03www\x07example\x03com\0\0\x01\0\x01";
/// Where the names `www.example.com` and `example.com` are in an answer.
const WWW: &[u8] = b"\xc0\x0c";
const EXAMPLE: &[u8] = b"\xc0\x10";
const A: u16 = 1;
const AAAA: u16 = 28;

fn asked(kind: Kind) -> Question {
    Question::new("www.example.com", kind, ID).unwrap()
}

/// An answer to [`asked`] with these records.
fn answer_of(records: &[Vec<u8>]) -> Vec<u8> {
    let head = [&ID[..], &[0x85, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0], QUESTION];
    [head.concat(), records.concat()].concat()
}

fn record(owner: &[u8], record_type: u16, class: u16, data: &[u8]) -> Vec<u8> {
    let numbers = [record_type.to_be_bytes(), class.to_be_bytes(), [0; 2], [0; 2]].concat();
    let len = u16::try_from(data.len()).unwrap().to_be_bytes();
    [owner, &numbers, &len, data].concat()
}

/// The address 192.0.2.LAST of a name.
fn address(owner: &[u8], last: u8) -> Vec<u8> {
    record(owner, A, INTERNET, &[192, 0, 2, last])
}

fn alias(owner: &[u8], target: &[u8]) -> Vec<u8> {
    record(owner, CNAME, INTERNET, target)
}

/// The last bytes of the addresses that a message tells.
fn found(message: &[u8]) -> Result<Vec<u8>, String> {
    match asked(Kind::A).answered(message)? {
        Answer::Addresses(addresses) => Ok(addresses.iter().map(last_byte).collect()),
        Answer::Truncated => Err("truncated".to_owned()),
        Answer::Failed(reason) => Err(reason),
    }
}

fn last_byte(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

#[test]
fn the_question_is_that_of_the_originals_example() {
    let expected = [b"\x15\xbe\x01\x00\x00\x01\0\0\0\0\0\0", QUESTION].concat();
    for domain in ["www.example.com", "www.example.com."] {
        assert_eq!(Question::new(domain, Kind::A, ID).unwrap().message(), expected);
    }
    assert!(asked(Kind::Aaaa).message().ends_with(&[0, 0, 28, 0, 1]));
    for bad in ["", ".", "a..b", "a..", &"x".repeat(64), &"x.".repeat(128)] {
        assert!(Question::new(bad, Kind::A, ID).is_err(), "{bad}");
    }
    // As in Python, whatever IDNA would make of it.
    for foreign in ["b\u{fc}cher.example", "\u{e4}..b"] {
        let told = Question::new(foreign, Kind::A, ID).unwrap_err();
        assert_eq!(told, "not ASCII: give its A-label (xn--...)");
    }
}

#[test]
fn addresses_are_those_of_the_question_and_of_its_aliases() {
    let (other, third) = (b"\x05other\xc0\x10", b"\x05third\xc0\x10");
    for (records, expected) in [
        (vec![], vec![]),
        (vec![address(WWW, 7), address(WWW, 8)], vec![7, 8]),
        (vec![address(b"\x03WWW\xc0\x10", 7)], vec![7]),
        (vec![alias(WWW, EXAMPLE), address(EXAMPLE, 7)], vec![7]),
        // In any order, and over several.
        (vec![address(third, 7), alias(other, third), alias(WWW, other)], vec![7]),
        // Of another owner; of another class; of another type.
        (vec![address(EXAMPLE, 9)], vec![]),
        (vec![alias(WWW, other), address(EXAMPLE, 9), address(other, 7)], vec![7]),
        (vec![record(WWW, A, 3, &[192, 0, 2, 9]), address(WWW, 7)], vec![7]),
        (vec![record(WWW, 16, INTERNET, &[192, 0, 2, 9])], vec![]),
        (vec![record(WWW, AAAA, INTERNET, &[9; 16])], vec![]),
        (vec![record(WWW, A, 3, &[1; 5]), record(WWW, CNAME, 3, EXAMPLE)], vec![]),
    ] {
        assert_eq!(found(&answer_of(&records)), Ok(expected), "{records:?}");
    }
    let error = found(&answer_of(&[alias(WWW, EXAMPLE), alias(EXAMPLE, WWW)])).unwrap_err();
    assert!(error.contains("they go round"), "{error}");
}

#[test]
fn an_address_of_ipv6_has_16_bytes_and_is_asked_for_as_such() {
    let answered = |data: &[u8]| {
        let mut message = answer_of(&[record(WWW, AAAA, INTERNET, data)]);
        message[HEADER_LEN + QUESTION.len() - 3] = 28;
        asked(Kind::Aaaa).answered(&message)
    };
    let mut address = [0; 16];
    [address[0], address[15]] = [0x20, 7];
    assert_eq!(answered(&address), Ok(Answer::Addresses(vec![address.into()])));
    assert_eq!((answered(&address[..15]), answered(&[1; 4])), (Err(MALFORMED), Err(MALFORMED)));
}

#[test]
fn an_answer_that_is_cut_anywhere_is_none() {
    let whole = answer_of(&[alias(WWW, EXAMPLE), address(EXAMPLE, 7)]);
    assert_eq!(found(&whole), Ok(vec![7]));
    for len in 0..whole.len() {
        assert!(asked(Kind::A).answered(&whole[..len]).is_err(), "{len}");
    }
}

#[test]
fn a_record_that_breaks_the_rules_spoils_its_answer() {
    // Where the first record begins.
    let here = u8::try_from(HEADER_LEN + QUESTION.len()).unwrap();
    let long = [&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], &[0]].concat();
    for records in [
        vec![record(WWW, A, INTERNET, &[192, 0, 2, 7, 0])],
        vec![record(WWW, A, INTERNET, &[192, 0, 2])],
        vec![record(EXAMPLE, A, INTERNET, &[192, 0, 2, 7, 0]), address(WWW, 7)],
        vec![record(WWW, CNAME, INTERNET, b"\xc0\x10\0")],
        vec![record(WWW, CNAME, INTERNET, b"\x05other")],
        // Pointers to themselves, to behind themselves, to where they come from; a label that is neither.
        vec![address(&[0xc0, here], 7)],
        vec![address(&[0xc0, here + 1], 7)],
        vec![address(&[0xff, 0xff], 7)],
        vec![address(&[1, b'a', 0xc0, here], 7)],
        vec![address(&[0x40, 1, 0], 7)],
        vec![address(&long, 7)],
    ] {
        let message = answer_of(&records);
        assert_eq!(asked(Kind::A).answered(&message), Err(MALFORMED), "{records:?}");
    }
}

#[test]
fn only_an_answer_to_this_question_is_one() {
    let changed = |at: usize, byte: u8| {
        let mut answer = answer_of(&[address(WWW, 7)]);
        answer[at] = byte;
        answer
    };
    assert_eq!(found(&changed(13, b'W')), Ok(vec![7]));
    // Another number, a question, other operations, a count of questions, another name, type, class.
    for (at, byte) in [
        (0, 0x16),
        (1, 0),
        (2, 0x05),
        (2, 0xA5),
        (2, 0x8D),
        (4, 1),
        (5, 2),
        (5, 0),
        (13, b'x'),
        (30, 2),
        (32, 3),
    ] {
        assert!(asked(Kind::A).answered(&changed(at, byte)).is_err(), "byte {at}: {byte:#x}");
    }
}

#[test]
fn a_server_that_cannot_answer_is_no_empty_answer() {
    let answered = |high, low, questions| {
        let header = [0x15, 0xbe, high, low, 0, questions, 0, 0, 0, 0, 0, 0];
        asked(Kind::A).answered(&[&header, QUESTION].concat()).unwrap()
    };
    for questions in [0, 1] {
        for (low, told) in [
            (0x83, "there is no such domain"),
            (0x82, "the server failed"),
            (0x8b, "response code 11"),
        ] {
            assert_eq!(answered(0x81, low, questions), Answer::Failed(told.to_owned()));
        }
    }
    assert_eq!(answered(0x83, 0x80, 1), Answer::Truncated);
}

/// A record of a world of five names: an address of one, or one as an alias of another.
#[derive(Debug, Clone)]
enum Drawn {
    Address(u8, u8),
    Alias(u8, u8),
}

/// `www.example.com` is 0, and the others are one label below `example.com`.
fn drawn_name(number: u8) -> Vec<u8> {
    match number {
        0 => WWW.to_vec(),
        number => [&[1, b'a' + number][..], EXAMPLE].concat(),
    }
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let address = (0..5_u8, any::<u8>()).prop_map(|(owner, last)| Drawn::Address(owner, last));
    let alias = (0..5_u8, 0..5_u8).prop_map(|(owner, target)| Drawn::Alias(owner, target));
    prop::collection::vec(prop_oneof![address, alias], 0..12)
}

proptest! {
    /// What is told is what a walk by the rules finds: addresses of the name, else those of what it is an alias of.
    #[test]
    fn no_address_of_a_name_that_the_question_does_not_lead_to_is_told(records in drawn()) {
        let encoded: Vec<_> = records.iter().map(|record| match *record {
            Drawn::Address(owner, last) => address(&drawn_name(owner), last),
            Drawn::Alias(owner, target) => alias(&drawn_name(owner), &drawn_name(target)),
        }).collect();
        let (mut at, mut seen) = (0, Vec::new());
        let expected = loop {
            let own: Vec<u8> = records.iter().filter_map(|record| match *record {
                Drawn::Address(owner, last) if owner == at => Some(last),
                _ => None,
            }).collect();
            let next = records.iter().find_map(|record| match *record {
                Drawn::Alias(owner, target) if owner == at => Some(target),
                _ => None,
            });
            match next {
                Some(_) if seen.contains(&at) => break None,
                Some(next) if own.is_empty() => {
                    seen.push(at);
                    at = next;
                }
                _ => break Some(own),
            }
        };
        prop_assert_eq!(found(&answer_of(&encoded)).ok(), expected);
    }

    /// Behind a header and question that are right anything may stand, pointers to everywhere among it.
    #[test]
    fn whatever_a_server_sends_is_read_to_its_end(
        count in any::<u16>(),
        rest in prop::collection::vec(prop_oneof![Just(0xc0_u8), 0..64_u8, any::<u8>()], 0..400),
    ) {
        let mut message = [&answer_of(&[])[..], &rest].concat();
        message[6..8].copy_from_slice(&count.to_be_bytes());
        if let Ok(Answer::Addresses(addresses)) = asked(Kind::A).answered(&message) {
            prop_assert!(addresses.len() <= rest.len() / 10);
        }
    }

    /// A message in which one byte is another never panics, and never tells an address that it does not hold.
    #[test]
    fn a_changed_answer_tells_nothing_that_it_does_not_hold(at in 0..100_usize, byte in any::<u8>()) {
        let mut message = answer_of(&[alias(WWW, EXAMPLE), address(EXAMPLE, 7), address(WWW, 8)]);
        let at = at % message.len();
        message[at] = byte;
        if let Ok(Answer::Addresses(addresses)) = asked(Kind::A).answered(&message) {
            for address in addresses {
                let IpAddr::V4(address) = address else { panic!("it asked for the other family") };
                prop_assert!(message.windows(4).any(|window| window == address.octets()));
            }
        }
    }
}
