//! Private keys: the first byte chooses plain PKCS#8, encrypted PKCS#8 (both DER, wrapped into PEM
//! here so that the fuzzer works on what matters) or a PEM file as it is.

#![no_main]

use der::pem::{LineEnding, encode_string};
use libfuzzer_sys::fuzz_target;
use packetlab::key::{PrivateKey, PublicKey};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, body)) = input.split_first() else { return };
    let wrapped = |label| encode_string(label, LineEnding::LF, body).unwrap_or_default();
    let pem = match choice {
        0 => wrapped("PRIVATE KEY"),
        1 => wrapped("ENCRYPTED PRIVATE KEY"),
        _ => {
            let _ = PublicKey::from_pem(body);
            check(body, None);
            return;
        }
    };
    check(pem.as_bytes(), Some(b"hunter2"));
});

fn check(pem: &[u8], passphrase: Option<&[u8]>) {
    let Ok(key) = PrivateKey::from_pem(pem, passphrase) else { return };
    let again = PrivateKey::from_pem(key.to_pem().as_bytes(), None).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    assert!(key.public_key().verify(b"message", &again.sign(b"message")));
}
