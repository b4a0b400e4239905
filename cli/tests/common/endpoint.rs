//! A scripted endpoint: blocking, told step by step what to do, down to bytes and TLS records.
//!
//! Whatever it reads is held to the record rule: no record holds bytes of two messages
//! (spec/protocol.md 1.6).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::sys::socket;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::frame::Framer;
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::message::PAYLOAD_LEN_MAX;
use packetlab::time::Ticks;
use packetlab::tls::{self, PeerRule};
use packetlab::trust::TrustMode;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};

use super::Home;
use super::manager::{Manager, PATIENCE, wait_until};

pub const CDATA: u8 = 0x20;
pub const START: u8 = 0x21;
pub const RESULT: u8 = 0x40;
pub const NDATA: u8 = 0x62;
pub const LINFO: u8 = 0x65;

/// RESULT of success.
pub const SUCCESS: [u8; 4] = [RESULT, 0, 0, 0];

/// Bytes of one message.
pub fn message(message_type: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[message_type], &len[1..], payload].concat()
}

/// Type of what the zoo makes up.
pub const MADE_UP: u8 = 0x41;

/// The payload of the zoo's message of this number (`payload` of `mlet-zoo.rs`).
pub fn made_up(index: usize, len: usize) -> Vec<u8> {
    let mut payload: Vec<u8> =
        (0..len).map(|at| (index ^ at ^ (at >> 8)).to_le_bytes()[0]).collect();
    payload[..4].copy_from_slice(&u32::try_from(index).unwrap().to_be_bytes());
    payload
}

/// Who an endpoint is.
pub struct Identity {
    pub chain: Vec<Certificate>,
    pub key: PrivateKey,
}

impl Identity {
    /// An endpoint of `operator`.
    pub fn of(operator: &PrivateKey) -> Self {
        let key = PrivateKey::generate().unwrap();
        let chain = vec![certificate(CertificateType::Subcmd, &key.public_key(), operator)];
        Self { chain, key }
    }
}

/// A certificate without limits that is valid for ever.
pub fn certificate(kind: CertificateType, subject: &PublicKey, signer: &PrivateKey) -> Certificate {
    certificate_with(kind, subject, signer, CertificateLimits::default(), Ticks::MAX)
}

pub fn certificate_with(
    certificate_type: CertificateType,
    subject: &PublicKey,
    signer: &PrivateKey,
    limits: CertificateLimits,
    not_after: Ticks,
) -> Certificate {
    let fields = CertificateFields {
        certificate_type,
        delegation: Delegation {
            exppriv: false,
            reppriv: certificate_type == CertificateType::Delpriv,
        },
        path_len: None,
        not_before: Ticks(0),
        not_after,
        description: None,
        auxiliary: Vec::new(),
        limits,
    };
    Certificate::from_der(&issue(&fields, subject, signer).unwrap()).unwrap()
}

/// How an endpoint connects; can be used any number of times and from several threads.
#[derive(Clone)]
pub struct Dial {
    pub address: SocketAddr,
    source: Option<IpAddr>,
    snikey: Option<String>,
    config: Arc<ClientConfig>,
}

impl Home {
    /// A good endpoint of this home's operator that asks for snikey `hello`.
    pub fn dial(&self, manager: &Manager) -> Dial {
        Dial::to(manager.address).with(&Identity::of(&self.keys.operator))
    }
}

impl Dial {
    /// An endpoint without certificate that asks for snikey `hello`.
    pub fn to(address: SocketAddr) -> Self {
        let config = tls::client_config(None, any_controller()).unwrap();
        Self { address, source: None, snikey: Some("hello".into()), config }
    }

    /// Presents this identity.
    pub fn with(mut self, identity: &Identity) -> Self {
        let Identity { chain, key } = identity;
        let identity = tls::Identity { chain, key };
        self.config = tls::client_config(Some(&identity), any_controller()).unwrap();
        self
    }

    /// Uses this TLS configuration instead.
    pub fn configured(mut self, config: ClientConfig) -> Self {
        self.config = Arc::new(config);
        self
    }

    /// The TLS configuration, to be changed.
    pub fn config(&self) -> ClientConfig {
        ClientConfig::clone(&self.config)
    }

    /// Asks for this snikey, or sends no SNI.
    pub fn asking(mut self, snikey: Option<&str>) -> Self {
        self.snikey = snikey.map(Into::into);
        self
    }

    /// Connects from `127.0.0.x`.
    pub fn from(mut self, last: u8) -> Self {
        self.source = Some(Ipv4Addr::new(127, 0, 0, last).into());
        self
    }

