//! Why a handshake or connection failed, in words for a person, and what to do about it.

use rustls::{CertificateError, Error, OtherError};

use super::alert;

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
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::InvalidEncryptedClientHello(_)
        | Error::InvalidCertRevocationList(_)
        | Error::InconsistentKeys(_) => alert::words(&error.to_string()),
        error => error.to_string(),
    }
}

/// The peer's certificates, or its proof that it holds the key of the first one, were refused, or it showed none where one
/// is demanded.
pub fn is_refused_certificate(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(_) | Error::NoCertificatesPresented)
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
