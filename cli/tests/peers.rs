//! Endpoints good and bad: which experiment one gets, who is let in, and that a bad one loses its
//! own connection and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use common::endpoint::{
    CDATA, Dial, End, Endpoint, Identity, LINFO, NDATA, START, SUCCESS, certificate,
    certificate_with, message,
};
use common::events::{Events, outcomes};
use common::{Home, an_hour_ago, assert_says};
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType};
use packetlab::key::PrivateKey;
use packetlab::program::Program;
use packetlab::time::Ticks;
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::Value;

/// TLS alerts (RFC 8446 section 6).
const BAD_SIGNATURE: End = End::Alert(51);
const CERTIFICATE_UNKNOWN: End = End::Alert(46);
const CERTIFICATE_REQUIRED: End = End::Alert(116);

/// A home with the experiment `hello`, where endpoints need a certificate of `eop`, and `open`, of
/// other people, where they need none. `defaults` are their first fields.
fn home_of_two(defaults: [u8; 2]) -> Home {
    let home = Home::new();
    let (operator, experimenter) =
        (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let controller = home.keys.controller.public_key();
    let types = (CertificateType::Exppriv, CertificateType::Pubcmd);
    home.issue("other-exppriv.cert", types.0, &experimenter.public_key(), &operator);
    home.issue("other-pubcmd.cert", types.1, &controller, &experimenter);
    let [first, second] = defaults;
    let config = format!(
        "EnableExpPublication 0\nControllerPrivkeyPath xc\n\
         ExpExec {first}:hello:exppriv.cert,pubcmd.cert:eop.pub::\n\
         ExpExec {second}:open:other-exppriv.cert,other-pubcmd.cert::0102:\n"
    );
    home.write("xpmgr.conf", config.as_bytes());
    home
}

fn file_der(home: &Home, name: &str) -> Vec<u8> {
    let pem = fs::read(home.path(name)).unwrap();
    Certificate::from_pem(&pem).unwrap().der().to_vec()
}

/// Items 72, 53.
#[test]
fn the_server_name_chooses_the_chain_and_no_name_the_default_entry() {
    let home = home_of_two([0, 1]);
    let manager = home.start(&[], &["echo"]);
    let dial = home.dial(&manager);
    let chain_of = |snikey| dial.clone().asking(snikey).session().controller_chain();
    let hello = ["pubcmd.cert", "exppriv.cert"].map(|name| file_der(&home, name));
    let open = ["other-pubcmd.cert", "other-exppriv.cert"].map(|name| file_der(&home, name));
    assert_eq!(chain_of(Some("hello")), hello);
    assert_eq!(chain_of(Some("open")), open);
    assert_eq!(chain_of(None), open);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Item 72.
#[test]
fn an_unknown_name_or_none_without_a_default_is_dropped_without_a_byte() {
    let home = home_of_two([0, 0]);
    let manager = home.start(&[], &["echo"]);
    let dial = home.dial(&manager);
    for (snikey, reason) in [
        (Some("nobody"), "no ExpExec has the snikey \"nobody\""),
        (None, "sent no server name and no ExpExec is the default"),
    ] {
        let mut endpoint = dial.clone().asking(snikey).connect();
        let hello = endpoint.hello();
        endpoint.send_raw(&hello);
        assert_eq!(endpoint.raw_rest(), Ok(Vec::new()), "{snikey:?}");
        manager.says(reason);
    }
    dial.is_served();
}

/// Items 73, 74.
#[test]
fn a_certificate_is_needed_just_where_operators_are_trusted() {
    let home = home_of_two([0, 0]);
    let manager = home.start(&[], &["echo"]);
    let anonymous = Dial::to(manager.address);
    let stranger = Dial::to(manager.address).with(&Identity::of(&PrivateKey::generate().unwrap()));
    assert_eq!(anonymous.refusal(), CERTIFICATE_REQUIRED);
    assert_eq!(stranger.refusal(), CERTIFICATE_UNKNOWN);
    home.dial(&manager).is_served();
    for dial in [anonymous, stranger, home.dial(&manager)] {
        dial.asking(Some("open")).is_served();
    }
}

/// A delegation of the operator's right leads to the trusted key as well.
#[test]
fn an_endpoint_may_hold_a_delegated_representation() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let delegate = &home.keys.delegate;
    let mut identity = Identity::of(delegate);
    let chain = &mut identity.chain;
    chain.push(certificate(CertificateType::Delpriv, &delegate.public_key(), &home.keys.operator));
    Dial::to(manager.address).with(&identity).is_served();
    identity.chain.truncate(1);
    assert_eq!(Dial::to(manager.address).with(&identity).refusal(), CERTIFICATE_UNKNOWN);
}

/// A bad peer's whole part. It must lead to the manager closing the connection.
type Part = Box<dyn Fn() -> End>;

/// Items 73, 75, 78, and promise P19: the right chain with another key.
#[test]
fn a_bad_peer_loses_its_own_connection_and_nothing_else() {
    let home = Home::new();
    let manager = home.start(&["-v"], &["echo"]);
    let good = home.dial(&manager);
    let mut bystander = good.session();
    let cases = bad_handshakes(&home, &good).into_iter().chain(bad_greetings(&good));
    let mut count = 0;
    for (what, expected, reason, part) in cases {
        bystander.echoes(b"before");
        let end = part();
        assert!(expected.contains(&end), "{what}: {end:?}");
        count += 1;
        let said = manager.says_times("dropped 127.0.0.1", count);
        assert_says(&said, &[reason]);
        bystander.echoes(b"after");
    }
    good.is_served();
    bystander.close();
    assert_eq!(bystander.receive(), Err(End::CloseNotify));
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &[&format!("2 sessions served, {count} connections failed")]);
}

