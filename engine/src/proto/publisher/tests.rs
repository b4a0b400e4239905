//! Publications at a broker in memory, with the bytes of spec/protocol.md 5.4 and 8.5.

use std::time::Duration;

use super::*;
use crate::config::{Called, ControllerAddr};
use crate::fault_matrix::{self, Cell};
use crate::golden;
use crate::proto::tests::credentials::NOW;
use crate::proto::tests::tls_server::{TlsServer, controller};
use packetlab::certificate::Certificate;
use packetlab::name_value::{self, Dialect};
use packetlab::trust::{TrustMode, verify_chain};

const SUCCESS: [u8; 4] = [0x40, 0, 0, 0];

/// The Pub* options of spec/protocol.md 1.8.
pub(crate) fn publication() -> Publication {
    Publication {
        broker: Vec::new(),
        broker_name: "broker".into(),
        certificate: golden::certificate("agent_xc"),
        broker_roots: Vec::new(),
        controller_addr: ControllerAddr::BrokerSide,
        period: None,
        greet_after: Duration::ZERO,
        called: Called {
            priority: Some(7),
            countries: vec!["USA".into(), "DEU".into()],
            locations: vec!["IO91*".into(), "BK29".into()],
            hostid: Some("HOST-1".into()),
        },
        texts: None,
    }
}

