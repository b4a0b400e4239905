//! The rules in memory, with credentials of the original's tools and a clock of our own.

use packetlab::issue::{CertificateFields, issue};
use packetlab::message::Status;
use packetlab::trust::ChainError;

use super::*;
use crate::golden::{NOW, certificate, private_key, public_key};

/// Good enough for every endpoint.
const XDESCR: &str = "controller_addr=192.0.2.1:5555;sni_key=hello;";
const CONTROLLER_CHAIN: [&str; 2] = ["pubcmd_exper_xc", "exppriv_eop_exper"];
const DELEGATED_CHAIN: [&str; 2] = ["subcmd_del_ep", "delpriv_eop_del_rep"];

/// A client, its limits and its clock.
struct Scene {
    client: Client,
    limits: BrokerLimits,
    now: Ticks,
}

impl Scene {
    /// A client with the TLS key of this name.
    fn new(role: Role, key: &str) -> Self {
        let client = Client::new(role, public_key(key));
        Self { client, limits: BrokerLimits::default(), now: NOW }
    }

    fn publisher() -> Self {
        Self::new(Role::Publisher, "xc")
    }

    fn subscriber() -> Self {
        Self::new(Role::Subscriber, "ep")
    }

    fn send(&mut self, message: &Message<'_>) -> Result<Accepted, Refusal> {
        let mut encoded = Vec::new();
        message.encode(&mut encoded).unwrap();
        self.send_payload(message.message_type(), &encoded[4..])
    }

    fn send_payload(&mut self, kind: MessageType, payload: &[u8]) -> Result<Accepted, Refusal> {
        self.client.handle(kind, payload, &self.limits, self.now)
    }

    fn supply(&mut self, names: &[&str]) {
        for name in names {
            let certificate = certificate(name);
            let xcert = Message::Xcert { certificate: certificate.der() };
            assert_eq!(self.send(&xcert), Ok(Accepted::Certificate), "{name}");
        }
    }

