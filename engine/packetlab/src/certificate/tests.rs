//! The golden certificates field by field, each rule of spec/protocol.md 4.4 broken once, and mutated
//! bytes.

use proptest::prelude::*;

use super::super::golden;
use super::super::key::{Hex, PrivateKey};
use super::*;

pub(crate) mod rules;
mod strict;

const YEAR_2038: Ticks = Ticks(2_147_483_647_000_000_000);

/// Name, DER length, type, delegation bits (exppriv, reppriv), signer, subject, path length,
/// serial.
type Row = (
    &'static str,
    usize,
    CertificateType,
    (bool, bool),
    &'static str,
    &'static str,
    Option<u32>,
    &'static str,
);

/// spec/protocol.md 8.3, and `exppriv_opt` of the golden data.
const ROWS: [Row; 14] = {
    use CertificateType::{Agent, Delpriv, Exppriv, Pubcmd, Subcmd};
    const NO: (bool, bool) = (false, false);
    [
        ("agent_xc", 370, Agent, NO, "xc", "xc", None, "4fba42cfcb11b518f3a26478b52c0244"),
        ("agent_ep", 371, Agent, NO, "ep", "ep", None, "00ba46f9ae07af0b554c779b1639b2d41a"),
        ("agent_bop_rv", 394, Agent, NO, "bop", "rv", None, "13fb78126112a1dbd21c529d9e9c7107"),
        ("agent_prx", 370, Agent, NO, "prx", "prx", None, "544957bf41dce43caaf0d7409ce0ee2a"),
        (
            "pubcmd_exper_xc",
            372,
            Pubcmd,
            NO,
            "exper",
            "xc",
            None,
            "00b19475f18ae6da308496dac9f293af47",
        ),
        ("subcmd_eop_ep", 372, Subcmd, NO, "eop", "ep", None, "00a696592c72fdb6207ce4a1f0a1eaa142"),
        (
            "exppriv_eop_exper",
            378,
            Exppriv,
            NO,
            "eop",
            "exper",
            Some(1),
            "6445a543c674f105b519d5df73b4b3c6",
        ),
        (
            "exppriv_eop_exper_full",
            947,
            Exppriv,
            NO,
            "eop",
            "exper",
            Some(1),
            "00cecf29527fd7d2784452459be08d0782",
        ),
        ("exppriv_opt", 405, Exppriv, NO, "eop", "exper", None, ""),
        (
            "delpriv_exper_del",
            392,
            Delpriv,
            (true, false),
            "exper",
            "del",
            None,
            "70bb9aa277b4f041e8d58282cb7f9a25",
        ),
        ("pubcmd_del_xc", 372, Pubcmd, NO, "del", "xc", None, "00e34d7c3e6b77154f6ac927e7d51acd89"),
        (
            "delpriv_eop_del_rep",
            396,
            Delpriv,
            (false, true),
            "eop",
            "del",
            Some(0),
            "008517bbe922aef91e9da085635d77e272",
        ),
        ("subcmd_del_ep", 372, Subcmd, NO, "del", "ep", None, "00ba3b6984d635b64cb2f456a149f8cc59"),
        (
            "delpriv_both",
            416,
            Delpriv,
            (true, true),
            "eop",
            "del",
            None,
            "008cf39d29ecb9fa392c964f4e75cc720d",
        ),
    ]
};

#[test]
fn every_golden_certificate_decodes_to_the_listed_fields() {
    for (name, len_bytes, kind, (exppriv, reppriv), signer, subject, path_len, serial) in ROWS {
        let certificate = golden::certificate(name);
        let (signer, subject) = (golden::public_key(signer), golden::public_key(subject));
        assert_eq!(certificate.der().len(), len_bytes, "{name}");
        assert_eq!(certificate.certificate_type, kind, "{name}");
        assert_eq!(certificate.delegation, Delegation { exppriv, reppriv }, "{name}");
        assert_eq!(certificate.subject_key, subject, "{name}");
        assert_eq!(certificate.subject_key_id, subject.key_id(), "{name}");
        assert_eq!(certificate.authority_key_id, signer.key_id(), "{name}");
        assert_eq!(certificate.path_len, path_len, "{name}");
        assert_eq!(
            (certificate.not_before, certificate.not_after),
            (Ticks(0), YEAR_2038),
            "{name}"
        );
        assert!(certificate.verify_signature(&signer), "{name}");
        assert!(!certificate.verify_signature(&golden::public_key("prx")) || name == "agent_prx");
        if !serial.is_empty() {
            assert_eq!(Hex(certificate.serial()).to_string(), serial, "{name}");
        }
    }
    assert_eq!(
        ROWS.map(|row| row.0).iter().filter(|n| golden::CERTIFICATES.contains(n)).count(),
        14
    );
}

#[test]
fn descriptions_and_auxiliary_pairs_are_kept() {
    let full = golden::certificate("exppriv_eop_exper_full");
    assert_eq!(full.description(), Some("demo cert"));
    assert_eq!(full.auxiliary(), [pair("note", "hello")]);
    assert_eq!(golden::certificate("agent_bop_rv").description(), Some("broker (test)"));
    assert_eq!(golden::certificate("delpriv_both").description(), Some("both"));
    assert_eq!(golden::certificate("agent_xc").description(), None);
}

