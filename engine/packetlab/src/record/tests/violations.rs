//! Each rule of what a peer may send: what it ends with, and that nothing of it passes.

use super::*;

const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;

/// What a peer sends behind two records of data.
type Bad = fn(&mut Peer) -> Vec<u8>;

/// `bytes` with one bit changed at this place.
fn changed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1;
    bytes
}

/// A record in the clear.
fn clear(record_type: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = (body.len() as u16).to_be_bytes();
    [&[record_type, 3, 3, high, low], body].concat()
}

const NOT_AUTHENTIC: [(&str, Bad); 9] = [
    ("a changed tag", |peer| {
        let record = peer.seal(DATA, b"x");
        let at = record.len() - 1;
        changed(record, at)
    }),
    ("a changed body", |peer| changed(peer.seal(DATA, b"x"), 5)),
    ("another version in the header", |peer| changed(peer.seal(DATA, b"x"), 2)),
    ("a lost record", |peer| {
        peer.seal(DATA, b"lost");
        peer.seal(DATA, b"x")
    }),
    ("a repeated record", |peer| {
        peer.seals.sequence -= 1;
        peer.seal(DATA, b"again")
    }),
    ("a record under the next key", |peer| {
        peer.seals.update();
        peer.seal(DATA, b"x")
    }),
    ("an empty body", |_| clear(DATA, b"")),
    ("a body shorter than a tag", |_| clear(DATA, &[0; 15])),
    ("a body of no more than a tag, which is wrong", |_| clear(DATA, &[0; 16])),
];

const UNEXPECTED: [(&str, Bad, Violation); 17] = [
    ("change_cipher_spec", |_| clear(20, &[1]), Violation::UnexpectedRecord(20)),
    ("an alert in the clear", |_| clear(ALERT, &[2, 40]), Violation::UnexpectedRecord(ALERT)),
    ("close_notify in the clear", |_| clear(ALERT, &CLOSE), Violation::UnexpectedRecord(ALERT)),
    (
        "a handshake in the clear",
        |_| clear(HANDSHAKE, &[24, 0, 0, 1, 0]),
        Violation::UnexpectedRecord(HANDSHAKE),
    ),
    (
        "a sealed record that says it is a handshake",
        |peer| {
            let mut record = peer.seal(DATA, b"x");
            record[0] = HANDSHAKE;
            record
        },
        Violation::UnexpectedRecord(HANDSHAKE),
    ),
    ("a record of no known type", |_| clear(99, b"x"), Violation::UnexpectedRecord(99)),
    ("change_cipher_spec inside", |peer| peer.seal(20, &[1]), Violation::UnexpectedRecord(20)),
    ("an unknown type inside", |peer| peer.seal(24, b"x"), Violation::UnexpectedRecord(24)),
    ("nothing inside", |peer| peer.seal_inner(b""), Violation::NoContentType),
    ("zeros inside", |peer| peer.seal_inner(&[0; 100]), Violation::NoContentType),
    ("an empty handshake", |peer| peer.seal(HANDSHAKE, b""), Violation::Empty(HANDSHAKE)),
    ("an empty alert", |peer| peer.seal(ALERT, b""), Violation::Empty(ALERT)),
    (
        "an empty alert with padding",
        |peer| peer.seal_inner(&[ALERT, 0, 0]),
        Violation::Empty(ALERT),
    ),
    (
        "the front of a ClientHello",
        |peer| peer.seal(HANDSHAKE, &[1]),
        Violation::UnexpectedHandshake(1),
    ),
    (
        "a NewSessionTicket",
        |peer| peer.seal(HANDSHAKE, &[4, 0, 0, 0]),
        Violation::UnexpectedHandshake(4),
    ),
    (
        "data behind half a KeyUpdate",
        |peer| [peer.seal(HANDSHAKE, &[24, 0]), peer.seal(DATA, b"x")].concat(),
        Violation::Interleaved,
    ),
    (
        "close_notify behind half a KeyUpdate",
        |peer| [peer.seal(HANDSHAKE, &[24, 0]), peer.seal(ALERT, &CLOSE)].concat(),
        Violation::Interleaved,
    ),
];

