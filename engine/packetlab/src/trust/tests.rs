//! The chains of spec/protocol.md 8, and chains issued here for every rule of 4.6.

use super::TrustMode::{
    Agent, ControllerAuthenticatesEndpoint as Mode0, EndpointAuthenticatesController as Mode1,
};
use std::time::Duration;

use super::*;
use crate::certificate::{CertificateLimits, CertificateType, Delegation};
use crate::golden;
use crate::issue::{CertificateFields, issue};
use crate::key::PrivateKey;

/// 2023, within the validity of all golden certificates.
const NOW: Ticks = Ticks(1_700_000_000_000_000_000);
const SECOND: u64 = 1_000_000_000;

fn golden_chain(names: &[&str]) -> Vec<Certificate> {
    names.iter().map(|name| golden::certificate(name)).collect()
}

fn golden_keys(names: &[&str]) -> Vec<PublicKey> {
    names.iter().map(|name| golden::public_key(name)).collect()
}

/// Length and anchor of the verified chain, or the result code.
fn verify(mode: TrustMode, chain: &[&str], anchors: &[&str]) -> Result<(usize, Option<usize>), u8> {
    verify_chain(&golden_chain(chain), &golden_keys(anchors), mode, NOW)
        .map(|verified| (verified.certificates.len(), verified.anchor))
        .map_err(|error| error.code())
}

#[test]
fn the_chains_of_the_specification_that_must_verify_do() {
    for (mode, chain, anchors, expected) in [
        (Mode1, &["pubcmd_exper_xc", "exppriv_eop_exper"][..], &["eop"][..], (2, Some(0))),
        (Mode1, &["pubcmd_exper_xc", "exppriv_eop_exper_full"], &["eop"], (2, Some(0))),
        (
            Mode1,
            &["pubcmd_del_xc", "exppriv_eop_exper", "delpriv_exper_del"],
            &["eop"],
            (3, Some(0)),
        ),
        (
            Mode1,
            &["pubcmd_del_xc", "delpriv_exper_del", "exppriv_eop_exper"],
            &["eop"],
            (3, Some(0)),
        ),
        (Mode0, &["subcmd_eop_ep"], &["eop"], (1, Some(0))),
        (Mode0, &["subcmd_del_ep", "delpriv_eop_del_rep"], &["eop"], (2, Some(0))),
        (Mode0, &["subcmd_del_ep", "delpriv_eop_del_rep"], &["del"], (1, Some(0))),
        (Mode0, &["subcmd_del_ep", "delpriv_eop_del_rep"], &["del", "eop"], (2, Some(1))),
        (Agent, &["agent_bop_rv"], &["bop"], (1, Some(0))),
        (Agent, &["agent_bop_rv"], &[], (1, None)),
    ] {
        assert_eq!(verify(mode, chain, anchors), Ok(expected), "{chain:?} {anchors:?}");
    }
}

/// Item 54.
#[test]
fn the_chains_of_the_specification_that_must_fail_do_with_their_result_code() {
    for (mode, chain, anchors, code) in [
        (Mode1, &["pubcmd_exper_xc", "exppriv_eop_exper"][..], &["exper"][..], 7),
        (Mode1, &["exppriv_eop_exper", "pubcmd_exper_xc"], &["eop"], 5),
        (Mode1, &["pubcmd_exper_xc"], &["eop"], 3),
        (Mode0, &["subcmd_del_ep", "delpriv_exper_del"], &["eop"], 9),
        (Mode0, &["agent_ep"], &["eop"], 5),
        (Agent, &["agent_bop_rv"], &["ep"], 7),
        (Agent, &["agent_bop_rv", "agent_ep"], &["bop"], 4),
        (Mode0, &[], &["eop"], 3),
        (Agent, &[], &[], 3),
    ] {
        assert_eq!(verify(mode, chain, anchors), Err(code), "{chain:?} {anchors:?}");
    }
}

