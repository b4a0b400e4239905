//! Forms by files made here; that the commands do what they say is tested with openssl (`cli/tests`).

use super::*;
use crate::golden;
use crate::key::PrivateKey;

fn said(file: &[u8]) -> String {
    recognise(file).map(|found| found.to_string()).unwrap_or_default()
}

#[test]
fn der_is_told_apart_by_its_first_elements() {
    let key = PrivateKey::generate().unwrap();
    let encrypted = key.to_encrypted_pem(b"x").unwrap();
    let (_, encrypted) = der::pem::decode_vec(encrypted.as_bytes()).unwrap();
    let request = golden::read("exppriv.csr");
    let (_, request) = der::pem::decode_vec(&request).unwrap();
    let algorithm = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    let old_certificate = [&[0x30, 14, 0x30, 10, 2, 1, 9][..], &algorithm, &[0x30, 0]].concat();
    for (file, expected) in [
        (
            golden::certificate("agent_xc").der(),
            "a certificate in DER, not PEM; `openssl x509 -inform DER",
        ),
        (&old_certificate, "a certificate in DER"),
        (&request, "a signing request in DER, not PEM; `openssl req -inform DER"),
        (&key.pkcs8_der(), "a private key in DER, not PEM; `openssl pkey -inform DER"),
        (&encrypted, "an encrypted private key in DER, not PEM; `openssl pkcs8 -topk8 -inform DER"),
        (&key.public_key().to_spki(), "a public key in DER, not PEM; `openssl pkey -pubin"),
        (&[0x30, 0x80, 2, 1, 3, 0x30, 0x80], "a PKCS#12 file; `openssl pkcs12 -in FILE -nocerts"),
        (&[0x30, 0x82, 1, 0, 2, 1, 3, 0x30, 0], "a PKCS#12 file"),
        (&[0x30, 7, 2, 1, 0, 2, 2, 1, 1], "a traditional RSA or EC key in DER"),
        (&[0x30, 6, 2, 1, 1, 4, 1, 1], "a traditional RSA or EC key in DER"),
        (b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02", "a PKCS#7 bundle"),
        (b"\xff\xfe-\0-\0", "text in UTF-16; `iconv -f UTF-16"),
        (b"\xfe\xff\0-\0-", "text in UTF-16"),
        (b"-\0-\0-\0", "text in UTF-16"),
    ] {
        let said = said(file);
        assert!(said.starts_with(&format!("it is {expected}")), "{expected}: {said}");
    }
}

#[test]
fn sections_that_are_not_read_are_named() {
    for (label, expected) in [
        ("TRUSTED CERTIFICATE", "`openssl x509 -in FILE -out NEW` converts it"),
        ("RSA PRIVATE KEY", "`openssl pkcs8 -topk8 -in FILE -out NEW` converts it, but PacketLab"),
        ("EC PRIVATE KEY", "(EC PRIVATE KEY)"),
        ("OPENSSH PRIVATE KEY", "a private key of OpenSSH; openssl cannot read it"),
        ("NEW CERTIFICATE REQUEST", "`openssl req -in FILE -out NEW`"),
        ("PKCS7", "`openssl pkcs7 -in FILE -print_certs -out NEW`"),
    ] {
        let said = said(format!("note\r\n-----BEGIN {label}-----\r\n").as_bytes());
        assert!(said.contains(expected), "{label}: {said}");
    }
    assert!(said(b"ssh-ed25519 AAAAC3Nz root@vm\n").contains("a public key of OpenSSH"));
}

#[test]
fn texts_and_programs_are_nothing_foreign() {
    for file in [
        &b""[..],
        b"hello",
        b"0",
        b"0xb7 0 0 0 1\n0x95 0 0 0 0\n",
        b"0x07 0 0 0 1 0x95 0 0 0 0 0x95 0 0 0 0 0x95 0 0 0 0 0x95 0 0 0 0 0x95 0 0 0 0 0x95 0 0 0 0",
        b"00 0 0 0 0\n",
        b"\0asm\x01\0\0\0",
        b"-----BEGIN CERTIFICATE-----\n",
    ] {
        assert_eq!(recognise(file), None, "{}", String::from_utf8_lossy(file));
    }
}
