//! The server's side of a TLS connection from `pktxpmgr`: what a scripted broker or proxy is made of.
//! Blocking, told step by step what to do, down to bytes and records.
//!
//! Whatever it reads is held to the record rule: no record holds bytes of two messages
//! (spec/protocol.md 1.6).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use packetlab::certificate::CertificateType;
use packetlab::frame::Framer;
use packetlab::key::{KeyId, PrivateKey};
use packetlab::message::PAYLOAD_LEN_MAX;
use packetlab::tls::{self, PeerRule};
use packetlab::trust::TrustMode;
use rustls::{ServerConfig, ServerConnection};

use super::endpoint::{End, RecordRule, certificate};
use super::manager::PATIENCE;

/// A broker or proxy whose agent certificate `signer` has signed. With or without a client certificate.
pub fn agent(signer: &PrivateKey, client_must_have_one: bool) -> Arc<ServerConfig> {
    let key = PrivateKey::generate().unwrap();
    let chain = [certificate(CertificateType::Agent, &key.public_key(), signer)];
    let rule =
        PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: client_must_have_one };
    tls::server_config(&tls::Identity { chain: &chain, key: &key }, rule).unwrap()
}

/// Closes so that the other side gets a reset.
pub fn reset(tcp: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&tcp, sockopt::Linger, &linger).unwrap();
}

/// One connection.
pub struct TlsPeer {
    pub tcp: TcpStream,
    tls: ServerConnection,
    framer: Framer,
    rule: RecordRule,
}

impl TlsPeer {
    /// Over a connection that was accepted; nothing is read yet.
    pub fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> Self {
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        let tls = ServerConnection::new(config).unwrap();
        Self { tcp, tls, framer: Framer::new(PAYLOAD_LEN_MAX), rule: RecordRule::default() }
    }

    pub fn handshake(&mut self) -> Result<(), End> {
        while self.tls.is_handshaking() {
            self.read_record()?;
        }
        Ok(())
    }

    /// The server name asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.tls.server_name()
    }

    /// Key id of the client's only certificate.
    pub fn client(&self) -> Option<KeyId> {
        let chain = self.tls.peer_certificates()?;
        assert_eq!(chain.len(), 1);
        let leaf = packetlab::certificate::Certificate::from_der(&chain[0]).unwrap();
        assert_eq!(leaf.certificate_type, CertificateType::Agent);
        Some(leaf.subject_key_id)
    }

    /// Asserts that nothing more has come, nor the end: what was published here is so still.
    #[track_caller]
    pub fn assert_silent(&self) {
        self.tcp.set_nonblocking(true).unwrap();
        let heard = self.tcp.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::WouldBlock));
        self.tcp.set_nonblocking(false).unwrap();
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

    /// Reads one record, header first and then exactly its body, and takes what is in it.
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
            let output = self.output();
            self.tcp.write_all(&output)?;
            processed?;
        }
        let mut piece = vec![0; 1 << 14];
        match self.tls.reader().read(&mut piece) {
            Ok(0) => Err(End::CloseNotify),
            Ok(len) => {
                self.rule.check(&piece[..len]);
                self.framer.push(&piece[..len]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// This plaintext in a record of its own, not sent yet.
    pub fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plaintext).unwrap();
        self.output()
    }

    /// The record that ends TLS, not sent yet.
    pub fn close_notify(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.output()
    }

    pub fn send(&mut self, plaintext: &[u8]) -> Result<(), End> {
        let record = self.seal(plaintext);
        Ok(self.tcp.write_all(&record)?)
    }

    fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }
}
