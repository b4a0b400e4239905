//! Why TLS failed, in words.
//!
//! rustls shows the reason of a refused chain, and the names of alerts and violations, as Rust code. Here they
//! are shown as text. Not here: TLS itself (`engine::proto::tls`).

use std::io;

use rustls::{CertificateError, Error, OtherError};

/// What a TLS stream failed with; of an error that is not of TLS, its own text.
pub(crate) fn reason(cause: &io::Error) -> String {
    match cause.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            format!("the peer's certificates are refused: {reason}")
        }
        Some(error) => in_words(&error.to_string()),
        None => cause.to_string(),
    }
}

/// `PeerMisbehaved(NoAlert)` as `peer misbehaved (no alert)`: names of code become words.
fn in_words(text: &str) -> String {
    let mut words = String::new();
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let next = text.get(at..).and_then(|rest| rest.chars().nth(1));
        let is_hump = c.is_ascii_uppercase() && next.is_some_and(|c| c.is_ascii_lowercase());
        let splits = (is_hump || c == '(') && before.is_ascii_alphanumeric();
        if splits {
            words.push(' ');
        }
        words.push(if is_hump { c.to_ascii_lowercase() } else { c });
        before = c;
    }
    words
}

#[cfg(test)]
#[path = "../../engine/tests/common/debug_forms.rs"]
mod debug_forms;

#[cfg(test)]
mod tests {
    use super::debug_forms::assert_no_debug_form;
    use super::*;
    use rustls::{AlertDescription, ContentType, InvalidMessage, PeerMisbehaved};
    use std::sync::Arc;

    #[test]
    fn no_failure_of_tls_is_shown_as_code() {
        let no_signer = engine::proto::trust::ChainError::BadSignature { index: 0 };
        let refusal = CertificateError::Other(OtherError(Arc::new(no_signer)));
        let refused = "the peer's certificates are refused: ";
        for (error, shown) in [
            (Error::InvalidCertificate(refusal), refused),
            (
                Error::AlertReceived(AlertDescription::CertificateUnknown),
                "received fatal alert: certificate unknown",
            ),
            (
                Error::AlertReceived(AlertDescription::Unknown(0x77)),
                "received fatal alert: alert description (0x77)",
            ),
            (
                Error::InvalidMessage(InvalidMessage::MissingData("ServerHello")),
                "received corrupt message of type missing data (\"server hello\")",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec),
                "peer misbehaved: illegal middlebox change cipher spec",
            ),
            (
                Error::InappropriateMessage {
                    expect_types: vec![ContentType::Handshake],
                    got_type: ContentType::ApplicationData,
                },
                "received unexpected message: got application data when expecting handshake",
            ),
        ] {
            let reason = reason(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert!(reason.starts_with(shown), "{reason} instead of {shown}");
            assert_no_debug_form(&reason);
        }
        let plain = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(reason(&plain), plain.to_string());
        assert_eq!(in_words("TLS 1.3 is not offered by EP1"), "TLS 1.3 is not offered by EP1");
    }
}
