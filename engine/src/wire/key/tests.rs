//! Keys against files made by OpenSSL and by the Python tool.

use pkcs8::pkcs5::pbes2::{Pbkdf2Params, ScryptParams};

use super::*;

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../../testdata/credentials/keys/", $name))
    };
}

macro_rules! encrypted {
    ($name:literal) => {
        ($name, &include_bytes!(concat!("../../../testdata/encrypted_keys/", $name, ".pem"))[..])
    };
}

const XC: &[u8] = golden!("xc");
const XC_PUB: &[u8] = golden!("xc.pub");
const ENC: &[u8] = golden!("enc");

fn xc() -> PrivateKey {
    PrivateKey::from_pem(XC, None).unwrap()
}

#[test]
fn golden_public_keys_have_the_listed_raw_form_and_key_id() {
    let (raw, id) = (
        "5897e895f8c90ca35bb0f86e095547f60690909567ff6036430c4163052d11ef",
        "ae9cfa66e4ea9f8206b2eda01cd73df76a16e456efef0677b057663420212895",
    );
    let key = PublicKey::from_pem(XC_PUB).unwrap();
    assert_eq!(Hex(&key.0).to_string(), raw);
    assert_eq!(key.key_id().to_string(), id);
    assert_eq!(key.to_pem().as_bytes(), XC_PUB);
    assert_eq!(PublicKey::from_spki(&key.to_spki()), Ok(key));
}

/// Item 48.
#[test]
fn an_unencrypted_key_loads_without_a_passphrase_and_writes_the_same_file() {
    let key = xc();
    assert_eq!(key.public_key(), PublicKey::from_pem(XC_PUB).unwrap());
    assert_eq!(key.to_pem().as_bytes(), XC);
    assert_eq!(key.pkcs8_der().len(), 48);
}

/// Item 49: the passphrase of an encrypted key is asked for, the right one works, a wrong one does
/// not.
#[test]
fn an_encrypted_key_wants_its_passphrase() {
    assert_eq!(PrivateKey::from_pem(ENC, None).unwrap_err(), KeyError::PassphraseNeeded);
    assert_eq!(PrivateKey::from_pem(ENC, Some(b"hunter3")).unwrap_err(), KeyError::WrongPassphrase);
    let key = PrivateKey::from_pem(ENC, Some(b"hunter2")).unwrap();
    assert_eq!(key.public_key(), PublicKey::from_pem(golden!("enc.pub")).unwrap());
}

#[test]
fn every_usual_encryption_of_openssl_opens() {
    for (name, pem) in [
        encrypted!("pbkdf2_hmacWithSHA1"),
        encrypted!("pbkdf2_hmacWithSHA224"),
        encrypted!("pbkdf2_hmacWithSHA256"),
        encrypted!("pbkdf2_hmacWithSHA384"),
        encrypted!("pbkdf2_hmacWithSHA512"),
        encrypted!("aes_128"),
        encrypted!("aes_192"),
        encrypted!("scrypt"),
    ] {
        let key = PrivateKey::from_pem(pem, Some(b"hunter2")).expect(name);
        assert_eq!(key.public_key(), xc().public_key(), "{name}");
        assert_eq!(PrivateKey::from_pem(pem, None).unwrap_err(), KeyError::PassphraseNeeded);
    }
}

#[test]
fn a_key_encrypted_with_the_empty_passphrase_loads_silently() {
    let (_, pem) = encrypted!("empty_passphrase");
    assert_eq!(PrivateKey::from_pem(pem, None).unwrap().public_key(), xc().public_key());
}

#[test]
fn old_encryptions_are_refused_by_name_of_the_cure() {
    for (name, pem) in [encrypted!("pbes1"), encrypted!("des3")] {
        let error = PrivateKey::from_pem(pem, Some(b"hunter2")).unwrap_err();
        assert!(matches!(error, KeyError::UnsupportedEncryption(_)), "{name}: {error:?}");
        assert!(error.to_string().contains("re-encrypt"), "{name}");
    }
}

#[test]
fn a_hostile_file_cannot_burn_seconds() {
    let (_, pem) = encrypted!("costly_pbkdf2");
    let error = PrivateKey::from_pem(pem, Some(b"hunter2")).unwrap_err();
    assert_eq!(error, KeyError::TooCostly("PBKDF2 with 2000001 iterations".to_owned()));
}

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
    for (n, r, p) in [
        (0, 8, 1),
        (3, 8, 1),
        (1 << 14, 0, 1),
        (1 << 14, 8, 0),
        (1 << 19, 8, 1),
        (1 << 63, u16::MAX, u16::MAX),
    ] {
        assert!(matches!(check_cost(&scrypt(n, r, p)), Err(KeyError::TooCostly(_))), "{n} {r} {p}");
    }
    let zero = Kdf::Pbkdf2(Pbkdf2Params::hmac_sha256(0, &[1]).unwrap());
    assert!(matches!(check_cost(&zero), Err(KeyError::TooCostly(_))));
}

#[test]
fn our_own_encryption_opens_again_and_is_salted() {
    let (one, two) =
        (xc().to_encrypted_pem(b"open").unwrap(), xc().to_encrypted_pem(b"open").unwrap());
    assert_ne!(one, two);
    let key = PrivateKey::from_pem(one.as_bytes(), Some(b"open")).unwrap();
    assert_eq!(key.public_key(), xc().public_key());
    assert_eq!(
        PrivateKey::from_pem(one.as_bytes(), Some(b"shut")).unwrap_err(),
        KeyError::WrongPassphrase
    );
}

