//! Ed25519 keys and key ids, and their PEM files (spec/protocol.md 4.1).
//!
//! Not here: reading files, asking for a passphrase (`cli`), certificates. Invariant: a
//! [`PrivateKey`] that exists is a usable Ed25519 key, its secret bytes lie in memory that is wiped
//! when dropped, and nothing prints them.

use std::fmt::{self, Write as _};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{digest, rand};
use der::SecretDocument;
use der::asn1::ObjectIdentifier;
use der::pem::LineEnding;
use zeroize::Zeroizing;

use super::pem;
use super::strict_der::{BIT_STRING, DerReader, Flaw, INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE};

mod encryption;
mod error;

use self::encryption::ENCRYPTED_LABEL;
pub use self::error::KeyError;

/// Length of a raw public key, a seed and a key id in bytes (spec/protocol.md 7).
pub const KEY_LEN: usize = 32;
/// Length of a signature in bytes (spec/protocol.md 7).
pub const SIGNATURE_LEN: usize = 64;
/// Length of a public key as SubjectPublicKeyInfo in bytes (spec/protocol.md 4.1).
pub const SPKI_LEN: usize = SPKI_PREFIX.len() + KEY_LEN;

const ED25519_OID: &[u8] = &[0x2b, 0x65, 0x70];
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// A raw Ed25519 public key (spec/protocol.md 4.1). Any 32 bytes: a point that is no point fails at
/// verification.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; KEY_LEN]);

impl PublicKey {
    /// Reads the one `PUBLIC KEY` section of a PEM file (spec/protocol.md 4.1).
    ///
    /// # Errors
    /// No such section or several, or it holds something else than an Ed25519 key in its one 44-byte
    /// form.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let (_, spki) = pem::one(pem, &[PUBLIC_LABEL])?;
        Self::from_spki(&spki)
    }

    /// Reads every `PUBLIC KEY` section of a PEM file, at least one.
    ///
    /// # Errors
    /// No such section, or one that [`PublicKey::from_pem`] refuses.
    pub fn list_from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        pem::list(pem, PUBLIC_LABEL)?.iter().map(|spki| Self::from_spki(spki)).collect()
    }

    /// Reads a SubjectPublicKeyInfo: exactly the 44 bytes of spec/protocol.md 4.1.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        spki.strip_prefix(&SPKI_PREFIX)
            .and_then(|raw| raw.try_into().ok())
            .map(Self)
            .ok_or_else(|| not_ed25519(spki))
    }

    /// The key as SubjectPublicKeyInfo (spec/protocol.md 4.1), as TLS libraries want it.
    #[must_use]
    pub fn to_spki(&self) -> [u8; SPKI_LEN] {
        let mut spki = [0; SPKI_LEN];
        let (prefix, raw) = spki.split_at_mut(SPKI_PREFIX.len());
        prefix.copy_from_slice(&SPKI_PREFIX);
        raw.copy_from_slice(&self.0);
        spki
    }

    /// The key as a PEM file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        der::pem::encode_string(PUBLIC_LABEL, LineEnding::LF, &self.to_spki())
            .expect("44 bytes are short enough for PEM")
    }

    /// The key id: SHA-256 of the raw key, not of the SubjectPublicKeyInfo (spec/protocol.md 0, Q19).
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId(sha256(&self.0))
    }

    /// Whether `signature` over `message` was made with this key's private half.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", Hex(&self.0))
    }
}

/// SHA-256 of a raw public key: how certificates and channels name keys (spec/protocol.md 0).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; KEY_LEN]);

impl KeyId {
    /// The key id that these 64 hexadecimal digits are.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * KEY_LEN || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut id = [0; KEY_LEN];
        for (byte, index) in id.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(text.get(index..index + 2)?, 16).ok()?;
        }
        Some(Self(id))
    }

    /// How it begins: enough to know it by among some thousands, where a line has no room for all of it.
    #[must_use]
    pub fn short(&self) -> String {
        Hex(&self.0[..6]).to_string()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Shows bytes as lower-case hexadecimal digits.
#[derive(Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        // Formatting each byte as a number takes ten times the instructions, for several key ids of each session.
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
        digits.map(|digit| DIGITS[usize::from(digit)]).try_for_each(|digit| f.write_char(digit))
    }
}

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256, the only hash of PacketLab.
pub fn sha256(data: &[u8]) -> [u8; KEY_LEN] {
    let mut hash = [0; KEY_LEN];
    hash.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    hash
}

/// An Ed25519 private key.
pub struct PrivateKey {
    seed: Zeroizing<[u8; KEY_LEN]>,
    // Holds the expanded key, so that signing does not derive it each time; the library wipes it.
    pair: Ed25519KeyPair,
}

impl PrivateKey {
    /// Reads the one private key of a PEM file: PKCS#8, plain or encrypted with PBES2
    /// (spec/protocol.md 4.1).
    ///
    /// With `passphrase: None` an encrypted key is tried with the empty passphrase, as the original
    /// does before it prompts; [`KeyError::PassphraseNeeded`] then says that a real one must be
    /// asked for.
    ///
    /// # Errors
    /// See [`KeyError`]; each variant that the caller must tell apart is its own.
    pub fn from_pem(pem: &[u8], passphrase: Option<&[u8]>) -> Result<Self, KeyError> {
        let (label, document) = pem::one(pem, &[PRIVATE_LABEL, ENCRYPTED_LABEL])?;
        if label == PRIVATE_LABEL {
            return Self::from_pkcs8(&document);
        }
        let wrong = match passphrase {
            Some(_) => KeyError::WrongPassphrase,
            None => KeyError::PassphraseNeeded,
        };
        let plain = encryption::decrypt(&document, passphrase.unwrap_or_default())?;
        match plain.map(|plain| Self::from_pkcs8(plain.as_bytes())) {
            // One wrong passphrase in 256 leaves valid padding around noise.
            None | Some(Err(KeyError::Malformed(_))) => Err(wrong),
            Some(result) => result,
        }
    }

