//! Encrypted private keys: PBES2 with PBKDF2 or scrypt, and AES (spec/protocol.md 4.1).
//!
//! Not here: the keys in them. Invariant: no key derivation starts that would take much more than a second.

use std::fmt;

use aws_lc_rs::rand;
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::pem::LineEnding;
use der::{Decode as _, SecretDocument};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{Kdf, Parameters, Pbkdf2Prf};

use super::super::strict_der::{DerReader, OBJECT_ID, SEQUENCE};
use super::error::KeyError;

/// The PEM label of such a key.
pub(super) const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// Most PBKDF2 iterations that a key file may ask for, so that a hostile file costs about a second
/// at most.
const PBKDF2_ITERATIONS_MAX: u32 = 2_000_000;
/// Largest product N * r * p of scrypt that a key file may ask for: 256 MiB, and about a second.
const SCRYPT_COST_MAX: u64 = 1 << 21;
/// What we write when encrypting: the iterations OWASP recommends for PBKDF2 with SHA-256.
const PBKDF2_ITERATIONS: u32 = 600_000;

/// Decrypts an EncryptedPrivateKeyInfo; `None` means that the passphrase is wrong.
pub(super) fn decrypt(
    encrypted: &[u8],
    passphrase: &[u8],
) -> Result<Option<SecretDocument>, KeyError> {
    let unsupported =
        |detail: &dyn fmt::Display| KeyError::UnsupportedEncryption(detail.to_string());
    let info = EncryptedPrivateKeyInfoRef::from_der(encrypted).map_err(|error| {
        match cipher(encrypted) {
            Some(name) => unsupported(&name),
            None => unsupported(&error),
        }
    })?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(unsupported(&"PBES1"));
    };
    check_cost(&parameters.kdf)?;
    match info.decrypt(passphrase) {
        Ok(document) => Ok(Some(document)),
        Err(pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::DecryptFailed))
        | Err(pkcs8::Error::Asn1(_)) => Ok(None),
        Err(e) => Err(unsupported(&e)),
    }
}

/// Encrypts a PKCS#8 document with PBKDF2 (SHA-256) and AES-256-CBC: a PEM file.
pub(super) fn encrypt(pkcs8: &[u8], passphrase: &[u8]) -> Result<String, KeyError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    rand::fill(&mut salt).map_err(|_| KeyError::NoRandomness)?;
    rand::fill(&mut iv).map_err(|_| KeyError::NoRandomness)?;
    let pem = Parameters::generate_pbkdf2_sha256_aes256cbc(PBKDF2_ITERATIONS, &salt, iv)
        .and_then(|parameters| {
            let encrypted = parameters.encrypt(passphrase, pkcs8)?;
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

/// How a key is encrypted.
pub(super) fn in_words(encrypted: &[u8]) -> String {
    let cipher = cipher(encrypted);
    let info = EncryptedPrivateKeyInfoRef::from_der(encrypted).ok();
    let Some(EncryptionScheme::Pbes2(parameters)) = info.map(|info| info.encryption_algorithm)
    else {
        let named = cipher.map(|name| format!(": {name}")).unwrap_or_default();
        return format!(
            "in a way that is not supported{named}; `openssl pkcs8 -topk8 -in FILE -out NEW` encrypts it anew"
        );
    };
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
    format!("PBES2: {derivation}, {}", cipher.unwrap_or_else(|| "another cipher".to_owned()))
}

/// The cipher of PBES2 by its object identifier, also where its parameters have another form than
/// the library reads, as AES-GCM has; PBES1 for the older schemes; `None` for none of these.
fn cipher(encrypted: &[u8]) -> Option<String> {
    const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
    const PKCS5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05];
    /// Its schemes go by the same name.
    const PKCS12: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];
    const DES3_CBC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x07];
    /// Behind it: 0, 20 or 40 by the length of the key, and the mode.
    const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
    let mut info = DerReader::new(encrypted).take(SEQUENCE).ok()?.inside();
    let mut algorithm = info.take(SEQUENCE).ok()?.inside();
    let scheme = algorithm.take(OBJECT_ID).ok()?.content;
    if scheme != PBES2 {
        let is_pbes1 =
            scheme.starts_with(PKCS12) || matches!(scheme.strip_prefix(PKCS5), Some([1..=11]));
        return is_pbes1.then(|| "PBES1".to_owned());
    }
    let mut parameters = algorithm.take(SEQUENCE).ok()?.inside();
    parameters.take(SEQUENCE).ok()?;
    let id = parameters.take(SEQUENCE).ok()?.inside().take(OBJECT_ID).ok()?.content;
    let mode = |number| {
        ["ECB", "CBC", "OFB", "CFB", "wrap", "GCM", "CCM"].get(usize::from(number) % 20 - 1)
    };
    match (id, id.strip_prefix(AES)) {
        (DES3_CBC, _) => return Some("3DES-CBC".to_owned()),
        (_, Some([number @ (1..=7 | 21..=27 | 41..=47)])) => {
            let bits = 128 + 64 * (usize::from(*number) / 20);
            mode(*number).map(|mode| format!("AES-{bits}-{mode}"))
        }
        _ => None,
    }
    .or_else(|| Some(ObjectIdentifier::from_bytes(id).ok()?.to_string()))
}