type Case = (&'static str, Vec<End>, &'static str, Part);

#[expect(clippy::too_many_lines, reason = "one table")]
fn bad_handshakes(home: &Home, good: &Dial) -> Vec<Case> {
    let with = |identity: &Identity| good.clone().with(identity);
    let refused = |dial: Dial| -> Part { Box::new(move || dial.refusal()) };
    let raw = |bytes: &'static [u8]| -> Part {
        let dial = good.clone();
        Box::new(move || ending_after(&dial, bytes))
    };
    let (operator, key) = (&home.keys.operator, PrivateKey::generate().unwrap());
    let identity = |chain| Identity { chain, key: copy(&key) };
    let limits = CertificateLimits::default;
    let leaf = |kind, until| certificate_with(kind, &key.public_key(), operator, limits(), until);
    let expired = identity(vec![leaf(CertificateType::Subcmd, an_hour_ago())]);
    let agent = identity(vec![leaf(CertificateType::Agent, Ticks::MAX)]);
    let anonymous = Dial::to(good.address);
    vec![
        (
            "no certificate",
            vec![CERTIFICATE_REQUIRED],
            "peer sent no certificates",
            refused(anonymous),
        ),
        ("an expired one", vec![CERTIFICATE_UNKNOWN], "has expired", refused(with(&expired))),
        (
            "one of another type",
            vec![CERTIFICATE_UNKNOWN],
            "is of type agent, but subcmd is needed",
            refused(with(&agent)),
        ),
        (
            "another key than the certificate's",
            vec![BAD_SIGNATURE],
            "signature over the handshake is wrong",
            refused(with_wrong_key(good, leaf(CertificateType::Subcmd, Ticks::MAX))),
        ),
        ("nothing", vec![End::Fin], "the endpoint closed before START", raw(b"")),
        ("no TLS", vec![End::Fin], "TLS failed", raw(b"GET / HTTP/1.0\r\n\r\n")),
        ("zeroes", vec![End::Fin], "TLS failed", raw(&[0; 3000])),
        (
            "a record longer than allowed",
            vec![End::Fin],
            "TLS failed",
            raw(&[0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 1, 0]),
        ),
        ("TLS 1.2", vec![End::Fin], "TLS failed", tls12(good)),
        ("half a hello", vec![End::Fin], "the endpoint closed before START", half_hello(good)),
        (
            "a reset in the handshake",
            vec![End::Reset],
            "the endpoint broke off",
            Box::new({
                let dial = good.clone();
                move || {
                    let mut endpoint = dial.connect();
                    let hello = endpoint.hello();
                    endpoint.send_raw(&hello);
                    // The answer has come, so the hello was taken.
                    endpoint.tcp.peek(&mut [0]).unwrap();
                    endpoint.reset();
                    End::Reset
                }
            }),
        ),
        (
            "garbage in the handshake",
            vec![End::Fin],
            "TLS failed",
            Box::new({
                let dial = good.clone();
                move || {
                    let mut endpoint = dial.connect();
                    let hello = endpoint.hello();
                    endpoint.send_raw(&hello);
                    endpoint.tcp.peek(&mut [0]).unwrap();
                    endpoint.send_raw(&[0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5]);
                    endpoint.send_raw(&[0xaa; 15]);
                    until_the_end(&mut endpoint)
                }
            }),
        ),
    ]
}

