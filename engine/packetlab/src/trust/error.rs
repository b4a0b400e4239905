//! Why a chain is not believed, with the result codes of the original's library (spec/protocol.md 4.6).

use std::fmt;

use crate::certificate::{CertificateError, CertificateType};
use crate::key::KeyId;

/// Why a chain is not believed. `index` counts in the presented list, the leaf being 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainError {
    /// A certificate does not decode.
    BadCertificate {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// A certificate was not signed by the key it names.
    BadSignature {
        /// Which one.
        index: usize,
    },
    /// Fewer certificates than a chain needs.
    TooFew {
        /// Presented.
        count: usize,
        /// Needed.
        min: usize,
    },
    /// More certificates than a chain may have.
    TooMany {
        /// Presented.
        count: usize,
        /// Allowed.
        max: usize,
    },
    /// More bytes than a peer could receive.
    TooLong {
        /// Length of the TLS Certificate message with all certificates.
        len: usize,
        /// The longest that can be received.
        max: usize,
    },
    /// A certificate of another type was needed in its place.
    UnexpectedType {
        /// Which one.
        index: usize,
        /// Its type.
        found: CertificateType,
        /// The needed type.
        expected: CertificateType,
    },
    /// A certificate is not valid at this time.
    NotValidNow {
        /// Which one.
        index: usize,
        /// Whether its time is over, rather than still to come.
        expired: bool,
    },
    /// The key that signed a certificate is neither among the presented certificates nor trusted.
    NoSigner {
        /// Which certificate.
        index: usize,
        /// The key id it names.
        signer: KeyId,
    },
    /// More delegations stand below a certificate than it allows.
    PathTooLong {
        /// Which one.
        index: usize,
        /// Certificates between it and the leaf.
        between: usize,
    },
    /// The chain goes on where it should have ended.
    EndOfPhases {
        /// The certificate that has no place.
        index: usize,
    },
    /// A `delpriv` delegates something else than the chain needs.
    WrongDelegation {
        /// Which one.
        index: usize,
    },
}

impl ChainError {
    /// Which certificate breaks the rule, if it is one.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        match *self {
            Self::TooFew { .. } | Self::TooMany { .. } | Self::TooLong { .. } => None,
            Self::BadCertificate { index, .. }
            | Self::BadSignature { index }
            | Self::UnexpectedType { index, .. }
            | Self::NotValidNow { index, .. }
            | Self::NoSigner { index, .. }
            | Self::PathTooLong { index, .. }
            | Self::EndOfPhases { index }
            | Self::WrongDelegation { index } => Some(index),
        }
    }

    /// The result code of the original's library (spec/protocol.md 4.6).
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::BadCertificate { .. } | Self::BadSignature { .. } => 2,
            Self::TooFew { .. } => 3,
            Self::TooMany { .. } | Self::TooLong { .. } => 4,
            Self::UnexpectedType { .. } => 5,
            Self::NotValidNow { .. } => 6,
            Self::NoSigner { .. } => 7,
            Self::PathTooLong { .. } => 8,
            Self::EndOfPhases { .. } => 9,
            Self::WrongDelegation { .. } => 10,
        }
    }
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCertificate { index, error } => write!(f, "certificate {index}: {error}"),
            Self::BadSignature { index } => {
                write!(f, "certificate {index} was not signed by the key it names")
            }
            Self::TooFew { count, min } => {
                write!(f, "{count} certificates, but a chain needs at least {min}")
            }
            Self::TooMany { count, max } => {
                write!(f, "{count} certificates, but a chain may have {max} at most")
            }
            Self::TooLong { len, max } => write!(
                f,
                "the certificates make a TLS message of {len} bytes, but no peer takes more than \
                 {max}; leave out what does not belong to the chain"
            ),
            Self::UnexpectedType { index, found, expected } => {
                write!(
                    f,
                    "certificate {index} is of type {found}, but {expected} is needed in its place"
                )
            }
            Self::NotValidNow { index, expired: true } => {
                write!(f, "certificate {index} has expired")
            }
            Self::NotValidNow { index, expired: false } => {
                write!(f, "certificate {index} is not valid yet")
            }
            Self::NoSigner { index, signer } => write!(
                f,
                "certificate {index} was signed by the key {signer}, \
                 which is neither trusted nor among the certificates"
            ),
            Self::PathTooLong { index, between } => {
                write!(
                    f,
                    "certificate {index} allows fewer than the {between} delegations below it"
                )
            }
            Self::EndOfPhases { index } => {
                write!(f, "the chain goes on with certificate {index}, which has no place in it")
            }
            Self::WrongDelegation { index } => {
                write!(f, "certificate {index} delegates something else than this chain needs")
            }
        }
    }
}

impl std::error::Error for ChainError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the codes of spec/protocol.md 4.6, and a part of the words.
    #[test]
    fn every_error_of_a_chain_has_its_code_its_certificate_and_words_of_its_own() {
        let (index, key) = (7, KeyId([0xAB; 32]));
        let (found, expected) = (CertificateType::Agent, CertificateType::Subcmd);
        let all = [
            (ChainError::BadSignature { index }, 2, "not signed by the key it names"),
            (ChainError::TooFew { count: 1, min: 2 }, 3, "1 certificates, but a chain needs"),
            (ChainError::TooMany { count: 9, max: 8 }, 4, "may have 8 at most"),
            (ChainError::TooLong { len: 9, max: 8 }, 4, "leave out what does not belong"),
            (ChainError::UnexpectedType { index, found, expected }, 5, "subcmd is needed"),
            (ChainError::NotValidNow { index, expired: true }, 6, "has expired"),
            (ChainError::NotValidNow { index, expired: false }, 6, "is not valid yet"),
            (ChainError::NoSigner { index, signer: key }, 7, "signed by the key abab"),
            (ChainError::PathTooLong { index, between: 3 }, 8, "fewer than the 3 delegations"),
            (ChainError::EndOfPhases { index }, 9, "which has no place in it"),
            (ChainError::WrongDelegation { index }, 10, "delegates something else"),
        ];
        for (error, code, words) in all {
            let told = error.to_string();
            assert!(told.contains(words), "{told}");
            assert_eq!(error.code(), code, "{told}");
            let of_one = !matches!(code, 3 | 4);
            assert_eq!(error.index(), of_one.then_some(index), "{told}");
            assert_eq!(told.contains("certificate 7"), of_one, "{told}");
        }
    }
}