/// Item 53.
#[test]
fn certificates_behind_the_leaf_may_stand_in_any_order_and_strangers_are_ignored() {
    let others = ["agent_prx", "exppriv_eop_exper", "subcmd_eop_ep", "delpriv_exper_del"];
    for rotation in 0..others.len() {
        let mut chain = others.to_vec();
        chain.rotate_left(rotation);
        chain.insert(0, "pubcmd_del_xc");
        let verified = verify_chain(&golden_chain(&chain), &golden_keys(&["eop"]), Mode1, NOW);
        let order = ["pubcmd_del_xc", "delpriv_exper_del", "exppriv_eop_exper"];
        assert_eq!(verified.unwrap().certificates, golden_chain(&order));
    }
}

#[test]
fn without_anchors_the_last_signature_is_not_checked() {
    let chain = ["pubcmd_exper_xc", "exppriv_eop_exper"];
    assert_eq!(verify(Mode1, &chain, &[]), Ok((2, None)));
    assert_eq!(verify(Mode0, &["subcmd_del_ep"], &[]), Ok((1, None)));
    let mut der = golden::certificate("agent_xc").der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    let forged = Certificate::from_der(&der).unwrap();
    assert!(verify_chain(std::slice::from_ref(&forged), &[], Agent, NOW).is_ok());
    let error = verify_chain(&[forged], &golden_keys(&["xc"]), Agent, NOW).unwrap_err();
    assert_eq!(error, ChainError::BadSignature { index: 0 });
}

#[test]
fn a_digest_is_demanded_leaf_first_and_as_often_as_written() {
    let chain = golden_chain(&["pubcmd_exper_xc", "exppriv_eop_exper_full"]);
    let verified = verify_chain(&chain, &[], Mode1, NOW).unwrap();
    let digests: Vec<_> = verified.monitor_digests().collect();
    assert_eq!(digests, chain[1].limits().monitor);
    assert_eq!(verified.root_key_id(), Some(golden::public_key("eop").key_id()));
    assert_eq!(verified.leaf(), Some(&chain[0]));

    let monitor = |digests: &[u8]| CertificateLimits {
        monitor: digests.iter().map(|byte| [*byte; 32]).collect(),
        ..CertificateLimits::default()
    };
    let chain = Cast::new().controller_chain(2, |level, fields| {
        fields.limits = monitor(if level == 3 { &[1, 2] } else { &[3, 1] });
    });
    let verified = verify_chain(&chain, &[], Mode1, NOW).unwrap();
    let digests: Vec<u8> = verified.monitor_digests().map(|digest| digest[0]).collect();
    assert_eq!(digests, [3, 1, 3, 1, 1, 2]);
}

/// A root, and keys to put chains of any length together.
struct Cast {
    root: PrivateKey,
    leaf: PrivateKey,
}

fn fields(certificate_type: CertificateType) -> CertificateFields {
    let delpriv = certificate_type == CertificateType::Delpriv;
    CertificateFields {
        certificate_type,
        delegation: Delegation { exppriv: delpriv, reppriv: delpriv },
        path_len: None,
        not_before: Ticks(0),
        not_after: Ticks::MAX,
        description: None,
        auxiliary: Vec::new(),
        limits: CertificateLimits::default(),
    }
}

fn signed(fields: &CertificateFields, subject: &PrivateKey, signer: &PrivateKey) -> Certificate {
    Certificate::from_der(&issue(fields, &subject.public_key(), signer).unwrap()).unwrap()
}

impl Cast {
    fn new() -> Self {
        Self { root: PrivateKey::generate().unwrap(), leaf: PrivateKey::generate().unwrap() }
    }

    fn anchors(&self) -> [PublicKey; 1] {
        [self.root.public_key()]
    }

