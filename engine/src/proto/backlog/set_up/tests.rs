//! Set-ups against a proxy in memory, with the bytes of spec/protocol.md 5.2 and 8.5.

use super::*;
use crate::fault_matrix;
use crate::proto::tests::credentials::NOW;
use crate::proto::tests::tls_server::{TlsServer, controller};
use packetlab::message::Status;

const SUCCESS: [u8; 4] = [0x40, 0, 0, 0];

/// A set-up for snikey `hello`, and its proxy.
struct Rig {
    set_up: SetUp,
    proxy: TlsServer,
}

impl Rig {
    fn new() -> Self {
        Self::of(TlsServer::new(&[]))
    }

    fn of(proxy: TlsServer) -> Self {
        let snikey = SniKey::parse("hello").unwrap();
        Self { set_up: SetUp::new(controller(false), &snikey).unwrap(), proxy }
    }

    /// A set-up that has sent XREG and awaits the answer.
    fn registered() -> Self {
        let mut rig = Self::new();
        rig.handshake().unwrap();
        assert_eq!(rig.set_up.step(), Some(SetUpStep::Registration));
        rig.send_to_proxy().unwrap();
        assert_eq!(rig.set_up.step(), Some(SetUpStep::Answer));
        assert_eq!(rig.proxy.take_plaintext(), b"\x80\x00\x00\x05hello");
        rig
    }

    fn handshake(&mut self) -> Result<(), SetUpError> {
        while self.set_up.step() == Some(SetUpStep::Handshake) {
            self.send_to_proxy().unwrap();
            let answer = self.proxy.output();
            self.set_up.handle_bytes(&answer, NOW)?;
        }
        Ok(())
    }

    fn send_to_proxy(&mut self) -> Result<(), TlsError> {
        let output = self.set_up.take_output();
        assert!(!output.is_empty(), "nothing to send");
        self.set_up.handle_sent();
        self.proxy.receive(&output)
    }

    /// The preamble has come: what follows until the connection is done.
    fn ends_with(mut self, endpoint_bytes: &[u8]) {
        assert_eq!(self.set_up.step(), Some(SetUpStep::Reply));
        let output = self.set_up.take_output();
        let (close_notify, preamble) = output.split_at(output.len() - 6);
        assert_eq!(preamble, PREAMBLE);
        if !close_notify.is_empty() {
            self.proxy.receive(close_notify).unwrap();
            assert!(self.proxy.closed);
        }
        self.set_up.handle_sent();
        assert_eq!(self.set_up.step(), None);
        assert_eq!(self.set_up.into_endpoint_bytes(), endpoint_bytes);
    }
}

/// Item 104.
#[test]
fn a_set_up_is_xreg_then_result_then_close_notify_then_both_preambles() {
    let mut rig = Rig::registered();
    let result = rig.proxy.seal(&SUCCESS);
    rig.set_up.handle_bytes(&result, NOW).unwrap();
    assert_eq!(rig.set_up.step(), Some(SetUpStep::Preamble));
    let close_notify = rig.set_up.take_output();
    assert_eq!(close_notify[..5], [0x17, 3, 3, 0, 0x13], "spec/protocol.md 8.5");
    assert_eq!(close_notify.len(), 24);
    rig.proxy.receive(&close_notify).unwrap();
    assert!(rig.proxy.closed);
    rig.set_up.handle_sent();

    rig.set_up.handle_bytes(b"PKTLAB", NOW).unwrap();
    rig.ends_with(b"");
}

/// Item 105. The original's matcher misses the second.
#[test]
fn the_preamble_is_found_behind_whatever_comes_before_it() {
    for before in ["", "P", "PK", "PKT", "PKTL", "PKTLA", "PKTLAPKTLAPK", "xyzP", "\0\u{17}PP"] {
        let mut rig = Rig::registered();
        let result = rig.proxy.seal(&SUCCESS);
        let leftover = rig.proxy.close_notify();
        let bytes = [&result, &leftover, before.as_bytes(), b"PKTLAB", b"\x16\x03"].concat();
        rig.set_up.handle_bytes(&bytes, NOW).unwrap();
        rig.ends_with(b"\x16\x03");
    }
}