fn bad_greetings(good: &Dial) -> Vec<Case> {
    let answering = |bytes: Vec<u8>| -> Part {
        let dial = good.clone();
        Box::new(move || {
            let mut endpoint = dial.handshake();
            assert_eq!(endpoint.receive().unwrap(), (START, Vec::new()));
            endpoint.send(&bytes);
            endpoint.receive().expect_err("a refusal")
        })
    };
    let closed = || vec![End::CloseNotify];
    vec![
        ("START refused", closed(), "refused START", answering(vec![0x40, 0, 0, 2, 0, 1])),
        (
            "a RESULT of another length",
            closed(),
            "RESULT (0x40) of 3 bytes",
            answering(vec![0x40, 0, 0, 3, 0, 0, 0]),
        ),
        (
            "a RESULT that never ends",
            closed(),
            "of 16777215 bytes",
            answering(vec![0x40, 0xff, 0xff, 0xff]),
        ),
        (
            "LINFO before START's answer",
            closed(),
            "LINFO (0x65)",
            answering([&message(LINFO, b"\x03abc\0text")[..], &SUCCESS].concat()),
        ),
        ("another message", closed(), "NDATA (0x62)", answering(message(NDATA, b"x"))),
        (
            "a close instead of an answer",
            vec![End::Fin, End::CloseNotify],
            "the endpoint closed before START",
            Box::new({
                let dial = good.clone();
                move || {
                    let mut endpoint = dial.handshake();
                    endpoint.receive().unwrap();
                    endpoint.close();
                    endpoint.receive().expect_err("an end")
                }
            }),
        ),
    ]
}

/// Writes these bytes and FIN, and tells how the connection ends; an alert below TLS counts as FIN.
fn ending_after(dial: &Dial, bytes: &[u8]) -> End {
    let mut endpoint = dial.connect();
    endpoint.send_raw(bytes);
    if bytes.is_empty() {
        endpoint.tcp.shutdown(std::net::Shutdown::Write).unwrap();
    }
    until_the_end(&mut endpoint)
}

fn until_the_end(endpoint: &mut Endpoint) -> End {
    endpoint.raw_rest().err().unwrap_or(End::Fin)
}

/// Item 75: told by the alert protocol_version.
fn tls12(good: &Dial) -> Part {
    let dial = good.clone();
    Box::new(move || {
        let mut endpoint = dial.connect();
        endpoint.send_raw(&tls12_hello());
        assert_eq!(endpoint.raw_rest().unwrap(), [0x15, 3, 3, 0, 2, 2, 70]);
        End::Fin
    })
}

/// A ClientHello of TLS 1.2 with ECDHE-ECDSA-AES128-GCM on x25519, signed by anything usual.
fn tls12_hello() -> Vec<u8> {
    let extensions: &[&[u8]] = &[
        &[0, 0, 0, 10, 0, 8, 0, 0, 5],
        b"hello",
        &[0, 10, 0, 4, 0, 2, 0, 29],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 6, 0, 4, 8, 7, 4, 3],
    ];
    let extensions = extensions.concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let len = u16::try_from(body.len()).unwrap();
    let mut record = vec![0x16, 3, 1];
    record.extend((len + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(len.to_be_bytes());
    record.extend(body);
    record
}

fn half_hello(good: &Dial) -> Part {
    let dial = good.clone();
    Box::new(move || {
        let mut endpoint = dial.connect();
        let hello = endpoint.hello();
        endpoint.send_raw(&hello[..hello.len() / 2]);
        endpoint.tcp.shutdown(std::net::Shutdown::Write).unwrap();
        until_the_end(&mut endpoint)
    })
}

/// Presents a good certificate and signs with a key that is not its own, as a thief would have to.
fn with_wrong_key(good: &Dial, stolen: Certificate) -> Dial {
    let der = PrivateKey::generate().unwrap().pkcs8_der();
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(&der[..])).unwrap();
    let chain = vec![CertificateDer::from(stolen.der().to_vec())];
    let mut config = good.config();
    config.client_auth_cert_resolver =
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    good.clone().configured(config)
}

