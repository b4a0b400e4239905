//! Why a handshake or connection failed, in words for a person, and what to do about it.

use rustls::{
    AlertDescription, CertificateError, ContentType, Error, HandshakeType, InvalidMessage,
    OtherError, PeerMisbehaved,
};

use super::alert;
use crate::record::Violation;

/// Why TLS failed, in words of our own where those of rustls would show code.
pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            format!("the peer's certificates are refused: {reason}")
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the peer's signature over the handshake is wrong: it may not hold the key of its certificate".into()
        }
        Error::InvalidCertificate(how) => {
            format!("the peer's certificates are refused: {}", alert::words_of(how))
        }
        Error::AlertReceived(alert) => {
            format!("the peer sent the alert {}", alert::name(*alert))
        }
        Error::PeerMisbehaved(how) => {
            format!("the peer broke the protocol: {}", alert::words_of(how))
        }
        Error::PeerIncompatible(how) => {
            format!("the peer is incompatible: {}", alert::words_of(how))
        }
        Error::InvalidMessage(how) => {
            format!("a corrupt message came: {}", alert::words_of(how))
        }
        // Whoever sends such a record speaks no TLS, and need not be told what would have been next.
        Error::InappropriateMessage { got_type: ContentType::Unknown(number), .. } => {
            format!("received unexpected message: got content type {number:#04x}")
        }
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::InvalidEncryptedClientHello(_)
        | Error::InvalidCertRevocationList(_)
        | Error::InconsistentKeys(_) => alert::words(&error.to_string()),
        error => error.to_string(),
    }
}

/// What rustls calls a violation that our records have found, so that both have the same words.
pub(super) fn error_of(violation: Violation) -> Error {
    const ALERT: &str = "AlertMessagePayload";
    match violation {
        Violation::NotAuthentic => Error::DecryptError,
        Violation::TooLong => Error::PeerSentOversizedRecord,
        Violation::UnexpectedRecord(got) => Error::InappropriateMessage {
            expect_types: vec![ContentType::ApplicationData, ContentType::Handshake],
            got_type: got.into(),
        },
        Violation::UnexpectedHandshake(got) => Error::InappropriateHandshakeMessage {
            expect_types: vec![HandshakeType::KeyUpdate],
            got_type: got.into(),
        },
        Violation::NoContentType => PeerMisbehaved::IllegalTlsInnerPlaintext.into(),
        Violation::TooManyEmpty => PeerMisbehaved::TooManyEmptyFragments.into(),
        Violation::BehindKeyUpdate => PeerMisbehaved::KeyEpochWithPendingFragment.into(),
        Violation::Interleaved => PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into(),
        Violation::TooManyKeyUpdates => PeerMisbehaved::TooManyKeyUpdateRequests.into(),
        Violation::Empty(_) => InvalidMessage::InvalidEmptyPayload.into(),
        Violation::MalformedAlert(0 | 1) => InvalidMessage::MissingData(ALERT).into(),
        Violation::MalformedAlert(_) => InvalidMessage::TrailingData(ALERT).into(),
        Violation::MalformedKeyUpdate | Violation::UnknownKeyUpdate => {
            InvalidMessage::InvalidKeyUpdate.into()
        }
        Violation::Alert(alert) => Error::AlertReceived(alert.into()),
    }
}

/// The peer's certificates, or its proof that it holds the key of the first one, were refused, or it showed none where one
/// is demanded.
pub fn is_refused_certificate(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(_)
            | Error::NoCertificatesPresented
            | Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)
    )
}

/// The peer has closed its side with close_notify where there is nothing yet that could end so.
pub fn is_close(error: &Error) -> bool {
    matches!(error, Error::AlertReceived(AlertDescription::CloseNotify))
}

/// What to do about a failed handshake with a broker or proxy, whose port is `port` and which may refuse, or be
/// refused by, the files of `keys`.
pub fn remedy(error: &Error, port: &str, keys: &str) -> String {
    match error {
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::PeerSentOversizedRecord => {
            format!("is this {port}?")
        }
        _ => format!("both sides must accept the other's agent certificate ({keys})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_violation_of_records_is_told_in_words() {
        for (violation, words) in [
            (Violation::NotAuthentic, "cannot decrypt peer's message"),
            (Violation::TooLong, "peer sent excess record size"),
            (
                Violation::UnexpectedRecord(20),
                "received unexpected message: got change cipher spec when expecting application data or handshake",
            ),
            (Violation::UnexpectedRecord(99), "received unexpected message: got content type 0x63"),
            (Violation::NoContentType, "the peer broke the protocol: illegal tls inner plaintext"),
            (Violation::Empty(21), "a corrupt message came: invalid empty payload"),
            (Violation::TooManyEmpty, "the peer broke the protocol: too many empty fragments"),
            (
                Violation::MalformedAlert(1),
                "a corrupt message came: missing data alert message payload",
            ),
            (
                Violation::MalformedAlert(3),
                "a corrupt message came: trailing data alert message payload",
            ),
            (
                Violation::UnexpectedHandshake(1),
                "received unexpected handshake message: got client hello when expecting key update",
            ),
            (Violation::MalformedKeyUpdate, "a corrupt message came: invalid key update"),
            (Violation::UnknownKeyUpdate, "a corrupt message came: invalid key update"),
            (
                Violation::BehindKeyUpdate,
                "the peer broke the protocol: key epoch with pending fragment",
            ),
            (
                Violation::Interleaved,
                "the peer broke the protocol: message interleaved with handshake message",
            ),
            (
                Violation::TooManyKeyUpdates,
                "the peer broke the protocol: too many key update requests",
            ),
            (Violation::Alert(40), "the peer sent the alert 40, handshake_failure"),
        ] {
            assert_eq!(reason(&error_of(violation)), words);
        }
    }
}