/// Items 105, 106.
#[test]
fn result_and_preamble_and_clienthello_may_come_in_any_pieces() {
    let hello: Vec<u8> = (0..=255).cycle().take(700).collect();
    for piece_len in [1, 2, 3, 5, 7, 24, 25, 26, 100, 5000] {
        let mut rig = Rig::registered();
        let result = rig.proxy.seal(&SUCCESS);
        let close_notify = rig.proxy.close_notify();
        let bytes = [&result, &close_notify, &b"PPKTLAB"[..], &hello].concat();
        for piece in bytes.chunks(piece_len) {
            rig.set_up.handle_bytes(piece, NOW).unwrap();
        }
        rig.ends_with(&hello);
    }
}

/// Item 106: nothing of the raw stream is swallowed by TLS, also without the proxy's close_notify.
#[test]
fn result_and_preamble_in_one_segment_without_close_notify_are_told_apart() {
    let mut rig = Rig::registered();
    let bytes = [&rig.proxy.seal(&SUCCESS)[..], b"PKTLAB", b"\x16\x03\x01\x00\xdc"].concat();
    rig.set_up.handle_bytes(&bytes, NOW).unwrap();
    rig.ends_with(b"\x16\x03\x01\x00\xdc");
}

#[test]
fn a_result_may_be_split_over_records_and_carry_an_explicit_zero() {
    let mut rig = Rig::registered();
    for piece in [&[0x40, 0][..], &[0, 2, 0], &[0]] {
        let record = rig.proxy.seal(piece);
        assert_eq!(rig.set_up.step(), Some(SetUpStep::Answer));
        rig.set_up.handle_bytes(&record, NOW).unwrap();
    }
    rig.set_up.handle_bytes(b"PKTLAB", NOW).unwrap();
    rig.ends_with(b"");
}

/// Item 112.
#[test]
fn a_refused_registration_tells_the_errid_by_name() {
    let mut rig = Rig::registered();
    let record = rig.proxy.seal(&[0x40, 0, 0, 2, 0, 0x44]);
    let error = rig.set_up.handle_bytes(&record, NOW).unwrap_err();
    assert_eq!(error, SetUpError::Refused(Outcome::Status(Status::ENORES)));
    assert!(error.to_string().contains("ENORES (68)"), "{error}");
    assert!(!error.to_string().contains("--client-root"), "{error}");
}

#[test]
fn a_snikey_that_another_controller_has_is_refused_with_the_proxys_rules() {
    let mut rig = Rig::registered();
    let record = rig.proxy.seal(&[0x40, 0, 0, 2, 0, 0x31]);
    let error = rig.set_up.handle_bytes(&record, NOW).unwrap_err().to_string();
    assert!(error.contains("ESYSNOPERM"), "{error}");
    for rule in ["another controller", "--client-root", "--require-client-certificate"] {
        assert!(error.contains(rule), "{rule}: {error}");
    }
}

#[test]
fn anything_but_a_result_ends_the_set_up() {
    for (message, expected) in [
        (&[0x70, 0, 0, 1, 1][..], (MessageType::XNOTIFY, 1)),
        (&[0x65, 0xff, 0xff, 0xff], (MessageType::LINFO, 0xff_ffff)),
        (&[0x40, 0, 0, 3, 0, 0, 0], (MessageType::RESULT, 3)),
        (&[0x99, 0, 0, 0], (MessageType(0x99), 0)),
    ] {
        let mut rig = Rig::registered();
        let record = rig.proxy.seal(message);
        let error = rig.set_up.handle_bytes(&record, NOW).unwrap_err();
        let (message_type, payload_len) = expected;
        assert_eq!(error, SetUpError::Unexpected { message_type, payload_len });
    }
}

#[test]
fn close_notify_instead_of_a_result_is_a_closed_connection() {
    let mut rig = Rig::registered();
    let record = rig.proxy.close_notify();
    assert_eq!(rig.set_up.handle_bytes(&record, NOW), Err(SetUpError::Closed));
}

#[test]
fn much_without_a_preamble_is_given_up_and_kept_in_no_memory() {
    let mut rig = Rig::registered();
    let result = rig.proxy.seal(&SUCCESS);
    rig.set_up.handle_bytes(&result, NOW).unwrap();
    let noise = [b'P'; 1000];
    let mut sent = 0;
    let error = loop {
        match rig.set_up.handle_bytes(&noise, NOW) {
            Ok(()) => sent += noise.len(),
            Err(error) => break error,
        }
        assert!(sent <= SKIPPED_MAX + noise.len());
        assert!(rig.set_up.received.len() < PREAMBLE.len());
    };
    assert_eq!(error, SetUpError::NoPreamble);
}