const OTHERS: [(&str, Bad, Violation, u8); 13] = [
    (
        "a header of a longer record than there is",
        |_| vec![DATA, 3, 3, 0x40, 0x12],
        Violation::TooLong,
        RECORD_OVERFLOW,
    ),
    (
        "more data than a record holds",
        |peer| peer.seal(DATA, &[7; CONTENT_LEN_MAX + 1]),
        Violation::TooLong,
        RECORD_OVERFLOW,
    ),
    (
        "more padding than a record holds",
        |peer| peer.seal_inner(&[&[7, DATA][..], &[0; CONTENT_LEN_MAX]].concat()),
        Violation::TooLong,
        RECORD_OVERFLOW,
    ),
    (
        "two KeyUpdates in a record",
        |peer| peer.seal(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]),
        Violation::BehindKeyUpdate,
        UNEXPECTED_MESSAGE,
    ),
    (
        "a byte behind a KeyUpdate",
        |peer| peer.seal(HANDSHAKE, &[24, 0, 0, 1, 0, 24]),
        Violation::BehindKeyUpdate,
        UNEXPECTED_MESSAGE,
    ),
    (
        "a KeyUpdate of another value",
        |peer| peer.seal(HANDSHAKE, &[24, 0, 0, 1, 2]),
        Violation::UnknownKeyUpdate,
        ILLEGAL_PARAMETER,
    ),
    (
        "an empty KeyUpdate",
        |peer| peer.seal(HANDSHAKE, &[24, 0, 0, 0]),
        Violation::MalformedKeyUpdate,
        DECODE_ERROR,
    ),
    (
        "a long KeyUpdate",
        |peer| peer.seal(HANDSHAKE, &[24, 0, 0, 2, 0, 0]),
        Violation::MalformedKeyUpdate,
        DECODE_ERROR,
    ),
    (
        "an alert of one byte",
        |peer| peer.seal(ALERT, &[2]),
        Violation::MalformedAlert(1),
        DECODE_ERROR,
    ),
    (
        "two alerts in a record",
        |peer| peer.seal(ALERT, &[1, 0, 1, 0]),
        Violation::MalformedAlert(4),
        DECODE_ERROR,
    ),
    (
        "too many empty records",
        |peer| (0..33).flat_map(|_| peer.seal(DATA, b"")).collect(),
        Violation::TooManyEmpty,
        UNEXPECTED_MESSAGE,
    ),
    (
        "too many records of padding and of user_canceled",
        |peer| {
            let padding = |peer: &mut Peer| peer.seal_inner(&[DATA, 0, 0, 0]);
            let canceled = |peer: &mut Peer| peer.seal(ALERT, &[1, 90]);
            (0..17).flat_map(|_| [padding(peer), canceled(peer)].concat()).collect()
        },
        Violation::TooManyEmpty,
        UNEXPECTED_MESSAGE,
    ),
    (
        "too many KeyUpdates",
        |peer| (0..33).flat_map(|_| peer.seal_key_update(0)).collect(),
        Violation::TooManyKeyUpdates,
        UNEXPECTED_MESSAGE,
    ),
];

/// What came before is delivered, nothing of the violation and nothing behind it; the alert is all that is sent.
#[track_caller]
fn ends(case: &str, bad: Bad, violation: Violation, alert: u8) {
    for suite in SUITES {
        let (mut records, mut peer) = connection(suite);
        let mut sent = [peer.seal(DATA, b"before "), peer.seal(DATA, b"it")].concat();
        sent.extend(bad(&mut peer));
        let behind = peer.seal(DATA, b"behind it");
        sent.extend(&behind);
        assert_eq!(open(&mut records, &sent), (b"before it".to_vec(), Err(violation)), "{case}");
        assert_eq!(open(&mut records, &behind), (Vec::new(), Err(violation)), "{case}");
        assert!(records.is_closed(), "{case}");
        assert_eq!(seal(&mut records, b"data"), b"", "{case}: only an alert is sent");
        records.close();
        assert_eq!(peer.open(&due(&mut records)), [(ALERT, vec![2, alert])], "{case}");
        assert_eq!(due(&mut records), b"", "{case}: one is enough");
    }
}

