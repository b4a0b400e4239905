//! What a controller's certificates allow, over several sessions and over time, with real chains.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::PrivateKey;
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::ledger::Ledger;
use super::super::{Endpoint, Session};
use super::*;
use crate::home::EndpointIdentity;

/// An operator with an endpoint, and a controller whose chain has limits.
pub(in super::super) struct Group {
    endpoint: EndpointIdentity,
    operator: PrivateKey,
    controller: PrivateKey,
    chain: Vec<Certificate>,
}

impl Group {
    /// The controller's certificates are valid for so long, up to the next whole second.
    pub(in super::super) fn new(limits: &str, valid_for: Duration) -> Self {
        let key = || PrivateKey::generate().unwrap();
        let (operator, experimenter, controller) = (key(), key(), key());
        let fields = |certificate_type, limits: &str| CertificateFields {
            certificate_type,
            delegation: Delegation::default(),
            path_len: None,
            not_before: Ticks(0),
            not_after: now().saturating_add(valid_for + Duration::from_secs(1)),
            description: None,
            auxiliary: Vec::new(),
            limits: CertificateLimits::parse(limits.as_bytes()).unwrap(),
        };
        let certificate = |fields: &CertificateFields,
                           subject: &PrivateKey,
                           signer: &PrivateKey| {
            Certificate::from_der(&issue(fields, &subject.public_key(), signer).unwrap()).unwrap()
        };
        let chain = vec![
            certificate(&fields(CertificateType::Pubcmd, ""), &controller, &experimenter),
            certificate(&fields(CertificateType::Exppriv, limits), &experimenter, &operator),
        ];
        let endpoint = EndpointIdentity::new(OWN, &operator).unwrap();
        Self { endpoint, operator, controller, chain }
    }

    /// The endpoint, which connects there.
    pub(in super::super) fn endpoint(
        &self,
        controller: SocketAddr,
        ledger: &Arc<Ledger>,
    ) -> Endpoint {
        let endpoint = self.endpoint.endpoint(&[self.operator.public_key()]).unwrap();
        Endpoint { controllers: vec![controller], ledger: Arc::clone(ledger), ..endpoint }
    }

    /// The next connection, up to START's answer.
    pub(in super::super) async fn accept(
        &self,
        listener: &TcpListener,
    ) -> Link<TlsStream<TcpStream>> {
        let mut link = self.handshake(listener).await;
        assert_eq!(ask(&mut link, &Message::Start).await, Status::SUCCESS);
        link
    }

    /// The next connection, before any message.
    pub(in super::super) async fn handshake(
        &self,
        listener: &TcpListener,
    ) -> Link<TlsStream<TcpStream>> {
        let mode = TrustMode::ControllerAuthenticatesEndpoint;
        let rule = PeerRule { mode, anchors: vec![self.operator.public_key()], mandatory: true };
        let identity = Identity { chain: &self.chain, key: &self.controller };
        let acceptor = TlsAcceptor::from(tls::server_config(&identity, rule).unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        Link::new(acceptor.accept(stream).await.unwrap())
    }
}

/// Sends a request; the next RESULT, past notifications.
pub(in super::super) async fn ask(
    link: &mut Link<TlsStream<TcpStream>>,
    request: &Message<'_>,
) -> Status {
    link.send(request).await.unwrap();
    loop {
        let (message_type, payload) = link.receive().await.unwrap().unwrap();
        if let Message::Result(outcome) = Message::decode(message_type, &payload) {
            return outcome.status();
        }
    }
}

/// A directory that is not there yet, and goes with the test.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    pub(super) fn new(test: &str) -> Self {
        let name = format!("pktfleet-{test}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn ledger(directory: &Path) -> Arc<Ledger> {
    Arc::new(Ledger::open(directory).unwrap())
}

#[tokio::test]
async fn totals_of_a_certificate_go_on_in_the_next_session_and_after_a_restart() {
    let group = Group::new("max_send_pkt=3;", LONG);
    let directory = Directory::new("rights");
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    // How many packets one session sends until it is refused.
    let session = async |ledger: &Arc<Ledger>, most: u16| {
        let endpoint = group.endpoint(listener.local_addr().unwrap(), ledger);
        let session = tokio::spawn(endpoint.run());
        let mut link = group.accept(&listener).await;
        assert_eq!(ask(&mut link, &nopen(1, Open::Udp { local: ANY })).await, Status::SUCCESS);
        let packet = Packet::Udp { remote: server.local_addr().unwrap(), data: b"x" };
        let mut sent = 0;
        while sent < most {
            let send = Message::Nsend { sktid: 1, time: Ticks(0), tag: 1, packet };
            match ask(&mut link, &send).await {
                Status::SUCCESS => sent += 1,
                status => {
                    assert_eq!(status, Status::ESKTPKTDENY);
                    break;
                }
            }
        }
        link.close().await;
        let Session { end, .. } = session.await.unwrap();
        assert!(matches!(end, Ok(End::Closed)), "{end:?}");
        sent
    };
    let before = ledger(&directory.0);
    assert_eq!(session(&before, 2).await, 2);
    assert_eq!(session(&before, 9).await, 1);
    // Whatever ended it: the totals were written when the session ended.
    drop(before);
    let after = ledger(&directory.0);
    assert_eq!(session(&after, 9).await, 0);
    // Without them all would begin anew.
    assert_eq!(session(&Arc::default(), 9).await, 3);
}

#[tokio::test]
async fn no_session_begins_whose_totals_cannot_be_kept() {
    let group = Group::new("max_send_pkt=3;", LONG);
    let directory = Directory::new("unwritable");
    let kept = ledger(&directory.0);
    std::fs::create_dir(directory.0.join("totals.new")).unwrap();
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let endpoint = group.endpoint(listener.local_addr().unwrap(), &kept);
    let session = tokio::spawn(endpoint.run());
    let mode = TrustMode::ControllerAuthenticatesEndpoint;
    let rule = PeerRule { mode, anchors: Vec::new(), mandatory: true };
    let identity = Identity { chain: &group.chain, key: &group.controller };
    let acceptor = TlsAcceptor::from(tls::server_config(&identity, rule).unwrap());
    let (stream, _) = listener.accept().await.unwrap();
    let _stream = acceptor.accept(stream).await;
    let end = session.await.unwrap().end;
    assert!(matches!(end, Err(EndpointError::State(_))), "{end:?}");
}

#[tokio::test]
async fn a_session_ends_when_the_certificates_of_its_controller_expire() {
    let group = Group::new("", Duration::from_secs(1));
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let endpoint = group.endpoint(listener.local_addr().unwrap(), &Arc::default());
    let session = tokio::spawn(endpoint.run());
    let mut link = group.accept(&listener).await;
    let next = timeout(LONG, link.receive()).await.expect("the session ends");
    let (message_type, payload) = next.unwrap().unwrap();
    let not_after = group.chain[0].not_after;
    assert!(now() > not_after, "it went on to its end");
    let Message::Linfo { info, .. } = Message::decode(message_type, &payload) else {
        panic!("LINFO expected, not {message_type}");
    };
    assert!(info.ends_with(b"certificates have expired"), "{}", info.escape_ascii());
    assert!(link.receive().await.unwrap().is_none());
    link.close().await;
    let end = session.await.unwrap().end;
    assert!(matches!(end, Ok(End::ChainExpired)), "{end:?}");
}