    fn publish(
        &mut self,
        channels: &[ChannelId],
        operator_key: [u8; 32],
        xdescr: &str,
    ) -> Result<Publication, Refusal> {
        let channels = ChannelList::new(channels);
        match self.send(&Message::Xpub { channels, operator_key, xdescr })? {
            Accepted::Publication(publication) => Ok(publication),
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(
        &mut self,
        channels: &[ChannelId],
        operator_key: [u8; 32],
        dattr: &str,
    ) -> Result<Subscription, Refusal> {
        let channels = ChannelList::new(channels);
        match self.send(&Message::Xsub { channels, operator_key, dattr })? {
            Accepted::Subscription(subscription) => Ok(subscription),
            other => panic!("{other:?}"),
        }
    }
}

fn key(name: &str) -> [u8; 32] {
    public_key(name).0
}

/// The private channel of the key of this name.
fn private(name: &str) -> ChannelId {
    ChannelId::new(&public_key(name).key_id().0).unwrap()
}

fn public(bytes: &[u8]) -> ChannelId {
    ChannelId::new(bytes).unwrap()
}

#[test]
fn a_controller_publishes_on_its_operators_private_channel_and_on_public_ones() {
    let mut scene = Scene::publisher();
    scene.supply(&CONTROLLER_CHAIN);
    let channels = [public(&[1, 2]), private("eop"), public(&[0xaa; 31])];
    let publication = scene.publish(&channels, key("eop"), XDESCR).unwrap();
    assert_eq!(publication.channels, channels);
    assert_eq!(publication.xdescr, XDESCR);
}

#[test]
fn certificates_may_come_in_any_order_after_the_leaf_and_through_a_delegate() {
    let mut scene = Scene::publisher();
    scene.supply(&["pubcmd_del_xc", "exppriv_eop_exper", "delpriv_exper_del"]);
    assert!(scene.publish(&[private("eop")], key("eop"), XDESCR).is_ok());
}

#[test]
fn an_endpoint_may_subscribe_to_the_channel_of_every_signer_of_its_chain() {
    let mut scene = Scene::subscriber();
    scene.supply(&DELEGATED_CHAIN);
    let channels = [private("eop"), private("del"), public(&[7])];
    let subscription = scene.subscribe(&channels, key("eop"), "a=b;").unwrap();
    assert_eq!(subscription.channels, HashSet::from(channels));
    assert_eq!(subscription.dattr, "a=b;");
}

#[test]
fn a_controller_may_not_publish_on_the_channels_of_delegates() {
    let mut scene = Scene::publisher();
    scene.supply(&["pubcmd_del_xc", "delpriv_exper_del", "exppriv_eop_exper"]);
    let refusal = scene.publish(&[private("exper")], key("eop"), XDESCR).unwrap_err();
    assert_eq!(refusal, Refusal::ForeignChannel(Role::Publisher, private("exper")));
    assert_eq!(refusal.status(), Status::EPUBBADCHN);
}

#[test]
fn a_foreign_private_channel_is_refused_to_either_side() {
    let mut publisher = Scene::publisher();
    publisher.supply(&CONTROLLER_CHAIN);
    let refusal = publisher.publish(&[private("bop")], key("eop"), XDESCR).unwrap_err();
    assert_eq!(refusal.status(), Status::EPUBBADCHN);

    let mut subscriber = Scene::subscriber();
    subscriber.supply(&["subcmd_eop_ep"]);
    let refusal = subscriber.subscribe(&[private("del")], key("eop"), "").unwrap_err();
    assert_eq!(refusal.status(), Status::ESUBBADCHN);
}

#[test]
fn without_an_operator_there_are_public_channels_only() {
    let mut publisher = Scene::publisher();
    assert!(publisher.publish(&[public(&[1])], NO_OPERATOR, XDESCR).is_ok());
    let refusal = publisher.publish(&[private("eop")], NO_OPERATOR, XDESCR).unwrap_err();
    assert_eq!(refusal.status(), Status::EPUBBADCHN);
    // Not even with a chain that would derive it.
    publisher.supply(&CONTROLLER_CHAIN);
    let refusal = publisher.publish(&[private("eop")], NO_OPERATOR, XDESCR).unwrap_err();
    assert_eq!(refusal.status(), Status::EPUBBADCHN);

    let mut subscriber = Scene::subscriber();
    assert!(subscriber.subscribe(&[public(&[1])], NO_OPERATOR, "").is_ok());
    let refusal = subscriber.subscribe(&[private("eop")], NO_OPERATOR, "").unwrap_err();
    assert_eq!(refusal.status(), Status::ESUBBADCHN);
}

#[test]
fn an_operator_must_be_proven_even_for_public_channels() {
    let mut scene = Scene::publisher();
    let refusal = scene.publish(&[public(&[1])], key("eop"), XDESCR).unwrap_err();
    assert_eq!(refusal, Refusal::Chain(ChainError::TooFew { count: 0, min: 2 }));
    assert_eq!(refusal.status(), Status::ECRTBADFRM);
    scene.supply(&CONTROLLER_CHAIN);
    let refusal = scene.publish(&[public(&[1])], key("bop"), XDESCR).unwrap_err();
    assert!(matches!(refusal, Refusal::Chain(ChainError::NoSigner { .. })), "{refusal:?}");
    assert_eq!(refusal.status(), Status::ECRTBADFRM);
}

#[test]
fn a_chain_counts_only_for_the_key_that_opened_the_connection() {
    let mut publisher = Scene::new(Role::Publisher, "ep");
    publisher.supply(&CONTROLLER_CHAIN);
    let refusal = publisher.publish(&[private("eop")], key("eop"), XDESCR).unwrap_err();
    assert_eq!(refusal, Refusal::ForeignChain { key: public_key("ep").key_id() });
    assert_eq!(refusal.status(), Status::ECRTBADFRM);
    let mut subscriber = Scene::new(Role::Subscriber, "xc");
    subscriber.supply(&["subcmd_eop_ep"]);
    let refusal = subscriber.subscribe(&[private("eop")], key("eop"), "").unwrap_err();
    assert_eq!(refusal.status(), Status::ECRTBADFRM);
}

#[test]
fn a_chain_of_the_other_kind_is_refused() {
    let mut publisher = Scene::new(Role::Publisher, "ep");
    publisher.supply(&DELEGATED_CHAIN);
    let refusal = publisher.publish(&[private("eop")], key("eop"), XDESCR).unwrap_err();
    assert!(matches!(refusal, Refusal::Chain(ChainError::UnexpectedType { .. })), "{refusal:?}");
}

#[test]
fn certificates_count_for_one_request_alone() {
    let mut scene = Scene::publisher();
    scene.supply(&CONTROLLER_CHAIN);
    assert!(scene.publish(&[private("eop")], key("eop"), XDESCR).is_ok());
    let refusal = scene.publish(&[private("eop")], key("eop"), XDESCR).unwrap_err();
    assert!(matches!(refusal, Refusal::Chain(ChainError::TooFew { .. })), "{refusal:?}");
    scene.supply(&CONTROLLER_CHAIN);
    assert!(scene.publish(&[private("eop")], key("eop"), XDESCR).is_ok());
    // A refused request uses them up as well.
    scene.supply(&CONTROLLER_CHAIN);
    assert!(scene.publish(&[private("eop")], key("eop"), "").is_err());
    let refusal = scene.publish(&[private("eop")], key("eop"), XDESCR).unwrap_err();
    assert!(matches!(refusal, Refusal::Chain(ChainError::TooFew { .. })), "{refusal:?}");
}

#[test]
fn a_publication_ends_at_its_pub_end_or_when_its_certificates_expire() {
    let mut scene = Scene::publisher();
    let endless = scene.publish(&[public(&[1])], NO_OPERATOR, XDESCR).unwrap();
    assert_eq!(endless.until, Ticks::MAX);
    let with_end = format!("{XDESCR}pub_end=1790000000000000500;");
    let ending = scene.publish(&[public(&[1])], NO_OPERATOR, &with_end).unwrap();
    assert_eq!(ending.until, Ticks(1_790_000_000_000_000_500));
    scene.supply(&CONTROLLER_CHAIN);
    let certified = scene.publish(&[private("eop")], key("eop"), XDESCR).unwrap();
    // The certificates are good until the last moment of 2038-01-19T03:14:07Z.
    assert_eq!(certified.until, Ticks(2_147_483_647_000_000_001));
}

#[test]
fn expired_certificates_are_refused() {
    let mut scene = Scene::publisher();
    scene.now = Ticks::from_unix_seconds(2_147_483_648);
    scene.supply(&CONTROLLER_CHAIN);
    let refusal = scene.publish(&[private("eop")], key("eop"), XDESCR).unwrap_err();
    let expired = Refusal::Chain(ChainError::NotValidNow { index: 0, expired: true });
    assert_eq!((refusal.status(), refusal), (Status::ECRTBADFRM, expired));
}

#[test]
fn more_or_larger_certificates_than_allowed_find_no_space() {
    let mut scene = Scene::publisher();
    scene.supply(&["pubcmd_exper_xc"; 16]);
    let one = certificate("pubcmd_exper_xc");
    let xcert = Message::Xcert { certificate: one.der() };
    let refusal = scene.send(&xcert).unwrap_err();
    assert_eq!(refusal, Refusal::TooManyCertificates { max: 16 });
    assert_eq!(refusal.status(), Status::ECRTNOSPACE);

    let mut scene = Scene::publisher();
    scene.limits.certificates_size_max = 2 * one.der().len();
    scene.supply(&["pubcmd_exper_xc"; 2]);
    let refusal = scene.send(&xcert).unwrap_err();
    assert!(matches!(refusal, Refusal::CertificatesTooLarge { .. }), "{refusal:?}");
    assert_eq!(refusal.status(), Status::ECRTNOSPACE);
    // The next request makes room again.
    scene.publish(&[public(&[1])], NO_OPERATOR, XDESCR).unwrap();
    assert_eq!(scene.send(&xcert), Ok(Accepted::Certificate));
}

/// As many bytes as a chain may have that endpoints take.
#[test]
fn a_chain_of_more_than_sixteen_kibibytes_finds_space() {
    let mut scene = Scene::publisher();
    let description = Some("x".repeat(20_000));
    let fields = CertificateFields { description, ..(&certificate(CONTROLLER_CHAIN[1])).into() };
    let der = issue(&fields, &public_key("exper"), &private_key("eop")).unwrap();
    scene.supply(&CONTROLLER_CHAIN[..1]);
    assert_eq!(scene.send(&Message::Xcert { certificate: &der }), Ok(Accepted::Certificate));
    scene.publish(&[private("eop")], key("eop"), XDESCR).unwrap();
}

#[test]
fn a_thousand_channels_are_enough_for_a_subscription() {
    let channels: Vec<_> = (0..=1000_u16).map(|n| public(&n.to_be_bytes())).collect();
    let mut subscriber = Scene::subscriber();
    assert!(subscriber.subscribe(&channels[..1000], NO_OPERATOR, "").is_ok());
    // Another subscription replaces it and has the same room.
    assert!(subscriber.subscribe(&channels[..1000], NO_OPERATOR, "").is_ok());
    let refusal = subscriber.subscribe(&channels, NO_OPERATOR, "").unwrap_err();
    assert_eq!(refusal, Refusal::TooManyChannels { max: 1000 });
    assert_eq!(refusal.status(), Status::ENORES);
}

#[test]
fn a_channel_that_is_named_twice_counts_once() {
    let mut scene = Scene::publisher();
    let publication = scene.publish(&[public(&[1]); 3], NO_OPERATOR, XDESCR).unwrap();
    assert_eq!(publication.channels, [public(&[1])]);
}

#[test]
fn descriptors_and_attributes_have_at_most_4_kib() {
    let filled = |len: usize, start: &str| format!("{start}{};", "x".repeat(len - start.len() - 1));
    let start = format!("{XDESCR}filler=");
    let mut publisher = Scene::publisher();
    assert!(publisher.publish(&[public(&[1])], NO_OPERATOR, &filled(4096, &start)).is_ok());
    let refusal =
        publisher.publish(&[public(&[1])], NO_OPERATOR, &filled(4097, &start)).unwrap_err();
    let role = Role::Publisher;
    assert_eq!(refusal, Refusal::TextTooLong { role, len: 4097, max: 4096 });
    assert_eq!(refusal.status(), Status::EPUBBADXD);

    let mut subscriber = Scene::subscriber();
    let refusal =
        subscriber.subscribe(&[public(&[1])], NO_OPERATOR, &filled(4097, "a=")).unwrap_err();
    assert_eq!(refusal.status(), Status::ESUBBADDA);
}

#[test]
fn every_refused_descriptor_has_the_status_for_its_fault() {
    for (xdescr, status) in [
        ("", Status::EPUBBADADDR),
        ("sni_key=hello;", Status::EPUBBADADDR),
        ("controller_addr=;", Status::EPUBBADADDR),
        ("controller_addr=h:0;", Status::EPUBBADADDR),
        ("controller_addr=h:x;", Status::EPUBBADADDR),
        ("controller_addr=*;", Status::EPUBBADADDR),
        ("controller_addr=a?c;", Status::EPUBBADADDR),
        ("controller_addr=a;controller_addr=b;", Status::EPUBBADADDR),
        ("controller_addr=h;exp_priority=high;", Status::EPUBBADPR),
        ("controller_addr=h;exp_priority=;", Status::EPUBBADPR),
        ("controller_addr=h;exp_priority=18446744073709551616;", Status::EPUBBADPR),
        ("controller_addr=h;exp_priority=1;exp_priority=1;", Status::EPUBBADPR),
        ("controller_addr=h;pub_end=soon;", Status::EPUBBADXD),
        ("controller_addr=h;pub_end=1;pub_end=2;", Status::EPUBBADXD),
        ("controller_addr=h;sni_key=Hello;", Status::EPUBBADXD),
        ("controller_addr=h;sni_key=;", Status::EPUBBADXD),
        (&format!("controller_addr=h;sni_key={};", "a".repeat(64)), Status::EPUBBADXD),
        (&format!("controller_addr={};", "a".repeat(256)), Status::EPUBBADADDR),
    ] {
        let mut scene = Scene::publisher();
        let refusal = scene.publish(&[public(&[1])], NO_OPERATOR, xdescr).unwrap_err();
        assert_eq!(refusal.status(), status, "{xdescr}: {refusal}");
    }
    for good in [
        "controller_addr=h;",
        "controller_addr=[2001:db8::1]:80;exp_priority=4294967295;pub_end=1795434141288556833;",
        "hostid=HOST-1;endpoint_location=BK29;endpoint_country=DEU;controller_addr=h:1;sni_key=0;foo=b*;",
    ] {
        let mut scene = Scene::publisher();
        assert!(scene.publish(&[public(&[1])], NO_OPERATOR, good).is_ok(), "{good}");
    }
}

#[test]
fn a_malformed_request_is_answered_with_what_is_wrong_in_it() {
    let with = |list: &[u8], rest: &[u8]| [list, &[0; 32], rest].concat();
    for (payload, publishers, subscribers) in [
        (with(&[33; 40], b""), Status::EPUBBADCHL, Status::ESUBBADCHL),
        (vec![2, 1], Status::EPUBBADCHL, Status::ESUBBADCHL),
        (vec![], Status::EPUBBADCHL, Status::ESUBBADCHL),
        (vec![1, 1, 0, 7], Status::ECTLBADMSG, Status::ECTLBADMSG),
        (with(&[1, 1, 0], b"a=b"), Status::EPUBBADXD, Status::ESUBBADDA),
        // An empty list decodes, but there is nothing to do with it.
        (with(&[0], b""), Status::EPUBBADCHL, Status::ESUBBADCHL),
    ] {
        let mut scene = Scene::publisher();
        let refusal = scene.send_payload(MessageType::XPUB, &payload).unwrap_err();
        assert_eq!(refusal.status(), publishers, "{payload:?}");
        let mut scene = Scene::subscriber();
        let refusal = scene.send_payload(MessageType::XSUB, &payload).unwrap_err();
        assert_eq!(refusal.status(), subscribers, "{payload:?}");
        assert_eq!(refusal.ends_the_connection(), subscribers == Status::ECTLBADMSG);
    }
    // Wildcards are for descriptors alone.
    let mut scene = Scene::subscriber();
    let refusal = scene.send_payload(MessageType::XSUB, &with(&[1, 1, 0], b"a=*;")).unwrap_err();
    assert_eq!(refusal.status(), Status::ESUBBADDA);
}

#[test]
fn bad_certificates_and_foreign_messages_have_their_own_status() {
    let mut scene = Scene::publisher();
    let refusal = scene.send(&Message::Xcert { certificate: &[0x30, 0] }).unwrap_err();
    assert_eq!(refusal.status(), Status::ECRTBADFRM);
    assert!(!refusal.ends_the_connection());
    let refusal = scene.send_payload(MessageType::XCERT, &[]).unwrap_err();
    assert_eq!(refusal.status(), Status::ECTLBADMSG);
    assert!(refusal.ends_the_connection());
    for (role, kind) in [
        (Role::Publisher, MessageType::XSUB),
        (Role::Subscriber, MessageType::XPUB),
        (Role::Publisher, MessageType::START),
        (Role::Subscriber, MessageType(0x99)),
    ] {
        let payload = [&[1, 1, 0][..], &[0; 32]].concat();
        let payload = if kind == MessageType::START { &[][..] } else { &payload };
        let refusal = Scene::new(role, "ep").send_payload(kind, payload).unwrap_err();
        assert_eq!(refusal, Refusal::Unsupported(kind));
        assert_eq!(refusal.status(), Status::ECTLNOTSUP);
        assert!(!refusal.ends_the_connection());
    }
}

#[test]
fn the_largest_requests_that_the_limits_allow_fit_into_a_payload() {
    let limits = BrokerLimits::default();
    assert_eq!(limits.payload_len_max(), 64 * 1024, "a certificate");
    let many = BrokerLimits { channels_max: 10_000, ..limits };
    assert_eq!(many.payload_len_max(), 330_000 + 33 + 4096);
}
