//! Certificates made here against those of the Python tool.

use proptest::prelude::*;

use super::*;
use crate::golden::{self, private_key, public_key};

const YEAR_2038: Ticks = Ticks(2_147_483_647_000_000_000);

fn fields(certificate_type: CertificateType) -> CertificateFields {
    let delpriv = certificate_type == CertificateType::Delpriv;
    CertificateFields {
        certificate_type,
        delegation: Delegation { exppriv: delpriv, reppriv: false },
        path_len: None,
        not_before: Ticks(0),
        not_after: YEAR_2038,
        description: None,
        auxiliary: Vec::new(),
        limits: CertificateLimits::default(),
    }
}

fn issued(fields: &CertificateFields) -> Result<Certificate, IssueError> {
    let der = issue(fields, &public_key("xc"), &private_key("eop"))?;
    Ok(Certificate::from_der(&der).unwrap())
}

fn pair(name: &str, value: &str) -> Pair {
    Pair { name: name.to_owned(), value: value.to_owned() }
}

#[test]
fn every_golden_certificate_is_made_again_byte_for_byte() {
    let key_of = |id: KeyId| {
        golden::KEYS.into_iter().map(private_key).find(|key| key.public_key().key_id() == id)
    };
    for name in golden::CERTIFICATES.into_iter().filter(|name| *name != "exppriv_opt") {
        let original = golden::certificate(name);
        let signer = key_of(original.authority_key_id).unwrap();
        let fields = CertificateFields::from(&original);
        let der = issue_with_serial(&fields, &original.subject_key, &signer, original.serial());
        assert_eq!(der.as_deref(), Ok(original.der()), "{name}");
    }
}

#[test]
fn a_known_limit_is_never_written_as_optional() {
    let original = golden::certificate("exppriv_opt");
    let refused = issued(&CertificateFields::from(&original)).unwrap_err();
    assert_eq!(refused, IssueError::OptionalLimit("max_send_pkt"));
    let mut fields = CertificateFields::from(&original);
    fields.limits.optional_known_limits.clear();
    fields.limits.auxiliary = vec![pair("*max_recv_pkt", "5")];
    assert_eq!(issued(&fields), Err(IssueError::Ambiguous));
    fields.limits.auxiliary = vec![pair("*unknown", "5")];
    assert_eq!(issued(&fields).unwrap().limits(), fields.limits);
}

#[test]
fn all_five_types_are_issued_and_signed() {
    for kind in CertificateType::ALL {
        let certificate = issued(&fields(kind)).unwrap();
        assert_eq!(certificate.certificate_type, kind);
        assert!(certificate.verify_signature(&public_key("eop")), "{kind}");
        assert!(!certificate.verify_signature(&public_key("xc")), "{kind}");
    }
}

#[test]
fn serial_numbers_are_random() {
    let (one, two) = (
        issued(&fields(CertificateType::Agent)).unwrap(),
        issued(&fields(CertificateType::Agent)).unwrap(),
    );
    assert_ne!(one.serial(), two.serial());
    assert!(one.serial().len() > 8);
}

#[test]
fn never_is_written_as_the_end_of_the_year_9999() {
    let mut wanted = fields(CertificateType::Agent);
    wanted.not_after = Ticks::MAX;
    let certificate = issued(&wanted).unwrap();
    assert_eq!(certificate.not_after, Ticks::MAX);
    assert!(certificate.der().windows(17).any(|w| w == b"\x18\x0f99991231235959Z"));
}

#[test]
fn dates_up_to_2049_are_utc_time_and_later_ones_generalized_time() {
    let mut wanted = fields(CertificateType::Agent);
    // 2049-12-31T23:59:59Z and the second after.
    wanted.not_before = Ticks(2_524_607_999_000_000_000);
    wanted.not_after = Ticks(2_524_608_000_000_000_000);
    let certificate = issued(&wanted).unwrap();
    let expected = b"\x17\x0d491231235959Z\x18\x0f20500101000000Z";
    assert!(certificate.der().windows(expected.len()).any(|w| w == expected));
    assert_eq!(
        (certificate.not_before, certificate.not_after),
        (wanted.not_before, wanted.not_after)
    );
}

#[test]
fn parts_of_seconds_are_cut_off() {
    let mut wanted = fields(CertificateType::Agent);
    wanted.not_before = Ticks(1_999_999_999);
    wanted.not_after = Ticks(YEAR_2038.0 + 1);
    let certificate = issued(&wanted).unwrap();
    assert_eq!((certificate.not_before, certificate.not_after), (Ticks(1_000_000_000), YEAR_2038));
}

