//! Certificates in DER: whatever decodes keeps its bytes, and its fields make a certificate again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packetlab::certificate::Certificate;
use packetlab::issue::{CertificateFields, IssueError, issue};
use packetlab::key::PrivateKey;
use std::sync::LazyLock;

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate().unwrap());

fuzz_target!(|der: &[u8]| {
    let Ok(certificate) = Certificate::from_der(der) else { return };
    assert_eq!(certificate.der(), der);
    assert_eq!(certificate.subject_key.key_id(), certificate.subject_key_id);
    assert_eq!(Certificate::from_pem(certificate.to_pem().as_bytes()).unwrap(), certificate);
    let _ = certificate.verify_signature(&KEY.public_key());

    let fields = CertificateFields::from(&certificate);
    match issue(&fields, &certificate.subject_key, &KEY) {
        Ok(der) => {
            let again = Certificate::from_der(&der).unwrap();
            assert_eq!(CertificateFields::from(&again), fields);
            assert!(again.verify_signature(&KEY.public_key()));
        }
        // What a certificate may say but none that we issue does.
        Err(IssueError::OptionalLimit(_)) => {
            assert!(!certificate.limits().optional_known_limits.is_empty());
        }
        Err(IssueError::EndsBeforeItStarts) => {
            assert!(certificate.not_after < certificate.not_before);
        }
        Err(error) => panic!("{error}"),
    }
});
