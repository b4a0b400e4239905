//! Requests made here against those of the Python tool.

use proptest::prelude::*;

use super::*;
use crate::certificate::BurstRate;
use crate::golden::{self, private_key, public_key};
use crate::issue::issue;

fn golden_request(name: &str) -> SigningRequest {
    SigningRequest::from_pem(&golden::read(name)).unwrap()
}

/// What both golden requests ask for, beside what the caller changes.
fn fields(certificate_type: CertificateType) -> CertificateFields {
    let delpriv = certificate_type == CertificateType::Delpriv;
    CertificateFields {
        certificate_type,
        delegation: Delegation { exppriv: delpriv, reppriv: false },
        path_len: None,
        not_before: Ticks(0),
        not_after: Ticks::MAX,
        description: None,
        auxiliary: Vec::new(),
        limits: CertificateLimits::default(),
    }
}

fn requested(fields: &CertificateFields) -> Result<SigningRequest, RequestError> {
    SigningRequest::from_der(&request(fields, &private_key("del"))?)
}

fn pair(name: &str, value: &str) -> Pair {
    Pair { name: name.to_owned(), value: value.to_owned() }
}

#[test]
fn the_golden_requests_decode_to_the_fields_of_the_specification() {
    let exppriv = golden_request("exppriv.csr");
    assert_eq!(exppriv.fields(Ticks(0), Ticks::MAX), fields(CertificateType::Exppriv));
    assert!(golden::KEYS.into_iter().any(|name| public_key(name) == exppriv.subject_key));

    let delpriv = golden_request("delpriv.csr");
    assert_eq!(delpriv.subject_key, public_key("del"));
    let limits = CertificateLimits {
        max_send_pkt: Some(7),
        optional_known_limits: vec!["max_send_pkt"],
        ..CertificateLimits::default()
    };
    let expected =
        CertificateFields { path_len: Some(2), limits, ..fields(CertificateType::Delpriv) };
    assert_eq!(delpriv.fields(Ticks(0), Ticks::MAX), expected);
}

#[test]
fn the_golden_requests_are_made_again_byte_for_byte() {
    let owner = |request: &SigningRequest| {
        let mut keys = golden::KEYS.into_iter().map(private_key);
        keys.find(|key| key.public_key() == request.subject_key).unwrap()
    };
    let exppriv = golden_request("exppriv.csr");
    let der = request(&exppriv.fields(Ticks(0), Ticks(1)), &owner(&exppriv));
    assert_eq!(der.as_deref(), Ok(exppriv.der()));

    // Its limit is optional, which is never written; below that check the form is the same.
    let delpriv = golden_request("delpriv.csr");
    let refused = request(&delpriv.fields(Ticks(0), Ticks(1)), &owner(&delpriv));
    assert_eq!(refused, Err(RequestError::OptionalLimit("max_send_pkt")));
    let limits = CertificateLimits {
        auxiliary: vec![pair("*max_send_pkt", "7")],
        ..CertificateLimits::default()
    };
    let fields = CertificateFields { limits, ..delpriv.fields(Ticks(0), Ticks(1)) };
    assert_eq!(encode(&fields, &owner(&delpriv)).as_deref(), Ok(delpriv.der()));
    assert_eq!(request(&fields, &owner(&delpriv)), Err(RequestError::Ambiguous));
}

#[test]
fn a_request_of_each_type_can_be_made_and_signed() {
    for kind in CertificateType::ALL {
        let request = requested(&fields(kind)).unwrap();
        assert_eq!(request.subject_key, public_key("del"));
        let asked = request.fields(Ticks(0), Ticks::MAX);
        assert_eq!(asked, fields(kind));
        assert!(issue(&asked, &request.subject_key, &private_key("eop")).is_ok(), "{kind}");
    }
}

#[test]
fn a_request_for_an_impossible_certificate_is_refused_with_the_rule() {
    let code = |change: fn(&mut CertificateFields), kind| {
        let mut wanted = fields(kind);
        change(&mut wanted);
        match requested(&wanted) {
            Err(RequestError::Invalid(error)) => error.code(),
            other => panic!("{other:?}"),
        }
    };
    let limit = |f: &mut CertificateFields| f.limits.max_send_pkt = Some(1);
    assert_eq!(code(limit, CertificateType::Subcmd), 15);
    assert_eq!(code(|f| f.path_len = Some(1), CertificateType::Pubcmd), 13);
    assert_eq!(code(|f| f.delegation = Delegation::default(), CertificateType::Delpriv), 18);
    assert_eq!(code(|f| f.delegation.reppriv = true, CertificateType::Exppriv), 18);
    assert_eq!(code(|f| f.description = Some("a#b".into()), CertificateType::Agent), 14);
    let mut wanted = fields(CertificateType::Exppriv);
    wanted.description = Some("x;note=y".into());
    assert_eq!(requested(&wanted), Err(RequestError::Ambiguous));
}

