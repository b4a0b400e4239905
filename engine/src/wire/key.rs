//! Ed25519 keys and key ids, and their PEM files (protocol.md 4.1).
//!
//! Not here: reading files, asking for a passphrase (`cli`), certificates. Invariant: a
//! [`PrivateKey`] that exists is a usable Ed25519 key, its secret bytes lie in memory that is wiped
//! when dropped, and nothing prints them.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{digest, rand};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::pem::LineEnding;
use der::{Decode as _, SecretDocument};
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{self, Kdf, Parameters, Pbkdf2Prf};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

/// Length of a raw public key, a seed and a key id in bytes (protocol.md 7).
pub const KEY_LEN: usize = 32;
/// Length of a signature in bytes (protocol.md 7).
pub const SIGNATURE_LEN: usize = 64;
/// Length of a public key as SubjectPublicKeyInfo in bytes (protocol.md 4.1).
pub const SPKI_LEN: usize = SPKI_PREFIX.len() + KEY_LEN;
/// Most PBKDF2 iterations that a key file may ask for, so that a hostile file costs about a second
/// at most.
pub const PBKDF2_ITERATIONS_MAX: u32 = 2_000_000;
/// Largest product N * r * p of scrypt that a key file may ask for: 256 MiB, and about a second.
pub const SCRYPT_COST_MAX: u64 = 1 << 21;

const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// What we write when encrypting: the iterations OWASP recommends for PBKDF2 with SHA-256.
const PBKDF2_ITERATIONS: u32 = 600_000;

/// A raw Ed25519 public key (protocol.md 4.1). Any 32 bytes: a point that is no point fails at
/// verification.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; KEY_LEN]);

impl PublicKey {
    /// Reads the first `PUBLIC KEY` section of a PEM file (protocol.md 4.1).
    ///
    /// # Errors
    /// No such section, or it holds something else than an Ed25519 key in its one 44-byte form.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|_| KeyError::NotPem { wanted: PUBLIC_LABEL })?;
        Self::from_spki(&spki)
    }

    /// Reads a SubjectPublicKeyInfo: exactly the 44 bytes of protocol.md 4.1.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        spki.strip_prefix(&SPKI_PREFIX)
            .and_then(|raw| raw.try_into().ok())
            .map(Self)
            .ok_or_else(|| KeyError::NotEd25519 { algorithm: "an unknown one".to_owned() })
    }

    /// The key as SubjectPublicKeyInfo (protocol.md 4.1), as TLS libraries want it.
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

    /// The key id: SHA-256 of the raw key, not of the SubjectPublicKeyInfo (protocol.md 0, Q19).
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