/// What a refused certificate said is told apart from what was proven: its owner may be another.
#[test]
fn a_key_that_was_shown_and_not_proven_is_in_the_record_and_counts_as_nobodys() {
    let home = Home::new();
    let options = ["--cores", "1", "--once-per-endpoint", "--out", "results"];
    let manager = home.start(&options, &["echo"]);
    let events = Events::of_results(&home, "results");
    let owner = Identity::of(&home.keys.operator);
    let stranger = Identity::of(&PrivateKey::generate().unwrap());
    let dial = Dial::to(manager.address);
    let thief = with_wrong_key(&dial.clone().with(&owner), owner.chain[0].clone());
    assert_eq!(dial.clone().with(&stranger).refusal(), CERTIFICATE_UNKNOWN);
    events.await_sessions(1);
    assert_eq!(thief.refusal(), BAD_SIGNATURE);
    events.await_sessions(2);
    assert_eq!(dial.refusal(), CERTIFICATE_REQUIRED);
    events.await_sessions(3);
    dial.with(&owner).is_served();
    let sessions = events.await_sessions(4);
    assert_eq!(outcomes(&sessions)[..3], ["certificate_refused"; 3]);
    let key = |identity: &Identity| Value::from(identity.chain[0].subject_key_id.to_string());
    let told = sessions.iter().map(|record| (&record["ep"]["key"], &record["ep"]["shown_key"]));
    let (owner, stranger, none) = (key(&owner), key(&stranger), Value::Null);
    let expected = [(&none, &stranger), (&none, &owner), (&none, &none), (&owner, &none)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert!(sessions[..3].iter().all(|record| record["failed"] == false));
    assert_eq!(manager.interrupted().code, Some(0));
}

fn copy(key: &PrivateKey) -> PrivateKey {
    PrivateKey::from_pem(key.to_pem().as_bytes(), None).unwrap()
}

/// Items 76, 77.
#[test]
fn monitor_programs_come_in_lock_step_before_start() {
    let (home, [ebpf, wasm]) = Home::with_programs();
    let manager = home.start(&[], &["echo"]);
    manager.says("notes.txt");
    let mut endpoint = home.dial(&manager).handshake();
    for program in [&ebpf, &wasm, &ebpf] {
        let expected = [b"\x07monitor", &program.encoded()[..]].concat();
        assert_eq!(endpoint.receive().unwrap(), (CDATA, expected));
        endpoint.is_silent_for(Duration::from_millis(50));
        endpoint.send(&SUCCESS);
    }
    assert_eq!(endpoint.receive().unwrap(), (START, Vec::new()));
    // The long form of success is as good.
    endpoint.send(&[0x40, 0, 0, 2, 0, 0]);
    endpoint.echoes(b"the mlet");
}

/// Item 125.
#[test]
fn a_refused_program_ends_the_session_and_nothing_is_sent_after_it() {
    let (home, _) = Home::with_programs();
    let manager = home.start(&[], &["echo"]);
    let dial = home.dial(&manager);
    let mut endpoint = dial.handshake();
    assert_eq!(endpoint.receive().unwrap().0, CDATA);
    endpoint.send(&SUCCESS);
    assert_eq!(endpoint.receive().unwrap().0, CDATA);
    endpoint.send(&[0x40, 0, 0, 2, 0, 1]);
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    manager.says("refused monitor program 2");
    dial.is_served();
    assert_says(&manager.interrupted().stderr, &["1 session served, 1 connection failed"]);
}

/// A program larger than one record, and than what a socket takes at once, arrives whole.
#[test]
fn a_large_program_arrives_whole() {
    let home = Home::new();
    home.make_directory("progs");
    let mut text = Vec::new();
    for number in 0..200_000_u32 {
        writeln!(text, "0xb7 1 0 0 {number}").unwrap();
    }
    home.write("progs/large", &text);
    let program = Program::from_ebpf_text(&text).unwrap();
    let limits =
        CertificateLimits { monitor: vec![*program.digest()], ..CertificateLimits::default() };
    let (experimenter, operator) = (&home.keys.experimenter, &home.keys.operator);
    let subject = experimenter.public_key();
    let exppriv =
        certificate_with(CertificateType::Exppriv, &subject, operator, limits, Ticks::MAX);
    home.write("exppriv.cert", exppriv.to_pem().as_bytes());
    let config = format!("ProgramDirPath progs\n{}", home.least());
    home.write("xpmgr.conf", config.as_bytes());

    let manager = home.start(&[], &["echo"]);
    let mut endpoint = home.dial(&manager).handshake();
    let programs = endpoint.set_up().unwrap();
    assert_eq!(programs.len(), 1);
    assert!(programs[0] == [b"\x07monitor", &program.encoded()[..]].concat());
    endpoint.echoes(b"the mlet");
}
