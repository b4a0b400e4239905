//! Signing requests in DER: whatever decodes was signed by its key, and its fields make a request again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packetlab::key::PrivateKey;
use packetlab::request::{RequestError, SigningRequest, request};
use packetlab::time::Ticks;
use std::sync::LazyLock;

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate().unwrap());

fuzz_target!(|der: &[u8]| {
    let Ok(read) = SigningRequest::from_der(der) else { return };
    assert_eq!(read.der(), der);
    assert_eq!(SigningRequest::from_pem(read.to_pem().as_bytes()).unwrap(), read);
    let fields = read.fields(Ticks(0), Ticks::MAX);
    match request(&fields, &KEY) {
        Ok(der) => {
            let again = SigningRequest::from_der(&der).unwrap();
            assert_eq!(again.fields(Ticks(0), Ticks::MAX), fields);
        }
        Err(RequestError::OptionalLimit(_)) => {
            assert!(!read.limits.optional_known_limits.is_empty());
        }
        Err(error) => panic!("{error}"),
    }
});