#[test]
fn notes_odd_lines_and_further_sections_around_a_key_are_ignored() {
    let body = "MC4CAQAwBQYDK2VwBCIEIN3LYPbo2BmVGUAcs/QXDGWPIPJTSTVTmpfm8LQ38ehF";
    let (head, tail) = body.split_at(10);
    let text = format!(
        "Bag Attributes\r\n-----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----\r\n\
         -----BEGIN PRIVATE KEY----- \r\n{head}\r\n\r\n  {tail}\r\n-----END PRIVATE KEY-----\r\n\
         -----BEGIN PRIVATE KEY-----\r\nAAAA\r\n-----END PRIVATE KEY-----\r\n"
    );
    let key = PrivateKey::from_pem(text.as_bytes(), None).unwrap();
    assert_eq!(key.public_key(), xc().public_key());
}

#[test]
fn files_that_hold_no_private_key_say_so() {
    let not_pem = KeyError::NotPem { wanted: "PRIVATE KEY" };
    for file in [
        &b""[..],
        XC_PUB,
        b"-----BEGIN PRIVATE KEY-----\nMC4C\n",
        b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n\xff\xfe\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ] {
        let name = String::from_utf8_lossy(file);
        assert_eq!(PrivateKey::from_pem(file, None).unwrap_err(), not_pem, "{name}");
    }
    let section = |label: &'static str, der: &[u8]| {
        der::pem::encode_string(label, LineEnding::LF, der).unwrap()
    };
    for der in [&[0x30, 0x00][..], &[0x30, 0x03, 0x02, 0x01, 0x00]] {
        let pem = section("PRIVATE KEY", der);
        assert_eq!(PrivateKey::from_pem(pem.as_bytes(), None).unwrap_err(), KeyError::Malformed);
    }
}

#[test]
fn a_key_of_another_algorithm_is_named() {
    let (_, pem) = encrypted!("p256");
    let error = PrivateKey::from_pem(pem, None).unwrap_err();
    assert_eq!(error, KeyError::NotEd25519 { algorithm: "1.2.840.10045.2.1".to_owned() });
}

#[test]
fn a_public_key_has_exactly_one_form() {
    let spki = xc().public_key().to_spki();
    for bad in [&spki[..43], &[&spki[..], &[0]].concat(), &xc().public_key().0, b""] {
        assert!(PublicKey::from_spki(bad).is_err());
    }
    let mut x25519 = spki;
    x25519[8] = 0x6e;
    assert!(PublicKey::from_spki(&x25519).is_err());
    assert_eq!(PublicKey::from_pem(XC), Err(KeyError::NotPem { wanted: "PUBLIC KEY" }));
}

#[test]
fn signatures_verify_only_with_their_key_and_message() {
    let (key, other) = (xc(), PrivateKey::generate().unwrap());
    let signature = key.sign(b"message");
    assert_eq!(signature, key.sign(b"message"));
    assert!(key.public_key().verify(b"message", &signature));
    assert!(!key.public_key().verify(b"massage", &signature));
    assert!(!other.public_key().verify(b"message", &signature));
    assert!(!key.public_key().verify(b"message", &signature[..63]));
    assert!(!PublicKey([0xff; 32]).verify(b"message", &signature));
}

#[test]
fn generated_keys_differ_and_survive_their_file() {
    let (one, two) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    assert_ne!(one.public_key(), two.public_key());
    let read = PrivateKey::from_pem(one.to_pem().as_bytes(), None).unwrap();
    assert_eq!(read.public_key(), one.public_key());
}

#[test]
fn debug_output_holds_no_secret() {
    let shown = format!("{:?} {:#?}", xc(), xc());
    let seed = Hex(&xc().pkcs8_der()[16..]).to_string();
    assert!(!shown.contains(&seed) && !shown.contains("221, 203"), "{shown}");
    assert!(shown.contains("ae9cfa66"));
}

#[test]
fn a_version_two_key_with_its_public_half_is_read() {
    let seed =
        OctetStringRef::new(&xc().pkcs8_der()[16..]).and_then(|s| der::Encode::to_der(&s)).unwrap();
    let public = xc().public_key();
    let mut info = PrivateKeyInfoRef::new(
        pkcs8::AlgorithmIdentifierRef { oid: ED25519_OID, parameters: None },
        OctetStringRef::new(&seed).unwrap(),
    );
    info.public_key = Some(der::asn1::BitStringRef::from_bytes(&public.0).unwrap());
    let document = SecretDocument::encode_msg(&info).unwrap();
    let pem = document.to_pem("PRIVATE KEY", LineEnding::LF).unwrap();
    assert_eq!(PrivateKey::from_pem(pem.as_bytes(), None).unwrap().public_key(), public);
}

#[test]
fn how_a_key_is_encrypted_is_told_without_its_passphrase() {
    let read = |name: &str| {
        let path = format!("{}/testdata/encrypted_keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        PrivateKey::encryption(&std::fs::read(path).unwrap())
    };
    for (name, expected) in [
        ("aes_192", "PBES2: PBKDF2 with SHA-256 and 2048 iterations, AES-192-CBC"),
        ("pbkdf2_hmacWithSHA1", "PBES2: PBKDF2 with SHA-1 and 2048 iterations, AES-256-CBC"),
        ("scrypt", "PBES2: scrypt with N = 16384, r = 8, p = 1, AES-256-CBC"),
        ("pbes1", "in a way that is not supported"),
    ] {
        assert_eq!(read(name), Ok(Some(expected.to_owned())), "{name}");
    }
    assert_eq!(PrivateKey::encryption(golden!("xc")), Ok(None));
    let public = PrivateKey::encryption(golden!("xc.pub"));
    assert_eq!(public, Err(KeyError::NotPem { wanted: PRIVATE_LABEL }));
}
