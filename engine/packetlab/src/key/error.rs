//! Why a key could not be read or made.

use std::fmt;

use crate::pem::PemError;
use crate::strict_der::Flaw;

/// Why a key could not be read or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// The file does not hold the one PEM section that is wanted.
    Pem(PemError),
    /// The section is not a PKCS#8 private key.
    Malformed(Flaw),
    /// The public half that is stored with the private key belongs to another one.
    OtherHalf,
    /// A key, but not Ed25519, which is all that PacketLab uses.
    NotEd25519 {
        /// Name and object identifier of its algorithm.
        algorithm: String,
    },
    /// The key is encrypted and the empty passphrase does not open it.
    PassphraseNeeded,
    /// The key is encrypted and the given passphrase does not open it.
    WrongPassphrase,
    /// The key is encrypted in a way that is not supported.
    UnsupportedEncryption(String),
    /// Its key derivation would take too long.
    TooCostly(String),
    /// Its key derivation has parameters that cannot be used, such as 0 iterations.
    Senseless(String),
    /// The library cannot use the key.
    Unusable,
    /// The system's random generator failed.
    NoRandomness,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(error) => error.fmt(f),
            Self::Malformed(flaw) => {
                write!(f, "the private key section is not a PKCS#8 key: {flaw}")
            }
            Self::OtherHalf => f.write_str(
                "the public half in the private key section belongs to another private key",
            ),
            Self::NotEd25519 { algorithm } => {
                write!(
                    f,
                    "it is not an Ed25519 key (algorithm: {algorithm}); PacketLab uses no other"
                )
            }
            Self::PassphraseNeeded => {
                f.write_str("the private key is encrypted and needs its passphrase")
            }
            Self::WrongPassphrase => f.write_str("the passphrase does not open the private key"),
            Self::UnsupportedEncryption(detail) => write!(
                f,
                "the private key is encrypted in an unsupported way ({detail}); \
                 re-encrypt it, e.g. with `openssl pkcs8 -topk8`"
            ),
            Self::TooCostly(detail) => write!(
                f,
                "opening the private key asks for unreasonable work ({detail}); \
                 re-encrypt it with smaller parameters"
            ),
            Self::Senseless(detail) => write!(
                f,
                "the private key is encrypted with parameters that make no sense ({detail}); \
                 re-encrypt it, e.g. with `openssl pkcs8 -topk8`"
            ),
            Self::Unusable => f.write_str("the key cannot be used"),
            Self::NoRandomness => f.write_str("the system's random generator failed"),
        }
    }
}

impl std::error::Error for KeyError {}

impl From<PemError> for KeyError {
    fn from(error: PemError) -> Self {
        Self::Pem(error)
    }
}

impl From<Flaw> for KeyError {
    fn from(flaw: Flaw) -> Self {
        Self::Malformed(flaw)
    }
}