    /// `types` leaf first; `change` sees the level (0 is the leaf) and may change everything above
    /// the leaf's type.
    fn chain(
        &self,
        types: &[CertificateType],
        change: impl Fn(usize, &mut CertificateFields),
    ) -> Vec<Certificate> {
        let mut chain = Vec::new();
        let mut signer = None::<PrivateKey>;
        for (level, kind) in types.iter().enumerate().rev() {
            let subject = match level {
                0 => PrivateKey::from_pem(self.leaf.to_pem().as_bytes(), None).unwrap(),
                _ => PrivateKey::generate().unwrap(),
            };
            let mut fields = fields(*kind);
            if level > 0 {
                change(level, &mut fields);
            }
            chain.insert(0, signed(&fields, &subject, signer.as_ref().unwrap_or(&self.root)));
            signer = Some(subject);
        }
        chain
    }

    fn controller_chain(
        &self,
        delegations: usize,
        change: impl Fn(usize, &mut CertificateFields),
    ) -> Vec<Certificate> {
        let delegations = vec![CertificateType::Delpriv; delegations];
        let types = [vec![CertificateType::Pubcmd], delegations, vec![CertificateType::Exppriv]];
        self.chain(&types.concat(), change)
    }

    fn endpoint_chain(&self, delegations: usize) -> Vec<Certificate> {
        let types = [vec![CertificateType::Subcmd], vec![CertificateType::Delpriv; delegations]];
        self.chain(&types.concat(), |_, _| ())
    }
}

#[test]
fn every_certificate_must_be_valid_now_both_ends_included() {
    let cast = Cast::new();
    let chain = cast.controller_chain(1, |level, fields| {
        (fields.not_before, fields.not_after) = match level {
            1 => (Ticks(10 * SECOND), Ticks(30 * SECOND)),
            _ => (Ticks(20 * SECOND), Ticks(40 * SECOND)),
        };
    });
    let at = |now| verify_chain(&chain, &cast.anchors(), Mode1, Ticks(now)).map(|_| ());
    let invalid = |index, expired| Err(ChainError::NotValidNow { index, expired });
    assert_eq!(at(20 * SECOND), Ok(()));
    assert_eq!(at(30 * SECOND), Ok(()));
    assert_eq!(at(20 * SECOND - 1), invalid(2, false));
    assert_eq!(at(30 * SECOND + 1), invalid(1, true));
    assert_eq!(at(10 * SECOND - 1), invalid(1, false));

    let verified = verify_chain(&chain, &cast.anchors(), Mode1, Ticks(25 * SECOND)).unwrap();
    assert_eq!((verified.not_before, verified.not_after), (Ticks(20 * SECOND), Ticks(30 * SECOND)));
    assert!(verified.is_valid_at(Ticks(30 * SECOND)));
    assert!(!verified.is_valid_at(Ticks(30 * SECOND + 1)));
    assert!(!verified.is_valid_at(Ticks(20 * SECOND - 1)));
}

#[test]
fn an_expired_leaf_is_refused_and_never_means_never() {
    let chain = golden_chain(&["agent_xc"]);
    let end = 2_147_483_647 * SECOND;
    let agent = |now| verify_chain(&chain, &[], Agent, Ticks(now)).map_err(|e| e.code());
    assert!(agent(end).is_ok());
    assert_eq!(agent(end + 1), Err(6));
    let cast = Cast::new();
    let never = cast.endpoint_chain(1);
    let verified = verify_chain(&never, &cast.anchors(), Mode0, Ticks::MAX).unwrap();
    assert_eq!(verified.not_after, Ticks::MAX);
}

