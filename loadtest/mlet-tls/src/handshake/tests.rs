//! Handshakes with a server in memory, behind an endpoint whose times a test invents.

use std::os::unix::net::UnixStream;

use mlet::{ClientError, ConnectionEnd, StateChange};
use packetlab::certificate::{CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::PrivateKey;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use super::*;

#[path = "../../../mlet/src/scripted_endpoint.rs"]
mod scripted_endpoint;

const NAME: &str = "www.example.com";
const PATIENCE: Duration = Duration::from_secs(60);
/// From the departure of a flight to the arrival of all of its answer.
const ROUND_TRIP: Duration = Duration::from_millis(3);

#[derive(Debug)]
struct OneKey(Arc<CertifiedKey>);

impl ResolvesServerCert for OneKey {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (hello.server_name() == Some(NAME)).then(|| Arc::clone(&self.0))
    }
}

fn address() -> SocketAddr {
    "192.0.2.7:443".parse().unwrap()
}

/// A certificate, and a server that shows it; `asks_again` if it wants other shares of keys than it is sent first.
fn server(asks_again: bool) -> (Vec<u8>, ServerConnection) {
    let key = PrivateKey::generate().unwrap();
    let fields = CertificateFields {
        certificate_type: CertificateType::Agent,
        delegation: Delegation::default(),
        path_len: None,
        not_before: Ticks(0),
        not_after: Ticks::from_unix_seconds(2_000_000_000),
        description: None,
        auxiliary: Vec::new(),
        limits: CertificateLimits::default(),
    };
    let certificate = issue(&fields, &key.public_key(), &key).unwrap();
    let signer = PrivatePkcs8KeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap();
    let signer = aws_lc_rs::sign::any_eddsa_type(&signer).unwrap();
    let certified = CertifiedKey::new(vec![certificate.clone().into()], signer);
    let mut provider = aws_lc_rs::default_provider();
    if asks_again {
        provider.kx_groups = vec![kx_group::SECP384R1];
    }
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OneKey(Arc::new(certified))));
    (certificate, ServerConnection::new(Arc::new(config)).unwrap())
}

