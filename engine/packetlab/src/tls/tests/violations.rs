//! What breaks TLS in a handshake: how the peer is told, and why the connection is said to have failed. What rustls finds and
//! answers by itself is tried by `cli/tests/tlslite.rs` alone.

use rustls::AlertDescription::{self, RecordOverflow, UnexpectedMessage};

use super::*;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// What a client sends instead of its last flight.
#[derive(Clone, Copy)]
enum Sends {
    /// These bytes.
    Clear(&'static [u8]),
    /// A record with this content of this type, sealed in the place of its messages.
    Sealed(u8, &'static [u8]),
}

use Sends::{Clear, Sealed};

/// What comes, how it is answered, and words of the reason.
type Case = (&'static str, &'static [Sends], Option<AlertDescription>, &'static str);

const SEALED: [Case; 14] = [
    (
        "an empty handshake message",
        &[Sealed(HANDSHAKE, b"")],
        Some(UnexpectedMessage),
        "too many empty fragments",
    ),
    ("an empty alert", &[Sealed(ALERT, b"")], Some(UnexpectedMessage), "too many empty fragments"),
    (
        "an unknown type inside",
        &[Sealed(25, b"x")],
        Some(UnexpectedMessage),
        "got content type 0x19",
    ),
    ("an error as a warning", &[Sealed(ALERT, &[1, 42])], None, "sent the alert 42"),
    ("an error of no level", &[Sealed(ALERT, &[9, 42])], None, "sent the alert 42"),
    (
        "an alert in the clear before anything that is sealed",
        &[Clear(&[ALERT, 3, 3, 0, 2, 2, 48])],
        None,
        "sent the alert 48",
    ),
    (
        "an alert in the clear behind a sealed record",
        &[Sealed(ALERT, &[1, 90]), Clear(&[ALERT, 3, 3, 0, 2, 2, 48])],
        Some(UnexpectedMessage),
        "got alert when expecting application data",
    ),
    (
        "a handshake message in the clear",
        &[Clear(&[HANDSHAKE, 3, 3, 0, 4, 20, 0, 0, 0])],
        Some(UnexpectedMessage),
        "got handshake when expecting application data",
    ),
    (
        "an unknown type",
        &[Clear(&[25, 3, 3, 0, 1, 0])],
        Some(UnexpectedMessage),
        "got content type 0x19",
    ),
    (
        "a header of a longer record than there is",
        &[Clear(&[23, 3, 3, 0x40, 0x12])],
        Some(RecordOverflow),
        "excess record size",
    ),
    (
        "an empty change_cipher_spec",
        &[Clear(&[20, 3, 3, 0, 0])],
        Some(UnexpectedMessage),
        "invalid empty payload",
    ),
    (
        "an empty alert in the clear",
        &[Clear(&[ALERT, 3, 3, 0, 0])],
        Some(UnexpectedMessage),
        "empty",
    ),
    (
        "more of change_cipher_spec than there can be",
        &[Clear(&[20, 3, 3, 0, 1, 1, 20, 3, 3, 0, 1, 1, 20, 3, 3, 0, 1, 1])],
        Some(UnexpectedMessage),
        "illegal middlebox change cipher spec",
    ),
    ("garbage", &[Clear(b"GET / HTTP/1.0\r\n")], Some(UnexpectedMessage), "content type 0x47"),
];

/// Behind a HelloRetryRequest, when nothing is sealed yet.
const RETRIED: [Case; 4] = [
    (
        "an empty record",
        &[Clear(&[HANDSHAKE, 3, 3, 0, 0])],
        Some(UnexpectedMessage),
        "invalid empty payload",
    ),
    (
        "a header of a longer record than there is",
        &[Clear(&[HANDSHAKE, 3, 3, 0x40, 1])],
        Some(RecordOverflow),
        "excess record size",
    ),
    (
        "data between parts of a message",
        &[Clear(&[HANDSHAKE, 3, 3, 0, 1, 1]), Clear(&[23, 3, 3, 0, 1, 0])],
        Some(UnexpectedMessage),
        "interleaved",
    ),
    ("an alert", &[Clear(&[ALERT, 3, 3, 0, 2, 2, 48])], None, "sent the alert 48"),
];

/// The alert that the client is told; `None` if nothing came that ends the connection.
fn told(pair: &mut Pair) -> Option<AlertDescription> {
    let mut room = [0; 1000];
    while pair.server.has_output() {
        let len = pair.server.write_output(&mut room);
        pair.client.read_tls(&mut &room[..len]).unwrap();
        match at(Ticks(1), || pair.client.process_new_packets()) {
            Err(Error::AlertReceived(alert)) => return Some(alert),
            processed => drop(processed.unwrap()),
        }
    }
    None
}

/// A client that has the server's flight, and what it would answer with this record instead of its own.
fn sealed(pair: &mut Pair, content_type: u8, content: &[u8]) -> Vec<u8> {
    let mut instead =
        Instead { content_type: content_type.into(), payload: [0; 2], payload_len: content.len() };
    instead.payload[..content.len()].copy_from_slice(content);
    seal_instead(instead, || pair.give_to_client());
    sent_by(&mut pair.client)
}

#[track_caller]
fn ends((case, sends, alert, words): Case, mut pair: Pair) {
    let mut result = Ok(());
    for part in sends {
        assert_eq!(result, Ok(()), "{case}: the last part alone ends it");
        let bytes = match *part {
            Clear(bytes) => bytes.to_vec(),
            Sealed(content_type, content) => sealed(&mut pair, content_type, content),
        };
        result = pair.give_to_server(&bytes);
    }
    let error = result.expect_err(case);
    assert!(reason(&error).contains(words), "{case}: {}", reason(&error));
    assert!(pair.server.is_closed() && pair.server.is_handshaking(), "{case}");
    // Nothing comes behind it, nor instead of it.
    pair.server.close();
    assert_eq!(told(&mut pair), alert, "{case}");
    assert!(!pair.server.has_output(), "{case}");
}

#[test]
fn each_violation_in_a_handshake_has_its_alert_and_its_reason() {
    for (number, case) in SEALED.into_iter().enumerate() {
        let pair = Pair::begin(client(SUITES[number % SUITES.len()]), server_side(), 1000);
        ends(case, pair);
    }
}

#[test]
fn before_anything_is_sealed_the_alert_comes_in_the_clear() {
    for case in RETRIED {
        let client = client_with(|provider| provider.kx_groups.insert(0, kx_group::MLKEM768));
        let pair = Pair::begin(client, server_side(), 1000);
        ends(case, pair);
    }
}

#[test]
fn close_notify_in_a_handshake_is_told_from_a_failure() {
    for level in [1, 2] {
        let mut pair = Pair::begin(client(SUITES[0]), server_side(), 1000);
        let sent = sealed(&mut pair, ALERT, &[level, 0]);
        assert!(is_close(&pair.give_to_server(&sent).unwrap_err()), "{level}");
    }
}
