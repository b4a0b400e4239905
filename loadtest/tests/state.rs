//! `pktfleet endpoint --state`: what certificates have used up outlives the process, however it ends.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

#[path = "hosts/waiting.rs"]
mod waiting;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::PrivateKey;
use packetlab::message::{Message, MessageType, Open, Packet, Status};
use packetlab::time::Ticks;
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;
use rustls::{ServerConnection, StreamOwned};

use waiting::await_that;

const PKTFLEET: &str = env!("CARGO_BIN_EXE_pktfleet");
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An operator's endpoint, with its credentials in a folder, and a controller whose chain has limits.
struct Scene {
    folder: PathBuf,
    listener: TcpListener,
    controller: PrivateKey,
    chain: Vec<Certificate>,
}

fn certificate(
    certificate_type: CertificateType,
    limits: &str,
    subject: &PrivateKey,
    signer: &PrivateKey,
) -> Certificate {
    let fields = CertificateFields {
        certificate_type,
        delegation: Delegation::default(),
        path_len: None,
        not_before: Ticks(0),
        not_after: Ticks::MAX,
        description: None,
        auxiliary: Vec::new(),
        limits: CertificateLimits::parse(limits.as_bytes()).unwrap(),
    };
    Certificate::from_der(&issue(&fields, &subject.public_key(), signer).unwrap()).unwrap()
}

