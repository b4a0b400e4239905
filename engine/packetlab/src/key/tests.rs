//! Keys against files made by OpenSSL and by the Python tool.

use der::asn1::OctetStringRef;
use pkcs8::PrivateKeyInfoRef;

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
         -----BEGIN PRIVATE KEY----- \r\n{head}\r\n\r\n  {tail}\r\n-----END PRIVATE KEY-----\r\n"
    );
    for text in [text.clone(), format!("\u{feff}{text}")] {
        let key = PrivateKey::from_pem(text.as_bytes(), None).unwrap();
        assert_eq!(key.public_key(), xc().public_key());
    }
    let two = text + "-----BEGIN PRIVATE KEY-----\r\nAAAA\r\n-----END PRIVATE KEY-----\r\n";
    let error = PrivateKey::from_pem(two.as_bytes(), None).unwrap_err().to_string();
    assert!(error.contains("holds 2 PEM sections `PRIVATE KEY`, and one is meant"), "{error}");
}

#[test]
fn files_that_hold_no_private_key_say_so() {
    for file in [
        &b""[..],
        XC_PUB,
        b"-----BEGIN PRIVATE KEY-----\nMC4C\n",
        b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n\xff\xfe\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ] {
        let error = PrivateKey::from_pem(file, None).unwrap_err().to_string();
        assert!(error.starts_with("holds no readable PEM section `PRIVATE KEY`"), "{error}");
    }
    let section = |label: &'static str, der: &[u8]| {
        der::pem::encode_string(label, LineEnding::LF, der).unwrap()
    };
    for der in [&[0x30, 0x00][..], &[0x30, 0x03, 0x02, 0x01, 0x00]] {
        let pem = section("PRIVATE KEY", der);
        let error = PrivateKey::from_pem(pem.as_bytes(), None).unwrap_err();
        assert!(matches!(error, KeyError::Malformed(_)), "{error}");
    }
}