#[test]
fn every_limit_of_the_full_certificate_is_read() {
    let limits = golden::certificate("exppriv_eop_exper_full").limits();
    let digests: Vec<String> = limits.monitor.iter().map(|d| Hex(d).to_string()).collect();
    let expected = [
        "3a3dff7a950ab7caf70cfcf8d67f45e2e3e4cd72e3e6e484496394b419755ccd",
        "bbd899e17631fd99c59d188e37c50888ce5333b5d2a279efc98b5dc017c119c7",
        "d026e605f222124d3b57c11225b88597b74b7613384dccd92f1fd633b62e02cd",
    ];
    assert_eq!(digests, expected);
    let numbers = [
        limits.max_num_priority,
        limits.max_socket_count,
        limits.max_exp_period,
        limits.max_send_byte,
        limits.max_send_pkt,
        limits.max_recv_byte,
        limits.max_recv_pkt,
    ];
    let expected = [100, 8, 3_600_000_000_000, 1_000_000, 1_000, 2_000_000, 2_000];
    assert_eq!(numbers, expected.map(Some));
    let second = 1_000_000_000;
    let rate = |count, window| BurstRate { count, window };
    assert_eq!(limits.max_burst_rate_byte, [rate(1000, second), rate(5000, 10 * second)]);
    assert_eq!(limits.max_burst_rate_pkt, [rate(10, second)]);
    let destination =
        |text: &str, prefix_len| Destination { address: text.parse().unwrap(), prefix_len };
    assert_eq!(
        limits.valid_dest,
        [destination("10.0.0.0", 8), destination("192.0.2.1", 32), destination("2001:db8::", 32)]
    );
    assert_eq!(limits.src_ip_spoofing, Some(false));
    assert_eq!(limits.auxiliary, [pair("foo", "bar"), pair("*opt", "x")]);
    assert_eq!(limits.optional_known_limits, [""; 0]);
}

#[test]
fn a_known_limit_written_as_optional_is_read_and_flagged() {
    let limits = golden::certificate("exppriv_opt").limits();
    assert_eq!(limits.max_send_pkt, Some(5));
    assert_eq!(limits.optional_known_limits, ["max_send_pkt"]);
    assert!(limits.auxiliary.is_empty());
}

#[test]
fn one_of_several_certificates_is_never_picked_silently() {
    let both = [golden::read("agent_xc.cert"), golden::read("agent_ep.cert")].concat();
    let error = Certificate::from_pem(&both).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string()),
        (
            1,
            "holds 2 PEM sections `CERTIFICATE`, and one is meant; split it into files of one each"
                .to_owned()
        )
    );
    let all = [golden::certificate("agent_xc"), golden::certificate("agent_ep")];
    assert_eq!(Certificate::list_from_pem(&both).as_deref(), Ok(&all[..]));
    let marked = [&b"\xef\xbb\xbf"[..], &golden::read("agent_xc.cert")].concat();
    assert_eq!(Certificate::from_pem(&marked).as_ref(), Ok(&all[0]));
    for not_a_certificate in [golden::read("keys/xc"), golden::read("delpriv.csr"), Vec::new()] {
        let error = Certificate::from_pem(&not_a_certificate).unwrap_err();
        assert!(matches!(error, CertificateError::Pem(_)), "{error}");
        assert!(Certificate::list_from_pem(&not_a_certificate).is_err());
    }
}

#[test]
fn validity_includes_both_ends_to_the_nanosecond() {
    let certificate = golden::certificate("agent_xc");
    assert!(certificate.is_valid_at(Ticks(0)));
    assert!(certificate.is_valid_at(YEAR_2038));
    assert!(!certificate.is_valid_at(Ticks(YEAR_2038.0 + 1)));
}

fn pair(name: &str, value: &str) -> Pair {
    Pair { name: name.to_owned(), value: value.to_owned() }
}

#[test]
fn bytes_behind_a_certificate_are_an_error() {
    let der = golden::certificate("agent_xc").der().to_vec();
    assert!(Certificate::from_der(&[&der[..], &[0]].concat()).is_err());
    assert!(Certificate::from_der(&[&der[..], &der].concat()).is_err());
    for len in 0..der.len() {
        assert!(Certificate::from_der(&der[..len]).is_err(), "{len}");
    }
}

/// The signature covers every byte of the TBSCertificate.
#[test]
fn no_changed_byte_goes_unnoticed() {
    let der = golden::certificate("exppriv_eop_exper").der().to_vec();
    let signer = golden::public_key("eop");
    for index in 0..der.len() {
        let mut changed = der.clone();
        changed[index] ^= 1;
        let accepted = Certificate::from_der(&changed).is_ok_and(|c| c.verify_signature(&signer));
        assert!(!accepted, "{index}");
    }
}

proptest! {
    #[test]
    fn mutated_certificates_never_panic(
        which in 0..golden::CERTIFICATES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        inserted in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let mut der = golden::certificate(golden::CERTIFICATES[which]).der().to_vec();
        for (index, value) in changes {
            let index = index.index(der.len());
            der[index] = value;
        }
        if let Some(cut) = cut {
            let index = cut.index(der.len());
            der.splice(index..index, inserted);
            der.truncate(index + 40);
        }
        if let Ok(certificate) = Certificate::from_der(&der) {
            // What was accepted can be shown and asked.
            prop_assert_eq!(certificate.der(), &der[..]);
            _ = format!("{certificate:?}");
            _ = certificate.verify_signature(&golden::public_key("eop"));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        _ = Certificate::from_der(&bytes);
        _ = Certificate::from_pem(&bytes);
        _ = CertificateLimits::parse(&bytes);
        _ = PrivateKey::from_pem(&bytes, None);
    }
}