/// An endpoint that is connected to whoever answers bytes with pieces, or closes where there are none; news of a departure
/// come behind the answer.
fn connected(answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> UnixStream {
    connected_with_news(false, answer)
}

/// The same, where news of a departure may come before the answer, or behind it.
fn connected_with_news(
    come_first: bool,
    answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> UnixStream {
    scripted_endpoint::start(connection(come_first, answer))
}

/// What such an endpoint answers.
fn connection(
    come_first: bool,
    mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>>,
) -> impl FnMut(&Message<'_>, &mut Vec<u8>) {
    move |request, answers| {
        let mut behind = Vec::new();
        scripted_endpoint::original(request, &mut behind);
        let (sktid, clock) = (SKTID, scripted_endpoint::CLOCK);
        match *request {
            Message::Nopen { .. } => {
                let change = StateChange::TcpEstablished { remote: address() };
                Message::Nstat { sktid, time: clock, change }.encode(&mut behind).unwrap();
            }
            Message::Nsend { packet: Packet::Tcp { family, data }, .. } => {
                if come_first {
                    answers.append(&mut behind);
                }
                let pieces = answer(data);
                let step = ROUND_TRIP / u32::try_from(pieces.len()).unwrap().max(1);
                for (number, data) in (1..).zip(&pieces) {
                    let time = clock.saturating_add(step * number);
                    let packet = Packet::Tcp { family, data };
                    Message::Ndata { sktid, time, packet }.encode(answers).unwrap();
                }
                if pieces.is_empty() {
                    let (protocol, code) = (mlet::Protocol::Tcp, StateChange::PEER_CLOSED);
                    let change = StateChange::Code { family, protocol, code };
                    Message::Nstat { sktid, time: clock, change }.encode(answers).unwrap();
                }
            }
            _ => {}
        }
        answers.extend(behind);
    }
}

/// What a server answers, in three pieces.
fn served(tls: &mut ServerConnection, mut data: &[u8]) -> Vec<Vec<u8>> {
    while !data.is_empty() {
        tls.read_tls(&mut data).unwrap();
        if tls.process_new_packets().is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut answer).unwrap();
    }
    answer.chunks(answer.len() / 3 + 1).map(<[u8]>::to_vec).collect()
}

fn greeted(session: UnixStream, name: &str) -> Result<Handshake, MletError> {
    let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
    Server { address: address(), name: name.to_owned() }.greet(&mut client, PATIENCE)
}

#[test]
fn each_flight_is_timed_to_the_end_of_its_answer_and_nothing_else_is() {
    for (asks_again, come_first, flights) in
        [(false, false, 1), (false, true, 1), (true, false, 2), (true, true, 2)]
    {
        let (certificate, mut tls) = server(asks_again);
        let session = connected_with_news(come_first, move |data| served(&mut tls, data));
        let handshake = greeted(session, NAME).unwrap();
        assert_eq!(handshake.taken, ROUND_TRIP * flights, "{asks_again} {come_first}");
        assert_eq!(handshake.certificates, [certificate]);
        assert!(handshake.suite.starts_with("TLS13_"), "{}", handshake.suite);
        // The library that judges signatures does not understand this certificate, and it is not taken for proven.
        assert!(handshake.proof.is_err());
    }
}

#[test]
fn a_server_that_does_not_shake_hands_is_told_as_what_it_did() {
    let (_, mut tls) = server(false);
    let told = |session| greeted(session, NAME).err().unwrap().to_string();
    let unknown = connected(move |data| served(&mut tls, data));
    let error = greeted(unknown, "other.example").err().unwrap().to_string();
    assert!(
        error.starts_with("192.0.2.7:443 broke off the handshake: the peer sent the alert "),
        "{error}"
    );
    let old = |_: &[u8]| vec![vec![21, 3, 3, 0, 2, 2, 70]];
    assert_eq!(told(connected(old)), "192.0.2.7:443 speaks no TLS 1.3, and this mlet nothing else");
    let closes = |_: &[u8]| Vec::new();
    assert_eq!(told(connected(closes)), "192.0.2.7:443 closed in the middle of the handshake");
    let error = told(connected(|_: &[u8]| vec![b"220 ready\r\n".to_vec()]));
    assert!(error.starts_with("192.0.2.7:443 broke off the handshake: "), "{error}");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let session = connected(|_: &[u8]| vec![vec![22]]);
    let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
    let server = Server { address: address(), name: NAME.to_owned() };
    let error = server.greet(&mut client, Duration::from_millis(100)).err().unwrap();
    assert_eq!(error.to_string(), "192.0.2.7:443 did not shake hands in time");
}

#[test]
fn a_server_that_no_connection_comes_to_is_given_up_in_its_time_and_said_to_be_that() {
    // It opens the socket, and nothing more is heard of it.
    let session = scripted_endpoint::start(scripted_endpoint::original);
    let patience = Duration::from_millis(100);
    let mut client = Client::new(session, patience * 20).unwrap();
    let server = Server { address: address(), name: NAME.to_owned() };
    match server.greet(&mut client, patience) {
        Err(MletError::Client(ClientError::NotConnected { end, .. })) => {
            assert_eq!(end, ConnectionEnd::Untold(patience));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nobody is there"),
    }
}

#[test]
fn an_endpoint_that_answers_nothing_more_is_given_up_in_the_time_of_the_handshake() {
    let patience = Duration::from_secs(1);
    for (answered, unanswered) in [(0, "NSEND"), (1, "NSEND"), (2, "NCLOSE")] {
        let (_, mut tls) = server(false);
        let mut serve = connection(false, move |data| served(&mut tls, data));
        let mut count = 0;
        let session = scripted_endpoint::start(move |request, answers| {
            count += usize::from(matches!(request, Message::Nsend { .. } | Message::Nclose { .. }));
            if count <= answered {
                serve(request, answers);
            }
        });
        let mut client = Client::new(session, patience * 10).unwrap();
        let server = Server { address: address(), name: NAME.to_owned() };
        match server.greet(&mut client, patience) {
            Err(MletError::Client(ClientError::Silence { awaited, waited })) => {
                assert!(awaited.to_string().contains(unanswered), "{awaited}");
                assert!(waited <= patience * 5, "{waited:?} for {awaited}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it answers {answered}"),
        }
    }
}
