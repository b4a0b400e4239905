//! Alerts that rustls does not send by itself, and names of those that come.
//!
//! rustls answers most violations with the alert that TLS has for them, but not all, and offers close_notify alone to be
//! sent from outside. So the cipher suites here are those of the provider with two additions: while [`seal_instead`] runs,
//! the message that is being sealed becomes another, such as an alert; and what is opened is looked at before rustls takes
//! it. Keys and sequence numbers stay with rustls.
//!
//! Not here: the words for a failed connection (`failure.rs`).

use std::cell::Cell;
use std::fmt;
use std::sync::LazyLock;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter,
    OutboundChunks, OutboundOpaqueMessage, OutboundPlainMessage, Tls13AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    AlertDescription, CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error,
    InvalidMessage, PeerMisbehaved, SupportedCipherSuite, Tls13CipherSuite,
};

/// A message to be sealed in the place of another. Public for tests of how a peer takes violations.
#[derive(Debug, Clone, Copy)]
pub struct Instead {
    /// What kind of message the record claims to hold.
    pub content_type: ContentType,
    /// The message.
    pub payload: [u8; 2],
    /// How many bytes of it count.
    pub payload_len: usize,
}

thread_local! {
    static INSTEAD: Cell<Option<Instead>> = const { Cell::new(None) };
}

/// Runs `seal`, which seals one message on a connection with a configuration of this crate, and has it seal this one.
pub fn seal_instead(message: Instead, seal: impl FnOnce()) {
    INSTEAD.set(Some(message));
    seal();
    INSTEAD.set(None);
}

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// The alerts that are none of errors (RFC 8446 6.1).
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// A fatal alert in the place of close_notify.
pub(super) fn fatal(alert: AlertDescription) -> Instead {
    Instead { content_type: ContentType::Alert, payload: [FATAL, alert.into()], payload_len: 2 }
}

/// The alert for what ends a connection and rustls has not answered: floods, messages that are interleaved, records without
/// content (RFC 8446 5.1, 5.4, 6.2), and what is found here before rustls sees it.
pub(super) fn answer(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        // The peer knows what it complains of, and expects no answer.
        Error::AlertReceived(_) => return None,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::PeerMisbehaved(PeerMisbehaved::UnsolicitedCertExtension) => {
            AlertDescription::UnsupportedExtension
        }
        // Found here; what else is malformed rustls answers, but for its length.
        Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload) => {
            AlertDescription::UnexpectedMessage
        }
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => AlertDescription::UnexpectedMessage,
        // What `receive` makes of a handshake message that is longer than rustls takes.
        Error::General(_) => AlertDescription::IllegalParameter,
        _ => AlertDescription::InternalError,
    })
}

/// The record of close_notify, and that of a fatal alert, on a connection on which nothing is sealed yet.
pub(super) const CLEAR_CLOSE_NOTIFY: [u8; 7] = clear(WARNING, CLOSE_NOTIFY);

pub(super) fn in_the_clear(description: AlertDescription) -> [u8; 7] {
    clear(FATAL, description.into())
}

const fn clear(level: u8, description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, level, description]
}

/// The number and the name of an alert as RFC 8446 6 writes it: `10, unexpected_message`.
pub(super) fn name(alert: AlertDescription) -> String {
    let name = words(alert.as_str().unwrap_or("of unknown meaning"));
    format!("{}, {}", u8::from(alert), name.replace(' ', "_"))
}

/// The words of what rustls names in code alone: `TooManyEmptyFragments` is `too many empty fragments`.
pub(super) fn words_of(named: &dyn fmt::Debug) -> String {
    words(&format!("{named:?}"))
}

/// The words of names of code.
pub(super) fn words(name: &str) -> String {
    let mut words = String::new();
    let mut before = ' ';
    for letter in name.chars().filter(|letter| !matches!(letter, '"' | ')')) {
        if letter == '(' || letter.is_ascii_uppercase() && before.is_ascii_lowercase() {
            words.push(' ');
        }
        if letter != '(' {
            words.push(letter.to_ascii_lowercase());
        }
        before = letter;
    }
    words
}

/// What aws-lc-rs provides, with suites that let [`seal_instead`] work.
pub(super) fn provider() -> CryptoProvider {
    let cipher_suites = SUITES.iter().map(SupportedCipherSuite::Tls13).collect();
    CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() }
}