#[test]
fn a_record_that_is_not_authentic_is_not_looked_at() {
    for (case, bad) in NOT_AUTHENTIC {
        ends(case, bad, Violation::NotAuthentic, BAD_RECORD_MAC);
    }
}

#[test]
fn what_has_no_place_behind_the_handshake_is_unexpected() {
    for (case, bad, violation) in UNEXPECTED {
        ends(case, bad, violation, UNEXPECTED_MESSAGE);
    }
}

#[test]
fn each_other_violation_has_its_alert() {
    for (case, bad, violation, alert) in OTHERS {
        ends(case, bad, violation, alert);
    }
}

#[test]
fn an_alert_of_the_peer_ends_both_sides_without_an_answer() {
    for (level, description) in [(2, 40), (1, 40), (7, 255)] {
        let (mut records, mut peer) = connection(Suite::Aes128Gcm);
        let sent = [peer.seal(DATA, b"data"), peer.seal(ALERT, &[level, description])].concat();
        let ended = (b"data".to_vec(), Err(Violation::Alert(description)));
        assert_eq!(open(&mut records, &sent), ended);
        assert!(records.is_closed());
        assert_eq!(seal(&mut records, b"data"), b"");
        assert_eq!(due(&mut records), b"");
    }
}

#[test]
fn records_of_the_longest_and_the_shortest_kind_are_taken() {
    let (mut records, mut peer) = connection(Suite::ChaCha20Poly1305);
    let most = vec![9; CONTENT_LEN_MAX];
    let padded = [&b"padded\x17"[..], &[0; CONTENT_LEN_MAX - 6]].concat();
    let sent = [peer.seal(DATA, &most), peer.seal_inner(&padded), peer.seal(DATA, b"1")].concat();
    assert_eq!(open(&mut records, &sent), ([&most[..], b"padded1"].concat(), Ok(Next::Input)));
}

#[test]
fn so_many_records_without_data_are_taken_and_data_begins_the_count_anew() {
    let (mut records, mut peer) = connection(Suite::Aes128Gcm);
    for _ in 0..3 {
        let mut sent: Vec<u8> = (0..32).flat_map(|_| peer.seal(DATA, b"")).collect();
        sent.extend((0..32).flat_map(|_| peer.seal_key_update(0)).collect::<Vec<_>>());
        sent.extend(peer.seal(DATA, b"x"));
        assert_eq!(open(&mut records, &sent), (b"x".to_vec(), Ok(Next::Input)));
    }
}

#[test]
fn behind_close_notify_nothing_is_looked_at_and_our_side_goes_on() {
    let (mut records, mut peer) = connection(Suite::Aes128Gcm);
    let mut sent = [peer.seal(DATA, b"last"), peer.seal(ALERT, &CLOSE)].concat();
    sent.extend(b"no record at all");
    assert_eq!(open(&mut records, &sent), (b"last".to_vec(), Ok(Next::Closed)));
    assert!(records.is_closed_by_peer() && !records.is_closed());
    assert_eq!(open(&mut records, &peer.seal(DATA, b"more")), (Vec::new(), Ok(Next::Closed)));
    assert_eq!(peer.open(&seal(&mut records, b"ours")), [(DATA, b"ours".to_vec())]);
    records.close();
    assert_eq!(seal(&mut records, b"too late"), b"");
    assert_eq!(peer.open(&due(&mut records)), [(ALERT, CLOSE.to_vec())]);
    assert_eq!(due(&mut records), b"");
}

#[test]
fn close_notify_of_a_level_of_its_own_is_close_notify() {
    let (mut records, mut peer) = connection(Suite::Aes128Gcm);
    assert_eq!(open(&mut records, &peer.seal(ALERT, &[2, 0])), (Vec::new(), Ok(Next::Closed)));
}