#[test]
fn a_path_length_counts_the_delegations_below_without_the_leaf() {
    let cast = Cast::new();
    for (path_len, delegations, expected) in
        [(0, 0, Ok(())), (0, 1, Err(8)), (1, 1, Ok(())), (1, 2, Err(8)), (2, 2, Ok(()))]
    {
        let chain = cast.controller_chain(delegations, |level, fields| {
            if level == delegations + 1 {
                fields.path_len = Some(path_len);
            }
        });
        let result = verify_chain(&chain, &cast.anchors(), Mode1, NOW).map(|_| ());
        assert_eq!(result.map_err(|e| e.code()), expected, "{path_len} {delegations}");
    }
    // A delegation with path length 0 stands directly above the leaf, so it may; the one above it
    // may not.
    let limited = |limited_level| {
        let chain = cast.controller_chain(2, |level, fields| {
            if level == limited_level {
                fields.path_len = Some(0);
            }
        });
        verify_chain(&chain, &cast.anchors(), Mode1, NOW).map(|_| ())
    };
    assert_eq!(limited(1), Ok(()));
    assert_eq!(limited(2), Err(ChainError::PathTooLong { index: 2, between: 1 }));
}

#[test]
fn a_delegation_must_be_of_the_kind_that_the_chain_needs() {
    let cast = Cast::new();
    let reppriv_only = |_, fields: &mut CertificateFields| {
        if fields.certificate_type == CertificateType::Delpriv {
            fields.delegation = Delegation { exppriv: false, reppriv: true };
        }
    };
    let chain = cast.controller_chain(1, reppriv_only);
    let error = verify_chain(&chain, &cast.anchors(), Mode1, NOW).unwrap_err();
    let (found, expected) = (CertificateType::Delpriv, CertificateType::Exppriv);
    assert_eq!(error, ChainError::UnexpectedType { index: 1, found, expected });
    // In an endpoint's chain the wrong kind just ends it, and what was complete by then counts.
    let types = [CertificateType::Subcmd, CertificateType::Delpriv];
    let chain = cast.chain(&types, |_, fields| fields.delegation.reppriv = false);
    let error = verify_chain(&chain, &cast.anchors(), Mode0, NOW).unwrap_err();
    assert_eq!(error, ChainError::EndOfPhases { index: 1 });
    assert_eq!(verify_chain(&chain, &[], Mode0, NOW).unwrap().certificates.len(), 1);
}

#[test]
fn the_longest_endpoint_chain_wins_even_if_its_extension_fails() {
    let cast = Cast::new();
    let chain = cast.endpoint_chain(2);
    assert_eq!(verify_chain(&chain, &cast.anchors(), Mode0, NOW).unwrap().certificates, chain);
    assert_eq!(verify_chain(&chain, &[], Mode0, NOW).unwrap().certificates, chain);
    // Trusting the lower delegate alone, the rest of the chain is found but finds no anchor.
    let lower = [chain[1].subject_key];
    let verified = verify_chain(&chain, &lower, Mode0, NOW).unwrap();
    assert_eq!((verified.certificates.len(), verified.anchor), (1, Some(0)));
    assert_eq!(verified.certificates, chain[..1]);
}

#[test]
fn the_first_matching_anchor_counts_and_its_index_is_told() {
    let cast = Cast::new();
    let (root, other) = (cast.root.public_key(), golden::public_key("eop"));
    let chain = cast.controller_chain(0, |_, _| ());
    let anchor = |anchors: &[PublicKey]| verify_chain(&chain, anchors, Mode1, NOW).unwrap().anchor;
    assert_eq!(anchor(&[root, other]), Some(0));
    assert_eq!(anchor(&[other, root, root]), Some(1));
}

#[test]
fn a_signature_by_another_key_than_the_named_one_is_refused() {
    let cast = Cast::new();
    let genuine = cast.controller_chain(1, |_, _| ());
    let forge = |certificate: &Certificate| {
        let mut der = certificate.der().to_vec();
        *der.last_mut().unwrap() ^= 1;
        Certificate::from_der(&der).unwrap()
    };
    for index in 0..genuine.len() {
        let mut chain = genuine.clone();
        chain[index] = forge(&chain[index]);
        let error = verify_chain(&chain, &cast.anchors(), Mode1, NOW).unwrap_err();
        assert_eq!(error, ChainError::BadSignature { index });
        assert_eq!(error.code(), 2);
    }
    let chain = [forge(&cast.endpoint_chain(0)[0])];
    let error = verify_chain(&chain, &cast.anchors(), Mode0, NOW).unwrap_err();
    assert_eq!(error, ChainError::BadSignature { index: 0 });
}