    /// Connects, no more.
    pub fn connect(&self) -> Endpoint {
        self.try_connect().unwrap()
    }

    pub fn try_connect(&self) -> io::Result<Endpoint> {
        let socket =
            Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&self.address.into(), PATIENCE)?;
        self.over(socket.into())
    }

    /// An endpoint that a proxy has connected with the manager through this.
    pub fn over(&self, tcp: TcpStream) -> io::Result<Endpoint> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let name = tls::server_name(self.snikey.as_deref()).unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        Ok(Endpoint {
            tcp,
            tls,
            framer: Framer::new(PAYLOAD_LEN_MAX),
            rule: RecordRule::default(),
            records: 0,
        })
    }

    /// Connects and ends the TLS handshake.
    #[track_caller]
    pub fn handshake(&self) -> Endpoint {
        let mut endpoint = self.connect();
        endpoint.handshake().unwrap();
        endpoint
    }

    /// Connects, ends the handshake and agrees to everything until START.
    #[track_caller]
    pub fn session(&self) -> Endpoint {
        let mut endpoint = self.handshake();
        endpoint.set_up().unwrap();
        endpoint
    }

    /// Asserts that a session is had and echoes, then ends it.
    #[track_caller]
    pub fn is_served(&self) {
        let mut endpoint = self.session();
        endpoint.echoes(b"are you there?");
        endpoint.close();
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    }

    /// How a connection that must be refused ends.
    pub fn refusal(&self) -> End {
        let mut endpoint = self.connect();
        match endpoint.handshake() {
            Err(end) => end,
            Ok(()) => endpoint.receive().expect_err("a refusal"),
        }
    }
}

fn any_controller() -> PeerRule {
    let mode = TrustMode::EndpointAuthenticatesController;
    PeerRule { mode, anchors: Vec::new(), mandatory: true }
}

/// How the controller's side ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// close_notify.
    CloseNotify,
    /// FIN without one.
    Fin,
    Reset,
    /// This TLS alert.
    Alert(u8),
    /// Nothing came for as long as patience lasts.
    Silence,
    Other(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Fin,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silence,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<rustls::Error> for End {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::Alert(alert.into()),
            error => Self::Other(error.to_string()),
        }
    }
}

/// One connection.
pub struct Endpoint {
    pub tcp: TcpStream,
    tls: ClientConnection,
    framer: Framer,
    rule: RecordRule,
    /// Records with application data that came.
    pub records: usize,
}

impl Endpoint {
    pub fn handshake(&mut self) -> Result<(), End> {
        while self.tls.is_handshaking() {
            self.flush()?;
            if self.tls.is_handshaking() {
                self.read_record()?;
            }
        }
        Ok(self.flush()?)
    }

    /// Answers programs and START with success, and returns the programs as they came.
    pub fn set_up(&mut self) -> Result<Vec<Vec<u8>>, End> {
        let mut programs = Vec::new();
        loop {
            let (message_type, payload) = self.receive()?;
            self.try_send(&SUCCESS)?;
            match message_type {
                CDATA => programs.push(payload),
                START => return Ok(programs),
                other => return Err(End::Other(format!("message {other:#04x} in the set-up"))),
            }
        }
    }

    /// The next message.
    pub fn receive(&mut self) -> Result<(u8, Vec<u8>), End> {
        loop {
            if let Some((message_type, payload)) = self.framer.next().unwrap() {
                return Ok((message_type.0, payload.to_vec()));
            }
            self.read_record()?;
        }
    }

