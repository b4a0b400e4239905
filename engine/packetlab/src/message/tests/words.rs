//! Messages as people read them.

use super::bytes_of;
use crate::message::{Header, Message};
use crate::time::Ticks;

/// The words of a whole message, in hexadecimal.
fn told(hex: &str) -> String {
    let bytes = bytes_of(hex);
    let (header, payload) = bytes.split_first_chunk().unwrap();
    let header = Header::decode(*header);
    assert_eq!(header.payload_len, payload.len());
    Message::decode(header.message_type, payload).to_string()
}

/// Of the recorded conversations of original programs.
#[test]
fn messages_of_original_programs_are_told_in_words() {
    for (hex, words) in [
        (
            "2a000013010406000010000000000000007f4d00010050",
            "NOPEN socket 1: TCP from 0.0.0.0:0 to 127.77.0.1:80, receive buffer of 4096 bytes",
        ),
        (
            "2a00000b0104000000100000000000",
            "NOPEN socket 1: raw IP at 0.0.0.0, receive buffer of 4096 bytes",
        ),
        ("40000000", "RESULT SUCCESS (0): success"),
        (
            "6100001101040618eaad6144af894d7f4d00010050",
            "NSTAT socket 1: connected to 127.77.0.1:80, at 1795438034.736351565",
        ),
        (
            "2c000014010411000000000000000004d27f4d0001003561",
            "NSEND socket 1: 1 byte, peer 127.77.0.1:53, at once, tag 1234",
        ),
        ("6000000b0104d218eaad6202f11247", "NTAG socket 1: tag 1234 sent at 1795438037.928317511"),
        ("28000006100200000001", "MREAD 1 byte at 0x10020000"),
        ("410000051002000001", "MDATA 1 byte at 0x10020000"),
        ("2b00000105", "NCLOSE socket 5"),
    ] {
        assert_eq!(told(hex), words);
    }
}

#[test]
fn what_is_not_understood_is_told_by_its_type_and_length() {
    assert_eq!(told("990000020000"), "type 0x99 with 2 bytes");
    assert_eq!(told("2b0000020000"), "NCLOSE (0x2b) with 2 bytes, malformed");
}

#[test]
fn what_a_peer_chooses_stays_within_one_line() {
    let message = Message::Linfo { name: b"a\nb", auxiliary: b"\x1b[2J", info: &[b'x'; 1000] };
    let words = message.to_string();
    assert!(words.starts_with("LINFO name \"a\\nb\", aux \"\\u{1b}[2J\", info \"xxx"), "{words}");
    assert!(words.len() < 300 && !words.contains(char::is_control), "{words}");
    let ends =
        [Ticks::MAX, Ticks(1_500_000_000)].map(|resume| Message::Yield { resume }.to_string());
    assert_eq!(ends, ["YIELD until the end", "YIELD until 1.500000000"]);
}
