//! Alerts that rustls does not send by itself, and names of those that come.
//!
//! rustls answers most violations with the alert that TLS has for them, but not all, and offers close_notify alone to be
//! sent from outside. So the cipher suites here are those of the provider with one addition: while [`seal_instead`] runs,
//! the message that is being sealed becomes another, such as an alert. Keys and sequence numbers stay with rustls.
//!
//! Not here: the words for a failed connection (`failure.rs`).

use std::cell::Cell;
use std::fmt;
use std::sync::LazyLock;

use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundOpaqueMessage,
    OutboundPlainMessage, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    AlertDescription, CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error,
    SupportedCipherSuite, Tls13CipherSuite,
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

/// A fatal alert in the place of close_notify.
pub(super) fn fatal(alert: AlertDescription) -> Instead {
    const FATAL: u8 = 2;
    Instead { content_type: ContentType::Alert, payload: [FATAL, alert.into()], payload_len: 2 }
}

/// The alert for a violation that rustls has found and not answered (RFC 8446 5.1, 5.4, 6.2): floods, messages that are
/// interleaved, and records without content.
pub(super) fn unanswered(error: &Error) -> Option<AlertDescription> {
    match error {
        // The peer knows what it complains of, and expects no answer.
        Error::AlertReceived(_) => None,
        Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
        Error::PeerMisbehaved(_) => Some(AlertDescription::UnexpectedMessage),
        // What `receive` makes of a handshake message that is longer than rustls takes.
        Error::General(_) => Some(AlertDescription::IllegalParameter),
        _ => Some(AlertDescription::InternalError),
    }
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
        self.0.aead_alg.decrypter(key, iv)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        CertRevocationListError, CertificateError, InconsistentKeys, InvalidMessage, OtherError,
        PeerMisbehaved,
    };

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
