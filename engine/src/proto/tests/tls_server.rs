//! A TLS server in memory for tests: a broker's or proxy's side of one connection.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::{ClientConfig, ServerConnection};

use crate::golden;
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;

/// The server's side.
pub(crate) struct TlsServer {
    pub(crate) connection: ServerConnection,
    /// Plaintext of each record that came, in order.
    pub(crate) records: Vec<Vec<u8>>,
    /// close_notify came.
    pub(crate) closed: bool,
}

/// The golden controller `xc` as a client that trusts agents of `bop`, and of whoever if not.
pub(crate) fn controller(trusts_bop: bool) -> Arc<ClientConfig> {
    let chain = [golden::certificate("agent_xc")];
    let identity = Identity { chain: &chain, key: &golden::private_key("xc") };
    tls::client_config(Some(&identity), agents(&["bop"][..usize::from(trusts_bop)])).unwrap()
}

fn agents(anchors: &[&str]) -> PeerRule {
    let anchors = anchors.iter().map(|name| golden::public_key(name)).collect();
    PeerRule { mode: TrustMode::Agent, anchors, mandatory: true }
}

impl TlsServer {
    /// The golden broker `rv`, whose certificate `bop` has signed, that trusts agents of `anchors`.
    pub(crate) fn new(anchors: &[&str]) -> Self {
        let chain = [golden::certificate("agent_bop_rv")];
        let identity = Identity { chain: &chain, key: &golden::private_key("rv") };
        let config = tls::server_config(&identity, agents(anchors)).unwrap();
        let connection = ServerConnection::new(config).unwrap();
        Self { connection, records: Vec::new(), closed: false }
    }

    /// Takes bytes of the client, record by record; the answer TLS itself gives, if any.
    pub(crate) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            let len = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
            let (mut record, rest) = bytes.split_at(len);
            bytes = rest;
            while !record.is_empty() {
                self.connection.read_tls(&mut record).unwrap();
            }
            self.connection.process_new_packets()?;
            let mut plaintext = vec![0; 1 << 14];
            match self.connection.reader().read(&mut plaintext) {
                Ok(0) => self.closed = true,
                Ok(len) => self.records.push(plaintext[..len].to_vec()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        Ok(())
    }

    /// What TLS wants to send.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// This plaintext in a record of its own.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.connection.writer().write_all(plaintext).unwrap();
        self.output()
    }

    /// The record that ends TLS.
    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.output()
    }

    /// All plaintext that came since the last call.
    pub(crate) fn take_plaintext(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.records).concat()
    }
}