/// SHA-256 of a raw public key: how certificates and channels name keys (protocol.md 0).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; KEY_LEN]);

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
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256, the only hash of PacketLab.
pub(crate) fn sha256(data: &[u8]) -> [u8; KEY_LEN] {
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
    /// Reads the first private key of a PEM file: PKCS#8, plain or encrypted with PBES2
    /// (protocol.md 4.1).
    ///
    /// With `passphrase: None` an encrypted key is tried with the empty passphrase, as the original
    /// does before it prompts; [`KeyError::PassphraseNeeded`] then says that a real one must be
    /// asked for.
    ///
    /// # Errors
    /// See [`KeyError`]; each variant that the caller must tell apart is its own.
    pub fn from_pem(pem: &[u8], passphrase: Option<&[u8]>) -> Result<Self, KeyError> {
        let section = private_section(pem).ok_or(KeyError::NotPem { wanted: PRIVATE_LABEL })?;
        let (label, document) = SecretDocument::from_pem(&section)
            .map_err(|_| KeyError::NotPem { wanted: PRIVATE_LABEL })?;
        if label == PRIVATE_LABEL {
            return Self::from_pkcs8(document.as_bytes());
        }
        let wrong = match passphrase {
            Some(_) => KeyError::WrongPassphrase,
            None => KeyError::PassphraseNeeded,
        };
        let plain = decrypt(document.as_bytes(), passphrase.unwrap_or_default())?;
        match plain.map(|plain| Self::from_pkcs8(plain.as_bytes())) {
            // One wrong passphrase in 256 leaves valid padding around noise.
            None | Some(Err(KeyError::Malformed)) => Err(wrong),
            Some(result) => result,
        }
    }

    /// How the first private key of a PEM file is encrypted, in words; `None` if it is not. Needs no
    /// passphrase.
    ///
    /// # Errors
    /// No private key in PEM.
    pub fn encryption(pem: &[u8]) -> Result<Option<String>, KeyError> {
        let section = private_section(pem).ok_or(KeyError::NotPem { wanted: PRIVATE_LABEL })?;
        let (label, document) = SecretDocument::from_pem(&section)
            .map_err(|_| KeyError::NotPem { wanted: PRIVATE_LABEL })?;
        if label == PRIVATE_LABEL {
            return Ok(None);
        }
        let info = EncryptedPrivateKeyInfoRef::from_der(document.as_bytes()).ok();
        let Some(EncryptionScheme::Pbes2(parameters)) = info.map(|info| info.encryption_algorithm)
        else {
            return Ok(Some("in a way that is not supported".to_owned()));
        };
        Ok(Some(in_words(&parameters)))
    }

    /// Reads a PKCS#8 document, version 1 or 2.
    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let info = PrivateKeyInfoRef::from_der(pkcs8).map_err(|_| KeyError::Malformed)?;
        if info.algorithm.oid != ED25519_OID {
            return Err(KeyError::NotEd25519 { algorithm: info.algorithm.oid.to_string() });
        }
        let seed = <&OctetStringRef>::from_der(info.private_key.as_bytes())
            .ok()
            .and_then(|seed| <[u8; KEY_LEN]>::try_from(seed.as_bytes()).ok())
            .ok_or(KeyError::Malformed)?;
        Self::from_seed(Zeroizing::new(seed))
    }

    fn from_seed(seed: Zeroizing<[u8; KEY_LEN]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| KeyError::Malformed)?;
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

    /// The key as PKCS#8 version 1, 48 bytes (protocol.md 4.1).
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
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        rand::fill(&mut salt).map_err(|_| KeyError::NoRandomness)?;
        rand::fill(&mut iv).map_err(|_| KeyError::NoRandomness)?;
        let pem = Parameters::generate_pbkdf2_sha256_aes256cbc(PBKDF2_ITERATIONS, &salt, iv)
            .and_then(|parameters| {
                let encrypted = parameters.encrypt(passphrase, &self.pkcs8_der())?;
                Ok((parameters, encrypted))
            })
            .map_err(pkcs8::Error::from)
            .and_then(|(parameters, encrypted)| {
                let document = SecretDocument::encode_msg(&EncryptedPrivateKeyInfoRef {
                    encryption_algorithm: parameters.into(),
                    encrypted_data: OctetStringRef::new(&encrypted)?,
                })?;
                Ok(document.to_pem(ENCRYPTED_LABEL, LineEnding::LF)?)
            });
        Ok(pem.expect("fixed parameters and a 48-byte key always encrypt").to_string())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public_key().key_id())
    }
}

/// Copies the first private-key section of a PEM file into the one layout that the strict decoder
/// reads, because key files come with notes around the section, other sections behind it, and lines
/// of any length.
fn private_section(pem: &[u8]) -> Option<Zeroizing<String>> {
    let mut lines = pem.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    let label = lines.by_ref().find_map(|line| {
        [PRIVATE_LABEL, ENCRYPTED_LABEL].into_iter().find(|label| boundary(line, "BEGIN", label))
    })?;
    let mut section = Zeroizing::new(String::with_capacity(pem.len() + pem.len() / 64 + 128));
    section.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut column = 0;
    for line in lines {
        if boundary(line, "END", label) {
            section.push_str(&format!("\n-----END {label}-----\n"));
            return Some(section);
        }
        for &byte in line.iter().filter(|byte| byte.is_ascii_graphic()) {
            if column == 64 {
                section.push('\n');
                column = 0;
            }
            section.push(char::from(byte));
            column += 1;
        }
    }
    None
}

fn boundary(line: &[u8], edge: &str, label: &str) -> bool {
    line.strip_prefix(b"-----")
        .and_then(|rest| rest.strip_prefix(edge.as_bytes()))
        .and_then(|rest| rest.strip_prefix(b" "))
        .and_then(|rest| rest.strip_prefix(label.as_bytes()))
        .is_some_and(|rest| rest == b"-----")
}