#[test]
fn a_key_of_another_algorithm_is_named() {
    let (_, pem) = encrypted!("p256");
    let error = PrivateKey::from_pem(pem, None).unwrap_err();
    assert_eq!(error, KeyError::NotEd25519 { algorithm: "ECDSA, 1.2.840.10045.2.1".to_owned() });
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
    let error = PublicKey::from_spki(&x25519).unwrap_err().to_string();
    assert!(error.contains("(algorithm: X25519, 1.3.101.110)"), "{error}");
    let error = PublicKey::from_pem(XC).unwrap_err().to_string();
    assert_eq!(error, "holds no readable PEM section `PUBLIC KEY`, but `PRIVATE KEY`");
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

/// A PKCS#8 document of the key xc: version, what is behind the algorithm's id, what is behind the
/// seed.
fn pkcs8(version: u8, parameters: &[u8], behind: &[u8]) -> Vec<u8> {
    let seed = &xc().pkcs8_der()[16..];
    let algorithm_len = 5 + parameters.len() as u8;
    let content = [
        &[2, 1, version, 0x30, algorithm_len, 6, 3, 0x2b, 0x65, 0x70][..],
        parameters,
        &[4, 0x22, 4, 0x20],
        seed,
        behind,
    ]
    .concat();
    [&[0x30, content.len() as u8][..], &content].concat()
}

fn public_half(key: &PublicKey) -> Vec<u8> {
    [&[0x81, 33, 0][..], &key.0].concat()
}

#[test]
fn a_version_two_key_is_read_with_and_without_its_public_half() {
    let public = xc().public_key();
    let attributes = [0xa0, 9, 0x30, 7, 6, 3, 0x2a, 3, 4, 0x31, 0];
    let half = public_half(&public);
    for der in [
        pkcs8(0, &[], &[]),
        pkcs8(0, &[], &attributes),
        pkcs8(1, &[], &[]),
        pkcs8(1, &[], &half),
        pkcs8(1, &[], &[&attributes[..], &half].concat()),
    ] {
        let pem = der::pem::encode_string("PRIVATE KEY", LineEnding::LF, &der).unwrap();
        let key = PrivateKey::from_pem(pem.as_bytes(), None);
        assert_eq!(key.map(|key| key.public_key()), Ok(public), "{der:02x?}");
    }
    // Another writer's form of it.
    let seed =
        OctetStringRef::new(&xc().pkcs8_der()[16..]).and_then(|s| der::Encode::to_der(&s)).unwrap();
    let mut info = PrivateKeyInfoRef::new(
        pkcs8::AlgorithmIdentifierRef {
            oid: ObjectIdentifier::new_unwrap("1.3.101.112"),
            parameters: None,
        },
        OctetStringRef::new(&seed).unwrap(),
    );
    info.public_key = Some(der::asn1::BitStringRef::from_bytes(&public.0).unwrap());
    let document = SecretDocument::encode_msg(&info).unwrap();
    assert_eq!(document.as_bytes(), pkcs8(1, &[], &half));
}

#[test]
fn a_public_half_of_another_key_is_refused() {
    let other = PrivateKey::generate().unwrap().public_key();
    let error = PrivateKey::from_pkcs8(&pkcs8(1, &[], &public_half(&other))).unwrap_err();
    assert_eq!(error, KeyError::OtherHalf);
    assert!(error.to_string().contains("belongs to another private key"), "{error}");
}

#[test]
fn a_private_key_has_one_form_in_der() {
    let half = public_half(&xc().public_key());
    for (der, offset, problem) in [
        (pkcs8(0, &[5, 0], &[]), 12, "no parameters, not even NULL"),
        (pkcs8(0, &[], &half), 48, "nothing more may follow"),
        (pkcs8(0, &[], &[5, 0]), 48, "nothing more may follow"),
        (pkcs8(1, &[], &[&half[..], &half].concat()), 48 + half.len(), "nothing more"),
        (pkcs8(1, &[], &[0xa1, 2, 3, 0]), 48, "nothing more"),
        (pkcs8(2, &[], &[]), 4, "version"),
        ([&pkcs8(0, &[], &[])[..], &[0]].concat(), 48, "nothing more"),
        (pkcs8(1, &[], &[0x81, 0]), 50, "how many bits"),
    ] {
        match PrivateKey::from_pkcs8(&der) {
            Err(KeyError::Malformed(flaw)) => {
                assert_eq!(flaw.offset, offset, "{flaw}");
                assert!(flaw.problem.contains(problem), "{flaw}");
            }
            other => panic!("{der:02x?}: {other:?}"),
        }
    }
    let mut outer = pkcs8(0, &[], &[]);
    outer[0] = 0x10;
    assert!(matches!(PrivateKey::from_pkcs8(&outer), Err(KeyError::Malformed(_))));
}

#[test]
fn a_bundle_of_public_keys_is_read_as_a_list_or_refused() {
    let other = PrivateKey::generate().unwrap().public_key();
    let both = [XC_PUB, other.to_pem().as_bytes()].concat();
    assert_eq!(PublicKey::list_from_pem(&both), Ok(vec![xc().public_key(), other]));
    assert_eq!(PublicKey::list_from_pem(XC_PUB), Ok(vec![xc().public_key()]));
    let error = PublicKey::from_pem(&both).unwrap_err().to_string();
    assert!(error.contains("holds 2 PEM sections `PUBLIC KEY`"), "{error}");
    assert!(PublicKey::list_from_pem(XC).is_err());
    let marked = [&b"\xef\xbb\xbf"[..], XC_PUB].concat();
    assert_eq!(PublicKey::from_pem(&marked), Ok(xc().public_key()));
}

#[test]
fn the_cipher_of_a_key_that_cannot_be_opened_is_named() {
    let (_, pem) = encrypted!("gcm");
    let error = PrivateKey::from_pem(pem, Some(b"hunter2")).unwrap_err();
    assert_eq!(error, KeyError::UnsupportedEncryption("AES-256-GCM".to_owned()));
}

#[test]
fn no_iterations_are_not_called_too_many() {
    let (_, pem) = encrypted!("zero_iterations");
    let error = PrivateKey::from_pem(pem, Some(b"hunter2")).unwrap_err();
    assert_eq!(error, KeyError::Senseless("PBKDF2 with 0 iterations".to_owned()));
}

#[test]
fn how_a_key_is_encrypted_is_told_without_its_passphrase() {
    let read = |name: &str| {
        let path = format!("{}/../testdata/encrypted_keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        PrivateKey::encryption(&std::fs::read(path).unwrap())
    };
    for (name, expected) in [
        ("aes_192", "PBES2: PBKDF2 with SHA-256 and 2048 iterations, AES-192-CBC"),
        ("pbkdf2_hmacWithSHA1", "PBES2: PBKDF2 with SHA-1 and 2048 iterations, AES-256-CBC"),
        ("scrypt", "PBES2: scrypt with N = 16384, r = 8, p = 1, AES-256-CBC"),
        ("pbes1", "in a way that is not supported: PBES1"),
        ("des3", "in a way that is not supported: 3DES-CBC"),
        ("gcm", "in a way that is not supported: AES-256-GCM"),
    ] {
        let said = read(name).unwrap().unwrap();
        let remedy = "; `openssl pkcs8 -topk8 -in FILE -out NEW` encrypts it anew";
        let is_supported = !expected.contains("not supported");
        let expected = format!("{expected}{}", if is_supported { "" } else { remedy });
        assert_eq!(said, expected, "{name}");
    }
    assert_eq!(PrivateKey::encryption(golden!("xc")), Ok(None));
    assert!(matches!(PrivateKey::encryption(golden!("xc.pub")), Err(KeyError::Pem(_))));
}

#[test]
fn a_key_id_is_read_back_from_its_digits_and_short_is_how_it_begins() {
    let digits = "00ff10".to_owned() + &"ab".repeat(29);
    let id = KeyId::from_hex(&digits).unwrap();
    assert_eq!((id.to_string(), id.short()), (digits.clone(), "00ff10ababab".to_owned()));
    assert_eq!(KeyId::from_hex(&digits.to_uppercase()), Some(id));
    for bad in [&digits[1..], &format!("{digits}0"), &digits.replace("00", "0g"), "", "ä"] {
        assert_eq!(KeyId::from_hex(bad), None, "{bad}");
    }
}