impl Scene {
    fn new(name: &str, limits: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("state-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let key = || PrivateKey::generate().unwrap();
        let (operator, endpoint, experimenter, controller) = (key(), key(), key(), key());
        let subcmd = certificate(CertificateType::Subcmd, "", &endpoint, &operator);
        for (name, contents) in [
            ("ep", endpoint.to_pem().to_string()),
            ("ep.subcmd", subcmd.to_pem()),
            ("eop.pub", operator.public_key().to_pem()),
        ] {
            fs::write(folder.join(name), contents).unwrap();
        }
        let chmod = Command::new("chmod").arg("600").arg(folder.join("ep")).status().unwrap();
        assert!(chmod.success());
        let chain = vec![
            certificate(CertificateType::Pubcmd, "", &controller, &experimenter),
            certificate(CertificateType::Exppriv, limits, &experimenter, &operator),
        ];
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        Self { folder, listener, controller, chain }
    }

    fn totals(&self) -> PathBuf {
        self.folder.join("state/totals")
    }

    fn endpoint(&self) -> Running {
        let controller = self.listener.local_addr().unwrap().to_string();
        let mut command = Command::new(PKTFLEET);
        command.args(["endpoint", "--address", "127.8.0.4", "--controller", &controller]);
        command.args(["--key", "ep", "--subcmd", "ep.subcmd", "--operator", "eop.pub"]);
        command.args(["--state", "state"]).current_dir(&self.folder);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    /// The session of an endpoint, with a UDP socket.
    fn session(&self) -> Session {
        self.try_session().expect("a session")
    }

    /// The same, unless the endpoint leaves before START is answered.
    fn try_session(&self) -> Option<Session> {
        let mode = TrustMode::ControllerAuthenticatesEndpoint;
        let rule = PeerRule { mode, anchors: Vec::new(), mandatory: true };
        let identity = Identity { chain: &self.chain, key: &self.controller };
        let config = tls::server_config(&identity, rule).unwrap();
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = Session(StreamOwned::new(ServerConnection::new(config).unwrap(), stream));
        assert_eq!(session.try_ask(&Message::Start)?, Status::SUCCESS);
        let local = SocketAddr::from(([0, 0, 0, 0], 0));
        let open = Open::Udp { local };
        let open = Message::Nopen { sktid: 1, receive_buffer_len: 4096, open };
        assert_eq!(session.ask(&open), Status::SUCCESS);
        Some(session)
    }
}

/// A process that is gone with the value.
struct Running(Option<Child>);

impl Running {
    fn signal(mut self, signal: Signal) -> Output {
        let child = self.0.take().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        child.wait_with_output().unwrap()
    }

    fn ended(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Session(StreamOwned<ServerConnection, TcpStream>);

impl Session {
    fn ask(&mut self, request: &Message<'_>) -> Status {
        self.try_ask(request).expect("an answer")
    }

    /// The answer to a request, past notifications; none if the session ends.
    fn try_ask(&mut self, request: &Message<'_>) -> Option<Status> {
        let mut encoded = Vec::new();
        request.encode(&mut encoded).unwrap();
        self.0.write_all(&encoded).and_then(|()| self.0.flush()).ok()?;
        loop {
            let mut header = [0; 4];
            self.0.read_exact(&mut header).ok()?;
            let [message_type, len @ ..] = header;
            let len = len.into_iter().fold(0, |len, byte| len << 8 | usize::from(byte));
            let mut payload = vec![0; len];
            self.0.read_exact(&mut payload).ok()?;
            if let Message::Result(outcome) = Message::decode(MessageType(message_type), &payload) {
                return Some(outcome.status());
            }
        }
    }

    fn send(&mut self, server: &UdpSocket) -> Status {
        self.try_send(server).expect("an answer")
    }

    fn try_send(&mut self, server: &UdpSocket) -> Option<Status> {
        let packet = Packet::Udp { remote: server.local_addr().unwrap(), data: b"x" };
        self.try_ask(&Message::Nsend { sktid: 1, time: Ticks(0), tag: 1, packet })
    }
}

#[test]
fn what_a_certificate_has_used_up_outlives_the_endpoint_however_it_ends() {
    let scene = Scene::new("outlives", "max_send_pkt=4;");
    let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    // Killed in the middle of a session, but not in the second in which something was sent.
    let endpoint = scene.endpoint();
    let mut session = scene.session();
    for _ in 0..2 {
        assert_eq!(session.send(&server), Status::SUCCESS);
    }
    await_that("what was sent is written", || {
        fs::read_to_string(scene.totals()).is_ok_and(|text| text.contains(" 2 2 0 0\n"))
    });
    endpoint.signal(Signal::SIGKILL);
    // Ended by a signal at once after something was sent.
    let endpoint = scene.endpoint();
    let mut session = scene.session();
    assert_eq!(session.send(&server), Status::SUCCESS);
    let ended = endpoint.signal(Signal::SIGINT);
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let endpoint = scene.endpoint();
    let mut session = scene.session();
    assert_eq!(session.send(&server), Status::SUCCESS);
    assert_eq!(session.send(&server), Status::ESKTPKTDENY);
    drop(session);
    endpoint.ended();
}

/// What stands for a full disk: the file cannot be written, because a directory has its name.
fn fill_disk(scene: &Scene) {
    fs::create_dir_all(scene.folder.join("state/totals.new")).unwrap();
}

#[test]
fn nothing_is_granted_while_what_is_used_up_cannot_be_kept() {
    let scene = Scene::new("full", "max_send_pkt=4;");
    let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = scene.endpoint();
    assert_eq!(scene.session().send(&server), Status::SUCCESS);
    endpoint.ended();
    fill_disk(&scene);
    for _ in 0..2 {
        let endpoint = scene.endpoint();
        assert!(scene.try_session().is_none(), "a session began");
        let ended = endpoint.ended();
        let log = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{log}");
        assert!(log.contains("cannot be written"), "{log}");
    }
}

#[test]
fn a_session_ends_when_what_it_uses_up_can_no_longer_be_kept_and_the_endpoint_says_so() {
    let scene = Scene::new("fills", "max_send_pkt=4000000;");
    let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = scene.endpoint();
    let mut session = scene.session();
    assert_eq!(session.send(&server), Status::SUCCESS);
    fill_disk(&scene);
    await_that("the session ends", || session.try_send(&server).is_none());
    let ended = endpoint.ended();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(6), "{log}");
    assert!(log.contains("cannot be written"), "{log}");
}

#[test]
fn an_endpoint_with_a_damaged_file_of_totals_does_not_start_and_leaves_it_alone() {
    let scene = Scene::new("damaged", "");
    fs::create_dir(scene.folder.join("state")).unwrap();
    let damaged = "pktfleet totals 1\nend 7\n";
    fs::write(scene.totals(), damaged).unwrap();
    let ended = scene.endpoint().ended();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(6), "{log}");
    assert!(log.contains("state/totals: line 2 is no count of the lines before"), "{log}");
    assert_eq!(fs::read_to_string(scene.totals()).unwrap(), damaged);
}