#[test]
fn duplicates_are_tolerated() {
    let cast = Cast::new();
    let chain = cast.controller_chain(1, |_, _| ());
    let doubled = [&chain[..], &chain].concat();
    let verified = verify_chain(&doubled, &cast.anchors(), Mode1, NOW).unwrap();
    assert_eq!(verified.certificates, chain);
}

/// Q22: the first certificate of the right key is taken, also if a later one would do.
#[test]
fn the_search_does_not_go_back() {
    let names = ["pubcmd_exper_xc", "exppriv_eop_exper", "exppriv_eop_exper_full"];
    let verified = verify_chain(&golden_chain(&names), &[], Mode1, NOW).unwrap();
    assert_eq!(verified.certificates[1], golden::certificate("exppriv_eop_exper"));
    let cast = Cast::new();
    // A stale certificate about the same key, earlier in the list.
    let experimenter = PrivateKey::generate().unwrap();
    let exppriv = fields(CertificateType::Exppriv);
    let old = CertificateFields { not_after: Ticks(SECOND), ..exppriv.clone() };
    let mut chain = [
        signed(&fields(CertificateType::Pubcmd), &cast.leaf, &experimenter),
        signed(&old, &experimenter, &cast.root),
        signed(&exppriv, &experimenter, &cast.root),
    ];
    let error = verify_chain(&chain, &cast.anchors(), Mode1, NOW).unwrap_err();
    assert_eq!(error, ChainError::NotValidNow { index: 1, expired: true });
    chain.swap(1, 2);
    assert!(verify_chain(&chain, &cast.anchors(), Mode1, NOW).is_ok());
}

#[test]
fn certificates_that_sign_each_other_in_a_circle_end_the_search() {
    let cast = Cast::new();
    let (one, two) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let delpriv = fields(CertificateType::Delpriv);
    let chain = [
        signed(&fields(CertificateType::Subcmd), &cast.leaf, &one),
        signed(&delpriv, &one, &two),
        signed(&delpriv, &two, &one),
        signed(&delpriv, &one, &one),
    ];
    let error = verify_chain(&chain, &cast.anchors(), Mode0, NOW).unwrap_err();
    assert_eq!(error.code(), 7);
}

#[test]
fn a_chain_of_ten_certificates_is_verified_whole_and_one_more_is_too_many() {
    let cast = Cast::new();
    let mut chain = cast.endpoint_chain(CERTIFICATES_MAX - 1);
    chain[1..].reverse();
    let verified = verify_chain(&chain, &cast.anchors(), Mode0, NOW).unwrap();
    assert_eq!(verified.certificates.len(), CERTIFICATES_MAX);
    assert_eq!(verified.anchor, Some(0));

    let too_many = ChainError::TooMany { count: CERTIFICATES_MAX + 1, max: CERTIFICATES_MAX };
    let chain = cast.endpoint_chain(CERTIFICATES_MAX);
    assert_eq!(verify_chain(&chain, &cast.anchors(), Mode0, NOW), Err(too_many.clone()));
    let ders = vec![&b"junk"[..]; CERTIFICATES_MAX + 1];
    assert_eq!(decode_chain(ders.into_iter(), Mode0), Err(too_many), "before any is decoded");
}

/// A certificate of about `len` bytes.
fn long(
    certificate_type: CertificateType,
    subject: &PrivateKey,
    signer: &PrivateKey,
    len: usize,
) -> Certificate {
    let description = Some("x".repeat(len));
    signed(&CertificateFields { description, ..fields(certificate_type) }, subject, signer)
}