static AEADS: LazyLock<Vec<(CipherSuite, Aead)>> = LazyLock::new(|| {
    let suites = aws_lc_rs::default_provider().cipher_suites.into_iter();
    suites.filter_map(|suite| Some((suite.suite(), Aead(suite.tls13()?)))).collect()
});

static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
    AEADS
        .iter()
        .map(|(suite, aead)| Tls13CipherSuite {
            common: CipherSuiteCommon {
                suite: *suite,
                hash_provider: aead.0.common.hash_provider,
                confidentiality_limit: aead.0.common.confidentiality_limit,
            },
            hkdf_provider: aead.0.hkdf_provider,
            aead_alg: aead,
            quic: None,
        })
        .collect()
});

/// The AEAD of a suite, whose encrypters heed [`INSTEAD`].
struct Aead(&'static Tls13CipherSuite);

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Encrypter(self.0.aead_alg.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Decrypter(self.0.aead_alg.decrypter(key, iv)))
    }

    fn key_len(&self) -> usize {
        self.0.aead_alg.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.aead_alg.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.0.aead_alg.fips()
    }
}

struct Encrypter(Box<dyn MessageEncrypter>);

impl MessageEncrypter for Encrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        match INSTEAD.get() {
            None => self.0.encrypt(message, sequence),
            Some(Instead { content_type: typ, payload, payload_len }) => {
                let payload = OutboundChunks::Single(&payload[..payload_len]);
                self.0.encrypt(OutboundPlainMessage { typ, payload, ..message }, sequence)
            }
        }
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}

/// What rustls would take otherwise than RFC 8446 has it.
struct Decrypter(Box<dyn MessageDecrypter>);

impl MessageDecrypter for Decrypter {
    fn decrypt<'a>(
        &mut self,
        message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let opened = self.0.decrypt(message, sequence)?;
        match (opened.typ, opened.payload) {
            // 5.4; rustls would take 32 in a row.
            (ContentType::Handshake | ContentType::Alert, []) => {
                Err(PeerMisbehaved::TooManyEmptyFragments.into())
            }
            // 6: an error is one whatever its level, and is not answered; rustls answers those of another.
            (ContentType::Alert, [_, description])
                if ![CLOSE_NOTIFY, USER_CANCELED].contains(description) =>
            {
                Err(Error::AlertReceived((*description).into()))
            }
            // 5; rustls would say that it cannot decode it.
            (got_type @ ContentType::Unknown(_), _) => {
                let expect_types = vec![ContentType::Handshake, ContentType::ApplicationData];
                Err(Error::InappropriateMessage { expect_types, got_type })
            }
            _ => Ok(opened),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{CertRevocationListError, CertificateError, InconsistentKeys, OtherError};

    use super::super::reason;
    use super::*;
    use crate::trust::ChainError;

    #[test]
    fn no_failure_of_tls_is_shown_as_code() {
        let no_signer = Arc::new(ChainError::BadSignature { index: 0 });
        let refusal = CertificateError::Other(OtherError(no_signer));
        for (error, shown) in [
            (
                Error::InvalidCertificate(refusal),
                "the peer's certificates are refused: \
                 certificate 0 was not signed by the key it names",
            ),
            (
                Error::InvalidCertificate(CertificateError::BadSignature),
                "the peer's signature over the handshake is wrong: \
                 it may not hold the key of its certificate",
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidForName),
                "the peer's certificates are refused: not valid for name",
            ),
            (
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch),
                "keys may not be consistent: key mismatch",
            ),
            (
                Error::InvalidCertRevocationList(CertRevocationListError::BadSignature),
                "invalid certificate revocation list: bad signature",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateUnknown),
                "the peer sent the alert 46, certificate_unknown",
            ),
            (
                Error::AlertReceived(AlertDescription::Unknown(0x77)),
                "the peer sent the alert 119, of_unknown_meaning",
            ),
            (
                Error::InvalidMessage(InvalidMessage::MissingData("ServerHello")),
                "a corrupt message came: missing data server hello",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec),
                "the peer broke the protocol: illegal middlebox change cipher spec",
            ),
            (
                Error::InappropriateMessage {
                    expect_types: vec![ContentType::Handshake],
                    got_type: ContentType::ApplicationData,
                },
                "received unexpected message: got application data when expecting handshake",
            ),
        ] {
            assert_eq!(reason(&error), shown);
        }
    }
}
