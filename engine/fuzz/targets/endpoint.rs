//! The endpoint's side of a session: TLS with rustls, and what it has heard.
//!
//! Every record that it opens holds bytes of one message alone (spec/protocol.md 1.6). Not here: where its bytes go.

use std::io::{Read, Write};

use bench::credentials::{SNIKEY, endpoint_config};
use packetlab::message::MessageType;
use packetlab::tls::{self, ClientConfig};
use rustls::ClientConnection;
use std::sync::{Arc, LazyLock};

static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(endpoint_config);

/// Of a record.
const HEADER_LEN: usize = 5;

pub(crate) struct Endpoint {
    tls: ClientConnection,
    /// What has come of a record.
    record: Vec<u8>,
    /// All plain bytes that have come.
    pub(crate) heard: Vec<u8>,
    /// How many of them are of whole messages.
    whole_len: usize,
    /// All plain bytes that it has said.
    pub(crate) said: Vec<u8>,
    has_closed: bool,
    /// It was sent an alert, or what is no TLS.
    pub(crate) has_failed: bool,
    pub(crate) is_closed_by_peer: bool,
}

impl Endpoint {
    pub(crate) fn new() -> Self {
        let name = tls::server_name(Some(SNIKEY)).unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&CONFIG), name).unwrap();
        tls.set_buffer_limit(None);
        Self {
            tls,
            record: Vec::new(),
            heard: Vec::new(),
            whole_len: 0,
            said: Vec::new(),
            has_closed: false,
            has_failed: false,
            is_closed_by_peer: false,
        }
    }

    /// Says plain bytes, unless it has closed its side.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        if !self.has_closed && !self.has_failed {
            self.tls.writer().write_all(bytes).unwrap();
            self.said.extend_from_slice(bytes);
        }
    }

    /// Says nothing more.
    pub(crate) fn close(&mut self) {
        if !self.has_closed && !self.tls.is_handshaking() {
            self.tls.send_close_notify();
            self.has_closed = true;
        }
    }

    /// Sealed bytes that are to be sent.
    pub(crate) fn sealed(&mut self) -> Vec<u8> {
        let mut sealed = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).unwrap();
        }
        sealed
    }

    /// Takes sealed bytes, record by record.
    pub(crate) fn receive(&mut self, sealed: &[u8]) {
        self.record.extend_from_slice(sealed);
        while let Some([_, _, _, high, low]) = self.record.first_chunk().copied() {
            let len = HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
            if self.record.len() < len {
                break;
            }
            let record: Vec<u8> = self.record.drain(..len).collect();
            self.open(&record);
        }
    }

    fn open(&mut self, mut record: &[u8]) {
        while !record.is_empty() && !self.has_failed && !self.is_closed_by_peer {
            self.tls.read_tls(&mut record).unwrap();
            let Ok(state) = self.tls.process_new_packets() else {
                self.has_failed = true;
                return;
            };
            self.is_closed_by_peer = state.peer_has_closed();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            if !plain.is_empty() {
                self.tls.reader().read_exact(&mut plain).unwrap();
                self.hear(&plain);
            }
        }
    }

    /// Takes the plain bytes of one record.
    fn hear(&mut self, plain: &[u8]) {
        self.heard.extend_from_slice(plain);
        if let Some([_, high, middle, low]) = self.heard[self.whole_len..].first_chunk() {
            let end = self.whole_len + 4 + u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            assert!(self.heard.len() <= end, "a record holds bytes of two messages");
            if self.heard.len() == end {
                self.whole_len = end;
            }
        }
    }
}

/// What a mlet hears when an endpoint has said this, and how many LINFOs have begun in it.
pub(crate) fn for_mlet(mut said: &[u8]) -> (Vec<u8>, u64) {
    let (mut heard, mut linfos) = (Vec::new(), 0);
    while let Some(first) = said.first() {
        let len = said.first_chunk().map_or(4, |[_, high, middle, low]| {
            4 + u32::from_be_bytes([0, *high, *middle, *low]) as usize
        });
        let (message, rest) = said.split_at(len.min(said.len()));
        if *first == MessageType::LINFO.0 {
            linfos += 1;
        } else {
            heard.extend_from_slice(message);
        }
        said = rest;
    }
    (heard, linfos)
}