    /// How the one private key of a PEM file is encrypted, in words; `None` if it is not. Needs no
    /// passphrase.
    ///
    /// # Errors
    /// No private key in PEM, or several.
    pub fn encryption(pem: &[u8]) -> Result<Option<String>, KeyError> {
        let (label, document) = pem::one(pem, &[PRIVATE_LABEL, ENCRYPTED_LABEL])?;
        Ok((label == ENCRYPTED_LABEL).then(|| encryption::in_words(&document)))
    }

    /// Reads a PKCS#8 document (RFC 5958) of version 1, or of version 2 with or without the public
    /// half.
    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let mut file = DerReader::new(pkcs8);
        let mut info = file.take(SEQUENCE)?.inside();
        file.end()?;
        let version = info.take(INTEGER)?;
        if !matches!(version.content, [0 | 1]) {
            let problem = "the version of a private key is 0 or 1";
            return Err(KeyError::Malformed(Flaw { offset: version.offset, problem }));
        }
        let mut algorithm = info.take(SEQUENCE)?.inside();
        let id = algorithm.take(OBJECT_ID)?;
        if id.content != ED25519_OID {
            return Err(KeyError::NotEd25519 { algorithm: algorithm_name(id.content) });
        }
        if !algorithm.is_empty() {
            let flaw = algorithm.flaw("an Ed25519 key has no parameters, not even NULL");
            return Err(KeyError::Malformed(flaw));
        }
        let mut wrapped = info.take(OCTET_STRING)?.inside();
        let seed = wrapped.take(OCTET_STRING)?;
        wrapped.end()?;
        if seed.content.len() != KEY_LEN {
            let problem = "an Ed25519 key has 32 bytes";
            return Err(KeyError::Malformed(Flaw { offset: seed.offset, problem }));
        }
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        bytes.copy_from_slice(seed.content);
        if let Some(attributes) = info.optional(0xa0)? {
            attributes.check_within()?;
        }
        let public = if version.content == [1] { info.optional(0x81)? } else { None };
        info.end()?;
        let key = Self::from_seed(bytes)?;
        if let Some(public) = public {
            public.check_as(BIT_STRING)?;
            let half = key.public_key().0;
            if public.content.split_first() != Some((&0, half.as_slice())) {
                return Err(KeyError::OtherHalf);
            }
        }
        Ok(key)
    }

    fn from_seed(seed: Zeroizing<[u8; KEY_LEN]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| KeyError::Unusable)?;
        Ok(Self { seed, pair })
    }

    /// Makes a new random key.
    ///
    /// # Errors
    /// The system's random generator fails.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; KEY_LEN]);
        rand::fill(&mut *seed).map_err(|_| KeyError::NoRandomness)?;
        Self::from_seed(seed)
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let mut raw = [0; KEY_LEN];
        raw.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(raw)
    }

    /// Signs `message`. The same key and message always give the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut signature = [0; SIGNATURE_LEN];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The key as PKCS#8 version 1, 48 bytes (spec/protocol.md 4.1).
    #[must_use]
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        // The capacity is exact, so that no half-written copy is left behind by growth.
        let mut pkcs8 = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + KEY_LEN));
        pkcs8.extend_from_slice(&PKCS8_PREFIX);
        pkcs8.extend_from_slice(&*self.seed);
        pkcs8
    }

    /// The key as an unencrypted PEM file.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        SecretDocument::try_from(self.pkcs8_der().as_slice())
            .and_then(|document| document.to_pem(PRIVATE_LABEL, LineEnding::LF))
            .expect("48 bytes of DER are a PEM document")
    }

    /// The key as a PEM file encrypted with PBES2 (PBKDF2 with SHA-256, AES-256-CBC), which the
    /// original reads too.
    ///
    /// # Errors
    /// The system's random generator fails.
    pub fn to_encrypted_pem(&self, passphrase: &[u8]) -> Result<String, KeyError> {
        encryption::encrypt(&self.pkcs8_der(), passphrase)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public_key().key_id())
    }
}

fn not_ed25519(spki: &[u8]) -> KeyError {
    let id = || {
        let mut key = DerReader::new(spki).take(SEQUENCE).ok()?.inside();
        key.take(SEQUENCE).ok()?.inside().take(OBJECT_ID).ok()
    };
    let algorithm = match id() {
        Some(id) if id.content == ED25519_OID => {
            "Ed25519, but not in its one form of 44 bytes".into()
        }
        Some(id) => algorithm_name(id.content),
        None => "an unknown one".to_owned(),
    };
    KeyError::NotEd25519 { algorithm }
}

/// Its name, or its object identifier for those that nobody will meet.
fn algorithm_name(id: &[u8]) -> String {
    let Ok(id) = ObjectIdentifier::from_bytes(id) else { return "an unknown one".to_owned() };
    let dotted = id.to_string();
    let name = match dotted.as_str() {
        "1.2.840.113549.1.1.1" => "RSA",
        "1.2.840.10045.2.1" => "ECDSA",
        "1.3.101.110" => "X25519",
        "1.3.101.113" => "Ed448",
        _ => return dotted,
    };
    format!("{name}, {dotted}")
}

#[cfg(test)]
mod tests;
