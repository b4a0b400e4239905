//! snikeys: the TLS server names by which endpoints choose an experiment (spec/protocol.md 1.9).
//!
//! Not here: the lookup (`proto`). On the wire a snikey is 1 to 63 of `[0-9a-z]`. TLS refuses some of
//! these as server names (architecture.md "rustls and PacketLab's certificates"), so a [`SniKey`] that exists
//! can also be asked for in TLS.

#[cfg(feature = "credentials")]
mod random;

use std::fmt;
use std::sync::Arc;

/// Most characters of a snikey; a random one has exactly as many.
pub const SNIKEY_LEN_MAX: usize = 63;

/// Characters of [`SniKey::short`], as many as of a key id.
const SHORT_LEN: usize = 12;

/// A snikey that works as a TLS server name. A clone is the same text, not another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SniKey(Arc<str>);

impl SniKey {
    /// A snikey by its text.
    ///
    /// # Errors
    /// The text is no snikey, or none that TLS accepts as a server name.
    pub fn parse(text: &str) -> Result<Self, SniKeyError> {
        check(text.as_bytes())?;
        if text.bytes().all(|c| c.is_ascii_digit()) {
            return Err(SniKeyError::DigitsOnly);
        }
        let hex = text.strip_prefix("0x");
        if hex.is_some_and(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit())) {
            return Err(SniKeyError::HexNumber);
        }
        Ok(Self(text.into()))
    }

    /// Its text, 1 to 63 of `[0-9a-z]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How it begins: enough to know it by among those of a run, where a line has no room for all of it.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..SHORT_LEN).unwrap_or(&self.0)
    }
}

/// The text of a snikey as the wire allows it, TLS or not (spec/protocol.md 1.4, XREG).
///
/// # Errors
/// Empty, too long, or a character outside `[0-9a-z]`.
pub fn check(text: &[u8]) -> Result<&str, SniKeyError> {
    if text.is_empty() {
        return Err(SniKeyError::Empty);
    }
    let is_symbol = |c: &u8| c.is_ascii_digit() || c.is_ascii_lowercase();
    if let Some(position) = text.iter().position(|c| !is_symbol(c)) {
        let byte = text.get(position).copied().unwrap_or_default();
        return Err(SniKeyError::BadCharacter { byte, position });
    }
    if text.len() > SNIKEY_LEN_MAX {
        return Err(SniKeyError::TooLong { len: text.len() });
    }
    str::from_utf8(text).or(Err(SniKeyError::Empty))
}

impl fmt::Display for SniKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no snikey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SniKeyError {
    /// No character at all.
    Empty,
    /// More than [`SNIKEY_LEN_MAX`] characters.
    TooLong {
        /// How many.
        len: usize,
    },
    /// A character outside `[0-9a-z]`.
    BadCharacter {
        /// Its (first) byte.
        byte: u8,
        /// Its position, counted from 0 in bytes.
        position: usize,
    },
    /// TLS takes digits alone for a part of an IP address.
    DigitsOnly,
    /// TLS takes `0x` and hexadecimal digits for a part of an IP address.
    HexNumber,
    /// The random generator failed.
    NoRandomness,
}

impl fmt::Display for SniKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                write!(f, "the snikey is empty; give it 1 to {SNIKEY_LEN_MAX} of [0-9a-z]")
            }
            Self::TooLong { len } => {
                write!(f, "the snikey has {len} characters; give it at most {SNIKEY_LEN_MAX}")
            }
            Self::BadCharacter { byte, position } => write!(
                f,
                "'{}' at position {} of the snikey is not allowed; use lower-case letters and digits",
                byte.escape_ascii(),
                position + 1
            ),
            Self::DigitsOnly => write!(
                f,
                "the snikey is a number, which TLS refuses as a server name; put a letter into it"
            ),
            Self::HexNumber => write!(
                f,
                "the snikey is a hexadecimal number (0x...), which TLS refuses as a server name; \
                 put a letter above f into it or drop the 0x"
            ),
            Self::NoRandomness => {
                write!(f, "cannot draw a random snikey: the system's random generator failed")
            }
        }
    }
}

impl std::error::Error for SniKeyError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::DnsName;

    use super::random::SYMBOLS;
    use super::*;

    /// Item 39.
    #[test]
    fn a_snikey_is_1_to_63_lower_case_letters_and_digits() {
        let longest = "a".repeat(63);
        for good in ["hello", "a", "0y", "1z0", &longest] {
            let snikey = SniKey::parse(good).unwrap();
            assert_eq!(snikey.as_str(), good);
            assert_eq!(snikey.short(), &good[..good.len().min(12)]);
        }
        assert_eq!(SniKey::parse(""), Err(SniKeyError::Empty));
        assert_eq!(SniKey::parse(&"a".repeat(64)), Err(SniKeyError::TooLong { len: 64 }));
        for (bad, byte, position) in [
            ("Hello", b'H', 0),
            ("a-b", b'-', 1),
            ("ab.c", b'.', 2),
            ("aä", 0xc3, 1),
            ("a\0-", 0, 1),
        ] {
            assert_eq!(SniKey::parse(bad), Err(SniKeyError::BadCharacter { byte, position }));
        }
    }

    #[test]
    fn numbers_are_refused_because_tls_refuses_them() {
        for number in ["0", "7", "123", "00"] {
            assert_eq!(SniKey::parse(number), Err(SniKeyError::DigitsOnly), "{number}");
            assert!(check(number.as_bytes()).is_ok(), "the wire allows {number}");
        }
        for number in ["0x", "0x1", "0xbeef"] {
            assert_eq!(SniKey::parse(number), Err(SniKeyError::HexNumber), "{number}");
        }
        for other in ["0xg", "x", "00x1", "1x0", "0a"] {
            assert!(SniKey::parse(other).is_ok(), "{other}");
        }
        let reason = SniKeyError::DigitsOnly.to_string();
        assert!(reason.contains("TLS refuses"), "{reason}");
    }

    proptest! {
        #[test]
        fn exactly_the_snikeys_that_tls_takes_are_taken(text in "(0x)?[0-9a-gx]{0,5}") {
            let in_tls = DnsName::try_from(text.as_str()).is_ok();
            prop_assert_eq!(SniKey::parse(&text).is_ok(), in_tls);
        }

        #[test]
        fn what_is_taken_prints_as_it_was(text in ".{0,70}") {
            if let Ok(snikey) = SniKey::parse(&text) {
                prop_assert!(text.bytes().all(|c| SYMBOLS.contains(&c)) && text.len() <= 63);
                prop_assert_eq!(snikey.to_string(), text);
            }
        }
    }
}