#[test]
fn bytes_that_are_no_tls_are_refused_as_soon_as_they_show_it() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n"[..], &[0x16, 3, 3, 0xff, 0xff], &[0; 5]] {
        let mut rig = Rig::new();
        let error = rig.set_up.handle_bytes(garbage, NOW).unwrap_err();
        assert!(matches!(error, SetUpError::Tls(_)), "{garbage:?}: {error}");
        let said = error.to_string();
        assert!(said.ends_with("is this a proxy's set-up port?"), "{garbage:?}: {said}");
    }
}

#[test]
fn a_proxy_of_unknown_origin_gets_an_alert_and_the_set_up_fails() {
    let mut rig = Rig::new();
    let snikey = SniKey::parse("hello").unwrap();
    let chain = [crate::golden::certificate("agent_ep")];
    let key = crate::golden::private_key("ep");
    let identity = packetlab::tls::Identity { chain: &chain, key: &key };
    let rule = packetlab::tls::PeerRule {
        mode: packetlab::trust::TrustMode::Agent,
        anchors: vec![crate::golden::public_key("xc")],
        mandatory: true,
    };
    let config = packetlab::tls::client_config(Some(&identity), rule).unwrap();
    rig.set_up = SetUp::new(config, &snikey).unwrap();
    let error = rig.handshake().unwrap_err();
    assert!(matches!(error, SetUpError::Tls(TlsError::InvalidCertificate(_))), "{error}");
    let told = rig.send_to_proxy().unwrap_err();
    let expected = TlsError::AlertReceived(rustls::AlertDescription::CertificateUnknown);
    assert_eq!(told, expected, "alert 46, spec/protocol.md 3.5");
}

#[test]
fn a_refused_client_certificate_shows_itself_after_our_handshake() {
    let mut rig = Rig::of(TlsServer::new(&["eop"]));
    rig.handshake().unwrap();
    rig.send_to_proxy().unwrap_err();
    let alert = rig.proxy.output();
    let error = rig.set_up.handle_bytes(&alert, NOW).unwrap_err();
    let expected = TlsError::AlertReceived(rustls::AlertDescription::CertificateUnknown);
    assert_eq!(error, SetUpError::Tls(expected));
}

/// A set-up that stands at this step of spec/reliability.md 7.
fn at(step: &str) -> Rig {
    let mut rig = if step == "P1" { Rig::new() } else { Rig::registered() };
    match step {
        "P1" => rig.send_to_proxy().unwrap(),
        // That XREG has been read makes no difference on our side.
        "P2" | "P3" => {}
        "P4" => {
            let result = rig.proxy.seal(&SUCCESS);
            rig.set_up.handle_bytes(&result, NOW).unwrap();
            rig.send_to_proxy().unwrap();
            assert_eq!(rig.set_up.step(), Some(SetUpStep::Preamble));
        }
        other => panic!("{other} is no step of the conversation"),
    }
    rig
}

/// Promise P5: what the conversation makes of what a proxy says. That it is silent, slow or gone its owner notices, in the
/// real world alone.
#[test]
fn every_fault_in_what_a_proxy_says_has_what_the_file_says() {
    let mut walked = 0;
    for cell in fault_matrix::cells() {
        if !matches!(cell.step, "P1" | "P2" | "P3" | "P4") || cell.world != "both" {
            continue;
        }
        let mut rig = at(cell.step);
        let bytes = match cell.fault {
            "F4" => vec![0xff; 100_000],
            "F7" => rig.proxy.seal(&[0x40, 0xff, 0xff, 0xff]),
            "F8" => rig.proxy.seal(&[0x70, 0, 0, 1, 1]),
            "F9" => rig.proxy.seal(&[0x40, 0, 0, 2, 0, 0x44]),
            other => panic!("{other} is nothing that a proxy says"),
        };
        let Err(error) = rig.set_up.handle_bytes(&bytes, NOW) else { panic!("{cell:?}") };
        let error = error.to_string();
        assert!(error.contains(cell.expected.reason), "{cell:?}: {error}");
        let is_told = !rig.set_up.take_output().is_empty();
        assert_eq!(is_told, cell.expected.told.starts_with("alert"), "{cell:?}");
        walked += 1;
    }
    assert_eq!(walked, 10, "no cell is lost");
}