/// Decrypts an EncryptedPrivateKeyInfo; `None` means that the passphrase is wrong.
fn decrypt(encrypted: &[u8], passphrase: &[u8]) -> Result<Option<SecretDocument>, KeyError> {
    let unsupported =
        |detail: &dyn fmt::Display| KeyError::UnsupportedEncryption(detail.to_string());
    let info = EncryptedPrivateKeyInfoRef::from_der(encrypted).map_err(|e| unsupported(&e))?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(unsupported(&"its scheme is PBES1"));
    };
    check_cost(&parameters.kdf)?;
    match info.decrypt(passphrase) {
        Ok(document) => Ok(Some(document)),
        Err(pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::DecryptFailed))
        | Err(pkcs8::Error::Asn1(_)) => Ok(None),
        Err(e) => Err(unsupported(&e)),
    }
}

fn in_words(parameters: &Parameters) -> String {
    let derivation = match &parameters.kdf {
        Kdf::Pbkdf2(p) => {
            let hash = match p.prf {
                Pbkdf2Prf::HmacWithSha1 => "SHA-1",
                Pbkdf2Prf::HmacWithSha224 => "SHA-224",
                Pbkdf2Prf::HmacWithSha256 => "SHA-256",
                Pbkdf2Prf::HmacWithSha384 => "SHA-384",
                Pbkdf2Prf::HmacWithSha512 => "SHA-512",
                _ => "an unknown hash",
            };
            format!("PBKDF2 with {hash} and {} iterations", p.iteration_count)
        }
        Kdf::Scrypt(p) => format!(
            "scrypt with N = {}, r = {}, p = {}",
            p.cost_parameter, p.block_size, p.parallelization
        ),
        _ => "an unknown key derivation".to_owned(),
    };
    let cipher = match parameters.encryption {
        pbes2::EncryptionScheme::Aes128Cbc { .. } => "AES-128-CBC",
        pbes2::EncryptionScheme::Aes192Cbc { .. } => "AES-192-CBC",
        pbes2::EncryptionScheme::Aes256Cbc { .. } => "AES-256-CBC",
        _ => "another cipher",
    };
    format!("PBES2: {derivation}, {cipher}")
}

/// Refuses parameters that would burn seconds, or that the library would stumble over.
fn check_cost(kdf: &Kdf) -> Result<(), KeyError> {
    match kdf {
        Kdf::Pbkdf2(p) if !(1..=PBKDF2_ITERATIONS_MAX).contains(&p.iteration_count) => {
            Err(KeyError::TooCostly(format!("PBKDF2 with {} iterations", p.iteration_count)))
        }
        Kdf::Scrypt(p) => {
            let (r, p_) = (u64::from(p.block_size), u64::from(p.parallelization));
            let cost = p.cost_parameter.saturating_mul(r).saturating_mul(p_);
            let well_formed = p.cost_parameter.is_power_of_two() && cost > 0;
            if well_formed && cost <= SCRYPT_COST_MAX {
                return Ok(());
            }
            let n = p.cost_parameter;
            Err(KeyError::TooCostly(format!("scrypt with N = {n}, r = {r}, p = {p_}")))
        }
        _ => Ok(()),
    }
}

/// Why a key could not be read or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// The file has no readable PEM section of the wanted label.
    NotPem {
        /// The label looked for.
        wanted: &'static str,
    },
    /// The section is not a PKCS#8 private key.
    Malformed,
    /// A key, but not Ed25519, which is all that PacketLab uses.
    NotEd25519 {
        /// Object identifier of its algorithm.
        algorithm: String,
    },
    /// The key is encrypted and the empty passphrase does not open it.
    PassphraseNeeded,
    /// The key is encrypted and the given passphrase does not open it.
    WrongPassphrase,
    /// The key is encrypted in a way that is not supported.
    UnsupportedEncryption(String),
    /// Its key derivation would take too long, or has senseless parameters.
    TooCostly(String),
    /// The system's random generator failed.
    NoRandomness,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPem { wanted } => write!(f, "holds no readable PEM section `{wanted}`"),
            Self::Malformed => f.write_str("the private key section is not a PKCS#8 key"),
            Self::NotEd25519 { algorithm } => {
                write!(f, "is not an Ed25519 key (algorithm: {algorithm}); PacketLab uses no other")
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
            Self::NoRandomness => f.write_str("the system's random generator failed"),
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests;
