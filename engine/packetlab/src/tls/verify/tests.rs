//! What a peer's certificates may make us hold in memory while they are judged (promise P20).
//!
//! Counted is what the judging thread has allocated at the same time, beyond one copy of the certificates' bytes:
//! certificates keep theirs while they are judged. rustls's own copies are not counted.

use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use rustls::crypto::aws_lc_rs::default_provider;

use super::*;
use crate::certificate::tests::rules::{
    AKI, INFO, NAME, Parts, aki, extension, info, key_id_of, limit, tlv,
};
use crate::golden;
use crate::trust::CERTIFICATES_MAX;

/// What is left for a peer that nobody knows beside 64 KiB for its TLS message (spec/reliability.md 5).
const ALLOWED_LEN: u64 = 16 << 10;

/// What may be long in a certificate, where it is made so long.
type Bulk = fn(&mut Parts, usize);

/// Each with whether a certificate that has it may be believed.
const BULKS: [(&str, bool, Bulk); 14] = [
    ("nothing", true, |_, _| ()),
    ("destinations", true, |p, len| add_limit(p, "valid_dest=", "::,", "::", len)),
    ("rates", true, |p, len| add_limit(p, "max_burst_rate_pkt=", "1/1,", "1/1", len)),
    ("digests", true, |p, len| add_limit(p, "monitor=", &"ab".repeat(32), "", len)),
    ("an own limit", true, |p, len| add_limit(p, "own=", "x", "", len)),
    ("pairs", true, |p, len| {
        let pairs = |len| -> String { (0..62).map(|name| pair(&name.to_string(), len)).collect() };
        add_text(p, &pairs(len / 130));
        p.extensions.push(limit(&pairs(len / 130)));
    }),
    ("a description", true, |p, len| add_text(p, &pair("cert_desc", len))),
    ("delegations", true, |p, len| {
        let words = "reppriv,".repeat(len / 8);
        p.extensions[INFO] = info(&format!("cert_type=delpriv;del_type={words}reppriv;"));
    }),
    ("a serial number", true, |p, len| p.serial = tlv(2, &vec![1; len])),
    ("extensions", true, |p, len| {
        let unread = extension(&[0x55, 0x1d, 31], false, &[]);
        p.extensions.extend(vec![unread; len / 11]);
    }),
    ("the same extension", false, |p, len| p.extensions.extend(vec![limit(""); len / 14])),
    ("empty names", true, |p, len| p.issuer = tlv(0x30, &[0x31, 0].repeat(len / 2))),
    ("names", true, |p, len| p.issuer = tlv(0x30, &NAME[2..].repeat(len / 12))),
    ("names of a signer", true, |p, len| {
        let names = tlv(0xa1, &[0x82, 0].repeat(len / 2));
        p.extensions[AKI] = aki(false, &tlv(0x30, &[tlv(0x80, &key_id_of("xc")), names].concat()));
    }),
];

fn pair(name: &str, value_len: usize) -> String {
    format!("{name}={};", "x".repeat(value_len))
}

fn add_limit(parts: &mut Parts, name: &str, item: &str, last: &str, len: usize) {
    parts.extensions.push(limit(&format!("{name}{}{last};", item.repeat(len / item.len()))));
}

fn add_text(parts: &mut Parts, text: &str) {
    parts.extensions[INFO] = info(&format!("cert_type=delpriv;del_type=reppriv;{text}"));
}

/// A certificate of a leaf, and others that can follow it and each other.
fn chain(uppers: usize, bulk: Bulk, bulk_len: usize) -> Vec<Vec<u8>> {
    let mut leaf = Parts::agent();
    leaf.extensions[INFO] = info("cert_type=subcmd;");
    let mut upper = Parts::exppriv();
    upper.extensions.pop();
    add_text(&mut upper, "");
    bulk(&mut upper, bulk_len);
    [vec![leaf.der()], vec![upper.der(); uppers]].concat()
}

/// The most that was allocated at once beyond the length of the certificates, and whether they were believed.
fn cost(chain: &[Vec<u8>], anchors: &[PublicKey]) -> (u64, bool) {
    let rule = PeerRule {
        mode: TrustMode::ControllerAuthenticatesEndpoint,
        anchors: anchors.to_vec(),
        mandatory: true,
    };
    let verifier = ChainVerifier::new(rule, Arc::new(default_provider()));
    let ders: Vec<_> = chain.iter().map(|der| CertificateDer::from(&der[..])).collect();
    let len: usize = chain.iter().map(Vec::len).sum();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
    let mut is_believed = false;
    // A thread of its own has not kept a leaf yet.
    let allocated = thread::scope(|threads| {
        let judging =
            || measure(|| is_believed = verifier.verify(&ders[0], &ders[1..], now).is_ok());
        threads.spawn(judging).join().unwrap()
    });
    (allocated.bytes_max.saturating_sub(len as u64), is_believed)
}

/// Promise P20.
#[test]
fn judging_the_largest_chains_takes_little_memory_beside_their_own_bytes() {
    let uppers_max = CERTIFICATES_MAX - 1;
    for (uppers, len) in [(1, 64_000), (uppers_max, 6_600)] {
        for (name, may_be_believed, bulk) in BULKS {
            let chain = chain(uppers, bulk, len);
            for anchors in [&[][..], &[golden::public_key("xc")]] {
                let (cost, is_believed) = cost(&chain, anchors);
                assert!(cost <= ALLOWED_LEN, "{cost} bytes for {name}, {uppers} times {len} bytes");
                assert_eq!(is_believed, may_be_believed && anchors.is_empty(), "{name}");
            }
        }
    }
}

/// Promise P20: as many certificates as a TLS message holds.
#[test]
fn a_crowd_of_certificates_is_refused_without_a_list_of_them() {
    let (cost, is_believed) = cost(&vec![vec![0x30]; 10_000], &[]);
    assert!(cost <= ALLOWED_LEN, "{cost}");
    assert!(!is_believed);
}
