//! Violations of TLS inside a session: each gets its fatal alert, and its reason is told (spec/reliability.md 9).

use rustls::{AlertDescription, ContentType};

use super::pair::Pair;
use crate::proto::session_end::Outcome;
use crate::proto::tests::message;
use packetlab::message::MessageType;
use packetlab::tls::{Instead, seal_instead};

/// Sends a record that holds `payload` as `content_type`, sealed with the endpoint's own key.
fn send_record(pair: &mut Pair, content_type: u8, payload: &[u8]) {
    let mut instead = Instead {
        content_type: ContentType::from(content_type),
        payload: [0; 2],
        payload_len: payload.len(),
    };
    instead.payload[..payload.len()].copy_from_slice(payload);
    let endpoint = &mut pair.endpoint;
    endpoint.has_parted = true;
    seal_instead(instead, || endpoint.write(b"x"));
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// What is sent, the alert for it, and what the log says of it.
type Case = (&'static str, fn(&mut Pair), AlertDescription, &'static str);

const CASES: [Case; 10] = [
    (
        "a flood of empty records",
        |pair| (0..40).for_each(|_| send_record(pair, DATA, b"")),
        AlertDescription::UnexpectedMessage,
        "too many empty fragments",
    ),
    (
        "an inner plaintext of zeros",
        |pair| send_record(pair, 0, &[0, 0]),
        AlertDescription::UnexpectedMessage,
        "illegal tls inner plaintext",
    ),
    (
        "half a KeyUpdate and then data",
        |pair| {
            send_record(pair, HANDSHAKE, &[24, 0]);
            pair.endpoint.write(b"data");
        },
        AlertDescription::UnexpectedMessage,
        "message interleaved with handshake message",
    ),
    (
        "a handshake message that has no place here",
        |pair| {
            send_record(pair, HANDSHAKE, &[0, 0]);
            send_record(pair, HANDSHAKE, &[0, 0]);
        },
        AlertDescription::UnexpectedMessage,
        "",
    ),
    (
        "a change_cipher_spec inside the encryption",
        |pair| send_record(pair, 20, &[1]),
        AlertDescription::UnexpectedMessage,
        "",
    ),
    (
        "an alert of one byte",
        |pair| send_record(pair, ALERT, &[2]),
        AlertDescription::DecodeError,
        "",
    ),
    (
        "a record of an unknown type inside the encryption",
        |pair| send_record(pair, 25, &[1]),
        AlertDescription::UnexpectedMessage,
        "got content type 0x19",
    ),
    (
        "a change_cipher_spec in the clear",
        |pair| pair.endpoint.write_raw(&[20, 3, 3, 0, 1, 1]),
        AlertDescription::UnexpectedMessage,
        "got change cipher spec",
    ),
    (
        "an alert in the clear",
        |pair| pair.endpoint.write_raw(&[ALERT, 3, 3, 0, 2, 2, 40]),
        AlertDescription::UnexpectedMessage,
        "got alert",
    ),
    (
        "the header of a longer record than there is",
        |pair| pair.endpoint.write_raw(&[DATA, 3, 3, 0x40, 0x12]),
        AlertDescription::RecordOverflow,
        "excess record size",
    ),
];

#[test]
fn each_violation_inside_a_session_is_answered_with_its_alert_and_told() {
    let data = message(MessageType::NDATA, b"before");
    for (case, violate, alert, told) in CASES {
        let mut pair = Pair::served();
        pair.endpoint.write(&data);
        pair.run();
        violate(&mut pair);
        let outcome = pair.finish();
        assert!(matches!(outcome, Outcome::EndpointBrokeTls(_)), "{case}: {outcome}");
        assert!(outcome.to_string().contains(told), "{case}: {outcome}");
        assert_eq!(pair.endpoint.alert, Some(alert), "{case}");
        assert!(!pair.endpoint.close_notify, "{case}");
        assert_eq!(
            pair.mlet().received,
            data,
            "{case}: what came before is delivered, and no more"
        );
        assert!(pair.mlet().is_at_eof, "{case}");
    }
}