#[test]
fn a_chain_that_no_peer_could_receive_is_refused_with_its_length() {
    let cast = Cast::new();
    let chain_of = |len| {
        let delegate = PrivateKey::generate().unwrap();
        [
            long(CertificateType::Subcmd, &cast.leaf, &delegate, 10),
            long(CertificateType::Delpriv, &delegate, &cast.root, len),
        ]
    };
    let fitting = chain_of(60_000);
    assert!(verify_chain(&fitting, &cast.anchors(), Mode0, NOW).is_ok());
    let error = verify_chain(&chain_of(65_000), &cast.anchors(), Mode0, NOW).unwrap_err();
    assert!(matches!(error, ChainError::TooLong { len: 65_536.., max: 65_535 }), "{error}");
    assert!(error.to_string().contains("65535"), "{error}");
}

/// How many signatures were checked for a chain, and whether it was believed.
fn signatures_checked(chain: &[Certificate], anchors: &[PublicKey]) -> (usize, bool) {
    let checked = std::cell::Cell::new(0);
    let anchors: Vec<Anchor> = anchors.iter().copied().map(Anchor::from).collect();
    let found = find_chain(chain, &anchors, Mode0, NOW, |_, certificate, key| {
        checked.set(checked.get() + 1);
        certificate.verify_signature(key)
    });
    (checked.get(), found.is_ok())
}

/// Promise P20.
#[test]
fn a_strangers_chain_costs_no_signature_and_one_that_claims_an_anchor_costs_one() {
    let (cast, stranger) = (Cast::new(), Cast::new());
    let chain = stranger.endpoint_chain(CERTIFICATES_MAX - 1);
    assert_eq!(signatures_checked(&chain, &cast.anchors()), (0, false));
    assert_eq!(signatures_checked(&chain, &stranger.anchors()), (CERTIFICATES_MAX, true));

    // Its top names the anchor's key, which did not sign it.
    let mut claiming = chain;
    let top = claiming.last_mut().unwrap();
    let mut der = top.der().to_vec();
    let foreign = top.authority_key_id.0;
    let at = der.windows(32).position(|window| window == foreign).unwrap();
    der[at..at + 32].copy_from_slice(&cast.root.public_key().key_id().0);
    *top = Certificate::from_der(&der).unwrap();
    assert_eq!(signatures_checked(&claiming, &cast.anchors()), (1, false));
}

/// Promise P20: whatever is presented, no certificate's signature is checked twice.
#[test]
fn circles_and_crowds_of_one_subject_cost_at_most_one_signature_a_certificate() {
    let cast = Cast::new();
    let one = PrivateKey::generate().unwrap();
    let delpriv = fields(CertificateType::Delpriv);
    // Every one of them could follow every other, and each names the anchor as well.
    let mut crowd = vec![signed(&fields(CertificateType::Subcmd), &cast.leaf, &cast.root)];
    crowd.resize(CERTIFICATES_MAX, signed(&delpriv, &cast.root, &cast.root));
    let (checked, believed) = signatures_checked(&crowd, &cast.anchors());
    assert!(believed);
    assert_eq!(checked, CERTIFICATES_MAX);
    let forged = |certificate: &Certificate| {
        let mut der = certificate.der().to_vec();
        *der.last_mut().unwrap() ^= 1;
        Certificate::from_der(&der).unwrap()
    };
    // Each of the ends that this chain may have needs the leaf.
    let with_forged_leaf = [&[forged(&crowd[0])], &crowd[1..]].concat();
    let checked = signatures_checked(&with_forged_leaf, &cast.anchors());
    assert_eq!(checked, (CERTIFICATES_MAX, false));
    let forged = forged(&crowd[1]);
    crowd[1..].fill(forged);
    let (checked, believed) = signatures_checked(&crowd, &cast.anchors());
    assert!(believed, "the leaf alone is a chain");
    assert!(checked <= CERTIFICATES_MAX, "{checked}");

    let circle = [
        signed(&fields(CertificateType::Subcmd), &cast.leaf, &one),
        signed(&delpriv, &one, &one),
        signed(&delpriv, &one, &one),
    ];
    assert_eq!(signatures_checked(&circle, &cast.anchors()), (0, false));
}