#[test]
fn fields_that_break_a_rule_are_refused_with_the_rule() {
    let invalid_code = |change: fn(&mut CertificateFields), kind| {
        let mut wanted = fields(kind);
        change(&mut wanted);
        match issued(&wanted) {
            Err(IssueError::Invalid(error)) => error.code(),
            other => panic!("{other:?}"),
        }
    };
    let limit = |f: &mut CertificateFields| f.limits.max_send_pkt = Some(1);
    assert_eq!(invalid_code(limit, CertificateType::Agent), 15);
    assert_eq!(invalid_code(|f| f.path_len = Some(1), CertificateType::Pubcmd), 13);
    assert_eq!(
        invalid_code(|f| f.delegation = Delegation::default(), CertificateType::Delpriv),
        18
    );
    assert_eq!(invalid_code(|f| f.delegation.reppriv = true, CertificateType::Exppriv), 18);
    assert_eq!(invalid_code(|f| f.description = Some("a#b".into()), CertificateType::Agent), 14);
    let mut wanted = fields(CertificateType::Agent);
    (wanted.not_before, wanted.not_after) = (YEAR_2038, Ticks(0));
    assert_eq!(issued(&wanted), Err(IssueError::EndsBeforeItStarts));
}

#[test]
fn a_text_cannot_smuggle_in_another_field() {
    let smuggled: [fn(&mut CertificateFields); 5] = [
        |f| f.description = Some("x;note=y".to_owned()),
        |f| f.auxiliary = vec![pair("cert_desc", "x")],
        |f| f.auxiliary = vec![pair("note", "x;more=y")],
        |f| f.limits.auxiliary = vec![pair("max_send_pkt", "1")],
        |f| f.limits.auxiliary = vec![pair("x", "1;max_send_pkt=1")],
    ];
    for (index, smuggle) in smuggled.into_iter().enumerate() {
        let mut wanted = fields(CertificateType::Exppriv);
        smuggle(&mut wanted);
        assert_eq!(issued(&wanted), Err(IssueError::Ambiguous), "{index}");
    }
}

prop_compose! {
    fn any_limits()(
        monitor in prop::collection::vec(any::<[u8; 32]>(), 0..3),
        numbers in any::<[Option<u64>; 4]>(),
        rates in prop::collection::vec((any::<u64>(), 1..u64::MAX), 0..3),
        destinations in prop::collection::vec((any::<std::net::IpAddr>(), 0..=32_u8), 0..3),
        src_ip_spoofing in any::<Option<bool>>(),
        auxiliary in "[a-z]{0,5}",
    ) -> CertificateLimits {
        use crate::certificate::{BurstRate, Destination};
        let rates: Vec<_> =
            rates.into_iter().map(|(count, window)| BurstRate { count, window }).collect();
        let destination = |(address, prefix_len)| Destination { address, prefix_len };
        CertificateLimits {
            monitor,
            max_num_priority: numbers[0],
            max_socket_count: numbers[1],
            max_exp_period: numbers[2],
            max_recv_pkt: numbers[3],
            max_burst_rate_byte: rates.clone(),
            max_burst_rate_pkt: rates,
            valid_dest: destinations.into_iter().map(destination).collect(),
            src_ip_spoofing,
            auxiliary: vec![pair(&format!("*aux{auxiliary}"), &auxiliary)],
            ..CertificateLimits::default()
        }
    }
}

proptest! {
    /// Whatever the random serial number is, also with zeros in front or its highest bit set, what is
    /// written is strict DER. The readers of `issue` check the rest of each certificate.
    #[test]
    fn no_serial_number_makes_a_certificate_lax(
        zeros in 0..SERIAL_LEN,
        digits in any::<[u8; SERIAL_LEN]>(),
    ) {
        let mut serial = digits;
        serial[..zeros].fill(0);
        serial[SERIAL_LEN - 1] |= 1;
        let agent = fields(CertificateType::Agent);
        let key = private_key("eop");
        let der = issue_with_serial(&agent, &key.public_key(), &key, &serial).unwrap();
        let read = Certificate::from_der(&der).unwrap();
        let number = |serial: &[u8]| serial.iter().skip_while(|b| **b == 0).copied().collect::<Vec<_>>();
        prop_assert_eq!(number(read.serial()), number(&serial));
        // The other strict reader agrees.
        prop_assert!(AnyRef::from_der(&der).is_ok());
    }

    #[test]
    fn what_is_issued_reads_back_as_asked(
        limits in any_limits(),
        path_len in any::<Option<u32>>(),
        not_before in 0..2_000_000_000_u64,
        lifetime in 0..10_000_000_000_u64,
        description in prop::option::of("[a-zA-Z0-9_.:,/() -]{0,200}"),
        reppriv in any::<bool>(),
    ) {
        let end = (not_before + lifetime).saturating_mul(1_000_000_000);
        let wanted = CertificateFields {
            path_len,
            not_before: Ticks(not_before * 1_000_000_000),
            not_after: Ticks(end),
            description,
            delegation: Delegation { exppriv: true, reppriv },
            auxiliary: vec![pair("note", "x")],
            limits,
            ..fields(CertificateType::Delpriv)
        };
        let certificate = issued(&wanted).unwrap();
        prop_assert_eq!(CertificateFields::from(&certificate), wanted);
        prop_assert!(certificate.verify_signature(&public_key("eop")));
    }
}