/// Refuses parameters that would burn seconds, or that the library would stumble over.
fn check_cost(kdf: &Kdf) -> Result<(), KeyError> {
    match kdf {
        Kdf::Pbkdf2(p) => {
            let detail = || format!("PBKDF2 with {} iterations", p.iteration_count);
            match p.iteration_count {
                0 => Err(KeyError::Senseless(detail())),
                1..=PBKDF2_ITERATIONS_MAX => Ok(()),
                _ => Err(KeyError::TooCostly(detail())),
            }
        }
        Kdf::Scrypt(p) => {
            let (n, r, p) = (p.cost_parameter, p.block_size, p.parallelization);
            let detail = format!("scrypt with N = {n}, r = {r}, p = {p}");
            match n.saturating_mul(r.into()).saturating_mul(p.into()) {
                cost if !n.is_power_of_two() || cost == 0 => Err(KeyError::Senseless(detail)),
                cost if cost > SCRYPT_COST_MAX => Err(KeyError::TooCostly(detail)),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use pkcs8::pkcs5::pbes2::{Pbkdf2Params, ScryptParams};

    use super::*;

    #[test]
    fn senseless_key_derivation_parameters_are_refused_before_the_library_sees_them() {
        let scrypt = |cost_parameter, block_size, parallelization| {
            let salt = [1, 2, 3, 4].as_slice().try_into().unwrap();
            Kdf::Scrypt(ScryptParams {
                salt,
                cost_parameter,
                block_size,
                parallelization,
                key_length: None,
            })
        };
        assert_eq!(check_cost(&scrypt(1 << 14, 8, 1)), Ok(()));
        assert_eq!(check_cost(&scrypt(1 << 18, 8, 1)), Ok(()));
        for (n, r, p) in [(0, 8, 1), (3, 8, 1), (1 << 14, 0, 1), (1 << 14, 8, 0)] {
            assert!(
                matches!(check_cost(&scrypt(n, r, p)), Err(KeyError::Senseless(_))),
                "{n} {r} {p}"
            );
        }
        for (n, r, p) in [(1 << 19, 8, 1), (1 << 63, u16::MAX, u16::MAX)] {
            assert!(
                matches!(check_cost(&scrypt(n, r, p)), Err(KeyError::TooCostly(_))),
                "{n} {r} {p}"
            );
        }
        let zero = Kdf::Pbkdf2(Pbkdf2Params::hmac_sha256(0, &[1]).unwrap());
        let error = check_cost(&zero).unwrap_err();
        assert_eq!(error, KeyError::Senseless("PBKDF2 with 0 iterations".to_owned()));
        assert!(error.to_string().contains("make no sense (PBKDF2 with 0 iterations)"), "{error}");
    }
}