/// Promise P20, 2 ms of processor time for the worst that fits into a handshake, told in signature checks, which
/// cost 50 us where 2 ms was promised: as a ratio within one run it holds on any machine, busy or not.
#[test]
fn judging_the_costliest_chains_takes_no_more_than_two_milliseconds() {
    const PROMISED_CHECKS: u32 = 40;
    // Here all but the signatures is slow.
    const UNOPTIMISED_CHECKS: u32 = 700;
    let allowed_checks = if cfg!(debug_assertions) { UNOPTIMISED_CHECKS } else { PROMISED_CHECKS };
    let cast = Cast::new();
    let short = signed(&fields(CertificateType::Subcmd), &cast.leaf, &cast.root);
    let root = cast.root.public_key();
    let limits = |text: &str| CertificateLimits::parse(text.as_bytes()).unwrap();
    let destinations = format!("valid_dest={};", ["::/0"; 1_200].join(","));
    let digests = format!("monitor={};", "ab".repeat(32 * 95));
    let pairs: String = (0..64).map(|pair| format!("name-{pair}=value;")).collect();
    for text in [&*destinations, &digests, &pairs, ""] {
        let types = [&[CertificateType::Subcmd][..], &[CertificateType::Delpriv; 9]].concat();
        let chain = cast.chain(&types, |_, fields| fields.limits = limits(text));
        let ders: Vec<&[u8]> = chain.iter().map(Certificate::der).collect();
        for anchors in [&cast.anchors()[..], &[PrivateKey::generate().unwrap().public_key()], &[]] {
            // The least of several, by turns, because the machine is not always equally fast.
            let costs = (0..60).map(|_| {
                let check = processor_time_of(|| assert!(short.verify_signature(&root)));
                let judge = Judge::new(Mode0, anchors);
                (check, processor_time_of(|| drop(judge.judge(ders.iter().copied(), NOW))))
            });
            let (checks, costs): (Vec<_>, Vec<_>) = costs.unzip();
            let (check, cost) =
                (checks.into_iter().min().unwrap(), costs.into_iter().min().unwrap());
            assert!(
                cost <= check * allowed_checks,
                "{cost:?} for 10 certificates with {} bytes each, {check:?} for a signature",
                text.len()
            );
        }
    }
}

/// Of this thread.
fn processor_time_of(work: impl FnOnce()) -> Duration {
    let before = processor_time();
    work();
    processor_time() - before
}

fn processor_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).unwrap().into()
}

fn judge(judge: &Judge, chain: &[Certificate], now: Ticks) -> Result<KeyId, ChainError> {
    let ders: Vec<&[u8]> = chain.iter().map(Certificate::der).collect();
    judge.judge(ders.into_iter(), now).map(|judged| judged.leaf.subject_key_id)
}