/// An experiment with the golden controller's chain; with operator `eop` it is verified.
fn experiment(snikey: &str, channels: &[Option<&str>], operator: bool) -> Experiment {
    let chain = ["pubcmd_del_xc", "exppriv_eop_exper", "delpriv_exper_del"];
    let chain: Vec<Certificate> = chain.map(golden::certificate).into();
    let mut trusted_operators = Vec::new();
    let mut verified = None;
    if operator {
        // The chain's operator is not the first of those we trust.
        trusted_operators = ["bop", "eop"].map(golden::public_key).into();
        let mode = TrustMode::EndpointAuthenticatesController;
        let now = Ticks::from_unix_seconds(1_700_000_000);
        verified = Some(verify_chain(&chain, &trusted_operators, mode, now).unwrap());
    }
    let channels = channels.iter().map(|text| text.map(|hex| ChannelId::from_hex(hex).unwrap()));
    Experiment {
        line: 1,
        is_default: false,
        snikey: SniKey::parse(snikey).unwrap(),
        chain,
        trusted_operators,
        verified,
        channels: channels.collect(),
        overrides: Vec::new(),
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn xpub(experiment: &Experiment, pub_end: u64) -> Vec<u8> {
    let address = "198.51.100.7:5555";
    let made = PublishedExperiment::new(&publication(), experiment, address, Some(Ticks(pub_end)))
        .unwrap();
    made.requests.last().unwrap().message.clone()
}

/// Items 58, 59.
#[test]
fn without_operators_there_is_no_xcert_and_the_key_is_zero() {
    let snikey = "p8v7vg9d9x22jwl55lxmbv96ytqprw1e4ryr4iioaw3sxn6b7rmrm3bbs6jjvoh";
    let experiment = experiment(snikey, &[Some("0a")], false);
    let captured =
        hex("3100011f010a000000000000000000000000000000000000000000000000000000000000000000686f73\
         7469643d484f53542d313b656e64706f696e745f6c6f636174696f6e3d424b32393b656e64706f696e74\
         5f6c6f636174696f6e3d494f39312a3b656e64706f696e745f636f756e7472793d4445553b656e64706f\
         696e745f636f756e7472793d5553413b6578705f7072696f726974793d373b7075625f656e643d313739\
         353433343134303936353231373033363b636f6e74726f6c6c65725f616464723d3139382e35312e3130\
         302e373a353535353b736e695f6b65793d7038763776673964397832326a776c35356c786d6276393679\
         74717072773165347279723469696f61773373786e366237726d726d33626273366a6a766f683b");
    assert_eq!(xpub(&experiment, 1_795_434_140_965_217_036), captured);
    let made = PublishedExperiment::new(&publication(), &experiment, "a", None).unwrap();
    assert_eq!(made.requests.len(), 1);
}

/// Items 59, 60, 61, 62, 63, 64.
#[test]
fn the_captured_publication_to_the_key_channel_is_made_again() {
    let mut experiment = experiment("hello", &[None], true);
    experiment.overrides = name_value::parse(Dialect::Descriptor, b"foo=bar;baz=q*;").unwrap();
    let captured =
        hex("31000113202c02ac294bf0f238a33ecd6e77b091b9165cd1ae1f5312abdede8f7063a8f95000b51acc87\
         71de0b00a81bd9cd7d5f86d8ce082951805acbf4d0106482245cc357686f737469643d484f53542d313b\
         656e64706f696e745f6c6f636174696f6e3d424b32393b656e64706f696e745f6c6f636174696f6e3d49\
         4f39312a3b656e64706f696e745f636f756e7472793d4445553b656e64706f696e745f636f756e747279\
         3d5553413b6578705f7072696f726974793d373b7075625f656e643d3137393534333431343132383835\
         35363833333b636f6e74726f6c6c65725f616464723d3139382e35312e3130302e373a353535353b736e\
         695f6b65793d68656c6c6f3b62617a3d712a3b666f6f3d6261723b");
    assert_eq!(xpub(&experiment, 1_795_434_141_288_556_833), captured);
}

/// Item 59.
#[test]
fn channels_go_in_configured_order_with_the_key_channel_in_its_place() {
    let experiment = experiment("hello", &[Some("0102"), None, Some("aabbcc")], true);
    let expected =
        hex("3100010b 020102 20 2c02ac294bf0f238a33ecd6e77b091b9165cd1ae1f5312abdede8f7063a8f950 \
         03aabbcc 00 b51acc8771de0b00a81bd9cd7d5f86d8ce082951805acbf4d0106482245cc357 \
         686f737469643d48");
    let message = xpub(&experiment, 1_795_434_141_288_556_833);
    assert_eq!(message[..expected.len()], expected);
    assert_eq!(message.len(), 4 + 0x10b);
}

/// Item 57: the verified order, leaf first, which is not the configured one.
#[test]
fn certificates_go_leaf_first_and_then_the_experiment() {
    let experiment = experiment("hello", &[None], true);
    let made = PublishedExperiment::new(&publication(), &experiment, "a", None).unwrap();
    let ders = ["pubcmd_del_xc", "delpriv_exper_del", "exppriv_eop_exper"]
        .map(|name| golden::certificate(name).der().to_vec());
    let (last, certificates) = made.requests.split_last().unwrap();
    for (request, der) in certificates.iter().zip(&ders) {
        let (header, payload) = request.message.split_at(4);
        assert_eq!(header, [0x30, 0, (der.len() >> 8) as u8, der.len() as u8]);
        assert_eq!(payload, der);
    }
    assert_eq!(certificates.len(), 3);
    assert_eq!(last.what, What::Experiment { snikey: experiment.snikey });
    assert_eq!(made.end, None);
}

/// A conversation with a broker that trusts everybody.
struct Rig {
    publisher: Publisher,
    broker: TlsServer,
}

impl Rig {
    /// Three experiments as the manager publishes them, last in the file first.
    fn new() -> Self {
        let experiments = [
            experiment("one", &[None], true),
            experiment("two", &[Some("0a")], false),
            experiment("three", &[None], true),
        ];
        let requests = experiments.iter().rev().flat_map(|experiment| {
            PublishedExperiment::new(&publication(), experiment, "a", None).unwrap().requests
        });
        let publisher = Publisher::new(controller(true), requests.collect()).unwrap();
        Self { publisher, broker: TlsServer::new(&[]) }
    }

    /// One that has done the handshake and sent the first request.
    fn asking() -> Self {
        let mut rig = Self::new();
        while rig.broker.records.is_empty() {
            rig.pass_to_broker();
            let answer = rig.broker.output();
            if !answer.is_empty() {
                rig.publisher.handle_bytes(&answer, NOW).unwrap();
            }
        }
        rig
    }

    fn published() -> Self {
        let mut rig = Self::asking();
        while rig.publisher.poll_event().is_none() {
            rig.broker.take_plaintext();
            rig.answer(&SUCCESS).unwrap();
            rig.pass_to_broker();
        }
        rig
    }

    fn pass_to_broker(&mut self) {
        let output = self.publisher.take_output();
        self.broker.receive(&output).unwrap();
    }

    fn answer(&mut self, message: &[u8]) -> Result<(), PublishError> {
        let record = self.broker.seal(message);
        self.publisher.handle_bytes(&record, NOW)
    }
}

/// Items 57, 58.
#[test]
fn requests_go_one_at_a_time_each_in_its_own_record_last_experiment_first() {
    let mut rig = Rig::asking();
    let mut asked = Vec::new();
    while rig.publisher.poll_event().is_none() {
        let [record] = &rig.broker.records[..] else { panic!("not one record") };
        asked.push(record[0]);
        rig.broker.records.clear();
        rig.answer(&SUCCESS).unwrap();
        rig.pass_to_broker();
    }
    assert_eq!(asked, [0x30, 0x30, 0x30, 0x31, 0x31, 0x30, 0x30, 0x30, 0x31]);
    assert!(rig.broker.records.is_empty(), "nothing is sent after the last answer");
}

#[test]
fn an_answer_may_come_in_pieces_and_with_an_explicit_zero() {
    let mut rig = Rig::asking();
    rig.broker.take_plaintext();
    for piece in [&[0x40][..], &[0, 0], &[2, 0], &[0]] {
        assert_eq!(rig.publisher.take_output(), b"", "nothing before the answer is whole");
        rig.answer(piece).unwrap();
    }
    rig.pass_to_broker();
    assert_eq!(rig.broker.records.len(), 1);
}

/// Item 66.
#[test]
fn a_refusal_names_the_request_and_the_errid() {
    let mut rig = Rig::asking();
    for _ in 0..3 {
        rig.answer(&SUCCESS).unwrap();
    }
    let error = rig.answer(&[0x40, 0, 0, 2, 0, 0x50]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("snikey three"), "{text}");
    assert!(text.contains("EPUBBADCHL (80)"), "{text}");

    let mut rig = Rig::asking();
    let text = rig.answer(&[0x40, 0, 0, 2, 0, 0x22]).unwrap_err().to_string();
    assert!(text.contains("certificate 1 (pubcmd)"), "{text}");
    assert!(text.contains("ECRTBADFRM (34)"), "{text}");
}

#[test]
fn every_errid_that_a_broker_may_give_has_its_advice() {
    let general = advice(Status(0x7777));
    for code in [0x10, 0x11, 0x22, 0x23, 0x30, 0x31, 0x44, 0x50, 0x51, 0x52, 0x53, 0x54] {
        assert_ne!(advice(Status(code)), general, "{code:#x}");
    }
}

#[test]
fn anything_but_a_result_ends_the_publication() {
    for (message, message_type, payload_len) in [
        (&[0x70, 0, 0, 1, 1][..], MessageType::XNOTIFY, 1),
        (&[0x40, 0, 0, 3, 0, 0, 0], MessageType::RESULT, 3),
        (&[0x40, 0xff, 0xff, 0xff], MessageType::RESULT, 0xff_ffff),
    ] {
        let error = Rig::asking().answer(message).unwrap_err();
        let PublishError::Unexpected { message_type: found, payload_len: len, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((found, len), (message_type, payload_len));
    }
}

#[test]
fn a_broker_that_closes_is_told_apart_by_where_it_closed() {
    assert_eq!(Rig::new().publisher.handle_end(), PublishError::ClosedInHandshake);
    let mut rig = Rig::asking();
    let record = rig.broker.close_notify();
    let error = rig.publisher.handle_bytes(&record, NOW).unwrap_err();
    assert!(matches!(error, PublishError::Closed { awaiting: Some(What::Certificate { .. }) }));
    assert_eq!(rig.publisher.handle_end(), error);
    let rig = Rig::published();
    assert_eq!(rig.publisher.handle_end(), PublishError::Closed { awaiting: None });
}

/// Item 70.
#[test]
fn messages_after_the_publication_are_reported_and_ignored() {
    let mut rig = Rig::published();
    let notify = [&[0x70, 0, 0x10, 0][..], &[0; 0x1000]].concat();
    for message in [&notify[..], &[0x40, 0, 0, 0], &[0x99, 0, 0, 1, 7]] {
        rig.answer(message).unwrap();
        assert_eq!(
            rig.publisher.poll_event(),
            Some(PublisherEvent::Ignored(MessageType(message[0])))
        );
    }
    assert_eq!(rig.publisher.poll_event(), None);
    assert_eq!(rig.publisher.take_output(), b"");
    let error = rig.answer(&[0x65, 0xff, 0xff, 0xff]).unwrap_err();
    assert!(matches!(error, PublishError::Nonsense(_)), "{error}");
}

/// Item 67.
#[test]
fn the_end_is_announced_with_close_notify() {
    let mut rig = Rig::published();
    rig.publisher.close();
    rig.pass_to_broker();
    assert!(rig.broker.closed);
}

#[test]
fn a_broker_that_speaks_first_or_no_tls_or_is_not_trusted_is_refused() {
    let error = Rig::new().publisher.handle_bytes(b"220 mail.example ESMTP\r\n", NOW).unwrap_err();
    assert!(matches!(error, PublishError::Tls(_)), "{error}");

    let mut rig = Rig::new();
    rig.broker = TlsServer::new(&["eop"]);
    let output = rig.publisher.take_output();
    rig.broker.receive(&output).unwrap();
    rig.publisher.handle_bytes(&rig.broker.output(), NOW).unwrap();
    let output = rig.publisher.take_output();
    rig.broker.receive(&output).unwrap_err();
    let error = rig.publisher.handle_bytes(&rig.broker.output(), NOW).unwrap_err();
    assert!(error.to_string().contains("PubAgentCertPath"), "{error}");
}

/// A conversation that stands at this step of spec/reliability.md 7.
fn at(step: &str) -> Rig {
    match step {
        "B1" => {
            let mut rig = Rig::new();
            rig.pass_to_broker();
            rig
        }
        "B2" => Rig::asking(),
        "B3" => {
            let mut rig = Rig::asking();
            for _ in 0..3 {
                rig.answer(&SUCCESS).unwrap();
            }
            rig.pass_to_broker();
            rig
        }
        "B4" => Rig::published(),
        other => panic!("{other} is no step of the conversation"),
    }
}

/// What comes of the fault; the owner of the socket tells of a connection that has ended.
fn struck(rig: &mut Rig, cell: &Cell) -> Result<(), PublishError> {
    match cell.fault {
        "F2" => Err(rig.publisher.handle_end()),
        "F4" => rig.publisher.handle_bytes(&[0xff; 5000], NOW),
        "F6" => {
            let record = match cell.step {
                "B1" => rig.broker.output(),
                _ => rig.broker.seal(&SUCCESS),
            };
            rig.publisher.handle_bytes(&record[..record.len() / 2], NOW)?;
            Err(rig.publisher.handle_end())
        }
        "F7" => rig.answer(&[0x40, 0xff, 0xff, 0xff]),
        "F8" => rig.answer(&[0x70, 0, 0, 1, 1]),
        "F9" => rig.answer(&[0x40, 0, 0, 2, 0, 0x44]),
        other => panic!("{other} is nothing that a broker says"),
    }
}

/// Promise P5: what the conversation makes of what a broker says, and of its end. That it is silent, slow or gone its owner
/// notices, in the real world alone.
#[test]
fn every_fault_in_what_a_broker_says_has_what_the_file_says() {
    let mut walked = 0;
    for cell in fault_matrix::cells() {
        if !cell.step.starts_with('B') || cell.world != "both" {
            continue;
        }
        let mut rig = at(cell.step);
        let found = struck(&mut rig, &cell);
        match found {
            Ok(()) => {
                assert_eq!(cell.expected.outcome, "goes_on", "{cell:?}");
                assert!(matches!(rig.publisher.poll_event(), Some(PublisherEvent::Ignored(_))));
            }
            Err(error) => {
                let error = error.to_string();
                assert_eq!(cell.expected.outcome, "tried_again", "{cell:?}: {error}");
                assert!(error.contains(cell.expected.reason), "{cell:?}: {error}");
            }
        }
        // Half a flight may have been answered as far as it went.
        let is_told = cell.fault != "F6" && !rig.publisher.take_output().is_empty();
        assert_eq!(is_told, cell.expected.told.starts_with("alert"), "{cell:?}");
        walked += 1;
    }
    assert_eq!(walked, 21, "no cell is lost");
}