#[test]
fn a_request_that_its_own_key_did_not_sign_is_refused() {
    let der = golden_request("exppriv.csr").der().to_vec();
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(SigningRequest::from_der(&forged), Err(RequestError::Signature));
    // Another key in the same request.
    let spki = private_key("xc").public_key().0;
    let old = golden_request("exppriv.csr").subject_key.0;
    let at = der.windows(32).position(|window| window == old).unwrap();
    let mut foreign = der;
    foreign[at..at + 32].copy_from_slice(&spki);
    assert_eq!(SigningRequest::from_der(&foreign), Err(RequestError::Signature));
}

#[test]
fn no_changed_and_no_cut_byte_goes_unnoticed() {
    for name in ["exppriv.csr", "delpriv.csr"] {
        let der = golden_request(name).der().to_vec();
        for len in 0..der.len() {
            assert!(SigningRequest::from_der(&der[..len]).is_err(), "{name} cut at {len}");
        }
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 1;
            assert!(SigningRequest::from_der(&changed).is_err(), "{name} changed at {at}");
        }
        let longer = [&der[..], &[0]].concat();
        assert!(SigningRequest::from_der(&longer).is_err());
    }
}

/// Laxness is refused before the signature is looked at, and where it stands.
#[test]
fn a_request_in_lax_der_is_refused_with_its_byte() {
    let der = golden_request("exppriv.csr").der().to_vec();
    // Its outer sequence, its version, the set of its attribute's values.
    for (at, byte, problem) in [
        (0, 0x10, "constructed bit"),
        (5, 0x22, "constructed bit"),
        (81, 0x30, "a SET must stand here"),
    ] {
        let mut lax = der.clone();
        lax[at] = byte;
        match SigningRequest::from_der(&lax) {
            Err(RequestError::NotDer(flaw)) => {
                assert_eq!(flaw.offset, at, "{flaw}");
                assert!(flaw.problem.contains(problem), "{flaw}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
    let critical = 94;
    assert_eq!(der[critical], 0xff);
    for (byte, problem) in [(0, "FALSE is the default"), (1, "00 or ff")] {
        let mut lax = der.clone();
        lax[critical] = byte;
        match SigningRequest::from_der(&lax) {
            Err(RequestError::Invalid(CertificateError::NotDer { code: 5, flaw })) => {
                assert_eq!(flaw.offset, critical, "{flaw}");
                assert!(flaw.problem.contains(problem), "{flaw}");
            }
            other => panic!("{byte}: {other:?}"),
        }
    }
}

#[test]
fn only_the_right_pem_section_is_read() {
    let certificate = golden::read("agent_xc.cert");
    assert!(matches!(SigningRequest::from_pem(&certificate), Err(RequestError::Pem(_))));
    let request = golden_request("exppriv.csr");
    assert_eq!(request.to_pem().as_bytes(), golden::read("exppriv.csr"));
    let behind = [&certificate[..], request.to_pem().as_bytes()].concat();
    assert_eq!(SigningRequest::from_pem(&behind).as_ref(), Ok(&request));
    let marked = [&b"\xef\xbb\xbf"[..], &golden::read("exppriv.csr")].concat();
    assert_eq!(SigningRequest::from_pem(&marked), Ok(request));
    let two = [golden::read("exppriv.csr"), golden::read("delpriv.csr")].concat();
    let error = SigningRequest::from_pem(&two).unwrap_err().to_string();
    assert!(error.contains("holds 2 PEM sections `CERTIFICATE REQUEST`"), "{error}");
}

proptest! {
    #[test]
    fn what_is_requested_reads_back_as_asked(
        path_len in any::<Option<u32>>(),
        description in prop::option::of("[a-zA-Z0-9_.:,/() -]{0,200}"),
        reppriv in any::<bool>(),
        max_send_byte in any::<Option<u64>>(),
        rates in prop::collection::vec((any::<u64>(), 1..u64::MAX), 0..3),
        monitor in prop::collection::vec(any::<[u8; 32]>(), 0..3),
    ) {
        let rate = |(count, window)| BurstRate { count, window };
        let wanted = CertificateFields {
            path_len,
            description,
            delegation: Delegation { exppriv: true, reppriv },
            auxiliary: vec![pair("note", "x")],
            limits: CertificateLimits {
                monitor,
                max_send_byte,
                max_burst_rate_pkt: rates.into_iter().map(rate).collect(),
                auxiliary: vec![pair("*own", "y")],
                ..CertificateLimits::default()
            },
            ..fields(CertificateType::Delpriv)
        };
        let request = requested(&wanted).unwrap();
        prop_assert_eq!(request.fields(Ticks(0), Ticks::MAX), wanted);
    }

    #[test]
    fn no_input_makes_the_reader_panic(der in any::<Vec<u8>>()) {
        let _ = SigningRequest::from_der(&der);
        let _ = SigningRequest::from_pem(&der);
    }
}
