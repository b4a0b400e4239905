//! An operator, an endpoint of his, and a controller whose chain demands monitor programs: all in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use hosts::endpoint::{Endpoint, MonitorRule};
use hosts::home::EndpointIdentity;
use hosts::link::Link;
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::{Hex, PrivateKey};
use packetlab::message::{Message, MessageType, Open, Outcome, Packet};
use packetlab::program::Program;
use packetlab::time::Ticks;
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// NSENDs that wait for their answers.
const DEPTH: usize = 32;

pub(crate) fn wasm(text: &str) -> Program {
    Program::from_wasm(&wat::parse_str(text).unwrap()).unwrap()
}

/// Who runs the endpoint, and who its experiment.
pub(crate) struct Group {
    endpoint: EndpointIdentity,
    operator: PrivateKey,
    controller: PrivateKey,
    chain: [Certificate; 2],
}

impl Group {
    /// The operator demands this program.
    pub(crate) fn new(program: &Program) -> Self {
        let [operator, experimenter, controller] =
            std::array::from_fn(|_| PrivateKey::generate().unwrap());
        let demands = format!("monitor={};", Hex(program.digest()));
        let now = Ticks::from_system_time(SystemTime::now());
        let certificate = |kind, limits: &str, subject: &PrivateKey, signer: &PrivateKey| {
            let fields = CertificateFields {
                certificate_type: kind,
                delegation: Delegation::default(),
                path_len: None,
                not_before: Ticks(0),
                not_after: now.saturating_add(Duration::from_secs(3600)),
                description: None,
                auxiliary: Vec::new(),
                limits: CertificateLimits::parse(limits.as_bytes()).unwrap(),
            };
            Certificate::from_der(&issue(&fields, &subject.public_key(), signer).unwrap()).unwrap()
        };
        let chain = [
            certificate(CertificateType::Pubcmd, "", &controller, &experimenter),
            certificate(CertificateType::Exppriv, &demands, &experimenter, &operator),
        ];
        let endpoint = EndpointIdentity::new(LOOPBACK, &operator).unwrap();
        Self { endpoint, operator, controller, chain }
    }

    /// The endpoint, which connects there.
    pub(crate) fn endpoint(&self, controller: SocketAddr, monitors: MonitorRule) -> Endpoint {
        let endpoint = self.endpoint.endpoint(&[self.operator.public_key()]).unwrap();
        Endpoint { controllers: vec![controller], monitors, ..endpoint }
    }
}

/// Where the endpoints of a group connect to.
pub(crate) struct Controller {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Controller {
    pub(crate) async fn listen(group: &Group) -> Self {
        let mode = TrustMode::ControllerAuthenticatesEndpoint;
        let rule = PeerRule { mode, anchors: vec![group.operator.public_key()], mandatory: true };
        let identity = Identity { chain: &group.chain, key: &group.controller };
        let acceptor = TlsAcceptor::from(tls::server_config(&identity, rule).unwrap());
        Self { listener: TcpListener::bind((LOOPBACK, 0)).await.unwrap(), acceptor }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The session of the next endpoint, to which the program is supplied, with UDP socket 1.
    pub(crate) async fn start(&self, program: &Program) -> Session {
        let (stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let link = Link::new(self.acceptor.accept(stream).await.unwrap());
        let mut session = Session { link };
        let cdata = Message::Cdata { hint: b"monitor", data: program.encoded() };
        let open = Open::Udp { local: (Ipv4Addr::UNSPECIFIED, 0).into() };
        let nopen = Message::Nopen { sktid: 1, receive_buffer_len: 0x1_0000, open };
        for request in [cdata, Message::Start, nopen] {
            session.link.send(&request).await.unwrap();
            assert_eq!(session.answer().await, Outcome::SUCCESS);
        }
        session
    }
}

/// A session from its controller's side.
pub(crate) struct Session {
    link: Link<TlsStream<TcpStream>>,
}

impl Session {
    /// So many NSENDs of 64 bytes, until all have been answered, whatever the answers are.
    pub(crate) async fn send(&mut self, remote: SocketAddr, count: usize) {
        let packet = Packet::Udp { remote, data: &[7; 64] };
        let nsend = Message::Nsend { sktid: 1, time: Ticks(0), tag: 0, packet };
        for sent in 0..count + DEPTH.min(count) {
            if sent >= DEPTH.min(count) {
                self.answer().await;
            }
            if sent < count {
                self.link.send(&nsend).await.unwrap();
            }
        }
    }

    /// So many bytes by TCP socket 2, from a server of its own.
    pub(crate) async fn download(&mut self, len: usize) {
        let server = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let remote = server.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let piece = vec![7; 1 << 20];
            loop {
                // Until whoever reads has enough and leaves.
                if stream.write_all(&piece).await.is_err() {
                    break;
                }
            }
        });
        let open = Open::TcpConnect { local: (Ipv4Addr::UNSPECIFIED, 0).into(), remote };
        let nopen = Message::Nopen { sktid: 2, receive_buffer_len: 1 << 20, open };
        self.link.send(&nopen).await.unwrap();
        assert_eq!(self.answer().await, Outcome::SUCCESS);
        let mut received = 0;
        while received < len {
            let (message_type, payload) = self.link.receive().await.unwrap().unwrap();
            if message_type == MessageType::NDATA
                && let Message::Ndata { packet, .. } = Message::decode(message_type, &payload)
                && let Packet::Tcp { data, .. } = packet
            {
                received += data.len();
            }
        }
        self.link.send(&Message::Nclose { sktid: 2 }).await.unwrap();
        assert_eq!(self.answer().await, Outcome::SUCCESS);
        serving.await.unwrap();
    }

    /// The next RESULT, past what is told beside.
    async fn answer(&mut self) -> Outcome {
        loop {
            let (message_type, payload) = self.link.receive().await.unwrap().unwrap();
            if message_type == MessageType::RESULT
                && let Message::Result(outcome) = Message::decode(message_type, &payload)
            {
                return outcome;
            }
        }
    }
}