    /// The payload of the next message, as text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        String::from_utf8(self.receive().unwrap().1).unwrap()
    }

    /// Reads one record and takes what is in it.
    fn read_record(&mut self) -> Result<(), End> {
        let mut record = vec![0; 5];
        // Reads again what was interrupted, as a stop of this process does where there is a timeout (signal(7)).
        self.tcp.read_exact(&mut record)?;
        let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(5 + len, 0);
        self.tcp.read_exact(&mut record[5..])?;
        let mut rest = &record[..];
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).unwrap();
            let processed = self.tls.process_new_packets();
            // An alert of ours may tell the controller what was wrong.
            self.flush()?;
            processed?;
        }
        let mut piece = vec![0; 1 << 14];
        match self.tls.reader().read(&mut piece) {
            Ok(0) => Err(End::CloseNotify),
            Ok(len) => {
                self.records += 1;
                self.rule.check(&piece[..len]);
                self.framer.push(&piece[..len]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends these bytes in records of their own.
    #[track_caller]
    pub fn send(&mut self, plaintext: &[u8]) {
        self.try_send(plaintext).unwrap();
    }

    pub fn try_send(&mut self, plaintext: &[u8]) -> io::Result<()> {
        for piece in plaintext.chunks(1 << 14) {
            self.tls.writer().write_all(piece)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Sends these bytes in one record, which they must fit into; returns its length on the wire.
    pub fn send_record(&mut self, plaintext: &[u8]) -> usize {
        let record = self.seal(plaintext);
        self.send_raw(&record);
        record.len()
    }

    /// These bytes in one record, which they must fit into, not sent yet.
    pub fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        assert!(plaintext.len() <= 1 << 14);
        self.tls.writer().write_all(plaintext).unwrap();
        self.unsent()
    }

    /// Bytes sent that the manager's kernel has not acknowledged.
    pub fn untaken_len(&self) -> usize {
        socket::untaken_len(&self.tcp)
    }

    /// Waits until the manager's kernel takes no more of what was sent; returns how much it has not taken.
    pub fn await_full_receiver(&self) -> usize {
        let (mut last, mut since) = (self.untaken_len(), Instant::now());
        wait_until("the manager's kernel takes no more", || {
            let now = self.untaken_len();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_millis(200)
        });
        last
    }

    /// Sends bytes that are no TLS.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).unwrap();
    }

    /// Reads the controller's flight and returns the answer to it, unsent.
    pub fn second_flight(&mut self) -> io::Result<Vec<u8>> {
        while self.tls.is_handshaking() {
            if self.tls.read_tls(&mut self.tcp)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(self.hello())
    }

    /// The ClientHello as it would be sent.
    pub fn hello(&mut self) -> Vec<u8> {
        self.unsent()
    }

    /// What TLS wants to send.
    fn unsent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                written => drop(written?),
            }
        }
        Ok(())
    }

    /// Asserts that a message comes back.
    #[track_caller]
    pub fn echoes(&mut self, payload: &[u8]) {
        self.send(&message(NDATA, payload));
        assert_eq!(self.receive().unwrap(), (NDATA, payload.to_vec()));
    }

    pub fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
        // The controller may be gone already.
        let _ = self.flush();
    }

    /// close_notify and FIN.
    pub fn close(&mut self) {
        self.send_close_notify();
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// These bytes and close_notify in one segment, so that no mlet answers before the end is read; then FIN.
    pub fn close_after(&mut self, plaintext: &[u8]) {
        self.tls.writer().write_all(plaintext).unwrap();
        self.close();
    }

    /// Closes so that the controller gets a reset.
    pub fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self.tcp, sockopt::Linger, &linger).unwrap();
    }

    /// Reads until the controller's side ends, and returns how many messages came before.
    pub fn read_to_end(&mut self) -> (usize, End) {
        let mut messages = 0;
        loop {
            match self.receive() {
                Ok(_) => messages += 1,
                Err(end) => return (messages, end),
            }
        }
    }

    /// Asserts that nothing at all comes for this long.
    #[track_caller]
    pub fn is_silent_for(&mut self, time: Duration) {
        self.tcp.set_read_timeout(Some(time)).unwrap();
        let start = Instant::now();
        let mut byte = [0];
        let kind = self.tcp.peek(&mut byte).map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::WouldBlock), "after {:?}", start.elapsed());
        self.tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// The chain the controller presented, as DER.
    pub fn controller_chain(&self) -> Vec<Vec<u8>> {
        let chain = self.tls.peer_certificates().unwrap();
        chain.iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// Everything the controller sends until its side ends, below TLS.
    pub fn raw_rest(&mut self) -> Result<Vec<u8>, End> {
        let mut bytes = Vec::new();
        self.tcp.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Holds records to the rule that none has bytes of two messages.
#[derive(Default)]
pub struct RecordRule {
    header: Vec<u8>,
    payload_left: usize,
}

impl RecordRule {
    pub fn check(&mut self, mut piece: &[u8]) {
        let header_len = piece.len().min(4 - self.header.len());
        self.header.extend_from_slice(&piece[..header_len]);
        if header_len > 0 && self.header.len() == 4 {
            let [_, high, middle, low] = self.header[..] else { unreachable!() };
            self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
        }
        piece = &piece[header_len..];
        assert!(piece.len() <= self.payload_left, "a record holds bytes of two messages");
        self.payload_left -= piece.len();
        if self.header.len() == 4 && self.payload_left == 0 {
            self.header.clear();
        }
    }
}