#[test]
fn a_judge_remembers_who_signed_the_upper_certificates_and_nothing_else() {
    let cast = Cast::new();
    let types = [CertificateType::Subcmd, CertificateType::Delpriv, CertificateType::Delpriv];
    let end = Ticks(NOW.0 + 10 * SECOND);
    let chain = cast.chain(&types, |_, fields| fields.not_after = end);
    let by_root = Judge::new(Mode0, &cast.anchors());
    assert_eq!(by_root.remembered_count(), 0);
    let leaf = chain[0].subject_key_id;
    assert_eq!(judge(&by_root, &chain, NOW), Ok(leaf));
    assert_eq!(by_root.remembered_count(), 2, "the two above the leaf");
    assert_eq!(judge(&by_root, &chain, NOW), Ok(leaf));
    assert_eq!(by_root.remembered_count(), 2);

    // A forged certificate that differs in its signature alone is not taken for the known one.
    let mut forged = chain.clone();
    let mut der = forged[2].der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    forged[2] = Certificate::from_der(&der).unwrap();
    assert_eq!(judge(&by_root, &forged, NOW), Err(ChainError::BadSignature { index: 2 }));
    // Dates are looked at each time.
    let late = Ticks(end.0 + SECOND);
    assert!(matches!(judge(&by_root, &chain, late), Err(ChainError::NotValidNow { .. })));
    // So are types and places: the same upper certificates under a leaf they did not sign.
    let other = Cast::new().endpoint_chain(0);
    let mixed = [&other[..], &chain[1..]].concat();
    assert!(matches!(judge(&by_root, &mixed, NOW), Err(ChainError::NoSigner { index: 0, .. })));
}

#[test]
fn a_judge_tells_which_anchor_signed_a_chain_and_none_where_no_signature_of_one_was_checked() {
    let (cast, other) = (Cast::new(), Cast::new());
    let chain = cast.endpoint_chain(2);
    let ders: Vec<&[u8]> = chain.iter().map(Certificate::der).collect();
    let anchors = [other.anchors(), cast.anchors()].concat();
    for (anchors, signed) in [(&anchors[..], Some(anchors[1].key_id())), (&[], None)] {
        let judged = Judge::new(Mode0, anchors).judge(ders.iter().copied(), NOW).unwrap();
        assert_eq!((judged.leaf.subject_key_id, judged.anchor), (chain[0].subject_key_id, signed));
    }
}

#[test]
fn strangers_do_not_fill_a_judges_memory_and_it_is_bounded() {
    let (cast, stranger) = (Cast::new(), Cast::new());
    let by_root = Judge::new(Mode0, &cast.anchors());
    assert!(judge(&by_root, &stranger.endpoint_chain(2), NOW).is_err());
    assert_eq!(by_root.remembered_count(), 0);
    let by_nobody = Judge::new(Mode0, &[]);
    assert!(judge(&by_nobody, &stranger.endpoint_chain(2), NOW).is_ok());
    assert_eq!(by_nobody.remembered_count(), 0, "its end was not checked");
    for _ in 0..20 {
        assert!(judge(&by_root, &cast.endpoint_chain(CERTIFICATES_MAX - 1), NOW).is_ok());
    }
    assert_eq!(by_root.remembered_count(), 64);
}

#[test]
fn presented_certificates_are_counted_first_and_must_all_decode() {
    let (leaf, other) = (golden::certificate("agent_bop_rv"), golden::certificate("agent_ep"));
    let decode = |ders: &[&[u8]], mode| decode_chain(ders.iter().copied(), mode);
    assert_eq!(decode(&[leaf.der()], Agent), Ok(vec![leaf.clone()]));
    let too_many = ChainError::TooMany { count: 2, max: 1 };
    assert_eq!(decode(&[b"junk", other.der()], Agent), Err(too_many));
    assert_eq!(decode(&[], Mode0), Err(ChainError::TooFew { count: 0, min: 1 }));
    let error = decode(&[leaf.der(), b"junk"], Mode0).unwrap_err();
    assert_eq!(error.code(), 2);
    assert!(error.to_string().starts_with("certificate 1: not an X.509 certificate"), "{error}");
}

#[test]
fn an_error_names_the_certificate_and_the_missing_key() {
    let chain = golden_chain(&["pubcmd_exper_xc", "exppriv_eop_exper"]);
    let error = verify_chain(&chain, &golden_keys(&["exper"]), Mode1, NOW).unwrap_err();
    assert_eq!(
        error.to_string(),
        "certificate 1 was signed by the key \
         2c02ac294bf0f238a33ecd6e77b091b9165cd1ae1f5312abdede8f7063a8f950, \
         which is neither trusted nor among the certificates"
    );
}
